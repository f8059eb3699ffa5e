"""Public data sets of labelled texts: "inputs" are strings, object [N], for `Data.encode`; "targets" int32 [N]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np

from fdl.data.formats import characters, tfds
from fdl.data.formats.forms import at_roots, choose, first, forms_of, splits
from fdl.data.formats.text import labelled_texts
from fdl.data.splits import Request, Splits
from fdl.data.standins import sentences as standin
from fdl.types import Arrays, Range, UserError

POLARITY = ("negative", "positive")
GRADES = ("very negative", "negative", "neutral", "positive", "very positive")
FOLDS = 10
_FOLD_SEED = 0  # the folds are the same in every run
_IMDB_URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"


def sst(request: Request, *, fine: bool = False) -> Splits:
    """Load the whole sentences of the Stanford Sentiment Treebank (Socher et al. 2013): SST-2, 6,920 + 872 + 1,821.

    The phrases that the treebank labels as well are not among them, which published figures often train on.

    Args:
        fine: SST-5, with five grades and the neutral sentences: 8,544 + 1,101 + 2,210.
    """
    kind, classes = ("fine", GRADES) if fine else ("binary", POLARITY)

    def from_files(root: Path) -> Splits | None:
        paths = [first(root, f"sst/stsa.{kind}.{part}") for part in ("train", "dev", "test")]
        if paths[0] is None:
            return None
        if None in paths:
            raise UserError(
                f"{root / 'sst'} holds stsa.{kind}.train, but not both of .dev and .test: put them beside it"
            )
        train, validation, test = (_numbered_lines(path, len(classes)) for path in paths if path)
        return splits("sst5" if fine else "sst2", "files", str(paths[0].parent), train, test, classes=classes,
                      validation=validation)  # fmt: skip

    return _choose("sst5" if fine else "sst2", classes, request, from_files)


def rt_polarity(request: Request, *, fold: Annotated[int, Range(0, 9)] = 0) -> Splits:
    """Load the movie-review sentences of Pang and Lee 2005: 5,331 positive and 5,331 negative, no split of their own.

    Args:
        fold: which tenth of the sentences is the test split, 0 to 9, by a fixed permutation: published figures are the
            mean over all ten.
    """

    def from_files(root: Path) -> Splits | None:
        paths = [first(root, *(f"{folder}/rt-polarity.{end}" for folder in ("rt-polarity", "rt_polarity"))) for end in
                 ("neg", "pos")]  # fmt: skip
        if paths[0] is None or paths[1] is None:
            return None
        lines = [_lines(path) for path in paths if path]
        texts = np.array([line for held in lines for line in held], object)
        targets = np.repeat(np.arange(2, dtype=np.int32), [len(held) for held in lines])
        place = np.random.Generator(np.random.Philox(_FOLD_SEED)).permutation(len(texts))
        test = place % FOLDS == fold
        parts = [{"inputs": texts[rows], "targets": targets[rows]} for rows in (~test, test)]
        where = f"{paths[0].parent}, fold {fold} of {FOLDS} for testing"
        return splits("rt_polarity", "files", where, *parts, classes=POLARITY)

    return _choose("rt_polarity", POLARITY, request, from_files)


def imdb(request: Request) -> Splits:
    """Load the Large Movie Review Dataset (Maas et al. 2011): 25,000 + 25,000 reviews.

    As TFDS' imdb_reviews, or as the publisher's folder aclImdb/train/pos/*.txt, ....
    """
    name = "imdb_reviews"

    def from_tfds(source: str, folder: Path) -> Splits:
        held, _ = tfds.read(folder, ("train", "test"))
        parts = [{"inputs": _decoded(held[part]["text"]), "targets": held[part]["label"].astype(np.int32)} for part in
                 ("train", "test")]  # fmt: skip
        return splits("imdb", source, f"TFDS data in {folder}", *parts, classes=POLARITY)

    def from_files(root: Path) -> Splits | None:
        folder = next(
            (root / spelling for spelling in ("aclImdb", "imdb") if (root / spelling / "train").is_dir()), None
        )
        return None if folder is None else labelled_texts(request, folder)

    forms = forms_of(name, request, from_tfds, from_files, lambda: _made("imdb", POLARITY), _IMDB_URL)
    return choose(name, request, forms)


def _choose(
    name: str, classes: tuple[str, ...], request: Request, read: Callable[[Path], Splits | None]
) -> Splits:  # fmt: skip
    return choose(name, request, [*at_roots(request, read), ("builtin", lambda: _made(name, classes))])


def _made(name: str, classes: tuple[str, ...]) -> Splits:
    train, validation, test = (standin.reviews(count, number) for number, count in enumerate((2000, 400, 400)))
    where = f"a stand-in, not the real {name}: drawn by {standin.__name__}, seed {standin.SEED}"
    if len(classes) > 2:  # the ends of the scale
        for part in (train, validation, test):
            part["targets"] = part["targets"] * np.int32(len(classes) - 1)
    return splits(
        f"{name}-standin", "builtin", where, train, test, classes=classes, validation=validation, standin=True
    )


def _lines(path: Path) -> list[str]:
    """Read the lines that are not empty, whatever their ends."""
    return [line.strip() for line in characters.read(path).splitlines() if line.strip()]


def _numbered_lines(path: Path, classes: int) -> Arrays:
    """Read lines "LABEL TEXT"."""
    texts, targets = [], []
    for number, line in enumerate(_lines(path), 1):
        label, _, text = line.partition(" ")
        if label not in map(str, range(classes)) or not text:
            raise UserError(
                f"{path}: line {number} is no label from 0 to {classes - 1} and a sentence: get the file again"
            )
        texts.append(text)
        targets.append(int(label))
    return {"inputs": np.array(texts, object), "targets": np.array(targets, np.int32)}


def _decoded(column: np.ndarray) -> np.ndarray:
    return np.array([text.decode("utf-8", "replace") for text in column.tolist()], object)
