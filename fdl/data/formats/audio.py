"""Recordings to rows: WAV (and whatever libsndfile reads) of any rate as one channel of one rate and length.

Legend: N recordings, L samples of a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fdl.types import Arrays, UserError, one_line

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
LONGEST_SECONDS = 600
QUIET = 1e-4
"""A recording whose largest sample is below this share of full scale is silent: three steps of 16 bits."""


class UnreadableError(Exception):
    """A recording that cannot be used; the text says why and what to do."""


def read_wave(path: Path, rate: int) -> np.ndarray:
    """Read a recording as float32 [samples] in [-1, 1]: the mean of its channels, resampled to `rate` Hz.

    Raises:
        UnreadableError: it is no recording, broken off, empty, silent, not finite, or longer than LONGEST_SECONDS.
        UserError: soundfile is not installed.
    """
    soundfile = _soundfile()
    try:
        with soundfile.SoundFile(path) as file:
            declared, own_rate = file.frames, file.samplerate
            if declared > LONGEST_SECONDS * own_rate:
                raise UnreadableError(f"longer than {LONGEST_SECONDS} s; cut it")
            held = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise UnreadableError(f"no recording that can be read ({one_line(error, 120)}); save it as WAV") from error
    if len(held) < declared:
        raise UnreadableError(f"broken off after {len(held):,} of {declared:,} samples; get the file again")
    if not len(held):
        raise UnreadableError("no samples; record it again")
    wave = held.mean(1, dtype=np.float64)
    if not np.isfinite(wave).all():
        raise UnreadableError("samples that are not finite; save it again")
    if np.abs(wave).max() < QUIET:
        raise UnreadableError("silent; record it again")
    return resample(wave, own_rate, rate).astype(np.float32)


def resample(wave: np.ndarray, rate: int, to: int) -> np.ndarray:
    """Resample [samples] by a polyphase filter, without aliases."""
    from scipy.signal import resample_poly

    common = math.gcd(rate, to)
    return wave if rate == to else resample_poly(wave, to // common, rate // common)


def loudest(wave: np.ndarray, length: int) -> np.ndarray:
    """Return the `length` samples in a row with the most energy; a shorter wave as it is."""
    if len(wave) <= length:
        return wave
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return wave[start : start + length]


def rows_of(waves: Iterable[np.ndarray], length: int, count: int) -> Arrays:
    """Return {"wave": int16 [N, L], zeros after the end, "length": int32 [N]} of `count` waves in [-1, 1].

    Of those longer than a row, the loudest part.
    """
    rows, lengths = np.zeros((count, length), np.int16), np.zeros(count, np.int32)
    for place, wave in enumerate(waves):
        part = loudest(wave, length)
        rows[place, : len(part)] = np.clip(np.round(part * 32768.0), -32768, 32767)
        lengths[place] = len(part)
    return {"wave": rows, "length": lengths}


def trimmed(wave: np.ndarray, rate: int, below: float = 0.01) -> np.ndarray:
    """Cut off what is quieter at both ends than `below` times the loudest hundredth of a second (-20 dB in power: 0.01)."""
    size = max(1, rate // 100)
    count = -(-len(wave) // size)
    power = np.square(np.pad(wave, (0, count * size - len(wave))), dtype=np.float64).reshape(count, size).mean(1)
    loud = np.flatnonzero(power >= below * power.max())
    return wave[max(0, loud[0] - 2) * size : (loud[-1] + 3) * size]


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package without its library
        raise UserError(
            "reading recordings needs soundfile, which is not installed: pip install 'fdl[audio]'"
        ) from None
    return soundfile
