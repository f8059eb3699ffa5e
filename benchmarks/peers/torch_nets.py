"""The nets in PyTorch and its training loop; the scripts torch_* are three ways to run them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import common
from benchmarks.workloads import blocks


class Recurrent(nn.Module):
    """Tokens int64 [B, T] -> logits [B, T, V]."""

    def __init__(self, net: str, width: int, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[net]
        self.layer, self.output = kind(vocabulary, width, batch_first=True), nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(self.layer(functional.one_hot(tokens, self.vocabulary).float())[0])


class Block(nn.Module):
    """A residual block: convolutions each with BatchNorm, ReLU between them and after the sum."""

    def __init__(self, before: int, convs: list[tuple[int, int, int]], shortcut: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        entry, strides = before, 1
        for channels, kernel, stride in convs:
            layers += [conv(before, channels, kernel, stride), nn.ReLU()]
            before, strides = channels, strides * stride
        self.body = nn.Sequential(*layers[:-1])
        self.shortcut = conv(entry, before, 1, strides) if shortcut else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def conv(before: int, channels: int, kernel: int, stride: int) -> nn.Module:
    plain = nn.Conv2d(before, channels, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(plain, nn.BatchNorm2d(channels))


def build(spec: common.Spec) -> nn.Module:
    net, width, classes = spec["net"], spec["width"], spec["classes"]
    if net in ("lstm", "gru", "rnn"):
        return Recurrent(net, width, classes)
    if net == "mlp":
        pixels = int(np.prod(spec["shape"]))
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, classes))
    if net == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, classes),
        )  # fmt: skip
    stem: list[nn.Module] = [conv(3, width, 3, 1), nn.ReLU()]
    if net == "resnet50":
        stem = [conv(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    body, before = [], width
    for convs, shortcut in blocks(net, width):
        body.append(Block(before, convs, shortcut))
        before = convs[-1][0]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def parameters(model: nn.Module) -> int:
    """Trained numbers; a recurrent layer's second bias counts where it is multiplied before it is added (a GRU's third)."""
    total = sum(p.numel() for p in model.parameters())
    if isinstance(model, Recurrent):
        total -= model.layer.bias_hh_l0.numel()
        total += model.layer.hidden_size if isinstance(model.layer, nn.GRU) else 0
    return total


def train(*, channels_last: bool = False, compiled: bool = False) -> None:
    """Every spec of the command line: float32, or autocast to bfloat16 where the spec says "amp"."""
    for spec in common.specs():
        device, images = spec.get("device", "cpu"), len(spec["shape"]) == 3
        layout: dict[str, Any] = {"memory_format": torch.channels_last} if channels_last and images else {}
        inputs, targets = common.rows(spec)
        if images:
            inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
        model = build(spec).to(device, **layout)
        count = parameters(model)
        if compiled:
            model = torch.compile(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        clock = common.Clock(spec)
        for x, y in common.batches(inputs, targets, spec["batch"]):
            batch, labels = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device).long().flatten()
            batch = batch.float().div_(255).to(**layout) if images else batch.long()
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=spec.get("amp", False)):
                loss = functional.cross_entropy(model(batch).flatten(0, -2), labels)
            loss.backward()
            optimizer.step()
            if clock.tick(loss.item):
                break
        common.report(clock, count, "torch")
