"""Checkpoints that were damaged, do not fit, or find no room: noticed every time, and the last good one is kept."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging

from faults.damage import damage
from fdl.checkpoint import manifest, saving
from fdl.train.step import State
from fdl.types import RunError, UserError

SEED = 0
MUTATIONS, ALL_MUTATIONS = 100, 2000
SIZES, ALL_SIZES = 10, 50
MISFITS = 60


def state_of(step: int, size: int = 40) -> State:
    rng = np.random.default_rng(step)
    params = {
        "conv": {"kernel": jnp.asarray(rng.normal(size=(3, 3, size)), jnp.float32), "bias": jnp.ones(size)},
        "norm": {"scale": jnp.ones(size, jnp.float16)},
    }
    stats = {"batch_stats": {"norm": {"mean": jnp.asarray(rng.normal(size=size), jnp.float32)}}}
    return State(jnp.asarray(step, jnp.int32), params, stats, optax.adam(1e-3).init(params), None)


def save(root: Path, *steps: int, size: int = 40) -> None:
    with saving.saver(root) as store:
        for step in steps:
            store(step, state_of(step, size), {"best_step": None, "step": step})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "checkpoints"
    save(root, 10, 20)
    return root


@contextlib.contextmanager
def warnings_of_fdl() -> Iterator[list[str]]:
    """The warnings logged meanwhile."""
    said: list[str] = []
    before = logging.warning
    logging.warning = lambda text, *args: said.append(text % args)  # type: ignore[assignment]
    try:
        yield said
    finally:
        logging.warning = before


def mutate(whole: Path, tmp_path: Path, count: int) -> None:
    kinds: dict[str, int] = {}
    good = saving.state_sha256(state_of(10))
    for number in range(count):
        root = tmp_path / "checkpoints"
        shutil.copytree(whole, root)
        done = damage(root / "20", SEED, number)
        kinds[done.split()[0]] = kinds.get(done.split()[0], 0) + 1
        with warnings_of_fdl() as said:
            found = manifest.latest(root)
        gone = not (root / "20" / "manifest.json").exists()  # a step that was never sealed is none
        assert found is not None, done
        if done.startswith("extra"):  # a file that fdl did not write and does not read takes nothing away
            assert found.step == 20, done
            assert saving.state_sha256(saving.restore(found, state_of(0))) == saving.state_sha256(state_of(20))
            shutil.rmtree(root)
            continue
        assert found.step == 10, f"{done} was not noticed (seed {SEED}, case {number})"
        assert gone or (len(said) == 1 and said[0].startswith("checkpoint 20 passed over")), (done, said)
        assert manifest.at_step(root, 20) is None
        if number % 50 == 0:
            assert saving.state_sha256(saving.restore(found, state_of(0))) == good
        damage(root / "10", SEED + 1, number)
        if (root / "10" / "manifest.json").exists() or not gone:
            files = sorted(root.rglob("*"))
            with warnings_of_fdl(), pytest.raises(RunError, match="verifies, nothing was deleted"):
                manifest.latest(root)
            assert sorted(root.rglob("*")) == files
        shutil.rmtree(root)
    print(kinds)


def test_some_damage_is_noticed(whole: Path, tmp_path: Path) -> None:
    mutate(whole, tmp_path, MUTATIONS)


@pytest.mark.slow
def test_all_damage_is_noticed(whole: Path, tmp_path: Path) -> None:
    mutate(whole, tmp_path, ALL_MUTATIONS)


@pytest.mark.parametrize("damaged", [[30], [20, 30], [10, 30]])
def test_a_damaged_step_is_made_again_and_pushes_no_good_one_out(tmp_path: Path, damaged: list[int]) -> None:
    with saving.saver(tmp_path, keep=3) as store:
        for step in (10, 20, 30):
            store(step, state_of(step), {"best_step": None})
    for step in damaged:
        damage(tmp_path / str(step), SEED, 0)
    with warnings_of_fdl():
        good = manifest.latest(tmp_path)
    assert good is not None
    for step in range(good.step + 5, 31, 5):
        with saving.saver(tmp_path) as store:
            store(step, state_of(step), {"best_step": None})
        with warnings_of_fdl():
            found = manifest.latest(tmp_path)
        assert found is not None
        assert found.step == step, "the step just saved is not the newest good one"
    assert saving.state_sha256(saving.restore(found, state_of(0))) == saving.state_sha256(state_of(30))


def misfits() -> Iterator[tuple[str, str, Any]]:
    """(what, the leaf that must be named, the state asked for), seeded."""
    rng = random.Random(SEED)
    base = state_of(10)
    names = sorted(name for name in saving.named_leaves(base) if name.startswith("params"))
    for number in range(MISFITS):
        kind = ("shape", "dtype", "missing", "extra", "rank", "experiment")[number % 6]
        name = rng.choice(names)
        _, layer, leaf = name.split("/")
        params = {k: dict(v) for k, v in base.params.items()}
        old = params[layer][leaf]
        if kind == "shape":
            params[layer][leaf] = jnp.zeros((*old.shape[:-1], old.shape[-1] + rng.randrange(1, 9)), old.dtype)
        elif kind == "dtype":
            other = rng.choice([d for d in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.int32) if d != old.dtype])
            params[layer][leaf] = old.astype(other)
        elif kind == "missing":
            del params[layer][leaf]
        elif kind == "extra":
            name = f"params/{layer}/{leaf}_{number}"
            params[layer][f"{leaf}_{number}"] = old
        elif kind == "rank":
            params[layer][leaf] = old[None]
        else:
            name = "params/"
            params = {f"lstm{number}": {"kernel": jnp.zeros((number + 1, 4))}}
        yield kind, name, base.replace(params=params)


def test_what_does_not_fit_is_refused_by_name(whole: Path) -> None:
    saved = manifest.at_step(whole, 10)
    assert saved is not None
    here = saving.named_leaves(state_of(10))
    for kind, name, wanted in misfits():
        with pytest.raises(UserError) as refused:
            saving.restore(saved, wanted)
        text = str(refused.value)
        assert name in text, (kind, text)
        if kind in ("shape", "dtype", "rank"):
            new = saving.named_leaves(wanted)[name]
            for leaf in (here[name], new):
                assert f"{leaf.dtype}{list(leaf.shape)}" in text, (kind, text)
        else:
            assert "absent" in text, (kind, text)


# ---- no room ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, num_bytes: int) -> Iterator[Callable[[], None]]:
    """A file system of that size at `folder`; skips where none can be mounted. What it yields is for `limited` alone."""
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "none", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("a file system cannot be mounted here (it needs root)")
    try:
        yield lambda: None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def limited(folder: Path, num_bytes: int) -> Iterator[Callable[[], None]]:
    """The same without any rights: `folder` is said to be so large, and a file may not grow beyond what is left of it.

    The kernel refuses such a write with EFBIG, where a full disk has ENOSPC. What it yields is to be called before each
    save: it measures what is left. 64 KiB always are, for pytest's own files; the arrays take more.
    """
    before, usage = resource.getrlimit(resource.RLIMIT_FSIZE), shutil.disk_usage

    def size(path: Path) -> int:
        with contextlib.suppress(FileNotFoundError):  # Orbax's clean-up of a failed write may still be at work
            return path.stat().st_size if path.is_file() else 0
        return 0

    def left() -> int:
        return max(0, num_bytes - sum(map(size, folder.rglob("*"))))

    def measure() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(left(), 1 << 16), before[1]))

    with pytest.MonkeyPatch.context() as at:
        at.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=left()))
        try:
            yield measure
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


Disk = Callable[[Path, int], contextlib.AbstractContextManager[Callable[[], None]]]
disks = pytest.mark.parametrize("disk_of", [mounted, limited])


# Orbax leaves its other threads and coroutines where they stood.
orbax_litter = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    "ignore:coroutine:RuntimeWarning",
)  # fmt: skip


def save_on(root: Path, size: int, saved: list[int], measure: Callable[[], None]) -> None:
    with saving.saver(root, keep=99) as store:
        for step in range(1, 60):
            measure()
            store(step, state_of(step, size), {"best_step": None})
            saved.append(step)


def fill_up(disk_of: Disk, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save until the disk is full; every other time somebody else takes the room after it was checked."""
    rng = random.Random(SEED)
    size = 4000  # 3 x 3 x 4000 float32, three times (Adam): 0.5 MB
    outcomes = {"checked": 0, "while writing": 0}
    for number in range(count):
        checked, disk = number % 2 == 0, tmp_path / f"disk{number}"
        disk.mkdir()
        with disk_of(disk, rng.randrange(1_200_000, 4_000_000)) as measure, monkeypatch.context() as at:
            if not checked:
                at.setattr(saving, "_check_room", lambda root, num_bytes: None)
            saved: list[int] = []
            with pytest.raises(RunError) as ended:
                save_on(disk / "c", size, saved, measure)
            text = str(ended.value)
            assert str(disk) in text
            assert "bytes needed" in text
            assert "RESOURCE_EXHAUSTED" not in text, "the command line would call it out of memory"
            assert "free" in text
            assert "kept" in text
            assert "\n" not in text
            outcomes["checked" if "no room" in text else "while writing"] += 1
            with warnings_of_fdl() as said:
                manifest.clean(disk / "c")
                found = manifest.latest(disk / "c")
            assert said == []
            if len(saved) > 1:  # the one before the last had been settled when the last was taken in
                assert found is not None
                assert found.step >= saved[-2]
            if found is not None:
                restored = saving.restore(found, state_of(0, size))
                assert saving.state_sha256(restored) == saving.state_sha256(state_of(found.step, size))
    print(outcomes)
    assert min(outcomes.values()) > 0, "both ways to run out of room are to be seen"


@orbax_litter
@disks
def test_some_full_disks(disk_of: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_up(disk_of, tmp_path, SIZES, monkeypatch)


@orbax_litter
@disks
@pytest.mark.slow
def test_fifty_full_disks(disk_of: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_up(disk_of, tmp_path, ALL_SIZES, monkeypatch)


@orbax_litter
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("where", ["os.replace", "os.fsync", "os.mkdir", "hashlib.file_digest", "shutil.rmtree"])
def test_an_error_of_the_disk_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    save(tmp_path, 1, 2)
    owner = {"os": os, "hashlib": saving.hashlib, "shutil": shutil}[where.split(".")[0]]
    name = where.split(".")[1]

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number), str(tmp_path))

    def save_then_refuse() -> None:
        with saving.saver(tmp_path) as store:
            at.setattr(owner, name, refuse)
            store(3, state_of(3), {"best_step": None})

    with monkeypatch.context() as at, pytest.raises(RunError, match="earlier ones are kept") as ended:
        save_then_refuse()
    assert os.strerror(number) in str(ended.value)
    manifest.clean(tmp_path)
    found = manifest.latest(tmp_path)
    assert found is not None
    assert found.step == (3 if name == "rmtree" else 2)
    restored = saving.restore(found, state_of(0))
    assert saving.state_sha256(restored) == saving.state_sha256(state_of(found.step))
