"""What figures are measured on."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import fdl


def processor() -> tuple[str, int | None]:
    """Return the processor's name ("" where the system does not say) and the number of its cores."""
    if sys.platform != "linux":
        return platform.processor(), os.cpu_count()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""), os.cpu_count()


def busy_seconds() -> float:
    """Return how many seconds the cores have been busy since the system started, all of them and for anybody; 0 if unknown."""
    if sys.platform != "linux":
        return 0.0
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, str | int | None]:
    """Describe the machine and the libraries that decide how fast it is."""
    model, cores = processor()
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")}
    return {"cpu": model, "cores": cores, "python": platform.python_version(), "fdl": fdl.__version__, **versions}
