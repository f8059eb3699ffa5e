"""A stand-in for spoken digits: each digit two vowels one after the other, each speaker a pitch and a vocal tract."""

from __future__ import annotations

import numpy as np

SEED = 0
TAKES = 12
_FORMANTS = ((300, 2300), (450, 1900), (700, 1200), (500, 900), (320, 800))
"""The first two resonances of i, e, a, o and u, in Hz."""


def digits(rate: int, speakers: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw TAKES takes of ten digits by each speaker: (waves in [-1, 1], int [N, 3] of digit, speaker and take)."""
    rng = np.random.default_rng(SEED)
    waves, labels = [], []
    for digit in range(10):
        for speaker in range(speakers):
            for take in range(TAKES):
                parts = [
                    _vowel(rng, rate, speaker, _FORMANTS[place]) for place in (digit % 5, (digit + 1 + digit // 5) % 5)
                ]
                waves.append(0.3 * np.concatenate(parts).astype(np.float32))
                labels.append((digit, speaker, take))
    return waves, np.array(labels)


def _vowel(rng: np.random.Generator, rate: int, speaker: int, formants: tuple[int, int]) -> np.ndarray:
    times = np.arange(int(rate * rng.uniform(0.12, 0.22))) / rate
    pitch, tract = (95 + 20 * speaker) * rng.uniform(0.95, 1.05), 0.9 + 0.04 * speaker
    harmonics = np.arange(1, int(0.45 * rate / pitch))
    loud = np.sum([1 / (1 + ((harmonics * pitch - tract * peak) / 120) ** 2) for peak in formants], axis=0)
    wave = (loud[:, None] * np.sin(2 * np.pi * pitch * harmonics[:, None] * times)).sum(0)
    return wave / np.abs(wave).max() * np.hanning(len(times)) ** 0.3 + rng.normal(0, 0.01, len(times))
