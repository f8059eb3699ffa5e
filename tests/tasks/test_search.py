"""Beam search beside every sequence there is."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.tasks.search import beam_search, repeat

VOCABULARY, LENGTH, BEGIN, END = 5, 4, 2, 3  # 0 is padding


def model(seed: int) -> np.ndarray:
    """Log probabilities of a token after each other one, for two sources: [2, V, V]."""
    logits = np.random.default_rng(seed).normal(size=(2, VOCABULARY, VOCABULARY)).astype(np.float32) * 2
    return np.asarray(jax.nn.log_softmax(logits))


def every_sequence(logp: np.ndarray, penalty: float) -> tuple[list[int], float]:
    best: tuple[list[int], float] = [], -np.inf
    for length in range(1, LENGTH + 1):
        for tokens in itertools.product((1, 3, 4), repeat=length):
            if END in tokens[:-1] or (length < LENGTH and tokens[-1] != END):
                continue
            total = sum(logp[before, after] for before, after in zip((BEGIN, *tokens), tokens, strict=False))
            compared = total / ((5 + length) / 6) ** penalty
            if compared > best[1]:
                best = list(tokens), compared
    return best


def search(logp: np.ndarray, beams: int, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    source = repeat(jnp.asarray(logp), beams)

    def step(token: jax.Array, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
        return source[jnp.arange(len(token)), token], steps + 1

    found = beam_search(
        step, jnp.zeros(2 * beams), 2, beams=beams, length=LENGTH, begin=BEGIN, end=END, penalty=penalty
    )
    return np.asarray(found[0]), np.asarray(found[1])


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_sequences(penalty: float) -> None:
    for seed in range(3):
        logp = model(seed)
        tokens, compared = search(logp, beams=81, penalty=penalty)
        for row in range(2):
            wanted, score = every_sequence(logp[row], penalty)
            assert tokens[row].tolist() == wanted + [0] * (LENGTH - len(wanted))
            assert compared[row] == pytest.approx(score, rel=1e-5)


def test_one_beam_is_greedy() -> None:
    logp = model(7)
    tokens, _ = search(logp, beams=1, penalty=0.6)
    for row in range(2):
        last, wanted = BEGIN, []
        while len(wanted) < LENGTH and last != END:
            allowed = logp[row, last].copy()
            allowed[[0, BEGIN]] = -np.inf
            last = int(allowed.argmax())
            wanted.append(last)
        assert tokens[row].tolist() == wanted + [0] * (LENGTH - len(wanted))
