"""Body poses as OpenPose stores them, and pictures of them for models that read pose drawings."""

from __future__ import annotations

import colorsys
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vidgen.errors import InputError
from vidgen.media import paths

SUFFIX = "_keypoints.json"
"""What OpenPose's files of keypoints end with, one file a frame."""

_MAX_BYTES = 64 << 20
_LEAST_CONFIDENCE = 0.05
_LINE_WIDTH = 1 / 128
"""Of the height of the picture; bones of hands and faces are half as wide."""

Bones = tuple[tuple[int, int], ...]


def _chain(*points: int) -> Bones:
    return tuple(itertools.pairwise(points))


_HEAD_AND_ARMS = (*_chain(1, 2, 3, 4), *_chain(1, 5, 6, 7))
_BONES_OF_BODY: dict[int, Bones] = {
    25: (
        *_HEAD_AND_ARMS,
        *_chain(1, 8, 9, 10, 11, 22, 23),
        (11, 24),
        *_chain(8, 12, 13, 14, 19, 20),
        (14, 21),
        *_chain(1, 0, 15, 17),
        *_chain(0, 16, 18),
    ),
    18: (*_HEAD_AND_ARMS, *_chain(1, 8, 9, 10), *_chain(1, 11, 12, 13), *_chain(1, 0, 14, 16), *_chain(0, 15, 17)),
}
"""By the number of keypoints: BODY_25, and COCO as earlier versions store it."""

_BONES_OF_HAND: Bones = tuple(bone for first in range(1, 21, 4) for bone in _chain(0, *range(first, first + 4)))
_BONES_OF_FACE: Bones = (
    *_chain(*range(17)),
    *_chain(*range(17, 22)),
    *_chain(*range(22, 27)),
    *_chain(*range(27, 31)),
    *_chain(*range(31, 36)),
    *_chain(*range(36, 42), 36),
    *_chain(*range(42, 48), 42),
    *_chain(*range(48, 60), 48),
    *_chain(*range(60, 68), 60),
)


@dataclass(frozen=True)
class Pose:
    """One person: keypoints float [N,3] as x and y in pixels and confidence 0..1; a part that was not sought has none."""

    body: np.ndarray
    hands: tuple[np.ndarray, np.ndarray]
    face: np.ndarray


def read_poses(path: Path) -> list[Pose]:
    """The people in a file of keypoints.

    Raises:
        InputError: it is not such a file.

    Source: OpenPose, output format: `people`, with `pose_keypoints_2d` and its like as x, y, confidence in turn.
    """
    try:
        people = json.loads(paths.read_bounded(path, _MAX_BYTES))["people"]
        return [
            Pose(
                _keypoints(person, "pose_keypoints_2d"),
                (_keypoints(person, "hand_left_keypoints_2d"), _keypoints(person, "hand_right_keypoints_2d")),
                _keypoints(person, "face_keypoints_2d"),
            )
            for person in people
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{paths.display(path)}: not a file of OpenPose's keypoints ({error})") from error


def _keypoints(person: dict[str, list[float]], name: str) -> np.ndarray:
    return np.array(person.get(name, []), dtype=np.float64).reshape(-1, 3)


def draw_poses(poses: list[Pose], size: tuple[int, int]) -> np.ndarray:
    """People as bones on black, uint8 [H,W,3]: each bone of the body in a color of its own, hands and faces in white.

    Args:
        size: (height, width) of the picture in which the keypoints were found.

    Raises:
        InputError: a body has another number of keypoints than 18 or 25.
    """
    drawing = np.zeros((*size, 3), np.uint8)
    width = max(1, round(size[0] * _LINE_WIDTH))
    for pose in poses:
        if len(pose.body) not in (0, *_BONES_OF_BODY):
            raise InputError(f"a body of {len(pose.body)} keypoints; expected 25 (BODY_25) or 18 (COCO)")
        bones = _BONES_OF_BODY.get(len(pose.body), ())
        for index, bone in enumerate(bones):
            _draw(drawing, pose.body, bone, _color(index / len(bones)), width)
        for points, lines in ((pose.face, _BONES_OF_FACE), *((hand, _BONES_OF_HAND) for hand in pose.hands)):
            for bone in lines:
                _draw(drawing, points, bone, (255, 255, 255), max(1, width // 2))
    return drawing


def _draw(drawing: np.ndarray, points: np.ndarray, bone: tuple[int, int], color: tuple[int, int, int], width: int) -> None:
    if max(bone) >= len(points) or not (points[list(bone), 2] > _LEAST_CONFIDENCE).all():
        return
    start, end = ((round(x), round(y)) for x, y in points[list(bone), :2].clip(-30000, 30000).tolist())
    cv2.line(drawing, start, end, color, width)


def _color(place: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(place, 1.0, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
