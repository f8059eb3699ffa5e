"""Columns that are read when needed: windows against plain slices, at any depth, under both feeds."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from fdl.data import Data, Request, Splits, columns, ops, pipeline
from fdl.data.columns import Windows, windows
from fdl.data.digests import sha256_of
from fdl.distributed.layouts import choose_layout, shard
from fdl.experiment import Experiment
from fdl.models import MLP
from fdl.tasks import Regression
from fdl.train.evaluation import evaluate
from fdl.train.program import build
from fdl.types import Arrays, UserError, count_examples, take

RNG = np.random.default_rng(2)
SERIES = RNG.normal(size=(60, 3)).astype(np.float32)


def plain(series: np.ndarray, window: int, horizon: int, stride: int) -> Arrays:
    starts = range(0, len(series) - window - horizon + 1, stride)
    cut = lambda first, length: np.stack([series[s + first : s + first + length] for s in starts])  # noqa: E731
    return {"inputs": cut(0, window), "targets": cut(window, horizon)}


@pytest.mark.parametrize(("window", "horizon", "stride"), [(8, 1, 1), (8, 4, 3), (59, 1, 1), (1, 1, 7), (30, 30, 1)])
def test_windows_are_slices_of_the_series(window: int, horizon: int, stride: int) -> None:
    held, expected = windows(SERIES, window, horizon, stride), plain(SERIES, window, horizon, stride)
    for name, column in held.items():
        assert columns.is_column(column)
        assert (column.shape, column.dtype, column.ndim, len(column)) == (
            expected[name].shape, expected[name].dtype, 3, len(expected[name]),
        )  # fmt: skip
        np.testing.assert_array_equal(np.asarray(column), expected[name])
        some = np.array([len(column) - 1, 0])
        np.testing.assert_array_equal(np.asarray(column[some]), expected[name][some])
        np.testing.assert_array_equal(column.read(some), expected[name][some])


def test_a_series_is_stored_once_however_the_windows_overlap() -> None:
    series = np.zeros((100_000, 4), np.float32)
    tracemalloc.start()
    held = windows(series, window=512, horizon=96)
    sha256_of(dict(held))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held["inputs"].shape == (99_393, 512, 4)
    assert peak < 10 * 2**20  # as arrays they would take 814 MB


def test_windows_that_reach_beyond_the_series_are_refused() -> None:
    with pytest.raises(ValueError, match="holds no window of 60"):
        windows(SERIES, 60, 1)
    for start in (-1, 53):
        with pytest.raises(ValueError, match="reaches beyond the series of 60"):
            Windows(SERIES, np.array([0, start]), 8)


def nested() -> tuple[Arrays, Arrays]:
    held, expected = windows(SERIES, 8, 2), plain(SERIES, 8, 2, 1)
    ids = np.arange(51)
    return (
        {"inputs": {"past": held["inputs"], "id": ids}, "targets": held["targets"]},
        {"inputs": {"past": expected["inputs"], "id": ids}, "targets": expected["targets"]},
    )


def same(batches: Iterator[Any], others: Iterator[Any]) -> int:
    count = 0
    for batch, other in zip(batches, others, strict=True):
        for leaf, expected in zip(_leaves(batch), _leaves(other), strict=True):
            np.testing.assert_array_equal(leaf, expected)
        count += 1
    return count


def _leaves(batch: Any) -> list[np.ndarray]:
    leaves = jax.tree.leaves(batch)
    assert all(type(leaf) is np.ndarray for leaf in leaves)
    return leaves


@pytest.mark.parametrize("kind", ["numpy", "tf", "auto"])
def test_batches_of_nested_columns_are_those_of_arrays(kind: Any) -> None:
    lazy, held = nested()
    assert count_examples(lazy) == 51
    stream = pipeline.Stream(4, 16, 51)
    assert same(pipeline.feed(kind, lazy, stream, 3, 9), pipeline.feed("numpy", held, stream, 3, 9)) == 6
    one = {"inputs": lazy["targets"]}
    assert (
        same(pipeline.feed(kind, one, stream, 0, 2), pipeline.feed("numpy", {"inputs": held["targets"]}, stream, 0, 2))
        == 2
    )


@pytest.mark.parametrize("shards", [1, 2])
def test_evaluation_pads_columns_as_arrays(shards: int) -> None:
    lazy, held = nested()
    for part in range(shards):
        assert (
            same(pipeline.padded_batches(lazy, 16, part, shards), pipeline.padded_batches(held, 16, part, shards)) == 4
        )


def test_statistics_of_windows_are_those_of_a_sample_of_them() -> None:
    held, expected = windows(SERIES, 8, 1), plain(SERIES, 8, 1, 1)
    statistics = ops.Standardize().fit(dict(held))
    np.testing.assert_allclose(statistics["shift"], expected["inputs"].mean((0, 1)), rtol=1e-5, atol=1e-7)


def test_a_digest_of_windows_sees_the_series_and_the_rows() -> None:
    held = windows(SERIES, 8, 1)["inputs"]
    again = windows(SERIES.copy(), 8, 1)["inputs"]
    changed = SERIES.copy()
    changed[59, 2] += 1
    others = [
        windows(changed, 8, 1)["inputs"],
        windows(SERIES, 8, 1, stride=2)["inputs"],
        held[:20],
        windows(SERIES, 9, 1)["inputs"],
    ]
    assert sha256_of({"x": held}) == sha256_of({"x": again})
    assert len({sha256_of({"x": column}) for column in (held, *others)}) == 5


def test_windows_may_be_compared_with_those_of_training() -> None:
    series = np.tile(RNG.normal(size=(20,)), 3)  # what repeats is seen twice
    rows = windows(series, 5, 1)
    loaded = pipeline.load(Data(load=lambda request: Splits("s", "", "", dict(rows)), test=10, validation=0), Request())
    assert loaded.leaks == {"test": 10}
    assert take(loaded.splits.train, slice(2))["inputs"].shape == (2, 5)


def test_a_run_on_windows_trains_and_the_device_resident_path_is_refused() -> None:
    series = np.sin(np.arange(200, dtype=np.float32) / 5)

    def source(request: Request) -> Splits:
        held = windows(series, 10, 1)
        return Splits("sine", "", "", {"inputs": held["inputs"], "targets": held["targets"]})

    data = Data(load=source, validation="10%", test="10%")
    experiment = Experiment(
        data=data, model=MLP(widths=(8,)), task=Regression(), steps=40, batch_size=16, eval_batch_size=16
    )
    layout = choose_layout("jit", jax.devices()[:1])
    program = build(experiment, pipeline.load(data, Request()), 0, layout)
    assert program.experiment.model.outputs == 1  # from the horizon
    assert program.compiled.resident_rows is None
    state = program.compiled.initial_state()
    before = evaluate(program, state.variables, program.data.splits.evaluated)["rmse"]
    for batch in program.compiled.batches(0):
        state, _ = program.compiled.train_step(state, shard(batch, layout), program.compiled.key)
    assert evaluate(program, state.variables, program.data.splits.evaluated)["rmse"] < before
    asked = dataclasses.replace(experiment, data=dataclasses.replace(data, resident=True))
    with pytest.raises(UserError, match=r"data\.resident=true needs plain arrays"):
        _ = build(asked, pipeline.load(data, Request()), 0, layout).compiled.resident_rows
