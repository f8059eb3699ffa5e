"""Several processes as one run: the same result, one voice, an end that all share; and what happens when one fails."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import jax
import numpy as np
import pytest

from fdl import files
from fdl.checkpoint import manifest, saving
from fdl.data import Request, pipeline
from fdl.distributed import layouts
from fdl.distributed import processes as hosts
from fdl.train import loop, program, stopping
from fdl.types import RunError, UserError
from processes import blobs, faults, runs

SEED = 0
FAST = {"signals": 1, "kills": 1, "stuck": 3, "watched": 15}
FULL = {"signals": 50, "kills": 100, "stuck": 60, "watched": 500}
BRIEF = ("--set=steps=24", "--set=eval_every=12", "--set=save_every=12", "--set=log_every=6", "--parallel=jit")
ONLY_SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def start(server: forked.Server, folder: Path) -> Iterator[runs.Start]:
    with runs.starter(server, folder) as begin:
        yield begin


@pytest.fixture(scope="module")
def known(start: runs.Start, folder: Path) -> faults.Known:
    return faults.reference(start, folder)


@functools.cache
def program_on(devices: int, mesh: str = "") -> program.Program:
    made = blobs.experiment()
    data = pipeline.load(made.data, Request())
    return program.build(made, data, 0, layouts.choose_layout("jit", jax.devices()[:devices], mesh))


def final_state(workdir: Path, devices: int = 1, mesh: str = "") -> Any:
    saved = manifest.latest(workdir / "checkpoints")
    assert saved is not None
    return saving.restore(saved, program_on(devices, mesh).state_spec)


def assert_close(workdir: Path, other: Path) -> None:
    a, b = (saving.named_leaves(final_state(path)) for path in (workdir, other))
    for name in a:
        np.testing.assert_allclose(np.asarray(b[name]), np.asarray(a[name]), rtol=0, atol=1e-5, err_msg=name)


def trained(start: runs.Start, workdir: Path, processes: int, devices: int, *flags: str) -> list[list[int]]:
    """A run to its end; the rows of the global batches, in the order of the processes."""
    notes = [workdir.with_name(f"{workdir.name}-rows{index}") for index in range(processes)]
    hooks = {i: [["no_report"], ["note_rows", str(note)]] for i, note in enumerate(notes)}
    made = start(*BRIEF, f"--workdir={workdir}", *flags, processes=processes, devices=devices, hooks=hooks)
    codes = runs.wait_all(made, 240)
    assert codes == [0] * processes, [process.err()[-2000:] for process in made]
    assert all(not process.out() for process in made[1:]), "another process than the first one speaks"
    each = [[json.loads(line)[1] for line in note.read_text().splitlines()] for note in notes]
    return [[row for part in parts for row in part] for parts in zip(*each, strict=True)]


@pytest.fixture(scope="module")
def alone(start: runs.Start, folder: Path) -> tuple[Path, list[list[int]]]:
    return folder / "one", trained(start, folder / "one", 1, 1)


@pytest.mark.parametrize(
    ("processes", "devices"), [(2, 1), (2, 2), pytest.param(4, 1, marks=ONLY_SLOW), pytest.param(4, 2, marks=ONLY_SLOW)]
)
def test_several_processes_are_one_run(
    start: runs.Start, folder: Path, alone: tuple[Path, list[list[int]]], processes: int, devices: int
) -> None:
    one, order = alone
    many = folder / f"{processes}x{devices}"
    assert trained(start, many, processes, devices) == order, "another order of examples"
    assert_close(one, many)
    expected, found = runs.summary(one), runs.summary(many)
    assert found["processes"] == processes
    assert found["metrics"]["test/accuracy"] == expected["metrics"]["test/accuracy"]
    right = found["metrics"]["test/accuracy"] * blobs.TEST_ROWS
    assert right == pytest.approx(round(right), abs=1e-5), "an example was left out or counted twice"
    assert found["metrics"] == pytest.approx(expected["metrics"], abs=1e-5)
    for row, other in zip(runs.rows(one), runs.rows(many), strict=True):
        times = ("examples_per_second",)
        kept = {name: value for name, value in other.items() if name not in times}
        assert kept == pytest.approx({name: value for name, value in row.items() if name not in times}, abs=2e-5)
    files = [sorted(path.name for path in run.iterdir() if not path.name.startswith(".")) for run in (one, many)]
    assert files[0] == files[1], "every file is written once, by the first process"
    events = list((many / "tensorboard").iterdir())
    assert len(events) == 1


def test_a_run_goes_on_wherever_it_is_started_again(start: runs.Start, folder: Path) -> None:
    """1x4 -> 2x2 -> 1x8: at each restore the bits of the save before, at the end the undisturbed run's values."""
    workdir, digest = folder / "moved", ""
    legs = [(1, 4, ""), (2, 2, ""), (1, 8, "fsdp:4")]
    for number, (processes, devices, mesh) in enumerate(legs, 1):
        notes = [folder / f"moved-{number}-{index}" for index in range(processes)]
        hooks = {i: [["no_report"], ["note_restored", str(note)]] for i, note in enumerate(notes)}
        made = start(
            *BRIEF, f"--set=steps={12 * number}", f"--mesh={mesh}", f"--workdir={workdir}", processes=processes,
            devices=devices, hooks=hooks,
        )  # fmt: skip
        assert runs.wait_all(made, 240) == [0] * processes, [process.err()[-2000:] for process in made]
        restored = {note.read_text() for note in notes}
        assert len(restored) == 1
        assert number == 1 or restored == {digest}, f"{legs[number - 1]} did not restore what was saved"
        digest = runs.summary(workdir)["state_sha256"]
    straight = folder / "straight"
    trained(start, straight, 1, 1, f"--set=steps={12 * len(legs)}")
    assert_close(straight, workdir)
    assert [row["step"] for row in runs.rows(workdir)] == [row["step"] for row in runs.rows(straight)]
    for devices, mesh in ((2, ""), (8, ""), (8, "fsdp:8"), (8, "data:2,fsdp:2,model:2")):
        assert saving.state_sha256(final_state(workdir, devices, mesh)) == digest


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ({"flags": ["--parallel=pmap"]}, "--parallel=pmap needs all devices in one process"),
        ({"each": {1: ["--set=optimizer.learning_rate=0.5"]}}, "the flags of process 1 are not those of process 0"),
        ({"each": {1: ["--seed=3"]}}, "the flags of process 1 are not those of process 0"),
        ({"each": {1: ["--notest"]}}, "the flags of process 1 are not those of process 0"),
        ({"hooks": {1: [["other_code"]]}}, "the program of process 1 are not those of process 0"),
        ({"hooks": {1: [["other_data"]]}}, "the data of process 1 are not those of process 0"),
        ({"hooks": {1: [["other_disk", "nowhere"]]}}, "process 1 cannot see"),
    ],
    ids=["pmap", "settings", "seed", "test", "code", "data", "disk"],
)
def test_processes_that_do_not_fit_together_are_refused(
    start: runs.Start, tmp_path: Path, kind: dict[str, Any], says: str
) -> None:
    rest = dict(kind)
    made = start(*BRIEF, *rest.pop("flags", []), f"--workdir={tmp_path / 'run'}", **rest)
    assert runs.wait_all(made, 120) == [2, 2]
    lines = [line for process in made for line in process.errors()]
    assert lines, made[0].err()
    assert all(says in line for line in lines)
    assert not any("Traceback" in process.err() for process in made)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_process_of_an_earlier_start_that_still_lives_is_named_not_waited_for(
    start: runs.Start, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    flags = (*BRIEF, f"--workdir={workdir}")
    assert runs.wait_all(start(*flags), 120) == [0, 0]
    with files.locked(workdir / ".process-1") as handle:
        files.write_holder(handle, "elsewhere pid 4711")
        made = start(*flags, hooks={0: [["impatient"]], 1: [["impatient"]]})
        assert runs.wait_all(made, 120) == [2, 2]
    (line,) = made[1].errors()
    assert "process 1 of an earlier start (elsewhere pid 4711) still holds" in line
    assert all("process 1 of an earlier start" in line for line in made[0].errors())


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("host:1", None, None), "go together"),
        ((None, 2, 0), "go together"),
        (("host:1", 2, 2), "--process_id=2 must be one of 0 ... 1"),
        (("host:1", 2, -1), "--process_id=-1 must be one of 0 ... 1"),
    ],
)
def test_flags_that_do_not_go_together(flags: tuple[Any, Any, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        hosts.join("auto", *flags)


@pytest.mark.parametrize(
    ("environ", "several"),
    [
        ({}, False), ({"SLURM_STEP_NUM_TASKS": "1"}, False), ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True), ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True), ({"JOB_COMPLETION_INDEX": "0"}, True),
    ],
)  # fmt: skip
def test_a_launcher_of_several_processes_is_noticed(environ: dict[str, str], several: bool) -> None:
    assert hosts.launched_together(environ) == several


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_two_commands_in_a_shell_are_stopped_by_a_signal_to_one(tmp_path: Path) -> None:
    """What the fork server starts, started for once as a user starts it."""
    env = os.environ | {
        "PYTHONPATH": f"{runs.ROOT}{os.pathsep}{runs.ROOT / 'tests'}",
        "XLA_FLAGS": "",
        "JAX_PLATFORMS": "cpu",
    }
    command = [
        sys.executable,
        "-m",
        "fdl.main",
        f"--experiment={runs.EXPERIMENT}",
        "--set=steps=100000",
        "--set=eval_every=50000",
    ]
    command += [
        "--set=save_every=50000",
        f"--workdir={tmp_path / 'run'}",
        f"--coordinator=127.0.0.1:{runs.free_port()}",
    ]
    made = [
        subprocess.Popen([*command, "--num_processes=2", f"--process_id={i}"], env=env, cwd=tmp_path, stderr=subprocess.PIPE,
                         stdout=subprocess.DEVNULL, text=True)
        for i in range(2)
    ]  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not runs.rows(tmp_path / "run"):
            assert time.monotonic() < end
            assert all(process.poll() is None for process in made), made[0].communicate()
            time.sleep(0.1)
        made[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=60)[1] for process in made]
    finally:
        for process in made:
            process.kill()
    assert [process.returncode for process in made] == [143, 143], said
    assert all("stopped by SIGTERM: saved; the same command" in text for text in said)
    saved = [path.parent for path in (tmp_path / "run" / "checkpoints").glob("*/manifest.json")]
    assert len(saved) == 1
    assert manifest.latest(tmp_path / "run" / "checkpoints") is not None


def test_a_signal_to_one_stops_both_at_one_step(start: runs.Start, tmp_path: Path, known: faults.Known) -> None:
    assert faults.signals(start, tmp_path, FAST["signals"], SEED, known=known)["signals"] == FAST["signals"]


def test_the_survivor_of_a_kill_names_the_dead(start: runs.Start, tmp_path: Path, known: faults.Known) -> None:
    seen = faults.kills(start, tmp_path, FAST["kills"], SEED, known=known)
    assert seen["kills"] == FAST["kills"]
    assert not seen["not_named"], seen


def test_what_is_stuck_is_ended(start: runs.Start, tmp_path: Path) -> None:
    assert faults.stuck(start, tmp_path, FAST["stuck"], SEED, at_once=FAST["stuck"])["stuck"] == FAST["stuck"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["signals", "kills", "stuck"])
def test_the_full_count(start: runs.Start, tmp_path: Path, name: str) -> None:
    campaign: Callable[..., dict[str, Any]] = getattr(faults, name)
    seen = campaign(start, tmp_path, FULL[name], SEED)
    assert seen[name] == FULL[name]
    assert not seen.get("not_named"), seen


@pytest.mark.slow
def test_the_evaluation_after_the_last_step_is_watched_too(start: runs.Start, tmp_path: Path) -> None:
    validation = 4 * -(-50 // 24)  # batches before the test split's
    hooks = {0: [["no_report"]], 1: [["no_report"], ["stuck_evaluation", str(validation + 2)]]}
    made = start(*faults.FLAGS, "--watchdog=12", f"--workdir={tmp_path / 'run'}", hooks=hooks)
    codes = runs.wait_all(made, 300)
    assert codes[1] == runs.HUNG, [process.err()[-2000:] for process in made]
    assert "in summarise" in made[1].err(), "not where it was to hang"
    assert faults.newest(tmp_path / "run") == faults.STEPS


def test_a_last_save_that_fails_is_told_though_the_run_was_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(manifest, "file_digests", fail)
    polls = iter([0] * 5 + [signal.SIGTERM] * 5)
    with pytest.raises(RunError, match="Input/output error"):
        loop.train(program_on(1), tmp_path, loop.Hooks(stop_signal=lambda: next(polls)))


# ---- the watchdog by itself ------------------------------------------------------------------------------------------


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes with which the watchdog would have ended this process."""
    codes: list[int] = []
    monkeypatch.setattr(stopping.os, "_exit", codes.append)
    return codes


def uses_without_a_fault(count: int, exits: list[int]) -> None:
    for _ in range(count):
        with stopping.watched(0.8, list) as alive:
            for _ in range(3):
                alive()
                time.sleep(0.01)
    assert not exits, "a false alarm"


def test_no_false_alarm(exits: list[int]) -> None:
    uses_without_a_fault(FAST["watched"], exits)


@pytest.mark.slow
def test_no_false_alarm_in_the_full_count(exits: list[int]) -> None:
    uses_without_a_fault(FULL["watched"], exits)


def test_before_the_first_step_there_is_no_hurry(exits: list[int]) -> None:
    with stopping.watched(0.1, list):
        time.sleep(0.5)  # it compiles
    with stopping.watched(0, list) as alive:
        alive()
        time.sleep(0.3)
    assert not exits


def test_a_hang_shows_its_stacks(exits: list[int], capfd: pytest.CaptureFixture[str]) -> None:
    with stopping.watched(0.1, list) as alive:
        alive()
        time.sleep(0.6)
    assert exits
    assert set(exits) == {stopping.HUNG}
    said = capfd.readouterr().err
    assert "fdl: error: nothing was finished for 0.1 s" in said
    assert "test_a_hang_shows_its_stacks" in said, "the stack of the thread that hangs is not among them"


def test_an_error_of_the_runtime_is_told_as_the_death_behind_it() -> None:
    with (
        pytest.raises(RunError, match=r"process 1 .* has died; the same command"),
        stopping.watched(0, lambda: ["process 1 (h)"]),
    ):
        raise RuntimeError("Connection closed by peer")
    with pytest.raises(UserError, match="the user"), stopping.watched(0, lambda: ["process 1 (h)"]):
        raise UserError("the user's")
    with pytest.raises(RuntimeError, match="no one has died"), stopping.watched(0, list):
        raise RuntimeError("no one has died")
