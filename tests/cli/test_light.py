"""What can be answered or refused at once: it imports no JAX, and no file beside the run takes a library's place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import digits_cnn
from fdl.cli import listing

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("jax", "flax", "optax", "numpy", "orbax", "tensorflow", "rich", "matplotlib")


def start(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--list"], 0),
        (["--help"], 0),
        (["--experiment=digits_cnn", "--sed=1"], 2),
        (["--experiment=digits_cnn", "--trials=many"], 2),
        (["--experiment=digits_cn"], 2),
        (["--experiment=digits_cnn", "--mode=eval", "--topology=v5e-8"], 2),
    ],
)
def test_an_answer_at_once_imports_nothing_heavy(tmp_path: Path, flags: list[str], code: int) -> None:
    program = f"import sys; from fdl import main; print(main.run(['fdl', *{flags!r}])); print(sorted(sys.modules))"
    done = start(tmp_path, "-c", program)
    *_, returned, modules = done.stdout.splitlines()
    assert int(returned) == code, done.stderr
    assert not [name for name in HEAVY if f"'{name}'" in modules]


def test_training_imports_only_what_it_uses_before_its_first_step(tmp_path: Path) -> None:
    program = "import sys; import fdl.cli.modes; print(sorted(sys.modules))"
    modules = start(tmp_path, "-c", program).stdout
    unused = ("orbax", "tensorflow", "torch", "sklearn", "matplotlib", "jinja2", "tensorboardX", "safetensors", "scipy")
    assert not [name for name in unused if f"'{name}'" in modules]


def test_the_list_is_read_from_the_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    listing.say_experiments()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == sorted(
        p.stem for p in (ROOT / "experiments").glob("[!_]*.py")
    )
    (first,) = [number for number, line in enumerate(lines) if line.startswith("digits_cnn ")]
    after = next(number for number in range(first + 1, len(lines)) if not lines[number].startswith(" "))
    digits, doc = " ".join(" ".join(lines[first:after]).split()), digits_cnn.__doc__ or ""
    assert doc.splitlines()[0] in digits
    assert " ".join(doc.split("Result:")[1].split()) in digits, "the whole result, not its first line"


@pytest.mark.parametrize("name", ["types", "typing", "json", "random", "numpy", "absl", "copy"])
def test_a_file_of_the_users_takes_no_librarys_place(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    done = start(tmp_path, "-m", "fdl.main", "--list")
    assert done.returncode == 0, done.stderr
