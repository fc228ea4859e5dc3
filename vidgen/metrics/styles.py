"""Whether pictures that were painted in given styles have the colors of these styles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.metrics.score import Score
from vidgen.networks.style_hints import color_statistics

_SIDE = 128


def style_vectors(pictures: list[Tensor]) -> Tensor:
    """Colors of pictures [1,3,H,W] in 0..1 each, as [N,70]; see `vidgen.networks.style_hints.color_statistics`."""
    squares = [F.interpolate(picture * 2 - 1, (_SIDE, _SIDE), mode="area") for picture in pictures]
    return torch.cat([color_statistics(square) for square in squares])


def style_retrieval(results: Tensor, styles: Tensor, own: Tensor) -> Score:
    """Share of results whose own style is the most alike, by the cosine of their colors, of all styles.

    Where results of several styles are at hand, both sides are taken without their means: what all results have in common (the
    drawings, or a pale model) tells no style from another.

    Args:
        results: [N,K] of `style_vectors`.
        styles: [S,K] likewise.
        own: int64 [N], each result's style.
    """
    num_styles = len(styles)
    if num_styles < 2:
        return Score.missing("needs at least 2 styles to choose from")
    groups = [results[own == number] for number in own.unique()]
    if len(groups) > 1:
        results = results - torch.stack([group.mean(0) for group in groups]).mean(0)
        styles = styles - styles[own.unique()].mean(0)
    likeness = F.normalize(results, dim=1) @ F.normalize(styles, dim=1).T
    right = (likeness.argmax(1) == own).float()
    note = f"chance is {1 / num_styles:.2f}, of {num_styles} styles"
    return Score.of(float(right.mean()), len(results)).noted(note)
