"""Predicting the next character at every position of a text."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.tasks import losses
from fdl.tasks.panels import language
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Task, View, output_width
from fdl.types import Array, Batch, Count, Metrics, Positive, UserError, Whole

MAX_PROMPT = 20_000
"""Characters of a prompt: what is read before the first new one is drawn."""


@dataclasses.dataclass(frozen=True)
class LanguageModel(Task):
    """Cross-entropy of logits [B, T, V] against the next characters [B, T].

    Attributes:
        temperature: samples are drawn from softmax(logits / temperature): below 1 less random, above 1 more.
        prompt: the text that samples continue.
        sample_length: characters drawn.
        top_k: only this many of the likeliest characters are drawn from (Fan et al. 2018); 0: all.
    """

    temperature: Positive = 0.8
    prompt: str = "\n"
    sample_length: Count = 300
    top_k: Whole = 0

    monitor: ClassVar[str] = "loss"
    better: ClassVar[Better] = "min"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "accuracy": MetricStyle(percent=True, better="max"),
        "loss": MetricStyle("nats a character", better="min"),
        "bits_per_character": MetricStyle("bits", better="min"),
        "perplexity": MetricStyle(better="min"),
    }

    def score(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """Compute the loss [B, T] (nats per character) and accuracy [B, T] (1 where the likeliest character is the next one)."""
        targets = batch["targets"]
        return {
            "loss": losses.cross_entropy(outputs, targets),
            "accuracy": losses.accuracy(outputs, targets),
        }

    def finish(self, means: Metrics) -> Metrics:
        """Add "perplexity" = e^loss and "bits_per_character" = loss / ln 2."""
        loss = means["loss"]
        perplexity = math.exp(loss) if loss < 700 else math.inf
        return {**means, "perplexity": perplexity, "bits_per_character": loss / math.log(2)}

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse a text with more characters than the model's vocabulary: their logits would be NaN."""
        width = output_width(outputs)
        for rows in (splits.train, splits.validation, splits.test):
            high = -1 if rows is None else int(np.max(rows["inputs"]))
            if width is not None and high >= width:
                raise UserError(
                    f"the text has {high + 1} characters, and the model's vocabulary {width}; leave model.vocabulary out "
                    f"or set it to {high + 1}"
                )

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score predicting characters by frequency alone (unigram) and by the one before (bigram), with add-one counts.

        Training rows [N, 2L] overlap, row i being L tokens and the L after them: the first L + 1 of each hold every
        pair of neighbours once.
        Test rows [M, L+1] are windows; "mask" [M, L] says which of their targets count.
        """
        train, test = np.asarray(splits.train["inputs"]), np.asarray(splits.evaluated["inputs"])
        rows = train[:, : train.shape[1] // 2 + 1]
        size = max(len(splits.facts.vocabulary), int(rows.max()) + 1, int(test.max()) + 1)
        pairs = np.bincount(rows[:, :-1].ravel().astype(np.int64) * size + rows[:, 1:].ravel(), minlength=size * size)
        bigrams = pairs.reshape(size, size) + 1.0
        unigrams = np.bincount(rows[:, :-1].ravel(), minlength=size) + 1.0
        counted = np.asarray(splits.evaluated.get("mask", np.ones(test[:, 1:].shape))) > 0
        before, after = test[:, :-1][counted], test[:, 1:][counted]
        single, double = unigrams / unigrams.sum(), bigrams / bigrams.sum(1, keepdims=True)
        unigram = {"loss": -np.log(single[after]).mean(), "accuracy": (after == single.argmax()).mean()}
        bigram = {"loss": -np.log(double[before, after]).mean(), "accuracy": (after == double.argmax(1)[before]).mean()}
        means = {"unigram": unigram, "bigram": bigram}
        return {name: self.finish({key: float(value) for key, value in found.items()}) for name, found in means.items()}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        temperatures = sorted({0.5, self.temperature, 1.2})
        return language.panels(view, lambda: self.continuations(view, self.own_prompt(view), temperatures))

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write sample.txt: a prompt (or the text of a file, if `source` is one) and the characters drawn after it."""
        prompt = source
        if os.path.isfile(source):
            try:
                prompt = Path(source).read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(
                    f"cannot read {source} as UTF-8 text: {error}; give a text file or the prompt itself"
                ) from error
        elif os.path.isdir(source) or (source.endswith(".txt") and not set(source) & set(" \n")):
            raise UserError(f"--input: no text file {source!r}; give a text file or the prompt itself")
        return write_all(out, {"sample.txt": self.continuations(view, prompt, [self.temperature])[self.temperature]})

    def sample(self, view: View) -> str:
        return self.continuations(view, self.own_prompt(view), [self.temperature])[self.temperature]

    def own_prompt(self, view: View) -> str:
        """Return `prompt` without what this text lacks, for it may be another text's; if nothing is left, the text's first."""
        vocabulary = view.splits.facts.vocabulary
        return "".join(char for char in self.prompt if char in vocabulary) or vocabulary[0]

    def continuations(self, view: View, prompt: str, temperatures: Sequence[float]) -> dict[float, str]:
        """Draw {temperature: the prompt and `sample_length` characters after it}, the same for the same seed.

        Raises:
            UserError: the prompt is empty, too long, or has characters that are not in the vocabulary.
        """
        vocabulary = view.splits.facts.vocabulary
        numbers = {char: number for number, char in enumerate(vocabulary)}
        unknown = sorted(set(prompt) - set(numbers))
        if unknown:
            raise UserError(
                f"the prompt has characters the training text lacks: {' '.join(map(repr, unknown[:10]))}; remove them"
            )
        if not 0 < len(prompt) <= MAX_PROMPT:
            raise UserError(f"the prompt has {len(prompt):,} characters; give 1 to {MAX_PROMPT:,}")
        tokens = np.tile(np.array([numbers[char] for char in prompt], np.int32), (len(temperatures), 1))
        drawn = generate(
            view.model,
            view.variables,
            tokens,
            np.array(temperatures, np.float32),
            jax.random.key(view.seed),
            length=self.sample_length,
            known=len(vocabulary),
            top_k=self.top_k,
        )
        return {
            temperature: prompt + "".join(vocabulary[i] for i in row)
            for temperature, row in zip(temperatures, np.asarray(drawn), strict=True)
        }


@functools.partial(jax.jit, static_argnames=("model", "length", "known", "top_k"))
def generate(
    model: nn.Module,
    variables: Mapping[str, Any],
    prompt_BxT: Array,
    temperature_B: Array,
    key: Array,
    *,
    length: int,
    known: int,
    top_k: int = 0,
) -> Array:
    """Draw tokens [B, length] one after another after the prompts, each fed back as the next input.

    Only the first `known` tokens are drawn: a model may have a larger vocabulary than its text; of them, where `top_k` is
    not 0, the `top_k` likeliest (and those as likely as the last of them).

    `model` has `initial_carry(batch_size)` and `with_carry(tokens [B, T], carry) -> (logits [B, T, V], carry)`.
    """
    carry = model.initial_carry(prompt_BxT.shape[0])
    logits_BxTxV, carry = model.apply(variables, prompt_BxT, carry, method="with_carry")

    def draw(state: tuple[Any, Array], key: Array) -> tuple[tuple[Any, Array], Array]:
        carry, logits_BxV = state
        meant_V = jnp.arange(logits_BxV.shape[-1]) < known
        logits_BxV = jnp.where(meant_V[None], logits_BxV, -jnp.inf)
        if 0 < top_k < known:
            least_Bx1 = jax.lax.top_k(logits_BxV, top_k)[0][:, -1:]
            logits_BxV = jnp.where(logits_BxV >= least_Bx1, logits_BxV, -jnp.inf)
        token_B = jax.random.categorical(key, logits_BxV / temperature_B[:, None])
        logits_Bx1xV, carry = model.apply(variables, token_B[:, None], carry, method="with_carry")
        return (carry, logits_Bx1xV[:, 0]), token_B

    _, tokens_LxB = jax.lax.scan(draw, (carry, logits_BxTxV[:, -1]), jax.random.split(key, length))
    return tokens_LxB.T
