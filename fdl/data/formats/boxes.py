"""Pictures with boxes around objects, in Pascal VOC's and COCO's forms.

Rows: "inputs" uint8 [N, H, W, 3]; "targets" {"boxes": float32 [N, M, 4] (left, top, right, bottom in pixels of the row's picture),
"classes": int32 [N, M], -1 where there is no box}, M the most boxes of any picture.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.forms import roots
from fdl.data.formats.frames import Frame
from fdl.data.formats.listing import Picture
from fdl.data.formats.picture_rows import picture_rows
from fdl.data.formats.plain_xml import parse_xml
from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, Count, UserError, one_line, printable

BCCD_CLASSES = ("RBC", "WBC", "Platelets")
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_MOST_BYTES = 1 << 30
Box = tuple[str, float, float, float, float]
"""Class, left, top, right, bottom in pixels of the picture's file."""


@dataclasses.dataclass(frozen=True)
class Annotated:
    """A picture with its boxes: its path below the folder of pictures, (width, height), and what the annotation's file is called."""

    path: str
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    source: str


def bccd(request: Request, *, size: tuple[Count, Count] = (240, 320)) -> Splits:
    """Load BCCD (https://github.com/Shenggan/BCCD_Dataset): 205 + 87 + 72 pictures of blood cells with 4,886 boxes of 3 classes.

    The folder `bccd/BCCD` or `BCCD` of --data_dir. Two boxes that the publisher's files give no area are left out.

    Raises:
        UserError: there is no such folder, or it is damaged.
    """
    for root in roots(request):
        for place in (root / "bccd" / "BCCD", root / "BCCD"):
            if (place / "Annotations").is_dir():
                read = _read_voc(place, BCCD_CLASSES, drop_empty=True)
                return _splits(request, "bccd", place, place / "JPEGImages", read, size)
    raise UserError(
        f"bccd: no folder {' or '.join(str(root / 'bccd' / 'BCCD') for root in roots(request))}: put BCCD/ of "
        "https://github.com/Shenggan/BCCD_Dataset there, or name another --data_dir"
    )


def voc_folder(
    request: Request, *, path: str, size: tuple[Count, Count] = (240, 320), classes: tuple[str, ...] = ()
) -> Splits:
    """Read Pascal VOC's form: PATH/JPEGImages, an XML for each in PATH/Annotations, splits in PATH/ImageSets/Main/{train,val,test}.txt.

    Without such lists every annotated picture is a training row, from which `Data.cut` takes the others.

    Args:
        path: the folder; relative to --data_dir if it is there, else to the current folder.
        size: (H, W) to which a picture is scaled, whole (`fdl.data.formats.frames.fit`), its boxes with it.
        classes: their names in the order of their numbers; (): those found, in the order of the alphabet.

    Raises:
        UserError: there is no such folder; BadInputs where pictures, annotations or boxes are bad.
    """
    found = request.find(path)
    if found is None or not (found / "Annotations").is_dir():
        raise UserError(
            f"no folder {printable(path)!r} with a folder Annotations in it: give its path in data.load.path"
        )
    read = _read_voc(found, classes)
    return _splits(request, printable(found.name), found, found / "JPEGImages", read, size)


def coco_file(
    request: Request, *, path: str, images: str = "", test: str = "", size: tuple[Count, Count] = (240, 320)
) -> Splits:
    """Read COCO's form: one JSON of "images", "annotations" with "bbox" [left, top, width, height], and "categories".

    Boxes of a crowd ("iscrowd") are left out.

    Args:
        path: the file; relative to --data_dir if it is there, else to the current folder.
        images: the folder of its pictures; "": the file's own.
        test: a second such file, of the test split; "": `Data.test` is cut from the first.
        size: as of `voc_folder`.

    Raises:
        UserError: as `voc_folder`.
    """
    read = Read({}, ())
    folder = None
    for split, name in (("train", path), ("test", test)):
        if not name:
            continue
        file = request.find(name)
        if file is None or not file.is_file():
            raise UserError(f"no file {printable(name)!r}: give the path of a COCO file of annotations")
        held = _read_coco(file, read.classes)
        read = Read(
            read.splits | {split: held.splits["train"]},
            held.classes,
            [*read.bad, *held.bad],
            [*read.notes, *held.notes],
        )
        folder = folder or file.parent
    assert folder is not None
    pictures = request.find(images) if images else folder
    if pictures is None or not pictures.is_dir():
        raise UserError(f"no folder {printable(images)!r}: name the folder of the pictures in data.load.images")
    return _splits(request, printable(Path(path).stem), folder, pictures, read, size)


@dataclasses.dataclass(frozen=True)
class Read:
    """What annotations say: pictures by split, class names, what is bad, what else to say."""

    splits: Mapping[str, list[Annotated]]
    classes: tuple[str, ...]
    bad: Sequence[Bad] = ()
    notes: Sequence[str] = ()


def _read_voc(root: Path, classes: tuple[str, ...], drop_empty: bool = False) -> Read:
    lists = {split: root / "ImageSets" / "Main" / f"{name}.txt" for split, name in _SPLITS.items()}
    names = {split: path.read_text().split() for split, path in lists.items() if path.is_file()}
    names = names if "train" in names else {"train": sorted(path.stem for path in (root / "Annotations").glob("*.xml"))}
    held: dict[str, list[Annotated]] = {split: [] for split in names}
    bad: list[Bad] = []
    for split, stems in names.items():
        for stem in stems:
            path = root / "Annotations" / f"{stem}.xml"
            try:
                held[split].append(_voc_picture(path))
            except (ValueError, OSError) as error:
                bad.append(Bad(printable(path, 2000), "", one_line(getattr(error, "strerror", None) or error)))
    return _checked(held, classes, bad, drop_empty)


def _voc_picture(path: Path) -> Annotated:
    document = parse_xml(path.read_bytes())
    name = document.find("filename")
    boxes = tuple(
        (each.find("name"), *(_number(each.find(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")))
        for each in document.all("object")
    )
    size = int(_number(document.find("size/width"))), int(_number(document.find("size/height")))
    return Annotated(_inside(name), size, boxes, str(path))  # type: ignore[arg-type]  # of a name and four numbers


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no number that a coordinate can be")
    return value


def _inside(name: str) -> str:
    """Return a picture's path if it stays in the folder of the pictures.

    Raises:
        ValueError: it leads elsewhere.
    """
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise ValueError(f"the picture's name {printable(name, 80)!r} leads out of the folder")
    return name


def _read_coco(path: Path, classes: tuple[str, ...]) -> Read:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is over the limit of {_MOST_BYTES:,} bytes")
        held = json.loads(path.read_bytes())
        names = {each["id"]: str(each["name"]) for each in held["categories"]}
        pictures = {each["id"]: each for each in held["images"]}
        boxes: dict[Any, list[Box]] = {identity: [] for identity in pictures}
        for each in held["annotations"]:
            if each.get("iscrowd"):
                continue
            if each["image_id"] not in pictures or each["category_id"] not in names:
                raise ValueError(f"annotation {each.get('id')} is of an unknown picture or category")
            left, top, width, height = (_number(str(value)) for value in each["bbox"])
            boxes[each["image_id"]].append((names[each["category_id"]], left, top, left + width, top + height))
        found = [
            Annotated(_inside(str(each["file_name"])), (int(each["width"]), int(each["height"])), tuple(boxes[identity]),
                      f"{path}, {printable(each['file_name'], 80)}")
            for identity, each in pictures.items()
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{printable(path)} is no file of COCO annotations: {type(error).__name__}: {one_line(error, 120)}; it needs "
            '"images", "annotations" and "categories"'
        ) from error
    return _checked({"train": found}, classes or tuple(names.values()), [], drop_empty=False)


def _checked(held: Mapping[str, list[Annotated]], classes: tuple[str, ...], bad: list[Bad], drop_empty: bool) -> Read:
    """Leave out boxes that cannot be trained on; each is bad, but where empty ones are known and dropped."""
    found = {box[0] for pictures in held.values() for picture in pictures for box in picture.boxes}
    classes = classes or tuple(sorted(found))
    dropped, checked = 0, {}
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


def _splits(request: Request, name: str, where: Path, folder: Path, read: Read, size: tuple[int, int]) -> Splits:
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
    pictures = [Picture(each.path, 0, 0) for each in good]
    rows, wrong = picture_rows(folder, pictures, np.arange(len(good)), Frame(size, 3), lazy=False)
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


def geometry(shape: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, int, int]:
    """Return (scale of x, of y, left, top) of a picture of (width, height) in a frame of (H, W), as `frames.fit` places it."""
    scale = min(size[1] / shape[0], size[0] / shape[1])
    width, height = (min(most, max(1, round(side * scale))) for side, most in zip(shape, size[::-1], strict=True))
    return width / shape[0], height / shape[1], (size[1] - width) // 2, (size[0] - height) // 2


def into_frame(boxes: np.ndarray, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Convert boxes [..., 4] from pixels of a picture of (width, height), clipped to it, to pixels of its frame (H, W)."""
    x, y, left, top = geometry(shape, size)
    clipped = np.clip(boxes, 0, np.tile(shape, 2))
    return clipped * np.array([x, y, x, y]) + np.array([left, top, left, top])


def out_of_frame(boxes: np.ndarray, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Convert boxes [..., 4] back to pixels of the picture, clipped to it."""
    x, y, left, top = geometry(shape, size)
    return np.clip((boxes - np.array([left, top, left, top])) / np.array([x, y, x, y]), 0, np.tile(shape, 2))
