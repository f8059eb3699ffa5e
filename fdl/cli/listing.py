"""--list: every experiment of the repository, a line each."""

from __future__ import annotations

from fdl.experiment import EXPERIMENTS, docstring, experiment_names, load_experiment


def say_experiments() -> None:
    """Print each experiment's name, data set, model, and the result that its file states."""
    for name in experiment_names():
        doc = docstring(EXPERIMENTS / f"{name}.py")
        experiment = load_experiment(name)
        reaches = next((line.split(":", 1)[1].strip() for line in doc.splitlines() if line.startswith("Result:")), "")
        data = getattr(experiment.data.load, "func", experiment.data.load).__name__
        print(f"{name:<20} {data:<20} {type(experiment.model).__name__:<10} {reaches}")
