"""How a task scores and averages the members of an ensemble (`fdl.models.members`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fdl.models.members import Members
from fdl.tasks.losses import Score
from fdl.types import Array, Batch


def score_members(
    score: Callable[[Array, Batch], Mapping[str, Score]], outputs: Members, batch: Batch
) -> dict[str, Score]:
    """Score each member by itself; return the means over the members, so that each trains as if it were alone."""
    scores = jax.vmap(lambda one: dict(score(one, batch)), in_axes=1)(outputs.values)
    return jax.tree.map(lambda values: values.mean(0), scores)


def average_outputs(outputs: Any) -> Any:
    """Average the members' outputs: [B, M, ...] -> [B, ...]; anything but `Members` is returned as it is."""
    return outputs.values.mean(1) if isinstance(outputs, Members) else outputs


def average_probabilities(outputs: Any) -> Any:
    """Average the members' probabilities: logits [B, M, K] -> log probabilities [B, K], which are logits too.

    A single logit [B, M, 1], of the second of two classes, becomes the logit of the mean probability, [B, 1]. Anything but
    `Members` is returned as it is.
    """
    if not isinstance(outputs, Members):
        return outputs
    values, members = outputs.values, outputs.values.shape[1]
    if values.shape[-1] == 1:
        yes, no = (jax.nn.logsumexp(jax.nn.log_sigmoid(sign * values), axis=1) for sign in (1, -1))
        return yes - no
    return jax.nn.logsumexp(jax.nn.log_softmax(values), axis=1) - jnp.log(members)
