"""The parts of a page that come from config.json and summary.json, the same for a run, a study and a sweep."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fdl.report.describe import Layer
from fdl.report.formatting import Style, duration, number, style_of, text
from fdl.report.report import Headline, Page, Table, list_panels
from fdl.rundir.rows import Row
from fdl.tasks.panels import figures
from fdl.tasks.task import DrawPanel, Panel, Task, View

Record = Mapping[str, Any]
"""A JSON object: config.json, summary.json."""
SPLITS = (("train_examples", "training"), ("eval_examples", "validation"), ("test_examples", "test"))


def record_page(
    config: Record,
    summary: Record,
    *,
    monitor: str,
    style: Style,
    doc: str = "",
    layers: Sequence[Layer] = (),
    sections: Iterable[DrawPanel] = (),
) -> Page:
    """Fill the page of something that was trained.

    Args:
        config: config.json: experiment, settings {dotted name: value}, overrides ["name=value"], and what else is on record.
        summary: summary.json: status, steps, data, metrics {"test/accuracy": ...}, baselines {method: {...}}, timing, ...
        monitor: the metric of the headline: "accuracy" is the summary's "test/accuracy".
        style: how metrics are shown.
        doc: the experiment's docstring.
        layers: of the model; their table comes after the sections.
        sections: further sections, after the results.
    """
    return Page(
        title=text(config.get("experiment", "a run")),
        status=text(summary.get("status", "")),
        doc=doc,
        banners=banners(summary),
        headline=headline(summary, monitor, style),
        facts=facts(summary, layers),
        sections=[
            functools.partial(results, summary, monitor, style),
            *sections,
            functools.partial(layer_table, layers),
            functools.partial(configuration, config),
            functools.partial(provenance, config, summary),
        ],
    )


def run_page(
    config: Record,
    summary: Record,
    view: View,
    task: Task,
    *,
    history: Sequence[Row],
    layers: Sequence[Layer] = (),
    doc: str = "",
    test: bool = True,
) -> Page:
    """Fill the page of a single run: its results, its curves, and what its task shows of the trained model.

    Args:
        test: whether the test split is looked at, which the task's panels show.
    """
    sections: list[DrawPanel] = [functools.partial(training, history, task.monitor, summary.get("best_step"))]
    if test:
        sections += list_panels(lambda: task.panels(view))
    return record_page(
        config, summary, monitor=task.quoted_metric(), style=style_of(task), doc=doc, layers=layers, sections=sections
    )


def training(history: Sequence[Row], monitor: str, best_step: int | None) -> Panel:
    """Draw what was logged while a run trained."""
    figure = figures.curves(history, monitor, best_step)
    if figure is None:
        return Panel("Training", "Nothing was logged.")
    epochs = [row["epoch"] for row in history if isinstance(row.get("epoch"), int | float)]
    length = f"{history[-1]['step']:,} steps" + (f", {epochs[-1]:.3g} epochs" if epochs else "")
    note = "Training figures are of single batches, augmentation and dropout on; the strong line is their running mean."
    return Panel("Training", f"{length}. {note}", figure)


def _of_test(metrics: Record) -> dict[str, Any]:
    return {name.removeprefix("test/"): value for name, value in metrics.items() if name.startswith("test/")}


def headline(summary: Record, monitor: str, style: Style) -> Headline | None:
    """Return the monitored metric on the test split with the baselines', None where there is neither."""
    metrics, words = _of_test(summary.get("metrics", {})), monitor.replace("_", " ")
    rivals = [
        (name, number(found[f"test/{monitor}"], style(monitor)))
        for name, found in summary.get("baselines", {}).items()
        if f"test/{monitor}" in found
    ]
    if monitor in metrics:
        return Headline(f"test {words}", number(metrics[monitor], style(monitor), unit=True), rivals)
    return Headline(f"no test {words}", "", rivals) if rivals else None


def banners(summary: Record) -> list[str]:
    """Return the warnings a reader needs first: stand-in data, and rows that are in two splits."""
    data = summary.get("data", {})
    found = []
    if data.get("standin"):
        found.append(
            f"Stand-in data: this run used {text(data.get('name', 'a stand-in'))}, made by code in place of the real set. "
            "Its figures say nothing about the real one."
        )
    leaks = _leaks(summary)
    if leaks:
        rows = " and ".join(f"{count:,} {split} rows" for split, count in leaks.items())
        found.append(
            f"Leak: {rows} are in the training split as well, byte for byte. Figures on them say how well the model "
            "remembers, not how well it generalises."
        )
    return found


def _leaks(summary: Record) -> dict[str, int]:
    """Return the splits that share rows with training, such as {"test": 12}."""
    leaks = summary.get("data", {}).get("leaks") or {}
    return {split: count for split, count in leaks.items() if count}


def facts(summary: Record, layers: Sequence[Layer] = ()) -> list[tuple[str, str]]:
    """Return the run at a glance: data, sizes, steps, devices, times, memory."""
    data = summary.get("data", {})
    sizes = [f"{data[key]:,} {word}" for key, word in SPLITS if data.get(key)]
    sizes += [f"{count:,} of {split} in training too" for split, count in _leaks(summary).items()]
    found = [
        ("data", text(data.get("name", ""))),
        ("read from", " · ".join(text(data[key]) for key in ("source", "where") if data.get(key))),
        ("examples", " · ".join(sizes)),
        ("steps", f"{summary['steps']:,}" if isinstance(summary.get("steps"), int) else ""),
        ("parameters", f"{sum(layer.params for layer in layers):,}" if layers else ""),
        ("devices", text(summary.get("devices", ""))),
    ]
    found += [
        (name.replace("_", " "), number(value) if name.endswith("per_second") else duration(value))
        for name, value in summary.get("timing", {}).items()
        if isinstance(value, int | float)
    ]
    if isinstance(summary.get("peak_rss_bytes"), int):
        found.append(("peak memory", f"{summary['peak_rss_bytes'] / 2**20:,.0f} MiB"))
    return [(name, value) for name, value in found if value]


def results(summary: Record, monitor: str, style: Style) -> Panel | None:
    """Tabulate every method (row) and metric (column) on the test split, the monitored metric first."""
    metrics = _of_test(summary.get("metrics", {}))
    rows = {method: _of_test(found) for method, found in summary.get("baselines", {}).items()}
    rows = {"this model": metrics, **rows} if metrics else rows
    names = sorted({name for row in rows.values() for name in row}, key=lambda name: (name != monitor, name))
    if not names:
        return None
    units = [f" ({style(name).unit})" if style(name).unit else "" for name in names]
    return Table(
        "Results",
        "On the test split, every example counted once.",
        header=("", *(f"{name.replace('_', ' ')}{unit}" for name, unit in zip(names, units, strict=True))),
        rows=[
            (method, *(number(row[name], style(name)) if name in row else "" for name in names))
            for method, row in rows.items()
        ],
        strong=frozenset({0} if metrics else ()),
    )


def layer_table(layers: Sequence[Layer]) -> Panel | None:
    """Tabulate the layers and their totals."""
    if not layers:
        return None
    rows = [
        (layer.name, layer.kind, "x".join(map(str, layer.shape)), f"{layer.params:,}", f"{layer.flops:,}")
        for layer in layers
    ]
    total = ("total", "", "", f"{sum(x.params for x in layers):,}", f"{sum(x.flops for x in layers):,}")
    return Table(
        "Parameters",
        "FLOPs are of one forward pass of one training example.",
        header=("layer", "kind", "output shape", "parameters", "FLOPs"),
        rows=[*rows, total],
        strong=frozenset({len(rows)}),
    )


def configuration(config: Record) -> Panel | None:
    """Tabulate the settings, those that the command line changed in bold."""
    overridden = {str(entry).partition("=")[0].strip() for entry in config.get("overrides") or ()}
    settings = list(config.get("settings", {}).items())
    if not settings:
        return None
    return Table(
        "Configuration",
        rows=[(name, text(value), "set by --set" if name in overridden else "") for name, value in settings],
        strong=frozenset(i for i, (name, _) in enumerate(settings) if name in overridden),
        code=True,
    )


def provenance(config: Record, summary: Record) -> Panel | None:
    """Tabulate the rest of config.json, and the digests."""
    shown = {key: value for key, value in config.items() if key not in ("experiment", "settings", "overrides", "data")}
    shown |= {"data_sha256": summary.get("data", {}).get("sha256"), "state_sha256": summary.get("state_sha256")}
    rows = [(name.replace("_", " "), text(value)) for name, value in shown.items() if value not in (None, "", {}, [])]
    return Table("Provenance", rows=rows, code=True) if rows else None
