"""A text as rows of character numbers: overlapping chunks to train on, disjoint windows to be measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import logging

from fdl.data.splits import Facts, Splits
from fdl.types import Arrays, UserError, one_line

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_BLOCK = 1 << 22  # characters encoded at once, so that their four-byte forms are never held for a whole text


def read(path: Path) -> str:
    """Read a text file as it is, line ends included, without the byte-order mark.

    Raises:
        UserError: it is not UTF-8, or a web page in the place of the text.
    """
    try:
        data = path.read_bytes()
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"{error.reason} at byte {error.start}"
        raise UserError(f"{path} is not UTF-8 text ({kind}): save it as UTF-8, or get the file again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if text.lstrip()[:15].lower().startswith(("<!doctype html", "<html")):
        raise UserError(f"{path} is an HTML page ({len(text):,} characters), not the text: get the file again")
    return text


def split(text: str) -> tuple[str, str, str]:
    """Split a text into (train, validation, test): 90, 5 and 5 % in order, cut where TFDS' tiny_shakespeare cuts."""
    first = int(len(text) * 0.9)
    second = first + int((len(text) - first) * 0.5)
    return text[:first], text[first:second], text[second:]


def vocabulary(train: str, *others: str) -> list[str]:
    """Sort the characters of the training text; UNKNOWN follows them only where the other texts need it."""
    known = sorted(set(train))
    return known + [UNKNOWN] * bool(set().union(*others) - set(known))


def encode(text: str, known: list[str]) -> np.ndarray:
    """Return each character's number, [len(text)]: uint8 where 256 numbers are enough, else int32; the last if unknown."""
    table = np.full(0x110000, len(known) - 1, np.uint8 if len(known) <= 256 else np.int32)
    table[[ord(character) for character in known]] = np.arange(len(known))
    parts = [
        table[np.frombuffer(text[start : start + _BLOCK].encode("utf-32-le", "surrogatepass"), np.uint32)]
        for start in range(0, len(text), _BLOCK)
    ]
    return np.concatenate(parts) if parts else table[:0]


def chunks(tokens: np.ndarray, length: int) -> Arrays:
    """Cut training rows {"inputs": [N, 2 * length]}: row i is tokens [i * length, (i + 2) * length).

    A window of length + 1 cut from row i at an offset below `length` is any window of the text, each in exactly one way
    (but for the last few: fewer than `length`, none where `length` divides the text).
    """
    parts = tokens[: len(tokens) // length * length].reshape(-1, length)
    return {"inputs": np.concatenate([parts[:-1], parts[1:]], axis=1)}


def windows(tokens: np.ndarray, length: int, before: np.ndarray | None = None) -> Arrays:
    """Cut evaluation rows {"inputs": [M, C + length + 1], "mask": float32 [M, C + length]}.

    Row i is tokens [i * length, i * length + length], both ends included, after the C tokens that come before them in the
    text. Column t + 1 is the target of column t, so every token but the first is a target exactly once; the last row is
    padded with zeros, and the mask is 0 there and on the first C columns.

    Args:
        before: the C tokens before `tokens`; None: C is 0.
    """
    context = 0 if before is None else len(before)
    count = -(-(len(tokens) - 1) // length)
    padded = np.zeros(context + count * length + 1, tokens.dtype)
    padded[:context] = 0 if before is None else before
    padded[context : context + len(tokens)] = tokens
    mask = (np.arange(count * length) < len(tokens) - 1).astype(np.float32).reshape(count, length)
    rows = np.lib.stride_tricks.sliding_window_view(padded, context + length + 1)[::length].copy()
    return {"inputs": rows, "mask": np.pad(mask, ((0, 0), (context, 0)))}


def splits_of(
    name: str,
    source: str,
    where: str,
    texts: tuple[str, str, str],
    length: int,
    eval_length: int,
    standin: bool = False,
    context: int = 0,
    last_tenth: bool = False,
) -> Splits:
    """Prepare a character model's data: `chunks` of the training text, `windows` of the validation and test texts.

    Args:
        texts: train, validation and test. The vocabulary is the first one's; characters that only the others have count
            as one unknown character.
        length: training rows are chunks of 2 * length characters, from which windows of length + 1 are cut.
        eval_length: targets in a row of validation and test.
        context: how many characters before them such a row begins with, without weight: those before it in the text.
        last_tenth: the test rows are of validation's text as well.

    Raises:
        UserError: a text is too short for that.
    """
    if len(texts[0]) < max(2 * length, context) or min(map(len, texts[1:])) < 2:
        raise UserError(
            f"{where}: {len(texts[0]):,} characters to train on are too few for windows of {length}: give a longer text or a "
            "smaller length"
        )
    known = vocabulary(*texts)
    if known[-1] == UNKNOWN and UNKNOWN not in texts[0]:
        new = sorted(set(texts[1] + texts[2]) - set(known))
        logging.warning(
            "%s: validation and test have %d characters that the training text lacks (%s): each counts as one unknown character",
            where, len(new), one_line(" ".join(map(repr, new[:10]))),
        )  # fmt: skip
    train, validation, test = (encode(text, known) for text in texts)
    whole = np.concatenate([train, validation, test])
    first = len(train), len(train) + (0 if last_tenth else len(validation))
    held = [
        windows(part, eval_length, whole[start - context : start])
        for start, part in zip(first, (validation, whole[first[1] :]), strict=True)
    ]
    return Splits(
        name, source, where, chunks(train, length), held[1], held[0],
        facts=Facts(vocabulary=tuple(known)), standin=standin,
    )  # fmt: skip
