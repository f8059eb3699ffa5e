"""The multilayer perceptron."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers
from fdl.types import Activation, Array, Count, DType, Fraction, Initializer, Outputs, Probability


class MLP(nn.Module):
    """Dense layers: for each width Dense, BatchNorm (where on), activation, dropout; then a Dense to the outputs.

    Attributes:
        widths: units of each hidden layer; none makes a linear model.
        outputs: units of the last layer (classes, or 1 for a regression); 0: as many as the data ask for.
        activation: after each hidden layer.
        dropout: the share of hidden units set to zero in training (Srivastava et al. 2014).
        batch_norm: normalise before each activation; the Dense then has no bias, for BatchNorm has its own.
        batch_norm_momentum: of the running averages.
        initializer: of every kernel; biases start at zero.
        dtype: what is computed in; parameters and outputs are float32.
    """

    widths: tuple[Count, ...] = (128,)
    outputs: Outputs = 0
    activation: Activation = "relu"
    dropout: Probability = 0.0
    batch_norm: bool = False
    batch_norm_momentum: Fraction = 0.9
    initializer: Initializer = "he"
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Compute [B, ...] (flattened) -> [B, outputs]; needs a "dropout" key where `train` and `dropout`."""
        dtype, kernel_init = jnp.dtype(self.dtype), layers.initializer(self.initializer)
        x = x.reshape(x.shape[0], -1)
        for number, width in enumerate(self.widths, 1):
            x = nn.Dense(
                width, use_bias=not self.batch_norm, kernel_init=kernel_init, dtype=dtype, name=f"dense{number}"
            )(x)
            if self.batch_norm:
                norm = layers.BatchNorm(self.batch_norm_momentum, self.dtype, name=f"norm{number}")
                x = norm(x, train)
            x = layers.activation(self.activation)(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(layers.known(self.outputs, "outputs"), kernel_init=kernel_init, dtype=dtype, name="output")(x)
        return x.astype(jnp.float32)
