"""What a person wants to see of a forecast: some of them beside the truth and the baselines, and how errors grow with time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fdl.data.columns import Windows
from fdl.tasks.panels import figures
from fdl.tasks.panels.regression import panels as regression_panels
from fdl.tasks.task import DrawPanel, Panel, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACES = 4
STRETCH = 180
"""Consecutive one-step forecasts that are drawn."""
SHOWN = ("last value", "ridge", "AR")
"""Baselines that are drawn, by the beginning of their names; the table of errors has all."""

Forecasts = dict[str, np.ndarray]


def panels(view: View, baselines: Callable[[], Forecasts]) -> list[DrawPanel]:
    """List the panels; model and baselines are asked once, when the first panel is drawn."""
    inputs = view.splits.evaluated["inputs"]
    if not isinstance(inputs, Windows) or not view.splits.facts.extra.get("target_columns"):
        return regression_panels(view)

    @functools.cache
    def made() -> Forecasts:
        targets = view.splits.evaluated["targets"]
        model = np.asarray(view.outputs(view.splits.evaluated), np.float64).reshape(targets.shape)
        all_of = {"truth": np.asarray(targets, np.float64), "the model": model, **baselines()}
        return {name: values.reshape(*targets.shape[:2], -1) for name, values in all_of.items()}

    return [lambda: drawn(view, made()), lambda: by_lead(made()), lambda: by_target(view, made())]


def _line(ax: object, x: np.ndarray, y: np.ndarray, name: str) -> None:
    colours = {"truth": "black", "the model": figures.RED, "last value": figures.GREY, "ridge": figures.BLUE}
    width = 1.6 if name in ("truth", "the model") else 1.0
    ax.plot(x, y, color=colours.get(name, figures.GREEN), linewidth=width, label=name)  # type: ignore[attr-defined]


def _shown(made: Forecasts) -> Forecasts:
    return {name: values for name, values in made.items() if name in ("truth", "the model") or name.startswith(SHOWN)}


def drawn(view: View, made: Forecasts) -> Panel:
    """Draw forecasts of the last target column: at places over the test part, or of one step, a stretch of them."""
    inputs, place = view.splits.evaluated["inputs"], view.splits.facts.extra["target_columns"][-1]
    name = figures.label(view.splits.facts.target.split(", ")[-1], 40)
    count, horizon = made["truth"].shape[:2]
    if horizon == 1:
        figure, axes = figures.new(3.8)
        ax = figures.titled(axes[0, 0], name, "test steps")
        steps = np.arange(min(STRETCH, count))
        for label, values in _shown(made).items():
            _line(ax, steps, values[: len(steps), 0, -1], label)
        ax.legend(fontsize=8, frameon=False, ncols=5)
        return Panel(
            "Forecasts and what came",
            "Each step forecast from the steps before it, from the beginning of the test part.",
            figure,
        )
    rows = np.linspace(0, count - 1, PLACES).astype(int)
    figure, axes = figures.new(2.4 * PLACES, rows=PLACES)
    for ax, row in zip(axes.flat, rows, strict=True):
        past = inputs.series[inputs.starts[row] : inputs.starts[row] + inputs.length, place][-2 * horizon :]
        ax.plot(np.arange(-len(past), 0) + 1, past, color="black", linewidth=1.6)
        for label, values in _shown(made).items():
            _line(ax, np.arange(1, horizon + 1), values[row, :, -1], label)
        ax.axvline(0.5, color=figures.GREY, linewidth=0.8, linestyle=":")
        figures.titled(
            ax, name if row == 0 else "", "" if row < rows[-1] else "steps ahead", f"test window {row + 1:,}"
        )
    axes[0, 0].legend(fontsize=8, frameon=False, ncols=5)
    return Panel("Forecasts and what came", f"At {PLACES} places of the test part, beside their baselines.", figure)


def by_lead(made: Forecasts) -> Panel | None:
    """Draw the root mean square error by how far ahead the step is."""
    horizon = made["truth"].shape[1]
    if horizon == 1:
        return None
    figure, axes = figures.new(3.6)
    ax = figures.titled(axes[0, 0], "", "steps ahead", "RMSE")
    for label, values in _shown(made).items():
        if label != "truth":
            squares = np.square(values - made["truth"]).mean(0)  # [H, K]
            _line(ax, np.arange(1, horizon + 1), np.sqrt(squares).mean(1), label)
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, frameon=False)
    return Panel(
        "Error by how far ahead", "Over all test windows, in the targets' unit, the mean over the targets.", figure
    )


def by_target(view: View, made: Forecasts) -> Panel:
    """Tabulate every target's root mean square error, of the model and of all baselines."""
    names = view.splits.facts.target.split(", ")
    others = [name for name in made if name != "truth"]
    errors = {name: np.sqrt(np.square(made[name] - made["truth"]).mean((0, 1))) for name in others}
    rows = [(figures.label(name, 40), *(f"{errors[other][k]:.4g}" for other in others)) for k, name in enumerate(names)]
    return Panel(
        "RMSE by target",
        "Over all test windows and steps, in the targets' unit.",
        header=("target", *others),
        rows=rows,
    )


def draw_future(past: np.ndarray, ahead: np.ndarray, names: Sequence[str], first: str, last: str) -> Figure:
    """Draw the last window [W, K] and the forecast after it [H, K], a row for each target."""
    figure, axes = figures.new(0.6 + 2.0 * len(names), rows=len(names))
    for ax, name, known, expected in zip(axes.flat, names, past.T, ahead.T, strict=True):
        ax.plot(np.arange(-len(known), 0) + 1, known, color="black", linewidth=1.4)
        steps = np.arange(len(expected) + 1)
        mark = "o" if len(expected) == 1 else ""
        ax.plot(steps, [known[-1], *expected], color=figures.RED, linewidth=1.4, marker=mark, markersize=3)
        figures.titled(ax, figures.label(name, 40))
    axes[-1, 0].set_xlabel(f"steps after the file's end: {first} to {last}", fontsize=9)
    return figure
