"""Pixels as files and people see them, uint8 0..255 [..., H, W, C], and as networks see them, float -1..1 [..., C, H, W].

The one owner of the step between the two; 0 becomes -1, 255 becomes 1, and every uint8 value survives the way there and back.
Programs that compute without torch come through here too, so it is imported only where there are tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_HALF_RANGE = 127.5


@overload
def normalize(pixels: np.ndarray) -> np.ndarray: ...
@overload
def normalize(pixels: Tensor) -> Tensor: ...
def normalize(pixels: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """uint8 0..255 of any shape to float32 -1..1 of the same shape and on the same device; the argument stays as it is."""
    if isinstance(pixels, np.ndarray):
        values = pixels.astype(np.float32)
        values /= _HALF_RANGE
        values -= 1
        return values
    import torch

    # A conversion that copies leaves a fresh tensor, which is changed in place: batches of video are large.
    return pixels.to(torch.float32, copy=True).div_(_HALF_RANGE).sub_(1)


@overload
def quantize(values: np.ndarray) -> np.ndarray: ...
@overload
def quantize(values: Tensor) -> Tensor: ...
def quantize(values: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Float -1..1 of any shape to the nearest uint8 0..255, ties to even; what lies outside becomes 0 or 255."""
    if isinstance(values, np.ndarray):
        return np.rint((values.astype(np.float32) + 1) * np.float32(_HALF_RANGE)).clip(0, 255).astype(np.uint8)
    import torch

    return ((values.detach().float() + 1) * _HALF_RANGE).round().clamp(0, 255).to(torch.uint8)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Pictures for a network: uint8 [..., H, W, C], in any memory layout, to float32 [..., C, H, W], -1..1, contiguous."""
    import torch

    return torch.from_numpy(normalize(np.ascontiguousarray(np.moveaxis(pixels, -1, -3))))


def to_pixels(frames: Tensor) -> np.ndarray:
    """Pictures for people: float [..., C, H, W], -1..1, of any dtype and device, to uint8 [..., H, W, C], contiguous."""
    return np.ascontiguousarray(np.moveaxis(quantize(frames).cpu().numpy(), -3, -1))
