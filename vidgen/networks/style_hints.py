"""Style hints: what a picture looks like as a whole, as one vector of a frozen encoder.

Source: Zhang et al., ACPR 2017 (style2paints V1): the 4096 numbers of the first fully connected layer of VGG, before its ReLU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks.choices import HintNormalization
from vidgen.networks.efficientnet import EfficientNetFeatures

HintEncoder = Callable[[Tensor], Tensor]
"""Pictures [N,3,S,S] in -1..1 -> [N,K]."""
_HISTOGRAM_BINS = 4
_RANDOM_WIDTHS = (3, 16, 32, 64)
_RANDOM_SEED = 20170814
_EPSILON = 1e-5
_SOFT_LIMIT = 3.0


def pooled_features(network: EfficientNetFeatures, pictures: Tensor) -> Tensor:
    """Mean and deviation over the picture of each channel of all feature maps: [N,1088] for Lite0."""
    maps = network(pictures)
    return torch.cat([value.flatten(2).mean(2) for value in maps] + [value.flatten(2).std(2) for value in maps], dim=1)


def color_statistics(pictures: Tensor) -> Tensor:
    """Mean and deviation of each color, and a soft histogram of 4x4x4 colors: [N,70]."""
    colors = pictures.flatten(2)
    places = torch.linspace(-1, 1, _HISTOGRAM_BINS, device=pictures.device)
    width = 2 / (_HISTOGRAM_BINS - 1)
    near = (1 - (colors.unsqueeze(2) - places.view(1, 1, -1, 1)).abs() / width).clamp(min=0)  # [N,3,bins,pixels]
    joint = torch.einsum("nap,nbp,ncp->nabc", near[:, 0], near[:, 1], near[:, 2]) / colors.shape[-1]
    return torch.cat([colors.mean(2), colors.std(2), joint.flatten(1).sqrt()], dim=1)


def random_features(pictures: Tensor) -> Tensor:
    """Mean and deviation of three convolutions whose weights are random but always the same: [N,128]; for tests and for checks."""
    generator = torch.Generator().manual_seed(_RANDOM_SEED)
    x = pictures
    for before, after in itertools.pairwise(_RANDOM_WIDTHS):
        weight = torch.randn(after, before, 3, 3, generator=generator) * (2 / (9 * before)) ** 0.5
        x = F.leaky_relu(F.conv2d(x, weight.to(x), stride=2, padding=1), 0.2)
    return torch.cat([x.flatten(2).mean(2), x.flatten(2).std(2)], dim=1)


class HintNorm(nn.Module):
    """The "global normalization" of a hint, which the paper does not define.

    "picture" makes the numbers of each hint have mean 0 and deviation 1; "data" each number over the pictures of training, as
    `measure` finds them, and holds what lies far outside of these softly at 3 deviations: style pictures in use are of other kinds.

    Buffers:
        mean, scale: [K].
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_channels: int, kind: HintNormalization) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(num_channels))
        self.register_buffer("scale", torch.ones(num_channels))

    @torch.no_grad()
    def measure(self, hints: Iterable[Tensor]) -> None:
        """Take mean and deviation of hints [N,K] each."""
        found = torch.cat(list(hints)).float()
        self.mean.copy_(found.mean(0))
        # Deviations of few pictures are uncertain: none is taken for less than a tenth of the typical one.
        deviation = found.std(0, correction=0)
        self.scale.copy_(deviation.clamp(min=0.1 * float(deviation.mean()) + _EPSILON).reciprocal())

    def forward(self, hints: Tensor) -> Tensor:
        hints = hints.float()
        if self.kind == "data":
            return _SOFT_LIMIT * torch.tanh((hints - self.mean) * self.scale / _SOFT_LIMIT)
        deviation = hints.std(1, keepdim=True, correction=0)
        return (hints - hints.mean(1, keepdim=True)) / (deviation + _EPSILON)
