"""One text from another: teacher forcing in training, beam search to translate, BLEU by sacrebleu."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import linen as nn

from fdl.data.pairs import BEGIN, END, PAD, SPECIAL, codec
from fdl.data.splits import Splits
from fdl.files import to_csv, write_all
from fdl.tasks import losses, search
from fdl.tasks.panels import translation
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Task, View
from fdl.tasks.text_classification import read_lines
from fdl.types import Array, Arrays, Batch, Count, Metrics, Probability, Range, UserError

_PAD, _BEGIN, _END = (SPECIAL.index(name) for name in (PAD, BEGIN, END))


@dataclasses.dataclass(frozen=True)
class Translation(Task):
    """Cross-entropy of each target token given the true ones before it; whole translations by beam search.

    The data are `fdl.data.pairs.Pairs`. The model is called with the inputs and the target tokens before each
    ([BEGIN, y_1, ..., y_T-1]), and has methods `encode`, `start` and `step` (`fdl.models.seq2seq`, `fdl.models.transformer`).

    Attributes:
        label_smoothing: the share of each token spread over the vocabulary.
        beams: of the search; 1: greedy.
        penalty: exponent of the length by which translations are compared.
        compared: what is measured on whole translations: "exact": the share that equal their target; "bleu": also BLEU
            as sacrebleu computes it, cased and in lower case (13a tokens).
    """

    label_smoothing: Probability = 0.0
    beams: Count = 1
    penalty: Annotated[float, Range(0)] = 0.6
    compared: Literal["exact", "bleu"] = "exact"

    monitor: ClassVar[str] = "exact"
    better: ClassVar[Better] = "max"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "exact": MetricStyle(percent=True, better="max"),
        "accuracy": MetricStyle(percent=True, better="max"),
        "loss": MetricStyle("nats a token", better="min"),
        "cross_entropy": MetricStyle("nats a token", better="min"),
        "bleu": MetricStyle("BLEU", better="max"),
        "bleu_lowercase": MetricStyle("BLEU", better="max"),
    }

    def init(self, model: nn.Module, key: Array, batch: Batch) -> Mapping[str, Any]:
        return model.init(key, batch["inputs"], _before(batch))

    def apply(self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, **settings: Any) -> Any:
        return model.apply(variables, batch["inputs"], _before(batch), **settings)

    def score(self, outputs: Array, batch: Batch) -> dict[str, losses.Score]:
        """Compute the loss [B, T] against smoothed labels (nats a token), without smoothing, and the accuracy [B, T]."""
        targets = batch["targets"]
        logp = nn.log_softmax(outputs)
        cost = -jnp.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]
        smooth = self.label_smoothing
        loss = (1 - smooth) * cost - smooth * logp.mean(-1) if smooth else cost
        scores: dict[str, losses.Score] = {"loss": loss, "accuracy": losses.accuracy(outputs, targets)}
        return scores | ({"cross_entropy": cost} if smooth else {})

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> Any:
        """Translate: tokens int32 [B, T], padding after END."""
        inputs, length = batch["inputs"], batch["targets"].shape[1]
        source = search.repeat(model.apply(variables, inputs, method="encode"), self.beams)
        tokens, _ = search.beam_search(
            lambda token, state: model.apply(variables, source, token, state, method="step"),
            model.apply(variables, source, length, method="start"),
            len(inputs["tokens"]), beams=self.beams, length=length, begin=_BEGIN, end=_END, pad=_PAD, penalty=self.penalty,
        )  # fmt: skip
        return tokens

    def measure(self, view: View, rows: Arrays) -> Metrics:
        """Compute what `compared` names over whole translations.

        Raises:
            UserError: a target does not fit into the target's length, so that it cannot be compared.
        """
        known, made, wanted = codec(view.splits.facts), [], []
        for batch, tokens in view.over(rows):
            made += [known.decode(_cut(row)) for row in np.asarray(tokens)]
            targets = np.asarray(batch["targets"])
            if (uncut := (targets == _END).any(1).sum()) < len(targets):
                raise UserError(
                    f"{len(targets) - uncut} targets of a batch have more than {targets.shape[1]} tokens and would be compared "
                    "cut: raise target_length in data.encode"
                )
            wanted += [known.decode(_cut(row)) for row in targets]
        return self._compare(made, wanted)

    def _compare(self, made: Sequence[str], wanted: Sequence[str]) -> Metrics:
        exact = float(np.mean([one == other for one, other in zip(made, wanted, strict=True)]))
        return {"exact": exact} | (bleu(made, wanted) if self.compared == "bleu" else {})

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse rows without targets of tokens."""
        targets = splits.train.get("targets")
        if targets is None or np.ndim(targets) != 2 or "mask" not in splits.train:
            raise UserError(f"{splits.name} holds no pairs of texts: name fdl.data.pairs.Pairs in data.encode")

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the source itself, copied, and the target of the most similar training source."""
        known, test = codec(splits.facts), splits.evaluated
        sources, wanted = (
            [known.decode(_cut(row)) for row in np.asarray(column)]
            for column in (test["inputs"]["tokens"], test["targets"])
        )
        return {"copy": self._compare(sources, wanted), "nearest": self._compare(_nearest(splits, known), wanted)}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return translation.panels(view, self.signature)

    @property
    def signature(self) -> str:
        """How BLEU is computed, as sacrebleu writes it; "" where it is not."""
        return bleu_signature() if self.compared == "bleu" else ""

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write translations.csv: a row for each line of a text file that is not empty.

        Raises:
            UserError: there is no such file, or no text in it.
        """
        lines = read_lines(source)
        texts = translate(view, [text for _, text in lines])
        rows = [(number, text, made) for (number, text), made in zip(lines, texts, strict=True)]
        return write_all(out, {"translations.csv": to_csv([("line", "text", "translation"), *rows])})


@dataclasses.dataclass(frozen=True)
class TranslationByBleu(Translation):
    """`Translation` whose best checkpoint has the highest BLEU on the validation split."""

    compared: Literal["exact", "bleu"] = "bleu"

    monitor: ClassVar[str] = "bleu"


def translate(view: View, texts: Sequence[str]) -> list[str]:
    """Translate a user's own texts.

    Raises:
        UserError: a text is longer than the sources that the model was made for.
    """
    rows = view.encode({"inputs": np.array(texts, object), "targets": np.array([""] * len(texts), object)})
    longest = rows["inputs"]["tokens"].shape[1]
    known = codec(view.splits.facts)
    for number, text in enumerate(texts, 1):
        if (size := len(known.encode(text))) > longest:
            raise UserError(
                f"--input: text {number} has {size} tokens and the model reads {longest}: cut it into sentences"
            )
    return [known.decode(_cut(row)) for _, tokens in view.over(rows) for row in np.asarray(tokens)]


def bleu(made: Sequence[str], wanted: Sequence[str]) -> Metrics:
    """Compute BLEU of a corpus (0 to 100), cased and in lower case, with 13a tokens."""
    metrics = {}
    for name, lowercase in (("bleu", False), ("bleu_lowercase", True)):
        metrics[name] = float(_sacrebleu().BLEU(lowercase=lowercase).corpus_score(list(made), [list(wanted)]).score)
    _say_signature()
    return metrics


@functools.cache
def bleu_signature() -> str:
    """Return sacrebleu's signature of `bleu`, cased; in lower case it has case:lc."""
    metric = _sacrebleu().BLEU()
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())


@functools.cache
def _say_signature() -> None:
    logging.info("BLEU by sacrebleu: %s", bleu_signature())


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise UserError('BLEU needs the package sacrebleu: pip install "fdl[text]"') from error
    return metrics


def _before(batch: Batch) -> Array:
    """Return what the decoder has seen before each target, [B, T]: BEGIN first."""
    return jnp.pad(batch["targets"], ((0, 0), (1, 0)), constant_values=_BEGIN)[:, :-1]


def _cut(tokens: np.ndarray) -> list[int]:
    """Return the tokens before END."""
    end = np.flatnonzero(tokens == _END)
    return [int(token) for token in tokens[: end[0] if len(end) else len(tokens)]]


def _nearest(splits: Splits, known: Any) -> list[str]:
    """Return the target of the training source that shares most with each test source, by TF-IDF over tokens."""
    from sklearn.feature_extraction.text import TfidfTransformer

    train, test = splits.train["inputs"]["tokens"], splits.evaluated["inputs"]["tokens"]
    size = len(splits.facts.vocabulary)
    scale = TfidfTransformer().fit(_counts(train, size))
    similar = scale.transform(_counts(test, size)) @ scale.transform(_counts(train, size)).T
    best = np.asarray(similar.argmax(axis=1)).ravel()
    return [known.decode(_cut(row)) for row in splits.train["targets"][best]]


def _counts(tokens: np.ndarray, size: int) -> Any:
    from scipy import sparse

    rows, columns = np.nonzero(tokens)
    return sparse.csr_matrix((np.ones(len(rows)), (rows, tokens[rows, columns])), (len(tokens), size))
