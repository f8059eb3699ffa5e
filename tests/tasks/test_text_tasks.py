"""Classifying and translating texts: baselines, shares of words, whole-split metrics, users' files."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fdl.data import Data, Request, pipeline
from fdl.data.encoders import Vocabulary
from fdl.data.formats import characters
from fdl.data.pairs import Pairs
from fdl.data.splits import Splits
from fdl.data.standins import sentences
from fdl.models import TextClassifier
from fdl.tasks import Classification, TextClassification, Translation, TranslationByBleu, View
from fdl.tasks.language import generate
from fdl.tasks.panels.texts import word_shares
from fdl.tasks.text_classification import bags, nbsvm, read_lines
from fdl.tasks.translation import bleu, bleu_signature, translate
from fdl.types import UserError


def encoded(count: int = 300) -> tuple[pipeline.Prepared, Splits]:
    raw = Splits("r", "", "", sentences.reviews(count), sentences.reviews(60, 1))
    raw = dataclasses.replace(raw, facts=dataclasses.replace(raw.facts, classes=("bad", "good")))
    prepared = pipeline.load(Data(load=lambda request: raw, encode=(Vocabulary(length=24, level="space"),)), Request())
    return prepared, raw


def test_bags_and_nbsvm_are_the_formulas() -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.svm import LinearSVC

    prepared, raw = encoded()
    train, test = prepared.splits.train, prepared.splits.test
    assert test is not None
    assert raw.test is not None
    counter = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), binary=True)
    x, z = counter.fit_transform(raw.train["inputs"]).toarray(), counter.transform(raw.test["inputs"]).toarray()
    ours = bags(train["inputs"]["tokens"], test["inputs"]["tokens"])
    assert [sorted(part.toarray().sum(0)) for part in ours] == [sorted(part.sum(0)) for part in (x, z)]
    y = raw.train["targets"]
    p, q = 1 + x[y == 1].sum(0), 1 + x[y == 0].sum(0)
    r = np.log(p / p.sum()) - np.log(q / q.sum())
    svm = LinearSVC(C=0.1, dual=True, random_state=0, max_iter=10_000).fit(x * r, y)
    w = 0.75 * np.abs(svm.coef_[0]).mean() + 0.25 * svm.coef_[0]
    expected = np.mean(((z * r) @ w + svm.intercept_[0] > 0) == raw.test["targets"])
    assert nbsvm(train, test) == pytest.approx(expected, abs=0.02)


def test_weighted_classes_weigh_the_loss_alone() -> None:
    logits, targets = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32), jnp.array([0, 1, 2, 0, 0])
    weights = jnp.array([0.5, 2.0, 2.0, 0.5, 0.5])
    plain = Classification().score(logits, {"targets": targets})
    weighed = Classification().score(logits, {"targets": targets, "class_weight": weights})
    np.testing.assert_array_equal(weighed["loss"][0], plain["loss"])
    np.testing.assert_array_equal(weighed["loss"][1], weights)
    np.testing.assert_array_equal(weighed["accuracy"], plain["accuracy"])


def view_of(model: nn.Module, variables: Any, prepared: pipeline.Prepared) -> View:
    return View(
        prepared.splits, model, variables, lambda rows: np.asarray(model.apply(variables, rows["inputs"])),
        lambda rows: rows, lambda rows: rows, encode=prepared.encode,
    )  # fmt: skip


def bag() -> tuple[View, Splits]:
    prepared, raw = encoded(80)
    model = TextClassifier("mean", vocabulary=len(prepared.splits.facts.vocabulary), outputs=2, embedding=8)
    variables = model.init(jax.random.key(0), prepared.splits.train["inputs"])
    return view_of(model, variables, prepared), raw


def test_the_words_shares_of_a_bag_add_up_to_its_logit() -> None:
    view, _ = bag()
    rows = jax.tree.map(lambda leaf: leaf[:6], view.splits.evaluated)
    classes = np.array([0, 1, 0, 1, 0, 1])
    shares = word_shares(view, rows, classes)
    assert shares.shape == rows["inputs"]["tokens"].shape
    bias = np.asarray(view.variables["params"]["output"]["bias"])
    np.testing.assert_allclose(shares.sum(1), view.outputs(rows)[np.arange(6), classes] - bias[classes], atol=1e-5)
    assert not shares[np.asarray(rows["inputs"]["mask"]) == 0].any()
    titles = [panel.title for draw in TextClassification().panels(view) if (panel := draw()) is not None]
    assert {"Confusion matrix", "Words that decided"} <= set(titles)


def test_a_text_file_is_answered_line_by_line(tmp_path: Path) -> None:
    view, _ = bag()
    path = tmp_path / "own.txt"
    path.write_bytes('\ufeffthe film is moving .\r\n\r\n   \r\nZebra, "quoted"\r\n'.encode())
    (written,) = TextClassification(top=1).predict(view, str(path), tmp_path / "out")
    rows = list(csv.DictReader(written.read_text().splitlines()))
    assert [(row["line"], row["text"]) for row in rows] == [("1", "the film is moving ."), ("4", 'Zebra, "quoted"')]
    assert {row["class_1"] for row in rows} <= {"bad", "good"}
    alone = view.outputs(view.encode({"inputs": np.array(["the film is moving ."])}))[0]
    assert rows[0]["class_1"] == ("bad", "good")[alone.argmax()]
    for content, said in (
        ("hallo".encode("utf-16"), "UTF-16"), (b"caf\xe9\n", "not UTF-8"), (b"\n \r\n", "holds 0 texts"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            read_lines(str(path))
    with pytest.raises(UserError, match="there is no file"):
        read_lines(str(tmp_path / "absent.txt"))


# ---- translation -------------------------------------------------------------------------------------------------------


def pairs(target_length: int = 8) -> pipeline.Prepared:
    texts = np.array(["ab", "ba", "abba", "b"] * 4)
    raw = Splits("p", "", "", {"inputs": texts, "targets": texts}, {"inputs": texts[:4], "targets": texts[:4]})
    return pipeline.load(
        Data(load=lambda request: raw, encode=(Pairs("character", source_length=6, target_length=target_length),)),
        Request(),
    )


def translations(prepared: pipeline.Prepared, made: np.ndarray) -> View:
    def over(rows: Any) -> Any:
        yield rows, made[: len(rows["targets"])]

    splits = prepared.splits
    return View(splits, nn.Dense(1), {}, lambda r: r, lambda r: r, lambda r: r, over=over, encode=prepared.encode)


def test_whole_translations_are_compared_as_texts() -> None:
    prepared = pairs()
    test = prepared.splits.test
    assert test is not None
    right = test["targets"].copy()
    assert Translation().measure(translations(prepared, right), test) == {"exact": 1.0}
    right[0, 0] = right[0, 1]
    right[1, 3:] = 5  # after END: not read
    assert Translation().measure(translations(prepared, right), test) == {"exact": 0.75}
    cut = pairs(target_length=4).splits
    assert cut.test is not None
    with pytest.raises(UserError, match="1 targets of a batch have more than 4 tokens"):
        Translation().measure(translations(pairs(4), np.asarray(cut.test["targets"])), cut.test)
    assert Translation().baselines(prepared.splits)["copy"]["exact"] == 1
    # Characters in another order are the same bag: "ba" and "abba" are nearest to "ab".
    assert Translation().baselines(prepared.splits)["nearest"]["exact"] == 0.5
    with pytest.raises(UserError, match="text 2 has 7 tokens and the model reads 6"):
        translate(translations(prepared, right), ["ab", "abababa"])


def test_bleu_is_sacrebleu_s_in_both_cases() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    wanted = ["Ein Hund läuft schnell über die Wiese.", "Zwei Kinder spielen am Strand mit Sand."]
    made = ["ein hund läuft schnell über die Wiese.", "Zwei Kinder spielen am Strand."]
    found = bleu(made, wanted)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(made, [wanted]).score)
    assert found["bleu_lowercase"] == pytest.approx(sacrebleu.corpus_bleu(made, [wanted], lowercase=True).score)
    assert found["bleu"] < found["bleu_lowercase"]
    assert "tok:13a" in bleu_signature()
    assert "case:mixed" in bleu_signature()
    assert TranslationByBleu.monitor == "bleu"


def test_smoothed_token_losses_are_the_mixture() -> None:
    logits, targets = (
        np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32),
        np.array([[1, 2, 3], [4, 3, 0]]),
    )
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    plain = -np.take_along_axis(logp, targets[..., None], -1)[..., 0]
    scores = Translation(label_smoothing=0.1).score(jnp.asarray(logits), {"targets": jnp.asarray(targets)})
    np.testing.assert_allclose(scores["cross_entropy"], plain, rtol=1e-5)
    np.testing.assert_allclose(scores["loss"], 0.9 * plain - 0.1 * logp.mean(-1), rtol=1e-5)


# ---- language models ---------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Logits that are always the same."""

    @nn.nowrap
    def initial_carry(self, batch_size: int) -> tuple[()]:
        return ()

    def with_carry(self, tokens: jax.Array, carry: tuple[()]) -> Any:
        return jnp.broadcast_to(jnp.array([0.0, 3.0, 1.0, 2.5, 9.0])[None, None], (*tokens.shape, 5)), carry


def test_top_k_draws_the_likeliest_alone_by_their_probabilities() -> None:
    drawn = generate(
        Fixed(),
        {},
        np.zeros((1, 1), np.int32),
        np.ones(1, np.float32),
        jax.random.key(0),
        length=4000,
        known=4,
        top_k=2,
    )
    values, counts = np.unique(np.asarray(drawn), return_counts=True)
    assert values.tolist() == [1, 3]
    assert counts[0] / 4000 == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.03)


def test_rows_with_context_count_every_character_once_after_those_before_it() -> None:
    text = "".join(np.random.default_rng(0).choice(list("abcd"), 1000))
    texts = characters.split(text)
    splits = characters.splits_of("t", "", "", texts, 10, 16, context=7, last_tenth=True)
    names = splits.facts.vocabulary
    for part, held in ((splits.validation, texts[1]), (splits.test, texts[1] + texts[2])):
        assert part is not None
        counted = []
        for row, mask in zip(part["inputs"], part["mask"], strict=True):
            assert not mask[:7].any()
            counted += [names[row[t + 1]] for t in range(len(mask)) if mask[t]]
            assert "".join(names[i] for i in row[: 7 + int(mask.sum()) + 1]) in text
        assert "".join(counted) == held[1:]
    assert texts[1] + texts[2] == text[int(1000 * 0.9) :]  # nanoGPT's validation split
