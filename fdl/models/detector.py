"""A one-stage detector without anchors: each cell of a map says what is there and how far its box reaches."""

from __future__ import annotations

import math
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers
from fdl.models.resnet import Kind, residual_maps
from fdl.types import Activation, Array, Count, DType, Fraction, Outputs

STRIDE = 8
"""Pixels of the picture to a cell of the detector's map."""


class Detector(nn.Module):
    """A residual network whose last stage is added to the one before, and two heads (after Tian et al. 2019, FCOS,
    https://arxiv.org/abs/1904.01355).

    The parameters of the stages have `ResNet`'s names, so that its weights can begin a detector. Fields as in `ResNet`, and:

    Attributes:
        stage_sizes: blocks of each stage, two or more; the detector's map is that of the last but one.
        outputs: the number K of classes; 0: as many as the data have.
        head: channels of the heads.
        rare: the probability that each class starts with in each cell: most hold nothing.
    """

    stage_sizes: tuple[Count, ...] = (2, 2, 2)
    block: Kind = "basic"
    width: Count = 32
    outputs: Outputs = 0
    head: Count = 64
    stem: Literal["imagenet", "cifar"] = "imagenet"
    activation: Activation = "relu"
    zero_scale: bool = True
    batch_norm_momentum: Fraction = 0.9
    dtype: DType = "float32"
    rare: Fraction = 0.01

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> dict[str, Array]:
        """Compute [B, H, W, C] -> {"logits": [B, h, w, K], "reach": [B, h, w, 4]}, h = ceil(H / 8) of three stages.

        "reach": pixels from a cell's centre to the left, top, right and bottom side of its box.
        """
        *_, fine, coarse = residual_maps(self, x, train)
        height, width = fine.shape[1:3]
        lateral = layers.Conv(self.head, 1, name="lateral")(fine)
        x = lateral + layers.UpConv(self.head, 1, name="upconv")(coarse)[:, :height, :width]
        init = nn.initializers.normal(0.01)
        tower = {
            name: layers.norm_relu(x, self.batch_norm_momentum, f"{name}_norm0", train) for name in ("class", "box")
        }
        for name in tower:
            y = layers.Conv3x3(self.head, padding="SAME", name=f"{name}_conv")(tower[name])
            tower[name] = layers.norm_relu(y, self.batch_norm_momentum, f"{name}_norm1", train)
        classes = layers.known(self.outputs, "outputs")
        prior = math.log(self.rare / (1 - self.rare))
        logits = layers.Conv(classes, 1, kernel_init=init, use_bias=False, name="class_output")(tower["class"])
        logits = logits + self.param("class_prior", nn.initializers.constant(prior), (classes,)).reshape(1, 1, 1, -1)
        reach = layers.Conv(4, 1, kernel_init=init, name="box_output")(tower["box"])
        # Four cells at the start; the exponent is held below what a float could not follow.
        return {"logits": logits, "reach": 4 * STRIDE * jnp.exp(jnp.clip(reach, -6, 4))}
