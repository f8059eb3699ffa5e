"""A user's own pictures for a trained model: read in chunks, so that any number fits; a broken one does not stop the others."""

from __future__ import annotations

import csv
import functools
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from fdl.data.formats import bad_inputs, images
from fdl.data.formats.bad_inputs import Bad
from fdl.data.formats.class_folders import other_files
from fdl.data.formats.listing import list_pictures
from fdl.data.picture_spec import KEY, PictureSpec, picture_spec
from fdl.data.splits import Splits
from fdl.tasks.panels import figures
from fdl.tasks.panels.answers import class_names, softmax
from fdl.tasks.tables import class_columns
from fdl.tasks.task import View
from fdl.types import UserError, printable

CHUNK_BYTES = 128 << 20
PICTURED = 40
"""How many of the predictions are drawn; the table has all."""
THUMBNAIL = 160
"""The longer side of an original as it is drawn, in pixels."""


class PictureChunk(NamedTuple):
    """Some of the pictures, in the form of the data set's rows.

    Attributes:
        names: of the good ones, relative to the source.
        rows: those, [n, *shape].
        inverted: which of those were bright where the data set is dark.
        originals: the first PICTURED of those as they were read, uint8 [H, W, 1 or 3], reduced to THUMBNAIL pixels.
        bad: the ones that cannot be read.
    """

    names: list[str]
    rows: np.ndarray
    inverted: list[bool]
    originals: list[np.ndarray]
    bad: list[Bad]


def spec_of(splits: Splits) -> PictureSpec:
    """Return the picture format of the run's data.

    Raises:
        UserError: the model is not given pictures.
    """
    known = splits.facts.extra.get(KEY)
    spec = PictureSpec.from_json(known) if known else picture_spec(splits.train["inputs"])
    if spec is None:
        raise UserError("--mode=predict reads images, and this experiment's model is not given images")
    return spec


def read_pictures(source: str, spec: PictureSpec) -> Iterator[PictureChunk]:
    """Read the pictures of a file, or of a folder and its subfolders, in the order of their paths.

    Raises:
        UserError: there is no such file or folder, or no picture in it that can be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        listing = list_pictures(path)
        files = [(picture.path, path / picture.path) for picture in listing.pictures]
        bad = listing.bad
        for note in other_files(listing.others):
            logging.warning("%s: %s", printable(path), note)
    elif path.is_file():
        files, bad = [(path.name, path)], []
    else:
        raise UserError(f"--input: no file or folder {printable(source)!r}; give an image, or a folder of images")
    if not files and not bad:
        raise UserError(f"--input: no image in {printable(source)!r}; looked for {', '.join(images.SUFFIXES)}")
    return read_files(files, bad, spec)


def read_files(files: list[tuple[str, Path]], bad: list[Bad], spec: PictureSpec) -> Iterator[PictureChunk]:
    """Read pictures (name, path) in chunks, in their order; `bad` ones are known already.

    Raises:
        UserError: none can be read.
    """
    size = max(1, CHUNK_BYTES // int(np.prod(spec.shape) * np.dtype(spec.dtype).itemsize))
    count, first = 0, next(iter(bad), None)
    for start in range(0, len(files), size):
        some = files[start : start + size]
        rows = np.empty((len(some), *spec.shape), spec.dtype)
        inverted, originals = [False] * len(some), dict[int, np.ndarray]()
        wrong = images.try_each(functools.partial(_read_one, some, spec, rows, inverted, originals), len(some))
        bad = [*bad, *(Bad(printable(some[place][1], 2000), "", reason) for place, reason in wrong.items())]
        good = [place for place in range(len(some)) if place not in wrong]
        count, first = count + len(good), first or next(iter(bad), None)
        yield PictureChunk(
            [some[i][0] for i in good], rows[good] if wrong else rows, [inverted[i] for i in good],
            [originals[i] for i in good if i in originals], bad,
        )  # fmt: skip
        bad = []
    if not count:
        raise UserError(f"--input: none of {len(files):,} images can be read; {first}")


def _read_one(
    files: list[tuple[str, Path]], spec: PictureSpec, rows: np.ndarray, inverted: list[bool],
    originals: dict[int, np.ndarray], place: int,
) -> None:  # fmt: skip
    """Read file `place` into its places of `rows`, `inverted` and, of the first files, `originals`.

    Raises:
        ValueError: it cannot be read.
    """
    image = images.decode(files[place][1])
    rows[place], inverted[place] = spec.convert(image)
    # Up to twice as many as are drawn are kept, in case some of them are broken.
    if place < 2 * PICTURED:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        originals[place] = np.asarray(image).reshape(image.height, image.width, -1)


def predict_pictures(view: View, source: str, out: Path, top: int) -> list[Path]:
    """Write predictions.csv and predictions.png, and bad_inputs.csv where pictures cannot be read, under `out`.

    Every picture is converted to the form of the training images (`fdl.data.picture_spec.PictureSpec`). Where those are grey
    on a dark background (white on black), one on a bright background is inverted, and the column `inverted` says so.
    predictions.png shows each picture as it was read and as the model was given it.

    Args:
        top: classes named in each row, likeliest first.

    Raises:
        UserError: no picture can be read, or `out` cannot be written; nothing is written then.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    classes: tuple[str, ...] = ()
    drawn: list[_Drawn] = []
    bad: list[Bad] = []
    for chunk in read_pictures(source, spec_of(view.splits)):
        bad += chunk.bad
        if not chunk.names:
            continue
        probabilities = softmax(view.outputs({"inputs": chunk.rows}))
        names = class_names(view.splits, probabilities.shape[1])
        added = class_columns(probabilities, names, top)
        if not classes:
            classes = names
            writer.writerow(["file", "inverted", *added])
        # A file name may hold bytes that are not text: show \xNN rather than fail the whole table.
        shown = map(shown_name, chunk.names)
        inverted = ["yes" if flipped else "no" for flipped in chunk.inverted]
        writer.writerows(zip(shown, inverted, *added.values(), strict=True))
        # Originals are kept of the first pictures alone: `zip` ends with them.
        found = zip(chunk.names, chunk.originals, chunk.rows, probabilities, strict=False)
        drawn += itertools.starmap(_Drawn, itertools.islice(found, PICTURED - len(drawn)))
    files: dict[str, bytes | str] = {"predictions.csv": table.getvalue(), "predictions.png": _gallery(drawn, classes)}
    return bad_inputs.write_predictions(out, files, bad, "images")


class _Drawn(NamedTuple):
    """A prediction as it is drawn: the file's name, its picture as read and as given to the model, and probabilities [C]."""

    name: str
    original: np.ndarray
    picture: np.ndarray
    probabilities: np.ndarray


def _gallery(drawn: list[_Drawn], classes: tuple[str, ...]) -> bytes:
    """Draw each prediction with its likeliest class, as a PNG."""
    best = [int(each.probabilities.argmax()) for each in drawn]
    figure = figures.gallery(
        np.stack([each.picture for each in drawn]),
        [(figures.label(classes[label]), figures.BLUE) for label in best],
        [
            f"{each.probabilities[label]:.0%}  {figures.label(each.name.encode(errors='replace').decode(), 20)}"
            for each, label in zip(drawn, best, strict=True)
        ],
        columns=3,
        bars=[(classes, each.probabilities, {label: figures.BLUE}) for each, label in zip(drawn, best, strict=True)],
        originals=[each.original for each in drawn],
    )
    return figures.png(figure)


def shown_name(name: str) -> str:
    """Return a file's name as text: bytes of it that are not text as \\xNN."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
