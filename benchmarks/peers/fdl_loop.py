"""fdl as it is: the real loop, with its feed, metrics and logs; only evaluation, validation and saves in between are off."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import signal
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

from fdl import environment

environment.keep_freed_memory()
environment.enable_compile_cache()

import jax  # noqa: E402

from benchmarks.peers import common  # noqa: E402
from fdl.data import Request, Splits, ops, pipeline  # noqa: E402
from fdl.distributed import layouts  # noqa: E402
from fdl.experiment import Experiment, load_experiment  # noqa: E402
from fdl.optim import Optimizer  # noqa: E402
from fdl.rundir import logs  # noqa: E402
from fdl.train import loop, stopping  # noqa: E402
from fdl.train.program import build  # noqa: E402

NEVER = 2**31 - 1
BARE = ["model.dropout=0", "task.label_smoothing=0"]
NETS = {
    "mlp": ("fashion_mlp", [*BARE, "model.batch_norm=false"]),
    "cnn": ("fashion_cnn", [*BARE, "model.batch_norm=false"]),
    "resnet18": ("cifar10_resnet", BARE[1:]),
    "resnet50": ("imagenet_resnet50", BARE[1:]),
    **{cell: ("shakespeare_lstm", [*BARE[:1], f"model.cell={cell}"]) for cell in ("lstm", "gru", "rnn")},
}


def experiment_of(spec: common.Spec) -> Experiment:
    """The experiment that trains the spec's net, on the spec's rows; its "overrides" come last."""
    name, overrides = NETS[spec["net"]]
    width = {"mlp": "model.widths", "cnn": ""}.get(spec["net"], "model.width")
    outputs = "model.vocabulary" if spec["net"] in ("lstm", "gru", "rnn") else "model.outputs"
    never = [f"{what}_every={NEVER}" for what in ("eval", "save")] + ["sample_every=0", f"steps={NEVER}"]
    sizes = [f"{width}={spec['width']}"] * bool(width) + [f"{outputs}={spec['classes']}", f"log_every={spec['every']}"]
    plain = dataclasses.replace(load_experiment(name, overrides), optimizer=Optimizer(rule="adam", learning_rate=1e-3))
    data = dataclasses.replace(
        plain.data, load=lambda request: splits_of(spec), validation=0, augment=(),
        prepare=(ops.NextToken() if len(spec["shape"]) == 1 else ops.Standardize("unit"),),
    )  # fmt: skip
    from fdl.experiment.overrides import override

    plain = dataclasses.replace(plain, data=data, batch_size=spec["batch"], name=name)
    return override(plain, *never, *sizes, *spec.get("overrides", []))


def splits_of(spec: common.Spec) -> Splits:
    inputs, targets = common.rows(spec)
    held = {"inputs": inputs} | ({} if targets is None else {"targets": targets})
    test = {name: column[:16] for name, column in held.items()}
    return Splits("rows", "builtin", "given", held, test)


def without_tensorboard() -> None:
    """Where there is no tensorboardX, events are written nowhere; metrics.jsonl is."""
    if importlib.util.find_spec("tensorboardX") is None:
        nowhere = types.SimpleNamespace(add_scalar=lambda *args: None)
        module: Any = types.ModuleType("tensorboardX")
        module.SummaryWriter = lambda *args, **options: contextlib.nullcontext(nowhere)
        sys.modules["tensorboardX"] = module


def measure(spec: common.Spec) -> None:
    experiment, clock = experiment_of(spec), common.Clock(spec)
    program = build(experiment, pipeline.load(experiment.data, Request()), 0, layouts.choose_layout("auto"))
    ends: list[float] = []

    def first_step() -> None:
        clock.first = common.age()
        ends.append(time.monotonic() + 1.2 * (spec["warm_up"] + spec["seconds"]))

    def asked() -> int:
        return signal.SIGTERM if ends and time.monotonic() >= ends[0] else 0

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        with contextlib.suppress(stopping.Interrupted):
            loop.train(program, Path(folder), loop.Hooks(stop_signal=asked, first_step=first_step))
        rows = [row for row in logs.read_rows(Path(folder)) if "examples_per_second" in row]
    # A row tells the rate of the steps since the row before it.
    warm, steps, seconds, at = 0.0, 0, 0.0, 1
    for row in rows:
        count, at = row["step"] - at, row["step"]
        took = count * spec["batch"] / row["examples_per_second"]
        if warm < spec["warm_up"] and row is not rows[-1]:
            warm += took
        else:
            steps, seconds = steps + count, seconds + took
    clock.rate = steps * spec["batch"] * spec["per_row"] / seconds
    clock.steps, clock.loss = at, rows[-1]["train/loss"]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(program.state_spec.params))
    common.report(clock, parameters, "fdl", "jax", "jaxlib", "flax", "optax")


if __name__ == "__main__":
    without_tensorboard()
    for spec in common.specs():
        measure(spec)
