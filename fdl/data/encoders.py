"""Host preparation for `Data.encode`: text and names to numbers, by what the training rows hold.

Legend: N rows, T tokens.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import Any, Literal

import numpy as np

from fdl.data.splits import Facts, HostOp
from fdl.types import Arrays, Count, UserError, count_examples, printable

PAD, UNKNOWN = "<pad>", "<unknown>"
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclasses.dataclass(frozen=True)
class Vocabulary(HostOp):
    """Texts [N] to {"tokens": int32 [N, length], "mask": float32 [N, length]}: numbers of words, 0 and mask 0 on padding.

    The vocabulary is the most frequent words of the training rows (of equal ones the first in the alphabet); number 0 is
    padding, 1 any other word. It becomes `Facts.vocabulary`.

    Attributes:
        column: of the rows, replaced.
        size: of the vocabulary at most, the two special ones included.
        length: tokens of a row; longer texts are cut, at their end.
        level: "word": runs of letters and digits, in lower case, and single punctuation marks; "character".
    """

    column: str = "inputs"
    size: Count = 20_000
    length: Count = 256
    level: Literal["word", "character"] = "word"

    def tokens(self, text: str) -> list[str]:
        """Split the text into words or characters."""
        return list(text) if self.level == "character" else _TOKEN.findall(text.lower())

    def fit(self, train: Arrays) -> Any:
        counts = collections.Counter(token for text in _texts(train, self.column) for token in self.tokens(text))
        known = sorted(counts, key=lambda token: (-counts[token], token))
        return [PAD, UNKNOWN, *known[: max(0, self.size - 2)]]

    def encode(self, rows: Arrays, state: Any) -> Arrays:
        number = {token: place for place, token in enumerate(state)}
        texts = _texts(rows, self.column)
        tokens, mask = np.zeros((len(texts), self.length), np.int32), np.zeros((len(texts), self.length), np.float32)
        for row, text in enumerate(texts):
            numbers = [number.get(token, 1) for token in self.tokens(text)[: self.length]]
            tokens[row, : len(numbers)], mask[row, : len(numbers)] = numbers, 1
        return {**rows, self.column: {"tokens": tokens, "mask": mask}}

    def update_facts(self, facts: Facts, state: Any) -> Facts:
        return dataclasses.replace(facts, vocabulary=tuple(state))


@dataclasses.dataclass(frozen=True)
class Categories(HostOp):
    """Names [N] to their numbers int32 [N], in the order of the alphabet; "targets" become the classes.

    Attributes:
        column: of the rows, replaced.
    """

    column: str = "targets"

    def fit(self, train: Arrays) -> Any:
        return sorted(set(_texts(train, self.column)))

    def encode(self, rows: Arrays, state: Any) -> Arrays:
        if self.column not in rows:  # a user's own, to be predicted
            return rows
        number = {name: place for place, name in enumerate(state)}
        names = _texts(rows, self.column)
        for row, name in enumerate(names):
            if name not in number:
                raise UserError(
                    f"row {row + 1}: {self.column} {printable(name, 40)!r} is not among the training rows'; known are "
                    f"{printable(', '.join(state), 120)}"
                )
        return {**rows, self.column: np.array([number[name] for name in names], np.int32)}

    def update_facts(self, facts: Facts, state: Any) -> Facts:
        if self.column == "targets":
            return dataclasses.replace(facts, classes=tuple(state), outputs=len(state))
        return dataclasses.replace(facts, categories={**facts.categories, self.column: tuple(state)})


@dataclasses.dataclass(frozen=True)
class RowNumbers(HostOp):
    """Number the rows of each split: a column "row" int32 [N], for what is kept of each training row between steps.

    The number of training rows becomes the fact "rows".
    """

    def fit(self, train: Arrays) -> Any:
        return count_examples(train)

    def encode(self, rows: Arrays, state: Any) -> Arrays:
        return {**rows, "row": np.arange(count_examples(rows), dtype=np.int32)}

    def update_facts(self, facts: Facts, state: Any) -> Facts:
        return dataclasses.replace(facts, extra={**facts.extra, "rows": state})


def _texts(rows: Arrays, column: str) -> list[str]:
    if column not in rows:
        raise UserError(f"data.encode: the rows have no column {column!r}, only {', '.join(rows)}")
    return [str(value) for value in np.asarray(rows[column]).tolist()]
