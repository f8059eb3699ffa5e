"""The score of the Numenta Anomaly Benchmark, standard profile (Lavin and Ahmad 2015, https://arxiv.org/abs/1510.03336).

An anomaly is labelled by a window of times. The first alarm in a window counts up to 1, the earlier the more; a window
without any costs 1; an alarm outside costs up to 0.11, less soon after a window. Alarms in a series' first part, its
probation, do not count. One threshold holds for all series; 0 is no alarm at all, 100 an alarm at the beginning of every
window and no other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fdl.data.formats.nab import probation

FALSE_ALARM = 0.11
Windows = Sequence[Sequence[int]]
"""First and last point of each labelled window, in order of time."""


@dataclasses.dataclass(frozen=True)
class Points:
    """What an alarm at each scored point would count: its value, and the number of the window that it is in (-1: none)."""

    values: np.ndarray
    window: np.ndarray


def score_points(length: int, windows: Windows) -> Points:
    """Compute `Points` for all points of a series, [length] each."""
    values, number = np.full(length, -FALSE_ALARM), np.full(length, -1)
    for place, (first, last) in enumerate(windows):
        inside = np.arange(first, last + 1)
        values[inside] = _sigmoid(-(last - inside + 1) / (last - first + 1)) / _sigmoid(np.array(-1.0))
        number[inside] = place
        after = np.arange(last + 1, windows[place + 1][0] if place + 1 < len(windows) else length)
        values[after] = FALSE_ALARM * _sigmoid((after - last) / max(1, last - first))
    return Points(values, number)


def nab_score(scores: Sequence[np.ndarray], windows: Sequence[Windows]) -> tuple[float, float]:
    """Compute the score at the threshold that makes it the highest, as the benchmark's published figures are.

    Args:
        scores: of each series, the anomaly score of each of its points.
        windows: of each series.

    Returns:
        (0 to 100 or below, the threshold: a score of this or more is an alarm).
    """
    parts, count = [], 0
    for held, labelled in zip(scores, windows, strict=True):
        points, start = score_points(len(held), labelled), probation(len(held))
        number = np.where(points.window >= 0, points.window + count, -1)
        parts.append((held[start:], points.values[start:], number[start:]))
        count += len(labelled)
    score, value, number = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-score, kind="stable")
    found = dict.fromkeys(number[number >= 0].tolist(), -1.0)
    total = -float(len(found))
    best, threshold = total, float("inf")
    ends = np.append(score[order][1:] != score[order][:-1], True)
    for end, point in zip(ends.tolist(), order.tolist(), strict=True):
        window = int(number[point])
        if window < 0:
            total += value[point]
        elif value[point] > found[window]:
            total += value[point] - found[window]
            found[window] = value[point]
        if end and total > best:
            best, threshold = total, float(score[point])
    return 50 * (best + count) / max(1, count), threshold


def _sigmoid(position: np.ndarray) -> np.ndarray:
    """Compute 2 / (1 + exp(5 position)) - 1; -1 beyond 3 widths."""
    return np.where(position > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(position, 3))) - 1)
