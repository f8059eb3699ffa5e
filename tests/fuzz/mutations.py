"""Damage to bytes: flips, cuts, splices, duplicates, and the numbers that headers are broken with."""

from __future__ import annotations

import numpy as np

NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0x7FFFFFFFFFFFFFFF,
    0xFFFFFFFFFFFFFFFF,
)


def mutate(rng: np.random.Generator, data: bytes, times: int | None = None) -> bytes:
    """`data` after one to four operations."""
    for _ in range(times or int(rng.integers(1, 5))):
        data = OPERATORS[rng.integers(len(OPERATORS))](rng, data) if data else bytes(rng.integers(0, 256, 8, np.uint8))
    return data


def _span(rng: np.random.Generator, data: bytes) -> slice:
    first = int(rng.integers(len(data)))
    return slice(first, first + int(rng.integers(1, max(2, min(64, len(data) - first) + 1))))


def flip(rng: np.random.Generator, data: bytes) -> bytes:
    spoiled = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        spoiled[rng.integers(len(spoiled))] ^= 1 << rng.integers(8)
    return bytes(spoiled)


def flip_in_header(rng: np.random.Generator, data: bytes) -> bytes:
    return flip(rng, data[:64]) + data[64:]


def truncate(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: rng.integers(len(data))]


def splice(rng: np.random.Generator, data: bytes) -> bytes:
    """One span over another."""
    taken, at = data[_span(rng, data)], int(rng.integers(len(data)))
    return data[:at] + taken + data[at + len(taken) :]


def duplicate(rng: np.random.Generator, data: bytes) -> bytes:
    span = _span(rng, data)
    return data[: span.stop] + data[span] * int(rng.integers(1, 4)) + data[span.stop :]


def delete(rng: np.random.Generator, data: bytes) -> bytes:
    span = _span(rng, data)
    return data[: span.start] + data[span.stop :]


def noise(rng: np.random.Generator, data: bytes) -> bytes:
    span = _span(rng, data)
    return data[: span.start] + rng.integers(0, 256, span.stop - span.start, np.uint8).tobytes() + data[span.stop :]


def number(rng: np.random.Generator, data: bytes) -> bytes:
    """A number at the edge of its kind, of 1 to 8 bytes, of either order, near the start as often as anywhere."""
    size, order = int(rng.choice([1, 2, 4, 8])), ("little", "big")[rng.integers(2)]
    value = NUMBERS[rng.integers(len(NUMBERS))] % (1 << 8 * size)
    at = int(rng.integers(min(len(data), 64) if rng.random() < 0.5 else len(data)))
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


OPERATORS = (flip, flip_in_header, truncate, splice, duplicate, delete, noise, number)
