"""Host preparation: fitted on the training rows alone, the same for every split and for a user's own rows."""

from __future__ import annotations

import numpy as np
import pytest

from fdl.data import Data, Request, Splits, pipeline
from fdl.data.encoders import PAD, UNKNOWN, Categories, Vocabulary
from fdl.types import UserError

TRAIN = np.array(["The cat, the dog.", "a Cat", "the owl", "dog & owl"])
TEST = np.array(["zebra and cat", ""])


def test_a_vocabulary_is_of_the_most_frequent_training_words_in_a_fixed_order() -> None:
    op = Vocabulary(length=4)
    state = op.fit({"inputs": TRAIN})
    assert state[:6] == [PAD, UNKNOWN, "the", "cat", "dog", "owl"]  # 3, 2, 2, 2: equal ones by the alphabet
    assert sorted(state[6:]) == sorted([",", ".", "&", "a"])
    assert Vocabulary(size=4).fit({"inputs": TRAIN}) == state[:4]
    encoded = op.encode({"inputs": TEST, "id": np.arange(2)}, state)
    np.testing.assert_array_equal(encoded["inputs"]["tokens"], [[1, 1, 3, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(encoded["inputs"]["mask"], [[1, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(encoded["id"], [0, 1])
    np.testing.assert_array_equal(
        op.encode({"inputs": TRAIN[:1]}, state)["inputs"]["tokens"], [[2, 3, state.index(","), 2]]
    )


def test_characters_are_kept_as_they_are() -> None:
    op = Vocabulary(level="character", length=3)
    state = op.fit({"inputs": np.array(["Aab", "b\n"])})
    assert state == [PAD, UNKNOWN, "b", "\n", "A", "a"]
    np.testing.assert_array_equal(op.encode({"inputs": np.array(["aB\nb"])}, state)["inputs"]["tokens"], [[5, 1, 3]])


def source(request: Request) -> Splits:
    train = {"inputs": np.repeat(TRAIN, 10), "targets": np.tile(["spam", "ham"], 20)}
    return Splits("mails", "", "", train, {"inputs": TEST, "targets": np.array(["ham", "spam"])})


def test_encoders_see_the_training_rows_after_the_cut_and_decide_the_facts() -> None:
    data = Data(load=source, validation=10, encode=(Vocabulary(length=6), Categories()))
    prepared = pipeline.load(data, Request(), num_examples=3)
    splits = prepared.splits
    assert splits.facts.classes == ("ham", "spam")
    assert (splits.facts.outputs, splits.facts.vocabulary[:2]) == (2, (PAD, UNKNOWN))
    assert len(splits.train["targets"]) == 3
    held = {splits.facts.vocabulary[number] for number in np.unique(splits.train["inputs"]["tokens"])} - {PAD}
    assert held == set(splits.facts.vocabulary[2:])  # every word is of the three rows that are left
    assert splits.test is not None
    np.testing.assert_array_equal(splits.test["targets"], [0, 1])
    own = prepared.encode({"inputs": np.array(["the cat"])})
    assert list(own) == ["inputs"]
    assert own["inputs"]["tokens"].shape == (1, 6)


def test_text_that_nothing_encodes_is_refused() -> None:
    with pytest.raises(UserError, match=r"'inputs' of mails are text: name an op in data\.encode"):
        pipeline.load(Data(load=source, encode=(Categories(),)), Request())
    with pytest.raises(UserError, match="'targets' of mails are text"):
        pipeline.load(Data(load=source, encode=(Vocabulary(),)), Request())


def test_a_name_that_training_does_not_know_is_one_line() -> None:
    op = Categories()
    with pytest.raises(
        UserError, match=r"row 2: targets 'cow\\\\n' is not among the training rows'; known are cat, dog"
    ):
        op.encode({"targets": np.array(["cat", "cow\n"])}, ["cat", "dog"])
    with pytest.raises(UserError, match="no column 'labels', only targets"):
        Categories("labels").fit({"targets": np.array(["a"])})
