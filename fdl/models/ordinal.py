"""An output layer for ranks."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.models import layers
from fdl.types import Array, Outputs


class Coral(nn.Module):
    """One score from a model, compared with a threshold for each step between ranks (CORAL: Cao, Mirjalili and Raschka 2020).

    Logit k is score + bias_k. As all share the score, the probabilities of "above rank k" fall with k wherever the biases do;
    they start so, evenly spread, and the loss's minimum has them so (theorem 1 of the paper).

    Attributes:
        base: a model with one output.
        ranks: how many there are, K; 0: as many as the data's classes.
    """

    base: nn.Module
    ranks: Outputs = 0

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Array:
        """Compute inputs [B, ...] -> logits [B, K - 1]."""
        steps = layers.known(self.ranks, "ranks") - 1
        start = -np.log(np.arange(1, steps + 1) / np.arange(steps, 0, -1)).astype(np.float32)
        bias = self.param("bias", lambda key: jnp.asarray(start))
        return jnp.asarray(self.base(x, train=train)) + bias[None]
