"""A user's own images: a folder with a subfolder for each class, or an archive of one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fdl.data.formats import archives, images
from fdl.data.formats.bad_inputs import settle
from fdl.data.formats.forms import choose, places, roots, splits, stratified
from fdl.data.splits import Request, Splits
from fdl.types import Count, UserError, printable, take


def folder(request: Request, *, path: str, size: tuple[Count, Count] = (28, 28), channels: Literal[1, 3] = 3) -> Splits:
    """Your own images: PATH/train/CLASS/* and PATH/test/CLASS/*; or PATH/CLASS/*, and a fifth of each is for testing.

    Args:
        path: a folder, or a .zip, .tar, .tar.gz or .tgz of one; relative to --data_dir if it is there, else to the current
            folder. An archive is unpacked once, into fdl's cache (`fdl.data.formats.archives`).
        size: (H, W) to which every image is scaled.
        channels: 1 for grey, 3 for RGB.

    Raises:
        UserError: there is no such folder, or not two classes in it; BadInputs where images cannot be read.
    """
    wanted = [root / path for root in roots(request)] + [Path(path)]
    given = next((place for place in wanted if path and _there(place)), None)
    if given is None:
        raise UserError(
            f"no folder {printable(path)!r}, neither in {places(request)} nor in {Path.cwd()}: give its path in data.load.path"
        )
    root = given if given.is_dir() else archives.unpack(given)
    where = str(given) if given.is_dir() else f"{given}, unpacked in {root}"
    name = printable(given.name if given.is_dir() else given.name.split(".")[0])
    return choose(name, request, [("files", lambda: _read(request, root, name, where, size, channels))])


def _there(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):  # too long a name, or a NUL in it
        return False


def _read(
    request: Request, root: Path, name: str, where: str, size: tuple[int, int], channels: Literal[1, 3]
) -> Splits:
    cut = (root / "train").is_dir() and (root / "test").is_dir()
    train, bad = images.list_classes(root / "train" if cut else root)
    if len(train) < 2:
        raise UserError(
            f"{where} holds images of {len(train)} classes, expected 2 or more: make a subfolder for each class"
        )
    classes = tuple(train)
    named = tuple(map(printable, classes))
    test_files, test_bad = images.list_classes(root / "test") if cut else ({}, [])
    if cut and (not test_files or not set(test_files) <= set(classes)):
        wrong = sorted(map(printable, set(test_files) - set(classes))) or "no images"
        raise UserError(
            f"{root / 'test'} holds {wrong}, but {root / 'train'} the classes {list(named)}: make them agree"
        )

    rows, more_bad = images.load(train, classes, size, channels)
    test_rows, still_more = images.load(test_files, classes, size, channels)
    bad = [*bad, *more_bad, *test_bad, *still_more]
    total = len(rows["targets"]) + len(test_rows["targets"]) + len(bad)
    skipped = settle(bad, total, "images", request.on_bad)
    for label, class_name in enumerate(named):
        count, least = int((rows["targets"] == label).sum()), 1 if cut else 2
        if count < least:
            raise UserError(f"{where}: class {class_name} has {count} good images, expected {least} or more: add some")
    if cut and not len(test_rows["targets"]):
        raise UserError(f"{root / 'test'} holds no good image: add some")
    if not cut:
        test = stratified(rows["targets"], share=0.2)
        rows, test_rows = take(rows, ~test), take(rows, test)
    return splits(name, "files", where, rows, test_rows, classes=named, skipped=skipped)
