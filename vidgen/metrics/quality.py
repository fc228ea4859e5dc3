"""Quality of single frames: fidelity to a paired frame, sharpness, local texture.

Frames are float [N,3,H,W] in 0..1 (RGB); every function gives one float64 value per frame, [N], whatever the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_DECIBELS = 100.0
SSIM_SIGMA = 1.5
SSIM_WINDOW = 11
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_MIN_SIDE = (SSIM_WINDOW - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1) + 1
_LUMA = (0.299, 0.587, 0.114)


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
            first, second = (F.avg_pool2d(frames, 2) for frames in (first, second))
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
    batch, channels, height, width = values.shape
    rows = F.conv2d(values.reshape(-1, 1, height, width), kernel.view(1, 1, 1, -1))
    smooth = F.conv2d(rows, kernel.view(1, 1, -1, 1))
    return smooth.view(batch, channels, *smooth.shape[-2:])


def local_variance(frames: Tensor, window: int = 7) -> Tensor:
    """Variance inside the window around each pixel (clipped at the border), mean over channels; [N,1,H,W]."""

    def smooth(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=1, padding=window // 2, count_include_pad=False)

    # Shifting by the frame's mean first keeps the difference of squares exact for flat frames.
    centred = frames - frames.mean(dim=(-2, -1), keepdim=True)
    return (smooth(centred.square()) - smooth(centred).square()).clamp(min=0).mean(dim=1, keepdim=True)


def sharpness(frames: Tensor) -> Tensor:
    """Mean absolute four-neighbour Laplacian of luma inside the frame, [N]."""
    grey = luma(frames)
    centre = grey[..., 1:-1, 1:-1]
    around = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
    return frame_mean((around - 4 * centre).abs())
