# %% [markdown]
# # 1. A neuron and its gradient
#
# A neuron computes $p = \sigma(w \cdot x + b)$: a weighted sum, pressed into (0, 1). Read $p$ as the probability that $x$ belongs
# to class 1. The cross entropy $L = -t \log p - (1 - t) \log(1 - p)$ is large where $p$ is confident and wrong.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from fdl.scratch import layers, losses
from fdl.scratch.gradient_check import numerical_gradient, relative_difference

rng = np.random.default_rng(0)
targets = np.repeat([0.0, 1.0], 100)[:, None]
x = rng.standard_normal((200, 2)) + np.where(targets > 0, 1.0, -1.0)
params = {"kernel": np.zeros((2, 1)), "bias": np.zeros(1)}

# %% [markdown]
# **By hand.** The chain rule, read from the loss back to the weights: $\partial L / \partial a = (p - t) / N$ with $a = w \cdot x + b$
# (the logarithm and the exponential cancel), then $\partial L / \partial w = x^\top\, \partial L / \partial a$.


# %%
def loss_and_gradient(params):
    a, layer_cache = layers.dense(x, params)
    loss, loss_cache = losses.binary_cross_entropy(a, targets)
    da = losses.binary_cross_entropy_backward(1.0, loss_cache)
    _, grads = layers.dense_backward(da, layer_cache)
    return loss, grads


loss, grads = loss_and_gradient(params)
print(f"at w = 0 every p is 1/2, so the loss is log 2 = {np.log(2):.6f}: {loss:.6f}")

# %% [markdown]
# **Is it right?** Move each weight a little to both sides and see how the loss changes: $(L(w + h) - L(w - h)) / 2h$.

# %%
numeric = numerical_gradient(lambda p: loss_and_gradient(p)[0], params)
difference = relative_difference(grads, numeric)
print(f"relative difference {difference:.1e}")
assert difference < 1e-7


# %% [markdown]
# **The JAX twin** writes the loss alone; `jax.grad` derives the rest.


# %%
def jax_loss(params):
    logits = x @ params["kernel"] + params["bias"]
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean()


for ours, theirs in zip(
    jax.tree.leaves(grads), jax.tree.leaves(jax.grad(jax_loss)(jax.tree.map(jnp.asarray, params))), strict=True
):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)

# %% [markdown]
# **At work.** Repeat "a small step against the gradient". The line where $p = 1/2$ turns until it separates the classes.

# %%
history = []
for _ in range(100):
    loss, grads = loss_and_gradient(params)
    params = {name: params[name] - 1.0 * grads[name] for name in params}
    history.append(loss)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
left.plot(history)
left.set(xlabel="step", ylabel="cross entropy", title="learning")
right.scatter(*x.T, c=targets[:, 0], cmap="coolwarm", s=8)
along = np.array([-4.0, 4.0])
right.plot(along, -(params["kernel"][0] * along + params["bias"]) / params["kernel"][1], "k")
right.set(title="p = 1/2", xlim=(-4, 4), ylim=(-4, 4))

accuracy = np.mean((layers.dense(x, params)[0] > 0) == (targets > 0))
print(f"loss {history[0]:.3f} -> {history[-1]:.3f}, accuracy {accuracy:.1%}")
assert accuracy > 0.85

# %% [markdown]
# Next: `./launch.sh --experiment=scratch_logistic` trains this neuron to tell pullovers from coats.
#
# **Exercises.** (a) Double the learning rate until it diverges. (b) Replace the cross entropy by `losses.squared_error` of
# $\sigma(a)$ and start from weights of 10: why does it hardly move? (c) Give the gradient a wrong sign: which check notices?
