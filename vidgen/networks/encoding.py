"""Turning a `Condition` into the channels a network reads."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from vidgen.types import Condition


def fold_time(frames: Tensor) -> Tensor:
    """Every frame as a sample of its own: [B,T,C,H,W] -> [B*T,C,H,W]."""
    folded: Tensor = rearrange(frames, "b t c h w -> (b t) c h w")
    return folded


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """[..., H, W] int64 ids -> float [..., num_classes, H, W]; the ignored id -1 becomes all zeros."""
    classes = torch.arange(num_classes, device=labels.device).view(-1, 1, 1)
    return (labels.unsqueeze(-3) == classes).float()


def instance_edges(instances: Tensor) -> Tensor:
    """1 where an instance id differs from that of its left, right, upper or lower neighbour.

    Source: pix2pixHD (Wang et al., CVPR 2018), section 3.3. Both sides of a boundary are marked.

    Args:
        instances: int64 [..., H, W].

    Returns:
        float [..., 1, H, W], 0 or 1.
    """
    edges = torch.zeros_like(instances, dtype=torch.bool)
    across = instances[..., :, 1:] != instances[..., :, :-1]
    edges[..., :, 1:] |= across
    edges[..., :, :-1] |= across
    along = instances[..., 1:, :] != instances[..., :-1, :]
    edges[..., 1:, :] |= along
    edges[..., :-1, :] |= along
    return edges.float().unsqueeze(-3)


def encode(condition: Condition, *, num_labels: int, use_instances: bool, as_ids: bool = False) -> Tensor:
    """All channels of a condition, [B,T,C,H,W]: one-hot labels, then picture channels, then instance edges.

    Args:
        num_labels: number of classes; 0 where the condition has no labels.
        as_ids: one channel of ids in place of the one-hot labels, for networks that look them up.
    """
    channels = []
    if num_labels:
        if condition.labels is None:
            raise ValueError("this model reads label maps, but the condition has none")
        channels.append(condition.labels.unsqueeze(2).float() if as_ids else one_hot(condition.labels, num_labels))
    if condition.frames is not None:
        channels.append(condition.frames)
    if use_instances:
        if condition.instances is None:
            raise ValueError("this model reads instance maps, but the condition has none")
        channels.append(instance_edges(condition.instances))
    return torch.cat(channels, dim=2)


def tile_averages(encoded: Tensor, size: tuple[int, int], num_labels: int) -> Tensor:
    """A condition averaged over tiles: [N,C,H,W] as `encode` gives it with ids -> [N,num_labels+C-1,h,w], a class being its share.

    Counting ids costs a fraction of what averaging one-hot channels does, and gives the same numbers.

    Args:
        size: h and w.
        num_labels: number of classes; 0 where the first channel holds no ids.
    """
    if not num_labels:
        return F.adaptive_avg_pool2d(encoded, size)
    labels, others = encoded[:, 0].long(), encoded[:, 1:]
    if labels.shape[-2] % size[0] or labels.shape[-1] % size[1]:
        return F.adaptive_avg_pool2d(torch.cat([one_hot(labels, num_labels), others], dim=1), size)
    tiles = rearrange(labels, "n (h a) (w b) -> n (a b) h w", h=size[0], w=size[1])
    counts = encoded.new_zeros(len(encoded), num_labels + 1, *size)
    counts.scatter_add_(1, torch.where(tiles < 0, num_labels, tiles), encoded.new_ones(()).expand(tiles.shape))
    shares = counts[:, :num_labels] / tiles.shape[1]
    return torch.cat([shares, F.adaptive_avg_pool2d(others, size)], dim=1) if others.shape[1] else shares
