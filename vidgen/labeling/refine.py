"""Class shares of a small grid brought to the full size of a frame, with outlines where the picture has its edges."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

RADIUS = 1
SMOOTHNESS = 1e-4

_LEAST_SHARE = 0.02


def refine(
    shares: np.ndarray, pixels: np.ndarray, *, radius: int = RADIUS, smoothness: float = SMOOTHNESS
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest class of each pixel of a picture, by a guided filter whose guide is the picture in gray.

    Source: He, Sun, Tang, "Guided Image Filtering", 2013; its coefficients are found on the small grid and enlarged, as in
    He and Sun, "Fast Guided Filter", 2015.

    Args:
        shares: float32 [C,h,w].
        pixels: uint8 [H,W,3].
        radius: of the windows, in pixels of the small grid; 0 only enlarges.
        smoothness: variance (of gray 0..1) below which a window counts as flat.

    Returns:
        int64 [H,W], and the share of that class, float32 [H,W] in 0..1.
    """
    height, width = pixels.shape[:2]
    guide = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    coarse = cv2.resize(guide, (shares.shape[2], shares.shape[1]), interpolation=cv2.INTER_AREA)
    mean_guide = _mean(coarse, radius)
    variance = _mean(coarse * coarse, radius) - mean_guide * mean_guide
    best = np.full((height, width), -1.0, np.float32)
    classes = np.zeros((height, width), np.int64)
    for number in range(len(shares)):
        share = np.ascontiguousarray(shares[number])
        if share.max() <= _LEAST_SHARE:
            continue
        if radius:
            mean_share = _mean(share, radius)
            slope = (_mean(coarse * share, radius) - mean_guide * mean_share) / (variance + smoothness)
            offset = mean_share - slope * mean_guide
            wide, added = (
                cv2.resize(_mean(part, radius), (width, height), interpolation=cv2.INTER_LINEAR) for part in (slope, offset)
            )
            full: Any = wide * guide + added
        else:
            full = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR)
        better = full > best
        best = np.where(better, full, best)
        classes[better] = number
    return classes, best.clip(0, 1)


def _mean(values: np.ndarray, radius: int) -> np.ndarray:
    """The mean over square windows."""
    averaged: np.ndarray = cv2.blur(values, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)
    return averaged
