"""The published systems, one file each; `settings` holds what configurations say of each. A file's presence registers it."""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
from functools import cache
from types import ModuleType

from vidgen.errors import ConfigError

log = logging.getLogger(__name__)

_SHARED = {"base", "settings", "cascade"}
"""What translators have in common, in files of its own."""


def _names() -> list[str]:
    return sorted(item.name for item in pkgutil.iter_modules(__path__) if item.name not in _SHARED)


@cache
def _imported() -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Translators by name, and those that cannot be imported with the reason: one broken file leaves the others usable."""
    modules: dict[str, ModuleType] = {}
    broken: dict[str, str] = {}
    for name in _names():
        try:
            modules[name] = importlib.import_module(f"{__name__}.{name}")
        except Exception as error:
            broken[name] = f"{type(error).__name__}: {error}"
            log.warning("translator %s cannot be imported (%s); the others can be used", name, broken[name])
    return modules, broken


def available() -> dict[str, ModuleType]:
    """Name -> module of every translator that can be imported."""
    return _imported()[0]


def declarations() -> dict[str, ModuleType]:
    """Name -> module with what a translator declares of itself, `Config`, `inputs` and `pretrained`, without its networks.

    That is a file in `vidgen.translators.settings`, which needs no torch; where there is none, the translator itself.
    """
    apart = {item.name for item in pkgutil.iter_modules([os.path.join(path, "settings") for path in __path__])}
    found: dict[str, ModuleType] = {}
    for name in _names():
        if name in apart:
            found[name] = importlib.import_module(f"{__name__}.settings.{name}")
        elif name in available():
            found[name] = available()[name]
    return found


def declared(kind: str, where: str = "model.kind") -> ModuleType:
    """The declarations of one translator.

    Raises:
        ConfigError: there is none of that name, or its file cannot be imported.
    """
    return declarations().get(kind) or find(kind, where)


def find(kind: str, where: str = "model.kind") -> ModuleType:
    """The module of one translator.

    Raises:
        ConfigError: there is none of that name, or its file cannot be imported.
    """
    modules, broken = _imported()
    if kind in broken:
        raise ConfigError(f"{where}: {kind} cannot be imported here ({broken[kind]})")
    if kind not in modules:
        raise ConfigError(f"{where}: {kind!r} is no translator; there are {', '.join(modules)}")
    return modules[kind]
