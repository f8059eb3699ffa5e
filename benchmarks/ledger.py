"""The ledger of results: experiments/results.jsonl, a line for each finished run, and the tables written from it.

    python -m benchmarks.ledger add runs/fashion_cnn/seed-0 ...    # after `python -m fdl.main ...`
    python -m benchmarks.ledger write                              # README's table, the docstrings' results

`python -m benchmarks --suite=accuracy` does both. A figure is stale once its experiment's settings differ from those of
its run; tests/meta/test_ledger.py fails then.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.machine import processor
from fdl.experiment import EXPERIMENTS, docstring, experiment_names, load_experiment, settings, show
from fdl.report.formatting import number
from fdl.types import Metrics, UserError

RESULTS = EXPERIMENTS / "results.jsonl"
README = EXPERIMENTS.parent / "README.md"
BEGIN, END = "<!-- results: python -m benchmarks.ledger write -->", "<!-- /results -->"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What one run reached.

    Attributes:
        settings: the experiment's, as its file had them (`file_settings`).
        metrics, baselines: as in summary.json.
        seconds: of the whole process, from its start to its report.
        alone: whether nothing else ran on the machine.
    """

    experiment: str
    settings: Mapping[str, str]
    seed: int
    steps: int
    metrics: Metrics
    baselines: Mapping[str, Metrics]
    seconds: float
    peak_rss_bytes: int
    hardware: str
    alone: bool
    versions: Mapping[str, str]
    commit: str | None
    data: Mapping[str, str | None]


def file_settings(name: str) -> dict[str, str]:
    """List every setting of an experiment as its file has it."""
    return {path: show(value) for path, value in settings(load_experiment(name)) if path != "name"}


def changed_settings(result: Result) -> list[str]:
    """List what has changed in an experiment's file since a result of it.

    A setting that is new since then does not count: it comes with the value that leaves its experiments as they were.
    """
    now = file_settings(result.experiment)
    return [f"{path}: {was} then, {now.get(path)} now" for path, was in result.settings.items() if now.get(path) != was]


def read_run(workdir: Path, alone: bool = False) -> Result:
    """Read a finished run's result.

    Raises:
        UserError: the directory holds no finished run, one with settings that its experiment's file does not have, or one
            on a stand-in of the data.
    """
    try:
        config = json.loads((workdir / "config.json").read_text())
        summary = json.loads((workdir / "summary.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} holds no finished run: {error}") from error
    if config["overrides"]:
        raise UserError(
            f"{workdir} was run with --set {' '.join(config['overrides'])}; the ledger takes experiments as they are"
        )
    if summary["data"]["standin"]:
        raise UserError(f"{workdir} was trained on a stand-in of {summary['data']['name']}; the ledger takes real data")
    name = config["experiment"]
    present = file_settings(name)
    for path, value in present.items():
        was = config["settings"].get(path, value)
        # What the data decides is bound later, so that the file's own value may be empty where the run's is not.
        if was != value and value not in ("0", "none", "()"):
            raise UserError(f"{workdir}: {name}.{path} was {was} and is {value} now; run it again")
    model, cores = processor()
    return Result(
        experiment=name,
        settings={path: value for path, value in present.items() if path in config["settings"]},
        seed=config["seed"],
        steps=summary["steps"],
        metrics=summary["metrics"],
        baselines=summary["baselines"],
        seconds=round(summary["timing"]["total"], 1),
        peak_rss_bytes=summary["peak_rss_bytes"],
        hardware=f"{cores} cores of an {model}"
        if "cpu" in str(summary["devices"][0]).lower()
        else summary["devices"][0],
        alone=alone,
        versions={key: config["versions"][key] for key in ("python", "jax", "flax", "optax")},
        commit=config["git_commit"],
        data={key: summary["data"][key] for key in ("name", "source", "sha256")},
    )


def read_results(path: Path = RESULTS) -> list[Result]:
    """Read the ledger."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Result(**json.loads(line)) for line in lines]


def add_results(found: Iterable[Result], path: Path = RESULTS) -> list[Result]:
    """Add results; one of the same experiment and seed, or of other settings of that experiment, is replaced."""
    kept = read_results(path)
    for new in found:
        kept = [
            old
            for old in kept
            if old.experiment != new.experiment or (old.settings == new.settings and old.seed != new.seed)
        ]
        kept.append(new)
    kept.sort(key=lambda result: (result.experiment, result.seed))
    path.write_text("".join(json.dumps(dataclasses.asdict(result), sort_keys=True) + "\n" for result in kept))
    return kept


@dataclasses.dataclass(frozen=True)
class Line:
    """An experiment's results in words, as the tables show them."""

    experiment: str
    reaches: str
    baseline: str
    time: str
    hardware: str

    @property
    def sentence(self) -> str:
        """Say it as a docstring does."""
        beside = f"; best simple model: {self.baseline}" if self.baseline else ""
        return f"{self.reaches} in {self.time}{beside}"


def describe(results: Sequence[Result]) -> Line:
    """Put the results of one experiment, a run for each seed, into words: its quoted metric on the test split."""
    first = results[0]
    task = load_experiment(first.experiment).task
    metric = task.quoted_metric()
    key = next(k for k in (f"test/{metric}", f"eval/{metric}") if k in first.metrics)
    style = task.metric_style(key)
    values = sorted(result.metrics[key] for result in results)
    middle = number(statistics.median(values), style, unit=True)
    words = metric.replace("_", " ")
    middle = f"{middle} {words}" if style.percent else f"{words} {middle}"
    seeds = (
        f"seed {first.seed}" if len(results) == 1
        else f"{number(values[0], style)} to {number(values[-1], style)}, {len(results)} seeds"
    )  # fmt: skip
    split = "test" if key.startswith("test/") else "validation"
    best = min if style.better == "min" else max
    simple = [(metrics[key], name) for name, metrics in first.baselines.items() if key in metrics]
    value, name = best(simple, default=(0.0, ""))
    minutes = statistics.median(result.seconds for result in results) / 60
    shared = "" if all(result.alone for result in results) else ", shared with other work"
    return Line(
        experiment=first.experiment,
        reaches=f"{middle} on {split} ({seeds})",
        baseline=f"{name} {number(value, style)}" if name else "",
        time=f"{minutes:.1f} min" if minutes >= 1 else f"{60 * minutes:.0f} s",
        hardware=f"{first.hardware}{shared}; jax {first.versions['jax']}",
    )


def describe_all(results: Sequence[Result]) -> list[Line]:
    """Describe every experiment of the ledger, in the order of their names."""
    names = sorted({result.experiment for result in results} & set(experiment_names()))
    return [describe([result for result in results if result.experiment == name]) for name in names]


def table(lines: Sequence[Line]) -> str:
    """Format the results as Markdown."""
    head = "| experiment | reaches | best simple model | time |\n|---|---|---|---|\n"
    rows = (
        f"| [`{x.experiment}`](experiments/{x.experiment}.py) | {x.reaches} | {x.baseline} | {x.time} |\n"
        for x in lines
    )
    return head + "".join(rows)


def with_table(text: str, lines: Sequence[Line]) -> str:
    """Replace what lies between the two markers of a Markdown text."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(lines)}{END}{after}"


def with_result(source: str, line: Line) -> str:
    """Replace `Hardware:` and `Result:`, each up to the next key or the end, in an experiment file's docstring."""
    head, doc, rest = re.split(r'"""', source, maxsplit=2)
    for key, value in (("Hardware", line.hardware), ("Result", line.sentence)):
        doc = re.sub(
            rf"^{key}:(?:.*\n?)(?:    .*\n)*", lambda _, k=key, v=value: _wrap(f"{k}: {v}") + "\n", doc, flags=re.M
        )
    return f'{head}"""{doc}"""{rest}'


def _wrap(text: str, width: int = 118) -> str:
    return textwrap.fill(text, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def write_documents(lines: Sequence[Line]) -> None:
    """Write README's table and the results in the experiments' docstrings."""
    README.write_text(with_table(README.read_text(), lines))
    for line in lines:
        path = EXPERIMENTS / f"{line.experiment}.py"
        if "Result:" in docstring(path):
            path.write_text(with_result(path.read_text(), line))


def main(argv: Sequence[str]) -> int:
    """Run `add RUN_DIRECTORY...` or `write`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="add finished runs to the ledger, then write the documents")
    add.add_argument("runs", nargs="+", type=Path)
    add.add_argument("--alone", action="store_true", help="nothing else ran on the machine")
    commands.add_parser("write", help="write README's table and the docstrings' results")
    given = parser.parse_args(argv)
    try:
        if given.command == "add":
            add_results([read_run(run, given.alone) for run in given.runs])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_documents(describe_all(read_results()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
