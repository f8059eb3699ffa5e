"""Every lesson runs from its first cell to its last; what it shows, it asserts itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "docs" / "lessons").glob("*.py"))
# All in one process, for half of the time of each is its imports; a failure names its lesson.
RUN_ALL = """
import runpy, sys, matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
for path in sys.argv[1:]:
    print("lesson", path, flush=True)
    runpy.run_path(path)
    plt.close("all")
"""


def run(lessons: list[Path], folder: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "TMPDIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", RUN_ALL, *map(str, lessons)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("half", [0, 1])
def test_every_lesson_runs(half: int, tmp_path: Path) -> None:
    lessons = LESSONS[half::2]
    done = run(lessons, tmp_path)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("lesson ")] == [
        f"lesson {path}" for path in lessons
    ]


def test_the_list_names_every_lesson() -> None:
    text = (ROOT / "docs" / "lessons" / "README.md").read_text()
    assert len(LESSONS) == 12
    assert all(f"({path.name})" in text for path in LESSONS)
