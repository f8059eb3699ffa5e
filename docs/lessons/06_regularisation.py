# %% [markdown]
# # 6. Regularisation
#
# A net with enough units can learn its training points by heart, noise included. Regularisation makes that more expensive
# than a simple rule: L2 charges for large weights, dropout makes every unit unreliable.

# %%
import matplotlib.pyplot as plt
import numpy as np
import optax

from fdl.scratch import layers, losses, network, optimizers


def moons(rng, count, noise=0.35):
    angle, side = rng.uniform(0, np.pi, count), rng.integers(0, 2, count)
    x = np.stack([np.cos(angle) + side, np.sin(angle) * (1 - 2 * side) + side / 2], axis=-1)
    return x + noise * rng.standard_normal(x.shape), side


rng = np.random.default_rng(0)
x, labels = moons(rng, 60)
test_x, test_labels = moons(rng, 2000)

# %% [markdown]
# **By hand.** The penalty $\lambda / 2 \cdot \sum w^2$ has the gradient $\lambda w$: every step shrinks each weight a little.

# %%
params = {"Dense_0": {"kernel": np.array([[3.0, -4.0]]), "bias": np.array([7.0, 7.0])}}
penalty, grads = losses.l2(params, 0.1)
assert penalty == 0.05 * 25, "the bias is free"
np.testing.assert_allclose(grads["Dense_0"]["kernel"], 0.1 * params["Dense_0"]["kernel"])
np.testing.assert_allclose(penalty, 0.1 * optax.losses.l2_loss(params["Dense_0"]["kernel"]).sum(), rtol=1e-6)

# %% [markdown]
# Dropout keeps a unit with probability $1 - r$ and divides what is left by $1 - r$, so that the expected sum stays as it is
# and nothing is to be done in inference.

# %%
ones = np.ones((10_000, 8))
dropped, _ = layers.dropout(ones, 0.3, rng.random(ones.shape))
print(f"kept {np.mean(dropped > 0):.3f}, mean {dropped.mean():.3f}")
assert abs(dropped.mean() - 1) < 0.02


# %% [markdown]
# **At work.** 60 noisy points, 100 hidden units, three nets.


# %%
def fit(rate=0.0, l2=0.0):
    net = network.mlp((100,), 2, dropout_rate=rate)
    draw = np.random.default_rng(1)
    params, stats = network.init(draw, net, (2,), np.float64)
    feed = [(x, labels)] * 1500
    params, stats, _, _ = network.train(net, params, stats, optimizers.adam(0.02), feed, l2=l2, rng=draw)
    return lambda points: network.predict(net, params, stats, points)


nets = {"nothing": fit(), "L2": fit(l2=0.01), "dropout": fit(rate=0.5)}
grid = np.stack(np.meshgrid(np.linspace(-2, 3, 60), np.linspace(-1.5, 2, 60)), axis=-1)
figure, axes = plt.subplots(1, 3, figsize=(9, 3))
scores = {}
for axis, (name, predict) in zip(axes, nets.items(), strict=True):
    logits = predict(grid.reshape(-1, 2))
    axis.contourf(grid[..., 0], grid[..., 1], (logits[:, 1] > logits[:, 0]).reshape(60, 60), cmap="coolwarm", alpha=0.4)
    axis.scatter(*x.T, c=labels, cmap="coolwarm", s=8)
    scores[name] = [float(np.mean(predict(p).argmax(1) == t)) for p, t in ((x, labels), (test_x, test_labels))]
    axis.set(title=f"{name}: {scores[name][0]:.0%} / {scores[name][1]:.0%}")
print("training / test accuracy", {name: [round(s, 3) for s in pair] for name, pair in scores.items()})
gap = {name: pair[0] - pair[1] for name, pair in scores.items()}
assert gap["L2"] < gap["nothing"]

# %% [markdown]
# Next: `./launch.sh --experiment=study_regularisation` repeats the course's experiment with five seeds.
#
# **Exercises.** (a) 600 points instead of 60: what becomes of the gap? (b) Raise `l2` to 1: what does the border look like?
# (c) Stop the first net after 100 steps ("early stopping"): which of the three does it resemble?
