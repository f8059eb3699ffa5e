"""One class out of C for each text."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fdl.data.class_ops import count_ngrams, log_ratios
from fdl.data.formats import characters
from fdl.data.splits import Splits
from fdl.files import user_path, write_all
from fdl.tasks import tables
from fdl.tasks.classification import Classification
from fdl.tasks.panels import texts
from fdl.tasks.panels.answers import class_names, softmax
from fdl.tasks.task import DrawPanel, View
from fdl.types import Array, Arrays, Metrics, UserError, printable

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
            return write_all(
                out, {"predictions.csv": tables.predictions_csv(given, self._answers(view, given.rows["inputs"]))}
            )
        lines = read_lines(source)
        added = self._answers(view, np.array([text for _, text in lines], object))
        held = io.StringIO()
        writer = csv.writer(held, lineterminator="\n")
        writer.writerow(["line", "text", *added])
        writer.writerows([number, text, *cells] for (number, text), *cells in zip(lines, *added.values(), strict=True))
        return write_all(out, {"predictions.csv": held.getvalue()})

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
    """Train a linear SVM on n-grams scaled by their naive Bayes log-count ratios; return its accuracy on `test`.

    Wang and Manning 2012, "Baselines and Bigrams", with their interpolation `kept`: w <- (1 - b) mean|w| + b w. Of several
    classes, one against the rest. The n-grams are words and pairs; single words where the encoder made none.
    """
    from scipy import sparse
    from sklearn.svm import LinearSVC

    def numbers(rows: Arrays) -> np.ndarray:
        inputs = rows["inputs"]
        return np.asarray(
            inputs["ngrams"][:, : 2 * inputs["mask"].shape[1]] if "ngrams" in inputs else inputs["tokens"]
        )

    def features(found: np.ndarray) -> sparse.csr_matrix:
        rows, columns = np.nonzero(found)
        held = sparse.csr_matrix((np.ones(len(rows)), (rows, found[rows, columns])), (len(found), size))
        held.data[:] = 1  # a word counts once a text
        return held

    seen, asked = numbers(train), numbers(test)
    size, targets = int(max(seen.max(), asked.max())) + 1, np.asarray(train["targets"])
    counts = count_ngrams(seen, targets, size)
    ratios = log_ratios(counts, counts.sum(0), smoothing, int((counts.sum(1) > 0).sum()))
    learnt, tested, classes = features(seen), features(asked), range(ratios.shape[1])
    scores = []
    for label in classes if len(classes) > 2 else (1,):
        scaled = learnt.multiply(ratios[:, label]).tocsr()
        found = LinearSVC(C=cost, dual=True, random_state=0, max_iter=10_000).fit(scaled, targets == label)
        weights = found.coef_[0]
        weights = ((1 - kept) * np.abs(weights).mean() + kept * weights) * ratios[:, label]
        scores.append(tested @ weights + found.intercept_[0])
    answers: np.ndarray | Array = (scores[0] > 0).astype(int) if len(scores) == 1 else np.argmax(scores, axis=0)
    return float(np.mean(answers == np.asarray(test["targets"])))
