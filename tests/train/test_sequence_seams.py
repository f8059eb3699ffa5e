"""Texts and translations on the loop: under jit and pmap, stopped and resumed to the same bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from test_seams import trained

from fdl.checkpoint import saving
from fdl.data import Data, Request, Splits, sources
from fdl.data.class_ops import ClassWeights, NaiveBayesRatios
from fdl.data.encoders import Vocabulary
from fdl.data.pairs import CutPairs, Pairs
from fdl.data.standins import sentences
from fdl.experiment import Experiment
from fdl.models import AttentionTranslator, TextClassifier, TranslationTransformer
from fdl.optim import Optimizer
from fdl.tasks import TextClassification, Translation
from fdl.train.evaluation import evaluate, view
from fdl.types import take


def small(splits: Splits, count: int = 48) -> Splits:
    assert splits.test is not None
    parts = {name: take(getattr(splits, name), slice(count)) for name in ("train", "validation", "test")}
    return dataclasses.replace(splits, **parts)


def reviews(request: Request) -> Splits:
    parts = [sentences.reviews(48, number) for number in range(3)]
    return Splits("reviews", "", "", parts[0], parts[1], parts[2])


SETTINGS = {"optimizer": Optimizer(learning_rate=1e-2), "steps": 6, "batch_size": 16, "eval_batch_size": 32, "eval_every": 3,
            "save_every": 3, "log_every": 3, "name": "toy"}  # fmt: skip
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
    from fdl.data import pipeline
    from fdl.experiment.binding import bind_experiment

    made = PROBLEMS[problem]
    made = bind_experiment(made, pipeline.load(made.data, Request()).splits.facts)
    whole, program = trained(made, tmp_path / "whole")
    trained(made, tmp_path / "stopped", stop_at=4)
    resumed, _ = trained(made, tmp_path / "stopped")
    assert saving.state_sha256(resumed) == saving.state_sha256(whole)
    assert program.data.splits.test is not None
    metrics = evaluate(program, whole.variables, program.data.splits.test)
    spread, other = trained(made, tmp_path / "pmap", "pmap", devices=2)
    for a, b in zip(jax.tree.leaves(jax.device_get(whole)), jax.tree.leaves(jax.device_get(spread)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    again = evaluate(other, spread.variables, other.data.splits.test)
    assert again["loss"] == pytest.approx(metrics["loss"], rel=1e-3)
    drawn = [panel for draw in made.task.panels(view(program, whole.variables)) if (panel := draw()) is not None]
    assert drawn
    if problem == "texts":
        seen = view(program, whole.variables).augmented(take(program.data.splits.train, slice(4)))
        assert seen["class_weight"].shape == (4,)
        plain = view(program, whole.variables).prepared(take(program.data.splits.train, slice(4)))
        assert not np.allclose(seen["inputs"]["ratios"], plain["inputs"]["ratios"])  # its own counts are left out
    else:
        (file,) = made.task.predict(view(program, whole.variables), str(_lines(tmp_path)), tmp_path / "out")
        assert len(file.read_text().splitlines()) == 3
        assert "Where it looks" in [panel.title for panel in drawn]


def _lines(folder: Path) -> Path:
    path = folder / "own.txt"
    path.write_text("may 9, 2023\n\n9 may 2023\n")
    return path
