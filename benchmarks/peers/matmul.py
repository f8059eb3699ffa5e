"""The machine's best rate for the product of two square matrices: NumPy's and XLA's; the share others reach is of this."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import common


def best(product: Callable[[], Any], size: int, seconds: float) -> float:
    """FLOP/s of the fastest repetition."""
    product()
    began, fastest = time.perf_counter(), float("inf")
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        product()
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest


def main() -> None:
    """The spec: "size", "dtype", "seconds" of each, "chain": how many products in one call, as launches cost."""
    for spec in common.specs():
        size, dtype, chain, seconds = spec["size"], jnp.dtype(spec["dtype"]), spec.get("chain", 1), spec["seconds"]
        a = np.random.default_rng(0).standard_normal((size, size), np.float32) / size**0.5
        on_device = jax.device_put(jnp.asarray(a, dtype))

        @jax.jit
        def chained(a: jax.Array) -> jax.Array:
            return jax.lax.fori_loop(0, chain, lambda _, b: b @ a, a)

        found = {"xla": chain * best(lambda: chained(on_device).block_until_ready(), size, seconds)}
        if dtype == jnp.float32 and jax.default_backend() == "cpu":
            found["numpy"] = best(lambda: a @ a, size, seconds)
        device = jax.devices()[0]
        about = {"platform": device.platform, "device": device.device_kind, "jax": common.version("jax")}
        print(json.dumps({"flops": max(found.values()), "by": found, **about}), flush=True)


if __name__ == "__main__":
    main()
