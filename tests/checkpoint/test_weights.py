"""Weights files: what goes out comes back to the bit, and nothing but honest numbers comes in."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.checkpoint import weights
from fdl.types import UserError, named_leaves

TREE = {
    "params": {"dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)}},
    "batch_stats": {"norm": {"mean": np.float32(0.5) * np.ones(()), "count": np.zeros((0, 4), np.int32)}},
}


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
def test_what_goes_out_comes_back_to_the_bit(tmp_path: Path, suffix: str) -> None:
    on_device = jax.tree.map(jnp.asarray, TREE)
    path = weights.save(tmp_path / "new" / f"w{suffix}", named_leaves(on_device))
    back = weights.fit(on_device, weights.load(path))
    assert jax.tree.structure(back) == jax.tree.structure(on_device)
    for got, expected in zip(jax.tree.leaves(back), jax.tree.leaves(on_device), strict=True):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(got, expected)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    first = path.read_bytes()
    assert weights.save(path, named_leaves(on_device)).read_bytes() == first


def test_other_libraries_read_and_write_the_same(tmp_path: Path) -> None:
    import safetensors.numpy

    arrays = named_leaves(TREE)
    for got in (
        safetensors.numpy.load_file(weights.save(tmp_path / "a.safetensors", arrays)),
        dict(np.load(weights.save(tmp_path / "a.npz", arrays), allow_pickle=False)),
    ):
        assert got.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(got[name], array)
    turned = {
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "file": np.ones(1),
    }
    (tmp_path / "b.npz").write_bytes(npz(turned))
    back = weights.load(tmp_path / "b.npz")
    for name, array in turned.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype.isnative
    safetensors.numpy.save_file({"x": np.ones(2, np.float16)}, tmp_path / "c.safetensors", metadata={"by": "hand"})
    np.testing.assert_array_equal(weights.load(tmp_path / "c.safetensors")["x"], np.ones(2, np.float16))


def test_bfloat16(tmp_path: Path) -> None:
    arrays = {"x": jnp.arange(5, dtype=jnp.bfloat16)}
    back = weights.load(weights.save(tmp_path / "x.safetensors", arrays))
    assert weights.fit(arrays, back)["x"].dtype == jnp.bfloat16
    with pytest.raises(UserError, match=r"npz cannot hold x of bfloat16"):
        weights.save(tmp_path / "x.npz", arrays)


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            inner = io.BytesIO()
            np.lib.format.write_array(inner, array)
            archive.writestr(f"{name}.npy", inner.getvalue())
    return file.getvalue()


def safe(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list, first: int, last: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("executed"),))


def torch_like() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps(Evil()))
    return file.getvalue()


def huge_npy() -> bytes:
    inner = io.BytesIO()
    np.lib.format.write_array_header_1_0(inner, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", inner.getvalue())
    return file.getvalue()


BAD: dict[str, tuple[str, bytes, str]] = {
    "pth": ("w.pth", torch_like(), "convert it"),
    "pkl": ("w.pkl", pickle.dumps(Evil()), "convert it"),
    "h5": ("w.h5", b"\x89HDF\r\n\x1a\n", "convert it"),
    "pickle as safetensors": ("w.safetensors", pickle.dumps(Evil()), "a pickle, which runs code"),
    "pickle as npz": ("w.npz", pickle.dumps(Evil(), 2), "a pickle, which runs code"),
    "old pickle as npz": ("w.npz", pickle.dumps(Evil(), 0), "no zip"),
    "pth as npz": ("w.npz", torch_like(), "pickle in it"),
    "pth as safetensors": ("w.safetensors", torch_like(), "pickle in it"),
    "npz as safetensors": ("w.safetensors", npz({"x": np.ones(2)}), "a zip file"),
    "h5 as safetensors": ("w.safetensors", b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "npy as npz": ("w.npz", b"\x93NUMPY\1\0" + bytes(50), "single .npy"),
    "html": ("w.safetensors", b"<!DOCTYPE html>", "HTML page"),
    "empty": ("w.safetensors", b"", "no safetensors"),
    "empty npz": ("w.npz", b"", "no zip"),
    "objects": ("w.npz", npz({"x": np.array([Evil()], object)}), "object"),
    "text in npz": ("w.npz", npz({"x": np.array(["a"])}), "expected numbers"),
    "records": ("w.npz", npz({"x": np.zeros(2, [("a", "f4")])}), "expected numbers"),
    "other member": ("w.npz", torch_like().replace(b"data.pkl", b"data.txt"), "no .npy file"),
    "huge npy": ("w.npz", huge_npy(), "it holds 0"),
    "long header": ("w.safetensors", (1 << 60).to_bytes(8, "little") + b"{}", "header too large"),
    "gap": ("w.safetensors", safe({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, b"123"), "invalid offset"),
    "overlap": ("w.safetensors", safe({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"123"), "invalid offset"),
    "other bytes": ("w.safetensors", safe({"a": entry("F32", [2], 0, 4)}, b"1234"), "invalid shape"),
    "rest": ("w.safetensors", safe({"a": entry("U8", [1], 0, 1)}, b"12"), "not fully covered"),
    "cut": ("w.safetensors", safe({"a": entry("U8", [4], 0, 4)}, b"12"), "not fully covered"),
    "negative": ("w.safetensors", safe({"a": entry("U8", [-1, -4], 0, 4)}, b"1234"), "expected usize"),
    "a fraction": ("w.safetensors", safe({"a": entry("U8", [4.0], 0, 4)}, b"1234"), "expected usize"),
    "many dimensions": ("w.safetensors", safe({"a": entry("U8", [10**9] * 99, 0, 4)}, b"1234"), "overflow"),
    "twice": ("w.safetensors", safe(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'), "damaged"),
    "unknown dtype": ("w.safetensors", safe({"a": entry("F8", [1], 0, 1)}, b"1"), "damaged"),
    "eight bits": ("w.safetensors", safe({"a": entry("F8_E4M3", [1], 0, 1)}, b"1"), "holds F8_E4M3, expected one of F64"),
    "truth values": ("w.safetensors", safe({"a": entry("BOOL", [1], 0, 1)}, b"1"), "holds BOOL, expected one of F64"),
    "many axes": ("w.safetensors", safe({"a": entry("U8", [1] * 99, 0, 1)}, b"1"), "damaged"),
    "deep": ("w.safetensors", safe(b'{"a":' + b"[" * 100_000), "damaged"),
    "no JSON": ("w.safetensors", safe(b"{nonsense"), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_numbers_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    name, content, says = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        weights.load(tmp_path / name)
    assert says in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
def test_more_than_is_wanted_is_refused(tmp_path: Path, suffix: str) -> None:
    path = weights.save(tmp_path / f"w{suffix}", {"x": np.zeros(100_000, np.float32)})
    with pytest.raises(UserError, match="300,000"):
        weights.load(path, max_bytes=300_000)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        weights.load(tmp_path / "w.npz")


def changed(change: Callable[[dict], object]) -> dict[str, np.ndarray]:
    arrays = dict(named_leaves(TREE))
    change(arrays)
    return arrays


KERNEL = "params/dense/kernel"


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (changed(lambda a: a.pop(KERNEL)), r"lack params/dense/kernel \(2, 3\); give"),
        (changed(lambda a: a.update(x=a.pop(KERNEL))), "and have x, which the model has not"),
        (changed(lambda a: a.update(x=a[KERNEL])), r"have x \(2, 3\), which the model has not"),
        (changed(lambda a: a.update({KERNEL: a[KERNEL].T})), r"kernel is \(3, 2\), the model's \(2, 3\)"),
        (changed(lambda a: a.update({KERNEL: a[KERNEL].astype(float)})), "kernel is float64, the model's float32"),
        (changed(lambda a: a.update({KERNEL: a[KERNEL] * np.nan})), "NaN or Inf"),
    ],
)
def test_a_misfit_is_named(arrays: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(UserError, match=says):
        weights.fit(TREE, arrays, "w.npz")
