"""Ops from recordings to log-mel spectra, computed in jax inside the step, and their augmentations.

Legend: B batch, L samples, T frames, F frequencies, M mel bands.

"inputs" are {"wave": [B, L], int16 or float in [-1, 1], "length": [B]}; samples from `length` on are padding. The
augmentations change the wave, or say how `LogMel` is to compute each example's spectrum; they come before it.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.splits import Op, Statistics
from fdl.types import Array, Batch, Count, Draw, Positive, Whole

_FLOOR = 1e-4
"""Added to the power before its logarithm; a wave's mean power is 1."""


@dataclasses.dataclass(frozen=True)
class Speed(Op):
    """Each recording at another speed, from 1 - `change` to 1 + `change`: shorter and higher, or longer and lower.

    Resampled by straight lines between the samples; what is beyond the row's end is cut off.
    """

    change: Positive = 0.15

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        wave, length = _wave(batch["inputs"]["wave"]), batch["inputs"]["length"]
        factor = 1 + self.change * (2 * draw(()) - 1)
        places = jnp.arange(wave.shape[1], dtype=jnp.float32)[None] * factor[:, None]
        before = jnp.minimum(places.astype(jnp.int32), wave.shape[1] - 2)
        low, high = (jnp.take_along_axis(wave, at, axis=1) for at in (before, before + 1))
        share = places - before
        ends = jnp.minimum(jnp.floor((length - 1) / factor) + 1, wave.shape[1]).astype(length.dtype)
        inside = jnp.arange(wave.shape[1])[None] < ends[:, None]
        changed = jnp.where(inside, low + share * (high - low), 0)
        return {**batch, "inputs": {**batch["inputs"], "wave": changed, "length": ends}}


@dataclasses.dataclass(frozen=True)
class VocalTract(Op):
    """Each recording as if by a longer or shorter vocal tract: frequencies times 1 - `change` to 1 + `change`
    (VTLP; Jaitly and Hinton 2013). `LogMel` moves its bands accordingly.
    """

    change: Positive = 0.15

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        return {**batch, "inputs": {**batch["inputs"], "warp": 1 + self.change * (2 * draw((1,))[:, 0] - 1)}}


@dataclasses.dataclass(frozen=True)
class SpecAugment(Op):
    """Stretches of time and of mel bands set to the mean (Park et al. 2019, https://arxiv.org/abs/1904.08779).

    Attributes:
        times, bands: how many stretches of each.
        frames, width: their length at most, in frames and in bands; every length from 0 on is as likely.
    """

    times: Whole = 2
    frames: Whole = 12
    bands: Whole = 2
    width: Whole = 6

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        drawn = draw((self.times + self.bands, 2))
        most = jnp.array([self.frames] * self.times + [self.width] * self.bands, jnp.float32)
        stretches = jnp.stack([drawn[..., 0], jnp.floor(drawn[..., 1] * (most[None] + 1))], -1)
        masks = {"time_masks": stretches[:, : self.times], "band_masks": stretches[:, self.times :]}
        return {**batch, "inputs": {**batch["inputs"], **masks}}


@dataclasses.dataclass(frozen=True)
class LogMel(Op):
    """Recordings to {"vectors": float32 [B, T, M], "mask": float32 [B, T]}: logarithms of mel-band power, less their mean.

    The wave is scaled to a mean power of 1, and each band's mean over the recording's frames is subtracted: loudness and
    microphone drop out. Frames that hold padding are 0 in both.

    Attributes:
        rate: samples a second.
        window, hop: of the frames, in samples.
        bands: M, from `lowest` Hz to half the rate, evenly spaced in mel = 2595 log10(1 + f / 700).
        subtract_mean: as said above.
    """

    rate: Count = 8000
    window: Count = 200
    hop: Count = 80
    bands: Count = 40
    lowest: Positive = 60.0
    subtract_mean: bool = True

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        given = batch["inputs"]
        wave, length = _wave(given["wave"]), given["length"].astype(jnp.float32)
        wave = wave * jax.lax.rsqrt(jnp.square(wave).sum(1) / jnp.maximum(length, 1) + 1e-12)[:, None]
        power = self.spectrum(wave)
        count = power.shape[1]
        mel = jnp.log(jnp.einsum("btf,bfm->btm", power, self.filters(given.get("warp", jnp.ones(1)))) + _FLOOR)
        frames = jnp.maximum(jnp.floor((length - self.window) / self.hop) + 1, 1)
        mask = (jnp.arange(count)[None] < frames[:, None]).astype(jnp.float32)
        if self.subtract_mean:
            mel = mel - (mel * mask[..., None]).sum(1, keepdims=True) / mask.sum(1)[:, None, None]
        mel = mel * mask[..., None]
        if "time_masks" in given:
            mel = jnp.where(_covered(given["time_masks"], frames, count)[..., None], 0, mel)
            bands = jnp.full(len(mel), self.bands, jnp.float32)
            mel = jnp.where(_covered(given["band_masks"], bands, self.bands)[:, None], 0, mel)
        return {**batch, "inputs": {"vectors": mel, "mask": mask}}

    def spectrum(self, wave: Array) -> Array:
        """Compute the power of each frame's frequencies under a Hann window, [B, T, F]."""
        size = self._size
        count = max(1, (wave.shape[1] - self.window) // self.hop + 1)
        blocks = -(-self.window // self.hop)
        needed = (count + blocks) * self.hop
        padded = jnp.pad(wave, ((0, 0), (0, max(0, needed - wave.shape[1]))))[:, :needed]
        cut = padded.reshape(len(wave), -1, self.hop)  # frames as slices of blocks: a gather is slow on CPUs
        frames = jnp.concatenate([cut[:, at : at + count] for at in range(blocks)], -1)[..., : self.window]
        hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)).astype(np.float32)
        found = jnp.fft.rfft(frames * hann[None, None], n=size)
        return (jnp.square(found.real) + jnp.square(found.imag)) / (hann**2).sum()

    def filters(self, warp_B: Array) -> Array:
        """Compute the bands' weights [B, F, M], triangles in mel; a frequency f counts as warp * f (below 0.8 of the largest)."""
        nyquist = self.rate / 2
        f = jnp.linspace(0, nyquist, self._size // 2 + 1)[None]
        warp = warp_B[:, None]
        knee = 0.8 * nyquist * jnp.minimum(warp, 1) / warp
        above = nyquist - (nyquist - knee * warp) / (nyquist - knee) * (nyquist - f)
        mel = _mel(jnp.where(f <= knee, warp * f, above))[..., None]
        edges = jnp.linspace(_mel(jnp.float32(self.lowest)), _mel(jnp.float32(nyquist)), self.bands + 2)
        low, centre, high = (edges[None, None, at : at + self.bands] for at in range(3))
        return jnp.maximum(0, jnp.minimum((mel - low) / (centre - low), (high - mel) / (high - centre)))

    @property
    def _size(self) -> int:
        return 1 << (self.window - 1).bit_length()


def _wave(wave: Array) -> Array:
    return wave.astype(jnp.float32) / 32768 if jnp.issubdtype(wave.dtype, jnp.integer) else wave


def _mel(f: Array) -> Array:
    return 2595 * jnp.log10(1 + f / 700)


def _covered(stretches: Array, size_B: Array, count: int) -> Array:
    """Return bool [B, count]: the place is in a stretch [B, K, (where it begins as a share of what is free, its length)]."""
    long = jnp.minimum(stretches[..., 1], size_B[:, None])
    begin = jnp.floor(stretches[..., 0] * (size_B[:, None] - long + 1))
    places = jnp.arange(count)[None, None]
    return ((places >= begin[..., None]) & (places < (begin + long)[..., None])).any(1)
