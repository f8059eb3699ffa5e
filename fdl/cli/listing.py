"""--list: every experiment of the repository, what it is and what it reaches."""

from __future__ import annotations

import re
import shutil
import textwrap

from fdl.experiment_files import EXPERIMENTS, docstring, experiment_names


def say_experiments() -> None:
    """Print each experiment's name, what it is, and the result, as its file's docstring states them."""
    names = experiment_names()
    left = max(map(len, names)) + 2
    width = max(60, min(shutil.get_terminal_size((120, 0)).columns, 120)) - left
    for name in names:
        doc = docstring(EXPERIMENTS / f"{name}.py")
        found = re.search(r"^Result:(.*(?:\n .*)*)", doc, re.MULTILINE)
        about = [doc.split("\n", 1)[0], *([" ".join(found[1].split())] if found else [])]
        lines = [line for text in about for line in textwrap.wrap(text, width, break_on_hyphens=False)]
        for start, line in zip([name, *[""] * len(lines)], lines, strict=False):
            print(f"{start:<{left}}{line}")
