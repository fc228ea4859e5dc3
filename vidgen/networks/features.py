"""Pretrained feature extractors, built empty; `weights.pretrained` fills them from a weights file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg19Features(nn.Module):
    """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of VGG-19, frozen.

    Source: Simonyan and Zisserman, ICLR 2015. Module names are those of torchvision's `vgg19().features`.

    Args:
        input_normalization: "none" feeds images in -1..1 as they are (pix2pixHD, vid2vid); "imagenet" normalizes them first
            (imaginaire).
        width_divisor: divides every width; 1 for the real network, larger only in tests.
    """

    _PLAN = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, 256, "pool", 512, 512, 512, 512, "pool", 512)
    _TAPS = (1, 6, 11, 20, 29)

    mean: Tensor
    std: Tensor

    def __init__(self, input_normalization: Literal["none", "imagenet"] = "none", width_divisor: int = 1) -> None:
        super().__init__()
        self.features = _convolutions(self._PLAN, width_divisor)
        self.input_normalization = input_normalization
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[N,3,H,W] in -1..1 -> five feature maps."""
        x = images
        if self.input_normalization == "imagenet":
            x = ((x + 1) / 2 - self.mean) / self.std
        taps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._TAPS:
                taps.append(x)
        return taps


class Vgg19FirstDense(nn.Module):
    """The first fully connected layer of VGG-19 before its ReLU, frozen: 4096 numbers that describe a picture as a whole.

    Source: Simonyan and Zisserman, ICLR 2015. Module names are those of torchvision's `vgg19()`.

    Args:
        width_divisor: divides every width; 1 for the real network, larger only in tests.
    """

    _PLAN = (64, 64, "pool", 128, 128, "pool", *(256,) * 4, "pool", *(512,) * 4, "pool", *(512,) * 4, "pool")
    _SIDE = 224

    mean: Tensor
    std: Tensor

    def __init__(self, width_divisor: int = 1) -> None:
        super().__init__()
        self.features = _convolutions(self._PLAN, width_divisor)
        self.classifier = nn.Sequential(nn.Linear(512 // width_divisor * (self._SIDE // 32) ** 2, 4096))
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, pictures: Tensor) -> Tensor:
        """[N,3,H,W] in -1..1 -> [N,4096]; pictures of other sizes are brought to 224x224 first."""
        if pictures.shape[-2:] != (self._SIDE, self._SIDE):
            pictures = F.interpolate(pictures, (self._SIDE, self._SIDE), mode="bilinear", antialias=True, align_corners=False)
        x = ((pictures + 1) / 2 - self.mean) / self.std
        numbers: Tensor = self.classifier(self.features(x).flatten(1))
        return numbers


def _convolutions(plan: Sequence[int | str], width_divisor: int) -> nn.Sequential:
    """The convolutional part of VGG as its plan of widths and "pool" says."""
    layers: list[nn.Module] = []
    channels = 3
    for item in plan:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2))
        else:
            width = item // width_divisor
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)
