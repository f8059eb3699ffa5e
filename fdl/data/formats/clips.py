"""Clips: some frames of each video as one array, from GIFs, folders of numbered pictures and video files.

Rows: "inputs" uint8 [N, T, H, W, C], "targets" int32 [N].
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fdl.data.formats import images
from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.class_folders import SplitName, split_named
from fdl.data.formats.forms import stratified
from fdl.data.formats.frames import Frame
from fdl.data.formats.listing import is_ignored
from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, Count, UserError, one_line, printable, take

if TYPE_CHECKING:
    from PIL import Image

ANIMATIONS = (".gif", ".webp", ".apng")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
MOST_FRAMES = 20_000
"""A clip of more is refused: it would be decoded from end to end."""


def clip_folder(
    request: Request, *, path: str, frames: Count = 8, size: tuple[Count, Count] = (32, 32), channels: Literal[1, 3] = 3
) -> Splits:
    """Read your own clips: PATH/CLASS/*, or PATH/train/CLASS/* with test/ and val/ beside it.

    A clip is an animation (GIF, WebP, APNG), a video file (MP4 and others; needs `pip install 'fdl[video]'`), or a folder of
    pictures in the order of the numbers in their names. Where there is no test folder, a fifth of every class is.

    Args:
        path: the folder; relative to --data_dir if it is there, else to the current folder.
        frames: T, taken at equal distances from the first to the last; a shorter clip repeats some.
        size: (H, W) to which every frame is scaled, whole.
        channels: 1 for grey, 3 for RGB.

    Raises:
        UserError: there is no such folder, or not two classes in it; BadInputs where clips cannot be read.
    """
    root = request.find(path)
    if root is None or not root.is_dir():
        raise UserError(f"no folder {printable(path)!r}: give the path of a folder of clips in data.load.path")
    folders = {split: folder for folder in _folders(root) if (split := split_named(folder.name)) is not None}
    places: dict[SplitName, Path] = folders if "train" in folders else {"train": root}
    classes = tuple(folder.name for folder in _folders(places["train"]))
    if len(classes) < 2:
        raise UserError(
            f"{printable(root)} holds clips of {len(classes)} classes, expected 2 or more: make a folder for each class"
        )
    frame = Frame(size, channels)
    rows: dict[SplitName, Arrays] = {}
    bad: list[Bad] = []
    for split, place in places.items():
        rows[split], wrong = _rows(place, classes, frames, frame)
        bad += wrong
    total = sum(len(held["targets"]) for held in rows.values()) + len(bad)
    skipped = settle(sorted(bad), total, "clips", request.on_bad)
    counts = np.bincount(rows["train"]["targets"], minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count < 2:
            raise UserError(
                f"{printable(root)}: class {printable(name, 40)} has {count} good clips, expected 2 or more: add some"
            )
    if "test" not in rows:
        chosen = stratified(rows["train"]["targets"], 0.2)
        rows["train"], rows["test"] = take(rows["train"], ~chosen), take(rows["train"], chosen)
    facts = Facts(
        classes=tuple(map(printable, classes)), extra={"clip": {"frames": frames, "size": size, "channels": channels}}
    )
    return Splits(
        printable(root.name),
        "files",
        str(root),
        rows["train"],
        rows["test"],
        rows.get("validation"),
        facts,
        skipped=skipped,
    )


def _folders(root: Path) -> list[Path]:
    return sorted(each for each in root.iterdir() if each.is_dir() and not is_ignored(each.name))


def list_clips(folder: Path) -> list[Path]:
    """List the clips directly in a folder: animations, video files, folders of pictures."""
    held = [each for each in folder.iterdir() if not is_ignored(each.name)]
    return sorted(each for each in held if each.is_dir() or each.suffix.lower() in (*ANIMATIONS, *VIDEOS))


def _rows(place: Path, classes: tuple[str, ...], frames: int, frame: Frame) -> tuple[Arrays, list[Bad]]:
    unknown = [folder.name for folder in _folders(place) if folder.name not in classes]
    if unknown:
        raise UserError(
            f"{printable(place)} holds {printable(unknown[0], 60)!r}, of which there is no training clip: make them agree"
        )
    clips = [
        (clip, number)
        for number, name in enumerate(classes)
        if (place / name).is_dir()
        for clip in list_clips(place / name)
    ]
    held = np.empty((len(clips), frames, *frame.shape), np.uint8)

    def read(row: int) -> None:
        held[row] = read_clip(clips[row][0], frames, frame)

    wrong = images.try_each(read, len(clips))
    good = [row for row in range(len(clips)) if row not in wrong]
    bad = [Bad(printable(clips[row][0], 2000), "", reason) for row, reason in wrong.items()]
    targets = np.array([number for _, number in clips], np.int32)
    return {"inputs": held[good], "targets": targets[good]}, bad


def read_clip(path: Path, frames: int, frame: Frame) -> np.ndarray:
    """Read a clip as uint8 [T, H, W, C], its frames at equal distances from the first to the last.

    Raises:
        ValueError: it cannot be read, or has fewer than two frames.
        UserError: it is a video file, and the library that reads those is not installed.
    """
    source = _pictures(path) if path.is_dir() else _video(path) if path.suffix.lower() in VIDEOS else _animation(path)
    held: list[np.ndarray] = []
    for picture in source:
        if len(held) == MOST_FRAMES:
            raise ValueError(f"it has more than {MOST_FRAMES:,} frames")
        held.append(frame.apply(picture))
    if len(held) < 2:
        raise ValueError(f"{len(held)} frames are no clip: expected 2 or more")
    return np.stack([held[place] for place in np.linspace(0, len(held) - 1, frames).round().astype(int)])


def _pictures(folder: Path) -> Iterator[Image.Image]:
    """Decode the pictures of a folder in the order of the numbers in their names."""
    found = [each for each in folder.iterdir() if each.suffix.lower() in images.SUFFIXES and not is_ignored(each.name)]

    def order(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    for path in sorted(found, key=order):
        yield images.decode(path)


def _animation(path: Path) -> Iterator[Image.Image]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(path, formats=("GIF", "WEBP", "PNG")) as file:
            images.check_pixels(file.width, file.height)
            for picture in ImageSequence.Iterator(file):
                yield picture.convert("RGB")
    except GeneratorExit:
        raise
    except Exception as error:  # Pillow raises nearly every built-in exception on damaged files
        raise ValueError(one_line(getattr(error, "strerror", None) or error)) from error


def _video(path: Path) -> Iterator[Image.Image]:
    try:
        import av
    except ImportError as error:
        raise UserError(f"{printable(path)} is a video file: pip install 'fdl[video]' to read it") from error
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            images.check_pixels(stream.width, stream.height)
            for picture in container.decode(stream):
                yield picture.to_image()
    except GeneratorExit:
        raise
    except (av.FFmpegError, IndexError, OSError) as error:
        raise ValueError(f"it is no video that can be read: {one_line(error, 120)}") from error


@dataclasses.dataclass(frozen=True)
class ClipForm:
    """What a run's clips are like; kept with it in `Facts.extra["clip"]`."""

    frames: int
    size: tuple[int, int]
    channels: Literal[1, 3]

    @classmethod
    def of(cls, facts: Facts) -> ClipForm:
        """Return the form of the run's clips.

        Raises:
            UserError: its data are no clips.
        """
        known = facts.extra.get("clip")
        if not known:
            raise UserError("--mode=predict reads clips, and this experiment's model is not given clips")
        return cls(known["frames"], tuple(known["size"]), known["channels"])

    @property
    def frame(self) -> Frame:
        return Frame(self.size, self.channels)
