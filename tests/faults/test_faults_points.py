"""Killed at each point where something becomes true on the disk: the old state or the new, never half."""

from __future__ import annotations

import random
from pathlib import Path

import forked
import pytest

from faults import campaign, starts
from faults.points import Point

SEED = 0
EACH, ALL_EACH = 1, 20

POINTS: dict[str, list[Point]] = {
    "before the arrays": [Point("orbax.checkpoint:AsyncCheckpointer.save")],
    "arrays written, before Orbax's rename": [Point("os:rename", match="orbax-checkpoint-tmp")],
    "arrays there, before the hashes": [Point("fdl.checkpoint.manifest:file_digests")],
    "manifest written, before its rename": [Point("os:replace", match="manifest.json")],
    "after the manifest's rename": [Point("os:replace", match="manifest.json", after=True)],
    "a step to be deleted has no manifest": [Point("shutil:rmtree", match="checkpoints")],
    "half of a step deleted": [Point("os:unlink", nth=3)],
    "config.json": [Point("os:replace", match="config.json"), Point("os:replace", match="config.json", after=True)],
    "the log cut back": [
        Point("os:truncate", match="metrics.jsonl"), Point("os:truncate", match="metrics.jsonl", after=True),
        Point("fdl.rundir.logs:cut_events", after=True),
    ],
    "half a row": [Point("fdl.checkpoint.manifest:seal")],
    "what is known of a saved step": [Point("os:replace", match="manifest.json")],
    "metrics.csv": [Point("os:replace", match="metrics.csv"), Point("os:replace", match="metrics.csv", after=True)],
    "summary.json": [Point("os:replace", match="summary.json"), Point("os:replace", match="summary.json", after=True)],
    "report.html": [Point("os:replace", match="report.html"), Point("os:replace", match="report.html", after=True)],
}  # fmt: skip


def strike(server: forked.Server, root: Path, each: int) -> None:
    """Each point so many times, in a random order, over as many runs as that takes; every run compared at its end."""
    rng = random.Random(SEED)
    names = [name for name in POINTS for _ in range(each)]
    rng.shuffle(names)
    experiment = campaign.EXPERIMENTS[0]
    hit = dict.fromkeys(POINTS, 0)
    expected, _ = campaign.whole(server, experiment, root / "whole")
    runs = 0
    while names:
        cwd = root / f"run{runs}"
        cwd.mkdir()
        runs += 1
        done, waited = False, 0
        while not done:
            armed: tuple[Point, ...] = ()
            if names:
                name = names[-1]
                if name == "what is known of a saved step":  # an evaluation broken off leaves such a step
                    first = starts.start(
                        server,
                        campaign.arguments(experiment),
                        cwd,
                        Point("fdl.train.loop:evaluate", "term"),
                        rows=cwd / "fed",
                    )
                    done = first.wait() == 0
                    assert done or "saved" in first.said(), first.said()
                armed = (rng.choice(POINTS[name]),)
            started = starts.start(server, campaign.arguments(experiment), cwd, *armed, rows=cwd / "fed")
            code = started.wait()
            assert code in (0, -9), started.said()
            done = code == 0
            if not done:
                hit[names.pop()] += 1
                waited = 0
                log = cwd / "run" / "metrics.jsonl"
                if name == "half a row" and log.exists():
                    log.write_text(log.read_text()[: -rng.randrange(1, 60)])
            elif names:
                waited += 1
                assert waited < 3, f"never reached: {names[-1]}"
        assert starts.outcome(cwd / "run", cwd / "fed") == expected, cwd
        assert starts.leftovers(cwd / "run") == []
        if names and runs > 2 * each * len(POINTS):
            raise AssertionError(f"never reached: {names[-1]}")
    print(hit, runs, "runs")
    assert all(count == each for count in hit.values())


def test_each_point_once(server: forked.Server, tmp_path: Path) -> None:
    strike(server, tmp_path, EACH)


@pytest.mark.slow
def test_each_point_twenty_times(server: forked.Server, tmp_path: Path) -> None:
    strike(server, tmp_path, ALL_EACH)


@pytest.mark.parametrize(("match", "nth"), [("manifest.json", 2), ("manifest.json", 4), ("summary.json", 1)])
def test_a_disk_that_fails_in_a_run(server: forked.Server, tmp_path: Path, match: str, nth: int) -> None:
    """In the middle, at the last save and behind it: one line, exit 1, and the same command goes on."""
    what = {2: "enospc", 4: "eio", 1: "erofs"}[nth]
    argv = [*campaign.arguments("small_fashion"), "--set=steps=45"]
    start = starts.start(server, argv, tmp_path, Point("os:replace", what, nth, match), rows=tmp_path / "fed")
    assert start.wait() == 1, start.said()
    assert len(start.errors()) == 1, start.said()
    assert str(tmp_path / "run") in start.errors()[0] or "run/" in start.errors()[0]
    assert "free" in start.errors()[0] or match == "summary.json"
    assert sorted((tmp_path / "run" / "checkpoints").glob("*/manifest.json")) != []
    again = starts.start(server, argv, tmp_path, rows=tmp_path / "fed")
    assert again.wait() == 0, again.said()
    assert "resumed" in again.said()
