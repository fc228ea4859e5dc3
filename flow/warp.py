"""Geometry on flow fields: backward warping."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch `image` along `flow`: result(p) = image(p + flow(p)), bilinear, clamped to the border.

    Args:
        image: float [N,C,H,W].
        flow: [N,2,H,W], pixels, (dx, dy). Coordinates are computed in float32 whatever the precision around:
            in bfloat16 they would be off by half a pixel at x = 200.

    Returns:
        [N,C,H,W] in the dtype of `image`.
    """
    height, width = flow.shape[-2:]
    with torch.autocast(flow.device.type, enabled=False):
        flow = flow.float()
        x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
        y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
        grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
        warped = F.grid_sample(image.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)
    return warped.to(image.dtype)
