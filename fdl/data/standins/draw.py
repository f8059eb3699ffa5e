"""Soft shapes on a small grey canvas, for many images at once: what the drawn stand-ins are made of.

Shapes: n images, H = W = 28 pixels. Coordinates run from -1 (left, top) to 1 (right, bottom); parameters are [n, 1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIZE = 28

Grid = np.ndarray
"""[n, H, W] float32."""


def uniform(rng: np.random.Generator, n: int, low: float, high: float) -> Grid:
    """Draw [n, 1, 1] from [low, high)."""
    return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)


def chance(rng: np.random.Generator, n: int, probability: float) -> Grid:
    """Draw [n, 1, 1] of 1 (with this probability) and 0."""
    return (rng.random((n, 1, 1)) < probability).astype(np.float32)


def canvas(
    rng: np.random.Generator, n: int, *, turn: float, stretch: float, shift: float, wave: float
) -> tuple[Grid, Grid]:
    """Return each pixel's (u, v) in its image's own frame: turned, stretched, shifted, and bent by slow waves.

    Args:
        turn: the most degrees of turn, either way.
        stretch: the most that a side is shrunk, as a share; each side has its own.
        shift: the most pixels of shift, either way.
        wave: the height of the waves, in coordinates.
    """
    axis = ((np.arange(SIZE, dtype=np.float32) + 0.5) * 2 / SIZE) - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    x = x - uniform(rng, n, -shift, shift) * 2 / SIZE
    y = y - uniform(rng, n, -shift, shift) * 2 / SIZE
    angle = np.deg2rad(uniform(rng, n, -turn, turn))
    u = (x * np.cos(angle) + y * np.sin(angle)) / uniform(rng, n, 1 - stretch, 1)
    v = (y * np.cos(angle) - x * np.sin(angle)) / uniform(rng, n, 1 - stretch, 1)
    bent = u + wave * np.sin(uniform(rng, n, 1, 4) * v + uniform(rng, n, 0, 6.28))
    return bent, v + wave * np.sin(uniform(rng, n, 1, 4) * u + uniform(rng, n, 0, 6.28))


def soft(distance: Grid) -> Grid:
    """Return 1 inside (negative distance), 0 outside, and a ramp of one pixel between."""
    return np.clip(0.5 - distance * (SIZE / 2), 0, 1)


def profile(at: Grid, knots: Sequence[float], values: Sequence[Grid | float]) -> Grid:
    """Interpolate through (knots[k], values[k]), flat beyond the ends; values may differ by image."""
    line = np.asarray(values[0], np.float32)
    for k in range(len(knots) - 1):
        width = knots[k + 1] - knots[k]
        line = line + (values[k + 1] - values[k]) * np.clip((at - knots[k]) / width, 0, 1)
    return line


def box(u: Grid, v: Grid, left: Grid | float, right: Grid | float, top: Grid | float, bottom: Grid | float) -> Grid:
    """Draw a filled rectangle; an edge may be a curve (a grid of the other coordinate's values)."""
    return soft(np.maximum(np.maximum(left - u, u - right), np.maximum(top - v, v - bottom)))


def ellipse(u: Grid, v: Grid, x: Grid | float, y: Grid | float, width: Grid | float, height: Grid | float) -> Grid:
    """Draw a filled ellipse by its centre and half axes."""
    radius = np.sqrt(((u - x) / width) ** 2 + ((v - y) / height) ** 2)
    return soft((radius - 1) * np.minimum(width, height))


def limb(
    u: Grid, v: Grid, start: tuple[Grid | float, Grid | float], end: tuple[Grid | float, Grid | float],
    thick: Grid | float, thin: Grid | float,
) -> Grid:  # fmt: skip
    """Draw a stroke with round ends, its half width going from `thick` at the start to `thin` at the end."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * dx + (v - start[1]) * dy) / (dx * dx + dy * dy + 1e-6), 0, 1)
    away = np.sqrt((u - start[0] - along * dx) ** 2 + (v - start[1] - along * dy) ** 2)
    return soft(away - (thick + (thin - thick) * along))


def photograph(rng: np.random.Generator, ink: Grid, *, cover: float, noise: float) -> np.ndarray:
    """Make grey images as a camera would: something in the way here and there, grain, 8 bits.

    Args:
        ink: brightness in [0, 1], 0 the background.
        cover: the probability that a bar or a corner of the object is hidden.
        noise: the greatest standard deviation of the grain.

    Returns:
        uint8 [n, H, W, 1].
    """
    n = len(ink)
    axis = ((np.arange(SIZE, dtype=np.float32) + 0.5) * 2 / SIZE) - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    bar = ellipse(
        x,
        y,
        uniform(rng, n, -0.8, 0.8),
        uniform(rng, n, -0.8, 0.8),
        uniform(rng, n, 0.1, 0.5),
        uniform(rng, n, 0.1, 0.5),
    )
    ink = ink * (1 - bar * chance(rng, n, cover) * uniform(rng, n, 0.5, 1))
    grain = rng.standard_normal(ink.shape, dtype=np.float32) * uniform(rng, n, 0, noise)
    # Grain belongs to the cloth: the background of a catalogue picture is clean.
    ink = ink + grain * (0.15 + 0.85 * (ink > 0.05))
    return (np.clip(ink, 0, 1) * 255).astype(np.uint8)[..., None]
