"""EfficientNet-Lite as a frozen extractor of features, from a plain state dict.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite variants leave
out squeeze-and-excitation and use ReLU6. The weights were trained in TensorFlow: strided convolutions pad as it does ("SAME": the
odd pixel goes to the right and the bottom), and images in -1..1 go in as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks.layers import without_autocast

_BATCH_NORM_EPS = 1e-3
_STEM_CHANNELS = 32


@dataclass(frozen=True)
class _Stage:
    """Consecutive blocks of one shape; the first one carries the stride."""

    num_blocks: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_TAPPED_STAGES = (0, 1, 2, 4, 6)
"""After these the features are given out: the last ones before each halving, and the very last."""


@dataclass(frozen=True)
class EfficientNetShape:
    """Width and depth multipliers of a variant; stem, first and last stage keep the depth of Lite0."""

    width: float
    depth: float

    def channels(self, stage: int) -> int:
        """Channels after a stage, a multiple of 8."""
        scaled = _STAGES[stage].channels * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    def num_blocks(self, stage: int) -> int:
        plain = _STAGES[stage].num_blocks
        return plain if stage in (0, len(_STAGES) - 1) else math.ceil(plain * self.depth)


LITE0 = EfficientNetShape(1.0, 1.0)
LITE2 = EfficientNetShape(1.1, 1.2)


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        if stride == 2 and self.groups > 1 and not any(side % 2 for side in x.shape[-2:]):
            # One more pixel at the end than at the beginning: a kernel with a first row and column of zeros, padded alike on all
            # sides, does the same to the bit without a padded copy of the features.
            return F.conv2d(x, F.pad(self.weight, (1, 0, 1, 0)), self.bias, 2, kernel // 2, 1, self.groups)
        missing = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in missing)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, stride, 0, 1, self.groups)


class _Block(nn.Module):
    """Widen, filter each channel, narrow; an identity around it where the shape stays."""

    def __init__(self, in_channels: int, stage: _Stage, out_channels: int, stride: int) -> None:
        super().__init__()
        wide = in_channels * stage.expansion
        self.expand = _SameConv(in_channels, wide, 1) if stage.expansion > 1 else None
        self.depthwise = _SameConv(wide, wide, stage.kernel_size, stride, groups=wide)
        self.project = _SameConv(wide, out_channels, 1)
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        result = self.project(F.relu6(self.depthwise(wide), inplace=True))
        return result + x if self.has_skip else result


class EfficientNetFeatures(nn.Module):
    """Six feature maps of an image, shallow to deep, always in float32; frozen, with gradient to the image.

    Batch normalization is folded into the convolutions, so that nothing in it depends on a batch or a mode. Autocast is switched
    off
    inside: the depthwise kernels are slower in bf16 than in float32 on a CPU, and rounding grows to several percent with depth.

    Args:
        weights: state dict with the published names (`_conv_stem.weight`, `_bn0.running_mean`, `_blocks.0._depthwise_conv.weight`,
            ...); what stands behind the last block is not used.
        shape: the variant that `weights` belong to.

    Attributes:
        tap_channels, tap_strides: width of each feature map, and pixels per place.

    Raises:
        KeyError: a tensor is missing.
        ValueError: a tensor has another shape than the variant's.
    """

    def __init__(self, weights: Mapping[str, Tensor], shape: EfficientNetShape = LITE0) -> None:
        super().__init__()
        self.stem = _SameConv(3, _STEM_CHANNELS, 3, 2)
        blocks: list[nn.Module] = []
        self._tapped_blocks: list[int] = []
        self.tap_channels, self.tap_strides = [_STEM_CHANNELS], [2]
        channels, pixels = _STEM_CHANNELS, 2
        for index, stage in enumerate(_STAGES):
            for number in range(shape.num_blocks(index)):
                stride = stage.stride if number == 0 else 1
                blocks.append(_Block(channels, stage, shape.channels(index), stride))
                channels, pixels = shape.channels(index), pixels * stride
            if index in _TAPPED_STAGES:
                self._tapped_blocks.append(len(blocks) - 1)
                self.tap_channels.append(channels)
                self.tap_strides.append(pixels)
        self.blocks = nn.ModuleList(blocks)
        _fold(self.stem, weights, "_conv_stem", "_bn0")
        for index, block in enumerate(blocks):
            assert isinstance(block, _Block)
            prefix = f"_blocks.{index}."
            if block.expand is not None:
                _fold(block.expand, weights, f"{prefix}_expand_conv", f"{prefix}_bn0")
            _fold(block.depthwise, weights, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
            _fold(block.project, weights, f"{prefix}_project_conv", f"{prefix}_bn2")
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, num_taps: int = 6) -> list[Tensor]:
        """[N,3,H,W] in -1..1 -> float32 features at 1/2, 1/2, 1/4, 1/8, 1/16 and 1/32 of the size (rounded up).

        Args:
            num_taps: how many of them, from the shallow end; deeper layers are not computed.
        """
        with without_autocast(images):
            x = F.relu6(self.stem(images.float().contiguous(memory_format=torch.channels_last)))
            taps = [x]
            for index, block in enumerate(self.blocks):
                if len(taps) == num_taps:
                    break
                x = block(x)
                if index in self._tapped_blocks:
                    taps.append(x)
        return taps


@torch.no_grad()
def _fold(convolution: nn.Conv2d, weights: Mapping[str, Tensor], name: str, norm: str) -> None:
    """Fill a convolution from its published weight and the batch normalization behind it."""
    names = (f"{name}.weight", *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")))
    weight, gain, offset, mean, variance = (weights[key].double() for key in names)
    width = len(convolution.weight)
    for key, found, expected in zip(
        names, (weight, gain, offset, mean, variance), (convolution.weight.shape, *[(width,)] * 4), strict=True
    ):
        if found.shape != expected:
            raise ValueError(f"{key}: has the shape {tuple(found.shape)}; this variant needs {tuple(expected)}")
    scale = gain / (variance + _BATCH_NORM_EPS).sqrt()
    convolution.weight.copy_(weight * scale[:, None, None, None])
    assert convolution.bias is not None
    convolution.bias.copy_(offset - mean * scale)
