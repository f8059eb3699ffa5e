"""California housing: census block groups of 1990 (Pace and Barry 1997), with a text column and missing cells."""

from __future__ import annotations

import dataclasses

import numpy as np

from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.cells import Cells
from fdl.data.formats.tables import OTHER, category_names, rows_of
from fdl.data.splits import Facts, OnBad
from fdl.types import Arrays, UserError, take

NUMERIC = (
    "longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms", "population", "households",
    "median_income",
)  # fmt: skip
CATEGORY = "ocean_proximity"
TARGET = "median_house_value"
TEST_SEED, TEST_SHARE = 0, 0.2


def arrays(held: Cells, on_bad: OnBad = "stop") -> tuple[Arrays, Arrays, Facts, tuple[Bad, ...]]:
    """Return (train, test, facts, rows left out) of a table with California housing's columns, in any order.

    Each split is {"inputs": {"numeric": float32 [N, 8], NaN where missing, "category": int32 [N, 1]}, "targets": float32
    [N], 100,000 dollars}. A fifth of the rows, by a permutation with a fixed seed, is for testing. The categories are
    those of the training rows, in order, then one for any other.

    Raises:
        BadInputs: lines have another number of cells than the header, or cells that are no finite number, and `on_bad`
            is "stop"; every such line is in it.
        UserError: a column is missing, or fewer than two good rows are left.
    """
    names = category_names(held, CATEGORY) if CATEGORY in held.names else (OTHER,)
    facts = Facts(numeric=NUMERIC, categories={CATEGORY: names}, target=TARGET, unit="100,000 dollars")
    rows, bad = rows_of(held, facts, divisor=1e5)
    skipped = settle(bad, len(held.lines) + len(held.bad), "rows", on_bad)
    total = len(rows["targets"])
    if total < 2:
        raise UserError(f"{held.where} holds {total} good rows of data: at least 2 are needed; get the whole file")
    order = np.random.default_rng(TEST_SEED).permutation(total)
    num_test = max(1, round(TEST_SHARE * total))
    test, train = take(rows, np.sort(order[:num_test])), take(rows, np.sort(order[num_test:]))
    seen = np.setdiff1d(train["inputs"]["category"], len(names) - 1)
    number = np.full(len(names), len(seen), np.int32)
    number[seen] = np.arange(len(seen))
    for part in (train, test):
        part["inputs"]["category"] = number[part["inputs"]["category"]]
    categories = {CATEGORY: (*(names[place] for place in seen), OTHER)}
    return train, test, dataclasses.replace(facts, categories=categories), skipped
