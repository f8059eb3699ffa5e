"""The whitened network: its first kernel, its start, its equation against PyTorch, and a whole short run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from small import assert_states_close, train, train_resumed

from experiments.fashion_fast import experiment as fashion_fast
from fdl.data import Facts, Request, Splits, pipeline
from fdl.distributed import layouts
from fdl.experiment import Whiten
from fdl.models import WhitenedCNN, ops
from fdl.models.whitened_cnn import start_as_identity, whitening_kernel
from fdl.tasks import Classification, MultiView
from fdl.train.evaluation import view
from fdl.train.program import Program, build
from fdl.types import UserError

RNG = np.random.default_rng(0)
SMOOTH = np.cumsum(RNG.normal(size=(60, 12, 11, 3)), 2).astype(np.float32)  # neighbours are alike


def test_the_whitening_kernel_makes_patches_uncorrelated() -> None:
    kernel = whitening_kernel(SMOOTH, patch=2, epsilon=1e-6)
    assert kernel.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])
    seen = np.asarray(ops.conv(jnp.asarray(SMOOTH), jnp.asarray(kernel[..., :12]))).reshape(-1, 12)
    np.testing.assert_allclose(seen.T @ seen / len(seen), np.eye(12), atol=2e-3)
    np.testing.assert_array_equal(kernel, whitening_kernel(SMOOTH.copy(), patch=2, epsilon=1e-6))


def test_a_convolution_starts_as_the_identity() -> None:
    for channels, filters in ((5, 8), (8, 5)):
        kernel = start_as_identity(jax.random.key(0), (3, 3, channels, filters))
        x = jnp.asarray(RNG.normal(size=(2, 6, 6, channels)), jnp.float32)
        same = min(channels, filters)
        np.testing.assert_allclose(ops.conv(x, kernel, 1, "SAME")[..., :same], x[..., :same], atol=1e-6)
        rest = np.asarray(kernel)[..., same:]
        assert rest.size == 0 or rest.var() == pytest.approx(1 / (3 * 9 * channels), rel=0.3)


def test_it_is_the_network_of_airbench() -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    model, x = WhitenedCNN(widths=(6, 8), outputs=4), SMOOTH[:3]
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(RNG.uniform(0.5, 1.5, leaf.shape), jnp.float32), model.init(jax.random.key(0), x)
    )
    held = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), variables)
    params, stats = held["params"], held["batch_stats"]
    kernel = lambda name: params[name]["kernel"].permute(3, 2, 0, 1)  # noqa: E731
    y = f.gelu(
        f.conv2d(torch.tensor(x).permute(0, 3, 1, 2), kernel("whiten"), params["whiten"]["bias"]), approximate="tanh"
    )
    for group in (1, 2):
        for number in (1, 2):
            y = f.conv2d(y, kernel(f"group{group}_conv{number}"), padding=1)
            y = f.max_pool2d(y, 2) if number == 1 else y
            norm = f"group{group}_norm{number}"
            y = f.batch_norm(y, stats[norm]["mean"], stats[norm]["var"], None, params[norm]["bias"], eps=1e-5)
            y = f.gelu(y, approximate="tanh")
    expected = y.amax((2, 3)) @ params["output"]["kernel"] / 9
    np.testing.assert_allclose(model.apply(variables, x), expected.numpy(), rtol=2e-4)


class Flat(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        return nn.Dense(3)(x.reshape(len(x), -1) ** 2)


def test_views_are_averaged_in_evaluation_alone() -> None:
    x, model = SMOOTH[:4], Flat()
    batch = {"inputs": jnp.asarray(x)}
    variables = model.init(jax.random.key(0), batch["inputs"])
    ask = lambda x: np.asarray(model.apply(variables, jnp.asarray(x)))  # noqa: E731
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    moved = [x, padded[:, :12, :11], padded[:, 4:, 4:]]
    both = [(ask(view) + ask(view[:, :, ::-1])) / 2 for view in moved]
    expected = both[0] / 2 + both[1] / 4 + both[2] / 4
    np.testing.assert_allclose(MultiView(shift=2).apply(model, variables, batch, train=False), expected, rtol=1e-4)
    plain = MultiView(shift=0, mirrored=False).apply(model, variables, batch, train=False)
    np.testing.assert_allclose(plain, ask(x), rtol=1e-5)
    training = MultiView().apply(model, variables, batch, train=True)
    np.testing.assert_allclose(training, Classification().apply(model, variables, batch, train=True))


def splits(request: Request) -> Splits:
    targets = RNG.integers(0, 3, 70).astype(np.int32)
    inputs = np.clip(RNG.normal(60 * targets[:, None, None, None] + 40, 30, (70, 12, 12, 1)), 0, 255).astype(np.uint8)
    rows = {"inputs": inputs, "targets": targets}
    return Splits("three", "files", "here", rows, rows, facts=Facts(classes=("a", "b", "c")))


def small(mode: str = "jit", devices: int = 1) -> Program:
    full = fashion_fast()
    made = dataclasses.replace(
        full, data=dataclasses.replace(full.data, load=lambda request: HELD, validation=10), steps=6, batch_size=16,
        model=full.model.clone(widths=(4,)), log_every=1, eval_every=3, save_every=2, eval_batch_size=32, name="small",
    )  # fmt: skip
    layout = layouts.choose_layout(mode, jax.devices()[:devices])  # type: ignore[arg-type]
    return build(made, pipeline.load(made.data, Request()), 0, layout)


HELD = splits(Request())


def test_a_short_run_keeps_its_whitening_resumes_and_is_the_same_on_two_devices(tmp_path: Path) -> None:
    program = small()
    whole = train_resumed(program, tmp_path, stop_at=3)
    start = program.compiled.initial_state()
    pictures = program.data.prepare({"inputs": program.data.splits.train["inputs"]}, None)["inputs"]
    np.testing.assert_allclose(
        whole.params["whiten"]["kernel"],
        whitening_kernel(np.asarray(pictures), program.experiment.model.patch),
        rtol=1e-4,
        atol=1e-4,
    )
    assert not np.allclose(start.params["whiten"]["kernel"], whole.params["whiten"]["kernel"])
    for name in ("group1_conv1", "group1_conv2"):
        kernel = np.asarray(whole.params[name]["kernel"])
        assert np.linalg.norm(kernel) == pytest.approx(kernel.shape[-1] ** 0.5, rel=1e-5)
    spread = train(small("pmap", 2), tmp_path / "pmap")
    assert_states_close(whole, spread, rtol=2e-2, atol=2e-3)  # orthogonalising blows rounding up


def test_whitening_names_a_layer_that_is_not_there() -> None:
    program = small()
    with pytest.raises(UserError, match="no convolution 'stem' to whiten"):
        Whiten(layer="stem").compute(view(program, program.compiled.initial_state().variables))
