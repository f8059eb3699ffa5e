"""Which items to show a user: a score for each item, from those that the user has.

Legend: B batch, I items, N users.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.data.formats import cells
from fdl.data.formats.tables import require
from fdl.data.splits import Splits
from fdl.files import to_csv, write_all
from fdl.tasks.losses import Score
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Panel, Task, View
from fdl.types import Array, Arrays, Batch, Count, Metrics, UserError, printable


@dataclasses.dataclass(frozen=True)
class Recommendation(Task):
    """Scores [B, I] from histories [B, I]; the loss is the cross-entropy of a user's items (Liang et al. 2018, equation 2).

    In evaluation the items of the history are out of the race, and all others are ranked.

    Attributes:
        top: length of the list that is measured and shown.
    """

    top: Count = 10

    monitor: ClassVar[str] = "ndcg"
    better: ClassVar[Better] = "max"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "ndcg": MetricStyle(better="max"),
        "recall": MetricStyle(better="max"),
        "loss": MetricStyle("nats", better="min"),
    }

    def score(self, outputs: Array, batch: Batch) -> dict[str, Score]:
        """Compute the mean cross-entropy of a user's targets [B], weighted by their number."""
        wanted = batch["targets"].astype(jnp.float32)
        if "step" not in batch:  # in training the targets are the history itself
            outputs = _without_history(outputs, batch)
        log_share = jnp.where(wanted > 0, jax.nn.log_softmax(outputs), 0)
        count = wanted.sum(-1)
        return {"loss": (-(wanted * log_share).sum(-1) / jnp.maximum(count, 1), count)}

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Find the best items outside the history: "items" int32 [B, top], best first, and their "scores"."""
        outputs = self.apply(model, variables, batch, train=False, rngs=rngs)
        scores, items = jax.lax.top_k(_without_history(outputs, batch), self.top)
        return {"items": items, "scores": scores}

    def measure(self, view: View, rows: Arrays) -> Metrics:
        """Compute "recall" and "ndcg" at `top`; see `list_metrics`."""
        return list_metrics(view.decoded(rows)["items"], rows["targets"])

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse a list longer than the catalogue."""
        if self.top > splits.train["inputs"].shape[1]:
            raise UserError(
                f"task.top={self.top}: {splits.name} has {splits.train['inputs'].shape[1]} items; set fewer"
            )

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the most popular items, and EASE."""
        history, wanted = splits.evaluated["inputs"], splits.evaluated["targets"]
        found = {
            "most popular": np.broadcast_to(history.sum(0, dtype=np.float64), history.shape),
            "EASE": ease(history),
        }
        return {
            name: list_metrics(_best(np.where(history > 0, -np.inf, scores), self.top), wanted)
            for name, scores in found.items()
        }

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [lambda: lists(view)]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write recommendations.csv for a user of the data (--input=USER_ID) or anybody's own films (a CSV with movieId)."""
        extra = view.splits.facts.extra
        history = np.zeros((1, extra["items"]), np.uint8)
        history[0, _known_items(source, extra)] = 1
        _, found = next(view.over({"inputs": history, "targets": np.zeros_like(history)}))
        items, scores = np.asarray(found["items"][0]), np.asarray(found["scores"][0])
        some = np.isfinite(scores)  # a user who has nearly everything gets a shorter list
        table = list_csv(items[some], scores[some], "score", extra)
        return write_all(out, {"recommendations.csv": table})


def list_metrics(items: np.ndarray, wanted: np.ndarray) -> Metrics:
    """Compute the means over the users with any wanted item, of lists [N, T], best first, against wanted [N, I] (1 or 0).

    "recall": the share of the wanted items that are in the list. "ndcg": the sum of 1 / log2(place + 1) over the wanted
    items in the list (places from 1), over the most that a list of this length could have.
    """
    count, length = wanted.sum(1, dtype=np.int64), items.shape[1]
    some = count > 0
    hit = np.take_along_axis(wanted, items, axis=1)[some] > 0
    gain = 1 / np.log2(np.arange(length) + 2)
    most = np.cumsum(gain)[np.minimum(count[some], length) - 1]
    return {"recall": float((hit.sum(1) / count[some]).mean()), "ndcg": float((hit @ gain / most).mean())}


def ease(history: np.ndarray, decay: float = 300.0) -> np.ndarray:
    """Score items by EASE (Steck 2019, https://arxiv.org/abs/1905.03375, equation 8): the best linear map with a zero diagonal.

    With X the histories and P = (X'X + decay)^-1, the scores are X - XP / diag(P). P is made of the smaller (XX' + decay)^-1
    (Woodbury's identity), so that few users make it cheap however many items there are.

    Args:
        history: 1 or 0, [N, I].

    Returns:
        float64 [N, I].
    """
    x = history.astype(np.float64)
    gram = x @ x.T
    inner = np.linalg.solve(gram + decay * np.eye(len(x)), x)
    diagonal = (1 - np.einsum("ni,ni->i", x, inner)) / decay
    return x - (x - gram @ inner) / decay / diagonal


def lists(view: View, users: int = 5) -> Panel:
    """Tabulate some users' films, what the model recommends, and which of these were held out."""
    rows, titles = view.splits.evaluated, view.splits.facts.extra.get("titles", [])
    some = {name: column[:users] for name, column in rows.items()}
    found = view.decoded(some)["items"]
    table = []
    for user, items in enumerate(found):
        known = ", ".join(titles[i] for i in np.flatnonzero(some["inputs"][user])[:5])
        shown = ", ".join(
            f"{titles[i]}{' (held out)' if some['targets'][user, i] else ''}"
            for i in items
            if not some["inputs"][user, i]
        )
        table.append((str(user + 1), known, shown))
    text = "Of the first users of the test split."
    return Panel("Lists", text, header=("user", "five of the films rated", "recommended, best first"), rows=table)


def user_number(source: str, extra: Mapping[str, Any]) -> int:
    """Return the number of a user by the id of the ratings file.

    Raises:
        UserError: it is none.
    """
    ids = extra["user_ids"]
    if not source.strip().isdecimal() or int(source) not in ids:
        raise UserError(
            f"--input={printable(source, 40)}: there is no such user; give a userId of the ratings, {ids[0]} to {ids[-1]}"
        )
    return ids.index(int(source))


def list_csv(items: np.ndarray, values: np.ndarray, name: str, extra: Mapping[str, Any]) -> str:
    """Format a list of items, best first, as CSV with their titles and values."""
    rows = [
        (place, extra["item_ids"][item], extra["titles"][item], f"{value:.4f}")
        for place, (item, value) in enumerate(zip(items, values, strict=True), 1)
    ]
    return to_csv([("place", "movieId", "title", name), *rows])


def _known_items(source: str, extra: Mapping[str, Any]) -> list[int]:
    """Return the numbers of the items that a user of the data has, or that a CSV file names."""
    path = Path(source).expanduser()
    if not path.is_file():
        return extra["rated"][user_number(source, extra)]
    held = cells.read(path, header="yes")
    require(held, ("movieId",))
    number = {item: place for place, item in enumerate(extra["item_ids"])}
    values, _ = held.numbers("movieId")
    known = [number[int(value)] for value in values if value in number]
    if not known:
        raise UserError(
            f"{path}: none of its {len(values)} films is among the {extra['items']} of the ratings; give others"
        )
    return known


def _without_history(outputs: Array, batch: Batch) -> Array:
    return jnp.where(batch["inputs"] > 0, -jnp.inf, outputs)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]
