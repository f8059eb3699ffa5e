"""A checkpoint is whole or it does not count, and what comes back is what went in, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdl.checkpoint import manifest, saving
from fdl.train.step import State
from fdl.types import RunError, UserError


def make_state(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    params = {"dense": {"kernel": jnp.asarray(rng.normal(size=(7, 5)), jnp.float32), "bias": jnp.zeros(5)}}
    return State(jnp.asarray(seed, jnp.int32), params, {}, optax.adam(1e-3).init(params), None)


def save_steps(root: Path, *steps: int, best: int | None = None) -> None:
    with saving.saver(root) as save:
        for step in steps:
            save(step, make_state(step), {"best_step": best, "note": step / 3})


def test_what_comes_back_is_what_went_in(tmp_path: Path) -> None:
    save_steps(tmp_path, 5)
    saved = manifest.latest(tmp_path)
    assert saved is not None
    assert saved.progress == {"best_step": None, "note": 5 / 3}
    restored = saving.restore(saved, make_state(1))
    assert saving.state_sha256(restored) == saving.state_sha256(make_state(5))
    assert jax.tree.structure(restored) == jax.tree.structure(make_state(5))


def test_a_save_is_not_disturbed_by_the_donation_that_follows(tmp_path: Path) -> None:
    add = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    big = {"x": jnp.arange(3_000_000, dtype=jnp.float32)}
    digests = {}
    with saving.saver(tmp_path, keep=10) as save:
        for step in range(1, 6):
            digests[step] = saving.state_sha256(big)
            save(step, big, {"best_step": None})
            for _ in range(3):
                big = add(big)
    for step, digest in digests.items():
        saved = manifest.at_step(tmp_path, step)
        assert saved is not None
        assert saving.state_sha256(saving.restore(saved, big)) == digest


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace(step=jnp.asarray(2, jnp.int32)),
        lambda s: s.replace(params=s.params | {"extra": jnp.zeros(0)}),
        lambda s: s.replace(params=jax.tree.map(lambda x: x.at[0].set(jnp.nextafter(x[0], jnp.float32(9))), s.params)),
        lambda s: s.replace(params=jax.tree.map(lambda x: x.astype(jnp.float16), s.params)),
        lambda s: s.replace(
            params={"dense": {"kernel": s.params["dense"]["kernel"].T, "bias": s.params["dense"]["bias"]}}
        ),
    ],
)
def test_the_digest_sees_every_change(change: Callable[[State], State]) -> None:
    assert saving.state_sha256(change(make_state())) != saving.state_sha256(make_state())


def test_old_steps_go_and_the_best_stays(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2, 3, 4, 5, best=2)
    assert sorted(int(p.name) for p in tmp_path.iterdir()) == [2, 4, 5]


def test_more_that_is_known_of_a_step_replaces_what_was_known(tmp_path: Path) -> None:
    save_steps(tmp_path, 4, best=None)
    save_steps(tmp_path, 4, best=4)
    saved = manifest.latest(tmp_path)
    assert saved is not None
    assert saved.progress["best_step"] == 4


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def mutations() -> list[tuple[str, Callable[[bytes, np.random.Generator], bytes | None]]]:
    def flip(data: bytes, rng: np.random.Generator) -> bytes:
        place = int(rng.integers(len(data)))
        return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]

    return [
        ("flipped bit", flip),
        ("truncated", lambda data, rng: data[: int(rng.integers(len(data)))]),
        ("empty", lambda data, rng: b""),
        ("missing", lambda data, rng: None),
        ("longer", lambda data, rng: data + b"\0"),
    ]


@pytest.mark.parametrize(("name", "mutate"), mutations(), ids=lambda v: v if isinstance(v, str) else "")
def test_every_damaged_file_of_the_newest_step_is_noticed(tmp_path: Path, name: str, mutate: Any) -> None:
    rng = np.random.default_rng(0)
    save_steps(tmp_path, 1, 2)
    for path in files_of(tmp_path / "2"):
        good = path.read_bytes()
        bad = mutate(good, rng)
        if bad == good:
            continue
        path.unlink() if bad is None else path.write_bytes(bad)
        saved = manifest.latest(tmp_path)
        assert saved is not None
        assert saved.step == 1, f"{path} {name}: unnoticed"
        path.write_bytes(good)
    saved = manifest.latest(tmp_path)
    assert saved is not None
    assert saved.step == 2


def test_when_all_are_damaged_nothing_is_deleted(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    for step in ("1", "2"):
        path = max(files_of(tmp_path / step), key=lambda p: p.stat().st_size)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = files_of(tmp_path)
    with pytest.raises(RunError, match="nothing was deleted"):
        manifest.latest(tmp_path)
    manifest.clean(tmp_path)
    assert files_of(tmp_path) == before


def test_an_interrupted_save_is_cleaned_away(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    (tmp_path / "2" / manifest.MANIFEST).unlink()
    (tmp_path / "3" / "state.orbax-checkpoint-tmp-0").mkdir(parents=True)
    manifest.clean(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("like", "says"),
    [
        (
            lambda s: s.replace(params={"dense": {"kernel": jnp.zeros((7, 6)), "bias": jnp.zeros(5)}}),
            "params/dense/kernel",
        ),
        (
            lambda s: s.replace(params={"dense": {"kernel": jnp.zeros((7, 5), jnp.bfloat16), "bias": jnp.zeros(5)}}),
            "bfloat16",
        ),
        (lambda s: s.replace(params={"dense": {"kernel": jnp.zeros((7, 5))}}), "params/dense/bias"),
        (lambda s: s.replace(ema=s.params), "ema/dense/bias"),
    ],
)
def test_another_shape_dtype_or_tree_is_refused_by_name(
    tmp_path: Path, like: Callable[[State], State], says: str
) -> None:
    save_steps(tmp_path, 1)
    saved = manifest.latest(tmp_path)
    assert saved is not None
    with pytest.raises(UserError, match=says):
        saving.restore(saved, like(make_state()))


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_steps(tmp_path, 1)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(RunError, match="100 free"):
        save_steps(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_a_failing_last_save_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(manifest, "file_digests", fail)
    with pytest.raises(RunError, match="Input/output error"):
        save_steps(tmp_path, 1)


def test_the_manifest_is_sealed(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    path = tmp_path / "2" / manifest.MANIFEST
    body = json.loads(path.read_text())
    body["progress"]["note"] = 7
    path.write_text(json.dumps(body))
    saved = manifest.latest(tmp_path)
    assert saved is not None
    assert saved.step == 1
