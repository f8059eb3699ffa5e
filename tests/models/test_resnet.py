"""The residual networks against fdl.scratch and PyTorch in float64, and against the published counts."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from fdl.experiment import override
from fdl.inspect import float64
from fdl.models import ResNet, ResNet18, ResNet34, ResNet50, ResNet101, ResNet152, ops
from fdl.scratch import residual
from fdl.scratch.activations import relu, relu_backward
from fdl.scratch.trees import Cache, Tree
from fdl.types import DATA_AXIS

RNG = np.random.default_rng(0)
MOMENTUM = 1e-7
"""How far running averages may be off in float64: the trace holds their momentum of 0.9 as a float32."""


def spec_of(model: nn.Module, *shape: int) -> dict[str, Any]:
    """The shapes of a model's variables."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape)))


@pytest.mark.parametrize(
    ("make", "published"),
    [
        (ResNet18, 11_689_512),
        (ResNet34, 21_797_672),
        (ResNet50, 25_557_032),
        (ResNet101, 44_549_160),
        (ResNet152, 60_192_808),
    ],
)
def test_parameters_are_the_published_ones(make: functools.partial, published: int) -> None:
    params = spec_of(make(outputs=1000), 1, 64, 64, 3)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def in_float64(model: ResNet, train: bool, variables: Any, x: np.ndarray, direction: np.ndarray) -> tuple[Any, ...]:
    """(logits, running statistics, gradient of sum(logits * direction)) of the float32 program with nothing rounded."""

    def loss(params: Any, stats: Any, x: Any, direction: Any) -> Any:
        logits, state = model.apply({"params": params, "batch_stats": stats}, x, train=train, mutable=["batch_stats"])
        return (logits * direction).sum(), (logits, state["batch_stats"])

    arguments = (variables["params"], variables["batch_stats"], x, direction)
    narrow = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), arguments)
    wide = float64.widened(jax.grad(loss, has_aux=True), *narrow)
    with float64.enabled():
        gradients, (logits, stats) = jax.device_get(jax.jit(wide)(*arguments))
    return logits, stats, gradients


def drawn(model: ResNet, size: int) -> dict[str, Any]:
    """Variables in float64 with noise on every leaf, so that none can be mistaken for another or left out."""
    shapes = spec_of(model, 1, size, size, 3)
    params = jax.tree.map(
        lambda leaf: RNG.normal(size=leaf.shape) / np.sqrt(max(leaf.size / leaf.shape[-1], 4)), shapes["params"]
    )
    params = jax.tree.map_with_path(lambda path, leaf: leaf + (path[-1].key == "scale"), params)
    stats = jax.tree.map_with_path(
        lambda path, leaf: RNG.uniform(0.5, 1.5, leaf.shape) - (path[-1].key == "mean"), shapes["batch_stats"]
    )
    return {"params": params, "batch_stats": stats}


def basic(x: Any, params: Tree, stats: Tree, stride: int, train: bool) -> tuple[Any, Cache, Tree]:
    """The block of ResNet-18 and -34 from the parts of `fdl.scratch`: relu(conv(relu(conv(x))) + shortcut(x))."""
    caches, new = {}, {}
    y, caches["1"], new["1"] = residual.conv_norm(x, params["1"], stats["1"], stride, 1, train)
    y, caches["relu"] = relu(y)
    y, caches["2"], new["2"] = residual.conv_norm(y, params["2"], stats["2"], 1, 1, train)
    if "shortcut" in params:
        x, caches["shortcut"], new["shortcut"] = residual.conv_norm(
            x, params["shortcut"], stats["shortcut"], stride, 0, train
        )
    y, caches["sum"] = relu(y + x)
    return y, caches, new


def basic_backward(dy: Any, caches: Cache) -> tuple[Any, Tree]:
    grads = {}
    around = dsum = relu_backward(dy, caches["sum"])
    dx, grads["2"] = residual.conv_norm_backward(dsum, caches["2"])
    dx, grads["1"] = residual.conv_norm_backward(relu_backward(dx, caches["relu"]), caches["1"])
    if "shortcut" in caches:
        around, grads["shortcut"] = residual.conv_norm_backward(dsum, caches["shortcut"])
    return dx + around, grads


def as_scratch(tree: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Parameters or statistics by the names of `fdl.scratch.residual`; `names`: of a block's convolutions."""

    def layer(tree: Any, conv: str, norm: str) -> dict[str, Any]:
        return {part: tree[name] for part, name in (("conv", conv), ("norm", norm)) if name in tree}

    made: dict[str, Any] = {"stem": layer(tree, "stem_conv", "stem_norm")}
    for block in (name for name in tree if name.startswith("stage")):
        parts = {name: (f"conv{i}", f"norm{i}") for i, name in enumerate(names, 1)}
        parts |= {"shortcut": ("shortcut_conv", "shortcut_norm")} if "shortcut_norm" in tree[block] else {}
        made[block] = {name: layer(tree[block], *pair) for name, pair in parts.items()}
    return made | ({"head": tree["output"]} if "output" in tree else {})


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_values_gradients_and_statistics_are_those_by_hand(
    monkeypatch: pytest.MonkeyPatch, block: Any, train: bool
) -> None:
    names: tuple[str, ...] = ("reduce", "spatial", "expand")
    if block == "basic":
        names = ("1", "2")
        monkeypatch.setattr(residual, "bottleneck", basic)
        monkeypatch.setattr(residual, "bottleneck_backward", basic_backward)
    model = ResNet(stage_sizes=(1, 2), block=block, width=4, outputs=3)
    variables, x, direction = drawn(model, 31), RNG.normal(size=(4, 31, 31, 3)), RNG.normal(size=(4, 3))
    logits, after, gradients = in_float64(model, train, variables, x, direction)
    params, stats = (as_scratch(variables[name], names) for name in ("params", "batch_stats"))
    expected, caches, stats = residual.resnet(x, params, stats, train)
    _, grads = residual.resnet_backward(direction, caches)

    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9)
    for mine, theirs, bound in ((after, stats, MOMENTUM), (gradients, grads, 1e-9)):
        mine = as_scratch(mine, names)
        assert jax.tree.structure(mine) == jax.tree.structure(theirs)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=bound, atol=bound), mine, theirs)


def torch_resnet(model: ResNet) -> Any:
    """The same network written plainly in PyTorch, after He et al. 2016 with the stride in the 3 x 3."""
    import torch
    from torch import nn as tnn
    from torch.nn import functional

    act = getattr(functional, model.activation)

    class Block(tnn.Module):
        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            if model.block == "basic":
                shapes, outputs = [(width, 3, stride), (width, 3, 1)], width
            else:
                shapes, outputs = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)], 4 * width
            self.convs, self.norms = tnn.ModuleList(), tnn.ModuleList()
            before = inputs
            for channels, kernel, step in shapes:
                self.convs.append(tnn.Conv2d(before, channels, kernel, step, kernel // 2, bias=False))
                self.norms.append(tnn.BatchNorm2d(channels))
                before = channels
            self.project = stride != 1 or inputs != outputs
            if self.project:
                self.shortcut = tnn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.shortcut_norm = tnn.BatchNorm2d(outputs)

        def forward(self, x: Any) -> Any:
            y = x
            for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
                y = norm(conv(y))
                y = act(y) if number < len(self.convs) - 1 else y
            return act(y + (self.shortcut_norm(self.shortcut(x)) if self.project else x))

    class Net(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            cifar = model.stem == "cifar"
            self.stem = (
                tnn.Conv2d(3, model.width, 3, 1, 1, bias=False)
                if cifar
                else tnn.Conv2d(3, model.width, 7, 2, 3, bias=False)
            )
            self.stem_norm, self.blocks = tnn.BatchNorm2d(model.width), tnn.ModuleList()
            channels, grown = model.width, 1 if model.block == "basic" else 4
            for stage, blocks in enumerate(model.stage_sizes):
                for number in range(blocks):
                    width = model.width * 2**stage
                    self.blocks.append(Block(channels, width, 2 if stage and not number else 1))
                    channels = grown * width
            self.output = tnn.Linear(channels, model.outputs)

        def forward(self, x: Any) -> Any:
            x = act(self.stem_norm(self.stem(x)))
            x = x if model.stem == "cifar" else functional.max_pool2d(x, 3, 2, 1)
            for block in self.blocks:
                x = block(x)
            return self.output(x.mean((2, 3)))

    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)  # scales and biases that would show a wrong place
        for module in net.modules():
            if isinstance(module, tnn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)
    return net


def pairs(model: ResNet, net: Any) -> list[tuple[str, Any, Any]]:
    """(our layer, their convolution or Dense layer, their norm or None), in order."""
    found = [("stem_conv", net.stem, None), ("stem_norm", None, net.stem_norm), ("output", net.output, None)]
    blocks = iter(net.blocks)
    for stage, count in enumerate(model.stage_sizes, 1):
        for number in range(1, count + 1):
            block, path = next(blocks), f"stage{stage}_block{number}/"
            for i, (conv, norm) in enumerate(zip(block.convs, block.norms, strict=True), 1):
                found += [(f"{path}conv{i}", conv, None), (f"{path}norm{i}", None, norm)]
            if block.project:
                found += [(f"{path}shortcut_conv", block.shortcut, None)]
                found += [(f"{path}shortcut_norm", None, block.shortcut_norm)]
    return found


def kernel(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T


def ours(model: ResNet, net: Any, read: Any) -> tuple[dict, dict]:
    """(params, batch_stats) in our layout of what `read` gives of each of their parameters."""
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    for path, layer, norm in pairs(model, net):
        at, kept = params, stats
        *parents, name = path.split("/")
        for parent in parents:
            at, kept = at.setdefault(parent, {}), kept.setdefault(parent, {})
        if norm is None:
            at[name] = {"kernel": kernel(read(layer.weight))}
            if layer.bias is not None:
                at[name]["bias"] = read(layer.bias)
        else:
            at[name] = {"scale": read(norm.weight), "bias": read(norm.bias)}
            kept[name] = {"mean": norm.running_mean.numpy().copy(), "var": norm.running_var.numpy().copy()}
    return params, stats


NETS = [
    pytest.param(ResNet(stage_sizes=(1, 2), width=8, outputs=3, activation="silu"), 37, True, id="bottleneck"),
    pytest.param(ResNet18(outputs=10, stem="cifar", width=8), 31, True, id="cifar"),
    pytest.param(ResNet18(outputs=10, stem="cifar", width=8), 31, False, id="cifar, inference"),
]


@pytest.mark.parametrize(("model", "size", "train"), NETS)
def test_values_and_gradients_are_those_of_pytorch(model: ResNet, size: int, train: bool) -> None:
    """In float64, for in float32 rounding turns a few of some millions of ReLUs, and their gradients with them."""
    torch = pytest.importorskip("torch")
    net = torch_resnet(model).double().train(train)
    params, stats = ours(model, net, lambda t: t.detach().numpy().copy())
    x, direction = RNG.normal(size=(8, size, size, 3)), RNG.normal(size=(8, model.outputs)) / 100
    logits, after, gradients = in_float64(model, train, {"params": params, "batch_stats": stats}, x, direction)
    theirs = net(torch.tensor(x.transpose(0, 3, 1, 2)))
    (theirs * torch.tensor(direction)).sum().backward()
    expected, stats_after = ours(model, net, lambda t: t.grad.numpy())
    assert jax.tree.map(np.shape, expected) == jax.tree.map(np.shape, spec_of(model, *x.shape)["params"])

    np.testing.assert_allclose(logits, theirs.detach().numpy(), rtol=1e-9, atol=1e-9)
    least = 1e-3 * max(float(np.linalg.norm(leaf)) for leaf in jax.tree.leaves(expected))
    for (path, ours_), (_, theirs_) in zip(
        jax.tree.leaves_with_path(gradients), jax.tree.leaves_with_path(expected), strict=True
    ):
        # A bias that the next BatchNorm takes out again has no gradient but rounding.
        error = np.linalg.norm(ours_ - theirs_) / max(np.linalg.norm(theirs_), least)
        assert error < 1e-9, (jax.tree_util.keystr(path), error)
    for path, mean in jax.tree.leaves_with_path(after):
        if path[-1].key == "mean":  # of the variance PyTorch keeps n / (n - 1) times as much
            node: Any = stats_after
            for part in path:
                node = node[part.key]
            np.testing.assert_allclose(mean, node, rtol=MOMENTUM, atol=MOMENTUM)


def test_a_block_starts_as_the_identity_unless_told_not_to() -> None:
    x = jnp.asarray(RNG.normal(size=(2, 8, 8, 3)), jnp.float32)
    for zero in (True, False):
        model = ResNet(stage_sizes=(1,), block="basic", width=4, outputs=2, stem="cifar", zero_scale=zero)
        variables = jax.jit(model.init)(jax.random.key(1), x)
        maps = model.apply(variables, x, mutable=["intermediates"])[1]["intermediates"]
        assert bool((maps["stem_map"] == maps["stage1_map"]).all()) is zero
    scales = variables["params"]["stage1_block1"]["norm1"]["scale"]
    np.testing.assert_array_equal(scales, 1)


def test_kernels_have_he_s_variance_of_fan_out() -> None:
    model = ResNet(stage_sizes=(1, 1), block="basic", stem="cifar", outputs=1000)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    block = params["stage2_block1"]["conv1"]["kernel"]  # 3 x 3, 64 -> 128
    assert float(block.std()) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert float(params["output"]["kernel"].std()) == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (1, 2), (112, 3)])
def test_the_overlapping_pool_is_flax_s(size: tuple[int, int]) -> None:
    x = jnp.asarray(RNG.normal(size=(2, *size, 3)), jnp.float32)

    def theirs(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

    np.testing.assert_array_equal(ops.overlapping_max_pool(x), theirs(x))
    weights = jnp.asarray(RNG.normal(size=theirs(x).shape), jnp.float32)
    gradients = [jax.grad(lambda x: (pool(x) * weights).sum())(x) for pool in (ops.overlapping_max_pool, theirs)]
    np.testing.assert_allclose(*gradients, atol=1e-6)
    tied = jnp.asarray(RNG.integers(0, 3, (2, *size, 3)), jnp.float32)  # most windows have several maxima
    gradients = [jax.grad(lambda x: (pool(x) * weights).sum())(tied) for pool in (ops.overlapping_max_pool, theirs)]
    np.testing.assert_allclose(*gradients, atol=1e-6)
    assert ops.overlapping_max_pool(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_bfloat16_computes_near_float32_and_keeps_float32() -> None:
    x = jnp.asarray(RNG.normal(size=(4, 32, 32, 3)), jnp.float32)
    model = ResNet(stage_sizes=(1, 1), width=8, outputs=5)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    half = model.clone(dtype="bfloat16")
    (logits, state), (exact, _) = (
        jax.jit(functools.partial(net.apply, train=True, mutable=["batch_stats"]))(variables, x)
        for net in (half, model)
    )
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    assert 0 < float(jnp.abs(logits - exact).max()) < 0.05 * float(jnp.abs(exact).max())
    jaxpr = str(jax.make_jaxpr(lambda x: half.apply(variables, x))(x))
    assert "conv_general_dilated" in jaxpr
    assert not [line for line in jaxpr.splitlines() if "conv_general_dilated" in line and ":f32[" in line]


def test_statistics_are_those_of_the_global_batch() -> None:
    """Four devices mapped over the data axis give what one gives for the whole batch; over another axis they do not."""
    x = jnp.asarray(RNG.normal(size=(8, 16, 16, 3)) + np.arange(8)[:, None, None, None], jnp.float32)
    model = ResNet(stage_sizes=(1, 1), width=4, outputs=3, stem="cifar")
    variables = jax.jit(model.init)(jax.random.key(0), x)
    whole, state = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))(variables, x)

    def split(axis: str) -> Any:
        mesh = jax.make_mesh((4,), (axis,), devices=jax.devices()[:4], axis_types=(jax.sharding.AxisType.Auto,))
        run = jax.shard_map(
            lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"]),
            mesh=mesh, in_specs=PartitionSpec(axis), out_specs=(PartitionSpec(axis), PartitionSpec()),
            check_vma=False,
        )  # fmt: skip
        return jax.jit(run)(x)

    logits, stats = split(DATA_AXIS)
    np.testing.assert_allclose(logits, whole, rtol=1e-4, atol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), stats, state)
    assert not np.allclose(split("other")[0], whole, rtol=1e-2, atol=1e-3)


def test_every_field_can_be_set_from_text() -> None:
    from experiments.cifar10_resnet import experiment

    texts = ("stage_sizes=1,2", "block=bottleneck", "width=8", "stem=imagenet", "activation=silu", "zero_scale=false",
             "dtype=bfloat16", "batch_norm_momentum=0.99", "outputs=7")  # fmt: skip
    model = override(experiment(), *(f"model.{text}" for text in texts)).model
    assert model == ResNet(
        stage_sizes=(1, 2), block="bottleneck", width=8, stem="imagenet", activation="silu", zero_scale=False,
        dtype="bfloat16", batch_norm_momentum=0.99, outputs=7,
    )  # fmt: skip
