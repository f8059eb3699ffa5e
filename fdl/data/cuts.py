"""Which rows are held out of training: how many (Portion), and by which rule (Cut)."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Literal

from fdl.types import printable

_PORTION = re.compile(r"(\d+(?:\.\d+)?)\s*(%)?", re.ASCII)
_CUT = re.compile(r"(?:(auto|random|stratified|last|content)|(group):(.+?))(?:,\s*fold=(\d{1,4})/(\d{1,4}))?")


@dataclasses.dataclass(frozen=True)
class Portion:
    """Some of the rows: a number of them (`2000`), or a share (`10%`)."""

    value: float
    unit: Literal["", "%"] = ""

    @classmethod
    def parse(cls, text: str | int | Portion) -> Portion:
        """Parse `text` as a portion.

        Raises:
            ValueError: it is neither a whole number nor a share below 100 %.
        """
        if isinstance(text, Portion):
            return text
        match = _PORTION.fullmatch(str(text).strip())
        if not match or (not match[2] and "." in match[1]):
            raise ValueError("expected a number of rows such as 2000, or a share such as 10%")
        value = float(match[1])
        unit: Literal["", "%"] = "%" if match[2] else ""
        if value >= (100 if unit else 2**31):
            raise ValueError(
                "expected a share below 100%" if unit else "expected a number of rows that 32 bits can hold"
            )
        return cls(value, unit)

    def __str__(self) -> str:
        return f"{self.value:.15g}{self.unit}"

    def __bool__(self) -> bool:
        return self.value > 0

    def rows(self, total: int) -> int:
        """Return how many of `total` rows to take; of a share above 0 at least one."""
        if not self.unit:
            return int(self.value)
        return max(1, round(self.value / 100 * total)) if self.value else 0


@dataclasses.dataclass(frozen=True)
class Cut:
    """The rule by which rows are held out.

    Attributes:
        kind: "auto": "last" where rows overlap their neighbours (windows of a series), else "random"; "random": by a
            permutation with a fixed seed, the same in every run; "stratified": of each class its share, rows with equal inputs
            together; "last": those at the end, for rows in the order of time; "group": whole groups of rows that share a value
            of `column` (a speaker, a patient); "content": whole groups of rows whose inputs are equal byte for byte.
        column: of "group": the name of a column of the rows.
        fold, folds: of k-fold cross-validation: the test rows are the fold of this number (from 1) of so many, whatever
            `Data.test` says; every row is in one fold. 0: no folds.
    """

    kind: Literal["auto", "random", "stratified", "last", "group", "content"] = "auto"
    column: str = ""
    fold: int = 0
    folds: int = 0

    @classmethod
    def parse(cls, text: str | Cut) -> Cut:
        """Parse `text` as a cut: a rule, and a fold where there are any ("random", "content,fold=2/5").

        Raises:
            ValueError: it is none of the six rules, or a fold that there is not.
        """
        if isinstance(text, Cut):
            return text
        match = _CUT.fullmatch(text.strip())
        if not match:
            raise ValueError(
                "expected auto, random, stratified, last, content or group:COLUMN, with ,fold=1/10 after it for the first of "
                f"10 folds, not {printable(text, 40)!r}"
            )
        fold, folds = int(match[4] or 0), int(match[5] or 0)
        if match[4] and not (1 <= fold <= folds and folds > 1):
            raise ValueError(f"there is no fold {fold} of {folds}: expected fold=1/{max(2, folds)} to the last")
        if folds and match[1] == "last":
            raise ValueError(
                "folds of rows in the order of time would train on what comes after the test rows: leave fold out"
            )
        return cls(match[1] or match[2], match[3] or "", fold, folds)  # type: ignore[arg-type]  # the pattern admits these alone

    def __str__(self) -> str:
        rule = f"{self.kind}:{self.column}" if self.column else self.kind
        return f"{rule},fold={self.fold}/{self.folds}" if self.folds else rule


if TYPE_CHECKING:
    PortionLike = Portion | str | int
    CutLike = Cut | str
else:
    PortionLike, CutLike = Portion, Cut  # what a field holds once its class has parsed it, and what --set reads
