"""One class out of C for each text."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data.class_ops import log_ratios
from fdl.data.formats import characters
from fdl.data.splits import Splits
from fdl.files import user_path, write_all
from fdl.tasks import tables
from fdl.tasks.classification import Classification
from fdl.tasks.panels import texts
from fdl.tasks.panels.answers import class_names, softmax
from fdl.tasks.task import DrawPanel, View
from fdl.types import Arrays, Metrics, UserError, printable

MOST_TEXTS = 1_000_000


@dataclasses.dataclass(frozen=True)
class TextClassification(Classification):
    """`Classification` of encoded texts (`fdl.data.encoders.Vocabulary`)."""

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the majority class and NBSVM."""
        return super().baselines(splits) | {"NBSVM": {"accuracy": nbsvm(splits.train, splits.evaluated)}}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [*super().panels(view), *texts.panels(view)]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv: for a CSV file its rows, else for a text file a row for each line that is not empty.

        Raises:
            UserError: there is no such file, or no text in it.
        """
        if view.splits.facts.extra.get("text") and source.lower().endswith((".csv", ".tsv")):
            given = tables.read_rows(source, view.splits.facts)
        else:
            lines = read_lines(source)
            texts = np.array([text for _, text in lines], object)
            given = tables.UserRows(
                ("line", "text"), [(str(number), text) for number, text in lines], {"inputs": texts}
            )
        added = self._answers(view, given.rows["inputs"])
        return write_all(out, {"predictions.csv": tables.predictions_csv(given, added)})

    def _answers(self, view: View, inputs: np.ndarray) -> dict[str, list[str]]:
        probabilities = softmax(view.outputs(view.encode({"inputs": inputs})))
        return tables.class_columns(probabilities, class_names(view.splits, probabilities.shape[1]), self.top)


def read_lines(source: str) -> list[tuple[int, str]]:
    """Read (number, text) of the lines of a UTF-8 file that are not empty, whatever ends them.

    Raises:
        UserError: there is no such file, it is not UTF-8, or all of it is empty.
    """
    path = user_path(source, "--input")
    if not os.path.isfile(path):
        raise UserError(f"--input: there is no file {printable(source)!r}; give a text file, one text a line")
    lines = [
        (number, line.strip()) for number, line in enumerate(characters.read(path).splitlines(), 1) if line.strip()
    ]
    if not 0 < len(lines) <= MOST_TEXTS:
        raise UserError(f"{printable(path)} holds {len(lines):,} texts, one a line; give 1 to {MOST_TEXTS:,}")
    return lines


def nbsvm(train: Arrays, test: Arrays, smoothing: float = 1.0, cost: float = 0.1, kept: float = 0.25) -> float:
    """Train a linear SVM on words and pairs scaled by their naive Bayes log-count ratios; return its accuracy on `test`.

    Wang and Manning 2012, "Baselines and Bigrams", with their interpolation `kept`: w <- (1 - b) mean|w| + b w. Of several
    classes, one against the rest. Words that are not in the vocabulary are left out.
    """
    from sklearn.svm import LinearSVC

    learnt, tested = bags(np.asarray(train["inputs"]["tokens"]), np.asarray(test["inputs"]["tokens"]))
    targets = np.asarray(train["targets"])
    classes = range(int(targets.max()) + 1)
    counts = np.stack([np.asarray(learnt[targets == label].sum(0)).ravel() for label in classes], -1)
    ratios = log_ratios(counts, counts.sum(0), smoothing, len(counts))
    scores = []
    for label in classes if len(classes) > 2 else (1,):
        scaled = learnt.multiply(ratios[None, :, label]).tocsr()
        found = LinearSVC(C=cost, dual=True, random_state=0, max_iter=10_000).fit(scaled, targets == label)
        weights = found.coef_[0]
        weights = ((1 - kept) * np.abs(weights).mean() + kept * weights) * ratios[:, label]
        scores.append(tested @ weights + found.intercept_[0])
    answers: Any = (scores[0] > 0).astype(int) if len(scores) == 1 else np.argmax(scores, axis=0)
    return float(np.mean(answers == np.asarray(test["targets"])))


def bags(train: np.ndarray, test: np.ndarray) -> tuple[Any, Any]:
    """Return which words and pairs of words each text has, sparse [N, F] of 0 and 1: those that training texts have.

    Args:
        train, test: tokens [N, T]: 0 padding, 1 a word out of the vocabulary.
    """
    from scipy import sparse

    size = int(max(train.max(), test.max())) + 1

    def numbers(tokens: np.ndarray) -> np.ndarray:
        words = tokens.astype(np.int64)
        pairs = np.where((words[:, :-1] > 1) & (words[:, 1:] > 1), (words[:, :-1] + 1) * size + words[:, 1:], 0)
        return np.concatenate([np.where(words > 1, words, 0), pairs], axis=1)

    known = np.unique(numbers(train))
    known = known[known > 0]

    def features(tokens: np.ndarray) -> Any:
        found = numbers(tokens)
        place = np.minimum(np.searchsorted(known, found), len(known) - 1)
        rows, columns = np.nonzero(known[place] == found)
        held = sparse.csr_matrix((np.ones(len(rows)), (rows, place[rows, columns])), (len(found), len(known)))
        held.data[:] = 1  # a word counts once a text
        return held

    return features(train), features(test)
