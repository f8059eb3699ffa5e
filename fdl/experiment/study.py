"""A study: one experiment and its variants, which differ in a setting or two, each with several seeds, on one page.

A file under experiments/ (or of your own) that has a function `study()` beside `experiment()` is one:

    def study() -> Study:
        return Study({f"{units} units": (f"model.widths={units}",) for units in (64, 128, 512)})
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from fdl.tasks.task import DrawPanel, Panel, View


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared with what.

    Attributes:
        variants: a label -> how it differs from the file's `experiment()`: "path=value" as --set takes it, in order.
        seeds: how many seeds each variant is trained with (--seeds overrides it).
        metrics: the table's columns, in order: keys of summary.json's metrics ("test/accuracy"; small nets also
            have "train/accuracy" over the whole training split), or "examples_per_second".
        curves: what is drawn in one figure for all variants: keys of metrics.jsonl.
        against: the curves' abscissa: "step", "epoch" or another key of metrics.jsonl ("train/learning_rate").
        log: which of "x" and "y" of the curves are drawn on logarithmic scales.
        panels: figures of the study's own: panels, or functions that draw one each.
        compare: draws one figure of the trained models beside each other: it is given label -> the first seed's.
        repeats: the variants repeat one experiment on other rows (the folds of a cross-validation): a last line has the mean and
            interval over all their runs.
    """

    variants: Mapping[str, Sequence[str]]
    seeds: int = 5
    metrics: tuple[str, ...] = ("test/accuracy",)
    curves: tuple[str, ...] = ("train/loss",)
    against: str = "step"
    log: str = ""
    panels: Callable[[], Iterable[Panel | DrawPanel]] = tuple
    compare: Callable[[Mapping[str, View]], Panel | None] | None = None
    repeats: bool = False


@dataclasses.dataclass(frozen=True)
class Spread:
    """Some seeds' values of one metric: their mean, the half-width of its 95 % interval (Student's t), their ends.

    The interval assumes roughly normally distributed values; for one value there is none (NaN).
    """

    mean: float
    half: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Summarise at least one finite value."""
    from scipy.stats import t

    count, mean = len(values), statistics.fmean(values)
    half = math.nan
    if count > 1:
        half = float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return Spread(mean, half, min(values), max(values))
