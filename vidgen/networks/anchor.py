"""Texture that travels with its surface: pixels of an earlier frame, fetched once along the composed flows of several frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from flow.warp import compose, sampling_grid, warp


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
        enlargement: [N,1,H,W], logarithm of how much larger the previous frame shows its texture than it was drawn.
    """

    frame: Tensor
    flow: Tensor
    known: Tensor
    age: Tensor
    enlargement: Tensor

    @classmethod
    def none(cls, frame: Tensor) -> Anchor:
        """One that the frame before the present one replaces; of the size of `frame` [N,3,H,W]."""
        frame = frame.float()
        return cls(
            frame,
            torch.zeros_like(frame[:, :2]),
            torch.zeros_like(frame[:, :1]),
            torch.zeros_like(frame[:, :1, :1, :1]),
            torch.zeros_like(frame[:, :1]),
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
            warp(self.enlargement, flow.detach()) + enlargement(flow.detach()),
        )


def enlargement(flow: Tensor) -> Tensor:
    """Logarithm of the factor by which what `flow` [N,2,H,W] fetches is shown larger, over some twelve pixels; [N,1,H,W].

    At least 0. H and W are multiples of 4. The factor is the root of that of the area, and at most 1.4.
    """
    tile = 4
    coarse = F.avg_pool2d(F.pad(F.avg_pool2d(flow.float(), tile), (1, 1, 1, 1), mode="replicate"), 3, 1)
    padded = F.pad(coarse, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / (2 * tile)
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / (2 * tile)
    area = (1 + across[:, :1]) * (1 + down[:, 1:]) - across[:, 1:] * down[:, :1]
    return F.interpolate(-area.clamp(0.5, 1.0).log() / 2, scale_factor=float(tile), mode="bilinear", align_corners=False)


def warp_bicubic(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch `image` [N,C,H,W] along `flow` as `flow.warp.warp` does, by bicubic interpolation kept in -1..1: it blurs far less.

    Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, with a = -0.75.
    """
    return F.grid_sample(image.float(), sampling_grid(flow), mode="bicubic", padding_mode="border", align_corners=True).clamp(-1, 1)


def warp_nearest(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch `image` [N,C,H,W] along `flow`, each pixel from the nearest place."""
    return F.grid_sample(image.float(), sampling_grid(flow), mode="nearest", padding_mode="border", align_corners=True)
