"""One pure step on 1, 2, 4 and 8 devices, by jit and by pmap, cut by batch, by parameters and by outputs: one result."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import small
from flax import linen as nn
from jax.sharding import PartitionSpec
from small import CLASSES, cut, picture_rows

from fdl.checkpoint import saving
from fdl.data import Data, Facts, Request, Splits, augment, ops, pipeline
from fdl.distributed import layouts
from fdl.experiment import Experiment
from fdl.models import CNN, MLP, Recurrent, ResNet
from fdl.optim import Optimizer
from fdl.tasks import Classification, LanguageModel
from fdl.train import evaluation, program, step
from fdl.types import DATA_AXIS, UserError

STEPS = 50
BATCH = 16
LAYOUTS = [
    ("jit", 2, ""), ("jit", 4, ""), ("jit", 8, ""), ("pmap", 2, ""), ("pmap", 4, ""), ("pmap", 8, ""),
    ("jit", 8, "data:2,fsdp:2,model:2"), ("jit", 8, "fsdp:8"), ("jit", 4, "data:2,model:2"),
]  # fmt: skip
NAMES = ("mlp", "cnn", "resnet", "lstm")
# A share of the pairs always, for each takes seconds to compile; the rest is slow.
SHARE = [
    ("pmap", 8, ""), ("jit", 8, ""), ("jit", 8, "data:2,fsdp:2,model:2"), ("jit", 8, "fsdp:8"), ("jit", 2, ""), ("pmap", 2, ""),
]  # fmt: skip
ALWAYS = {"mlp": 4, "lstm": 2, "cnn": 3, "resnet": 1}
PAIRS = [
    pytest.param(name, *layout, marks=() if layout in SHARE[: ALWAYS[name]] else pytest.mark.slow)
    for name in NAMES
    for layout in LAYOUTS
]


@pytest.fixture(autouse=True)
def _compile_quickly(request: pytest.FixtureRequest) -> Iterator[None]:
    """LLVM's optimisations, two thirds of the compile, are left to the slow share; the program that XLA makes is the same."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("slow") is None)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def pictures(request: Request) -> Splits:
    """Pictures of three kinds, and in "place" the number of the row."""
    rows = picture_rows() | {"place": np.arange(330, dtype=np.int32)}
    return Splits("pictures", "builtin", "drawn", *cut(rows, 250), facts=Facts(classes=CLASSES))


def text(request: Request) -> Splits:
    """Rows of 13 tokens in which every token is the one before plus 1, 2 or 3, modulo 12."""
    rng = np.random.default_rng(0)
    tokens = (rng.integers(0, 12, (300, 1)) + np.cumsum(rng.integers(1, 4, (300, 13)), axis=1)) % 12
    rows = {"inputs": tokens.astype(np.uint8), "place": np.arange(300, dtype=np.int32)}
    facts = Facts(vocabulary=tuple("abcdefghijkl"))
    return Splits("text", "builtin", "drawn", *cut(rows, 250), facts=facts)


class Headed(nn.Module):
    """A module of a user's own around another: it knows nothing of devices."""

    body: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(3)(nn.relu(self.body(x, train)))


def experiment(name: str, dropout: float = 0.0) -> Experiment:
    models = {
        "mlp": MLP(widths=(64, 32), outputs=3, dropout=dropout),
        "cnn": CNN(filters=(8, 16), padding="SAME", dense=(32,), outputs=3, batch_norm=True, dropout=dropout),
        "resnet": ResNet(stage_sizes=(1, 1), block="basic", width=8, outputs=3, stem="cifar"),
        "nested": Headed(Headed(MLP(widths=(16,), outputs=8, batch_norm=True))),
        "lstm": Recurrent(cell="lstm", vocabulary=12, width=16, embedding=8, dropout=dropout),
    }
    seen = Data(load=pictures, augment=(augment.Flip(), augment.Shift(1)), prepare=(ops.Standardize(),), feed="numpy")
    if name == "lstm":
        seen = Data(load=text, prepare=(ops.NextToken(),), feed="numpy")
    return Experiment(
        data=seen, model=models[name], task=LanguageModel() if name == "lstm" else Classification(),
        # Momentum: its update is proportional to the gradient, so a difference in the last bit stays one. Adam's is not,
        # where a gradient is nothing but rounding.
        optimizer=Optimizer(rule="momentum", learning_rate=1e-2, ema=0.9),
        steps=STEPS, batch_size=BATCH, eval_batch_size=BATCH, name=name,
    )  # fmt: skip


def program_of(name: str, mode: Any = "jit", devices: int = 1, mesh: str = "", dropout: float = 0.0) -> program.Program:
    return small.program_of(experiment(name, dropout), mode, devices, mesh=mesh)


def loss_of(metrics: step.Metrics) -> float:
    total, weight = metrics.sums["loss"]
    return float(total / weight)


def train(built: program.Program, steps: int = STEPS) -> tuple[Any, list[np.ndarray], list[float]]:
    """The state after some steps, the row numbers that each step saw as they lay on the devices, and the losses."""
    state, places, losses = built.compiled.initial_state(), [], []
    for batch in pipeline.numpy_feed(built.data.splits.train, built.stream, 0, steps):
        placed = layouts.shard(batch, built.layout)
        state, metrics = built.compiled.train_step(state, placed, built.compiled.key)
        places.append(np.asarray(placed["place"]).reshape(-1))
        losses.append(loss_of(metrics))
    return state, places, losses


@functools.cache
def _alone(name: str, dropout: float, quickly: bool) -> tuple[dict[str, np.ndarray], list[np.ndarray], list[float]]:
    state, places, losses = train(program_of(name, dropout=dropout))
    return {key: np.asarray(leaf) for key, leaf in saving.named_leaves(state).items()}, places, losses


def alone(name: str, dropout: float = 0.0) -> tuple[dict[str, np.ndarray], list[np.ndarray], list[float]]:
    """What one device makes of it."""
    return _alone(name, dropout, jax.config.read("jax_disable_most_optimizations"))


def assert_replicas_agree(state: Any) -> None:
    """Shards that hold the same part of an array hold the same bits."""
    for name, leaf in saving.named_leaves(state).items():
        parts: dict[str, np.ndarray] = {}
        for part in leaf.addressable_shards:
            held = parts.setdefault(str(part.index), np.asarray(part.data))
            assert np.array_equal(held, part.data), f"{name}: the replicas have drifted apart"


@pytest.mark.parametrize(("name", "mode", "devices", "mesh"), PAIRS)
def test_every_layout_trains_the_same(name: str, mode: str, devices: int, mesh: str) -> None:
    expected, expected_places, expected_losses = alone(name)
    state, places, losses = train(program_of(name, mode, devices, mesh))
    np.testing.assert_array_equal(places, expected_places, err_msg="another order of examples")
    np.testing.assert_allclose(losses, expected_losses, atol=1e-5)
    for key, leaf in saving.named_leaves(state).items():
        np.testing.assert_allclose(np.asarray(leaf), expected[key], rtol=0, atol=1e-5, err_msg=key)
    assert_replicas_agree(state)
    assert min(expected_losses) < expected_losses[0] - 0.05, "nothing was learnt: this compares little"


def test_batch_norm_is_global_under_pmap_however_deep_it_lies() -> None:
    whole, _, _ = train(program_of("nested"), 3)
    built = program_of("nested", "pmap", 2)
    split, _, _ = train(built, 3)
    expected = saving.named_leaves(whole)
    assert "stats/batch_stats/body/body/norm1/mean" in expected
    for key, leaf in saving.named_leaves(split).items():
        np.testing.assert_allclose(np.asarray(leaf), np.asarray(expected[key]), rtol=0, atol=1e-6, err_msg=key)
    assert_replicas_agree(split)


@pytest.mark.parametrize(
    ("name", "devices", "mesh"),
    [
        pytest.param("mlp", 2, "", marks=pytest.mark.slow),
        ("mlp", 8, ""),
        ("mlp", 8, "data:2,fsdp:2,model:2"),
        pytest.param("lstm", 8, "", marks=pytest.mark.slow),
    ],
)
def test_dropout_under_jit_is_the_same_on_every_layout(name: str, devices: int, mesh: str) -> None:
    expected, _, losses = alone(name, dropout=0.3)
    state, _, others = train(program_of(name, "jit", devices, mesh, dropout=0.3))
    np.testing.assert_allclose(others, losses, atol=1e-5)
    for key, leaf in saving.named_leaves(state).items():
        np.testing.assert_allclose(np.asarray(leaf), expected[key], rtol=0, atol=1e-5, err_msg=key)
    assert abs(losses[-1] - alone(name)[2][-1]) > 1e-3, "the dropout does nothing"


@pytest.mark.parametrize(
    "name", ["mlp", "cnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lstm", "resnet"))]
)
def test_pmap_and_shard_map_are_one_to_the_bit(name: str) -> None:
    built = program_of(name, "pmap", 8)
    replicated, split = PartitionSpec(), PartitionSpec(DATA_AXIS)
    mapped = jax.shard_map(
        built.train_step,
        mesh=built.layout.mesh,
        in_specs=(replicated, split, replicated),
        out_specs=replicated,
        check_vma=False,
    )
    compiled = jax.jit(mapped)
    state = built.compiled.initial_state()
    for batch in pipeline.numpy_feed(built.data.splits.train, built.stream, 0, 10):
        state, _ = compiled(state, jax.device_put(batch, built.layout.sharded), built.compiled.key)
    by_pmap, _, _ = train(built, 10)
    assert saving.state_sha256(state) == saving.state_sha256(by_pmap)


# ---- what each device holds ------------------------------------------------------------------------------------------


def test_fsdp_cuts_large_leaves_and_their_moments_in_eight() -> None:
    state, _, _ = train(program_of("mlp", "jit", 8, "fsdp:8"), 1)
    large = 0
    for name, leaf in saving.named_leaves(state).items():
        held = {part.data.size for part in leaf.addressable_shards}
        if leaf.size >= layouts.WHOLE_BELOW:
            assert held == {leaf.size // 8}, name
            large += 1
        else:
            assert held == {leaf.size}, f"{name} of {leaf.size} numbers is not worth cutting"
    assert large == 2 * 3, "parameters, momentum and average of both hidden kernels"


def test_the_model_axis_cuts_the_outputs_of_kernels() -> None:
    state, _, _ = train(program_of("cnn", "jit", 8, "data:2,fsdp:2,model:2"), 1)
    kernel = state.params["dense1"]["kernel"]
    assert {part.data.shape for part in kernel.addressable_shards} == {(kernel.shape[0] // 2, kernel.shape[1] // 2)}
    assert kernel.sharding.spec == PartitionSpec("fsdp", "model")


def test_a_leaf_that_does_not_divide_stays_whole() -> None:
    layout = layouts.choose_layout("jit", mesh="fsdp:8")
    placed = layout.placed({"odd": np.zeros((61, 31)), "even": np.zeros((61, 64)), "step": np.zeros(())})
    assert {name: tuple(sharding.spec) for name, sharding in placed.items()} == {
        "odd": (), "even": (None, "fsdp"), "step": (),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("", (8, 1, 1)),
        ("data:8", (8, 1, 1)),
        ("fsdp:8", (1, 8, 1)),
        ("model:2", (4, 1, 2)),
        ("fsdp:2, model:2", (2, 2, 2)),
    ],
)
def test_a_mesh_is_read(text: str, sizes: tuple[int, ...]) -> None:
    assert tuple(layouts.parse_mesh(text, 8).values()) == sizes


@pytest.mark.parametrize(
    "text",
    [
        "data",
        "data:",
        "data:0",
        "data:-2",
        "data:2,data:4",
        "rows:8",
        "data:3",
        "model:16",
        "fsdp:8,",
        "data:8;x",
        "fsdp:3",
    ],
)
def test_a_mesh_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"--mesh={text}")) as error:
        layouts.parse_mesh(text, 8)
    assert "\n" not in str(error.value)


def test_what_each_kind_of_layout_is_for() -> None:
    devices = jax.devices()
    assert layouts.choose_layout("auto", devices[:1]).mode == "jit"
    assert layouts.choose_layout("auto", devices).mode == "pmap"
    assert layouts.choose_layout("auto", devices, "fsdp:8").mode == "jit"
    with pytest.raises(UserError, match="--parallel=pmap cuts the batch alone"):
        layouts.choose_layout("pmap", devices, "model:2")
    with pytest.raises(UserError, match="batch_size=20 does not split over 8 devices; --set batch_size=16 does"):
        layouts.check_divides(layouts.choose_layout("jit", devices), batch_size=20)


# ---- the compiled program --------------------------------------------------------------------------------------------


def all_reduces(built: program.Program) -> list[str]:
    text = built.compiled.train_step.as_text()
    return [line for line in text.splitlines() if re.search(r" all-reduce(-start)?\(", line)]


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_gradient_and_metrics_share_one_reduction(name: str, mode: str) -> None:
    assert len(all_reduces(program_of(name, mode, 8))) == 1
    alone = all_reduces(program_of(name, mode, 1))
    assert len(alone) == (1 if mode == "pmap" else 0)
    assert all("replica_groups={{0}}" in line for line in alone), "a single device reduces with itself alone"


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_batch_norm_adds_two_reductions_a_level_and_nothing_else(name: str, mode: str) -> None:
    """Forward the mean and the mean square in one; backward, before anything below can go on, the gradients through them.

    A shortcut's BatchNorm waits for nothing that its block's last one does not wait for: the two share theirs. The gradients
    and the metrics ride with the backward reductions, but for what comes last.
    """
    built = program_of(name, mode, 8)
    norms = {path.rsplit("/", 1)[0] for path in saving.named_leaves(built.state_spec.stats)}
    levels = [norm for norm in norms if not norm.endswith("shortcut_norm")]
    assert (len(norms), len(levels)) == {"cnn": (3, 3), "resnet": (6, 5)}[name]
    assert len(all_reduces(built)) == 2 * len(levels) + 1


@pytest.mark.parametrize(
    ("mode", "devices", "mesh"), [("jit", 1, ""), ("jit", 8, ""), ("pmap", 8, ""), ("jit", 8, "data:2,fsdp:2,model:2")]
)
def test_the_state_is_donated(mode: str, devices: int, mesh: str) -> None:
    built = program_of("cnn", mode, devices, mesh)
    state = built.compiled.initial_state()
    held = sum(next(iter(leaf.addressable_shards)).data.nbytes for leaf in jax.tree.leaves(state))
    aliased = built.compiled.train_step.memory_analysis().alias_size_in_bytes
    assert 0.95 * held <= aliased <= 1.1 * held + 1024
    batch = next(pipeline.numpy_feed(built.data.splits.train, built.stream, 0, 1))
    built.compiled.train_step(state, layouts.shard(batch, built.layout), built.compiled.key)
    kept = [name for name, leaf in saving.named_leaves(state).items() if not leaf.is_deleted()]
    assert not kept, f"old buffers that are still there: {kept}"


@pytest.mark.parametrize(
    ("mode", "devices", "mesh"), [("jit", 1, ""), ("jit", 8, "data:2,fsdp:2,model:2"), ("pmap", 8, "")]
)
def test_no_compiling_and_no_reading_back_after_the_first_step(
    mode: str, devices: int, mesh: str, caplog: pytest.LogCaptureFixture
) -> None:
    built = program_of("cnn", mode, devices, mesh)
    state = built.compiled.initial_state()
    batches = [
        layouts.shard(batch, built.layout) for batch in pipeline.numpy_feed(built.data.splits.train, built.stream, 0, 4)
    ]
    state, metrics = built.compiled.train_step(state, batches[0], built.compiled.key)
    with jax.log_compiles(), caplog.at_level(logging.WARNING), jax.transfer_guard_device_to_host("disallow"):
        for batch in batches[1:]:
            state, metrics = built.compiled.train_step(state, batch, built.compiled.key)
    assert not [record for record in caplog.records if "ompil" in record.getMessage()]
    assert np.isfinite(loss_of(metrics))


@pytest.mark.parametrize("name", [pytest.param("mlp", marks=pytest.mark.slow), "lstm", "cnn"])
def test_an_evaluation_is_the_same_on_every_layout(name: str) -> None:
    built = program_of(name)
    state, _, _ = train(built, 3)
    rows = built.data.splits.test  # 80 or 50 rows by 16
    expected = evaluation.evaluate(built, state.variables, rows)
    variables = jax.device_get(state.variables)
    for mode, devices, mesh in [("pmap", 8, ""), ("jit", 8, "data:2,fsdp:2,model:2")]:
        other = program_of(name, mode, devices, mesh)
        placed = jax.device_put(variables, jax.tree.map(lambda leaf: leaf.sharding, other.variables_spec))
        found = evaluation.evaluate(other, placed, rows)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert found["accuracy"] == expected["accuracy"], "a count of examples is exact"
