"""What one command line asks for, as a frozen value: fdl/main.py makes it from the flags and passes it to everything else."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fdl.errors import UserError
from fdl.files import user_path

if TYPE_CHECKING:
    from fdl.distributed.layouts import Layout

FLAGS_OF_MODES = {
    "seeds": ("study",), "folds": ("study",),
    "trials": ("sweep",), "workers": ("sweep",), "topology": ("plan",), "input": ("predict",),
    "output": ("predict", "export", "show_data"), "format": ("export",), "profile": ("train",), "dump_hlo": ("train",),
}  # fmt: skip
"""Flags that only some modes use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Everything about a start except its experiment.

    Attributes:
        experiment: as --experiment names it.
        command: the command line, as it could be given again.
        overrides: each "path=value", as --set takes it.
        seed: of the run, or of the first one of a study.
        workdir: the run's directory; None: a new one under runs/.
        data_dir: where data sets are looked for; None: $FDL_DATA_DIR, then the TFDS default.
        watchdog: seconds without a sign of life until exit 124; 0: never.
        accept_changes: resume although libraries, data or code differ.
        test: whether the test split is looked at when the run is done.
        report: whether report.html is written.
        passed_on: the flags that the runs of a study or sweep are given too, as they are written on a command line.

    The others are the flags of the same names.
    """

    experiment: str = ""
    command: str = ""
    overrides: tuple[str, ...] = ()
    seed: int = 0
    workdir: Path | None = None
    data_dir: str | None = None
    offline: bool = False
    parallel: Literal["auto", "pmap", "jit"] = "auto"
    mesh: str = ""
    watchdog: float = 600.0
    accept_changes: bool = False
    test: bool = True
    report: bool = True
    profile: str | None = None
    dump_hlo: bool = False
    input: str | None = None
    output: Path | None = None
    format: Literal["fdl", "timm", "stablehlo"] = "fdl"
    topology: str | None = None
    seeds: int | None = None
    folds: int | None = None
    trials: int | None = None
    workers: int = 1
    passed_on: tuple[str, ...] = ()

    def layout(self) -> Layout:
        """Choose the layout that --parallel and --mesh ask for, over the available devices."""
        from fdl.distributed import layouts  # only here: a refused flag must not wait for JAX

        return layouts.choose_layout(self.parallel, mesh=self.mesh)

    def data_folder(self) -> Path | None:
        """Return --data_dir, else $FDL_DATA_DIR, else None.

        Raises:
            UserError: it is not a folder.
        """
        for name, value in (("--data_dir", self.data_dir), ("FDL_DATA_DIR", os.environ.get("FDL_DATA_DIR"))):
            if value:
                path = user_path(value, name)
                if not path.is_dir():
                    raise UserError(f"{name}={value} is no folder; give one that holds data sets, or leave it out")
                return path
        return None


def check_flags(mode: str, given: Iterable[str]) -> None:
    """Refuse flags of the command line that the mode would ignore.

    Raises:
        UserError: there is one.
    """
    for name in given:
        modes = FLAGS_OF_MODES.get(name, (mode,))
        if mode not in modes:
            raise UserError(
                f"--{name} means nothing to --mode={mode}, only to --mode={' and '.join(modes)}; leave one of them out"
            )
