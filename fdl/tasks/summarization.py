"""Choosing the sentences of a text that make its summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import linen as nn

from fdl.data.formats.articles import sentences
from fdl.data.sentence_ops import FEATURES
from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Panel, Task, View
from fdl.types import Array, Arrays, Batch, Metrics, UserError, one_line, printable, take


@dataclasses.dataclass(frozen=True)
class Summarization(Task):
    """Binary cross-entropy of logits [B, S] against which sentences a summary contains; ROUGE of the sentences chosen.

    As many sentences as the row says ("choose") are taken, those with the largest logits, in the order of the text. ROUGE is the
    F1 measure of rouge-score, without stemming, on the words that `fdl.data.sentence_ops.Sentences` keeps.
    """

    monitor: ClassVar[str] = "rouge1"
    better: ClassVar[Better] = "max"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        **{name: MetricStyle(percent=True, better="max") for name in ("rouge1", "rouge2", "rougeL", "accuracy")},
        "loss": MetricStyle("nats a sentence", better="min"),
    }

    def score(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """Compute the loss and whether the logit's sign is right, [B, S] each."""
        targets = batch["targets"]
        loss = jnp.maximum(outputs, 0) - outputs * targets + jnp.log1p(jnp.exp(-jnp.abs(outputs)))
        return {"loss": loss, "accuracy": ((outputs > 0) == (targets > 0.5)).astype(jnp.float32)}

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> Array:
        """Choose sentences: bool [B, S]."""
        logits = self.apply(model, variables, batch, train=False, rngs=rngs)
        ranked = jnp.where(batch["mask"] > 0, logits, -jnp.inf)
        rank = jnp.argsort(jnp.argsort(-ranked, axis=1, stable=True), axis=1)
        return (rank < batch["choose"][:, None]) & (batch["mask"] > 0)

    def measure(self, view: View, rows: Arrays) -> Metrics:
        """Compute the mean ROUGE-1, ROUGE-2 and ROUGE-L of the sentences chosen."""
        return rouge(rows, view.decoded(rows))

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the first three sentences, the first ones and the most typical ones (TF-IDF), as many as the model chooses.

        The most typical are those whose TF-IDF vectors are nearest to the article's (Radev et al. 2004).
        """
        rows = splits.evaluated
        first = -np.broadcast_to(np.arange(rows["mask"].shape[1], dtype=np.float64), rows["mask"].shape)
        typical = rows["inputs"]["features"][..., FEATURES.index("likeness")]
        found = {
            "Lead-3": best(first, rows["mask"], np.full(len(first), 3)),
            "lead of equal length": best(first, rows["mask"], rows["choose"]),
            "TF-IDF": best(typical, rows["mask"], rows["choose"]),
        }
        return {name: rouge(rows, chosen) for name, chosen in found.items()}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [lambda: _where(view)]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write summary.txt: the chosen sentences of a UTF-8 text file, a line each, in their order."""
        text = read_text(source)
        parts = sentences(text)
        if len(parts) < 2:
            raise UserError(f"--input: {printable(source)!r} holds {len(parts)} sentences; give a text of several")
        most = view.splits.facts.extra["sentences"]
        if len(parts) > most:
            logging.warning("only the first %d of the text's %d sentences are read", most, len(parts))
        rows = view.encode({"inputs": np.array([text], object)})
        logits = np.asarray(view.outputs(rows))
        (chosen,) = best(logits, rows["mask"], rows["choose"])
        lines = [part for part, taken in zip(parts, chosen, strict=False) if taken]
        return write_all(out, {"summary.txt": "\n".join(lines) + "\n"})


def read_text(source: str) -> str:
    """Read a user's text file.

    Raises:
        UserError: there is no such file, or it is no UTF-8 text.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise UserError(f"--input: there is no file {printable(source)!r}; give a text file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--input: {printable(source)!r} cannot be read as UTF-8 text: {one_line(error, 120)}; save it as UTF-8"
        ) from error


def best(scores: np.ndarray, mask: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return bool [N, S]: the sentence is among the `count` [N] of its row with the largest scores; of equals the first."""
    rank = np.argsort(np.argsort(np.where(mask > 0, -scores, np.inf), axis=1, kind="stable"), axis=1)
    return (rank < count[:, None]) & (mask > 0)


def rouge(rows: Arrays, chosen: np.ndarray) -> Metrics:
    """Compute mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) of the chosen sentences [N, S] against the summaries."""
    scorer = _scorer(("rouge1", "rouge2", "rougeL"))
    totals = dict.fromkeys(("rouge1", "rouge2", "rougeL"), 0.0)
    for said, taken, reference in zip(rows["said"], chosen, rows["reference"], strict=True):
        found = scorer.score(_text(reference), _text(said[taken].ravel()))
        for name in totals:
            totals[name] += found[name].fmeasure
    return {name: total / len(chosen) for name, total in totals.items()}


class _Words:
    """rouge-score's interface of a tokenizer: the words are numbers already."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def _text(numbers: Iterable[int]) -> str:
    return " ".join(str(number) for number in np.asarray(numbers).tolist() if number)


def _scorer(names: Sequence[str]) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise UserError("ROUGE needs rouge-score, which is not installed: pip install 'fdl[text]'") from None
    return RougeScorer(list(names), tokenizer=_Words())


def _where(view: View, count: int = 200) -> Panel:
    """Tabulate where in an article the summaries' sentences are, and where the chosen ones."""
    rows = take(view.splits.evaluated, slice(count))
    chosen = view.decoded(rows)
    mask, wanted = rows["mask"] > 0, rows["targets"] > 0
    place = np.where(mask, rows["inputs"]["features"][..., FEATURES.index("place")], -1)
    table = []
    for part in range(5):
        inside = mask & (place >= part / 5) & (place < (part + 1) / 5)
        both = (chosen & wanted & inside).sum() / max(1, (chosen & inside).sum())
        table.append(
            (
                f"{20 * part} to {20 * part + 20} %",
                *(f"{(each & inside).sum() / max(1, inside.sum()):.1%}" for each in (wanted, chosen)),
                f"{both:.1%}",
            )
        )
    return Panel(
        "Where the sentences are",
        "By place in the article: the share of sentences in the summaries, the share chosen, and how many of those are right.",
        header=("place", "in the summary", "chosen", "right"),
        rows=table,
    )
