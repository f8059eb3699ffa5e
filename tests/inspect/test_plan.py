from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fdl.data import Data, Facts, Request, Splits, ops, pipeline
from fdl.distributed import layouts
from fdl.experiment import Experiment, load_experiment
from fdl.flops import count_flops
from fdl.inspect import chips, costs, plan
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification
from fdl.train.program import Program, build
from fdl.types import UserError

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install -e '.[tpu]'"
)


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("v5e:2x4", ("v5e", (2, 4))), ("v5e-8", ("v5e", (2, 4))), ("v5litepod-8", ("v5e", (2, 4))),
        ("v5e-1", ("v5e", (1, 1))), ("v5e-256", ("v5e", (16, 16))), ("v6e-16", ("v6e", (4, 4))),
        ("v2-8", ("v2", (2, 2))), ("v3-32", ("v3", (4, 4))), ("v4-8", ("v4", (2, 2, 1))), ("v5p-128", ("v5p", (4, 4, 4))),
        ("v4:2x2x2", ("v4", (2, 2, 2))), ("cpu:8", ("cpu", (8,))),
    ],
)  # fmt: skip
def test_both_ways_to_name_a_slice(name: str, parsed: tuple[str, tuple[int, ...]]) -> None:
    assert chips.parse(name) == parsed


@pytest.mark.parametrize("name", ["v9-8", "v5e", "v5e-7", "v5e:2by4", "v5e:0x4", "cpu:0", "cpu:2x4", "", "tpu"])
def test_an_unknown_slice_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"v5e:2x4.* v2-8 .*v5e-1 .*v5e-256 .*v6e-8"):
        chips.devices(name)


def test_without_libtpu_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[tpu\]'"):
        chips.devices("v5e-8")


def test_more_cpus_than_the_environment_gives_are_refused() -> None:
    assert list(chips.devices("cpu:4")) == jax.devices()[:4]
    with pytest.raises(UserError, match=r"XLA_FLAGS.* gives 8"):
        chips.devices("cpu:64")


# ---- FLOPs ----------------------------------------------------------------------------------------------------------


def test_flops_of_products_by_hand() -> None:
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    product = 2 * 3 * 5 * 7
    assert count_flops(jax.make_jaxpr(jnp.dot)(a, b)) == product
    assert count_flops(jax.make_jaxpr(jax.jit(lambda a: (a @ b).sum()))(a)) == product
    assert (
        count_flops(jax.make_jaxpr(lambda a: lax.scan(lambda c, x: (c, x @ b), 0, a))(jnp.ones((11, 3, 5))))
        == 11 * product
    )
    both = lambda a: lax.cond(a[0, 0] > 0, lambda a: a @ b, lambda a: a @ b @ b.T @ b, a)  # noqa: E731
    assert count_flops(jax.make_jaxpr(both)(a)) == 3 * product


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("groups", [1, 2])
def test_flops_of_a_convolution_and_its_gradients_are_those_of_xla(stride: int, padding: str, groups: int) -> None:
    def loss(x: Any, kernel: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups
        )

    x, kernel = jnp.ones((2, 9, 8, 4)), jnp.ones((3, 3, 4 // groups, 6))
    out, pull = jax.vjp(loss, x, kernel)
    for function, args in ((loss, (x, kernel)), (pull, (out,))):
        xla = jax.jit(function).lower(*args).cost_analysis()["flops"]
        assert count_flops(jax.make_jaxpr(function)(*args)) == xla


# ---- the compiler's text --------------------------------------------------------------------------------------------

HLO = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p: f32[64]) -> f32[8] {
  %p = f32[64]{0:T(128)} parameter(0)
  %all-reduce.9 = f32[64]{0:T(128)} all-reduce(%p), replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %slice.1 = f32[8]{0:T(128)} dynamic-slice(%all-reduce.9), dynamic_slice_sizes={8}
}

%cond (c: (s32[], f32[16])) -> pred[] {
  %c = (s32[], f32[16]{0}) parameter(0)
  %bound = s32[] constant(10)
  %at = s32[] get-tuple-element(%c), index=0
  ROOT %lt = pred[] compare(%at, %bound), direction=LT
}

%body (c.1: (s32[], f32[16])) -> (s32[], f32[16]) {
  %c.1 = (s32[], f32[16]{0}) parameter(0)
  %x = f32[16]{0} get-tuple-element(%c.1), index=1
  %permuted = f32[16]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  ROOT %both = (s32[], f32[16]{0}) tuple(%x, %permuted)
}

ENTRY %main (p0: f32[100], p1: f32[8], p2: bf16[4,4]) -> f32[100] {
  %p0 = f32[100]{0:T(128)} parameter(0)
  %p1 = f32[8]{0:T(128)} parameter(1)
  %p2 = bf16[4,4]{1,0:T(4,128)(2,1)} parameter(2)
  %all-reduce.1 = (f32[100]{0:T(128)S(1)}, /*index=1*/bf16[4,4]{1,0:T(4,128)(2,1)}) all-reduce(%p0, %p2), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %all-gather-start.1 = (f32[8]{0:T(128)}, f32[64]{0:T(128)}) all-gather-start(%p1), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}, dimensions={0}
  %all-gather-done.1 = f32[64]{0:T(128)} all-gather-done(%all-gather-start.1)
  %fusion.1 = f32[8]{0:T(128)} fusion(%all-gather-done.1), kind=kCustom, calls=%all-reduce-scatter.1
  %loop = (s32[], f32[16]{0}) while(%tuple.1), condition=%cond, body=%body
  %get-tuple-element.5 = f32[100]{0:T(128)S(1)} get-tuple-element(%all-reduce.1), index=0
  ROOT %copy.1 = f32[100]{0:T(128)} copy(%get-tuple-element.5)
}
"""  # noqa: E501


def test_collectives_of_a_text() -> None:
    assert costs.collectives(HLO, 8) == (
        costs.Collective("all-gather", 1, 64 * 4, 8),
        costs.Collective("all-reduce", 1, 100 * 4 + 16 * 2, 4),
        costs.Collective("collective-permute", 10, 10 * 16 * 4, 8),
        costs.Collective("reduce-scatter", 1, 64 * 4, 8),
    )


def test_a_ring_sends_what_it_must() -> None:
    assert costs.Collective("all-reduce", 1, 800, 4).sent == 2 * 800 * 3 / 4
    assert costs.Collective("all-gather", 1, 800, 8).sent == costs.Collective("reduce-scatter", 2, 800, 8).sent == 700
    assert costs.Collective("collective-permute", 3, 800, 8).sent == 800
    assert costs.Collective("all-reduce", 1, 800, 1).sent == 0


def test_hbm_traffic_of_a_text() -> None:
    reduced = 400 + 32 + 32  # both operands; of the results one stays on the chip
    gathered, scattered = 32 + 256, 256 + 32
    assert costs.hbm_traffic(HLO) == reduced + gathered + scattered + 10 * (64 + 64) + 400


def test_prefetched_slices_and_scanned_arrays_are_read_once() -> None:
    text = """
%cond (c: (s32[], f32[10,4])) -> pred[] {
  %bound = s32[] constant(10)
}
%body (c: (s32[], f32[10,4])) -> (s32[], f32[10,4]) {
  %c = (s32[], f32[10,4]{1,0}) parameter(0)
  %xs = f32[10,4]{1,0} get-tuple-element(%c), index=1
  %y = f32[4]{0:S(1)} fusion(%xs), kind=kLoop, calls=%none
}
ENTRY %main (p: f32[64,8]) -> f32[] {
  %p = f32[64,8]{1,0} parameter(0)
  %slice-start = ((f32[64,8]{1,0}), f32[16,8]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:16], [0:8]}
  %slice-done = f32[16,8]{1,0:S(1)} slice-done(%slice-start)
  %copy-start = (f32[64,8]{1,0:S(1)}, f32[64,8]{1,0}, u32[]{:S(2)}) copy-start(%p)
  %while = (s32[], f32[10,4]{1,0}) while(%t), condition=%cond, body=%body
}
"""
    sliced, copied, scanned = 16 * 8 * 4 + 4, 64 * 8 * 4, 10 * 4 * 4
    assert costs.hbm_traffic(text) == sliced + copied + scanned


# ---- arithmetic -----------------------------------------------------------------------------------------------------


def test_the_roofline_by_hand() -> None:
    chip = chips.Chip("x", hbm=16e9, flops=100e12, bandwidth=800e9, ici=100e9, rank=2, cores=1)
    times = plan.roofline(chip, 2e12, 4e9, (costs.Collective("all-reduce", 1, 800_000_000, 8),))
    assert times == pytest.approx({"compute": 0.02, "memory": 0.005, "network": 0.014})


def test_the_largest_batch_by_hand() -> None:
    assert plan.extrapolate({100: 2e9, 200: 3e9}, 10e9, 8) == 896  # 1 GB and 10 MB an example
    assert plan.extrapolate({8: 1e9, 100: 2e9, 200: 3e9}, 10e9, 8) == 896, "the two largest decide"
    assert plan.extrapolate({100: 20e9, 12: 11.2e9}, 10e9, 4) == 0
    assert plan.extrapolate({100: math.nan, 12: 11.2e9}, 10e9, 4) is None
    assert plan.extrapolate({100: 2e9, 200: 2e9}, 10e9, 4) is None


def test_what_the_compiler_says_of_a_program_too_large() -> None:
    said = "Ran out of memory in memory space hbm. Used 20.25G of 15.75G hbm. Exceeded hbm capacity by 4.50G."
    assert plan._used(said, 1.0) == 20.25 * 2**30
    said = "Ran out of memory on HBM, the total memory required for HLO temporaries (21.50G) exceeds available HBM (15.75G)."
    assert plan._used(said, 2.0**30) == 22.5 * 2**30
    assert math.isnan(plan._used("no such words", 1.0))


# ---- whole plans ----------------------------------------------------------------------------------------------------


def rows(request: Request) -> Splits:
    part = {"inputs": np.zeros((64, 8, 8, 1), np.uint8), "targets": np.zeros(64, np.int32)}
    return Splits("rows", "builtin", "drawn", part, part, facts=Facts(classes=("a", "b", "c")))


def small(**changes: Any) -> Experiment:
    base = Experiment(
        data=Data(load=rows, prepare=(ops.Standardize(),), feed="numpy"), model=MLP(widths=(16,), outputs=3),
        task=Classification(), optimizer=Optimizer(learning_rate=1e-2), batch_size=32, eval_batch_size=32, name="small",
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def program_of(experiment: Experiment, topology: str, mode: Any = "auto", mesh: str = "") -> Program:
    data = pipeline.load(experiment.data, Request(offline=True), experiment.num_examples)
    return build(experiment, data, 0, layouts.choose_layout(mode, chips.devices(topology), mesh=mesh))


@pytest.mark.parametrize(
    ("rows_of_data", "hbm", "expected"),
    [
        (100, 1e12, 96),
        (10**9, 1e6, 8 * int((1e6 - 1000) / 100 / 8)),
        (10**9, 1e9, None),
        (8, 1e12, 32),
        (100, 9000, 80),
    ],
)
def test_no_batch_is_larger_than_the_data_and_none_is_compiled(
    monkeypatch: pytest.MonkeyPatch, rows_of_data: int, hbm: float, expected: int | None
) -> None:
    """A device whose program takes 1000 bytes, and 100 for each example."""
    program = program_of(small(), "cpu:8", "jit")
    compiled: list[int] = []

    def measure(other: Program) -> tuple[plan.Memory, str, float]:
        compiled.append(other.experiment.batch_size)
        return plan.Memory({}, 1000 + 100 * other.experiment.batch_size), "", 1.0

    monkeypatch.setattr(plan, "measure", measure)
    monkeypatch.setattr(plan, "count_examples", lambda rows: rows_of_data)
    made = plan.plan(program, "cpu:8")
    batch = program.experiment.batch_size
    made = dataclasses.replace(made, chip=dataclasses.replace(chips.CHIPS["v5e"], hbm=hbm))
    found, points = plan.largest_batch(program, made)
    assert max(compiled) <= max(batch, rows_of_data)
    assert found == (expected if expected is not None else int((hbm - 1000) / 100) // 8 * 8)
    assert points[batch] == 1000 + 100 * batch


@pytest.mark.parametrize("mode", ["pmap", "jit"])
def test_a_plan_for_virtual_cpus(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan.plan(program_of(small(), "cpu:8", mode), "cpu:8")
    (reduction,) = made.collectives
    parameters = 64 * 16 + 16 + 16 * 3 + 3
    assert (reduction.kind, reduction.count, reduction.group) == ("all-reduce", 1, 8)
    assert parameters * 4 <= reduction.bytes <= parameters * 4 + 32, "the gradients and a few metrics"
    assert made.memory.parts["parameters"] == parameters * 4
    assert made.memory.parts["optimizer state"] == 2 * parameters * 4 + 4  # Adam's moments and its count
    assert made.memory.parts["batch"] == 32 // 8 * (64 + 4)
    # Forward, and backward the kernels' gradients and that of the hidden layer.
    assert made.flops == 2 * 32 * (2 * 64 * 16 + 3 * 16 * 3)
    assert made.fits is None
    assert made.seconds == {}
    plan.show(made)
    assert "1 x all-reduce over 8 devices" in capsys.readouterr().out


def test_parameters_cut_over_devices_take_their_part_of_memory() -> None:
    wide = small(model=MLP(widths=(1024,), outputs=3))
    whole = plan.measure(program_of(wide, "cpu:8"))[0].parts
    cut = plan.measure(program_of(wide, "cpu:8", "jit", "fsdp:8"))[0].parts
    for part in ("parameters", "optimizer state"):
        assert whole[part] / 8 <= cut[part] < whole[part] / 7


@needs_libtpu
@pytest.mark.parametrize("mode", ["pmap", "jit"])
def test_a_plan_for_eight_tpus(mode: str) -> None:
    program = program_of(small(), "v5e:2x4", mode)
    made = plan.plan(program, "v5e:2x4")
    assert [(each.kind, each.count, each.group) for each in made.collectives] == [("all-reduce", 1, 8)]
    assert entry_shapes(program, "u8") == {(4, 8, 8, 1)}, "each device is given its eighth of the batch"
    assert made.fits
    assert made.memory.parts["parameters"] <= made.memory.total < 64 * 2**20
    assert set(made.seconds) == {"compute", "memory", "network"}
    assert 0 < made.traffic < 2**20


def entry_shapes(program: Program, dtype: str) -> set[tuple[int, ...]]:
    """Shapes that one device is given, without dimensions of 1 in front, of one dtype."""
    text = program.compiled.train_step.as_text()
    entry = next(line for line in text.splitlines() if line.startswith("ENTRY")).split("->")[0]
    found = {tuple(int(size) for size in part.split("]")[0].split(",")) for part in entry.split(f" {dtype}[")[1:]}
    return {shape[1:] if shape[0] == 1 else shape for shape in found}


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pmap", "jit"])
@pytest.mark.parametrize(
    ("name", "reductions", "dtype", "given"),
    [
        # Two for each BatchNorm (three of them, forward and backward) and one for the gradients.
        ("fashion_cnn", 7, "u8", (16, 28, 28, 1)),
        ("shakespeare_lstm", 1, "u8", (4, 256)),
    ],
)
def test_the_experiments_keep_their_collectives_on_eight_tpus(
    name: str, reductions: int, dtype: str, given: tuple[int, ...], mode: str
) -> None:
    experiment = load_experiment(name, ["data.source=builtin", "num_examples=512"])
    program = program_of(experiment, "v5e:2x4", mode)
    made = plan.plan(program, "v5e:2x4")
    assert [(each.kind, each.count) for each in made.collectives] == [("all-reduce", reductions)]
    assert entry_shapes(program, dtype) == {given}


@needs_libtpu
def test_a_state_larger_than_one_chip_fits_on_eight() -> None:
    wide = small(model=MLP(widths=(40000, 40000), outputs=3))  # 1.6e9 parameters, with Adam's moments 18 GiB
    one = plan.plan(program_of(wide, "v5e-1"), "v5e-1")
    assert one.fits is False
    assert "HBM" in one.memory.error or "hbm" in one.memory.error
    eight = plan.plan(program_of(wide, "v5e-8", "jit", "fsdp:8"), "v5e-8")
    assert eight.fits
    state = 12 * 40000 * (64 + 1 + 40000 + 1 + 3)
    assert state > 16e9
    assert state / 8 < eight.memory.total < state / 4


@needs_libtpu
@pytest.mark.slow
def test_nine_tenths_of_the_largest_batch_fit_and_half_as_much_again_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "count_examples", lambda rows: 10**9)  # else the data would decide
    experiment = small(model=MLP(widths=(2048,), outputs=3))
    program = program_of(experiment, "v5e-1")
    found, points = plan.largest_batch(program, plan.plan(program, "v5e-1"))
    assert found is not None
    assert len(points) >= 2
    for factor, fits in ((0.9, True), (1.5, False)):
        size = int(found * factor) // 8 * 8
        other = dataclasses.replace(program, experiment=dataclasses.replace(experiment, batch_size=size))
        assert (plan.measure(other)[0].error == "") is fits, f"{size} of {found}"


def test_the_command_line_needs_no_tpu_to_start(tmp_path: Path) -> None:
    """With libtpu installed or not, JAX comes up on the CPU without a word."""
    import os
    import subprocess
    import sys

    env = {k: v for k, v in os.environ.items() if not k.startswith(("TPU_", "JAX_", "XLA_", "ALLOW_"))}
    code = "import fdl, jax; assert jax.default_backend() == 'cpu', jax.devices()"
    root = str(Path(chips.__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env | {"PYTHONPATH": root},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
