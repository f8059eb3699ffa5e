"""What a net for pictures attends to: its first filters, where it looked (Grad-CAM), and how it arranges the examples.

Parts of the model are read, and replaced, where they are called: no model needs code for it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.models.by_hand import HandCNN, HandMLP
from fdl.tasks.panels import figures
from fdl.tasks.panels.answers import Answers
from fdl.tasks.panels.data import held, pictures
from fdl.tasks.task import Panel, View
from fdl.types import count_examples, take

EACH = 4
"""Right answers, and wrong ones, that Grad-CAM is drawn for."""
POINTS, AT_ONCE = 160, 32
"""Test examples on the map, and how many are computed together."""
_MOST_COLOURS = 20
Path = tuple[str, ...]


def first_filters(view: View, most: int = 64) -> Panel | None:
    """Draw the kernels of the first convolution as pictures, where it is given pictures; each by its own range."""
    inputs = _inputs(view, np.arange(1))
    if inputs is None:
        return None
    found: list[tuple[str, np.ndarray]] = []

    def note(next_fn: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        kernel = context.module.variables.get("params", {}).get("kernel")
        if context.method_name == "__call__" and kernel is not None and np.ndim(kernel) == 4:
            found.append(("/".join(context.module.path), kernel))
        return next_fn(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: view.model.apply(view.variables, x, train=False), inputs)
    if not found or found[0][1].shape[2] not in (1, 3) or min(found[0][1].shape[:2]) < 2:
        return None
    name, kernel = found[0]
    maps = np.moveaxis(np.asarray(kernel, np.float32), -1, 0)[:most]
    low, high = maps.min((1, 2, 3), keepdims=True), maps.max((1, 2, 3), keepdims=True)
    larger = max(1, 24 // maps.shape[1])
    shown = (255 * (maps - low) / np.maximum(high - low, 1e-12)).astype(np.uint8).repeat(larger, 1).repeat(larger, 2)
    figure = figures.sheet(shown, min(16, len(shown)), gap=2)
    side, some = maps.shape[1], f" (the first {len(maps)})" if len(maps) < kernel.shape[-1] else ""
    caption = (
        f"The {kernel.shape[-1]} kernels{some} of {name}, {side} x {side}, each from its least to its largest weight."
    )
    return Panel("First-layer filters", caption, figure)


def grad_cam(view: View, answers: Answers) -> Panel | None:
    """Draw where the net looked for the class it chose, on right answers and on the wrong ones it was surest of.

    Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391): the last maps, weighted by the mean gradient of the
    class's logit, what is positive of their sum.
    """
    right = np.flatnonzero(answers.predicted == answers.truth)[:EACH]
    wrong = np.flatnonzero(answers.predicted != answers.truth)
    wrong = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:EACH]
    picks = np.concatenate([right, wrong])
    inputs = _inputs(view, picks)
    if inputs is None or not len(picks):
        return None
    part = last_map(view, inputs)
    if part is None:
        return None
    heat = class_activation(view, part, inputs, answers.predicted[picks])
    raw = pictures(take(answers.test, picks))
    if raw is None:
        return None
    rows = [pick for pick in (right, wrong) if len(pick)]
    figure, axes = figures.new(0.3 + 1.5 * len(rows), rows=len(rows), columns=2 * EACH)
    for ax in axes.flat:
        ax.set_axis_off()
    for place, pick in enumerate(picks):
        line, column = (0, place) if place < len(right) else (len(rows) - 1, place - len(right))
        said, true = int(answers.predicted[pick]), int(answers.truth[pick])
        for ax in axes[line, 2 * column : 2 * column + 2]:
            ax.set_axis_on()
            figures.picture(ax, raw[place])
        axes[line, 2 * column + 1].imshow(_scaled(heat[place], raw.shape[1:3]), cmap="jet", alpha=0.45, vmin=0, vmax=1)
        colour = figures.BLUE if said == true else figures.RED
        axes[line, 2 * column].set_title(figures.label(answers.classes[said], 16), fontsize=8, color=colour, pad=3)
        axes[line, 2 * column].set_xlabel("" if said == true else figures.label(answers.classes[true], 16), fontsize=7)
    caption = (
        f"Grad-CAM at {'/'.join(part)}: red is what spoke most for the class that was chosen (above the picture; the true one "
        "below where it is another). First right answers, then the wrong ones of which the model was surest."
    )
    return Panel("Where it looked", caption, figure)


def class_activation(view: View, part: Path, inputs: Any, classes: np.ndarray) -> np.ndarray:
    """Compute Grad-CAM of each input's class at the maps of `part`, [B, h, w] from 0 to 1 (all 0 where nothing is positive)."""
    maps = jax.jit(lambda variables, x: _with_part(view, variables, part, x)[1])(view.variables, inputs)

    def logit(maps: Any, variables: Any, x: Any) -> Any:
        outputs = _with_part(view, variables, part, x, maps)[0]
        chosen = jnp.asarray(classes)
        if outputs.shape[-1] == 1:  # the logit of the second of two classes
            return jnp.where(chosen > 0, outputs[:, 0], -outputs[:, 0]).sum()
        return jnp.take_along_axis(outputs, chosen[:, None], -1).sum()

    gradient = jax.jit(jax.grad(logit))(maps, view.variables, inputs)
    weights = np.asarray(gradient, np.float32).mean((1, 2), keepdims=True)
    heat = np.maximum((weights * np.asarray(maps, np.float32)).sum(-1), 0)
    largest = heat.max((1, 2), keepdims=True)
    return heat / np.where(largest > 0, largest, 1)


def last_map(view: View, inputs: Any) -> Path | None:
    """Return the last part, at the top of the model, that gives maps of more than one pixel; None where none does."""
    found: list[Path] = []

    def note(next_fn: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = next_fn(*args, **kwargs)
        path = context.module.path
        maps = context.method_name == "__call__" and len(path) == 1 and np.ndim(out) == 4 and min(out.shape[1:3]) > 1
        if maps and not isinstance(
            context.module, nn.Dropout
        ):  # which changes nothing here, and tells a reader nothing
            found.append(path)
        return out

    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: view.model.apply(view.variables, x, train=False), inputs)
    return found[-1] if found else None


def feature_plane(view: View, answers: Answers) -> Panel | None:
    """Draw test examples in the plane, near each other where the net finds them alike: what its last layer is given.

    By t-SNE (van der Maaten and Hinton 2008), of few examples by their two principal components.
    """
    count = min(POINTS, count_examples(answers.test))
    picks = np.linspace(0, count_examples(answers.test) - 1, count).astype(int)
    inputs = _inputs(view, picks[:1])
    part = None if inputs is None else _last_dense(view, inputs)
    if part is None or count < 3:
        return None
    given = jax.jit(lambda variables, x: _with_part(view, variables, part, x)[2])
    parts = []
    for first in range(0, count, AT_ONCE):
        some = picks[first : first + AT_ONCE]
        filled = np.resize(some, min(AT_ONCE, count))  # one shape, one program
        parts.append(np.asarray(given(view.variables, _inputs(view, filled)))[: len(some)])
    from matplotlib import colormaps

    features = np.concatenate(parts).reshape(count, -1).astype(np.float64)
    plane, how = _plane(features)
    figure, axes = figures.new(4.2)
    ax = figures.titled(axes[0, 0], grid=False)
    truth = answers.truth[picks]
    shown = np.unique(truth)
    for place, number in enumerate(shown):
        of = truth == number
        colour = colormaps["tab20"](place) if len(shown) <= _MOST_COLOURS else figures.BLUE
        ax.scatter(
            plane[of, 0],
            plane[of, 1],
            s=14,
            color=colour,
            linewidths=0,
            alpha=0.8,
            label=figures.label(answers.classes[number]),
        )
    missed = answers.predicted[picks] != truth
    ax.scatter(plane[missed, 0], plane[missed, 1], s=40, facecolors="none", edgecolors=figures.RED, linewidths=0.9)
    ax.set_xticks([])
    ax.set_yticks([])
    if len(shown) <= _MOST_COLOURS:
        ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    what = f"what reaches {'/'.join(part)} ({features.shape[1]:,} numbers)"
    caption = f"{count:,} test examples by {what}, {how}; wrong answers are ringed."
    return Panel("Map of the features", caption, figure)


def _plane(features: np.ndarray) -> tuple[np.ndarray, str]:
    """Return ([N, 2], how they were made)."""
    centred = features - features.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    components = left * sizes
    if len(features) < 60 or features.shape[1] < 3:
        return np.pad(components, ((0, 0), (0, 2)))[:, :2], "by their two principal components"
    from sklearn.manifold import TSNE

    made = TSNE(perplexity=min(20, len(features) // 4), init="pca", learning_rate="auto", random_state=0)
    return made.fit_transform(components[:, :50]), "by t-SNE"


def _last_dense(view: View, inputs: Any) -> Path | None:
    """Return the path of the last matrix that is called, [F, O]."""
    found: list[Path] = []

    def note(next_fn: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        kernel = context.module.variables.get("params", {}).get("kernel")
        if context.method_name == "__call__" and kernel is not None and np.ndim(kernel) == 2:
            found.append(context.module.path)
        return next_fn(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: view.model.apply(view.variables, x, train=False), inputs)
    return found[-1] if found else None


def _with_part(view: View, variables: Any, part: Path, inputs: Any, instead: Any = None) -> tuple[Any, Any, Any]:
    """Apply the model; return (its outputs, the output of `part`, the first argument of `part`).

    Args:
        instead: what the model goes on with instead of the part's output.
    """
    seen: list[tuple[Any, Any]] = []

    def note(next_fn: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = next_fn(*args, **kwargs)
        if context.module.path != part or context.method_name != "__call__":
            return out
        out = out if instead is None else instead
        seen.append((args[0], out))
        return out

    with nn.intercept_methods(note):
        outputs = view.model.apply(variables, inputs, train=False)
    given, out = seen[-1]
    return outputs, out, given


def _inputs(view: View, picks: np.ndarray) -> Any:
    """Return test pictures as the model is given them, [B, H, W, C]; None where it is given no pictures."""
    if isinstance(view.model, (HandCNN, HandMLP)):  # NumPy inside the step: nothing is called that could be listened to
        return None
    inputs = view.prepared(held(take(view.splits.evaluated, picks)))["inputs"]
    return None if isinstance(inputs, dict) or np.ndim(inputs) != 4 else inputs


def _scaled(heat: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(heat).resize((size[1], size[0]), Image.Resampling.BILINEAR))
