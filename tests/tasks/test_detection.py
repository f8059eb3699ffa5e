"""Detection: overlap, losses and suppression by hand, average precision beside pycocotools; boxes that move with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fdl.data import Facts, Splits
from fdl.data.box_ops import FlipBoxes, Mosaic
from fdl.models import Detector, ResNet
from fdl.tasks import Detection, View, boxes
from fdl.tasks.detection_scores import average_precision, blob_baseline, dataset_of, otsu, results_of, summary_of

RNG = np.random.default_rng(0)
CLASSES = ("red", "white")


def random_boxes(*shape: int, size: float = 60) -> np.ndarray:
    corners = np.sort(RNG.random((*shape, 2, 2)) * size, axis=-2)
    return corners.reshape(*shape, 4).astype(np.float32)


def giou_by_hand(a: np.ndarray, b: np.ndarray) -> float:
    width, height = (max(0.0, min(a[2 + i], b[2 + i]) - max(a[i], b[i])) for i in (0, 1))
    sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = sum(sizes) - width * height
    around = np.prod([max(a[2 + i], b[2 + i]) - min(a[i], b[i]) for i in (0, 1)])
    return float(width * height / union - (around - union) / around)


def test_giou_and_focal_loss_are_the_papers_equations() -> None:
    a, b = random_boxes(40), random_boxes(40)
    expected = [1 - giou_by_hand(*pair) for pair in zip(a.astype(float), b.astype(float), strict=True)]
    np.testing.assert_allclose(boxes.giou_loss(jnp.asarray(a), jnp.asarray(b)), expected, rtol=1e-4, atol=1e-5)
    assert max(expected) > 1 > min(expected)
    logits, targets = RNG.normal(size=(7, 5)) * 4, (RNG.random((7, 5)) < 0.3).astype(np.float64)
    p = 1 / (1 + np.exp(-logits))
    by_hand = np.where(targets > 0, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p))
    np.testing.assert_allclose(boxes.focal_loss(jnp.asarray(logits), jnp.asarray(targets)), by_hand, rtol=1e-4)
    apart, empty = jnp.array([0.0, 0, 1, 1]), jnp.zeros(4)
    assert np.isfinite(jax.grad(lambda box: boxes.giou_loss(box, empty))(apart)).all()


def suppressed_by_hand(held: np.ndarray, scores: np.ndarray, limit: float) -> list[int]:
    kept: list[int] = []
    for place in np.argsort(-scores):
        if all(np.asarray(boxes.overlap(held[place], held[other])[0]) <= limit for other in kept):
            kept.append(int(place))
    return kept


def test_suppression_is_greedy_class_by_class() -> None:
    held, scores = random_boxes(2, 12), RNG.random((2, 12, 2)).astype(np.float32)
    found = jax.jit(lambda b, s: boxes.detections(b, s, 0.3, 100))(held, scores)
    removed = 0
    for row in range(2):
        expected = []
        for kind in range(2):
            kept = suppressed_by_hand(held[row], scores[row, :, kind], 0.3)
            removed += 12 - len(kept)
            expected += [(float(scores[row, place, kind]), kind, *map(float, held[row, place])) for place in kept]
        real = np.asarray(found["scores"][row]) > 0
        made = zip(
            *(np.asarray(found[name][row])[real].tolist() for name in ("scores", "classes", "boxes")), strict=True
        )
        assert [(score, kind, *box) for score, kind, box in made] == sorted(expected, reverse=True)
    assert removed > 4


def test_a_cell_answers_for_the_smallest_box_whose_centre_is_near() -> None:
    centres = boxes.cell_centres(4, 4, 8)
    np.testing.assert_array_equal(centres[5], [12, 12])
    held = jnp.array([[[0.0, 0, 32, 32], [8, 8, 17, 17], [0, 0, 32, 32]]])
    own, labels = boxes.assign(centres, held, jnp.array([[1, 0, -1]]), radius=12)
    grid = np.asarray(labels[0]).reshape(4, 4)
    np.testing.assert_array_equal(grid, [[-1, -1, -1, -1], [-1, 0, 1, -1], [-1, 1, 1, -1], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(own[0, 5], held[0, 1])
    _, nothing = boxes.assign(centres, held, jnp.array([[-1, -1, -1]]), radius=12)
    assert (nothing == -1).all()


def test_flipped_boxes_still_hold_their_objects() -> None:
    pictures = np.zeros((8, 20, 30, 3), np.uint8)
    corners = np.array([[3, 2, 9, 7]] * 8, np.float32)[:, None]
    pictures[:, 2:7, 3:9] = 200
    batch = {"inputs": pictures, "targets": {"boxes": corners, "classes": np.zeros((8, 1), np.int32)}}
    uniform = jnp.asarray([[a, b] for a in (0.1, 0.9) for b in (0.1, 0.9)] * 2)
    moved = FlipBoxes(vertical=0.5).transform(batch, lambda shape: uniform, {})
    seen = set()
    for picture, box in zip(np.asarray(moved["inputs"]), np.asarray(moved["targets"]["boxes"])[:, 0], strict=True):
        left, top, right, bottom = box.astype(int)
        assert (picture[top:bottom, left:right] == 200).all()
        assert (picture == 200).sum() == 5 * 6 * 3
        seen.add((left, top))
    assert len(seen) == 4
    assert FlipBoxes().transform(batch, None, {}) is batch


def test_a_mosaic_shows_parts_of_four_pictures_and_the_boxes_that_remain_visible() -> None:
    pictures = np.zeros((4, 20, 30, 1), np.uint8)
    pictures[:, 5:15, 10:20] = np.array([50, 100, 150, 200]).reshape(4, 1, 1, 1)
    targets = {
        "boxes": np.tile(np.array([[[10, 5, 20, 15], [0, 0, 0, 0]]], np.float32), (4, 1, 1)),
        "classes": np.array([[0, -1]] * 4, np.int32),
    }
    uniform = jnp.asarray([[0.0, 0.5, 0.5], [0.0, 0.0, 0.6], [0.9, 0.3, 0.3], [0.0, 0.99, 0.99]])
    made = Mosaic(probability=0.5, visible=0.3).transform(
        {"inputs": pictures, "targets": targets}, lambda shape: uniform, {}
    )
    inputs, held = np.asarray(made["inputs"]), jax.device_get(made["targets"])
    assert inputs.shape == pictures.shape
    assert held["boxes"].shape == (4, 8, 4)
    np.testing.assert_array_equal(inputs[2], pictures[2])  # not chosen: whole
    np.testing.assert_array_equal(held["boxes"][2][held["classes"][2] == 0], [[10, 5, 20, 15]])
    for row in range(4):
        for left, top, right, bottom in held["boxes"][row][held["classes"][row] >= 0].astype(int):
            part = inputs[row, top:bottom, left:right]
            assert part.size
            assert (part == part.flat[0]).all()
            assert part.flat[0] > 0
    # Half a picture down and right: a quarter of each of four, of each object the corner that is seen, under 30 %.
    assert set(np.unique(inputs[0])) == {0, 50, 100, 150, 200}
    assert (held["classes"][0] == -1).all()
    assert (
        Mosaic(visible=0.2).transform({"inputs": pictures, "targets": targets}, lambda shape: uniform, {})["targets"][
            "classes"
        ][0]
        == 0
    ).sum() == 4


def crowd(pictures: int = 12) -> tuple[Any, Any]:
    """True boxes, some missing, and detections of them that are moved a little, among false ones."""
    truth = {
        "boxes": random_boxes(pictures, 5, size=200),
        "classes": RNG.integers(-1, 2, (pictures, 5)).astype(np.int32),
    }
    truth["boxes"][..., 2:] += 8
    near = truth["boxes"] + RNG.normal(size=truth["boxes"].shape).astype(np.float32) * 3
    found = {
        "boxes": np.concatenate([near, random_boxes(pictures, 4, size=200)], 1),
        "scores": np.round(RNG.random((pictures, 9)), 2), "classes": RNG.integers(0, 2, (pictures, 9)),
    }  # fmt: skip
    found["classes"][:, :5] = np.where(
        RNG.random((pictures, 5)) < 0.8, np.abs(truth["classes"]), found["classes"][:, :5]
    )
    return truth, found


def test_average_precision_is_pycocotools(capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    truth, found = crowd()
    metrics = average_precision(truth, found, CLASSES)
    held = coco.COCO()
    held.dataset = dataset_of(truth, CLASSES)
    held.createIndex()
    oracle = evaluation.COCOeval(held, held.loadRes(results_of(found)), "bbox")
    oracle.evaluate()
    oracle.accumulate()
    oracle.summarize()
    assert metrics["map_50"] == pytest.approx(oracle.stats[1], abs=1e-6)
    assert metrics["map"] == pytest.approx(oracle.stats[0], abs=1e-6)
    assert 0.1 < metrics["map_50"] < 0.95
    each = summary_of(oracle.eval["precision"], CLASSES)
    assert metrics["ap_50_red"] == pytest.approx(each["ap_50_red"], abs=1e-6)
    capsys.readouterr()


def test_perfect_detections_score_one_and_none_zero() -> None:
    truth, _ = crowd(3)
    perfect = {**truth, "scores": (truth["classes"] >= 0).astype(float)}
    assert average_precision(truth, perfect, CLASSES)["map"] == pytest.approx(1)
    nothing = {**truth, "scores": np.zeros(truth["classes"].shape)}
    assert average_precision(truth, nothing, CLASSES) == {"map_50": 0.0, "map": 0.0}


def test_the_loss_is_over_answering_cells_and_the_boxes_come_back() -> None:
    task = Detection()
    targets = {
        "boxes": jnp.array([[[4.0, 4, 20, 20], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 2]),
        "classes": jnp.array([[1, -1], [-1, -1]]),
    }
    batch = {"inputs": jnp.zeros((2, 24, 24, 3)), "targets": targets}
    centres = np.asarray(boxes.cell_centres(3, 3, 8))
    reach = np.stack([centres[:, 0] - 4, centres[:, 1] - 4, 20 - centres[:, 0], 20 - centres[:, 1]], -1)
    logits = np.full((2, 9, 2), -20.0)
    inside = (np.abs(centres - 12) < 8).all(1)
    logits[0, inside, 1] = 20
    outputs = {
        "logits": jnp.asarray(logits, jnp.float32).reshape(2, 3, 3, 2),
        "reach": jnp.asarray(np.tile(reach, (2, 1, 1)), jnp.float32).reshape(2, 3, 3, 4),
    }
    scores = task.score(outputs, batch)
    np.testing.assert_array_equal(scores["loss"][1], [inside.sum(), 1])  # a picture without boxes counts once
    np.testing.assert_allclose(scores["loss"][0], 0, atol=1e-5)
    worse = task.score({**outputs, "reach": outputs["reach"] * 2}, batch)
    grown = 16 * 16 / (32 * 32)  # the middle cell's box has twice the side
    assert float(worse["box_loss"][0][0]) == pytest.approx(1 - grown, abs=0.2)
    empty = jax.tree.map(lambda x: x[:1], outputs)
    assert (
        float(
            task.score({**empty, "logits": -empty["logits"]}, jax.tree.map(lambda x: x[:1], batch))["class_loss"][0][0]
        )
        > 10
    )

    class Fixed:
        def apply(self, variables: Any, x: Any, **settings: Any) -> Any:
            return outputs

    found = task.decode(Fixed(), {}, batch)  # type: ignore[arg-type]
    best = np.asarray(found["scores"]) > 0.5
    np.testing.assert_array_equal(best.sum(1), [1, 0])
    np.testing.assert_allclose(found["boxes"][0][best[0]], [[4, 4, 20, 20]], atol=1e-4)
    assert found["classes"][0][0] == 1


def test_a_detector_has_a_residual_networks_parameters_and_starts_sure_of_nothing() -> None:
    x = jnp.zeros((1, 50, 40, 3))
    model = Detector(width=4, outputs=2, head=6)
    outputs, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x))
    assert outputs["logits"].shape == (1, 7, 5, 2)
    assert outputs["reach"].shape == (1, 7, 5, 4)
    plain = jax.eval_shape(
        lambda: ResNet(stage_sizes=(2, 2, 2), block="basic", width=4, outputs=2).init(jax.random.key(0), x)
    )
    trunk = {
        name: jax.tree.map(lambda leaf: leaf.shape, held) for name, held in plain["params"].items() if name != "output"
    }
    assert trunk == {name: jax.tree.map(lambda leaf: leaf.shape, variables["params"][name]) for name in trunk}


def test_blobs_are_found_and_otsus_threshold_divides_two_groups() -> None:
    values = np.concatenate([RNG.normal(10, 1, 500), RNG.normal(50, 2, 200)])
    assert 0.99 < (values[:500] < otsu(values)).mean() <= 1
    assert (values[500:] > otsu(values)).all()
    pictures = np.full((2, 40, 40, 3), 200, np.uint8)
    pictures[:, 5:10, 5:10], pictures[:, 20:36, 18:34] = 90, 60
    targets = {
        "boxes": np.array([[[5, 5, 10, 10], [18, 20, 34, 36]]] * 2, np.float32),
        "classes": np.array([[1, 0]] * 2, np.int32),
    }
    splits = Splits(
        "toy", "builtin", "here", {"inputs": pictures, "targets": targets}, {"inputs": pictures, "targets": targets}
    )
    assert average_precision(targets, blob_baseline(splits), CLASSES)["map_50"] == pytest.approx(1)


def test_panels_and_predictions_in_pixels_of_the_users_own_picture(tmp_path: Path) -> None:
    pictures = RNG.integers(0, 256, (4, 24, 32, 3)).astype(np.uint8)
    targets = {"boxes": np.array([[[4, 4, 20, 20]]] * 4, np.float32), "classes": np.zeros((4, 1), np.int32)}
    rows = {"inputs": pictures, "targets": targets}
    splits = Splits("toy", "builtin", "here", rows, rows, facts=Facts(classes=CLASSES))

    def over(given: Any) -> Any:
        number = len(given["inputs"])
        yield given, {
            "boxes": np.tile(np.array([[[4, 4, 20, 20], [0, 0, 9, 9]]], np.float32), (number, 1, 1)),
            "scores": np.array([[0.9, 0.1]] * number), "classes": np.array([[0, 1]] * number),
        }  # fmt: skip

    view = View(splits, Detector(), {}, lambda rows: rows, lambda rows: rows, lambda rows: rows, over=over)
    task = Detection()
    assert task.measure(view, rows)["ap_50_red"] == pytest.approx(1)
    drawn = [draw() for draw in task.panels(view)]
    assert [panel.title for panel in drawn if panel] == ["Boxes by class", "One augmented batch", "Detections"]
    Image.new("RGB", (64, 96)).save(tmp_path / "tall.png")  # 16 x 24 pixels in the middle of the frame
    task.predict(view, str(tmp_path / "tall.png"), tmp_path / "out")
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert lines == ["file,class,score,left,top,right,bottom", "tall.png,red,0.9000,0.0,16.0,48.0,80.0"]
    assert (tmp_path / "out" / "predictions.png").stat().st_size > 1000
