"""A class by the path of its name: the way in for code that is not the package's."""

from __future__ import annotations

import importlib
import inspect
from typing import Any


def load_class(path: str) -> Any:
    """`package.module.Class`, importable where the command runs -> the class.

    Raises:
        ValueError: no such module, one that fails as it is imported, no such name in it, or
            something that cannot be called.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: got no module {error.name!r}, expected package.module.Class that Python can "
            "import; install it, or start the command in the folder it lies in"
        ) from error
    except Exception as error:  # a stranger's module may fail in any way
        raise ValueError(
            f"{path}: got {type(error).__name__}: {error}, expected a module that can be "
            f"imported; try `python -c 'import {module_name}'`"
        ) from error
    found = getattr(module, name, None)
    if found is None:
        classes = sorted(n for n, o in vars(module).items() if inspect.isclass(o) and n[0] != "_")
        raise ValueError(
            f"{path}: got a module without {name!r}, expected one of its names; it has "
            + (", ".join(classes[:20]) or "no classes")
        )
    if not callable(found):
        raise ValueError(f"{path}: got {found!r}, expected a class, or a function that makes one")
    return found
