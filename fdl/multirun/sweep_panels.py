"""What a person wants to see of a sweep: the values over time, where the good ones are, what mattered, every trial."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from fdl.experiment.overrides import show
from fdl.experiment.tuning import Choice, Dimension, Search, Uniform
from fdl.multirun.trials import Trial
from fdl.rundir.logs import short
from fdl.tasks.panels import figures
from fdl.tasks.task import DrawPanel, Panel

FEWEST = 8
"""Complete trials below which importances are noise."""


def panels(
    found: Sequence[Trial],
    search: Search,
    better: Literal["max", "min"],
    monitor: str,
    best: Mapping[str, Any],
    importances: Callable[[], Mapping[str, float]],
) -> list[DrawPanel]:
    """List the page's sections.

    Args:
        best: "trial" (its number) and "command".
        importances: a setting's name -> its share; called only where there are enough trials.
    """
    again = Panel("The best again", f"Trial {best['trial']}, from its first step.", text=best["command"])
    return [
        lambda: again,
        functools.partial(history, found, better, monitor),
        functools.partial(parallel_coordinates, found, search, better, monitor),
        functools.partial(importance, found, importances),
        functools.partial(table, found, search, better, monitor),
    ]


def _complete(found: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in found if trial.state == "complete" and trial.value is not None]


def history(found: Sequence[Trial], better: Literal["max", "min"], monitor: str) -> Panel:
    """Draw every trial's value by its number, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = figures.new(3.2)
    ax = figures.titled(axes[0, 0], "", "trial", figures.label(monitor, 30))
    whole = _complete(found)
    pruned = [trial for trial in found if trial.state == "pruned" and trial.value is not None]
    failed = [trial.number for trial in found if trial.state == "failed"]
    extreme = np.maximum if better == "max" else np.minimum
    numbers, values = (np.array([getattr(trial, name) for trial in whole], float) for name in ("number", "value"))
    so_far = extreme.accumulate(values)
    ax.step(
        [*numbers, len(found) - 1],
        [*so_far, so_far[-1]],
        where="post",
        color=figures.GREEN,
        linewidth=1.2,
        label="best so far",
    )
    ax.scatter(numbers, values, s=22, color=figures.BLUE, label="complete", zorder=3)
    if pruned:
        at, low = np.array([(trial.number, trial.value) for trial in pruned], float).T
        ax.scatter(at, low, s=22, marker="x", color=figures.GREY, label="pruned")
    for i, number in enumerate(failed):
        ax.axvline(number, color=figures.RED, linewidth=0.8, alpha=0.5, label="failed" if i == 0 else None)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, frameon=False)
    text = (
        f"{len(whole)} complete, {len(pruned)} ended early (shown at what they had reached then), {len(failed)} failed."
    )
    return Panel("Trials", text, figure)


def _place(where: Dimension, value: Any) -> float:
    """Map a value to 0 ... 1, from one end of the dimension to the other."""
    if isinstance(where, Choice):
        known = [show(item) for item in where.values]
        return known.index(str(value)) / (len(known) - 1)
    low, high = float(where.low), float(where.high)
    if isinstance(where, Uniform) or not getattr(where, "log", True):
        return (value - low) / (high - low)
    return math.log(value / low) / math.log(high / low)


def parallel_coordinates(found: Sequence[Trial], search: Search, better: Literal["max", "min"], monitor: str) -> Panel:
    """Draw a line for each complete trial, from setting to setting; better ones are darker."""
    from matplotlib import colormaps

    sign = 1 if better == "max" else -1
    whole = sorted(_complete(found), key=lambda trial: sign * (trial.value or 0.0))
    figure, axes = figures.new(3.6)
    ax = axes[0, 0]
    for rank, trial in enumerate(whole):
        share = (rank + 1) / len(whole)
        places = [_place(where, trial.values[name]) for name, where in search.space.items()]
        colour = figures.ORANGE if trial is whole[-1] else colormaps["Blues"](0.15 + 0.75 * share)
        ax.plot([*range(len(places)), len(places)], [*places, share], color=colour, linewidth=2 if share == 1 else 1.2)
    for x, where in enumerate(search.space.values()):
        ax.axvline(x, color=figures.GREY, linewidth=0.8)
        ends = [where.values[0], where.values[-1]] if isinstance(where, Choice) else [where.low, where.high]
        middle = where.values[1:-1] if isinstance(where, Choice) else ()
        for value in (*ends, *middle):
            text = figures.label(f" {value:g}" if isinstance(value, int | float) else f" {show(value)}", 14)
            ax.text(
                x, _place(where, show(value) if isinstance(where, Choice) else value), text, fontsize=7, va="center"
            )
    ax.axvline(len(search.space), color=figures.GREY, linewidth=0.8)
    names = ["\n".join(map(figures.label, name.split("."))) for name in (*search.space, monitor)]
    ax.set_xticks(range(len(names)), names, fontsize=8)
    ax.set_yticks([])
    ax.set_xlim(-0.1, len(search.space) + 0.35)
    ax.spines[:].set_visible(False)
    text = "A line is a complete trial; the last axis is its rank, the best in orange at the top."
    return Panel("Where the good ones lie", text, figure)


def importance(found: Sequence[Trial], shares: Callable[[], Mapping[str, float]]) -> Panel:
    """Draw the share of the variance that each setting explains."""
    whole = _complete(found)
    if len(whole) < FEWEST or len({trial.value for trial in whole}) < 2:
        text = (
            f"Which setting mattered most cannot be told from {len(whole)} complete trials: it takes {FEWEST} or more."
        )
        return Panel("What mattered", text)
    known = shares()
    figure, axes = figures.new(0.7 + 0.3 * len(known))
    ax = figures.titled(axes[0, 0], "", "share of the variance explained")
    names = list(known)[::-1]
    ax.barh(range(len(names)), [known[name] for name in names], color=figures.BLUE, height=0.6)
    ax.set_yticks(range(len(names)), [figures.label(name, 40) for name in names], fontsize=8)
    text = f"Functional ANOVA over a forest fitted to the {len(whole)} complete trials: a hint, not a measurement."
    return Panel("What mattered", text, figure)


def table(found: Sequence[Trial], search: Search, better: Literal["max", "min"], monitor: str) -> Panel:
    """Tabulate every trial: the complete ones by value, then the pruned, then the failed."""
    sign = -1 if better == "max" else 1
    states = ("complete", "pruned", "failed", "running")
    order = sorted(found, key=lambda t: (states.index(t.state), sign * (t.value or 0.0), t.number))
    rows = [
        (
            str(trial.number),
            trial.state + (f" at {max(trial.reported, default=0)} %" if trial.state == "pruned" else ""),
            "" if trial.value is None else short(trial.value),
            *(show(trial.values.get(name, "")) for name in search.space),
            "" if trial.seconds is None else f"{trial.seconds:.0f}",
        )
        for trial in order
    ]
    failed = next((f" Trial {t.number} failed: {t.reason}." for t in found if t.reason), "")
    text = f"The best first. Seconds are from a trial's first start to its end, pauses of the sweep included.{failed}"
    return Panel("Every trial", text, header=("trial", "state", monitor, *search.space, "seconds"), rows=rows)
