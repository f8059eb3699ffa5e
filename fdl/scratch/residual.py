"""Residual networks: blocks that add to their input, and ResNet-50 assembled from them.

He et al. 2015, "Deep residual learning for image recognition": y = relu(F(x) + x). Backwards, dx = dF + dy: whatever F
does, the gradient also has a way around it, so that depth does no harm. The form is that of the common implementations
("v1.5"): a stage's stride is in the 3x3 convolution, no convolution has a bias (batch normalisation has one).
"""

from __future__ import annotations

import numpy as np

from fdl.scratch.activations import relu, relu_backward
from fdl.scratch.convolution import Padding, conv, conv_backward
from fdl.scratch.initialisers import he, xavier
from fdl.scratch.layers import dense, dense_backward
from fdl.scratch.normalisation import batch_norm, batch_norm_backward
from fdl.scratch.pooling import global_average_pool, global_average_pool_backward, max_pool, max_pool_backward
from fdl.scratch.trees import Array, Cache, DType, Tree

EXPANSION = 4
"""A bottleneck block gives out four times the features of its 3x3 convolution (table 1 of the paper)."""


def conv_norm(
    x: Array, params: Tree, stats: Tree, stride: int = 1, padding: Padding = 0, train: bool = False
) -> tuple[Array, Cache, Tree]:
    """Convolve, then normalise: params {"conv": {"kernel"}, "norm": {"scale", "bias"}}, stats {"norm"}."""
    y, conv_cache = conv(x, params["conv"], stride, padding)
    y, norm_cache, norm_stats = batch_norm(y, params["norm"], stats["norm"], train, momentum=0.9)
    return y, (conv_cache, norm_cache), {"norm": norm_stats}


def conv_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Tree]:
    """Go back through the two layers in reverse."""
    conv_cache, norm_cache = cache
    dy, norm_grads = batch_norm_backward(dy, norm_cache)
    dx, conv_grads = conv_backward(dy, conv_cache)
    return dx, {"conv": conv_grads, "norm": norm_grads}


def bottleneck(x: Array, params: Tree, stats: Tree, stride: int = 1, train: bool = False) -> tuple[Array, Cache, Tree]:
    """Compute y = relu(expand(relu(spatial(relu(reduce(x))))) + shortcut(x)). Figure 5 of the paper.

    reduce is 1x1 C -> F, spatial 3x3 F -> F with the stride, expand 1x1 F -> 4F. The shortcut is the identity or, where
    params has a "shortcut" (in blocks that change the shape), a projection: 1x1 C -> 4F with the same stride (eq. 2).

    Args:
        x: [B, H, W, C]; C = 4F and stride 1 for the identity.

    Returns:
        y [B, ceil(H / stride), ceil(W / stride), 4F], the cache, and the new stats.
    """
    caches: Cache = {}
    new_stats: Tree = {}
    y = x
    for name, step, padding in (("reduce", 1, 0), ("spatial", stride, 1), ("expand", 1, 0)):
        y, caches[name], new_stats[name] = conv_norm(y, params[name], stats[name], step, padding, train)
        if name != "expand":
            y, caches[name, "relu"] = relu(y)
    if "shortcut" in params:
        x, caches["shortcut"], new_stats["shortcut"] = conv_norm(
            x, params["shortcut"], stats["shortcut"], stride, 0, train
        )
    y, caches["sum"] = relu(y + x)
    return y, caches, new_stats


def bottleneck_backward(dy: Array, caches: Cache) -> tuple[Array, Tree]:
    """Give the sum's gradient to both branches, and x, which fed both, the sum of theirs."""
    grads = {}
    dsum = relu_backward(dy, caches["sum"])
    dx = dsum
    for name in ("expand", "spatial", "reduce"):
        if name != "expand":
            dx = relu_backward(dx, caches[name, "relu"])
        dx, grads[name] = conv_norm_backward(dx, caches[name])
    around = dsum
    if "shortcut" in caches:
        around, grads["shortcut"] = conv_norm_backward(dsum, caches["shortcut"])
    return dx + around, grads


def resnet(x: Array, params: Tree, stats: Tree, train: bool = False) -> tuple[Array, Cache, Tree]:
    """Apply the whole network: 7x7/2 convolution, 3x3/2 maximum pool, the blocks, global average pool, dense.

    Args:
        x: [B, H, W, C].
        params: "stem", "stage1_block1", ..., "head" from `init_resnet`. All stages but the first begin with stride 2.
        stats: the running statistics of the same names.

    Returns:
        logits [B, classes], the cache, and the new stats.
    """
    caches, new_stats = {}, {}
    y, caches["stem"], new_stats["stem"] = conv_norm(x, params["stem"], stats["stem"], 2, 3, train)
    y, caches["relu"] = relu(y)
    y, caches["max_pool"] = max_pool(y, window=3, stride=2, padding=1)
    for name in _blocks(params):
        stride = 2 if name.endswith("_block1") and name != "stage1_block1" else 1
        y, caches[name], new_stats[name] = bottleneck(y, params[name], stats[name], stride, train)
    y, caches["average"] = global_average_pool(y)
    logits, caches["head"] = dense(y, params["head"])
    return logits, caches, new_stats


def resnet_backward(dlogits: Array, caches: Cache) -> tuple[Array, Tree]:
    """Go back through every layer in reverse: dx [B, H, W, C] and grads as params."""
    grads = {}
    dy, grads["head"] = dense_backward(dlogits, caches["head"])
    dy = global_average_pool_backward(dy, caches["average"])
    for name in reversed(_blocks(caches)):
        dy, grads[name] = bottleneck_backward(dy, caches[name])
    dy = max_pool_backward(dy, caches["max_pool"])
    dx, grads["stem"] = conv_norm_backward(relu_backward(dy, caches["relu"]), caches["stem"])
    return dx, grads


def _blocks(tree: dict) -> list[str]:
    return [name for name in tree if name.startswith("stage")]  # dicts keep the order in which they were filled


def init_resnet(
    rng: np.random.Generator,
    stages: tuple[int, ...] = (3, 4, 6, 3),
    width: int = 64,
    classes: int = 1000,
    channels: int = 3,
    dtype: DType = np.float32,
) -> tuple[Tree, Tree]:
    """Return (params, stats) of a bottleneck network; the defaults are ResNet-50 with its 25,557,032 parameters.

    Args:
        stages: blocks in each stage; stage s has width * 2^s features in its 3x3 convolutions.
        width: features of the stem.
        classes: logits.
        channels: of the images.
    """

    def init_conv_norm(kernel: int, inputs: int, outputs: int) -> tuple[Tree, Tree]:
        norm: Tree = {"scale": np.ones(outputs, dtype), "bias": np.zeros(outputs, dtype)}
        running: Tree = {"mean": np.zeros(outputs, dtype), "var": np.ones(outputs, dtype)}
        return {"conv": {"kernel": he(rng, (kernel, kernel, inputs, outputs), dtype)}, "norm": norm}, {"norm": running}

    params, stats = {}, {}
    params["stem"], stats["stem"] = init_conv_norm(7, channels, width)
    inputs = width
    for stage, blocks in enumerate(stages):
        features = width * 2**stage
        for block in range(blocks):
            shapes = {
                "reduce": (1, inputs, features),
                "spatial": (3, features, features),
                "expand": (1, features, EXPANSION * features),
            }
            if block == 0:  # features change, in all stages but the first the size too
                shapes["shortcut"] = (1, inputs, EXPANSION * features)
            made = {name: init_conv_norm(*shape) for name, shape in shapes.items()}
            name = f"stage{stage + 1}_block{block + 1}"
            params[name] = {part: pair[0] for part, pair in made.items()}
            stats[name] = {part: pair[1] for part, pair in made.items()}
            inputs = EXPANSION * features
    params["head"] = {"kernel": xavier(rng, (inputs, classes), dtype), "bias": np.zeros(classes, dtype)}
    return params, stats
