"""What a path leads to, in words: for messages where something else was wanted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_SUFFIXES = {
    **dict.fromkeys((".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v"), "a video"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".apng"), "a picture"),
    **dict.fromkeys((".yaml", ".yml"), "a configuration file"),
    **dict.fromkeys((".safetensors", ".pth", ".pt", ".ckpt"), "a weights file"),
    **dict.fromkeys((".flo", ".pfm"), "a flow file"),
    ".json": "a JSON file",
    ".csv": "a table",
    ".html": "a page",
}
_PICTURES = frozenset(suffix for suffix, kind in _SUFFIXES.items() if kind == "a picture")
_MAX_ENTRIES = 10_000


def kind_of(path: str | Path) -> str:
    """Such as "a video", "a run folder" or "a folder of pictures"; "nothing" where there is nothing."""
    path = Path(path)
    try:
        if path.is_dir():
            return _kind_of_folder(path)
        if not path.exists():
            return "nothing"
        if not path.is_file():
            return "neither a file nor a folder"
    except (OSError, ValueError):
        return "nothing"
    return _SUFFIXES.get(path.suffix.lower(), "a file")


def _kind_of_folder(path: Path) -> str:
    names = {entry.name for _, entry in zip(range(_MAX_ENTRIES), os.scandir(path), strict=False)}
    if "checkpoints" in names and ("config.yaml" in names or "metrics.jsonl" in names):
        return "a run folder"
    if "model.safetensors" in names:
        return "a checkpoint folder"
    if not names:
        return "an empty folder"
    is_of_pictures = any(Path(name).suffix.lower() in _PICTURES for name in names)
    return "a folder of pictures" if is_of_pictures else "a folder"


def is_model(path: str | Path) -> bool:
    """Whether a path may lead to a trained model."""
    return kind_of(path) in ("a run folder", "a checkpoint folder", "a weights file")


def is_material(path: str | Path) -> bool:
    """Whether a path leads to what models are used on: a video, a picture or a folder of pictures."""
    return kind_of(path) in ("a video", "a picture", "a folder of pictures")


def other_kind(path: str | Path, *expected: str) -> str | None:
    """What a path leads to, where that is known and none of the `expected` kinds; None otherwise."""
    kind = kind_of(path)
    return None if kind in ("nothing", "a file", "a folder", *expected) else kind


def swapped(model: str | Path, others: Iterable[str | Path]) -> str | Path | None:
    """The one of `others` that is a model, where `model` is none."""
    if is_model(model) or not is_material(model):
        return None
    return next((other for other in others if is_model(other)), None)
