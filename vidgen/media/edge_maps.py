"""Edge maps that look like drawings, from photos; and what a network sees of either: the distance to the nearest stroke.

Source: Chen and Hays, "SketchyGAN", CVPR 2018, section 3, and facts of the authors' release: edges, binarization, thinning, removal
of isolated pixels, of small components and of spurs. Drawings are dark on light, uint8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

DetectorName = Literal["canny", "sobel"]
Detector = Callable[[np.ndarray], np.ndarray]
"""A picture uint8 [H,W,3] -> the strength of its edges, float32 [H,W] in 0..1: how a trained network takes part."""

WHITE_FROM = 245
"""On white paper, what is darker is a stroke."""
_PAPER = 250
_EVEN, _EVEN_SHARE = 16, 0.5
_REFERENCE_SIDE = 256


@dataclass(frozen=True)
class EdgeMapOptions:
    """How edges become a drawing. Lengths and areas are those of a picture of 256 pixels and grow with it.

    Attributes:
        detector: canny, sobel (the gradient of the smoothed picture, thinned across), or a `Detector`.
        blur: standard deviation in pixels of the Gaussian before canny and sobel; 2 at 256 pixels, 1 at 64, by default.
        threshold: strength, in parts of the greatest, from which on there is an edge; 25 of 255 in the release. Canny's upper
            one is twice it.
        min_pixels: smaller components are removed. 5 in the release, whose detector sees few textures; gradients need more.
        num_spurs: how often the ends of lines are cut off by one pixel.
    """

    detector: DetectorName | Detector = "canny"
    blur: float | None = None
    threshold: float = 25 / 255
    min_pixels: int = 12
    num_spurs: int = 1


@dataclass(frozen=True)
class EdgeMapSteps:
    """What each step leaves, bool [H,W], by its name, and the strength that they begin with, float32 [H,W] in 0..1."""

    strength: np.ndarray
    masks: dict[str, np.ndarray]

    @property
    def drawing(self) -> np.ndarray:
        """The result, uint8 [H,W]: 0 on strokes, 255 elsewhere."""
        return drawn(next(reversed(self.masks.values())))


def edge_map(picture: np.ndarray, options: EdgeMapOptions | None = None) -> np.ndarray:
    """A photo uint8 [H,W,3] as a drawing, uint8 [H,W]: 0 on strokes, 255 elsewhere; all 255 where there are no edges."""
    return edge_map_steps(picture, options).drawing


def edge_map_steps(picture: np.ndarray, options: EdgeMapOptions | None = None) -> EdgeMapSteps:
    """`edge_map`, step by step."""
    options = options or EdgeMapOptions()
    scale = min(picture.shape[:2]) / _REFERENCE_SIDE
    strength = _strength(picture, options)
    mask = strength >= options.threshold * (strength.max() if options.detector == "sobel" else 1.0)
    mask &= strength > 0
    masks = {"binarized": mask}
    masks["thinned"] = mask = thin(mask)
    masks["without isolated pixels"] = mask = without_isolated(mask)
    masks["without small components"] = mask = without_small(mask, max(2, round(options.min_pixels * scale)))
    for _ in range(1 + options.num_spurs):  # the release shrinks once and cuts spurs once, which is the same rule
        mask = without_ends(mask)
    masks["without spurs"] = mask
    masks["edge map"] = without_isolated(mask)
    return EdgeMapSteps(strength, masks)


def _strength(picture: np.ndarray, options: EdgeMapOptions) -> np.ndarray:
    if callable(options.detector):
        found = np.asarray(options.detector(picture), np.float32)
        if found.shape != picture.shape[:2]:
            raise ValueError(f"the detector gave {found.shape} for a picture of {picture.shape[:2]}")
        return found
    blur = options.blur
    if blur is None:
        blur = float(np.clip(np.sqrt(min(picture.shape[:2]) / 64), 1, 4))
    gray = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), blur)
    dx, dy = (cv2.Sobel(gray, cv2.CV_32F, *order, borderType=cv2.BORDER_REPLICATE) / 4 for order in ((1, 0), (0, 1)))
    if options.detector == "sobel":
        magnitude = np.hypot(dx, dy)
        return suppress(magnitude / max(float(magnitude.max()), 1e-6), dx, dy)
    finer = 64  # whole numbers are wanted
    low = options.threshold * 0.5 * 64
    whole = [np.rint(part * finer).clip(-32768, 32767).astype(np.int16) for part in (dx, dy)]
    return cv2.Canny(whole[0], whole[1], low * finer, 2 * low * finer, L2gradient=True).astype(np.float32) / 255


def suppress(strength: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Strength that is 0 wherever it is greater one pixel further along the gradient, on either side."""
    length = np.maximum(np.hypot(dx, dy), 1e-6)
    rows, columns = np.indices(strength.shape, dtype=np.float32)
    result = strength.copy()
    for side in (-1, 1):
        x, y = columns + side * dx / length, rows + side * dy / length
        beside = cv2.remap(strength, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        result[beside > strength] = 0
    return result


# --- masks ----------------------------------------------------------------------------------------------------------------


def _around(mask: np.ndarray) -> list[np.ndarray]:
    """The eight neighbors of every pixel, clockwise from the one above; outside there is nothing."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    places = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))
    return [padded[row : row + height, column : column + width] for row, column in places]


def thin(mask: np.ndarray) -> np.ndarray:
    """Lines one pixel wide from bool [H,W].

    Source: Zhang and Suen, "A Fast Parallel Algorithm for Thinning Digital Patterns", 1984.
    """
    mask = mask.copy()
    while True:
        before = int(mask.sum())
        for turn in (0, 1):
            around = _around(mask)
            count = np.sum(around, axis=0, dtype=np.int8)
            rises = np.sum(
                [~one & other for one, other in zip(around, [*around[1:], around[0]], strict=True)], axis=0, dtype=np.int8
            )
            above, right, below, left = around[0], around[2], around[4], around[6]
            if turn == 0:
                open_sides = ~(above & right & below) & ~(right & below & left)
            else:
                open_sides = ~(above & right & left) & ~(above & below & left)
            mask &= ~((count >= 2) & (count <= 6) & (rises == 1) & open_sides)
        if int(mask.sum()) == before:
            return mask


def without_isolated(mask: np.ndarray) -> np.ndarray:
    """Without pixels that have no neighbor."""
    result: np.ndarray = mask & np.logical_or.reduce(_around(mask))
    return result


def without_small(mask: np.ndarray, min_pixels: int) -> np.ndarray:
    """Without components (8 neighbors) of fewer pixels."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keeps = statistics[:, cv2.CC_STAT_AREA] >= min_pixels
    keeps[0] = False
    result: np.ndarray = keeps[labels]
    return result


def without_ends(mask: np.ndarray) -> np.ndarray:
    """Without the pixels at the ends of lines, which have one neighbor at most."""
    result: np.ndarray = mask & (np.sum(_around(mask), axis=0, dtype=np.int8) > 1)
    return result


# --- drawings -------------------------------------------------------------------------------------------------------------


def drawn(mask: np.ndarray) -> np.ndarray:
    """bool [H,W] as a drawing, uint8 [H,W]: 0 on strokes, 255 elsewhere."""
    return np.where(mask, np.uint8(0), np.uint8(255))


def _gray(drawing: np.ndarray) -> np.ndarray:
    return drawing if drawing.ndim == 2 else cv2.cvtColor(drawing, cv2.COLOR_RGB2GRAY)


def strokes(drawing: np.ndarray) -> np.ndarray:
    """Where a drawing, uint8 [H,W] or [H,W,3], has strokes: bool [H,W].

    On white paper what is darker than 245, as in the release; on scanned paper what Otsu's threshold sets apart.
    """
    gray = _gray(drawing)
    paper = float(np.median(gray))
    if paper >= _PAPER:
        result: np.ndarray = gray < WHITE_FROM
        return result
    threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return gray <= min(threshold, paper - _EVEN)


def kind_of(drawing: np.ndarray) -> Literal["drawing", "blank", "inverted", "photo"]:
    """What a picture that should be a drawing is, uint8 [H,W] or [H,W,3].

    Most of a drawing is even paper: half of its pixels are of about one tone, light, or dark where it is inverted.
    """
    gray = _gray(drawing).astype(np.int16)
    paper = float(np.median(gray))
    if np.ptp(gray) <= _EVEN:
        return "blank"
    if (np.abs(gray - paper) <= _EVEN).mean() < _EVEN_SHARE:
        return "photo"
    if paper < 128:
        return "inverted"
    return "drawing" if strokes(drawing).any() else "blank"


def stroke_distance(mask: np.ndarray) -> np.ndarray:
    """The Euclidean distance to the nearest stroke of bool [H,W], in parts of the greatest: float32 [H,W], 0 on strokes.

    Raises:
        ValueError: there is no stroke, or nothing else, so that there is no distance.
    """
    if not mask.any() or mask.all():
        raise ValueError("a drawing needs strokes and paper")
    distance = cv2.distanceTransform(np.where(mask, 0, 255).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    result: np.ndarray = distance / distance.max()
    return result


def from_distance(distance: np.ndarray) -> np.ndarray:
    """The drawing of a distance map, float [H,W] in 0..1, for display: uint8 [H,W]."""
    return drawn(distance < 0.01)
