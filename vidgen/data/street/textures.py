"""Textures of the street: each baked once from fixed noise, all in one picture at many sizes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Color = tuple[float, float, float]

SIZE = 256
NUM_LEVELS = 15
NAMES = ("plain", "sky", "asphalt", "slabs", "leaves", "brick", "plaster", "panels", "shop", "porch", "roof", "glass", "pipe")
NEUTRAL = 128.0
"""A texture of this value takes the tint's colour unchanged."""


def _noise(rng: np.random.Generator, slope: float, size: int = SIZE) -> Array:
    """Periodic noise [size,size] with spectrum 1 / frequency^slope, zero mean, unit deviation."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / np.maximum(frequency, 1.0) ** slope
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return noise / noise.std()


def _gray(value: ArrayLike) -> Array:
    return np.repeat(np.asarray(value, dtype=np.float64)[..., None], 3, axis=-1)


def _mix(low: Color, high: Color, amount: Array) -> Array:
    amount = np.clip(amount, 0, 1)[..., None]
    return np.asarray(low) * (1 - amount) + np.asarray(high) * amount


def _grid_lines(step_x: int, step_y: int, stagger: bool) -> Array:
    """1 on the joints of a grid of bricks or slabs, 0 inside."""
    y, x = np.mgrid[:SIZE, :SIZE]
    shifted = x + (y // step_y % 2) * (step_x // 2) if stagger else x
    return ((y % step_y == 0) | (shifted % step_x == 0)).astype(np.float64)


def _window(wall: Array, x0: int, y0: int, width: int, height: int, shade: float, curtain: float) -> None:
    """Draw a window with frame, sill and the shadow of its lintel on a wall texture whose row 0 is the top."""
    cv2.rectangle(wall, (x0 - 3, y0 - 3), (x0 + width + 2, y0 + height + 2), (168.0, 166.0, 162.0), -1)
    pane = wall[y0 : y0 + height, x0 : x0 + width]
    fall = np.linspace(1.25, 0.7, height)[:, None, None]
    pane[:] = np.array([58.0, 70.0, 84.0]) * shade * fall
    pane[: int(height * curtain)] = np.array([112.0, 110.0, 104.0]) * (0.75 + 0.25 * shade)
    pane[:3] *= 0.6
    pane[:, width // 2 - 1 : width // 2 + 1] = (150.0, 150.0, 148.0)
    pane[height // 3 : height // 3 + 2] = (150.0, 150.0, 148.0)
    cv2.rectangle(wall, (x0 - 5, y0 + height + 3), (x0 + width + 4, y0 + height + 5), (180.0, 178.0, 172.0), -1)
    wall[y0 + height + 6 : y0 + height + 9, x0 - 5 : x0 + width + 5] *= 0.72


def _storeys(rng: np.random.Generator, wall: Array, width: int, height: int) -> Array:
    """Four bays by four storeys of windows on a wall."""
    for bay in range(4):
        for storey in range(4):
            x0, y0 = 64 * bay + (64 - width) // 2, 64 * storey + (60 - height) // 2
            _window(wall, x0, y0, width, height, rng.uniform(0.8, 1.2), rng.choice([0.0, 0.0, 0.3, 0.55]))
    return wall


def _ground_floor(rng: np.random.Generator, wall: Array, shop: bool) -> Array:
    """Four bays of one storey: shop windows under an awning, or windows and doors; a plinth at the bottom."""
    wall[:10] *= 0.8
    for bay in range(4):
        x0 = 64 * bay
        if shop and bay != 2:
            wall[36:62, x0 + 2 : x0 + 62] = np.array([[96.0, 80.0, 74.0], [78.0, 92.0, 88.0]])[bay % 2]
            wall[62:72, x0 + 2 : x0 + 62] = 40.0
            wall[72:214, x0 + 4 : x0 + 60] = np.array([64.0, 72.0, 78.0]) * np.linspace(0.8, 1.35, 142)[:, None, None]
            wall[150:214, x0 + 8 : x0 + 56] *= _gray(1 + 0.12 * _noise(rng, 1.0)[:64, :48])
            wall[72:214, x0 + 31 : x0 + 33] = 120.0
        elif bay % 2 == 0:
            cv2.rectangle(wall, (x0 + 15, 66), (x0 + 49, 255), (160.0, 158.0, 152.0), -1)
            wall[72:256, x0 + 19 : x0 + 46] = (74.0, 56.0, 46.0)
            wall[80:112, x0 + 24 : x0 + 41] = (66.0, 78.0, 88.0)
            wall[[124, 176, 232], x0 + 23 : x0 + 42] = 46.0
        else:
            _window(wall, x0 + 16, 84, 32, 92, rng.uniform(0.8, 1.2), rng.choice([0.0, 0.35]))
    wall[238:] *= 0.72
    return wall


def _bake_tile(name: str, rng: np.random.Generator) -> Array:
    """One periodic texture [256,256,3], row 0 at the top."""
    soft, fine = _noise(rng, 1.6), _noise(rng, 0.4)
    match name:
        case "sky":
            return _mix((92.0, 138.0, 196.0), (232.0, 236.0, 240.0), 0.15 + 0.55 * soft)
        case "asphalt":
            return _gray(128 + 5 * soft + 7 * fine) * (1.0, 1.0, 1.02)
        case "slabs":
            return _gray(132 + 4 * soft + 4 * fine - 26 * _grid_lines(32, 32, True))
        case "leaves":
            return _mix((62.0, 82.0, 38.0), (150.0, 168.0, 92.0), 0.45 + 0.22 * _noise(rng, 1.0) + 0.1 * soft)
        case "brick":
            wall = _gray(126 + 4 * soft + 4 * fine) - 9 * _gray(_grid_lines(8, 4, True))
            return _storeys(rng, wall, 26, 38)
        case "plaster":
            return _storeys(rng, _gray(132 + 5 * soft + 2 * fine), 30, 36)
        case "panels":
            return _storeys(rng, _gray(128 + 4 * soft + 2 * fine - 12 * _grid_lines(64, 64, False)), 48, 34)
        case "shop" | "porch":
            return _ground_floor(rng, _gray(126 + 5 * soft + 3 * fine), name == "shop")
        case "roof":
            return _gray(118 + 6 * soft + 5 * fine - 24 * _grid_lines(16, 16, True))
        case "glass":
            return _gray(np.linspace(170, 80, SIZE)[:, None] + np.zeros((SIZE, SIZE)) + 4 * soft)
        case "pipe":
            return _gray(128 * (0.72 + 0.4 * np.sin(np.linspace(0.3, 2.9, SIZE)))[None] + np.zeros((SIZE, SIZE)))
    return _gray(128 + 3 * soft + 3 * fine)


class Atlas(NamedTuple):
    """All textures in one picture, each at sizes that fall by half an octave, with a periodic border of two pixels.

    Attributes:
        texture: uint8 [rows, columns, 4].
        tops: float32 [tiles], row where a tile starts.
        lefts: float32 [levels], column where a level starts.
        sizes: float32 [levels], width of a level in pixels.
    """

    texture: Array
    tops: Array
    lefts: Array
    sizes: Array


@lru_cache(maxsize=1)
def atlas() -> Atlas:
    """The same for every street: a network sees only labels, so textures belong to the class, not to the seed."""
    rng = np.random.default_rng(20180820)
    sizes = [max(2, round(SIZE * 2 ** (-level / 2))) for level in range(NUM_LEVELS)]
    lefts = np.cumsum([0, *(size + 4 for size in sizes)])
    texture = np.zeros((len(NAMES) * (SIZE + 4), lefts[-1], 4), dtype=np.uint8)
    for index, name in enumerate(NAMES):
        tile = np.clip(_bake_tile(name, rng), 0, 255).astype(np.uint8)[::-1]
        for left, size in zip(lefts, sizes, strict=False):
            small = cv2.resize(tile, (size, size), interpolation=cv2.INTER_AREA)
            top = index * (SIZE + 4)
            texture[top : top + size + 4, left : left + size + 4, :3] = cv2.copyMakeBorder(small, 2, 2, 2, 2, cv2.BORDER_WRAP)
    tops = np.arange(len(NAMES)) * (SIZE + 4) + 1.5
    return Atlas(texture, tops.astype(np.float32), (lefts[:-1] + 1.5).astype(np.float32), np.asarray(sizes, dtype=np.float32))
