"""Seeds trained together: each comes to what it would have come to alone."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small import pictures, program_of
from small import small as tiny

from fdl.data import Data, augment, ops
from fdl.experiment import Experiment
from fdl.models import CNN, MLP
from fdl.multirun.vmapped import train_together, why_not_together
from fdl.optim import Optimizer
from fdl.rundir import logs
from fdl.train import loop
from fdl.train.evaluation import evaluate
from fdl.train.restore import restore_best
from fdl.types import named_leaves

LOAD = functools.partial(pictures, num_rows=250, train=180)


def small(**changes: Any) -> Experiment:
    base = {
        "data": Data(load=LOAD, validation=40, augment=(augment.Shift(1),), prepare=(ops.Standardize(),), feed="numpy"),
        "model": MLP(widths=(12,), outputs=3, batch_norm=True, dropout=0.2),
        "optimizer": Optimizer(learning_rate=1e-2, schedule="cosine", ema=0.9),
        "steps": 37, "eval_every": 9, "save_every": 37,
    }  # fmt: skip
    return tiny(**base | changes)


def test_each_seed_is_what_it_is_alone(tmp_path: Path) -> None:
    experiment = small()
    together = train_together(program_of(experiment), [3, 0, 7])
    assert [found.seed for found in together] == [3, 0, 7]
    for found in together:
        alone = program_of(experiment, seed=found.seed)
        workdir = tmp_path / str(found.seed)
        progress = loop.train(alone, workdir, loop.Hooks())
        assert found.best_step == progress.best_step
        state, _ = restore_best(alone, workdir / "checkpoints")
        expected = named_leaves(jax.device_get(state.variables))
        assert found.view is not None
        for name, leaf in named_leaves(found.view.variables).items():
            np.testing.assert_allclose(leaf, expected[name], atol=1e-5, err_msg=name)
        rows = logs.read_rows(workdir)
        assert [row["step"] for row in found.rows] == [row["step"] for row in rows]
        for own, other in zip(found.rows, rows, strict=True):
            assert other.keys() - own.keys() <= {"examples_per_second"}
            for name, value in own.items():
                assert value == pytest.approx(other[name], abs=1e-5), (name, own["step"])
        splits = alone.data.splits
        for name, part in (("train", splits.train), ("eval", splits.validation), ("test", splits.test)):
            assert part is not None
            for metric, value in evaluate(alone, state.variables, part).items():
                assert found.metrics[f"{name}/{metric}"] == pytest.approx(value, abs=1e-5)


def test_without_validation_the_last_state_counts() -> None:
    experiment = small(data=dataclasses.replace(small().data, validation=0))
    (found,) = train_together(program_of(experiment), [0])
    assert found.best_step is None
    assert not [name for name in found.metrics if name.startswith("eval/")]
    assert not [name for row in found.rows for name in row if name.startswith("eval/")]


def test_a_seed_that_diverges_is_told_and_the_others_go_on() -> None:
    # Seed 1's own examples decide: with a limit between the seeds' largest losses only some of them pass it.
    losses = {}
    for seed in (0, 1):
        (found,) = train_together(program_of(small(log_every=1)), [seed])
        losses[seed] = [row["train/loss"] for row in found.rows]
        assert len(losses[seed]) == 37
    low, high = sorted(losses, key=lambda seed: max(losses[seed]))
    limit = (max(losses[low]) + max(losses[high])) / 2
    first = next(number for number, loss in enumerate(losses[high], 1) if loss > limit)
    found = {each.seed: each for each in train_together(program_of(small(loss_limit=limit)), [0, 1])}
    assert found[low].failed == ""
    assert found[low].metrics["test/accuracy"] > 0
    assert f"the loss of step {first} is {losses[high][first - 1]:.4g}, over loss_limit=" in found[high].failed
    assert found[high].metrics == {}
    assert found[high].view is None


def test_what_cannot_be_trained_together_says_why() -> None:
    assert why_not_together(program_of(small())) == ""
    conv = small(model=CNN(filters=(4,), pool=1, dense=(8,), outputs=3))
    assert "convolution" in why_not_together(program_of(conv))
    assert "patience" in why_not_together(program_of(small(patience=2)))
    assert "long enough" in why_not_together(program_of(small(model=MLP(widths=(4000, 4000), outputs=3))))
    assert "devices" in why_not_together(program_of(small(eval_batch_size=16), devices=2))


def test_it_leaves_early_when_it_is_told_to() -> None:
    calls = []

    def between() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_together(program_of(small()), [0], between)
    assert len(calls) == 3
