"""python -m benchmarks --suite=SUITE [--only=fashion_cnn] [--rounds=5] [--seeds=3] [--output=FILE].

`accuracy` trains experiments and writes what they reach (benchmarks/ledger.py); the other suites measure speed.
`cpu` and `gpu` set fdl beside its peers (`pip install -e '.[bench]'`); they take --peers=torch_eager,keras_tf or --peers=all.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from benchmarks import accuracy, cpu, decode, gpu, input, loop, saving, scaling, startup
from benchmarks.machine import machine
from fdl.types import UserError

SUITES = {
    "accuracy": lambda only, _, data_dir: accuracy.measure(only, _SEEDS.value, data_dir),
    "cpu": lambda *given: cpu.measure(*given, _PEERS.value),
    "decode": decode.measure,
    "gpu": lambda *given: gpu.measure(*given, _ALLOW_CPU.value),
    "input": input.measure,
    "loop": loop.measure,
    "saving": saving.measure,
    "scaling": scaling.measure,
    "startup": startup.measure,
}
_SUITE = flags.DEFINE_enum("suite", None, sorted(SUITES), "What to measure.", required=True)
_ONLY = flags.DEFINE_list("only", [], "These experiments (cpu: workloads; gpu, input: parts) alone.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "accuracy: runs of each experiment, with the seeds 0, 1, ...", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements of each kind, alternated.", lower_bound=1)
_DATA = flags.DEFINE_string("data_dir", os.environ.get("FDL_DATA_DIR"), "As for fdl.main.")
_PEERS = flags.DEFINE_list("peers", [], "cpu: these peers for every workload, or all; else each workload's own.")
_ALLOW_CPU = flags.DEFINE_bool(
    "allow_cpu", False, "gpu: where there is no accelerator, run it small, to see that it works."
)
_OUTPUT = flags.DEFINE_string("output", None, "Write the figures as JSON here.")


def show(rows: list[dict[str, Any]]) -> None:
    """Rows of the same columns as a table; a column whose name begins with _ is for the JSON alone."""
    names = [name for name in rows[0] if not name.startswith("_")]
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in names}
    print("  ".join(name.ljust(widths[name]) for name in names))
    for row in rows:
        print("  ".join(str(row[name]).ljust(widths[name]) for name in names))
    print()


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise app.UsageError(f"stray word {argv[1]}")
    logging.set_verbosity(logging.WARNING)
    try:
        rows = SUITES[_SUITE.value](_ONLY.value, _ROUNDS.value, _DATA.value)
    except UserError as error:
        raise app.UsageError(str(error)) from error
    about = machine()
    print("  ".join(f"{k} {v}" for k, v in about.items()))
    for _, table in itertools.groupby(rows, list):
        show(list(table))
    if _OUTPUT.value:
        Path(_OUTPUT.value).write_text(
            json.dumps({"machine": about, "suite": _SUITE.value, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    app.run(main)
