"""A skip that nothing on the machine explains fails a strict session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

EXPLAINED = """
import pytest

def test_of_real_data(data_dir):
    pass

def test_that_passes():
    pass
"""
UNEXPLAINED = """
import pytest

@pytest.mark.skipif(True, reason="it fails on Mondays")
def test_that_is_skipped_for_no_reason():
    pass
"""
NO_MODULE = "import pytest; pytest.importorskip('no_such_module')"


def session(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """One session of pytest over a folder's files, with this conftest and without real data."""
    (folder / "tests").mkdir(exist_ok=True)
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "tests")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FDL_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args],
        cwd=folder, capture_output=True, text=True, timeout=120,
        env=clean | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTEST_ADDOPTS": f"--basetemp={folder / 'temporary'}"} | env,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_explained.py").write_text(EXPLAINED)
    return tmp_path


def test_a_skip_for_what_is_really_missing_passes(folder: Path) -> None:
    done = session(folder, FDL_STRICT_TESTS="1")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert "nothing on this machine explains" not in done.stdout


def test_the_same_reason_fails_where_it_is_not_true(folder: Path) -> None:
    (folder / "tests" / "test_untrue.py").write_text(UNEXPLAINED.replace("it fails on Mondays", "no real data"))
    done = session(folder, FDL_STRICT_TESTS="1", FDL_DATA_DIR=str(folder))
    assert done.returncode == 1, done.stdout
    assert "no real data: tests/test_untrue.py" in done.stdout


@pytest.mark.parametrize("args", [[], ["-n", "1"]], ids=["no worker", "a worker"])
def test_an_unexplained_skip_fails_a_strict_session_and_is_listed(folder: Path, args: list[str]) -> None:
    (folder / "tests" / "test_unexplained.py").write_text(UNEXPLAINED)
    (folder / "tests" / "test_module.py").write_text(NO_MODULE)
    done = session(folder, *args, FDL_STRICT_TESTS="1")
    assert done.returncode == 1, done.stdout
    (_, listed) = done.stdout.split("skips that nothing on this machine explains")
    assert "it fails on Mondays: tests/test_unexplained.py::test_that_is_skipped_for_no_reason" in listed
    assert "could not import 'no_such_module'" in listed
    assert "test_module.py" in listed
    assert "no real data" not in listed


def test_elsewhere_a_skip_is_a_skip(folder: Path) -> None:
    (folder / "tests" / "test_unexplained.py").write_text(UNEXPLAINED)
    done = session(folder)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 2 skipped" in done.stdout


def test_ci_is_strict() -> None:
    assert "FDL_STRICT_TESTS=1 ./launch.sh test" in (ROOT / ".ci" / "run").read_text().splitlines()
