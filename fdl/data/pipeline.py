"""From rows in memory to batches: which rows a step sees (pure in seed and step), the two feeds, padded evaluation."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np

from fdl.data import columns
from fdl.data.digests import count_leaks, sha256_of
from fdl.data.facts import complete_facts
from fdl.data.fitted import check_ops, fit_ops
from fdl.data.holdout import check_columns, check_numbers, hold_out
from fdl.data.prepared import Prepared as Prepared
from fdl.data.splits import Data, HostOp, Request, Splits
from fdl.types import Arrays, Batch, count_examples, take

_DRAWS = 1 << 63  # keeps the keys of a step's draws apart from those of the epochs' orders


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Return the rows of one epoch, int64 [N]: a permutation that depends on these three numbers alone."""
    order = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64))).permutation(num_examples)
    order.flags.writeable = False
    return order


def rows_of_steps(seed: int, step: int, count: int, batch_size: int, num_examples: int) -> np.ndarray:
    """Return the rows of the global batches of steps `step` ... `step` + `count` - 1, int64 [count, B].

    The epochs follow one another and batches are cut from that sequence, so every epoch shows every example exactly
    once, and a batch may hold the end of one epoch and the beginning of the next.
    """
    first, left = step * batch_size, count * batch_size
    parts = []
    while left:
        epoch, offset = divmod(first, num_examples)
        part = epoch_order(seed, epoch, num_examples)[offset : offset + left]
        parts.append(part)
        first, left = first + len(part), left - len(part)
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return rows.reshape(count, batch_size)


def rows_of_step(seed: int, step: int, batch_size: int, num_examples: int) -> np.ndarray:
    """Return the rows of one step, int64 [B]."""
    return rows_of_steps(seed, step, 1, batch_size, num_examples)[0]


@dataclasses.dataclass(frozen=True)
class Stream:
    """The training batches of one run; everything that decides them, and nothing else.

    Attributes:
        seed: of the order.
        batch_size: examples of the global batch.
        shard, num_shards: this process feeds rows [shard * B / num_shards, ...) of every global batch.
    """

    seed: int
    batch_size: int
    num_examples: int
    shard: int = 0
    num_shards: int = 1

    def rows(self, step: int) -> np.ndarray:
        """Return this process's rows of one step, int64 [B / num_shards]."""
        return self._own(rows_of_step(self.seed, step, self.batch_size, self.num_examples))

    def rows_of_steps(self, step: int, count: int) -> np.ndarray:
        """Return this process's rows of several steps, int64 [count, B / num_shards]."""
        return self._own(rows_of_steps(self.seed, step, count, self.batch_size, self.num_examples).T).T

    def draws(self, step: int, shape: tuple[int, ...]) -> np.ndarray:
        """Draw [B / num_shards, *shape] uniform in [0, 1) for this process's rows, by seed, step and place in the batch."""
        key = np.array([self.seed, step + _DRAWS], np.uint64)
        return self._own(np.random.Generator(np.random.Philox(key=key)).random((self.batch_size, *shape)))

    def _own(self, values: np.ndarray) -> np.ndarray:
        size = self.batch_size // self.num_shards
        return values[self.shard * size : (self.shard + 1) * size]


def numpy_feed(arrays: Arrays, stream: Stream, start: int, stop: int) -> Iterator[Batch]:
    """Yield the batches of steps start..stop-1, gathered as they are requested."""
    for step in range(start, stop):
        yield take(arrays, stream.rows(step))


def tf_feed(arrays: Arrays, stream: Stream, start: int, stop: int) -> Iterator[Batch]:
    """Yield the same batches to the bit, gathered ahead of time by a tf.data pipeline.

    The pipeline starts at `start` by construction, so nothing of it is saved or skipped on a resume.
    """
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the accelerator belongs to JAX
    with tf.device("CPU"):
        tensors = tf.nest.map_structure(tf.constant, arrays)

    def gather(step: Any) -> Any:
        rows = tf.numpy_function(lambda s: stream.rows(int(s)), [step], tf.int64, stateful=False)
        rows = tf.ensure_shape(rows, [stream.batch_size // stream.num_shards])
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors)

    dataset = tf.data.Dataset.range(start, stop).map(gather, num_parallel_calls=1).prefetch(4)
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = 1  # a gather needs no more, and XLA wants the cores
    yield from dataset.with_options(options).as_numpy_iterator()


def feed(
    kind: Literal["auto", "tf", "numpy"], arrays: Arrays, stream: Stream, start: int, stop: int
) -> Iterator[Batch]:
    """Yield training batches from the feed that `Data.feed` names.

    "auto" is tf.data for a GPU or TPU, where it gathers ahead on cores that are free, and NumPy on a CPU, where a gather
    is a small part of a step and TensorFlow would cost a long import and much memory.

    Columns that are not in memory (`fdl.data.columns`), at any depth, are read by the same code whichever feed carries the
    rest; "auto" is then NumPy, for what is left is labels.
    """
    leaves, tree = jax.tree.flatten(arrays)
    held = {str(place): leaf for place, leaf in enumerate(leaves) if not columns.is_column(leaf)}
    lazy = len(held) < len(leaves)
    if kind == "auto":
        ahead = jax.default_backend() != "cpu" and importlib.util.find_spec("tensorflow") and not lazy
        kind = "tf" if ahead else "numpy"
    carry = tf_feed if kind == "tf" and held else numpy_feed
    if not lazy:
        return carry(arrays, stream, start, stop)

    def with_columns() -> Iterator[Batch]:
        for step, batch in enumerate(carry(held, stream, start, stop), start):
            rows = stream.rows(step)
            whole = [batch[str(place)] if str(place) in held else _pending(leaf, rows, stream, step)
                     for place, leaf in enumerate(leaves)]  # fmt: skip
            yield jax.tree.unflatten(tree, whole)

    return columns.read_batches(with_columns())


def _pending(column: columns.Column, rows: np.ndarray, stream: Stream, step: int) -> columns.Pending:
    """Return a step's rows of a column; columns share their draws: a picture and its mask are cropped alike."""
    shape = column.draws_shape
    return columns.Pending(column, rows, None if shape is None else stream.draws(step, shape))


def padded_batches(arrays: Arrays, batch_size: int, shard: int = 0, num_shards: int = 1) -> Iterator[Batch]:
    """Yield every row once, in order, in batches of one size: the last is filled up with row 0 under a mask of 0.

    A batch has "mask" float32 [B] (or the data's own, [B, T]). Each process gets its own part of every batch; all get
    the same number of batches. Columns that are not in memory are read.
    """
    batches = _padded(arrays, batch_size, shard, num_shards)
    return columns.read_batches(batches) if columns.has_columns(arrays) else batches


def _padded(arrays: Arrays, batch_size: int, shard: int, num_shards: int) -> Iterator[Batch]:
    total, size = count_examples(arrays), batch_size // num_shards
    if "mask" not in arrays:
        arrays = arrays | {"mask": np.ones(total, np.float32)}
    for first in range(0, total, batch_size):
        rows = np.arange(first + shard * size, first + (shard + 1) * size)
        taken = np.where(rows < total, rows, 0)
        batch = jax.tree.map(
            lambda leaf: columns.Pending(leaf, taken) if columns.is_column(leaf) else leaf[taken], arrays
        )
        real = (rows < total).reshape(-1, *[1] * (batch["mask"].ndim - 1))
        yield batch | {"mask": np.where(real, batch["mask"], 0).astype(np.float32)}


def load(data: Data, request: Request, num_examples: int | None = None) -> Prepared:
    """Fetch the data set, hold out test and validation rows, take the subset asked for, fit all preparation on what is left.

    Raises:
        UserError: the data set cannot be had, is damaged, or is too small for what is asked of it.
    """
    splits = data.read(request)
    splits = dataclasses.replace(
        splits, sha256=splits.sha256 or sha256_of(splits.train, splits.test, splits.validation)
    )
    splits, states = encode(hold_out(splits, data, num_examples), data.encode)
    splits = check_numbers(splits)
    check_columns(splits)
    splits = dataclasses.replace(splits, facts=complete_facts(splits.facts, splits.train))
    leaks, unchecked = count_leaks(splits)
    augment, prepare = fit_ops(data.augment, splits.train), fit_ops(data.prepare, splits.train)
    check_ops(augment, prepare, row_spec(splits.train, 2))
    return Prepared(splits, augment, prepare, data.encode, states, leaks, unchecked)


def encode(splits: Splits, ops: Sequence[HostOp]) -> tuple[Splits, tuple[Any, ...]]:
    """Fit each host op on the training rows and apply it to every split; also return what each has learnt."""
    states = []
    for op in ops:
        state = op.fit(splits.train)
        train = op.encode(splits.train, state)
        test, validation = (
            None if rows is None else op.encode(rows, state) for rows in (splits.test, splits.validation)
        )
        facts = op.update_facts(splits.facts, state)
        splits = dataclasses.replace(splits, train=train, test=test, validation=validation, facts=facts)
        states.append(state)
    return splits, tuple(states)


def row_spec(arrays: Arrays, batch_size: int) -> Batch:
    """Return shapes and dtypes of a batch of these rows, for compiling before the first one exists."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype), arrays)
