"""Published tables, each one CSV file: found in --data_dir, else downloaded and kept, then read as `csv:` reads a user's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data.formats import csv, download
from fdl.data.formats.forms import at_roots, choose, first
from fdl.data.splits import Request, Splits
from fdl.types import take

_BROWNLEE = "https://raw.githubusercontent.com/jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f"
_AUTO_MPG = download.Remote(
    "https://raw.githubusercontent.com/mwaskom/seaborn-data/71e2436a092d714350de0fc409ca8a8714e7e78f/mpg.csv",
    21_222,
    "c14b8b855ea7ee86cb9736bf8caaf281c4685ca08826f3eb2acaccaaf40f0d5a",
)
_BOSTON = download.Remote(
    f"{_BROWNLEE}/housing.csv", 41_295, "2682ca02e83b89467d7d0cdcbde7c0cc4d2566119be8ce8d84dad4f0fa20859a"
)
_MAMMOGRAPHY = download.Remote(
    f"{_BROWNLEE}/mammography.csv", 827_904, "7d3dea3f075f30bbdbb8980e7725684059b4fe3d0f850fadd0f635f6993d8730"
)
MAMMOGRAPHY_CLASSES = ("normal", "microcalcification")
_BOSTON_COLUMNS = (
    "crime", "zoned", "industry", "river", "nitric_oxides", "rooms", "age", "distance", "highways", "tax", "pupils", "b",
    "lower_status", "value",
)  # fmt: skip


def auto_mpg(request: Request) -> Splits:
    """Load auto-mpg (Quinlan 1993): 398 cars, miles per gallon by seven columns, horsepower missing of six; no test split.

    Raises:
        UserError: the file is nowhere and cannot be downloaded, or is damaged; so for each of these sources.
    """
    files = ("tabular/auto-mpg.csv", "auto-mpg/mpg.csv")
    return _published(request, "auto_mpg", files, _AUTO_MPG, target="mpg", unit="miles per gallon", ignore=("name",))


def boston(request: Request) -> Splits:
    """Load Boston housing (Harrison and Rubinfeld 1978): 506 districts, the median value by 13 columns; no test split.

    Its column "b" is a function of the share of Black inhabitants: a benchmark of methods, no basis for decisions.
    """
    files = ("tabular/boston-housing.csv", "boston/housing.csv")
    return _published(
        request,
        "boston",
        files,
        _BOSTON,
        names=_BOSTON_COLUMNS,
        header="none",
        target="column 14",
        unit="1,000 dollars",
    )


def mammography(request: Request, *, distinct: bool = False) -> Splits:
    """Load mammography (Woods et al. 1993): 11,183 spots by six numbers, 260 of them microcalcifications (class 1).

    3,334 rows repeat others, thousands of them one row: cut with `cut="content"`, so that equal rows are on one side. No test
    split.

    Args:
        distinct: keep the first of equal rows alone; 7,849 are left.
    """
    files = ("mammography/mammography.csv",)
    held = _published(
        request, "mammography", files, _MAMMOGRAPHY, header="none", kind="classes", classes=MAMMOGRAPHY_CLASSES
    )
    if not distinct:
        return held
    _, first = np.unique(held.train["inputs"]["numeric"], axis=0, return_index=True)
    return dataclasses.replace(held, train=take(held.train, np.sort(first)), notes=("equal rows once",))


def _published(
    request: Request,
    name: str,
    files: tuple[str, ...],
    remote: download.Remote,
    *,
    names: tuple[str, ...] = (),
    classes: tuple[str, ...] = (),
    unit: str = "",
    **options: Any,
) -> Splits:
    """Read the table.

    Args:
        names: of the columns, where the file has none.
        classes: names of the classes, in the order of the file's sorted labels.
        unit: of the target.
        options: as `csv.csv_file` takes them.
    """

    def table(source: str, path: Path) -> Splits:
        held = csv.csv_file(request, path=str(path.absolute()), **options)
        extra = dict(held.facts.extra)
        facts = dataclasses.replace(held.facts, classes=classes or held.facts.classes, unit=unit)
        if names:
            places = {f"column {place}": column for place, column in enumerate(names, 1)}
            numeric, target = tuple(places[column] for column in facts.numeric), places[facts.target]
            facts = dataclasses.replace(facts, numeric=numeric, target=target, extra=extra | {"columns": list(names)})
        return dataclasses.replace(held, name=name, source=source, facts=facts)

    def from_files(root: Path) -> Splits | None:
        path = first(root, *files)
        return table("files", path) if path else None

    def fetched() -> Splits | None:
        path = download.cached(remote, f"{name}.csv", request.offline)
        return table("download", path) if path else None

    return choose(name, request, [*at_roots(request, from_files), ("files", fetched)])
