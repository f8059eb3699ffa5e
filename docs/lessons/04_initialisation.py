# %% [markdown]
# # 4. Initialisation
#
# A unit that adds up $n$ inputs multiplies their variance by $n \cdot \mathrm{Var}(w)$. Over twenty layers that factor is raised to the
# twentieth power: a little below 1 and the signal is gone, a little above and it explodes.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

from fdl.scratch import activations, initialisers

rng = np.random.default_rng(0)
WIDTH, LAYERS = 128, 20
x = rng.standard_normal((256, WIDTH))
rules = {
    "0.01": lambda shape: initialisers.random(rng, shape, np.float64),
    "0.2": lambda shape: initialisers.random(rng, shape, np.float64, scale=0.2),
    "Xavier": lambda shape: initialisers.xavier(rng, shape, np.float64),
    "He": lambda shape: initialisers.he(rng, shape, np.float64),
}

# %% [markdown]
# **By hand.** Twenty layers of ReLU, for each rule the root mean square of the activations, layer by layer.

# %%
sizes = {}
for name, draw in rules.items():
    y, sizes[name] = x, []
    for _ in range(LAYERS):
        y, _ = activations.relu(y @ draw((WIDTH, WIDTH)))
        sizes[name].append(np.sqrt(np.mean(y * y)))
figure, axis = plt.subplots(figsize=(5, 3))
for name, curve in sizes.items():
    axis.semilogy(range(1, LAYERS + 1), curve, label=name)
axis.set(xlabel="layer", ylabel="size of the activations")
axis.legend()
print({name: f"{curve[-1]:.1e}" for name, curve in sizes.items()})
assert 0.1 < sizes["He"][-1] < 10
assert sizes["0.01"][-1] < 1e-10
assert sizes["0.2"][-1] > 100

# %% [markdown]
# He's rule has twice Xavier's variance because a ReLU lets half of its inputs pass. **The JAX twin** draws from the same
# distribution.

# %%
theirs = jax.nn.initializers.he_normal()(jax.random.key(0), (WIDTH, WIDTH))
ours = initialisers.he(rng, (WIDTH, WIDTH))
print(f"standard deviation {ours.std():.4f} and {np.std(theirs):.4f}, by the rule {np.sqrt(2 / WIDTH):.4f}")
np.testing.assert_allclose([ours.std(), np.std(theirs)], np.sqrt(2 / WIDTH), rtol=0.02)

# %% [markdown]
# **Zeros** are worse than small: all units of a layer then compute the same, receive the same gradient, and stay the same.

# %%
first, second = np.zeros((WIDTH, 4)), np.zeros((4, 1))
for _ in range(5):
    hidden, cache = activations.tanh(x @ first)
    dy = hidden @ second - x[:, :1]
    dhidden = activations.tanh_backward(dy @ second.T, cache)
    first, second = first - 0.01 * x.T @ dhidden, second - 0.01 * hidden.T @ dy
assert (first == first[:, :1]).all(), "all four units are still alike"

# %% [markdown]
# Next: `./launch.sh --experiment=study_initialisation` trains a net from zeros, large numbers, Xavier and He.
#
# **Exercises.** (a) Replace ReLU by tanh: which rule now keeps the size? (b) Put `normalisation.layer_norm` after each
# layer: which rules work then, and why? (c) Draw the same picture for the gradient on its way back.
