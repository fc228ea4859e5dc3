"""What flow is judged by: errors against a known truth, and losses for training with and without one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from flow.warp import forward_backward_occlusion, resize_flow, warp

_LEVEL_WEIGHT_DECAY = 0.7
_CENSUS_RADIUS = 3
_MIN_VISIBLE_SHARE = 0.1


def endpoint_error(flow: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean length of the difference, in pixels; a scalar.

    Args:
        flow, truth: [N,2,H,W].
        known: [N,1,H,W], bool or weights; pixels to count. None counts all.
    """
    return _mean((flow - truth).norm(dim=1, keepdim=True), known)


def angular_error(flow: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean angle between (dx, dy, 1) and the truth's, in degrees; a scalar. Arguments as in `endpoint_error`.

    Source: Barron, Fleet, Beauchemin, "Performance of Optical Flow Techniques", 1994.
    """
    found, right = (F.pad(field.double(), (0, 0, 0, 0, 0, 1), value=1.0) for field in (flow, truth))
    angle = torch.atan2(torch.linalg.cross(found, right, dim=1).norm(dim=1), (found * right).sum(dim=1))
    return _mean(angle.rad2deg()[:, None], known).to(flow.dtype)


def outlier_share(flow: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Share of pixels (0..1) that are off by more than 3 pixels and by more than 5 % of the truth; a scalar.

    Source: Menze and Geiger, "Object Scene Flow for Autonomous Vehicles", CVPR 2015 (Fl). Arguments as in `endpoint_error`.
    """
    error, length = (flow - truth).norm(dim=1, keepdim=True), truth.norm(dim=1, keepdim=True)
    return _mean(((error > 3) & (error > 0.05 * length)).to(flow.dtype), known)


def share_beyond(flow: Tensor, truth: Tensor, known: Tensor | None = None, *, pixels: float = 1.0) -> Tensor:
    """Share of pixels (0..1) that are off by more than `pixels`; a scalar. Other arguments as in `endpoint_error`."""
    return _mean(((flow - truth).norm(dim=1, keepdim=True) > pixels).to(flow.dtype), known)


def multilevel_loss(flows: Sequence[Tensor], truth: Tensor, visible: Tensor, *, hidden_weight: float = 0.25) -> Tensor:
    """Robust endpoint error of every level of a pyramid, finer levels weighing more; a scalar.

    Args:
        flows: coarse to fine, each [N,2,h,w] in pixels of its own resolution; the last at the resolution of `truth`.
        truth: [N,2,H,W].
        visible: bool [N,1,H,W].
        hidden_weight: weight of a pixel that the second image does not show; it can only be guessed.
    """
    weight = visible.float() + hidden_weight * (~visible).float()
    total = truth.new_zeros(())
    for index, flow in enumerate(reversed(flows)):
        size = (flow.shape[-2], flow.shape[-1])
        here = resize_flow(truth, size)
        scale = truth.shape[-1] / size[1]
        difference = ((flow.float() - here).square().sum(dim=1, keepdim=True) + 1e-4).sqrt() * scale
        # A power below 1: the many pixels that are nearly right must not drown in the few that are lost.
        robust = (difference + 0.01) ** 0.7
        total = total + _LEVEL_WEIGHT_DECAY**index * _mean(robust, F.interpolate(weight, size, mode="area"))
    return total


def census_loss(image: Tensor, other: Tensor, visible: Tensor) -> Tensor:
    """Difference of the local orders of brightness (7x7), blind to changes of exposure; a scalar.

    Source: ternary census transform with soft Hamming distance as in Meister et al., "UnFlow", AAAI 2018, and UFlow. The mask
    weighs the loss, not the images: masked images would have edges where the mask has.

    Args:
        image, other: float [N,3,H,W] in -1..1.
        visible: [N,1,H,W], 0..1, without gradient.
    """
    difference = _census(image) - _census(other)
    distance = (difference.square() / (0.1 + difference.square())).mean(dim=1, keepdim=True)
    inner = torch.zeros_like(visible, dtype=image.dtype)
    inner[..., _CENSUS_RADIUS:-_CENSUS_RADIUS, _CENSUS_RADIUS:-_CENSUS_RADIUS] = 1
    return _mean((distance + 0.01) ** 0.4, inner * visible, floor=_MIN_VISIBLE_SHARE)


def smoothness_loss(flow: Tensor, image: Tensor, *, edge_sharpness: float = 10.0) -> Tensor:
    """First-order smoothness of the flow, relaxed across the edges of the image; a scalar.

    Args:
        flow: [N,2,H,W].
        image: float [N,3,H,W] in -1..1.
        edge_sharpness: a step of the image by 0.1 (of -1..1) lets the flow break at exp(-0.1 * this) of the price.
    """
    total = flow.new_zeros(())
    for dim in (2, 3):
        step = flow.diff(dim=dim)
        edge = image.diff(dim=dim).abs().mean(dim=1, keepdim=True)
        total = total + ((-edge_sharpness * edge).exp() * (step.square() + 1e-6).sqrt()).mean()
    return total / 2


def unsupervised_loss(
    first: Tensor, second: Tensor, forward: Tensor, backward: Tensor, *, smoothness_weight: float = 0.2
) -> dict[str, Tensor]:
    """Losses of a pair of flows that need no truth, both directions, already weighted: census and smoothness.

    Pixels that the forward-backward test calls occluded are left out of the census; no gradient flows through the test.

    Args:
        first, second: float [N,3,H,W] in -1..1.
        forward: flow of `first` into `second`, [N,2,H,W].
        backward: flow of `second` into `first`, [N,2,H,W].
        smoothness_weight: price of one pixel of flow change between neighbors.
    """
    census = smoothness = first.new_zeros(())
    for here, there, flow, reverse in ((first, second, forward, backward), (second, first, backward, forward)):
        visible = ~forward_backward_occlusion(flow.detach(), reverse.detach())
        census = census + census_loss(here, warp(there, flow), visible.to(here.dtype)) / 2
        smoothness = smoothness + smoothness_weight * smoothness_loss(flow, here) / 2
    return {"census": census, "smoothness": smoothness}


def _census(image: Tensor) -> Tensor:
    """[N,48,H,W] in -1..1: each neighbor of a 7x7 window minus the center, saturating."""
    gray = 127.5 * image.mean(dim=1, keepdim=True)
    side = 2 * _CENSUS_RADIUS + 1
    padded = F.pad(gray, (_CENSUS_RADIUS,) * 4, mode="replicate")
    height, width = gray.shape[-2:]
    offsets = [(y, x) for y in range(side) for x in range(side) if (y, x) != (_CENSUS_RADIUS, _CENSUS_RADIUS)]
    difference = torch.cat([padded[..., y : y + height, x : x + width] for y, x in offsets], dim=1) - gray
    return difference / (0.81 + difference.square()).sqrt()


def _mean(values: Tensor, weight: Tensor | None, floor: float = 0.0) -> Tensor:
    """Weighted mean of [N,1,H,W]; `floor` is the least mean weight to divide by, so that "nothing counts" is no bargain."""
    if weight is None:
        return values.mean()
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=max(floor * weight.numel(), 1e-6))
