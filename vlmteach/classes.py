"""Classes named by a path in a config, and made with the arguments it gives."""

from __future__ import annotations

import importlib
from typing import Any

from vlmteach.config import ClassConfig


def load_class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def make(spec: ClassConfig, *positional: Any, **given: Any) -> Any:
    return load_class(spec.class_path)(*positional, **{**given, **spec.init_args})
