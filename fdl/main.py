"""The command line: python -m fdl.main --experiment=fashion_cnn. Flags in, one run out."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from importlib import metadata
from logging import Formatter
from pathlib import Path
from typing import Any

from absl import flags, logging

from fdl import environment

FLAGS = flags.FLAGS
_MODES = ("train", "eval", "predict")

flags.DEFINE_string("experiment", None, "A name of --list, or the path of a .py file of your own.")
flags.DEFINE_string(
    "workdir", None, "The run's directory; the same one again resumes the run. Default: a new one under runs/."
)
flags.DEFINE_enum("mode", "train", _MODES, "What to do.")
flags.DEFINE_multi_string("set", [], "path=value: change a setting of the experiment (see --show). May be repeated.")
flags.DEFINE_string("data_dir", None, "Where data sets are looked for. Default: $FDL_DATA_DIR, then the TFDS default.")
flags.DEFINE_enum("parallel", "auto", ("auto", "pmap", "jit"), "How the step is compiled for the devices.")
flags.DEFINE_bool("offline", False, "Never try the network.")
flags.DEFINE_integer(
    "seed", 0, "Decides the initial parameters, the order of examples and all randomness.", lower_bound=0
)
flags.DEFINE_enum("require", None, ("cpu", "gpu", "tpu"), "Exit with 2 unless JAX runs on this kind of device.")
flags.DEFINE_string("input", None, "For --mode=predict: a file or a folder (or, for a language model, a prompt).")
flags.DEFINE_string("output", None, "For --mode=predict: where to write. Default: WORKDIR/predictions.")
flags.DEFINE_bool("list", False, "Name every experiment.")
flags.DEFINE_bool("show", False, "Print the experiment's settings by the names --set takes.")
flags.DEFINE_bool("dry_run", False, "Print shapes, parameters, FLOPs and memory; train nothing.")
flags.DEFINE_bool("debug", False, "Show the traceback of an error.")
_OWN = ("experiment", "workdir", "mode", "set", "data_dir", "parallel", "offline", "seed", "require", "input", "output",
        "list", "show", "dry_run", "debug")  # fmt: skip


def main() -> None:
    """Run the command line and exit with its code: 0, 1, 2, 130 or 143."""
    sys.exit(run(sys.argv))


def run(argv: list[str]) -> int:
    """The exit code of one command line."""
    environment.keep_freed_memory()
    logging.set_verbosity(logging.WARNING)
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(Formatter("fdl: warning: %(message)s"))
    from fdl.types import RunError, UserError

    debug = "--debug" in argv
    if {"-h", "--help"} & set(argv[1:]):
        print(__doc__, "\n", FLAGS.module_help(sys.modules[__name__]), sep="")
        return 0
    try:
        _parse(argv)
        return _dispatch()
    except UserError as error:
        return _fail(error, 2, debug)
    except RunError as error:
        return _fail(error, 1, debug)
    except KeyboardInterrupt:
        return _fail(RuntimeError("interrupted before training began; nothing was saved"), 130, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader (head, less) has gone: nothing more to say
        return 0
    except Exception as error:
        from fdl.train import Interrupted

        if isinstance(error, Interrupted):
            print(f"fdl: {error}, saved; the same command resumes it", file=sys.stderr)
            return 128 + error.signum
        return _fail(error, 1, debug, kind=f"{type(error).__name__}: ")


def _fail(error: BaseException, code: int, debug: bool, kind: str = "") -> int:
    if debug:
        traceback.print_exc()
    text = " ".join(f"{kind}{error}".split())
    if "RESOURCE_EXHAUSTED" in text or isinstance(error, MemoryError):
        text = f"out of memory: {text[:200]}; try a smaller --set batch_size"
    elif kind:
        text += " (--debug shows where)"
    print(f"fdl: error: {text}", file=sys.stderr)
    return code


def _parse(argv: list[str]) -> None:
    from fdl.types import UserError

    try:
        rest = FLAGS(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, _OWN, n=1)
        hint = f"did you mean --{near[0]}?" if near else "--help lists them"
        raise UserError(f"there is no flag --{error.flagname}; {hint}") from error
    except flags.Error as error:
        raise UserError(f"{str(error).splitlines()[0]}; --help lists the flags") from error
    if rest:
        hint = f"did you mean --set {rest[0]}?" if "=" in rest[0] else "every argument is a --flag"
        raise UserError(f"stray word {rest[0]!r} on the command line; {hint}")


def _dispatch() -> int:
    from fdl.types import UserError

    if FLAGS.list:
        return _list()
    if not FLAGS.experiment:
        raise UserError("--experiment is missing; --list names them all, --help the flags")
    from fdl import experiment as experiments

    found = experiments.find_experiment(FLAGS.experiment)
    experiment = experiments.load_experiment(FLAGS.experiment, FLAGS.set)
    settings = {path: experiments.show(value) for path, value in experiments.settings(experiment) if path != "name"}
    if FLAGS.show:
        for path, value in settings.items():
            print(f"{path} = {value}")
        return 0
    _require()
    if FLAGS.mode == "predict" and not FLAGS.input:
        raise UserError("--mode=predict needs --input: a file, a folder, or for a language model a prompt")
    if FLAGS.dry_run:
        _describe(_program(experiment))
        return 0
    if FLAGS.mode == "train":
        return _train(experiment, found.doc, settings)
    return _use(experiment, found.doc, settings)


def _list() -> int:
    from fdl.experiment import EXPERIMENTS, docstring, experiment_names, load_experiment

    for name in experiment_names():
        doc = docstring(EXPERIMENTS / f"{name}.py")
        experiment = load_experiment(name)
        reaches = next((line.split(":", 1)[1].strip() for line in doc.splitlines() if line.startswith("Result:")), "")
        data = getattr(experiment.data.load, "func", experiment.data.load).__name__
        print(f"{name:<18} {data:<20} {type(experiment.model).__name__:<10} {reaches}")
    return 0


def _require() -> None:
    """Refuse before anything is compiled where JAX fell back to another kind of device without an error."""
    if not FLAGS.require:
        return
    import jax

    from fdl.types import UserError

    try:
        have = jax.default_backend()
    except RuntimeError as error:
        raise UserError(f"--require={FLAGS.require}: {error}") from error
    if {"cuda": "gpu", "rocm": "gpu"}.get(have, have) != FLAGS.require:
        raise UserError(
            f"--require={FLAGS.require}: JAX runs on {have} here; install the {FLAGS.require} build of jax or drop --require"
        )


def _program(experiment: Any) -> Any:
    """The data and the program, with a line that says what was loaded."""
    from fdl import train
    from fdl.data import Request, pipeline

    environment.enable_compile_cache()
    request = Request(data_dir=_data_dir(), offline=FLAGS.offline)
    data = pipeline.load(experiment.data, request, experiment.num_examples)
    program = train.build(experiment, data, FLAGS.seed, FLAGS.parallel)
    splits = data.splits
    sizes = [f"{len(_first_leaf(part)):,} {name}" for name, part in
             (("train", splits.train), ("validation", splits.validation), ("test", splits.test)) if part is not None]  # fmt: skip
    print(f"data: {splits.name} ({splits.source}) from {splits.where}: {', '.join(sizes)}", flush=True)
    return program


def _data_dir() -> Path | None:
    from fdl.types import UserError

    for name, value in (("--data_dir", FLAGS.data_dir), ("FDL_DATA_DIR", os.environ.get("FDL_DATA_DIR"))):
        if value:
            path = Path(value).expanduser()
            if not path.is_dir():
                raise UserError(f"{name}={value} is no folder; give one that holds data sets, or leave it out")
            return path
    return None


def _first_leaf(tree: Any) -> Any:
    import jax

    return jax.tree.leaves(tree)[0]


def _describe(program: Any) -> list[Any]:
    from rich.console import Console
    from rich.table import Table

    from fdl import describe

    table = Table("layer", "kind", "output shape", "parameters", "FLOPs an example", box=None, pad_edge=False)
    for column in table.columns[3:]:
        column.justify = "right"
    layers = describe.layers(program)
    for layer in layers:
        shape = " x ".join(map(str, layer.shape))
        table.add_row(layer.name, layer.kind, shape, f"{layer.params:,}", f"{layer.flops:,}")
    Console(width=None if sys.stdout.isatty() else 110, highlight=False).print(table)
    totals = describe.totals(program)
    print(
        f"{totals['parameters']:,} parameters ({totals['trainable']:,} trainable, {totals['frozen']:,} frozen), "
        f"{sum(layer.flops for layer in layers):,} FLOPs an example forward, state {totals['state_bytes'] / 2**20:.2f} MiB"
    )
    if FLAGS.dry_run:
        cost = program.train.cost_analysis() or {}
        memory = program.train.memory_analysis()
        mib = {kind: getattr(memory, f"{kind}_size_in_bytes") / 2**20 for kind in ("argument", "temp")}
        print(
            f"one training step of {program.experiment.batch_size}: {cost.get('flops', 0):,.0f} FLOPs, "
            f"{mib['argument']:.1f} MiB arguments, {mib['temp']:.1f} MiB temporaries; {program.total_steps:,} steps in all"
        )
    return layers


def _train(experiment: Any, doc: str, settings: Mapping[str, str]) -> int:
    from fdl import checkpoint, logs, report, train, workdir

    chosen = Path(FLAGS.workdir).expanduser() if FLAGS.workdir else None
    before = workdir.read_config(chosen) if chosen else None
    if chosen and before:
        workdir.check_same(chosen, before, experiment.name, FLAGS.seed, settings)
    program = _program(experiment)
    layers = _describe(program)
    compiled = _compile(program)  # before anything is written
    path = chosen or workdir.create(experiment.name)
    with workdir.lock(path):
        config = _config(program, settings)
        checkpoint.write_json(path / "config.json", config)
        timing: dict[str, float | None] = {"compile": compiled, "to_first_step": None}

        def first_step() -> None:
            timing["to_first_step"] = _since_process_start()

        progress = train.train(program, path, lambda line: print(line, flush=True), first_step)
        summary, view = train.summarise(program, path, progress)
        summary["timing"] |= timing | {"total": _since_process_start()}
        checkpoint.write_json(path / "summary.json", summary)
        _say_result(experiment, summary)
        page = report.write_report(
            path, doc=doc, config=config, history=logs.read_rows(path), summary=summary,
            parameters=[dataclasses.asdict(layer) for layer in layers], panels=experiment.task.panels(view),
            monitor=experiment.task.monitor,
        )  # fmt: skip
        print(f"report: {page}")
    return 0


def _compile(program: Any) -> float:
    """Seconds that compiling (or fetching from the cache) the training and the evaluation step took."""
    began = time.monotonic()
    for step in ("train", "evaluate"):
        getattr(program, step)
    return time.monotonic() - began


def _use(experiment: Any, doc: str, settings: Mapping[str, str]) -> int:
    """--mode=eval and --mode=predict: a trained run, looked at."""
    from fdl import train, workdir
    from fdl.types import UserError

    path = Path(FLAGS.workdir).expanduser() if FLAGS.workdir else workdir.newest(experiment.name)
    config = workdir.read_config(path)
    if config is None:
        raise UserError(f"--workdir={path} holds no run; train first")
    workdir.check_same(path, config, experiment.name, int(config["seed"]), settings)
    program = _program(experiment)
    state, best = train.restore_best(program, path / "checkpoints")
    print(f"run: {path}, step {best}")
    if FLAGS.mode == "eval":
        metrics = {
            f"test/{k}": v for k, v in train.evaluate(program, state.variables, program.data.splits.test).items()
        }
        print(json.dumps(metrics))
        return 0
    out = Path(FLAGS.output).expanduser() if FLAGS.output else path / "predictions"
    for written in experiment.task.predict(train.view(program, state.variables), FLAGS.input, out):
        print(f"wrote {written}")
    return 0


def _say_result(experiment: Any, summary: Mapping[str, Any]) -> None:
    from fdl.logs import short

    monitor = f"test/{experiment.task.monitor}"
    rivals = "  ".join(f"{name} {short(m[monitor])}" for name, m in summary["baselines"].items() if monitor in m)
    standin = summary["data"]["name"].endswith("standin")
    note = "  (on a stand-in: these figures say nothing about the real data set)" if standin else ""
    rest = "  ".join(f"{k} {short(v)}" for k, v in summary["metrics"].items() if k.startswith("test/") and k != monitor)
    print(f"{monitor} {short(summary['metrics'][monitor])}  ({rivals})  {rest}{note}")


def _config(program: Any, settings: Mapping[str, str]) -> dict[str, Any]:
    """Everything needed to know, later, what this run was."""
    packages = (
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "tensorflow",
        "tensorflow-cpu",
        "tensorflow-datasets",
        "numpy",
    )
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "experiment": program.experiment.name,
        "overrides": FLAGS.set,
        "settings": dict(settings),
        "seed": FLAGS.seed,
        "command": shlex.join([Path(sys.executable).name, "-m", "fdl.main", *sys.argv[1:]]),
        "versions": versions,
        "git_commit": _git_commit(),
        "devices": [str(device) for device in program.layout.mesh.devices.flat],
        "layout": program.layout.mode,
        "total_steps": program.total_steps,
        "data": {
            "name": program.data.splits.name,
            "source": program.data.splits.source,
            "sha256": program.data.splits.sha256,
        },
    }


def _git_commit() -> str | None:
    try:
        root = Path(__file__).resolve().parent.parent
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
        )
        return done.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def _since_process_start() -> float:
    """Seconds since the kernel started this process (since this file was imported, where /proc is missing)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED


_IMPORTED = time.monotonic()

if __name__ == "__main__":
    main()
