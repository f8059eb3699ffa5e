"""The modes of `--mode`: each a function of an experiment's file, the experiment made from it, and the options."""

from __future__ import annotations

from pathlib import Path

from fdl.checkpoint import weights
from fdl.cli import session, training
from fdl.cli.options import Options
from fdl.distributed import layouts, processes
from fdl.experiment import Experiment, Found
from fdl.files import to_json, user_path, write_bytes
from fdl.inspect import chips, replay
from fdl.inspect import plan as plans
from fdl.models.pytorch_names import to_pytorch
from fdl.report import report
from fdl.rundir import logs
from fdl.train import stablehlo
from fdl.train.evaluation import evaluate, view
from fdl.train.program import Program
from fdl.train.restore import restore_best
from fdl.train.step import State
from fdl.train.tracing import step_flops
from fdl.types import UserError, named_leaves


def train(file: Found, experiment: Experiment, options: Options) -> None:
    """Begin a run, or resume the one in --workdir, up to its report (--mode=train)."""
    training.train_run(experiment, options, file.doc)


def eval_(file: Found, experiment: Experiment, options: Options) -> None:
    """Print a trained run's metrics on the test split (or its substitute) as JSON, alone on stdout (--mode=eval)."""
    _, program, state = _trained(experiment, options, rows=True, say=session.say_aside)
    splits = program.data.splits
    split = "test" if splits.test is not None else "eval" if splits.validation is not None else "train"
    metrics = evaluate(program, state.variables, splits.evaluated)
    print(to_json({f"{split}/{name}": value for name, value in metrics.items()}))


def predict(file: Found, experiment: Experiment, options: Options) -> None:
    """Predict for the user's own input with a trained run (--mode=predict)."""
    if not options.input:
        raise UserError("--mode=predict needs --input: a file, a folder, or for a language model a prompt")
    path, program, state = _trained(experiment, options, rows=False)
    trained = view(program, state.variables)
    if not processes.is_first():
        return
    given = options.input
    if given.startswith("~"):
        given = str(user_path(given, "--input"))
    for written in experiment.task.predict(trained, given, options.output or path / "predictions"):
        session.say(f"wrote {written}")


def export(file: Found, experiment: Experiment, options: Options) -> None:
    """Write the best checkpoint for elsewhere (--mode=export), in the form that --format names.

    - fdl: parameters and statistics by fdl's names, .safetensors or .npz; what `init_from` reads.
    - timm: the same by PyTorch's names and in its layout, for the nets that timm has (`fdl.models.pytorch_names`).
    - stablehlo: the whole function from raw rows to outputs (`fdl.train.stablehlo`, which says why there is no ONNX).
    """
    path, program, state = _trained(experiment, options, rows=False)
    variables = processes.to_host(state.variables)
    if not processes.is_first():
        return
    if options.format == "stablehlo":
        out = options.output or path / "model.stablehlo"
        content = stablehlo.serialize_outputs(program, variables)
        write_bytes(out, content)
        session.say(f"wrote {out}: {len(content):,} bytes")
        return
    arrays = named_leaves(variables)
    if options.format == "timm":
        arrays = to_pytorch(program.experiment.model, arrays)
    default = "weights.safetensors" if options.format == "fdl" else "timm.safetensors"
    out = weights.save(options.output or path / default, arrays)
    session.say(f"wrote {out}: {len(arrays)} arrays")


def replay_(file: Found, experiment: Experiment, options: Options) -> None:
    """Inspect the run's last bad step, leaf by leaf (--mode=replay)."""
    path, _ = session.trained_run(experiment, options)
    replay.newest_record(path)
    _, program = session.load_trained(experiment, options, rows=True)
    seen = replay.replay(program, path)
    session.say(f"step {seen.step}, made again from step {seen.since}: {seen.fault}")
    rows = [(each.name, f"{each.bad:,}", f"{each.size:,}", f"{each.largest:.4g}") for each in seen.arrays]
    logs.table(("array", "not finite", "of", "largest magnitude"), rows, range(1, 4))
    session.say("the examples with the worst loss, by their row in the training split:")
    session.say("  ".join(f"{row}: {loss:.4g}" for row, loss in seen.examples))


def check_gradients(file: Found, experiment: Experiment, options: Options) -> None:
    """Compare the training step's gradient with finite differences of its loss (--mode=check_gradients)."""
    from fdl.inspect import gradients

    gradients.show(gradients.check(session.load(experiment, options)), session.say)


def plan(file: Found, experiment: Experiment, options: Options) -> None:
    """Compile the training step for devices that are not here, and print its costs (--mode=plan)."""
    if not options.topology:
        raise UserError("--mode=plan needs --topology, such as v5e-8, v5e:2x4, v2-8 or cpu:8")
    devices = chips.devices(options.topology)
    program = session.load(
        experiment, options, layout=lambda: layouts.choose_layout(options.parallel, devices, options.mesh), cached=False
    )
    made = plans.plan(program, options.topology)
    plans.show(made, session.say)
    if made.chip and made.fits:
        session.say("looking for the largest batch that fits; compiling for it may take minutes")
        plans.show_largest(*plans.largest_batch(program, made), session.say)


def show_data(file: Found, experiment: Experiment, options: Options) -> None:
    """Write a page on the data before anything is trained: class counts, a grid, a batch (--mode=show_data)."""
    program = session.load(experiment, options)
    if not processes.is_first():
        return
    panels = report.list_panels(lambda: experiment.task.data_panels(view(program, {})))
    if not panels:
        raise UserError(f"--mode=show_data: {type(experiment.task).__name__} has no sections on its data")
    folder = options.output or Path("runs") / f"{experiment.name}-data"
    page = report.Page(f"{experiment.name}: data", panels, doc=file.doc)
    session.say(f"report: {report.write_report(folder, page)}")


def dry_run(file: Found, experiment: Experiment, options: Options) -> None:
    """Compile what would be trained and describe it, without running it (--dry_run)."""
    program = session.load(experiment, options)
    session.say_layers(program)
    memory = program.compiled.train_step.memory_analysis()
    mib = {kind: getattr(memory, f"{kind}_size_in_bytes") / 2**20 for kind in ("argument", "temp")}
    session.say(
        f"one training step of {program.experiment.batch_size}: {step_flops(program):,} FLOPs, "
        f"{mib['argument']:.1f} MiB arguments, {mib['temp']:.1f} MiB temporaries; {program.total_steps:,} steps in all"
    )


def _trained(
    experiment: Experiment, options: Options, *, rows: bool, say: session.Say = session.say
) -> tuple[Path, Program, State]:
    """Load --workdir's run, or the experiment's newest: its directory, and its best checkpoint with its own seed."""
    path, program = session.load_trained(experiment, options, rows=rows, say=say)
    state, best = restore_best(program, path / "checkpoints")
    say(f"run: {path}, step {best}")
    return path, program, state
