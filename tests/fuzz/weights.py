"""Weights files: whole, with headers that lie, or damaged."""

from __future__ import annotations

import functools
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from fdl.checkpoint import weights
from fuzz.campaign import Case
from fuzz.mutations import NUMBERS, mutate

DTYPES = ("float32", "float16", "float64", "int32", "uint8", "int64")


def _arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    names = (
        "params/dense/kernel",
        "params/dense/bias",
        "batch_stats/norm/mean",
        "x",
        "漢字",
        "file",
        "__metadata",
        "a.b c",
    )
    return {
        names[i]: (rng.normal(size=tuple(rng.integers(0, 5, rng.integers(0, 4)))) * 9).astype(
            DTYPES[rng.integers(len(DTYPES))]
        )
        for i in rng.permutation(len(names))[: rng.integers(1, 5)]
    }


def _broken_header(rng: np.random.Generator, data: bytes) -> bytes:
    """The JSON of a safetensors file changed in one place, its length right again."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = list(header)[rng.integers(len(header))]
    odd = (
        *NUMBERS,
        -1,
        1.5,
        1e308,
        "1",
        None,
        [],
        {},
        [0, 0],
        True,
        "F32",
        "BOOL",
        "F4",
        "🙂",
        -(2**70),
        [[1]],
        "x" * 1000,
    )
    value = odd[rng.integers(len(odd))]
    kind = rng.integers(6)
    if kind == 0:
        header[name] = value
    elif kind == 1:
        header[name][("dtype", "shape", "data_offsets", "more")[rng.integers(4)]] = value
    elif kind == 2:
        header[name]["shape"] = [*header[name]["shape"], value]
    elif kind == 3:
        header[name]["data_offsets"][rng.integers(2)] = value
    elif kind == 4:
        header[f"{name}2"] = header[name]
    else:
        del header[name]
    text = json.dumps(header).encode()
    if rng.random() < 0.1:
        text = text[:-1] + b"," + text[1:]  # every name twice
    return len(text).to_bytes(8, "little") + text + rest


def _broken_npz(rng: np.random.Generator, arrays: dict[str, np.ndarray]) -> bytes:
    """.npy members with text headers changed in one place, their padding right again."""
    file = io.BytesIO()
    dtypes = (
        "'|O'",
        "'<f4'",
        "'<U9'",
        "[('a','<f4')]",
        "'<f2'",
        "'>i8'",
        "'|V4'",
        "'<c8'",
        "'M8[s]'",
        "'?'",
        "'x'",
        "__import__('os')",
        "1",
    )
    shapes = (
        "(1,)",
        "(-1,)",
        "(99999999999,)",
        "(2, 2)",
        "()",
        "1",
        "(1.5,)",
        "(1," * 300 + ")" * 300,
        "(0, 99999999999999999999)",
    )
    with zipfile.ZipFile(
        file, "w", int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]))
    ) as archive:
        for name, array in arrays.items():
            descr, shape = dtypes[rng.integers(len(dtypes))], shapes[rng.integers(len(shapes))]
            order = ("False", "True", "None", "'x'")[rng.integers(4)]
            header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
            header += b" " * (-(len(header) + 11) % 64) + b"\n"
            version = bytes([rng.choice([1, 1, 1, 2, 3, 9]), 0])
            size = len(header).to_bytes(2 if version[0] == 1 else 4, "little")
            archive.writestr(f"{name}.npy", b"\x93NUMPY" + version + size + header + array.tobytes())
    return file.getvalue()


def target(suffix: str, rng: np.random.Generator, folder: Path) -> Case:
    path, arrays, kind = folder / f"w{suffix}", _arrays(rng), rng.random()
    if suffix == ".safetensors":
        data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    else:
        file = io.BytesIO()
        (np.savez if rng.random() < 0.5 else np.savez_compressed)(
            file, **{k: v for k, v in arrays.items() if k != "file"}
        )
        arrays.pop("file", None)
        data = file.getvalue()
    valid: bool | None = None
    if kind < 0.2:
        valid = True
    elif kind < 0.55 and arrays:
        data = _broken_header(rng, data) if suffix == ".safetensors" else _broken_npz(rng, arrays)
    elif kind < 0.6:
        odd = (
            b"",
            b"{}",
            bytes(8),
            bytes(16),
            b"<html>",
            pickle.dumps(arrays),
            pickle.dumps(arrays, 0),
            b"PK\5\6" + bytes(17),
            b"\x89HDF\r\n\x1a\n",
        )
        data, valid = odd[rng.integers(len(odd))], False
    else:
        data = mutate(rng, data)
    path.write_bytes(data)
    return Case(
        lambda: weights.load(path, max_bytes=1 << 24),
        (path.name,),
        valid,
        functools.partial(_check, valid, arrays, len(data)),
    )


def _check(valid: bool | None, arrays: dict[str, np.ndarray], size: int, result: Any) -> None:
    if isinstance(result, Exception):
        return
    assert all(array.dtype.kind in "fiuV" and not array.dtype.hasobject for array in result.values())
    if valid:
        assert result.keys() == arrays.keys()
        for name, array in arrays.items():
            assert (result[name].shape, result[name].dtype) == (array.shape, array.dtype)
            np.testing.assert_array_equal(result[name], array)


safe = functools.partial(target, ".safetensors")
npz = functools.partial(target, ".npz")
