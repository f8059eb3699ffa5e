"""Coloured emblems on coloured grounds: what the stand-ins for photographs are made of, any number of classes, any size."""

from __future__ import annotations

import numpy as np

NUM_FORMS = 10
"""disc, square, triangle, ring, cross, bars, columns, chequers, two discs, crescent"""


def draw(
    rng: np.random.Generator, form_N: np.ndarray, hue_N: np.ndarray, ground_N: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Draw uint8 [N, height, width, 3]: each a form (0 to 9) of one hue on a ground of another (both in [0, 1]).

    Place, size, turn, brightness, a slope of light over the ground and grain are random.
    """
    n = len(form_N)

    def uniform(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)

    y, x = np.meshgrid(
        (np.arange(height, dtype=np.float32) + 0.5) * 2 / height - 1,
        ((np.arange(width, dtype=np.float32) + 0.5) * 2 / width - 1) * (width / height),
        indexing="ij",
    )
    turn, size, x0, y0 = uniform(-0.4, 0.4), uniform(0.4, 0.8), uniform(-0.35, 0.35), uniform(-0.35, 0.35)
    u = ((x - x0) * np.cos(turn) + (y - y0) * np.sin(turn)) / size
    v = ((y - y0) * np.cos(turn) - (x - x0) * np.sin(turn)) / size
    edge = 2 / (height * size)  # a ramp of one pixel
    inside = np.clip(0.5 - _distance(form_N, u, v) / edge, 0, 1)[..., None]
    light = (uniform(0.5, 1) + uniform(-0.3, 0.3) * x + uniform(-0.3, 0.3) * y)[..., None]
    ground = _colour(ground_N + 0.03 * rng.standard_normal(n)) * np.clip(light, 0.15, 1)
    figure = _colour(hue_N + 0.03 * rng.standard_normal(n)) * uniform(0.5, 1)[..., None]
    picture = ground + inside * (figure - ground)
    picture += uniform(0.01, 0.12)[..., None] * rng.standard_normal(picture.shape, dtype=np.float32)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _distance(form_N: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return [N, H, W]: below zero inside the form, rising by about one a unit of length."""
    distance = np.empty_like(u)
    for form in np.unique(form_N):
        rows = form_N == form
        a, b = u[rows], v[rows]
        disc, box = np.hypot(a, b) - 1, np.maximum(abs(a), abs(b)) - 0.9
        distance[rows] = (
            disc,
            box,
            np.maximum(b - 0.7, abs(a) * 0.87 - b * 0.5 - 0.6),
            abs(disc + 0.25) - 0.2,
            np.maximum(np.minimum(abs(a), abs(b)) - 0.3, box),
            np.maximum(abs((b + 2) % 0.6 - 0.3) - 0.15, box),
            np.maximum(abs((a + 2) % 0.6 - 0.3) - 0.15, box),
            np.maximum(np.sin(5 * a) * np.sin(5 * b) / 5, box),
            np.minimum(np.hypot(a - 0.5, b), np.hypot(a + 0.5, b)) - 0.42,
            np.maximum(disc, 0.8 - np.hypot(a - 0.5, b)),
        )[form]
    return distance


def _colour(hue_N: np.ndarray) -> np.ndarray:
    """Return float32 [N, 1, 1, 3]: a rather pale colour of each hue, which wraps around at 1."""
    phase = (hue_N[:, None] + np.array([0, 1 / 3, 2 / 3])) * 2 * np.pi
    return (0.55 + 0.4 * np.cos(phase)).astype(np.float32)[:, None, None]
