"""--list: every experiment of the repository, a line each."""

from __future__ import annotations

from fdl.experiment_files import EXPERIMENTS, docstring, experiment_names


def say_experiments() -> None:
    """Print each experiment's name, what it is, and the result, as its file's docstring states them."""
    for name in experiment_names():
        lines = docstring(EXPERIMENTS / f"{name}.py").splitlines() or [""]
        reaches = next((line.removeprefix("Result:") for line in lines if line.startswith("Result:")), "")
        print(f"{name:<20} {lines[0]} {reaches}".rstrip())
