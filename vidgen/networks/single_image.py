"""What generators of a single image are made of: the pyramid, its exact resizing, the networks of a level, and moving noise.

Levels count from 0, the coarsest. Images are float [B,3,H,W] in -1..1; sizes are (height, width) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vidgen.networks.choices import MIN_SIDE, LevelNorm
from vidgen.networks.layers import without_autocast
from vidgen.networks.noise import normal_of_frame

Size = tuple[int, int]


# -- resizing --------------------------------------------------------------------------------------------------------------


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


@lru_cache(maxsize=512)
def resize_matrix(num_in: int, num_out: int, scale: float, device: torch.device | None = None) -> Tensor:
    """Weights [num_out, num_in] of a bicubic resize along one axis; every row sums to 1.

    The kernel widens when shrinking; samples lie by the nominal `scale`, not by the ratio of the lengths, so that levels whose
    lengths were rounded up still lie over each other. Samples outside are those mirrored at the border, on both sides.

    Source: the resize that SinGAN uses (MATLAB's imresize), whose left and top borders are cut off instead.
    """
    stretch = min(scale, 1.0)
    centers = (torch.arange(num_out, dtype=torch.float64) + 0.5) / scale - 0.5
    reach = math.ceil(4 / stretch) + 2
    places = (centers - 2 / stretch).floor()[:, None] + torch.arange(reach, dtype=torch.float64)
    weights = _cubic(stretch * (centers[:, None] - places))
    weights = weights / weights.sum(dim=1, keepdim=True)
    folded = places.long() % (2 * num_in)
    mirrored = torch.where(folded < num_in, folded, 2 * num_in - 1 - folded)
    matrix = torch.zeros(num_out, num_in, dtype=torch.float64).scatter_add_(1, mirrored, weights)
    return matrix.float().to(device) if device is not None else matrix.float()


def resize_by(image: Tensor, scale: float, size: Size | None = None, *, legacy_quantize: bool = False) -> Tensor:
    """Resize [B,C,H,W] by a nominal scale, in float32; exact and differentiable.

    Args:
        size: how much of the result to keep, from the top left corner; by default ceil(H * scale), ceil(W * scale).
        legacy_quantize: pass the image through 8 bits on the way, as the original code does.
    """
    height, width = image.shape[-2:]
    size = size or (ceil(height * scale), ceil(width * scale))
    return _resize(image, size, (scale, scale), legacy_quantize)


def resize_to(image: Tensor, size: Size, *, legacy_quantize: bool = False) -> Tensor:
    """Resize [B,C,H,W] to `size`, each axis by its own ratio."""
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image
    return _resize(image, size, (size[0] / height, size[1] / width), legacy_quantize)


def _resize(image: Tensor, size: Size, scales: tuple[float, float], legacy_quantize: bool) -> Tensor:
    with without_autocast(image):
        image = image.float()
        if legacy_quantize:
            image = ((image.clamp(-1, 1) + 1) * 127.5).floor() / 255
        rows = resize_matrix(image.shape[-2], size[0], scales[0], image.device)
        columns = resize_matrix(image.shape[-1], size[1], scales[1], image.device)
        image = rows @ image @ columns.T
        return (2 * image - 1).clamp(-1, 1) if legacy_quantize else image


# -- the pyramid -----------------------------------------------------------------------------------------------------------


def ceil(value: float) -> int:
    """Smallest whole number not below `value`, where a rounding error of the product that led to it does not count."""
    return math.ceil(value - 1e-9)


@dataclass(frozen=True)
class Pyramid:
    """The sizes of all levels, coarsest first, and their nominal scales relative to the finest."""

    sizes: tuple[Size, ...]
    scales: tuple[float, ...]

    @property
    def num_levels(self) -> int:
        return len(self.sizes)

    @property
    def finest(self) -> Size:
        return self.sizes[-1]

    def step(self, level: int) -> float:
        """Nominal scale from the level below to `level`."""
        return self.scales[level] / self.scales[level - 1]

    def sizes_for(self, size: Size) -> tuple[Size, ...]:
        """The levels' sizes for a result of `size`."""
        grown = size[0] / self.finest[0], size[1] / self.finest[1]
        return tuple((max(1, round(height * grown[0])), max(1, round(width * grown[1]))) for height, width in self.sizes)

    def size_for(self, size: Size, learned: Size) -> Size:
        """The finest level's size for a picture of `size`, where one of size `learned` was learned."""
        height, width = (max(1, round(own * new / old)) for own, new, old in zip(self.finest, size, learned, strict=True))
        return height, width

    def finest_of(self, image: Tensor) -> Tensor:
        """A picture [B,3,H,W] downscaled to the finest level."""
        if tuple(image.shape[-2:]) == self.finest:
            return image
        return resize_by(image, min(1.0, max(self.finest) / max(image.shape[-2:])), self.finest).clamp(-1, 1)

    def level(self, image: Tensor, level: int) -> Tensor:
        """`image`, of the finest size, at `level`; always from the finest, never chained."""
        if level == self.num_levels - 1:
            return image
        return resize_by(image, self.scales[level], self.sizes[level])


def plan_pyramid(
    size: Size,
    *,
    min_size: int = 25,
    max_size: int = 250,
    scale_factor: float = 0.75,
    count: Literal["ceil", "floor"] = "ceil",
) -> Pyramid:
    """Levels with a constant ratio between them.

    Where the picture leaves no room between its short side and `min_size` (long or small ones), it stays larger than
    `max_size` says, or begins smaller than `min_size`.

    Source: SinGAN (Shaham et al., ICCV 2019), code.

    Args:
        size: of the picture.
        min_size: short side of the coarsest level.
        max_size: long side of the finest.
        scale_factor: ratio asked for; the real one is fitted so that the coarsest level has `min_size`.
        count: how the number of levels is rounded; super-resolution rounds down.

    Raises:
        ValueError: the picture is too small to learn from.
    """
    short, long = min(size), max(size)
    if short * scale_factor < MIN_SIDE:
        raise ValueError(f"the picture is {size[1]}x{size[0]}; both sides need at least {ceil(MIN_SIDE / scale_factor)} pixels")
    shrunk = min(1.0, max(max_size / long, min_size / scale_factor / short))
    max_size = max(max_size, ceil(shrunk * long))
    min_size = max(MIN_SIDE, min(min_size, math.floor(shrunk * short * scale_factor)))
    whole = math.ceil if count == "ceil" else math.floor
    log = math.log(scale_factor)
    coarse = whole(round(math.log(min_size / short) / log, 9)) + 1
    fine = whole(round(math.log(min(max_size, long) / long) / log, 9))
    steps = max(1, coarse - fine)
    finest = ceil(size[0] * shrunk), ceil(size[1] * shrunk)
    ratio = (min_size / min(finest)) ** (1 / steps)
    scales = (*(ratio ** (steps - level) for level in range(steps)), 1.0)
    return Pyramid(_sizes(finest, scales), scales)


def plan_concurrent_pyramid(size: Size, num_stages: int, *, min_size: int = 25, max_size: int = 250) -> Pyramid:
    """Levels that lie closer at low resolution.

    Source: ConSinGAN (Hinz et al., WACV 2021), section 3, as its code computes it.

    Raises:
        ValueError: the picture is too small to learn from.
    """
    short, long = min(size), max(size)
    if short * 0.75 < MIN_SIDE:
        raise ValueError(f"the picture is {size[1]}x{size[0]}; both sides need at least {ceil(MIN_SIDE / 0.75)} pixels")
    shrunk = min(1.0, max(max_size / long, min_size / 0.75 / short))
    finest = ceil(size[0] * shrunk), ceil(size[1] * shrunk)
    min_size = max(MIN_SIDE, min(min_size, math.floor(0.75 * min(finest))))
    last = num_stages - 1
    ratio = (min_size / min(finest)) ** (1 / last)
    spread = (last - 1) / math.log(last) if last > 1 else 0.0
    scales = (*(ratio ** (spread * math.log(last - level) + 1) for level in range(last)), 1.0)
    return Pyramid(_sizes(finest, scales), scales)


def pyramid_of(sizes: Sequence[Size]) -> Pyramid:
    """The pyramid with these sizes, coarsest first; the ratio is the one that gives them, or else that of the ends."""
    steps = len(sizes) - 1
    finest = sizes[-1]
    for min_size in range(min(sizes[0]) - 1, min(sizes[0]) + 1):
        ratio = (min_size / min(finest)) ** (1 / max(1, steps))
        scales = (*(ratio ** (steps - level) for level in range(steps)), 1.0)
        if _sizes(finest, scales) == tuple(sizes):
            break
    return Pyramid(tuple(sizes), scales)


def _sizes(finest: Size, scales: Sequence[float]) -> tuple[Size, ...]:
    """Rounded up without a guard, as published: a short side of 25 pixels plus a rounding error becomes 26."""
    return tuple((math.ceil(finest[0] * scale), math.ceil(finest[1] * scale)) for scale in scales)


# -- networks --------------------------------------------------------------------------------------------------------------


class ConvBlock(nn.Module):
    """Convolution without padding, normalization, LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: LevelNorm = "batch", slope: float = 0.2, padding: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=padding)
        self.norm = nn.BatchNorm2d(out_channels) if norm == "batch" else nn.Identity()
        self.activation = nn.LeakyReLU(slope)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.norm(self.conv(x)))
        return result


class LevelNetwork(nn.Module):
    """`num_layers` unpadded 3x3 convolutions: an image loses `2 * num_layers` pixels per axis.

    Source: SinGAN, figure 4.
    """

    def __init__(self, out_channels: int, width: int, num_layers: int = 5, *, norm: LevelNorm = "batch", slope: float = 0.2):
        super().__init__()
        inputs = [3] + [width] * (num_layers - 2)
        self.blocks = nn.ModuleList(ConvBlock(channels, width, norm=norm, slope=slope) for channels in inputs)
        self.tail = nn.Conv2d(width, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.tail(x)
        return result


class LevelGenerator(LevelNetwork):
    """Adds detail to an image: (noise, image), both padded -> image, smaller by the padding."""

    def __init__(self, width: int, num_layers: int = 5, *, norm: LevelNorm = "batch"):
        super().__init__(3, width, num_layers, norm=norm)

    def forward(self, noise: Tensor, previous: Tensor) -> Tensor:  # type: ignore[override]
        detail = torch.tanh(super().forward(noise + previous).float())
        margin = (previous.shape[-1] - detail.shape[-1]) // 2
        return detail + previous[..., margin : previous.shape[-2] - margin, margin : previous.shape[-1] - margin].float()


def rename_original(keys: Iterable[str]) -> dict[str, str]:
    """Keys of the authors' generators and discriminators of one level (`body.block1.conv.weight`) -> keys of the classes here."""
    renamed = {}
    for key in keys:
        part, rest = key.split(".", 1)
        if part == "head":
            renamed[key] = f"blocks.0.{rest}"
        elif part == "body":
            block, rest = rest.split(".", 1)
            renamed[key] = f"blocks.{block.removeprefix('block')}.{rest}"
        else:
            renamed[key] = f"{part}.{rest.removeprefix('0.')}"
    return renamed


def pixelwise_gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Mean over the pixels of (norm of the gradient over the channels - 1)^2, at one random point between real and fake.

    Always float32. Source: SinGAN's form of Gulrajani et al., NeurIPS 2017: one weight per image, the norm per pixel.
    """
    with without_autocast(real):
        real, fake = real.detach().float(), fake.detach().float()
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = (share * real + (1 - share) * fake).requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (gradient.norm(dim=1) - 1).square().mean()


def mirror_to(image: Tensor, size: Size) -> Tensor:
    """[..., H, W] cut to `size` or continued by mirroring."""
    for axis, length in ((-2, size[0]), (-1, size[1])):
        there = image.shape[axis]
        folded = torch.arange(length, device=image.device) % (2 * there)
        image = image.index_select(axis, torch.where(folded < there, folded, 2 * there - 1 - folded))
    return image


# -- noise that moves ------------------------------------------------------------------------------------------------------


def randn(shape: Sequence[int], device: Any, generator: torch.Generator | None) -> Tensor:
    """Unit noise on `device`; a generator of another device gives the same numbers everywhere."""
    return normal_of_frame(shape, device, generator)


def noise_walk(
    shape: Sequence[int], *, alpha: float, beta: float, device: Any, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Endless deviations from the fixed noise, each [*shape], beginning with zeros.

    Source: SinGAN, section 4 (animation): d <- beta * (z - z_before) + (1 - beta) * fresh noise; the walk is drawn back by alpha.
    """
    before = torch.zeros(*shape, device=device)
    now = before
    while True:
        yield now
        moved = now + beta * (now - before) + (1 - beta) * randn(shape, device, generator)
        before, now = now, (1 - alpha) * moved


def walk_deviation(alpha: float, beta: float) -> float:
    """Standard deviation of `noise_walk` in the long run; finite, also where nothing draws the walk back."""
    alpha, beta = max(alpha, 0.01), min(beta, 0.99)
    first, second = (1 - alpha) * (1 + beta), -(1 - alpha) * beta
    variance = ((1 - alpha) * (1 - beta)) ** 2 * (1 - second) / ((1 + second) * ((1 - second) ** 2 - first**2))
    return math.sqrt(variance)


def noise_loop(
    shape: Sequence[int], num_frames: int, *, alpha: float, beta: float, device: Any, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """`num_frames` deviations on a closed path: that after the last is the first, which is zero.

    A periodic Gaussian process with the spectrum of `noise_walk`, conditioned on being zero at frame 0; made of the few
    harmonics that carry it, so that memory does not grow with the number of frames.
    """
    first, second = (1 - alpha) * (1 + beta), -(1 - alpha) * beta
    if num_frames < 2:
        yield from (torch.zeros(*shape, device=device) for _ in range(num_frames))
        return
    angles = 2 * math.pi * torch.arange(num_frames // 2 + 1, dtype=torch.float64) / num_frames
    response = (
        1 - first * torch.polar(torch.ones_like(angles), -angles) - second * torch.polar(torch.ones_like(angles), -2 * angles)
    )
    twice = torch.full_like(angles, 2.0)  # every frequency stands for its negative too, but these two
    twice[0] = 1.0
    if num_frames % 2 == 0:
        twice[-1] = 1.0
    power = ((1 - alpha) * (1 - beta)) ** 2 * twice / num_frames / response.abs().square()
    moving = power[1:].cumsum(0) / power[1:].sum()
    num_harmonics = int((moving < 0.99).sum()) + 2
    angles, gains = angles[:num_harmonics], power[:num_harmonics].sqrt()
    fields = randn((2 * num_harmonics, *shape), device, generator)
    start = torch.einsum("k,k...->...", gains.float().to(device), fields[:num_harmonics])
    for frame in range(num_frames):
        turned = angles * frame
        weights = torch.cat([gains * turned.cos(), gains * turned.sin()]).float().to(device)
        correlation = float((power[:num_harmonics] * turned.cos()).sum() / power[:num_harmonics].sum())
        yield torch.einsum("k,k...->...", weights, fields) - correlation * start


# -- windows --------------------------------------------------------------------------------------------------------------


def random_window(size: Size, side: int | None) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random square of `side`, or of what there is."""
    height, width = (min(length, side or length) for length in size)
    top = int(torch.randint(size[0] - height + 1, ()))
    left = int(torch.randint(size[1] - width + 1, ()))
    return top, left, height, width
