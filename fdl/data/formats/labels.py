"""Labels from a table beside the pictures: one column names a picture, another its class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from fdl.data.formats import cells
from fdl.data.formats.bad_inputs import Bad
from fdl.data.formats.class_folders import Labelled, SplitName, other_files, split_named
from fdl.data.formats.listing import Listing, Picture, parts_of
from fdl.types import UserError, one_line, printable

_LABELS = ("label", "labels", "class", "class_name", "category", "target", "breed", "species", "y")
_SAMPLE = 200  # rows that decide which column names the pictures
Row = tuple[int, Sequence[str]]
"""A line's number in its file, and its cells."""
Find = Callable[[str], list[Picture]]
"""The pictures that a cell may mean."""


def label_by_table(listing: Listing, table: Path, label_column: str = "") -> Labelled:
    """Return the label of each picture in the table; where there is a training folder, the folders are the splits.

    The column of names is the one whose cells name pictures: by path or file name, with the suffix or without. Where the
    same name is in several folders, the one in the training folder is meant. The label is the other column where there
    are two, else the one called label, class, target, ...

    Args:
        table: separated by commas, semicolons, tabs or bars; with or without a line of column names.
        label_column: the name of the label's column.

    Raises:
        UserError: no table can be read there, it names no picture, or no column is known to be the label.
    """
    if not table.is_file():
        raise UserError(f"there is no table of labels {printable(table)}: give its path in data.load.labels")
    held, find = cells.read(table, "none"), _finder(listing)
    stripped = ([str(cell).strip() for cell in column] for column in held.columns)
    rows = [(line, row) for line, *row in zip(held.lines.tolist(), *stripped, strict=True)]
    if len(held.columns) < 2 or not rows:
        raise UserError(f"{held.where} has no two columns of labels: one must name the pictures, another their labels")
    has_names = not any(map(find, rows[0][1]))
    names = rows[0][1] if has_names else held.names
    rows = rows[has_names:]
    if not rows:
        first = f"{held.bad[0].place}: {held.bad[0].reason}" if held.bad else "it has one line"
        raise UserError(f"{held.where} labels no picture ({first}): expected a line for each")
    file_at = _file_column(rows, find, held.where)
    label_at = _label_column(names, file_at, label_column, held.where)
    labels: dict[Picture, str] = {}
    bad = [*held.bad]
    for line, row in rows:
        found, label = _picture_of(row[file_at], row[label_at], find), row[label_at]
        if isinstance(found, str):
            bad.append(Bad(held.where, f"line {line}", found))
        elif labels.setdefault(found, label) != label:
            bad.append(Bad(held.where, f"line {line}", f"{printable(row[file_at], 80)!r} has another label above"))
    notes = [
        *_unlabelled(listing, labels),
        *other_files(path for path in listing.others if listing.root / path != table),
    ]
    return Labelled(_by_split(listing, labels), notes, bad, numbered=True)


def _finder(listing: Listing) -> Find:
    """Look up cells as paths, paths without suffix, file names, and these without suffix, in this order."""
    keys: tuple[Callable[[str], str], ...] = (
        lambda path: path,
        lambda path: str(PurePosixPath(path).with_suffix("")),
        lambda path: PurePosixPath(path).name,
        lambda path: PurePosixPath(path).stem,
    )
    indices: list[dict[str, list[Picture]]] = []
    for key in keys:
        index: dict[str, list[Picture]] = {}
        for picture in listing.pictures:
            index.setdefault(key(picture.path), []).append(picture)
        indices.append(index)

    def find(cell: str) -> list[Picture]:
        name = cell.replace("\\", "/").removeprefix("./")
        held = next((index[name] for index in indices if name in index), [])
        training = [picture for picture in held if split_named(parts_of(picture.path)[0]) == "train"]
        return training if len(held) > 1 and len(training) == 1 else held

    return find


def _file_column(rows: Sequence[Row], find: Find, where: str) -> int:
    hits = Counter(place for _, row in rows[:_SAMPLE] for place, cell in enumerate(row) if find(cell))
    if not hits:
        hits = Counter(place for _, row in rows for place, cell in enumerate(row) if find(cell))
    if not hits:
        shown = ", ".join(repr(printable(cell, 40)) for cell in rows[0][1][:3])
        raise UserError(
            f"{where} names no picture of its folder (its first line holds {shown}): expected a column of file names"
        )
    return max(hits, key=lambda place: (hits[place], -place))


def _label_column(names: Sequence[str], file_at: int, wanted: str, where: str) -> int:
    """Find the label's column; a column without a name, as an index has none, is no label."""
    others = [
        place for place, name in enumerate(names) if place != file_at and name and not name.startswith("Unnamed:")
    ]
    if wanted:
        others = [place for place in others if names[place] == wanted]
    elif len(others) > 1:
        others = [place for place in others if names[place].lower() in _LABELS]
    if len(others) != 1:
        held = one_line(", ".join(names), 200)
        raise UserError(f"{where}: which column is the label? It has {held}: name one with label_column")
    return others[0]


def _picture_of(name: str, label: str, find: Find) -> Picture | str:
    """Find the picture that a row labels, or what is wrong with the row."""
    if not label:
        return "it has no label"
    found = find(name)
    if len(found) != 1:
        return f"{printable(name, 80)!r} names {f'{len(found)} pictures' if found else 'no picture'}"
    return found[0]


def _by_split(listing: Listing, labels: dict[Picture, str]) -> dict[SplitName, list[tuple[Picture, str]]]:
    """Sort the labelled pictures by their paths."""
    has_splits = any(split_named(parts_of(path)[0]) == "train" for path in listing.folders)
    splits: dict[SplitName, list[tuple[Picture, str]]] = {}
    for picture in listing.pictures:
        if picture in labels:
            split = split_named(parts_of(picture.path)[0]) if has_splits else None
            splits.setdefault(split or "train", []).append((picture, labels[picture]))
    return splits


def _unlabelled(listing: Listing, labels: dict[Picture, str]) -> list[str]:
    places = Counter(str(PurePosixPath(picture.path).parent) for picture in listing.pictures if picture not in labels)
    shown = ", ".join(f"{count:,} in {'the folder itself' if place == '.' else printable(place, 60)}"
                      for place, count in places.most_common(5))  # fmt: skip
    return [f"pictures without a label are left out: {shown}{', ...' if len(places) > 5 else ''}"] if places else []
