"""Beam search, traced: the likeliest sequences of a model that gives one token's logits at a time.

Legend: B sources, K beams, V vocabulary, T steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.types import Array

_NEVER = -1e9


def beam_search(
    step: Callable[[Array, Any], tuple[Array, Any]], state: Any, batch_size: int, *, beams: int, length: int, begin: int,
    end: int, pad: int = 0, penalty: float = 0.6,
) -> tuple[Array, Array]:  # fmt: skip
    """Search for the sequences with the highest sum of log probabilities; one beam is greedy search.

    Sequences are compared by sum / ((5 + tokens) / 6)^penalty (Wu et al. 2016, https://arxiv.org/abs/1609.08144, section 7);
    one that has ended stays in the beam as it is. All run for `length` steps or until every beam has ended.

    Args:
        step: (the last tokens [B * K], state) -> (logits [B * K, V], state).
        state: a tree whose arrays lead with B * K (equal for the beams of a source); scalars are shared.
        length: the most tokens, `end` included.
        begin, end, pad: numbers of tokens.

    Returns:
        The best sequence of each source, int32 [B, T] with `pad` after `end`, and its comparison score [B].
    """
    rows = jnp.arange(batch_size)[:, None] * beams
    scores = jnp.tile(jnp.array([[0.0] + [_NEVER] * (beams - 1)]), (batch_size, 1))  # at first all beams are the same

    def more(held: Any) -> Array:
        place, _, _, _, ended, _ = held
        return (place < length) & ~ended.all()

    def advance(held: Any) -> Any:
        place, tokens, last, scores, ended, state = held
        logits, state = step(last.reshape(-1), state)
        logp = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(batch_size, beams, -1)
        size = logp.shape[-1]
        banned = jnp.array([begin, pad])
        logp = logp.at[:, :, banned].set(_NEVER)
        only_pad = jnp.full((size,), _NEVER).at[pad].set(0.0)[None, None]
        total = scores[..., None] + jnp.where(ended[..., None], only_pad, logp)
        scores, chosen = jax.lax.top_k(total.reshape(batch_size, -1), beams)
        beam, token = chosen // size, (chosen % size).astype(jnp.int32)
        tokens = jnp.take_along_axis(tokens, beam[..., None], axis=1).at[:, :, place].set(token)
        ended = jnp.take_along_axis(ended, beam, axis=1) | (token == end)
        order = (rows + beam).reshape(-1)
        state = jax.tree.map(lambda leaf: leaf[order] if leaf.ndim else leaf, state)
        return place + 1, tokens, token, scores, ended, state

    tokens = jnp.full((batch_size, beams, length), pad, jnp.int32)
    first = jnp.full((batch_size, beams), begin, jnp.int32)
    held = (jnp.zeros((), jnp.int32), tokens, first, scores, jnp.zeros((batch_size, beams), bool), state)
    _, tokens, _, scores, _, _ = jax.lax.while_loop(more, advance, held)
    compared = scores / ((5.0 + (tokens != pad).sum(-1)) / 6.0) ** penalty
    best = compared.argmax(-1)[:, None]
    return (
        jnp.take_along_axis(tokens, best[..., None], axis=1)[:, 0],
        jnp.take_along_axis(compared, best, axis=1)[:, 0],
    )


def repeat(tree: Any, beams: int) -> Any:
    """Repeat the leading axis of every array for the beams of a source."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0) if leaf.ndim else leaf, tree)
