"""What a source returns (Splits, with its Facts), what it is asked for (Request), and how an experiment declares its data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fdl.data.cuts import Cut, CutLike, Portion, PortionLike
from fdl.data.facts import Facts as Facts
from fdl.types import Array, Arrays, Batch, Draw

Source = Literal["auto", "tfds", "files", "builtin"]
OnBad = Literal["stop", "skip"]
Statistics = Mapping[str, np.ndarray]
"""What an op has measured on the training rows, name -> array."""
LoadFunction = Callable[["Request"], "Splits"]


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked of a source.

    Attributes:
        source: which form to take; "auto" tries prepared TFDS, upstream files, a TFDS download, then the stand-in.
        data_dir: `--data_dir`, or None for the TFDS default.
        offline: never try the network.
        on_bad: refuse a data set with bad images or rows in it, or leave those out.
    """

    source: Source = "auto"
    data_dir: Path | None = None
    offline: bool = False
    on_bad: OnBad = "stop"

    def find(self, path: str) -> Path | None:
        """Find a user's file or folder: "~" is their home; relative to `data_dir` if it is there, else to the current folder.

        Returns None where there is nothing of that name.
        """
        try:
            given = Path(path).expanduser()
            places = [] if self.data_dir is None else [self.data_dir.expanduser() / given]
            return next((place for place in (*places, given.absolute()) if path and place.exists()), None)
        except (OSError, ValueError, RuntimeError):  # too long a name, a NUL in it, the home of nobody
            return None


@dataclasses.dataclass(frozen=True)
class Splits:
    """One data set, and where it came from.

    Attributes:
        name: the data set ("fashion_mnist"); a stand-in's says so ("fashion_mnist-standin").
        source: the form that was used: "tfds", "files", "download", "builtin".
        where: the same for a person: a folder, "drawn by fdl.data.standins.standin, seed 0", ...
        train: rows of examples; "inputs" and "targets" by convention, each an array or a column (`fdl.data.columns`).
        test: rows that no choice is made on, or None: then `Data.cut` takes `Data.test` of the training rows.
        validation: the publisher's own validation split, or None: then `Data.cut` takes `Data.validation`.
        facts: what the data decides about models and predictions.
        standin: the rows only stand in for the data set of this name.
        skipped: the bad inputs that were left out (`fdl.data.formats.bad_inputs.Bad`).
        notes: what else was left out, or decided without being asked; for the line that says what the data is.
        sha256: over the bytes of the arrays as loaded; `fdl.data.pipeline.load` computes it.
    """

    name: str
    source: str
    where: str
    train: Arrays
    test: Arrays | None = None
    validation: Arrays | None = None
    facts: Facts = Facts()
    standin: bool = False
    skipped: Sequence[Any] = ()
    notes: Sequence[str] = ()
    sha256: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of their numbers."""
        return self.facts.classes

    @property
    def evaluated(self) -> Arrays:
        """Rows to look at a trained model with, and for the shapes of an evaluation: test's, or validation's, or training's."""
        held = self.validation if self.test is None else self.test
        return self.train if held is None else held


@dataclasses.dataclass(frozen=True)
class Op:
    """A step of preparation on the device: a frozen dataclass of its settings, traced inside the compiled step.

    A new one overrides `transform`, and `fit` where it needs statistics of the training rows.
    """

    def fit(self, train: Arrays) -> Statistics:
        """Return what `transform` needs of the training rows (host arrays); called once. Statistics come from nowhere else.

        They are kept with the run, so that predictions are prepared by the same numbers.
        """
        return {}

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        """Transform a whole batch: a pure function; columns it does not name are handed through.

        Args:
            batch: name -> array [B, ...].
            draw: random numbers for each example, None outside training.
            statistics: what `fit` returned.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Augmentation(Op):
    """A random change of a training batch's "inputs": a new one overrides `change` alone."""

    def change(self, x: Array, draw: Draw) -> Array:
        """Change the inputs x [B, ...] at random; `draw(shape)` gives uniform numbers [B, *shape] in [0, 1)."""
        raise NotImplementedError

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        return batch if draw is None else {**batch, "inputs": self.change(batch["inputs"], draw)}


@dataclasses.dataclass(frozen=True)
class HostOp:
    """A step of preparation on the host, of whole splits, fitted to the training rows after the cut and the subset.

    It turns what no device can hold (words, category names) into numbers. A new one overrides `encode`, `fit` where it
    learns from the training rows, and `update_facts` where what it learns decides something about the model.
    """

    def fit(self, train: Arrays) -> Any:
        """Return what `encode` needs of the training rows: JSON values, kept with the run."""
        return None

    def encode(self, rows: Arrays, state: Any) -> Arrays:
        """Encode the rows of any split, or of a user's own to predict (these may lack "targets").

        Raises:
            UserError: a row cannot be encoded.
        """
        raise NotImplementedError

    def update_facts(self, facts: Facts, state: Any) -> Facts:
        """Return the facts, with what was learnt."""
        return facts


class SourceName:
    """The type of a source given as text: see `parse`."""

    @classmethod
    def parse(cls, text: str) -> LoadFunction:
        """Parse a data set's name ("mnist"), or "folder:PATH", "csv:FILE", "text:FILE", "series:FILE", with options after commas.

        Raises:
            ValueError: there is no such data set, format or option; the nearest is named.
        """
        from fdl.data import source_text

        return source_text.parse_source(text)


if TYPE_CHECKING:
    SourceLike = LoadFunction | str  # __post_init__ makes a function of the text
else:
    SourceLike = SourceName  # what --set reads


@dataclasses.dataclass(frozen=True)
class Data:
    """How an experiment gets its batches.

    Attributes:
        load: the source: a function Request -> Splits (one of `fdl.data.sources`, or your own), or text as --set takes it.
        source: which form of the data set to take.
        validation: how many rows (or which share, "10%") are cut from training for choosing checkpoints.
        test: the same for testing, where the source has no test split of its own; cut before `validation`.
        cut: which rows those are.
        encode: host preparation, fitted on the training rows and applied once to every split.
        augment: ops applied to training batches only, before `prepare`.
        prepare: ops applied to every batch.
        on_bad: what becomes of images and rows that cannot be read: "stop" lists them and refuses, "skip" leaves them out.
        feed: what carries batches to the step: a tf.data pipeline, or plain NumPy (the same batches to the bit).
        resident: the training rows lie on the device, and many steps are one call (`fdl.train.resident`). None: so where no feed
            is named and they take less than 1 GiB, in one process; on a CPU only for short steps without convolutions.
    """

    load: SourceLike
    source: Source = "auto"
    validation: PortionLike = Portion(0)
    test: PortionLike = Portion(20, "%")
    cut: CutLike = Cut()
    encode: tuple[HostOp, ...] = ()
    augment: tuple[Op, ...] = ()
    prepare: tuple[Op, ...] = ()
    on_bad: OnBad = "stop"
    feed: Literal["auto", "tf", "numpy"] = "auto"
    resident: bool | None = None

    def __post_init__(self) -> None:
        for name, value in (("validation", Portion.parse(self.validation)), ("test", Portion.parse(self.test))):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "cut", Cut.parse(self.cut))
        if isinstance(self.load, str):
            object.__setattr__(self, "load", SourceName.parse(self.load))

    @property
    def loader(self) -> LoadFunction:
        """The source as a function, which `__post_init__` has made of a text."""
        assert not isinstance(self.load, str)
        return self.load

    def read(self, request: Request) -> Splits:
        """Read the source, in the form and with the care for bad rows that these settings ask for."""
        return self.loader(dataclasses.replace(request, source=self.source, on_bad=self.on_bad))

    def changes_of(self, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what `--set data=TEXT` changes: (the source; what was chosen for the old one, unless it is set as well).

        A number of validation rows becomes a tenth, for the other data may be few.
        """
        counted = not Portion.parse(self.validation).unit and bool(self.validation)
        return {"load": SourceName.parse(text)}, {"validation": Portion(10, "%")} if counted else {}
