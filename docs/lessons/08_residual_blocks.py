# %% [markdown]
# # 8. Residual blocks
#
# Deeper should not be worse: the extra layers could copy. Plain layers cannot learn to copy easily, so He et al. (2015) let them
# learn what to *add*: $y = x + F(x)$. On the way back $dx = dy + dF$: there is always a path around the block.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from fdl.scratch import activations, initialisers, layers, residual
from fdl.scratch.gradient_check import check_gradient

WIDTH = 32


# %% [markdown]
# **By hand.** A block of two dense layers, with the path around it and without.


# %%
def block(x, params, skip):
    h, first = layers.dense(x, params["in"])
    h, relu = activations.relu(h)
    y, second = layers.dense(h, params["out"])
    return y + x if skip else y, (first, relu, second, skip)


def block_backward(dy, cache):
    first, relu, second, skip = cache
    dh, out = layers.dense_backward(dy, second)
    dx, inner = layers.dense_backward(activations.relu_backward(dh, relu), first)
    return dx + dy if skip else dx, {"in": inner, "out": out}


def draw(rng):
    shape = (WIDTH, WIDTH)
    return {
        "in": {"kernel": initialisers.he(rng, shape, np.float64)},
        "out": {"kernel": initialisers.xavier(rng, shape, np.float64) / 4},
    }


rng = np.random.default_rng(0)
x, weights = rng.standard_normal((3, WIDTH)), rng.standard_normal((3, WIDTH))


def loss(tree):
    y, cache = block(tree["x"], tree["params"], skip=True)
    dx, grads = block_backward(weights, cache)
    return float(np.sum(weights * y)), {"x": dx, "params": grads}


params = draw(rng)
difference = check_gradient(loss, {"x": x, "params": params})
print(f"relative difference to finite differences {difference:.1e}")
assert difference < 1e-7


# %% [markdown]
# **The JAX twin** is one line, and gives the same gradient.


# %%
def jax_loss(x):
    return jnp.sum(weights * (x + jax.nn.relu(x @ params["in"]["kernel"]) @ params["out"]["kernel"]))


with jax.enable_x64(True):
    np.testing.assert_allclose(loss({"x": x, "params": params})[1]["x"], jax.grad(jax_loss)(jnp.asarray(x)), rtol=1e-8)

# %% [markdown]
# **At work.** How large the gradient is when it reaches the input, by depth.

# %%
depths = [1, 2, 5, 10, 20, 50]
reached = {True: [], False: []}
for skip, sizes in reached.items():
    for depth in depths:
        draws, y, caches = np.random.default_rng(depth), x, []
        for _ in range(depth):
            y, cache = block(y, draw(draws), skip)
            caches.append(cache)
        dy = weights
        for cache in reversed(caches):
            dy, _ = block_backward(dy, cache)
        sizes.append(np.linalg.norm(dy) / np.linalg.norm(weights))
figure, axis = plt.subplots(figsize=(5, 3))
axis.loglog(depths, reached[True], "o-", label="x + F(x)")
axis.loglog(depths, reached[False], "o-", label="F(x)")
axis.set(xlabel="blocks", ylabel="gradient at the input / at the output")
axis.legend()
print({"with": f"{reached[True][-1]:.1e}", "without": f"{reached[False][-1]:.1e}"})
assert reached[False][-1] < 1e-8 < 1e-1 < reached[True][-1] < 1e3

# %% [markdown]
# `fdl.scratch.residual` has the whole ResNet-50 by hand, with the published number of parameters.

# %%
params, _ = residual.init_resnet(rng)
count = sum(leaf.size for leaf in jax.tree.leaves(params))
print(f"{count:,} parameters")
assert count == 25_557_032

# %% [markdown]
# Next: `./launch.sh --experiment=cifar10_resnet`.
#
# **Exercises.** (a) What must change in a block whose output has more features than its input? (b) Start `out` at zero: what
# does a net of such blocks compute before training, and why is that a good start? (c) Scale the skip path by 0.9: draw the curve.
