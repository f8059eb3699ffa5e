"""A run directory belongs to one start at a time, and to the settings, code and data it was begun with."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import pytest

from faults import campaign, starts
from fdl import files
from fdl.rundir import config
from fdl.types import UserError

SEED = 0
EDITS, STARTS = 100, 100
LIMITS, ALL_LIMITS = range(400, 800, 400), range(0, 800, 20)

SETTINGS = {
    "steps": "100", "batch_size": "32", "eval_batch_size": "64", "log_every": "10", "eval_every": "20", "save_every": "20",
    "sample_every": "0", "model.width": "24", "model.dropout": "0.1", "optimizer.learning_rate": "0.001",
    "optimizer.rule": "adam", "data.validation": "100", "data.feed": "numpy", "data.load.length": "64", "num_examples": "none",
    "patience": "none", "stop_at": "none", "on_bad_step": "stop", "loss_limit": "none",
}  # fmt: skip
FREE = {
    "steps", "eval_batch_size", "log_every", "eval_every", "save_every", "sample_every", "data.feed", "patience", "stop_at",
    "on_bad_step", "loss_limit",
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "experiment": "digits_cnn", "settings": SETTINGS, "overrides": [], "seed": 0, "command": "python -m fdl.main",
    "versions": {"python": "3.11.7", "jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12", "optax": "0.2", "numpy": "2.4",
                 "tensorflow": "2.21"},
    "git_commit": "abc", "devices": ["TFRT_CPU_0"], "bits_decided_by": ["jax", "jaxlib", "flax", "optax", "numpy"],
    "processes": 1, "layout": "jit", "mesh": {"data": 1},
    "program_sha256": "1" * 64, "total_steps": 100, "data": {"name": "digits", "source": "builtin", "sha256": "2" * 64},
}  # fmt: skip


def test_a_changed_run_is_refused_by_the_keys_that_differ(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    seen: dict[str, int] = {}
    for number in range(EDITS):
        run = tmp_path / str(number)
        run.mkdir()
        files.write_json(run / "config.json", CONFIG)
        now = copy.deepcopy(CONFIG)
        kind = ("settings", "settings", "seed", "experiment", "version", "code", "data", "free", "library")[number % 9]
        names = [kind]
        if kind == "settings":
            names = rng.sample(sorted(SETTINGS.keys() - FREE), rng.randint(1, 3))
            for name in names:
                now["settings"][name] = f"{now['settings'][name]}1"
        elif kind == "free":
            for name in rng.sample(sorted(FREE), rng.randint(1, 5)):
                now["settings"][name] = "7"
        elif kind == "seed":
            now["seed"] = rng.randint(1, 99)
        elif kind == "experiment":
            names, now["experiment"] = ["digits_cnn", "mnist_cnn"], "mnist_cnn"
        elif kind == "version":
            names = [rng.choice(["jax", "jaxlib", "flax", "optax", "numpy"])]
            now["versions"][names[0]] = "9.9"
        elif kind == "library":
            now["versions"][rng.choice(["tensorflow", "python"])] = "9.9"
        elif kind == "code":
            now["program_sha256"] = "3" * 64
        elif kind == "data":
            now["data"]["sha256"] = f"{rng.randrange(10**8):08}" + "4" * 56
        seen[kind] = seen.get(kind, 0) + 1
        before = (run / "config.json").read_bytes()

        def resume(run: Path = run, now: dict[str, Any] = now) -> dict[str, Any]:
            held = config.read_config(run)
            assert held is not None
            config.check_settings(run, held, now["experiment"], now["seed"], now["settings"])
            return config.resume(run, held, now, False, lambda: now["program_sha256"])

        if kind in ("free", "library"):
            assert len(resume()["resumes"]) == 1
        else:
            with pytest.raises(UserError) as refused:
                resume()
            for name in names:
                assert name in str(refused.value), (kind, str(refused.value))
            assert "\n" not in str(refused.value)
        assert (run / "config.json").read_bytes() == before
    print(seen)


CROWD = """
import os, secrets, sys
from fdl.rundir import workdir
few = iter(range(10**9))
secrets.token_hex = lambda n: f"{next(few):04x}"  # every start tries the same names in the same order
pids, (go_r, go_w) = [], os.pipe()
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        os.close(go_w)
        os.read(go_r, 1)  # ends for all at once
        os.write(1, f"{workdir.create('crowd')}\\n".encode())
        os._exit(0)
    pids.append(pid)
os.close(go_r); os.close(go_w)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
"""


def test_a_hundred_starts_at_once_get_directories_of_their_own(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(forked.TESTS.parent), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", CROWD, str(STARTS)], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = done.stdout.split()
    assert len(set(made)) == len(made) == STARTS
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {Path(name).name for name in made}


def test_of_two_starts_in_one_directory_one_goes_on(server: forked.Server, tmp_path: Path) -> None:
    argv = campaign.arguments("small_lstm")
    first = starts.start(server, argv, tmp_path, log=tmp_path / "log0")
    until = time.monotonic() + 120
    while not (tmp_path / "run" / "config.json").exists() and time.monotonic() < until:
        time.sleep(0.02)
    second = starts.start(server, argv, tmp_path, log=tmp_path / "log1")
    assert second.wait() == 2, second.said()
    assert second.errors() == [
        f"fdl: error: --workdir=run is in use by process {first.pid}; wait for it or give another"
    ]
    assert first.wait() == 0, first.said()
    # Both at once: whoever comes second is refused, whichever that is.
    both = [starts.start(server, [*argv[:1], "--workdir=both"], tmp_path, log=tmp_path / f"both{i}") for i in range(2)]
    assert sorted(start.wait() for start in both) == [0, 2], [start.said() for start in both]


def starve(server: forked.Server, limits: range, root: Path) -> None:
    """A run for each limit, so many MiB above what the process has mapped and 900 more."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    now = int(next(line for line in status.splitlines() if line.startswith("VmSize")).split()[1]) * 1024
    # One array of 4 GB: XLA reports that. Where a small one fails, the C++ library ends the process by itself.
    large = ["--set=batch_size=800", "--set=model.filters=512,512", "--set=steps=3"]
    for limit in limits:
        cwd = root / str(limit)
        cwd.mkdir()
        space = {"RLIMIT_AS": now + (900 + limit << 20)}
        start = starts.start(server, [*campaign.arguments("small_fashion"), *large], cwd, limits=space)
        assert start.wait() == 1, start.said()
        assert len(start.errors()) == 1, start.said()
        assert "out of memory" in start.errors()[0]
        assert "batch_size" in start.errors()[0]


def test_out_of_memory_is_one_line_with_a_hint(server: forked.Server, tmp_path: Path) -> None:
    starve(server, LIMITS, tmp_path)


@pytest.mark.slow
def test_out_of_memory_at_all_limits(server: forked.Server, tmp_path: Path) -> None:
    starve(server, ALL_LIMITS, tmp_path)
