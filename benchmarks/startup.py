"""From the start of the process to the end of its first training step: with an empty compile cache, and with a full one."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DEFAULT = ["fashion_cnn", "fashion_mlp"]


def measure(only: list[str], rounds: int, data_dir: str | None) -> list[dict[str, Any]]:
    """One row an experiment: seconds, median and range, cold and warm; peak memory of the process."""
    rows = []
    for name in only or DEFAULT:
        cold, warm, peak = [], [], []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                for seconds in (cold, warm):
                    summary = _run(name, Path(folder), data_dir, len(cold) + len(warm))
                    seconds.append(summary["timing"]["to_first_step"])
                    peak.append(summary["peak_rss_bytes"] / 2**20)
        rows.append({
            "experiment": name, "rounds": rounds,
            "cold s": f"{statistics.median(cold):.2f} ({min(cold):.2f}-{max(cold):.2f})",
            "warm s": f"{statistics.median(warm):.2f} ({min(warm):.2f}-{max(warm):.2f})",
            "peak MiB": f"{statistics.median(peak):,.0f}",
        })  # fmt: skip
    return rows


def _run(name: str, folder: Path, data_dir: str | None, number: int) -> dict[str, Any]:
    """A short run in a process of its own, with a compile cache of its own."""
    workdir = folder / f"run{number}"
    command = [sys.executable, "-m", "fdl.main", f"--experiment={name}", f"--workdir={workdir}", "--set=steps=3"]
    command += [f"--data_dir={data_dir}"] if data_dir else []
    env = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=600)
    return dict(json.loads((workdir / "summary.json").read_text()))
