"""Weights in and out of fdl: named arrays as .safetensors or .npz, the two formats that hold numbers and no code.

A file is refused unless its suffix and its content agree and every array's shape and dtype account for exactly the bytes
in the file; all of that is checked before anything of the declared size is allocated. safetensors' own reader does that
(https://huggingface.co/docs/safetensors); of npz, a zip of .npy files (numpy.lib.format), this file does.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TypeVar

import jax
import numpy as np

from fdl.data.formats.signatures import content_name
from fdl.files import replacing
from fdl.types import UserError, named_leaves, one_line, printable, unnamed

Named = dict[str, np.ndarray]
T = TypeVar("T")

SUFFIXES = (".safetensors", ".npz")
MAX_BYTES = 8 << 30
MAX_HEADER = 16 << 20
MAX_ARRAYS = 100_000
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip
"""What a file may hold, by safetensors' names."""
_CONVERT = (
    'convert it where you trust it, such as with safetensors.torch.save_file(torch.load(FILE, weights_only=True), '
    '"weights.safetensors") or numpy.savez'
)  # fmt: skip


def save(path: Path, arrays: Mapping[str, object]) -> Path:
    """Write arrays (of any device) to `path`, .safetensors or .npz by its suffix, whole or not at all, and return it.

    Raises:
        UserError: another suffix, an array that the format cannot hold, or a folder that cannot be written.
    """
    _check_suffix(path)
    host = {name: np.asarray(jax.device_get(array), order="C") for name, array in arrays.items()}
    unknown = {name: array.dtype for name, array in host.items() if array.dtype.name not in _DTYPES.values()}
    if path.suffix == ".npz":
        unknown |= {name: array.dtype for name, array in host.items() if array.dtype.kind not in "fiu"}
    if unknown:
        name, dtype = next(iter(unknown.items()))
        raise UserError(
            f"{printable(path)}: {path.suffix} cannot hold {name} of {dtype}; choose .safetensors, or cast it"
        )
    with replacing(path) as file:
        if path.suffix == ".npz":
            with zipfile.ZipFile(file, "w") as archive:
                for name, array in host.items():
                    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        else:
            import safetensors.numpy

            file.write(safetensors.numpy.save(host))
    return path


def load(path: Path, max_bytes: int = MAX_BYTES) -> Named:
    """Read the arrays of a .safetensors or .npz file, by name.

    Args:
        max_bytes: the most that all arrays may take together.

    Raises:
        UserError: no such file, another format, or one that is damaged or dishonest about its sizes.
    """
    where = printable(path)
    _check_suffix(path)
    try:
        if not path.is_file():
            raise UserError(f"{where}: there is no such file; give a .safetensors or .npz file")
        size = path.stat().st_size
        with path.open("rb") as file:
            what = _other_format(file, path.suffix, where)
            if what:
                raise UserError(f"{where} is {what}; fdl reads {' and '.join(SUFFIXES)}: {_CONVERT}")
            if size > max_bytes + MAX_HEADER:
                raise UserError(
                    f"{where} is {size:,} bytes long, more than {max_bytes:,} of weights: give the right file"
                )
            return _load_npz(file, max_bytes) if path.suffix == ".npz" else _load_safetensors(path, max_bytes)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror or one_line(error)}; get it again") from error
    except Exception as error:  # zipfile and NumPy raise nearly every built-in exception on damaged files
        raise UserError(f"{where} is damaged: {one_line(error)}; get it again") from error


def fit(like: T, arrays: Mapping[str, np.ndarray], where: str = "the weights") -> T:
    """Put `arrays` into the tree of `like` (arrays or ShapeDtypeStructs), nothing renamed, cast, reshaped or left over.

    `where` names them in an error.

    Raises:
        UserError: an array does not fit; the first is named, with both shapes or dtypes.
    """
    wanted = named_leaves(like)
    for name, leaf in wanted.items():
        shape = tuple(leaf.shape)
        if name not in arrays:
            more = [other for other in arrays if other not in wanted]
            hint = f", and have {printable(more[0], 80)}, which the model has not" if more else ""
            raise UserError(f"{where} lack {name} {shape}{hint}; give those of the same model")
        have = arrays[name]
        if have.shape != shape:
            raise UserError(f"{where}: {name} is {have.shape}, the model's {shape}; give those of the same model")
        if have.dtype != leaf.dtype:
            raise UserError(f"{where}: {name} is {have.dtype}, the model's {leaf.dtype}; cast it before")
        check_finite(name, have, where)
    for name, have in arrays.items():
        if name not in wanted:
            raise UserError(f"{where} have {printable(name, 80)} {have.shape}, which the model has not; drop it")
    return unnamed(like, arrays)


def check_finite(name: str, array: np.ndarray, where: str) -> None:
    """Raise UserError where an array holds NaN or Inf."""
    if not np.isfinite(array.astype(np.float32) if array.dtype.kind == "V" else array).all():
        raise UserError(f"{where}: {name} holds NaN or Inf; give those of a run that went well")


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise UserError(f"{printable(path)}: fdl reads and writes {' and '.join(SUFFIXES)} alone; {_CONVERT}")


def _other_format(file: IO[bytes], suffix: str, where: str) -> str:
    """Name the format of a file whose suffix says another, or return ""."""
    start = file.read(16)
    file.seek(0)
    if suffix == ".safetensors" and start[8:9] == b"{":
        return ""  # whatever the length before it may be
    if start[:2] == b"PK":
        with zipfile.ZipFile(file) as archive:
            pickled = any(name.endswith(".pkl") for name in archive.namelist())
        file.seek(0)
        if pickled:
            return "a zip with a pickle in it (PyTorch's .pth), which runs code when it is read"
        return "" if suffix == ".npz" else "a zip file, not safetensors"
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return "a pickle, which runs code when it is read"
    if start and (known := content_name(start)):
        return known
    if suffix == ".npz":
        return f"no zip, as .npz is (it starts with {start[:4].hex(' ') or 'nothing'})"
    return f"no safetensors (it starts with {start[:4].hex(' ') or 'nothing'})"


def _load_safetensors(path: Path, max_bytes: int) -> Named:
    import safetensors

    # The library checks the header: its length, sizes that overflow, overlaps, gaps, bytes that belong to no array.
    with safetensors.safe_open(path, framework="numpy") as file:
        names = list(file.keys())
        if len(names) > MAX_ARRAYS:
            raise ValueError(f"it declares {len(names):,} arrays")
        size = 0
        for name in names:
            entry = file.get_slice(name)
            if (dtype := entry.get_dtype()) not in _DTYPES:
                raise ValueError(f"{name!r} holds {dtype}, expected one of {', '.join(_DTYPES)}")
            size += math.prod(entry.get_shape()) * np.dtype(_DTYPES[dtype]).itemsize
        if size > max_bytes:
            raise ValueError(f"its arrays are said to take more than {max_bytes:,} bytes")
        return {name: file.get_tensor(name) for name in names}


def _load_npz(file: IO[bytes], max_bytes: int) -> Named:
    arrays: Named = {}
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [info.filename for info in members]
        if len(set(names)) != len(names) or len(names) > MAX_ARRAYS:
            raise ValueError(f"a name comes twice among its {len(names):,} members")
        if sum(info.file_size for info in members) > max_bytes + 4096 * len(members):
            raise ValueError(f"its arrays are said to take more than {max_bytes:,} bytes")
        for info in members:
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or not info.filename.endswith(
                ".npy"
            ):
                raise ValueError(f"{info.filename!r} is no .npy file, or is packed in an unusual way")
            with archive.open(info) as member:
                arrays[info.filename.removesuffix(".npy")] = _load_npy(member, info.file_size, info.filename)
    return arrays


def _load_npy(member: IO[bytes], size: int, name: str) -> np.ndarray:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = readers[np.lib.format.read_magic(member)](member)
    if dtype.kind not in "fiu" or any(n < 0 for n in shape):
        raise ValueError(f"{name!r} holds {dtype} {shape}, expected numbers")
    expected = math.prod(shape) * dtype.itemsize
    if expected != size - member.tell():
        raise ValueError(f"{name!r} of {dtype}{shape} is {expected:,} bytes, it holds {size - member.tell():,}")
    data = member.read(expected + 1)  # one byte more than there is, so that the zip's checksum is checked
    if len(data) != expected:
        raise ValueError(f"{name!r} is cut short")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return np.asarray(array, dtype.newbyteorder("="), order="C")
