"""The settings that must stand before JAX starts, and the wrong results that they are there to prevent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import environment

ROWS = 40_000  # over 32,768, where jaxlib 0.10's YNNPACK fusion goes wrong


@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_vmapped_products_over_many_rows_are_right(reduce: str) -> None:
    """jax-ml/jax#39103: silently wrong on the CPU without the flag that fdl sets."""
    rng = np.random.default_rng(0)
    matrix, rows = rng.normal(size=(3, 3)).astype(np.float32), rng.normal(size=(ROWS, 3)).astype(np.float32)
    wanted = getattr(np, reduce)(rows.astype(np.float64) @ matrix.astype(np.float64).T, axis=1)

    def one(row: jax.Array) -> jax.Array:
        return getattr(jnp, reduce)(matrix @ row)

    np.testing.assert_allclose(jax.jit(jax.vmap(one))(rows), wanted, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_vmapped_products_is_right() -> None:
    rng = np.random.default_rng(1)
    matrix, rows = rng.normal(size=(3, 3)).astype(np.float32), rng.normal(size=(ROWS, 3)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda m: jax.vmap(lambda row: jnp.square(m @ row).sum())(rows).mean()))(matrix)
    wanted = 2 * matrix.astype(np.float64) @ (rows.astype(np.float64).T @ rows) / ROWS
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-4)


def printed(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_the_flag_is_set_and_the_users_own_is_kept() -> None:
    show = "import os, fdl; print(os.environ['XLA_FLAGS'])"
    assert printed(show, XLA_FLAGS="") == f"{environment.YNN_FLAG}=individual_dot"
    own = f"{environment.YNN_FLAG}=dot"
    assert printed(show, XLA_FLAGS=own) == own
    assert printed(show, XLA_FLAGS="--xla_dump_to=x").startswith("--xla_dump_to=x --xla_cpu")


def test_importing_the_command_line_is_light() -> None:
    code = "import sys, fdl.main; print([m for m in ('jax', 'tensorflow', 'orbax', 'matplotlib') if m in sys.modules])"
    assert printed(code) == "[]"
    code = "import sys, fdl.experiment; print([m for m in ('tensorflow', 'orbax', 'matplotlib') if m in sys.modules])"
    assert printed(code) == "[]"


def test_writing_events_does_not_import_pytorch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "run").mkdir()
    code = (
        f"import os, sys; os.chdir({str(tmp_path)!r}); sys.path.insert(0, '');"
        "from pathlib import Path; from fdl.rundir import logs; from contextlib import ExitStack;"
        "stack = ExitStack(); write = stack.enter_context(logs.writer(Path('run'), -1));"
        "write({'step': 1, 'train/loss': 0.5}); stack.close();"
        "assert 'torch' not in sys.modules; print(len(list(Path('run/tensorboard').iterdir())))"
    )
    assert printed(code) == "1"


def test_old_programs_leave_the_cache_and_those_in_use_stay(tmp_path: Path) -> None:
    own, idle, other = (tmp_path / f"jax-{name}" for name in ("own", "idle", "other"))
    for folder in (own, idle, other):
        folder.mkdir()
        (folder / "program").write_bytes(b"x" * 10)
    (tmp_path / "archives").mkdir()
    days = time.time() - 86400 * np.array([59, 61])
    os.utime(other, (days[0], days[0]))
    for path in (idle, tmp_path / "archives"):
        os.utime(path, (days[1], days[1]))
    for age in range(5):  # in days
        path = own / f"step{age}"
        path.write_bytes(b"x" * 100)
        used = time.time() - 86400 * (age + 1)
        os.utime(path, (used, used - 86400 * 100 if age == 1 else used))  # written long ago, read yesterday
    environment.drop_old_programs(own, max_bytes=310, idle_days=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archives", "jax-other", "jax-own"]
    assert sorted(path.name for path in own.iterdir()) == ["program", "step0", "step1", "step2"]
    environment.drop_old_programs(tmp_path / "jax-gone")
