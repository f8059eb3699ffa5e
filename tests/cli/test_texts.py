"""Labelled texts of a user's own from the command line: trained on without code, predicted from line by line."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from fdl.data.standins import sentences

Main = Callable[..., subprocess.CompletedProcess[str]]


def test_a_table_with_a_column_of_texts_trains_and_answers_a_text_file(tmp_path: Path, fdl_main: Main) -> None:
    rows = sentences.reviews(300)
    with (tmp_path / "own.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "remark", "verdict"])
        for number, (text, label) in enumerate(zip(rows["inputs"], rows["targets"], strict=True)):
            writer.writerow([number, text.replace(" .", ', "so there".'), ("bad", "good")[label]])
    run = ["--experiment=polarity_cnn", "--workdir=run", "--set=data=csv:own.csv,text=remark,target=verdict"]
    run += ["--set=data.encode.vocabulary.buckets=4096", "--set=model.width=8", "--set=model.embedding=8"]
    run += ["--set=steps=60", "--set=batch_size=32", "--set=optimizer.ema=0"]
    done = fdl_main(*run)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["metrics"]["test/accuracy"] > 0.65  # half of them are of either class
    assert "NBSVM" in done.stdout + done.stderr
    (tmp_path / "asked.txt").write_bytes(b"the film is moving .\r\n\r\nthe plot is dull and the cast is loud .\r\n")
    (tmp_path / "own.csv").unlink()  # a prediction needs the run alone
    answered = fdl_main(*run, "--mode=predict", "--input=asked.txt")
    assert answered.returncode == 0, answered.stderr
    (path,) = tmp_path.glob("run/**/predictions.csv")
    answers = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["line"] for row in answers] == ["1", "3"]
    assert {row["class_1"] for row in answers} <= {"bad", "good"}
    (tmp_path / "asked.txt").write_bytes(b"caf\xe9")
    refused = fdl_main(*run, "--mode=predict", "--input=asked.txt")
    assert refused.returncode == 2
    assert "is not UTF-8 text" in refused.stderr
