"""Any data set that TFDS has prepared, by its name: the arrays are those that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.encoded import Encoded
from fdl.data.formats.tfds_sets import tfds_dataset
from fdl.data.splits import Request
from fdl.types import UserError

CLASSES = ("kite", "hawk", "owl")


pytestmark = pytest.mark.usefixtures("own_folders")


def prepare(
    root: Path, name: str, shape: tuple[int | None, ...] = (6, 5, 3), form: str = "tfrecord", **sizes: int
) -> dict:
    """A data set written by TFDS itself, every split with as many pictures as `sizes` says; what was written."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    rng = np.random.default_rng(0)
    rows = {
        split: {"image": rng.integers(0, 256, (count, 6, 5, 3)).astype(np.uint8), "label": np.arange(count) % 3}
        for split, count in sizes.items()
    }
    features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=CLASSES)}
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name, version="1.0.0", data_dir=root, features=tfds.features.FeaturesDict(features), file_format=form,
        split_datasets={split: tf.data.Dataset.from_tensor_slices(data) for split, data in rows.items()},
    )  # fmt: skip
    return rows


def pairs(inputs: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), int(label)) for image, label in zip(np.asarray(inputs), labels, strict=True))


def test_a_prepared_set_by_its_name(tmp_path: Path) -> None:
    rows = prepare(tmp_path, "birds", train=9, validation=4, test=3, extra=50)
    splits = tfds_dataset(Request(data_dir=tmp_path, offline=True), name="birds")
    assert (splits.name, splits.source, splits.classes) == ("birds", "tfds", CLASSES)
    for split in ("train", "validation", "test"):
        held = getattr(splits, split)
        assert pairs(held["inputs"], held["targets"]) == pairs(*rows[split].values())
        assert (held["inputs"].dtype, held["targets"].dtype) == (np.uint8, np.int32)


def test_a_set_without_a_test_split_leaves_the_cut_to_the_experiment(tmp_path: Path) -> None:
    prepare(tmp_path, "birds", train=9)
    splits = tfds_dataset(Request(data_dir=tmp_path, offline=True), name="birds")
    assert splits.test is None
    assert splits.validation is None


def test_row_by_row_where_a_size_is_given(tmp_path: Path) -> None:
    rows = prepare(tmp_path, "birds", form="array_record", train=9, test=3)
    splits = tfds_dataset(Request(data_dir=tmp_path, offline=True), name="birds", size=(6, 5))
    assert isinstance(splits.train["inputs"], Encoded)
    assert pairs(splits.train["inputs"], splits.train["targets"]) == pairs(*rows["train"].values())
    cut = tfds_dataset(Request(data_dir=tmp_path, offline=True), name="birds", size=(4, 4), crop=True)
    assert cut.train["inputs"].shape == (9, 4, 4, 3)


def test_damaged_records_are_listed_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fdl.data.formats import images

    prepare(tmp_path, "birds", form="array_record", train=9, test=3)
    original, seen = images.decode, []

    def decode(data: bytes) -> object:
        seen.append(data)
        if len(seen) == 5:
            raise ValueError("spoilt")
        return original(data)

    monkeypatch.setattr(images, "decode", decode)
    monkeypatch.setattr(images, "decoding_threads", _one_thread)
    with pytest.raises(BadInputs, match=r"train 4 of .*birds/1\.0\.0: spoilt"):
        tfds_dataset(Request(data_dir=tmp_path, offline=True), name="birds", size=(6, 5))
    splits = tfds_dataset(Request(data_dir=tmp_path, offline=True, on_bad="skip"), name="birds", size=(6, 5))
    assert len(seen) == 12  # nothing was read again for this
    assert [row.reason for row in splits.skipped] == ["spoilt"]
    assert len(splits.train["targets"]) == len(splits.train["inputs"]) == 8
    assert 4 not in splits.train["inputs"].rows


def _one_thread() -> object:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1)


def test_what_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    request = Request(data_dir=tmp_path, offline=True)
    prepare(tmp_path, "ragged", shape=(None, None, 3), train=3)
    prepare(tmp_path, "headless", test=3)
    for name, more, says in (
        ("ragged", {}, "differ in size: set data.load.size"),
        ("ragged", {"size": (4, 4)}, "tfds build ragged --file_format=array_record"),
        ("headless", {}, "no split train"),
        ("no_such_set_here", {}, "TFDS has no data set 'no_such_set_here'"),
        ("ragged", {"crop": True}, "needs data.load.size"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            tfds_dataset(request, name=name, **more)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
