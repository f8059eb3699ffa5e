"""Pictures with boxes around objects, in Pascal VOC's and COCO's forms.

Rows: "inputs" uint8 [N, H, W, 3], or where they are many a column that is decoded batch by batch; "targets" {"boxes": float32
[N, M, 4] (left, top, right, bottom in pixels of the row's picture), "classes": int32 [N, M], -1 where there is none}, M the most
boxes of any picture.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.frames import Frame, placed
from fdl.data.formats.listing import Picture
from fdl.data.formats.picture_rows import is_lazy, picture_rows
from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, UserError, one_line, printable

Box = tuple[str, float, float, float, float]
"""Class, left, top, right, bottom in pixels of the picture's file."""


@dataclasses.dataclass(frozen=True)
class Annotated:
    """A picture with its boxes: its path below the folder of pictures, (width, height), and what the annotation is called."""

    path: str
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class Read:
    """What annotations say: pictures by split, class names, what is bad, what else to say."""

    splits: Mapping[str, list[Annotated]]
    classes: tuple[str, ...]
    bad: Sequence[Bad] = ()
    notes: Sequence[str] = ()


def number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no number that a coordinate can be")
    return value


def inside(name: str) -> str:
    """Return a picture's path if it stays in the folder of the pictures.

    Raises:
        ValueError: it leads elsewhere.
    """
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise ValueError(f"the picture's name {printable(name, 80)!r} leads out of the folder")
    return name


def check_boxes(
    held: Mapping[str, list[Annotated]], classes: tuple[str, ...], bad: list[Bad], drop_empty: bool
) -> Read:
    """Leave out boxes that cannot be trained on; each is bad, but where empty ones are known and dropped."""
    found = {box[0] for pictures in held.values() for picture in pictures for box in picture.boxes}
    classes = classes or tuple(sorted(found))
    checked: dict[str, list[Annotated]] = {}
    dropped = 0
    for split, pictures in held.items():
        checked[split] = []
        for picture in pictures:
            reasons = {
                number: why for number, box in enumerate(picture.boxes) if (why := _fault(box, picture.size, classes))
            }
            for number, why in reasons.items():
                if drop_empty and why == _EMPTY:
                    dropped += 1
                else:
                    bad.append(Bad(printable(picture.source, 2000), f"box {number + 1}", why))
            kept = tuple(box for number, box in enumerate(picture.boxes) if number not in reasons)
            checked[split].append(dataclasses.replace(picture, boxes=kept))
    notes = [f"{dropped} boxes without area are left out"] if dropped else []
    return Read(checked, classes, bad, notes)


_EMPTY = "it has no area"


def _fault(box: Box, size: tuple[int, int], classes: Sequence[str]) -> str:
    """Say what is wrong with a box; "" where nothing is."""
    name, left, top, right, bottom = box
    if name not in classes:
        return f"{printable(name, 40)!r} is not among the classes {printable(', '.join(classes), 120)}"
    if right <= left or bottom <= top:
        return _EMPTY
    if left >= size[0] or top >= size[1] or right <= 0 or bottom <= 0:
        return f"it lies outside the picture of {size[0]} x {size[1]}"
    return ""


def splits_of(request: Request, name: str, where: Path, folder: Path, read: Read, size: tuple[int, int]) -> Splits:
    rows: dict[str, Arrays] = {}
    bad = list(read.bad)
    most = max((len(each.boxes) for held in read.splits.values() for each in held), default=0)
    if not most or not read.classes:
        settle(sorted(bad), len(bad), "annotations", "stop")
        raise UserError(f"{where} holds no box: annotate some pictures")
    for split, held in read.splits.items():
        rows[split], wrong = _rows(folder, held, read.classes, size, most)
        bad += wrong
        if not len(rows[split]["inputs"]):
            settle(sorted(bad), len(bad), "pictures", "stop")
            raise UserError(f"{where}: the {split} split holds no picture: add some")
    total = sum(len(held["inputs"]) for held in rows.values()) + len(bad)
    skipped = settle(sorted(bad), total, "pictures and boxes", request.on_bad)
    facts = Facts(classes=read.classes)
    return Splits(
        name,
        "files",
        str(where),
        rows["train"],
        rows.get("test"),
        rows.get("validation"),
        facts,
        skipped=skipped,
        notes=read.notes,
    )


def _rows(
    folder: Path, held: Sequence[Annotated], classes: Sequence[str], size: tuple[int, int], most: int
) -> tuple[Arrays, list[Bad]]:
    """Decode pictures and scale their boxes: (rows, the pictures that cannot be read or have another size than annotated)."""
    good, bad = [], []
    for each in held:
        try:
            actual = picture_size(folder / each.path)
            if actual != each.size:
                raise ValueError(
                    f"it is {actual[0]} x {actual[1]}, its annotation says {each.size[0]} x {each.size[1]}"
                )
            good.append(each)
        except ValueError as error:
            bad.append(Bad(printable(folder / each.path, 2000), "", str(error)))
    stats = [(folder / each.path).stat() for each in good]
    pictures = [Picture(each.path, stat.st_size, stat.st_mtime_ns) for each, stat in zip(good, stats, strict=True)]
    frame = Frame(size, 3)
    rows, wrong = picture_rows(folder, pictures, np.arange(len(good)), frame, is_lazy(len(good), frame))
    boxes, numbers = (
        np.zeros((len(rows["targets"]), most, 4), np.float32),
        np.full((len(rows["targets"]), most), -1, np.int32),
    )
    for row, place in enumerate(rows["targets"]):
        each = good[place]
        for slot, (label, *corners) in enumerate(each.boxes):
            boxes[row, slot] = into_frame(np.array(corners), each.size, size)
            numbers[row, slot] = classes.index(label)
    return {"inputs": rows["inputs"], "targets": {"boxes": boxes, "classes": numbers}}, [*bad, *wrong]


def picture_size(path: Path) -> tuple[int, int]:
    """Return (width, height) from a picture's header, upright.

    Raises:
        ValueError: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            turned = file.getexif().get(274, 1) in (5, 6, 7, 8)
            return (file.height, file.width) if turned else file.size
    except Exception as error:  # Pillow raises nearly every built-in exception on damaged files
        raise ValueError(one_line(getattr(error, "strerror", None) or error)) from error


def into_frame(boxes: np.ndarray, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Convert boxes [..., 4] from pixels of a picture of (width, height), clipped to it, to pixels of its frame (H, W)."""
    scale, shift = _geometry(shape, size)
    return np.clip(boxes, 0, np.tile(shape, 2)) * scale + shift


def out_of_frame(boxes: np.ndarray, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Convert boxes [..., 4] back to pixels of the picture, clipped to it."""
    scale, shift = _geometry(shape, size)
    return np.clip((boxes - shift) / scale, 0, np.tile(shape, 2))


def _geometry(shape: tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (scale [4], shift [4]) of the corners in a picture of (width, height) that lies in a frame of (H, W)."""
    left, top, width, height = placed(shape, size)
    return np.array([width / shape[0], height / shape[1]] * 2), np.array([left, top] * 2)
