"""Training held against plain equations in NumPy: what a comparison of fdl with fdl cannot see, wrong everywhere alike."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fdl.checkpoint import weights
from fdl.data import Data, Facts, Request, Splits, pipeline
from fdl.distributed import layouts
from fdl.experiment import Experiment
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.rundir import logs
from fdl.tasks import Classification, LanguageModel, Regression
from fdl.train import loop
from fdl.train.program import build
from fdl.train.restore import restore_best

# ---- how a run is made and looked at: everything these tests know of fdl's internals ---------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished run has left.

    Attributes:
        rows: of metrics.jsonl.
        params, average: the last checkpoint's parameters, and their moving average (None where it is off).
        step, best_step: the last checkpoint's, and the one the validation split chose.
        best: the parameters of that one.
    """

    rows: list[dict[str, Any]]
    params: Any
    average: Any
    step: int
    best_step: int
    best: Any


def train_run(
    experiment: Experiment, workdir: Path, *, devices: int = 1, about_to: Callable[[int, int], None] = lambda *_: None
) -> Run:
    """Train in this process; on several devices by pmap. `about_to` is given the first and last of the steps to be made."""
    layout = layouts.choose_layout("pmap" if devices > 1 else "jit", jax.devices()[:devices])
    program = build(experiment, pipeline.load(experiment.data, Request(), None), 0, layout)
    loop.train(program, workdir, loop.Hooks(before_call=about_to))
    root = workdir / "checkpoints"
    state, _ = loop.restore(program, root)
    best, best_step = restore_best(program, root)
    host = jax.device_get((state.params, state.ema, best.params))
    return Run(logs.read_rows(workdir), host[0], host[1], int(state.step), best_step, host[2])


def begin_with(path: Path, params: dict[str, np.ndarray]) -> str:
    """A file for `init_from`: parameters by their path ("output/kernel")."""
    return str(weights.save(path, {f"params/{name}": value for name, value in params.items()}))


def data_of(train: dict[str, Any], validation: dict[str, Any] | None = None, **changes: Any) -> Data:
    """Rows given as they are; the test split is the validation split or the training rows."""
    splits = Splits(
        "given", "builtin", "drawn", train, validation or train, validation, facts=Facts(vocabulary=("a", "b"))
    )
    return Data(load=lambda request: splits, **changes)


# ---- the training step ------------------------------------------------------------------------------------------------

ROWS, FEATURES, CLASSES = 24, 5, 3
RATE, STEPS, EMA = 0.5, 7, 0.3


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def loss_and_gradients(kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[float, Any, Any]:
    """Softmax regression: mean cross-entropy and its gradients by the kernel [F, C] and the bias [C]."""
    p = softmax(x @ kernel + bias)
    error = (p - np.eye(CLASSES)[y]) / len(y)
    return float(-np.log(p[np.arange(len(y)), y]).mean()), x.T @ error, error.sum(0)


@pytest.mark.parametrize("resident", [False, True])
def test_softmax_regression_takes_the_steps_of_its_equations(tmp_path: Path, resident: bool) -> None:
    """Gradient descent on all rows at once, so that their order does not matter, with a rate that falls in a straight line.

    By step: loss, norm of the gradient, rate (logged, and as applied to the parameters), the moving average of the
    parameters with its decay min(ema, (1 + t) / (10 + t)), and the loss of that average on the validation split.
    """
    rng = np.random.default_rng(0)
    x, held_x = (rng.normal(size=(ROWS, FEATURES)).astype(np.float32) for _ in range(2))
    y, held_y = (rng.integers(0, CLASSES, ROWS).astype(np.int32) for _ in range(2))
    kernel, bias = rng.normal(size=(FEATURES, CLASSES)), rng.normal(size=CLASSES)
    feed: dict[str, Any] = {"resident": True} if resident else {"feed": "numpy"}
    data = data_of({"inputs": x, "targets": y}, {"inputs": held_x, "targets": held_y}, **feed)
    run = train_run(
        Experiment(
            data=data, model=MLP(widths=(), outputs=CLASSES), task=Classification(),
            optimizer=Optimizer(rule="sgd", learning_rate=RATE, schedule="linear", ema=EMA),
            steps=STEPS, batch_size=ROWS, eval_batch_size=ROWS, log_every=1, eval_every=1, save_every=STEPS,
            init_from=begin_with(
                tmp_path / "start.npz",
                {"output/kernel": kernel.astype(np.float32), "output/bias": bias.astype(np.float32)},
            ),
        ),
        tmp_path / "run",
    )  # fmt: skip
    params, average, decays = [kernel, bias], [kernel, bias], []
    assert [row["step"] for row in run.rows] == list(range(1, STEPS + 1))
    for step, row in enumerate(run.rows):
        loss, *gradients = loss_and_gradients(*params, x, y)
        rate = RATE * (1 - step / STEPS)
        assert row["train/loss"] == pytest.approx(loss, rel=1e-5)
        assert row["train/gradient_norm"] == pytest.approx(math.sqrt(sum((g**2).sum() for g in gradients)), rel=1e-5)
        assert row["train/learning_rate"] == pytest.approx(rate, rel=1e-6)
        params = [p - rate * g for p, g in zip(params, gradients, strict=True)]
        decays.append(min(EMA, (1 + step) / (10 + step)))
        average = [decays[-1] * old + (1 - decays[-1]) * new for old, new in zip(average, params, strict=True)]
        assert row["eval/loss"] == pytest.approx(loss_and_gradients(*average, held_x, held_y)[0], rel=1e-5)
    assert decays[0] < EMA == decays[-1], "both parts of the decay are to be tried"
    for ours, theirs in ((run.params, params), (run.average, average)):
        np.testing.assert_allclose(ours["output"]["kernel"], theirs[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours["output"]["bias"], theirs[1], rtol=1e-5, atol=1e-6)


class Bias(nn.Module):
    """The same output for every input: one parameter, whose gradients can be written down.

    Attributes:
        shape: of the output for one number of the input.
    """

    shape: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros_init(), self.shape)
        return jnp.broadcast_to(bias, (*x.shape, *self.shape))


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "cosine", "warmup": 0.4},
        {"schedule": "onecycle"},
        {"schedule": "range_test", "min_ratio": 0.01},
        {"schedule": "piecewise"},
    ],
    ids=lambda settings: settings["schedule"],
)
def test_the_logged_rate_is_the_one_applied(tmp_path: Path, settings: dict[str, Any]) -> None:
    """The gradient of |bias - 8| is -1 wherever the bias is below 8, so each step moves it by exactly the rate."""
    zeros = np.zeros(4, np.float32)
    run = train_run(
        Experiment(
            data=data_of({"inputs": zeros, "targets": zeros + 8}, feed="numpy"), model=Bias(), task=Regression(loss="mae"),
            optimizer=Optimizer(rule="sgd", learning_rate=0.5, **settings),
            steps=10, batch_size=4, eval_batch_size=4, log_every=1, save_every=10,
        ),
        tmp_path,
    )  # fmt: skip
    losses = np.array([row["train/loss"] for row in run.rows] + [8 - float(run.params["bias"])])
    rates = [row["train/learning_rate"] for row in run.rows]
    np.testing.assert_allclose(-np.diff(losses), rates, atol=2e-6)
    assert max(rates) > 1.5 * min(rates)


def test_under_pmap_every_device_drops_other_units(tmp_path: Path) -> None:
    """One row, twice, on two devices: the output's gradient counts on how many of them each hidden unit was kept.

    The output layer begins at zero, so both devices predict 1/2 and 1/2, and the gradient of its kernel's row j is
    (kept_0[j] + kept_1[j]) / 2 * h[j] / (1 - dropout) * (1/2 - y), averaged over the devices.
    """
    units, hidden = 64, 3.0
    start = {
        "dense1/kernel": np.full((1, units), hidden, np.float32), "dense1/bias": np.zeros(units, np.float32),
        "output/kernel": np.zeros((units, 2), np.float32), "output/bias": np.zeros(2, np.float32),
    }  # fmt: skip
    run = train_run(
        Experiment(
            data=data_of({"inputs": np.ones((2, 1), np.float32), "targets": np.zeros(2, np.int32)}, feed="numpy"),
            model=MLP(widths=(units,), outputs=2, dropout=0.5), task=Classification(),
            optimizer=Optimizer(rule="sgd", learning_rate=1.0),
            steps=1, batch_size=2, eval_batch_size=2, save_every=1, init_from=begin_with(tmp_path / "start.npz", start),
        ),
        tmp_path / "run",
        devices=2,
    )  # fmt: skip
    kept = run.params["output"]["kernel"] / (hidden / 0.5 * np.array([0.5, -0.5]) / 2)
    np.testing.assert_allclose(kept, np.rint(kept), atol=1e-5)
    np.testing.assert_array_equal(kept[:, 0], kept[:, 1])
    counts = np.bincount(np.rint(kept[:, 0]).astype(int), minlength=3)
    assert len(counts) == 3
    assert 20 <= counts[1] <= 44, "half of the units are to be kept on one device and dropped on the other"
    assert min(counts[0], counts[2]) >= 6


# ---- the best checkpoint, where less is better ----------------------------------------------------------------------


def rmse_by_step(steps: int) -> np.ndarray:
    """The bias goes to 1 by b <- b - 0.1 * 2 (b - 1) from 0; the validation split's targets are 1/2, passed on the way."""
    return np.abs(1 - 0.8 ** np.arange(1, steps + 1) - 0.5)


def regression(**changes: Any) -> Experiment:
    zeros = np.zeros(4, np.float32)
    base = Experiment(
        data=data_of({"inputs": zeros, "targets": zeros + 1}, {"inputs": zeros, "targets": zeros + 0.5}, feed="numpy"),
        model=Bias(), task=Regression(), optimizer=Optimizer(rule="sgd", learning_rate=0.1),
        steps=8, batch_size=4, eval_batch_size=4, log_every=1, eval_every=1, save_every=8,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def cross_entropy_by_step(steps: int) -> np.ndarray:
    """Of logits that learn "always a" by b <- b - 0.5 (softmax(b) - [1, 0]), on a text with a in four places of five."""
    logits, found = np.zeros(2), []
    for _ in range(steps):
        logits = logits - 0.5 * (softmax(logits) - [1, 0])
        found.append(-np.log(softmax(logits)) @ [0.8, 0.2])
    return np.array(found)


def language(**changes: Any) -> Experiment:
    rows = np.zeros((4, 5), np.int32)
    mostly = rows.copy()
    mostly[:, 2] = 1
    base = Experiment(
        data=data_of({"inputs": rows, "targets": rows}, {"inputs": rows, "targets": mostly}, feed="numpy"),
        model=Bias((2,)), task=LanguageModel(), optimizer=Optimizer(rule="sgd", learning_rate=0.5),
        steps=8, batch_size=4, eval_batch_size=4, log_every=1, eval_every=1, save_every=8,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


KINDS = pytest.mark.parametrize(
    ("make", "expected", "monitor"),
    [(regression, rmse_by_step(8), "eval/rmse"), (language, cross_entropy_by_step(8), "eval/loss")],
    ids=["regression", "language"],
)


@KINDS
def test_the_best_checkpoint_is_the_one_with_the_least_error(
    tmp_path: Path, make: Any, expected: np.ndarray, monitor: str
) -> None:
    run = train_run(make(), tmp_path)
    np.testing.assert_allclose([row[monitor] for row in run.rows], expected, rtol=1e-4, atol=1e-6)
    best = int(expected.argmin())
    assert 0 < best < 7, "neither the first nor the last"
    assert (run.step, run.best_step) == (8, best + 1)
    if make is regression:
        assert float(run.best["bias"]) == pytest.approx(1 - 0.8 ** (best + 1), rel=1e-5)


@KINDS
def test_patience_counts_from_the_least_error(tmp_path: Path, make: Any, expected: np.ndarray, monitor: str) -> None:
    run = train_run(make(patience=2), tmp_path)
    assert (run.step, run.best_step) == (expected.argmin() + 3, expected.argmin() + 1)


@KINDS
def test_stop_at_is_an_error_small_enough(tmp_path: Path, make: Any, expected: np.ndarray, monitor: str) -> None:
    target = float(expected[0] + expected[1]) / 2
    run = train_run(make(stop_at=target), tmp_path)
    assert expected[0] > target > expected[1]
    assert run.step == 2


# ---- the clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", [False, True])
def test_the_logged_rate_times_the_time_is_the_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resident: bool
) -> None:
    """On a clock by which every step takes 1000 s, beside which what the machine takes is nothing."""
    begun, clock = [0], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 1000.0 * begun[0])

    def about_to(first: int, last: int) -> None:
        begun[0] += last - first + 1

    experiment = regression(
        steps=60, log_every=10, eval_every=60, save_every=60,
        data=dataclasses.replace(regression().data, **({"resident": True, "feed": "auto"} if resident else {})),
    )  # fmt: skip
    run = train_run(experiment, tmp_path, about_to=about_to)
    assert [row["step"] for row in run.rows] == [10, 20, 30, 40, 50, 60]
    rates = [row["examples_per_second"] for row in run.rows]
    # Of the first row the first step is not timed; the last one is read before another step is begun.
    assert rates[1:-1] == pytest.approx([4 / 1000] * 4, rel=1e-2)
    assert (9 / rates[0] + sum(10 / rate for rate in rates[1:])) * 4 == pytest.approx(1000 * 59, rel=1e-2)
