"""A user's drawing in the form of its data set: the same digit wherever and however large it was drawn."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from fdl.data import Request
from fdl.data.picture_forms import make_form
from fdl.data.picture_spec import KEY, PictureSpec
from fdl.data.sources import digits, fashion_mnist, mnist

FONTS = Path(matplotlib.__file__).parent / "mpl-data/fonts/ttf"
MNIST = PictureSpec((28, 28, 1), "uint8", 255.0, dark=True, form="mnist")


SHEETS = [((5, 3), 90, 255, 0), ((110, 80), 90, 255, 0), ((60, 60), 45, 200, 90), ((9, 9), 120, 10, 240)]
"""Where a digit is drawn, how large, on what grey, in what grey."""


def drawn(
    text: str, at: tuple[int, int], size: int = 90, ground: int = 255, ink: int = 0, side: int = 200
) -> np.ndarray:
    image = Image.new("L", (side, side), ground)
    ImageDraw.Draw(image).text(at, text, fill=ink, font=ImageFont.truetype(FONTS / "DejaVuSans.ttf", size))
    return np.asarray(image)


def extent(pixels: np.ndarray) -> tuple[int, int]:
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def centre(pixels: np.ndarray) -> np.ndarray:
    return np.array([(axis * pixels).sum() / pixels.sum() for axis in np.indices(pixels.shape)])


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean absolute difference, up to a shift by a pixel."""
    shifts = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return min(float(np.abs(np.roll(one, shift, (0, 1)).astype(int) - other).mean()) for shift in shifts)


@pytest.mark.parametrize("text", ["1", "4", "7", "8"])
def test_a_digit_is_scaled_to_20_and_its_mass_is_in_the_middle_of_28(text: str) -> None:
    made = [make_form("mnist", drawn(text, at, size, ground, ink), (28, 28)) for at, size, ground, ink in SHEETS]
    for form in made:
        assert form is not None
        assert max(extent(form.pixels)) == 20
        assert np.abs(centre(form.pixels.astype(float)) - 13.5).max() <= 0.6
        assert form.pixels.max() == 255
        assert apart(form.pixels, made[0].pixels) < 10  # the same digit
    np.testing.assert_array_equal(made[0].pixels, made[1].pixels)
    assert [form.inverted for form in made] == [True, True, True, False]


def test_real_digits_come_back_as_they_were(data_dir: Path) -> None:
    """MNIST's own pictures, negated, enlarged and moved on a sheet."""
    if not (data_dir / "mnist").is_dir():
        pytest.skip("no mnist under the data directory")
    rows = mnist(Request(data_dir=data_dir, offline=True)).train["inputs"][:40, ..., 0]
    for row in rows:
        sheet = np.full((300, 300), 255, np.uint8)
        sheet[100:212, 30:142] = 255 - row.repeat(4, 0).repeat(4, 1)
        form = make_form("mnist", sheet, (28, 28))
        assert form is not None
        assert max(extent(row)) == 20
        assert apart(form.pixels, row) < 16


def test_a_garment_fills_the_frame_and_keeps_its_greys() -> None:
    sheet = np.full((120, 90), 255, np.uint8)
    sheet[20:100, 30:70] = 155
    sheet[40:60, 30:70] = 55
    sheet[:, :3] = 250  # near the ground: trimmed
    form = make_form("fashion_mnist", sheet, (28, 28))
    assert form is not None
    assert form.inverted
    assert extent(form.pixels) == (28, 14)
    assert (form.pixels[2, 8:20], form.pixels[10, 8:20]) == (pytest.approx(100), pytest.approx(200))
    assert not form.pixels[:, :7].any()
    on_black = make_form("fashion_mnist", 255 - sheet, (28, 28))
    assert on_black is not None
    assert not on_black.inverted
    np.testing.assert_array_equal(on_black.pixels, form.pixels)


def test_nothing_on_the_sheet_is_shown_whole_and_what_fits_stays() -> None:
    blank = np.full((50, 40), 240, np.uint8)
    for form in ("mnist", "digits", "fashion_mnist"):
        assert make_form(form, blank, (28, 28)) is None
    pixels, inverted = MNIST.convert(Image.fromarray(blank))
    assert inverted
    assert (pixels == 15).all()
    own = np.zeros((28, 28), np.uint8)
    own[2:9, 3:7] = 130  # of the right size on black: the data set's own
    np.testing.assert_array_equal(MNIST.convert(Image.fromarray(own))[0][..., 0], own)
    one = np.full((60, 60), 255, np.uint8)
    one[30, 20] = 0
    assert MNIST.convert(Image.fromarray(one))[0].max() == 255


def test_the_sources_say_their_form_and_colours_are_read_as_grey() -> None:
    request = Request(data_dir=None, offline=True, source="builtin")
    for source, shape in ((mnist, [28, 28, 1]), (fashion_mnist, [28, 28, 1]), (digits, [8, 8, 1])):
        spec = source(request).facts.extra[KEY]
        assert (spec["shape"], spec["form"]) == (shape, source.__name__)
    eight = PictureSpec((8, 8, 1), "uint8", 255.0, dark=True, form="digits").convert(
        Image.fromarray(drawn("5", (70, 30)))
    )[0]
    assert extent(eight[..., 0])[0] == 8
    blue = Image.new("RGB", (100, 100), (250, 250, 240))
    ImageDraw.Draw(blue).line((40, 20, 60, 80), (20, 30, 160), 6)
    assert max(extent(MNIST.convert(blue)[0][..., 0])) == 20
