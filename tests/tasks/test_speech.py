"""Recordings: reading them, log-mel spectra and their augmentations against NumPy, masks that leave padding out, predictions."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from fdl.data import audio_ops, sources
from fdl.data.audio_ops import LogMel, SpecAugment, Speed, VocalTract
from fdl.data.formats import audio
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.speech import speech_commands, spoken_digits
from fdl.data.splits import Facts, Request, Splits
from fdl.models import RecurrentNet, SpectrumCNN
from fdl.tasks import SpeechClassification, View
from fdl.types import UserError

RATE = 8000


def tone(seconds: float = 0.3, pitch: float = 500.0, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)


def rows(*waves: np.ndarray, length: int = 4000) -> dict[str, Any]:
    return {name: jnp.asarray(column) for name, column in audio.rows_of(waves, length, len(waves)).items()}


def same(value: float) -> Any:
    return lambda shape: jnp.full((2, *shape), value)


def test_log_mel_spectra_equal_a_plain_loop() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 1500)
    given = rows(wave, tone(0.06))
    found = LogMel(subtract_mean=False).transform({"inputs": given}, None, {})["inputs"]
    samples = np.asarray(given["wave"])[0].astype(np.float64) / 32768
    samples /= np.sqrt((samples[:1500] ** 2).mean())
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200)
    mel = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    edges = np.linspace(mel(60.0), mel(4000.0), 42)
    bins = mel(np.linspace(0, 4000, 129))
    for frame in (0, 5, 16):
        power = np.abs(np.fft.rfft(samples[frame * 80 : frame * 80 + 200] * hann, 256)) ** 2 / (hann**2).sum()
        for band in (0, 7, 39):
            low, centre, high = edges[band : band + 3]
            weights = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
            assert float(found["vectors"][0, frame, band]) == pytest.approx(np.log(power @ weights + 1e-4), abs=2e-3)
    assert found["vectors"].shape == (2, (4000 - 200) // 80 + 1, 40)
    assert np.asarray(found["mask"]).sum(1).tolist() == [(1500 - 200) // 80 + 1, (480 - 200) // 80 + 1]


def test_loudness_drops_out_and_padding_changes_nothing() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 1500)
    plain = LogMel().transform({"inputs": rows(wave, wave / 8)}, None, {})["inputs"]
    longer = LogMel().transform({"inputs": rows(wave, wave / 8, length=6000)}, None, {})["inputs"]
    np.testing.assert_allclose(plain["vectors"][0], plain["vectors"][1], atol=0.03)  # 16 bits round the quiet one
    np.testing.assert_allclose(longer["vectors"][:, :48], plain["vectors"], atol=1e-5)
    frames = (1500 - 200) // 80 + 1
    np.testing.assert_allclose(plain["vectors"][0, :frames].mean(0), 0, atol=1e-4)
    assert (np.asarray(plain["vectors"])[:, frames:] == 0).all()


@pytest.mark.parametrize(
    "model",
    [
        SpectrumCNN(filters=(4, 6), outputs=3),
        RecurrentNet(width=5, outputs=3, pool="mean_max", bidirectional=True),
        RecurrentNet(width=5, outputs=3, bidirectional=True),
    ],
    ids=["cnn", "mean_max", "last"],
)
def test_more_padding_changes_no_answer(model: Any) -> None:
    rng = np.random.default_rng(0)
    vectors, mask = rng.normal(size=(2, 16, 8)).astype(np.float32), np.zeros((2, 16), np.float32)
    mask[:, :12] = 1
    vectors[:, 12:] = 0
    short = {"vectors": vectors, "mask": mask}
    more = {"vectors": np.pad(vectors, ((0, 0), (0, 8), (0, 0))), "mask": np.pad(mask, ((0, 0), (0, 8)))}
    variables = model.init(jax.random.key(0), short)
    np.testing.assert_allclose(model.apply(variables, short), model.apply(variables, more), atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5, 0.999])
def test_another_speed_moves_pitch_and_length(value: float) -> None:
    given = rows(tone(0.3), tone(0.3))
    changed = Speed(0.15).transform({"inputs": given}, same(value), {})["inputs"]
    factor = 1 + 0.15 * (2 * value - 1)
    length = int(changed["length"][0])
    assert length == pytest.approx(2400 / factor, abs=2)
    wave = np.asarray(changed["wave"])[0]
    expected = 0.5 * np.sin(2 * np.pi * 500 * factor * np.arange(length) / RATE)
    np.testing.assert_allclose(wave[:length], expected, atol=0.03)  # straight lines between the samples
    assert (wave[length:] == 0).all()


def test_a_shorter_vocal_tract_is_read_higher() -> None:
    """A pure tone's loudest band moves as if its frequency were multiplied."""

    def band(value: float) -> int:
        batch = VocalTract(0.15).transform({"inputs": rows(tone(), tone())}, same(value), {})
        return int(
            np.asarray(LogMel(subtract_mean=False).transform(batch, None, {})["inputs"]["vectors"])[0, 3].argmax()
        )

    centres = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 4000 / 700), 42)[1:-1]
    for value in (0.0, 0.5, 0.999):
        heard = 500 * (1 + 0.15 * (2 * value - 1))
        assert abs(band(value) - np.abs(centres - 2595 * np.log10(1 + heard / 700)).argmin()) <= 1
    plain = np.asarray(LogMel().filters(jnp.ones(1)))
    np.testing.assert_allclose(plain[0].sum(1)[12:120], 1, atol=1e-4)  # neighbouring triangles add up to one


def test_masked_stretches_lie_within_the_recording() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 3200)
    batch, op = {"inputs": rows(noise[:1600], noise)}, LogMel(bands=20)  # no band is empty
    for value in (0.0, 0.6, 0.999):
        masked = SpecAugment(times=1, frames=6, bands=1, width=5).transform(batch, same(value), {})
        found = np.asarray(op.transform(masked, None, {})["inputs"]["vectors"])
        plain = np.asarray(op.transform(batch, None, {})["inputs"]["vectors"])
        gone = (found == 0) & (plain != 0)
        for row, frames in ((0, (1600 - 200) // 80 + 1), (1, (3200 - 200) // 80 + 1)):
            whole = gone[row, :frames].all(1).sum(), gone[row, :frames].all(0).sum()
            assert whole == (int(value * 7), int(value * 6))
    for op in (Speed(), VocalTract(), SpecAugment()):
        assert op.transform(batch, None, {}) is batch


@pytest.mark.parametrize(
    ("rate", "channels", "form"),
    [(44_100, 2, "PCM_24"), (8000, 1, "PCM_16"), (16_000, 1, "FLOAT"), (11_025, 2, "PCM_U8")],
)
def test_recordings_of_any_kind_are_read_alike(tmp_path: Path, rate: int, channels: int, form: str) -> None:
    wave = np.stack([tone(0.5, rate=rate)] * channels, 1)
    soundfile.write(tmp_path / "a.wav", wave, rate, subtype=form)
    read = audio.read_wave(tmp_path / "a.wav", RATE)
    assert len(read) == pytest.approx(4000, abs=2)
    np.testing.assert_allclose(read[100:3900], tone(0.5)[100:3900], atol=0.02)


def test_recordings_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"

    def why() -> str:
        with pytest.raises(audio.UnreadableError) as caught:
            audio.read_wave(path, RATE)
        return str(caught.value)

    path.write_bytes(b"not a recording")
    assert "no recording that can be read" in why()
    soundfile.write(path, np.zeros(800), RATE)
    assert "silent" in why()
    soundfile.write(path, np.zeros(0), RATE)
    assert "no samples" in why()
    soundfile.write(path, np.full(80, np.nan), RATE, subtype="FLOAT")
    assert "not finite" in why()
    soundfile.write(path, tone(), RATE)
    path.write_bytes(path.read_bytes()[:30])
    assert why()
    assert np.array_equal(audio.loudest(np.array([0.0, 1, 3, 2, 0]), 2), [3, 2])
    quiet = np.concatenate([np.zeros(4000), tone(0.2), np.zeros(4000)])
    assert len(audio.trimmed(quiet, RATE)) == pytest.approx(1600, abs=500)


def view_of(extra: dict[str, Any], outputs: Any) -> View:
    facts = Facts(classes=("low", "high"), extra=extra)
    return View(Splits("x", "files", "here", {}, facts=facts), SpectrumCNN(), {}, outputs, dict, dict)


def test_predictions_for_a_folder_of_recordings(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    soundfile.write(folder / "b.wav", tone(0.4, rate=44_100), 44_100, subtype="PCM_24")
    soundfile.write(folder / "a.flac", np.stack([tone(2.0)] * 2, 1), RATE)
    (folder / "c.wav").write_bytes(b"RIFF")
    seen: dict[str, Any] = {}

    def outputs(given: Any) -> np.ndarray:
        seen.update(given["inputs"])
        return np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)

    view = view_of({"rate": RATE, "length": 8000}, outputs)
    written = SpeechClassification().predict(view, str(folder), out)
    assert [path.name for path in written] == ["predictions.csv", "bad_inputs.csv"]
    table = list(csv.DictReader(written[0].read_text().splitlines()))
    assert [(row["file"], row["class_1"]) for row in table] == [("a.flac", "high"), ("b.wav", "low")]
    assert seen["length"].tolist()[0] == 8000
    assert seen["length"][1] == pytest.approx(3200, abs=200)
    with pytest.raises(UserError, match=r"c.wav: no recording that can be read"):
        SpeechClassification().predict(view, str(folder / "c.wav"), out)
    with pytest.raises(UserError, match="no file or folder"):
        SpeechClassification().predict(view, str(tmp_path / "none"), out)


def digits_folder(root: Path) -> Path:
    folder = root / "free-spoken-digit" / "recordings"
    folder.mkdir(parents=True)
    for digit, pitch in enumerate((300, 900)):
        for speaker in ("george", "theo"):
            for take in range(7):
                soundfile.write(folder / f"{digit}_{speaker}_{take}.wav", tone(0.1 + 0.01 * take, pitch), RATE)
    return folder


def test_both_splits_of_the_digits(tmp_path: Path) -> None:
    folder, request = digits_folder(tmp_path), Request(data_dir=tmp_path)
    takes, speaker = spoken_digits(request), spoken_digits(request, speaker="theo")
    assert (len(takes.train["targets"]), len(takes.test["targets"])) == (8, 20)  # type: ignore[index]
    assert np.unique(speaker.train["speaker"]).tolist() == [0]
    assert np.unique(speaker.test["speaker"]).tolist() == [4]  # type: ignore[index]
    assert "speaker theo held out" in speaker.where
    found = SpeechClassification().baselines(takes)
    assert found["MFCC and SVM"]["accuracy"] == 1.0
    assert found["majority class"]["accuracy"] == 0.5
    (folder / "0_nobody_1.wav").write_bytes(b"")
    with pytest.raises(BadInputs, match=r"its name is not DIGIT_SPEAKER_TAKE.wav"):
        spoken_digits(request)
    assert len(spoken_digits(Request(data_dir=tmp_path, on_bad="skip")).skipped) == 1


def test_the_real_recordings(data_dir: Path) -> None:
    splits = sources.spoken_digits(Request(data_dir=data_dir))
    assert (len(splits.train["targets"]), len(splits.test["targets"])) == (2700, 300)  # type: ignore[index]
    assert np.bincount(splits.test["targets"]).tolist() == [30] * 10  # type: ignore[index]


def test_speech_commands_as_tfds_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    tfds.disable_progress_bar()
    waves = [np.round(32767 * tone(0.05 * (1 + i), rate=16_000)).astype(np.int64) for i in range(4)]

    def split(count: int) -> Any:
        made = lambda: ({"audio": waves[i], "label": i % 2} for i in range(count))  # noqa: E731
        spec = {"audio": tf.TensorSpec([None], tf.int64), "label": tf.TensorSpec([], tf.int64)}
        return tf.data.Dataset.from_generator(made, output_signature=spec)

    features = {
        "audio": tfds.features.Audio(sample_rate=16_000),
        "label": tfds.features.ClassLabel(names=["down", "up"]),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="speech_commands", version="1.0.0", data_dir=tmp_path, features=tfds.features.FeaturesDict(features),
        split_datasets={"train": split(4), "test": split(2)},
    )  # fmt: skip
    splits = speech_commands(Request(data_dir=tmp_path, offline=True), length=2000)
    assert splits.classes == ("down", "up")
    assert sorted(splits.train["inputs"]["length"].tolist()) == [800, 1600, 2000, 2000]
    row = int(np.argmin(splits.train["inputs"]["length"]))
    np.testing.assert_allclose(splits.train["inputs"]["wave"][row, :800], waves[0], atol=1)
    assert len(splits.test["targets"]) == 2  # type: ignore[index]


def test_the_stand_in_can_be_told_apart_from_noise(tmp_path: Path) -> None:
    splits = spoken_digits(Request(source="builtin", data_dir=tmp_path, offline=True))
    assert splits.standin
    assert splits.train["inputs"]["wave"].dtype == np.int16
    assert len(splits.test["targets"]) == 300  # type: ignore[index]
    assert audio_ops.LogMel().rate == splits.facts.extra["rate"]
