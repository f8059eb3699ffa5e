"""A network for tables: embedded numbers and categories, a perceptron, and several small heads.

Legend: B batch, F numeric columns, K category columns, M heads, D features after the embeddings.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.models import layers
from fdl.models.members import Members
from fdl.types import Activation, Array, Count, Fact, Outputs, Positive, Probability, Range

Embedding = Literal["none", "periodic", "piecewise_linear"]
CategorySizes = Annotated[tuple[Annotated[int, Range(1)], ...], Fact("category_sizes", optional=True)]


class NumericEmbedding(nn.Module):
    """A small vector for each number (Gorishniy et al. 2022, https://arxiv.org/abs/2203.05556).

    Every column has parameters of its own: its number becomes `resolution` basis values, a linear map makes `width` of them,
    and a ReLU follows.

    Attributes:
        kind: the basis. "periodic": cosines and sines of learnt frequencies. "piecewise_linear": how far the number is through
            each of the intervals between the quantiles of a standard normal, for columns scaled to one
            (`ops.Tabular(scale="quantile")`), whose own quantiles these are.
        resolution: frequencies, or intervals.
        width: of the vector.
        frequency_scale: the standard deviation of the first frequencies.
    """

    kind: Literal["periodic", "piecewise_linear"]
    resolution: int
    width: int
    frequency_scale: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Compute [B, F] -> [B, F * width]."""
        columns = x.shape[1]
        if self.kind == "periodic":
            drawn = nn.initializers.normal(self.frequency_scale)
            angle = 2 * np.pi * x[..., None] * self.param("frequencies", drawn, (columns, self.resolution))[None]
            basis = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        else:
            from scipy.special import ndtri

            edges = ndtri(np.linspace(1e-3, 1 - 1e-3, self.resolution + 1)).astype(np.float32)
            basis = jnp.clip((x[..., None] - edges[None, None, :-1]) / np.diff(edges)[None, None], 0, 1)
        shape = (columns, basis.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=0), shape)
        bias = self.param("bias", nn.initializers.zeros, (columns, self.width))
        return nn.relu(jnp.einsum("bfr,frw->bfw", basis, kernel) + bias[None]).reshape(len(x), -1)


class TabularMLP(nn.Module):
    """A perceptron over embedded columns, with one head or several.

    Inputs are an array [B, F], or {"numeric": [B, F], "category": int [B, K]} as `ops.Tabular(category="index")` makes them.

    Attributes:
        widths: units of each hidden layer.
        outputs: units of each head; 0: as many as the data ask for.
        embedding: of the numbers; "none": they are used as they are.
        resolution, embedding_width, frequency_scale: of `NumericEmbedding`.
        category_sizes: how many values each category column may have; from the data.
        category_width: numbers of a category's vector.
        heads: above 1, every example goes through the layers so many times, each time with its features multiplied by the
            head's own learnt vector (at first random signs), to an output layer of its own: an ensemble that shares nearly all
            its weights (TabM-mini: Gorishniy et al. 2025, https://arxiv.org/abs/2410.24210). The task averages the heads.
        activation, dropout: of the hidden layers.
    """

    widths: tuple[Count, ...] = (256, 256)
    outputs: Outputs = 0
    embedding: Embedding = "piecewise_linear"
    resolution: Count = 32
    embedding_width: Count = 16
    frequency_scale: Positive = 0.1
    category_sizes: CategorySizes = ()
    category_width: Count = 8
    heads: Count = 1
    activation: Activation = "relu"
    dropout: Probability = 0.0

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Array | Members:
        """Compute [B, outputs], or with several heads `Members` [B, heads, outputs]; needs a "dropout" key where it drops."""
        x = self._features(x)
        if self.heads > 1:
            x = (
                x[:, None]
                * self.param("head_scale", jax.random.rademacher, (self.heads, x.shape[1]), jnp.float32)[None]
            )
        for number, width in enumerate(self.widths, 1):
            x = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"dense{number}")(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(layers.activation(self.activation)(x))
        outputs = layers.known(self.outputs, "outputs")
        if self.heads == 1:
            return nn.Dense(outputs, name="output")(x)
        drawn = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=0)
        kernel = self.param("head_kernel", drawn, (self.heads, x.shape[-1], outputs))
        bias = self.param("head_bias", nn.initializers.zeros, (self.heads, outputs))
        return Members(jnp.einsum("bmd,mdo->bmo", x, kernel) + bias[None])

    def _features(self, inputs: Any) -> Array:
        """Embed the columns side by side, [B, D]."""
        numeric = inputs["numeric"] if isinstance(inputs, dict) else inputs
        if self.embedding != "none" and numeric.shape[1]:
            numeric = NumericEmbedding(
                self.embedding, self.resolution, self.embedding_width, self.frequency_scale, name="numeric"
            )(numeric)
        if not isinstance(inputs, dict):
            return numeric
        tables = [
            nn.Embed(size, self.category_width, name=f"category{number}")(column)
            for number, (size, column) in enumerate(zip(self.category_sizes, inputs["category"].T, strict=True), 1)
        ]
        return jnp.concatenate([numeric, *tables], axis=1)
