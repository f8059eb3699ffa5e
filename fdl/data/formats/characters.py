"""A text as rows of character numbers: overlapping chunks to train on, disjoint windows to be measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fdl.types import Arrays, UserError

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def read(path: Path) -> str:
    """A text file as it is, line ends included.

    Raises:
        UserError: it is not UTF-8, or a web page in the place of the text.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): get the file again"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if text.lstrip()[:15].lower().startswith(("<!doctype html", "<html")):
        raise UserError(f"{path} is an HTML page ({len(text):,} characters), not the text: get the file again")
    return text


def split(text: str) -> tuple[str, str, str]:
    """(train, validation, test): 90, 5 and 5 % in order, cut where TFDS' tiny_shakespeare cuts."""
    first = int(len(text) * 0.9)
    second = first + int((len(text) - first) * 0.5)
    return text[:first], text[first:second], text[second:]


def vocabulary(train: str, *others: str) -> list[str]:
    """The characters of the training text, sorted; UNKNOWN behind them only where the other texts need it."""
    known = sorted(set(train))
    return known + [UNKNOWN] * bool(set().union(*others) - set(known))


def encode(text: str, known: list[str]) -> np.ndarray:
    """Each character's number, [len(text)]: uint8 where 256 numbers are enough, else int32."""
    number = {character: place for place, character in enumerate(known)}
    dtype = np.uint8 if len(known) <= 256 else np.int32
    return np.asarray([number.get(character, len(known) - 1) for character in text], dtype)


def chunks(tokens: np.ndarray, length: int) -> Arrays:
    """Training rows {"inputs": [N, 2 * length]}: row i is tokens [i * length, (i + 2) * length).

    A window of length + 1 cut from row i at an offset below `length` is any window of the text, each in exactly one way
    (but for the last few: fewer than `length`, none where `length` divides the text).
    """
    count = len(tokens) // length - 1
    return {"inputs": np.stack([tokens[i * length : (i + 2) * length] for i in range(count)])}


def windows(tokens: np.ndarray, length: int) -> Arrays:
    """Evaluation rows {"inputs": [M, length + 1], "mask": float32 [M, length]}.

    Row i is tokens [i * length, i * length + length], both ends included. Column t + 1 is the target of column t, so
    every token but the first is a target exactly once; the last row is padded with zeros, and the mask is 0 there.
    """
    count = -(-(len(tokens) - 1) // length)
    padded = np.zeros(count * length + 1, tokens.dtype)
    padded[: len(tokens)] = tokens
    mask = (np.arange(count * length) < len(tokens) - 1).astype(np.float32).reshape(count, length)
    return {"inputs": np.stack([padded[i * length : (i + 1) * length + 1] for i in range(count)]), "mask": mask}
