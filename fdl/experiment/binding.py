"""Late binding: fields that an experiment leaves to the data (`fdl.types.Fact`) are filled in when the data is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from flax import linen as nn

from fdl.data.source_text import quick_facts
from fdl.data.splits import Facts, Request
from fdl.experiment.overrides import settings, show
from fdl.parsing import field_type
from fdl.types import Fact, UserError

if TYPE_CHECKING:
    from fdl.experiment.experiment import Experiment

T = TypeVar("T")
FROM_THE_DATA = "(from the data)"


def bind_experiment(experiment: Experiment, facts: Facts) -> Experiment:
    """Bind an experiment's model and task to the data.

    Raises:
        UserError: a field is left to the data, which do not give it.
    """
    model, task = bind_model(experiment.model, facts, "model"), bind_model(experiment.task, facts, "task")
    return dataclasses.replace(experiment, model=model, task=task)


def bind_model(model: T, facts: Facts, path: str = "model") -> T:
    """Fill in every field that a module (or any frozen dataclass) leaves to the data, also in modules within it.

    A value that is not 0 (or empty) was chosen by the user, and stays.

    Raises:
        UserError: the data do not give it.
    """
    bound, missing = _bind(model, facts, path)
    if missing:
        where, fact = missing[0]
        raise UserError(f"{where} is left to the data, which do not say {fact!r}; set it, such as --set {where}=10")
    return bound


def resolved_settings(experiment: Experiment, request: Request) -> dict[str, str]:
    """List every setting as --show prints it; those left to the data as the data give them, where that is quickly known.

    Nothing is downloaded, and no data set is read whole.
    """
    facts = quick_facts(experiment.data.loader, request) or Facts()
    model, unknown = _bind(experiment.model, facts, "model")
    task, more = _bind(experiment.task, facts, "task")
    left = {path for path, _ in (*unknown, *more)}
    shown = settings(dataclasses.replace(experiment, model=model, task=task))
    return {path: f"{show(value)} {FROM_THE_DATA}" if path in left else show(value) for path, value in shown}


def _bind(node: object, facts: Facts, path: str) -> tuple[Any, list[tuple[str, str]]]:
    """Return (the node bound as far as the facts go, (path, name of the fact) of each field still left to the data)."""
    missing: list[tuple[str, str]] = []
    if isinstance(node, tuple):
        names = [type(item).__name__.lower() for item in node]
        parts = [_bind(item, facts, f"{path}.{name}") for name, item in zip(names, node, strict=True)]
        items, left = [item for item, _ in parts], [each for _, more in parts for each in more]
        changed = any(new is not old for new, old in zip(items, node, strict=True))
        return (type(node)(*items) if hasattr(node, "_fields") else tuple(items)) if changed else node, left
    if isinstance(node, type) or not dataclasses.is_dataclass(node):
        return node, missing
    new = {}
    for field, fact in _fields(node):
        value = getattr(node, field)
        if fact is None:
            inner, left = _bind(value, facts, f"{path}.{field}")
            missing += left
        elif value:
            continue
        else:
            inner = _value(facts, fact, value)
            missing += [] if inner or fact.optional else [(f"{path}.{field}", fact.name)]
        if inner is not value and inner is not None:
            new[field] = inner
    if not new:
        return node, missing
    if isinstance(node, nn.Module):
        return node.clone(**new), missing
    return dataclasses.replace(node, **new), missing  # type: ignore[type-var]  # an instance: checked above


def _fields(node: Any) -> Iterator[tuple[str, Fact | None]]:
    """List (name, the fact it is bound to) of every field of a dataclass that is part of its settings."""
    for field in dataclasses.fields(node):
        if field.init and field.name not in ("parent", "name"):
            kind = field_type(type(node), field.name)
            marks = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
            yield field.name, next((mark for mark in marks if isinstance(mark, Fact)), None)


def _value(facts: Facts, fact: Fact, left: object) -> Any:
    """Return the fact, counted where a number is wanted; None where it is not known."""
    known = facts.value(fact.name)
    wants_number = isinstance(left, int)
    known = tuple(known) if isinstance(known, list) else known  # of `Facts.extra`, which holds JSON values
    return len(known) if wants_number and isinstance(known, (Sized, Mapping)) else known
