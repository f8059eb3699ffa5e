"""Ops with what they have measured on the training rows, checked against the data before anything is compiled."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from fdl.data.splits import Op, Statistics
from fdl.types import Array, Arrays, Batch, Draw, UserError, named_leaves, one_line

_MISFITS = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What an op raises over rows that it was not made for."""


@dataclasses.dataclass(frozen=True, eq=False)
class FittedOps:
    """Ops with their statistics, as one pure function of a batch."""

    ops: tuple[Op, ...] = ()
    statistics: tuple[Statistics, ...] = ()

    def __call__(self, batch: Batch, draw: Draw | None) -> Batch:
        for op, statistics in zip(self.ops, self.statistics, strict=True):
            batch = op.transform(batch, draw, statistics)
        return batch


def fit_ops(ops: tuple[Op, ...], train: Arrays) -> FittedOps:
    """Fit each op to the training rows.

    Raises:
        UserError: an op does not suit these rows.
    """
    statistics = []
    for op in ops:
        try:
            statistics.append(op.fit(train))
        except _MISFITS as error:
            raise _unsuited(op, train, error) from error
    return FittedOps(ops, tuple(statistics))


def _unsuited(op: Op, rows: Arrays, error: Exception) -> UserError:
    columns = ", ".join(f"{name} {leaf.dtype} {['B', *leaf.shape[1:]]}" for name, leaf in named_leaves(rows).items())
    return UserError(
        f"the op {type(op).__name__} does not suit the data ({columns}): {type(error).__name__}: {one_line(error, 160)}; "
        "choose other ops in data.prepare and data.augment"
    )


def check_ops(augment: FittedOps, prepare: FittedOps, batch: Batch) -> None:
    """Trace the ops on a batch of these shapes; nothing is computed.

    Raises:
        UserError: an op does not suit these rows.
    """
    size = jax.tree.leaves(batch)[0].shape[0]

    def draw(shape: tuple[int, ...]) -> Array:
        return jnp.zeros((size, *shape))

    for fitted, given in ((augment, draw), (prepare, None)):
        for op, statistics in zip(fitted.ops, fitted.statistics, strict=True):
            try:
                batch = jax.eval_shape(lambda rows: op.transform(rows, given, statistics), batch)
            except _MISFITS as error:
                raise _unsuited(op, batch, error) from error
