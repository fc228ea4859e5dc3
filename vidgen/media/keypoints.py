"""Points of people that other programs found: OpenPose JSON, COCO keypoints, and text files of 68 face landmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidgen.errors import InputError
from vidgen.media import paths
from vidgen.media.drawings import NUM_BODY, NUM_FACE, NUM_HAND, Person

_MAX_BYTES = 256 << 20
_FARTHEST = 1 << 16
_MAX_PEOPLE = 1000
_KEYS = {
    "pose_keypoints_2d": ("body", NUM_BODY),
    "face_keypoints_2d": ("face", NUM_FACE),
    "hand_left_keypoints_2d": ("left_hand", NUM_HAND),
    "hand_right_keypoints_2d": ("right_hand", NUM_HAND),
}
_COCO = 17
_COCO_OF_BODY = {
    0: 0,
    15: 2,
    16: 1,
    17: 4,
    18: 3,
    2: 6,
    3: 8,
    4: 10,
    5: 5,
    6: 7,
    7: 9,
    9: 12,
    10: 14,
    11: 16,
    12: 11,
    13: 13,
    14: 15,
}
"""COCO's point for each of BODY_25; neck and middle of the hips lie half way between two."""

NUM_LANDMARKS = 68
SUFFIXES = (".json", ".txt")
OPENPOSE_SUFFIX = "_keypoints.json"
"""What OpenPose's files end with, one file a frame."""


@dataclass(frozen=True)
class PointFrame:
    """What is known of one frame.

    Attributes:
        people: in the order of the file; none where nobody was found.
        name: of the file, for messages.
    """

    people: tuple[Person, ...]
    name: str

    @property
    def landmarks(self) -> np.ndarray | None:
        """(x, y) of 68 points of the first face, float [68,2]; None where there is none, or a point of it is missing."""
        for person in self.people:
            points = person.face[:NUM_LANDMARKS]
            if (points[:, 2] > 0).all():
                return points[:, :2].copy()
        return None


def read_points(where: str | Path, frame_names: Sequence[str] | None = None) -> list[PointFrame]:
    """The points of all frames of a clip, in order.

    Args:
        where: a folder of OpenPose JSON files or of text files of landmarks, one per frame in natural order; one such file; or a
            COCO file (`images` and `annotations`), whose frames are its images by file name.
        frame_names: of the clip's pictures, without suffix; a COCO file may list more images than these.

    Raises:
        InputError: nothing readable is there, or a file has another number of points than its format.
    """
    path = Path(paths.expanded(where))
    if path.is_dir():
        files = [entry for entry in paths.list_folder(path) if entry.suffix.lower() in SUFFIXES and entry.is_file()]
        if not files:
            raise InputError(f"{paths.display(path)}: holds no .json and no .txt files of points")
        return [_read_one(file) for file in files]
    paths.check_file(path)
    if path.suffix.lower() == ".json":
        content = _json(path)
        if "annotations" in content:
            return _coco(content, paths.display(path), frame_names)
    return [_read_one(path)]


def openpose_json(frame: PointFrame) -> dict[str, Any]:
    """The people of a frame as OpenPose writes them, which `read_points` reads; what is absent is an empty list."""
    people = []
    for person in frame.people:
        parts = {key: getattr(person, attribute) for key, (attribute, _) in _KEYS.items()}
        people.append({key: points.ravel().tolist() if points.any() else [] for key, points in parts.items()})
    return {"version": 1.3, "people": people}


def _read_one(path: Path) -> PointFrame:
    name = paths.display(path)
    if path.suffix.lower() == ".txt":
        return PointFrame((_landmarks(path),), name)
    content = _json(path)
    people = content.get("people")
    if not isinstance(people, list) or len(people) > _MAX_PEOPLE:
        raise InputError(f"{name}: no list of people; an OpenPose file has the key people")
    return PointFrame(tuple(_person(item, f"{name}: person {index}") for index, item in enumerate(people)), name)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(paths.read_bounded(path, _MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{paths.display(path)}: is no JSON ({error})") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{paths.display(path)}: holds no object of points")
    return content


def _person(content: Any, where: str) -> Person:
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: is no object with points")
    known: dict[str, np.ndarray] = {}
    for key, (attribute, count) in _KEYS.items():
        values = content.get(key)
        if not values:  # OpenPose writes an empty list for what it did not look for
            known[attribute] = np.zeros((count, 3))
            continue
        points = _triples(values, f"{where}, {key}")
        if attribute == "body" and len(points) == 18:
            points = _body_of_18(points)
        if len(points) != count:
            more = " (BODY_25) or 18 (COCO)" if attribute == "body" else ""
            raise InputError(f"{where}, {key}: has {len(points)} points; expected {count}{more}")
        known[attribute] = points
    return Person(**known)


def _triples(values: Any, where: str) -> np.ndarray:
    try:
        points = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: are no numbers") from error
    if points.ndim != 1 or len(points) % 3 or not np.isfinite(points).all():
        raise InputError(f"{where}: expected x, y and score of each point in one list of finite numbers")
    _check_near(points, where)
    return points.reshape(-1, 3)


def _check_near(points: np.ndarray, where: str) -> None:
    """
    Raises:
        InputError: a point lies where no picture reaches; a curve to it would be drawn for ever.
    """
    if np.abs(points).max(initial=0) > _FARTHEST:
        raise InputError(f"{where}: a point lies more than {_FARTHEST} pixels away; expected places in the picture")


def _body_of_18(points: np.ndarray) -> np.ndarray:
    """BODY_25 from OpenPose's 18 points; feet are absent."""
    body = np.zeros((NUM_BODY, 3))
    body[:8] = points[:8]
    body[[9, 10, 11, 12, 13, 14]] = points[[8, 9, 10, 11, 12, 13]]
    body[[15, 16, 17, 18]] = points[[14, 15, 16, 17]]
    body[8] = _middle(points[8], points[11])
    return body


def _middle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array([*((first[:2] + second[:2]) / 2), min(first[2], second[2])])


def _coco(content: Mapping[str, Any], name: str, frame_names: Sequence[str] | None) -> list[PointFrame]:
    try:
        listed = {item["id"]: str(item["file_name"]) for item in content["images"]}
        people: dict[Any, list[Person]] = {key: [] for key in listed}
        for number, item in enumerate(content["annotations"]):
            if item.get("keypoints"):
                people[item["image_id"]].append(_coco_person(item["keypoints"], f"{name}: annotation {number}"))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{name}: no COCO keypoints ({type(error).__name__}: {error})") from error
    frames = {Path(file).stem: PointFrame(tuple(people[key]), f"{name}: {paths.display(file)}") for key, file in listed.items()}
    if frame_names is not None and all(frame in frames for frame in frame_names):
        return [frames[frame] for frame in frame_names]
    return [frames[stem] for stem in sorted(frames, key=paths.natural_key)]


def _coco_person(values: Any, where: str) -> Person:
    points = _triples(values, where)
    if len(points) != _COCO:
        raise InputError(f"{where}: has {len(points)} points; COCO keypoints are {_COCO}")
    points[:, 2] = points[:, 2] > 0  # visibility 1 and 2: labeled, hidden or seen
    body = np.zeros((NUM_BODY, 3))
    for ours, theirs in _COCO_OF_BODY.items():
        body[ours] = points[theirs]
    body[1], body[8] = _middle(points[5], points[6]), _middle(points[11], points[12])
    return Person(body)


def _landmarks(path: Path) -> Person:
    name = paths.display(path)
    try:
        rows = [line.replace(",", " ").split() for line in paths.read_bounded(path, _MAX_BYTES).decode("utf-8-sig").splitlines()]
        points = np.array([[float(value) for value in row] for row in rows if row], dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{name}: expected lines such as 120.5,88 ({error})") from error
    if points.shape != (NUM_LANDMARKS, 2) or not np.isfinite(points).all():
        found = f"{len(points)} lines" if points.ndim != 2 else f"{points.shape[0]} lines of {points.shape[1]} numbers"
        raise InputError(f"{name}: has {found}; a face has {NUM_LANDMARKS} lines of x,y")
    _check_near(points, name)
    face = np.zeros((NUM_FACE, 3))
    face[:NUM_LANDMARKS] = np.column_stack([points, np.ones(NUM_LANDMARKS)])
    return Person(np.zeros((NUM_BODY, 3)), face)
