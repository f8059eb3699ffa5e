"""A user's own texts: one file for a character model, or folders of labelled texts for a classifier."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fdl.data.formats import characters
from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, Count, UserError, Whole, one_line, printable

TEST_NAMES, VALIDATION_NAMES = ("test", "testing"), ("validation", "valid", "val", "dev")
UNLABELLED = frozenset({"unsup", "unlabelled", "unlabeled"})
"""Folders beside the classes whose texts have none (IMDB's `unsup`)."""


def text_file(
    request: Request, *, path: str, length: Count = 128, eval_length: Count = 512, context: Whole = 0,
    last_tenth: bool = False,
) -> Splits:  # fmt: skip
    """Read a UTF-8 text for a character model, cut 90/5/5 in order; or a folder, see `labelled_texts`.

    Args:
        path: a text file, or a folder CLASS/*.txt; relative to --data_dir if it is there, else to the current folder.
        length: training rows are chunks of 2 * length characters, from which windows of length + 1 are cut.
        eval_length: targets in a row of validation and test; rows also hold a "mask", 0 on padding.
        context, last_tenth: as of `fdl.data.sources.tiny_shakespeare`.

    Returns:
        For a file, Splits without "targets": they are the inputs, one character on; `facts.vocabulary` are the characters
        of the training part.

    Raises:
        UserError: no such file, not UTF-8, or too short.
    """
    found = request.find(path)
    if found is None:
        raise UserError(f"text: there is no file or folder {printable(path)!r}; give the path of a text")
    if found.is_dir():
        return labelled_texts(request, found)
    texts = characters.split(characters.read(found))
    return characters.splits_of(
        printable(found.stem, 60),
        "files",
        str(found),
        texts,
        length,
        eval_length,
        context=context,
        last_tenth=last_tenth,
    )


def labelled_texts(request: Request, folder: Path) -> Splits:
    """Read texts FOLDER/CLASS/*.txt, or FOLDER/train/CLASS/*.txt and FOLDER/test/CLASS/*.txt (IMDB's form), for a classifier.

    Rows: "inputs", object [N] of str as they are in the files, for a tokeniser in `Data.encode`; "targets", int32 [N].

    Raises:
        BadInputs: files that are no UTF-8 text, and `request.on_bad` is "stop".
        UserError: fewer than two classes, or a split with a class of its own.
    """
    parts = {"train": folder}
    if (folder / "train").is_dir():
        names = {"train": "train"} | dict.fromkeys(VALIDATION_NAMES, "validation") | dict.fromkeys(TEST_NAMES, "test")
        parts = {split: folder / name for name, split in names.items() if (folder / name).is_dir()}
    classes = _classes(parts["train"])
    if len(classes) < 2:
        raise UserError(
            f"{folder} holds texts of {len(classes)} classes: lay them out as {folder}/CLASS/*.txt, a folder for each class"
        )
    bad: list[Bad] = []
    rows = {split: _read(place, classes, bad) for split, place in parts.items()}
    total = sum(len(part["targets"]) for part in rows.values()) + len(bad)
    skipped = settle(bad, total, "texts", request.on_bad)
    for split, part in rows.items():
        if not len(part["targets"]):
            raise UserError(
                f"{parts[split]} holds no texts *.txt of the classes {one_line(', '.join(classes))}; put some there"
            )
    return Splits(
        name=printable(folder.name, 60), source="files", where=str(folder), train=rows["train"], test=rows.get("test"),
        validation=rows.get("validation"), facts=Facts(classes=classes), skipped=skipped,
    )  # fmt: skip


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(
        sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.is_dir()
            and not entry.name.startswith((".", "__"))
            and entry.name not in UNLABELLED
            and _texts(folder / entry.name)
        )
    )


def _texts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))


def _read(folder: Path, classes: tuple[str, ...], bad: list[Bad]) -> Arrays:
    """Read the texts of one split, class by class; what cannot be read is added to `bad`."""
    other = sorted(set(_classes(folder)) - set(classes))
    if other:
        raise UserError(
            f"{folder} holds the classes {one_line(', '.join(other))}, which are not in train: remove or move them"
        )
    texts: list[str] = []
    targets: list[int] = []
    for number, name in enumerate(classes):
        for path in _texts(folder / name):
            try:
                texts.append(characters.read(path))
                targets.append(number)
            except UserError as error:
                bad.append(Bad(str(path), "", str(error).removeprefix(f"{path} ")))
    held = np.empty(len(texts), object)
    held[:] = texts
    return {"inputs": held, "targets": np.array(targets, np.int32)}
