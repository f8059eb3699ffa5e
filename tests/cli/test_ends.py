"""How a run ends and what it outlives: lost output, signals, suspension, locks, terminals, a full cache, no home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import forked
import pytest

from fdl import files
from fdl.distributed import processes
from fdl.train import stopping
from fdl.types import RunError, UserError

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--experiment=digits_cnn", "--set=model.filters=4", "--set=model.dense=8", "--set=data.feed=numpy"]
BRIEF = [*SMALL, "--set=steps=20", "--set=log_every=2", "--set=save_every=10", "--set=eval_every=10"]
ENDLESS = [*SMALL, "--set=steps=1000000", "--set=log_every=50", "--set=save_every=500000", "--set=eval_every=500000"]


def shell(folder: Path, command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A command line in bash, "fdl" standing for python -m fdl.main."""
    prelude = f'fdl() {{ {sys.executable} -m fdl.main "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", prelude + command], cwd=folder, capture_output=True, text=True, timeout=240,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""} | env,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ends")
    done = shell(folder, f"fdl {' '.join(BRIEF)} --workdir=run")
    assert done.returncode == 0, done.stderr
    return folder


# ---- standard output ------------------------------------------------------------------------------------------------


def test_a_run_whose_reader_goes_away_trains_to_its_end(trained: Path) -> None:
    done = shell(trained, f'fdl {" ".join(BRIEF)} --workdir=unread | head -2; echo "exit ${{PIPESTATUS[0]}}"')
    assert "exit 0" in done.stdout
    assert "standard output is lost (Broken pipe); the run goes on" in done.stderr
    seen = [json.loads((trained / name / "summary.json").read_text()) for name in ("run", "unread")]
    assert seen[0]["state_sha256"] == seen[1]["state_sha256"]


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("--list | head -1", 0, ""),
        ("--experiment=digits_cnn --show | head -1", 0, ""),
        ("--help | head -1", 0, ""),
        (
            f"{' '.join(BRIEF)} --workdir=run --mode=eval >/dev/full",
            1,
            "standard output cannot be written: No space left",
        ),
        (
            f"{' '.join(BRIEF)} --workdir=run --mode=eval >&-",
            1,
            "standard output cannot be written: Bad file descriptor",
        ),
    ],
)
def test_an_answer_that_nobody_got_is_no_success(trained: Path, command: str, code: int, says: str) -> None:
    done = shell(trained, f'fdl {command}; echo "exit ${{PIPESTATUS[0]}}"')
    assert f"exit {code}" in done.stdout, done.stderr
    assert says in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error" in line]) == bool(says)


def test_letters_that_the_terminal_lacks_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "größe.py").write_text("from experiments.digits_cnn import experiment\n")
    done = shell(tmp_path, "fdl --experiment=größe.py --mode=eval", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "no trained run of gr\\xf6\\xdfe" in done.stderr


# ---- exit 2 without a device ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["--experiment=fashion_mlp", "--require=gpu"],
        ["--experiment=fashon_mlp"],
        ["--experiment=digits_cnn", "--data_dir=nowhere"],
        ["--experiment=digits_cnn", "--mode=eval"],
    ],
)
def test_a_users_error_is_said_where_jax_has_no_device(tmp_path: Path, args: list[str]) -> None:
    done = shell(tmp_path, f"fdl {' '.join(args)}", JAX_PLATFORMS="cuda")
    assert done.returncode == 2, done.stderr
    assert [line[:11] for line in done.stderr.splitlines()] == ["fdl: error:"]


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_an_odd_launchers_variable_is_one_line(tmp_path: Path, name: str) -> None:
    done = shell(tmp_path, f"fdl {' '.join(BRIEF)}", **{name: "2(x3)"})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{name}=2(x3)" in line


# ---- signals and suspension -----------------------------------------------------------------------------------------


def started(server: forked.Server, folder: Path, *args: str) -> forked.Start:
    """A run that has logged its first row."""
    run = server.start([*ENDLESS, "--workdir=run", *args], folder)
    until = time.monotonic() + 180
    log = folder / "run" / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert run.code() is None, run.said()
        assert time.monotonic() < until
        time.sleep(0.05)
    return run


def test_a_run_that_is_suspended_longer_than_the_watchdog_goes_on_and_a_hang_up_saves_it(
    server: forked.Server, tmp_path: Path
) -> None:
    run = started(server, tmp_path, "--watchdog=8")
    try:
        run.send(signal.SIGSTOP)
        time.sleep(10)
        run.send(signal.SIGCONT)
        time.sleep(2.5)  # the watchdog looks every second
        assert run.code() is None, run.said()
        run.send(signal.SIGHUP)
        assert run.wait(120) == 128 + signal.SIGHUP
    finally:
        run.send(signal.SIGKILL)
    assert "stopped by SIGHUP: saved; the same command" in run.said()
    assert len(list((tmp_path / "run" / "checkpoints").glob("*/manifest.json"))) == 1


def test_a_hang_up_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stopping.asked_to_stop() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked() == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_start_that_never_gives_a_sign_of_life_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(stopping.os, "_exit", codes.append)
    monkeypatch.setattr(stopping, "STARTUP_SECONDS", 0.3)
    with stopping.watched(0.1, list):
        time.sleep(0.2)
        assert not codes
        time.sleep(1.0)
    assert codes
    assert set(codes) == {stopping.HUNG}


# ---- locks ----------------------------------------------------------------------------------------------------------


def test_only_a_taken_lock_means_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lock"
    with files.locked(path) as handle:
        files.write_holder(handle, "me")
        assert files.try_lock(path) is None
        with pytest.raises(BlockingIOError, match="me"), files.locked(path, wait=0.1):
            pass
    freed = files.try_lock(path)
    assert freed is not None
    os.close(freed)

    def none(handle: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    with files.locked(path), files.locked(path):
        pass
    assert [record.message for record in caplog.records] == [
        f"the file system of {tmp_path} has no locks (No locks available): two starts in it are not kept apart"
    ]


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    handle = files.try_lock(tmp_path / "lock")
    assert handle is not None
    threading.Timer(0.3, os.close, [handle]).start()
    with files.locked(tmp_path / "lock", wait=20):
        pass


def test_every_failure_of_the_first_process_reaches_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What process 0 broadcasts, and what another makes of it."""
    sent: list[bytes] = []
    monkeypatch.setattr(processes, "alone", lambda: False)
    monkeypatch.setattr(processes, "_broadcast", lambda text: sent.append(text) or text)

    def fail() -> int:
        raise KeyError("versions")

    monkeypatch.setattr(processes, "is_first", lambda: True)
    with pytest.raises(KeyError):
        processes.from_first(fail)
    monkeypatch.setattr(processes, "is_first", lambda: False)
    monkeypatch.setattr(processes, "_broadcast", lambda text: sent[0])
    with pytest.raises(RunError) as other:
        processes.from_first(lambda: pytest.fail("only process 0 calls"))
    assert other.value.echo


# ---- caches and homes -----------------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    code = """
import jax, sys
from jax._src import compilation_cache
from fdl import environment
def full(*args): raise OSError(28, "No space left on device")
compilation_cache.put_executable_and_time = full
environment.enable_compile_cache()
environment.enable_compile_cache()
for size in range(3, 8):
    jax.jit(lambda x: x * size)(jax.numpy.ones(size))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("fdl: warning: ")
    assert "No space left on device" in line


def test_without_a_home_the_cache_is_a_folder_of_ones_own(tmp_path: Path) -> None:
    show = "import pathlib, os\ndef lost(): raise RuntimeError('no home')\npathlib.Path.home = lost\n"
    show += "from fdl import environment\nprint(environment.cache_dir())"
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}

    def cache() -> Path:
        done = subprocess.run(
            [sys.executable, "-c", show], env=env | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}, capture_output=True,
            text=True, timeout=60, check=True,
        )  # fmt: skip
        return Path(done.stdout.strip())

    own = cache()
    assert own == tmp_path / f"fdl-{os.getuid()}"
    assert own.stat().st_mode & 0o077 == 0
    own.chmod(0o777)  # somebody else may have put things there
    assert cache() != own


@pytest.mark.parametrize(
    ("code", "kind"), [(28, RunError), (5, RunError), (30, RunError), (13, UserError), (20, UserError)]
)
def test_a_failed_write_is_the_runs_or_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(kind, match=rf"a cannot be written: {os.strerror(code)}"):
        files.write_text(tmp_path / "a", "new")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "what was half written is left behind"
    assert (tmp_path / "a").read_text() == "old"


def test_an_interrupt_behind_the_end_is_no_traceback(tmp_path: Path) -> None:
    """Ctrl-C while Python shuts down, after the run: JAX's clean-up would print a traceback."""
    code = (
        "import atexit, os, signal, sys; atexit.register(os.kill, os.getpid(), signal.SIGINT); "
        "sys.argv = ['fdl', '--experiment=nothing']; from fdl import main; main.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
    )  # fmt: skip
    assert done.returncode == -signal.SIGINT
    assert done.stderr.count("\n") == 1
    assert "there is no such experiment" in done.stderr
