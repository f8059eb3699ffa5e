"""What a study shows: a line per variant, a table, the curves in one figure, decision boundaries side by side."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fdl.experiment.study import Spread, Study, spread
from fdl.report.formatting import Style, number
from fdl.report.report import list_panels
from fdl.rundir import logs
from fdl.rundir.rows import Row
from fdl.tasks.panels import figures
from fdl.tasks.panels.planar import boundary, planar
from fdl.tasks.task import DrawPanel, Panel, View
from fdl.types import Metrics

COLOURS = (
    figures.BLUE, figures.ORANGE, figures.GREEN, figures.RED, "#7b4fa3", "#8c6d31", "#17a2b8", "#d6616b", "#637939", "#5d6876",
)  # fmt: skip
MOST_POINTS = 400
"""The most points of a curve: a longer one is averaged in bins."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of one variant; `failed` says why it has no metrics, `baselines` are simple methods' on the same rows."""

    seed: int
    metrics: Metrics
    rows: list[Row]
    failed: str
    path: Path
    baselines: Mapping[str, Metrics] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A variant with all its runs; `view` loads the first seed's model (None where it was not kept)."""

    label: str
    differences: tuple[str, ...]
    runs: tuple[Run, ...]
    view: Callable[[], View | None]

    def spread(self, metric: str) -> Spread | None:
        values = [run.metrics[metric] for run in self.runs if math.isfinite(run.metrics.get(metric, math.nan))]
        return spread(values) if values else None

    @property
    def failed(self) -> list[Run]:
        return [run for run in self.runs if not run.metrics]


def pool(study: Study, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return all runs of all variants as one outcome, then each baseline on the same rows; [] unless the variants are repeats.

    The mean and interval of a cross-validation are over its folds.
    """
    if not study.repeats:
        return []
    runs = tuple(run for outcome in outcomes for run in outcome.runs)
    pooled = [Outcome(f"all {len(outcomes)} together", (), runs, lambda: None)]
    for method in dict.fromkeys(method for run in runs for method in run.baselines):
        alike = tuple(dataclasses.replace(run, metrics=run.baselines.get(method, {})) for run in runs)
        pooled.append(Outcome(method, (), alike, lambda: None))
    return pooled


def _cell(found: Spread | None, name: str, style: Style) -> str:
    """Format "0.9412 ± 0.0031 (0.938 to 0.945)": mean, half the 95 % interval, ends."""
    if found is None:
        return "-"
    mean, low, high = (number(value, style(name)) for value in (found.mean, found.low, found.high))
    if math.isnan(found.half):
        return mean
    half = f"{100 * found.half:.2f}" if mean.endswith("%") else f"{found.half:.2g}"
    return f"{mean} ± {half} ({low} to {high})"


def line(outcome: Outcome, study: Study, style: Style) -> str:
    """Return what is printed when a variant is done."""
    shown = [f"{name} {_cell(found, name, style)}" for name in study.metrics if (found := outcome.spread(name))]
    gone = [f"{len(outcome.failed)} of {len(outcome.runs)} seeds failed"] if outcome.failed else []
    return f"{outcome.label}: {'  '.join([*shown, *gone])}"


def table(study: Study, outcomes: Sequence[Outcome], style: Style) -> tuple[list[str], list[list[str]]]:
    """Return (header, rows), a row per variant."""
    some = any(outcome.failed for outcome in outcomes)
    header = ["variant", "differs by", *study.metrics, *(["failed"] if some else [])]
    rows = [
        [
            outcome.label,
            "  ".join(outcome.differences) or "-",
            *(_cell(outcome.spread(name), name, style) for name in study.metrics),
            *([f"{len(outcome.failed)} of {len(outcome.runs)}"] if some else []),
        ]
        for outcome in [*outcomes, *pool(study, outcomes)]
    ]
    return header, rows


def print_table(study: Study, outcomes: Sequence[Outcome], style: Style) -> None:
    """Print the table, where it has more than the one line already printed."""
    if len(outcomes) == 1:
        return
    header, rows = table(study, outcomes, style)
    shown = [[row[0], *row[2:]] for row in rows]
    logs.table([header[0], *header[2:]], shown, range(1, len(header) - 1), width=130)


def summarise(
    name: str, data: Mapping[str, Any], study: Study, outcomes: Sequence[Outcome], seconds: float
) -> dict[str, Any]:
    """Return what summary.json holds; a single variant's means, or those of all repeats, are under "metrics".

    Args:
        data: `fdl.report.summary.describe_data`.
    """
    variants: dict[str, dict[str, Any]] = {}
    pooled = pool(study, outcomes)
    for outcome in [*outcomes, *pooled]:
        names = dict.fromkeys(name for run in outcome.runs for name in run.metrics)
        spreads = {name: found for name in names if (found := outcome.spread(name))}
        variants[outcome.label] = {
            "differences": list(outcome.differences),
            "seeds": [run.seed for run in outcome.runs],
            "metrics": {
                name: {
                    "mean": found.mean, "interval_95": None if math.isnan(found.half) else found.half, "low": found.low,
                    "high": found.high, "values": [run.metrics.get(name) for run in outcome.runs],
                }
                for name, found in spreads.items()
            },
            "failed": {str(run.seed): run.failed for run in outcome.failed},
        }  # fmt: skip
    only = variants[(pooled or outcomes)[0].label]["metrics"] if len(outcomes) == 1 or pooled else {}
    return {
        "experiment": name,
        "status": "complete",
        "data": dict(data),
        "metrics": {name: found["mean"] for name, found in only.items()},
        "variants": variants,
        "timing": {"total": seconds},
    }


def panels(study: Study, outcomes: Sequence[Outcome], style: Style) -> list[DrawPanel]:
    """List the page's sections, the study's own last."""
    seeds = max(len(outcome.runs) for outcome in outcomes)
    return [
        functools.partial(_compared, study, outcomes, seeds, style),
        *(functools.partial(_curves, study, outcomes, name) for name in study.curves),
        functools.partial(_boundaries, outcomes),
        *([functools.partial(_side_by_side, study.compare, outcomes)] if study.compare else []),
        functools.partial(_failures, outcomes),
        *list_panels(study.panels),
    ]


def _compared(study: Study, outcomes: Sequence[Outcome], seeds: int, style: Style) -> Panel:
    header, rows = table(study, outcomes, style)
    several = "all runs" if study.repeats else f"{seeds} seeds"
    text = (
        f"Means over {several} ± half the 95 % interval of the mean, and the ends. "
        if seeds > 1 or study.repeats
        else ""
    )
    if len(outcomes) == 1:
        return Panel("Over the seeds", text, header=header, rows=rows)
    shown = [name for name in study.metrics if any(outcome.spread(name) for outcome in outcomes)][:2]
    places, named = _places(outcomes)
    figure, axes = figures.new(3.6, columns=max(1, len(shown)))
    for ax, name in zip(axes.flat, shown, strict=True):
        figures.titled(ax, name)
        for place, outcome in zip(places, outcomes, strict=True):
            values = [run.metrics[name] for run in outcome.runs if name in run.metrics]
            ax.plot([place] * len(values), values, "o", color=figures.GREY, markersize=4, alpha=0.7)
            if values:
                ax.plot([place], [float(np.mean(values))], "_", color=figures.BLUE, markersize=16, markeredgewidth=2.5)
        if named:
            ax.set_xticks(places, [figures.label(outcome.label, 22) for outcome in outcomes], rotation=30, ha="right")
        else:
            ax.set_xlabel(" ".join(outcomes[0].label.split()[1:]), fontsize=9)
            if min(places) > 0 and max(places) >= 10 * min(places):
                ax.set_xscale("log")
        if name == "examples_per_second":
            ax.set_yscale("log")
    return Panel("Side by side", text + "A dot a seed, a bar their mean.", figure, header=header, rows=rows)


def _places(outcomes: Sequence[Outcome]) -> tuple[list[float], bool]:
    """Return where each variant is on an axis, and whether labels are needed: not where all are numbers."""
    try:
        numbers = [float(outcome.label.replace(",", "").split()[0]) for outcome in outcomes]
    except ValueError:
        return list(map(float, range(len(outcomes)))), True
    return (numbers, False) if len(set(numbers)) == len(numbers) else (list(map(float, range(len(outcomes)))), True)


def _curves(study: Study, outcomes: Sequence[Outcome], name: str) -> Panel | None:
    figure, axes = figures.new(4.6)
    ax, drawn = axes[0, 0], False
    for number_, outcome in enumerate(outcomes):
        colour = COLOURS[number_ % len(COLOURS)]
        lines = [figures.series(run.rows, study.against, (name,), MOST_POINTS) for run in outcome.runs]
        lines = [each for each in lines if len(each[0])]
        if not lines:
            continue
        drawn = True
        shared = min(len(x) for x, _ in lines)
        x = lines[0][0][:shared]
        values = np.stack([y[:shared] for _, y in lines])
        style = "-" if number_ < len(COLOURS) else "--"
        mark = "o" if shared <= 3 else ""
        ax.plot(x, values.mean(0), style + mark, color=colour, linewidth=1.6, label=figures.label(outcome.label, 30))
        if len(lines) > 1:
            ax.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.13, linewidth=0)
    if not drawn:
        return None
    figures.titled(ax, "", study.against.replace("train/", "").replace("_", " "), name)
    if "x" in study.log:
        ax.set_xscale("log")
    if "y" in study.log:
        ax.set_yscale("log")
    ax.legend(fontsize=8, frameon=False, ncols=2 if len(outcomes) > 6 else 1)
    several = any(len(outcome.runs) > 1 for outcome in outcomes)
    return Panel(
        f"{name} over {study.against}",
        "Means over the seeds; the band is from the lowest to the highest." if several else "",
        figure,
    )


def _side_by_side(compare: Callable[[Mapping[str, View]], Panel | None], outcomes: Sequence[Outcome]) -> Panel | None:
    return compare({outcome.label: view for outcome in outcomes if (view := outcome.view())})


def _boundaries(outcomes: Sequence[Outcome]) -> Panel | None:
    seen = [(outcome, view) for outcome in outcomes if (view := outcome.view()) and planar(view.splits)]
    if not seen:
        return None
    columns = min(4, len(seen))
    lines = -(-len(seen) // columns)
    figure, axes = figures.new(2.6 * lines, rows=lines, columns=columns)
    for ax in axes.flat[len(seen) :]:
        ax.set_axis_off()
    for ax, (outcome, view) in zip(axes.flat, seen, strict=False):
        boundary(ax, view, figures.label(outcome.label, 26))
    return Panel("Decision boundaries", "Of the first seed: the classes' regions and the training examples.", figure)


def _failures(outcomes: Sequence[Outcome]) -> Panel | None:
    rows = [(o.label, run.seed, run.failed) for o in outcomes for run in o.failed]
    return Panel("What failed", header=("variant", "seed", "why"), rows=rows) if rows else None
