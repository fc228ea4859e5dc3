"""Drawings of poses, hands and faces from their points, as the published models of vid2vid were trained on them.

What looks odd is on purpose: a model has learned these very pixels. Source: Wang et al., "Video-to-Video Synthesis", NeurIPS 2018,
with the behavior of its published data preparation: which points are joined, in which colors, and how strokes overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

Color = tuple[int, int, int]

LIMB_BRUSH, LINE_BRUSH = 3, 1
POSE_SCORE, FACE_SCORE = 0.01, 0.1
"""Scores that points of body and hands, and of faces, must exceed."""

NUM_BODY, NUM_FACE, NUM_HAND = 25, 70, 21
NUM_FACE_CURVES = 14

_STEEPEST = 1.0
_WHITE: Color = (255, 255, 255)

_HEAD: tuple[tuple[tuple[int, int], Color], ...] = (
    ((17, 15), (153, 0, 153)),
    ((15, 0), (153, 0, 102)),
    ((0, 16), (102, 0, 153)),
    ((16, 18), (51, 0, 153)),
)
_LIMBS: tuple[tuple[tuple[int, int], Color], ...] = (
    ((0, 1), (153, 0, 51)),
    ((1, 8), (153, 0, 0)),
    ((1, 2), (153, 51, 0)),
    ((2, 3), (153, 102, 0)),
    ((3, 4), (153, 153, 0)),
    ((1, 5), (102, 153, 0)),
    ((5, 6), (51, 153, 0)),
    ((6, 7), (0, 153, 0)),
    ((8, 9), (0, 153, 51)),
    ((9, 10), (0, 153, 102)),
    *((edge, (0, 153, 153)) for edge in ((10, 11), (11, 24), (11, 22), (22, 23))),
    ((8, 12), (0, 102, 153)),
    ((12, 13), (0, 51, 153)),
    *((edge, (0, 0, 153)) for edge in ((13, 14), (14, 21), (14, 19), (19, 20))),
)
_FINGERS: tuple[tuple[tuple[int, ...], Color], ...] = (
    ((0, 1, 2, 3, 4), (204, 0, 0)),
    ((0, 5, 6, 7, 8), (163, 204, 0)),
    ((0, 9, 10, 11, 12), (0, 204, 82)),
    ((0, 13, 14, 15, 16), (0, 82, 204)),
    ((0, 17, 18, 19, 20), (163, 0, 204)),
)
_EYES = ((36, 37, 38, 39), (39, 40, 41, 36), (42, 43, 44, 45), (45, 46, 47, 42))
_MOUTH = (tuple(range(48, 55)), (54, 55, 56, 57, 58, 59, 48))
_POSE_FACE: tuple[tuple[int, ...], ...] = (
    tuple(range(17, 22)),
    tuple(range(22, 27)),
    tuple(range(27, 31)),
    tuple(range(31, 36)),
    *_EYES,
    *_MOUTH,
)
_HEAD_POINTS = (0, 15, 16, 17, 18)

_FACE_PARTS: tuple[tuple[int, tuple[tuple[int, ...], ...]], ...] = (
    (1, ((*range(17), *range(68, 83), 0),)),
    (2, (tuple(range(17, 22)),)),
    (2, (tuple(range(22, 27)),)),
    (3, ((28, 31), tuple(range(31, 36)), (35, 28))),
    (4, _EYES[:2]),
    (4, _EYES[2:]),
    (5, _MOUTH),
    (6, (tuple(range(60, 65)), (64, 65, 66, 67, 60))),
)
"""Part label, and the curves around the part; points 68 to 82 are the mirrored contour."""

PART_NAMES = ("nothing", "face", "brows", "nose", "eyes", "mouth", "inner mouth")


@dataclass(frozen=True)
class Person:
    """Points of one person: (x, y, score) each, float [N,3]; a score of 0 means absent.

    Attributes:
        body: BODY_25, [25,3].
        face: [70,3]; the last two are the pupils and are not drawn.
        left_hand, right_hand: [21,3].
    """

    body: np.ndarray
    face: np.ndarray = field(default_factory=lambda: np.zeros((NUM_FACE, 3)))
    left_hand: np.ndarray = field(default_factory=lambda: np.zeros((NUM_HAND, 3)))
    right_hand: np.ndarray = field(default_factory=lambda: np.zeros((NUM_HAND, 3)))


@dataclass(frozen=True)
class PoseAugmentation:
    """What training does to drawings of poses, so that a model bears gaps.

    Attributes:
        generator: of the randomness.
        drop: probability for each limb, each hand and each face to be left out.
        jitter: whether head points are moved by 5 pixels and the face by 2, as where face labels are removed.
    """

    generator: np.random.Generator
    drop: float = 0.05
    jitter: bool = False


# --- curves and brush -----------------------------------------------------------------------------------------------------


def curve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Pixels of a curve through 2 points (a line) or 3 (a parabola along the longer axis): columns and rows, int [N] each.

    None where a parabola bends more than its quadratic coefficient may (1), or where no pixel lies between the ends.
    """
    if np.abs(np.diff(x)).max() < np.abs(np.diff(y)).max():
        swapped = curve(y, x)
        return None if swapped is None else (swapped[1], swapped[0])
    degree = 1 if len(x) < 3 else 2
    if len(np.unique(x)) <= degree:  # no such function of x goes through the points
        return None if np.ptp(x) == 0 or degree == 1 else _sampled(x, np.polyfit(x, y, 1))
    coefficients = np.polyfit(x, y, degree)
    if degree == 2 and abs(coefficients[0]) > _STEEPEST:
        return None
    return _sampled(x, coefficients)


def _sampled(x: np.ndarray, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    first, last = min(x[0], x[-1]), max(x[0], x[-1])
    places = np.linspace(first, last, int(last - first))
    # An exact fit gives 2.9999999999 for 3, which truncates to 2.
    rows = np.round(np.polyval(coefficients, places), 9)
    return (places.astype(int), rows.astype(int)) if len(places) else None


def stroke(
    canvas: np.ndarray,
    points: tuple[np.ndarray, np.ndarray] | None,
    *,
    brush: int = LINE_BRUSH,
    color: Color = _WHITE,
    ends: bool = False,
) -> None:
    """Draw a curve into uint8 [H,W] or [H,W,3] with a square brush, from -brush to brush - 1 around each pixel.

    In color, each shift of the curve is drawn as a whole: plainly where all its pixels are black, otherwise averaged with what
    is there.

    Args:
        ends: draw round ends of radius 2 * brush.
    """
    if points is None:
        return
    columns, rows = points
    for down in range(-brush, brush):
        for right in range(-brush, brush):
            _paint(canvas, rows + down, columns + right, color)
    if ends:
        for down in range(-2 * brush, 2 * brush):
            for right in range(-2 * brush, 2 * brush):
                if down**2 + right**2 < 4 * brush**2:
                    _paint(canvas, rows[[0, -1]] + down, columns[[0, -1]] + right, color)


def _paint(canvas: np.ndarray, rows: np.ndarray, columns: np.ndarray, color: Color) -> None:
    height, width = canvas.shape[:2]
    rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    if canvas.ndim == 2:
        canvas[rows, columns] = color[0]
        return
    there = canvas[rows, columns]
    canvas[rows, columns] = color if not there.any() else ((there.astype(np.float64) + color) / 2).astype(np.uint8)


# --- poses ----------------------------------------------------------------------------------------------------------------


def draw_pose(
    people: Sequence[Person],
    size: tuple[int, int],
    *,
    only: str = "all",
    augmentation: PoseAugmentation | None = None,
) -> np.ndarray:
    """Body, hands and faces of people on black, uint8 [H,W,3].

    Args:
        size: (height, width).
        only: "all", "body" (limbs without head, hands and face) or "hands".
        augmentation: random gaps and shifts, for training.
    """
    canvas = np.zeros((*size, 3), np.uint8)
    for person in people:
        # The sum wraps around beyond 255 where people overlap, as it did in training.
        canvas += _draw_person(person, size, only, augmentation)
    return canvas


def _draw_person(person: Person, size: tuple[int, int], only: str, augmentation: PoseAugmentation | None) -> np.ndarray:
    canvas = np.zeros((*size, 3), np.uint8)
    body = np.where(person.body[:, 2:] > POSE_SCORE, person.body[:, :2], 0.0)
    face = _whole_curves(person.face, _POSE_FACE, FACE_SCORE)
    if augmentation is not None and augmentation.drop > 0 and augmentation.jitter:
        moved = body[list(_HEAD_POINTS)]
        noise = 5 * augmentation.generator.standard_normal(moved.shape)
        body[list(_HEAD_POINTS)] = np.where(moved > 0, np.maximum(moved + noise, 1), moved)
        face = np.where(face > 0, np.maximum(face + 2 * augmentation.generator.standard_normal(2), 1), face)

    def is_kept() -> bool:
        return augmentation is None or bool(augmentation.generator.random() > augmentation.drop)

    if only != "hands":
        for edge, color in _LIMBS if only == "body" else (*_HEAD, *_LIMBS):
            if is_kept() and _all_there(body, edge):
                stroke(canvas, _curve_of(body, edge), brush=LIMB_BRUSH, color=color, ends=True)
    if only != "body":
        for hand in (person.left_hand, person.right_hand):
            points = _whole_curves(hand, tuple(finger for finger, _ in _FINGERS), POSE_SCORE)
            if is_kept():
                for finger, color in _FINGERS:
                    _draw_chain(canvas, points, finger, 2, color=color)
    if only == "all" and is_kept():
        for line in _POSE_FACE:
            _draw_chain(canvas, face, line, 2, color=_WHITE)
    return canvas


def _whole_curves(points: np.ndarray, curves: Sequence[Sequence[int]], score: float) -> np.ndarray:
    """Points (x, y) of those curves whose points are all certain enough; the others are 0."""
    result = np.zeros((len(points), 2))
    for line in curves:
        if (points[list(line), 2] > score).all():
            result[list(line)] = points[list(line), :2]
    return result


def _all_there(points: np.ndarray, edge: Sequence[int]) -> bool:
    return not (points[list(edge), 0] == 0).any()


def _curve_of(points: np.ndarray, edge: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
    return curve(points[list(edge), 0], points[list(edge), 1])


def _draw_chain(canvas: np.ndarray, points: np.ndarray, line: Sequence[int], piece: int, *, color: Color) -> None:
    for sub in _pieces(line, piece):
        if _all_there(points, sub):
            stroke(canvas, _curve_of(points, sub), color=color, ends=True)


def _pieces(line: Sequence[int], piece: int) -> list[Sequence[int]]:
    """A long line in pieces that share their end points."""
    pieces = [line[start : start + piece] for start in range(0, max(1, len(line) - 1), piece - 1)]
    return [part for part in pieces if len(part) > 1]


# --- faces ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FaceDrawing:
    """The condition of a face.

    Attributes:
        edges: uint8 [H,W], 255 on the curves of the face and on the edges of the picture around it.
        distances: uint8 [14,H,W], a third of the L1 distance to each of the curves.
        parts: uint8 [H,W], part labels, see `PART_NAMES`.
    """

    edges: np.ndarray
    distances: np.ndarray
    parts: np.ndarray

    @property
    def channels(self) -> np.ndarray:
        """All 15 channels, uint8 [15,H,W]: edges first."""
        return np.concatenate([self.edges[None], self.distances])


def draw_face(landmarks: np.ndarray, size: tuple[int, int], picture: np.ndarray | None = None) -> FaceDrawing:
    """The condition of one face.

    Args:
        landmarks: (x, y) of 68 points, float [68,2].
        size: (height, width).
        picture: uint8 [H,W,3]; its edges outside the face are drawn too.
    """
    points = with_forehead(landmarks)
    parts = np.zeros(size, np.uint8)
    for label, curves in _FACE_PARTS:
        corners = points[[index for line in curves for index in line]].astype(np.int32)
        cv2.fillPoly(parts, [corners], [label])
    edges, distances = np.zeros(size, np.uint8), []
    for _, curves in _FACE_PARTS:
        for line in curves:
            alone = np.zeros(size, np.uint8)
            for piece in _pieces(line, 3):
                pixels = _curve_of(points, piece)
                stroke(edges, pixels)
                stroke(alone, pixels)
            distance = cv2.distanceTransform(255 - alone, cv2.DIST_L1, 3)
            distances.append((distance / 3).clip(0, 255).astype(np.uint8))
    if picture is not None:
        edges = np.where((parts == 0) & (gray_edges(picture) > 0), np.uint8(255), edges)
    return FaceDrawing(edges, np.stack(distances), parts)


def with_forehead(landmarks: np.ndarray) -> np.ndarray:
    """68 points and the contour 1 to 15 mirrored at the line between its ends, by two thirds: [83,2]."""
    contour = landmarks[:17].astype(np.int32)
    base = (contour[0, 1] + contour[16, 1]) / 2
    upper = contour[1:16].copy()
    upper[:, 1] = base + (base - upper[:, 1]) * 2 // 3
    return np.vstack([landmarks, upper[::-1]])


def gray_edges(picture: np.ndarray) -> np.ndarray:
    """Edges of the gray picture, uint8 [H,W]: a Gaussian of 1 pixel, a tenth and a fifth of white as thresholds of the gradient.

    Source: Canny, 1986, with the default parameters of scikit-image, which drew the training pictures; the frame's border has none.
    """
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(gray, (0, 0), 1, borderType=cv2.BORDER_REPLICATE)
    finer = 8  # whole numbers are wanted; an eighth of a level is fine enough
    dx, dy = (np.rint(cv2.Sobel(smooth, cv2.CV_32F, *order) * finer).astype(np.int16) for order in ((1, 0), (0, 1)))
    edges = cv2.Canny(dx, dy, 25.5 * finer, 51 * finer, L2gradient=True)
    edges[[0, -1]] = 0
    edges[:, [0, -1]] = 0
    return edges


def face_crop(landmarks: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square around a face, as (left, top, right, bottom) with ends excluded; fixed by the first frame of a clip.

    Its side is 2.5 times the width of the landmarks, its center half way across them and a quarter down; it is moved inside the
    frame.

    Args:
        size: (height, width).
    """
    (left, top), (right, bottom) = landmarks.min(0), landmarks.max(0)
    x, y = (left + right) // 2, (top * 3 + bottom) // 4
    side = (right - left) * 2.5
    half = side // 2
    x = min(max(0, x - half) + side, size[1]) - half
    y = min(max(0, y - half) + side, size[0]) - half
    return max(0, int(x - half)), max(0, int(y - half)), min(size[1], int(x + half)), min(size[0], int(y + half))


def pose_crop(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The middle of a frame of a pose, as (left, top, right, bottom): half the width, a multiple of 32."""
    height, width = size
    kept = max(32, width // 2 // 32 * 32)
    left = max(0, (width - kept) // 2)
    return left, 0, min(width, left + kept), height


def rescale_densepose(picture: np.ndarray, *, without_face: bool = False) -> np.ndarray:
    """A DensePose picture uint8 [H,W,3] (V, U and the part 0 to 24 in the last channel) with parts spread over 0 to 255.

    Args:
        without_face: remove the parts 23 and 24.
    """
    result = picture.copy()
    if without_face:
        result[np.isin(picture[:, :, 2], (23, 24))] = 0
    result[:, :, 2] = (result[:, :, 2].astype(np.float64) * 255 / 24).clip(0, 255).astype(np.uint8)
    return result


# --- any picture ----------------------------------------------------------------------------------------------------------


def line_art(picture: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Dark lines on white, as a pen would draw a picture: uint8 [H,W,3] to uint8 [H,W].

    Args:
        width: of the lines, in pixels (deviation of the inner Gaussian).

    Source: Winnemoeller et al., "XDoG: An eXtended difference-of-Gaussians compendium", 2012, equation 7; its defaults for ink.
    """
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    inner, outer = cv2.GaussianBlur(gray, (0, 0), width), cv2.GaussianBlur(gray, (0, 0), 1.6 * width)
    difference = inner - 0.98 * outer
    soft = 1 + np.tanh(np.minimum(60 * (difference - 0.004), 0))
    return np.rint(soft.clip(0, 1) * 255).astype(np.uint8)


def edge_distance(edges: np.ndarray) -> np.ndarray:
    """A third of the L1 distance to the nearest edge, at most 255: uint8 [H,W] to uint8 [H,W]; 255 where there is none."""
    distance = cv2.distanceTransform(np.where(edges > 0, 0, 255).astype(np.uint8), cv2.DIST_L1, 3)
    return (distance / 3).clip(0, 255).astype(np.uint8)
