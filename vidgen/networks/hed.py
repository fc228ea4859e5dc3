"""Holistically-nested edge detection: the trained detector of SketchyGAN's edge maps, filled from a file of its PyTorch port."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_NAMES = ("One", "Two", "Three", "Four", "Five")
_WIDTHS = (64, 128, 256, 512, 512)
_NUM_CONVS = (2, 2, 3, 3, 3)
_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)


class HolisticallyNestedEdges(nn.Module):
    """The strength of edges by the five stages of VGG-16, each brought to the size of the picture, and weighed.

    Convolutions are padded by one pixel, so edges lie where they are in the picture; the original, in Caffe, pads by 35 and crops,
    and ports that do only one of both are off by as many pixels. Frozen.

    Source: Xie and Tu, "Holistically-Nested Edge Detection", ICCV 2015; parameter names of its PyTorch port (pytorch-hed).

    Args:
        width_divisor: divides every width; 1 for the real network, larger only in tests.
    """

    mean: Tensor

    def __init__(self, width_divisor: int = 1) -> None:
        super().__init__()
        before = 3
        for index, (name, width, num_convs) in enumerate(zip(_NAMES, _WIDTHS, _NUM_CONVS, strict=True)):
            layers: list[nn.Module] = [nn.MaxPool2d(2, 2)] if index else []
            for _ in range(num_convs):
                layers += [nn.Conv2d(before, width // width_divisor, 3, padding=1), nn.ReLU()]
                before = width // width_divisor
            self.add_module(f"netVgg{name}", nn.Sequential(*layers))
            self.add_module(f"netScore{name}", nn.Conv2d(before, 1, 1))
        self.netCombine = nn.Sequential(nn.Conv2d(len(_NAMES), 1, 1), nn.Sigmoid())
        self.register_buffer("mean", torch.tensor(_MEAN_BGR).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures [N,3,H,W] in -1..1 -> strengths [N,1,H,W] in 0..1."""
        x = (pictures.flip(1) + 1) * 127.5 - self.mean
        scores = []
        for name in _NAMES:
            x = self.get_submodule(f"netVgg{name}")(x)
            score = self.get_submodule(f"netScore{name}")(x)
            scores.append(F.interpolate(score, pictures.shape[-2:], mode="bilinear", align_corners=False))
        strengths: Tensor = self.netCombine(torch.cat(scores, 1))
        return strengths
