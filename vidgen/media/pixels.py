"""Between pixels of files (uint8) and values of networks (float, -1..1): the one place that knows the convention."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_signed(pixels: np.ndarray) -> np.ndarray:
    """uint8 of any shape -> float32 in -1..1, the same shape."""
    signed: np.ndarray = pixels.astype(np.float32) / 127.5 - 1
    return signed


def to_pixels(frames: Tensor) -> list[np.ndarray]:
    """float [T,3,H,W] in -1..1 -> T uint8 arrays [H,W,3]."""
    pixels = ((frames.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).cpu().numpy())
