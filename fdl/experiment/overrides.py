"""Changing a frozen value by dotted path and text: what can be set, how it is shown, how text becomes a typed value."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from flax import linen as nn

from fdl.types import Range, UserError, one_line, printable

T = TypeVar("T")
_LARGEST_INT, _LARGEST_FLOAT = 2**31 - 1, 3.4028234e38  # JAX computes in 32 bits
_SHOWN = 80  # characters of a text that are repeated in an error about it

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
    """An annotation that `from __future__ import annotations` left as text: evaluated where it was written.

    It is the text of a class or a function that is imported already, never the user's.
    """
    if not isinstance(annotation, str):
        return annotation
    return eval(annotation, vars(sys.modules[module]), {})  # noqa: S307  # nosec B307


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
    return bool(_keywords(value)) or (dataclasses.is_dataclass(value) and not _parses_itself(value))


def _parses_itself(value: Any) -> bool:
    """A class, or a value of one, that is written as one text: a Duration, a Group of parameters."""
    return isinstance(value, type) or hasattr(value, "parse")


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


def override(experiment: T, *texts: str) -> T:
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
            raise UserError(f"--set {printable(text, _SHOWN)}: expected path=value, such as --set batch_size=64")
        try:
            _collect(experiment, path, value, changes)
        except ValueError as error:
            raise UserError(f"--set {printable(path, _SHOWN)}={printable(value, _SHOWN)}: {one_line(error)}") from error
    try:
        return cast(T, _rebuild(experiment, changes))
    except (ValueError, TypeError) as error:
        raise UserError(f"--set {printable(' '.join(texts), _SHOWN)}: {one_line(error)}") from error


def _collect(root: Any, path: str, text: str, changes: dict[str, Any]) -> None:
    """Parse one value and put it at its place in `changes`, a tree of dicts shaped like the experiment."""
    node, parts = root, path.split(".")
    for depth, head in enumerate(parts):
        fields = {name: (annotation, value) for name, annotation, value in _fields(node)}
        last = depth == len(parts) - 1
        if head not in fields or not (last or _is_node(fields[head][1])):
            known = [name for name, _ in settings(root)]
            near = difflib.get_close_matches(path[:_SHOWN], known, n=1, cutoff=0.0) or known[:1]
            path, text = printable(path, _SHOWN), printable(text, _SHOWN)
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


def parse(text: str, annotation: Any, limits: tuple[Any, ...] = ()) -> Any:
    """`text` as a value of the annotated type; a number in `limits` (Ranges).

    Raises:
        ValueError: it is none; the message says what was expected.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return parse(text, args[0], args[1:])
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
    if hasattr(annotation, "parse"):
        return annotation.parse(text)
    if annotation in (int, float):
        try:
            value = annotation(text)
        except ValueError:
            raise ValueError(f"expected {_expected(annotation)}") from None
        if value != value:
            raise ValueError("a NaN is no setting: expected a number")
        for limit in limits:
            if isinstance(limit, Range) and value not in limit:
                raise ValueError(f"expected {_expected(annotation)} in {limit}")
        if abs(value) > (_LARGEST_INT if annotation is int else _LARGEST_FLOAT):
            raise ValueError(f"expected {_expected(annotation)} that 32 bits can hold")
        return value
    if annotation is str:
        return text
    raise ValueError(
        "this setting is code, not text: change it in a file of your own and give its path to --experiment"
    )


def _expected(kind: Any) -> str:
    return {int: "a whole number", float: "a number"}.get(kind, getattr(kind, "__name__", str(kind)))
