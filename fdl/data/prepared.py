"""Data as a run uses it: splits, fitted preparation, and the record of both that the run directory keeps.

    data.json   the data set's name, digest, facts, shapes and leaks; the states of the host ops
    data.npz    the statistics of the ops, "prepare/0/shift" being the first op's "shift"

With these two files predictions and exports need no data set: class names, vocabulary and statistics are the run's own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from fdl.data.fitted import FittedOps
from fdl.data.splits import Data, Facts, HostOp, Splits, Statistics
from fdl.files import write_all
from fdl.types import Arrays, UserError, count_examples, one_line, printable

RECORD, ARRAYS = "data.json", "data.npz"
_FORMAT = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Loaded data with its fitted preparation.

    Attributes:
        splits: train, validation and test rows, cut and encoded, with all facts.
        augment, prepare: batch -> batch, pure.
        encoders, encoder_states: the host ops, already applied to the splits, and what each has learnt.
        leaks: {"validation": n, "test": m}: how many of their rows are also in training, byte for byte; a split that was not
            checked is absent.
        unchecked: why splits are absent from `leaks`; "" where none is.
    """

    splits: Splits
    augment: FittedOps = FittedOps()
    prepare: FittedOps = FittedOps()
    encoders: tuple[HostOp, ...] = ()
    encoder_states: tuple[Any, ...] = ()
    leaks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unchecked: str = ""

    def encode(self, rows: Arrays) -> Arrays:
        """Encode a user's own rows, as the source would have given them, like the training rows.

        Raises:
            UserError: a row cannot be encoded.
        """
        for op, state in zip(self.encoders, self.encoder_states, strict=True):
            rows = op.encode(rows, state)
        return rows

    @property
    def state(self) -> PreparedState:
        """What the run directory keeps."""
        splits = self.splits
        parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        held = {name: rows for name, rows in parts.items() if rows is not None}
        return PreparedState(
            name=splits.name, source=splits.source, where=splits.where, sha256=splits.sha256, standin=splits.standin,
            facts=splits.facts,
            examples={name: count_examples(rows) for name, rows in held.items()},
            columns={name: _columns(rows) for name, rows in held.items()},
            encoder_states=self.encoder_states, leaks=dict(self.leaks), unchecked=self.unchecked,
            statistics={"augment": self.augment.statistics, "prepare": self.prepare.statistics},
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedState:
    """All of `Prepared` but the rows: JSON values, and the statistics' arrays.

    Attributes:
        name, source, where, sha256, standin, facts: of the splits.
        examples: rows of each split.
        columns: split -> its columns, each [dtype, shape of one row] (nested as the rows are).
        statistics: {"augment": one mapping for each op, "prepare": ...}.
        encoder_states, leaks, unchecked: as of `Prepared`.
    """

    name: str
    source: str
    where: str
    sha256: str
    standin: bool
    facts: Facts
    examples: Mapping[str, int]
    columns: Mapping[str, Any]
    statistics: Mapping[Literal["augment", "prepare"], tuple[Statistics, ...]]
    encoder_states: tuple[Any, ...] = ()
    leaks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unchecked: str = ""

    def restore(self, data: Data) -> Prepared:
        """Rebuild what predictions and exports need, without the data set: the rows are zeros of the right shapes.

        Raises:
            UserError: the experiment's preparation has other ops than the run's had.
        """
        fitted = {}
        for kind, ops in (("augment", data.augment), ("prepare", data.prepare)):
            known = self.statistics[kind]  # type: ignore[index]
            if len(known) != len(ops):
                raise UserError(f"data.{kind} has {len(ops)} ops, the run was trained with {len(known)}: restore them")
            fitted[kind] = FittedOps(ops, known)
        if len(self.encoder_states) != len(data.encode):
            raise UserError(
                f"data.encode has {len(data.encode)} ops, the run was trained with {len(self.encoder_states)}"
            )
        rows = {name: _zeros(columns, self.examples[name]) for name, columns in self.columns.items()}
        splits = Splits(
            self.name, self.source, self.where, rows["train"], rows.get("test"), rows.get("validation"),
            facts=self.facts, standin=self.standin, sha256=self.sha256,
        )  # fmt: skip
        return Prepared(
            splits, fitted["augment"], fitted["prepare"], data.encode, self.encoder_states, self.leaks, self.unchecked
        )

    def difference(self, now: Splits) -> str:
        """Describe what differs from training, for a person ("the data was X, is Y"); "" where nothing does."""
        pairs = (
            ("the data set was", self.name, "is", now.name),
            ("the class names were", self.facts.classes, "are", now.facts.classes),
            ("the vocabulary was", self.facts.vocabulary, "is", now.facts.vocabulary),
            ("the categories were", dict(self.facts.categories), "are", dict(now.facts.categories)),
        )
        for what, was, verb, new in pairs:
            if was != new:
                return f"{what} {_short(was)}, {verb} {_short(new)}"
        if self.sha256 != now.sha256:
            return f"the data was {self.sha256[:8]} from {self.where}, is {now.sha256[:8]} from {now.where}"
        return ""


def _short(value: Any) -> str:
    return printable(", ".join(map(str, value)) if isinstance(value, tuple) else value, 120)


def _columns(rows: Arrays) -> Any:
    return jax.tree.map(lambda leaf: [str(np.dtype(leaf.dtype)), [int(size) for size in leaf.shape[1:]]], rows)


def _zeros(columns: Any, count: int) -> Any:
    """Return rows of zeros that take no memory."""
    if isinstance(columns, Mapping):
        return {name: _zeros(inner, count) for name, inner in columns.items()}
    dtype, shape = columns
    return np.broadcast_to(np.zeros((), np.dtype(dtype)), (count, *shape))


def save_prepared(folder: Path, prepared: Prepared) -> list[Path]:
    """Write `prepared.state` to folder/data.json and folder/data.npz, and return their paths.

    Raises:
        UserError: the folder cannot be written, or a statistic is no array, or a host op's state no JSON value.
    """
    state = prepared.state
    arrays = {
        f"{kind}/{number}/{name}": np.asarray(array)
        for kind, ops in state.statistics.items()
        for number, statistics in enumerate(ops)
        for name, array in statistics.items()
    }
    held = io.BytesIO()
    record = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    record |= {"format": _FORMAT, "facts": state.facts.to_json()}
    record["statistics"] = {kind: [sorted(each) for each in ops] for kind, ops in state.statistics.items()}
    try:
        np.savez(held, allow_pickle=False, **arrays)
        record["arrays_sha256"] = hashlib.sha256(held.getvalue()).hexdigest()
        text = json.dumps(record, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"what the data's ops measured cannot be kept with the run: {one_line(error)}; return arrays from Op.fit, JSON "
            "values from HostOp.fit and Facts.extra"
        ) from error
    return write_all(folder, {ARRAYS: held.getvalue(), RECORD: text + "\n"})


def load_prepared_state(folder: Path) -> PreparedState:
    """Read what `save_prepared` wrote.

    Raises:
        UserError: it is not there, or damaged.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        content = (folder / ARRAYS).read_bytes()
        if record.pop("format") != _FORMAT or record.pop("arrays_sha256") != hashlib.sha256(content).hexdigest():
            raise ValueError(f"{ARRAYS} is not the file that {RECORD} was written with")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            record["statistics"] = {
                kind: tuple(
                    {name: arrays[f"{kind}/{number}/{name}"] for name in names} for number, names in enumerate(ops)
                )
                for kind, ops in record["statistics"].items()
            }
        record |= {"facts": Facts.from_json(record["facts"]), "encoder_states": tuple(record["encoder_states"])}
        return PreparedState(**record)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: the run was made by an older version; train again") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}; restore it, or train again") from error
