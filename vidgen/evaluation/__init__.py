"""How good a video is: measure it, compare it with others, read and write what was measured."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidgen.evaluation.measure import evaluate
    from vidgen.evaluation.report import Report, read_reports

__all__ = ["Report", "evaluate", "read_reports"]

_HOMES = {"Report": "report", "evaluate": "measure", "read_reports": "report"}


def __getattr__(name: str) -> Any:
    """Reports are read without torch, which measuring needs."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vidgen.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vidgen.evaluation.{_HOMES[name]}"), name)
