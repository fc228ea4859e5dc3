"""Line drawings: drawn from pictures for training, and read, as people draw them, for use.

A drawing is dark on white here: uint8, 0 for ink and 255 for paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from vidgen.media.conditions import resize_picture
from vidgen.media.drawings import line_art

Method = Literal["xdog", "high_pass"]
METHODS: tuple[Method, ...] = ("xdog", "high_pass")
DrawingKind = Literal["drawing", "inverted", "photo", "blank"]

_HIGH_PASS_WIDTH, _HIGH_PASS_GAIN = 3.0, 2.0
_LEAST_CONTRAST = 24
_INK, _PAPER = 0.5, 90.0
_DARK, _LIGHT = 85, 170
_MOSTLY = 0.5
_COLORFUL = 24.0
_THUMBNAIL = 512


@dataclass(frozen=True)
class Pen:
    """How lines are drawn from a picture.

    Attributes:
        method: xdog, or high_pass (the picture without its coarse part).
        width: of the lines, in pixels of the picture they are drawn from.
        enlarge: they are drawn at this times the size of the result and then shrunk, as drawings are for a network.
        strength: 1 for black lines, less for paler ones.
    """

    method: Method = "xdog"
    width: float = 1.0
    enlarge: float = 1.0
    strength: float = 1.0


def high_pass_lines(picture: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Dark lines on white: what is darker in a color than its surroundings. uint8 [H,W,3] to uint8 [H,W].

    Source: the input of sketchKeras: each channel less its Gaussian blur of 3 pixels, over 128, of which the largest is taken;
    there for pictures whose long side is 512. Its network, which cleans that, is not part of it.

    Args:
        width: of the lines; 1 is the published blur.
    """
    values = picture.astype(np.float32)
    coarse = cv2.GaussianBlur(values, (0, 0), _HIGH_PASS_WIDTH * width)
    darker = ((coarse - values) / 128).max(axis=2)
    ink = (darker * _HIGH_PASS_GAIN).clip(0, 1)
    return np.rint(255 * (1 - ink)).astype(np.uint8)


def draw(picture: np.ndarray, pen: Pen, size: tuple[int, int]) -> np.ndarray:
    """A drawing of a picture: uint8 [H,W,3] to uint8 [h,w] of `size`."""
    source = resize_picture(picture, enlarged(size, pen.enlarge, (picture.shape[0], picture.shape[1])))
    lines = line_art(source, pen.width) if pen.method == "xdog" else high_pass_lines(source, pen.width)
    drawing = full_contrast(_shrunk(lines, size))
    return drawing if pen.strength == 1 else np.rint(255 - pen.strength * (255.0 - drawing)).astype(np.uint8)


def enlarged(size: tuple[int, int], factor: float, whole: tuple[int, int]) -> tuple[int, int]:
    """`size` (height, width) times the factor, but no larger than the whole picture, and never smaller than `size`."""
    height, width = (max(side, min(round(side * factor), limit)) for side, limit in zip(size, whole, strict=True))
    return height, width


def read(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A drawing as a person drew it: uint8 [H,W,3] to uint8 [h,w] of `size`, ink at 0 and paper at 255."""
    return full_contrast(_shrunk(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), size))


def full_contrast(drawing: np.ndarray) -> np.ndarray:
    """Its darkest pixels (0.5 %) at 0 and its paper (the level that 90 % do not exceed) at 255; all white where nothing is drawn.

    So a pencil drawing on gray paper, and fine lines that became pale when they were shrunk, look like those of training.
    """
    ink, paper = np.percentile(drawing, (_INK, _PAPER))
    if paper - ink < _LEAST_CONTRAST:
        return np.full_like(drawing, 255)
    return np.rint((drawing.astype(np.float32) - ink) * (255 / (paper - ink))).clip(0, 255).astype(np.uint8)


def kind_of_drawing(picture: np.ndarray) -> DrawingKind:
    """Whether uint8 [H,W,3] is a drawing: mostly paper, light, without color; or light lines on dark; or a photo; or blank."""
    height, width = picture.shape[:2]
    shrink = max(1.0, max(height, width) / _THUMBNAIL)
    small = resize_picture(picture, (max(1, round(height / shrink)), max(1, round(width / shrink))))
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    darkest, lightest = np.percentile(gray, (0.05, 99.95))
    if lightest - darkest < _LEAST_CONTRAST:
        return "blank"
    if np.ptp(small, axis=2).mean() > _COLORFUL:
        return "photo"
    spread = (gray.astype(np.float32) - darkest) * (255 / (lightest - darkest))
    if (spread > _LIGHT).mean() > _MOSTLY:
        return "drawing"
    return "inverted" if (spread < _DARK).mean() > _MOSTLY else "photo"


def _shrunk(drawing: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if drawing.shape == size:
        return drawing
    shrinks = size[0] * size[1] < drawing.size
    return cv2.resize(drawing, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
