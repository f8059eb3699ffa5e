"""Problems of every shape on the same loop: each an experiment of a few lines, under jit and pmap, stopped and resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from small import assert_states_close, program_of, rows_of, train, train_resumed

from fdl.data import Data, Request, Splits
from fdl.distributed import layouts
from fdl.experiment import Experiment, Update
from fdl.optim import Optimizer
from fdl.tasks import Task, View
from fdl.train import finite, step
from fdl.train.evaluation import evaluate, view
from fdl.train.restore import restore_best
from fdl.types import Arrays, Batch, Metrics

RNG = np.random.default_rng(0)


def splits(**columns: np.ndarray) -> Callable[[Request], Splits]:
    """A source: the first 64 rows train, the next 32 validate, the last 24 test (no multiple of a batch)."""
    cuts = {"train": slice(64), "validation": slice(64, 96), "test": slice(96, 120)}
    parts = {name: {key: column[rows] for key, column in columns.items()} for name, rows in cuts.items()}
    return lambda request: Splits("toy", "builtin", "made here", sha256="0", **parts)


def experiment(source: Callable[[Request], Splits], model: nn.Module, task: Task, **changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "data": Data(load=source), "model": model, "task": task, "optimizer": Optimizer(learning_rate=1e-2),
        "steps": 24, "batch_size": 16, "eval_batch_size": 16, "eval_every": 8, "save_every": 8, "log_every": 4,
        "name": "toy",
    }  # fmt: skip
    return Experiment(**settings | changes)


# ---- a padded sequence to another: the decoder is given targets, the loss is by token, a metric by sentence -----------


class Copier(nn.Module):
    vocabulary: int = 7

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> Any:
        both = nn.Embed(self.vocabulary, 8)(inputs["source"]).mean(1, keepdims=True), inputs["before"]
        state = both[0] + nn.Embed(self.vocabulary, 8)(both[1])
        return nn.Dense(self.vocabulary)(nn.relu(nn.Dense(16)(state)))


@dataclasses.dataclass(frozen=True)
class Translation(Task):
    monitor: ClassVar[str] = "exact"
    better: ClassVar[Any] = "max"

    def apply(self, model: nn.Module, variables: Any, batch: Batch, **settings: Any) -> Any:
        return model.apply(variables, self.inputs(batch), **settings)

    def init(self, model: nn.Module, key: Any, batch: Batch) -> Any:
        return model.init(key, self.inputs(batch))

    def inputs(self, batch: Batch) -> Any:
        before = jnp.pad(batch["targets"], ((0, 0), (1, 0)))[:, :-1]
        return {"source": batch["inputs"], "before": before}

    def score(self, outputs: Any, batch: Batch) -> Any:
        logp = jax.nn.log_softmax(outputs)
        loss = -jnp.take_along_axis(logp, batch["targets"][..., None], -1)[..., 0]
        wrong = (outputs.argmax(-1) != batch["targets"]) & (batch["mask"] > 0)
        return {"loss": loss, "sentences": (~wrong.any(1)).astype(jnp.float32)}

    def decode(self, model: nn.Module, variables: Any, batch: Batch, rngs: Any = None) -> Any:
        return self.apply(model, variables, batch, rngs=rngs).argmax(-1).astype(jnp.int8)

    def measure(self, view: View, rows: Arrays) -> Metrics:
        same = total = 0
        for batch, decoded in view.over(rows):
            real = batch["mask"] > 0
            same += int(((decoded == batch["targets"]) | ~real).all(1).sum())
            total += len(decoded)
        return {"exact": same / total, "rows": total}


def translation() -> Experiment:
    lengths = RNG.integers(1, 6, 120)
    mask = (np.arange(5) < lengths[:, None]).astype(np.float32)
    tokens = (RNG.integers(1, 7, (120, 5)) * (mask > 0)).astype(np.int32)
    return experiment(splits(inputs=tokens, targets=tokens, mask=mask), Copier(), Translation())


# ---- boxes of varying number: scores of another shape than the batch, weighted by how many boxes there are ------------


class Corners(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        return nn.Dense(12, name="output")(x)


@dataclasses.dataclass(frozen=True)
class Boxes(Task):
    def score(self, outputs: Any, batch: Batch) -> Any:
        predicted = outputs.reshape(*batch["targets"].shape)
        there = batch["count"][:, None] > jnp.arange(predicted.shape[1])[None]
        corners = jnp.abs(predicted - batch["targets"])
        return {"loss": (corners, there), "boxes": (predicted[..., 0] * 0 + 1, there)}

    def decode(self, model: nn.Module, variables: Any, batch: Batch, rngs: Any = None) -> Any:
        """Non-maximum suppression in small: the box with the largest first coordinate."""
        boxes = super().decode(model, variables, batch, rngs).reshape(len(batch["inputs"]), -1, 4)
        return boxes[jnp.arange(len(boxes)), boxes[..., 0].argmax(1)]


def boxes() -> Experiment:
    source = splits(
        inputs=RNG.normal(size=(120, 6)).astype(np.float32), targets=RNG.uniform(size=(120, 3, 4)).astype(np.float32),
        count=RNG.integers(0, 4, 120).astype(np.int32),
    )  # fmt: skip
    return experiment(source, Corners(), Boxes())


# ---- a variational autoencoder: its own random stream, a loss that depends on the step --------------------------------


class Autoencoder(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        mean, log_variance = jnp.split(nn.Dense(4)(x), 2, -1)
        noise = jax.random.normal(self.make_rng("noise"), mean.shape)
        return nn.Dense(x.shape[-1])(mean + jnp.exp(log_variance / 2) * noise), mean, log_variance


@dataclasses.dataclass(frozen=True)
class Variational(Task):
    def init(self, model: nn.Module, key: Any, batch: Batch) -> Any:
        return model.init({"params": key, "noise": key}, batch["inputs"])

    def score(self, outputs: Any, batch: Batch) -> Any:
        made, mean, log_variance = outputs
        divergence = (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1) / 2
        warm = jnp.minimum(1.0, batch["step"] / 10.0) if "step" in batch else 1.0
        return {
            "loss": ((made - batch["inputs"]) ** 2).sum(-1) + warm * divergence,
            "divergence": divergence,
            "warm": jnp.broadcast_to(jnp.float32(warm), divergence.shape),
        }


def variational() -> Experiment:
    x = RNG.normal(size=(120, 6)).astype(np.float32)
    return experiment(splits(inputs=x, targets=x[:, 0]), Autoencoder(), Variational())


# ---- two phases: k-means in NumPy as a start, target distributions between steps --------------------------------------


class Clusters(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        z = nn.Dense(2, name="encoder")(x)
        centres = self.param("centres", nn.initializers.normal(1.0), (3, 2))
        shares = self.variable("targets", "shares", lambda: jnp.full((3,), 1 / 3))
        near = 1 / (1 + ((z[:, None] - centres[None]) ** 2).sum(-1))
        return near / near.sum(-1, keepdims=True), shares.value


@dataclasses.dataclass(frozen=True)
class Assignment(Task):
    def score(self, outputs: Any, batch: Batch) -> Any:
        near, shares = outputs
        return {"loss": -(near**2 / shares[None]).sum(-1)}


@dataclasses.dataclass(frozen=True)
class KMeansStart(Update):
    def compute(self, view: View) -> Mapping[str, Any]:
        weights = view.variables["params"]["encoder"]
        z = view.splits.train["inputs"] @ np.asarray(weights["kernel"]) + np.asarray(weights["bias"])
        centres = z[:3]
        for _ in range(5):
            own = ((z[:, None] - centres) ** 2).sum(-1).argmin(1)
            centres = np.stack([z[own == k].mean(0) if (own == k).any() else centres[k] for k in range(3)])
        return {"params/centres": centres.astype(np.float32)}


@dataclasses.dataclass(frozen=True)
class Shares(Update):
    def compute(self, view: View) -> Mapping[str, Any]:
        near = np.concatenate([np.asarray(decoded[0]) for _, decoded in view.over(view.splits.train)])
        return {"targets/shares": near.mean(0).astype(np.float32)}


@dataclasses.dataclass(frozen=True)
class Clustering(Assignment):
    def decode(self, model: nn.Module, variables: Any, batch: Batch, rngs: Any = None) -> Any:
        near, shares = super().decode(model, variables, batch, rngs)
        return near, jnp.broadcast_to(shares[None], near.shape)


def clustering() -> Experiment:
    x = RNG.normal(size=(120, 6)).astype(np.float32)
    updates = (KMeansStart(start=5), Shares(start=5, every=3))
    return experiment(splits(inputs=x, targets=x[:, 0]), Clusters(), Clustering(), updates=updates)


# ---- a ranking: pairs with their own weights, a metric over all items of a user ---------------------------------------


class Factors(nn.Module):
    @nn.compact
    def __call__(self, pair: Any, train: bool = False) -> Any:
        users, items = nn.Embed(8, 3, name="users"), nn.Embed(10, 3, name="items")
        return (users(pair[:, 0]) * items(pair[:, 1])).sum(-1)


@dataclasses.dataclass(frozen=True)
class Ranking(Task):
    monitor: ClassVar[str] = "recall"
    better: ClassVar[Any] = "max"

    def score(self, outputs: Any, batch: Batch) -> Any:
        loss = jnp.log1p(jnp.exp(-outputs * (2 * batch["targets"] - 1)))
        return {"loss": (loss, 1 + 3 * batch["targets"])}

    def measure(self, view: View, rows: Arrays) -> Metrics:
        params = view.variables["params"]
        scores = np.asarray(params["users"]["embedding"]) @ np.asarray(params["items"]["embedding"]).T
        wanted = rows["inputs"][rows["targets"] > 0]
        top = np.argsort(-scores, 1)[:, :3]
        return {"recall": float(np.mean([item in top[user] for user, item in wanted]))}


def ranking() -> Experiment:
    pairs = np.stack([RNG.integers(0, 8, 120), RNG.integers(0, 10, 120)], 1).astype(np.int32)
    source = splits(inputs=pairs, targets=(pairs.sum(1) % 3 == 0).astype(np.float32))
    return experiment(source, Factors(), Ranking())


# ---- what holds for all of them ----------------------------------------------------------------------------------------

PROBLEMS = {made.__name__: made() for made in (translation, boxes, variational, clustering, ranking)}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_one_device_and_two_agree_and_a_stopped_run_resumes_to_the_same_bits(problem: str, tmp_path: Path) -> None:
    made = PROBLEMS[problem]
    program = program_of(made)
    whole = train_resumed(program, tmp_path, stop_at=6)
    text = [
        (tmp_path / name / "metrics.jsonl").read_text().split("examples_per_second")[0] for name in ("whole", "stopped")
    ]
    assert text[0] == text[1]
    modes: tuple[Literal["jit", "pmap"], ...] = ("jit", "pmap")
    for mode in modes:
        other = program_of(made, mode, 2)
        spread = train(other, tmp_path / mode)
        metrics = evaluate(program, whole.variables, program.data.splits.test)
        again = evaluate(other, spread.variables, other.data.splits.test)
        if problem == "variational" and mode == "pmap":  # each device draws its own noise
            continue
        assert_states_close(whole, spread, rtol=1e-4, atol=1e-5)
        assert again == pytest.approx(metrics, rel=1e-4, abs=1e-5)


def test_training_leaves_padding_out_as_evaluation_does(tmp_path: Path) -> None:
    program = program_of(PROBLEMS["translation"])
    state, rows = program.compiled.initial_state(), program.data.splits.train
    batch = jax.tree.map(lambda column: column[program.stream.rows(0)], rows)
    outputs = np.asarray(view(program, state.variables).outputs(batch), np.float64)
    logp = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    nll = -np.take_along_axis(logp, batch["targets"][..., None], -1)[..., 0]
    _, metrics = program.compiled.train_step(state, layouts.shard(batch, program.layout), program.compiled.key)
    total, weight = metrics.sums["loss"]
    assert float(weight) == batch["mask"].sum() < batch["mask"].size
    assert float(total / weight) == pytest.approx((nll * batch["mask"]).sum() / batch["mask"].sum(), rel=1e-5)


def test_devices_of_unequal_weight_make_the_mean_of_all_rows(tmp_path: Path) -> None:
    """A mean over each device's own boxes, averaged, would be another gradient."""
    made = PROBLEMS["boxes"]
    program = program_of(made, "pmap", 2)
    rows = jax.tree.map(lambda column: np.array(column[:16]), program.data.splits.train)
    rows["count"] = np.array([3] * 8 + [0] * 7 + [1], np.int32)  # 24 boxes on one device, 1 on the other
    new, metrics = program.compiled.train_step(
        program.compiled.initial_state(), layouts.shard(rows, program.layout), program.compiled.key
    )
    there = rows["count"][:, None] > np.arange(3)
    kernel = jax.device_get(program.compiled.initial_state().params)["output"]
    predicted = (rows["inputs"] @ kernel["kernel"] + kernel["bias"]).reshape(16, 3, 4)
    errors = np.abs(predicted - rows["targets"])[there]
    assert float(metrics.sums["loss"][0] / metrics.sums["loss"][1]) == pytest.approx(errors.mean(), rel=1e-5)
    assert float(metrics.sums["boxes"][1]) == there.sum()
    assert int(metrics.first_bad) == 0
    assert int(new.step) == 1


def test_two_accumulated_batches_of_unequal_weight_are_one_large_batch() -> None:
    """A mean of the two batches' gradients would give the one box of the second as much as the 24 of the first."""
    plain = Optimizer(rule="sgd", learning_rate=0.1)
    whole = dataclasses.replace(PROBLEMS["boxes"], optimizer=plain, batch_size=16)
    halves = dataclasses.replace(whole, optimizer=dataclasses.replace(plain, accumulate=2), batch_size=8)
    large, small = program_of(whole), program_of(halves)
    rows = jax.tree.map(lambda column: np.array(column[:16]), large.data.splits.train)
    rows["count"] = np.array([3] * 8 + [0] * 7 + [1], np.int32)
    expected, _ = large.compiled.train_step(
        large.compiled.initial_state(), layouts.shard(rows, large.layout), large.compiled.key
    )
    state = small.compiled.initial_state()
    for half in (slice(0, 8), slice(8, 16)):
        part = jax.tree.map(lambda column, half=half: column[half], rows)
        state, _ = small.compiled.train_step(state, layouts.shard(part, small.layout), small.compiled.key)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_whole_split_metrics_choose_the_checkpoint_and_count_every_row_once(tmp_path: Path) -> None:
    program = program_of(PROBLEMS["translation"])
    train(program, tmp_path)
    rows = [row for row in rows_of(tmp_path) if "eval/exact" in row]
    assert [row["eval/rows"] for row in rows] == [32, 32, 32]
    best = max(rows, key=lambda row: (row["eval/exact"], row["step"]))
    state, step = restore_best(program, tmp_path / "checkpoints")
    assert step == best["step"]
    assert evaluate(program, state.variables, program.data.splits.test)["rows"] == 24


def test_updates_between_steps_happen_at_their_steps(tmp_path: Path) -> None:
    program, longer = (program_of(dataclasses.replace(PROBLEMS["clustering"], steps=steps)) for steps in (5, 6))
    five, six = train(program, tmp_path / "five"), train(longer, tmp_path / "six")
    np.testing.assert_allclose(five.stats["targets"]["shares"], 1 / 3, rtol=1e-6)
    started = KMeansStart().compute(view(program, five.variables))["params/centres"]
    assert np.abs(started - np.asarray(five.params["centres"])).max() > 0.1
    # One step of Adam moves nothing further than its rate.
    np.testing.assert_allclose(six.params["centres"], started, atol=1.1e-2)
    assert not np.allclose(six.stats["targets"]["shares"], 1 / 3, atol=1e-3)


def test_the_step_and_streams_of_any_name_reach_the_task_and_the_model(tmp_path: Path) -> None:
    train(program_of(PROBLEMS["variational"]), tmp_path)
    rows = rows_of(tmp_path)
    assert [row["train/warm"] for row in rows[:2]] == pytest.approx([0.15, 0.55])  # means of steps 0 to 3, 4 to 7
    assert rows[1]["eval/warm"] == 1


# ---- every batch size trains ---------------------------------------------------------------------------------------------

# A mean computed as sum x float32(1 / B) is not 1 for B ones: what is checked by such a mean refuses these sizes.
INEXACT = [size for size in range(1, 513) if np.float32(size) * (np.float32(1) / np.float32(size)) != 1]


def step_at(size: int, mode: str, devices: int) -> tuple[Any, Any]:
    """The state and metrics after one step, compiled as a run of that batch size is."""
    program = program_of(dataclasses.replace(PROBLEMS["ranking"], batch_size=size), mode, devices)
    batch = jax.tree.map(lambda column: column[np.arange(size) % 64], program.data.splits.train)
    state = program.compiled.initial_state()
    return program.compiled.train_step(state, layouts.shard(batch, program.layout), program.compiled.key)


@pytest.mark.parametrize(("size", "mode", "devices"), [(41, "jit", 1), (220, "jit", 2), (82, "pmap", 2)])
def test_finite_rows_are_finite_in_a_compiled_run(size: int, mode: str, devices: int) -> None:
    state, metrics = step_at(size, mode, devices)
    assert int(metrics.first_bad) == 0
    assert int(state.step) == 1


def test_finite_rows_are_finite_and_counted_once_whatever_the_batch_size() -> None:
    """Of the smallest sizes and a third of the inexact ones: the step's loss and its check, all in one program."""
    assert len(INEXACT) == 74
    sizes = [*range(1, 5), *INEXACT[::3]]
    program = program_of(PROBLEMS["ranking"])
    parts = {"model": program.experiment.model, "task": program.experiment.task}
    params, rows = program.compiled.initial_state().params, program.data.splits.train
    whole = jax.tree.map(lambda column: column[np.arange(512) % 64], rows)

    def check(params: Any, whole: Any) -> Any:
        found = []
        for size in sizes:
            batch = jax.tree.map(lambda column: column[:size], whole)
            _, (sums, bad_inputs, _) = step.mean_loss(params, stats={}, batch=batch, rngs={}, **parts)
            _, first_bad = finite.check_finite(params, sums["loss"], bad_inputs, None)
            found.append((first_bad, sums["loss"][1]))
        return found

    found = jax.device_get(jax.jit(check)(params, whole))
    assert {size: int(bad) for size, (bad, _) in zip(sizes, found, strict=True)} == dict.fromkeys(sizes, 0)
    weights = np.cumsum(1 + 3 * whole["targets"])
    np.testing.assert_allclose([float(weight) for _, weight in found], [weights[size - 1] for size in sizes], rtol=1e-6)


@pytest.mark.parametrize(("devices", "every"), [(2, 8), (8, 1)])
def test_finite_rows_are_finite_whatever_each_device_holds(devices: int, every: int) -> None:
    """Under pmap a device sees its part, and the weights of all are added up; the sizes are of one device's part."""
    sizes = [size for size in INEXACT if size * devices <= 512][::every]
    program = program_of(PROBLEMS["ranking"], "pmap", devices)
    state, rows = program.compiled.initial_state(), program.data.splits.train
    whole = jax.tree.map(lambda column: np.stack(devices * [column[np.arange(512) % 64]]), rows)

    def first_bad(state: Any, whole: Any, key: Any) -> Any:
        batches = [jax.tree.map(lambda column: column[:size], whole) for size in sizes]
        return jnp.stack([program.train_step(state, batch, key)[1].first_bad for batch in batches])

    mapped = jax.pmap(first_bad, program.layout.axis_name, in_axes=(None, 0, None), devices=jax.devices()[:devices])
    found = np.asarray(mapped(jax.device_get(state), whole, jax.random.key(0)))
    np.testing.assert_array_equal(found, 0)


@settings(max_examples=3, deadline=None, derandomize=True)
@given(size=st.integers(1, 64), place=st.sampled_from([("jit", 1), ("jit", 8), ("pmap", 2), ("pmap", 8)]))
def test_any_size_that_the_devices_divide_trains(size: int, place: tuple[str, int]) -> None:
    mode, devices = place
    _, metrics = step_at(size * devices, mode, devices)
    assert int(metrics.first_bad) == 0
