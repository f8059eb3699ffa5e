"""What a convolutional network sees: the maps of its layers as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import linen as nn

from fdl.tasks.panels import figures
from fdl.tasks.panels.data import held
from fdl.tasks.task import Panel, View
from fdl.types import Arrays


def feature_maps(view: View, rows: Arrays, name: str, most_maps: int = 32, most_layers: int = 8) -> Panel | None:
    """Draw a few raw images of the class `name` through the convolutions and pools, where the model has any.

    Shown is what the model sows under "intermediates", else the outputs of its nn.Conv layers.
    """
    inputs = view.prepared(held(rows))["inputs"]
    if isinstance(inputs, dict) or np.ndim(inputs) != 4:
        return None
    layers = _maps(view, inputs)
    if not layers:
        return None
    if len(layers) > most_layers:
        layers = [layers[i] for i in np.linspace(0, len(layers) - 1, most_layers).round().astype(int)]
    figure, axes = figures.new(0.3 + 1.6 * (len(layers) + 1), rows=len(layers) + 1, columns=len(inputs))
    for ax, image in zip(axes[0], figures.viewable(inputs), strict=True):
        figures.picture(ax, image)
    axes[0, 0].set_ylabel("input", fontsize=9)
    for line, (layer, maps) in zip(axes[1:], layers, strict=True):
        kept = np.moveaxis(np.asarray(maps, np.float32)[..., :most_maps], -1, 1)[..., None]  # [3, maps, H, W, 1]
        for ax, images in zip(line, kept, strict=True):
            high = max(float(np.percentile(images, 99)), 1e-12)
            larger = max(1, 32 // images.shape[1])  # so that the gap of one pixel stays thin beside small maps
            images = (images / high).repeat(larger, axis=1).repeat(larger, axis=2)
            sheet = figures.mosaic(images, min(8, len(images)), gap=1, ground=np.nan)
            ax.imshow(sheet[..., 0], cmap="magma", vmin=0, vmax=1, interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
        height, width, channels = maps.shape[1:]
        line[0].set_ylabel(f"{figures.label(layer, 22)}\n{height}x{width}x{channels}", fontsize=9)
    return Panel(
        "Feature maps",
        f"Test images of the class {name} through the network; of each layer the first {most_maps} maps, "
        "bright where the response is strong (zero and below are black).",
        figure,
    )


def _maps(view: View, inputs: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """List (layer, [B, H, W, C]) in the order of the network."""

    def run(**options: Any) -> list[tuple[str, np.ndarray]]:
        _, state = view.model.apply(view.variables, inputs, train=False, mutable=["intermediates"], **options)
        leaves = _leaves(state.get("intermediates", {}))
        return [(name, leaf) for name, leaf in leaves if np.ndim(leaf) == 4 and min(leaf.shape[1:3]) > 1]

    return run() or run(
        capture_intermediates=lambda module, method: isinstance(module, nn.Conv) and method == "__call__"
    )


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of nested dicts and tuples, in their own order (jax.tree sorts the names: conv10 before conv2)."""
    if isinstance(tree, dict):
        for name, branch in tree.items():
            yield from _leaves(branch, path if name == "__call__" else f"{path}/{name}".strip("/"))
    elif isinstance(tree, tuple | list):
        for branch in tree:
            yield from _leaves(branch, path)
    else:
        yield path.removesuffix("_map"), tree
