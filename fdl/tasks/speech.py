"""Single words out of recordings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from fdl.data.audio_ops import LogMel
from fdl.data.formats import audio, bad_inputs
from fdl.data.formats.bad_inputs import Bad
from fdl.data.splits import Splits
from fdl.files import to_csv
from fdl.tasks import tables
from fdl.tasks.classification import Classification
from fdl.tasks.panels import speech
from fdl.tasks.panels.answers import class_names, softmax
from fdl.tasks.task import DrawPanel, View
from fdl.types import Arrays, Metrics, UserError, printable, take

_COEFFICIENTS = 13
_MOST = 10_000
"""Training recordings of the support-vector machine at most: its time grows with their square."""


@dataclasses.dataclass(frozen=True)
class SpeechClassification(Classification):
    """`Classification` of recordings {"wave", "length"}: a speech baseline, panels of spectra, predictions for audio files."""

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the majority class, and a support-vector machine on mel-frequency cepstra.

        Its features are mean and deviation over time of 13 coefficients and of their differences, standardised; its kernel is
        Gaussian with C = 10 (scikit-learn).
        """
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        rate = splits.facts.extra["rate"]
        every = -(-len(splits.train["targets"]) // _MOST)
        train = take(splits.train, slice(None, None, every))
        machine = make_pipeline(StandardScaler(), SVC(C=10.0))
        machine.fit(cepstra(train["inputs"], rate), train["targets"])
        right = machine.predict(cepstra(splits.evaluated["inputs"], rate)) == splits.evaluated["targets"]
        return {**super().baselines(splits), "MFCC and SVM": {"accuracy": float(right.mean())}}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [*super().panels(view), lambda: speech.spectra(view)]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv for a recording or a folder of them, and bad_inputs.csv for those that cannot be used.

        Recordings are resampled to the training rate, their channels averaged and the silence at both ends cut off; of a longer
        one the loudest stretch of a row's length is taken.
        """
        extra = view.splits.facts.extra
        names, waves, bad = _read(source, extra["rate"])
        probabilities = softmax(view.outputs({"inputs": audio.rows_of(waves, extra["length"], len(waves))}))
        added = tables.class_columns(probabilities, class_names(view.splits, probabilities.shape[1]), self.top)
        seconds = [f"{len(wave) / extra['rate']:.2f}" for wave in waves]
        table = [("file", "seconds", *added), *zip(names, seconds, *added.values(), strict=True)]
        return bad_inputs.write_predictions(out, {"predictions.csv": to_csv(table)}, bad, "recordings")


def _read(source: str, rate: int) -> tuple[list[str], list[np.ndarray], list[Bad]]:
    """Return (names, waves, what cannot be used) of a file, or of a folder's recordings in the order of their paths.

    Raises:
        UserError: there is no such file or folder, or no recording in it that can be used.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in audio.SUFFIXES and file.is_file())
    elif path.is_file():
        files = [path]
    else:
        raise UserError(f"--input: no file or folder {printable(source)!r}; give a recording, or a folder of them")
    if not files:
        raise UserError(f"--input: no recording in {printable(source)!r}; looked for {', '.join(audio.SUFFIXES)}")
    names, waves, bad = [], [], []
    for file in files:
        try:
            waves.append(audio.trimmed(audio.read_wave(file, rate), rate))
            names.append(printable(file.relative_to(path) if path.is_dir() else file.name))
        except audio.UnreadableError as error:
            bad.append(Bad(printable(file, 2000), "", str(error)))
    if not waves:
        others = f", the first of {len(bad)} that cannot be used" if len(bad) > 1 else ""
        raise UserError(f"--input: {bad[0]}{others}")
    return names, waves, bad


def cepstra(inputs: Arrays, rate: int) -> np.ndarray:
    """Compute features [N, 4 * 13]: mean and deviation over time of mel-frequency cepstra and of their differences."""
    from scipy.fft import dct

    op = LogMel(rate=rate, window=rate // 40, hop=rate // 100, subtract_mean=False)
    parts: list[np.ndarray] = []
    for start in range(0, len(inputs["length"]), 256):
        some = {name: jnp.asarray(value[start : start + 256]) for name, value in inputs.items()}
        found = op.transform({"inputs": some}, None, {})["inputs"]
        mel, mask = np.asarray(found["vectors"]), np.asarray(found["mask"]) > 0
        for frames, counted in zip(dct(mel, norm="ortho")[..., :_COEFFICIENTS], mask, strict=True):
            held = frames[counted]
            moved = np.diff(held, axis=0) if len(held) > 1 else np.zeros_like(held)
            parts.append(np.concatenate([held.mean(0), held.std(0), moved.mean(0), moved.std(0)]))
    return np.stack(parts)
