"""From text to a typed value: how `--set`, and the options of a data source given as text, are read."""

from __future__ import annotations

import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fdl.types import Range, printable

_LARGEST_INT, _LARGEST_FLOAT = 2**31 - 1, 3.4028234e38  # JAX computes in 32 bits
_OPEN, _CLOSE = ("(", "["), (")", "]")


def parse(text: str, annotation: Any, limits: tuple[Any, ...] = ()) -> Any:
    """Parse `text` as a value of the annotated type; a number must lie in `limits` (Ranges).

    A type with a class method `parse` (a Duration, a data source) reads its own text.

    >>> parse("(64, 128)", tuple[int, ...])
    (64, 128)

    Raises:
        ValueError: it is not one; the message says what was expected.
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return parse(text, inner, tuple(more))
    if parser := _PARSERS.get(origin or annotation):
        return parser(text, annotation, limits)
    if parses_itself(annotation):
        return annotation.parse(text)
    raise ValueError(
        "this setting is code, not text: change it in a file of your own and give its path to --experiment"
    )


def parses_itself(annotation: Any) -> bool:
    """Return whether the type has a class method `parse` that makes a value from text."""
    return inspect.isclass(annotation) and callable(getattr(annotation, "parse", None))


def _union(text: str, annotation: Any, limits: tuple[Any, ...]) -> Any:
    options = get_args(annotation)
    optional = type(None) in options
    if optional and text.lower() == "none":
        return None
    reasons = []
    for option in options:
        if option is not type(None):
            try:
                return parse(text, option)
            except ValueError as error:
                reasons.append(str(error))
    raise ValueError("; or ".join(reasons) + (", or none" if optional else ""))


def _choice(text: str, annotation: Any, limits: tuple[Any, ...]) -> Any:
    choices = get_args(annotation)
    for choice in choices:
        if text == str(choice):
            return choice
    near = difflib.get_close_matches(text, map(str, choices), n=1)
    raise ValueError(f"expected {' | '.join(map(str, choices))}" + (f"; did you mean {near[0]}?" if near else ""))


def _tuple(text: str, annotation: Any, limits: tuple[Any, ...]) -> tuple[Any, ...]:
    """Parse "1,2" or "(1,2)"; where items are tuples themselves, of "(1,2),(3,4)" or "((1,2),(3,4))"."""
    kinds, body = get_args(annotation), text.strip()
    if _enclosed(body):
        try:
            return _tuple(body[1:-1], annotation, limits)
        except ValueError:
            if not any(get_origin(kind) is tuple for kind in kinds):
                raise  # otherwise the brackets may be those of the only item
    items = _items(body)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = kinds[:1] * len(items)
    if len(items) != len(kinds):
        raise ValueError(f"expected {len(kinds)} values with commas between, got {len(items)}")
    return tuple(parse(item, kind) for item, kind in zip(items, kinds, strict=True))


def _items(text: str) -> list[str]:
    """Split at the commas that are outside all brackets.

    Raises:
        ValueError: brackets that do not match.
    """
    depth, items = 0, [""]
    for character in text:
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth < 0:
            break
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    if depth:
        raise ValueError(f"the brackets of {printable(text, 40)!r} do not match")
    return [item.strip() for item in items if item.strip()]


def _enclosed(body: str) -> bool:
    """Return whether the first bracket is closed by the last character."""
    depth, closed = 0, -1
    for place, character in enumerate(body):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0:
            closed = place
            break
    return body.startswith(_OPEN) and closed == len(body) - 1


def _bool(text: str, annotation: Any, limits: tuple[Any, ...]) -> bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise ValueError("expected true or false")


def _number(text: str, annotation: Any, limits: tuple[Any, ...]) -> Any:
    expected = "a whole number" if annotation is int else "a number"
    try:
        value = annotation(text)
    except ValueError:
        raise ValueError(f"expected {expected}") from None
    if value != value:
        raise ValueError("a NaN is no setting: expected a number")
    for limit in limits:
        if isinstance(limit, Range) and value not in limit:
            raise ValueError(f"expected {expected} in {limit}")
    if abs(value) > (_LARGEST_INT if annotation is int else _LARGEST_FLOAT):
        raise ValueError(f"expected {expected} that 32 bits can hold")
    return value


def _text(text: str, annotation: Any, limits: tuple[Any, ...]) -> str:
    return text


_PARSERS: dict[Any, Callable[[str, Any, tuple[Any, ...]], Any]] = {
    Union: _union, types.UnionType: _union, Literal: _choice, tuple: _tuple, bool: _bool, int: _number, float: _number,
    str: _text,
}  # fmt: skip


def field_type(cls: type, name: str) -> Any:
    """Return the type of a class's field with its `Annotated` parts; Any where its text names what is not imported here."""
    for base in cls.__mro__:
        annotation = inspect.get_annotations(base).get(name)
        if annotation is not None:
            return _resolved(annotation, base.__module__)
    raise AttributeError(f"{cls.__name__} has no field {name}")


def keywords(node: Any) -> list[tuple[str, Any, Any]]:
    """List (name, type, default) of the keyword-only arguments of a function or a partial of one (a data source)."""
    function = getattr(node, "func", node)
    if not isinstance(function, types.FunctionType):
        return []
    parameters = inspect.signature(function).parameters.values()
    return [
        (p.name, _resolved(p.annotation, function.__module__), p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    ]


def _resolved(annotation: Any, module: str) -> Any:
    """Evaluate an annotation that `from __future__ import annotations` left as text, where it was written."""
    if not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={"value": annotation})
    try:
        return typing.get_type_hints(holder, vars(sys.modules[module]), include_extras=True)["value"]
    except NameError:
        return Any
