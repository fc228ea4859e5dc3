"""Losses and discriminators on the features of a pretrained network, and their companions on pixels.

An update computes the features of generated frames once (with gradient to the frames) and those of real frames once (without); the
generator's losses and then the discriminators' read both:

    backbone -> FeatureStatistics -> feature_loss, texture_loss, FeatureDiscriminator (frames), FeatureDiscriminator (pairs)

Source: feature loss: Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016;
discriminators: Sauer et al., "Projected GANs Converge Faster", NeurIPS 2021, with the condition beside the features and without
    batch norm;
augmentation: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020; segmentation discriminator:
Sushko et al., "You Only Need Adversarial Supervision for Semantic Image Synthesis", ICLR 2021.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from vidgen.networks.compact import space_to_depth
from vidgen.networks.encoding import tile_averages
from vidgen.networks.layers import beside

Features = list[Tensor]
"""Feature maps of a batch of frames, [N,C,h,w] each, shallow to deep."""

_SLOPE = 0.2
_LUMA = (0.299, 0.587, 0.114)


class FeatureStatistics(nn.Module):
    """Brings every channel of every feature map to mean 0 and deviation 1 over the training frames.

    Buffers:
        mean_i, scale_i: [1,C,1,1], mean and one over the deviation of feature map i.
    """

    def __init__(self, tap_channels: Sequence[int]) -> None:
        super().__init__()
        self.num_taps = len(tap_channels)
        for index, channels in enumerate(tap_channels):
            self.register_buffer(f"mean_{index}", torch.zeros(1, channels, 1, 1))
            self.register_buffer(f"scale_{index}", torch.ones(1, channels, 1, 1))

    @torch.no_grad()
    def measure(self, batches: Iterable[Features]) -> None:
        """Take the statistics of these features of real frames."""
        totals: list[list[Tensor]] = [[] for _ in range(self.num_taps)]
        count = 0
        for features in batches:
            count += 1
            for index, values in enumerate(features):
                moments = torch.stack([values.double().mean((0, 2, 3)), values.double().square().mean((0, 2, 3))])
                totals[index] = [totals[index][0] + moments] if totals[index] else [moments]
        if not count:
            raise ValueError("no frames to take the statistics of features from")
        for index, (total,) in enumerate(totals):
            mean, square = total / count
            deviation = (square - mean.square()).clamp(min=0).sqrt()
            self.get_buffer(f"mean_{index}").copy_(mean.view(1, -1, 1, 1))
            self.get_buffer(f"scale_{index}").copy_(
                1 / deviation.clamp(min=1e-3 + 1e-2 * float(deviation.mean())).view(1, -1, 1, 1)
            )

    def forward(self, features: Features) -> Features:
        return [
            (values - self.get_buffer(f"mean_{index}")) * self.get_buffer(f"scale_{index}") for index, values in enumerate(features)
        ]


def feature_loss(fake: Features, real: Features, weights: Sequence[float] | None = None) -> Tensor:
    """Mean absolute difference of normalized features, averaged over the feature maps (by `weights`, where given)."""
    chosen = list(weights) if weights is not None else [1.0] * len(fake)
    terms = [weight * F.l1_loss(a, b.detach()) for weight, a, b in zip(chosen, fake, real, strict=False) if weight]
    return torch.stack(terms).sum() / sum(chosen)


def texture_loss(fake: Features, real: Features, window: int = 8) -> Tensor:
    """Mean absolute difference of the local deviation of features, over windows of `window` places that overlap by half.

    It asks for as much fine structure of each kind in each place, but not for the same pixels, so that it does not pull towards
    blur. Meant for shallow features. Maps smaller than the window count as a single one.
    """
    terms = [F.l1_loss(_local_deviation(a, window), _local_deviation(b.detach(), window)) for a, b in zip(fake, real, strict=True)]
    return torch.stack(terms).mean()


def _local_deviation(values: Tensor, window: int) -> Tensor:
    height, width = (min(window, side) for side in values.shape[-2:])
    stride = (max(1, height // 2), max(1, width // 2))
    mean = F.avg_pool2d(values, (height, width), stride)
    square = F.avg_pool2d(values.square(), (height, width), stride)
    return ((square - mean.square()).clamp(min=0) + 1e-4).sqrt()


def detail_loss(fake: Tensor, real: Tensor, window: int = 8) -> Tensor:
    """Mean absolute difference of the local strength of luma edges, across and down, 1, 2 and 4 pixels wide.

    Frames are [N,3,H,W] in -1..1. Each direction and width counts by itself: a Laplacian, which sums them up, is served most
    cheaply by a checkerboard.
    """
    strengths = zip(_edge_strengths(fake, window), _edge_strengths(real.detach(), window), strict=True)
    return torch.stack([F.l1_loss(a, b) for a, b in strengths]).mean()


def _edge_strengths(frames: Tensor, window: int) -> list[Tensor]:
    """Mean absolute differences of neighboring tiles of 1, 2 and 4 pixels, over windows that overlap by half."""
    red, green, blue = frames.float().unbind(1)
    gray = (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]
    strengths = []
    for width in (1, 2, 4):
        tiles = F.avg_pool2d(gray, width, 1)
        for difference in (tiles[..., width:] - tiles[..., :-width], tiles[..., width:, :] - tiles[..., :-width, :]):
            strengths.append(F.avg_pool2d(difference.abs(), window, max(1, window // 2)))
    return strengths


@dataclass(frozen=True)
class Variation:
    """What one update does to fake and real frames alike before the backbone sees them.

    Strided features always sample the same phase of a picture and so print their grid into what learns from them; a shift that
    differs from update to update ends that. Colors vary per sample.

    Attributes:
        down, right: shift in pixels.
        brightness, contrast, saturation: per sample [N], added and multiplied; None leaves colors alone.
    """

    down: int
    right: int
    brightness: Tensor | None = None
    contrast: Tensor | None = None
    saturation: Tensor | None = None

    @classmethod
    def draw(cls, num_samples: int, generator: torch.Generator, *, max_shift: int = 8, color: float = 0.0) -> Variation:
        """Random values; `color` from 0 (none) to 1 (the published strength of DiffAugment)."""
        down, right = (int(torch.randint(-max_shift, max_shift + 1, (), generator=generator)) for _ in range(2))
        if not color:
            return cls(down, right)
        brightness, contrast, saturation = (torch.rand(num_samples, generator=generator) * 2 - 1 for _ in range(3))
        return cls(down, right, 0.5 * color * brightness, 1 + 0.5 * color * contrast, 1 + color * saturation)

    def __call__(self, frames: Tensor) -> Tensor:
        """Vary [N,3,H,W]; borders that come in are reflected."""
        return shift(self._colored(frames), self.down, self.right)

    def _colored(self, frames: Tensor) -> Tensor:
        if self.brightness is None or self.contrast is None or self.saturation is None:
            return frames
        brightness, contrast, saturation = (
            values.to(frames).view(-1, 1, 1, 1) for values in (self.brightness, self.contrast, self.saturation)
        )
        frames = frames + brightness
        gray = frames.mean(1, keepdim=True)
        frames = gray + (frames - gray) * saturation
        mean = frames.mean((1, 2, 3), keepdim=True)
        return mean + (frames - mean) * contrast


def shift(frames: Tensor, down: int, right: int) -> Tensor:
    """Move a picture or condition [N,C,H,W] by whole pixels; what comes in is reflected at the border."""
    if not down and not right:
        return frames
    height, width = frames.shape[-2:]
    padded = F.pad(frames, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="reflect")
    return padded[..., max(-down, 0) : max(-down, 0) + height, max(-right, 0) : max(-right, 0) + width]


class FeatureDiscriminator(nn.Module):
    """Logits of several scales from normalized features of a frame, or of consecutive frames, and the condition.

    Features are mixed by frozen random 1x1 convolutions, and coarse ones flow into finer ones by frozen random 3x3 convolutions,
    so that a head must look at all channels instead of the few that tell fake from real most easily. Only the heads learn; spectral
    norm bounds them.

    Args:
        tap_channels, tap_strides: of the features given to `forward`, shallow to deep.
        condition_channels: of the condition, one for each class; 0 for none.
        num_labels: classes; ids of them are the first channel of the condition given to `forward`.
        num_frames: consecutive frames seen together.
        head_strides: strides of the features that get a head; all by default.
        mixed_channels: width after mixing, per feature map; 64 up to a stride of 8, then 128 by default.
        head_channels: width inside a head.
    """

    def __init__(
        self,
        tap_channels: Sequence[int],
        tap_strides: Sequence[int],
        condition_channels: int,
        *,
        num_labels: int = 0,
        num_frames: int = 1,
        head_strides: Sequence[int] | None = None,
        mixed_channels: Sequence[int] | None = None,
        head_channels: int = 64,
    ) -> None:
        super().__init__()
        mixed = list(mixed_channels) if mixed_channels is not None else [64 if stride <= 8 else 128 for stride in tap_strides]
        self.tap_strides = tuple(tap_strides)
        self.head_strides = tuple(tap_strides if head_strides is None else head_strides)
        unknown = set(self.head_strides) - set(self.tap_strides)
        if unknown:
            raise ValueError(f"head_strides: {min(unknown)} is not a stride of the features, which have {list(self.tap_strides)}")
        self.num_labels, self.num_frames = num_labels, num_frames
        self.mix = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in zip(tap_channels, mixed, strict=True))
        self.descend = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1, bias=False) for a, b in itertools.pairwise(mixed))
        for layer in (*self.mix, *self.descend):
            assert isinstance(layer, nn.Conv2d)
            nn.init.normal_(layer.weight, 0.0, layer.weight[0].numel() ** -0.5)
            layer.requires_grad_(False)
        self.heads = nn.ModuleDict(
            {
                str(stride): _head(channels * num_frames + condition_channels, head_channels, stride=2 if stride <= 4 else 1)
                for channels, stride in zip(mixed, tap_strides, strict=True)
                if stride in self.head_strides
            }
        )

    def forward(self, frames: Sequence[Features], condition: Tensor | None) -> list[Tensor]:
        """Logits [N,1,h,w] per head, fine to coarse.

        Args:
            frames: normalized features of each of the `num_frames` frames, oldest first.
            condition: [N,C,H,W] at the size of the frames, ids in place of one-hot labels; None where the discriminator has none.
        """
        mixed = [self._mixed(features) for features in frames]
        logits = []
        for place, stride in enumerate(self.tap_strides):
            if stride not in self.head_strides:
                continue
            seen = [levels[place] for levels in mixed]
            if condition is not None:
                seen.append(tile_averages(condition, (seen[0].shape[-2], seen[0].shape[-1]), self.num_labels))
            logits.append(self.heads[str(stride)](beside(*seen)))
        return logits

    def _mixed(self, features: Features) -> Features:
        levels = [layer(values) for layer, values in zip(self.mix, features, strict=True)]
        for place in range(len(levels) - 2, -1, -1):
            coarse = F.interpolate(levels[place + 1], size=levels[place].shape[-2:], mode="nearest")
            levels[place] = (levels[place] + self.descend[place](coarse)) * 0.5**0.5
        return levels


def _head(in_channels: int, channels: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(in_channels, channels, 3, stride, 1)),
        nn.LeakyReLU(_SLOPE),
        spectral_norm(nn.Conv2d(channels, channels, 3, 1, 1)),
        nn.LeakyReLU(_SLOPE),
        spectral_norm(nn.Conv2d(channels, 1, 3, 1, 1)),
    )


class PixelDiscriminator(nn.Module):
    """A patch discriminator on pixels, for what strided features miss: it sees tiles of about 22 pixels, at half the size.

    Args:
        condition_channels: of the condition, one for each class; 0 for none.
        num_labels: classes; ids of them are the first channel of the condition given to `forward`.
        num_frames: consecutive frames seen together, concatenated.
    """

    def __init__(self, condition_channels: int, *, num_labels: int = 0, num_frames: int = 1, base_channels: int = 48) -> None:
        super().__init__()
        self.num_labels = num_labels
        wide = 2 * base_channels
        self.first = spectral_norm(nn.Conv2d(12 * num_frames + condition_channels, base_channels, 3, 1, 1))
        self.rest = nn.Sequential(
            nn.LeakyReLU(_SLOPE),
            spectral_norm(nn.Conv2d(base_channels, wide, 3, 2, 1)),
            nn.LeakyReLU(_SLOPE),
            spectral_norm(nn.Conv2d(wide, wide, 3, 1, 1)),
            nn.LeakyReLU(_SLOPE),
            spectral_norm(nn.Conv2d(wide, 1, 3, 1, 1)),
        )

    def forward(self, frames: Tensor, condition: Tensor | None) -> list[Tensor]:
        """Logits [[N,1,H/4,W/4]] of frames [N,3*num_frames,H,W] in -1..1."""
        seen = [space_to_depth(frames, 2)]
        if condition is not None:
            seen.append(tile_averages(condition, (frames.shape[-2] // 2, frames.shape[-1] // 2), self.num_labels))
        return [self.rest(self.first(beside(*seen)))]


class SegmentationDiscriminator(nn.Module):
    """A small U-Net that says for every pixel which class it shows, or that it is generated (class 0).

    Args:
        num_labels: classes of the label maps.
        widths: channels at 1/2, 1/4, 1/8, ... of the size; heights and widths of frames are multiples of 2 for each.
    """

    def __init__(self, num_labels: int, widths: Sequence[int] = (32, 64, 96, 128)) -> None:
        super().__init__()
        self.stem = spectral_norm(nn.Conv2d(12, widths[0], 3, padding=1))
        self.downs = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 3, 2, 1)) for a, b in itertools.pairwise(widths))
        self.ups = nn.ModuleList(
            spectral_norm(nn.Conv2d(b + a, a, 3, padding=1)) for a, b in reversed(list(itertools.pairwise(widths)))
        )
        self.head = nn.Conv2d(widths[0], num_labels + 1, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits [N,num_labels+1,H/2,W/2] of frames [N,3,H,W] in -1..1."""
        levels = [F.leaky_relu(self.stem(space_to_depth(frames, 2)), _SLOPE)]
        for layer in self.downs:
            levels.append(F.leaky_relu(layer(levels[-1]), _SLOPE))
        x = levels.pop()
        for layer in self.ups:
            skip = levels.pop()
            x = F.leaky_relu(layer(beside(F.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip)), _SLOPE)
        return self.head(x)


def class_weights(labels: Tensor, num_labels: int) -> Tensor:
    """Inverse frequency of each class in a batch of label maps, float [num_labels]; 0 for classes that do not occur. Mean over
    pixels: 1.
    """
    counts = torch.bincount(labels[labels >= 0].flatten(), minlength=num_labels).float()
    present = (counts > 0).float()
    return torch.where(counts > 0, counts.sum() / counts.clamp(min=1), 0.0) / present.sum().clamp(min=1)


def segmentation_adversarial(logits: Tensor, labels: Tensor, *, real: bool, num_labels: int) -> Tensor:
    """Cross-entropy of a `SegmentationDiscriminator`: the pixel's class where `real` (a generator asks for that too), else
    "generated".

    Args:
        logits: [N,num_labels+1,h,w].
        labels: int64 [N,H,W], -1 has no class; read at the size of the logits, nearest.
    """
    rows = torch.arange(logits.shape[-2], device=labels.device) * labels.shape[-2] // logits.shape[-2]
    columns = torch.arange(logits.shape[-1], device=labels.device) * labels.shape[-1] // logits.shape[-1]
    small = labels[:, rows][:, :, columns]
    logits = logits.float()
    if not real:
        return F.cross_entropy(logits, torch.zeros_like(small))
    weight = torch.cat([logits.new_zeros(1), class_weights(small, num_labels).to(logits)])
    loss = F.cross_entropy(logits, torch.where(small < 0, -100, small + 1), weight=weight, reduction="sum")
    return loss / max(1, int((small >= 0).sum()))


def hinge_generator(logits: Iterable[Tensor]) -> Tensor:
    """What a generator minimizes: minus the logits, averaged over places and heads."""
    return torch.stack([-values.float().mean() for values in logits]).mean()


def hinge_discriminator(fake: Iterable[Tensor], real: Iterable[Tensor]) -> Tensor:
    """What a discriminator minimizes: relu(1 + fake) + relu(1 - real), averaged over places and heads."""
    terms = [F.relu(1 + values.float()).mean() for values in fake]
    others = [F.relu(1 - values.float()).mean() for values in real]
    return torch.stack(terms).mean() + torch.stack(others).mean()
