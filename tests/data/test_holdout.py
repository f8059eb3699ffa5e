"""Which rows are held out, that splits agree, and how many held-out rows are also in training."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from fdl.data import Data, Facts, Request, Splits, columns, pipeline
from fdl.data.cuts import Cut, Portion
from fdl.data.digests import count_leaks, row_digests
from fdl.types import Arrays, UserError

RNG = np.random.default_rng(5)


def rows(count: int, **more: Any) -> Arrays:
    return {
        "inputs": np.arange(count, dtype=np.float32)[:, None],
        "targets": np.arange(count, dtype=np.int32) % 3,
    } | more


def loaded(train: Arrays, num_examples: int | None = None, **settings: Any) -> Splits:
    test = settings.pop("given_test", None)
    data = Data(load=lambda request: Splits("toy", "files", "here", train, test), **settings)
    return pipeline.load(data, Request(), num_examples).splits


def ids(part: Arrays | None) -> list[int]:
    assert part is not None
    return [int(value) for value in part["inputs"][:, 0]]


@pytest.mark.parametrize(
    ("text", "total", "count"), [("7", 100, 7), ("10%", 100, 10), ("0.1%", 100, 1), ("0%", 100, 0), ("33%", 10, 3)]
)
def test_a_portion_is_a_number_or_a_share(text: str, total: int, count: int) -> None:
    portion = Portion.parse(text)
    assert portion.rows(total) == count
    assert Portion.parse(str(portion)) == portion


@pytest.mark.parametrize("text", ["-1", "1.5", "100%", "ten", "", "5 %%", "1e3"])
def test_what_is_no_portion_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Portion.parse(text)


@pytest.mark.parametrize(
    "text",
    ["auto", "random", "stratified", "last", "content", "group:speaker", "random,fold=10/10", "group:a, b,fold=1/2"],
)
def test_a_cut_is_written_as_it_is_read(text: str) -> None:
    assert str(Cut.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["random,fold=0/5", "random,fold=6/5", "random,fold=1/1", "last,fold=1/5", "random,fold=2"]
)
def test_a_fold_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no fold|order of time|expected"):
        Cut.parse(text)


def folds(cut: str, train: Arrays, count: int = 4, **settings: Any) -> list[Splits]:
    return [loaded(train, cut=f"{cut},fold={number}/{count}", **settings) for number in range(1, count + 1)]


@pytest.mark.parametrize("cut", ["random", "stratified", "group:number", "content"])
def test_every_row_is_in_the_test_split_of_one_fold(cut: str) -> None:
    made = folds(cut, rows(50, number=np.arange(50)), validation=5)
    assert sorted(row for splits in made for row in ids(splits.test)) == list(range(50))
    for splits in made:
        assert len(ids(splits.validation)) == 5
        assert sorted([*ids(splits.train), *ids(splits.validation), *ids(splits.test)]) == list(range(50))
        assert 11 <= len(ids(splits.test)) <= 14


def test_folds_keep_the_shares_of_classes_and_whole_groups() -> None:
    targets = RNG.permutation(np.repeat([0, 1], [40, 8])).astype(np.int32)
    for splits in folds("stratified", rows(48, targets=targets), validation=0):
        assert np.bincount(splits.test["targets"]).tolist() == [10, 2]  # type: ignore[index]
    copies = np.repeat(np.arange(12, dtype=np.float32), 5)[:, None]
    for splits in folds("content", rows(60, inputs=copies), validation="20%"):
        assert not any(count_leaks(splits)[0].values())


def test_folds_are_refused_where_they_would_mean_nothing() -> None:
    with pytest.raises(UserError, match="a test split of its own"):
        loaded(rows(20), cut="random,fold=1/2", given_test=rows(5))
    with pytest.raises(UserError, match="this fold of the 3 rows of toy is empty"):
        loaded(rows(3), cut="random,fold=3/5", validation=0)


def test_a_source_without_a_test_split_gets_one_by_the_same_cut() -> None:
    splits = loaded(rows(50), validation="10%", test="20%")
    train, validation, test = ids(splits.train), ids(splits.validation), ids(splits.test)
    assert (len(train), len(validation), len(test)) == (36, 4, 10)
    assert sorted(train + validation + test) == list(range(50))
    assert loaded(rows(50), test=0).test is None


def test_the_test_split_of_the_source_stays_and_validation_rows_are_those_of_before() -> None:
    """The permutation is Philox's with key 0x5EED: what earlier versions cut."""
    splits = loaded(rows(50), validation=6, given_test=rows(3))
    order = np.random.Generator(np.random.Philox(0x5EED)).permutation(50)
    assert ids(splits.validation) == sorted(order[:6].tolist())
    assert ids(splits.test) == [0, 1, 2]


def test_last_holds_out_the_end_in_the_order_of_time() -> None:
    splits = loaded(rows(50), validation=5, test=10, cut="last")
    assert ids(splits.train) == list(range(35))
    assert ids(splits.validation) == list(range(35, 40))
    assert ids(splits.test) == list(range(40, 50))


@pytest.mark.parametrize("count", [10, 13, 50])
def test_stratified_takes_of_every_class_its_share(count: int) -> None:
    targets = np.repeat(np.array([0, 1, 2], np.int32), [70, 20, 10])
    splits = loaded(rows(100, targets=RNG.permutation(targets)), validation=count, cut="stratified", test=0)
    assert splits.validation is not None
    held = np.bincount(splits.validation["targets"], minlength=3)
    assert held.sum() == count
    assert np.abs(held - count * np.array([0.7, 0.2, 0.1])).max() < 1


def test_groups_stay_together_whether_named_by_a_column_or_by_content() -> None:
    speaker = np.array([f"s{number // 4}" for number in range(40)])
    splits = loaded(rows(40, speaker=speaker), validation=10, test="20%", cut="group:speaker")
    parts = [set(np.array(ids(part)) // 4) for part in (splits.train, splits.validation, splits.test)]
    assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])
    assert len(ids(splits.validation)) == 12  # whole groups of 4, until there are 10
    assert "speaker" not in splits.train  # text goes no further than the cut
    copies = np.repeat(RNG.normal(size=(15, 3)).astype(np.float32), 4, axis=0)
    again = loaded(rows(60, inputs=copies[RNG.permutation(60)]), validation=9, cut="content")
    assert count_leaks(again)[0] == {"validation": 0, "test": 0}
    assert any(count_leaks(loaded(rows(60, inputs=copies), validation=9, cut="random"))[0].values())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"validation": 50}, "data.validation=50 leaves no training example"),
        ({"test": 50, "validation": 0}, "data.test=50 leaves no training example"),
        ({"validation": 5, "cut": "group:place"}, "no such column, only inputs, targets"),
        ({"validation": 5, "cut": "group:inputs"}, "choose one with one value"),
    ],
)
def test_a_cut_that_these_rows_do_not_allow_is_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        loaded(rows(50), **settings)
    with pytest.raises(UserError, match="stratified needs one class number"):
        loaded(rows(50, targets=np.zeros((50, 2), np.float32)), validation=5, cut="stratified")


def test_a_validation_setting_without_effect_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    data = Data(load=lambda request: Splits("toy", "", "", rows(9), rows(3), rows(4)), validation=2)
    assert len(ids(pipeline.load(data, Request()).splits.validation)) == 4
    assert "data.validation=2 has no effect: toy has a validation split of its own" in caplog.text


@pytest.mark.parametrize(
    ("validation", "test", "said"),
    [
        ({"inputs": np.zeros((2, 1))}, rows(3), "validation split of toy lacks 'targets'"),
        (rows(2), rows(3, weight=np.ones(3)), "test split of toy has a column that training lacks: 'weight'"),
        (
            rows(2, inputs=np.zeros((2, 2), np.float32)),
            rows(3),
            "float32 .2. a row in validation and float32 .1. in test",
        ),
        (rows(2, mask=np.ones(2)), rows(3), "'mask' of toy is float64 .. a row in validation and absent in test"),
        (rows(2), rows(3, mask=np.ones(3)), "validation of toy lacks the column 'mask'"),
        (rows(0), rows(3), "the validation split of toy has no rows"),
    ],
)
def test_splits_whose_columns_differ_are_refused_at_load(validation: Arrays, test: Arrays, said: str) -> None:
    with pytest.raises(UserError, match=said):
        pipeline.load(Data(load=lambda request: Splits("toy", "", "", rows(9), test, validation)), Request())


def test_copies_across_splits_are_counted_whatever_the_type_and_depth() -> None:
    for dtype in (np.uint8, np.int32, np.float32, np.float64):
        train = RNG.integers(0, 2, (300, 4)).astype(dtype)
        test = RNG.integers(0, 3, (200, 4)).astype(dtype)
        known = {row.tobytes() for row in train}
        expected = sum(row.tobytes() in known for row in test)
        splits = Splits(
            "toy",
            "",
            "",
            {"inputs": {"a": train[:, :1], "b": {"c": train[:, 1:]}}},
            {"inputs": {"a": test[:, :1], "b": {"c": test[:, 1:]}}},
        )
        assert count_leaks(splits) == ({"test": expected}, "")
        flat = Splits("toy", "", "", {"inputs": train}, {"inputs": test}, {"inputs": test[:50]})
        assert count_leaks(flat)[0] == {
            "test": expected,
            "validation": sum(row.tobytes() in known for row in test[:50]),
        }


def test_one_byte_that_differs_makes_another_row() -> None:
    train = RNG.integers(0, 256, (1000, 784), dtype=np.uint8)
    test = train.copy()
    test[np.arange(1000), RNG.integers(0, 784, 1000)] ^= 128
    test[:7] = train[100:107]
    assert count_leaks(Splits("toy", "", "", {"inputs": train}, {"inputs": test})) == ({"test": 7}, "")


def test_rows_of_other_shapes_are_not_compared_and_it_is_said() -> None:
    splits = Splits("text", "", "", {"inputs": np.zeros((4, 8))}, {"inputs": np.zeros((4, 9))})
    assert count_leaks(splits) == ({}, "their rows have other shapes than training rows")


def test_prepared_data_know_their_leaks() -> None:
    train = rows(30)
    data = Data(load=lambda request: Splits("toy", "", "", train, rows(40)), validation=4)
    assert pipeline.load(data, Request()).leaks == {"validation": 0, "test": 26}


@pytest.mark.slow
def test_comparing_mnist_takes_a_moment() -> None:
    train = RNG.integers(0, 256, (60_000, 28, 28, 1), dtype=np.uint8)
    began = time.perf_counter()
    row_digests(train)
    assert time.perf_counter() - began < 1


def test_windows_are_cut_at_the_end_and_none_reaches_over_the_cut() -> None:
    series = np.arange(100, dtype=np.float32)
    held = columns.windows(series, window=8, horizon=2)
    splits = loaded({name: held[name] for name in ("inputs", "targets")}, validation="10%", test="20%")
    parts = [splits.train, splits.validation, splits.test]
    spans = [
        (np.asarray(part["inputs"]).min(), np.asarray(part["targets"]).max()) for part in parts if part is not None
    ]
    assert spans[0][0] == 0
    assert spans[2][1] == 99
    assert spans[0][1] < spans[1][0]
    assert spans[1][1] < spans[2][0]
    with pytest.raises(UserError, match=r"overlap their neighbours; set data\.cut=last"):
        loaded(dict(held), validation=5, cut="random")


def test_a_cut_of_the_rows_leaves_the_facts_and_the_digest_alone() -> None:
    def source(request: Request) -> Splits:
        return Splits("toy", "", "", rows(20), facts=Facts(classes=("a", "b", "c")))

    one, other = (pipeline.load(Data(load=source, validation=n), Request()).splits for n in (2, 5))
    assert one.sha256 == other.sha256
    assert len(one.sha256) == 64
    assert one.facts == other.facts
    assert (one.facts.outputs, one.facts.input_shape) == (3, (1,))
