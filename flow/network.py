"""A compact network for optical flow: feature pyramid, local cost volumes, soft-argmax start, one shared residual decoder.

Source: the pyramid with warping is PWC-Net (Sun et al., CVPR 2018), one decoder for all levels IRR (Hur and Roth, CVPR 2019),
feature normalization UFlow (Jonschkowski et al., ECCV 2020), convex up-sampling RAFT (Teed and Deng, ECCV 2020). We differ in
starting each level from the soft-argmax of the costs, which lets the network learn from few steps: the decoder then only has
to correct. Large motion is reached by running on images of half the size first, where that leaves enough to see: the same weights
again, so nothing has to be learned from the few cells that a level at 1/32 has in small training images.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flow.warp import pad_images, resize_flow, warp

RADIUS = 4
_NUM_OFFSETS = (2 * RADIUS + 1) ** 2
_FINEST_STRIDE = 4
_PAD_MULTIPLE = 16
MIN_SIDE = 64
_HALF_SIZE_FROM = 320


class FlowNetwork(nn.Module):
    """Flow from the grid of a first image into a second; 0.4 million parameters.

    Args:
        feature_channels: widths of the pyramid at 1/2, 1/4, 1/8 and 1/16.
        context_channels: features of the first image that the decoder sees.
        decoder_channels: width of the decoder.
    """

    def __init__(
        self,
        feature_channels: tuple[int, ...] = (24, 40, 64, 96),
        context_channels: int = 32,
        decoder_channels: int = 64,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(_downsample(before, after) for before, after in pairwise((3, *feature_channels)))
        self.context = nn.ModuleList(nn.Conv2d(channels, context_channels, 1) for channels in feature_channels[1:])
        self.matching = nn.ModuleList(SoftArgmax() for _ in feature_channels[1:])
        self.decoder = Decoder(_NUM_OFFSETS + context_channels + 4, decoder_channels)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow at full resolution.

        Args:
            first, second: float [N,3,H,W] in -1..1, any H and W (padded by replication inside).

        Returns:
            float32 [N,2,H,W], pixels, (dx, dy).
        """
        height, width = first.shape[-2:]
        return self.pyramid(first, second)[-1][..., :height, :width].contiguous()

    def at_multiples(self, first: Tensor, second: Tensor, num_halvings: int) -> Tensor:
        """The same of images that need no padding; see `halvings` and `multiple`."""
        return self._pyramid(num_halvings, first, second)[-1]

    @staticmethod
    def halvings(height: int, width: int) -> int:
        """How often images are halved first."""
        return (min(height, width) // _HALF_SIZE_FROM).bit_length()

    @staticmethod
    def multiple(num_halvings: int) -> int:
        """Of the sides of images that need no padding; they also are at least 64."""
        return _PAD_MULTIPLE << num_halvings

    def pyramid(self, first: Tensor, second: Tensor, num_halvings: int | None = None) -> list[Tensor]:
        """Flow of every level, coarse to fine, each in pixels of its own resolution, the last at full resolution.

        Levels are 1/16, 1/8, 1/4 and 1 of the padded images; before them, where the shorter side is 320 or more, those of the
        half-size images, and so on (or as often as `num_halvings` says). Padding is to multiples of 16, or of 32 with one halving,
        64 with two.
        """
        if num_halvings is None:
            num_halvings = self.halvings(first.shape[-2], first.shape[-1])
        padded = (pad_images(images, self.multiple(num_halvings), MIN_SIDE) for images in (first, second))
        return self._pyramid(num_halvings, *padded)

    def _pyramid(self, num_halvings: int, first: Tensor, second: Tensor) -> list[Tensor]:
        flows: list[Tensor] = []
        if num_halvings:
            flows = self._pyramid(num_halvings - 1, _halved(first), _halved(second))
        features = self._features(torch.cat([first, second]))
        flow = _coarsest(flows[-1], features[-1]) if flows else torch.zeros_like(features[-1].chunk(2)[0][:, :2]).float()
        for level in reversed(range(len(features))):
            here, there = features[level].chunk(2)
            if level + 1 < len(features):
                flow = _doubled(flow, here)
            costs = local_costs(_normalized(here), warp(_normalized(there), flow))
            start = self.matching[level](costs)
            context = F.leaky_relu(self.context[level](here), 0.1)
            correction, hidden = self.decoder(torch.cat([costs, context, start, flow / 8], dim=1))
            flow = flow + start + correction.float()
            flows.append(flow)
        return [*flows, self.decoder.upsample(flow, hidden)]

    def _features(self, images: Tensor) -> list[Tensor]:
        """Features at 1/4, 1/8 and 1/16."""
        levels = []
        for block in self.encoder:
            images = block(images)
            levels.append(images)
        return levels[1:]


class SoftArgmax(nn.Module):
    """Mean offset of a 9x9 neighborhood under softmax(sharpness * cost - nearness * |offset|^2), both factors learned.

    They begin where a network with random weights beats the assumption of no motion on real pairs; with no preference for near
    offsets it begins an order of magnitude worse, and training spends its time on that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_sharpness = nn.Parameter(torch.tensor(3.0))
        self.log_nearness = nn.Parameter(torch.tensor(0.5))
        steps = torch.arange(-RADIUS, RADIUS + 1.0)
        dy, dx = torch.meshgrid(steps, steps, indexing="ij")
        self.register_buffer("offsets", torch.stack([dx.flatten(), dy.flatten()]), persistent=False)

    def forward(self, costs: Tensor) -> Tensor:
        """Offset (dx, dy) in cells, [N,2,H,W], of costs [N,81,H,W]."""
        offsets: Tensor = self.offsets  # type: ignore[assignment]
        distance = offsets.square().sum(dim=0)[:, None, None]
        probability = (self.log_sharpness.exp() * costs - self.log_nearness.exp() * distance).softmax(dim=1)
        return torch.einsum("nohw,co->nchw", probability, offsets)


class Decoder(nn.Module):
    """Corrects the flow of one level; the same weights serve all levels. Also up-samples the finest one.

    Args:
        in_channels: costs, context, the soft-argmax step and the flow so far.
        channels: width.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1), nn.LeakyReLU(0.1)]
        for dilation in (1, 2, 4, 1):
            layers += [nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation), nn.LeakyReLU(0.1)]
        self.trunk = nn.Sequential(*layers)
        self.correction = nn.Conv2d(channels, 2, 3, padding=1)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)  # type: ignore[arg-type]
        self.weights = nn.Conv2d(channels, 9 * _FINEST_STRIDE**2, 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(inputs)
        return self.correction(hidden), hidden

    def upsample(self, flow: Tensor, hidden: Tensor) -> Tensor:
        """Full-resolution flow, each pixel a convex combination of the 3x3 coarse vectors around it."""
        count, _, height, width = flow.shape
        weights = self.weights(hidden).float().view(count, 1, 9, _FINEST_STRIDE, _FINEST_STRIDE, height, width).softmax(dim=2)
        padded = F.pad(_FINEST_STRIDE * flow, (1, 1, 1, 1), mode="replicate")
        if torch.compiler.is_exporting():  # graphs have no unfold
            places = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
            around = torch.stack(places, dim=2)
        else:
            around = F.unfold(padded, 3)
        fine = (weights * around.view(count, 2, 9, 1, 1, height, width)).sum(dim=2)
        return fine.permute(0, 1, 4, 2, 5, 3).reshape(count, 2, _FINEST_STRIDE * height, _FINEST_STRIDE * width)


def local_costs(first: Tensor, second: Tensor) -> Tensor:
    """Similarity of each position of `first` to the 9x9 positions around it in `second` (0 outside); [N,81,H,W], rows first."""
    if torch.compiler.is_exporting():
        return _costs_by_rows(first, second)
    return _LocalCosts.apply(first, second)


class _LocalCosts(torch.autograd.Function):
    """A loop of shifted products; by hand because autograd would make a padded copy of the gradient for every shift."""

    @staticmethod
    def forward(ctx, first: Tensor, second: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(first, second)
        height, width = first.shape[-2:]
        padded = F.pad(second, (RADIUS,) * 4)
        return torch.stack([(first * padded[window]).sum(dim=1) for window in _windows(height, width)], dim=1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        first, second = ctx.saved_tensors
        height, width = first.shape[-2:]
        padded = F.pad(second, (RADIUS,) * 4)
        first_gradient, padded_gradient = torch.zeros_like(first), torch.zeros_like(padded)
        for index, window in enumerate(_windows(height, width)):
            share = gradient[:, index : index + 1]
            first_gradient.addcmul_(share, padded[window])
            padded_gradient[window].addcmul_(share, first)
        return first_gradient, padded_gradient[..., RADIUS:-RADIUS, RADIUS:-RADIUS]


def _costs_by_rows(first: Tensor, second: Tensor) -> Tensor:
    """The same in a ninth of the operators: a graph of 243 windows takes minutes to draw."""
    side = 2 * RADIUS + 1
    height, width = first.shape[-2:]
    padded = F.pad(second, (RADIUS,) * 4)
    columns = (torch.arange(side)[:, None] + torch.arange(width)).flatten()
    rows = []
    for y in range(side):
        shifted = padded[..., y : y + height, :].index_select(3, columns).unflatten(3, (side, width))
        rows.append((first.unsqueeze(3) * shifted).sum(dim=1).transpose(1, 2))
    return torch.cat(rows, dim=1)


def _windows(height: int, width: int) -> list[Any]:
    side = 2 * RADIUS + 1
    return [(..., slice(y, y + height), slice(x, x + width)) for y in range(side) for x in range(side)]


def _halved(images: Tensor) -> Tensor:
    if torch.compiler.is_exporting():
        return F.avg_pool2d(images, 2)
    return F.interpolate(images, scale_factor=0.5, mode="area")


def _doubled(flow: Tensor, like: Tensor) -> Tensor:
    """The flow of a level on the grid of the next one, whose sides are twice as long."""
    if torch.compiler.is_exporting():  # by a factor: a graph's sides are free, and so nothing may be compared with them
        return 2 * F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
    return resize_flow(flow, (like.shape[-2], like.shape[-1]))


def _coarsest(flow: Tensor, like: Tensor) -> Tensor:
    """The flow of half-size images on the coarsest grid, whose sides are an eighth."""
    if not torch.compiler.is_exporting():
        return resize_flow(flow, (like.shape[-2], like.shape[-1]))
    factor = _PAD_MULTIPLE // 2  # what `resize_flow` does, written as convolutions, which every graph has
    ramp = 1 - (torch.arange(2 * factor, dtype=flow.dtype) - factor + 0.5).abs() / factor
    kernel = (ramp[:, None] * ramp).expand(2, 1, -1, -1)
    sums = F.conv2d(flow, kernel, stride=factor, padding=factor // 2, groups=2)
    weights = F.conv2d(torch.ones_like(flow), kernel, stride=factor, padding=factor // 2, groups=2)
    return sums / weights / factor


def _normalized(features: Tensor) -> Tensor:
    """Zero mean and unit variance of each channel over the image, then unit length of each position.

    Without the first, what all positions have in common dominates, and every cost is nearly 1.
    """
    features = features.float()
    centered = features - features.mean(dim=(2, 3), keepdim=True)
    scaled = centered / (centered.square().mean(dim=(2, 3), keepdim=True) + 1e-6).sqrt()
    return F.normalize(scaled, dim=1, eps=1e-2)


def _downsample(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.LeakyReLU(0.1),
    )
