"""fdl: Foundations of Deep Learning, pure Flax models and Optax optimizers under one compiled, exactly resumable step.

import fdl
run = fdl.fit("digits_cnn", "runs/mine")     # as python -m fdl.main --experiment=digits_cnn --workdir=runs/mine
run.metrics["test/accuracy"], run.history
program = fdl.compile("digits_cnn")          # the pieces: program.train_step, program.compiled.train_step, ...
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m fdl.main` puts the current folder first: a json.py or random.py that lies there must not be the library's.
    # Before any other import, of which any may be such a name.
    sys.path.append(sys.path.pop(0))

from typing import TYPE_CHECKING, Any

from fdl import environment

if TYPE_CHECKING:
    from fdl.api import Run as Run
    from fdl.api import compile as compile
    from fdl.api import fit as fit

__version__ = "0.1.0"

# JAX reads these once, when it is imported, so they must be in the environment before any file of fdl imports it.
environment.set_defaults()


def __getattr__(name: str) -> Any:
    # Imported when first asked for: the command line checks its settings before JAX is imported.
    if name in ("fit", "compile", "Run"):
        from fdl import api

        return getattr(api, name)
    raise AttributeError(f"module 'fdl' has no attribute {name!r}")
