"""What a scanner of Python code finds (bandit, medium and above) is mended or has a reason beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_bandit_finds_nothing() -> None:
    pytest.importorskip("bandit", reason="bandit is not installed: pip install bandit")
    command = [sys.executable, "-m", "bandit", "-q", "-ll", "-r", "fdl", "experiments"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
