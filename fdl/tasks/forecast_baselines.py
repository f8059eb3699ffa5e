"""Forecasts that need no net, made for the test windows and printed beside every forecasting result.

Legend: N windows, W steps of a window, C columns, H steps of the horizon, K target columns.
"""

from __future__ import annotations

import numpy as np

from fdl.data.columns import Windows
from fdl.data.series_ops import ScaleSeries
from fdl.data.splits import Splits
from fdl.types import UserError

RIDGE_ALPHA = 1000.0
"""The penalty on standardised columns."""
MOST_VALUES = 1 << 26
"""Numbers in the ridge regression's table at most: beyond them, every second (third, ...) training window is taken."""


def forecasts(splits: Splits, lags: int, harmonics: int) -> dict[str, np.ndarray]:
    """Return name -> forecasts float64 of the evaluated rows' targets' shape [N, H] or [N, H, K].

    - "last value": the window's last value, repeated;
    - "a day before", "a week before", "a year before": the value one season earlier (or the last full season within reach),
      where the series is long enough before the first window;
    - "ridge": linear regression of each step on the window of its column, less the window's last value, one for all columns;
    - "autoregression": `lags` steps back and `harmonics` waves of each calendar column's cycle (statsmodels), iterated.

    Data that are no windows over a series have none of them.
    """
    rows = splits.evaluated
    inputs, targets = rows["inputs"], rows["targets"]
    places = list(splits.facts.extra.get("target_columns", ()))
    if not (isinstance(inputs, Windows) and isinstance(targets, Windows) and places):
        return {}
    series = inputs.series[:, places].astype(np.float64)
    shape = (len(inputs), targets.length, len(places))
    found = {"last value": np.broadcast_to(series[inputs.starts + inputs.length - 1][:, None], shape)}
    for name, season in splits.facts.extra.get("seasons", {}).items():
        if (earlier := _season_before(series, targets, season)) is not None:
            found[name] = earlier
    mean, deviation = target_scale(splits)
    ridge = _ridge((series - mean) / deviation, splits.train["targets"], targets, inputs.length)
    found["ridge"] = ridge * deviation + mean
    waves = _waves(inputs.series, splits.facts.numeric, harmonics)
    end = int((splits.train["targets"].starts + splits.train["targets"].length).max())
    columns = [_autoregression(series[:, k], waves, end, targets, lags) for k in range(len(places))]
    found[f"AR({lags})" + " and seasons" * (waves.shape[1] > 0)] = np.stack(columns, -1)
    return {name: values.reshape(targets.shape) for name, values in found.items()}


def target_scale(splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the deviation of each target column over the training steps, as `ScaleSeries` measures them."""
    fitted = ScaleSeries().fit(splits.train)
    return fitted["target_mean"][0], fitted["target_deviation"][0]


def _season_before(series: np.ndarray, targets: Windows, season: int) -> np.ndarray | None:
    """Return [N, H, K]: for each step the latest known value that is a whole number of seasons earlier."""
    ahead = np.arange(targets.length)
    back = (ahead // season + 1) * season
    rows = targets.starts[:, None] + ahead - back
    return None if rows.min() < 0 else series[rows]


def _ridge(scaled: np.ndarray, train: Windows, test: Windows, window: int) -> np.ndarray:
    """Fit and forecast in the scaled columns [T, K]; returns [N, H, K]."""
    from sklearn.linear_model import Ridge

    horizon, count = test.length, scaled.shape[1]
    scaled = scaled.astype(np.float32)

    def table(starts: np.ndarray) -> np.ndarray:
        """Return [n * K, W + H]: the window and the horizon of each column, less the window's last value."""
        rows = scaled[(starts - window)[:, None] + np.arange(window + horizon)].swapaxes(1, 2)
        return (rows - rows[..., window - 1 : window]).reshape(-1, window + horizon)

    every = -(-len(train) * count * (window + horizon) // MOST_VALUES)
    known = table(train.starts[::every])
    fitted = Ridge(alpha=RIDGE_ALPHA, fit_intercept=False).fit(known[:, :window], known[:, window:])
    forecast = [
        table(starts)[:, :window] @ fitted.coef_.reshape(horizon, window).T
        for starts in np.array_split(test.starts, max(1, len(test) // 512))
    ]
    changed = np.concatenate(forecast).reshape(len(test), count, horizon).swapaxes(1, 2)
    return changed.astype(np.float64) + scaled[test.starts - 1][:, None]


def _waves(columns: np.ndarray, names: tuple[str, ...], harmonics: int) -> np.ndarray:
    """Return sines and cosines of 1, ..., `harmonics` times each calendar cycle, [T, 2 * cycles * harmonics]."""
    waves = []
    for place, name in enumerate(names):
        if name.startswith("sine of ") and name.replace("sine", "cosine", 1) in names:
            other = names.index(name.replace("sine", "cosine", 1))
            angle = np.arctan2(columns[:, place].astype(np.float64), columns[:, other].astype(np.float64))
            waves += [wave(order * angle) for order in range(1, harmonics + 1) for wave in (np.sin, np.cos)]
    return np.stack(waves, 1) if waves else np.zeros((len(columns), 0))


def _autoregression(series: np.ndarray, waves: np.ndarray, end: int, targets: Windows, lags: int) -> np.ndarray:
    """Fit series[:end] [T] and forecast the targets' steps one after the other, each from those before it; [N, H]."""
    try:
        from statsmodels.tsa.ar_model import AutoReg
    except ImportError:
        raise UserError(
            "the autoregression beside a forecast needs statsmodels, which is not installed: pip install 'fdl[series]'"
        ) from None
    lags = min(lags, int(targets.starts.min()), max(1, end // 4))
    exog = waves[:end] if waves.shape[1] else None
    constant, *weights = AutoReg(series[:end], lags, trend="c", exog=exog).fit().params
    past = series[targets.starts[:, None] - np.arange(1, lags + 1)]  # the latest first
    steps = []
    for step in range(targets.length):
        season = waves[targets.starts + step] @ np.array(weights[lags:])
        steps.append(constant + past @ np.array(weights[:lags]) + season)
        past = np.concatenate([steps[-1][:, None], past[:, :-1]], axis=1)
    return np.stack(steps, 1)
