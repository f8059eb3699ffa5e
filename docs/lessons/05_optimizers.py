# %% [markdown]
# # 5. Optimizers
#
# In a narrow valley the gradient points across it, not along it. A rate that is small enough for the steep direction is far too
# small for the flat one.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from fdl.scratch import optimizers

CURVATURE = np.array([1.0, 50.0])
START = {"w": np.array([-2.0, 0.6])}


def gradient(params):
    """Of L(w) = (w0^2 + 50 w1^2) / 2."""
    return {"w": CURVATURE * params["w"]}


def walk(optimizer, steps=60):
    params, state, path = START, optimizer.init(START), [START["w"]]
    for _ in range(steps):
        params, state = optimizer.update(params, gradient(params), state)
        path.append(params["w"])
    return np.array(path)


# %% [markdown]
# **By hand.** Momentum averages gradients, so that the zigzag cancels; RMSProp and Adam divide by each number's own size, so
# that both directions get a step of the same length.

# %%
paths = {
    "gradient descent": walk(optimizers.gradient_descent(0.035)),
    "momentum": walk(optimizers.momentum(0.2)),
    "RMSProp": walk(optimizers.rmsprop(0.1)),
    "Adam": walk(optimizers.adam(0.2)),
}
figure, axis = plt.subplots(figsize=(6, 3.2))
grid = np.meshgrid(np.linspace(-2.2, 0.6, 80), np.linspace(-0.8, 0.8, 80))
axis.contour(*grid, 0.5 * (CURVATURE[0] * grid[0] ** 2 + CURVATURE[1] * grid[1] ** 2), 12, colors="lightgrey")
for name, path in paths.items():
    axis.plot(*path.T, ".-", label=name, markersize=3)
axis.legend(fontsize=8)
loss = {name: float(0.5 * np.sum(CURVATURE * path[-1] ** 2)) for name, path in paths.items()}
print({name: f"{value:.1e}" for name, value in loss.items()})
assert loss["momentum"] < loss["gradient descent"]

# %% [markdown]
# Too large a rate does not learn faster: above $2 / \text{curvature}$ each step overshoots by more than the one before.

# %%
with np.errstate(over="ignore"):
    assert abs(walk(optimizers.gradient_descent(0.041))[-1, 1]) > abs(START["w"][1])
    assert abs(walk(optimizers.gradient_descent(0.039))[-1, 1]) < abs(START["w"][1])

# %% [markdown]
# **The Optax twins** make the same steps.

# %%
for ours, theirs in (
    (paths["gradient descent"], optax.sgd(0.035)),
    (paths["RMSProp"], optax.rmsprop(0.1, eps_in_sqrt=False)),
    (paths["Adam"], optax.adam(0.2)),
):
    with jax.enable_x64(True):
        params, state = START, theirs.init(START)
        for _ in range(60):
            updates, state = theirs.update(gradient(params), state, params)
            params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(ours[-1], params["w"], rtol=1e-6, atol=1e-9)

# %% [markdown]
# Next: `./launch.sh --experiment=study_optimizers` compares them on two moons, `--experiment=study_learning_rate` the rates.
#
# **Exercises.** (a) Print Adam's first step for gradients of 1 and of 1000: why is it the same? (b) Add
# `optimizers.cosine_decay` to Adam: what happens at the bottom of the valley? (c) When does a gradient need `clip_by_norm`?
