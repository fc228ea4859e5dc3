"""vidgen: translate segmentation, edge or pose videos into realistic ones, and measure how steady they are.

Everything here is imported when it is first used, so that `import vidgen` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

_HOMES = {
    "Model": "vidgen.inference.model",
    "Session": "vidgen.inference.session",
    "animate": "vidgen.single_image.library",
    "edit_image": "vidgen.single_image.library",
    "evaluate": "vidgen.evaluation",
    "harmonize": "vidgen.single_image.library",
    "label": "vidgen.labeling.clips",
    "load": "vidgen.inference.model",
    "paint": "vidgen.single_image.library",
    "sample": "vidgen.single_image.library",
    "super_resolve": "vidgen.single_image.library",
    "train": "vidgen.commands.train",
}

__all__ = [
    "Model",
    "Session",
    "__version__",
    "animate",
    "edit_image",
    "evaluate",
    "harmonize",
    "label",
    "load",
    "paint",
    "sample",
    "super_resolve",
    "train",
]

if TYPE_CHECKING:
    from vidgen.commands.train import train
    from vidgen.evaluation import evaluate
    from vidgen.inference.model import Model, load
    from vidgen.inference.session import Session
    from vidgen.labeling.clips import label
    from vidgen.single_image.library import animate, edit_image, harmonize, paint, sample, super_resolve


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vidgen' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
