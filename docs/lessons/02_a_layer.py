# %% [markdown]
# # 2. A layer, vectorised
#
# A layer is many neurons that look at the same input; a batch is many inputs. As loops that is three deep. As algebra it
# is one product, $Y = XW + b$, with $X$ [batch, in] and $W$ [in, out], and a processor is built for that.

# %%
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from fdl.scratch import layers
from fdl.scratch.gradient_check import check_layer

rng = np.random.default_rng(0)
x = rng.standard_normal((64, 100)).astype(np.float32)
params = {"kernel": rng.standard_normal((100, 50)).astype(np.float32), "bias": np.zeros(50, np.float32)}


def by_loops(x, params):
    y = np.empty((len(x), params["kernel"].shape[1]), x.dtype)
    for row in range(y.shape[0]):
        for unit in range(y.shape[1]):
            total = params["bias"][unit]
            for i in range(x.shape[1]):
                total += x[row, i] * params["kernel"][i, unit]
            y[row, unit] = total
    return y


# %% [markdown]
# The same numbers, at very different prices.

# %%
start = time.perf_counter()
slow = by_loops(x, params)
middle = time.perf_counter()
fast, _ = layers.dense(x, params)
end = time.perf_counter()
np.testing.assert_allclose(slow, fast, rtol=1e-3, atol=1e-3)
print(f"loops {1e3 * (middle - start):.0f} ms, one product {1e3 * (end - middle):.2f} ms")

# %% [markdown]
# **Backwards** only one order of factors fits the shapes, which is how to remember it:
# $dW = X^\top dY$ is [in, batch][batch, out], $dX = dY\, W^\top$ is [batch, out][out, in], and $db$ is the sum of $dY$ over the batch.

# %%
small = {name: value.astype(np.float64)[..., :3] for name, value in params.items()}
difference = check_layer(layers.dense, layers.dense_backward, x[:4].astype(np.float64), small, rng)
print(f"relative difference to finite differences {difference:.1e}")
assert difference < 1e-7

# %% [markdown]
# **The Flax twin** uses the same layout, so that the same dict of arrays serves both. `jax.vmap` goes the other way: write
# the layer for *one* input and let it be vectorised.

# %%
twin = nn.Dense(50).apply({"params": params}, x)
np.testing.assert_allclose(fast, twin, rtol=1e-4, atol=1e-4)
one = jax.vmap(lambda row: row @ params["kernel"] + params["bias"])(jnp.asarray(x))
np.testing.assert_allclose(fast, one, rtol=1e-4, atol=1e-4)

# %% [markdown]
# **At work.** Time for a batch, by batch size: at first more rows cost nothing, as most of the time is overhead. That is why nets
# are trained on batches even where one example at a time would do.

# %%
sizes, seconds = [1, 4, 16, 64, 256, 1024], []
for size in sizes:
    rows = rng.standard_normal((size, 100)).astype(np.float32)
    start = time.perf_counter()
    for _ in range(20):
        layers.dense(rows, params)
    seconds.append((time.perf_counter() - start) / 20)
figure, axis = plt.subplots(figsize=(4, 3))
axis.loglog(sizes, [1e6 * s / size for s, size in zip(seconds, sizes, strict=True)], "o-")
axis.set(xlabel="rows in a batch", ylabel="microseconds a row")

# %% [markdown]
# Next: `./launch.sh --experiment=study_vectorisation` compares loops, NumPy, `jit` and `vmap`.
#
# **Exercises.** (a) Two dense layers without an activation between them: show that one dense layer computes the same.
# (b) Write `by_loops` with one loop instead of three. (c) Why does `dense_backward` sum $db$ over the batch?
