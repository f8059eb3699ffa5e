"""What is computed by hand inside a run, against Flax and Optax; and that such a run is a run like every other."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image
from small import cut, picture_rows, program_of, saved_state
from small import small as tiny

from fdl.checkpoint import saving
from fdl.data import Data, Facts, Request, Splits, ops, pipeline, sources
from fdl.data.standins import standin
from fdl.distributed import layouts
from fdl.experiment import Experiment
from fdl.models import HandCNN, HandMLP, by_hand
from fdl.numpy_call import numpy_call
from fdl.optim import Optimizer
from fdl.scratch import losses as scratch_losses
from fdl.tasks import Classification
from fdl.train import loop, stopping
from fdl.train.evaluation import view
from fdl.train.program import Program
from fdl.types import UserError

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)


# ---- networks -------------------------------------------------------------------------------------------------------


class Twin(nn.Module):
    """The same network of Flax's layers, with the same names and the same draws for dropout."""

    model: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        model = self.model
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=model.batch_norm_momentum)

        def ended(x: jax.Array, activation: Callable) -> jax.Array:
            return activation(norm()(x) if model.batch_norm else x)

        widths, activation = model.hidden if isinstance(model, HandCNN) else model.widths, nn.relu
        if isinstance(model, HandCNN):
            for filters in model.filters:
                x = nn.Conv(filters, (model.kernel, model.kernel), padding=model.padding.upper())(x)
                x = ended(nn.max_pool(x, (2, 2), (2, 2)), nn.relu)
        else:
            activation = {"relu": nn.relu, "tanh": nn.tanh, "gelu": nn.gelu}[model.activation]
        x = x.reshape(len(x), -1)
        for width in widths:
            x = ended(nn.Dense(width)(x), activation)
            if train and model.dropout:
                uniforms = jax.random.uniform(self.make_rng("dropout"), x.shape)
                x = jnp.where(uniforms >= model.dropout, x / (1 - model.dropout), 0)
        return nn.Dense(model.outputs)(x)


MODELS = {
    "mlp": HandMLP(widths=(16, 8), outputs=3),
    "mlp with all": HandMLP(widths=(16, 8), outputs=3, activation="tanh", dropout=0.4, batch_norm=True),
    "linear": HandMLP(widths=(), outputs=1),
    "cnn": HandCNN(filters=(4,), kernel=2, padding="valid", hidden=(), outputs=3),
    "cnn with all": HandCNN(filters=(4, 6), kernel=3, hidden=(10,), outputs=3, dropout=0.3, batch_norm=True),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODELS)
def test_values_gradients_and_statistics_are_those_of_flax(name: str, training: bool) -> None:
    model, x = MODELS[name], jnp.asarray(RNG.normal(size=(6, 7, 9, 2)), jnp.float32)
    variables = model.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: leaf + 0.1 * RNG.random(leaf.shape).astype(np.float32), variables)
    params, stats = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    weights = jnp.asarray(RNG.normal(size=(6, model.outputs)), jnp.float32)

    def made(module: nn.Module) -> Any:
        def loss(params: Any, x: jax.Array) -> Any:
            y, after = module.apply(
                {"params": params, **stats}, x, train=training, mutable=list(stats), rngs={"dropout": jax.random.key(1)}
            )
            return (weights * y).sum(), (y, after)

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)

    ours, theirs = made(model), made(Twin(model))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs), "the names of the arrays differ"
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5), ours, theirs)
    moved = any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (ours[1][1], stats)), strict=True))
    assert moved == (training and model.batch_norm)


def test_a_network_starts_as_its_key_and_its_initialiser_say() -> None:
    x, model = jnp.zeros((1, 400)), HandMLP(widths=(300,), outputs=10, initializer="he")
    start = lambda key, model=model: jax.jit(model.init)(jax.random.key(key), x)["params"]["Dense_0"]["kernel"]  # noqa: E731
    assert np.array_equal(start(0), start(0))
    assert not np.array_equal(start(0), start(1))
    assert np.std(start(0)) == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert np.std(start(0, model.clone(initializer="random"))) == pytest.approx(0.01, rel=0.02)
    assert np.abs(start(0, model.clone(initializer="xavier"))).max() == pytest.approx((6 / 700) ** 0.5, rel=0.01)


def test_the_caches_of_a_network_are_what_its_gradient_gets() -> None:
    """One forward pass a step: the gradient's call makes none of its own."""
    calls = []
    forward = by_hand.network.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[3].shape)
        return forward(*args, **kwargs)

    model, x = HandMLP(widths=(4,), outputs=10), jnp.ones((5, 3))
    variables = model.init(jax.random.key(0), x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_hand.network, "forward", counted)
        step = jax.jit(jax.grad(lambda v: model.apply(v, x).sum()))
        jax.block_until_ready(step(variables))
        traced = len(calls)
        jax.block_until_ready(step(variables))
    assert len(calls) - traced == 1


def test_dropout_by_hand_follows_its_key() -> None:
    model, x = HandMLP(widths=(1000,), outputs=1, dropout=0.25), jnp.ones((2, 3))
    variables = {
        "params": {
            "Dense_0": {"kernel": jnp.zeros((3, 1000)), "bias": jnp.ones(1000)},
            "Dense_1": {"kernel": jnp.ones((1000, 1)), "bias": jnp.zeros(1)},
        }
    }
    sums = [model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(key)}) for key in (0, 0, 1)]
    assert np.array_equal(sums[0], sums[1])
    assert not np.array_equal(sums[0], sums[2])
    assert sums[0][0] != sums[0][1], "both examples lost the same units"
    np.testing.assert_allclose(sums[0], 1000, rtol=0.06)
    np.testing.assert_array_equal(model.apply(variables, x), [[1000], [1000]])


def test_what_numpy_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = HandMLP(outputs=10, batch_norm=True), jnp.zeros((2, 3))
    variables = model.init(jax.random.key(0), x)
    with pytest.raises(UserError, match="--parallel=jit"):
        jax.pmap(lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"]), "data")(x[None])
    with pytest.raises(ValueError, match="5x5 convolution and a 2x2 pool do not fit into a map with a side of 4"):
        HandCNN(filters=(2, 2), kernel=5, outputs=10, padding="valid").init(
            jax.random.key(0), jnp.zeros((1, 12, 13, 1))
        )
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(UserError, match=r"gpu.*JAX_PLATFORMS=cpu"):
        HandMLP(outputs=10).init(jax.random.key(0), x)


def test_a_result_of_another_shape_or_dtype_is_an_error() -> None:
    like = jax.ShapeDtypeStruct((2,), np.float32)
    assert np.array_equal(jax.jit(lambda x: numpy_call(lambda x: x + 1, like, x))(np.zeros(2, np.float32)), [1, 1])
    assert np.array_equal(jax.vmap(lambda x: numpy_call(np.cumsum, like, x))(np.ones((3, 2), np.float32)), [[1, 2]] * 3)
    for wrong in (np.float32(0), np.zeros(2), np.zeros((1, 2), np.float32)):
        with pytest.raises(jax.errors.JaxRuntimeError, match="where float32"):
            jax.block_until_ready(numpy_call(lambda wrong=wrong: wrong, like))
    with pytest.raises(jax.errors.JaxRuntimeError, match="read-only"):
        jax.block_until_ready(numpy_call(lambda x: x.__iadd__(1), like, np.zeros(2, np.float32)))


ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import fdl, jax, jax.numpy as jnp
from fdl.models import HandMLP
model, x = HandMLP(widths=(64,), outputs=10, batch_norm=True), jnp.ones((20_000, 784))
variables = model.init(jax.random.key(0), x[:1])
def step(variables, x):
    loss = lambda p: (model.apply({**variables, "params": p}, x * 2, train=True, mutable=["batch_stats"])[0] ** 2).mean()
    grads = jax.grad(loss)(variables["params"])
    return {**variables, "params": jax.tree.map(lambda p, g: p - 1e-3 * g, variables["params"], grads)}
step = jax.jit(step)
for _ in range(15):
    variables = step(variables, x)
jax.block_until_ready(variables)
"""


def test_one_core_and_a_large_batch_do_not_lock() -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    env.pop("NPROC", None)
    subprocess.run([sys.executable, "-c", ONE_CORE], env=env, check=True, timeout=120)


# ---- optimizers -----------------------------------------------------------------------------------------------------

START = {
    "Dense_0": {"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)},
    "Dense_1": {"kernel": RNG.normal(size=(2, 4))},
}
START = jax.tree.map(lambda x: x.astype(np.float32), START)
OPTIMIZERS = [
    Optimizer(rule="sgd"),
    Optimizer(rule="momentum", schedule="cosine", warmup=0.2),
    Optimizer(rule="momentum", dampened=True),
    Optimizer(rule="nesterov", momentum=0.8, l2=0.1),
    Optimizer(rule="nesterov", dampened=True),
    Optimizer(rule="rmsprop", clip_norm=1.0),
    Optimizer(rule="adam", schedule="onecycle", freeze=("Dense_0/kernel",)),
    Optimizer(rule="adamw", b1=0.8, weight_decay=0.3, clip_value=0.5),
    Optimizer(rule="adamw", freeze=("Dense_0", "Dense_1")),
]


def trained(optimizer: Optimizer, steps: int = 20) -> Any:
    tx, _ = optimizer.build(steps)

    @jax.jit
    def step(params: Any, state: Any, at: Any) -> Any:
        grads = jax.tree.map(lambda w: jnp.sin(3 * w) + w, params)
        updates, state = tx.update(grads, state, params, step=at)
        return optax.apply_updates(params, updates), state

    params, state = START, jax.jit(tx.init)(START)
    for at in range(steps):
        params, state = step(params, state, at)
    return params


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o.rule}{'-dampened' * o.dampened}")
def test_optimizers_by_hand_and_optax_go_the_same_way(optimizer: Optimizer) -> None:
    optimizer = dataclasses.replace(optimizer, learning_rate=0.05)
    ours, theirs = trained(dataclasses.replace(optimizer, engine="numpy")), trained(optimizer)
    # Twenty steps of about 0.05. Optax takes 1 - 0.999^t in float32, which is 6e-5 off at first; by hand it is not.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), ours, theirs)


def test_dampened_momentum_is_its_equation() -> None:
    tx, _ = Optimizer(rule="momentum", dampened=True, momentum=0.9, learning_rate=7e-4).build(3)
    w, v, state = np.float32(1), 0.0, tx.init(jnp.float32(1))
    expected = 1.0
    for g in (1.0, -2.0, 0.5):
        updates, state = tx.update(jnp.float32(g), state, w, step=0)
        w, v = w + updates, 0.9 * v + 0.1 * g
        expected -= 7e-4 * v
    assert float(w) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rule": "adam", "dampened": True}, "dampened is of"), ({"engine": "numpy", "weight_decay": 0.1}, "use l2")],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Optimizer(**settings)


# ---- one logit ------------------------------------------------------------------------------------------------------


def test_one_logit_is_binary_cross_entropy() -> None:
    logits = RNG.normal(scale=3, size=(40, 1)).astype(np.float32)
    labels = RNG.integers(0, 2, 40).astype(np.int32)
    value, cache = scratch_losses.binary_cross_entropy(logits, labels[:, None])
    grads = scratch_losses.binary_cross_entropy_backward(1.0, cache)
    task = Classification()
    score = jax.jit(lambda z: task.score(z, {"targets": labels}))
    assert float(score(logits)["loss"].mean()) == pytest.approx(float(value), rel=1e-5)
    np.testing.assert_allclose(jax.grad(lambda z: score(z)["loss"].mean())(logits), grads, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(score(logits)["accuracy"], (logits[:, 0] > 0) == labels)


def stripes(request: Request) -> Splits:
    """Pictures of two of the three kinds."""
    rows = picture_rows(420)
    two = {name: leaf[rows["targets"] < 2][:260] for name, leaf in rows.items()}
    return Splits("stripes", "builtin", "drawn", *cut(two, 200), facts=Facts(classes=("above", "below")))


def small(**changes: Any) -> Experiment:
    base = {
        "data": Data(load=stripes, validation=40, prepare=(ops.Standardize(),), feed="numpy"),
        "model": HandCNN(filters=(3,), hidden=(6,), outputs=1, batch_norm=True, dropout=0.2),
        "optimizer": Optimizer(engine="numpy", learning_rate=1e-2),
        "steps": 30,
    }
    return tiny(**base | changes)


def finished(program: Program, workdir: Path) -> Any:
    loop.train(program, workdir, loop.Hooks())
    return saved_state(program, workdir)


def test_a_run_by_hand_learns_resumes_to_the_same_bits_and_draws_every_panel(tmp_path: Path) -> None:
    program = program_of(small())
    whole = finished(program, tmp_path / "whole")
    asked = itertools.chain([0] * 17, itertools.repeat(signal.SIGTERM))
    with pytest.raises(stopping.Interrupted):
        loop.train(program_of(small()), tmp_path / "cut", loop.Hooks(stop_signal=lambda: next(asked)))
    cut = finished(program_of(small()), tmp_path / "cut")
    assert saving.state_sha256(cut) == saving.state_sha256(whole)
    trained = view(program, whole.variables)
    panels = {panel.title: panel for draw in Classification().panels(trained) if (panel := draw())}
    assert {"Confusion matrix", "Choosing a threshold", "Predictions", "Precision and recall by class"} <= set(panels)
    logits = trained.outputs(program.data.splits.test)
    assert logits.shape == (60, 1)
    right = int(((logits[:, 0] > 0) == program.data.splits.test["targets"]).sum())
    assert right > 50
    assert panels["Confusion matrix"].caption.startswith(f"{right} of 60")


@pytest.mark.parametrize(("mode", "batch_norm"), [("jit", True), ("pmap", False)])
def test_two_devices_train_as_one(mode: str, batch_norm: bool) -> None:
    experiment = small(model=small().model.clone(dropout=0.0, batch_norm=batch_norm))
    states = []
    for program in (program_of(experiment), program_of(experiment, mode, devices=2)):
        state = program.compiled.initial_state()
        for batch in pipeline.numpy_feed(program.data.splits.train, program.stream, 0, 4):
            state, _ = program.compiled.train_step(state, layouts.shard(batch, program.layout), program.compiled.key)
        states.append(jax.device_get(state))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *states)


# ---- the pair -------------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Request:
    """A stand-in for Fashion-MNIST that is quickly drawn."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    drawn = standin.fashion(300, 100)
    monkeypatch.setattr(standin, "fashion", lambda: drawn)
    return Request(source="builtin", data_dir=tmp_path, offline=True)


def test_a_pair_of_classes(few: Request) -> None:
    whole, pair = sources.fashion_mnist(few), sources.fashion_pair(few, first="Coat", second="Bag")
    assert pair.name == "fashion_mnist Coat/Bag-standin"
    assert pair.classes == ("Coat", "Bag")
    assert not np.array_equal(pair.train["inputs"], sources.fashion_pair(few).train["inputs"])
    for ours, theirs in ((pair.train, whole.train), (pair.test, whole.test)):
        for label, name in enumerate(pair.classes):
            rows = theirs["inputs"][theirs["targets"] == whole.classes.index(name)]
            np.testing.assert_array_equal(ours["inputs"][ours["targets"] == label], rows)
        assert set(ours["targets"]) == {0, 1}
        assert ours["targets"].dtype == np.int32


def test_a_pair_that_is_none_is_refused(few: Request) -> None:
    with pytest.raises(UserError, match=r"'coats' is no class of fashion_mnist-standin; the nearest is 'Coat'"):
        sources.fashion_pair(few, second="coats")
    with pytest.raises(UserError, match="give two classes"):
        sources.fashion_pair(few, first="Coat")


# ---- the command line -----------------------------------------------------------------------------------------------

OWN = '''"""scratch_cnn on the bundled digits."""
import dataclasses
from experiments.scratch_cnn import experiment as base
from fdl.data import sources


def experiment():
    cnn = base()
    model = cnn.model.clone(filters=(4,), kernel=3, hidden=(16,))
    data = dataclasses.replace(cnn.data, load=sources.digits, validation=200, augment=())
    return dataclasses.replace(cnn, data=data, model=model)
'''


def test_the_command_line(fdl_main: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    run = ["--experiment=own.py", "--set=steps=60", "--set=optimizer.learning_rate=1e-2", "--workdir=run"]
    done = fdl_main(*run)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "complete"
    assert summary["metrics"]["test/accuracy"] > 0.5
    # Of the layers table: 6x6 positions of the convolution, 9 weights into 4 maps each; the dense layers once.
    assert f"{2 * (6 * 6 * 9 * 4 + 3 * 3 * 4 * 16 + 16 * 10):,} FLOPs an example" in done.stdout
    picture = tmp_path / "seven.png"
    Image.fromarray(RNG.integers(0, 255, (8, 8), np.uint8)).save(picture)
    done = fdl_main(*run, "--mode=predict", f"--input={picture}", "--output=out")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 1
