"""Readers of files: what people have on disk, as arrays."""
