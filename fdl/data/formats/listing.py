"""Which pictures lie in a folder and its subfolders, and what else does: nothing is left out without being counted."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fdl.data.formats.bad_inputs import Bad
from fdl.data.formats.images import SUFFIXES
from fdl.types import UserError, one_line, printable

IGNORED = frozenset({
    "__macosx", "lost+found", "$recycle.bin", "system volume information", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini",
    "icon\r",
})  # fmt: skip
"""What systems put beside a user's files, in lower case; hidden names (".DS_Store") are passed over too."""


class Picture(NamedTuple):
    """A file named like a picture: its path below the folder, bytes, and time of its last change (ns)."""

    path: str
    size: int
    modified: int


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        root: the folder.
        pictures: in the order of their paths, folder by folder.
        folders: the paths of all subfolders below `root`.
        others: the paths of files that are not named like pictures.
        bad: folders that may not be read, and links that lead nowhere.
    """

    root: Path
    pictures: list[Picture]
    folders: list[str]
    others: list[str]
    bad: list[Bad]

    def file(self, picture: Picture) -> Path:
        """Return the path of a picture on disk."""
        return self.root / picture.path


def parts_of(path: str) -> tuple[str, ...]:
    """Split a path: "cat/wild/1.png" -> ("cat", "wild", "1.png")"""
    return tuple(path.split("/"))


def list_pictures(root: Path) -> Listing:
    """Search a folder and its subfolders; links to files and folders are followed, for they are the user's own.

    Raises:
        UserError: `root` may not be read.
    """
    listing = Listing(root, [], [], [], [])
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while waiting:
        folder, around = waiting.pop()
        where = root / folder
        try:
            identity = _identity(where)
            if identity in around:  # a link to a folder around it: all that it holds is listed already
                continue
            with os.scandir(where) as entries:
                held = [entry for entry in entries if not is_ignored(entry.name)]
        except OSError as error:
            if not folder:
                raise UserError(f"{printable(root)} may not be read: {error.strerror}; change its rights") from error
            listing.bad.append(Bad(printable(where), "", f"the folder may not be read: {error.strerror}"))
            continue
        waiting += [(path, (*around, identity)) for path in _sort_in(listing, folder, held)]
    listing.pictures.sort(key=lambda picture: parts_of(picture.path))
    listing.folders.sort(key=parts_of)
    listing.bad.sort()
    return listing


def _sort_in(listing: Listing, folder: str, entries: Iterable[os.DirEntry[str]]) -> Iterator[str]:
    """Add the entries of one folder to the listing, and yield the subfolders."""
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        looks_like_one = entry.name.lower().endswith(SUFFIXES)
        try:
            if entry.is_dir() and not looks_like_one:
                listing.folders.append(path)
                yield path
            elif looks_like_one:
                about = entry.stat()
                listing.pictures.append(Picture(path, about.st_size, about.st_mtime_ns))
            elif entry.is_symlink() and not os.path.exists(entry.path):
                listing.bad.append(Bad(printable(entry.path), "", "it is a link that leads nowhere"))
            else:
                listing.others.append(path)
        except OSError as error:
            broken = entry.is_symlink()
            why = "it is a link that leads nowhere" if broken else one_line(error.strerror or error)
            listing.bad.append(Bad(printable(entry.path), "", why))


def _identity(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is passed over without a word."""
    return name.startswith(".") or name.lower() in IGNORED


def count_by_suffix(paths: Iterable[str]) -> str:
    """Count files by suffix: "12 .heic, 2 without a suffix", the commonest first."""
    counts = Counter(PurePosixPath(path).suffix.lower() for path in paths)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {printable(suffix, 12) or 'without a suffix'}" for suffix, count in ranked[:6]]
    rest = sum(count for _, count in ranked[6:])
    return ", ".join([*named, *([f"{rest:,} others"] if rest else [])])
