"""What the tests share: strict JAX settings, the real data where it is, and a way to call the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before JAX starts: eight virtual CPU devices, so that layouts can be compared on any machine.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NPROC", "16")

import jax  # noqa: E402

import fdl  # noqa: E402, F401  (sets its own defaults before JAX is imported)

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: FDL_DATA_DIR, else ../shared/data; skips by name where there is none."""
    for path in (os.environ.get("FDL_DATA_DIR"), ROOT.parent / "shared" / "data"):
        if path and Path(path).is_dir():
            return Path(path)
    pytest.skip("no real data: set FDL_DATA_DIR")


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's cache; compiled programs are shared by all subprocesses of one session."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp().parent / "fdl-cache")
    # Many tests build the same small program. A cache of this process's own: nobody else writes what it reads.
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.getbasetemp() / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture
def fdl_main(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`fdl_main("--experiment=digits_cnn", ...)` runs the command line in a process and a directory of its own."""

    def call(*args: str, timeout: float = 120, devices: int = 1) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
        env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}" if devices > 1 else ""
        return subprocess.run(
            [sys.executable, "-m", "fdl.main", *args],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return call
