"""A source of data as text: a data set's name, or a format and a path, with options after commas.

fashion_mnist
tiny_shakespeare,length=64
folder:~/birds,size=64,64
csv:houses.csv,target=price,header=none
"""

from __future__ import annotations

import difflib
import functools
import importlib
import re
from collections.abc import Callable
from typing import Any

from fdl.data import sources
from fdl.data.facts import complete_facts
from fdl.data.formats import characters, cifar, speech
from fdl.data.formats.folders import folder_classes
from fdl.data.formats.forms import first, roots
from fdl.data.formats.masks import CAMVID_CLASSES
from fdl.data.formats.published_tables import MAMMOGRAPHY_CLASSES
from fdl.data.formats.voc import BCCD_CLASSES
from fdl.data.splits import Facts, LoadFunction, Request
from fdl.data.standins import garments, handwriting
from fdl.parsing import keywords, parse
from fdl.types import UserError, printable

_OPTION = re.compile(r"\s*([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)
_QUICK_BYTES = 4 << 20  # a file of this size is read in a moment


def parse_source(text: str) -> LoadFunction:
    """Return the source that `text` names, with its options.

    A comma that no "option=" follows belongs to what is before it: "csv:a,b.csv,numeric=x,y" has two options' worth of commas
    but one option.

    Raises:
        ValueError: there is no such data set, format or option, or a value is of the wrong type.
    """
    head, *parts = text.strip().split(",")
    options: list[list[str]] = []
    for part in parts:
        if match := _OPTION.fullmatch(part):
            options.append([match[1], match[2].strip()])
        elif options:
            options[-1][1] += f",{part}"
        else:
            head += f",{part}"
    name, colon, path = head.partition(":")
    if colon and not path.strip():
        raise ValueError(f"{name}: needs a path, such as {name}:my_data")
    function = _format(name.strip(), text) if colon else _data_set(head.strip())
    known = {option: kind for option, kind, _ in keywords(function)}
    given: dict[str, Any] = {next(iter(known)): path.strip()} if colon else {}
    for option, value in options:
        if option not in known or option in given:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.0)
            what = "is given twice" if option in given else "is no option"
            raise ValueError(
                f"{printable(option, 40)} {what} of {printable(name, 40)}; it has {', '.join(known) or 'none'}"
                + (f", the nearest is {near[0]}" if near and option not in given else "")
            )
        try:
            given[option] = parse(value, known[option])
        except ValueError as error:
            raise ValueError(f"{option}={printable(value, 40)}: {error}") from error
    return functools.partial(function, **given) if given else function


def _format(name: str, text: str) -> LoadFunction:
    if name not in sources.FORMATS:
        near = difflib.get_close_matches(name, sources.FORMATS, n=1)
        raise ValueError(
            f"there is no format {printable(name, 40)!r}, only {', '.join(f'{known}:' for known in sources.FORMATS)}"
            + (f"; did you mean {near[0]}:?" if near else "")
        )
    module, _, function = sources.FORMATS[name].rpartition(".")
    return getattr(importlib.import_module(module), function)


def _data_set(name: str) -> LoadFunction:
    for known, function in sources.DATA_SETS.items():
        if name in (known, f"{function.__module__}.{known}"):  # the latter is how --show names it
            return function
    near = difflib.get_close_matches(name, sources.DATA_SETS, n=1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else "a folder of pictures is folder:PATH, a table csv:FILE, a text text:FILE"
    )
    raise ValueError(f"there is no data set {printable(name, 60)!r}, only {', '.join(sources.DATA_SETS)}; {hint}")


def quick_facts(load: LoadFunction, request: Request) -> Facts | None:
    """Return what a source's data will decide, as far as it is known at once and without the network; else None."""
    function, given = getattr(load, "func", load), getattr(load, "keywords", {})
    look = _QUICK.get(getattr(function, "__name__", ""))
    try:
        return look(load, request, **given) if look else None
    except (UserError, OSError, TypeError):
        return None  # said when the data is loaded


def _classes(names: tuple[str, ...]) -> Callable[..., Facts]:
    return lambda load, request, **given: Facts(classes=names, outputs=len(names))


def _value(load: LoadFunction, request: Request, **given: Any) -> Facts:
    return Facts(outputs=1)


def _loaded(load: LoadFunction, request: Request, **given: Any) -> Facts | None:
    """Get the facts by loading the data: for points drawn quickly, and for small files."""
    if path := given.get("path"):
        found = request.find(path)
        if found is None or not found.is_file() or found.stat().st_size > _QUICK_BYTES:
            return None
    splits = load(request)
    return complete_facts(splits.facts, splits.train)


def _characters(load: LoadFunction, request: Request, **given: Any) -> Facts | None:
    for root in roots(request):
        if path := first(root, *sources.SHAKESPEARE_FILES):
            train, *others = characters.split(characters.read(path))
            return Facts(vocabulary=tuple(characters.vocabulary(train, *others)))
    return None


def _folder(load: LoadFunction, request: Request, *, path: str, **given: Any) -> Facts | None:
    names = folder_classes(request, path, given.get("labels", ""), given.get("label_column", ""))
    return None if names is None else Facts(classes=names, outputs=len(names))


_QUICK: dict[str, Callable[..., Facts | None]] = {
    "fashion_mnist": _classes(garments.CLASSES), "mnist": _classes(handwriting.CLASSES), "digits": _classes(handwriting.CLASSES),
    "fashion_mnist_whole": _classes(garments.CLASSES), "mnist_whole": _classes(handwriting.CLASSES),
    "cifar10": _classes(cifar.CLASSES), "fashion_pair": _classes(("", "")),
    "camvid": _classes(CAMVID_CLASSES), "bccd": _classes(BCCD_CLASSES),
    "moving_digits": lambda load, request, motions=("left", "right"), **given: Facts(outputs=10 * len(motions)),
    "california_housing": _value, "auto_mpg": _value, "boston": _value,
    "mammography": _classes(MAMMOGRAPHY_CLASSES),
    "tiny_shakespeare": _characters, "folder": _folder, "csv_file": _loaded, "text_file": _loaded, "series_file": _loaded,
    "moons": _loaded, "circles": _loaded, "flower": _loaded, "fields": _loaded, "blobs": _loaded, "spirals": _loaded,
    "adding": _value,
    "spoken_digits": _classes(speech.DIGITS),
}  # fmt: skip
