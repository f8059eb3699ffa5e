"""The stand-ins: the same on every call, told apart from the real sets, neither trivial nor impossible to learn."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fdl.data.formats import california, cells
from fdl.data.standins import garments, handwriting, standin


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fdl"


@pytest.mark.parametrize("make", [standin.fashion, standin.digits])
def test_pictures_are_drawn_once_and_always_the_same(cache: Path, make, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = make(200, 50)
    assert train["inputs"].shape == (200, 28, 28, 1)
    assert train["inputs"].dtype == np.uint8
    assert train["targets"].dtype == np.int32
    np.testing.assert_array_equal(np.bincount(train["targets"]), [20] * 10)
    np.testing.assert_array_equal(np.bincount(test["targets"]), [5] * 10)
    (kept,) = cache.iterdir()
    before = kept.stat().st_mtime_ns
    again = make(200, 50)[0]
    assert kept.stat().st_mtime_ns == before
    np.testing.assert_array_equal(again["inputs"], train["inputs"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "elsewhere"))
    anew, other = make(200, 50)
    np.testing.assert_array_equal(anew["inputs"], train["inputs"])
    np.testing.assert_array_equal(other["inputs"], test["inputs"])
    every = np.concatenate([train["inputs"], test["inputs"]]).reshape(250, -1)
    assert len(np.unique(every, axis=0)) == 250


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_cache_is_drawn_anew(cache: Path, keep: int, caplog: pytest.LogCaptureFixture) -> None:
    train, _ = standin.fashion(50, 10)
    (kept,) = cache.iterdir()
    data = kept.read_bytes()
    # The whole file with one bit of an image flipped, or only its beginning.
    kept.write_bytes(data[:keep] if keep >= 0 else data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    again, _ = standin.fashion(50, 10)
    np.testing.assert_array_equal(again["inputs"], train["inputs"])
    assert "damaged" in caplog.text
    assert kept.read_bytes() == data
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    train, _ = standin.fashion(20, 10)
    assert train["inputs"].any()
    assert "drawn again at the next start" in caplog.text


def test_garments_are_learnable_but_not_by_a_line(cache: Path) -> None:
    """As with the real set, a linear model is far above chance and far below the top, and trousers are easy."""
    from sklearn.linear_model import RidgeClassifier

    train, test = standin.fashion(6000, 2000)
    flat = [rows["inputs"].reshape(len(rows["inputs"]), -1) / 255.0 for rows in (train, test)]
    guess = RidgeClassifier(alpha=100.0).fit(flat[0], train["targets"]).predict(flat[1])
    recall = np.array([(guess == label)[test["targets"] == label].mean() for label in range(10)])
    assert 0.6 < recall.mean() < 0.85
    tops = [garments.CLASSES.index(name) for name in ("T-shirt/top", "Pullover", "Coat", "Shirt")]
    assert recall[tops].mean() < 0.7 < recall[garments.CLASSES.index("Trouser")]


def test_digits_are_learnable(cache: Path) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    train, test = standin.digits(3000, 500)
    flat = [rows["inputs"].reshape(len(rows["inputs"]), -1) / 255.0 for rows in (train, test)]
    accuracy = KNeighborsClassifier(1).fit(flat[0], train["targets"]).score(flat[1], test["targets"])
    assert 0.8 < accuracy < 0.995


@pytest.mark.parametrize("draw", [garments.draw, handwriting.draw])
def test_every_class_is_drawn_on_the_canvas(draw) -> None:
    for label in range(10):
        pictures = draw(np.random.default_rng(0), label, 50)
        assert pictures.dtype == np.uint8
        ink = (pictures > 40).mean((1, 2, 3))
        assert ink.mean() > 0.05
        assert ink.max() < 0.8


def test_the_play_is_text_and_always_the_same() -> None:
    text = standin.play(20_000)
    assert len(text) == 20_000
    assert standin.play(20_000) == text
    assert standin.play(30_000).startswith(text)
    words = set(re.findall(r"\w+", text.lower()))
    assert not words & {"np", "clause", "noun", "verb", "adj", "prep", "line", "speech", "name"}
    assert {"king", "loves", "queen"} <= words


def test_the_housing_table_has_the_real_columns_and_a_signal() -> None:
    rows = standin.housing(3000)
    assert rows == standin.housing(3000)
    train, test, facts, _ = california.arrays(cells.of_rows(rows, "made"))
    assert len(train["targets"]) == 2400
    assert np.isnan(train["inputs"]["numeric"]).any()
    assert (test["inputs"]["category"] < len(facts.categories[california.CATEGORY]) - 1).all()
    assert train["targets"].max() == np.float32(5.00001)

    def design(split: dict) -> np.ndarray:
        return np.c_[np.nan_to_num(split["inputs"]["numeric"]).astype(np.float64), np.ones(len(split["targets"]))]

    weights = np.linalg.lstsq(design(train), train["targets"], rcond=None)[0]
    explained = 1 - np.var(test["targets"] - design(test) @ weights) / np.var(test["targets"])
    assert 0.3 < explained < 0.95
