"""Convolution blocks that several translators are built from."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NormKind = Literal["batch", "instance", "none"]
Upsampling = Literal["transposed", "resize"]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that says which statistics it uses instead of leaving it to train/eval mode.

    The originals never leave training mode, so their results depend on the statistics of the current batch (at batch size 1:
    instance normalisation with a learned affine). `statistics = "running"` uses the stored averages instead.
    """

    statistics: Literal["batch", "running"] = "batch"

    def forward(self, x: Tensor) -> Tensor:
        if self.statistics == "running":
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        if not self.training:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum or 0.0, self.eps)


class InstanceNorm(nn.Module):
    """Instance normalisation without affine, computed as batch normalisation of one sample at a time.

    The result is that of `F.instance_norm`, which has no channels_last kernel and would copy every tensor twice.
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        samples = [F.batch_norm(sample, None, None, None, None, True, 0.0, self.eps) for sample in x.split(1)]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


def normalization(kind: NormKind, channels: int) -> nn.Module:
    """A normalisation layer by name."""
    match kind:
        case "batch":
            return BatchNorm(channels)
        case "instance":
            return InstanceNorm()
        case "none":
            return nn.Identity()


class ConvBlock(nn.Module):
    """Convolution, normalisation, activation.

    Args:
        padding_mode: "reflect" for the 7x7 and residual convolutions, "zeros" for the strided ones, as published.
        activation: None leaves the normalised value as it is.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        norm: NormKind = "instance",
        activation: nn.Module | None = None,
        padding_mode: Literal["reflect", "zeros"] = "reflect",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, padding_mode=padding_mode)
        self.norm = normalization(norm, out_channels)
        self.activation = activation if activation is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class UpBlock(nn.Module):
    """Doubling of height and width, normalisation, ReLU.

    "transposed" is the published 3x3 transposed convolution; "resize" is nearest doubling and a 3x3 convolution, which cannot
    make checkerboards (Odena et al., "Deconvolution and Checkerboard Artifacts", 2016).
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: NormKind, upsampling: Upsampling = "transposed") -> None:
        super().__init__()
        self.conv: nn.Module
        if upsampling == "transposed":
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
        else:
            self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect")
        self.norm = normalization(norm, out_channels)
        self.upsampling = upsampling

    def forward(self, x: Tensor) -> Tensor:
        if self.upsampling == "resize":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.relu(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
    """Two reflection-padded 3x3 convolutions around an identity; no activation after the sum."""

    def __init__(self, channels: int, *, norm: NormKind) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 3, norm=norm, activation=nn.ReLU())
        self.second = ConvBlock(channels, channels, 3, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


def stem(in_channels: int, out_channels: int, norm: NormKind) -> ConvBlock:
    """The reflection-padded 7x7 convolution every encoder begins with."""
    return ConvBlock(in_channels, out_channels, 7, norm=norm, activation=nn.ReLU())


def down(in_channels: int, out_channels: int, norm: NormKind) -> ConvBlock:
    """A 3x3 convolution of stride 2, zero-padded."""
    return ConvBlock(in_channels, out_channels, 3, stride=2, norm=norm, activation=nn.ReLU(), padding_mode="zeros")


def head(in_channels: int, out_channels: int) -> nn.Conv2d:
    """The reflection-padded 7x7 convolution every decoder ends with; its activation is the caller's."""
    return nn.Conv2d(in_channels, out_channels, 7, padding=3, padding_mode="reflect")


def halve(x: Tensor) -> Tensor:
    """Half the height and width by the 3x3 average that image, label and discriminator pyramids share.

    Labels given as one-hot become soft. Padding does not count.
    """
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def pyramid(x: Tensor, num_levels: int) -> list[Tensor]:
    """`num_levels` tensors, coarsest first, the last is `x` itself."""
    levels = [x]
    for _ in range(num_levels - 1):
        levels.insert(0, halve(levels[0]))
    return levels


def initialize(module: nn.Module) -> None:
    """Convolution weights from N(0, 0.02), batch-norm weights from N(1, 0.02), batch-norm biases 0; convolution biases stay.

    Source: the initialisation of pix2pixHD and vid2vid.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
            nn.init.zeros_(part.bias)
