"""What a run writes while it trains: metrics.jsonl, metrics.csv, TensorBoard events, and lines or a bar for a person."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fdl.files import to_json, write_error, write_text
from fdl.rundir.event_files import cut_events, next_suffix
from fdl.rundir.rows import Row as Row
from fdl.rundir.rows import as_numbers, cut_rows, last_rows, parse_row


def read_rows(workdir: Path) -> list[Row]:
    """Read the rows of metrics.jsonl; a half-written last line does not count."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    with open(path, "rb") as file:
        return [row for line in file if (row := parse_row(line)) is not None]


def read_summary(workdir: Path) -> dict[str, Any]:
    """Read summary.json, its metrics as numbers (null is one that is not finite).

    Raises:
        OSError, ValueError, KeyError: it is not there, or damaged.
    """
    found = dict(json.loads((workdir / "summary.json").read_text(encoding="utf-8")))
    return found | {"metrics": as_numbers(found["metrics"])}


def write_csv(workdir: Path, rows: Sequence[Row]) -> None:
    """Write metrics.csv: the rows of metrics.jsonl as a table, a column for every name that occurs."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(workdir / "metrics.csv", table.getvalue(), durable=False)


def _summary_writer() -> Any:
    """Return tensorboardX's writer without PyTorch, which it would import for tensors not used here (180 MiB)."""
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hide:
            del sys.modules["torch"]
    return SummaryWriter


@contextlib.contextmanager
def writer(workdir: Path, upto: int) -> Iterator[Callable[[Row], None]]:
    """Yield `write(row)`, which appends one logged step to metrics.jsonl and to TensorBoard.

    Args:
        upto: the step the run resumes from. Rows after it are removed (they will be made again, to the bit), from the
            event files as well; earlier rows are neither read nor changed.
    """
    SummaryWriter = _summary_writer()
    board_dir = workdir / "tensorboard"
    cut_rows(workdir / "metrics.jsonl", upto)
    first = cut_events(board_dir, upto)
    # `purge_step` is for a running TensorBoard that has already read what was just removed.
    options = {"filename_suffix": next_suffix(board_dir), "purge_step": first if first >= 0 else None}
    with open(workdir / "metrics.jsonl", "a") as file, SummaryWriter(str(board_dir), **options) as board:

        def show(row: Row) -> None:
            for name, value in row.items():
                if name not in ("step", "epoch") and isinstance(value, (int, float)) and math.isfinite(value):
                    board.add_scalar(name, value, row["step"])

        def write(row: Row) -> None:
            try:
                file.write(to_json(row) + "\n")
                file.flush()
                show(row)
            except OSError as error:
                raise write_error(workdir / "metrics.jsonl", error) from error

        # Rows that a killed start had logged but not yet written for TensorBoard: few, unless its files were deleted.
        for row in last_rows(workdir / "metrics.jsonl", first):
            show(row)
        yield write


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int], width: int = 110) -> None:
    """Print a table.

    Args:
        numbers: the columns that are aligned to the right.
        width: in characters, where no terminal gives one.
    """
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*header, box=None, pad_edge=False)
    for column in numbers:
        drawn.columns[column].justify = "right"
    for row in rows:
        drawn.add_row(*row)
    Console(width=None if sys.stdout.isatty() else width, highlight=False).print(drawn)


def short(value: float) -> str:
    """Format a metric for a person: four significant digits, thousands separated.

    >>> short(0.123456), short(45678), short(8.75e141)
    ('0.1235', '45,678', '8.75e+141')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


@contextlib.contextmanager
def progress(name: str, start: int, total: int) -> Iterator[Callable[[int, Row], None]]:
    """Yield `tell(step, row)`, which shows how far the run is: a bar in a terminal, a line per row elsewhere.

    Both give the time left of the whole run. `tell(step, {})` only moves the bar.
    """
    began = time.monotonic()

    def left(step: int) -> str:
        if step <= start:
            return "--:--"
        seconds = round((time.monotonic() - began) / (step - start) * (total - step))
        return (
            f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
            if seconds >= 3600
            else f"{seconds // 60}:{seconds % 60:02}"
        )

    def words(row: Row) -> str:
        names = [n for n in row if n.startswith(("train/", "eval/"))]
        names = [n for n in names if n not in ("train/gradient_norm", "train/learning_rate", "train/cross_entropy")]
        rate = [f"{short(row['examples_per_second'])} examples/s"] if "examples_per_second" in row else []
        return "  ".join(rate + [f"{n} {short(row[n])}" for n in names])

    if not sys.stdout.isatty():

        def tell_lines(step: int, row: Row) -> None:
            if row:
                print(f"step {step}/{total}  {words(row)}  left {left(step)}", flush=True)

        yield tell_lines
        return

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("left {task.fields[left]}  {task.fields[words]}"), refresh_per_second=4,
    )  # fmt: skip
    with bar:
        job = bar.add_task(name, total=total, completed=start, left="--:--", words="")

        def tell_bar(step: int, row: Row) -> None:
            bar.update(job, completed=step, left=left(step))
            if row:
                now = {name: value for name, value in row.items() if not name.startswith("eval/")}
                bar.update(job, words=words(now))  # evaluations stay above the bar, as lines
            if any(n.startswith("eval/") for n in row):
                bar.print(f"step {step}/{total}  {words(row)}", highlight=False)

        yield tell_bar
