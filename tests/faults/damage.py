"""Damage to the files of a checkpoint: case `number` is a pure function of (seed, number)."""

from __future__ import annotations

import random
from pathlib import Path

KINDS = ("flip", "cut", "empty", "delete", "swap", "append", "zero", "extra")


def damage(folder: Path, seed: int, number: int) -> str:
    """Damage one file of a checkpoint (the kinds in turn, the files at random); what was done."""
    rng = random.Random(seed * 1_000_003 + number)
    kind = KINDS[number % len(KINDS)]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = rng.choice([path for path in files if path.stat().st_size] if kind in ("flip", "cut", "zero") else files)
    old = path.read_bytes()
    new = old
    if kind == "flip":
        at = rng.randrange(len(old))
        new = old[:at] + bytes([old[at] ^ 1 << rng.randrange(8)]) + old[at + 1 :]
    elif kind == "cut":
        new = old[: rng.randrange(len(old))]
    elif kind == "empty":
        new = b""
    elif kind == "append":
        new = old + rng.randbytes(rng.randrange(1, 9))
    elif kind == "zero":
        new = bytes(len(old))
    elif kind == "swap":
        other = rng.choice([p for p in files if p.read_bytes() != old])
        new, there = other.read_bytes(), old
        other.write_bytes(there)
    elif kind == "extra":
        path.with_name("one_more").write_bytes(b"x")
    if kind == "delete" or (kind == "empty" and not old):
        path.unlink()
    elif kind != "extra":
        path.write_bytes(new)
    return f"{kind} {path.relative_to(folder)}"
