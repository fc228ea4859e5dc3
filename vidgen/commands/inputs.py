"""Inputs as they are typed."""

from __future__ import annotations

import os
from pathlib import Path


def named_input(text: str) -> tuple[str | None, Path]:
    """NAME and PATH of `NAME=PATH`; no name where there is none, or where a file really bears such a name."""
    name, sign, path = text.partition("=")
    is_named = sign and name and path and "/" not in name and not os.path.lexists(text)
    return (name, Path(path)) if is_named else (None, Path(text))


def files_of_model(model: Path) -> list[Path]:
    """What stands for a model, for claims, which keep it safe from outputs."""
    return [model, *model.rglob("*.safetensors")] if model.is_dir() else [model]


def suggestion(output: Path, suffix: str) -> str | None:
    """What to type for an output whose name should end otherwise."""
    return f"-o {output.with_suffix(suffix)}" if output.name not in ("", "..") else None
