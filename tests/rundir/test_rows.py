"""metrics.jsonl and the event files at a resume: cut back to the step, in time that does not depend on their length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fdl.rundir import logs, rows
from fdl.rundir.event_files import event_files
from fdl.rundir.rows import Position


def lines(*steps: int) -> str:
    return "".join(json.dumps({"step": step, "train/loss": step / 2}) + "\n" for step in steps)


def log(workdir: Path, upto: int, steps: range) -> None:
    with logs.writer(workdir, upto) as write:
        for step in steps:
            write({"step": step, "epoch": 0.5, "train/loss": step / 2, "eval/loss": step / 4})


def shown(workdir: Path, name: str = "train/loss") -> list[tuple[int, float]]:
    """What TensorBoard itself reads, before it purges anything: every figure that is in a file."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = []
    for path in event_files(workdir / "tensorboard"):
        events = accumulator.EventAccumulator(str(path), purge_orphaned_data=False)
        events.Reload()
        if name in events.Tags()["scalars"]:
            found += [(event.step, event.value) for event in events.Scalars(name)]
    return found


@pytest.mark.parametrize("upto", [-1, 0, 1, 7, 500, 999, 1000, 2000])
@pytest.mark.parametrize("end", ["", '{"step": 10', "\n\n"])
def test_the_log_is_cut_as_reading_it_whole_would_cut_it(tmp_path: Path, upto: int, end: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*range(1, 1001)) + end)  # 30 kB a thousand rows, so more than one block with what follows
    path.write_text(lines(*range(1, 1001)).replace('"step"', '"pad": "' + "x" * 200 + '", "step"') + end)
    whole = [json.loads(line) for line in path.read_text().split("\n")[:1000]]
    rows.cut_rows(path, upto)
    kept = [row for row in whole if row["step"] <= upto]
    assert path.read_text().count("\n") == len(kept) or (upto >= 1000 and end == "\n\n")
    assert logs.read_rows(tmp_path) == kept
    assert rows.last_rows(path, 990) == [row for row in kept if row["step"] >= 990]


def test_a_row_of_many_blocks_and_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows.cut_rows(path, 5)
    assert path.read_bytes() == b""
    long = json.dumps({"step": 2, "sample": "x" * 300_000}) + "\n"
    path.write_text(lines(1) + long + lines(3))
    rows.cut_rows(path, 2)
    assert path.read_text() == lines(1) + long


@pytest.mark.parametrize("upto", [-1, 30, 31, 35, 60, 75, 90])
def test_each_figure_is_once_in_the_event_files_after_resumes(tmp_path: Path, upto: int) -> None:
    log(tmp_path, -1, range(1, 31))
    log(tmp_path, 30, range(31, 61))
    log(tmp_path, 60, range(61, 91))
    log(tmp_path, upto, range(upto + 1, 101))
    expected = [(step, step / 2) for step in range(0 if upto < 0 else 1, 101)]
    assert shown(tmp_path) == expected
    assert shown(tmp_path, "eval/loss") == [(step, value / 2) for step, value in expected]


@pytest.mark.parametrize("lost", [1, 20, 60, 200, 2000])
def test_events_that_a_kill_lost_are_shown_again(tmp_path: Path, lost: int) -> None:
    """TensorBoard's writer keeps rows back for two minutes; a kill cuts its file anywhere."""
    log(tmp_path, -1, range(1, 51))
    (path,) = event_files(tmp_path / "tensorboard")
    content = path.read_bytes()
    path.write_bytes(content[: max(1, len(content) - lost)])
    log(tmp_path, 50, range(51, 61))
    assert shown(tmp_path) == [(step, step / 2) for step in range(1, 61)]


def test_a_resume_writes_no_old_row_again(tmp_path: Path) -> None:
    log(tmp_path, -1, range(1, 1001))
    (old,) = event_files(tmp_path / "tensorboard")
    before, log_before = old.read_bytes(), (tmp_path / "metrics.jsonl").read_bytes()
    log(tmp_path, 1000, range(1001, 1003))
    old_again, new = event_files(tmp_path / "tensorboard")
    assert old_again == old
    assert before.startswith(old.read_bytes())
    assert len(before) - len(old.read_bytes()) < 200, "one row at most"
    assert new.stat().st_size < 1000
    assert (tmp_path / "metrics.jsonl").read_bytes().startswith(log_before)


def test_a_users_own_files_beside_the_events_stay(tmp_path: Path) -> None:
    log(tmp_path, -1, range(1, 11))
    mine = tmp_path / "tensorboard" / "events.out.tfevents.1.mine"
    mine.write_bytes(b"mine")
    log(tmp_path, 5, range(6, 11))
    assert mine.read_bytes() == b"mine"


def test_a_growing_log_is_read_once(tmp_path: Path) -> None:
    path, position, seen = tmp_path / "metrics.jsonl", Position(), []
    assert rows.new_rows(path, position) == ([], position)
    for text in (lines(1, 2), "", lines(3)[:5], lines(3)[5:] + lines(4), lines(5)):
        with open(path, "a") as file:
            file.write(text)
        found, position = rows.new_rows(path, position)
        seen.append([row["step"] for row in found])
    assert seen == [[1, 2], [], [], [3, 4], [5]]


@pytest.mark.parametrize("padding", [-1, 0, 1])
def test_a_log_that_was_cut_and_has_grown_again_loses_no_row(tmp_path: Path, padding: int) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*range(1, 10)))
    _, position = rows.new_rows(path)
    made_again: list[dict[str, Any]] = [
        {"step": s, "train/loss": s / 2, "pad": "x" * (s % 3 + padding)} for s in range(4, 20)
    ]
    path.write_text(lines(1, 2, 3) + "".join(json.dumps(row) + "\n" for row in made_again))
    found, _ = rows.new_rows(path, position)
    assert [row["step"] for row in found if row["step"] > 9] == list(range(10, 20))
