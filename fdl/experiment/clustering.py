"""The updates of deep embedded clustering (Xie et al. 2016, https://arxiv.org/abs/1511.06335) between training steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fdl.experiment.updates import Update
from fdl.tasks import clustering
from fdl.tasks.task import View
from fdl.types import Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class KMeansCentres(Update):
    """Replace the cluster centres by k-means of the training rows' codes.

    Attributes:
        starts: how many k-means++ starts are tried; the best one is taken.
    """

    starts: Count = 10

    def compute(self, view: View) -> Mapping[str, Any]:
        codes = view.decoded(view.splits.train)["code"]
        count = len(view.variables["params"]["centres"])
        _, centres = clustering.kmeans(codes, count, self.starts, view.seed)
        return {"params/centres": centres.astype(np.float32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetDistribution(Update):
    """Replace each training row's wanted assignments by the sharpened present ones."""

    def compute(self, view: View) -> Mapping[str, Any]:
        assignments = view.decoded(view.splits.train)["assignments"].astype(np.float64)
        return {"clustering/targets": clustering.target_distribution(assignments).astype(np.float32)}
