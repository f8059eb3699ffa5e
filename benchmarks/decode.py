"""JPEG files to random crops of 224 x 224 on one core: fdl's column beside PyTorch's DataLoader with Pillow, the same files."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.input import draw_photographs
from fdl.types import UserError

SECONDS, BATCH, SIDE = 5.0, 32, 224
PARTS = ("drawn", "hymenoptera")
"""Photographs of smooth noise, 500 x 375; and those of PyTorch's transfer tutorial, where the data directory has them."""


def measure(only: list[str], rounds: int, data_dir: str | None) -> list[dict[str, Any]]:
    """Measure images a CPU second on one core, alternated; a row for each set of files.

    Raises:
        UserError: a part is unknown, or PyTorch is not installed.
    """
    for name in only:
        if name not in PARTS:
            raise UserError(f"{name}: there is no such part; there are {', '.join(PARTS)}")
    if importlib.util.find_spec("torch") is None:
        raise UserError("suite decode needs PyTorch: pip install -e '.[bench]'")
    rows = []
    with tempfile.TemporaryDirectory() as folder, _one_core():
        draw_photographs(Path(folder) / "drawn")
        places = {"drawn": Path(folder) / "drawn", "hymenoptera": Path(data_dir or folder) / "hymenoptera"}
        for part in only or PARTS:
            if not places[part].is_dir():
                continue
            systems = {"fdl": fdl_batches(places[part]), "torch": torch_batches(places[part] / "train")}
            found: dict[str, list[float]] = {name: [] for name in systems}
            for _ in range(rounds):
                for name, batches in systems.items():
                    found[name].append(_rate(batches))
            ratios = [ours / theirs for ours, theirs in zip(found["fdl"], found["torch"], strict=True)]
            rows.append(
                {"files": part, "rounds": rounds}
                | {f"{name} images/CPU s": _spread(rates, ",.0f") for name, rates in found.items()}
                | {"fdl/torch": _spread(ratios, ".2f")}
            )
    return rows


def fdl_batches(root: Path) -> Callable[[], Iterator[Any]]:
    """Return what yields fdl's training batches of the pictures under `root`, uint8 [B, H, W, 3], without end."""
    from fdl.data import Request, pipeline
    from fdl.data.formats.folders import folder

    rows = folder(Request(), path=str(root), size=(SIDE, SIDE), crop=True, lazy=True).train
    stream = pipeline.Stream(0, BATCH, len(rows["targets"]))
    return lambda: (batch["inputs"] for batch in pipeline.feed("numpy", rows, stream, 0, 10**6))


def torch_batches(root: Path) -> Callable[[], Iterator[Any]]:
    """Return what yields the same from PyTorch's DataLoader: Pillow reads, crops and scales, uint8 [B, H, W, 3].

    The crop is torchvision's RandomResizedCrop, whose first attempt nearly always fits; torchvision itself is not needed.
    """
    import torch
    from PIL import Image

    class Pictures(torch.utils.data.Dataset):  # type: ignore[misc]
        def __init__(self) -> None:
            self.paths = sorted(root.rglob("*.jpg"))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, place: int) -> Any:
            with Image.open(self.paths[place]) as file:
                image = file.convert("RGB")
            width, height = image.size
            area = width * height * float(torch.empty(1).uniform_(0.08, 1))
            ratio = math.exp(float(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3))))
            w, h = (min(round(math.sqrt(area * ratio)), width), min(round(math.sqrt(area / ratio)), height))
            left, top = (int(torch.randint(0, free + 1, (1,))) for free in (width - w, height - h))
            seen = image.crop((left, top, left + w, top + h)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(seen))

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(Pictures(), BATCH, shuffle=True, drop_last=True)
    return lambda: (inputs for _ in itertools.count() for inputs in loader)


def _rate(batches: Callable[[], Iterator[Any]]) -> float:
    """Measure images a second of this process's CPU time over SECONDS, the first batches left out.

    By CPU time, so that what else the machine does takes no part in it.
    """
    each = batches()
    for _ in range(4):  # the column reads ahead
        next(each)
    began, count, spent = time.process_time(), 0, 0.0
    while spent < SECONDS:
        count, spent = count + len(next(each)), time.process_time() - began
    return count / spent


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process on one core of those it may use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
