"""A search: which settings of an experiment --mode=sweep tries, and where it may look for them.

A file under experiments/ (or of your own) that has a function `search()` beside `experiment()` can be swept:

    def search() -> Search:
        return Search({"optimizer.learning_rate": Log(1e-4, 1e-1), "model.widths": Choice(("512", "1024,512"))})
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from fdl.experiment.overrides import override, settings, show
from fdl.types import UserError, one_line, printable


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A number between two others, each as likely as the next."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Log:
    """A number between two others above 0, whose logarithm is uniform: for a setting whose order of magnitude matters."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)
        if self.low <= 0:
            raise ValueError(f"Log({self.low}, {self.high}): a logarithmic range begins above 0")


@dataclasses.dataclass(frozen=True)
class Int:
    """A whole number between two others, both included; with `log` as `Log`'s."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)
        if self.low != int(self.low) or self.high != int(self.high):
            raise ValueError(f"Int({self.low}, {self.high}): both ends are whole numbers")
        if self.log and self.low < 1:
            raise ValueError(f"Int({self.low}, {self.high}, log=True): a logarithmic range begins above 0")


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values: texts as --set takes them, or the values themselves (numbers, tuples, true and false)."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or len(set(map(show, self.values))) < max(2, len(self.values)):
            raise ValueError(f"Choice({self.values!r}): give a tuple of two or more values, each once")


Dimension = Uniform | Log | Int | Choice


def _check_ends(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"a range from {low} to {high}: expected two finite numbers, the smaller first")


@dataclasses.dataclass(frozen=True)
class Search:
    """What a sweep does.

    Attributes:
        space: the dotted name of a setting, as --set takes it -> where its value is looked for.
        trials: how many runs in all (--trials overrides it).
        sampler: "tpe": tree-structured Parzen estimator (Bergstra et al. 2011); "random".
        pruner: what ends a trial early: "asha": asynchronous successive halving (Li et al. 2018); "hyperband" (Li
            et al. 2016); "none".
    """

    space: Mapping[str, Dimension]
    trials: int = 20
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["asha", "hyperband", "none"] = "asha"

    def __post_init__(self) -> None:
        if not self.space:
            raise ValueError("a Search needs one setting at least to vary")
        for name, where in self.space.items():
            if not isinstance(where, Dimension):
                raise ValueError(f"{name}: expected Uniform, Log, Int or Choice, got {type(where).__name__}")
        if self.trials < 1:
            raise ValueError(f"trials={self.trials}: one at least")
        for value, known in ((self.sampler, ("tpe", "random")), (self.pruner, ("asha", "hyperband", "none"))):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")


def load_search(
    make: Callable[[], object] | None, experiment: object, where: object, overrides: Iterable[str] = ()
) -> Search:
    """Load the search that the file `where` declares, checked against its experiment before anything is started.

    Args:
        make: the file's function `search`, None where it has none.
        overrides: the user's own --set, which must leave the searched settings alone.

    Raises:
        UserError: there is none, it fails, or the experiment refuses an end of a range or a choice.
    """
    where = printable(where)
    if make is None:
        raise UserError(f"{where} has no function search(); write one that returns a fdl.experiment.tuning.Search")
    try:
        search = make()
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{where}: search() failed: {type(error).__name__}: {one_line(error)}; correct the file"
        ) from error
    if not isinstance(search, Search):
        raise UserError(f"{where}: search() returned {type(search).__name__}, not a Search")
    for text in overrides:
        name = text.partition("=")[0].strip()
        if name in search.space:
            raise UserError(f"--set {printable(text, 80)}: the sweep itself varies {name}; leave this --set out")
    for name, dimension in search.space.items():
        for value in dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high):
            try:
                override(experiment, f"{name}={show(value)}")
            except UserError as error:
                raise UserError(f"{where}: search() goes where the experiment cannot follow: {error}") from error
    return search


def own_values(search: Search, experiment: object) -> dict[str, Any] | None:
    """Return what the experiment itself has for the searched settings (numbers, a choice's text); None where one is outside.

    They are the first trial, so that no sweep ends worse than the experiment as it is.
    """
    now = dict(settings(experiment))
    found: dict[str, Any] = {}
    for name, dimension in search.space.items():
        value = now.get(name)
        if isinstance(dimension, Choice):
            same = [
                v for v in dimension.values if dict(settings(override(experiment, f"{name}={show(v)}")))[name] == value
            ]
            if not same:
                return None
            found[name] = show(same[0])
        elif (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not dimension.low <= value <= dimension.high
        ):
            return None
        else:
            found[name] = value
    return found


def as_set_flags(values: Mapping[str, object]) -> tuple[str, ...]:
    """Format a trial's values as --set takes them."""
    return tuple(f"{name}={show(value)}" for name, value in values.items())
