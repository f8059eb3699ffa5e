"""docs/fdl_colab.ipynb, every cell, on the CPU: with the checkout at hand in place of a clone, on the stand-in.

Jupyter itself and launch.sh run it in the slow suite; the default one reads the few lines that are not Python itself.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "fdl_colab.ipynb"
PARAMETERS = """
STEPS, MORE_STEPS = 20, 30
FLAGS = "--offline --set num_examples=400 --set data.validation=100 --set batch_size=32 --set data.feed=numpy \\
--set log_every=5 --set eval_every=10"
"""
# As an activated environment would be that launch.sh finds set up: its pip does nothing, the rest is this Python.
PYTHON = f'#!/bin/sh\n[ "$1 $2" = "-m pip" ] || exec "{sys.executable}" "$@"\n'
# In a process of its own: what its libraries warn of is not ours to mend.
EXECUTE = """
import sys, nbclient, nbformat
book = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
nbformat.write(book, sys.argv[1])
"""


@pytest.fixture(scope="module", params=["read", pytest.param("jupyter", marks=pytest.mark.slow)])
def executed(
    request: pytest.FixtureRequest, server: forked.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Any]]:
    """The code cells with their outputs."""
    folder = tmp_path_factory.mktemp("notebook")
    book = json.loads(NOTEBOOK.read_text())
    [parameters] = [cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    parameters["source"].append(PARAMETERS)
    (folder / "launch.sh").symlink_to(ROOT / "launch.sh")
    if request.param == "jupyter":
        book = by_jupyter(book, folder)
    else:
        with pytest.MonkeyPatch.context() as at:
            read(book, folder, server, at)
    yield [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    shutil.rmtree(folder)


def by_jupyter(book: dict[str, Any], folder: Path) -> dict[str, Any]:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in ("pyproject.toml", "fdl", "experiments"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "own" / "bin").mkdir(parents=True)
    (folder / "own" / "bin" / "python").write_text(PYTHON)
    (folder / "own" / "bin" / "python").chmod(0o755)
    (folder / "book.ipynb").write_text(json.dumps(book))
    env = {
        name: value for name, value in os.environ.items() if name not in ("FDL_DATA_DIR", "CONDA_PREFIX", "MPLBACKEND")
    }
    env |= {"VIRTUAL_ENV": str(folder / "own"), "FDL_JAX": "cpu", "XLA_FLAGS": "", "IPYTHONDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, "book.ipynb"], cwd=folder, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads((folder / "book.ipynb").read_text()))


def read(book: dict[str, Any], folder: Path, server: forked.Server, at: pytest.MonkeyPatch) -> None:
    """Execute the cells as Python, a line "!./launch.sh FLAGS" by the fork server and %magic not at all."""
    from matplotlib import pyplot as plt

    plt.switch_backend("agg")
    at.chdir(folder)
    at.delenv("FDL_DATA_DIR", raising=False)
    outputs: list[dict[str, Any]] = []

    def launch(line: str) -> None:
        program, *flags = shlex.split(line)
        assert program == "./launch.sh", line
        done = server.run(flags, folder, hooks=[("small:draw_few",)])
        outputs.append({"text": done.stdout + done.stderr})

    def show(*shown: Any) -> None:
        outputs.append({"data": {"image/png": ""}})
        for picture in shown:
            picture.close()
        plt.close("all")

    at.setattr(plt, "show", show)
    names: dict[str, Any] = {"launch": launch, "display": show}
    for each in book["cells"]:
        source = "".join(each["source"])
        if each["cell_type"] != "code":
            continue
        if source.startswith("%%writefile "):
            first, _, text = source.partition("\n")
            (folder / first.split()[1]).write_text(text)
        else:
            source = re.sub(r"^( *)!(.*)$", r'\1launch(f"""\2""")', source, flags=re.MULTILINE)
            source = re.sub(r"^( *)%.*$", r"\1pass", source, flags=re.MULTILINE)
            exec(compile(source, NOTEBOOK.name, "exec"), names)  # noqa: S102  (it is this repository's own)
        each["outputs"], outputs[:] = list(outputs), []


def cell(executed: list[Any], words: str) -> Any:
    [found] = [cell for cell in executed if words in "".join(cell["source"])]
    return found


def said(cell: Any) -> str:
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


def pictures(cell: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


def test_it_is_stored_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    for each in book.cells:
        assert not each.get("outputs")
        assert each.get("execution_count") is None


def test_no_run_fails(executed: list[Any]) -> None:
    everything = "".join(said(each) for each in executed)
    assert "fdl: error" not in everything
    assert "Traceback" not in everything


def test_it_trains(executed: list[Any]) -> None:
    text = said(cell(executed, "--workdir={WORKDIR} --set steps"))
    assert "step 20/20" in text
    assert "report: runs/notebook/report.html" in text


def test_the_curves_are_drawn(executed: list[Any]) -> None:
    assert pictures(cell(executed, "def curves")) == 1
    assert pictures(cell(executed, "curves(MINE)")) == 1


def test_it_predicts_the_picture_it_drew(executed: list[Any]) -> None:
    predicted = cell(executed, "--mode=predict")
    assert "wrote runs/notebook/predictions/predictions.csv" in said(predicted)
    assert pictures(predicted) == 1


def test_the_kept_run_goes_on(executed: list[Any]) -> None:
    resumed = said(cell(executed, "--workdir={KEPT}"))
    assert "resumed at step 20 of 30" in resumed
    assert "step 30/30" in resumed


def test_the_own_experiment_runs(executed: list[Any]) -> None:
    text = said(cell(executed, "--experiment=my_experiment.py --workdir"))
    assert "step 20/20" in text
    assert "test/accuracy" in text
