"""Pairs of texts, source and target, as numbers of one vocabulary: `Data.encode` for translation.

Legend: N rows, S and T the lengths of sources and targets.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from typing import Any, Literal, Protocol

import numpy as np

from fdl.data.splits import Facts, HostOp, Op, Statistics
from fdl.types import Arrays, Batch, Count, Draw, UserError

PAD, UNKNOWN, BEGIN, END = SPECIAL = ("<pad>", "<unknown>", "<begin>", "<end>")


class Codec(Protocol):
    """Texts to numbers and back."""

    @property
    def names(self) -> tuple[str, ...]: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, numbers: list[int]) -> str: ...


@dataclasses.dataclass(frozen=True)
class Characters:
    """Single characters; one that the training texts lack is number 1."""

    names: tuple[str, ...]

    def encode(self, text: str) -> list[int]:
        number = _numbers(self.names)
        return [number.get(character, 1) for character in text]

    def decode(self, numbers: list[int]) -> str:
        return "".join(self.names[number] for number in numbers if number >= len(SPECIAL))


@functools.lru_cache(maxsize=8)
def _numbers(names: tuple[str, ...]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


@dataclasses.dataclass(frozen=True)
class Subwords:
    """Byte-pair encoding of UTF-8 bytes (Sennrich et al. 2016; `tokenizers`): every text has numbers, and gets back from them.

    Attributes:
        text: the tokenizer as JSON, as `tokenizers` writes it.
    """

    text: str

    @property
    def names(self) -> tuple[str, ...]:
        held = _tokenizer(self.text)
        return tuple(held.id_to_token(number) for number in range(held.get_vocab_size()))

    def encode(self, text: str) -> list[int]:
        return list(_tokenizer(self.text).encode(text).ids)

    def decode(self, numbers: list[int]) -> str:
        return str(_tokenizer(self.text).decode(numbers)).strip()


@functools.lru_cache(maxsize=4)
def _tokenizer(text: str) -> Any:
    return _tokenizers().Tokenizer.from_str(text)


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError('subwords need the package tokenizers: pip install "fdl[text]"') from error
    return tokenizers


def train_subwords(texts: list[str], size: int) -> str:
    """Learn byte-pair encoding of `size` tokens at most from these texts; return it as JSON."""
    library = _tokenizers()
    held = library.Tokenizer(library.models.BPE())
    held.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    held.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    held.train_from_iterator(texts, trainer)
    return str(held.to_str())


def codec(facts: Facts) -> Codec:
    """Return what `Pairs` has learnt, from the facts that are kept with the run."""
    return Subwords(facts.extra["subwords"]) if "subwords" in facts.extra else Characters(facts.vocabulary)


@dataclasses.dataclass(frozen=True)
class Pairs(HostOp):
    """Texts "inputs" [N] and "targets" [N] to numbers of one vocabulary, learnt from both sides of the training rows.

    - "inputs": {"tokens": int32 [N, S], "mask": float32 [N, S]};
    - "targets": int32 [N, T], ending with END (number 3), and "mask": float32 [N, T], which weighs their loss.

    A source that is longer is cut; so is a target, which then lacks its END.

    Attributes:
        level: "character", or "subword".
        size: of the subwords' vocabulary, at most.
        source_length, target_length: S and T.
    """

    level: Literal["character", "subword"] = "subword"
    size: Count = 6000
    source_length: Count = 64
    target_length: Count = 64

    def fit(self, train: Arrays) -> Any:
        texts = [str(text) for column in ("inputs", "targets") for text in train[column].tolist()]
        if self.level == "subword":
            return {"subwords": train_subwords(texts, self.size)}
        counts = collections.Counter("".join(texts))
        return {"characters": sorted(counts)}

    def encode(self, rows: Arrays, state: Any) -> Arrays:
        known = _codec_of(state)
        sources = [known.encode(str(text)) for text in rows["inputs"].tolist()]
        tokens, mask = _padded(sources, self.source_length)
        made = {**rows, "inputs": {"tokens": tokens, "mask": mask}}
        if "targets" in rows:
            ended = [[*known.encode(str(text)), SPECIAL.index(END)] for text in rows["targets"].tolist()]
            made["targets"], made["mask"] = _padded(ended, self.target_length)
        return made

    def update_facts(self, facts: Facts, state: Any) -> Facts:
        extra = {**facts.extra} | ({"subwords": state["subwords"]} if "subwords" in state else {})
        return dataclasses.replace(facts, vocabulary=_codec_of(state).names, extra=extra)


@dataclasses.dataclass(frozen=True)
class CutPairs(Op):
    """Pairs cut to `length` tokens on either side: for `data.augment`, where a few long rows would cost time in every batch."""

    length: Count = 32

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        inputs = {name: column[:, : self.length] for name, column in batch["inputs"].items()}
        cut = {name: batch[name][:, : self.length] for name in ("targets", "mask")}
        return {**batch, **cut, "inputs": inputs}


def _codec_of(state: Any) -> Codec:
    return Subwords(state["subwords"]) if "subwords" in state else Characters((*SPECIAL, *state["characters"]))


def _padded(rows: list[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    tokens, mask = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), np.float32)
    for place, numbers in enumerate(rows):
        cut = numbers[:length]
        tokens[place, : len(cut)], mask[place, : len(cut)] = cut, 1
    return tokens, mask
