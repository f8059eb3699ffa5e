"""FLOPs of steps and of layers against the closed formulas of their papers."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn
from forked import Command
from small import program_of, small

from fdl.data import Data, Request, augment, ops, pipeline, sources
from fdl.distributed import layouts
from fdl.models import CNN, MLP, Recurrent
from fdl.report import describe
from fdl.tasks import LanguageModel
from fdl.train import resident
from fdl.train.program import build
from fdl.train.tracing import step_flops


def lstm_step(batch: int, length: int, width: int, vocabulary: int) -> float:
    """Of an LSTM over one-hot characters: the input is a look-up; forward, and both gradients of each product."""
    recurrent, output = width * 4 * width, width * vocabulary
    return 3 * 2 * batch * length * (recurrent + output)


def test_a_dry_run_of_shakespeare_says_what_the_formula_says(run_fdl: Command, tmp_path: Path) -> None:
    flags = ("--set=model.vocabulary=65", "--dry_run", "--offline")
    done = run_fdl(tmp_path, "--experiment=shakespeare_lstm", *flags)
    step = int(re.search(r"one training step of 32: ([\d,]+) FLOPs", done.stdout)[1].replace(",", ""))  # type: ignore[index]
    assert step == pytest.approx(lstm_step(32, 128, 512, 65), rel=0.02)
    example = int(re.search(r"([\d,]+) FLOPs an example forward", done.stdout)[1].replace(",", ""))  # type: ignore[index]
    assert example == 2 * 128 * (512 * 2048 + 512 * 65), "a training row has 128 characters, a test row 512"


def test_layers_are_those_of_the_step(tmp_path: Path) -> None:
    """Forward by hand, layer by layer; the rest of the step is two more products for each, but for the first input's."""
    model = CNN(filters=(4,), dense=(16,), outputs=3)
    program = program_of(small(model=model, batch_size=24))
    by_name = {layer.name: layer for layer in describe.layers(program)}
    side = 8  # of a picture, pixels; 3 x 3 kernels, valid, after each a pool that halves
    one = 2 * (side - 2) ** 2 * 9 * program.data.splits.train["inputs"].shape[-1] * 4
    assert by_name["conv1"].flops == one
    assert by_name["output"].flops == 2 * 16 * 3
    total = sum(layer.flops for layer in by_name.values())
    assert step_flops(program) == 24 * (3 * total - one)


def test_modules_that_are_nested_or_called_twice_have_their_own_products() -> None:
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):  # type: ignore[no-untyped-def]
            dense = nn.Dense(7, name="shared")
            return dense(nn.relu(dense(x)))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):  # type: ignore[no-untyped-def]
            x = x.reshape(len(x), -1)
            table = self.param("table", nn.initializers.normal(), (x.shape[-1], 7))
            return nn.Dense(3, name="output")(Block(name="block")(x @ table))

    program = program_of(small(model=Net(), batch_size=8))
    inputs = int(np.prod(program.data.splits.train["inputs"].shape[1:]))
    found = {layer.name: (layer.params, layer.flops) for layer in describe.layers(program)}
    assert found == {
        "Net": (7 * inputs, 2 * 7 * inputs),
        "block/shared": (7 * 7 + 7, 2 * 2 * 7 * 7),
        "output": (7 * 3 + 3, 2 * 7 * 3),
    }


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_the_layout_changes_no_count(mode: str) -> None:
    one, several = (program_of(small(batch_size=16, eval_batch_size=16), devices=n) for n in (1, 4))
    several = dataclasses.replace(several, layout=layouts.Layout(mode, several.layout.mesh))  # type: ignore[arg-type]
    assert step_flops(several) == step_flops(one)


def test_the_loop_on_the_device_is_chosen_by_the_same_count() -> None:
    """A step of 700 MFLOP in a scan, which XLA's own analysis counts as one of 6."""
    data = Data(
        load=functools.partial(sources.tiny_shakespeare, length=128, eval_length=128),
        augment=(augment.RandomWindow(),), prepare=(ops.NextToken(),),
    )  # fmt: skip
    model = Recurrent(vocabulary=65, width=128, cell="lstm")
    experiment = dataclasses.replace(small(), data=data, model=model, task=LanguageModel(), batch_size=14)
    splits = pipeline.load(experiment.data, Request(offline=True))
    program = build(experiment, splits, 0, layouts.choose_layout("jit", jax.devices()[:1]))
    assert step_flops(program) > resident.MAX_FLOPS > (program.compiled.lowered_step.cost_analysis() or {})["flops"]
    assert "long enough" in program.compiled.why_not_looped
    assert program_of(small(model=MLP(widths=(8,), outputs=3))).compiled.why_not_looped == ""
