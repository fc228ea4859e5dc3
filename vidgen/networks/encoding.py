"""Turning a `Condition` into the channels a network reads."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

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
