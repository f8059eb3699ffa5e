"""Kinds of problem on the loop (tables, ranks, ratings, ...): two layouts agree, a stopped run resumes to the same bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import assert_states_close, program_of, train, train_resumed
from test_seams import experiment

from fdl.data import Request, Splits, ops
from fdl.experiment import Experiment, StartAtClassShares
from fdl.models import MLP, BiasedFactors, Coral, Ensemble, TabularMLP, TwoTowers
from fdl.optim import Optimizer
from fdl.tasks import Ordinal, RareClass, Ratings, Recommendation, Regression
from fdl.train.evaluation import evaluate
from fdl.types import take

RNG = np.random.default_rng(6)
X = RNG.normal(size=(120, 3)).astype(np.float32)


def splits(**columns: Any) -> Callable[[Request], Splits]:
    """A source: the first 64 rows train, the next 32 validate, the last 24 test."""
    parts = {
        name: take(columns, rows)
        for name, rows in (("train", slice(64)), ("validation", slice(64, 96)), ("test", slice(96, 120)))
    }
    return lambda request: Splits("toy", "builtin", "made here", sha256="0", **parts)


def with_ops(made: Experiment, **changes: tuple[ops.Tabular | ops.ScaleTargets | ops.ClassWeights, ...]) -> Experiment:
    return dataclasses.replace(made, data=dataclasses.replace(made.data, **changes))


def table() -> Experiment:
    inputs = {"numeric": X, "category": (np.arange(120) % 3).astype(np.int32)[:, None]}
    made = experiment(
        splits(inputs=inputs, targets=X[:, 0] ** 2 + 10),
        TabularMLP(
            widths=(8,), outputs=1, heads=3, embedding="periodic", resolution=4, embedding_width=3, category_sizes=(4,)
        ),
        Regression(),
    )
    return with_ops(made, prepare=(ops.Tabular(scale="quantile", category="index"), ops.ScaleTargets()))


def rare() -> Experiment:
    made = experiment(
        splits(inputs=X, targets=(X[:, 0] > 1).astype(np.int32)), Ensemble(MLP(widths=(8,), outputs=2), members=3), RareClass(),
        updates=(StartAtClassShares(bias="params/base/output/bias"),),
    )  # fmt: skip
    return with_ops(made, augment=(ops.ClassWeights(),))


def ranks() -> Experiment:
    targets = np.clip(np.round(X[:, 0]) + 1, 0, 2).astype(np.int32)
    return experiment(splits(inputs=X, targets=targets), Coral(MLP(widths=(8,), outputs=1), ranks=3), Ordinal())


def ratings() -> Experiment:
    inputs = {"user": RNG.integers(0, 8, 120).astype(np.int32), "item": RNG.integers(0, 10, 120).astype(np.int32)}
    source = splits(inputs=inputs, targets=RNG.integers(1, 6, 120).astype(np.float32))
    return with_ops(
        experiment(source, BiasedFactors(users=8, items=10, width=3), Ratings()), prepare=(ops.ScaleTargets(),)
    )


def recommendations() -> Experiment:
    history, wanted = ((RNG.random((120, 12)) < 0.3).astype(np.uint8) for _ in range(2))
    model = TwoTowers(items=12, embedding=4, width=3, masked=0.0)
    made = experiment(splits(inputs=history, targets=wanted & ~history), model, Recommendation(top=3))
    # Some gradients are 0 but for rounding, which Adam with its own eps would make a whole step of.
    return dataclasses.replace(made, optimizer=Optimizer(learning_rate=1e-2, eps=1e-3))


KINDS = {made.__name__: made() for made in (table, rare, ranks, ratings, recommendations)}


@pytest.mark.parametrize("kind", KINDS)
def test_two_devices_agree_with_one_and_a_stopped_run_resumes_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    made = KINDS[kind]
    program, other = program_of(made), program_of(made, "pmap", devices=2)
    whole, spread = train_resumed(program, tmp_path, stop_at=6), train(other, tmp_path / "pmap")
    assert_states_close(whole, spread, rtol=1e-3, atol=1e-4)
    metrics = evaluate(program, whole.variables, program.data.splits.test)  # type: ignore[arg-type]
    assert evaluate(other, spread.variables, other.data.splits.test) == pytest.approx(metrics, rel=1e-3, abs=1e-4)  # type: ignore[arg-type]
    assert all(np.isfinite(value) for value in metrics.values())
