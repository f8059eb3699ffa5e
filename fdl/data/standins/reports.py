"""A stand-in for news with summaries: short reports about one subject each, whose summary is the sentences that name it."""

from __future__ import annotations

import numpy as np

SEED = 0
_SUBJECTS = (
    "harbour",
    "orchestra",
    "railway",
    "glacier",
    "library",
    "vaccine",
    "satellite",
    "election",
    "museum",
    "festival",
)
_NAMING = (
    "The {0} will open again in {1}.",
    "Experts say that the {0} has cost {1} million.",
    "The {0} is older than {1} years.",
)
_OTHERS = (
    "It rained for {1} days in the north.",
    "Nobody was surprised by this.",
    "A spokesman declined to comment on page {1}.",
)


def articles(count: int = 400) -> list[tuple[str, str]]:
    """Draw (article, summary): a headline, then sentences of which two fifths name the subject."""
    rng = np.random.default_rng(SEED)
    pairs = []
    for number in range(count):
        subject = _SUBJECTS[number % len(_SUBJECTS)]
        size = int(rng.integers(6, 16))
        naming = rng.permutation(size) < round(0.4 * size)
        lines = [
            (_NAMING if named else _OTHERS)[rng.integers(3)].format(subject, int(rng.integers(2, 99)))
            for named in naming
        ]
        summary = "".join(line for line, named in zip(lines, naming, strict=True) if named)
        pairs.append((f"News of the {subject} {number}\n\n{' '.join(lines)}", summary))
    return pairs
