"""Killed, signalled or out of disk at any instant: the same command goes on and ends with the same bits."""

from __future__ import annotations

import random
from pathlib import Path

import forked
import pytest

from faults import campaign

SEED = 0
KILLS, ALL_KILLS = 6, 1000
SIGNALS, ALL_SIGNALS = 5, 200


def deal(kills: int, signals: int, seed: int) -> list[str]:
    """Every fifth signal is followed by a second one."""
    stops = ["KILL"] * kills + [("TERM", "INT", "TERM", "INT", "TWICE")[i % 5] for i in range(signals)]
    random.Random(seed).shuffle(stops)
    return stops


def check(server: forked.Server, kills: int, signals: int, root: Path) -> None:
    count = campaign.stop_and_go(server, deal(kills, signals, SEED), SEED, root)
    print(dict(count))
    assert count["KILL"] == kills
    assert count["TERM"] + count["INT"] + count["TWICE"] == signals
    assert count["most repeated"] <= 2 * campaign.SAVE_EVERY, "the interval and the save under way at most"


def test_some_stops_and_the_same_bits(server: forked.Server, tmp_path: Path) -> None:
    check(server, KILLS, SIGNALS, tmp_path)


@pytest.mark.slow
def test_a_thousand_kills_and_the_same_bits(server: forked.Server, tmp_path: Path) -> None:
    check(server, ALL_KILLS, ALL_SIGNALS, tmp_path)
