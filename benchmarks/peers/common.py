"""What the scripts share: rows in memory, shuffled batches, the clock, and the line they print. NumPy alone."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

_IMPORTED = time.monotonic()
Spec = dict[str, Any]


def specs() -> list[Spec]:
    """The command line's."""
    held = json.loads(sys.argv[1])
    return held if isinstance(held, list) else [held]


def rows(spec: Spec) -> tuple[np.ndarray, np.ndarray | None]:
    """Inputs uint8 [N, *shape] and targets int32 [N] (None for tokens): those in `folder`, else drawn, always the same."""
    if spec["folder"]:
        targets = Path(spec["folder"]) / "targets.npy"
        inputs = np.load(Path(spec["folder"]) / "inputs.npy")
        return inputs, np.load(targets) if targets.exists() else None
    rng, count, shape, classes = np.random.default_rng(0), spec["rows"], tuple(spec["shape"]), spec["classes"]
    if len(shape) == 1:  # each text goes on by a stride of its own, so that there is something to learn
        first, stride = rng.integers(0, classes, (count, 1)), rng.integers(1, 4, (count, 1))
        return ((first + stride * np.arange(shape[0])) % classes).astype(np.uint8), None
    targets = rng.integers(0, classes, count).astype(np.int32)
    inputs = rng.integers(0, 128, (count, *shape), np.uint8)
    for label in range(classes):  # a pattern for each class, under noise
        inputs[targets == label] += rng.integers(0, 128, shape, np.uint8)
    return inputs, targets


def batches(inputs: np.ndarray, targets: np.ndarray | None, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Without end: batches of an order shuffled anew in each epoch, gathered as they are asked for; no partial ones.

    Of tokens: all but the last of a row, and all but the first.
    """
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(len(inputs))
        for first in range(0, len(order) - size + 1, size):
            chosen = order[first : first + size]
            batch = inputs[chosen]
            yield (batch[:, :-1], batch[:, 1:]) if targets is None else (batch, targets[chosen])


def age() -> float:
    """Seconds since this process was started (where there is no /proc: since this file was imported)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.monotonic() - _IMPORTED


def peak() -> int:
    """The largest memory this process has had resident, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Clock:
    """Tells a training loop when it has warmed up and when it has been measured for long enough.

    The loss is read every `every` steps and after the first, so a system that runs ahead of its host is waited for.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec, self.steps = spec, 0
        self.rate, self.first, self.loss = 0.0, 0.0, float("nan")
        self._mark, self._since, self._warm = 0.0, 0, False

    def tick(self, loss: Callable[[], float]) -> bool:
        """A step has been handed over; `loss()` waits for it. True: enough."""
        self.steps += 1
        if self.steps == 1:
            loss()
            self.first = age()
            self._mark, self._since = time.perf_counter(), 1
            return False
        if (self.steps - 1) % self.spec["every"]:
            return False
        self.loss = float(loss())
        now, counted = time.perf_counter(), self.steps - self._since
        if not self._warm and now - self._mark >= self.spec["warm_up"]:
            self._warm, self._mark, self._since = True, now, self.steps
        elif self._warm and now - self._mark >= self.spec["seconds"]:
            self.rate = counted * self.spec["batch"] * self.spec["per_row"] / (now - self._mark)
            return True
        return False


def report(clock: Clock, parameters: int, *packages: str) -> None:
    """Print what was measured.

    Args:
        clock: that has said enough.
        parameters: trained numbers of the net; of biases that are only ever added to each other, one counts.
        packages: whose versions to name.
    """
    found = {
        "rate": clock.rate, "first_step": clock.first, "peak": peak(), "parameters": int(parameters), "loss": clock.loss,
        "steps": clock.steps, "versions": {name: version(name) for name in packages},
    }  # fmt: skip
    print(json.dumps(found), flush=True)


def version(package: str) -> str:
    """As installed under this name or that of a variant for CPUs."""
    for name in (package, f"{package}-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "?"
