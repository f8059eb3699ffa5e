"""Public recordings of single words: the Free Spoken Digit Dataset, and speech_commands as TFDS has it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from fdl.data.formats import audio, tfds
from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.forms import at_roots, choose, tfds_forms
from fdl.data.splits import Facts, Request, Splits
from fdl.data.standins import vowels
from fdl.types import Arrays, Count, UserError, printable, take

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Speaker = Literal["", "george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
SPEAKERS: tuple[str, ...] = get_args(Speaker)[1:]
RATE = 8000
TEST_TAKES = 5
_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
_FOLDERS = ("free-spoken-digit", "free_spoken_digit", "spoken_digits", "free-spoken-digit-dataset")


def spoken_digits(request: Request, *, speaker: Speaker = "", length: Count = 8000) -> Splits:
    """Load the Free Spoken Digit Dataset (Jackson 2018): ten digits, six speakers, fifty takes of each, 8 kHz.

    Rows: "inputs" {"wave": int16 [N, length], "length": int32 [N]}, "targets" int32 [N], "speaker" int32 [N], the place in
    `SPEAKERS`.

    Args:
        speaker: "": the publisher's split, takes 0 to 4 of every speaker and digit for testing. A speaker's name: all of that
            speaker's recordings are for testing, and none is in training.
        length: samples of a row; of the 0.6 % that are longer than a second, the loudest part.

    Raises:
        BadInputs: recordings that cannot be read, and `request.on_bad` is "stop".
        UserError: the form asked for is not there.
    """

    def splits_of(source: str, where: str, waves: list[np.ndarray], labels: np.ndarray, **more: Any) -> Splits:
        rows = {
            "inputs": audio.rows_of(waves, length, len(waves)),
            "targets": labels[:, 0].astype(np.int32),
            "speaker": labels[:, 1].astype(np.int32),
        }
        test = labels[:, 2] < TEST_TAKES if not speaker else labels[:, 1] == SPEAKERS.index(speaker)
        how = f"speaker {speaker} held out" if speaker else f"takes 0 to {TEST_TAKES - 1} held out"
        facts = Facts(classes=DIGITS, extra={"rate": RATE, "length": length})
        name = "spoken_digits" + ("-standin" if source == "builtin" else "")
        return Splits(name, source, f"{where} ({how})", take(rows, ~test), take(rows, test), facts=facts, **more)

    def from_files(root: Path) -> Splits | None:
        folder = next((root / name / "recordings" for name in _FOLDERS if (root / name / "recordings").is_dir()), None)
        if folder is None:
            return None
        waves, labels, bad = _read_digits(folder)
        skipped = settle(bad, len(waves) + len(bad), "recordings", request.on_bad)
        return splits_of("files", str(folder), waves, labels, skipped=skipped)

    def made() -> Splits:
        where = f"a stand-in, not speech: drawn by {vowels.__name__}, seed {vowels.SEED}"
        return splits_of("builtin", where, *vowels.digits(RATE, len(SPEAKERS)), standin=True)

    return choose("spoken_digits", request, [*at_roots(request, from_files), ("builtin", made)])


def _read_digits(folder: Path) -> tuple[list[np.ndarray], np.ndarray, list[Bad]]:
    """Return (waves, int [N, 3] of digit, speaker and take, what cannot be read) of <digit>_<speaker>_<take>.wav."""
    waves, labels, bad = [], [], []
    for path in sorted(folder.glob("*.wav")):
        match = _NAME.fullmatch(path.name)
        if match is None or match[2] not in SPEAKERS:
            bad.append(Bad(printable(path, 2000), "", "its name is not DIGIT_SPEAKER_TAKE.wav; move it away"))
            continue
        try:
            waves.append(audio.read_wave(path, RATE))
            labels.append((int(match[1]), SPEAKERS.index(match[2]), int(match[3])))
        except audio.UnreadableError as error:
            bad.append(Bad(printable(path, 2000), "", str(error)))
    if not waves:
        raise UserError(f"{folder} holds no recordings called DIGIT_SPEAKER_TAKE.wav: get the data set again")
    return waves, np.array(labels), bad


def speech_commands(request: Request, *, length: Count = 16_000) -> Splits:
    """Load Speech Commands (Warden 2018, https://arxiv.org/abs/1804.03209) as TFDS has it: one word a second, 16 kHz.

    Rows as those of `spoken_digits`, without "speaker"; TFDS' own splits.

    Raises:
        UserError: TFDS has not prepared it and cannot download it.
    """
    name = "speech_commands"

    def read(source: str, folder: Path) -> Splits:
        held, classes = tfds.read_one_by_one(folder, ("train", "validation", "test"))

        def part(split: str) -> Arrays | None:
            if split not in held:
                return None
            count, examples = held[split]
            labels: list[int] = []

            def waves() -> Iterator[np.ndarray]:
                for example in examples:
                    labels.append(int(example["label"]))
                    yield np.asarray(example["audio"], np.float32) / 32768

            return {"inputs": audio.rows_of(waves(), length, count), "targets": np.array(labels, np.int32)}

        train = part("train")
        if train is None:
            raise UserError(f"the TFDS data in {folder} has no split train: prepare it again")
        facts = Facts(classes=classes.get("label", ()), extra={"rate": 16_000, "length": length})
        return Splits(name, source, f"TFDS data in {folder}", train, part("test"), part("validation"), facts=facts)

    return choose(name, request, tfds_forms(name, request, read))
