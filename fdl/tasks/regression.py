"""A number for each example."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.tasks import losses, tables
from fdl.tasks.panels import figures
from fdl.tasks.task import Better, Panel, Task, View
from fdl.types import Array, Batch, Metrics, Positive, count_examples, take


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Outputs [B] or [B, 1] against targets [B], both in the target's own units.

    Attributes:
        loss: what is minimised: the squared error, the absolute, or Huber's (square up to `huber_delta`, then linear).
        huber_delta: in the target's units.
    """

    loss: Literal["mse", "mae", "huber"] = "mse"
    huber_delta: Positive = 1.0

    monitor: ClassVar[str] = "rmse"
    better: ClassVar[Better] = "min"

    def score(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """The loss, the squared and the absolute error, each [B].

        Raises:
            ValueError: outputs are neither [B] nor [B, 1]: subtracting them would silently make a table of B x B.
        """
        targets = batch["targets"]
        if outputs.shape not in (targets.shape, (*targets.shape, 1)):
            raise ValueError(f"regression needs outputs {targets.shape} or {(*targets.shape, 1)}, got {outputs.shape}")
        outputs = outputs.reshape(targets.shape)
        scores = {"mse": losses.squared_error(outputs, targets), "mae": losses.absolute_error(outputs, targets)}
        huber = self.loss == "huber"
        return {"loss": losses.huber(outputs, targets, self.huber_delta) if huber else scores[self.loss], **scores}

    def finish(self, means: Metrics) -> Metrics:
        """Adds "rmse", the root of the mean square."""
        return {**means, "rmse": math.sqrt(means["mse"])}

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """The mean of training, and a linear regression on the columns as they are (one-hot, median for missing)."""
        train, test = (np.asarray(rows["targets"], np.float64) for rows in (splits.train, splits.evaluated))
        features, rows = (
            tables.linear_features(splits.train["inputs"], part["inputs"]) for part in (splits.train, splits.evaluated)
        )
        weights = np.linalg.lstsq(features, train, rcond=None)[0]
        return {
            "mean of training": self._measured(np.full(len(test), train.mean()), test),
            "linear regression": self._measured(rows @ weights, test),
        }

    def _measured(self, predicted: np.ndarray, targets: np.ndarray) -> Metrics:
        scores = self.score(jnp.asarray(predicted, jnp.float32), {"targets": jnp.asarray(targets, jnp.float32)})
        return self.finish({name: float(np.asarray(values, np.float64).mean()) for name, values in scores.items()})

    def panels(self, view: View) -> Iterable[Panel]:
        return panels(view)

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """predictions.csv: the user's rows, as they are, with the column `prediction` after them."""
        header, cells, rows = tables.read_csv(source, view.splits)
        predicted = _flat(view.outputs(rows))
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow([*header, "prediction"])
        writer.writerows([*row, f"{value:.6g}"] for row, value in zip(cells, predicted, strict=True))
        return write_all(out, {"predictions.csv": table.getvalue()})


def _flat(outputs: Any) -> np.ndarray:
    outputs = np.asarray(outputs, np.float64)
    return outputs.reshape(len(outputs))


def panels(view: View) -> Iterator[Panel]:
    """The panels, each drawn when it is asked for; when one raises, the iterator (a `map`) still has the next."""
    predicted = functools.cache(lambda: _flat(view.outputs(view.splits.evaluated)))
    draws: tuple[Callable[[], Panel | None], ...] = (
        lambda: scatter(view, predicted()),
        lambda: residuals(view, predicted()),
        lambda: worst(view, predicted()),
        lambda: by_category(view, predicted()),
        lambda: importance(view),
    )
    return filter(None, map(operator.call, draws))


def _truth(view: View) -> np.ndarray:
    return np.asarray(view.splits.evaluated["targets"], np.float64)


def scatter(view: View, predicted: np.ndarray) -> Panel:
    """Predicted against true."""
    truth = _truth(view)
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
    """How the errors are spread."""
    error = predicted - _truth(view)
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
    """Column -> the test rows' values in it, as text."""
    inputs = view.splits.evaluated["inputs"]
    names, texts = tables.columns(view.splits)
    table = {
        name: [f"{value:.6g}" for value in column] for name, column in zip(names, tables.numeric(inputs).T, strict=True)
    }
    for (name, known), column in zip(texts.items(), tables.categories(inputs).T, strict=True):
        table[name] = [known[i] if 0 <= i < len(known) else "?" for i in column]
    return table


def worst(view: View, predicted: np.ndarray, count: int = 12) -> Panel:
    """The rows with the largest errors."""
    truth, table = _truth(view), _named(view)
    order = np.argsort(-np.abs(predicted - truth), kind="stable")[:count]
    rows = [(f"{truth[i]:.5g}", f"{predicted[i]:.5g}", *(column[i] for column in table.values())) for i in order]
    return Panel("Largest errors", "Of the test split.", header=("true", "predicted", *table), rows=rows)


def by_category(view: View, predicted: np.ndarray) -> Panel | None:
    """The error of each category of each text column."""
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
    """How much the error grows when one column's values are shuffled among the rows (Breiman 2001, section 10)."""
    test = view.splits.evaluated
    rng = np.random.default_rng(view.seed)
    rows = take(test, np.sort(rng.permutation(count_examples(test))[:most_rows]))
    truth = np.asarray(rows["targets"], np.float64)
    names, texts = tables.columns(view.splits)

    def rmse(inputs: Any) -> float:
        return float(np.sqrt(np.mean(np.square(_flat(view.outputs({**rows, "inputs": inputs})) - truth))))

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


def _shuffled(inputs: Any, place: int, count: int, order: np.ndarray) -> Any:
    """`inputs` with one column's values in another order: numeric column `place`, or from `count` on a category."""
    key = None if not isinstance(inputs, dict) else "numeric" if place < count else "category"
    values = np.array(inputs if key is None else inputs[key])
    view = values.reshape(len(values), -1)  # of the copy above: what is changed here is changed there
    column = place if place < count else place - count
    view[:, column] = view[order, column]
    return values if key is None else {**inputs, key: values}
