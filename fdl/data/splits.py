"""What a source hands over (Splits), what it is asked for (Request), and how an experiment declares its data (Data)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from fdl.types import Arrays, Transform, Whole

Source = Literal["auto", "tfds", "files", "builtin"]
OnBad = Literal["stop", "skip"]


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


@dataclasses.dataclass(frozen=True)
class Splits:
    """One data set in memory, and where it came from.

    Attributes:
        name: the data set ("fashion_mnist"); a stand-in's says so ("fashion_mnist-standin").
        source: the form that was used: "tfds", "files", "download", "builtin".
        where: the same for a person: a folder, "drawn by fdl.data.standins.standin, seed 0", ...
        train, test: rows of examples; "inputs" and "targets" by habit.
        validation: the publisher's own validation split, or None: then one is cut from training.
        sha256: over the bytes of the arrays as loaded.
        classes: the class names, in the order of their numbers.
        info: what else a task, its report or a prediction needs (vocabulary, column names, units); "skipped": the bad
            inputs left out (`fdl.data.formats.bad_inputs`), where there were any.
    """

    name: str
    source: str
    where: str
    train: Arrays
    test: Arrays
    sha256: str
    validation: Arrays | None = None
    classes: tuple[str, ...] = ()
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Op(Protocol):
    """A step of preparation: a frozen dataclass of its settings.

    `fit` sees the training split (host arrays) once and returns the pure batch function; statistics come from there
    and from nowhere else.
    """

    def fit(self, train: Arrays) -> Transform: ...


@dataclasses.dataclass(frozen=True)
class Data:
    """How an experiment gets its batches.

    Attributes:
        load: Request -> Splits; one of `fdl.data.sources`, or a function of the experiment's own.
        source: which form of the data set to take.
        validation: rows cut from training, by the data's own order shuffled with a fixed seed, for choosing checkpoints.
        augment: ops applied to training batches only, before `prepare`.
        prepare: ops applied to every batch.
        on_bad: what becomes of images and rows that cannot be read: "stop" lists them and refuses, "skip" leaves them out.
        feed: what carries batches to the step: a tf.data pipeline, or plain NumPy (the same batches to the bit).
        resident: the training rows lie on the device, and many steps are one call (`fdl.train.resident`). None: so where no feed
            is named and they take less than 1 GiB, in one process; on a CPU only for short steps without convolutions.
    """

    load: Callable[[Request], Splits]
    source: Source = "auto"
    validation: Whole = 0
    augment: tuple[Op, ...] = ()
    prepare: tuple[Op, ...] = ()
    on_bad: OnBad = "stop"
    feed: Literal["auto", "tf", "numpy"] = "auto"
    resident: bool | None = None
