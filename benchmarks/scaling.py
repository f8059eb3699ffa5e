"""What it costs to spread one global batch over virtual devices: 1, 2, 4, 8 of them on the same cores, by jit and by pmap.

The work is the same and so are the cores, so all that a ratio above 1 shows is the cost of the layout: cutting, dispatch, and
the all-reduce. Each measurement is a process of its own, for the number of virtual devices is fixed when JAX starts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DEFAULT = ["fashion_mlp", "fashion_cnn"]
DEVICES = (1, 2, 4, 8)
MODES = ("jit", "pmap")
SECONDS = 5.0  # of each measurement
WARM_UP = 5


def measure(only: list[str], rounds: int, data_dir: str | None) -> list[dict[str, Any]]:
    """One row an experiment, mode and number of devices: ms a step, and the ratio to one device under jit in the same round."""
    rows = []
    for name in only or DEFAULT:
        cases = [(mode, devices) for devices in DEVICES for mode in MODES]
        seen: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
        batch = 0
        for _ in range(rounds):
            for case in cases:
                found = _in_a_process(name, *case, data_dir)
                seen[case].append(found["ms"])
                batch = found["batch"]
        for mode, devices in cases:
            values = seen[mode, devices]
            ratios = [ms / one for ms, one in zip(values, seen["jit", 1], strict=True)]
            rows.append({
                "experiment": name, "batch": batch, "mode": mode, "devices": devices, "rounds": rounds,
                "ms a step": f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})",
                "ratio to one device": f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
            })  # fmt: skip
    return rows


def _in_a_process(name: str, mode: str, devices: int, data_dir: str | None) -> dict[str, Any]:
    flag = f"--xla_force_host_platform_device_count={devices}" if devices > 1 else ""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}
    command = [sys.executable, "-m", "benchmarks.scaling", name, mode, str(devices), data_dir or ""]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=600)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _one(name: str, mode: Any, devices: int, data_dir: str) -> dict[str, Any]:
    from fdl import environment

    environment.keep_freed_memory()
    environment.enable_compile_cache()
    import jax

    from fdl.data import Request, pipeline
    from fdl.distributed import layouts
    from fdl.experiment import load_experiment
    from fdl.train import program

    experiment = load_experiment(name)
    data = pipeline.load(
        experiment.data, Request(data_dir=Path(data_dir) if data_dir else None), experiment.num_examples
    )
    built = program.build(experiment, data, 0, layouts.choose_layout(mode, jax.devices()[:devices]))
    batch = layouts.shard(next(pipeline.numpy_feed(data.splits.train, built.stream, 0, 1)), built.layout)
    state = built.compiled.initial_state()

    def take(state: Any, steps: int) -> tuple[Any, float]:
        began = time.perf_counter()
        for _ in range(steps):
            state, _ = built.compiled.train_step(state, batch, built.compiled.key)
        jax.block_until_ready(state)
        return state, (time.perf_counter() - began) / steps

    state, _ = take(state, WARM_UP)
    state, seconds = take(state, WARM_UP)
    state, seconds = take(state, max(WARM_UP, round(SECONDS / seconds)))
    return {"ms": 1000 * seconds, "batch": experiment.batch_size}


if __name__ == "__main__":
    print(json.dumps(_one(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])))
