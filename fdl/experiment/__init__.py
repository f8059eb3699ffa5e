"""What a user declares: one frozen experiment, and what may accompany it in the same file."""

from fdl.experiment.experiment import (
    EXPERIMENTS,
    Experiment,
    Found,
    docstring,
    experiment_names,
    find_experiment,
    load_experiment,
    make_experiment,
)
from fdl.experiment.overrides import override, settings, show
from fdl.experiment.study import Study
from fdl.experiment.tuning import Choice, Int, Log, Search, Uniform
from fdl.experiment.updates import StartAtClassShares, Update
from fdl.experiment.whiten import Whiten

__all__ = [
    "EXPERIMENTS",
    "Choice",
    "Experiment",
    "Found",
    "Int",
    "Log",
    "Search",
    "StartAtClassShares",
    "Study",
    "Uniform",
    "Update",
    "Whiten",
    "docstring",
    "experiment_names",
    "find_experiment",
    "load_experiment",
    "make_experiment",
    "override",
    "settings",
    "show",
]
