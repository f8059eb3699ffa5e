"""Values as a person reads them: metrics, durations, anything in a record."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from fdl.tasks.task import MetricStyle, Task

PLAIN = MetricStyle()
Style = Callable[[str], MetricStyle]
"""The name of a metric ("accuracy") -> how it is shown."""


def style_of(task: Task) -> Style:
    """Return the task's own way of showing metrics; names may have a split before them ("test/accuracy")."""
    return task.metric_style


def number(value: object, style: MetricStyle = PLAIN, unit: bool = False) -> str:
    """Format a metric: a share as per cent, anything else to four digits, followed by its `unit` where asked for.

    >>> number(0.93125, MetricStyle(percent=True)), number(1.5236, MetricStyle(unit="nats"), unit=True)
    ('93.12%', '1.524 nats')
    """
    if not isinstance(value, int | float):
        return text(value)
    if style.percent and math.isfinite(value):
        return f"{value:.2%}"
    shown = f"{value:.4g}" if abs(value) < 1e4 or not abs(value) < 1e15 else f"{value:,.0f}"
    return f"{shown} {style.unit}" if unit and style.unit else shown


def duration(seconds: float) -> str:
    """Format seconds.

    >>> duration(43.21), duration(185), duration(4000)
    ('43.2 s', '3 min 5 s', '1 h 6 min')
    """
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def text(value: object) -> str:
    """Format any value of a JSON record on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value) if value else "()"
    return "none" if value is None else str(value)


def cell(value: object) -> tuple[str, bool]:
    """Format a table's cell; the second value says whether it is a number, which is aligned to the right."""
    shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else text(value)
    return shown, re.fullmatch(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?\s?%?", shown) is not None


def breakable(name: object) -> str:
    """Format a column's name so that a browser may break it after an underscore."""
    return text(name).replace("_", "_\N{ZERO WIDTH SPACE}")
