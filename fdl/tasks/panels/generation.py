"""What a person wants to see of an autoencoder: reconstructions, the way between two codes, samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdl.tasks.panels import figures
from fdl.tasks.panels.data import held
from fdl.tasks.task import Panel, View
from fdl.types import take


def decode(view: View, codes: np.ndarray) -> np.ndarray:
    """Decode codes [N, L] to pictures [N, H, W, C] in [0, 1]."""
    from scipy.special import expit  # when it is needed: importing it takes longer than all of fdl's own code

    return expit(np.asarray(view.model.apply(view.variables, codes.astype(np.float32), method="decode")))


def pairs(inputs: Any, logits: Any) -> np.ndarray:
    """Join each picture [N, H, W, C], above, and its reconstruction, below: [N, 2H, W, C]."""
    from scipy.special import expit

    return np.concatenate([np.asarray(inputs, np.float32), expit(np.asarray(logits))], axis=1)


def _sheet(title: str, caption: str, images: np.ndarray, columns: int) -> Panel:
    return Panel(title, caption, figures.sheet(figures.viewable(np.asarray(images, np.float32)), columns))


def reconstructions(view: View, count: int = 32) -> Panel:
    """Draw the first test pictures, each over what the decoder makes of its code."""
    rows = held(take(view.splits.evaluated, slice(count)))
    outputs = view.outputs(rows)
    size = outputs["code"].shape[-1]
    caption = f"Above, what the model is given; below, what its decoder makes of {size} numbers."
    return _sheet("Reconstructions", caption, pairs(view.prepared(rows)["inputs"], outputs["logits"]), 16)


def interpolations(view: View, count: int = 6, steps: int = 14) -> Panel:
    """Draw the way from the code of one test picture to that of another, in equal steps."""
    rows = held(take(view.splits.evaluated, slice(2 * count)))
    first, last = view.outputs(rows)["code"].reshape(2, count, -1)
    shares = np.linspace(0, 1, steps)[:, None]
    codes = np.concatenate([(1 - shares) * a + shares * b for a, b in zip(first, last, strict=True)])
    caption = "Each row goes in equal steps from the code of one test picture to that of another."
    return _sheet("Interpolations", caption, decode(view, codes), steps)


def samples(view: View, count: int = 96) -> Panel:
    """Draw pictures of codes from the prior; of a code of two numbers, over the plane, at equal steps of probability."""
    latent = view.model.latent
    if latent == 2:
        from scipy.special import ndtri

        side = ndtri((np.arange(16) + 0.5) / 16)
        codes = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
        return _sheet(
            "Samples", "Codes over the plane, at equal steps of the prior's probability.", decode(view, codes), 16
        )
    codes = np.random.default_rng(view.seed).normal(size=(count, latent))
    return _sheet(
        "Samples", "Codes are drawn from the prior; a pixel's grey is its probability.", decode(view, codes), 16
    )
