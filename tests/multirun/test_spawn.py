"""A run as a process of its own, told by a stand-in for fdl.main that does at once what its settings say."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fdl.multirun import spawn
from fdl.train.stopping import Interrupted
from fdl.types import RunError, UserError

ROOT = Path(__file__).resolve().parents[2]
# Its settings: steps=N (a row each), at=N (at which step), do=fail|refuse|die|once|wait|deaf (what it does there).
STAND_IN = """
import fcntl, json, os, pathlib, signal, sys, time
flags = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:] if not word.startswith("--set="))
sets = [word[6:] for word in sys.argv[1:] if word.startswith("--set=")]
settings = dict(text.split("=") for text in sets)
steps, at, do = int(settings.get("steps", 3)), int(settings.get("at", 99)), settings.get("do", "")
path = pathlib.Path(flags["workdir"])
path.mkdir(exist_ok=True)
note = open(path / "starts", "a")
note.write(f"{os.getpid()}\\n"); note.flush()
asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
lock = open(path / ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
config = {"experiment": flags["experiment"], "seed": int(flags["seed"]), "overrides": sets, "total_steps": steps}
(path / "config.json").write_text(json.dumps(config))
saved = int((path / "saved").read_text()) if (path / "saved").exists() else 0
rows = (path / "metrics.jsonl").read_text().splitlines()[:saved] if saved else []
with open(path / "metrics.jsonl", "w") as log:
    for step in range(1, steps + 1):
        if step <= saved:
            log.write(rows[step - 1] + "\\n")
            continue
        log.write(json.dumps({"step": step}) + "\\n"); log.flush()
        if step == at:
            if do == "fail":
                print("fdl: error: first"); print("Traceback"); sys.exit("fdl: error: the loss of step 2 is not finite")
            if do == "refuse":
                sys.exit(print("fdl: error: no such rows") or 2)
            if do == "die" or (do == "once" and len((path / "starts").read_text().splitlines()) == 1):
                os.kill(os.getpid(), signal.SIGKILL)
            while do == "deaf" and not (path / "go").exists():
                time.sleep(0.01)
            if do == "deaf":
                asked.clear()
            while do == "wait" and not asked and not (path / "go").exists():
                time.sleep(0.01)
        if asked:
            time.sleep(0.2)
            (path / "saved").write_text(str(step)); (path / "signals").write_text(str(asked))
            sys.exit(128 + asked[0])
metrics = {"eval/accuracy": 0.5} if "notest" in flags else {"test/accuracy": 0.5}
if "noreport" not in flags:
    (path / "report.html").write_text("")
(path / "summary.json").write_text(json.dumps({"status": "complete", "steps": steps, "metrics": metrics}))
"""


@pytest.fixture(autouse=True)
def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fdl").mkdir()
    (tmp_path / "fdl" / "__init__.py").write_text("")
    (tmp_path / "fdl" / "main.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)  # `python -m` looks here first


def starts(path: Path) -> int:
    return len((path / "starts").read_text().splitlines()) if (path / "starts").exists() else 0


def test_a_run_leaves_its_summary_and_its_words_beside_it(tmp_path: Path) -> None:
    found = spawn.run("any", tmp_path / "run", seed=3, overrides=["steps=4"])
    assert found == {"status": "complete", "steps": 4, "metrics": {"test/accuracy": 0.5}}
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["seed"], config["overrides"]) == (3, ["steps=4"])
    assert (tmp_path / "run.log").exists()


def test_a_finished_run_is_read_not_run(tmp_path: Path) -> None:
    for _ in range(2):
        assert spawn.run("any", tmp_path / "run")["status"] == "complete"
    assert starts(tmp_path / "run") == 1


@pytest.mark.parametrize("other", [{"seed": 1}, {"overrides": ["steps=5"]}, {"flags": ["--notest"]}])
def test_a_finished_run_of_other_settings_does_not_count(tmp_path: Path, other: dict[str, Any]) -> None:
    spawn.run("any", tmp_path / "run", flags=["--notest"])
    before = starts(tmp_path / "run")
    spawn.run("any", tmp_path / "run", **other)
    assert starts(tmp_path / "run") == before + ("flags" not in other)


def test_a_run_that_left_the_test_split_alone_is_gone_on_with_to_look_at_it(tmp_path: Path) -> None:
    spawn.run("any", tmp_path / "run", flags=["--notest"])
    assert spawn.run("any", tmp_path / "run")["metrics"] == {"test/accuracy": 0.5}


def test_a_failed_run_says_why_and_where_its_log_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^the loss of step 2 is not finite \(.*run\.log\)$"):
        spawn.run("any", tmp_path / "run", overrides=["do=fail", "at=2"])
    assert starts(tmp_path / "run") == 1


def test_refused_input_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no such rows$"):
        spawn.run("any", tmp_path / "run", overrides=["do=refuse", "at=1"])


def test_a_run_killed_from_outside_is_gone_on_with(tmp_path: Path) -> None:
    assert spawn.run("any", tmp_path / "run", overrides=["do=once", "at=2"])["status"] == "complete"
    assert starts(tmp_path / "run") == 2


def test_but_not_for_ever(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="ended by SIGKILL"):
        spawn.run("any", tmp_path / "run", overrides=["do=die", "at=2"])
    assert starts(tmp_path / "run") == spawn.MOST_STARTS


def test_every_row_is_given_once_in_order_and_before_the_end(tmp_path: Path) -> None:
    seen: list[int] = []
    spawn.run("any", tmp_path / "run", overrides=["steps=7", "do=once", "at=4"], between=lambda rows: seen.extend(
        row["step"] for row in rows
    ))  # fmt: skip
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    again: list[int] = []
    spawn.run("any", tmp_path / "run", overrides=["steps=7", "do=once", "at=4"], between=lambda rows: again.extend(
        row["step"] for row in rows
    ))  # fmt: skip
    assert again == seen


def test_between_ends_a_run_which_saves(tmp_path: Path) -> None:
    sets = ["steps=9", "do=wait", "at=5"]
    found = spawn.run("any", tmp_path / "run", overrides=sets, between=lambda rows: rows[-1]["step"] >= 5)
    assert found == {"status": "stopped"}
    assert (tmp_path / "run" / "saved").read_text() == "5"
    assert (tmp_path / "run" / "signals").read_text() == str([int(signal.SIGTERM)])
    found = spawn.run("any", tmp_path / "run", overrides=sets, between=lambda rows: rows[-1]["step"] >= 5)
    assert found == {"status": "stopped"}
    assert starts(tmp_path / "run") == 1, "what its rows decide needs no second start"


def test_a_run_that_has_come_to_its_end_is_finished_whatever_its_rows_look_like(tmp_path: Path) -> None:
    seen: list[int] = []

    def between(rows: list[dict[str, Any]]) -> bool:
        seen.extend(row["step"] for row in rows)
        return True

    for _ in range(2):  # made, and then read
        seen.clear()
        assert spawn.run("any", tmp_path / "run", between=between)["status"] == "complete"
        assert seen == [1, 2, 3]
    assert starts(tmp_path / "run") == 1


def test_a_run_told_to_stop_that_is_over_before_it_notices_is_finished(tmp_path: Path) -> None:
    """It does not look for the signal after step 1, which lasts until its row was judged."""
    path = tmp_path / "run"

    def between(rows: list[dict[str, Any]]) -> bool:
        threading.Timer(0.3, (path / "go").touch).start()
        return True

    sets = ["steps=1", "do=deaf", "at=1"]
    found = spawn.run("any", path, overrides=sets, between=between)
    assert found["status"] == "complete"
    assert starts(path) == 1


def test_an_error_of_the_callback_leaves_no_process(tmp_path: Path) -> None:
    def between(rows: list[dict[str, Any]]) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        spawn.run("any", tmp_path / "run", overrides=["do=wait", "at=1"], between=between)
    assert (tmp_path / "run" / "saved").exists()


def test_told_to_stop_the_run_saves_first(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(Interrupted) as stop:
        spawn.run("any", path, overrides=["do=wait", "at=2"], asked=lambda: signal.SIGINT if starts(path) else 0)
    assert stop.value.signum == signal.SIGINT
    if (path / "config.json").exists():  # else it was told before it had done anything
        (path / "go").touch()
    assert spawn.run("any", path, overrides=["at=9", "do=none"])["status"] == "complete"


def test_the_lock_of_one_that_still_saves_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.5, lambda: fcntl.flock(lock, fcntl.LOCK_UN)).start()
        began = time.monotonic()
        assert spawn.run("any", tmp_path / "run")["status"] == "complete"
        assert time.monotonic() - began > 0.4


def test_several_at_once(tmp_path: Path) -> None:
    found: dict[int, Any] = {}

    def one(number: int) -> None:
        found[number] = spawn.run("any", tmp_path / f"run{number}", overrides=[f"steps={number}"])["steps"]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(1, 6)}


# ---- the parent's own end -------------------------------------------------------------------------------------------

PARENT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from fdl.train import stopping
from fdl.multirun import spawn
del sys.path[0]
with stopping.asked_to_stop() as asked:
    spawn.run("any", Path("run"), overrides=["do=wait", "at=2"], asked=asked)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has started a run, which waits in its second step."""
    (tmp_path / "parent.py").write_text(PARENT.format(root=str(ROOT)))
    # Started by its path, from a folder of its own: its fdl is the real one, its child's (by -m) the stand-in.
    (tmp_path / "home").mkdir()
    (tmp_path / "parent.py").rename(tmp_path / "home" / "parent.py")
    process = subprocess.Popen([sys.executable, "home/parent.py"], stderr=subprocess.DEVNULL, start_new_session=True)
    until(lambda: (tmp_path / "run" / "metrics.jsonl").exists() and starts(tmp_path / "run") == 1)
    until(lambda: len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2)
    yield process
    process.kill()
    process.wait()


def until(holds: Callable[[], bool], limit: float = 60) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_killed_parent_leaves_no_run_behind(tmp_path: Path, parent: subprocess.Popen[bytes]) -> None:
    child = int((tmp_path / "run" / "starts").read_text())
    parent.kill()
    until(lambda: not lives(child), 10)


def test_a_ctrl_c_at_the_terminal_reaches_the_run_once(tmp_path: Path, parent: subprocess.Popen[bytes]) -> None:
    child = int((tmp_path / "run" / "starts").read_text())
    os.killpg(parent.pid, signal.SIGINT)
    parent.wait(30)
    assert not lives(child), "the parent has waited for it"
    assert (tmp_path / "run" / "signals").read_text() == str([int(signal.SIGTERM)])
    assert (tmp_path / "run" / "saved").read_text() == "2"
