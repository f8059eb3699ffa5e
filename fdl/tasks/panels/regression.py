"""What a person wants to see of a regression: how predictions and truth agree, where they do not, what it relies on."""

from __future__ import annotations

import functools

import numpy as np

from fdl.tasks import tables
from fdl.tasks.panels import figures
from fdl.tasks.task import DrawPanel, Panel, View
from fdl.types import Arrays, count_examples, take


def panels(view: View) -> list[DrawPanel]:
    """List the panels; the predictions are made when the first of them is drawn."""
    if view.splits.evaluated is None:
        return []
    predicted = functools.cache(lambda: _predicted(view, view.splits.evaluated))
    of_any: list[DrawPanel] = [lambda: scatter(view, predicted()), lambda: residuals(view, predicted())]
    of_tables: list[DrawPanel] = [
        lambda: worst(view, predicted()),
        lambda: by_category(view, predicted()),
        lambda: importance(view),
    ]
    rows = view.splits.evaluated
    return of_any + (of_tables if tables.is_tabular(rows["inputs"]) and np.ndim(rows["targets"]) == 1 else [])


def _predicted(view: View, rows: Arrays) -> np.ndarray:
    """Return the outputs for these rows as float64 of their targets' shape [N, ...]."""
    return np.asarray(view.outputs(rows), np.float64).reshape(rows["targets"].shape)


def _truth(view: View) -> np.ndarray:
    return np.asarray(view.splits.evaluated["targets"], np.float64)


def scatter(view: View, predicted: np.ndarray) -> Panel:
    """Draw predicted against true values."""
    truth, predicted = _truth(view).ravel(), predicted.ravel()
    figure, axes = figures.new(6.0, 6.4)
    ax = figures.titled(axes[0, 0], "", "true", "predicted")
    ax.scatter(truth, predicted, s=6, alpha=0.35, linewidth=0, color=figures.BLUE, rasterized=True)
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    ax.plot(ends, ends, color=figures.RED, linewidth=1)
    rest, spread = np.square(predicted - truth).sum(), np.square(truth - truth.mean()).sum()
    explained = f" It explains {1 - rest / spread:.1%} of the variance (R²)." if spread else ""
    return Panel(
        "Predicted and true", f"Every example of the test split; on the line, the two agree.{explained}", figure
    )


def residuals(view: View, predicted: np.ndarray) -> Panel:
    """Draw how the errors are spread."""
    error = (predicted - _truth(view)).ravel()
    figure, axes = figures.new(3.2)
    ax = figures.titled(axes[0, 0], "", "predicted - true", "examples")
    low, high = np.percentile(error, [0.5, 99.5])
    ax.hist(np.clip(error, low, high), bins=60, color=figures.BLUE)
    ax.axvline(0, color=figures.RED, linewidth=1)
    middle = np.median(np.abs(error))
    text = (
        f"Half are under {middle:.4g}; the mean is {error.mean():+.4g}. The outermost hundredth is drawn at the edges."
    )
    return Panel("Errors", text, figure)


def _named(view: View) -> dict[str, list[str]]:
    """Return column -> the test rows' values in it, as text."""
    inputs = view.splits.evaluated["inputs"]
    names, texts = tables.columns(view.splits)
    table = {
        name: [f"{value:.6g}" for value in column] for name, column in zip(names, tables.numeric(inputs).T, strict=True)
    }
    for (name, known), column in zip(texts.items(), tables.categories(inputs).T, strict=True):
        table[name] = [known[i] if 0 <= i < len(known) else "?" for i in column]
    return table


def worst(view: View, predicted: np.ndarray, count: int = 12) -> Panel:
    """Tabulate the rows with the largest errors."""
    truth, table = _truth(view), _named(view)
    order = np.argsort(-np.abs(predicted - truth), kind="stable")[:count]
    rows = [(f"{truth[i]:.5g}", f"{predicted[i]:.5g}", *(column[i] for column in table.values())) for i in order]
    return Panel("Largest errors", "Of the test split.", header=("true", "predicted", *table), rows=rows)


def by_category(view: View, predicted: np.ndarray) -> Panel | None:
    """Tabulate the error of each category of each text column."""
    _, texts = tables.columns(view.splits)
    error, rows = predicted - _truth(view), []
    for (name, known), column in zip(texts.items(), tables.categories(view.splits.evaluated["inputs"]).T, strict=True):
        for number, value in enumerate(known):
            part = error[column == number]
            if len(part):
                rows.append(
                    (name, value, f"{len(part):,}", f"{np.sqrt(np.square(part).mean()):.4g}", f"{part.mean():+.4g}")
                )
    if not rows:
        return None
    return Panel(
        "Error by category",
        "Of the test split.",
        header=("column", "value", "examples", "RMSE", "mean error"),
        rows=rows,
    )


def importance(view: View, most_rows: int = 2000, repeats: int = 3) -> Panel:
    """Measure how much the error grows when one column's values are shuffled among the rows (Breiman 2001, section 10)."""
    test = view.splits.evaluated
    rng = np.random.default_rng(view.seed)
    rows = take(test, np.sort(rng.permutation(count_examples(test))[:most_rows]))
    truth = np.asarray(rows["targets"], np.float64)
    names, texts = tables.columns(view.splits)

    def rmse(inputs: Arrays | np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(_predicted(view, {**rows, "inputs": inputs}) - truth))))

    whole, grown = rmse(rows["inputs"]), {}
    for place, name in enumerate([*names, *texts]):
        changed = []
        for _ in range(repeats):
            changed.append(rmse(_shuffled(rows["inputs"], place, len(names), rng.permutation(len(truth)))))
        grown[name] = float(np.mean(changed)) - whole
    order = sorted(grown, key=grown.__getitem__)
    figure, axes = figures.new(0.9 + 0.28 * len(order))
    ax = figures.titled(axes[0, 0], "", "growth of the RMSE")
    ax.grid(False, axis="y")
    ax.barh([figures.label(name, 28) for name in order], [grown[name] for name in order], color=figures.BLUE)
    text = (
        f"RMSE over {len(truth):,} test rows: {whole:.4g}. Shuffling a column (mean of {repeats} times) adds this much."
    )
    return Panel("What it relies on", text + " Columns that say the same share their weight.", figure)


def _shuffled(inputs: Arrays | np.ndarray, place: int, count: int, order: np.ndarray) -> Arrays | np.ndarray:
    """Return `inputs` with one column's values in another order: numeric column `place`, or from `count` on a category."""
    key = "numeric" if place < count else "category"
    values = np.array(inputs[key] if isinstance(inputs, dict) else inputs)
    flat_values = values.reshape(len(values), -1)  # of the copy above: what is changed here is changed there
    column = place if place < count else place - count
    flat_values[:, column] = flat_values[order, column]
    return {**inputs, key: values} if isinstance(inputs, dict) else values
