"""The files that declare experiments, found by name and read without being run: listing them must not wait for JAX."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path

from fdl.errors import UserError, printable

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def experiment_names() -> list[str]:
    """List the files under experiments/, without their suffix."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.py") if not path.stem.startswith("_"))


def find_file(name: str) -> Path:
    """Find the file of the experiment called `name`: one under experiments/, or the user's own .py file by its path.

    Nothing else is meant by a name: a dotted name of any other module is unknown.

    Raises:
        UserError: there is no such file.
    """
    if name.endswith(".py"):
        return _own_file(name)
    stem, known = name.removeprefix("experiments."), experiment_names()
    if stem in known:
        return EXPERIMENTS / f"{stem}.py"
    near = difflib.get_close_matches(stem[:80], known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UserError(f"--experiment={printable(name)}: there is no such experiment; {hint}--list names them all")


def _own_file(name: str) -> Path:
    try:
        path = Path(name).expanduser().resolve()
        found = path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, a loop of links, an unknown user's home
        found = False
    if not found:
        raise UserError(
            f"--experiment={printable(name)}: there is no such file; give the path of a .py file, or a name of --list"
        )
    return path


def docstring(path: Path) -> str:
    """Read a module's docstring without running it; "" where the file is not valid Python."""
    try:
        return ast.get_docstring(ast.parse(path.read_bytes())) or ""
    except (SyntaxError, ValueError):
        return ""
