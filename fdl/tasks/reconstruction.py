"""Autoencoders: pictures from a short code, scored by their error or by a bound on their likelihood."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.data.splits import Splits
from fdl.files import to_csv, write_all
from fdl.tasks.panels import figures, generation
from fdl.tasks.picture_inputs import read_pictures, shown_name, spec_of
from fdl.tasks.task import DrawPanel, MetricStyle, Task, View
from fdl.types import Array, Arrays, Batch, Count, Metrics, NonNegative, UserError, take

_FITTED = 10_000
"""Training rows that baselines are fitted to, and test rows that they are scored on, at most."""
_DRAWN = 40


@dataclasses.dataclass(frozen=True)
class Reconstruction(Task):
    """The mean squared error of pictures in [0, 1] against the sigmoid of a model's "logits" (`fdl.models.Autoencoder`)."""

    styles: ClassVar[Mapping[str, MetricStyle]] = {"loss": MetricStyle("squared brightness", better="min")}

    def score(self, outputs: Mapping[str, Array], batch: Batch) -> dict[str, Array]:
        """Compute the loss [B], the mean over all pixels."""
        error = jnp.square(jax.nn.sigmoid(outputs["logits"]) - batch["inputs"])
        return {"loss": error.mean(tuple(range(1, error.ndim)))}

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse inputs that are no pictures of the decoder's size."""
        shape = tuple(splits.train["inputs"].shape[1:])
        if tuple(outputs["logits"].shape[1:]) != shape:
            raise UserError(
                f"the decoder gives pictures {list(outputs['logits'].shape[1:])}, the data have {list(shape)}; leave "
                "model.shape out, and data.prepare without padding"
            )

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the mean picture, and as many principal components as a code of 32 numbers has."""
        from sklearn.decomposition import PCA

        train, test = (unit_rows(rows) for rows in (splits.train, splits.evaluated))
        fitted = PCA(min(32, *train.shape), random_state=0).fit(train)
        linear = fitted.inverse_transform(fitted.transform(test)).clip(0, 1)
        return {
            "mean picture": {"loss": float(np.square(test - train.mean(0)).mean())},
            f"{fitted.n_components_} principal components": {"loss": float(np.square(test - linear).mean())},
        }

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [lambda: generation.reconstructions(view), lambda: generation.interpolations(view)]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv with the loss of each of a user's pictures, and predictions.png: each over its reconstruction."""
        table = [["file", "loss"]]
        drawn: list[np.ndarray] = []
        for chunk in read_pictures(source, spec_of(view.splits)):
            if not chunk.names:
                continue
            rows = {"inputs": chunk.rows}
            outputs, prepared = view.outputs(rows), view.prepared(rows)
            losses = self.score(jax.tree.map(jnp.asarray, outputs), jax.tree.map(jnp.asarray, prepared))["loss"]
            table += [
                [shown_name(name), f"{loss:.6g}"] for name, loss in zip(chunk.names, np.asarray(losses), strict=True)
            ]
            first = slice(max(0, _DRAWN - sum(map(len, drawn))))
            drawn.append(generation.pairs(prepared["inputs"][first], outputs["logits"][first]))
        figure = figures.sheet(figures.viewable(np.concatenate(drawn)), 8)
        return write_all(out, {"predictions.csv": to_csv(table), "predictions.png": figures.png(figure)})


@dataclasses.dataclass(frozen=True)
class Variational(Reconstruction):
    """The negative evidence lower bound (ELBO) of pictures of 0 and 1 (`fdl.data.binarize.Binarize`), in nats a picture.

    -ELBO = -log p(x | z) + KL(q(z | x) || N(0, 1)), z ~ q (Kingma and Welling 2014, https://arxiv.org/abs/1312.6114,
    equation 10), p Bernoulli by pixel. "importance_bound" is the tighter -log 1/K sum_k p(x, z_k) / q(z_k | x) (Burda et al.
    2016, https://arxiv.org/abs/1509.00519, equation 8), whose K are `samples`.

    Attributes:
        warmup_steps: over which the divergence's weight grows to 1 in training (Sønderby et al. 2016; 0: it is 1).
        samples: K.
    """

    warmup_steps: NonNegative = 0.0
    samples: Count = 64

    monitor: ClassVar[str] = "elbo"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        name: MetricStyle("nats", better="min")
        for name in ("loss", "elbo", "reconstruction", "divergence", "importance_bound")
    }

    def score(self, outputs: Mapping[str, Array], batch: Batch) -> dict[str, Array]:
        """Compute the loss, the negative ELBO ("elbo") and its two parts, each [B] in nats."""
        mean, log_variance = outputs["code"], outputs["log_variance"]
        reconstruction = -log_likelihood(outputs["logits"], batch["inputs"])
        divergence = (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1) / 2
        warms = self.warmup_steps and "step" in batch
        warm = jnp.minimum(1.0, (batch["step"] + 1) / self.warmup_steps) if warms else 1.0
        elbo = reconstruction + divergence
        loss = reconstruction + warm * divergence
        return {"loss": loss, "elbo": elbo, "reconstruction": reconstruction, "divergence": divergence}

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> Array:
        """Compute the importance-weighted bound, negated, [B] in nats."""
        x = batch["inputs"]
        mean, log_variance = cast(tuple[Array, Array], model.apply(variables, x, method="encode"))
        key = (rngs or {}).get("params", jax.random.key(0))
        noise = jax.random.normal(key, (self.samples, *mean.shape))
        codes = mean[None] + jnp.exp(log_variance / 2)[None] * noise
        # Sample by sample: all at once would hold `samples` times the decoder's maps.
        likelihoods = [log_likelihood(cast(Array, model.apply(variables, code, method="decode")), x) for code in codes]
        # log p(z) - log q(z | x): the constants of both normal densities cancel.
        prior = -jnp.square(codes).sum(-1) / 2
        proposal = -(jnp.square(noise) + log_variance[None]).sum(-1) / 2
        weights = jnp.stack(likelihoods) + prior - proposal
        return math.log(self.samples) - jax.nn.logsumexp(weights, axis=0)

    def measure(self, view: View, rows: Arrays) -> Metrics:
        """Compute "importance_bound", the mean over a split."""
        return {"importance_bound": float(view.decoded(rows).astype(np.float64).mean())}

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score a Bernoulli distribution of each pixel, and a mixture of 100 such (its exact likelihood, not a bound)."""
        train, test = (
            (np.random.default_rng(0).random(rows.shape) < rows).astype(np.float32)
            for rows in (unit_rows(splits.train), unit_rows(splits.evaluated))
        )
        single, mixture = (bernoulli_mixture(train, test, count) for count in (1, min(100, len(train))))
        return {"pixels alone": {"elbo": single}, "mixture of 100 Bernoulli": {"elbo": mixture}}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [lambda: generation.samples(view), *super().panels(view)]


def log_likelihood(logits: Array, x: Array) -> Array:
    """Compute log p(x) in nats of pictures of 0 and 1 [B, ...] under Bernoulli pixels, [B]."""
    each = x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)
    return each.sum(tuple(range(1, each.ndim)))


def unit_rows(rows: Arrays, most: int = _FITTED) -> np.ndarray:
    """Return the first inputs as float32 [N, pixels] between 0 and 1."""
    inputs = np.asarray(take(rows, slice(most))["inputs"])
    high = np.iinfo(inputs.dtype).max if np.issubdtype(inputs.dtype, np.integer) else 1
    return inputs.reshape(len(inputs), -1).astype(np.float32) / np.float32(high)


def bernoulli_mixture(train: np.ndarray, test: np.ndarray, components: int, rounds: int = 20) -> float:
    """Return the mean -log p in nats of test rows of 0 and 1 under a mixture that `rounds` of expectation-maximisation fit.

    Starts from rows drawn with a fixed seed; probabilities are smoothed by one row of grey.
    """
    rng = np.random.default_rng(0)
    means = (
        0.25 + 0.5 * train[rng.choice(len(train), components, replace=False)] if components > 1 else train[:1] * 0 + 0.5
    )
    shares = np.full(components, 1 / components)

    def joint(x: np.ndarray) -> np.ndarray:
        return x @ np.log(means).T + (1 - x) @ np.log1p(-means).T + np.log(shares)

    for _ in range(rounds):
        scores = joint(train)
        belongs = np.exp(scores - np.logaddexp.reduce(scores, 1, keepdims=True))
        total = belongs.sum(0)
        shares = (total + 1) / (total + 1).sum()
        means = ((belongs.T @ train) + 0.5) / (total[:, None] + 1)
    return float(-np.logaddexp.reduce(joint(test), 1).mean())
