"""Training on cached features is training on the pictures: the same steps, the same end, resumed bit for bit."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn

from fdl.checkpoint import saving
from fdl.data import Data, Request, Splits, augment, ops, pipeline
from fdl.distributed import layouts
from fdl.experiment import Experiment
from fdl.models.layers import BatchNorm
from fdl.optim import Optimizer
from fdl.report.summary import measure_baselines
from fdl.tasks import Classification
from fdl.train import frozen_features, loop, stopping
from fdl.train.evaluation import evaluate
from fdl.train.program import Program, build
from fdl.types import UserError

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 255, (120, 6, 6, 3)).astype(np.uint8)
LABELS = (PICTURES[:, :3].mean((1, 2, 3)) > PICTURES[:, 3:].mean((1, 2, 3))).astype(np.int32)


class Backboned(nn.Module):
    """A frozen convolution and BatchNorm, then two trained layers; `around`: something of the frozen part goes past the cut."""

    around: bool = False

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.Conv(8, (3, 3), name="stem")(x)
        x = BatchNorm(0.9, name="norm")(x, train)
        pooled = nn.relu(x).mean((1, 2))
        y = nn.Dense(16, name="hidden")(pooled)
        y = nn.Dense(2, name="output")(nn.relu(y))
        return y + pooled[:, :2] if self.around else y


def source(request: Request) -> Splits:
    cuts = {"train": slice(64), "validation": slice(64, 96), "test": slice(96, 120)}
    parts = {name: {"inputs": PICTURES[rows], "targets": LABELS[rows]} for name, rows in cuts.items()}
    return Splits("toy", "builtin", "made here", sha256="0", **parts)


def experiment(**changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "data": Data(load=source, prepare=(ops.Standardize("signed"),)), "model": Backboned(),
        "task": Classification(), "steps": 12, "batch_size": 16, "eval_batch_size": 16, "eval_every": 4,
        "save_every": 4, "log_every": 4, "name": "toy", "cache_frozen": True,
        "optimizer": Optimizer(learning_rate=1e-2, freeze=("stem", "norm")),
    }  # fmt: skip
    return Experiment(**settings | changes)


def both(made: Experiment, parallel: Any = "jit", devices: int = 1) -> tuple[Program, Program]:
    """The whole model's program, and the one that trains."""
    data = pipeline.load(made.data, Request(offline=True))
    layout = layouts.choose_layout(parallel, jax.devices()[:devices])
    program = build(made, data, 0, layout)
    state = program.compiled.initial_state()
    return program, frozen_features.training_program(program, lambda: {"params": state.params, **state.stats})[0]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(("parallel", "devices"), [("jit", 1), ("pmap", 4)])
def test_it_ends_where_training_on_the_pictures_ends(parallel: Any, devices: int, tmp_path: Path) -> None:
    whole, trainer = both(experiment(), parallel, devices)
    assert trainer.cut is not None
    assert trainer.cut.module == ("hidden",)
    assert trainer.data.splits.train["inputs"].shape == (64, 8)
    plain = dataclasses.replace(whole, experiment=dataclasses.replace(whole.experiment, cache_frozen=False))
    loop.train(plain, tmp_path / "plain")
    progress = loop.train(trainer, tmp_path / "features")
    states = [
        loop.restore(program, tmp_path / name / "checkpoints")[0]
        for program, name in ((plain, "plain"), (trainer, "features"))
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), states[0].params, states[1].params
    )
    jax.tree.map(np.testing.assert_array_equal, states[1].stats, whole.compiled.initial_state().stats)
    # The whole model, on pictures, has the accuracy that was measured on features while it trained.
    found = evaluate(whole, states[1].variables, whole.data.splits.validation)
    assert found["accuracy"] == pytest.approx(
        progress.evaluated["accuracy"]
        if hasattr(progress, "evaluated")
        else evaluate(trainer, states[1].variables, trainer.data.splits.validation)["accuracy"]
    )


def test_the_step_holds_no_convolution_and_is_looped(tmp_path: Path) -> None:
    _, trainer = both(experiment())
    assert "convolution" not in trainer.compiled.lowered_step.as_text()
    assert trainer.compiled.resident_rows is not None


def test_a_stopped_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    _, trainer = both(experiment())
    loop.train(trainer, tmp_path / "once")
    beats = iter([0, 0, 0, signal.SIGTERM])
    with pytest.raises(stopping.Interrupted):
        loop.train(trainer, tmp_path / "twice", loop.Hooks(stop_signal=lambda: next(beats, 0)))
    whole, _ = both(experiment())
    begun, _ = loop.restore(whole, tmp_path / "twice" / "checkpoints")
    assert 0 < int(begun.step) < 12
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        path.unlink()  # made again from the checkpoint's weights
    again, _ = frozen_features.training_program(whole, lambda: {"params": begun.params, **begun.stats})
    loop.train(again, tmp_path / "twice")
    digests = [
        saving.state_sha256(loop.restore(trainer, tmp_path / name / "checkpoints")[0]) for name in ("once", "twice")
    ]
    assert digests[0] == digests[1]


def test_features_are_read_again_unless_weights_rows_or_preparation_differ(tmp_path: Path) -> None:
    def files() -> set[Path]:
        return set((tmp_path / "cache").rglob("features/*.safetensors"))

    both(experiment())
    one = files()
    both(experiment())  # the same
    both(experiment(optimizer=Optimizer(learning_rate=1e-3, freeze=("stem", "norm"))))  # another rate
    assert len(one) == 1
    assert files() == one
    both(experiment(data=Data(load=source, prepare=(ops.Standardize("unit"),))))
    assert len(files()) == 2
    program = build(
        experiment(), pipeline.load(experiment().data, Request()), 1, layouts.choose_layout("jit", jax.devices()[:1])
    )
    state = program.compiled.initial_state()  # another seed: another stem
    frozen_features.training_program(program, lambda: {"params": state.params, **state.stats})
    assert len(files()) == 3
    next(iter(one)).write_bytes(b"damaged")
    _, trainer = both(experiment())
    assert trainer.data.splits.train["inputs"].shape == (64, 8)


def test_the_linear_baseline_is_fitted_to_pixels_and_to_features() -> None:
    whole, trainer = both(experiment())
    found = measure_baselines(whole, trainer)
    assert set(found) == {"majority class", "linear model on the pixels", "linear model on the frozen features"}
    from sklearn.linear_model import LogisticRegression

    train, test = (rows["inputs"].astype(np.float64) for rows in (trainer.data.splits.train, trainer.data.splits.test))
    mean, scale = train.mean(0), train.std()
    model = LogisticRegression(C=100 / 64, max_iter=1000).fit((train - mean) / scale, LABELS[:64])
    accuracy = found["linear model on the frozen features"]["test/accuracy"]
    assert accuracy == pytest.approx(model.score((test - mean) / scale, LABELS[96:]), abs=1.01 / 24)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": Optimizer()}, "nothing of the model is frozen"),
        ({"optimizer": Optimizer(freeze=("stem", "norm", "hidden", "output"))}, "no part of the model is trained"),
        ({"data": Data(load=source, augment=(augment.Flip(),), prepare=(ops.Standardize("signed"),))}, "data.augment changes"),
        ({"model": Backboned(around=True)}, "more of the frozen part than reaches hidden"),
    ],
)  # fmt: skip
def test_what_cannot_be_cached_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        both(experiment(**changes))
