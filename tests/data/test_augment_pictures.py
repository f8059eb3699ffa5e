"""Augmentations of pictures against scipy and Pillow, each value drawn for its own example."""

from __future__ import annotations

import colorsys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import map_coordinates

from fdl.data import Splits, augment, color, geometry, pictures, rand_augment
from fdl.tasks import View
from fdl.tasks.panels.data import augmentations
from fdl.train.step import example_draw
from fdl.types import Arrays, UserError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 20, 26, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 14, 14, 1), dtype=np.uint8)
FLOATS = RNG.random((4, 9, 12, 2)).astype(np.float32)


def given(*numbers: float) -> Any:
    """Draw the same numbers for every example, in the order asked for."""
    left = list(numbers)

    def draw(shape: tuple[int, ...]) -> Any:
        count = int(np.prod(shape, dtype=int))
        held = np.array([left.pop(0) for _ in range(count)], np.float32).reshape(shape)
        return jnp.broadcast_to(held, (DRAWN, *shape))

    return draw


DRAWN = 4


def sampled(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, mode: str, fill: float = 0) -> np.ndarray:
    """Read one picture [H, W, C] by scipy."""
    one = [map_coordinates(x[..., c], [rows, columns], order=1, mode=mode, cval=fill) for c in range(x.shape[-1])]
    return np.stack(one, -1)


@pytest.mark.parametrize(("fill", "mode"), [(0.25, "grid-constant"), (None, "nearest")])
def test_sampling_equals_scipys_also_outside_the_picture(fill: float | None, mode: str) -> None:
    rows = RNG.uniform(-3, 12, (4, 7, 5)).astype(np.float32)
    columns = RNG.uniform(-3, 15, (4, 7, 5)).astype(np.float32)
    rows[:, 0, :4], columns[:, 0, :4] = [0, 8, -1, 9], [0, 11, 12, -1]  # on the grid, at the ends and one beyond
    made = pictures.sample(FLOATS, rows, columns, fill)
    for x, y, r, c in zip(FLOATS, np.asarray(made), rows, columns, strict=True):
        np.testing.assert_allclose(y, sampled(x, r, c, mode, fill or 0), atol=2e-6)


@pytest.mark.parametrize("degrees", [-30.0, 10.0, 90.0])
def test_a_rotation_is_pillows(degrees: float) -> None:
    x = RNG.random((1, 15, 15, 1)).astype(np.float32)
    turned = pictures.affine(x, geometry.rotation(jnp.array([degrees])), jnp.zeros((1, 2)), 0.0)
    pillow = np.asarray(Image.fromarray(x[0, ..., 0]).rotate(degrees, Image.Resampling.BILINEAR))
    inside = np.s_[4:11, 4:11]  # Pillow leaves what is partly outside black
    np.testing.assert_allclose(np.asarray(turned)[0, ..., 0][inside], pillow[inside], atol=1e-4)


def test_the_ends_of_what_geometry_draws() -> None:
    x = FLOATS
    rows, columns = np.meshgrid(np.arange(9.0), np.arange(12.0), indexing="ij")
    cases = {
        # (op, numbers drawn): where row r and column c are read
        (augment.Zoom(0.5, 2.0), (0.0,)): ((rows - 4) * 2 + 4, (columns - 5.5) * 2 + 5.5),
        (augment.Translate(0.5), (1.0, 0.0)): (rows + 4.5, columns - 6),
        (augment.Rotate(90), (1.0,)): (4 + (columns - 5.5), 5.5 - (rows - 4)),
        (augment.Rotate(0), (0.3,)): (rows, columns),
    }
    for (op, numbers), (r, c) in cases.items():
        made = np.asarray(op.change(jnp.asarray(x), given(*numbers)))
        np.testing.assert_allclose(made[1], sampled(x[1], r, c, "grid-constant"), atol=1e-5, err_msg=str(op))
    whole = augment.RandomResizedCrop(1.0, 1.0, 1.0).change(jnp.asarray(x), given(0.5, 0.5, 0.9, 0.1))
    np.testing.assert_allclose(whole, x, atol=1e-6)


@pytest.mark.parametrize(("place", "corner"), [((0.0, 0.0), (0, 0)), ((1.0, 1.0), (10, 10)), ((0.0, 1.0), (0, 10))])
def test_a_resized_crop_is_pillows_of_the_same_box(place: tuple[float, float], corner: tuple[int, int]) -> None:
    x = RNG.random((4, 20, 20, 1)).astype(np.float32)
    made = augment.RandomResizedCrop(0.25, 0.25, 1.0).change(jnp.asarray(x), given(0, 0.5, *place))
    top, left = corner
    pillow = (
        Image.fromarray(x[0, ..., 0]).crop((left, top, left + 10, top + 10)).resize((20, 20), Image.Resampling.BILINEAR)
    )
    np.testing.assert_allclose(made[0, 1:-1, 1:-1, 0], np.asarray(pillow)[1:-1, 1:-1], atol=1e-5)


def test_crops_have_the_share_and_shape_asked_for() -> None:
    """Read from pictures of their own coordinates."""
    grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0), indexing="ij"), -1).astype(np.float32)
    x = jnp.broadcast_to(jnp.asarray(grid), (400, 40, 40, 2))
    made = np.asarray(
        augment.RandomResizedCrop(0.2, 0.5, 1.5).change(x, example_draw(jax.random.key(0), jnp.arange(400)))
    )
    sides = (made[:, 20, 20] - made[:, 19, 19]) * 40
    area, ratio = sides.prod(-1) / 1600, sides[:, 1] / sides[:, 0]
    assert 0.2 <= area.min() < 0.22
    assert 0.47 < area.max() <= 0.5001
    assert 1 / 1.501 < ratio.min() < 0.7
    assert 1.4 < ratio.max() < 1.501
    assert made.min() >= 0
    assert made.max() <= 39


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("name", ["Brightness", "Contrast"])
def test_brightness_and_contrast_are_pillows(name: str, factor: float) -> None:
    op = {"Brightness": augment.Brightness(0.9), "Contrast": augment.Contrast(0.9)}[name]
    for x in (COLOUR[:4], GREY[:4]):
        made = np.asarray(op.change(jnp.asarray(x), given((factor - 0.1) / 1.8)))
        assert made.dtype == np.uint8
        for before, after in zip(x, made, strict=True):
            pillow = getattr(ImageEnhance, name)(Image.fromarray(before.squeeze())).enhance(factor)
            assert np.abs(np.asarray(pillow, int).reshape(after.shape) - after).max() <= 1  # Pillow rounds down


def test_hue_turns_as_colorsys_has_it_and_the_rest_of_the_jitter_as_pillow() -> None:
    x = np.concatenate([RNG.random((30, 3)), [[0.5] * 3, [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1]]]).astype(
        np.float32
    )
    for turn in (-0.3, 0.0, 0.45):
        made = np.asarray(color.turn_hue(jnp.asarray(x)[None, None], jnp.array([turn])))[0, 0]
        for before, after in zip(x, made, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*map(float, before))
            np.testing.assert_allclose(after, colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), atol=2e-6)
    made = augment.ColorJitter(0, 0, 0.9, 0).change(jnp.asarray(COLOUR[:4]), given(0.5, 0.5, 0.0))
    pillow = ImageEnhance.Color(Image.fromarray(COLOUR[0])).enhance(0.1)
    assert np.abs(np.asarray(pillow, int) - np.asarray(made[0], int)).max() <= 1


def enhanced(image: Image.Image, name: str, level: float) -> Image.Image:
    """What torchvision's RandAugment does at a level of [-1, 1], by Pillow."""
    size = np.array(image.size)
    move = {"shear_x": (1, 0.3 * level, 0, 0, 1, 0), "shear_y": (1, 0, 0, 0.3 * level, 1, 0),
            "translate_x": (1, 0, 150 / 331 * level * size[0], 0, 1, 0),
            "translate_y": (1, 0, 0, 0, 1, 150 / 331 * level * size[1])}  # fmt: skip
    if name in move:
        a, b, c, d, e, f = move[name]
        middle = (size - 1) / 2
        # Pillow's are about the corner, ours about the centre.
        c, f = c + middle[0] - a * middle[0] - b * middle[1], f + middle[1] - d * middle[0] - e * middle[1]
        c, f = c + 0.5 - 0.5 * (a + b), f + 0.5 - 0.5 * (d + e)
        return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    if name == "rotate":
        return image.rotate(30 * level, Image.Resampling.BILINEAR)
    if name in ("brightness", "color", "contrast", "sharpness"):
        return getattr(ImageEnhance, name.title())(image).enhance(1 + 0.9 * level)
    return {
        "identity": lambda: image, "posterize": lambda: ImageOps.posterize(image, 8 - round(4 * abs(level))),
        "solarize": lambda: ImageOps.solarize(image, 255 * (1 - abs(level))), "equalize": lambda: ImageOps.equalize(image),
        "autocontrast": lambda: ImageOps.autocontrast(image),
    }[name]()  # fmt: skip


@pytest.mark.parametrize("level", [-0.6, 0.5, 1.0])
def test_every_operation_of_randaugment_is_pillows(level: float) -> None:
    """All of them in one batch, as they are drawn."""
    smooth = np.asarray(Image.fromarray(COLOUR[0]).resize((40, 32), Image.Resampling.BICUBIC)) // 2 + 60
    x = np.broadcast_to(smooth, (len(rand_augment.OPERATIONS), *smooth.shape))
    chosen = jnp.arange(len(x))
    made = np.asarray(jax.jit(rand_augment.apply_operation)(jnp.asarray(x), chosen, jnp.full(len(x), level)))
    for name, after in zip(rand_augment.OPERATIONS, made, strict=True):
        pillow = np.asarray(enhanced(Image.fromarray(smooth), name, level), int)
        difference = np.abs(pillow - after)
        moved = name in rand_augment.OPERATIONS[1:6]
        seen = (pillow.sum(-1) > 0) & (after.sum(-1) > 0)  # Pillow leaves what is partly outside black
        assert np.quantile(difference[seen], 0.95 if moved else 1) <= 2, name
        assert name == "identity" or np.abs(smooth.astype(int) - after).max() > 2, name


def test_examples_draw_their_own_and_types_stay() -> None:
    same = np.broadcast_to(COLOUR[:1], (12, *COLOUR.shape[1:]))
    ops = [augment.Rotate(), augment.Zoom(), augment.Translate(), augment.RandomResizedCrop(), augment.Brightness(),
           augment.Contrast(), augment.ColorJitter(), augment.RandomErasing(probability=1), augment.RandAugment()]  # fmt: skip
    for op in ops:
        jitted = jax.jit(lambda x, key, op=op: op.change(x, example_draw(key, jnp.arange(len(x)))))
        made = np.asarray(jitted(same, jax.random.key(1)))
        assert made.dtype == np.uint8
        assert made.shape == same.shape
        assert len({each.tobytes() for each in made}) >= 10, op
        np.testing.assert_array_equal(made, jitted(same, jax.random.key(1)))
    with pytest.raises(UserError, match="ColorJitter is for images of 3 channels"):
        augment.ColorJitter().change(jnp.asarray(GREY), given())
    with pytest.raises(UserError, match="RandAugment is for uint8"):
        augment.RandAugment().change(jnp.asarray(FLOATS), given())


def test_random_erasing_erases_a_rectangle_of_the_area_drawn() -> None:
    x = jnp.zeros((500, 30, 20, 1), jnp.uint8)
    made = np.asarray(
        augment.RandomErasing(0.1, 0.3, 2, 0.6).change(x, example_draw(jax.random.key(0), jnp.arange(500)))
    )
    erased = made[..., 0] > 0
    hit = erased.any((1, 2))
    assert 0.52 < hit.mean() < 0.68
    boxes = [np.argwhere(each) for each in erased[hit]]
    areas = np.array([np.prod(box.max(0) - box.min(0) + 1) for box in boxes])
    np.testing.assert_allclose(erased[hit].sum((1, 2)), areas, rtol=0.1)  # noise is black at times
    assert 0.08 < areas.min() / 600 < 0.12
    assert 0.27 < areas.max() / 600 < 0.32
    assert erased.any(0).all()  # it reaches every corner


def test_a_shift_reflects_the_border() -> None:
    x = COLOUR[:4]
    made = augment.Shift(2, fill=None).change(jnp.asarray(x), given(0.0, 0.99))
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(made, padded[:, 4:, :-4])


def test_alternating_flips_show_both_sides_in_any_two_epochs() -> None:
    op, x = augment.AlternatingFlip(), COLOUR[np.r_[0:6, 0:6]]
    fitted = op.fit({"inputs": np.zeros(6)})
    seen = jnp.arange(12, dtype=jnp.uint32)  # the end of an epoch and the next in one batch
    made = np.asarray(op.transform({"inputs": jnp.asarray(x), "seen": seen}, given(), fitted)["inputs"])
    mirrored = [np.array_equal(after, before[:, ::-1]) for before, after in zip(x, made, strict=True)]
    assert 0 < sum(mirrored[:6]) < 6
    assert [not each for each in mirrored[:6]] == mirrored[6:]
    later = np.asarray(op.transform({"inputs": jnp.asarray(x), "seen": seen + 12}, given(), fitted)["inputs"])
    np.testing.assert_array_equal(later, made)
    half = op.transform({"inputs": jnp.asarray(x / 255, jnp.float32), "seen": seen}, given(), fitted)["inputs"]
    assert half.shape == x.shape
    assert op.transform({"inputs": x}, None, fitted)["inputs"] is x


def test_the_report_shows_one_picture_changed_by_each_op() -> None:
    def view(inputs: np.ndarray) -> View:
        rows = {"inputs": inputs, "targets": np.arange(len(inputs))}
        ops = [("Invert", lambda r: r | {"inputs": 255 - r["inputs"]}), ("Nothing", dict), ("Dim", dimmed)]
        return View(Splits("x", "", "", rows, rows), None, {}, dict, dict, dict, augmentations=ops)  # type: ignore[arg-type]

    asked: list[int] = []

    def dimmed(rows: Arrays) -> Arrays:
        asked.append(len(rows["inputs"]))
        return rows | {"inputs": rows["inputs"] * np.float32(0.5)}

    panel = augmentations(view(GREY), times=3)
    assert panel is not None
    assert panel.figure is not None
    (ax,) = panel.figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["Invert", "Dim"]
    sheet = ax.images[0].get_array()
    assert sheet.shape == (2 * 15 - 1, 4 * 15 - 1)
    np.testing.assert_array_equal(sheet[:14, :14], GREY[0, ..., 0])
    np.testing.assert_array_equal(sheet[:14, 15:29], 255 - GREY[0, ..., 0])
    assert asked == [3]
    assert augmentations(view(np.zeros((4, 3), np.float32))) is None
