"""Style pictures of training clips: parts of their own frames, varied, so that they tell colors rather than where these are.

A data set of one look also says nothing of other styles; recoloring a clip and its style picture together does.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vidgen.data import augment
from vidgen.data.settings import StyleSettings
from vidgen.media.conditions import resize_picture

_GRAY = np.array([0.299, 0.587, 0.114])
_LEAST_SATURATION, _MOST_SATURATION = 0.6, 1.7
_MOST_GAIN, _MOST_TINT = 0.25, 30.0


@dataclass(frozen=True)
class StyleView:
    """How the style picture of a clip is taken from a frame.

    Attributes:
        place: of the frame in its sequence, 0..1; None for the clip's first.
        part: top, left, height and width of the part that is taken, in shares of the frame.
        mirrored: whether it is mirrored.
        shifts: of the control points of a thin-plate spline, [9,2] in shares of the picture.
    """

    place: float | None
    part: tuple[float, float, float, float]
    mirrored: bool
    shifts: np.ndarray

    @staticmethod
    def draw(settings: StyleSettings, generator: np.random.Generator) -> StyleView:
        """A random one."""
        place = float(generator.random())
        height, width = (float(side) for side in generator.uniform(settings.smallest_part, 1, 2))
        top, left = (float(generator.uniform(0, 1 - side)) for side in (height, width))
        mirrored = bool(generator.random() < 0.5) and settings.flip
        shifts = generator.uniform(-1, 1, (9, 2)) * settings.warp
        return StyleView(place if settings.source == "sequence" else None, (top, left, height, width), mirrored, shifts)

    def __call__(self, picture: np.ndarray, side: int) -> np.ndarray:
        """uint8 [3,H,W] to uint8 [3,side,side]."""
        height, width = picture.shape[1:]
        top, left = int(self.part[0] * height), int(self.part[1] * width)
        rows, columns = max(1, round(self.part[2] * height)), max(1, round(self.part[3] * width))
        square = as_style(picture[:, top : top + rows, left : left + columns], side)
        if self.shifts.any():
            square = augment.deform(square, augment.bent_positions(self.shifts, (side, side)))
        return np.ascontiguousarray(square[..., ::-1]) if self.mirrored else square


def as_style(picture: np.ndarray, side: int) -> np.ndarray:
    """uint8 [3,H,W] to uint8 [3,side,side], whatever its aspect."""
    resized = resize_picture(np.ascontiguousarray(picture.transpose(1, 2, 0)), (side, side))
    return np.ascontiguousarray(resized.transpose(2, 0, 1))


def draw_recoloring(generator: np.random.Generator) -> np.ndarray:
    """A random change of colors, [3,4]: a turn of the hue, more or less saturation, gain and tint of each color."""
    angle = generator.uniform(0, 2 * np.pi)
    axis = np.ones(3) / np.sqrt(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    saturation = generator.uniform(_LEAST_SATURATION, _MOST_SATURATION)
    gray = np.ones((3, 1)) * _GRAY[None]
    mixed = (gray + saturation * (np.eye(3) - gray)) @ turn
    gains = 1 + generator.uniform(-_MOST_GAIN, _MOST_GAIN, 3)
    tint = generator.uniform(-_MOST_TINT, _MOST_TINT, 3)
    # Around the middle gray, so that light and dark stay within the range.
    matrix = gains[:, None] * mixed
    return np.column_stack([matrix, tint + 128 - matrix @ np.full(3, 128.0)])


def recolor(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """uint8 [3,H,W] with its colors changed by a matrix [3,4]."""
    pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))
    return np.ascontiguousarray(cv2.transform(pixels, matrix).transpose(2, 0, 1))
