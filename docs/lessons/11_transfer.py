# %% [markdown]
# # 11. Transfer
#
# The first layers of a net for pictures learn edges and strokes, whatever the classes are. With few examples of a new task,
# start from layers that have seen many of another.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from fdl.experiment import load_experiment, settings
from fdl.scratch import network, optimizers, pooling

digits, rng = load_digits(), np.random.default_rng(0)
known, new = digits.target < 5, digits.target >= 5


def place(pictures, size=12):
    """Put each 8 x 8 picture somewhere on an empty sheet: [N, size, size, 1]."""
    sheets = np.zeros((len(pictures), size, size, 1), np.float32)
    for sheet, picture, (i, j) in zip(sheets, pictures, rng.integers(0, size - 7, (len(pictures), 2)), strict=True):
        sheet[i : i + 8, j : j + 8, 0] = picture / 16
    return sheets


# %% [markdown]
# **Many examples of one task**: digits 0 to 4, anywhere on the sheet.

# %%
relu = network.plain(*network.RELU)
net = (
    network.conv(12), relu, network.plain(pooling.max_pool, pooling.max_pool_backward),
    network.conv(24), relu, network.conv(48), relu,
    network.plain(pooling.global_average_pool, pooling.global_average_pool_backward), network.dense(5),
)  # fmt: skip
params, stats = network.init(rng, net, (12, 12, 1))
feed = (
    (place(pictures), labels)
    for _ in range(10)
    for pictures, labels in optimizers.batches(rng, digits.images[known], digits.target[known], 64)
)
params, stats, _, history = network.train(net, params, stats, optimizers.adam(5e-3), feed)
print(f"digits 0 to 4: loss {history[0]:.2f} -> {history[-1]:.3f}")

# %% [markdown]
# **Few of another**: digits 5 to 9, ten examples of each. The *features* are what comes out before the last layer; they are
# computed once and kept, and only a new last layer is trained on them.


# %%
def features(params, stats, rows):
    return network.layer_outputs(net, params, stats, rows)[network.names(net)[-2]]


def train_head(inputs, targets, steps=300):
    head = (network.dense(5),)
    weights, running = network.init(np.random.default_rng(1), head, inputs.shape[1:])
    weights, running, _, _ = network.train(
        head, weights, running, optimizers.adam(1e-2), [(inputs, targets)] * steps, l2=1e-2
    )
    return lambda rows: network.predict_classes(head, weights, running, rows)


rows, targets = place(digits.images[new]), digits.target[new] - 5
few = np.concatenate([np.flatnonzero(targets == k)[:10] for k in range(5)])
rest = np.setdiff1d(np.arange(len(rows)), few)
untrained, no_stats = network.init(np.random.default_rng(2), net, (12, 12, 1))
sources = {
    "pixels": rows.reshape(len(rows), -1),
    "features of an untrained net": features(untrained, no_stats, rows),
    "features of digits 0 to 4": features(params, stats, rows),
}
scores = {
    name: network.accuracy(train_head(inputs[few], targets[few])(inputs[rest]), targets[rest])
    for name, inputs in sources.items()
}
print({name: f"{score:.1%}" for name, score in scores.items()})
figure, axis = plt.subplots(figsize=(6, 2))
axis.barh(list(scores), list(scores.values()))
axis.set(xlim=(0.2, 1), xlabel="accuracy on digits 5 to 9, ten examples each")
assert scores["features of digits 0 to 4"] > max(scores["pixels"], scores["features of an untrained net"]) + 0.1

# %% [markdown]
# **The twin at full size.** In fdl a run starts from another one's weights with `--set init_from=FILE`; what fits is taken, the new last
# layer is drawn anew, and a line says so. `optimizer.freeze` holds the rest: no gradient is computed for it, and its BatchNorm
# statistics stay as they are.

# %%
names = [name for name, _ in settings(load_experiment("digits_cnn"))]
assert {"init_from", "init_map", "optimizer.freeze"} <= set(names)
print("layers of this net:", network.names(net), "parameters:", sum(leaf.size for leaf in jax.tree.leaves(params)))

# %% [markdown]
# **Exercises.** (a) Use 1, 10 and 100 examples of each new digit and draw the three curves: where do they meet? (b) Train all layers on the
# few examples instead of the last one ("fine-tuning"): which rate works? (c) Which of 5 to 9 profits most, and why might that be?
