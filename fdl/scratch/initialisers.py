"""Where training starts: functions of (rng, shape, dtype) that return a kernel.

The rule behind Xavier and He: a unit that sums `fan_in` inputs multiplies their variance by fan_in * Var(W), so weights
that are too small let the signal (and on the way back the gradient) die out over the layers, too large ones blow it up.
"""

from __future__ import annotations

import math

import numpy as np

from fdl.scratch.trees import Array, DType

Shape = tuple[int, ...]


def fans(shape: Shape) -> tuple[int, int]:
    """Return (fan in, fan out) of a kernel: [in, out] dense, or [kh, kw, in, out], where each counts kh*kw times."""
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def zeros(rng: np.random.Generator, shape: Shape, dtype: DType = np.float32) -> Array:
    """Return all zeros: right for biases. Kernels of zeros make every unit of a layer equal, and they remain equal."""
    return np.zeros(shape, dtype)


def random(rng: np.random.Generator, shape: Shape, dtype: DType = np.float32, scale: float = 0.01) -> Array:
    """Draw Normal(0, scale^2), whatever the shape. scale=10 shows what too large a start does."""
    return (scale * rng.standard_normal(shape)).astype(dtype)


def xavier(rng: np.random.Generator, shape: Shape, dtype: DType = np.float32) -> Array:
    """Draw Uniform(-a, a), a = sqrt(6 / (fan_in + fan_out)): Var = 2 / (fan_in + fan_out), for tanh and linear units.

    Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", eq. 16.
    """
    limit = math.sqrt(6 / sum(fans(shape)))
    return rng.uniform(-limit, limit, shape).astype(dtype)


def he(rng: np.random.Generator, shape: Shape, dtype: DType = np.float32) -> Array:
    """Draw Normal(0, 2 / fan_in): twice 1 / fan_in, because a ReLU passes half of its inputs.

    He et al. 2015, "Delving deep into rectifiers", eq. 10.
    """
    return random(rng, shape, dtype, scale=math.sqrt(2 / fans(shape)[0]))
