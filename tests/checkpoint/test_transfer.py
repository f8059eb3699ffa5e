"""Starting from other weights: what fits is taken, the rest is newly drawn, and one line says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from fdl.checkpoint import weights
from fdl.checkpoint.transfer import transfer
from fdl.types import UserError, named_leaves

RNG = np.random.default_rng(0)


def array(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def net(classes: int) -> Any:
    return {
        "params": {
            "conv": {"kernel": array(3, 3, 1, 4), "bias": array(4)},
            "norm": {"scale": array(4), "bias": array(4)},
            "output": {"kernel": array(4, classes), "bias": array(classes)},
        },
        "batch_stats": {"norm": {"mean": array(4), "var": np.ones(4, np.float32)}},
    }


def inside(tree: Any, name: str) -> Any:
    return {collection: {name: part} for collection, part in tree.items()}


OLD, NEW = net(10), net(3)
BODY = [name for name in named_leaves(NEW) if "output" not in name]


def check(filled: Any, taken: dict[str, Any], drawn: Any) -> None:
    for name, leaf in named_leaves(filled).items():
        np.testing.assert_array_equal(leaf, taken.get(name, named_leaves(drawn)[name]))


def test_a_head_of_another_size_is_newly_drawn_and_the_line_says_so(tmp_path: Path) -> None:
    held = weights.load(weights.save(tmp_path / "w.safetensors", named_leaves(OLD)))
    found = transfer(NEW, held, "init_from=w.safetensors")
    assert set(found.arrays) == set(BODY)
    check(found.fill(NEW), {name: named_leaves(OLD)[name] for name in BODY}, NEW)
    assert str(found) == (
        "init_from=w.safetensors: took 6 of 8 arrays; newly drawn: params/output/bias (3,) (the file's is float32 (10,)), "
        "params/output/kernel (4, 3) (the file's is float32 (4, 10))"
    )
    assert str(transfer(OLD, held, "w")) == "w: took 8 of 8 arrays"


def test_a_part_is_filled_from_a_whole_file_and_another_one_left_out() -> None:
    new = inside(net(3), "backbone")
    new["params"]["head"] = {"kernel": array(4, 10)}
    old = named_leaves(OLD)
    for entry in ("backbone=params/", "backbone=", "/backbone/ = params"):
        found = transfer(new, old, "w", [entry])
        expected = {name.replace("/", "/backbone/", 1): leaf for name, leaf in old.items() if "output" not in name}
        check(found.fill(new), expected, new)
        assert found.unused == ()
        assert found.drawn[-1] == "params/head/kernel (4, 10)"
    same = transfer(OLD, old, "w", ["output=none"])
    assert set(same.arrays) == set(BODY)
    assert same.drawn == ("params/output/bias (10,)", "params/output/kernel (4, 10)")
    assert same.unused == ("params/output/bias", "params/output/kernel")


def test_parts_go_by_other_names_with_or_without_their_collection() -> None:
    held = named_leaves(inside(OLD, "encoder")) | {"bare/kernel": array(4, 3)}
    found = transfer(NEW, held, "w", ["params/output=bare", "=encoder"])
    assert set(found.arrays) == {*BODY, "params/output/kernel"}
    np.testing.assert_array_equal(found.arrays["params/output/kernel"], held["bare/kernel"])
    np.testing.assert_array_equal(found.arrays["batch_stats/norm/mean"], OLD["batch_stats"]["norm"]["mean"])
    assert str(found).endswith("; not used: params/encoder/output/bias, params/encoder/output/kernel")


def test_numbers_are_cast_between_floating_types_alone() -> None:
    spec = {"params": {"w": jnp.zeros(3), "n": np.zeros(3, np.int32)}}
    held = {"params/w": np.arange(3).astype(ml_dtypes.bfloat16), "params/n": np.arange(3.0)}
    found = transfer(spec, held, "w")
    assert found.arrays.keys() == {"params/w"}
    assert found.arrays["params/w"].dtype == np.float32
    np.testing.assert_array_equal(found.arrays["params/w"], [0, 1, 2])


@pytest.mark.parametrize(
    ("held", "settings", "says"),
    [
        (
            {"x": array(2)},
            {},
            r"w: nothing in it fits the model: it has x \(2,\), the model batch_stats/norm/mean \(4,\), ",
        ),
        ({}, {}, "nothing in it fits the model: it has nothing, the model batch_stats"),
        (named_leaves(OLD), {"strict": True}, r"w: params/output/bias is \(10,\), the model's \(3,\)"),
        (
            named_leaves(OLD) | {"x": array(2)},
            {"strict": True, "mapping": ["output=none"]},
            "w have params/output/bias",
        ),
        (
            named_leaves(OLD),
            {"mapping": ["head=none"]},
            "init_map=head=none: the model has no part 'head'; it has batch_stats",
        ),
        (named_leaves(OLD), {"mapping": ["conv=stem"]}, "init_map=conv=stem: the file has nothing for it; it has "),
        (named_leaves(OLD), {"mapping": ["conv"]}, "init_map=conv: expected PART=THEIRS"),
        (
            named_leaves(OLD) | {"params/conv/bias": np.full(4, np.nan, np.float32)},
            {},
            "params/conv/bias holds NaN or Inf",
        ),
    ],
)
def test_what_cannot_be_is_one_line(held: Any, settings: Any, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        transfer(NEW, held, "w", **settings)
    assert "\n" not in str(error.value)


def test_strict_takes_all_or_nothing() -> None:
    assert set(transfer(OLD, named_leaves(OLD), "w", strict=True).arrays) == set(named_leaves(OLD))
    body = {name: leaf for name, leaf in named_leaves(OLD).items() if name in BODY}
    found = transfer(NEW, body, "w", ["output=none"], strict=True)
    assert found.drawn == ("params/output/bias (3,)", "params/output/kernel (4, 3)")
    with pytest.raises(UserError, match="w lack params/output/bias"):
        transfer(NEW, body, "w", strict=True)
