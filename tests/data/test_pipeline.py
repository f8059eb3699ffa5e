"""Which rows a step sees, and that both feeds and every shard agree on it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fdl.data import Data, Op, Request, Splits, pipeline
from fdl.data.splits import Statistics
from fdl.types import Arrays, Batch, Draw, UserError


def arrays(n: int) -> dict[str, object]:
    return {"inputs": {"a": np.arange(n * 3).reshape(n, 3), "b": np.arange(n, dtype=np.uint8)}, "targets": np.arange(n)}


@pytest.mark.parametrize(("n", "batch"), [(10, 3), (7, 7), (5, 12), (64, 8)])
def test_every_epoch_shows_every_example_once(n: int, batch: int) -> None:
    epochs = 6
    rows = np.concatenate([pipeline.rows_of_step(3, s, batch, n) for s in range(-(-n * epochs // batch))])[: n * epochs]
    for epoch in rows.reshape(epochs, n):
        assert sorted(epoch) == list(range(n))
    orders = {tuple(epoch) for epoch in rows.reshape(epochs, n)}
    assert len(orders) == epochs, "two epochs came in the same order"


def test_orders_of_epochs_and_seeds_are_unrelated() -> None:
    orders = [pipeline.epoch_order(seed, epoch, 5000) for seed in range(3) for epoch in range(4)]
    for one, other in itertools.combinations(orders, 2):
        # the correlation of two independent permutations has a standard deviation of 1 / sqrt(n - 1)
        assert abs(np.corrcoef(one, other)[0, 1]) < 6 / np.sqrt(5000)


@pytest.mark.parametrize("start", [0, 5, 17])
def test_the_two_feeds_give_the_same_batches_from_any_step(start: int) -> None:
    data, stream = arrays(50), pipeline.Stream(seed=9, batch_size=8, num_examples=50)
    pairs = list(
        zip(pipeline.tf_feed(data, stream, start, 20), pipeline.numpy_feed(data, stream, start, 20), strict=True)
    )
    assert len(pairs) == 20 - start
    for step, (ours, plain) in enumerate(pairs, start):
        rows = pipeline.rows_of_step(9, step, 8, 50)
        for batch in (ours, plain):
            np.testing.assert_array_equal(batch["targets"], rows)
            np.testing.assert_array_equal(batch["inputs"]["a"], data["inputs"]["a"][rows])  # type: ignore[index]
            assert batch["inputs"]["b"].dtype == np.uint8


def test_the_shards_of_several_processes_make_up_the_global_batch() -> None:
    whole = pipeline.Stream(1, 12, 40)
    for shards in (2, 3, 4):
        parts = [pipeline.Stream(1, 12, 40, shard, shards) for shard in range(shards)]
        for step in range(9):
            np.testing.assert_array_equal(np.concatenate([part.rows(step) for part in parts]), whole.rows(step))


@pytest.mark.parametrize(("n", "batch", "shards"), [(10, 4, 1), (10, 4, 2), (3, 8, 4), (8, 8, 2)])
def test_evaluation_counts_every_row_once(n: int, batch: int, shards: int) -> None:
    seen: list[int] = []
    for shard in range(shards):
        for part in pipeline.padded_batches(arrays(n), batch, shard, shards):
            assert len(part["mask"]) == batch // shards
            seen += list(part["targets"][part["mask"] > 0])
    assert sorted(seen) == list(range(n))


def test_the_padding_of_a_mask_by_time_is_zero() -> None:
    data = {"inputs": np.ones((3, 5)), "mask": np.ones((3, 4), np.float32)}
    last = list(pipeline.padded_batches(data, 2))[-1]
    np.testing.assert_array_equal(last["mask"], [[1, 1, 1, 1], [0, 0, 0, 0]])


def splits(n: int = 20) -> Splits:
    return Splits("toy", "files", "nowhere", train=arrays(n), test=arrays(4))


def test_validation_rows_leave_training_and_the_subset_comes_after_them() -> None:
    declared = Data(load=lambda request: splits(), validation=6)
    loaded = pipeline.load(declared, Request()).splits
    assert loaded.validation is not None
    kept, cut = set(loaded.train["targets"]), set(loaded.validation["targets"])
    assert not kept & cut
    assert kept | cut == set(range(20))
    small = pipeline.load(declared, Request(), num_examples=5).splits
    assert small.validation is not None
    assert len(small.train["targets"]) == 5
    np.testing.assert_array_equal(small.validation["targets"], loaded.validation["targets"])
    assert set(small.train["targets"]) <= kept


def test_statistics_see_the_training_rows_alone() -> None:
    seen = []

    class Spy(Op):
        def fit(self, train: Arrays) -> Statistics:
            seen.append(set(train["targets"]))
            return {}

        def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
            return batch

    loaded = pipeline.load(
        Data(load=lambda request: splits(), validation=6, prepare=(Spy(),), augment=(Spy(),)), Request()
    )
    assert seen == [set(loaded.splits.train["targets"])] * 2


@pytest.mark.parametrize(("validation", "num_examples"), [(20, None), (0, 21)])
def test_more_rows_than_there_are_is_the_users_error(validation: int, num_examples: int | None) -> None:
    with pytest.raises(UserError, match="20"):
        pipeline.load(
            Data(load=lambda request: splits(), validation=validation), Request(data_dir=Path()), num_examples
        )


def test_on_a_cpu_auto_never_imports_tensorflow() -> None:
    code = (
        "import sys, numpy as np; from fdl.data import pipeline;"
        "rows = {'targets': np.arange(50)}; stream = pipeline.Stream(seed=9, batch_size=8, num_examples=50);"
        "batches = list(pipeline.feed('auto', rows, stream, 3, 30));"
        "assert [list(b['targets']) for b in batches] == [list(stream.rows(step)) for step in range(3, 30)];"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=os.environ | {"JAX_PLATFORMS": "cpu"})
