"""Geometry on flow fields: backward warping, occlusion, resizing, padding and composition.

Everywhere: flow is float [N,2,H,W], pixels at its own resolution, (dx, dy), from the grid of a first image into a second.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FORWARD_BACKWARD_RELATIVE = 0.01
FORWARD_BACKWARD_ABSOLUTE = 0.5
MOTION_BOUNDARY_RELATIVE = 0.01
MOTION_BOUNDARY_ABSOLUTE = 0.002


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch `image` along `flow`: result(p) = image(p + flow(p)), bilinear, clamped to the border. Differentiable in both.

    Args:
        image: float [N,C,H,W].
        flow: [N,2,H,W], pixels, (dx, dy). Coordinates are computed in float32 (float64 for a float64 image) whatever the
            precision around: in bfloat16 they would be off by half a pixel at x = 200.

    Returns:
        [N,C,H,W] in the dtype of `image`; NaN where the flow is NaN or infinite.
    """
    precision = torch.float64 if image.dtype == torch.float64 else torch.float32
    x, y = _targets(flow.to(precision))
    # grid_sample hides NaN in its forward pass and reads outside its memory in the backward one, so NaN goes around it.
    warped = F.grid_sample(image.to(precision), _grid(x, y), mode="bilinear", padding_mode="border", align_corners=True)
    return (warped + ((x - x) + (y - y)).detach()[:, None]).to(image.dtype)


def sampling_grid(flow: Tensor) -> Tensor:
    """Where each pixel is fetched, float32 [N,H,W,2] in the units of `grid_sample` with aligned corners; finite, and no further
    out than the frame is large."""
    return _grid(*_targets(flow.float()))


def in_frame(flow: Tensor) -> Tensor:
    """Where p + flow(p) lies on the second image (at least half of that pixel is inside); bool [N,1,H,W]."""
    height, width = flow.shape[-2:]
    x, y = _targets(flow)
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return inside[:, None]


def motion_boundaries(flow: Tensor) -> Tensor:
    """Where neighboring pixels move differently, so that the flow itself is doubtful; bool [N,1,H,W].

    Source: Ruder et al., "Artistic Style Transfer for Videos", 2016: |grad u|^2 + |grad v|^2 > 0.01 |w|^2 + 0.002,
    forward differences.
    """
    right = F.pad(flow[..., 1:] - flow[..., :-1], (0, 1))
    down = F.pad(flow[..., 1:, :] - flow[..., :-1, :], (0, 0, 0, 1))
    variation = _squared_length(right) + _squared_length(down)
    return variation > MOTION_BOUNDARY_RELATIVE * _squared_length(flow) + MOTION_BOUNDARY_ABSOLUTE


def forward_backward_occlusion(
    forward: Tensor,
    backward: Tensor,
    *,
    reference_height: int | None = None,
    with_motion_boundaries: bool = False,
    with_out_of_frame: bool = True,
) -> Tensor:
    """Pixels of the first image that the second one does not show; bool [N,1,H,W], on the grid of `forward`.

    Source: Sundaram, Brox, Keutzer, "Dense Point Trajectories by GPU-accelerated Large Displacement Optical Flow", ECCV 2010:
    occluded where |f + b'|^2 > 0.01 (|f|^2 + |b'|^2) + 0.5, with b' the backward flow fetched along f.

    Args:
        forward: flow of the first image into the second, [N,2,H,W].
        backward: flow of the second image into the first, [N,2,H,W].
        reference_height: the height at which 0.5 square pixels are meant (436 in the paper's data); the constant is scaled
            to the height of `forward`, so that the same video at two sizes gives the same mask. None keeps 0.5.
        with_motion_boundaries: also reject `motion_boundaries(forward)`, as Lai et al. (ECCV 2018) do when they evaluate.
        with_out_of_frame: also reject pixels that leave the frame; the border clamp of `warp` would otherwise accept them.
    """
    back = warp(backward, forward)
    absolute = FORWARD_BACKWARD_ABSOLUTE
    if reference_height is not None:
        absolute *= (forward.shape[-2] / reference_height) ** 2
    allowed = FORWARD_BACKWARD_RELATIVE * (_squared_length(forward) + _squared_length(back)) + absolute
    occluded = _squared_length(forward + back) > allowed
    if with_motion_boundaries:
        occluded = occluded | motion_boundaries(forward)
    if with_out_of_frame:
        occluded = occluded | ~in_frame(forward)
    return occluded


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """The same motion on a grid of `size` = (height, width): resampled, dx scaled by the width ratio and dy by the height ratio.

    Averages areas when shrinking (antialias) and interpolates bilinearly when enlarging. Differentiable.
    """
    height, width = flow.shape[-2:]
    if (height, width) == tuple(size):
        return flow
    resized = F.interpolate(flow, size=size, mode="bilinear", align_corners=False, antialias=size[0] < height or size[1] < width)
    scale = torch.tensor([size[1] / width, size[0] / height], device=flow.device, dtype=flow.dtype)
    return resized * scale[:, None, None]


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Flow of image 0 into image 2, from `first` (0 into 1) and `second` (1 into 2): p -> first(p) + second(p + first(p))."""
    return first + warp(second, first)


def pad_images(images: Tensor, multiple: int, min_size: int) -> Tensor:
    """Repeat the right and lower border until height and width are multiples of `multiple` and at least `min_size`."""
    height, width = (max(-(-size // multiple) * multiple, min_size) for size in images.shape[-2:])
    return F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]), mode="replicate")


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of p + flow(p), each [N,H,W]."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    return x, y


def _grid(x: Tensor, y: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    return grid.nan_to_num().clamp(-2, 2)


def _squared_length(flow: Tensor) -> Tensor:
    return flow.square().sum(dim=1, keepdim=True)
