"""Cross-validation from the command line: every row is tested once, and the mean is over the folds, the baselines' too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def test_folds_of_a_table(fdl_main: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(61, 2))
    rows = "\n".join(f"{a:.5f},{b:.5f},{a + b + 10:.5f}" for a, b in x)
    (tmp_path / "mine.csv").write_text(f"a,b,y\n{rows}\n")
    flags = [
        "--set=data=csv:mine.csv,target=y",
        "--set=steps=8",
        "--set=model.members=2",
        "--noreport",
        "--workdir=run",
    ]
    done = fdl_main("--experiment=auto_mpg_mlp", "--folds=3", *flags)
    assert done.returncode == 0, done.stderr
    assert "all 3 together" in done.stdout
    assert "gradient boosting" in done.stdout
    found = json.loads((tmp_path / "run/summary.json").read_text())
    folds = [found["variants"][f"fold {number}"] for number in (1, 2, 3)]
    tested = [json.loads((tmp_path / f"run/runs/fold-{n}/seed-0/summary.json").read_text())["data"] for n in (1, 2, 3)]
    assert sum(each["test_examples"] for each in tested) == 61
    values = [fold["metrics"]["test/rmse"]["mean"] for fold in folds]
    assert found["metrics"]["test/rmse"] == np.mean(values)
    assert folds[1]["differences"] == ["data.cut=auto,fold=2/3"]
    refused = fdl_main("--experiment=study_depth", "--folds=3")
    assert (refused.returncode, "declares a study of its own" in refused.stderr) == (2, True)
