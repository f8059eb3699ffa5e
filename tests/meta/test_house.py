"""The packages of fdl and their order: each imports only packages to its left."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ORDER = [
    {"environment", "errors", "lazy_imports", "scratch"},
    {"types", "flops"},
    {"numpy_call", "files", "parsing", "experiment_files"},
    {"distributed"},
    {"data"},
    {"rundir", "checkpoint"},
    {"models", "optim"},
    {"tasks"},
    {"experiment"},
    {"train"},
    {"inspect", "report"},
    {"cli"},
    {"multirun"},
    {"main", "api"},
]
FILES = sorted((ROOT / "fdl").rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT / "fdl").with_suffix("").parts[0]


def rank(name: str) -> int:
    return next(i for i, rooms in enumerate(ORDER) if name in rooms)


def imported(path: Path) -> set[str]:
    """Every module named by an import statement, at the top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def rooms_imported(path: Path) -> set[str]:
    found = {name.split(".")[1] for name in imported(path) if name.startswith("fdl.")}
    return {name for name in found if any(name in rooms for rooms in ORDER)}


@pytest.mark.parametrize("path", [p for p in FILES if room(p) not in ("__init__", "scratch")], ids=lambda p: p.name)
def test_a_room_imports_only_rooms_to_its_left(path: Path) -> None:
    own = room(path)
    for other in rooms_imported(path) - {own}:
        assert rank(other) < rank(own), f"{path} imports fdl.{other}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "scratch"], ids=lambda p: p.name)
def test_scratch_imports_numpy_alone(path: Path) -> None:
    allowed = {"__future__", "numpy", "fdl", "collections", "dataclasses", "math", "typing", "itertools", "functools"}
    assert {name.split(".")[0] for name in imported(path)} <= allowed
    assert rooms_imported(path) <= {"scratch"}


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda p: p.name)
def test_experiments_import_only_what_they_compose(path: Path) -> None:
    assert rooms_imported(path) <= {
        "types", "models", "optim", "data", "tasks", "experiment",
        "numpy_call",
    }  # fmt: skip


def test_fdl_never_imports_experiments() -> None:
    assert not [p for p in FILES if any(name.split(".")[0] == "experiments" for name in imported(p))]


@pytest.mark.parametrize("library", ["orbax", "tensorflow", "tensorflow_datasets", "optuna"])
def test_heavy_libraries_have_one_home(library: str) -> None:
    homes = {"orbax": {"checkpoint"}, "tensorflow": {"data"}, "tensorflow_datasets": {"data"}, "optuna": {"multirun"}}[
        library
    ]
    for path in FILES:
        if room(path) not in homes:
            assert not [name for name in imported(path) if name.split(".")[0] == library], path
