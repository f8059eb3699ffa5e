"""Holding rows out of training: the test and validation rows a source does not have, by `Data.cut`; then the subset."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from absl import logging

from fdl.data import columns, digests
from fdl.data.cuts import Cut, Portion
from fdl.data.splits import Data, Splits
from fdl.types import Arrays, UserError, count_examples, named_leaves, take

CUT_SEED = 0x5EED  # the held-out rows are the same in every run, whatever the run's own seed


def hold_out(splits: Splits, data: Data, num_examples: int | None) -> Splits:
    """Return the splits with test and validation rows (cut from training where there are none) and the training subset.

    Raises:
        UserError: too few rows for what is asked, or a cut that these rows do not allow.
    """
    total = count_examples(splits.train)
    order = np.random.Generator(np.random.Philox(CUT_SEED)).permutation(total)
    held: dict[str, Arrays | None] = {"test": splits.test, "validation": splits.validation}
    if Cut.parse(data.cut).folds:
        held["test"], order = _hold_out_fold(splits, data, order)
    for name in held:
        portion = Portion.parse(getattr(data, name))
        if held[name] is not None:
            if name == "validation" and portion:
                logging.warning(
                    "data.validation=%s has no effect: %s has a validation split of its own", portion, splits.name
                )
        elif portion:
            rows, order = _cut(splits, data, order, name, portion)
            held[name] = take(splits.train, rows)
    if num_examples is not None:
        if num_examples > len(order):
            raise UserError(
                f"num_examples={num_examples} asks for more than the {len(order)} training examples of {splits.name}"
            )
        order = order[:num_examples]
    train = take(splits.train, np.sort(order)) if len(order) < total else splits.train
    return dataclasses.replace(splits, train=train, test=held["test"], validation=held["validation"])


def _cut(splits: Splits, data: Data, order: np.ndarray, name: str, portion: Portion) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows held out, sorted; the rest of `order`)."""
    setting, count = f"data.{name}={portion}", portion.rows(len(order))
    cut, overlap = Cut.parse(data.cut), columns.stretches(splits.train)
    kind = ("last" if overlap is not None else "random") if cut.kind == "auto" else cut.kind
    if overlap is not None and kind != "last":
        raise UserError(f"data.cut={cut}: rows of {splits.name} overlap their neighbours; set data.cut=last")
    if count < len(order):
        if kind == "random":
            rows = order[:count]
        elif kind == "last":
            rows = np.sort(order)[len(order) - count :]
        elif kind == "stratified":
            rows = _stratified(splits, order, count)
        else:
            rows = _whole_groups(_groups(splits, cut), order, count)
        kept = order[~np.isin(order, rows)]
        if overlap is not None:  # what reaches into the rows held out would show them
            first, end = overlap
            kept = kept[end[kept] <= first[rows].min()]
        if len(kept):
            return np.sort(rows), kept
    raise UserError(
        f"{setting} leaves no training example: {splits.name} has {count_examples(splits.train)}; give fewer"
    )


def _hold_out_fold(splits: Splits, data: Data, order: np.ndarray) -> tuple[Arrays, np.ndarray]:
    """Return (the test rows of the fold that the cut names, the rest of `order`)."""
    cut = Cut.parse(data.cut)
    if splits.test is not None:
        raise UserError(f"data.cut={cut}: {splits.name} has a test split of its own; leave the fold out")
    if columns.stretches(splits.train) is not None:
        raise UserError(f"data.cut={cut}: rows of {splits.name} overlap their neighbours; leave the fold out")
    if cut.kind == "stratified":  # the rows of each class in turn, dealt to the folds like cards
        place = np.empty(len(order), np.int64)
        place[np.argsort(_class_labels(splits)[order], kind="stable")] = np.arange(len(order))
        fold = place % cut.folds
    elif cut.kind in ("group", "content"):  # as many groups in each: one of very many rows must not be a fold by itself
        _, first, number = np.unique(_groups(splits, cut)[order], return_index=True, return_inverse=True)
        fold = (np.argsort(np.argsort(first)) * cut.folds // len(first))[number]
    else:
        fold = np.arange(len(order)) * cut.folds // len(order)
    held, kept = order[fold == cut.fold - 1], order[fold != cut.fold - 1]
    if not len(held) or not len(kept):
        raise UserError(
            f"data.cut={cut}: this fold of the {len(order)} rows of {splits.name} is empty; choose fewer folds"
        )
    return take(splits.train, np.sort(held)), kept


def _class_labels(splits: Splits) -> np.ndarray:
    """Return the class number of every training row, int [N]."""
    targets = splits.train.get("targets")
    if not isinstance(targets, np.ndarray) or targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        raise UserError(f"data.cut=stratified needs one class number for each row, which {splits.name} does not have")
    return targets


def _stratified(splits: Splits, order: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` rows, of every class its share to the nearest row (largest remainders first).

    Rows that are equal byte for byte stay together, so that it may be some more or fewer.
    """
    targets = _class_labels(splits)
    first = digests.first_equal(splits.train, order)
    alone = np.flatnonzero(first == np.arange(len(order)))  # one of each group of equal rows
    labels = targets[order[alone]]
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(order)
    wanted = np.floor(exact).astype(int)
    more = round(count * len(alone) / len(order)) - wanted.sum()
    wanted[np.argsort(wanted - exact, kind="stable")[:more]] += 1
    chosen = np.zeros(len(order), bool)
    for label, number in zip(classes, wanted, strict=True):
        chosen[alone[labels == label][:number]] = True
    return np.concatenate([order[chosen[first] & (targets[order] == label)] for label in classes])


def _groups(splits: Splits, cut: Cut) -> np.ndarray:
    """Return a number for each row [N], equal for rows that have to stay together."""
    if cut.kind == "content":
        found = digests.row_digests(splits.train["inputs"])
        if found is None:
            raise UserError(
                f"data.cut=content: the inputs of {splits.name} cannot be compared by content; choose another cut"
            )
        return found
    leaves = named_leaves(splits.train)
    if cut.column not in leaves:
        raise UserError(f"data.cut={cut}: {splits.name} has no such column, only {', '.join(leaves)}")
    values = np.asarray(leaves[cut.column])
    if values.ndim != 1:
        raise UserError(f"data.cut={cut}: the column has {values.ndim - 1} dimensions a row; choose one with one value")
    return values


def _whole_groups(values: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
    """Collect rows of whole groups, in the order in which `order` meets them, until there are `count` or more."""
    _, first, number, sizes = np.unique(values[order], return_index=True, return_inverse=True, return_counts=True)
    met = np.argsort(first)
    chosen = met[: int(np.searchsorted(np.cumsum(sizes[met]), count)) + 1]
    return order[np.isin(number, chosen)]


def check_columns(splits: Splits) -> None:
    """Refuse splits that no one compiled step can take.

    Raises:
        UserError: a split has no rows, lacks a column of training or has one more (but "mask"), or validation and test rows
            differ in shape or type.
    """
    given = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    parts = {name: rows for name, rows in given.items() if rows is not None}
    specs = {
        name: {path: (tuple(leaf.shape[1:]), np.dtype(leaf.dtype)) for path, leaf in named_leaves(rows).items()}
        for name, rows in parts.items()
    }
    wanted = specs["train"].keys() - {"mask"}
    for name, spec in specs.items():
        if count_examples(parts[name]) == 0:
            raise UserError(f"the {name} split of {splits.name} has no rows")
        if odd := wanted ^ (spec.keys() - {"mask"}):
            lacks = "lacks" if odd & wanted else "has a column that training lacks:"
            raise UserError(
                f"the {name} split of {splits.name} {lacks} {sorted(odd)[0]!r}; give every split the same columns"
            )
    evaluated = [specs[name] for name in ("validation", "test") if name in specs]
    for path in evaluated[0] if len(evaluated) == 2 else ():
        first, second = evaluated[0][path], evaluated[1].get(path)
        if first != second:
            words = [f"{dtype} {list(shape)}" for shape, dtype in filter(None, (first, second))] + ["absent"]
            raise UserError(
                f"column {path!r} of {splits.name} is {words[0]} a row in validation and {words[1]} in test; make them agree"
            )
    if len(evaluated) == 2 and (more := evaluated[1].keys() - evaluated[0].keys()):
        raise UserError(f"validation of {splits.name} lacks the column {sorted(more)[0]!r} of test; make them agree")


def check_numbers(splits: Splits) -> Splits:
    """Remove columns of text that only the cut needed (a speaker's name) from the splits.

    Raises:
        UserError: "inputs" or "targets" are still text.
    """

    def numbers(rows: Arrays | None) -> Arrays | None:
        if rows is None:
            return None
        texts = [name for name, value in rows.items() if any(_is_text(leaf) for leaf in jax.tree.leaves(value))]
        for name in texts:
            if name in ("inputs", "targets"):
                raise UserError(
                    f"{name!r} of {splits.name} are text: name an op in data.encode that makes numbers of them"
                )
        return {name: value for name, value in rows.items() if name not in texts}

    train = numbers(splits.train) or {}
    return dataclasses.replace(splits, train=train, validation=numbers(splits.validation), test=numbers(splits.test))


def _is_text(leaf: object) -> bool:
    return np.dtype(getattr(leaf, "dtype", object)).kind in "OUSV"
