"""The tasks against scikit-learn, closed forms and counts by hand; and the user's own pictures, tables and prompts."""

from __future__ import annotations

import csv
import itertools
import math
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image
from sklearn.linear_model import LinearRegression
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from fdl.data.formats import images
from fdl.data.splits import Facts, Splits
from fdl.models.cnn import CNN
from fdl.report import report
from fdl.tasks import Classification, LanguageModel, Panel, Regression, View, tables
from fdl.tasks.panels import answers, classification, figures
from fdl.tasks.task import DrawPanel
from fdl.types import Arrays, RunError, UserError, take

RNG = np.random.default_rng(0)


def drawn(panels: Sequence[DrawPanel]) -> list[Panel]:
    """All of them, one after the other."""
    return [panel for function in panels if (panel := function()) is not None]


def of(panels: Sequence[Panel], title: str) -> Panel:
    return next(panel for panel in panels if panel.title == title)


# ---- classification -------------------------------------------------------------------------------------------------


def image_splits(count: int = 60, classes: int = 3, border: int = 0, channels: int = 1) -> Splits:
    """Images whose class is the place of a bright bar."""
    targets = (np.arange(count) % classes).astype(np.int32)
    inputs = np.full((count, 12, 12, channels), border, np.uint8)
    for image, label in zip(inputs, targets, strict=True):
        image[2 + 3 * label : 4 + 3 * label, 2:10] = 250
    rows = {"inputs": inputs, "targets": targets}
    names = tuple(f"<script>{i}$x$" for i in range(classes))
    return Splits(
        "bars", "builtin", "here", take(rows, slice(0, 40)), take(rows, slice(40, None)), facts=Facts(classes=names)
    )


def bar_view(splits: Splits, wrong: int = 0, model: nn.Module | None = None) -> View:
    """A perfect model of the bars; the first `wrong` answers are moved by a class."""
    classes = len(splits.classes)

    def outputs(rows: Arrays) -> np.ndarray:
        pixels = np.asarray(rows["inputs"], np.float32).mean(-1)
        sums = np.stack([pixels[:, 2 + 3 * i : 4 + 3 * i].mean((1, 2)) for i in range(classes)], -1)
        sums[:wrong] = np.roll(sums[:wrong], 1, axis=1)
        return sums / 20

    def prepared(rows: Arrays) -> Arrays:
        return {**rows, "inputs": rows["inputs"].astype(np.float32) / 255}

    def augmented(rows: Arrays) -> Arrays:
        return prepared({**rows, "inputs": np.roll(rows["inputs"], 1, axis=2)})

    variables = model.init(jax.random.key(0), jnp.zeros((1, 12, 12, 1))) if model else {}
    return View(splits, model, variables, outputs, prepared, augmented)


def test_classification_scores_equal_sklearn() -> None:
    logits, targets = RNG.normal(size=(50, 4)).astype(np.float32) * 3, RNG.integers(0, 4, 50)
    batch = {"targets": jnp.asarray(targets)}
    scores = Classification().score(jnp.asarray(logits), batch)
    assert set(scores) == {"loss", "accuracy"}
    assert {value.shape for value in scores.values()} == {(50,)}
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    assert float(scores["loss"].mean()) == pytest.approx(log_loss(targets, probabilities, labels=range(4)), rel=1e-5)
    np.testing.assert_array_equal(scores["accuracy"], logits.argmax(1) == targets)
    smoothed = Classification(label_smoothing=0.2).score(jnp.asarray(logits), batch)
    by_hand = -(np.log(probabilities) * (0.8 * np.eye(4)[targets] + 0.05)).sum(1)
    np.testing.assert_allclose(smoothed["loss"], by_hand, rtol=1e-4)
    np.testing.assert_allclose(smoothed["cross_entropy"], scores["loss"], rtol=1e-6)


def test_mixed_labels_score_as_the_mixture_of_the_two() -> None:
    logits = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
    one, two = (Classification().score(logits, {"targets": jnp.full(6, i)})["loss"] for i in (0, 2))
    mixed = Classification().score(logits, {"targets": jnp.tile(jnp.array([[0.7, 0.0, 0.3]]), (6, 1))})
    np.testing.assert_allclose(mixed["loss"], 0.7 * one + 0.3 * two, rtol=1e-5)
    np.testing.assert_array_equal(mixed["accuracy"], logits.argmax(-1) == 0)


def test_majority_class_is_that_of_training() -> None:
    splits = Splits("x", "", "", {"targets": np.array([1, 1, 0])}, {"targets": np.array([0, 0, 0, 1])})
    assert Classification().baselines(splits) == {"majority class": {"accuracy": 0.25}}


def test_classification_panels_say_what_sklearn_says() -> None:
    splits = image_splits()
    view = bar_view(splits, wrong=7, model=CNN(filters=(4, 4), dense=(8,), outputs=3))
    panels = drawn(Classification().panels(view))
    truth = splits.test["targets"]
    predicted = view.outputs(splits.test).argmax(-1)
    table = of(panels, "Precision and recall by class")
    wanted = precision_recall_fscore_support(truth, predicted, labels=range(3))
    for i, row in enumerate(table.rows[:3]):
        assert row == (splits.classes[i], *(f"{column[i]:.3f}" for column in wanted[:3]), str(wanted[3][i]))
    shown = [text.get_text() for text in of(panels, "Confusion matrix").figure.axes[0].texts]
    matrix = confusion_matrix(truth, predicted)
    assert shown == [str(n) for n in matrix[matrix > 0]]
    assert "13 of 20" in of(panels, "Confusion matrix").caption
    assert "Of 7 wrong" in of(panels, "Worst mistakes").caption
    maps = of(panels, "Feature maps").figure
    layers = [ax.get_ylabel().split("\n") for ax in maps.axes if "\n" in ax.get_ylabel()]
    assert layers == [["conv1", "10x10x4"], ["pool1", "5x5x4"], ["conv2", "3x3x4"]]  # pool2's 1x1 is no picture
    for panel in panels:
        assert panel.figure is None or figures.data_uri(panel.figure).startswith("data:image/")


def test_feature_maps_of_a_model_that_sows_nothing() -> None:
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
            for width in (2, 3, 4, 5, 2, 3, 4, 5, 2, 3, 6):  # Conv_10 is drawn behind Conv_2
                x = nn.Conv(width, (3, 3))(x)
            return x.mean((1, 2))

    panel = of(drawn(Classification().panels(bar_view(image_splits(), model=Plain()))), "Feature maps")
    names = [ax.get_ylabel().split("\n")[0] for ax in panel.figure.axes if "\n" in ax.get_ylabel()]
    assert names[0] == "Conv_0"
    assert names[-1] == "Conv_10"
    assert len(names) == 8


@pytest.mark.parametrize("classes", [2, 50])
def test_panels_of_few_and_of_many_classes(classes: int) -> None:
    targets = np.arange(100, dtype=np.int32) % classes
    rows = {"inputs": RNG.normal(size=(100, 5)).astype(np.float32), "targets": targets}
    splits = Splits("vectors", "", "", rows, rows)
    view = View(splits, None, {}, lambda r: r["inputs"] @ np.ones((5, classes)), lambda r: r, lambda r: r)
    titles = [panel.title for panel in drawn(Classification().panels(view))]
    assert ("Choosing a threshold" in titles) == (classes == 2)
    assert "Training images" not in titles
    assert "Feature maps" not in titles


def test_the_confusion_of_ten_thousand_classes_takes_little_memory_and_shows_the_most_confused() -> None:
    """A C x C table of float64 is 800 MB, the probabilities of these rows are 160 MB."""
    classes, rng = 10_000, np.random.default_rng(1)
    truth = rng.integers(0, classes, 4000)
    said = truth.copy()
    said[:300] = (truth[:300] // 100) * 100  # a hundred classes take what belongs to their neighbours
    said[300:900] = 7
    rows = {"inputs": said.astype(np.int32), "targets": truth.astype(np.int32)}

    def outputs(part: Arrays) -> np.ndarray:
        logits = np.zeros((len(part["inputs"]), classes), np.float32)
        logits[np.arange(len(logits)), part["inputs"]] = 2.0
        return logits

    view = View(Splits("many", "", "", rows, rows), None, {}, outputs, lambda r: r, lambda r: r)
    tracemalloc.start()
    found = answers.collect_answers(view)
    panel = classification.confusion(found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 2**20
    np.testing.assert_array_equal(found.predicted, said)
    np.testing.assert_allclose(found.confidence, np.exp(2) / (np.exp(2) + classes - 1), rtol=1e-5)
    wrong = [(t, s) for t, s in zip(truth, said, strict=True) if t != s]
    involved = Counter(number for pair in wrong for number in pair)
    assert f"{4000 - len(wrong):,} of 4,000 test examples are right. The 40 of 10,000 classes in most" in panel.caption
    ((_, times),) = Counter(wrong).most_common(1)
    assert f"{times} times" in panel.caption
    shown = {int(text.get_text()) for text in panel.figure.axes[0].get_yticklabels()}
    assert len(shown) == 40
    least = min(involved[number] for number in shown)
    assert all(number in shown for number, times in involved.items() if times > least)
    image = panel.figure.axes[0].images[0].get_array()
    order = sorted(shown)
    for number in order:
        own = truth == number
        if own.any():
            assert image[order.index(number), order.index(7)] == pytest.approx((said[own] == 7).mean())


def test_answers_asked_in_parts_are_those_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = RNG.normal(size=(1500, 6)).astype(np.float32) * 4
    rows = {"inputs": logits, "targets": RNG.integers(0, 6, 1500)}
    view = View(Splits("x", "", "", rows, rows), None, {}, lambda r: r["inputs"], lambda r: r, lambda r: r)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(1, keepdims=True)
    for limit in (answers.CHUNK_BYTES, 1):
        monkeypatch.setattr(answers, "CHUNK_BYTES", limit)
        found = answers.collect_answers(view)
        np.testing.assert_array_equal(found.predicted, exact.argmax(1))
        np.testing.assert_allclose(found.confidence, exact.max(1), rtol=1e-6)
        np.testing.assert_allclose(found.second, exact[:, 1], rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(found.first, exact[:12], rtol=1e-5, atol=1e-9)


def test_a_panel_that_fails_does_not_end_the_others() -> None:
    view = bar_view(image_splits(), model=CNN(filters=(4,), dense=(), outputs=3))

    def broken(rows: Arrays) -> np.ndarray:
        raise RuntimeError("out of memory")

    sections = report.draw(Classification().panels(View(**{**vars(view), "outputs": broken})))
    titles = ["failed" if "out of memory" in section.error else section.title for section in sections]
    assert titles[:3] == ["Examples by class", "Training images", "One augmented batch"]
    assert [title for title in titles[3:] if title != "First-layer filters"] == ["failed"] * 8


# ---- the user's pictures --------------------------------------------------------------------------------------------


def a_picture(mode: str) -> Image.Image:
    """The same grey ramp in every mode Pillow can write."""
    ramp = np.tile(np.linspace(0, 255, 40), (30, 1)).round().astype(np.uint8)
    grey = Image.fromarray(ramp)
    if mode == "I;16":
        return Image.fromarray(ramp.astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(ramp.astype(np.float32) / 255)
    if mode in ("RGBA", "LA"):
        opaque = grey.convert(mode)
        opaque.putalpha(255)
        return opaque
    if mode == "P":
        return grey.convert("RGB").quantize(256)
    return grey.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr") else grey.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix", "within"),
    [
        ("L", "png", 1), ("RGB", "png", 1), ("RGBA", "png", 1), ("LA", "png", 1), ("I;16", "png", 1),
        ("I;16", "tiff", 1), ("F", "tiff", 1), ("P", "png", 4), ("P", "gif", 4), ("CMYK", "jpg", 8),
        ("CMYK", "tiff", 2), ("YCbCr", "jpg", 8), ("L", "webp", 8), ("RGB", "bmp", 1), ("L", "pgm", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_every_kind_look_the_same(
    mode: str, suffix: str, within: int, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    a_picture(mode).save(path)
    loaded = images.read(path, (30, 40), channels)
    assert loaded.shape == (30, 40, channels)
    assert loaded.dtype == np.uint8
    ramp = np.tile(np.linspace(0, 255, 40), (30, 1))[..., None]
    assert np.abs(loaded.astype(float) - ramp).max() <= within


def test_shape_is_kept_and_the_rest_is_background(tmp_path: Path) -> None:
    wide = np.full((50, 100), 200, np.uint8)
    wide[15:35, 30:70] = 0
    Image.fromarray(wide).save(tmp_path / "a.png")
    image = images.read(tmp_path / "a.png", (28, 28), 1)[..., 0]
    assert (image[:7] == 200).all()
    assert (image[-7:] == 200).all()
    dark = np.argwhere(image < 100)
    height, width = np.ptp(dark, axis=0) + 1
    assert (width, height) == pytest.approx((40 * 0.28, 20 * 0.28), abs=1)
    assert tuple(dark.mean(0)) == pytest.approx((13.5, 13.5), abs=0.5)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (28, 28), (29, 31)])
def test_pictures_of_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "a.png")
    image = images.read(tmp_path / "a.png", (28, 28), 3)
    assert image.shape == (28, 28, 3)
    assert (image == (10, 200, 30)).all()


def test_a_photograph_held_upright_is_upright(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=100)
    image = images.read(tmp_path / "a.jpg", (20, 20), 1)[..., 0]
    assert image[:, 12:].min() > 240
    assert image[:, :8].max() < 15


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (255, 0)])
def test_transparent_ground_contrasts_with_the_ink(ink: int, ground: int, tmp_path: Path) -> None:
    pixels = np.zeros((28, 28, 4), np.uint8)
    pixels[10:18, 10:18] = (ink, ink, ink, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = images.read(tmp_path / "a.png", (28, 28), 1)[..., 0]
    assert image[0, 0] == ground
    assert image[14, 14] == ink


def test_predictions_of_a_folder(tmp_path: Path) -> None:
    view, folder = bar_view(image_splits()), tmp_path / "in" / "deeper"
    folder.mkdir(parents=True)
    (folder / "loop").symlink_to(tmp_path / "in")
    (folder / "notes.txt").write_text("no image")
    image = view.splits.train["inputs"][1, ..., 0]
    Image.fromarray(image).save(folder / "dark, as trained.png")
    Image.fromarray(255 - image).save(tmp_path / "in" / "paper.png")
    written = Classification(top=2).predict(view, str(tmp_path / "in"), tmp_path / "out")
    assert [path.name for path in written] == ["predictions.csv", "predictions.png"]
    with written[0].open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "inverted", "class_1", "confidence_1", "class_2", "confidence_2"]
    assert [row[:3] for row in rows[1:]] == [
        ["deeper/dark, as trained.png", "no", view.splits.classes[1]],
        ["paper.png", "yes", view.splits.classes[1]],
    ]
    logits = view.outputs({"inputs": view.splits.train["inputs"][1:2]})[0].astype(float)
    assert float(rows[1][3]) == pytest.approx(np.exp(logits[1]) / np.exp(logits).sum(), abs=1e-6)
    with Image.open(written[1]) as drawn:
        assert drawn.format == "PNG"


def test_bright_borders_are_kept_where_training_has_them(tmp_path: Path) -> None:
    Image.new("L", (12, 12), 255).save(tmp_path / "a.png")
    written = Classification().predict(bar_view(image_splits(border=255)), str(tmp_path / "a.png"), tmp_path / "out")
    assert written[0].read_text().splitlines()[1].startswith("a.png,no,")


def damaged(kind: str, folder: Path) -> Path:
    path = folder / "bad.png"
    Image.fromarray(RNG.integers(0, 256, (60, 60), np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:900], "text": b"hello", "empty": b"", "body": whole[:60] + bytes(900)}[kind])
    return path


@pytest.mark.parametrize("kind", ["cut", "text", "empty", "body"])
def test_an_unreadable_picture_is_listed_and_the_others_are_predicted(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "acd":
        Image.new("L", (12, 12)).save(folder / f"{name}.png")
    alone = Classification().predict(bar_view(image_splits()), str(folder), tmp_path / "alone")[0].read_text()
    bad = damaged(kind, folder)
    written = Classification().predict(bar_view(image_splits()), str(folder), tmp_path / "out")
    assert [path.name for path in written] == ["predictions.csv", "predictions.png", "bad_inputs.csv"]
    assert written[0].read_text() == alone
    header, row = written[2].read_text().splitlines()
    assert header == "file,place,reason"
    assert row.startswith(f"{bad},,")
    for path in folder.glob("[acd].png"):
        path.unlink()
    with pytest.raises(UserError, match=r"none of 1 images can be read; .*bad\.png") as caught:
        Classification().predict(bar_view(image_splits()), str(folder), tmp_path / "nothing")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "nothing").exists()
    bad.unlink()
    Image.new("L", (12, 12)).save(folder / "a.png")
    Classification().predict(bar_view(image_splits()), str(folder), tmp_path / "out")
    assert not (tmp_path / "out" / "bad_inputs.csv").exists()  # an earlier prediction's is not left beside a later one


def test_a_bomb_is_refused_before_it_unfolds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"bomb\.png"):
        images.read(tmp_path / "bomb.png", (28, 28), 1)


@pytest.mark.parametrize("source", ["nothing.png", "empty"])
def test_no_pictures(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=source):
        Classification().predict(bar_view(image_splits()), str(tmp_path / source), tmp_path / "out")


# ---- language -------------------------------------------------------------------------------------------------------

TEXT = "to be or not to be, that is the question.\n" * 12
VOCABULARY = sorted(set(TEXT))
LENGTH = 20


class Table(nn.Module):
    """Next-character logits [V, V] by the character before; the carry counts the characters read."""

    def initial_carry(self, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size,), jnp.int32)

    @nn.compact
    def with_carry(self, tokens: jax.Array, carry: jax.Array) -> tuple[jax.Array, jax.Array]:
        table = self.param("table", nn.initializers.normal(), (len(VOCABULARY), len(VOCABULARY)))
        return table[tokens], carry + tokens.shape[1]

    def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        return self.with_carry(tokens, self.initial_carry(len(tokens)))[0]


def text_splits() -> Splits:
    tokens = np.array([VOCABULARY.index(char) for char in TEXT], np.uint8)
    train, test = tokens[:400], tokens[400:]
    chunks = np.stack([train[i : i + 2 * LENGTH] for i in range(0, 400 - LENGTH, LENGTH)])
    count = -(-(len(test) - 1) // LENGTH)
    padded = np.zeros(count * LENGTH + 1, np.uint8)
    padded[: len(test)] = test
    mask = (np.arange(count * LENGTH) < len(test) - 1).astype(np.float32).reshape(count, LENGTH)
    windows = np.stack([padded[i * LENGTH : (i + 1) * LENGTH + 1] for i in range(count)])
    test_rows = {"inputs": windows, "mask": mask}
    return Splits("text", "", "", {"inputs": chunks}, test_rows, facts=Facts(vocabulary=tuple(VOCABULARY)))


def text_view(sharpness: float = 1.0, seed: int = 0) -> View:
    """Bigram probabilities of the text as a model; `sharpness` multiplies its logits."""
    size = len(VOCABULARY)
    counts = np.full((size, size), 1e-3)
    for one, two in itertools.pairwise(TEXT):
        counts[VOCABULARY.index(one), VOCABULARY.index(two)] += 1
    variables = {"params": {"table": sharpness * np.log(counts / counts.sum(1, keepdims=True)).astype(np.float32)}}

    def prepared(rows: Arrays) -> Arrays:
        tokens = rows["inputs"].astype(np.int32)
        return {**rows, "inputs": tokens[:, :-1], "targets": tokens[:, 1:]}

    model = Table()
    outputs = lambda rows: np.asarray(model.apply(variables, prepared(rows)["inputs"]))  # noqa: E731
    return View(text_splits(), model, variables, outputs, prepared, prepared, seed)


def test_language_scores_and_names() -> None:
    logits, targets = RNG.normal(size=(3, 4, 5)).astype(np.float32), RNG.integers(0, 5, (3, 4))
    scores = LanguageModel().score(jnp.asarray(logits), {"targets": jnp.asarray(targets)})
    by_hand = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(scores["loss"], by_hand, rtol=1e-5)
    np.testing.assert_array_equal(scores["accuracy"], logits.argmax(-1) == targets)
    means = LanguageModel().finish({"loss": math.log(8.0), "accuracy": 0.5})
    assert means == pytest.approx({"loss": math.log(8), "accuracy": 0.5, "perplexity": 8, "bits_per_character": 3})
    assert LanguageModel().finish({"loss": 1e4})["perplexity"] == math.inf


def test_unigram_and_bigram_equal_counts_by_hand() -> None:
    train, test = TEXT[:400], TEXT[400:]
    size = len(VOCABULARY)
    single, pairs = Counter(train[:380]), Counter(itertools.pairwise(train[:381]))
    befores = Counter(train[:380])
    unigram = -np.mean([math.log((single[char] + 1) / (380 + size)) for char in test[1:]])
    bigram = -np.mean([math.log((pairs[a, b] + 1) / (befores[a] + size)) for a, b in itertools.pairwise(test)])
    found = LanguageModel().baselines(text_splits())
    assert found["unigram"]["loss"] == pytest.approx(unigram, rel=1e-9)
    assert found["bigram"]["loss"] == pytest.approx(bigram, rel=1e-9)
    assert found["bigram"]["bits_per_character"] == pytest.approx(bigram / math.log(2))


def test_samples_follow_the_model_the_temperature_and_the_seed() -> None:
    task = LanguageModel(prompt="to", sample_length=200)
    sample = task.sample(text_view())
    assert sample == task.sample(text_view())
    assert sample != task.sample(text_view(seed=1))
    assert len(sample) == 202
    seen = set(itertools.pairwise(TEXT))
    unseen = lambda text: sum(pair not in seen for pair in itertools.pairwise(text))  # noqa: E731
    assert unseen(sample) <= 4
    assert unseen(LanguageModel(prompt="to", sample_length=200, temperature=5.0).sample(text_view())) > 20
    greedy = LanguageModel(prompt="q", sample_length=3, temperature=1e-3).sample(text_view())
    assert greedy == "que "
    # Dividing by a temperature is the same as a model that much flatter, to the last character drawn.
    flatter = LanguageModel(prompt="to", sample_length=50, temperature=1.0).sample(text_view(sharpness=0.5))
    assert flatter == LanguageModel(prompt="to", sample_length=50, temperature=2.0).sample(text_view())


def test_a_larger_vocabulary_than_the_text_s_draws_only_characters_of_the_text() -> None:
    from fdl.models.recurrent import Recurrent

    model = Recurrent(vocabulary=4 * len(VOCABULARY), width=8)
    variables = model.init(jax.random.key(1), jnp.zeros((1, 4), jnp.int32))
    view = View(**{**vars(text_view()), "model": model, "variables": variables})
    sample = LanguageModel(prompt="to", sample_length=200, temperature=5.0).sample(view)
    assert len(sample) == 202
    assert set(sample) <= set(VOCABULARY)


def test_sampling_carries_the_recurrent_state() -> None:
    from fdl.models.recurrent import Recurrent

    model = Recurrent(vocabulary=len(VOCABULARY), width=8)
    variables = model.init(jax.random.key(1), jnp.zeros((1, 4), jnp.int32))
    view = View(**{**vars(text_view()), "model": model, "variables": variables})
    text = LanguageModel(prompt="be", sample_length=30, temperature=1e-6).sample(view)
    tokens = [VOCABULARY.index(char) for char in text]
    logits = model.apply(variables, jnp.asarray([tokens[:-1]]))[0]  # the whole text at once, without a carry
    assert tokens[2:] == logits.argmax(-1).tolist()[1:]


def test_language_panels() -> None:
    view = text_view()
    panels = drawn(LanguageModel(prompt="to", sample_length=40).panels(view))
    assert [panel.title for panel in panels] == [
        "Samples", "Loss by place in the window", "What surprises it", "Characters most often missed",
    ]  # fmt: skip
    assert all(f"temperature {t:g}" in panels[0].text for t in (0.5, 0.8, 1.2))
    batch = view.prepared(view.splits.test)
    scores = LanguageModel().score(jnp.asarray(view.outputs(view.splits.test)), batch)
    mean = float((scores["loss"] * batch["mask"]).sum() / batch["mask"].sum())
    assert f"{mean:.3f}" in panels[1].caption
    (line,) = [line for line in panels[1].figure.axes[0].lines if len(line.get_xdata()) == LENGTH]
    np.testing.assert_allclose(
        line.get_ydata(), (scores["loss"] * batch["mask"]).sum(0) / batch["mask"].sum(0), rtol=1e-4
    )
    right = float((scores["accuracy"] * batch["mask"]).sum() / batch["mask"].sum())
    assert panels[3].caption.startswith(f"{right:.1%}")


def test_a_prompt_from_the_line_and_from_a_file(tmp_path: Path) -> None:
    view, task = text_view(), LanguageModel(sample_length=10)
    (written,) = task.predict(view, "that", tmp_path / "out")
    assert written.name == "sample.txt"
    (tmp_path / "prompt.txt").write_text("that")
    (again,) = task.predict(view, str(tmp_path / "prompt.txt"), tmp_path / "again")
    assert written.read_text() == again.read_text()
    assert len(written.read_text()) == 14


@pytest.mark.parametrize(
    ("prompt", "named"), [("to éBe", "'B' 'é'"), ("", "0 characters"), ("missing.txt", "no text file")]
)
def test_bad_prompts(prompt: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=named):
        LanguageModel().predict(text_view(), prompt, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- regression -----------------------------------------------------------------------------------------------------

KINDS = ("INLAND", "NEAR BAY")


def table_splits(count: int = 300) -> Splits:
    """A target that is linear in three columns and a category, with missing cells."""
    numeric = RNG.normal(size=(count, 3)).astype(np.float32) * (1, 10, 0.1)
    category = RNG.integers(0, 2, count).astype(np.int32)
    targets = (numeric @ np.array([2.0, 0.1, 0.0]) + 3 * category + 1).astype(np.float32)
    numeric[::17, 2] = np.nan
    rows = {"inputs": {"numeric": numeric.astype(np.float32), "category": category[:, None]}, "targets": targets}
    facts = Facts(numeric=("a", "b", "c"), categories={"where": (*KINDS, "(other)")})
    return Splits("t", "", "", take(rows, slice(0, 200)), take(rows, slice(200, None)), facts=facts)


def table_view(splits: Splits) -> View:
    def outputs(rows: Arrays) -> np.ndarray:
        inputs = rows["inputs"]
        return (inputs["numeric"][:, :2] @ np.array([2.0, 0.1]) + 3 * inputs["category"][:, 0] + 1)[:, None]

    return View(splits, None, {}, outputs, lambda rows: rows, lambda rows: rows)


@pytest.mark.parametrize(("loss", "first"), [("mse", [0.25, 9.0]), ("mae", [0.5, 3.0]), ("huber", [0.125, 4.0])])
def test_regression_scores(loss: Any, first: list[float]) -> None:
    task = Regression(loss=loss, huber_delta=2.0)
    for outputs in (jnp.array([1.5, -1.0]), jnp.array([[1.5], [-1.0]])):
        scores = task.score(outputs, {"targets": jnp.array([1.0, 2.0])})
        np.testing.assert_allclose(scores["loss"], first)
        np.testing.assert_allclose(scores["mse"], [0.25, 9.0])
        np.testing.assert_allclose(scores["mae"], [0.5, 3.0])
    assert task.finish({"mse": 9.0})["rmse"] == 3.0


def test_regression_refuses_outputs_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match="outputs"):
        Regression().score(jnp.zeros((4, 3)), {"targets": jnp.zeros(4)})


def test_linear_baseline_equals_sklearn() -> None:
    splits = table_splits()
    found = Regression().baselines(splits)

    def features(rows: Arrays) -> np.ndarray:
        numeric = rows["inputs"]["numeric"].astype(float)
        median = np.nanmedian(splits.train["inputs"]["numeric"].astype(float), axis=0)
        return np.column_stack([np.where(np.isnan(numeric), median, numeric), rows["inputs"]["category"]])

    fitted = LinearRegression().fit(features(splits.train), splits.train["targets"])
    error = fitted.predict(features(splits.test)) - splits.test["targets"]
    assert found["linear regression"]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-3, abs=1e-5)
    mean = np.sqrt(np.mean((splits.test["targets"] - splits.train["targets"].mean()) ** 2))
    assert found["mean of training"]["rmse"] == pytest.approx(mean, rel=1e-5)


def test_regression_panels() -> None:
    splits = table_splits()
    before = jax.tree.map(np.copy, splits.test)
    panels = drawn(Regression().panels(table_view(splits)))
    assert "100.0% of the variance" in of(panels, "Predicted and true").caption
    bars = of(panels, "What it relies on").figure.axes[0]
    names = [tick.get_text() for tick in bars.get_yticklabels()]
    growth = dict(zip(names, [bar.get_width() for bar in bars.patches], strict=True))
    assert growth["c"] == 0
    assert growth["a"] > growth["b"] > 0.5
    assert growth["where"] > 1
    assert len(of(panels, "Largest errors").rows) == 12
    assert [row[1] for row in of(panels, "Error by category").rows] == list(KINDS)
    jax.tree.map(np.testing.assert_array_equal, splits.test, before)  # shuffling columns must leave the data alone


CSV = "\ufeffwhere,b,extra,a,c\nINLAND,10,x,1,\nNEAR BAY,0,y,-1,2\n"


def test_predictions_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(CSV, encoding="utf-8")
    (written,) = Regression().predict(table_view(table_splits()), str(tmp_path / "in.csv"), tmp_path / "out")
    assert written.read_text() == "where,b,extra,a,c,prediction\nINLAND,10,x,1,,4\nNEAR BAY,0,y,-1,2,2\n"


def test_a_category_that_training_lacks_is_another_one_as_in_training(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(CSV.replace("NEAR BAY", "MOON"), encoding="utf-8")
    rows = tables.read_rows(str(tmp_path / "in.csv"), table_splits().facts).rows
    assert rows["inputs"]["category"].tolist() == [[0], [2]]  # "(other)"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("-1", "one", "line 3, column a"), ("-1", "inf", "line 3, column a"), ("10", "1e999", "line 2, column b"),
        ("10", "1e39", "line 2, column b: '1e39' is beyond"), ("10", "1_000", "line 2, column b"),
        ("y,-1", "-1", "line 3: 4 cells"),
        ("extra", "a", "named twice"), ("where", "place", "'where' is missing"), (CSV[1:], "", "is empty"),
        (CSV[CSV.index("INLAND") :], "", "no rows"), (",x,", ',"x,', "line 2: a quote is left open"),
    ],
)  # fmt: skip
def test_bad_tables(old: str, new: str, named: str, tmp_path: Path) -> None:
    text = CSV.replace(old, new, 1)
    assert text != CSV
    (tmp_path / "in.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=named):
        Regression().predict(table_view(table_splits()), str(tmp_path / "in.csv"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"where,a,b,c\n\xff\xfe,1,2,3\n")
    with pytest.raises(UserError, match="UTF-8"):
        Regression().predict(table_view(table_splits()), str(tmp_path / "in.csv"), tmp_path / "out")


# ---- all ------------------------------------------------------------------------------------------------------------


def test_importing_tasks_draws_in_no_drawing() -> None:
    heavy = ("matplotlib", "PIL", "sklearn", "jinja2", "tensorflow")
    code = f"import fdl.tasks, fdl.report, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert found.stdout.strip() == "[]"


def test_outputs_that_cannot_be_written_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fdl import files

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        files.write_all(tmp_path, {"a.csv": "1", "b.png": b"2"})
    assert list(tmp_path.iterdir()) == []
