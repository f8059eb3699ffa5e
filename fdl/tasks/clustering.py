"""Deep embedded clustering: codes of an autoencoder drawn towards cluster centres, without labels.

Legend: N rows, K clusters, L numbers of a code.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.data.splits import Splits
from fdl.files import to_csv, write_all
from fdl.tasks.panels import clustering as drawing
from fdl.tasks.panels import generation
from fdl.tasks.picture_inputs import read_pictures, shown_name, spec_of
from fdl.tasks.reconstruction import Reconstruction, unit_rows
from fdl.tasks.task import Better, DrawPanel, MetricStyle, View
from fdl.types import Array, Arrays, Batch, Metrics, NonNegative


def soft_assignments(distances: Array) -> Array:
    """Compute Student's t of squared distances [..., K] as shares: q_k ~ 1 / (1 + d_k) (Xie et al. 2016, equation 1)."""
    near = 1 / (1 + distances)
    return near / near.sum(-1, keepdims=True)


def target_distribution(assignments: np.ndarray) -> np.ndarray:
    """Sharpen assignments q [N, K]: p_k ~ q_k^2 / sum_n q_nk, so that large clusters do not grow (equation 3)."""
    sharp = assignments**2 / assignments.sum(0)
    return sharp / sharp.sum(1, keepdims=True)


def matched_accuracy(clusters: np.ndarray, classes: np.ndarray) -> float:
    """Return the share of rows whose cluster [N] is matched to their class [N], by the best one-to-one matching (Hungarian)."""
    from scipy.optimize import linear_sum_assignment

    counts = contingency(clusters, classes)
    matched = linear_sum_assignment(counts, maximize=True)
    return float(counts[matched].sum() / len(classes))


def contingency(clusters: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Count rows by [cluster, class]."""
    shape = int(clusters.max()) + 1, int(classes.max()) + 1
    return np.bincount(clusters.astype(np.int64) * shape[1] + classes, minlength=shape[0] * shape[1]).reshape(shape)


def clustering_metrics(clusters: np.ndarray, classes: np.ndarray) -> Metrics:
    """Compute "accuracy" (see `matched_accuracy`), normalised mutual information and the adjusted Rand index."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "accuracy": matched_accuracy(clusters, classes),
        "nmi": float(normalized_mutual_info_score(classes, clusters)),
        "ari": float(adjusted_rand_score(classes, clusters)),
    }


@dataclasses.dataclass(frozen=True)
class Clustering(Reconstruction):
    """The autoencoder's squared error, and KL(p || q) of its soft assignments q from the wanted ones p, in nats.

    p is of the collection "clustering" (see `fdl.models.ClusteringAutoencoder`): while it is 0, the autoencoder alone is
    trained. Keeping the reconstruction in the loss is Guo et al. 2017 (https://doi.org/10.24963/ijcai.2017/243). Labels are
    only scored with.

    Attributes:
        clustering_weight: of the divergence, beside the mean squared error of a pixel.
    """

    clustering_weight: NonNegative = 0.1

    monitor: ClassVar[str] = "accuracy"
    better: ClassVar[Better] = "max"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "accuracy": MetricStyle(percent=True, better="max"),
        "reconstruction": MetricStyle("squared brightness", better="min"),
        "divergence": MetricStyle("nats", better="min"),
    }

    def apply(self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, **settings: Any) -> Any:
        """Call the model; in training its outputs gain "wanted" [B, K], the targets of the batch's rows."""
        outputs = super().apply(model, variables, batch, **settings)
        if not settings.get("train") or "mutable" not in settings:
            return outputs
        wanted = variables["clustering"]["targets"][batch["row"]]
        return {**outputs[0], "wanted": wanted}, outputs[1]

    def score(self, outputs: Mapping[str, Array], batch: Batch) -> dict[str, Array]:
        """Compute "reconstruction", in training "divergence" too, and the loss, each [B]."""
        reconstruction = super().score(outputs, batch)["loss"]
        if "wanted" not in outputs:
            return {"loss": reconstruction, "reconstruction": reconstruction}
        p, q = outputs["wanted"], soft_assignments(outputs["distances"])
        divergence = (jax.scipy.special.xlogy(p, p) - p * jnp.log(q)).sum(-1)
        loss = reconstruction + self.clustering_weight * divergence
        return {"loss": loss, "reconstruction": reconstruction, "divergence": divergence}

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Compute the code [B, L] and the soft assignments [B, K]."""
        outputs = self.apply(model, variables, batch, train=False, rngs=rngs)
        return {"code": outputs["code"], "assignments": soft_assignments(outputs["distances"])}

    def measure(self, view: View, rows: Arrays) -> Metrics:
        """Compute `clustering_metrics` of the nearest centres."""
        return clustering_metrics(view.decoded(rows)["assignments"].argmax(1), np.asarray(rows["targets"]))

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score k-means on the 50 principal components of the pixels, by the best of three starts."""
        from sklearn.decomposition import PCA

        rows, classes = splits.evaluated, np.asarray(splits.evaluated["targets"])
        pixels = unit_rows(rows, len(classes))
        reduced = PCA(min(50, *pixels.shape), random_state=0).fit_transform(pixels)
        clusters, _ = kmeans(reduced, int(classes.max()) + 1, starts=3, seed=0)
        return {"k-means": clustering_metrics(clusters, classes)}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        rows = view.splits.evaluated
        known = functools.cache(lambda: view.decoded(rows))
        return [
            lambda: drawing.embedding(view, known()["code"], known()["assignments"].argmax(1)),
            lambda: drawing.centres(view, known()["assignments"]),
            lambda: drawing.table(view, contingency(known()["assignments"].argmax(1), np.asarray(rows["targets"]))),
            lambda: generation.reconstructions(view),
        ]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv: the cluster of each of a user's pictures, and its share."""
        table: list[Sequence[object]] = [["file", "cluster", "share"]]
        for chunk in read_pictures(source, spec_of(view.splits)):
            if chunk.names:
                shares = np.asarray(soft_assignments(jnp.asarray(view.outputs({"inputs": chunk.rows})["distances"])))
                for name, each in zip(chunk.names, shares, strict=True):
                    table.append([shown_name(name), int(each.argmax()), f"{each.max():.6f}"])
        return write_all(out, {"predictions.csv": to_csv(table)})


def kmeans(points: np.ndarray, clusters: int, starts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Find k-means clusters [N] and centres [K, L] of points [N, L]: the best of several k-means++ starts.

    In one thread: several would add up in an order that changes from run to run.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        fitted = KMeans(clusters, n_init=starts, random_state=seed).fit(points)
    return fitted.labels_, fitted.cluster_centers_
