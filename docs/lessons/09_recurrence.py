# %% [markdown]
# # 9. Recurrence and vanishing gradients
#
# A recurrent net reads a sequence with one set of weights and carries a state. To learn that something long ago matters, the
# gradient must travel back through every step between, and each step multiplies it by the same matrix.

# %%
import flax.linen as nn
import jax
import matplotlib.pyplot as plt
import numpy as np

from fdl.scratch import recurrent
from fdl.scratch.recurrent import GRU_GATES, LSTM_GATES, RNN_GATES

B, T, D, H = 4, 80, 3, 32
CELLS = {
    "RNN": (recurrent.rnn_cell, recurrent.rnn_cell_backward, RNN_GATES),
    "GRU": (recurrent.gru_cell, recurrent.gru_cell_backward, GRU_GATES),
    "LSTM": (recurrent.lstm_cell, recurrent.lstm_cell_backward, LSTM_GATES),
}
rng = np.random.default_rng(0)
x = rng.standard_normal((B, T, D))
zero = np.zeros((B, H))


def start(name):
    params = recurrent.init_cell(rng, CELLS[name][2], D, H, np.float64)
    if name == "LSTM":
        params["hf"]["bias"] += 2.0  # gates that begin open: keep what you have until told otherwise
    return params, (zero, zero) if name == "LSTM" else zero


# %% [markdown]
# **By hand.** The gradient arrives at the last step alone. How much of it is left $k$ steps earlier?

# %%
figure, axis = plt.subplots(figsize=(5, 3.2))
left = {}
for name, (cell, backward, _) in CELLS.items():
    params, carry = start(name)
    _, y, cache = recurrent.sequence(cell, carry, x, params)
    dy, dcarry, sizes = np.zeros_like(y), None, []
    dcarry = (zero, np.ones((B, H))) if name == "LSTM" else np.ones((B, H))
    for step in reversed(cache.steps):
        dcarry, _, _ = backward(dcarry, zero, step)
        sizes.append(np.linalg.norm(dcarry))
    left[name] = sizes[-1] / sizes[0]
    axis.semilogy(range(1, T + 1), np.array(sizes) / sizes[0], label=name)
axis.set(xlabel="steps back", ylabel="share of the gradient that is left")
axis.legend()
print({name: f"{share:.1e}" for name, share in left.items()})
assert left["LSTM"] > 100 * left["RNN"]

# %% [markdown]
# The GRU's gate begins half open, so that half of the state is replaced at each step: it too must learn to keep. The LSTM's
# forget gates begin at $\sigma(2) = 0.88$ here. Its cell is carried on by a product with the forget gate alone, $c' = f \odot c + i \odot g$: no matrix, no tanh. Gates, cells and
# candidates of every step are in the cache, by name.

# %%
params, carry = start("LSTM")
_, _, cache = recurrent.sequence(recurrent.lstm_cell, carry, x, params)
print(
    f"forget gates {np.mean([step.f for step in cache.steps]):.2f} on average; cells",
    np.stack([s.c for s in cache.steps], 1).shape,
)

# %% [markdown]
# **The Flax twin** takes the same parameters by the same names.

# %%
for name, twin in (("GRU", nn.GRUCell(H, param_dtype=float)), ("LSTM", nn.OptimizedLSTMCell(H, param_dtype=float))):
    params, carry = start(name)
    _, y, _ = recurrent.sequence(CELLS[name][0], carry, x, params)
    with jax.enable_x64(True):
        state = carry
        for t in range(T):
            state, theirs = twin.apply({"params": params}, state, x[:, t])
    np.testing.assert_allclose(y[:, -1], theirs, rtol=1e-6, atol=1e-8)

# %% [markdown]
# Next: `./launch.sh --experiment=shakespeare_lstm` trains an LSTM to write.
#
# **Exercises.** (a) Set the LSTM's forget bias to 0 and to -3. (b) Multiply the RNN's "h" kernel by 3: what happens to its gradient
# instead? (c) Why does `clip_by_norm` help against exploding gradients and not against vanishing ones?
