"""Texts and translations on the loop: under jit and pmap, stopped and resumed to the same bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from small import assert_states_close, train, train_resumed

from fdl.data import Data, Request, Splits, pipeline, sources
from fdl.data.class_ops import ClassWeights, NaiveBayesRatios
from fdl.data.encoders import Vocabulary
from fdl.data.pairs import CutPairs, Pairs
from fdl.data.standins import sentences
from fdl.distributed import layouts
from fdl.experiment import Experiment
from fdl.experiment.binding import bind_experiment
from fdl.models import AttentionTranslator, TextClassifier, TranslationTransformer
from fdl.optim import Optimizer
from fdl.tasks import TextClassification, Translation
from fdl.train.evaluation import view
from fdl.train.program import build
from fdl.types import take


def small(splits: Splits, count: int = 48) -> Splits:
    assert splits.test is not None
    parts = {name: take(getattr(splits, name), slice(count)) for name in ("train", "validation", "test")}
    return dataclasses.replace(splits, **parts)


def reviews(request: Request) -> Splits:
    parts = [sentences.reviews(48, number) for number in range(3)]
    return Splits("reviews", "", "", parts[0], parts[1], parts[2])


# The gradient of a bias of keys is 0 but for rounding, which Adam with its own eps would make a whole step of.
SETTINGS = {"optimizer": Optimizer(learning_rate=1e-2, eps=1e-3), "steps": 4, "batch_size": 16,
            "eval_batch_size": 32, "eval_every": 2, "save_every": 2, "log_every": 2, "name": "toy"}  # fmt: skip
PAIRS = Data(
    load=lambda request: small(sources.dates(request, count=60)),
    encode=(Pairs("character", source_length=36, target_length=11),),
    augment=(CutPairs(30),),
)
RATIOS = NaiveBayesRatios()
PROBLEMS = {
    "texts": Experiment(
        data=Data(
            load=reviews, encode=(Vocabulary(length=12, ngrams=2, buckets=256),), augment=(RATIOS, ClassWeights()),
            prepare=(RATIOS,),
        ),
        model=TextClassifier("gru", outputs=2, embedding=4, width=4), task=TextClassification(), **SETTINGS,
    ),
    "recurrent": Experiment(
        data=PAIRS, model=AttentionTranslator(embedding=6, width=6), task=Translation(beams=2), **SETTINGS
    ),
    "transformer": Experiment(
        data=PAIRS, model=TranslationTransformer(width=8, encoder_layers=1, decoder_layers=1, heads=2, hidden=8),
        task=Translation(label_smoothing=0.1), **SETTINGS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("problem", PROBLEMS)
def test_layouts_agree_and_a_stopped_run_resumes_to_the_same_bits(problem: str, tmp_path: Path) -> None:
    data = pipeline.load(PROBLEMS[problem].data, Request())
    made = bind_experiment(PROBLEMS[problem], data.splits.facts)
    program = build(made, data, 0, layouts.choose_layout("jit", jax.devices()[:1]))
    whole = train_resumed(program, tmp_path, stop_at=3)
    seen = view(program, whole.variables)
    if problem == "texts":
        rows = take(program.data.splits.train, slice(4))
        changed, plain = seen.augmented(rows), seen.prepared(rows)
        assert changed["class_weight"].shape == (4,)
        assert not np.allclose(changed["inputs"]["ratios"], plain["inputs"]["ratios"])  # its own counts are left out
    else:
        (file,) = made.task.predict(seen, str(_lines(tmp_path)), tmp_path / "out")
        assert len(file.read_text().splitlines()) == 3
        assert "Where it looks" in [panel.title for draw in made.task.panels(seen) if (panel := draw()) is not None]
    if problem != "recurrent":
        spread = train(build(made, data, 0, layouts.choose_layout("pmap", jax.devices()[:2])), tmp_path / "pmap")
        assert_states_close(whole, spread, rtol=1e-3, atol=1e-4)


def _lines(folder: Path) -> Path:
    path = folder / "own.txt"
    path.write_text("may 9, 2023\n\n9 may 2023\n")
    return path
