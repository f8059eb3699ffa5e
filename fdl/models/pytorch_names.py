"""PyTorch's names of the same parameters: what timm and torchvision call them, for weights in and out.

A table maps each of a model's arrays to the file's name. Kernels differ in the order of their axes as well: PyTorch has
[O, C, K, K] and [O, C] where Flax has [K, K, C, O] and [C, O]; depthwise ones [C, 1, K, K] where fdl has [K, K, 1, C].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from flax import linen as nn

from fdl.models.efficientnet import STAGES, EfficientNetLite
from fdl.models.resnet import EXPANSION, ResNet
from fdl.types import UserError, printable

Named = dict[str, np.ndarray]
_COUNTER = "num_batches_tracked"
"""What PyTorch's BatchNorm holds besides; fdl has no use for it."""
_SHOWN = 3


def pytorch_names(model: nn.Module) -> dict[str, str] | None:
    """Return fdl's name -> PyTorch's for every array of a model; None where the model has no such table.

    ResNet: torchvision's names, which timm shares; EfficientNetLite: timm's (tf_efficientnet_lite0).
    """
    if isinstance(model, ResNet) and model.stem == "imagenet":
        return dict(_resnet(model))
    if isinstance(model, EfficientNetLite):
        return dict(_efficientnet_lite())
    return None


def from_pytorch(model: nn.Module, held: Mapping[str, np.ndarray], where: str) -> Named:
    """Return the arrays of a file under fdl's names and in its layout; as they are where the file has fdl's own names.

    Args:
        where: names the file in errors.

    Raises:
        UserError: the file has PyTorch's names, but of another net; the first that differ are named.
    """
    if not held or any(name.startswith("params/") for name in held):
        return dict(held)
    table = pytorch_names(model)
    if table is None:
        return dict(held)
    missing = [theirs for theirs in table.values() if theirs not in held]
    if missing:
        known = set(table.values())
        other = [name for name in held if name not in known and not name.endswith(_COUNTER)]
        raise UserError(
            f"{where}: not the weights of {type(model).__name__} in timm's layout: it lacks {_list(missing)}, and has "
            f"{_list(other)} instead; give those of the same net"
        )
    ours_of = {theirs: ours for ours, theirs in table.items()}
    return {
        ours_of.get(name, name): _transposed(array) if name in ours_of else array
        for name, array in held.items()
        if not name.endswith(_COUNTER)
    }


def to_pytorch(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> Named:
    """Return a model's arrays under PyTorch's names and in its layout.

    Raises:
        UserError: the model has no table of names.
    """
    table = pytorch_names(model)
    if table is None:
        raise UserError(f"--format=timm: {type(model).__name__} has no names in timm; leave --format out")
    return {table[name]: _transposed_back(array) for name, array in arrays.items()}


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _transposed_back(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _list(names: list[str]) -> str:
    return ", ".join(printable(name, 80) for name in names[:_SHOWN]) or "nothing"


def _norm(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"params/{ours}/scale", f"{theirs}.weight"
    yield f"params/{ours}/bias", f"{theirs}.bias"
    yield f"batch_stats/{ours}/mean", f"{theirs}.running_mean"
    yield f"batch_stats/{ours}/var", f"{theirs}.running_var"


def _dense(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"params/{ours}/kernel", f"{theirs}.weight"
    yield f"params/{ours}/bias", f"{theirs}.bias"


def _resnet(model: ResNet) -> Iterator[tuple[str, str]]:
    yield "params/stem_conv/kernel", "conv1.weight"
    yield from _norm("stem_norm", "bn1")
    convs = 3 if model.block == "bottleneck" else 2
    channels = model.width
    for stage, blocks in enumerate(model.stage_sizes, 1):
        for block in range(blocks):
            ours, theirs = f"stage{stage}_block{block + 1}", f"layer{stage}.{block}"
            for number in range(1, convs + 1):
                yield f"params/{ours}/conv{number}/kernel", f"{theirs}.conv{number}.weight"
                yield from _norm(f"{ours}/norm{number}", f"{theirs}.bn{number}")
            outputs = model.width * 2 ** (stage - 1) * EXPANSION[model.block]
            if channels != outputs or (block == 0 and stage > 1):
                yield f"params/{ours}/shortcut_conv/kernel", f"{theirs}.downsample.0.weight"
                yield from _norm(f"{ours}/shortcut_norm", f"{theirs}.downsample.1")
            channels = outputs
    yield from _dense("output", "fc")


def _efficientnet_lite() -> Iterator[tuple[str, str]]:
    yield "params/stem/conv/kernel", "conv_stem.weight"
    yield from _norm("stem/norm", "bn1")
    for stage, each in enumerate(STAGES):
        for block in range(each.blocks):
            wide = (("expand", "conv_pw"), ("depthwise", "conv_dw"), ("project", "conv_pwl"))
            parts = wide if each.expansion != 1 else (("depthwise", "conv_dw"), ("project", "conv_pw"))
            for number, (part, conv) in enumerate(parts, 1):
                ours, theirs = f"stage{stage + 1}_block{block + 1}/{part}", f"blocks.{stage}.{block}"
                yield f"params/{ours}/conv/kernel", f"{theirs}.{conv}.weight"
                yield from _norm(f"{ours}/norm", f"{theirs}.bn{number}")
    yield "params/head/conv/kernel", "conv_head.weight"
    yield from _norm("head/norm", "bn2")
    yield from _dense("output", "classifier")
