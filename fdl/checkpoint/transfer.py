"""Starting from other weights: which arrays of a file fit a model, which are newly drawn, and which are not used."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fdl.checkpoint import weights
from fdl.types import UserError, leaf_name, named_leaves, printable

T = TypeVar("T")
_SHOWN = 3  # names of a list that an error line shows


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What a model takes from a file of weights.

    Attributes:
        source: the setting and the file, with which a line about it begins.
        arrays: those taken, by the model's names, in the model's shapes and dtypes.
        drawn: the model's other arrays, which keep their newly drawn values, each with its shape and why.
        unused: the file's names that the model has no array for.
    """

    source: str
    arrays: Mapping[str, np.ndarray]
    drawn: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.arrays) + len(self.drawn)
        taken = f"{self.source}: took {len(self.arrays)} of {total} arrays"
        drawn = f"; newly drawn: {_list(self.drawn)}" if self.drawn else ""
        unused = f"; not used: {_list(self.unused)}" if self.unused else ""
        return taken + drawn + unused

    def fill(self, variables: T) -> T:
        """Replace the leaves of `variables` (the model's collections) that are taken, and keep the others."""

        def leaf(path: object, drawn: object) -> Any:
            return self.arrays.get(leaf_name(path), drawn)

        return jax.tree_util.tree_map_with_path(leaf, variables)


def transfer(
    spec: object, held: Mapping[str, np.ndarray], source: str, mapping: Sequence[str] = (), strict: bool = False
) -> Transfer:
    """Find for each array of a model the array of a file with its name and shape.

    Floating-point numbers are cast to the model's dtype.

    Args:
        spec: the model's collections {"params": ..., "batch_stats": ...}: arrays or ShapeDtypeStructs.
        held: the file's arrays by name.
        source: names the file in errors, such as "init_from=w.safetensors".
        mapping: "PART=THEIRS" fills the model's PART ("backbone", "params/backbone") from what the file has under THEIRS
            ("params/" or nothing: the whole file; "params/encoder"); "PART=none" leaves a part newly drawn. The first that
            names an array decides; others keep their own names. A PART without a collection is of all collections.
        strict: refuse the file unless each array but those of "PART=none" is filled and none is left over.

    Raises:
        UserError: nothing fits, `strict` is not met, an entry of `mapping` names nothing, or an array holds NaN or Inf.
    """
    wanted = named_leaves(spec)
    names = _their_names(wanted, held, mapping)
    if strict:
        ours = {name: theirs for name, theirs in names.items() if theirs is not None}
        rest = {name: array for name, array in held.items() if name not in ours.values()}
        found = {name: held[theirs] for name, theirs in ours.items() if theirs in held}
        arrays = weights.fit({name: wanted[name] for name in ours}, found | rest, source)
        left_out = tuple(f"{name} {tuple(wanted[name].shape)}" for name in wanted if name not in ours)
        return Transfer(source, arrays, left_out, ())
    taken: dict[str, np.ndarray] = {}
    drawn = []
    for name, theirs in names.items():
        array = None if theirs is None else held.get(theirs)
        if array is not None and _fits(array, wanted[name]):
            taken[name] = array.astype(wanted[name].dtype)
            weights.check_finite(name, array, source)
        else:
            other = f" (the file's is {array.dtype} {array.shape})" if array is not None else ""
            drawn.append(f"{name} {tuple(wanted[name].shape)}{other}")
    if not taken:
        raise UserError(
            f"{source}: nothing in it fits the model: it has {_list(_sized(held))}, the model {_list(_sized(wanted))}; give "
            "weights of a like model, or say with init_map=PART=THEIRS what goes where"
        )
    return Transfer(source, taken, tuple(drawn), tuple(sorted(set(held) - set(names.values()))))


def _their_names(wanted: Collection[str], held: Collection[str], mapping: Sequence[str]) -> dict[str, str | None]:
    """Map each of the model's names to the file's, None where the array is to be newly drawn.

    Raises:
        UserError: an entry of `mapping` is not PART=THEIRS, or names nothing.
    """
    collections = {name.partition("/")[0] for name in wanted}
    names: dict[str, str | None] = {}
    for entry in mapping:
        part, equals, theirs = (text.strip().strip("/") for text in entry.partition("="))
        if not equals:
            raise UserError(
                f"init_map={printable(entry, 80)}: expected PART=THEIRS, such as backbone=params/, or PART=none"
            )
        found: dict[str, str | None] = {
            name: renamed for name in wanted if (renamed := _rename(name, part, theirs, collections)) is not None
        }
        if not found:
            raise UserError(f"init_map={printable(entry, 80)}: the model has no part {part!r}; it has {_list(wanted)}")
        if theirs == "none":
            found = dict.fromkeys(found, None)
        elif not any(renamed in held for renamed in found.values()):
            raise UserError(f"init_map={printable(entry, 80)}: the file has nothing for it; it has {_list(held)}")
        names = found | names
    return {name: names.get(name, name) for name in wanted}


def _rename(name: str, part: str, theirs: str, collections: Collection[str]) -> str | None:
    """Return the file's name for an array of the model by one entry of the mapping; None where it is not in that part."""
    prefix, within = "", name
    if part.partition("/")[0] not in collections:
        prefix, _, within = name.partition("/")
        head, _, tail = theirs.partition("/")
        theirs = tail if head in collections else theirs
    if part and within != part and not within.startswith(part + "/"):
        return None
    return "/".join(text for text in (prefix, theirs, within[len(part) :].strip("/")) if text)


def _fits(array: np.ndarray, spec: Any) -> bool:
    floats = jnp.issubdtype(array.dtype, jnp.floating) and jnp.issubdtype(spec.dtype, jnp.floating)
    return array.shape == tuple(spec.shape) and (floats or array.dtype == spec.dtype)


def _sized(arrays: Mapping[str, Any]) -> list[str]:
    return [f"{name} {tuple(array.shape)}" for name, array in arrays.items()]


def _list(names: Iterable[str]) -> str:
    names = [printable(name, 120) for name in names]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"
