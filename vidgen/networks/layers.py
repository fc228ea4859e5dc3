"""Convolution blocks that several translators are built from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks.choices import NormKind, Upsampling
from vidgen.networks.noise import uniform_of_video


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Products of matrices in the precision of `x` itself; on the meta device, where memory is estimated, there is no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def beside(*parts: Tensor) -> Tensor:
    """Channels beside each other, [N,C_i,H,W] each, in the precision of the first one.

    All are brought to channels_last before: of a mixture torch makes a plain copy, which convolutions copy once more, and their
    gradients back.
    """
    return torch.cat([part.to(parts[0].dtype).contiguous(memory_format=torch.channels_last) for part in parts], dim=1)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that says which statistics it uses instead of leaving it to train/eval mode.

    The originals never leave training mode, so their results depend on the statistics of the current batch (at batch size 1:
    instance normalisation with a learned affine). `statistics_in_use = "running"` takes the averages stored in training instead.
    """

    statistics_in_use: Literal["batch", "running"] = "batch"

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting() and self.statistics_in_use == "batch":
            return F.instance_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)  # what graph compilers know
        if self.statistics_in_use == "running" and not self.training:
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
        if torch.compiler.is_exporting():
            return F.instance_norm(x, eps=self.eps)
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


class NoiseDropout(nn.Module):
    """Dropout that also is the noise of a generator at test: zeros a share of the values and enlarges the others.

    In training it is ordinary dropout. In use every frame gets the same zeros, which depend on the seed of the noise and
    `layer_index` alone: another seed gives another result, and a video does not flicker from it. Without a seed values pass
    unchanged.
    """

    layer_index = 0

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        if self.training:
            return F.dropout(x, self.probability)
        if seed is None:
            return x
        kept = uniform_of_video(x.shape[1:], seed, self.layer_index) >= self.probability
        return x * (kept / (1 - self.probability)).to(x)


class ConvBlock(nn.Module):
    """Convolution, normalisation, activation.

    Args:
        padding_mode: "reflect" for the 7x7 and residual convolutions, "zeros" for the strided ones, as published.
        bias: of the convolution; pix2pix leaves it out where a norm has its own.
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
        bias: bool = True,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, padding_mode=padding_mode, bias=bias)
        self.norm = normalization(norm, out_channels)
        self.activation = activation if activation is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.conv(x))

    def after(self, convolved: Tensor) -> Tensor:
        """What follows the convolution, for callers that have its result from elsewhere."""
        return self.activation(self.norm(convolved))


class UpBlock(nn.Module):
    """Doubling of height and width, normalisation, ReLU.

    "transposed" is the published 3x3 transposed convolution; "resize" is nearest doubling and a 3x3 convolution, which cannot
    make checkerboards (Odena et al., "Deconvolution and Checkerboard Artifacts", 2016).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, norm: NormKind, upsampling: Upsampling = "transposed", bias: bool = True
    ) -> None:
        super().__init__()
        self.conv: nn.Module
        if upsampling == "transposed":
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=bias)
        else:
            self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect", bias=bias)
        self.norm = normalization(norm, out_channels)
        self.upsampling = upsampling

    def forward(self, x: Tensor) -> Tensor:
        if self.upsampling == "resize":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.relu(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
    """Two reflection-padded 3x3 convolutions around an identity, with dropout between them; no activation after the sum."""

    def __init__(self, channels: int, *, norm: NormKind, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 3, norm=norm, activation=nn.ReLU(), bias=bias)
        self.second = ConvBlock(channels, channels, 3, norm=norm, bias=bias)
        self.dropout = NoiseDropout(dropout) if dropout else None

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        """`seed` is that of the dropout in use."""
        middle = self.first(x)
        return x + self.second(middle if self.dropout is None else self.dropout(middle, seed))


def stem(in_channels: int, out_channels: int, norm: NormKind, bias: bool = True) -> ConvBlock:
    """The reflection-padded 7x7 convolution every encoder begins with."""
    return ConvBlock(in_channels, out_channels, 7, norm=norm, activation=nn.ReLU(), bias=bias)


def down(in_channels: int, out_channels: int, norm: NormKind, bias: bool = True) -> ConvBlock:
    """A 3x3 convolution of stride 2, zero-padded."""
    activation = nn.ReLU()
    return ConvBlock(in_channels, out_channels, 3, stride=2, norm=norm, activation=activation, padding_mode="zeros", bias=bias)


def head(in_channels: int, out_channels: int) -> nn.Conv2d:
    """The reflection-padded 7x7 convolution every decoder ends with; its activation is the caller's."""
    return nn.Conv2d(in_channels, out_channels, 7, padding=3, padding_mode="reflect")


def frame_by_frame(network: Callable[[Tensor], Tensor], frames: Tensor, *, together: bool = False) -> Tensor:
    """`network` on the frames of [B,T,C,H,W]; one after the other, unless `together`, so that no statistics mix them."""
    flat = frames.flatten(0, 1)
    generated = network(flat) if together else torch.cat([network(frame) for frame in flat.split(1)])
    return generated.unflatten(0, frames.shape[:2])


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


def initialize(module: nn.Module, *, zero_biases: bool = False) -> None:
    """Convolution weights from N(0, 0.02), batch-norm weights from N(1, 0.02), batch-norm biases 0.

    Source: pix2pixHD and vid2vid, where convolution biases stay as they are; pix2pix begins with `zero_biases`.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if zero_biases and part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
            nn.init.zeros_(part.bias)
