"""Sentences that praise or blame, made by a small grammar: they stand in for review data sets that cannot be had."""

from __future__ import annotations

import numpy as np

from fdl.types import Arrays

SEED = 0
_THINGS = ("film", "story", "cast", "script", "ending", "music", "director", "dialogue", "plot", "camera work")
_GOOD = ("moving", "funny", "brilliant", "warm", "gripping", "fresh", "clever", "charming", "rich", "honest")
_BAD = ("dull", "clumsy", "tedious", "shallow", "stale", "loud", "hollow", "bland", "confused", "pointless")
_LINKS = ("and", "but also", ",", "while the rest is")


def reviews(count: int, number: int = 0) -> Arrays:
    """Make {"inputs": object [N] of sentences, "targets": int32 [N], 1 for praise}, the same for the same `number`.

    "not" turns an adjective round, so that single words do not decide everything.
    """
    rng = np.random.default_rng((SEED, number))
    targets = rng.permutation(np.arange(count) % 2).astype(np.int32)
    texts = np.empty(count, object)
    for row, label in enumerate(targets):
        parts = []
        for _ in range(rng.integers(1, 4)):
            turned = rng.random() < 0.3
            words = _GOOD if bool(label) != turned else _BAD
            parts.append(f"the {rng.choice(_THINGS)} is {'not ' if turned else ''}{rng.choice(words)}")
        texts[row] = f" {rng.choice(_LINKS)} ".join(parts) + " ."
    return {"inputs": texts, "targets": targets}
