"""Summaries: sentences, what is measured of them, the choice, ROUGE against rouge-score on the texts themselves, predictions."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from fdl.data import Request, sources
from fdl.data.formats.articles import sentences
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.sentence_ops import FEATURES, Sentences
from fdl.data.splits import Facts, Splits
from fdl.models import SentenceScorer
from fdl.tasks import Summarization, View, summarization
from fdl.types import Arrays, UserError

ARTICLE = """Harbour opens again

The harbour opened on Monday. Mr. Smith said: "The harbour is new." It cost £3.5m and 12 years.
Nobody came. Ships of the U.S. navy did not stop there! Was the harbour closed before?"""
PARTS = [
    "Harbour opens again", "The harbour opened on Monday.", 'Mr. Smith said: "The harbour is new."',
    "It cost £3.5m and 12 years.", "Nobody came.", "Ships of the U.S. navy did not stop there!", "Was the harbour closed before?",
]  # fmt: skip
SUMMARY = 'The harbour opened on Monday.Mr. Smith said: "The harbour is new."Was the harbour closed before?'


def rows() -> Arrays:
    others = [
        (f"Title {i}\n\nSome words stand here. Others are number {i}.", f"Others are number {i}.") for i in range(8)
    ]
    pairs = [(ARTICLE, SUMMARY), *others]
    return {name: np.array([pair[i] for pair in pairs], object) for i, name in enumerate(("inputs", "targets"))}


def encoded() -> Arrays:
    given, op = rows(), Sentences(sentences=10, words=12, reference=40)
    return op.encode(given, op.fit(given))


def test_sentences_end_where_a_new_one_begins() -> None:
    assert sentences(ARTICLE) == PARTS
    assert sentences("") == []
    assert sentences("One.  Two?Three") == ["One.", "Two?Three"]


def test_rows_say_which_sentences_the_summary_contains() -> None:
    found = encoded()
    assert found["targets"][0].tolist() == [0, 1, 1, 0, 0, 0, 1, 0, 0, 0]
    assert found["mask"].sum(1).tolist() == [7] + [3] * 8
    share = (3 + 8) / (7 + 3 * 8)
    assert found["choose"].tolist() == [round(share * 7)] + [1] * 8
    measured = found["inputs"]["features"][0, :7]
    assert measured.shape[1] == len(FEATURES)
    np.testing.assert_allclose(measured[:, 0], np.arange(7) / 7, rtol=1e-6)
    np.testing.assert_allclose(measured[:, 3:].mean(0), 0, atol=1e-5)  # standardised within the article
    assert measured[:, FEATURES.index("headline")].argmax() == 0
    np.testing.assert_allclose(np.linalg.norm(found["inputs"]["weights"][0, :7], axis=1), 1, rtol=1e-5)
    alone = Sentences(sentences=10, words=12).encode({"inputs": rows()["inputs"]}, Sentences().fit(rows()))
    assert "targets" not in alone
    np.testing.assert_array_equal(alone["inputs"]["features"], found["inputs"]["features"])


def test_rouge_equals_the_librarys_on_the_texts() -> None:
    found = encoded()
    chosen = summarization.best(np.tile(np.arange(10.0), (9, 1)), found["mask"], found["choose"])
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    expected = {name: [] for name in ("rouge1", "rouge2", "rougeL")}  # type: dict[str, list[float]]
    for article, summary, taken in zip(rows()["inputs"], rows()["targets"], chosen, strict=True):
        text = " ".join(part for part, each in zip(sentences(article), taken, strict=False) if each)
        for name, value in scorer.score(summary, text).items():
            expected[name].append(value.fmeasure)
    assert summarization.rouge(found, chosen) == pytest.approx({name: np.mean(each) for name, each in expected.items()})


def test_as_many_as_asked_for_and_never_padding() -> None:
    found = encoded()
    model = SentenceScorer(buckets=8192, embedding=4, width=6)
    batch = {name: found[name] for name in ("inputs", "mask", "choose")}
    variables = model.init(jax.random.key(0), batch["inputs"])
    chosen = np.asarray(Summarization().decode(model, variables, batch))
    assert chosen.sum(1).tolist() == found["choose"].tolist()
    assert not chosen[found["mask"] == 0].any()
    logits = np.asarray(model.apply(variables, batch["inputs"]))
    np.testing.assert_array_equal(chosen, summarization.best(logits, found["mask"], found["choose"]))
    longer = Sentences(sentences=14, words=12, reference=40)
    more = longer.encode(rows(), longer.fit(rows()))
    np.testing.assert_allclose(model.apply(variables, more["inputs"])[0, :7], logits[0, :7], atol=1e-5)


def test_baselines_are_the_first_and_the_typical_sentences() -> None:
    found = encoded()
    splits = Splits("x", "files", "here", found, found)
    measured = Summarization().baselines(splits)
    lead = np.zeros_like(found["mask"], bool)
    lead[:, :3] = True
    assert measured["Lead-3"] == summarization.rouge(found, lead & (found["mask"] > 0))
    assert list(measured) == ["Lead-3", "lead of equal length", "TF-IDF"]


def test_a_users_text(tmp_path: Path) -> None:
    op, path = Sentences(sentences=10, words=12), tmp_path / "a.txt"
    state = op.fit(rows())
    facts = Facts(extra={"sentences": 10})
    logits = np.array([[0, 1, 0, 5, 0, 3, 0, 9, 9, 9]], np.float32)
    view = View(
        Splits("x", "files", "here", {}, facts=facts), SentenceScorer(), {}, lambda given: logits, dict, dict,
        encode=lambda given: op.encode(given, state),
    )  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbf" + ARTICLE.replace("\n", "\r\n").encode())
    (written,) = Summarization().predict(view, str(path), tmp_path / "out")
    assert written.read_text().splitlines() == [PARTS[3], PARTS[5]]
    path.write_bytes("Größe. Länge.".encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read as UTF-8 text"):
        Summarization().predict(view, str(path), tmp_path / "out")
    path.write_text("\n\n")
    with pytest.raises(UserError, match="holds 0 sentences"):
        Summarization().predict(view, str(path), tmp_path / "out")
    with pytest.raises(UserError, match="there is no file"):
        Summarization().predict(view, str(tmp_path / "none.txt"), tmp_path / "out")


def test_the_real_articles_are_split_by_their_content(data_dir: Path) -> None:
    splits = sources.bbc_summaries(Request(data_dir=data_dir))
    parts = [splits.train, splits.validation, splits.test]
    assert [len(part["inputs"]) for part in parts] == [1632, 184, 230]  # type: ignore[index]
    texts = [{"".join(text.split()) for text in part["inputs"]} for part in parts]  # type: ignore[index]
    assert len(set.union(*texts)) == sum(map(len, texts))


def test_lines_that_are_no_articles(tmp_path: Path) -> None:
    folder = tmp_path / "bbc-summaries"
    folder.mkdir()
    good = '{"article": "A. B.", "summary": "A."}\n'
    (folder / "bbc.jsonl").write_text(good + '{"article": ""}\nnot json\n')
    with pytest.raises(BadInputs, match=r"line 2: is no JSON object .* the first of 2 bad articles"):
        sources.bbc_summaries(Request(data_dir=tmp_path))
    (folder / "bbc.jsonl").write_text("[]\n")
    with pytest.raises(UserError, match="holds no article"):
        sources.bbc_summaries(Request(data_dir=tmp_path, on_bad="skip"))
