"""A trained model as one file that needs no code of fdl: StableHLO by `jax.export`, weights and preparation inside.

Any later JAX runs it: jax.export.deserialize(open(FILE, "rb").read()).call(inputs), with raw rows of any number. There is no
export to ONNX: jax2onnx 0.17, which makes it, needs orbax-checkpoint < 0.11.37, and fdl 0.12.5 or later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax import export

from fdl.train.program import Program
from fdl.types import UserError, one_line

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize_outputs(program: Program, variables: Mapping[str, Any]) -> bytes:
    """Serialise the function raw inputs [N, ...] -> the model's outputs in inference, for any N and every platform.

    Raises:
        UserError: the model needs more than inputs, calls back into Python, or computes with the number of rows.
    """
    (rows,) = export.symbolic_shape("rows")
    inputs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), program.data.splits.evaluated["inputs"]
    )

    def outputs(inputs: Any) -> Any:
        return program.output_step(variables, {"inputs": inputs})

    try:
        made = export.export(jax.jit(outputs), platforms=PLATFORMS)(inputs)
        return bytes(made.serialize())
    except Exception as error:  # of the tracing, of the symbolic shapes, of the serialisation
        raise UserError(
            f"--format=stablehlo: {program.experiment.name} cannot be exported: {type(error).__name__}: {one_line(error)}; "
            "--format=fdl writes its weights"
        ) from error
