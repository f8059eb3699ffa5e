"""Choosing among the forms of a data set: what is at hand first, a stand-in last, and a clear record of what was used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from fdl.data.formats import tfds
from fdl.data.formats.download import UnavailableError, reach
from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, UserError

SPLIT_SEED = 0  # where a publisher cut no test split, this cut is the same for everybody
Form = tuple[str, Callable[[], Splits | None]]
"""What `request.source` calls it, and the reader: None where there is nothing to read."""


def forms_of(
    name: str, request: Request, from_tfds: Callable[[str, Path], Splits], from_files: Callable[[Path], Splits | None],
    made: Callable[[], Splits], url: str,
) -> list[Form]:  # fmt: skip
    """Return the forms of a set that TFDS has, in the order of "auto"; `url` is one of its publisher's files."""

    def download() -> Splits | None:
        own = [root / spelling for root in roots(request) for spelling in (name.replace("_", "-"), name)]
        files = next((place for place in own if place.is_dir()), None)
        if files is None:
            if request.offline:
                return None
            reach(url)  # importing TensorFlow takes seconds, so it comes after
        made_now = tfds.prepare(name, roots(request), files, request.offline)
        return from_tfds("download", made_now) if made_now else None

    at_hand: list[Form] = []
    for root in roots(request):
        at_hand.append(("tfds", functools.partial(_prepared, name, from_tfds, root)))
        at_hand.append(("files", functools.partial(from_files, root)))
    return [*at_hand, ("tfds", download), ("builtin", made)]


def tfds_forms(name: str, request: Request, read: Callable[[str, Path], Splits]) -> list[Form]:
    """Return the forms of a set that TFDS alone has: prepared, or downloaded by TFDS."""

    def download() -> Splits | None:
        made_now = tfds.prepare(name, roots(request), None, request.offline)
        return read("download", made_now) if made_now else None

    return [*at_roots(request, functools.partial(_prepared, name, read), "tfds"), ("tfds", download)]


def at_roots(request: Request, read: Callable[[Path], Splits | None], source: str = "files") -> list[Form]:
    """Return a form for each of the folders where data may lie."""
    return [(source, functools.partial(read, root)) for root in roots(request)]


def _prepared(name: str, read: Callable[[str, Path], Splits], root: Path) -> Splits | None:
    found = tfds.prepared(name, root)
    return read("tfds", found) if found else None


def choose(name: str, request: Request, forms: list[Form]) -> Splits:
    """Return the first form there is. A form that is there but damaged is an error, never passed over for the next."""
    known = {"auto", *(source for source, _ in forms)}
    if request.source not in known:
        raise UserError(f"{name} has no form data.source={request.source}: choose one of {', '.join(sorted(known))}")
    why = "with --offline nothing is downloaded" if request.offline else ""
    for source, read in forms:
        if request.source not in ("auto", source):
            continue
        try:
            held = read()
        except UnavailableError as error:
            why = f"the download failed: {error}"
            if request.source == "auto":
                logging.warning("%s: %s; using the stand-in", name, why)
            continue
        if held is not None:
            return held
    raise UserError(
        f"{name}: no form data.source={request.source} in {places(request)}{why and f' ({why})'}: put it there, name "
        "its folder with --data_dir, or set data.source=auto"
    )


def splits(
    name: str, source: str, where: str, train: Arrays, test: Arrays | None, *, classes: tuple[str, ...] = (), **more: Any
) -> Splits:  # fmt: skip
    """Return splits whose facts are the class names, unless `facts` are given."""
    return Splits(name, source, where, train, test, **{"facts": Facts(classes=classes)} | more)


def roots(request: Request) -> list[Path]:
    """Return where to look: --data_dir first, then TFDS' own folder."""
    given = [] if request.data_dir is None else [Path(request.data_dir).expanduser()]
    return list(dict.fromkeys([*given, tfds.default_dir()]))


def places(request: Request) -> str:
    return " or ".join(map(str, roots(request)))


def first(root: Path, *names: str) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def stratified(targets: np.ndarray, share: float) -> np.ndarray:
    """Return bool [N]: true for this share of the rows of every class (at least one), by a fixed seed."""
    chosen = np.zeros(len(targets), bool)
    rng = np.random.default_rng(SPLIT_SEED)
    for label in np.unique(targets):
        rows = rng.permutation(np.flatnonzero(targets == label))
        chosen[rows[: max(1, round(share * len(rows)))]] = True
    return chosen
