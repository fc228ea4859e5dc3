"""Between uint8 0..255 and float -1..1, the one place of this package that knows how."""

from __future__ import annotations

import torch
from torch import Tensor

_HALF_RANGE = 127.5


def normalize(pixels: Tensor) -> Tensor:
    """uint8 0..255 of any shape to float32 -1..1."""
    return pixels.float() / _HALF_RANGE - 1


def quantize(images: Tensor) -> Tensor:
    """Float -1..1 of any shape to the nearest uint8 0..255; what lies outside becomes 0 or 255."""
    return ((images + 1) * _HALF_RANGE).round().clamp(0, 255).to(torch.uint8)
