"""--set texts from a grammar: real paths and misspelt ones, values of every type, right and wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fdl.experiment import Experiment, experiment_names, load_experiment, settings, show
from fdl.types import Duration
from fuzz.campaign import Case

VALUES = (
    "", " ", "0", "-0", "1", "-1", "3", "64", "1.5", "-1.5", "1e-3", "1e9", "1e39", "-1e400", "1e-400", "nan", "NaN", "-nan",
    "inf", "-inf", "1_000", "0x10", "٣", "½", "1,2", "(1, 2)", "[8]", "()", "(((", "1,,2", "1,x", "none", "None", "true", "TRUE",
    "yes", "5epochs", "-5epochs", "1e3steps", "0steps", "10%", "200%", "nanepochs", "0.5examples", "1" * 5000, "9" * 400,
    "9" * 400 + "epochs", "9" * 30 + "%", "99999999999steps", "os.system('x')", "__import__('os')", "../../etc/passwd",
    "<script>", "a=b=c", "\n", "a\nb", "\0", "\ud800", "\udcff", "𝔘𝔫𝔦", "\u202eabc", "'", '"', "relu", "adam", "x" * 100_000,
    "2147483648", "99999999999999999999", "{}", "%s%n", "lambda: 0", "$(id)", "`id`", "\x1b[31m",
)  # fmt: skip
ODD_PATHS = (
    "", " ", ".", "..", "...", "=", "__class__", "data.__class__", "model.__dict__.x", "data.load.__globals__", "optimizer.",
    ".steps", "model..width", "model.parent", "model.name", "name", "steps.value", "batch_size.real", "ünïcode", "x" * 10_000,
    "a.b.c.d.e.f", "\n", "\0", "data.augment.0", "data.prepare", "experiment", "--steps", "-s", "data", "model", "optimizer",
    "task",
)  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz_.0"


def _path(rng: np.random.Generator, known: list[str]) -> str:
    path = known[rng.integers(len(known))]
    kind = rng.random()
    if kind < 0.45:
        return path
    if kind < 0.6:
        return ODD_PATHS[rng.integers(len(ODD_PATHS))]
    for _ in range(rng.integers(1, 4)):  # a typing mistake: a letter left out, put in, put in its place, capitals
        at = int(rng.integers(len(path))) if path else 0
        left, letter, right = path[:at], LETTERS[rng.integers(len(LETTERS))], path[at:]
        path = (left + right[1:], left + letter + right, left + letter + right[1:], left.upper() + right)[
            rng.integers(4)
        ]
    return path


def _value(rng: np.random.Generator, known: dict[str, str]) -> str:
    kind = rng.random()
    if kind < 0.2:
        return list(known.values())[rng.integers(len(known))]
    if kind < 0.4:
        return repr(float(rng.normal() * 10.0 ** rng.integers(-50, 50)))
    if kind < 0.5:
        return str(int(rng.integers(-100, 1000)))
    if kind < 0.6:
        return "".join(map(chr, rng.integers(1, 0xD000, rng.integers(1, 12))))
    return VALUES[rng.integers(len(VALUES))]


def target(rng: np.random.Generator, folder: Path) -> Case:
    """One to three texts for one of the experiments; the settings as shown must be taken back."""
    names = experiment_names()
    name = names[rng.integers(len(names))]
    known = {path: show(value) for path, value in settings(load_experiment(name)) if path != "name"}
    if rng.random() < 0.1:
        path = list(known)[rng.integers(len(known))]
        if not path.startswith("data.load") and path not in ("data.augment", "data.prepare") and known[path] != "()":

            def check(result: object) -> None:
                assert isinstance(result, Experiment)
                assert show(dict(settings(result))[path]) == known[path]

            return Case(lambda: load_experiment(name, [f"{path}={known[path]}"]), (), True, check)
    texts = []
    for _ in range(rng.integers(1, 4)):
        equals = "=" if rng.random() < 0.93 else ("", " ", "==", ":")[rng.integers(4)]
        texts.append(f"{_path(rng, list(known))}{equals}{_value(rng, known)}")
    return Case(lambda: load_experiment(name, texts), ("--set",), None, _usable)


def _usable(result: object) -> None:
    """What is let through can be computed with in 32 bits."""
    if isinstance(result, Experiment):
        total = result.steps.in_steps(result.batch_size, 1000)  # type: ignore[union-attr]
        for path, value in settings(result):
            if isinstance(value, Duration):
                assert 0 <= round(value.in_steps(result.batch_size, 1000, round(total))) < 2**53, path
            elif isinstance(value, int | float):
                assert abs(np.float32(value)) < np.inf, path
