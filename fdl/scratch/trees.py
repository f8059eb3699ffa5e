"""Parameters as nested dicts of arrays, `{"Dense_0": {"kernel": ..., "bias": ...}}`, and functions over all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Tree = Any
"""An array, or a dict or a tuple of trees."""
Cache = Any
"""What a forward pass keeps for its way back; of no interest to anyone else."""
DType = type[np.floating[Any]]


def tree_map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Return f(leaf, leaf of each of `rest`) for every leaf; the result is nested as `tree` is.

    Raises:
        KeyError: a dict of `rest` lacks a name that `tree` has.
    """
    if isinstance(tree, dict):
        return {name: tree_map(f, branch, *(other[name] for other in rest)) for name, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(tree_map(f, *branches) for branches in zip(tree, *rest, strict=True))
    return f(tree, *rest)


def leaves(tree: Tree) -> list[Array]:
    """Return every array of the tree, in the order of its dicts."""
    found: list[Array] = []
    tree_map(found.append, tree)
    return found


def count_parameters(tree: Tree) -> int:
    """Count the numbers that the tree holds."""
    return sum(leaf.size for leaf in leaves(tree))


def zeros_like(tree: Tree) -> Tree:
    """Return the same shapes and dtypes, all zero."""
    return tree_map(np.zeros_like, tree)


def add(one: Tree, other: Tree) -> Tree:
    """Add leaf by leaf: how gradients of a parameter used twice combine."""
    return tree_map(np.add, one, other)
