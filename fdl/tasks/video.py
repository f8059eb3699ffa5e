"""One class for a clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fdl.data.formats import bad_inputs, clips, images
from fdl.data.formats.bad_inputs import Bad
from fdl.data.splits import Splits
from fdl.files import to_csv
from fdl.tasks import tables
from fdl.tasks.classification import Classification
from fdl.tasks.panels import figures
from fdl.tasks.panels.answers import class_names, softmax
from fdl.tasks.picture_inputs import shown_name
from fdl.tasks.task import DrawPanel, Panel, View
from fdl.types import Arrays, Metrics, UserError, printable, take

_FITTED = 3000
"""Training clips that the baselines are fitted to, at most."""


@dataclasses.dataclass(frozen=True)
class VideoClassification(Classification):
    """`Classification` of clips [B, T, H, W, C]."""

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the commonest class, and extremely randomised trees on one frame and on differences of frames.

        The middle frame alone cannot know a motion; beside it, the differences of the first and the last from it can.
        """
        from sklearn.ensemble import ExtraTreesClassifier

        scores = super().baselines(splits)
        train, test = take(splits.train, slice(_FITTED)), splits.evaluated
        for name, features in (("one frame", _middle), ("frame differences", _differences)):
            trees = ExtraTreesClassifier(100, random_state=0).fit(features(train), train["targets"])
            scores[name] = {"accuracy": float((trees.predict(features(test)) == test["targets"]).mean())}
        return scores

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [lambda: film_strips(view), *super().panels(view)]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv for a clip, or for every clip of a folder; bad_inputs.csv lists those that cannot be read.

        Raises:
            UserError: no clip can be read.
        """
        form, path = clips.ClipForm.of(view.splits.facts), Path(source).expanduser()
        if not path.exists():
            raise UserError(f"--input: no file or folder {printable(source)!r}; give a clip, or a folder of clips")
        own = clips.list_clips(path) if path.is_dir() else [path]
        if path.is_dir() and not own and any(each.suffix.lower() in images.SUFFIXES for each in path.iterdir()):
            own = [path]  # a folder of numbered pictures is itself a clip
        good, held, bad = [], [], []
        for clip in own:
            try:
                held.append(clips.read_clip(clip, form.frames, form.frame))
                good.append(clip)
            except ValueError as error:
                bad.append(Bad(printable(clip, 2000), "", str(error)))
        if not good:
            raise UserError(f"--input: no clip in {printable(source)!r} can be read{'; ' + str(bad[0]) if bad else ''}")
        probabilities = softmax(view.outputs({"inputs": np.stack(held)}))
        added = tables.class_columns(probabilities, class_names(view.splits, probabilities.shape[1]), self.top)
        files = [shown_name(clip.name) for clip in good]
        table = [("file", *added), *zip(files, *added.values(), strict=True)]
        return bad_inputs.write_predictions(out, {"predictions.csv": to_csv(table)}, bad, "clips")


def _middle(rows: Arrays) -> np.ndarray:
    inputs = rows["inputs"]
    return _small(inputs[:, inputs.shape[1] // 2])


def _differences(rows: Arrays) -> np.ndarray:
    inputs = rows["inputs"].astype(np.float32)
    middle = inputs[:, inputs.shape[1] // 2]
    return np.concatenate([_small(part) for part in (middle, inputs[:, -1] - middle, middle - inputs[:, 0])], 1)


def _small(pictures: np.ndarray) -> np.ndarray:
    """Average squares of 2 x 2 pixels, [N, features]; an odd last row or column is left out."""
    count, height, width = pictures.shape[:3]
    even = pictures[:, : height // 2 * 2, : width // 2 * 2].astype(np.float32)
    return even.reshape(count, height // 2, 2, width // 2, 2, -1).mean((2, 4)).reshape(count, -1)


def film_strips(view: View, count: int = 10) -> Panel:
    """Draw the frames of some test clips, a clip a row, with the true and the predicted class."""
    rows = take(view.splits.evaluated, slice(count))
    predicted = np.asarray(view.outputs(rows)).argmax(-1)
    strips = np.asarray(rows["inputs"])
    sheet = figures.mosaic(figures.viewable(strips.reshape(-1, *strips.shape[2:])), strips.shape[1])
    names = class_names(view.splits, int(max(predicted.max(), rows["targets"].max())) + 1)
    figure, axes = figures.new(0.2 + (figures.WIDTH - 2) * sheet.shape[0] / sheet.shape[1], packed=True)
    figures.picture(axes[0, 0], sheet)
    labels = [f"{names[true]}: {names[said]}" for true, said in zip(rows["targets"], predicted, strict=True)]
    step = sheet.shape[0] / len(strips)
    axes[0, 0].set_yticks(
        step * (np.arange(len(strips)) + 0.5), [figures.label(each, 30) for each in labels], fontsize=8
    )
    axes[0, 0].tick_params(length=0)
    return Panel("Clips", "The first test clips, frame by frame; true class: predicted class.", figure)
