# %% [markdown]
# # 7. Convolution
#
# A dense layer must learn at every pixel anew what an edge is. A convolution slides one small kernel over the picture: few
# weights, and a shifted picture gives a shifted result.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from fdl.scratch import convolution, network, optimizers, pooling
from fdl.scratch.gradient_check import check_layer

digits = load_digits()
images, labels = digits.images[..., None] / 16, digits.target

# %% [markdown]
# **By hand**, with a kernel that we choose: left minus right finds vertical edges.

# %%
edge = np.array([[1.0, 0.0, -1.0]] * 3)[..., None, None]
found, _ = convolution.conv(images[:1], {"kernel": edge}, padding="same")
figure, axes = plt.subplots(1, 2, figsize=(5, 2.5))
axes[0].imshow(images[0, ..., 0], cmap="gray_r")
axes[1].imshow(found[0, ..., 0], cmap="coolwarm")

# %% [markdown]
# Three ways to the same numbers: the equation by loops, all patches as rows of one matrix ("im2col"), and **the JAX twin**.

# %%
rng = np.random.default_rng(0)
x, params = rng.standard_normal((2, 6, 6, 3)), {"kernel": rng.standard_normal((3, 3, 3, 4)), "bias": np.zeros(4)}
y, _ = convolution.conv(x, params, stride=2)
np.testing.assert_allclose(y, convolution.conv_loop(x, params, stride=2)[0], rtol=1e-10)
with jax.enable_x64(True):
    theirs = jax.lax.conv_general_dilated(
        x, params["kernel"], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
np.testing.assert_allclose(y, theirs, rtol=1e-10)
assert check_layer(convolution.conv, convolution.conv_backward, x[:1, :4, :4], params, rng) < 1e-7

# %% [markdown]
# **A shifted picture gives a shifted result**, and a maximum over small windows forgets small shifts.

# %%
picture = np.zeros((1, 12, 12, 1))
picture[0, 4:7, 4:7] = 1
shifted = np.roll(picture, 2, axis=2)
kernel = {"kernel": edge}
np.testing.assert_allclose(
    np.roll(convolution.conv(picture, kernel, padding="same")[0], 2, axis=2),
    convolution.conv(shifted, kernel, padding="same")[0],
)
print("after a 2x2 maximum pool:", pooling.max_pool(picture)[0].shape)

# %% [markdown]
# **At work.** A dense net and a convolutional one, then the test digits moved by one pixel. The convolutional net takes the mean over
# all positions before its last layer, so that it matters little where a stroke is; the dense net has never seen these pixels lit.

# %%
relu = network.plain(*network.RELU)
convolutional = (
    network.conv(16), relu, network.conv(32), relu, network.plain(pooling.max_pool, pooling.max_pool_backward),
    network.conv(32), relu, network.plain(pooling.global_average_pool, pooling.global_average_pool_backward), network.dense(10),
)  # fmt: skip
train, test = slice(0, 1200), slice(1200, None)
rows, moved = images.astype(np.float32), np.roll(images[test], 1, axis=2).astype(np.float32)
scores = {}
for name, net in (("dense", network.mlp((64,), 10)), ("convolutional", convolutional)):
    params, stats = network.init(np.random.default_rng(0), net, (8, 8, 1))
    feed = (batch for _ in range(8) for batch in optimizers.batches(rng, rows[train], labels[train], 64))
    params, stats, _, _ = network.train(net, params, stats, optimizers.adam(5e-3), feed)
    scores[name] = [
        network.accuracy(network.predict_classes(net, params, stats, each), labels[test])
        for each in (rows[test], moved)
    ]
    print(f"{name}: {scores[name][0]:.1%} on test, {scores[name][1]:.1%} moved by a pixel")
assert scores["convolutional"][1] > scores["dense"][1] + 0.2

# %% [markdown]
# Next: `./launch.sh` trains two convolutions on Fashion-MNIST, `--experiment=scratch_cnn` does so in NumPy alone.
#
# **Exercises.** (a) Draw the eight kernels of the first layer. (b) What size has the output of a 5 x 5 kernel with stride 2 on 28 x 28
# pixels, "valid" and "same"? (c) Use `convolution.transposed_conv` to make a picture twice as large.
