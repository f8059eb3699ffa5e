"""Seeded fuzzers: case `number` of a target is a pure function of (seed, number), so that every one can be run again.

PYTHONPATH=tests python -m fuzz tables 1500 [--seed=0] [--only=NUMBER]      one campaign in a process of its own
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def _lazily(module: str, name: str) -> Callable[[], Any]:
    return lambda: getattr(importlib.import_module(f"fuzz.{module}"), name)


TARGETS = {
    "overrides": _lazily("overrides", "target"),
    "tables": _lazily("tables", "target"),
    "own_tables": _lazily("own_files", "table"),
    "own_series": _lazily("own_files", "series"),
    "own_texts": _lazily("own_files", "text"),
    "images": _lazily("images", "target"),
    "archives": _lazily("archives", "target"),
    "safetensors": _lazily("weights", "safe"),
    "npz": _lazily("weights", "npz"),
    "idx_files": _lazily("idx", "files"),
    "idx_folders": _lazily("idx", "folders"),
}
