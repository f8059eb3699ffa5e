# %% [markdown]
# # 3. Losses
#
# A loss turns "how wrong" into one number. Which number decides what the model becomes: the best constant under the squared
# error is the mean, under the absolute error the median.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from fdl.scratch import activations, losses

values = np.array([1.0, 2.0, 3.0, 4.0, 40.0])
guesses = np.linspace(0, 45, 451)
curves = {
    name: [loss(np.full_like(values, guess), values)[0] for guess in guesses]
    for name, loss in (("squared", losses.squared_error), ("absolute", losses.absolute_error), ("Huber", losses.huber))
}
best = {name: guesses[np.argmin(curve)] for name, curve in curves.items()}
print(best, "mean", values.mean(), "median", np.median(values))
np.testing.assert_allclose([best["squared"], best["absolute"]], [values.mean(), np.median(values)], atol=0.1)

# %% [markdown]
# **Classification.** Softmax turns logits into probabilities; the cross entropy is minus the logarithm of the right one. By hand
# its gradient is astonishingly short: $p - \mathrm{onehot}$, divided by the number of rows.

# %%
rng = np.random.default_rng(0)
logits, labels = rng.standard_normal((4, 3)), np.array([0, 2, 1, 1])
loss, cache = losses.softmax_cross_entropy(logits, labels)
gradient = losses.softmax_cross_entropy_backward(1.0, cache)
p, _ = activations.softmax(logits)
np.testing.assert_allclose(gradient, (p - np.eye(3)[labels]) / 4)


def jax_loss(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


np.testing.assert_allclose(loss, jax_loss(jnp.asarray(logits)), rtol=1e-5)
np.testing.assert_allclose(gradient, jax.grad(jax_loss)(jnp.asarray(logits)), atol=1e-6)

# %% [markdown]
# **Why logits and not probabilities?** $e^{1000}$ is infinite. With the largest logit subtracted first nothing can overflow,
# and the result is the same.

# %%
large = np.array([[1000.0, 0.0, 0.0]])
with np.errstate(over="ignore", invalid="ignore"):
    naive = np.exp(large) / np.exp(large).sum()
print("naive", naive, "shifted", activations.softmax(large)[0])
assert np.isnan(naive).any()
assert np.isfinite(losses.softmax_cross_entropy(large, np.array([1]))[0])

# %% [markdown]
# **The trap.** Predictions [4, 1] and targets [4] subtract without complaint: NumPy broadcasts them to [4, 4], and the "loss" is
# an average of sixteen numbers, most of which mean nothing. fdl.scratch refuses.

# %%
predictions, targets = np.zeros((4, 1)), np.array([1.0, 2.0, 3.0, 4.0])
print("NumPy says nothing:", (predictions - targets).shape)
try:
    losses.squared_error(predictions, targets)
except ValueError as error:
    print("fdl.scratch:", error)
else:
    raise AssertionError("the shapes were accepted")

# %%
figure, axis = plt.subplots(figsize=(5, 3))
margins = np.linspace(-3, 3, 200)
axis.plot(margins, np.maximum(0, 1 - margins), label="hinge")
axis.plot(margins, np.log1p(np.exp(-margins)), label="cross entropy")
axis.plot(margins, margins < 0, label="error")
axis.set(xlabel="margin (positive is right)", ylabel="loss")
axis.legend()

# %% [markdown]
# **Exercises.** (a) A net outputs 0.5 for each of two classes: what is its cross entropy, and why is that the value
# to expect before training? (b) What is it for ten classes? (c) Which loss would you take for prices with a few typing errors?
