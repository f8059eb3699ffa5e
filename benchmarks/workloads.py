"""What is measured, as plain data: the nets, their batches, what a step costs, and the floors. Imports nothing of fdl.

Legend: B batch, T time steps, H width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Net = Literal["mlp", "cnn", "resnet18", "resnet50", "lstm", "gru", "rnn"]
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


@dataclasses.dataclass(frozen=True)
class Workload:
    """A net and how it is trained: softmax cross-entropy, Adam at 1e-3, float32, no dropout, no augmentation.

    Attributes:
        net: "mlp": Flatten, Dense `width`, ReLU, Dense; "cnn": Conv64 3x3 valid, ReLU, MaxPool2, Conv64, ReLU, MaxPool2,
            Dense128, ReLU, Dense; "resnet18", "resnet50": He et al. 2016 in the form v1.5, 18 with a 3x3 stem and 50 with
            the 7x7 one; "lstm", "gru", "rnn": tokens one-hot, one layer, a Dense layer to the next token's logits.
        batch: examples a step.
        shape: of one row, uint8: an image, divided by 255, or T + 1 tokens.
        classes: of an image, or the number of tokens.
        peers: measured beside fdl unless others are asked for.
        width: hidden units (mlp and the recurrent nets), or channels of the first stage (resnets).
        rows: in the training set, where it is drawn.
        data: the real set that has these rows, in --data_dir.
        every: steps between two readings of the loss.
    """

    net: Net
    batch: int
    shape: tuple[int, ...]
    classes: int
    peers: tuple[str, ...]
    width: int = 64
    rows: int = 60_000
    data: str = ""
    every: int = 10

    @property
    def recurrent(self) -> bool:
        return self.net in GATES

    @property
    def per_row(self) -> int:
        """What a row counts as in a rate: 1 example, or T tokens."""
        return self.shape[0] - 1 if self.recurrent else 1


ALL = ("torch_eager", "torch_channels_last", "torch_compile", "keras_tf", "keras_jax", "flax_plain")
_FEW = ("torch_eager", "flax_plain")
_IMAGE = {"shape": (28, 28, 1), "classes": 10, "data": "fashion_mnist"}


def _mlp(batch: int, peers: tuple[str, ...] = _FEW) -> Workload:
    return Workload("mlp", batch, peers=peers, width=128, every=50, **_IMAGE)  # as the experiments log by default


def _cnn(batch: int, peers: tuple[str, ...] = ("torch_channels_last", "keras_tf")) -> Workload:
    return Workload("cnn", batch, peers=peers, **_IMAGE)


def _recurrent(net: Net, width: int, peers: tuple[str, ...]) -> Workload:
    return Workload(net, 32, (129,), 65, peers, width, rows=7_700, data="tiny_shakespeare")


WORKLOADS: dict[str, Workload] = {
    "fashion_mlp_32": _mlp(32),
    "fashion_mlp_128": _mlp(128, tuple(peer for peer in ALL if peer != "torch_channels_last")),
    "fashion_mlp_512": _mlp(512),
    "fashion_cnn_32": _cnn(32),
    "fashion_cnn_128": _cnn(128, ALL),
    "fashion_cnn_512": _cnn(512),
    "resnet18_128": Workload(
        "resnet18", 128, (32, 32, 3), 10, ("torch_channels_last",), rows=50_000, data="cifar10", every=1
    ),
    **{f"{net}_256": _recurrent(net, 256, ("torch_eager", "flax_plain", "keras_tf")) for net in GATES},
    **{f"{net}_512": _recurrent(net, 512, ("torch_eager",)) for net in GATES},
    "resnet50_8": Workload("resnet50", 8, (224, 224, 3), 1000, ("torch_channels_last",), rows=256, every=1),
}
ASKED_FOR = {"resnet50_8"}
"""Measured only where named: they take long."""


@dataclasses.dataclass(frozen=True)
class Floor:
    """A ratio fdl / peer on one workload: at least (memory: at most) this, and what is aimed at.

    Attributes:
        peer: its name, or "fastest": the one that fdl's ratio is lowest to.
        of: "rate" or "peak".
    """

    workload: str
    peer: str
    bound: float
    aim: float
    of: Literal["rate", "peak"] = "rate"

    @property
    def measure(self) -> str:
        peer = "the fastest peer" if self.peer == "fastest" else self.peer
        return f"{self.workload} over {peer}, {'examples/s' if self.of == 'rate' else 'peak memory (at most)'}"


FLOORS = (
    Floor("fashion_cnn_32", "fastest", 0.75, 1.1),
    Floor("fashion_cnn_128", "fastest", 0.75, 1.1),
    Floor("fashion_cnn_128", "flax_plain", 3.0, 5.0),
    *(Floor(f"fashion_mlp_{batch}", "flax_plain", 1.0, 1.3) for batch in (32, 128)),
    *(Floor(f"fashion_mlp_{batch}", "torch_eager", 1.5, 2.0) for batch in (32, 128)),
    *(Floor(f"lstm_{width}", "torch_eager", 0.85, 1.1) for width in (256, 512)),
    *(Floor(f"gru_{width}", "torch_eager", 0.95, 1.1) for width in (256, 512)),
    *(Floor(f"rnn_{width}", "torch_eager", 0.85, 1.1) for width in (256, 512)),
    Floor("resnet18_128", "torch_channels_last", 0.6, 1.0),
    Floor("fashion_cnn_128", "torch_eager", 1.5, 1.0, of="peak"),
)


def spec(workload: Workload, **more: Any) -> dict[str, Any]:
    """What a peer's script is told, as JSON: the workload, seconds to warm up and to measure, and `more`."""
    about = dataclasses.asdict(workload)
    return {**about, "per_row": workload.per_row, "warm_up": 1.0, "seconds": 4.0, "folder": None} | more


def blocks(net: str, width: int) -> list[tuple[list[tuple[int, int, int]], bool]]:
    """A ResNet's blocks: the (channels, kernel side, stride) of each convolution, and whether the shortcut has one too."""
    sizes, expansion = {"resnet18": ((2, 2, 2, 2), 1), "resnet50": ((3, 4, 6, 3), 4)}[net]
    found, before = [], width
    for stage, count in enumerate(sizes):
        channels = width * 2**stage
        for number in range(count):
            stride = 2 if stage and not number else 1
            convs = [(channels, 3, stride), (channels, 3, 1)]
            if expansion > 1:
                convs = [(channels, 1, 1), (channels, 3, stride), (channels * expansion, 1, 1)]
            found.append((convs, stride > 1 or before != convs[-1][0]))
            before = convs[-1][0]
    return found


def flops(workload: Workload) -> float:
    """Floating-point operations of the products that training one row needs; the gradient by the net's input needs none."""
    net, width, classes = workload.net, workload.width, workload.classes
    if net == "mlp":
        return 2.0 * (2 * 784 * width + 3 * width * classes)
    if net == "cnn":
        return 2.0 * (2 * 26 * 26 * 9 * 64 + 3 * (11 * 11 * 576 * 64 + 1600 * 128 + 128 * classes))
    if workload.recurrent:
        return 6.0 * workload.per_row * (GATES[net] * width * width + width * classes)  # one-hot inputs are looked up
    side = workload.shape[0] // (1 if net == "resnet18" else 2)
    stem = side * side * width * 3 * (9 if net == "resnet18" else 49)
    side, before, macs = side // (1 if net == "resnet18" else 2), width, 0
    for convs, shortcut in blocks(net, width):
        entry = before
        for channels, kernel, stride in convs:
            side //= stride
            macs += side * side * kernel * kernel * before * channels
            before = channels
        macs += side * side * entry * before if shortcut else 0
    return 2.0 * (2 * stem + 3 * (macs + before * classes))
