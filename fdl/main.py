"""The command line: python -m fdl.main --experiment=fashion_cnn. Flags in, one run out."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable
from logging import Formatter
from pathlib import Path
from typing import Any

from absl import flags, logging

from fdl import environment
from fdl.cli import streams
from fdl.cli.options import Options, check_flags
from fdl.errors import RunError, UserError
from fdl.experiment_files import find_file
from fdl.files import user_path

FLAGS = flags.FLAGS
_MODES = ("train", "eval", "predict", "export", "replay", "plan", "study", "sweep", "check_gradients", "show_data")
_PASSED_ON = ("data_dir", "offline", "parallel", "mesh", "watchdog", "require", "accept_changes", "test", "report")
"""The flags that the runs of a study or sweep are given too."""

flags.DEFINE_string("experiment", None, "A name of --list, or the path of a .py file of your own.")
flags.DEFINE_string(
    "workdir", None, "The run's directory; the same one again resumes the run. Default: a new one under runs/."
)
flags.DEFINE_enum(
    "mode",
    None,
    _MODES,
    "What to do. Default: train, or study where the file declares one or --seeds or --folds is given.",
)
flags.DEFINE_multi_string("set", [], "path=value: change a setting of the experiment (see --show). May be repeated.")
flags.DEFINE_string("data_dir", None, "Where data sets are looked for. Default: $FDL_DATA_DIR, then the TFDS default.")
flags.DEFINE_enum("parallel", "auto", ("auto", "pmap", "jit"), "How the step is compiled for the devices.")
flags.DEFINE_string(
    "mesh", "", "For --parallel=jit: devices along data:N,fsdp:N,model:N (batch; parameters; outputs of kernels)."
)
flags.DEFINE_string("topology", None, "For --mode=plan: the devices to compile for: v5e-8, v5e:2x4, v2-8, cpu:8, ...")
flags.DEFINE_enum(
    "distributed", "auto", ("auto", "on", "off"),
    "Be one of several processes: on: by JAX's detection of the cluster; auto: where a launcher started several.",
)  # fmt: skip
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where the cluster cannot be detected.")
flags.DEFINE_integer("num_processes", None, "With --coordinator: how many processes there are.", lower_bound=1)
flags.DEFINE_integer("process_id", None, "With --coordinator: which of them this one is, from 0.", lower_bound=0)
flags.DEFINE_float(
    "watchdog", 600.0, "Seconds without a finished step, evaluation batch or save until exit 124; 0: never.",
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_bool(
    "accept_changes",
    False,
    "Go on although library versions, the data or the training step's code differ (not bit for bit).",
)
flags.DEFINE_bool("offline", False, "Never try the network.")
flags.DEFINE_integer(
    "seed", 0, "Decides the initial parameters, the order of examples and all randomness.", lower_bound=0,
    upper_bound=2**32 - 1,
)  # fmt: skip
flags.DEFINE_integer(
    "seeds", None, "Train with so many seeds (--seed is the first) and report mean and range.", lower_bound=1,
    upper_bound=10_000,
)  # fmt: skip
flags.DEFINE_integer(
    "folds", None, "Cut the rows into so many folds, train once with each as the test rows, and report mean and range.",
    lower_bound=2, upper_bound=1000,
)  # fmt: skip
flags.DEFINE_integer("trials", None, "For --mode=sweep: how many there shall be in all.", lower_bound=1)
flags.DEFINE_integer("workers", 1, "For --mode=sweep: how many trials at a time.", lower_bound=1)
flags.DEFINE_bool("test", True, "Look at the test split when the run is done; --notest leaves it alone.")
flags.DEFINE_bool("report", True, "Write report.html when the run is done.")
flags.DEFINE_enum("require", None, ("cpu", "gpu", "tpu"), "Exit with 2 unless JAX runs on this kind of device.")
flags.DEFINE_string("input", None, "For --mode=predict: a file or a folder (or, for a language model, a prompt).")
flags.DEFINE_string(
    "output", None, "For --mode=predict, export and show_data: where to write. Default: in WORKDIR, or runs/"
)
flags.DEFINE_enum(
    "format", "fdl", ("fdl", "timm", "stablehlo"),
    "For --mode=export: weights by fdl's names, or by timm's; or the whole function, weights inside.",
)  # fmt: skip
flags.DEFINE_bool("list", False, "Name every experiment.")
flags.DEFINE_bool("show", False, "Print the experiment's settings by the names --set takes.")
flags.DEFINE_bool("dry_run", False, "Print shapes, parameters, FLOPs and memory; train nothing.")
flags.DEFINE_string("profile", None, "FIRST:LAST: trace these steps into WORKDIR/profile, for Perfetto or xprof.")
flags.DEFINE_bool("dump_hlo", False, "Write the compiled programs' text into WORKDIR/hlo.")
flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main() -> None:
    """Run the command line and exit with its code: 0, 1, 2, 124, 129, 130 or 143."""
    code = run(sys.argv)
    # What is left is the interpreter's own shutdown: a Ctrl-C there would print a traceback of JAX's clean-up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if code in (1, 2) and "jax" in sys.modules:
        from fdl.distributed import processes

        if not processes.alone():
            # Skip jax.distributed's own shutdown, which waits minutes for processes that are waiting for this one.
            # Process 0 exits last: without their coordinator the others would end with that error instead of their own.
            sys.stderr.flush()
            time.sleep(1.0 if processes.is_first() else 0)
            os._exit(code)
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    environment.keep_freed_memory()
    losses: list[OSError] = []

    def lose(error: OSError) -> None:
        losses.append(error)
        if _trains():
            print(f"fdl: warning: standard output is lost ({error.strerror}); the run goes on", file=sys.stderr)

    streams.keep_writing(lose)
    logging.set_verbosity(logging.WARNING)
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(Formatter("fdl: warning: %(message)s"))
    code = _answer(argv)
    sys.stdout.flush()
    if code == 0 and losses and not _trains():
        asked_to_end = isinstance(losses[0], BrokenPipeError) and (not FLAGS.is_parsed() or FLAGS.list or FLAGS.show)
        return 0 if asked_to_end else _fail(RuntimeError(f"standard output cannot be written: {losses[0].strerror}"), 1)
    return code


def _answer(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv[1:]):
        print(__doc__, "\n", FLAGS.module_help(sys.modules[__name__]), sep="")
        return 0
    try:
        _parse(argv)
        return _dispatch(argv)
    except UserError as error:
        return _fail(error, 2)
    except RunError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail(RuntimeError("interrupted before training began; nothing was saved"), 130)
    except Exception as error:
        return _fail(error, 1, kind=f"{type(error).__name__}: ")
    except BaseException as error:
        from fdl.train.stopping import Interrupted

        if not isinstance(error, Interrupted):
            raise
        print(f"fdl: {error}", file=sys.stderr)
        return 128 + error.signum


def _trains() -> bool:
    """Return whether this start writes to its run directory, so that nobody needs to read what it prints."""
    looks = FLAGS.is_parsed() and (FLAGS.list or FLAGS.show or FLAGS.dry_run)
    return FLAGS.is_parsed() and not looks and FLAGS.mode in (None, "train", "study", "sweep")


def _fail(error: BaseException, code: int, kind: str = "") -> int:
    if FLAGS.is_parsed() and FLAGS.debug:
        traceback.print_exc()
    text = " ".join(f"{kind}{error}".split())
    if kind and ("RESOURCE_EXHAUSTED" in text or isinstance(error, MemoryError)):
        text = f"out of memory: {text[:200]}; try a smaller --set batch_size"
    elif kind:
        text += " (--debug shows where)"
    if not getattr(error, "echo", False):
        print(f"fdl: error: {text}", file=sys.stderr)
    return code


def _parse(argv: list[str]) -> None:
    try:
        rest = FLAGS(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, _own_flags(), n=1)
        hint = f"did you mean --{near[0]}?" if near else "--help lists them"
        raise UserError(f"there is no flag --{error.flagname}; {hint}") from error
    except flags.Error as error:
        raise UserError(f"{str(error).splitlines()[0]}; --help lists the flags") from error
    if rest:
        hint = f"did you mean --set {rest[0]}?" if "=" in rest[0] else "every argument is a --flag"
        raise UserError(f"stray word {rest[0]!r} on the command line; {hint}")


def _own_flags() -> list[str]:
    return [flag.name for flag in FLAGS.get_key_flags_for_module(sys.modules[__name__])]


def _options(argv: list[str]) -> Options:
    """Collect the flags in the one value that everything else takes."""
    same = {field: getattr(FLAGS, field) for field in Options.__dataclass_fields__ if field in FLAGS}
    paths = {
        name: user_path(text, f"--{name}") if (text := getattr(FLAGS, name)) else None for name in ("workdir", "output")
    }
    return Options(
        **same | paths | {
            "overrides": tuple(FLAGS.set),
            "command": shlex.join([Path(sys.executable).name, "-m", "fdl.main", *argv[1:]]),
            "passed_on": tuple(FLAGS[name].serialize() for name in _PASSED_ON if FLAGS[name].present),
        }
    )  # fmt: skip


def _dispatch(argv: list[str]) -> int:
    # In the order of their costs: what can be answered or refused without JAX does not wait for it to be imported.
    if FLAGS.list:
        from fdl.cli.listing import say_experiments

        say_experiments()
        return 0
    if not FLAGS.experiment:
        raise UserError("--experiment is missing; --list names them all, --help the flags")
    find_file(FLAGS.experiment)
    options = _options(argv)
    if FLAGS.mode:
        _check_flags(FLAGS.mode)
    with environment.importing():
        from fdl.experiment import find_experiment, make_experiment

        file = find_experiment(FLAGS.experiment)
    experiment = make_experiment(file, FLAGS.set)
    if FLAGS.show:
        from fdl.data import Request
        from fdl.experiment.binding import resolved_settings

        for path, value in resolved_settings(experiment, Request(data_dir=options.data_folder(), offline=True)).items():
            print(f"{path} = {value}")
        return 0
    mode = FLAGS.mode or ("study" if file.study or FLAGS.seeds or FLAGS.folds else "train")
    _check_flags(mode)
    if mode not in ("plan", "sweep"):  # a plan is for other devices than these; a sweep's trials are processes
        _join()
    with environment.importing():
        function = _mode(mode)
    function(file, experiment, options)
    return 0


def _check_flags(mode: str) -> None:
    if not (FLAGS.show or FLAGS.dry_run):
        check_flags(mode, [name for name in _own_flags() if FLAGS[name].present])


def _mode(name: str) -> Callable[..., None]:
    """Choose the mode's function of (file, experiment, options)."""
    from fdl.cli import modes

    if FLAGS.dry_run:
        return modes.dry_run
    if name == "study":
        from fdl.multirun import compare

        return compare.study
    if name == "sweep":
        from fdl.multirun import sweep

        return sweep.sweep
    function: Callable[..., Any] = getattr(modes, f"{name}_" if name in ("eval", "replay") else name)
    return function


def _join() -> None:
    from fdl.distributed import processes

    processes.join(FLAGS.distributed, FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    if FLAGS.require:
        from fdl.distributed import layouts

        layouts.require_platform(FLAGS.require)
    if not processes.is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # one process prints for all; errors still come from each
    # Every flag may decide what the processes do together: one that skips an evaluation leaves the others waiting in it.
    same = {name: FLAGS[name].value for name in _own_flags() if name != "process_id"}
    processes.require_equal("the flags", json.dumps(same, sort_keys=True))


if __name__ == "__main__":
    main()
