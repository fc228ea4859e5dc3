"""Input maps made from pictures, and changes of size that keep pictures smooth and labels exact."""

from __future__ import annotations

import cv2
import numpy as np

_SAME_ASPECT = 1.02
_CORRECTIONS = 4


def canny_edges(pixels: np.ndarray, low: float = 100, high: float = 200, blur: float = 0) -> np.ndarray:
    """Edges of a picture: uint8 [H,W,3] RGB to uint8 [H,W], 255 on edges and 0 elsewhere.

    `low` and `high` are the hysteresis thresholds on the L2 norm of the Sobel gradient of the gray picture, which is first
    smoothed by a Gaussian of `blur` pixels (0 for none).
    Source: Canny, A Computational Approach to Edge Detection, 1986.
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if blur:
        gray = cv2.GaussianBlur(gray, (0, 0), blur)
    return cv2.Canny(gray, low, high, L2gradient=True)


def resize_picture(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture uint8 [H,W,3] at `size` (height, width): area averages to shrink, bicubic to enlarge."""
    height, width = size
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def enlarge_generated(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A generated picture uint8 [H,W,3] at a larger `size` (height, width), with nothing taken from it.

    Bicubic, then corrected until area averages give back what was generated: a filter alone, Lanczos too, leaves a tenth less
    fine detail than there was. Pictures from elsewhere are only resized, since this would amplify their noise and blocks.
    Source: Irani and Peleg, "Improving Resolution by Image Registration", 1991, for one picture.
    """
    height, width = size
    generated = pixels.astype(np.float32)
    enlarged = cv2.resize(generated, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(_CORRECTIONS):
        reduced = cv2.resize(enlarged, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_AREA)
        enlarged = enlarged + cv2.resize(generated - reduced, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(enlarged), 0, 255).astype(np.uint8)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels [H,W] or [H,W,3] of any dtype at `size` (height, width); each pixel is the nearest one, never a mixture."""
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(labels.shape[:2], size, strict=True))
    return labels[rows[:, None], columns[None, :]]


def pad_to_multiple(array: np.ndarray, multiple: int) -> np.ndarray:
    """[..., H, W] grown to the right and below, by repeating its edge, until both sides are multiples of `multiple`."""
    height, width = array.shape[-2:]
    margins = ((0, 0),) * (array.ndim - 2) + ((0, -height % multiple), (0, -width % multiple))
    return np.pad(array, margins, mode="edge")


def middle_of_aspect(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the largest part in the middle of a picture of `size` that has the aspect of `wanted` (height, width).

    Aspects that differ by less than 2 percent, as by rounding to multiples, count as equal.
    """
    height, width = size
    factor = (width * wanted[0]) / (height * wanted[1])
    if max(factor, 1 / factor) >= _SAME_ASPECT:
        height, width = (height, max(1, round(width / factor))) if factor > 1 else (max(1, round(height * factor)), width)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return slice(top, top + height), slice(left, left + width)
