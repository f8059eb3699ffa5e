"""fdl on the default accelerator: a bare product, small nets, time to an accuracy, ResNet-50, and an LSTM beside cuDNN's.

Needs jax, flax, optax, orbax and numpy; no TensorFlow, no network. Where torch has the same GPU it is the LSTM's peer. This
process keeps off the accelerator: each measurement is a process of its own.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import cpu, peers
from benchmarks.workloads import WORKLOADS, Workload, flops, spec
from fdl.types import UserError

PARTS = ("matmul", "small", "target", "resnet50", "lstm")
TARGETS = {0.93: [], 0.94: ["steps=40epochs"]}
"""Accuracy on the rows held out for it -> what the experiment fashion_cnn has to be told to reach it."""
BFLOAT16 = ["model.dtype=bfloat16"]

NETS = {
    "small": {
        "fashion_mlp_128": (dataclasses.replace(WORKLOADS["fashion_mlp_128"], every=50), []),
        "fashion_cnn_128": (dataclasses.replace(WORKLOADS["fashion_cnn_128"], every=50), []),
    },
    "resnet50": {"resnet50_128": (Workload("resnet50", 128, (224, 224, 3), 1000, (), rows=1024), BFLOAT16)},
    "lstm": {"lstm_1024": (Workload("lstm", 64, (129,), 65, ("torch_eager",), 1024, rows=7_700), BFLOAT16)},
}
SMALL = {"batch": 2, "rows": 16, "every": 2}
"""What is changed of every workload where there is no accelerator."""
WAYS = {"rows on the device": "data.resident=true", "NumPy feed": "data.resident=false"}


def measure(only: list[str], rounds: int, data_dir: str | None, allow_cpu: bool = False) -> list[dict[str, Any]]:
    """A row a part and way; without an accelerator one row that says so, unless `allow_cpu`.

    Raises:
        UserError: a part is unknown.
    """
    for name in only:
        if name not in PARTS:
            raise UserError(f"{name}: there is no such part; there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as cache:
        product = peers.run("matmul", {"size": 256, "dtype": "bfloat16", "seconds": 0.1}, cache=cache, device="")
        tiny = product.get("platform", "cpu") == "cpu"
        if tiny and not allow_cpu:
            return [{"part": "gpu", "found": product.get("error", "no accelerator here, only CPUs: nothing measured")}]
        size, chain, seconds = (256, 2, 0.1) if tiny else (8192, 20, 3.0)
        told = {"size": size, "dtype": "bfloat16", "chain": chain, "seconds": seconds}
        products = cpu.alternate(
            ("matmul",), rounds, lambda system: _rate(peers.run(system, told, cache=cache, device=""))
        )
        rates = [result["rate"] for result in products["matmul"] if "rate" in result]
        best = max(rates, default=math.nan)
        about = f"{product.get('device')}" + ", no accelerator: all of it tiny, to see that it works" * tiny
        rows = [
            _row("matmul", f"bfloat16 {size}x{size}, {about}", cpu.spread([r / 1e12 for r in rates], ".1f"), "TFLOP/s")
        ]
        for part in ("small", "resnet50", "lstm"):
            if part in (only or PARTS):
                for name, (workload, overrides) in NETS[part].items():
                    rows += _net(name, workload, overrides, rounds, best, cache, tiny)
        if "target" in (only or PARTS):
            rows += _targets(rounds, data_dir, tiny)
    return rows


def _rate(product: dict[str, Any]) -> dict[str, Any]:
    return product if "error" in product else {"rate": product["flops"]}


def _row(part: str, what: str, found: str, unit: str, more: str = "", results: Any = None) -> dict[str, Any]:
    return {"part": part, "what": what, "found": found, "unit": unit, "more": more, "_results": results}


def _net(
    name: str, workload: Workload, overrides: list[str], rounds: int, best: float, cache: str, tiny: bool
) -> list[dict[str, Any]]:
    """Both ways to feed, and the peers, alternated."""
    if tiny:
        shape = (33,) if workload.recurrent else (32, 32, 3) if workload.net == "resnet50" else workload.shape
        workload = dataclasses.replace(workload, shape=shape, width=min(workload.width, 16), **SMALL)
    more = {"warm_up": 0.1, "seconds": 0.2} if tiny else {"warm_up": 2.0, "seconds": 5.0}

    def run(system: str) -> dict[str, Any]:
        own = WAYS.get(system)
        told = spec(workload, **more, device="cpu" if tiny else "cuda", amp=True)
        return peers.run(
            "fdl_loop" if own else system,
            told | {"overrides": [*overrides, own] if own else []},
            cache=cache,
            device="",
        )

    found = cpu.alternate((*WAYS, *workload.peers) if workload.recurrent else tuple(WAYS), rounds, run, name)
    rows, unit = [], "tokens/s" if workload.recurrent else "images/s"
    for system, results in found.items():
        good = [result for result in results if "error" not in result]
        failed = next((result["error"] for result in results if "error" in result), "")
        rates = [result["rate"] for result in good]
        used = sorted(rates)[len(rates) // 2] * flops(workload) / workload.per_row / best if rates else math.nan
        share = f"{used:.1%} of the bfloat16 product; first step {cpu.spread([r['first_step'] for r in good], '.1f')} s"
        if system not in WAYS and rates:
            ratio = cpu.ratios(found["rows on the device"], results, "rate")
            share += f"; fdl / it {cpu.spread(ratio, '.2f')}"
        what = f"{'fdl, ' if system in WAYS else ''}{system}{', bfloat16' if overrides else ''}"
        rows.append(_row(name, what, cpu.spread(rates) if rates else failed, unit, share if rates else "", results))
    return rows


def _targets(rounds: int, data_dir: str | None, tiny: bool) -> list[dict[str, Any]]:
    """Seconds to an accuracy on the validation rows, on real Fashion-MNIST: a seed a round."""
    real = data_dir and any((Path(data_dir) / name).is_dir() for name in ("fashion-mnist", "fashion_mnist"))
    if not real and not tiny:
        return [_row("target", "time to 93 % and 94 %", "skipped: no fashion-mnist in --data_dir", "")]
    rows = []
    for accuracy, overrides in TARGETS.items():
        given = (
            ["steps=6", "eval_every=3", "num_examples=256", "model.filters=4,4", "data.source=builtin"]
            if tiny
            else overrides
        )
        found = [_target(accuracy, seed, given, data_dir) for seed in range(rounds)]
        good = [result for result in found if result.get("reached")]
        failed = [
            result.get("error", f"not reached: {result.get('validation', 0):.2%}")
            for result in found
            if result not in good
        ]
        tests = cpu.spread([result["test"] for result in good], ".2%")
        whole = cpu.spread([result["from_start"] for result in good], ".1f")
        words = f"{len(good)} of {rounds} seeds; test {tests}; {whole} s from the process's start; {'; '.join(failed)}"
        seconds = cpu.spread([result["training"] for result in good], ".2f")
        rows.append(
            _row("target", f"fashion_cnn to {accuracy:.0%} of validation", seconds, "s of training", words, found)
        )
    return rows


def _target(accuracy: float, seed: int, overrides: list[str], data_dir: str | None) -> dict[str, Any]:
    told = {"accuracy": accuracy, "seed": seed, "overrides": overrides, "data_dir": data_dir}
    command = [sys.executable, "-m", "benchmarks.gpu", json.dumps(told)]
    env = peers.environment("fdl_loop", device="")
    done = subprocess.run(
        command, env=env | {"PYTHONPATH": str(peers.ROOT)}, capture_output=True, text=True, timeout=900
    )
    lines = done.stdout.strip().splitlines()
    return (
        dict(json.loads(lines[-1]))
        if done.returncode == 0
        else {"error": (done.stderr.splitlines() or ["?"])[-1][:160]}
    )


def _train_to(told: dict[str, Any]) -> dict[str, Any]:
    """In the process of its own: the recipe, stopped at the accuracy; then the chosen state on the test split."""
    import contextlib
    import io

    from benchmarks.peers import common, fdl_loop

    fdl_loop.without_tensorboard()
    from fdl.data import Request, pipeline
    from fdl.distributed import layouts
    from fdl.experiment import load_experiment
    from fdl.rundir import logs
    from fdl.train import loop
    from fdl.train.evaluation import evaluate
    from fdl.train.program import build
    from fdl.train.restore import restore_best

    experiment = load_experiment("fashion_cnn", [f"stop_at={told['accuracy']}", *told["overrides"]])
    folder = Path(told["data_dir"]) if told["data_dir"] else None
    data = pipeline.load(
        experiment.data, Request(experiment.data.source, folder, offline=True), experiment.num_examples
    )
    program = build(experiment, data, told["seed"], layouts.choose_layout("auto"))
    with tempfile.TemporaryDirectory() as workdir, contextlib.redirect_stdout(io.StringIO()):
        began = time.monotonic()
        progress = loop.train(program, Path(workdir), loop.Hooks())
        wall, start = time.monotonic() - began, common.age()
        state, step = restore_best(program, Path(workdir) / "checkpoints")
        test = evaluate(program, state.variables, data.splits.test)["accuracy"]
        seen = [row["eval/accuracy"] for row in logs.read_rows(Path(workdir)) if "eval/accuracy" in row]
    return {"reached": bool(progress.stopped), "validation": max(seen), "test": test, "step": step,
            "training": progress.seconds, "with_evaluations": wall, "from_start": start}  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(json.dumps(_train_to(json.loads(sys.argv[1]))))
