"""Host preparation for `Data.encode`: text and names to numbers, by what the training rows hold.

Legend: N rows, T tokens.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import zlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np

from fdl.data.splits import Facts, HostOp
from fdl.types import Arrays, Count, Range, UserError, Whole, count_examples, printable

PAD, UNKNOWN = "<pad>", "<unknown>"
PIECES = 16
"""Pieces of a word at most."""
_TOKEN = re.compile(r"\w+(?:'\w+)*|'\w+|[^\w\s]")


@dataclasses.dataclass(frozen=True)
class Vocabulary(HostOp):
    """Texts [N] to {"tokens": int32 [N, length], "mask": float32 [N, length]}: numbers of words, 0 and mask 0 on padding.

    The vocabulary is the most frequent words of the training rows (of equal ones the first in the alphabet); number 0 is
    padding, 1 any other word. It becomes `Facts.vocabulary`.

    With `ngrams` = n also {"ngrams": int32 [N, length * n]}: after the words' hashed numbers those of the pairs that begin
    at each place, and so on to n words; each kind once a text, 0 where there is none. They need no vocabulary. With `pieces`,
    the pieces of each word follow, PIECES columns of `length`: they say something of words that were never seen.

    Attributes:
        column: of the rows, replaced.
        size: of the vocabulary at most, the two special ones included.
        length: tokens of a row; longer texts are cut, at their end.
        level: "word": runs of letters, digits and apostrophes, in lower case, and single punctuation marks; "space": what
            is between white space, in lower case, for texts that are cut into words already; "character".
        ngrams: the most words of an n-gram; 0: none.
        pieces: the fewest and the most letters of a piece of a word, a blank before and behind it counted (Bojanowski et al.
            2017, https://arxiv.org/abs/1607.04606); 0: none. Of long words the first PIECES count, short ones first.
        buckets: the numbers that n-grams are hashed to, 0 kept for none; different ones may share a number (Weinberger et al.
            2009, https://arxiv.org/abs/0902.2206).
    """

    column: str = "inputs"
    size: Count = 20_000
    length: Count = 256
    level: Literal["word", "space", "character"] = "word"
    ngrams: Whole = 0
    pieces: tuple[Whole, Whole] = (0, 0)
    buckets: Annotated[int, Range(2)] = 1 << 20

    def tokens(self, text: str) -> list[str]:
        """Split the text into words or characters."""
        if self.level == "character":
            return list(text)
        return text.lower().split() if self.level == "space" else _TOKEN.findall(text.lower())

    def fit(self, train: Arrays) -> Any:
        counts = collections.Counter(token for text in _texts(train, self.column) for token in self.tokens(text))
        known = sorted(counts, key=lambda token: (-counts[token], token))
        return [PAD, UNKNOWN, *known[: max(0, self.size - 2)]]

    def encode(self, rows: Arrays, state: Any) -> Arrays:
        number = {token: place for place, token in enumerate(state)}
        texts = _texts(rows, self.column)
        tokens, mask = np.zeros((len(texts), self.length), np.int32), np.zeros((len(texts), self.length), np.float32)
        columns = self.ngrams + (PIECES if self.pieces[1] else 0)
        ngrams = np.zeros((len(texts), self.length * columns), np.int32)
        for row, text in enumerate(texts):
            words = self.tokens(text)[: self.length]
            tokens[row, : len(words)], mask[row, : len(words)] = [number.get(word, 1) for word in words], 1
            for place, hashed in self._hashed(words):
                ngrams[row, place] = hashed
        made = {"tokens": tokens, "mask": mask} | ({"ngrams": ngrams} if columns else {})
        return {**rows, self.column: made}

    def _hashed(self, words: list[str]) -> Iterator[tuple[int, int]]:
        """Yield (place, number) of every n-gram and piece that has not been before."""
        seen = set()
        for column, first, gram in (*self._ngrams(words), *self._pieces(words)):
            hashed = 1 + zlib.crc32(gram.encode("utf-8", "surrogatepass")) % (self.buckets - 1)
            if hashed not in seen:
                seen.add(hashed)
                yield column * self.length + first, hashed

    def _ngrams(self, words: list[str]) -> Iterator[tuple[int, int, str]]:
        for size in range(1, self.ngrams + 1):
            for first in range(len(words) - size + 1):
                yield size - 1, first, "\0".join(words[first : first + size])

    def _pieces(self, words: list[str]) -> Iterator[tuple[int, int, str]]:
        least, most = self.pieces
        for place, word in enumerate(words if most else ()):
            letters = f" {word} "
            found = [letters[i : i + n] for n in range(max(1, least), most + 1) for i in range(len(letters) - n + 1)]
            for column, piece in enumerate(found[:PIECES]):
                yield self.ngrams + column, place, f"\1{piece}"

    def update_facts(self, facts: Facts, state: Any) -> Facts:
        return dataclasses.replace(facts, vocabulary=tuple(state), extra={**facts.extra, "buckets": self.buckets})


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
