"""The recurrent net that reads a sequence of vectors and gives one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers
from fdl.models.recurrent_layers import CellName, RecurrentLayers
from fdl.types import Array, Count, DType, Outputs, Probability, Whole


def pooled(x_BxTxE: Array, mask_BxT: Array) -> Array:
    """Return the mean and the maximum over the time steps whose mask is not 0, side by side, [B, 2 E]."""
    mask = mask_BxT[..., None]
    mean = (x_BxTxE * mask).sum(1) / jnp.maximum(mask.sum(1), 1)
    # The place is noted once: the gradient of a maximum asks again which entries equal it, and where XLA computes them in two
    # places none may, which divides by 0.
    seen = jnp.where(mask > 0, x_BxTxE, -1e9)
    place = jnp.argmax(jax.lax.stop_gradient(seen), axis=1, keepdims=True)
    return jnp.concatenate([mean, jnp.take_along_axis(seen, place, axis=1)[:, 0]], -1)


class RecurrentNet(nn.Module):
    """Vectors over time [B, T, E] (further axes are flattened) to one vector [B, outputs].

    Given {"vectors": [B, T, E], "mask": [B, T]}, only time steps whose mask is not 0 count: they come first.

    Attributes:
        outputs: numbers to give; 0: as many as the data ask for.
        pool: what the output reads: the last state (of a backward layer, the one after the first step), or the mean and the
            maximum over time.
        cell, width, layers, bidirectional, dropout, forget_bias, longest, dtype: as of `RecurrentLayers`; dropout spares the
            inputs.
    """

    cell: CellName = "gru"
    width: Count = 128
    layers: Count = 1
    bidirectional: bool = False
    outputs: Outputs = 0
    pool: Literal["last", "mean_max"] = "last"
    dropout: Probability = 0.0
    forget_bias: float = 1.0
    longest: Whole = 0
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        RecurrentLayers(cell=self.cell, longest=self.longest, parent=None)  # refuses what cannot go together
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: Array | Mapping[str, Array], train: bool = False) -> Array:
        given = inputs if isinstance(inputs, Mapping) else {"vectors": inputs}
        x = given["vectors"].reshape(*given["vectors"].shape[:2], -1)
        mask = given.get("mask")
        for number in range(1, self.layers + 1):  # one by one, so that dropout is after each and never on the inputs
            layer = RecurrentLayers(
                cell=self.cell, width=self.width, bidirectional=self.bidirectional, forget_bias=self.forget_bias,
                longest=self.longest, dtype=self.dtype, name=f"recurrent{number}",
            )  # fmt: skip
            x, _ = layer(x, mask)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        if self.pool == "mean_max":
            y = pooled(x, jnp.ones(x.shape[:2]) if mask is None else mask)
        else:  # padding repeats the last state
            y = jnp.concatenate([x[:, -1, : self.width], x[:, 0, self.width :]], -1)
        outputs = layers.known(self.outputs, "outputs")
        return nn.Dense(outputs, dtype=jnp.dtype(self.dtype), name="output")(y).astype(jnp.float32)
