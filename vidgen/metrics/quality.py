"""Quality of single frames: fidelity to a paired frame, sharpness, local texture.

Frames are float [N,3,H,W] in 0..1 (RGB); every function gives one float64 value per frame, [N], whatever the batch.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MAX_DECIBELS = 100.0
SSIM_SIGMA = 1.5
SSIM_WINDOW = 11
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_MIN_SIDE = (SSIM_WINDOW - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1) + 1
NATURAL_SCENE_BLOCK = 96
GRID_PERIOD, GRID_BLOCK = 8, 32
_BINOMIAL = (0.25, 0.5, 0.25)
_LUMA = (0.299, 0.587, 0.114)


def shrunk_size(size: tuple[int, int], height: int) -> tuple[int, int]:
    """(height, width) brought down to an even `height` with its shape kept; as it is where it is no higher."""
    if size[0] <= height:
        return size
    height = max(height // 2 * 2, 2)
    return height, max(round(size[1] * height / size[0] / 2) * 2, 2)


def shrink(frame: Tensor, height: int, width: int | None = None) -> Tensor:
    """[1,3,H,W] brought down to `height`, by area averages; exactly `height` x `width` where a width is given."""
    current = (frame.shape[-2], frame.shape[-1])
    size = shrunk_size(current, height) if width is None else (height, width)
    if size == current:
        return frame
    pixels = np.ascontiguousarray(frame[0].permute(1, 2, 0).numpy())
    return torch.from_numpy(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)).permute(2, 0, 1)[None].contiguous()


def luma(frames: Tensor) -> Tensor:
    """BT.601 full-range luma [N,1,H,W] of RGB frames [N,3,H,W]."""
    weights = frames.new_tensor(_LUMA)[:, None, None]
    return (frames * weights).sum(dim=-3, keepdim=True)


def frame_mean(values: Tensor) -> Tensor:
    """Mean over everything but the batch, in float64: [N,...] -> [N]."""
    return values.flatten(1).mean(dim=1, dtype=torch.float64)


def decibels(squared_error: Tensor) -> Tensor:
    """-10 log10 of a squared error on the scale 0..1, at most 100 dB (which an exact zero gets)."""
    return (-10 * squared_error.log10()).clamp(max=MAX_DECIBELS)


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over all pixels and channels, [N]; equal frames give 100."""
    return decibels(frame_mean((first - second).square()))


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity, mean over pixels and channels, [N]; NaN for frames smaller than the 11x11 window.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004: Gaussian window of
    sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03, and only windows that lie inside the frame, as in scikit-image.
    """
    if min(first.shape[-2:]) < SSIM_WINDOW:
        return first.new_full((len(first),), torch.nan, dtype=torch.float64)
    luminance, contrast = _ssim_terms(first, second)
    return frame_mean(luminance * contrast)


def ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity over five scales, [N]; NaN for frames whose shorter side is under 161 pixels.

    Source: Wang, Simoncelli, Bovik, "Multiscale Structural Similarity for Image Quality Assessment", 2003. Contrast terms below
    zero count as zero, since their powers would not be real.
    """
    if min(first.shape[-2:]) < MS_SSIM_MIN_SIDE:
        return first.new_full((len(first),), torch.nan, dtype=torch.float64)
    result = first.new_ones((len(first), first.shape[1]), dtype=torch.float64)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            first, second = (F.avg_pool2d(frames, 2, ceil_mode=True) for frames in (first, second))
        luminance, contrast = _ssim_terms(first, second)
        term = luminance * contrast if scale == len(MS_SSIM_WEIGHTS) - 1 else contrast
        result = result * term.flatten(2).mean(dim=2, dtype=torch.float64).clamp(min=0) ** weight
    return result.mean(dim=1)


def _ssim_terms(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The luminance term and the contrast-structure term of every window inside the frame."""
    constant_1, constant_2 = 0.01**2, 0.03**2
    moments = torch.cat([first, second, first.square(), second.square(), first * second], dim=1)
    mean_1, mean_2, square_1, square_2, product = _gaussian_window(moments).chunk(5, dim=1)
    variances = square_1 - mean_1.square() + square_2 - mean_2.square()
    covariance = product - mean_1 * mean_2
    luminance = (2 * mean_1 * mean_2 + constant_1) / (mean_1.square() + mean_2.square() + constant_1)
    return luminance, (2 * covariance + constant_2) / (variances + constant_2)


def _gaussian_window(values: Tensor) -> Tensor:
    offsets = torch.arange(SSIM_WINDOW, dtype=values.dtype, device=values.device) - SSIM_WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    kernel = kernel / kernel.sum()
    channels = values.shape[1]
    rows = F.conv2d(values, kernel.expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(rows, kernel[:, None].expand(channels, 1, -1, 1), groups=channels)


def local_variance(frames: Tensor, window: int = 7) -> Tensor:
    """Variance inside the window around each pixel (clipped at the border), mean over channels; [N,1,H,W]."""

    def smooth(values: Tensor) -> Tensor:
        return _window_mean(_window_mean(values, window, dim=-1), window, dim=-2)

    # Shifting by the frame's mean first keeps the difference of squares exact for flat frames.
    centered = frames - frames.mean(dim=(-2, -1), keepdim=True)
    return (smooth(centered.square()) - smooth(centered).square()).clamp(min=0).mean(dim=1, keepdim=True)


def _window_mean(values: Tensor, window: int, dim: Literal[-1, -2]) -> Tensor:
    """Mean over the (odd) window around each position along one dimension, clipped at the border; shape as `values`."""
    reach, length = window // 2, values.shape[dim]
    padding = (reach, reach) if dim == -1 else (0, 0, reach, reach)

    def sums(padded: Tensor) -> Tensor:
        # Adding whole shifted images is several times faster than average pooling, and gives the same bits.
        total = padded.narrow(dim, 0, length).clone()
        for shift in range(1, window):
            total += padded.narrow(dim, shift, length)
        return total

    line = values.new_ones((length,) if dim == -1 else (length, 1))
    return sums(F.pad(values, padding)) / sums(F.pad(line, padding))


def detail(frames: Tensor) -> Tensor:
    """Fine structure [N,1,H-4,W-4]: the Laplacian of luma between one and a half and a dozen pixels, without patterns of a grid.

    A 3x3 binomial filter comes first, which is blind to what alternates from pixel to pixel; then, in every block of 32 pixels,
    what repeats every 8 pixels is taken out (and so every 2 and 4, too). Checkerboards of up-sampling are such patterns, and they
    are no detail. Of real texture this takes a sixteenth.
    """
    kernel = frames.new_tensor(_BINOMIAL).view(1, 1, 1, 3)
    smooth = F.conv2d(F.conv2d(luma(frames), kernel), kernel.transpose(2, 3))
    return _without_grid(_laplacian(smooth))


def sharpness(frames: Tensor) -> Tensor:
    """Mean absolute `detail`, [N]."""
    return frame_mean(detail(frames).abs())


def grid_share(frames: Tensor) -> Tensor:
    """Share of the energy of the Laplacian of luma that repeats every 2, 4 or 8 pixels, [N]; about 0.06 without a pattern.

    NaN for frames of less than 34 pixels, and for flat ones.
    """
    blocks = _grid_view(_laplacian(luma(frames)))
    pattern = blocks.mean(dim=(2, 5)).square().flatten(1).mean(dim=1, dtype=torch.float64)
    return pattern / blocks.square().flatten(1).mean(dim=1, dtype=torch.float64)


def _laplacian(values: Tensor) -> Tensor:
    """Four-neighbor Laplacian of [N,1,H,W] inside the frame."""
    around = values[..., :-2, 1:-1] + values[..., 2:, 1:-1] + values[..., 1:-1, :-2] + values[..., 1:-1, 2:]
    return around - 4 * values[..., 1:-1, 1:-1]


def _without_grid(values: Tensor) -> Tensor:
    """[N,1,H,W] less what repeats every 8 pixels in its block; what is left over at the end is in a block with pixels before it."""
    height, width = values.shape[-2:]
    if min(height, width) < GRID_BLOCK:
        return values
    result = values.clone()
    _grid_view(result).sub_(_grid_view(values).mean(dim=(2, 5), keepdim=True))
    if rest := width % GRID_BLOCK:
        result[..., -rest:] = _without_grid(values[..., -GRID_BLOCK:])[..., -rest:]
    if rest := height % GRID_BLOCK:
        result[..., -rest:, :] = _without_grid(values[..., -GRID_BLOCK:, :])[..., -rest:, :]
    return result


def _grid_view(values: Tensor) -> Tensor:
    """[N,1,H,W] as blocks of 32 pixels, each as 4x4 cells of 8: a view [N, rows, 4, 8, columns, 4, 8] without what is left over."""
    rows, columns = (side // GRID_BLOCK for side in values.shape[-2:])
    whole = values[:, 0, : rows * GRID_BLOCK, : columns * GRID_BLOCK]
    cells = GRID_BLOCK // GRID_PERIOD
    return whole.unflatten(1, (rows, cells, GRID_PERIOD)).unflatten(4, (columns, cells, GRID_PERIOD))


def natural_scene_features(frames: Tensor, block: int = NATURAL_SCENE_BLOCK) -> Tensor:
    """The 36 statistics of NIQE for every 96x96 block of luma, float64 [blocks, 36]; none where frames are smaller.

    Source: Mittal, Soundararajan, Bovik, "Making a Completely Blind Image Quality Analyzer", 2013: shapes of asymmetric
    generalized Gaussians of contrast-normalized luma and of products of neighbors, at full and half size. Flat blocks give NaN.
    """
    gray = luma(frames).double() * 255
    height, width = (side // block * block for side in gray.shape[-2:])
    if not height or not width:
        return gray.new_empty(0, 36)
    gray = gray[..., :height, :width]
    halves = F.interpolate(gray, scale_factor=0.5, mode="bicubic", antialias=True)
    scales = [_block_statistics(_contrast_normalized(values), size) for values, size in ((gray, block), (halves, block // 2))]
    return torch.cat(scales, dim=1)


def _contrast_normalized(gray: Tensor) -> Tensor:
    """(I - mean) / (deviation + 1) over a 7x7 Gaussian window of sigma 7/6."""
    offsets = torch.arange(-3, 4, dtype=gray.dtype)
    kernel = torch.exp(-offsets.square() / (2 * (7 / 6) ** 2))
    kernel = kernel / kernel.sum()

    def smooth(values: Tensor) -> Tensor:
        padded = F.pad(values, (3, 3, 3, 3), mode="replicate")
        return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))

    mean = smooth(gray)
    return (gray - mean) / ((smooth(gray.square()) - mean.square()).abs().sqrt() + 1)


def _block_statistics(values: Tensor, block: int) -> Tensor:
    """[blocks, 18] of [N,1,H,W]."""
    blocks = values.unfold(2, block, block).unfold(3, block, block).reshape(-1, block, block)
    shape, left, right = asymmetric_gaussian(blocks.flatten(1))
    columns = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = asymmetric_gaussian((blocks * blocks.roll(shift, dims=(1, 2))).flatten(1))
        mean = (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))
        columns += [shape, mean, left, right]
    return torch.stack(columns, dim=1)


def asymmetric_gaussian(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, left and right scale of an asymmetric generalized Gaussian fitted to each row of [N,K] by its moments.

    Source: Lasmar, Stitou, Berthoumieu, "Multiscale Skewed Heavy Tailed Model for Texture Analysis", 2009.
    """
    shapes = torch.arange(0.2, 10, 0.001, dtype=samples.dtype)
    ratios = torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))
    below, above = (samples < 0).to(samples.dtype), (samples > 0).to(samples.dtype)
    left = ((samples.square() * below).sum(dim=1) / below.sum(dim=1)).sqrt()
    right = ((samples.square() * above).sum(dim=1) / above.sum(dim=1)).sqrt()
    skew = left / right
    measured = samples.abs().mean(dim=1).square() / samples.square().mean(dim=1)
    measured = measured * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
    nearest = torch.searchsorted(ratios, measured.nan_to_num(1)).clamp(1, len(shapes) - 1)
    closer = (measured - ratios[nearest - 1]).abs() < (ratios[nearest] - measured).abs()
    shape = shapes[nearest - closer.long()]
    scale = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape + measured * 0, left * scale, right * scale
