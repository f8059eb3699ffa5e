"""Labels and splits from the names of folders: CLASS/*, or train/CLASS/* beside test/ and val/, however they are called."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from fdl.data.formats.bad_inputs import Bad
from fdl.data.formats.listing import Listing, Picture, count_by_suffix, parts_of
from fdl.types import UserError, printable

SplitName = Literal["train", "validation", "test"]
_SPLIT = re.compile(
    r"(?:(train|training)|(val|valid|validation|dev)|(test|testing))(?:[ _-]?(?:set|images|imgs|data|folder))?", re.I
)


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Pictures with their labels.

    Attributes:
        splits: split -> [(picture, label)], in the order of the paths.
        notes: what was left out, for a person.
        bad: places in a table of labels that are wrong.
        numbered: labels that are whole numbers are in the order of their values.
    """

    splits: dict[SplitName, list[tuple[Picture, str]]]
    notes: list[str]
    bad: list[Bad] = dataclasses.field(default_factory=list)
    numbered: bool = False


def split_named(folder: str) -> SplitName | None:
    """Return the split that a folder's name means ("Training", "val", "test_set"), None where it means none."""
    match = _SPLIT.fullmatch(folder)
    return None if match is None else "train" if match[1] else "validation" if match[2] else "test"


def label_by_folder(listing: Listing) -> Labelled:
    """Label each picture with the name of its class folder, however deep the picture is below it.

    Class folders lie in the folders of the splits where there is one for training, else at the top. Folders around
    everything are stepped into.

    Raises:
        UserError: there are splits but none for training, or split folders lie in the class folders.
    """
    folders = [parts_of(path) for path in listing.folders]
    start = _folders_around_everything(listing, folders)
    by_split = _has_splits(listing, folders, start)
    depth = start + by_split  # of a class folder's name among the parts of a path
    splits: dict[SplitName, list[tuple[Picture, str]]] = {}
    unlabelled: Counter[str] = Counter()
    for picture in listing.pictures:
        parts = parts_of(picture.path)
        split = "train" if not by_split else split_named(parts[start])
        if split is None or len(parts) < depth + 2:
            unlabelled["/".join(parts[start:depth] if len(parts) > depth else ())] += 1
        else:
            splits.setdefault(split, []).append((picture, parts[depth]))
    if not by_split:
        _refuse_inner_splits(listing, folders, depth)
    classes = {parts for parts in folders if len(parts) == depth + 1 and (not by_split or split_named(parts[start]))}
    filled = {parts_of(picture.path)[: depth + 1] for held in splits.values() for picture, _ in held}
    closed = {row.file for row in listing.bad}  # these are said to be bad already
    empty = [parts for parts in sorted(classes - filled) if printable(listing.root.joinpath(*parts)) not in closed]
    notes = [_empty(listing, parts) for parts in empty]
    if unlabelled:
        shown = [
            f"{count:,} in {printable(place) or 'the folder itself'}" for place, count in sorted(unlabelled.items())
        ]
        notes.append(f"pictures in no class folder are left out: {', '.join(shown)}")
    return Labelled(splits, notes + other_files(listing.others))


def other_files(paths: Iterable[str]) -> list[str]:
    """Note which files are left out because they are not named like pictures; no note where there are none."""
    paths = list(paths)
    return [f"files not named like pictures are left out: {count_by_suffix(paths)}"] if paths else []


def _folders_around_everything(listing: Listing, folders: list[tuple[str, ...]]) -> int:
    """Return the depth of the first folder that has more than one folder, or pictures, or a split's name."""
    depth = 0
    while True:
        here = [parts for parts in folders if len(parts) == depth + 1]
        shallow = any(picture.path.count("/") < depth + 2 for picture in listing.pictures)
        if len(here) != 1 or shallow or not listing.pictures or split_named(here[0][-1]):
            return depth
        depth += 1


def _has_splits(listing: Listing, folders: list[tuple[str, ...]], start: int) -> bool:
    """Return whether the folders at depth `start` are splits: one is train and holds folders, or another one is a split too."""
    named = {parts: split_named(parts[-1]) for parts in folders if len(parts) == start + 1}
    training = [parts for parts, split in named.items() if split == "train"]
    if named and not training and all(named.values()):
        held = ", ".join(printable(parts[-1]) for parts in named)
        raise UserError(
            f"{printable(listing.root)} holds {held} and no folder train: name the training pictures' folder so"
        )
    holds_folders = any(len(parts) > start + 1 and parts[: start + 1] in training for parts in folders)
    return bool(training) and (holds_folders or len([split for split in named.values() if split]) > 1)


def _refuse_inner_splits(listing: Listing, folders: list[tuple[str, ...]], depth: int) -> None:
    for parts in folders:
        if len(parts) == depth + 2 and split_named(parts[-1]) == "train":
            inner = printable("/".join(parts))
            raise UserError(
                f"{printable(listing.root)} holds {inner}: put class folders into split folders, not these into those "
                f"({printable(parts[-1])}/{printable(parts[-2])})"
            )


def _empty(listing: Listing, parts: tuple[str, ...]) -> str:
    inside = [path for path in listing.others if parts_of(path)[: len(parts)] == parts]
    held = count_by_suffix(inside) if inside else "it is empty"
    return f"no picture in {printable('/'.join(parts))} ({held}): it is left out"
