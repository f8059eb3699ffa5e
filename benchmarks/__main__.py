"""python -m benchmarks --suite=loop|saving|scaling|startup [--only=fashion_cnn] [--rounds=5] [--output=FILE]."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from absl import app, flags, logging

import fdl
from benchmarks import loop, saving, scaling, startup

SUITES = {"loop": loop.measure, "saving": saving.measure, "scaling": scaling.measure, "startup": startup.measure}
_SUITE = flags.DEFINE_enum("suite", None, sorted(SUITES), "What to measure.", required=True)
_ONLY = flags.DEFINE_list("only", [], "These experiments alone.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements of each kind, alternated.", lower_bound=1)
_DATA = flags.DEFINE_string("data_dir", os.environ.get("FDL_DATA_DIR"), "As for fdl.main.")
_OUTPUT = flags.DEFINE_string("output", None, "Write the figures as JSON here.")


def machine() -> dict[str, str | int | None]:
    """What the figures were measured on."""
    model = ""
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")}
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "fdl": fdl.__version__,
        **versions,
    }


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise app.UsageError(f"stray word {argv[1]}")
    logging.set_verbosity(logging.WARNING)
    rows = SUITES[_SUITE.value](_ONLY.value, _ROUNDS.value, _DATA.value)
    about = machine()
    print("  ".join(f"{k} {v}" for k, v in about.items()))
    names = list(dict.fromkeys(key for row in rows for key in row))
    widths = {name: max(len(name), *(len(str(row.get(name, ""))) for row in rows)) for name in names}
    print("  ".join(name.ljust(widths[name]) for name in names))
    for row in rows:
        print("  ".join(str(row.get(name, "")).ljust(widths[name]) for name in names))
    if _OUTPUT.value:
        Path(_OUTPUT.value).write_text(
            json.dumps({"machine": about, "suite": _SUITE.value, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    app.run(main)
