"""Ensembles: the outputs of several models that train side by side, and any model trained so many times at once."""

from __future__ import annotations

from typing import Any

import flax
import jax.numpy as jnp
from flax import linen as nn

from fdl.types import Array, Count


@flax.struct.dataclass
class Members:
    """Outputs of the M members of an ensemble, for a task that knows how to average them (`fdl.tasks.ensembles`).

    Attributes:
        values: [B, M, ...].
    """

    values: Array


class Ensemble(nn.Module):
    """So many copies of a model with parameters of their own, in one program (Lakshminarayanan et al. 2017, deep ensembles).

    Each member has its own loss, as if it were trained alone; they share batches and, through `jax.vmap`, the matrix products.

    Attributes:
        base: the model; its outputs are one array [B, ...].
        members: how many.
    """

    base: nn.Module
    members: Count = 8

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Members:
        """Compute inputs [B, ...] -> outputs [B, members, ...]."""
        each = nn.vmap(
            lambda base, x: base(x, train=train),
            in_axes=None,
            out_axes=1,
            axis_size=self.members,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
        )
        return Members(jnp.asarray(each(self.base, x)))
