"""TensorFlow Datasets, read whole into NumPy: what is prepared, and preparing it within bounds of time.

TFDS itself retries a host that does not answer for minutes, and reads a stalled one for ever. So its own downloader is
not used: the builder is given the publisher's files (from disk or by `fdl.data.formats.download`), checks their checksums, and
does the rest. TensorFlow is imported when there is something to read, not before.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data.formats.download import Remote, UnavailableError, fetch, sha256_of
from fdl.types import Arrays, UserError, one_line, printable


def default_dir() -> Path:
    """Return where TFDS keeps its data by default."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def prepared(name: str, data_dir: Path) -> Path | None:
    """Find the folder of the newest prepared version of a data set, or None; TensorFlow is not needed to see it."""
    versions = [
        (tuple(map(int, folder.name.split("."))), folder)
        for folder in (data_dir / name).glob("*.*.*")
        if re.fullmatch(r"\d+\.\d+\.\d+", folder.name) and (folder / "dataset_info.json").is_file()
    ]
    return max(versions)[1] if versions else None


def read(folder: Path, wanted: tuple[str, ...] | None = None) -> tuple[dict[str, Arrays], dict[str, tuple[str, ...]]]:
    """Read the splits of a prepared data set, in the order of its files: ({split: {feature: [N, ...]}}, {label: classes}).

    Args:
        wanted: the splits to read, as far as they are there; all where it is None.

    Raises:
        UserError: it is damaged, or its examples differ in shape.
    """
    tfds = _import()
    splits = {}
    read_config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    try:
        builder = tfds.builder_from_directory(folder)
        _require_one_shape(builder, folder)
        for split, info in builder.info.splits.items():
            if wanted is not None and split not in wanted:
                continue
            data = builder.as_dataset(split=split, batch_size=-1, shuffle_files=False, read_config=read_config)
            splits[split] = dict(tfds.as_numpy(data))
            held = {len(column) for column in splits[split].values()}
            if held != {info.num_examples}:
                raise ValueError(f"split {split} holds {max(held)} examples, {info.num_examples} were written")
        classes = _classes(builder)
    except UserError:
        raise
    except Exception as error:
        # TensorFlow's errors, TFDS' own, JSON's: whatever the reason, it is this folder that cannot be read.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the prepared TFDS data in {folder} is damaged ({first[:200]}): move the folder away, or choose another "
            "form with --set data.source=..."
        ) from error
    return splits, classes


def read_one_by_one(
    folder: Path, wanted: tuple[str, ...]
) -> tuple[dict[str, tuple[int, Iterator[Arrays]]], dict[str, tuple[str, ...]]]:
    """Read examples that differ in shape: ({split: (how many, {feature: value} of each, in order)}, {label: classes}).

    Args:
        wanted: the splits to read, as far as they are there.

    Raises:
        UserError: it is damaged.
    """
    tfds, builder = _import(), _builder(folder)
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)

    def examples(split: str) -> Iterator[Arrays]:
        try:
            yield from tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False, read_config=config))
        except Exception as error:
            raise UserError(
                f"the prepared TFDS data in {folder} is damaged ({one_line(error)}): move the folder away"
            ) from error

    splits = {
        split: (info.num_examples, examples(split)) for split, info in builder.info.splits.items() if split in wanted
    }
    return splits, _classes(builder)


def supervised_keys(folder: Path) -> tuple[str, str]:
    """Return the features that a data set is trained on, (inputs, targets): ("image", "label") unless it says otherwise.

    Raises:
        UserError: it has no such features.
    """
    info = _builder(folder).info
    keys = info.supervised_keys or ("image", "label")
    if len(keys) != 2 or not all(isinstance(key, str) and key in info.features for key in keys):
        raise UserError(
            f"the TFDS data in {folder} names no inputs and targets; it has {', '.join(info.features)}: write a source of your "
            "own around fdl.data.formats.tfds.read"
        )
    return keys[0], keys[1]


def record_sources(name: str, folder: Path, picture: str) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """Return ({split: its records, of which any may be read, `picture` still encoded}, {label: classes}).

    Raises:
        UserError: it was not prepared for random access, or is damaged.
    """
    tfds = _import()
    builder = _builder(folder)
    try:
        decoders = {picture: tfds.decode.SkipDecoding()}
        return {split: builder.as_data_source(split, decoders=decoders) for split in builder.info.splits}, _classes(
            builder
        )
    except NotImplementedError as error:
        raise UserError(
            f"the TFDS data in {folder} cannot be read row by row: prepare it again with "
            f"`tfds build {name} --file_format=array_record`, or choose another form with data.source"
        ) from error


def _builder(folder: Path) -> Any:
    try:
        return _import().builder_from_directory(folder)
    except Exception as error:
        raise UserError(
            f"the prepared TFDS data in {folder} is damaged ({one_line(error)}): move the folder away"
        ) from error


def _classes(builder: Any) -> dict[str, tuple[str, ...]]:
    """Return the class names of every feature that is a class."""
    kind = _import().features.ClassLabel
    return {name: tuple(feature.names) for name, feature in builder.info.features.items() if isinstance(feature, kind)}


def _require_one_shape(builder: Any, folder: Path) -> None:
    for name, feature in builder.info.features.items():
        if isinstance(feature, _import().features.Image) and None in feature.shape:
            raise UserError(f"the pictures {name!r} of {folder} differ in size: set data.load.size, such as 64,64")


def prepare(name: str, data_dirs: Iterable[Path], files: Path | None, offline: bool) -> Path | None:
    """Run the TFDS builder `name` on its publisher's files and return the prepared folder.

    Args:
        data_dirs: the first of these that can be written is where it goes.
        files: a folder that may hold the publisher's files already; those with the right checksum are used.
        offline: do not fetch the files that are missing; then None where some are.

    Raises:
        UnavailableError: a file cannot be had, or nothing can be written.
    """
    tfds = _import()
    tfds.disable_progress_bar()
    data_dir = _writable(data_dirs)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        why = one_line(error, 120)
        raise UserError(f"TFDS has no data set {printable(name, 60)!r} ({why}): give a name that it has") from error
    remotes = {info.filename: Remote(url, int(info.size), info.checksum) for url, info in builder.url_infos.items()}
    # TFDS names unpacked files by their own names alone: in a shared folder MNIST would be given Fashion-MNIST's.
    with tempfile.TemporaryDirectory(prefix="fdl-") as scratch:
        manual = Path(scratch, "files")
        manual.mkdir()
        for filename, remote in remotes.items():
            own = files / filename if files else None
            if own and own.is_file() and own.stat().st_size == remote.size and sha256_of(own) == remote.sha256:
                (manual / filename).symlink_to(own.resolve())
            elif offline:
                return None
            else:
                fetch(remote, manual / filename)
        config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(download_dir=Path(scratch, "downloads"), download_config=config)
    return Path(builder.data_path)


def text(column: np.ndarray) -> str:
    """Join a column of strings as TFDS gives it (bytes)."""
    return b"".join(column.tolist()).decode("utf-8")


def _writable(data_dirs: Iterable[Path]) -> Path:
    reasons = []
    for data_dir in data_dirs:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=data_dir):
                return data_dir
        except OSError as error:
            reasons.append(f"{data_dir} ({error.strerror})")
    raise UnavailableError(f"nothing can be written to {' or '.join(reasons)}")


def _import() -> Any:
    """Import tensorflow_datasets, with TensorFlow kept off the accelerators: they belong to JAX."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    import tensorflow_datasets as tfds

    with contextlib.suppress(RuntimeError):  # TensorFlow is in use already, so this was settled before
        tf.config.set_visible_devices([], "GPU")
    return tfds
