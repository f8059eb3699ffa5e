"""One script a system, each run as `python -m benchmarks.peers.NAME '<json>'`: it trains and prints one line of JSON.

The JSON is `benchmarks.workloads.spec`, or a list of such to be run one behind the other. Here: what each system needs,
and a measurement in a process of its own.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}
"""glibc keeps freed blocks; fdl does the same for itself (`fdl.environment.keep_freed_memory`)."""


@dataclasses.dataclass(frozen=True)
class System:
    """What a script needs: packages by the name they are imported by, and environment variables of its own."""

    needs: tuple[str, ...]
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)


SYSTEMS: dict[str, System] = {
    "fdl_loop": System(("jax", "flax", "optax")),
    "flax_plain": System(("jax", "flax", "optax")),
    "torch_eager": System(("torch",)),
    "torch_channels_last": System(("torch",), KEEP_MEMORY),
    "torch_compile": System(("torch",)),
    "keras_tf": System(("keras", "tensorflow"), {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}),
    "keras_jax": System(("keras", "jax"), {"KERAS_BACKEND": "jax"}),
    "matmul": System(("jax",)),
}
_ERASED = ("XLA_FLAGS", "JAX_", "TF_", "KERAS_", "MALLOC_", "OMP_", "MKL_", "OPENBLAS_", "NPROC")


def missing(system: str) -> str:
    """The packages that a system needs and that are not installed, "" where it can be measured."""
    return ", ".join(name for name in SYSTEMS[system].needs if importlib.util.find_spec(name) is None)


def environment(system: str, cache: str | None = None, device: str = "cpu") -> dict[str, str]:
    """A system's environment: none of the variables that this process, as fdl's, has set for itself; threads by default.

    Args:
        system: one of SYSTEMS.
        cache: folder for compiled programs, so that a measurement finds those of an earlier round, and no others.
        device: "cpu", or "" for what there is.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(_ERASED)}
    env |= {"PYTHONPATH": str(ROOT), **SYSTEMS[system].env}
    if cache:
        env |= {"XDG_CACHE_HOME": cache, "TORCHINDUCTOR_CACHE_DIR": os.path.join(cache, "inductor")}
    return env | ({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})


def run(system: str, spec: Any, *, cache: str | None = None, device: str = "cpu", timeout: float = 900) -> Any:
    """What the script printed, in a fresh process: a dict (a list of them for a list); {"error": ...} where it failed."""
    absent = missing(system)
    if absent:
        return {"error": f"not installed: {absent}"}
    command = [sys.executable, "-m", f"benchmarks.peers.{system}", json.dumps(spec)]
    try:
        done = subprocess.run(
            command, env=environment(system, cache, device), capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or ["no word"]
        return {"error": f"exit {done.returncode}: {said[-1][:160]}"}
    found = [json.loads(line) for line in lines]
    return found if isinstance(spec, list) else found[-1]
