"""report.html: one page, complete in itself, that says what was trained, on what, how well, and what the model does."""

from __future__ import annotations

import datetime
import itertools
import math
import operator
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from fdl.files import write_all
from fdl.tasks.panels import figures
from fdl.tasks.task import Panel
from fdl.types import Metrics

MOST_FAULTS = 20
"""Panels that may fail before the rest are given up (an iterator could fail for ever)."""
SUMMED = ("params", "count", "flops")
"""Columns of the parameter table that have a total."""


def write_report(
    workdir: Path,
    *,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    monitor: str = "loss",
    doc: str = "",
    history: Sequence[Mapping[str, Any]] | None = (),
    parameters: Sequence[Mapping[str, Any]] = (),
    panels: Iterable[Panel] = (),
) -> Path:
    """Writes workdir/report.html, whole or not at all, and returns its path.

    What is missing is left out of the page. A panel that raises, or whose figure cannot be drawn, is logged, and its
    error stands in its place. Everything is escaped.

    Args:
        workdir: the run directory, made if need be.
        config: as config.json: experiment, settings {dotted name: value}, overrides ["name=value"], command, seed,
            versions {package: version}, git_commit, and whatever else should be on record.
        summary: as summary.json: status, steps, best_step, data {name, source, where, train_examples, eval_examples,
            test_examples, sha256}, metrics {"test/accuracy": ...}, baselines {method: {"test/accuracy": ...}},
            timing {name: seconds, examples_per_second}, peak_rss_bytes, devices, state_sha256. Data whose name ends
            with "standin" gets a banner.
        monitor: the metric of the headline: "accuracy" is the summary's "test/accuracy", the history's "eval/accuracy".
        doc: the experiment's docstring; its first line stands under the name.
        history: the rows of metrics.jsonl, in order of step; None: there is no single run to draw.
        parameters: a row a layer, its keys the columns (those of the first row); params, count and flops are summed.
        panels: the task's own sections.

    Raises:
        UserError: `workdir` cannot be written to.
    """
    import jinja2

    metrics = _of_test(summary.get("metrics", {}))
    baselines = {method: _of_test(found) for method, found in summary.get("baselines", {}).items()}
    data = dict(summary.get("data", {}))
    overridden = {str(entry).partition("=")[0].strip() for entry in config.get("overrides") or ()}
    about, _, more = doc.strip().partition("\n")
    training = operator.call, [lambda: _training(history or (), monitor, summary.get("best_step"))]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        title=_text(config.get("experiment", "a run")),
        about=about,
        more=textwrap.dedent(more).strip(),
        status=_text(summary.get("status", "")),
        monitor=monitor.replace("_", " "),
        single=history is not None,
        headline=number(metrics[monitor], monitor) if monitor in metrics else "",
        naive=[(name, number(found[monitor], monitor)) for name, found in baselines.items() if monitor in found],
        data=_text(data.get("name", "a stand-in")),
        stand_in=_text(data.get("name", "")).lower().endswith("standin"),
        facts=_facts(summary, data, parameters),
        results=_results(metrics, baselines, monitor),
        sections=[*(_sections(map(*training)) if history is not None else ()), *_sections(panels)],
        parameters=_parameters(parameters),
        config=[(name, _text(value), name in overridden) for name, value in config.get("settings", {}).items()],
        provenance=_provenance(config, summary, data),
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    return write_all(workdir, {"report.html": html.encode("utf-8", "backslashreplace")})[0]


def _of_test(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("test/"): value for name, value in metrics.items() if name.startswith("test/")}


def _sections(panels: Iterable[Panel]) -> Iterator[dict[str, Any]]:
    """Panels as the template wants them; one that raises becomes its error, and the next is asked for."""
    blank: dict[str, Any] = {"caption": "", "image": "", "width": 0, "header": (), "rows": (), "text": "", "error": ""}
    iterator, faults = iter(panels), 0
    while faults < MOST_FAULTS:
        title = "A panel that failed"
        try:
            panel = next(iterator)
            title = panel.title
            rows = [[_cell(value) for value in row] for row in panel.rows]
            right = [number for _, number in rows[-1]] if rows else []
            section = blank | {
                "title": title,
                "caption": panel.caption,
                "image": figures.data_uri(panel.figure) if panel.figure is not None else "",
                "width": round(panel.figure.get_figwidth() * 100) if panel.figure is not None else 0,
                "header": list(itertools.zip_longest(map(_breakable, panel.header), right[: len(panel.header)])),
                "rows": rows,
                "text": panel.text,
            }
        except StopIteration:
            return
        except Exception as error:  # a drawing must not cost the report, whatever is wrong with it
            faults += 1
            logging.exception("report: %s", title)
            section = blank | {"title": title, "error": f"{type(error).__name__}: {error}"}
        yield section


def _training(history: Sequence[Mapping[str, Any]], monitor: str, best_step: int | None) -> Panel:
    figure = figures.curves(history, monitor, best_step)
    if figure is None:
        return Panel("Training", "Nothing was logged.")
    epochs = [row["epoch"] for row in history if isinstance(row.get("epoch"), int | float)]
    length = f"{history[-1]['step']:,} steps" + (f", {epochs[-1]:.3g} epochs" if epochs else "")
    text = "Training figures are of single batches, augmentation and dropout on; the strong line is their running mean."
    return Panel("Training", f"{length}. {text}", figure)


def number(value: Any, name: str = "") -> str:
    """A metric as a person reads it: shares in percent, the rest to four digits."""
    if not isinstance(value, int | float):
        return _text(value)
    if name.rpartition("/")[2] in ("accuracy", "top5_accuracy", "precision", "recall") and math.isfinite(value):
        return f"{value:.2%}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """43.2 -> "43.2 s", 185 -> "3 min 5 s", 4000 -> "1 h 6 min"."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) if value else "()"
    return "none" if value is None else str(value)


def _cell(value: Any) -> tuple[str, bool]:
    """(text, whether it is a number and stands to the right)."""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _text(value)
    return text, re.fullmatch(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?\s?%?", text) is not None


def _breakable(name: Any) -> str:
    """A column's name, which may be broken after an underscore."""
    return _text(name).replace("_", "_\N{ZERO WIDTH SPACE}")


def _facts(
    summary: Mapping[str, Any], data: Mapping[str, Any], parameters: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """The run at a glance."""
    timing = summary.get("timing", {})
    sizes = [
        f"{data[key]:,} {word}"
        for key, word in (("train_examples", "training"), ("eval_examples", "validation"), ("test_examples", "test"))
        if data.get(key)
    ]
    facts = [
        ("data", _text(data.get("name", ""))),
        ("read from", " · ".join(_text(data[key]) for key in ("source", "where") if data.get(key))),
        ("examples", " · ".join(sizes)),
        ("steps", f"{summary['steps']:,}" if isinstance(summary.get("steps"), int) else ""),
        ("parameters", f"{sum(row.get('params', row.get('count', 0)) for row in parameters):,}" if parameters else ""),
        ("devices", _text(summary.get("devices", ""))),
    ]
    facts += [
        (name.replace("_", " "), number(value) if name.endswith("per_second") else duration(value))
        for name, value in timing.items()
        if isinstance(value, int | float)
    ]
    if isinstance(summary.get("peak_rss_bytes"), int):
        facts.append(("peak memory", f"{summary['peak_rss_bytes'] / 2**20:,.0f} MiB"))
    return [(name, value) for name, value in facts if value]


def _results(metrics: Metrics, baselines: Mapping[str, Metrics], monitor: str) -> dict[str, Any]:
    """The table of every method (row) and metric (column), the monitored metric first."""
    rows = {"this model": metrics, **baselines} if metrics else dict(baselines)
    names = sorted({name for row in rows.values() for name in row}, key=lambda name: (name != monitor, name))
    return {
        "header": [name.replace("_", " ") for name in names],
        "rows": [
            (method, [number(row[name], name) if name in row else "" for name in names]) for method, row in rows.items()
        ],
    }


def _parameters(parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    header = list(parameters[0]) if parameters else []
    total = [f"{sum(row.get(name) or 0 for row in parameters):,}" if name in SUMMED else "" for name in header]
    rows = [
        [
            _cell(
                "x".join(map(str, row[name]))
                if isinstance(row.get(name), tuple | list)
                else ""
                if row.get(name) is None
                else row[name]
            )
            for name in header
        ]
        for row in parameters
    ]
    return {"header": header, "rows": rows, "total": total}


def _provenance(
    config: Mapping[str, Any], summary: Mapping[str, Any], data: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """The rest of config.json, and the digests."""
    shown = {key: value for key, value in config.items() if key not in ("experiment", "settings", "overrides", "data")}
    shown |= {"data_sha256": data.get("sha256"), "state_sha256": summary.get("state_sha256")}
    return [(name.replace("_", " "), _text(value)) for name, value in shown.items() if value not in (None, "", {}, [])]
