"""Digests of data: of a whole data set (is it the same one?) and of its rows (is a test row also in training?)."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from fdl.data.splits import Splits
from fdl.types import Arrays

_ROWS_AT_ONCE = 8192


def sha256_of(*splits: Arrays | None) -> str:
    """Digest the arrays' bytes: split by split, each one's arrays in the order of their names.

    For a column that is not in memory it is over the column's `fingerprint`.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(splits):  # jax sorts the keys of a dict
        digest.update(_bytes_of(leaf))
    return digest.hexdigest()


def _bytes_of(leaf: Any) -> Any:
    if hasattr(leaf, "fingerprint"):
        return leaf.fingerprint().data
    if leaf.dtype.kind in "OU":
        return "\0".join(map(str, leaf.ravel().tolist())).encode("utf-8", "surrogatepass")
    return np.ascontiguousarray(leaf).data


def row_digests(rows: Any) -> np.ndarray | None:
    """Return int64 [N], equal for rows that are equal byte for byte, comparable within this process. None: not available.

    The hash is Python's own of bytes (SipHash, 64 bits, keyed anew in every process).

    Args:
        rows: one array, or a tree of arrays of which a row holds its part of each.
    """
    parts = []
    for leaf in jax.tree.leaves(rows):
        if hasattr(leaf, "row_digests"):
            parts.append(leaf.row_digests())
        elif isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OU":
            parts.append(
                np.fromiter(map(hash, map(str, leaf.tolist())), np.int64, len(leaf)) if leaf.ndim == 1 else None
            )
        else:
            parts.append(_array_digests(np.asarray(leaf)))
    if any(part is None for part in parts):
        return None
    return parts[0] if len(parts) == 1 else _array_digests(np.stack(parts, axis=1))


def _array_digests(array: np.ndarray) -> np.ndarray:
    size = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
    digests = np.zeros(len(array), np.int64)
    for start in range(0, len(array) if size else 0, _ROWS_AT_ONCE):
        block = np.ascontiguousarray(array[start : start + _ROWS_AT_ONCE]).reshape(-1)
        rows = block.view(np.dtype((np.void, size))).tolist()  # a list of bytes, one for each row
        digests[start : start + len(rows)] = np.fromiter(map(hash, rows), np.int64, len(rows))
    return digests


def first_equal(rows: Arrays, order: np.ndarray) -> np.ndarray:
    """Return int64 [N]: for each place in `order` the first whose row's inputs are equal byte for byte.

    Itself where rows cannot be compared.
    """
    found = row_digests(rows["inputs"]) if "inputs" in rows else None
    if found is None:
        return np.arange(len(order))
    _, first, number = np.unique(found[order], return_index=True, return_inverse=True)
    return first[number]


def count_leaks(splits: Splits) -> tuple[dict[str, int], str]:
    """Count rows of validation and test whose inputs are also in training; also say why a split is left out ("": none is).

    Left out are inputs whose rows differ in shape between the splits (windows of a text, padded otherwise), and columns that
    say themselves that reading every row for this would take too long.
    """
    held = {name: rows for name in ("validation", "test") if (rows := getattr(splits, name)) is not None}
    shape = _shapes(splits.train.get("inputs"))
    comparable = {name: rows for name, rows in held.items() if _shapes(rows.get("inputs")) == shape}
    why = "" if len(comparable) == len(held) else "their rows have other shapes than training rows"
    known = row_digests(splits.train["inputs"]) if comparable and "inputs" in splits.train else None
    if known is None:
        return {}, why or ("reading every row would take too long" if comparable else "")
    leaks = {}
    for name, rows in comparable.items():
        digests = row_digests(rows["inputs"])
        if digests is not None:
            leaks[name] = int(np.isin(digests, known).sum())
    return leaks, why


def _shapes(inputs: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape[1:], str(leaf.dtype)), inputs)
