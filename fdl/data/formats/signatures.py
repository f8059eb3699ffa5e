"""Kinds of files, recognised by their first bytes: for errors that say what was found where something else was expected."""

from __future__ import annotations

LENGTH = 265
"""How many bytes `content_name` looks at; fewer will do where a file has no more."""

_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer (get the file itself with git lfs pull)"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"(\xb5/\xfd", "a zstd file"),
    (b"PK\3\4", "a zip file"),
    (b"PK\5\6", "a zip file"),  # one with nothing in it
    (b"Rar!", "a RAR file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip file"),
    (b"%PDF", "a PDF"),
    (b"\x89HDF", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a single .npy array"),
)
_BRANDS = {"HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "AVIF": (b"avif", b"avis")}


def content_name(start: bytes) -> str:
    """Return "an HTML page", "a zip file", "a HEIC picture", ...; "empty" for no bytes, "" for what is not known here."""
    if not start:
        return "empty"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "an SVG drawing or other XML"
    if text.startswith(b"<"):
        return "an HTML page"
    if start[4:8] == b"ftyp":
        return next((f"a picture in {name}" for name, brands in _BRANDS.items() if start[8:12] in brands), "a film")
    if start[257:262] == b"ustar":
        return "a tar file"
    return next((name for sign, name in _STARTS if start.startswith(sign)), "")
