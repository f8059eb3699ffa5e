"""The next steps of a time series."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from fdl.data.formats.series import read_end
from fdl.data.formats.timeline import times_after
from fdl.data.splits import Splits
from fdl.files import to_csv, write_all
from fdl.models.members import Members
from fdl.tasks import forecast_baselines
from fdl.tasks.losses import Score
from fdl.tasks.panels import figures, forecast
from fdl.tasks.regression import Regression
from fdl.tasks.task import DrawPanel, View
from fdl.types import Array, Batch, Count, Metrics, Whole, printable


@dataclasses.dataclass(frozen=True)
class Forecast(Regression):
    """Outputs [B, horizon * targets] against the steps after a window, [B, horizon] or [B, horizon, targets].

    With `ops.ScaleSeries` among `data.prepare`, the model computes in the training steps' deviations; forecasts are converted
    back to the targets' unit.

    Attributes:
        scaled: report errors in deviations of the training steps, as forecasting benchmarks do, not in the targets' unit.
        lags, harmonics: of the autoregression that is printed beside the model: steps it looks back, and waves of each
            calendar cycle.
    """

    scaled: bool = False
    lags: Count = 7
    harmonics: Whole = 2

    monitor: ClassVar[str] = "mse"

    def score(self, outputs: Array | Members, batch: Batch) -> dict[str, Score]:
        """Compute the loss, the squared and the absolute error, each [B], the mean over all steps and targets."""
        if isinstance(outputs, Members):  # which scores each of them by this method
            return super().score(outputs, batch)
        if self.scaled and "target_deviation" in batch:
            mean, deviation = batch["target_mean"], batch["target_deviation"]
            outputs = (outputs.reshape(mean.shape) - mean) / deviation
            batch = {"targets": (batch["targets"] - mean) / deviation}  # the loss has the same scale
        return super().score(outputs, batch)

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score what needs no net: repeating, the season before, ridge regression, autoregression with seasons.

        They are fitted to the training part; see `fdl.tasks.forecast_baselines`.
        """
        found = forecast_baselines.forecasts(splits, self.lags, self.harmonics)
        if not found:  # no windows over a series
            return super().baselines(splits)
        truth = np.asarray(splits.evaluated["targets"], np.float64)
        scale = forecast_baselines.target_scale(splits) if self.scaled else (0.0, 1.0)
        return {
            name: self._measured((values - scale[0]) / scale[1], (truth - scale[0]) / scale[1])
            for name, values in found.items()
        }

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return forecast.panels(view, lambda: forecast_baselines.forecasts(view.splits, self.lags, self.harmonics))

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write forecast.csv, the steps after the end of a user's CSV file, and forecast.png, drawn after its last window."""
        facts = view.splits.facts
        series, window = read_end(Path(source).expanduser(), facts)
        horizon, names = facts.extra["horizon"], list(series.targets)
        values = np.asarray(view.outputs({"inputs": window}), np.float64).reshape(horizon, len(names))
        if series.step:
            dates = [str(time).replace("T", " ") for time in times_after(series, horizon)]
            if all(date.endswith(" 00:00:00") for date in dates) and not (series.times % 86_400).any():
                dates = [date.removesuffix(" 00:00:00") for date in dates]
        else:
            dates = [str(len(series.times) + 1 + step) for step in range(horizon)]
        table = [[series.date if series.step else "row", *names]]
        table += [[date, *(f"{value:.6g}" for value in row)] for date, row in zip(dates, values, strict=True)]
        places = [series.names.index(name) for name in names]
        drawn = forecast.draw_future(
            window[0][:, places], values, [printable(name, 40) for name in names], dates[0], dates[-1]
        )
        return write_all(out, {"forecast.csv": to_csv(table), "forecast.png": figures.png(drawn)})
