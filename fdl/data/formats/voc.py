"""Pascal VOC's form: an XML file of boxes for each picture, lists of the splits."""

from __future__ import annotations

from pathlib import Path

from fdl.data.formats.bad_inputs import Bad
from fdl.data.formats.boxes import Annotated, Read, check_boxes, inside, number, splits_of
from fdl.data.formats.forms import roots
from fdl.data.formats.plain_xml import parse_xml
from fdl.data.splits import Request, Splits
from fdl.types import Count, UserError, one_line, printable

BCCD_CLASSES = ("RBC", "WBC", "Platelets")
_SPLITS = {"train": "train", "validation": "val", "test": "test"}


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
                return splits_of(request, "bccd", place, place / "JPEGImages", read, size)
    raise UserError(
        f"bccd: no folder {' or '.join(str(root / 'bccd' / 'BCCD') for root in roots(request))}: put BCCD/ of "
        "https://github.com/Shenggan/BCCD_Dataset there, or name another --data_dir"
    )


def voc_folder(
    request: Request, *, path: str, size: tuple[Count, Count] = (240, 320), classes: tuple[str, ...] = ()
) -> Splits:
    """Read Pascal VOC's form: PATH/JPEGImages, an XML for each in PATH/Annotations, PATH/ImageSets/Main/{train,val,test}.txt.

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
    return splits_of(request, printable(found.name), found, found / "JPEGImages", read, size)


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
    return check_boxes(held, classes, bad, drop_empty)


def _voc_picture(path: Path) -> Annotated:
    document = parse_xml(path.read_bytes())
    name = document.find("filename")
    boxes = tuple(
        (each.find("name"), *(number(each.find(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")))
        for each in document.all("object")
    )
    size = int(number(document.find("size/width"))), int(number(document.find("size/height")))
    return Annotated(inside(name), size, boxes, str(path))  # type: ignore[arg-type]  # of a name and four numbers
