"""Pictures that do not fit in memory: decoded ahead of time, the same bits whatever carries them, and ImageNet's forms."""

from __future__ import annotations

import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fdl.data import Data, Facts, Request, Splits, columns, ops, pipeline, sources
from fdl.data.digests import count_leaks, sha256_of
from fdl.data.fitted import fit_ops
from fdl.data.formats import checked, images
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.encoded import Encoded
from fdl.data.formats.frames import DRAWS, Frame, random_box
from fdl.models import CNN
from fdl.tasks import Classification
from fdl.tasks.panels.data import augmented, class_counts, examples
from fdl.tasks.task import View
from fdl.types import UserError, count_examples, take


def digest_of(splits: Splits) -> str:
    return sha256_of(splits.train, splits.test, splits.validation)


SIDE = 16


pytestmark = pytest.mark.usefixtures("own_folders")


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def corner(x: int, y: int, width: int = 40, height: int = 30) -> Image.Image:
    """Red from column x on, green from row y on, some blue everywhere: edges whose place a decoded picture shows."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, x:, 0], pixels[y:, :, 1], pixels[..., 2] = 255, 255, 102
    return Image.fromarray(pixels)


def edges(pixels: np.ndarray) -> np.ndarray:
    """The (x, y) of a `corner`, in pixels: scaling keeps how much there is on either side of an edge."""
    return np.array([(1 - pixels[..., channel] / 255).sum(axis).mean() for channel, axis in ((0, 1), (1, 0))])


def evaluated(x: int, y: int, width: int = 40, height: int = 30) -> np.ndarray:
    """Where a `corner` must lie in the evaluation crop: 224 / 256 of the shorter side, from the middle, as SIDE pixels."""
    side = min(width, height) * 224 / 256
    return (np.array([x, y]) - (np.array([width, height]) - side) / 2) * SIDE / side


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """DATA_DIR with imagenet/train and imagenet/val: 3 classes, 21 + 7 JPEGs of several sizes."""
    for split, count in (("train", 7), ("val", 0)):
        for number, label in enumerate(("n01", "n02", "n03")):
            folder = tmp_path / "data" / "imagenet" / split / label
            folder.mkdir(parents=True)
            for i in range(count or (3, 2, 2)[number]):
                image = picture(100 * number + i + (50 if split == "val" else 0), 40 + i, 30 + 3 * number)
                image.save(folder / f"{label}_{i}.JPEG", quality=95)
    return tmp_path / "data"


def load(root: Path, **more: object) -> pipeline.Splits:
    return sources.imagenet(Request(data_dir=root, offline=True), size=SIDE, **more)  # type: ignore[arg-type]


def test_a_folder_of_class_folders(photos: Path) -> None:
    splits = load(photos)
    assert (splits.name, splits.source, splits.classes) == ("imagenet", "files", ("n01", "n02", "n03"))
    column = splits.train["inputs"]
    assert column.shape == (21, SIDE, SIDE, 3)
    assert column.dtype == np.uint8
    np.testing.assert_array_equal(splits.train["targets"], np.repeat([0, 1, 2], 7))
    np.testing.assert_array_equal(splits.test["targets"], [0, 0, 0, 1, 1, 2, 2])
    assert count_examples(splits.train) == 21
    some = take(splits.train, np.array([20, 3]))
    np.testing.assert_array_equal(np.asarray(some["inputs"]), np.asarray(column)[[20, 3]])
    assert digest_of(load(photos)) == digest_of(splits)
    picture(7, 20, 20).save(photos / "imagenet/train/n01/n01_0.JPEG")
    assert digest_of(load(photos)) != digest_of(splits)


@pytest.mark.parametrize(("x", "y", "width", "height"), [(20, 12, 46, 30), (15, 23, 30, 41), (9, 25, 32, 32)])
def test_evaluation_sees_the_middle_scaled_from_256_to_224(
    tmp_path: Path, x: int, y: int, width: int, height: int
) -> None:
    (tmp_path / "edge.png").write_bytes(stored(corner(x, y, width, height), "PNG"))
    got = np.asarray(of_files([tmp_path / "edge.png"]))[0]
    np.testing.assert_allclose(edges(got), evaluated(x, y, width, height), atol=0.05)


def test_random_boxes_have_the_areas_and_shapes_asked_for() -> None:
    draws = np.random.default_rng(0).random((4000, *DRAWS))
    boxes = np.array([random_box(500, 375, draw) for draw in draws])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = width * height / (500 * 375), width / height
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2].max() <= 500
    assert boxes[:, 3].max() <= 375
    assert 0.078 < area.min() < 0.09
    assert area.max() > 0.95
    assert ratio.min() > 0.74
    assert ratio.max() < 1.35
    free = area < 0.4  # any shape of these fits, so that nothing was drawn again
    assert abs(np.log(ratio[free]).mean()) < 0.02
    assert abs(area[free].mean() - 0.24) < 0.01
    assert random_box(900, 30, np.ones(DRAWS)) == (430, 0, 470, 30)  # nothing fits: the middle, 4 to 3
    assert random_box(30, 900, np.ones(DRAWS)) == (0, 430, 30, 470)
    assert random_box(1, 1, draws[0]) == (0, 0, 1, 1)


def batches(splits: pipeline.Splits, kind: str, start: int, stop: int, shard: int = 0, shards: int = 1) -> list[dict]:
    stream = pipeline.Stream(5, 8, count_examples(splits.train), shard, shards)
    return list(pipeline.feed(kind, splits.train, stream, start, stop))  # type: ignore[arg-type]


def test_a_batch_is_a_pure_function_of_seed_and_step(photos: Path) -> None:
    splits = load(photos)
    whole = batches(splits, "numpy", 0, 9)
    stream = pipeline.Stream(5, 8, 21)
    for step, batch in enumerate(whole):
        assert batch["inputs"].shape == (8, SIDE, SIDE, 3)
        np.testing.assert_array_equal(batch["targets"], splits.train["targets"][stream.rows(step)])
    for others in (batches(splits, "numpy", 0, 9), batches(splits, "tf", 0, 9), batches(splits, "auto", 0, 9)):
        for one, other in zip(whole, others, strict=True):
            np.testing.assert_array_equal(one["inputs"], other["inputs"])
            np.testing.assert_array_equal(one["targets"], other["targets"])
    for one, other in zip(whole[6:], batches(splits, "numpy", 6, 9), strict=True):
        np.testing.assert_array_equal(one["inputs"], other["inputs"])
    parts = [batches(splits, "numpy", 0, 9, shard, 2) for shard in range(2)]
    for one, first, second in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(one["inputs"], np.concatenate([first["inputs"], second["inputs"]]))


def test_crops_differ_by_step_place_and_seed_and_from_evaluation(photos: Path) -> None:
    column = load(photos).train["inputs"]
    draws = [pipeline.Stream(seed, 4, 4).draws(step, DRAWS) for seed, step in ((0, 0), (0, 1), (1, 0))]
    same = column[np.zeros(4, int)]
    images = np.concatenate([columns.read_all(same, draw) for draw in draws] + [np.asarray(same[:1])])
    assert len({image.tobytes() for image in images}) == 13


@pytest.mark.parametrize(("batch", "shards"), [(4, 1), (4, 2), (16, 1)])
def test_evaluation_counts_every_picture_once(photos: Path, batch: int, shards: int) -> None:
    test = load(photos).test
    images, seen = np.asarray(test["inputs"]), []
    for shard in range(shards):
        for part in pipeline.padded_batches(test | {"id": np.arange(7)}, batch, shard, shards):
            assert part["inputs"].shape == (batch // shards, SIDE, SIDE, 3)
            np.testing.assert_array_equal(part["inputs"], images[part["id"]])
            seen += list(part["id"][part["mask"] > 0])
    assert sorted(seen) == list(range(7))


def test_padding_is_not_decoded_again_and_again(photos: Path) -> None:
    column = load(photos).test["inputs"]
    reads: list[int] = []
    counted = Encoded(
        lambda row: reads.append(row) or column.content_of(row), column.name, b"", column.rows, column.frame
    )
    list(pipeline.padded_batches({"inputs": counted}, 512))
    assert sorted(reads) == list(range(7))


def test_who_stops_early_leaves_nothing_behind(photos: Path) -> None:
    column = load(photos).train["inputs"]
    reads: list[int] = []

    def read(row: int) -> bytes:
        reads.append(row)
        time.sleep(0.002)
        return column.content_of(row)

    stream = pipeline.Stream(0, 8, 21)
    slow = {"inputs": Encoded(read, column.name, b"", column.rows, column.frame), "targets": np.zeros(21)}
    feed = pipeline.feed("auto", slow, stream, 0, 10_000)
    next(feed)
    feed.close()  # type: ignore[attr-defined]
    count = len(reads)
    time.sleep(0.1)
    assert len(reads) == count <= 8 * (columns.AHEAD + 2)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut", "cut short"])
def test_damaged_pictures_are_found_before_training_and_kept_in_mind(
    photos: Path, data: bytes | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [photos / "imagenet/train/n02/n02_3.JPEG", photos / "imagenet/val/n03/n03_1.JPEG"]
    sound = load(photos)
    for path in paths:
        path.write_bytes(path.read_bytes()[:-40] if isinstance(data, str) else data)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(BadInputs, match="first of 2 bad images of 28") as caught:
            load(photos)
        assert [row.file for row in caught.value.rows] == [str(path) for path in paths]
        assert "\n" not in str(caught.value)
        monkeypatch.setattr(
            checked.images, "try_each", lambda work, count: {} if not count else pytest.fail("read again")
        )
    skipping = sources.imagenet(Request(data_dir=photos, offline=True, on_bad="skip"), size=SIDE)
    assert [row.file for row in skipping.skipped] == [str(path) for path in paths]
    np.testing.assert_array_equal(skipping.train["targets"], np.delete(sound.train["targets"], 10))
    seen = np.concatenate([batch["targets"] for batch in batches(skipping, "numpy", 0, 9)])
    assert len(seen) == 72  # every batch can be had
    assert len(list(pipeline.padded_batches(skipping.test, 4))) == 2


def test_only_folders_that_have_changed_are_read_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(photos)
    (photos / "imagenet/train/n01/new.JPEG").write_bytes(b"bad")
    counts = []
    original = checked.images.try_each
    monkeypatch.setattr(checked.images, "try_each", lambda work, count: counts.append(count) or original(work, count))
    with pytest.raises(BadInputs, match=r"new\.JPEG: no image"):
        load(photos)
    assert counts == [8, 0]  # of the training split's three folders one, of the test split's none


def test_a_picture_that_is_damaged_later_is_one_line_that_names_its_file(photos: Path) -> None:
    splits = load(photos)
    (photos / "imagenet/train/n02/n02_3.JPEG").write_bytes(b"damaged now")
    for kind in ("numpy", "tf"):
        with pytest.raises(UserError, match=r"n02_3\.JPEG.*remove or replace it") as caught:
            batches(splits, kind, 0, 4)
        assert "\n" not in str(caught.value)


def test_copies_of_a_file_have_the_same_digest(photos: Path) -> None:
    (photos / "imagenet/val/n01/copy.JPEG").write_bytes((photos / "imagenet/train/n02/n02_5.JPEG").read_bytes())
    splits = load(photos)
    train, test = (rows["inputs"].row_digests() for rows in (splits.train, splits.test))
    assert len(set(train)) == 21
    assert np.flatnonzero(np.isin(test, train)).tolist() == [0]  # "copy" comes before "n01_0"
    assert count_leaks(splits) == ({"test": 1}, "")


def of_files(paths: list[Path]) -> Encoded:
    read = [path.read_bytes() for path in paths].__getitem__
    return Encoded(read, lambda row: str(paths[row]), b"", np.arange(len(paths)), Frame((SIDE, SIDE), crop=True))


def stored(image: Image.Image, kind: str, **more: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)  # type: ignore[arg-type]
    return file.getvalue()


def test_every_kind_of_picture_has_three_channels(tmp_path: Path) -> None:
    image = corner(17, 20)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter to be upright
    best: dict[str, Any] = {"quality": 100, "subsampling": 0}
    kinds = {
        "plain": stored(image, "JPEG", **best),
        "grey": stored(image.convert("L"), "JPEG", **best),
        "cmyk": stored(image.convert("CMYK"), "JPEG", **best),
        "png in disguise": stored(image, "PNG"),
        "palette": stored(image.convert("P"), "PNG"),
        "transparent": stored(image.convert("RGBA"), "PNG"),
        "lying": stored(image.transpose(Image.Transpose.ROTATE_90), "JPEG", **best, exif=turned),
    }
    paths = []
    for name, data in kinds.items():
        paths.append(tmp_path / f"{name}.JPEG")
        paths[-1].write_bytes(data)
    plain, grey, *others = np.asarray(of_files(paths)).astype(int)
    assert plain.shape == (SIDE, SIDE, 3)
    np.testing.assert_allclose(edges(plain), evaluated(17, 20), atol=0.05)
    luma = (plain @ [0.299, 0.587, 0.114])[..., None]  # ITU-R BT.601, as Pillow has it
    np.testing.assert_allclose(grey, np.broadcast_to(luma, grey.shape), atol=3)
    for name, other in zip(list(kinds)[2:], others, strict=True):
        np.testing.assert_allclose(other, plain, atol=3, err_msg=name)


def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    path = tmp_path / "large.png"
    picture(0).save(path)
    with pytest.raises(UserError, match="40 x 30 pixels"):
        np.asarray(of_files([path]))


def test_validation_is_cut_and_ops_are_fitted_without_decoding_all(photos: Path) -> None:
    data = Data(load=lambda request: load(photos), validation=5, prepare=(ops.Standardize(),))
    prepared = pipeline.load(data, Request(), num_examples=10)
    assert prepared.splits.validation is not None
    kept, cut = prepared.splits.train["inputs"], prepared.splits.validation["inputs"]
    assert (len(kept), len(cut)) == (10, 5)
    assert not set(kept.rows) & set(cut.rows)
    out = np.asarray(prepared.prepare({"inputs": np.asarray(kept)}, None)["inputs"])
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-3)
    spec = pipeline.row_spec(prepared.splits.train, 8)
    assert (spec["inputs"].shape, spec["inputs"].dtype) == ((8, SIDE, SIDE, 3), np.uint8)


def test_imagenet_s_own_mean_and_deviation() -> None:
    images = np.full((1, 2, 2, 3), 255, np.uint8)
    out = fit_ops((ops.Standardize("imagenet"),), {"inputs": images})({"inputs": images}, None)["inputs"]
    np.testing.assert_allclose(out[0, 0, 0], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5)
    with pytest.raises(UserError, match="3 channels, not 1"):
        ops.Standardize("imagenet").fit({"inputs": images[..., :1]})


def test_folders_that_do_not_agree_are_the_users_error(photos: Path, tmp_path: Path) -> None:
    (photos / "imagenet/val/n03").rename(photos / "imagenet/val/n04")
    with pytest.raises(UserError, match="n04"):
        load(photos)
    (photos / "imagenet/val").rename(photos / "imagenet/other")
    with pytest.raises(UserError, match="lacks train/ or val/"):
        load(photos)
    with pytest.raises(UserError, match="no folder 'nowhere'"):
        load(photos, path="nowhere")


def test_any_folder_of_that_layout_by_its_path(photos: Path) -> None:
    (photos / "imagenet").rename(photos / "birds")
    (photos / "birds/val").rename(photos / "birds/test")
    splits = load(photos, path="birds")
    assert (splits.name, len(splits.train["inputs"])) == ("birds", 21)


def test_the_stand_in_costs_nothing_to_load_and_is_the_same_every_time(tmp_path: Path) -> None:
    began = time.monotonic()
    splits = load(tmp_path)
    assert time.monotonic() - began < 1
    assert splits.name == "imagenet-standin"
    assert "stand-in, not photographs" in splits.where
    assert (len(splits.train["inputs"]), len(splits.test["inputs"]), len(splits.classes)) == (2560, 512, 1000)
    column = splits.train["inputs"]
    assert column.content_of(3) == load(tmp_path).train["inputs"].content_of(3) != column.content_of(4)
    with Image.open(io.BytesIO(column.content_of(3))) as image:
        assert (image.format, image.size) == ("JPEG", (500, 375))


def test_a_set_that_tfds_prepared_is_read_row_by_row(tmp_path: Path) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    images = {
        split: np.stack([np.asarray(corner(10 + 4 * i, 7 + 3 * i)) for i in range(n)])
        for split, n in (("train", 5), ("validation", 3))
    }
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=["a", "b"]),
    }
    for form, folder in (("array_record", "rows"), ("tfrecord", "stream")):
        tfds.dataset_builders.store_as_tfds_dataset(
            name="imagenet2012", version="5.1.0", data_dir=tmp_path / folder,
            features=tfds.features.FeaturesDict(features), file_format=form,
            split_datasets={
                split: tf.data.Dataset.from_tensor_slices({"image": held, "label": np.arange(len(held)) % 2})
                for split, held in images.items()
            },
        )  # fmt: skip
    for _ in range(2):  # the second time with the labels kept from the first
        splits = load(tmp_path / "rows")
        assert (splits.name, splits.source, splits.classes) == ("imagenet", "tfds", ("a", "b"))
        assert sorted(splits.train["targets"]) == [0, 0, 0, 1, 1]
        assert splits.test["inputs"].shape == (3, SIDE, SIDE, 3)
        order = []
        for image, label in zip(np.asarray(splits.train["inputs"]), splits.train["targets"], strict=True):
            apart = [np.abs(edges(image) - evaluated(10 + 4 * i, 7 + 3 * i)).max() for i in range(5)]
            assert min(apart) < 0.2  # they lie two pixels apart; JPEG halves the resolution of colours
            assert int(np.argmin(apart)) % 2 == label
            order.append(int(np.argmin(apart)))
        assert sorted(order) == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="file_format=array_record"):
        load(tmp_path / "stream")


def looked_at(splits: pipeline.Splits) -> View:
    """A view of a model that sees the mean of a picture."""

    def outputs(arrays: dict) -> np.ndarray:
        means = [batch["inputs"].mean((1, 2)) for batch in pipeline.padded_batches(arrays, 64)]
        return np.concatenate(means)[: count_examples(arrays)]

    def plain(arrays: dict) -> dict:
        return arrays | {"inputs": arrays["inputs"].astype(np.float32)}

    return View(
        splits=splits, model=CNN(filters=(2,), outputs=3), variables={}, over=lambda arrays: iter(()), outputs=outputs,
        prepared=plain, augmented=plain,
    )  # fmt: skip


def test_predictions_see_pictures_as_evaluation_does(photos: Path, tmp_path: Path) -> None:
    splits = load(photos)
    seen = []
    view = looked_at(splits)
    spying = dataclasses.replace(view, outputs=lambda arrays: (seen.append(arrays["inputs"]), view.outputs(arrays))[1])
    written = Classification().predict(spying, str(photos / "imagenet/train/n02"), tmp_path / "out")
    np.testing.assert_array_equal(seen[0], np.asarray(splits.train["inputs"])[7:14])
    assert {path.name for path in written} == {"predictions.csv", "predictions.png"}


def test_a_report_decodes_a_few_training_pictures(tmp_path: Path) -> None:
    splits, reads = load(tmp_path), []
    train, test = (take(rows, slice(n)) for rows, n in ((splits.train, 2560), (splits.test, 4)))
    column = train["inputs"]
    train = train | {
        "inputs": dataclasses.replace(column, content_of=lambda row: reads.append(row) or column.content_of(row))
    }
    view = looked_at(dataclasses.replace(splits, train=train, test=test, facts=Facts(classes=())))
    titles = [panel.title for panel in (class_counts(view), examples(view), augmented(view)) if panel]
    assert titles == ["Examples by class", "Training images", "One augmented batch"]
    assert 0 < len(reads) < 250
