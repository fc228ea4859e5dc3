"""What is known of a frame goes along the motion to its neighbors: painted labels, and the head's answers of before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flow.engines import create_engine
from flow.warp import FORWARD_BACKWARD_RELATIVE, in_frame, warp

_DOUBT = 0.15
"""Square pixels of forward-backward error at which trust has fallen to 1/e where nothing moves."""


@dataclass(frozen=True)
class Step:
    """Motion between two neighboring frames a and b.

    Attributes:
        forward: flow from the grid of a into b, float32 [1,2,h,w], pixels.
        backward: flow from the grid of b into a.
    """

    forward: Tensor
    backward: Tensor

    def packed(self) -> Step:
        """The same in half the memory."""
        return Step(self.forward.half(), self.backward.half())


class MotionEstimator:
    """Flow in both directions at a reduced size, from one engine."""

    def __init__(self, size: tuple[int, int], engine: str = "dis") -> None:
        self.size = size
        self._estimate = create_engine(engine)

    def reduced(self, image: Tensor) -> Tensor:
        """[1,3,H,W] at the size that motion is estimated at."""
        return F.interpolate(image, size=self.size, mode="area") if image.shape[-2:] != self.size else image

    @torch.inference_mode()
    def between(self, first: Tensor, second: Tensor) -> Step:
        """Motion of two neighboring frames [1,3,h,w] in -1..1 at that size."""
        return Step(self._estimate(first, second), self._estimate(second, first))


def trust(flow: Tensor, back: Tensor) -> Tensor:
    """How far a flow can be followed: 1 where the way back leads home, falling to 0; [1,1,h,w] on the grid of `flow`.

    Source: the error and its relative tolerance are those of Sundaram et al., ECCV 2010; here it fades instead of switching.
    """
    returned = warp(back, flow)
    error = (flow + returned).square().sum(1, keepdim=True)
    tolerated = FORWARD_BACKWARD_RELATIVE * (flow.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)) + _DOUBT
    return torch.exp(-error / tolerated) * in_frame(flow)


@dataclass
class Evidence:
    """What is known of the classes of a frame.

    Attributes:
        shares: [1,C,h,w], which add up to 1 where the weight is not 0.
        weight: [1,1,h,w], how much it counts; the head's answer for one frame counts 1.
    """

    shares: Tensor
    weight: Tensor

    @classmethod
    def nothing(cls, num_classes: int, size: tuple[int, int]) -> Evidence:
        """No knowledge."""
        return cls(torch.full((1, num_classes, *size), 1 / num_classes), torch.zeros(1, 1, *size))

    @classmethod
    def painted(cls, numbers: np.ndarray, num_classes: int, size: tuple[int, int], weight: float) -> Evidence:
        """From a painted frame: int [H,W], numbers of classes, -1 where unpainted."""
        known = torch.from_numpy(numbers)
        one_hot = F.one_hot(known.clamp(min=0), num_classes).permute(2, 0, 1)[None].float() * (known >= 0)
        shares = F.interpolate(one_hot, size=size, mode="area")
        total = shares.sum(1, keepdim=True)
        return cls(torch.where(total > 0, shares / total.clamp(min=1e-6), 1 / num_classes), weight * total)

    def moved(self, flow: Tensor, visible: Tensor, fading: float) -> Evidence:
        """The same for a neighboring frame, whose flow leads into this one."""
        num_classes = self.shares.shape[1]
        both = warp(torch.cat([self.shares, self.weight], dim=1), flow)
        return Evidence(both[:, :num_classes], both[:, num_classes:] * visible * fading)

    def plus(self, other: Evidence) -> Evidence:
        """Both together."""
        total = self.weight + other.weight
        mixed = (self.shares * self.weight + other.shares * other.weight) / total.clamp(min=1e-6)
        return Evidence(mixed, total)

    def packed(self) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest class and its part of the weight, a byte each, uint8 [h,w]; the weight to 1/4, at most 63."""
        share, number = self.shares.max(dim=1)
        weight = (share * self.weight[:, 0] * 4).round().clamp(0, 255)
        return number[0].to(torch.uint8).numpy(), weight[0].to(torch.uint8).numpy()

    @classmethod
    def unpacked(cls, content: tuple[np.ndarray, np.ndarray], num_classes: int) -> Evidence:
        """What `packed` gave."""
        number, weight = (torch.from_numpy(part) for part in content)
        shares = F.one_hot(number.long(), num_classes).permute(2, 0, 1)[None].float()
        return cls(shares, weight[None, None].float() / 4)
