# %% [markdown]
# # 10. Attention
#
# A recurrent net must press everything it has read into one state. Attention keeps all of it and looks it up: a query is compared
# with keys, and the answer is the mean of the values, weighted by how well each key fits.

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from fdl.scratch import attention, initialisers, optimizers
from fdl.scratch.gradient_check import check_gradient

rng = np.random.default_rng(0)

# %% [markdown]
# **By hand**: $\mathrm{softmax}(QK^\top / \sqrt{D})\, V$. A dictionary whose keys need not match exactly.

# %%
keys = np.eye(4) * 8
values = np.array([[10.0], [20.0], [30.0], [40.0]])
answer, (weights, *_) = attention.dot_product_attention(keys[2:3], keys, values)
print("asked for key 2:", answer.round(2), "weights", weights.round(3))
assert abs(answer[0, 0] - 30) < 0.1

# %% [markdown]
# With a mask nobody reads the future, which is what lets a language model train on all positions at once.

# %%
q, k, v = rng.standard_normal((3, 1, 5, 8))
_, (weights, *_) = attention.dot_product_attention(q, k, v, np.tri(5, dtype=bool))
assert np.allclose(np.triu(weights[0], 1), 0)
figure, axis = plt.subplots(figsize=(3, 3))
axis.imshow(weights[0], cmap="viridis")
axis.set(xlabel="key", ylabel="query")

# %% [markdown]
# **Backwards** it is three products and one softmax. **The Flax twin**, several heads:

# %%
params = {
    name: {"kernel": initialisers.xavier(rng, (8, 8), np.float64), "bias": np.zeros(8)}
    for name in ("query", "key", "value", "out")
}
x, r = rng.standard_normal((2, 5, 8)), rng.standard_normal((2, 5, 8))


def loss(tree):
    y, cache = attention.multi_head_attention(tree["x"], tree["params"], heads=2)
    dx, _, grads = attention.multi_head_attention_backward(r, cache)
    return float(np.sum(r * y)), {"x": dx, "params": grads}


assert check_gradient(loss, {"x": x, "params": params}) < 1e-7

split = {name: {"kernel": p["kernel"].reshape(8, 2, 4), "bias": p["bias"].reshape(2, 4)} for name, p in params.items()}
split["out"] = {"kernel": params["out"]["kernel"].reshape(2, 4, 8), "bias": params["out"]["bias"]}
with jax.enable_x64(True):
    theirs = nn.MultiHeadDotProductAttention(2, param_dtype=jnp.float64).apply({"params": split}, x)
np.testing.assert_allclose(attention.multi_head_attention(x, params, heads=2)[0], theirs, rtol=1e-6, atol=1e-7)

# %% [markdown]
# **At work.** A sequence of random vectors; one of them carries a mark in its first number. The net must return that one. A
# mean over all cannot; attention learns to ask for the mark.

# %%
optimizer = optimizers.adam(0.05)
params = {"query": np.zeros((1, 1, 8)), "key": {"kernel": initialisers.xavier(rng, (8, 8), np.float64)}}
params["query"] = rng.standard_normal((1, 1, 8))
state, history = optimizer.init(params), []
for _ in range(150):
    rows = rng.standard_normal((32, 6, 8))
    rows[..., 0] = 0
    marked = rng.integers(0, 6, 32)
    rows[np.arange(32), marked, 0] = 3
    wanted = rows[np.arange(32), marked][:, None]
    query = np.broadcast_to(params["query"], (32, 1, 8))
    y, cache = attention.dot_product_attention(query, rows @ params["key"]["kernel"], rows)
    dy = 2 * (y - wanted) / y.size
    dquery, dkeys, _ = attention.dot_product_attention_backward(dy, cache)
    grads = {"query": dquery.sum(0, keepdims=True), "key": {"kernel": np.einsum("btd,bte->de", rows, dkeys)}}
    params, state = optimizer.update(params, grads, state)
    history.append(np.mean((y - wanted) ** 2))
alone = np.mean((rows.mean(1, keepdims=True) - wanted) ** 2)
found = np.mean(cache[0][:, 0].argmax(1) == marked)
print(f"error {history[0]:.2f} -> {history[-1]:.3f} (the mean of all: {alone:.2f}); the mark is found in {found:.0%}")
assert history[-1] < 0.1 < alone

# %% [markdown]
# **Exercises.** (a) Leave out $\sqrt{D}$ and take D = 512: what do the weights look like? (b) Attention does not know the order of its keys:
# shuffle them and show it. What would you add to the inputs? (c) What does a query with no key to read get here, and why not NaN?
