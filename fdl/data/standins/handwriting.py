"""Ten digits drawn by code as strokes of a shaky pen: the pictures behind the MNIST stand-in."""

from __future__ import annotations

import itertools

import numpy as np

from fdl.data.standins.draw import Grid, canvas, limb, photograph, uniform

CLASSES = tuple("0123456789")


def _arc(x: float, y: float, width: float, height: float, start: float, end: float, points: int = 9) -> list[tuple]:
    """Return points of an ellipse's arc; degrees from the right, clockwise on the picture."""
    angles = np.deg2rad(np.linspace(start, end, points))
    return [(x + width * np.cos(a), y + height * np.sin(a)) for a in angles]


# Each digit is one or more strokes, each a broken line; -1 is the left and the top, 1 the right and the bottom.
_STROKES: dict[int, list[list[tuple]]] = {
    0: [_arc(0, 0, 0.38, 0.62, -90, 270, 14)],
    1: [[(-0.2, -0.4), (0.05, -0.62), (0.0, 0.62)]],
    2: [[*_arc(0, -0.28, 0.36, 0.34, -160, 40), (-0.36, 0.6), (0.4, 0.58)]],
    3: [_arc(-0.02, -0.3, 0.34, 0.31, -150, 95), _arc(-0.02, 0.3, 0.38, 0.32, -90, 150)],
    4: [[(-0.1, -0.62), (-0.38, 0.1), (0.4, 0.08)], [(0.2, -0.4), (0.14, 0.64)]],
    5: [[(0.36, -0.6), (-0.28, -0.58), (-0.32, -0.06), *_arc(-0.03, 0.24, 0.36, 0.36, -130, 140)]],
    6: [[(0.24, -0.62), (-0.14, -0.3), *_arc(0.02, 0.26, 0.34, 0.34, 190, 530, 12)]],
    7: [[(-0.36, -0.56), (0.36, -0.58), (0.06, 0.0), (-0.08, 0.62)]],
    8: [_arc(0, -0.32, 0.27, 0.29, -90, 270, 11), _arc(0, 0.3, 0.33, 0.32, -90, 270, 11)],
    9: [[*_arc(0.02, -0.26, 0.32, 0.33, 0, -360, 12), (0.3, 0.1), (0.16, 0.62)]],
}


def draw(rng: np.random.Generator, label: int, n: int) -> np.ndarray:
    """Draw n pictures of one digit, uint8 [n, 28, 28, 1]."""
    u, v = canvas(rng, n, turn=16, stretch=0.3, shift=2, wave=0.07)
    u = u + uniform(rng, n, -0.35, 0.35) * v  # the slant of the hand
    pen, ink = uniform(rng, n, 0.06, 0.14), np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
    for stroke in _STROKES[label]:
        points = [_shake(rng, n, point) for point in stroke]
        for start, end in itertools.pairwise(points):
            ink = np.maximum(ink, limb(u, v, start, end, pen, pen))
    return photograph(rng, ink * uniform(rng, n, 0.7, 1), cover=0.1, noise=0.06)


def _shake(rng: np.random.Generator, n: int, point: tuple[float, float]) -> tuple[Grid, Grid]:
    x, y = (np.float32(at) + uniform(rng, n, -0.055, 0.055) for at in point)
    return x, y
