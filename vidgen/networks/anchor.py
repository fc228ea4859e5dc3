"""Texture that travels with its surface: pixels of an earlier frame, fetched once along the composed flows of several frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from flow.warp import compose, sampling_grid


class Anchor(NamedTuple):
    """An earlier frame and the way back to it: where its surfaces are still seen, their pixels come from there.

    Were every frame fetched from the one before it, each would resample pixels that were resampled before, and what is generated
    anew in small shares would add up along the motion; after a few frames both show as streaks. Along flows that are composed,
    pixels are sampled once in a number of frames.

    Attributes:
        frame: [N,3,H,W], -1..1.
        flow: [N,2,H,W], from the grid of the present frame into `frame`, pixels.
        known: [N,1,H,W], 1 where the surface was in `frame` and in every frame since.
        age: [N,1,1,1], frames since `frame`; 0 where there is none yet.
    """

    frame: Tensor
    flow: Tensor
    known: Tensor
    age: Tensor

    @classmethod
    def none(cls, frame: Tensor) -> Anchor:
        """One that the frame before the present one replaces; of the size of `frame` [N,3,H,W]."""
        frame = frame.float()
        return cls(
            frame,
            torch.zeros_like(frame[:, :2]),
            torch.zeros_like(frame[:, :1]),
            torch.zeros_like(frame[:, :1, :1, :1]),
        )

    def detach(self) -> Anchor:
        """Without the way back to what was generated."""
        return Anchor(*(part.detach() for part in self))

    def moved(self, previous: Tensor, flow: Tensor, known: Tensor, max_age: int) -> Anchor:
        """The anchor of the next frame.

        Args:
            previous: [N,3,H,W], the frame before it.
            flow: [N,2,H,W], from its grid into `previous`.
            known: [N,1,H,W], where that can be trusted.
            max_age: frames for which an anchor serves before `previous` takes its place.
        """
        renewed = (self.age == 0) | (self.age >= max_age)
        return Anchor(
            torch.where(renewed, previous, self.frame),
            torch.where(renewed, flow, compose(flow, self.flow)),
            known * torch.where(renewed, torch.ones_like(known), warp_nearest(self.known, flow.detach())),
            torch.where(renewed, torch.ones_like(self.age), self.age + 1),
        )


def warp_bicubic(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch `image` [N,C,H,W] along `flow` as `flow.warp.warp` does, by bicubic interpolation kept in -1..1: it blurs far less.

    Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, with a = -0.75.
    """
    return F.grid_sample(image.float(), sampling_grid(flow), mode="bicubic", padding_mode="border", align_corners=True).clamp(-1, 1)


def warp_nearest(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch `image` [N,C,H,W] along `flow`, each pixel from the nearest place."""
    return F.grid_sample(image.float(), sampling_grid(flow), mode="nearest", padding_mode="border", align_corners=True)
