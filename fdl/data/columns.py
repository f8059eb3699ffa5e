"""Columns that are read when they are needed: rows that memory does not hold as an array, such as pictures or windows.

A column takes the place of an array in a split. The pipeline asks the protocol below and knows no class: pictures are
`fdl.data.formats.encoded.Encoded`, windows over a stored series are `Windows` here; a new kind is a class with these members.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from fdl.types import Batch

AHEAD = 2
"""How many batches are being read while one is used."""
_DIGEST_BYTES = 1 << 28  # what is read of overlapping windows to compare them, at most


@runtime_checkable
class Column(Protocol):
    """Rows of one shape and type in place of an array [N, ...]; frozen.

    Attributes:
        shape, ndim, dtype: of the array it replaces.
        draws_shape: of the uniform numbers that choose what is seen of a row in training (a crop), or None: rows do not vary.
        ahead: reading takes long enough to be done in threads, some batches ahead.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def draws_shape(self) -> tuple[int, ...] | None: ...
    @property
    def ahead(self) -> bool: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Column:
        """Return the column of these rows (a slice or an array of numbers); nothing is read."""
        ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all rows, as evaluation sees them."""
        ...

    def read(self, rows: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        """Read rows (int64 [B]) as an array [B, ...]; called from any thread.

        Args:
            draws: uniform numbers [B, *draws_shape] in [0, 1) for training; None: as evaluation sees the rows.

        Raises:
            UserError: a row cannot be read.
        """
        ...

    def fingerprint(self) -> np.ndarray:
        """Return uint8 numbers that represent the rows in a digest of the data set; equal for equal rows."""
        ...

    def row_digests(self) -> np.ndarray | None:
        """Return int64 [N], equal for equal rows, comparable within this process; None: reading all rows would take too long."""
        ...

    def stretches(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return (first, end), int64 [N] each: which part of a stored series a row reads; None: rows share nothing."""
        ...


def is_column(leaf: Any) -> bool:
    """Return whether a leaf of a split is read when needed, and no array in memory."""
    return not isinstance(leaf, np.ndarray) and isinstance(leaf, Column)


def has_columns(arrays: Any) -> bool:
    """Return whether any leaf of the tree is read when needed."""
    return any(map(is_column, jax.tree.leaves(arrays)))


def stretches(arrays: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return which part of a stored series each row reads, all its columns together; None where rows share nothing."""
    found = [each for leaf in jax.tree.leaves(arrays) if is_column(leaf) and (each := leaf.stretches()) is not None]
    if not found:
        return None
    return np.minimum.reduce([first for first, _ in found]), np.maximum.reduce([end for _, end in found])


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """A column of windows over one stored series: row i is series[starts[i] : starts[i] + length].

    However much the windows overlap, the series is stored once.

    Attributes:
        series: [T, ...], the only copy.
        starts: int64 [N].
        length: steps of a window.
    """

    series: np.ndarray
    starts: np.ndarray
    length: int

    draws_shape, ahead = None, False

    def __post_init__(self) -> None:
        if len(self.starts) and (self.starts.min() < 0 or self.starts.max() + self.length > len(self.series)):
            raise ValueError(f"a window of {self.length} steps reaches beyond the series of {len(self.series)}")

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.starts), self.length, *self.series.shape[1:]

    @property
    def ndim(self) -> int:
        return 1 + self.series.ndim

    @property
    def dtype(self) -> np.dtype:
        return self.series.dtype

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: Any) -> Windows:
        return dataclasses.replace(self, starts=self.starts[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        held = self.read(np.arange(len(self)))
        return held if dtype is None else held.astype(dtype, copy=False)

    def read(self, rows: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        return self.series[self.starts[rows][:, None] + np.arange(self.length)]

    def fingerprint(self) -> np.ndarray:
        whole = hashlib.sha256(np.ascontiguousarray(self.series).data)
        whole.update(f"{self.series.shape} {self.series.dtype} {self.length}".encode() + self.starts.tobytes())
        return np.frombuffer(whole.digest(), np.uint8)

    def row_digests(self) -> np.ndarray | None:
        size = self.length * self.dtype.itemsize * int(np.prod(self.series.shape[1:], dtype=np.int64))
        if size * len(self) > _DIGEST_BYTES:
            return None
        held = (self.read(np.array([row])).tobytes() for row in range(len(self)))
        return np.fromiter(map(hash, held), np.int64, len(self))

    def stretches(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self.starts, self.starts + self.length


def windows(
    series: np.ndarray, window: int, horizon: int = 1, stride: int = 1, targets: np.ndarray | None = None
) -> dict[str, Windows]:
    """Cut windows {"inputs": [N, window, ...], "targets": [N, horizon, ...]} every `stride` steps; targets follow inputs.

    Args:
        series: [T, ...].
        targets: another series of the same T to forecast; default: `series` itself.

    Raises:
        ValueError: the series is shorter than one window and its horizon.
    """
    starts = np.arange(0, len(series) - window - horizon + 1, stride)
    if not len(starts):
        raise ValueError(f"a series of {len(series)} steps holds no window of {window} with a horizon of {horizon}")
    followed = series if targets is None else targets
    return {"inputs": Windows(series, starts, window), "targets": Windows(followed, starts + window, horizon)}


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """Rows of a column that a batch is still to read."""

    column: Column
    rows: np.ndarray
    draws: np.ndarray | None = None

    def start(self, pool: Executor | None) -> Reading | np.ndarray:
        """Begin in the pool, each row once however often it is in the batch (as padding is); or read at once."""
        if pool is None or not self.column.ahead:
            return self.column.read(self.rows, self.draws)
        distinct, places = np.arange(len(self.rows)), np.arange(len(self.rows))
        if self.draws is None:
            _, distinct, places = np.unique(self.rows, return_index=True, return_inverse=True)
        draws = [None if self.draws is None else self.draws[place : place + 1] for place in distinct]
        jobs = [
            pool.submit(self.column.read, self.rows[place : place + 1], draw)
            for place, draw in zip(distinct, draws, strict=True)
        ]
        return Reading(jobs, places)


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """Rows on their way: distinct[places] when they are there."""

    distinct: list[Future[np.ndarray]]
    places: np.ndarray

    def finish(self) -> np.ndarray:
        return np.concatenate([self.distinct[place].result() for place in self.places])


def read_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Read what is `Pending` in the batches: on all cores and AHEAD batches ahead, where a column asks for it.

    Raises:
        UserError: a row cannot be read.
    """
    waiting: deque[Batch] = deque()
    pool: ThreadPoolExecutor | None = None
    try:
        for batch in batches:
            pending = [leaf for leaf in jax.tree.leaves(batch) if isinstance(leaf, Pending)]
            if pool is None and any(leaf.column.ahead for leaf in pending):
                pool = ThreadPoolExecutor(cores())
            waiting.append(jax.tree.map(lambda leaf: leaf.start(pool) if isinstance(leaf, Pending) else leaf, batch))
            if pool is None or len(waiting) > AHEAD:
                yield _finish(waiting.popleft())
        while waiting:
            yield _finish(waiting.popleft())
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)  # whoever asked has had enough, or an error is on its way


def read_all(column: Column, draws: np.ndarray | None = None) -> np.ndarray:
    """Read every row of a column, on all cores where it asks for it."""
    return next(read_batches([{"rows": Pending(column, np.arange(len(column)), draws)}]))["rows"]


def _finish(batch: Batch) -> Batch:
    return jax.tree.map(lambda leaf: leaf.finish() if isinstance(leaf, Reading) else leaf, batch)


def cores() -> int:
    """Count the machine's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
