"""A convolutional net over spectra of any length."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers
from fdl.models.sequence import pooled
from fdl.types import Array, Count, Fraction, Outputs, Probability


class SpectrumCNN(nn.Module):
    """Spectra {"vectors": [B, T, M], "mask": [B, T]} as pictures: 3 x 3 convolutions with pools, then mean and maximum over time.

    Attributes:
        filters: of each stage: a convolution, a 2 x 2 pool, BatchNorm, ReLU.
        outputs: units of the last layer; 0: as many as the data ask for.
        dropout: before the output.
        batch_norm_momentum: of the running averages.
    """

    filters: tuple[Count, ...] = (16, 32, 64)
    outputs: Outputs = 0
    dropout: Probability = 0.3
    batch_norm_momentum: Fraction = 0.9

    @nn.compact
    def __call__(self, x: Mapping[str, Array], train: bool = False) -> Array:
        mask, y = x["mask"], x["vectors"][..., None]
        for number, filters in enumerate(self.filters, 1):
            y = layers.Conv3x3(filters, padding="SAME", pool=2, name=f"conv{number}")(y)
            y = layers.norm_relu(y, self.batch_norm_momentum, f"norm{number}", train)
            count = mask.shape[1] // 2
            mask = mask[:, : 2 * count].reshape(len(mask), count, 2).max(-1)
            y = y * mask[..., None, None]  # as if there were nothing behind the last frame
        y = pooled(y.reshape(*y.shape[:2], -1), mask)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return nn.Dense(layers.known(self.outputs, "outputs"), name="output")(y).astype(jnp.float32)
