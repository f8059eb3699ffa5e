"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITH_EXAMPLES = [path for path in sorted((ROOT / "fdl").rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_of_a_file(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    seen = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert seen.attempted > 0, "doctest does not find what is written there"
    assert seen.failed == 0


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) >= 8
