"""Stand-ins for public data sets that cannot be had: made by code, the same on every call, named as what they are.

They have the real sets' shapes, classes and columns, so that everything can be tried with no network; their figures say
nothing about the real sets. The pictures are made once and kept in $XDG_CACHE_HOME/fdl (or ~/.cache/fdl).
"""

from __future__ import annotations

import hashlib
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import logging

from fdl.data.standins import draw, garments, handwriting
from fdl.environment import cache_dir
from fdl.files import replacing
from fdl.types import Arrays, RunError, UserError

SEED = 0


def fashion(num_train: int = 60_000, num_test: int = 10_000) -> tuple[Arrays, Arrays]:
    """Draw garments under Fashion-MNIST's ten classes: (train, test), inputs uint8 [N, 28, 28, 1], targets int32 [N]."""
    return _pictures("fashion", garments.draw, [draw.__file__, garments.__file__], num_train, num_test)


def digits(num_train: int = 60_000, num_test: int = 10_000) -> tuple[Arrays, Arrays]:
    """Draw digits with a pen, like MNIST: (train, test), inputs uint8 [N, 28, 28, 1], targets int32 [N]."""
    return _pictures("digits", handwriting.draw, [draw.__file__, handwriting.__file__], num_train, num_test)


def _pictures(
    name: str, draw_class: Callable[[np.random.Generator, int, int], np.ndarray], code: list[str], *sizes: int
) -> tuple[Arrays, Arrays]:
    arrays = cached(name, code, sizes, lambda: _draw_all(draw_class, sizes))
    train, test = ({key: arrays[f"{split}_{key}"] for key in ("inputs", "targets")} for split in ("train", "test"))
    return train, test


def _draw_all(draw_class: Callable[..., np.ndarray], sizes: tuple[int, ...], chunk: int = 1000) -> Arrays:
    """Draw every class's share of each split, a chunk at a time (it fits the processor's cache), then mix them."""
    arrays: Arrays = {}
    for number, (split, size) in enumerate(zip(("train", "test"), sizes, strict=True)):
        targets = np.random.default_rng((SEED, number)).permutation(np.arange(size) % 10).astype(np.int32)
        inputs = np.empty((size, draw.SIZE, draw.SIZE, 1), np.uint8)
        for label in range(10):
            rng = np.random.default_rng((SEED, number, label))
            rows = np.flatnonzero(targets == label)
            for first in range(0, len(rows), chunk):
                some = rows[first : first + chunk]
                inputs[some] = draw_class(rng, label, len(some))
        arrays |= {f"{split}_inputs": inputs, f"{split}_targets": targets}
    return arrays


def cached(name: str, code: list[str], sizes: tuple[int, ...], make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of `make()`, kept in a file named after the code that drew them.

    A damaged file is made anew; a folder that cannot be written costs the time of drawing, nothing else.
    """
    parts = [np.__version__.encode(), repr((SEED, sizes)).encode(), *(Path(file).read_bytes() for file in code)]
    digest = hashlib.sha256(b"\0".join([*parts, Path(__file__).read_bytes()])).hexdigest()
    path = cache_dir() / f"{name}-standin-{digest[:16]}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return {key: held[key] for key in held.files}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged (%s): drawing the stand-in anew", path, error)
    arrays = make()
    try:
        with replacing(path, durable=False) as new:
            np.savez(new, **arrays)
    except (UserError, RunError) as error:
        logging.warning("the stand-in is drawn again at the next start: %s", error)
    return arrays


_GRAMMAR: dict[str, list[str]] = {
    "speech": ["NAME:\nline\n\n", "NAME:\nline\nline\n\n", "NAME:\nline\nline\nline\n\n"],
    "line": ["Clause, and clause.", "Clause;", "Clause: clause.", "Why, clause!", "Shall np verb np?", "O np, clause."],
    "clause": ["np verb np", "np verb np prep np", "np is adj", "let np verb np", "when np verb np, np verb np"],
    "np": ["the noun", "my noun", "the adj noun", "thy adj noun", "np of np", "he", "the noun"],
    "noun": ["king", "crown", "night", "sword", "heart", "sea", "garden", "mother", "soldier", "moon", "word", "grave"],
    "verb": ["loves", "fears", "will follow", "hath lost", "must keep", "shall mend", "doth hold", "would break"],
    "adj": ["noble", "cold", "gentle", "bitter", "golden", "idle", "faithful", "weary", "proud"],
    "prep": ["upon", "beneath", "before", "against", "beyond"],
    "NAME": ["FIRST LORD", "SECOND LORD", "QUEEN", "CAPTAIN", "NURSE", "FOOL", "MESSENGER"],
}  # fmt: skip


def play(num_characters: int = 500_000) -> str:
    """Generate speeches from a small random grammar, in the layout of a play."""
    rng = random.Random(SEED)

    def expand(text: str, depth: int = 0) -> str:
        word = ""
        out = []
        for character in text + "\0":
            if character.isalpha():
                word += character
                continue
            rule = _GRAMMAR.get(word) or _GRAMMAR.get(word.lower())
            if rule:
                choice = rng.choice(rule if depth < 6 else [option for option in rule if word not in option.split()])
                grown = expand(choice, depth + 1)
                out.append(grown[0].upper() + grown[1:] if word[0].isupper() else grown)
            else:
                out.append(word)
            out.append(character)
            word = ""
        return "".join(out)[:-1]

    speeches, length = [], 0
    while length < num_characters:
        speeches.append(expand("speech"))
        length += len(speeches[-1])
    return "".join(speeches)[:num_characters]


def housing(num_rows: int = 20_640) -> list[list[str]]:
    """Generate a table like California housing, header first, every cell as text: prices by income, place and age."""
    rng = np.random.default_rng(SEED)
    along, inland = rng.random(num_rows), rng.gamma(1.2, 1.1, num_rows)  # the coast runs from north-west to south-east
    longitude, latitude = -124 + 7 * along + inland, 41.5 - 8.5 * along + 0.3 * inland
    households = np.maximum(rng.lognormal(6.0, 0.7, num_rows), 1).round()
    income = np.clip(rng.lognormal(1.25 - 0.06 * inland, 0.45, num_rows), 0.5, 15)
    age = rng.integers(1, 53, num_rows)
    rooms = (households * (3.2 + 0.55 * income * rng.lognormal(0, 0.15, num_rows))).round()
    bedrooms = (households * rng.lognormal(0.08, 0.1, num_rows)).round()
    population = np.maximum(households * rng.lognormal(1.05, 0.25, num_rows), 1).round()
    city = np.exp(-(((along - 0.25) / 0.07) ** 2)) + np.exp(-(((along - 0.8) / 0.1) ** 2))
    log_price = 10.9 + 0.75 * np.log(income) + 0.4 * city * np.exp(-inland) - 0.16 * inland + 0.004 * age
    value = np.clip(np.exp(log_price + rng.normal(0, 0.25, num_rows)), 15_000, 500_001).round()
    place = np.select(
        [inland < 0.25, (inland < 0.9) & (along < 0.35), inland < 1.2],
        ["NEAR OCEAN", "NEAR BAY", "<1H OCEAN"],
        "INLAND",
    )
    missing = rng.random(num_rows) < 0.01
    header = (
        "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,population,households,median_income,"
        "median_house_value,ocean_proximity"
    )
    numbers = (
        longitude.round(2),
        latitude.round(2),
        age,
        rooms,
        bedrooms,
        population,
        households,
        income.round(4),
        value,
    )
    columns = [[str(float(cell)) for cell in column] for column in numbers]
    columns[4] = ["" if gone else cell for gone, cell in zip(missing, columns[4], strict=True)]
    return [header.split(","), *map(list, zip(*columns, place.tolist(), strict=True))]
