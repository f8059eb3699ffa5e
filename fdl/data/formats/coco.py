"""COCO's form: one JSON file of pictures, categories and boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fdl.data.formats.boxes import Annotated, Box, Read, check_boxes, inside, number, splits_of
from fdl.data.splits import Request, Splits
from fdl.types import Count, UserError, one_line, printable

_MOST_BYTES = 1 << 30


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
            {**read.splits, split: held.splits["train"]},
            held.classes,
            [*read.bad, *held.bad],
            [*read.notes, *held.notes],
        )
        folder = folder or file.parent
    assert folder is not None
    pictures = request.find(images) if images else folder
    if pictures is None or not pictures.is_dir():
        raise UserError(f"no folder {printable(images)!r}: name the folder of the pictures in data.load.images")
    return splits_of(request, printable(Path(path).stem), folder, pictures, read, size)


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
            left, top, width, height = (number(str(value)) for value in each["bbox"])
            boxes[each["image_id"]].append((names[each["category_id"]], left, top, left + width, top + height))
        found = [
            Annotated(inside(str(each["file_name"])), (int(each["width"]), int(each["height"])), tuple(boxes[identity]),
                      f"{path}, {printable(each['file_name'], 80)}")
            for identity, each in pictures.items()
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{printable(path)} is no file of COCO annotations: {type(error).__name__}: {one_line(error, 120)}; it needs "
            '"images", "annotations" and "categories"'
        ) from error
    return check_boxes({"train": found}, classes or tuple(names.values()), [], drop_empty=False)
