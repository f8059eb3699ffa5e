"""Articles to sentences, for a net that chooses some of them.

Legend: N articles, S sentences, W words of a sentence, R words of a summary.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
import zlib
from typing import Any

import numpy as np

from fdl.data.formats.articles import sentences
from fdl.data.splits import Facts, HostOp
from fdl.types import Arrays, Count

_WORD = re.compile(r"[a-z0-9]+")
FEATURES = (
    "place",
    "first",
    "sentences",
    "likeness",
    "headline",
    "words",
    "frequency",
    "density",
    "overlap",
    "numbers",
)
"""What is measured of each sentence, in the order of inputs["features"]: see `Sentences`."""


def words(text: str) -> list[int]:
    """Return a number for each word, a run of letters and digits in lower case, as ROUGE counts them: its CRC-32, never 0."""
    return [zlib.crc32(word.encode()) | 1 for word in _WORD.findall(text.lower())]


@dataclasses.dataclass(frozen=True)
class Sentences(HostOp):
    """Articles and summaries [N], texts, to the sentences of each article and whether they are in its summary.

    "inputs": {"words": int32 [N, S, W], a bucket for each word, 0 on padding; "weights": float32 [N, S, W], the words' TF-IDF,
    of unit length in a sentence; "features": float32 [N, S, 10]}: the sentence's place as a share; 1 / place; the logarithm of
    the article's sentences; and, standardised within the article, the cosines of the sentence's TF-IDF vector with the sum of
    all sentences' and with the headline's; its words; how often its content words occur in the article, as a sum and as a mean;
    the mean share of content words that it has in common with each other sentence; the share of numbers. Content words are
    those in less than a fifth of the training articles.

    "targets" float32 [N, S], 1 for a sentence that the summary contains; "mask" float32 [N, S], 0 on padding; "choose" int32 [N],
    how many sentences a summary is given: the training summaries' share. For ROUGE: "said" uint32 [N, S, W] and "reference"
    uint32 [N, R], numbers of words (`words`).

    Document frequencies are the training articles'. Sentences beyond `sentences`, and words beyond `words`, are left out.
    """

    sentences: Count = 64
    words: Count = 64
    buckets: Count = 8192
    reference: Count = 512

    def fit(self, train: Arrays) -> Any:
        seen = np.zeros(self.buckets, np.int64)
        chosen = total = 0
        for article, summary in zip(train["inputs"], train["targets"], strict=True):
            parts = sentences(str(article))
            seen[list({number % self.buckets for part in parts for number in words(part)})] += 1
            chosen, total = chosen + sum(_contained(parts, str(summary))), total + len(parts)
        weights = np.log((1 + len(train["inputs"])) / (1 + seen)) + 1
        return {"idf": [round(float(weight), 4) for weight in weights], "share": round(chosen / max(1, total), 4)}

    def encode(self, rows: Arrays, state: Any) -> Arrays:
        idf, count = np.array(state["idf"], np.float32), len(rows["inputs"])
        shape = count, self.sentences, self.words
        said, weights = np.zeros(shape, np.uint32), np.zeros(shape, np.float32)
        features, mask = np.zeros((*shape[:2], len(FEATURES)), np.float32), np.zeros(shape[:2], np.float32)
        targets = np.zeros(shape[:2], np.float32)
        for row, article in enumerate(rows["inputs"]):
            parts = sentences(str(article))[: self.sentences]
            numbers = [words(part)[: self.words] for part in parts]
            mask[row, : len(parts)] = 1
            for place, each in enumerate(numbers):
                said[row, place, : len(each)] = each
            if "targets" in rows:
                targets[row, : len(parts)] = _contained(parts, str(rows["targets"][row]))
            weights[row], features[row, : len(parts)] = self._measure(said[row], numbers, idf)
        choose = np.maximum(1, np.round(state["share"] * mask.sum(1))).astype(np.int32)
        buckets = np.where(said > 0, said % self.buckets, 0).astype(np.int32)
        encoded: Arrays = {
            "inputs": {"words": buckets, "weights": weights, "features": features}, "mask": mask, "choose": choose, "said": said,
        }  # fmt: skip
        if "targets" in rows:
            reference = np.zeros((count, self.reference), np.uint32)
            for row, summary in enumerate(rows["targets"]):
                told = words(str(summary))[: self.reference]
                reference[row, : len(told)] = told
            encoded |= {"targets": targets, "reference": reference}
        return encoded

    def update_facts(self, facts: Facts, state: Any) -> Facts:
        return dataclasses.replace(
            facts, outputs=1, extra={**facts.extra, "buckets": self.buckets, "sentences": self.sentences}
        )

    def _measure(self, said: np.ndarray, numbers: list[list[int]], idf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the words' weights [S, W] and the features [sentences of the article, 10]."""
        weights = np.where(said > 0, idf[said % self.buckets], 0).astype(np.float32)
        weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-6)
        vectors = np.zeros((len(numbers), self.buckets), np.float32)
        for place, each in enumerate(numbers):
            np.add.at(vectors[place], np.array(each, np.int64) % self.buckets, weights[place, : len(each)])
        lengths, centre = np.linalg.norm(vectors, axis=1), vectors.sum(0)
        content = [[number for number in each if idf[number % self.buckets] > _CONTENT] for each in numbers]
        often = collections.Counter(number for each in content for number in each)
        sums = np.array([sum(often[number] for number in each) for each in content], np.float32)
        measures = [
            vectors @ centre / np.maximum(lengths * np.linalg.norm(centre), 1e-6),
            vectors @ vectors[0] / np.maximum(lengths * lengths[0], 1e-6),
            np.array([len(each) for each in numbers]),
            sums,
            sums / np.maximum(1, [len(each) for each in content]),
            _overlap([set(each) for each in content]),
            np.array([sum(number in _NUMERALS for number in each) / max(1, len(each)) for each in numbers]),
        ]
        table = np.stack(measures, 1)
        table = (table - table.mean(0)) / np.maximum(table.std(0), 1e-6)
        places, count = np.arange(len(numbers)), len(numbers)
        fixed = np.stack([places / count, 1 / (1 + places), np.full(count, np.log(count))], 1)
        return weights, np.concatenate([fixed, table], 1).astype(np.float32)


_CONTENT = math.log(5) + 1
"""The inverse document frequency of a word in a fifth of the articles."""
_NUMERALS = frozenset(zlib.crc32(str(number).encode()) | 1 for number in range(2100))


def _overlap(sets: list[set[int]]) -> np.ndarray:
    """Return the mean over all other sentences of 2 |A and B| / (|A| + |B|)."""
    sizes = np.array([len(each) for each in sets], np.float32)
    known = {number: place for place, number in enumerate(sorted(set().union(*sets)))}
    there = np.zeros((len(sets), max(1, len(known))), np.float32)
    for row, each in enumerate(sets):
        there[row, [known[number] for number in each]] = 1
    shares = 2 * (there @ there.T) / np.maximum(sizes[:, None] + sizes[None], 1)
    np.fill_diagonal(shares, 0)
    return shares.sum(1) / max(1, len(sets) - 1)


def _contained(parts: list[str], summary: str) -> list[bool]:
    """Return for each sentence whether the summary contains it, white space aside."""
    held = "".join(summary.split())
    return ["".join(part.split()) in held for part in parts]
