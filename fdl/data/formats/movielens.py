"""MovieLens' ratings (Harper and Konstan 2015), as pairs to predict a rating of, or as users to recommend films to.

ratings.csv holds userId,movieId,rating,timestamp, movies.csv movieId,title,genres, as GroupLens publishes them. `facts.extra`
keeps "users" and "items" (their numbers), "user_ids" and "titles" in the order of the numbers, and "rated", the films that each
user has rated, so that predictions need no data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fdl.data.formats import cells
from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.forms import at_roots, choose, first
from fdl.data.formats.tables import require
from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, UserError, Whole, take

FOLDERS = ("movielens-small", "ml-latest-small", "movielens")
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1


def movielens_ratings(request: Request, *, split: Whole = 0) -> Splits:
    """Load pairs of a user and a film: "inputs" {"user", "item"} int32 [N] each, "targets" float32 [N], 0.5 to 5 stars.

    Args:
        split: which random tenth of the ratings is the test split.

    Raises:
        BadInputs: lines without a user, a film or a rating of 0.5 to 5, and `request.on_bad` is "stop".
        UserError: the files are nowhere, or hold too little.
    """

    def made(pairs: Arrays, facts: dict[str, Any], where: str, skipped: tuple[Bad, ...]) -> Splits:
        order = np.random.default_rng(split).permutation(len(pairs["targets"]))
        count = len(order) // 10
        train, test = (take(pairs, np.sort(rows)) for rows in (order[count:], order[:count]))
        kept = Facts(target="rating", unit="stars", outputs=1, extra=facts)
        return Splits(
            "movielens_ratings", "files", f"{where} (split {split})", train, test, facts=kept, skipped=skipped
        )

    return _load("movielens_ratings", request, made)


def movielens_histories(request: Request, *, split: Whole = 0) -> Splits:
    """Load users: "inputs" uint8 [N, I], 1 for each film that a user has rated; "targets" the same for films to find.

    A random fifth of each user's films is held out for testing, a tenth of the others for validation. Training rows have
    their inputs as targets; the rows of validation and test are the same users with the films held out as targets, so that
    inputs of the validation split are in training by design; the inputs of the test split have the validation films too.

    Args:
        split: which random films are held out.

    Raises:
        BadInputs, UserError: as of `movielens_ratings`.
    """

    def made(pairs: Arrays, facts: dict[str, Any], where: str, skipped: tuple[Bad, ...]) -> Splits:
        shape = facts["users"], facts["items"]
        train, validation, test = (np.zeros(shape, np.uint8) for _ in range(3))
        rng = np.random.default_rng(split)
        user, item = pairs["inputs"]["user"], pairs["inputs"]["item"]
        for number, rated in enumerate(_by_user(user, item, np.argsort(user, kind="stable"))):
            films = rng.permutation(rated)
            held = round(TEST_SHARE * len(films))
            chosen = held + round(VALIDATION_SHARE * (len(films) - held))
            test[number, films[:held]], validation[number, films[held:chosen]], train[number, films[chosen:]] = 1, 1, 1
        seen, tested, validated = (
            {"inputs": inputs, "targets": targets}
            for inputs, targets in ((train, train), (train | validation, test), (train, validation))
        )
        kept = Facts(outputs=facts["items"], target="film", extra=facts)
        notes = ("validation and test rows are the training users with other films held out",)
        return Splits(
            "movielens_histories", "files", f"{where} (split {split})", seen, tested, validated, kept,
            skipped=skipped, notes=notes,
        )  # fmt: skip

    return _load("movielens_histories", request, made)


def _load(name: str, request: Request, made: Any) -> Splits:
    def from_files(root: Path) -> Splits | None:
        ratings = first(root, *(f"{folder}/ratings.csv" for folder in FOLDERS))
        return None if ratings is None else made(*_read(ratings, request))

    return choose(name, request, at_roots(request, from_files))


def _read(ratings: Path, request: Request) -> tuple[Arrays, dict[str, Any], str, tuple[Bad, ...]]:
    """Return (all pairs, `facts.extra`, where they are from, the lines left out)."""
    held = cells.read(ratings, header="yes")
    require(held, ("userId", "movieId", "rating"))
    user, item, rating = (held.numbers(name)[0] for name in ("userId", "movieId", "rating"))
    wrong = ~((rating >= 0.5) & (rating <= 5) & (user % 1 == 0) & (item % 1 == 0))
    bad = [Bad(held.where, held.place(int(row), "rating"), _fault(held, int(row))) for row in np.flatnonzero(wrong)]
    skipped = settle([*held.bad, *bad], len(held.lines) + len(held.bad), "rows", request.on_bad)
    user, item, rating = (values[~wrong] for values in (user, item, rating))
    if len(np.unique(np.stack([user, item], 1), axis=0)) < len(user):
        raise UserError(f"{held.where}: a user rates a film twice; keep one of the lines")
    if len(rating) < 20:
        raise UserError(f"{held.where} holds {len(rating)} ratings: at least 20 are needed; get the whole file")
    (users, user), (items, item) = (np.unique(values, return_inverse=True) for values in (user, item))
    rated = _by_user(user, item, np.lexsort((item, user)))
    extra = {
        "users": len(users),
        "items": len(items),
        "user_ids": [int(number) for number in users],
        "item_ids": [int(number) for number in items],
        "titles": _titles(ratings.parent / "movies.csv", items),
        "rated": [films.tolist() for films in rated],
    }
    pairs = {
        "inputs": {"user": user.astype(np.int32), "item": item.astype(np.int32)},
        "targets": rating.astype(np.float32),
    }
    return pairs, extra, str(ratings), skipped


def _by_user(user: np.ndarray, item: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    """Return the films of each user, as `order` has the pairs, in which users follow one another."""
    return np.split(item[order], np.cumsum(np.bincount(user))[:-1])


def _fault(held: cells.Cells, row: int) -> str:
    found = ", ".join(f"{name} {held.cell(row, name)!r}" for name in ("userId", "movieId", "rating"))
    return f"{found}: expected two whole numbers and 0.5 to 5 stars"


def _titles(path: Path, items: np.ndarray) -> list[str]:
    """Return the title of each film, "film NUMBER" where movies.csv has none."""
    known: dict[int, str] = {}
    if path.is_file():
        held = cells.read(path, header="yes")
        require(held, ("movieId", "title"))
        numbers = held.numbers("movieId")[0]
        known = {int(n): str(title) for n, title in zip(numbers, held.column("title"), strict=True) if n == n}
    return [known.get(int(number), f"film {int(number)}") for number in items]
