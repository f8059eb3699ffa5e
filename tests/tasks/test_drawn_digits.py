"""Digits that a person draws on a sheet, as Pillow draws them in three fonts, each at its own place, read by mnist_cnn."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib
import pytest
from PIL import Image, ImageDraw, ImageFont

import fdl

FONTS = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")
PLACES, SIZES = ((20, 10), (150, 140), (90, 60)), (100, 60, 150)
BUNDLED = Path(matplotlib.__file__).parent / "mpl-data/fonts/ttf"


def draw_digits(folder: Path) -> None:
    """Write folder/DIGIT-FONT.png, black on white, 300 x 300."""
    folder.mkdir(parents=True, exist_ok=True)
    for font, place, size in zip(FONTS, PLACES, SIZES, strict=True):
        for digit in range(10):
            sheet = Image.new("L", (300, 300), 255)
            face = ImageFont.truetype(BUNDLED / f"{font}.ttf", size)
            ImageDraw.Draw(sheet).text(place, str(digit), fill=0, font=face)
            sheet.save(folder / f"{digit}-{font}.png")


def wrong(predictions: Path) -> list[str]:
    """List the files whose likeliest class is not the digit in their name, with that class."""
    with predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    return [f"{row['file']} as {row['class_1']}" for row in rows if row["file"][0] != row["class_1"]]


@pytest.mark.slow
def test_of_thirty_drawn_digits_twenty_eight_are_read(data_dir: Path, tmp_path: Path) -> None:
    if not (data_dir / "mnist").is_dir():
        pytest.skip("no mnist under the data directory")
    draw_digits(tmp_path / "drawn")
    run = fdl.fit("mnist_cnn", tmp_path / "run", overrides=["steps=3epochs"], data_dir=data_dir, report=False)
    written = run.predict(tmp_path / "drawn")
    assert len(wrong(written[0])) <= 2, wrong(written[0])
