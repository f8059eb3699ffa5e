"""Ops for sequences: windows over a time series, pictures read in pieces."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from fdl.data.columns import Windows
from fdl.data.splits import Op, Statistics
from fdl.data.table_ops import scale_columns, scale_of
from fdl.types import Arrays, Batch, Draw


@dataclasses.dataclass(frozen=True)
class ScaleSeries(Op):
    """Each column of a series by its mean and standard deviation (of the population) over the training part's steps.

    A step counts once, however many windows it is in: that is the scaler of the forecasting benchmarks. Inputs [B, W, C] are
    scaled. Targets stay in their unit, and "target_mean" and "target_deviation", of the targets' shape, are added, by which a
    task converts its model's outputs (`fdl.data.ops.unscale_outputs`).
    """

    def fit(self, train: Arrays) -> Statistics:
        inputs, targets = (_steps(train, name) for name in ("inputs", "targets"))
        shape = tuple(train["targets"].shape[1:])
        mean, target_mean = inputs.mean(0), targets.mean(0)
        deviation = scale_of(inputs.std(0), mean, len(inputs))
        target_deviation = scale_of(targets.std(0), target_mean, len(targets))
        return {
            "mean": mean,
            "factor": 1 / deviation,
            "target_mean": np.broadcast_to(target_mean, shape).copy(),
            "target_deviation": np.broadcast_to(target_deviation, shape).copy(),
        }

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        mean, factor = (statistics[name].astype(np.float32)[None, None] for name in ("mean", "factor"))
        inputs = (batch["inputs"] - mean) * factor
        added = scale_columns(statistics["target_mean"], statistics["target_deviation"], len(inputs))
        return {**batch, "inputs": inputs, **added}


def _steps(train: Arrays, name: str) -> np.ndarray:
    """Return every step of the training part once, float64 [T, C] (targets of one column: [T, 1]).

    Columns of windows share their series' steps: inputs and targets of all training windows together are the part.
    """
    column = train[name]
    if not isinstance(column, Windows):
        return np.asarray(column, np.float64).reshape(-1, *column.shape[2:])
    seen = np.zeros(len(column.series) + 1, np.int64)
    for each in (train["inputs"], train["targets"]):
        np.add.at(seen, each.starts, 1)
        np.add.at(seen, each.starts + each.length, -1)
    return column.series[np.cumsum(seen[:-1]) > 0].astype(np.float64)


@dataclasses.dataclass(frozen=True)
class PictureSequence(Op):
    """Pictures [B, H, W, C] as sequences: row by row, [B, H, W * C], or pixel by pixel, [B, H * W, C]
    (Le et al. 2015, https://arxiv.org/abs/1504.00941).
    """

    by: Literal["rows", "pixels"] = "rows"

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        count, height, width, channels = batch["inputs"].shape
        shape = (count, height, width * channels) if self.by == "rows" else (count, height * width, channels)
        return {**batch, "inputs": batch["inputs"].reshape(shape)}
