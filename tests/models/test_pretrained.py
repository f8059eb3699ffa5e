"""Weights in PyTorch's layouts: real ones of EfficientNet-Lite0 give the reference logits, random ones of ResNet-50 PyTorch's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fdl.checkpoint import weights
from fdl.checkpoint.transfer import transfer
from fdl.models import EfficientNetLite, ResNet, ResNet50, ops
from fdl.models.pytorch_names import from_pytorch, pytorch_names, to_pytorch
from fdl.types import UserError, named_leaves

RNG = np.random.default_rng(0)


def spec_of(model: Any, size: int = 64) -> Any:
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3))))


def load_into(model: Any, path: Path) -> Any:
    """The model's variables, filled strictly from a file."""
    spec = spec_of(model)
    held = from_pytorch(model, weights.load(path), f"init_from={path}")
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec)
    return transfer(spec, held, "init_from", strict=True).fill(zeros)


def lite0_file(data_dir: Path) -> Path:
    path = data_dir / "pretrained" / "tf_efficientnet_lite0.safetensors"
    return path if path.is_file() else pytest.skip("no real data: pretrained/ is not there")


@pytest.mark.usefixtures("optimised")
def test_lite0_gives_the_reference_logits(data_dir: Path) -> None:
    """Against an independent PyTorch forward pass on four photographs."""
    path = lite0_file(data_dir)
    reference = json.loads((path.parent / "reference.json").read_text())
    pixels = []
    for row in reference["rows"]:
        image = Image.open(data_dir / "dog-breeds" / row["file"]).convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, upper = (image.width - 224) // 2, (image.height - 224) // 2
        crop = np.asarray(image.crop((left, upper, left + 224, upper + 224)), np.float32)
        assert crop.sum(dtype=np.float64) == row["pixel_sum_of_crop"]
        pixels.append((crop - 127) / 128)
    model = EfficientNetLite(outputs=1000)
    logits = np.asarray(jax.jit(model.apply)(load_into(model, path), np.stack(pixels)))
    for row, found in zip(reference["rows"], logits, strict=True):
        wanted = np.array(row["logits_0_to_7"] + row["top5_logits"])
        assert np.argsort(-found)[:5].tolist() == row["top5"]
        assert np.abs(found[[*range(8), *row["top5"]]] - wanted).max() < 1e-3 * np.ptp(found)


def test_lite0_has_the_published_number_of_parameters() -> None:
    params = spec_of(EfficientNetLite(outputs=1000))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 4_652_008


@pytest.mark.parametrize(
    "model", [EfficientNetLite(outputs=5), ResNet(stage_sizes=(1, 2), width=8, outputs=3), ResNet50(outputs=2)]
)
def test_a_table_names_every_array_once(model: Any) -> None:
    table = pytorch_names(model)
    assert table is not None
    assert set(table) == set(named_leaves(spec_of(model)))
    assert len(set(table.values())) == len(table)


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 7), (3, 2, 8), (5, 2, 9), (3, 2, 1)])
def test_depthwise_convolution_is_the_grouped_one(kernel: int, stride: int, size: int) -> None:
    """Value and gradient, against NumPy's plain sum over the kernel and XLA's grouped convolution."""
    x = RNG.normal(size=(2, size, size + 1, 3)).astype(np.float32)
    weights = RNG.normal(size=(kernel, kernel, 1, 3)).astype(np.float32)
    found = np.asarray(jax.jit(ops.depthwise_conv, static_argnums=2)(x, weights, stride))
    pads = jax.lax.padtype_to_pads(x.shape[1:3], (kernel, kernel), (stride, stride), "SAME")
    padded = np.pad(x, ((0, 0), *pads, (0, 0))).astype(np.float64)
    for row in range(found.shape[1]):
        for column in range(found.shape[2]):
            window = padded[:, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
            np.testing.assert_allclose(found[:, row, column], (window * weights[:, :, 0]).sum((1, 2)), atol=1e-5)
    assert found.shape[1:3] == (-(-size // stride), -(-(size + 1) // stride))

    def loss(conv: Any) -> Any:
        return jax.jit(jax.grad(lambda x, weights: (conv(x, weights) ** 2).sum(), (0, 1)))(x, weights)

    ours = loss(lambda x, weights: ops.depthwise_conv(x, weights, stride))
    plain = loss(lambda x, weights: ops._grouped_conv(x, weights, stride, "SAME"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, plain)


def torch_resnet50(outputs: int) -> Any:
    """PyTorch's plain ResNet-50 (v1.5), with torchvision's names."""
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
            self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
            self.downsample = None
            if stride > 1 or inputs != 4 * width:
                shortcut = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
                self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
            self.pool, inputs = nn.MaxPool2d(3, 2, 1), 64
            for stage, blocks in enumerate((3, 4, 6, 3)):
                width = 64 * 2**stage
                held = []
                for block in range(blocks):
                    held.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
                    inputs = 4 * width
                setattr(self, f"layer{stage + 1}", nn.Sequential(*held))
            self.fc = nn.Linear(inputs, outputs)

        def forward(self, x: Any) -> Any:
            x = self.pool(torch.relu(self.bn1(self.conv1(x))))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(x.mean((2, 3)))

    return Net()


def test_resnet50_is_pytorchs_through_a_file(tmp_path: Path) -> None:
    """Random weights under torchvision's names, with statistics that are not those of a fresh net."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch_resnet50(outputs=7).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.2, 0.8)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    path = tmp_path / "resnet50.safetensors"
    held = {name: array.numpy() for name, array in theirs.state_dict().items()}
    weights.save(path, held)
    model = ResNet50(outputs=7)
    variables = load_into(model, path)
    x = RNG.normal(size=(2, 65, 72, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
    found = np.asarray(jax.jit(model.apply)(variables, x))
    assert np.abs(found - wanted).max() < 1e-4 * np.ptp(wanted)
    back = to_pytorch(model, named_leaves(variables))
    assert set(back) == {name for name in held if not name.endswith("num_batches_tracked")}
    for name, array in back.items():
        np.testing.assert_array_equal(array, held[name])


def test_another_nets_layout_is_refused_with_the_first_names_that_differ() -> None:
    held = {
        name: np.zeros(1, np.float32) for name in ("conv1.weight", "bn1.weight", "bn1.bias", "fc.weight", "layer1.0.x")
    }
    with pytest.raises(UserError) as error:
        from_pytorch(EfficientNetLite(outputs=2), held, "init_from=w.safetensors")
    text = str(error.value)
    assert "\n" not in text
    assert all(
        name in text for name in ("init_from=w.safetensors", "conv_stem.weight", "conv1.weight", "EfficientNetLite")
    )


def test_a_pickle_called_safetensors_is_refused(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps({"conv1.weight": [1.0]}))
    with pytest.raises(UserError, match="a pickle, which runs code"):
        weights.load(path)
