"""vidgen: translate segmentation, edge or pose videos into realistic ones, and measure how steady they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidgen.inference.model import Model

__version__ = "0.2.0.dev0"


def load(path: str, **options: Any) -> Model:
    """A trained model from a run folder or a weights file; `load(path).translate(video).save(file)` uses it.

    Options are those of `vidgen.inference.model.Model.load`. torch is imported only here.
    """
    from vidgen.inference.model import Model

    return Model.load(path, **options)
