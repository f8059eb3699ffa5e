"""Autoencoders of pictures: an encoder and a decoder that mirrors it; plain, variational, and with cluster centres."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers
from fdl.types import Activation, Array, Count, Fact, InputShape, Range


class Encoder(nn.Module):
    """Convolutions at a stride of 2, then Dense layers, then a Dense to the outputs.

    Attributes:
        filters: of each convolution; none: Dense layers alone.
        dense: units of each Dense layer.
        outputs: units of the last.
        activation: after each layer but the last.
    """

    filters: tuple[Count, ...]
    dense: tuple[Count, ...]
    outputs: Count
    activation: Activation

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Compute [B, H, W, C] -> [B, outputs]."""
        activate, init = layers.activation(self.activation), layers.initializer("he")
        for number, filters in enumerate(self.filters, 1):
            x = layers.Conv(filters, 3, 2, ((1, 1), (1, 1)), kernel_init=init, name=f"conv{number}")(x)
            x = activate(x)
        x = x.reshape(len(x), -1)
        for number, width in enumerate(self.dense, 1):
            x = activate(nn.Dense(width, kernel_init=init, name=f"dense{number}")(x))
        return nn.Dense(self.outputs, name="output")(x)


class Decoder(nn.Module):
    """The encoder's layers in reverse, convolutions doubling the size of the map.

    Attributes:
        shape: [H, W, C] of the pictures.
        filters, dense, activation: the encoder's.
    """

    shape: tuple[int, ...]
    filters: tuple[Count, ...]
    dense: tuple[Count, ...]
    activation: Activation

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Compute [B, L] -> [B, H, W, C]."""
        activate, init = layers.activation(self.activation), layers.initializer("he")
        height, width, channels = self.shape
        x = z
        for number, units in enumerate(reversed(self.dense), 1):
            x = activate(nn.Dense(units, kernel_init=init, name=f"dense{number}")(x))
        scale = 2 ** len(self.filters)
        rows, columns, deepest = -(-height // scale), -(-width // scale), (channels, *self.filters)[-1]
        x = nn.Dense(rows * columns * deepest, name="map")(x).reshape(len(x), rows, columns, deepest)
        for number, filters in enumerate((channels, *self.filters[:-1])[::-1] if self.filters else (), 1):
            x = layers.UpConv(filters, name=f"upconv{number}")(activate(x))
        return x[:, :height, :width]


class Autoencoder(nn.Module):
    """Pictures to a few numbers and back (Hinton and Salakhutdinov 2006); variational: to a normal distribution of them.

    A variational one (Kingma and Welling 2014, https://arxiv.org/abs/1312.6114) draws z = mean + deviation * noise from the
    random stream "noise", in inference too.

    Attributes:
        shape: [H, W, C] of the pictures; (): as the data have them.
        filters: of the encoder's convolutions, each at a stride of 2; the decoder has the same in reverse.
        dense: units of the Dense layers after them.
        latent: the length L of the code.
        variational: encode to a mean and the logarithm of a variance.
        activation: after each hidden layer.
    """

    shape: InputShape = ()
    filters: tuple[Count, ...] = (32, 64)
    dense: tuple[Count, ...] = (256,)
    latent: Count = 32
    variational: bool = False
    activation: Activation = "relu"

    def setup(self) -> None:
        outputs = self.latent * (2 if self.variational else 1)
        self.encoder = Encoder(self.filters, self.dense, outputs, self.activation)
        self.decoder = Decoder(self.shape, self.filters, self.dense, self.activation)

    def encode(self, x: Array) -> tuple[Array, Array | None]:
        """Compute (mean [B, L], log variance [B, L], None where not variational) of pictures [B, H, W, C]."""
        code = self.encoder(x)
        if not self.variational:
            return code, None
        mean, log_variance = jnp.split(code, 2, -1)
        return mean, log_variance

    def decode(self, z: Array) -> Array:
        """Compute the logits [B, H, W, C] of codes [B, L]; a pixel is their sigmoid."""
        return self.decoder(z)

    def __call__(self, x: Array, train: bool = False) -> dict[str, Array]:
        """Compute {"logits": [B, H, W, C], "code": [B, L]}, and "log_variance" [B, L] where variational."""
        mean, log_variance = self.encode(x)
        if log_variance is None:
            return {"logits": self.decode(mean), "code": mean}
        noise = jax.random.normal(self.make_rng("noise"), mean.shape)
        logits = self.decode(mean + jnp.exp(log_variance / 2) * noise)
        return {"logits": logits, "code": mean, "log_variance": log_variance}


class ClusteringAutoencoder(nn.Module):
    """An autoencoder whose codes are softly assigned to cluster centres (Xie et al. 2016, https://arxiv.org/abs/1511.06335).

    Its collection "clustering" holds "targets" [rows, K], a wanted assignment for each training row, all 0 until an
    `fdl.experiment.Update` sets them. Fields as in `Autoencoder`, and:

    Attributes:
        clusters: the number K of centres.
        rows: the number of training rows; 0: as many as the data have (`fdl.data.encoders.RowNumbers`).
    """

    shape: InputShape = ()
    filters: tuple[Count, ...] = (32, 64)
    dense: tuple[Count, ...] = ()
    latent: Count = 10
    clusters: Count = 10
    activation: Activation = "relu"
    rows: Annotated[int, Range(0), Fact("rows")] = 0

    def setup(self) -> None:
        self.encoder = Encoder(self.filters, self.dense, self.latent, self.activation)
        self.decoder = Decoder(self.shape, self.filters, self.dense, self.activation)
        self.centres = self.param("centres", nn.initializers.normal(1.0), (self.clusters, self.latent))
        self.targets = self.variable("clustering", "targets", jnp.zeros, (self.rows, self.clusters))

    def decode(self, z: Array) -> Array:
        """Compute the logits [B, H, W, C] of codes [B, L]."""
        return self.decoder(z)

    def __call__(self, x: Array, train: bool = False) -> dict[str, Array]:
        """Compute {"logits": [B, H, W, C], "code": [B, L], "distances": [B, K], the squared ones to the centres}."""
        code = self.encoder(x)
        distances = jnp.square(code[:, None] - self.centres[None]).sum(-1)
        return {"logits": self.decode(code), "code": code, "distances": distances}
