"""Flow corrected by the conditions: they show where things went, and a network that saw few motions misses those it never saw."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from flow.warp import warp
from vidgen.networks.layers import without_autocast

_NUM_STEPS = 2
_NUM_WINDOWS = 8
"""Down and across."""
_DEVIATION = 0.25
"""Of the Gaussian windows, in sides of the frame. They are wide, since borders are few and most of them move with the camera."""
_ROBUSTNESS = 0.2
"""In units of the spread of the condition: greater differences count by their size, smaller ones by its square."""
_CAUTION = 0.0003
"""Weight of the correction's own square: it is small where the conditions say nothing."""

_LEAST_SPREAD = 0.01
_LARGEST_STEP = 4.0
"""In tiles. Conditions that have nothing in common, at a cut, ask for any correction."""


@torch.no_grad()
def correction(flow: Tensor, before: Tensor, now: Tensor, stride: int) -> Tensor:
    """What to add to a flow so that it takes one condition into the next.

    Least squares over the borders of labels in wide windows, so that the correction is smooth: a road or a wall of one label
    says nothing by itself, and moves as the borders around it do.

    Source: Lucas and Kanade, "An Iterative Image Registration Technique with an Application to Stereo Vision", IJCAI 1981,
        reweighted for robustness.

    Args:
        flow: [N,2,H,W], from the grid of `now` into `before`, pixels.
        before, now: [N,C,H/stride,W/stride], the conditions averaged over tiles.

    Returns:
        float32 [N,2,H,W], pixels.
    """
    with without_autocast(flow):
        return _correction(flow.float(), before.float(), now.float(), stride)


def _correction(flow: Tensor, before: Tensor, now: Tensor, stride: int) -> Tensor:
    height, width = now.shape[-2:]
    both = torch.stack([before, now])
    centered = both - both.mean(dim=(0, 3, 4), keepdim=True)
    spread = centered.square().sum(2, keepdim=True).mean(dim=(0, 3, 4), keepdim=True).sqrt()
    before, now = centered / spread.clamp(min=_LEAST_SPREAD)
    down, across = _windows(height, now), _windows(width, now)
    start = F.avg_pool2d(flow, stride) / stride
    total = torch.zeros_like(start)
    for _ in range(_NUM_STEPS):
        moved = warp(before, start + total)
        difference = moved - now
        weight = 1 / (difference.norm(dim=1, keepdim=True) + _ROBUSTNESS)
        dx, dy = _slopes(moved)
        products = [
            (a * b).sum(1, keepdim=True) * weight for a, b in ((dx, dx), (dx, dy), (dy, dy), (dx, difference), (dy, difference))
        ]
        sums = down @ torch.cat([*products, total], dim=1) @ across.t()
        xx, xy, yy, x, y, so_far_x, so_far_y = sums.split(1, dim=1)
        xx, yy, x, y = xx + _CAUTION, yy + _CAUTION, x + _CAUTION * so_far_x, y + _CAUTION * so_far_y
        step = (torch.cat([xy * y - yy * x, xy * x - xx * y], dim=1) / (xx * yy - xy * xy)).clamp(-_LARGEST_STEP, _LARGEST_STEP)
        total = total + F.interpolate(step, size=(height, width), mode="bilinear", align_corners=False)
    return F.interpolate(stride * total, scale_factor=float(stride), mode="bilinear", align_corners=False)


def _windows(length: int, like: Tensor) -> Tensor:
    """Weights [_NUM_WINDOWS,length] of averages along a side; each row sums to 1."""
    places = (torch.arange(length, device=like.device, dtype=torch.float32) + 0.5) / length
    centers = (torch.arange(_NUM_WINDOWS, device=like.device, dtype=torch.float32) + 0.5) / _NUM_WINDOWS
    return torch.softmax(-0.5 * ((places - centers[:, None]) / _DEVIATION).square(), dim=1)


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along the rows and down the columns."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
