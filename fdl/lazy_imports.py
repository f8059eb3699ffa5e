"""Names of a package that are imported when they are first asked for, so that a start imports what it uses and no more."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path


def lazy_exports(package: str, source: str) -> Callable[[str], object]:
    """Make a package's `__getattr__` (PEP 562) from the imports that its source lists under `if TYPE_CHECKING:`.

    Type checkers and readers see ordinary imports there, and there is no second list to keep.

    Args:
        package, source: the package's `__name__` and `__file__`.
    """
    blocks = [node for node in ast.parse(Path(source).read_bytes()).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.asname or alias.name: node.module or "" for node in imports for alias in node.names}

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # asked for once
        return value

    return get
