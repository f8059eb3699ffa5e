"""The experiment, one frozen value, and finding it by name (`fdl.experiment.overrides` changes it)."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from flax import linen as nn

from fdl.data.splits import Data
from fdl.experiment.overrides import override, settings, show
from fdl.experiment.updates import Update
from fdl.experiment_files import EXPERIMENTS, docstring, experiment_names, find_file
from fdl.optim import Optimizer, Recipe, as_optimizer
from fdl.tasks.task import Task
from fdl.types import Count, Duration, DurationLike, Positive, Range, UserError, one_line, printable

__all__ = [
    "EXPERIMENTS", "Experiment", "Found", "docstring", "experiment_names", "find_experiment", "load_experiment",
    "make_experiment", "override", "settings", "show",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run depends on except its seed and its machine.

    Attributes:
        data: where rows come from and what is done to them.
        model: the Linen module, applied to a batch's "inputs".
        task: how outputs are scored, compared and shown.
        optimizer: the recipe; or any Optax transform, or a function from the run's number of steps to one.
        steps: how long to train.
        batch_size, eval_batch_size: examples of a global batch.
        num_examples: train on only this many of the shuffled training examples (None: all).
        log_every, eval_every, save_every: how often to write a row, evaluate on the validation split, save.
        sample_every: how often to show a sample of the model's (0: never).
        patience: stop after this many evaluations without a new best (None: never).
        stop_at: stop once the task's monitored metric is this good on the validation split (None: never).
        on_bad_step: what follows a step whose inputs, loss or gradient is not finite: "stop"; "skip": leave state and
            statistics as they were and go on with the next batch; "rollback": go back to the last checkpoint and leave that
            batch out, three times at most.
        init_from: a .safetensors or .npz file, such as --mode=export writes, to start from its weights: what fits is taken,
            the rest is newly drawn, and a line says which (None: all newly drawn). Relative to --data_dir if it is there, else
            to the current folder; "hf:OWNER/NAME" is model.safetensors of a repository on the Hugging Face hub
            ("hf:OWNER/NAME@REVISION" of a fixed revision). Several, separated by " | ", are tried in turn. A ResNet and an
            EfficientNetLite also read PyTorch's names and layout, torchvision's and timm's.
        init_map: which part of the model is filled from which part of that file: "backbone=params/" (see
            `fdl.checkpoint.transfer`).
        init_strict: refuse the file unless every array of it and of the model has its place.
        cache_frozen: compute what the frozen part of the model gives for each row once, without augmentation, keep it in fdl's
            cache, and train the rest on it: the head of a large net in seconds. Dropout before the trained part is off.
        loss_limit: a training loss above this counts as not finite (None: no limit).
        updates: arrays of the state that are replaced between steps (`fdl.experiment.Update`).
        name: set by `load_experiment`.
    """

    data: Data
    model: nn.Module
    task: Task
    optimizer: Recipe = Optimizer()
    steps: DurationLike = Duration(10, "epochs")
    batch_size: Count = 128
    eval_batch_size: Count = 512
    num_examples: Count | None = None
    log_every: DurationLike = Duration(50)
    eval_every: DurationLike = Duration(1, "epochs")
    save_every: DurationLike = Duration(1, "epochs")
    sample_every: DurationLike = Duration(0)
    patience: Count | None = None
    stop_at: Annotated[float, Range()] | None = None
    on_bad_step: Literal["stop", "skip", "rollback"] = "stop"
    loss_limit: Positive | None = None
    init_from: str | None = None
    init_map: tuple[str, ...] = ()
    init_strict: bool = False
    cache_frozen: bool = False
    updates: tuple[Update, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        for field in ("steps", "log_every", "eval_every", "save_every", "sample_every"):
            value = Duration.parse(getattr(self, field))
            if value.value == 0 and field != "sample_every":
                raise ValueError(f"{field} must be longer than 0")
            object.__setattr__(self, field, value)
        object.__setattr__(self, "optimizer", as_optimizer(self.optimizer))
        if Duration.parse(self.steps).unit == "%":
            raise ValueError("steps cannot be a share of itself: expected 300, 5epochs or 20000examples")


@dataclasses.dataclass(frozen=True)
class Found:
    """What an experiment's name refers to: its file, docstring, the function that makes it, and what else is in the file.

    Attributes:
        study: makes the `fdl.experiment.study.Study` that the file declares, None where it declares none.
        search: makes the `fdl.experiment.tuning.Search` that the file declares, None where it declares none.
    """

    name: str
    path: Path
    doc: str
    make: Callable[[], Experiment]
    study: Callable[[], Any] | None = None
    search: Callable[[], Any] | None = None


def find_experiment(name: str) -> Found:
    """Find the experiment called `name` (see `fdl.experiment_files.find_file`) and import its file.

    Raises:
        UserError: there is no such file, it cannot be imported, or it has no function `experiment`.
    """
    path = find_file(name)
    module = _module(path)
    make = getattr(module, "experiment", None)
    if not callable(make):
        raise UserError(f"{printable(path)} has no function experiment() that returns an Experiment; write one")
    others = {name: found for name in ("study", "search") if callable(found := getattr(module, name, None))}
    return Found(path.stem, path, docstring(path), make, **others)


def _module(path: Path) -> ModuleType:
    root = str(EXPERIMENTS.parent)
    if root not in sys.path:
        sys.path.insert(0, root)  # a user's own file imports `experiments.fashion_cnn` from wherever it is started
    if str(path.parent) not in (*sys.path, str(EXPERIMENTS)):
        sys.path.append(str(path.parent))  # and what is beside it; at the end, where it shadows no library
    try:
        if path.parent == EXPERIMENTS:
            module = importlib.import_module(f"experiments.{path.stem}")
        else:
            # A name of its own, so that a file called json.py does not replace the module json.
            spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
            if spec is None or spec.loader is None:
                raise ImportError("not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # dataclasses look up their module
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{printable(path)} cannot be imported: {type(error).__name__}: {one_line(error)}; correct the file"
        ) from error
    return module


def load_experiment(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """Load the experiment called `name`, with each "path=value" applied in order.

    Raises:
        UserError: see `find_experiment` and `override`.
    """
    return make_experiment(find_experiment(name), overrides)


def make_experiment(found: Found, overrides: Sequence[str] = ()) -> Experiment:
    """Make the experiment of a file that was found, with each "path=value" applied in order.

    Raises:
        UserError: its function fails or returns something else; see `override`.
    """
    try:
        experiment = found.make()
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{printable(found.path)}: experiment() failed: {type(error).__name__}: {one_line(error)}; correct the file"
        ) from error
    if not isinstance(experiment, Experiment):
        raise UserError(
            f"{printable(found.path)}: experiment() returned {type(experiment).__name__}, not an Experiment"
        )
    return dataclasses.replace(override(experiment, *overrides), name=found.name)
