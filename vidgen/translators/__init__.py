"""The published systems, one file each. A file's presence is its registration."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

_SHARED = {"base", "settings", "cascade"}
"""What translators have in common, in files of its own."""


@cache
def available() -> dict[str, ModuleType]:
    """Name -> module of every translator."""
    names = sorted(item.name for item in pkgutil.iter_modules(__path__) if item.name not in _SHARED)
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}
