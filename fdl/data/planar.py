"""Toy problems in the plane, each a function Request -> Splits: small enough to watch a net learn, and to draw what it learned.

NumPy draws them from a fixed seed and they replace no real data: the drawn points are the data set, the same on every
machine. Inputs are float32 [N, 2], targets int32 [N], the classes one after the other in equal shares; the test split is
drawn anew from the same distribution, and neither split depends on the size of the other.

Moons and circles are scikit-learn's `make_moons` and `make_circles`; flower and fields are in the manner of the planar
data sets of deeplearning.ai's "Neural Networks and Deep Learning" and "Improving Deep Neural Networks"; spirals are in the
manner of Stanford's CS231n.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fdl.data.formats.forms import choose, splits
from fdl.data.splits import Request, Splits
from fdl.types import Arrays, Count, Fraction, NonNegative, Positive

SEED = 0

_Curve = Callable[[np.random.Generator, int, int], np.ndarray]
"""(generator, class, n) -> n points of that class, [n, 2]."""


def moons(
    request: Request, *, examples: Count = 300, test_examples: Count = 1000, noise: NonNegative = 0.2
) -> Splits:  # fmt: skip
    """Draw two interlocking half circles of radius 1: two classes.

    Args:
        examples, test_examples: points of the training and of the test split.
        noise: standard deviation of the normal noise added to both coordinates.
    """

    def curve(rng: np.random.Generator, label: int, count: int) -> np.ndarray:
        angle = np.linspace(0, np.pi, count)
        arc = np.stack([np.cos(angle), np.sin(angle)], 1)
        return _noisy(rng, np.array([1, 0.5]) - arc if label else arc, noise)

    return _drawn("moons", request, curve, (examples, test_examples), ("outer", "inner"))


def circles(
    request: Request, *, examples: Count = 300, test_examples: Count = 100, noise: NonNegative = 0.05,
    factor: Fraction = 0.8,
) -> Splits:  # fmt: skip
    """Draw a circle of radius 1 and one of radius `factor` within: two classes. Other arguments as those of `moons`."""

    def curve(rng: np.random.Generator, label: int, count: int) -> np.ndarray:
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        ring = np.stack([np.cos(angle), np.sin(angle)], 1)
        return _noisy(rng, factor * ring if label else ring, noise)

    return _drawn("circles", request, curve, (examples, test_examples), ("outer", "inner"))


def flower(
    request: Request, *, examples: Count = 400, test_examples: Count = 400, petals: Count = 4,
    noise: NonNegative = 0.2,
) -> Splits:  # fmt: skip
    """Draw the rose r = 4 sin(petals t): its left half is one class, its right half the other, except for noise.

    Args:
        petals: as the sine counts them; an even number draws twice as many.
        noise: standard deviation of what is added to the angle (radians) and to the radius.
    """

    def curve(rng: np.random.Generator, label: int, count: int) -> np.ndarray:
        half = 3.12  # a little less than pi, as in the original
        angle = np.linspace(label * half, (label + 1) * half, count) + noise * rng.standard_normal(count)
        radius = 4 * np.sin(petals * angle) + noise * rng.standard_normal(count)
        return radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)

    return _drawn("flower", request, curve, (examples, test_examples), ("red", "blue"))


def fields(
    request: Request, *, examples: Count = 211, test_examples: Count = 200, overlap: NonNegative = 0.05,
    flipped: Fraction = 0.05,
) -> Splits:  # fmt: skip
    """Draw points all over a square of side 1.6, one class below its diagonal and one above, with some on the wrong side.

    A net that is free to wind around those overfits: what L2 and dropout are shown on.

    Args:
        overlap: standard deviation of the border's normal noise, measured along the second coordinate.
        flipped: the share of points, anywhere, that are given the other class's place.
    """

    def curve(rng: np.random.Generator, label: int, count: int) -> np.ndarray:
        points = rng.uniform(-0.8, 0.8, (20 * count + 200, 2))  # about half of them lie on either side
        above = points[:, 1] - points[:, 0] + overlap * rng.standard_normal(len(points)) > 0
        side = np.where(rng.random(len(points)) < flipped, 1 - label, label)
        return points[above == side][:count]

    return _drawn("fields", request, curve, (examples, test_examples), ("lower", "upper"))


def blobs(
    request: Request, *, examples: Count = 300, test_examples: Count = 300, classes: Count = 3,
    deviation: NonNegative = 1.0,
) -> Splits:  # fmt: skip
    """Draw round normal clouds whose centres are spaced evenly on a circle of radius 3.

    Args:
        classes: the number of clouds.
        deviation: standard deviation of each cloud along either axis.
    """

    def curve(rng: np.random.Generator, label: int, count: int) -> np.ndarray:
        angle = 2 * np.pi * label / classes
        return np.array([3 * np.cos(angle), 3 * np.sin(angle)]) + deviation * rng.standard_normal((count, 2))

    return _drawn("blobs", request, curve, (examples, test_examples), _numbered("blob", classes))


def spirals(
    request: Request, *, examples: Count = 300, test_examples: Count = 300, classes: Count = 3,
    turns: Positive = 0.64, noise: NonNegative = 0.2,
) -> Splits:  # fmt: skip
    """Draw arms that wind out from the origin to radius 1.

    Args:
        classes: the number of arms.
        turns: how often each winds around the origin.
        noise: standard deviation of what is added to the angle, in radians.
    """

    def curve(rng: np.random.Generator, label: int, count: int) -> np.ndarray:
        radius = np.linspace(0, 1, count + 1)[1:]  # the origin would be of all classes at once
        angle = 2 * np.pi * (label / classes + turns * radius) + noise * rng.standard_normal(count)
        return radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)

    return _drawn("spirals", request, curve, (examples, test_examples), _numbered("arm", classes))


def _noisy(rng: np.random.Generator, points: np.ndarray, noise: float) -> np.ndarray:
    return points + noise * rng.standard_normal(points.shape)


def _numbered(word: str, count: int) -> tuple[str, ...]:
    return tuple(f"{word} {number}" for number in range(1, count + 1))


def _drawn(
    name: str, request: Request, curve: _Curve, sizes: tuple[int, int], classes: tuple[str, ...]
) -> Splits:  # fmt: skip
    def rows(split: int) -> Arrays:
        rng = np.random.default_rng((SEED, split))
        counts = [sizes[split] // len(classes)] * len(classes)
        for label in range(sizes[split] % len(classes)):
            counts[-1 - label] += 1  # as scikit-learn has it, the last classes are the larger ones
        points = [curve(rng, label, count) for label, count in enumerate(counts)]
        return {
            "inputs": np.concatenate(points).astype(np.float32),
            "targets": np.repeat(np.arange(len(classes), dtype=np.int32), counts),
        }

    def made() -> Splits:
        where = f"points drawn by {__name__}, seed {SEED}"
        return splits(name, "builtin", where, rows(0), rows(1), classes=classes)

    return choose(name, request, [("builtin", made)])
