"""Pure NumPy functions called from inside a compiled step: how what `fdl.scratch` does by hand runs in the same loop."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from fdl.types import UserError


def numpy_call(function: Callable[..., object], like: object, *args: object) -> Any:
    """Compute `function(*args)` by the host's NumPy when the traced code runs.

    XLA hands its own buffers over as NumPy arrays. `jax.pure_callback` would make JAX arrays of them first, by a transfer
    that may wait for a free thread of the CPU client: on one core that is the thread which is waiting for the result.

    Args:
        function: from trees of NumPy arrays, which cannot be written to and must not be kept, to a tree as `like`. Pure:
            it may be called more than once, or not at all where nobody uses its result. It must not call JAX.
        like: what `function` returns, as shapes and dtypes (jax.ShapeDtypeStruct).
        args: trees of arrays.

    Returns:
        JAX arrays, a tree as `like`. Without a gradient (see `jax.custom_vjp`); under `jax.vmap` one call a member.

    Raises:
        UserError: JAX computes on an accelerator, whose memory NumPy cannot read.
    """
    if jax.default_backend() != "cpu":
        raise UserError(
            f"what is computed by hand is computed by NumPy, which cannot use this {jax.default_backend()}: set "
            "JAX_PLATFORMS=cpu in the environment, or choose a model and optimizer.engine that are compiled"
        )

    def run(_: object, out: object, *buffers: object) -> None:
        with np.errstate(all="ignore"):  # what is not finite is found in the step, as it is in compiled code
            made = function(*jax.tree.map(_view, buffers))
        jax.tree.map(_fill, out, made)

    def call(*args: object) -> Any:
        return buffer_callback(run, like, vmap_method="sequential")(*args)

    # A program's text holds no line of `function`, but the name of what calls it: so the digest of a program
    # (`Compiled.sha256`) is another one when the function's file is.
    call.__name__ = f"numpy_{_source_digest(function)[:16]}"
    return jax.jit(call)(*args)


def _source_digest(function: Callable[..., object]) -> str:
    """Return the sha256 of the file that a function was written in; of its own text where there is none, as in a notebook."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    try:
        source = Path(code.co_filename).read_bytes() if code else b""
    except OSError:
        try:
            source = inspect.getsource(code).encode() if code else b""
        except OSError:
            source = code.co_code if code else b""
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    return hashlib.sha256(source or name.encode()).hexdigest()


def _view(buffer: object) -> np.ndarray:
    view = np.asarray(buffer)
    view.flags.writeable = False
    return view


def _fill(buffer: object, value: object) -> None:
    """Copy `value` into XLA's buffer; a result of another shape or dtype is an error, never broadcast or cast."""
    place, value = np.asarray(buffer), np.asarray(value)
    if (value.shape, value.dtype) != (place.shape, place.dtype):
        raise TypeError(f"NumPy made {value.dtype}{value.shape} where {place.dtype}{place.shape} was announced")
    np.copyto(place, value)
