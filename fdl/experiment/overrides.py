"""Changing a frozen value by dotted path and text: what can be set, how it is shown, how text becomes a typed value."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterator
from typing import Any, TypeVar, cast

from flax import linen as nn

from fdl.parsing import field_type, keywords, parse, parses_itself
from fdl.types import UserError, one_line, printable

T = TypeVar("T")
_SHOWN = 80  # characters of a text that are repeated in an error about it

_HIDDEN = {"parent", "name"}


def _fields(node: Any) -> list[tuple[str, Any, Any]]:
    """List (name, type, value) of what can be set on a dataclass, a tuple of dataclasses, or a function with keywords."""
    if arguments := keywords(node):
        given = getattr(node, "keywords", {})
        return [(name, annotation, given.get(name, default)) for name, annotation, default in arguments]
    if isinstance(node, tuple):
        return [(type(item).__name__.lower(), type(item), item) for item in node]
    return [
        (field.name, field_type(type(node), field.name), getattr(node, field.name))
        for field in dataclasses.fields(node)
        if field.init and field.name not in _HIDDEN
    ]


def _is_node(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(_is_node(item) for item in value)
    if isinstance(value, type) or parses_itself(type(value)):
        return False
    return bool(keywords(value)) or dataclasses.is_dataclass(value)


def settings(node: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List every leaf by the dotted name that --set takes, with its value, in the order of declaration."""
    for name, _, value in _fields(node):
        if _is_node(value):
            if keywords(value):
                yield prefix + name, getattr(value, "func", value)
            yield from settings(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def show(value: object) -> str:
    """Format a leaf as --set takes it."""
    if callable(value) and hasattr(value, "__name__"):
        return f"{value.__module__}.{value.__name__}"
    if isinstance(value, tuple):
        nested = (f"({show(item)})" if isinstance(item, tuple) and item else show(item) for item in value)
        return ",".join(nested) if value else "()"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def override(experiment: T, *texts: str) -> T:
    """Apply each "path=value" to the experiment, later ones over earlier ones; it is checked as a whole at the end.

    Raises:
        UserError: a path is unknown (the nearest is named), a value has the wrong type or is out of its range, or the
            values cannot go together.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        path, value = path.strip(), value.strip()
        if not equals or not path:
            raise UserError(f"--set {printable(text, _SHOWN)}: expected path=value, such as --set batch_size=64")
        try:
            _collect(experiment, path.split("."), value, changes)
        except LookupError:
            known = [name for name, _ in settings(experiment)]
            near = difflib.get_close_matches(path[:_SHOWN], known, n=1, cutoff=0.0) or known[:1]
            path, value = printable(path, _SHOWN), printable(value, _SHOWN)
            raise UserError(
                f"--set {path}={value}: there is no setting {path}; the nearest is {near[0]}; --show lists them all"
            ) from None
        except ValueError as error:
            raise UserError(f"--set {printable(path, _SHOWN)}={printable(value, _SHOWN)}: {one_line(error)}") from error
    try:
        return cast(T, _rebuild(experiment, changes))
    except (ValueError, TypeError) as error:
        raise UserError(f"--set {printable(' '.join(texts), _SHOWN)}: {one_line(error)}") from error


def _collect(node: object, path: list[str], text: str, changes: dict[str, Any]) -> None:
    """Parse one value and put it in its place in `changes`, a tree of dicts shaped like `node`.

    Raises:
        LookupError: there is no such path below `node`.
        ValueError: the text is not a value for it.
    """
    head, *rest = path
    fields = {name: (annotation, value) for name, annotation, value in _fields(node)}
    if head not in fields:
        raise LookupError(head)
    annotation, value = fields[head]
    replaced = head in changes and not isinstance(changes[head], dict)
    value = changes[head] if replaced else value
    if rest:
        if replaced and value == ():
            raise ValueError(f"{head} was set to none before")
        if not _is_node(value):
            raise LookupError(rest[0])
        within: dict[str, Any] = {} if replaced else changes.setdefault(head, {})
        _collect(value, rest, text, within)
        if replaced:  # by a data source that an earlier --set named, whose options follow
            changes[head] = _rebuild(value, within)
    elif not _is_node(value) or parses_itself(annotation):
        changes[head] = parse(text, annotation)
    elif isinstance(value, tuple) and text.lower() in ("none", "()"):
        changes[head] = ()
    elif hasattr(value, "changes_of"):
        main, rest_of_it = value.changes_of(text)
        changes[head] = {**rest_of_it, **changes.get(head, {}), **main}
    else:
        example = next((name for name, _ in settings(value, head + ".")), "nothing")
        raise ValueError(f"{head} is a group; set what is in it, such as {example}")


def _rebuild(node: Any, changes: dict[str, Any]) -> Any:
    """Rebuild `node` with the changes of its part of the tree."""
    values = {name: value for name, _, value in _fields(node)}
    new = {name: _rebuild(values[name], c) if isinstance(c, dict) else c for name, c in changes.items()}
    if not new:
        return node
    if keywords(node):
        return functools.partial(node, **new)
    if isinstance(node, tuple):
        return tuple(new.get(type(item).__name__.lower(), item) for item in node)
    if isinstance(node, nn.Module):
        return node.clone(**new)
    return dataclasses.replace(node, **new)
