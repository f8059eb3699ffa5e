"""An experiment is one frozen value. Here: the value, finding it by name, and changing it by dotted path and text."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from flax import linen as nn

from fdl.data.splits import Data
from fdl.optim import Optimizer
from fdl.tasks.task import Task
from fdl.types import Count, Duration, DurationLike, Range, UserError

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run depends on, but for its seed and its machine.

    Attributes:
        data: where rows come from and what is done to them.
        model: the Linen module, applied to a batch's "inputs".
        task: how outputs are scored, compared and shown.
        optimizer: the recipe, given the run's number of steps.
        steps: how long to train.
        batch_size, eval_batch_size: examples of a global batch.
        num_examples: train on the first so many of the shuffled training examples (None: all).
        log_every, eval_every, save_every: how often to write a row, evaluate on the validation split, save.
        sample_every: how often to show what the model makes up (0: never).
        patience: stop after so many evaluations without a new best (None: never).
        stop_at: stop once the task's monitored metric is this good on the validation split (None: never).
        name: set by `load_experiment`.
    """

    data: Data
    model: nn.Module
    task: Task
    optimizer: Optimizer = Optimizer()
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
    name: str = ""

    def __post_init__(self) -> None:
        for field in ("steps", "log_every", "eval_every", "save_every", "sample_every"):
            value = Duration.parse(getattr(self, field))
            if value.value == 0 and field != "sample_every":
                raise ValueError(f"{field} must be longer than 0")
            object.__setattr__(self, field, value)
        if Duration.parse(self.steps).unit == "%":
            raise ValueError("steps cannot be a share of itself: expected 300, 5epochs or 20000examples")


@dataclasses.dataclass(frozen=True)
class Found:
    """Where an experiment's name leads: its file, its docstring, and the function that makes it."""

    name: str
    path: Path
    doc: str
    make: Callable[[], Experiment]


def experiment_names() -> list[str]:
    """The files under experiments/, without their suffix."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.py") if not path.stem.startswith("_"))


def docstring(path: Path) -> str:
    """A module's docstring, read without running it."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def find_experiment(name: str) -> Found:
    """The experiment called `name`: a file under experiments/, or the path of a .py file of the user's own.

    Raises:
        UserError: there is no such file, it cannot be imported, or it has no function `experiment`.
    """
    stem = name.removeprefix("experiments.")
    if name.endswith(".py"):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise UserError(
                f"--experiment={name}: there is no such file; give the path of a .py file, or a name of --list"
            )
    elif stem in experiment_names():
        path = EXPERIMENTS / f"{stem}.py"
    else:
        near = difflib.get_close_matches(stem, experiment_names(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"--experiment={name}: there is no such experiment; {hint}--list names them all")
    make = _maker(path)
    return Found(path.stem, path, docstring(path), make)


def _maker(path: Path) -> Callable[[], Experiment]:
    root = str(EXPERIMENTS.parent)
    if root not in sys.path:
        sys.path.insert(0, root)  # a user's own file imports `experiments.fashion_cnn` from wherever it is started
    try:
        if path.parent == EXPERIMENTS:
            module = importlib.import_module(f"experiments.{path.stem}")
        else:
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise ImportError("not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module  # dataclasses look their module up
            spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {_one_line(error)}") from error
    make = getattr(module, "experiment", None)
    if not callable(make):
        raise UserError(f"{path} has no function experiment() that returns an Experiment")
    return typing.cast(Callable[[], Experiment], make)


def load_experiment(name: str, overrides: list[str] | tuple[str, ...] = ()) -> Experiment:
    """The experiment called `name`, with each "path=value" applied in order.

    Raises:
        UserError: see `find_experiment` and `override`.
    """
    found = find_experiment(name)
    try:
        experiment = found.make()
    except Exception as error:
        raise UserError(f"{found.path}: experiment() failed: {type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(experiment, Experiment):
        raise UserError(f"{found.path}: experiment() returned {type(experiment).__name__}, not an Experiment")
    return dataclasses.replace(override(experiment, *overrides), name=found.name)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


# ---- dotted names -------------------------------------------------------------------------------------------------

_HIDDEN = {"parent", "name"}


def _fields(node: Any) -> list[tuple[str, Any, Any]]:
    """(name, annotation, value) of what can be set on a dataclass, a tuple of dataclasses, or a function with keywords."""
    if _keywords(node):
        given = getattr(node, "keywords", {})
        return [(name, annotation, given.get(name, default)) for name, annotation, default in _keywords(node)]
    if isinstance(node, tuple):
        return [(type(item).__name__.lower(), type(item), item) for item in node]
    return [
        (field.name, _annotation(type(node), field.name), getattr(node, field.name))
        for field in dataclasses.fields(node)
        if field.init and field.name not in _HIDDEN
    ]


def _annotation(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        annotation = inspect.get_annotations(base).get(name)
        if annotation is not None:
            return _resolved(annotation, base.__module__)
    raise AttributeError(f"{cls.__name__} has no field {name}")


def _resolved(annotation: Any, module: str) -> Any:
    """An annotation that `from __future__ import annotations` left as text: evaluated where it was written."""
    return eval(annotation, vars(sys.modules[module]), {}) if isinstance(annotation, str) else annotation  # noqa: S307


def _keywords(node: Any) -> list[tuple[str, Any, Any]]:
    """(name, annotation, default) of the keyword-only arguments of a function or a partial of one (a data source)."""
    function = getattr(node, "func", node)
    if not isinstance(function, types.FunctionType):
        return []
    parameters = inspect.signature(function).parameters.values()
    return [
        (p.name, _resolved(p.annotation, function.__module__), p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    ]


def _is_node(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(_is_node(item) for item in value)
    return bool(_keywords(value)) or (dataclasses.is_dataclass(value) and not isinstance(value, (type, Duration)))


def settings(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf by the dotted name that --set takes, with its value, in the order of declaration."""
    for name, _, value in _fields(node):
        if _is_node(value):
            if _keywords(value):
                yield prefix + name, getattr(value, "func", value)
            yield from settings(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def show(value: Any) -> str:
    """A leaf as --set would take it."""
    if callable(value) and hasattr(value, "__name__"):
        return f"{value.__module__}.{value.__name__}"
    if isinstance(value, tuple):
        return ",".join(show(item) for item in value) if value else "()"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def override(experiment: Experiment, *texts: str) -> Experiment:
    """The experiment with each "path=value" applied, later ones over earlier ones; it is checked as a whole at the end.

    Raises:
        UserError: a path is unknown (the nearest is named), a value has the wrong type or is out of its range, or the
            values cannot go together.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        path, value = path.strip(), value.strip()
        if not equals or not path:
            raise UserError(f"--set {text}: expected path=value, such as --set batch_size=64")
        try:
            _collect(experiment, path, value, changes)
        except ValueError as error:
            raise UserError(f"--set {path}={value}: {_one_line(error)}") from error
    try:
        return typing.cast(Experiment, _rebuild(experiment, changes))
    except (ValueError, TypeError) as error:
        raise UserError(f"--set {' '.join(texts)}: {_one_line(error)}") from error


def _collect(root: Any, path: str, text: str, changes: dict[str, Any]) -> None:
    """Parse one value and put it at its place in `changes`, a tree of dicts shaped like the experiment."""
    node, parts = root, path.split(".")
    for depth, head in enumerate(parts):
        fields = {name: (annotation, value) for name, annotation, value in _fields(node)}
        last = depth == len(parts) - 1
        if head not in fields or not (last or _is_node(fields[head][1])):
            known = [name for name, _ in settings(root)]
            near = difflib.get_close_matches(path, known, n=1, cutoff=0.0) or known[:1]
            raise UserError(
                f"--set {path}={text}: there is no setting {path}; the nearest is {near[0]}; --show lists them all"
            )
        annotation, node = fields[head]
        if not last:
            if changes.get(head) == ():
                raise ValueError(f"{head} was set to none before")
            changes = changes.setdefault(head, {})
        elif not _is_node(node):
            changes[head] = parse(text, annotation)
        elif isinstance(node, tuple) and text.lower() in ("none", "()"):
            changes[head] = ()
        else:
            example = next((name for name, _ in settings(node, path + ".")), "nothing")
            raise ValueError(f"{path} is a group; set what is in it, such as {example}")


def _rebuild(node: Any, changes: dict[str, Any]) -> Any:
    """`node` with the changes of its part of the tree."""
    values = {name: value for name, _, value in _fields(node)}
    new = {name: _rebuild(values[name], c) if isinstance(c, dict) else c for name, c in changes.items()}
    if not new:
        return node
    if _keywords(node):
        return functools.partial(node, **new)
    if isinstance(node, tuple):
        return tuple(new.get(type(item).__name__.lower(), item) for item in node)
    if isinstance(node, nn.Module):
        return node.clone(**new)
    return dataclasses.replace(node, **new)


def parse(text: str, annotation: Any) -> Any:
    """`text` as a value of the annotated type.

    Raises:
        ValueError: it is none; the message says what was expected.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        value = parse(text, args[0])
        for limit in args[1:]:
            if isinstance(limit, Range) and value not in limit:
                raise ValueError(f"expected {_expected(args[0])} in {limit}")
        return value
    if origin in (Union, types.UnionType):
        if type(None) in args and text.lower() == "none":
            return None
        reasons = []
        for option in args:
            if option is not type(None):
                try:
                    return parse(text, option)
                except ValueError as error:
                    reasons.append(str(error))
        raise ValueError("; or ".join(reasons) + (", or none" if type(None) in args else ""))
    if origin is Literal:
        for choice in args:
            if text == str(choice):
                return choice
        near = difflib.get_close_matches(text, map(str, args), n=1)
        raise ValueError(f"expected {' | '.join(map(str, args))}" + (f"; did you mean {near[0]}?" if near else ""))
    if origin is tuple:
        body = text.strip("()[] ")
        items = [item.strip() for item in body.split(",") if item.strip()]
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(parse(item, args[0]) for item in items)
        if len(items) != len(args):
            raise ValueError(f"expected {len(args)} values with commas between, got {len(items)}")
        return tuple(parse(item, kind) for item, kind in zip(items, args, strict=True))
    if annotation is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ValueError("expected true or false")
    if annotation is Duration:
        return Duration.parse(text)
    if annotation in (int, float):
        try:
            value = annotation(text)
        except ValueError:
            raise ValueError(f"expected {_expected(annotation)}") from None
        if value != value:
            raise ValueError("a NaN is no setting: expected a number")
        return value
    if annotation is str:
        return text
    raise ValueError(
        "this setting is code, not text: change it in a file of your own and give its path to --experiment"
    )


def _expected(kind: Any) -> str:
    return {int: "a whole number", float: "a number"}.get(kind, getattr(kind, "__name__", str(kind)))
