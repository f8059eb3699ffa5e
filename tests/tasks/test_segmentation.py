"""Semantic segmentation: scores over whole splits, pictures and labels that change together, label pictures from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fdl.data import Facts, Request, Splits
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.masks import VOID, camvid, mask_folder
from fdl.data.scenes import FlipMasks, JitterColours, PixelWeights, ScaleMasks
from fdl.models import UNet, ops
from fdl.tasks import Segmentation, View
from fdl.tasks.losses import weighted_sums
from fdl.tasks.segmentation import iou_of
from fdl.types import UserError

RNG = np.random.default_rng(0)
CLASSES = ("sky", "road", "tree")
TASK = Segmentation(classes=CLASSES)


def test_the_mean_iou_of_weighted_means_is_that_of_the_confusion_matrix_over_all_batches() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    targets = RNG.choice([0, 1, 2, VOID], (6, 4, 5)).astype(np.uint8)
    logits = RNG.normal(size=(6, 4, 5, 3)).astype(np.float32)
    sums: dict[str, Any] = {}
    for part in (slice(0, 4), slice(4, 8)):  # the second batch is padded with rows of mask 0
        rows = np.minimum(np.arange(8)[part], 5)
        mask = (np.arange(8)[part] < 6).astype(np.float32)
        batch = {"targets": targets[rows], "mask": mask}
        for name, (total, weight) in weighted_sums(TASK.score(jnp.asarray(logits[rows]), batch), mask).items():
            sums[name] = np.add(sums.get(name, 0), [float(total), float(weight)])
    metrics = TASK.finish({name: total / weight for name, (total, weight) in sums.items()})
    known = targets != VOID
    predicted = logits.argmax(-1)
    expected = sklearn.jaccard_score(targets[known], predicted[known], average=None)
    assert [metrics[f"iou_{name}"] for name in CLASSES] == pytest.approx(expected, rel=1e-6)
    assert metrics["mean_iou"] == pytest.approx(expected.mean(), rel=1e-6)
    assert metrics["pixel_accuracy"] == pytest.approx((targets == predicted)[known].mean(), rel=1e-6)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = np.take_along_axis(logp, np.where(known, targets, 0)[..., None].astype(int), -1)[..., 0]
    assert metrics["loss"] == pytest.approx(-own[known].mean(), rel=1e-5)
    assert iou_of(targets, predicted, CLASSES)["mean_iou"] == pytest.approx(metrics["mean_iou"], rel=1e-6)


def test_a_class_that_no_pixel_has_does_not_count_and_training_scores_no_class_alone() -> None:
    targets = np.zeros((1, 2, 2), np.uint8)
    logits = jnp.zeros((1, 2, 2, 3)).at[..., 0].set(1)
    scores = weighted_sums(TASK.score(logits, {"targets": targets}))
    means = {name: float(total / weight) if weight else float("nan") for name, (total, weight) in scores.items()}
    assert TASK.finish(means)["mean_iou"] == 1
    assert set(TASK.score(logits, {"targets": targets, "step": jnp.asarray(3)})) == {"loss", "pixel_accuracy"}


def test_pixel_weights_make_rare_classes_count_and_average_to_one() -> None:
    targets = np.array([0] * 80 + [1] * 20 + [VOID] * 7, np.uint8).reshape(1, 1, -1)
    op = PixelWeights(power=1.0)
    weights = np.asarray(
        op.transform({"targets": targets}, None, op.fit({"targets": targets}))["pixel_weights"]
    ).ravel()
    assert weights[:80].sum() == pytest.approx(weights[80:100].sum(), rel=1e-5)
    assert weights[:100].mean() == pytest.approx(1, rel=1e-5)
    assert (weights[100:] == 0).all()
    logits = jnp.asarray(RNG.normal(size=(1, 1, 107, 3)))
    _, weight = TASK.score(logits, {"targets": targets, "pixel_weights": weights.reshape(targets.shape)})["loss"]
    np.testing.assert_allclose(weight.ravel(), weights)


def test_pictures_and_labels_are_flipped_and_scaled_together() -> None:
    labels = np.kron(RNG.integers(0, 4, (5, 6, 8)), np.ones((1, 4, 4))).astype(np.uint8)
    batch = {"inputs": np.repeat(60 * labels[..., None], 3, -1).astype(np.uint8), "targets": labels}
    numbers = {(): np.array([0.1, 0.9, 0.3, 0.7, 0.5]), (2,): RNG.random((5, 2))}
    flipped = FlipMasks().transform(batch, lambda shape: jnp.asarray(numbers[shape]), {})
    np.testing.assert_array_equal(flipped["targets"][0], labels[0, :, ::-1])
    np.testing.assert_array_equal(flipped["targets"][1], labels[1])
    np.testing.assert_array_equal(flipped["inputs"][..., 0], 60 * np.asarray(flipped["targets"]))
    scaled = ScaleMasks(0.5, 2.0).transform(batch, lambda shape: jnp.asarray(numbers[shape], jnp.float32), {})
    colours, chosen = np.asarray(scaled["inputs"])[..., 0] / 60, np.asarray(scaled["targets"])
    assert (chosen == VOID).any()  # of the reduced ones, what lies outside
    agree = np.abs(colours - chosen)[chosen != VOID] < 0.01
    assert agree.mean() > 0.6  # all but the pixels that mix two squares
    assert agree.reshape(-1).sum() > 500
    np.testing.assert_array_equal(np.unique(chosen[1])[-1] != VOID, True)  # the enlarged one is full
    same = ScaleMasks(1.0, 1.0).transform(batch, lambda shape: jnp.asarray(numbers[shape], jnp.float32), {})
    np.testing.assert_array_equal(same["targets"], labels)
    np.testing.assert_allclose(same["inputs"], batch["inputs"], atol=1e-3)
    bright = JitterColours().transform(batch, lambda shape: jnp.full((5, *shape), 0.5), {})
    np.testing.assert_allclose(bright["inputs"], batch["inputs"], atol=1e-3)  # the middle of both ranges
    for op in (FlipMasks(), ScaleMasks(), JitterColours()):
        assert op.transform(batch, None, {}) is batch


def test_space_to_depth_and_back_and_sizes_that_no_pool_divides() -> None:
    x = jnp.asarray(RNG.normal(size=(2, 6, 4, 3)))
    deep = ops.space_to_depth(x, 2)
    np.testing.assert_array_equal(deep[1, 2, 1], x[1, 4:6, 2:4].reshape(-1))
    np.testing.assert_array_equal(ops.depth_to_space(deep, 2), x)
    model = UNet(widths=(4, 6, 8), outputs=3, shrink=2)
    made, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 13, 18, 3))))
    assert made.shape == (2, 13, 18, 3)
    assert variables["params"]["up1_conv1"]["kernel"].shape == (3, 3, 8, 4)


def scene(folder: Path, split: str, count: int = 3, size: tuple[int, int] = (12, 10)) -> None:
    for sub in (split, f"{split}annot"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        labels = RNG.integers(0, 3, size[::-1]).astype(np.uint8)
        labels[0, 0] = 9
        Image.fromarray(np.repeat(80 * labels[..., None], 3, -1).astype(np.uint8)).save(
            folder / split / f"{number}.png"
        )
        Image.fromarray(labels).save(folder / f"{split}annot" / f"{number}.png")


def test_a_folder_of_pictures_and_labels_is_read_and_scaled_alike(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        scene(tmp_path / "own", split)
    read = mask_folder(Request(), path=str(tmp_path / "own"), size=(10, 12), void=9)
    assert read.classes == ("0", "1", "2")
    assert read.validation is not None
    assert read.train["targets"][0, 0, 0] == VOID
    rest = read.train["targets"] != VOID
    np.testing.assert_array_equal(read.train["inputs"][..., 0][rest], 80 * read.train["targets"][rest])
    wide = mask_folder(Request(), path=str(tmp_path / "own"), size=(20, 40), void=9)
    assert (wide.train["targets"][0, :, :8] == VOID).all()
    assert (wide.train["targets"][0, 2:, 10:30] != VOID).all()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "trainannot" / "1.png").unlink(), "no label picture"),
        (lambda f: Image.new("L", (3, 3)).save(f / "trainannot" / "1.png"), "3 x 3, its picture 12 x 10"),
        (lambda f: Image.new("RGB", (12, 10)).save(f / "trainannot" / "1.png"), "expected grey"),
        (lambda f: Image.new("L", (12, 10), 7).save(f / "trainannot" / "1.png"), "has the class 7, expected 0 to 2"),
        (lambda f: (f / "trainannot" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken"), "the label picture"),
    ],
)
def test_bad_label_pictures_are_one_line_each_or_left_out(spoil: Any, said: str, tmp_path: Path) -> None:
    scene(tmp_path, "train")
    spoil(tmp_path)
    with pytest.raises(BadInputs, match=said) as raised:
        mask_folder(Request(), path=str(tmp_path), classes=CLASSES, void=9)
    assert "\n" not in str(raised.value)
    read = mask_folder(Request(on_bad="skip"), path=str(tmp_path), classes=CLASSES, void=9)
    assert len(read.train["inputs"]) == 2
    assert len(read.skipped) == 1


def test_no_folder_is_a_line_and_camvid_is_the_publishers(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="with a folder train"):
        mask_folder(Request(), path=str(tmp_path))
    with pytest.raises(UserError, match="camvid: no folder"):
        camvid(Request(data_dir=tmp_path))
    if not (data_dir / "camvid").is_dir():
        pytest.skip("no real data: camvid")
    read = camvid(Request(data_dir=data_dir))
    assert [len(rows["inputs"]) for rows in (read.train, read.validation, read.test) if rows] == [367, 101, 233]
    share = (read.train["targets"] == read.classes.index("road")).mean()
    assert 0.25 < share < 0.35


def test_baselines_panels_and_predictions(tmp_path: Path) -> None:
    labels = np.zeros((8, 6, 5), np.uint8)
    labels[:, 3:] = 1
    labels[:, 0, 0] = VOID
    rows = {"inputs": RNG.integers(0, 256, (8, 6, 5, 3)).astype(np.uint8), "targets": labels}
    splits = Splits("toy", "builtin", "here", rows, rows, facts=Facts(classes=CLASSES))
    scores = TASK.baselines(splits)
    assert scores["by position"]["mean_iou"] == 1
    assert scores["majority class"]["pixel_accuracy"] == pytest.approx(15 / 29)

    def outputs(given: Any) -> np.ndarray:
        return np.eye(3)[np.where(labels[: len(given["inputs"])] == VOID, 2, labels[: len(given["inputs"])])]

    def over(given: Any) -> Any:
        yield given, outputs(given).argmax(-1).astype(np.uint8)

    view = View(splits, UNet(), {}, outputs, lambda rows: rows, lambda rows: rows, over=over)
    segmentations, table = (draw() for draw in TASK.panels(view))
    assert segmentations is not None
    assert segmentations.figure is not None
    assert table is not None
    assert [row[2] for row in table.rows] == ["100.0%", "100.0%", "0.0%"]
    (tmp_path / "in").mkdir()
    Image.fromarray(rows["inputs"][0]).save(tmp_path / "in" / "a.png")
    written = {path.name for path in TASK.predict(view, str(tmp_path / "in"), tmp_path / "out")}
    assert written == {"predictions.csv", "predictions.png", "a.png.labels.png"}
    with Image.open(tmp_path / "out" / "a.png.labels.png") as image:
        np.testing.assert_array_equal(np.asarray(image), outputs({"inputs": rows["inputs"][:1]})[0].argmax(-1))
    line = (tmp_path / "out" / "predictions.csv").read_text().splitlines()[1]
    assert [float(cell) for cell in line.split(",")[1:]] == pytest.approx([14 / 30, 15 / 30, 1 / 30], abs=1e-6)
