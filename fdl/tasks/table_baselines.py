"""Strong methods for tables from scikit-learn, printed beside a network's result; only where they take seconds.

Legend: N training rows, R rows to predict.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fdl.tasks import tables

MOST_CELLS = 2_000_000
"""Gradient boosting over a larger training table takes longer than seconds."""
MOST_KERNEL_ROWS = 2_000
"""A support vector machine's time grows with the square of the rows."""


def regressions(train: Any, targets: np.ndarray, rows: Any) -> dict[str, np.ndarray]:
    """Predict one value a row by gradient boosting and, where rows are few, by a support vector machine.

    Args:
        train, rows: inputs of a table, as `tables.is_tabular` knows them.
        targets: float64 [N]; where a target is several numbers, nothing is predicted.

    Returns:
        name -> [R].
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.svm import SVR

    seen = _columns(train)
    if targets.ndim > 1 or seen.size > MOST_CELLS or len(seen) < 20:
        return {}
    boosting = HistGradientBoostingRegressor(max_iter=500, random_state=0).fit(seen, targets)
    predicted = {"gradient boosting": boosting.predict(_columns(rows))}
    features, others = tables.linear_features(train, train), tables.linear_features(train, rows)
    if len(seen) <= MOST_KERNEL_ROWS and features is not None and others is not None:
        mean, deviation = targets.mean(), targets.std() or 1.0
        machine = SVR(C=10, epsilon=0.1).fit(features, (targets - mean) / deviation)
        predicted["support vector machine"] = mean + deviation * machine.predict(others)
    return predicted


def _columns(inputs: Any) -> np.ndarray:
    """Return all columns [N, F + K] as numbers; a missing one is NaN, which trees handle."""
    return np.concatenate([tables.numeric(inputs), tables.categories(inputs)], axis=1)


def probabilities(train: Any, labels: np.ndarray, rows: Any) -> dict[str, np.ndarray]:
    """Predict the probability of class 1 of two by a logistic regression and a random forest.

    Args:
        train, rows: inputs of a table.
        labels: int [N], 0 or 1.

    Returns:
        name -> [R].
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    features, others = tables.linear_features(train, train), tables.linear_features(train, rows)
    if features is None or others is None or features.size > MOST_CELLS:
        return {}
    forest = RandomForestClassifier(300, min_samples_leaf=2, random_state=0, n_jobs=-1).fit(features, labels)
    logistic = LogisticRegression(max_iter=1000).fit(features, labels)
    return {
        "logistic regression": logistic.predict_proba(others)[:, 1],
        "random forest": forest.predict_proba(others)[:, 1],
    }
