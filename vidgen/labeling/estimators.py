"""Points of people found in frames: face, pose and hands, by the graphs in MediaPipe's wheel, run by OpenVINO.

The wheel is a file that the user has fetched; it is opened as an archive, never installed, and each graph is checked by SHA-256.
Source: Bazarevsky et al., "BlazeFace", 2019; Kartynnik et al., "Real-time Facial Surface Geometry", 2019; Bazarevsky et al.,
"BlazePose", 2020; Zhang et al., "MediaPipe Hands", 2020; anchors, regions and scales as in MediaPipe's published graphs.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidgen import durable
from vidgen.errors import CheckpointError, MissingExtraError, install_hint
from vidgen.media import paths
from vidgen.media.drawings import NUM_BODY, NUM_FACE, NUM_HAND, Person
from vidgen.media.keypoints import NUM_LANDMARKS, PointFrame

FETCH = "pip download --no-deps mediapipe==0.10.21"
"""The line that fetches the wheel, on a platform for which there is one; its graphs are the same on all."""

_MAX_GRAPH_BYTES = 32 << 20
_LEAST_SCORE = 0.5
_HANDS_OF_ONE = 2
_CLEARLY_LONGER = 1.25
_HAND_NAMES = {True: "left_hand", False: "right_hand"}
_NOSE_AND_EYES, _EARS = [0, 15, 16], [17, 18]
_WRISTS = {4: "right_hand", 7: "left_hand"}
"""The hand at each wrist of BODY_25."""
_SAME_PALM, _SAME_REGION = 0.3, 0.5
_REACH = 4
"""Places of the heat maps around a point that may move it."""


@dataclass(frozen=True)
class _GraphFile:
    """A graph in the wheel: square inputs of `side` pixels, in -1..1 or 0..1."""

    path: str
    sha256: str
    side: int
    signed: bool


_GRAPHS = {
    "face detection": _GraphFile(
        "face_detection/face_detection_short_range", "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8", 128, True
    ),
    "face landmarks": _GraphFile(
        "face_landmark/face_landmark", "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814", 192, False
    ),
    "pose detection": _GraphFile(
        "pose_detection/pose_detection", "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c", 224, True
    ),
    "pose landmarks": _GraphFile(
        "pose_landmark/pose_landmark_full", "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f", 256, False
    ),
    "palm detection": _GraphFile(
        "palm_detection/palm_detection_full", "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54", 192, False
    ),
    "hand landmarks": _GraphFile(
        "hand_landmark/hand_landmark_full", "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3", 224, False
    ),
}
_STRIDES = {"face detection": (8, 16, 16, 16), "pose detection": (8, 16, 32, 32, 32), "palm detection": (8, 16, 16, 16)}

_MESH_OF_LANDMARK = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
)
"""The point of the mesh of 468 nearest to each of the 68 landmarks."""

_POSE_OF_BODY = {
    **dict(zip((0, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14), (0, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27), strict=True)),
    **dict(zip((15, 16, 17, 18, 19, 21, 22, 24), (5, 2, 8, 7, 31, 29, 32, 30), strict=True)),
}
"""The pose's point for each of BODY_25; it has no small toes, which stay absent."""


@dataclass(frozen=True)
class _Region:
    """A turned square of a frame: its center and side in pixels, and the angle by which it is turned clockwise, in radians."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    @property
    def _axes(self) -> np.ndarray:
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        return np.array([[cosine, -sine], [sine, cosine]])

    def cut(self, pixels: np.ndarray, side: int) -> np.ndarray:
        """The square, uint8 [side,side,3]; black outside the frame."""
        turn = self._axes * (self.side / side)
        start = np.array([self.x, self.y]) - turn @ np.array([side / 2, side / 2])
        return cv2.warpAffine(pixels, np.column_stack([turn, start]), (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Points [N,2] of the square, 0..1, in pixels of the frame."""
        moved: np.ndarray = (points - 0.5) * self.side @ self._axes.T + (self.x, self.y)
        return moved

    def shifted(self, down: float) -> _Region:
        """The same, moved along its own vertical axis by pixels."""
        dx, dy = self._axes @ (0, down)
        return _Region(self.x + dx, self.y + dy, self.side, self.angle)

    def is_same(self, other: _Region) -> bool:
        """Whether both are around the same thing."""
        one, two = (np.array([region.x, region.y, region.side, region.side]) for region in (self, other))
        return _overlap(one, two) > _SAME_REGION


@dataclass(frozen=True)
class _Detection:
    """A box (x, y, width, height; x and y of its center) and points [N,2], all in pixels of the frame."""

    box: np.ndarray
    points: np.ndarray
    score: float


class _Graphs:
    """The graphs of a wheel, compiled when they are first used, each for one thread."""

    def __init__(self, wheel: Path) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError(
                "points of people are found with OpenVINO, which is not installed", hint=install_hint("pose")
            ) from error
        self._core: Any = openvino.Core()
        self._wheel = wheel
        self._compiled: dict[str, Any] = {}

    def run(self, name: str, image: np.ndarray) -> list[np.ndarray]:
        """Outputs, in the order of the graph, for a picture uint8 [S,S,3] of its side."""
        if name not in self._compiled:
            self._compiled[name] = self._compile(name)
        values = image[None].astype(np.float32) / 255
        answer = self._compiled[name](values * 2 - 1 if _GRAPHS[name].signed else values)
        return [np.asarray(answer[index]) for index in range(len(self._compiled[name].outputs))]

    def _compile(self, name: str) -> Any:
        content = _read_graph(self._wheel, _GRAPHS[name])
        with tempfile.TemporaryDirectory() as folder:  # the library reads such graphs by their path only
            path = Path(folder) / "graph.tflite"
            durable.operations.write(path, content)
            try:
                options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
                return self._core.compile_model(self._core.read_model(str(path)), "CPU", options)
            except RuntimeError as error:
                line = " ".join(str(error).split())[:160]
                raise CheckpointError(f"{paths.display(self._wheel)}: OpenVINO cannot run its {name} ({line})") from error


def _read_graph(wheel: Path, graph: _GraphFile) -> bytes:
    paths.check_file(wheel)
    name = f"mediapipe/modules/{graph.path}.tflite"
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(name).file_size > _MAX_GRAPH_BYTES:
                raise KeyError(name)
            content = archive.read(name)
    except (zipfile.BadZipFile, KeyError, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{paths.display(wheel)}: is no wheel of mediapipe 0.10.21 with {name}", hint=FETCH) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != graph.sha256:
        raise CheckpointError(
            f"{paths.display(wheel)}: {name} has the SHA-256 {digest[:16]}..., not {graph.sha256[:16]}...; it is another release",
            hint=FETCH,
        )
    return content


class PersonFinder:
    """Finds people in each frame of a clip: where they were in one frame says where to look in the next.

    Args:
        wheel: of mediapipe 0.10.21.
        body, face, hands: what to look for.
        people: the most people looked for; those that were found first come first.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        CheckpointError: the file is another one.
    """

    def __init__(self, wheel: Path, *, body: bool = False, face: bool = False, hands: bool = False, people: int = 1) -> None:
        wanted = {"pose": body, "face": face, "palm": hands, "hand": hands}
        for name, graph in _GRAPHS.items():
            if wanted[name.split()[0]]:
                _read_graph(wheel, graph)
        self._graphs = _Graphs(wheel)
        self._body, self._face, self._hands, self._people = body, face, hands, people
        self._face_regions: list[_Region] = []
        self._body_regions: list[_Region] = []

    def reset(self) -> None:
        """Begin another clip."""
        self._face_regions, self._body_regions = [], []

    def find(self, pixels: np.ndarray, name: str) -> PointFrame:
        """The people in the next frame, uint8 [H,W,3]; nobody where nothing is certain."""
        bodies: list[np.ndarray] = []
        faces: list[np.ndarray] = []
        if self._body:
            bodies, self._body_regions = self._follow(self._body_regions, pixels, self._body_at, self._detect_bodies)
        if self._face:
            faces, self._face_regions = self._follow(self._face_regions, pixels, self._face_at, self._detect_faces)
        hands = self._find_hands(pixels) if self._hands else []
        return PointFrame(tuple(assembled(bodies, faces, hands, self._people)), name)

    def _follow(
        self,
        known: Sequence[_Region],
        pixels: np.ndarray,
        look: Callable[[np.ndarray, _Region], tuple[np.ndarray, _Region] | None],
        detect: Callable[[np.ndarray], list[_Region]],
    ) -> tuple[list[np.ndarray], list[_Region]]:
        """Points, and where to look in the next frame: first where the last frame says; then, while there may be more, where a
        detector finds something in the whole frame."""
        found: list[np.ndarray] = []
        regions: list[_Region] = []
        for candidates in (lambda: list(known), lambda: detect(pixels)):
            if len(found) >= self._people:
                break
            for candidate in candidates():
                if len(found) < self._people and not any(candidate.is_same(region) for region in regions):
                    points = look(pixels, candidate)
                    if points is not None and not any(points[1].is_same(region) for region in regions):
                        found.append(points[0])
                        regions.append(points[1])
        return found, regions

    def _face_at(self, pixels: np.ndarray, region: _Region) -> tuple[np.ndarray, _Region] | None:
        mesh, flag = self._graphs.run("face landmarks", region.cut(pixels, _GRAPHS["face landmarks"].side))
        if _sigmoid(float(flag.ravel()[0])) < _LEAST_SCORE:
            return None
        points = region.to_frame(mesh.reshape(-1, 3)[:, :2] / _GRAPHS["face landmarks"].side)
        center, size = (points.max(0) + points.min(0)) / 2, np.ptp(points, axis=0).max()
        face = np.zeros((NUM_FACE, 3))
        face[:NUM_LANDMARKS] = np.column_stack([points[list(_MESH_OF_LANDMARK)], np.ones(NUM_LANDMARKS)])
        return face, _Region(center[0], center[1], 1.5 * size, _turn(points[33], points[263], 0))

    def _detect_faces(self, pixels: np.ndarray) -> list[_Region]:
        return [
            _Region(item.box[0], item.box[1], 1.5 * item.box[2:].max(), _turn(item.points[0], item.points[1], 0))
            for item in self._detect("face detection", pixels)
        ]

    def _body_at(self, pixels: np.ndarray, region: _Region) -> tuple[np.ndarray, _Region] | None:
        side = _GRAPHS["pose landmarks"].side
        points, flag, _, heat = self._graphs.run("pose landmarks", region.cut(pixels, side))[:4]
        if float(flag.ravel()[0]) < _LEAST_SCORE:
            return None
        table = points.reshape(-1, 5)
        places = region.to_frame(_refined(table[:, :2] / side, heat[0]))
        height, width = pixels.shape[:2]
        seen = (_sigmoid(table[:, 3]) > _LEAST_SCORE) & (places >= 0).all(1) & (places < (width, height)).all(1)
        known = np.column_stack([places, seen * _sigmoid(table[:, 3])])
        body = np.zeros((NUM_BODY, 3))
        for ours, theirs in _POSE_OF_BODY.items():
            body[ours] = known[theirs]
        for ours, (one, other) in {1: (11, 12), 8: (23, 24)}.items():
            body[ours] = *((known[one, :2] + known[other, :2]) / 2), min(known[one, 2], known[other, 2])
        return body, _around(places[33], places[34])

    def _detect_bodies(self, pixels: np.ndarray) -> list[_Region]:
        return [_around(item.points[0], item.points[1]) for item in self._detect("pose detection", pixels)]

    def _find_hands(self, pixels: np.ndarray) -> list[tuple[np.ndarray, bool]]:
        """Points of each hand [21,3], and whether it is a left one."""
        hands = []
        for palm in self._detect("palm detection", pixels)[: _HANDS_OF_ONE * self._people]:
            turned = _Region(palm.box[0], palm.box[1], 2.6 * palm.box[2:].max(), _turn(palm.points[0], palm.points[2], math.pi / 2))
            region, side = turned.shifted(-0.5 * palm.box[3]), _GRAPHS["hand landmarks"].side
            points, flag, is_right = self._graphs.run("hand landmarks", region.cut(pixels, side))[:3]
            if float(flag.ravel()[0]) < _LEAST_SCORE:
                continue
            hand = np.column_stack([region.to_frame(points.reshape(-1, 3)[:, :2] / side), np.ones(NUM_HAND)])
            # The graph sees pictures as a mirror shows them.
            hands.append((hand, float(is_right.ravel()[0]) > _LEAST_SCORE))
        return hands

    def _detect(self, name: str, pixels: np.ndarray) -> list[_Detection]:
        """Detections above the least score, the most certain first, without those that overlap a better one.

        The whole frame is looked at; where several people are wanted, or nothing is found there, also squares of its shorter side,
        in which people are larger.
        """
        height, width = pixels.shape[:2]
        whole, *squares = _views(height, width)
        found = self._detect_in(name, pixels, whole)
        if self._people > 1 or not found:
            found += [item for square in squares for item in self._detect_in(name, pixels, square)]
        distinct: list[_Detection] = []
        for item in sorted(found, key=lambda item: -item.score):
            if all(_overlap(item.box, other.box) < _SAME_PALM for other in distinct):
                distinct.append(item)
        return distinct

    def _detect_in(self, name: str, pixels: np.ndarray, view: _Region) -> list[_Detection]:
        side = _GRAPHS[name].side
        raw, scores = self._graphs.run(name, view.cut(pixels, side))[:2]
        certain = _sigmoid(scores.reshape(-1))
        anchors, values = _anchors(side, _STRIDES[name]), raw.reshape(len(certain), -1) / side
        found = []
        for index in np.flatnonzero(certain >= _LEAST_SCORE):
            places = view.to_frame(np.vstack([values[index, :2], values[index, 4:].reshape(-1, 2)]) + anchors[index])
            found.append(_Detection(np.concatenate([places[0], values[index, 2:4] * view.side]), places[1:], float(certain[index])))
        return found


def _views(height: int, width: int) -> list[_Region]:
    """Where a detector looks: the whole frame, and where that is clearly no square, squares that overlap by half or more."""
    short, long = min(height, width), max(height, width)
    whole = _Region(width / 2, height / 2, float(long))
    if long < _CLEARLY_LONGER * short:
        return [whole]
    centers = np.linspace(short / 2, long - short / 2, math.ceil(2 * (long / short - 1)) + 1)
    if height < width:
        return [whole, *(_Region(center, height / 2, float(short)) for center in centers)]
    return [whole, *(_Region(width / 2, center, float(short)) for center in centers)]


def assembled(
    bodies: Sequence[np.ndarray], faces: Sequence[np.ndarray], hands: Sequence[tuple[np.ndarray, bool]], people: int
) -> list[Person]:
    """People from their parts: faces go to the body whose nose they are around, hands to the nearest wrist.

    Faces that are on no body are people of their own. Of a single person all parts are the same one's.

    Args:
        bodies: [25,3] each.
        faces: [70,3] each.
        hands: [21,3] each, and whether it seems to be a left one.
        people: the most people.
    """
    found = [{"body": body} for body in bodies]
    for face in faces:
        center, size = _middle_and_size(face)
        bare = [person for person in found if "face" not in person]
        if people > 1:
            bare = [person for person in bare if person["body"][0, 2] > 0 and _apart(person["body"][0], center) < size]
        if bare:
            person = min(bare, key=lambda person: _apart(person["body"][0], center))
            person["face"] = face
            person["body"] = _head_of(person["body"], face)
        elif len(found) < people:
            found.append({"body": np.zeros((NUM_BODY, 3)), "face": face})
    if hands and not found:
        found.append({"body": np.zeros((NUM_BODY, 3))})
    for hand, is_left in hands:
        if people == 1 or not any(person["body"].any() for person in found):
            side = _HAND_NAMES[is_left]
            found[0][side if side not in found[0] else _HAND_NAMES[not is_left]] = hand
            continue
        size = _middle_and_size(hand)[1]
        free = [
            (_apart(person["body"][wrist], hand[0]), index, name)
            for index, person in enumerate(found)
            for wrist, name in _WRISTS.items()
            if name not in person and person["body"][wrist, 2] > 0
        ]
        distance, index, name = min(free, default=(math.inf, 0, ""))
        if distance < size:
            found[index][name] = hand
    return [Person(**parts) for parts in found]


def _head_of(body: np.ndarray, face: np.ndarray) -> np.ndarray:
    """The body with nose and eyes where the face has them, since faces are found more precisely; ears move along."""
    if not body[_EARS + _NOSE_AND_EYES, 2].any():
        return body
    places = np.array([face[30, :2], face[36:42, :2].mean(0), face[42:48, :2].mean(0)])
    seen = body[_NOSE_AND_EYES, 2] > 0
    corrected = body.copy()
    if seen.any():
        corrected[_EARS, :2] += (places - body[_NOSE_AND_EYES, :2])[seen].mean(0)
    corrected[_NOSE_AND_EYES] = np.column_stack([places, np.ones(len(places))])
    return corrected


def _middle_and_size(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle (x, y) and larger side of the box around the points that are there."""
    places = points[points[:, 2] > 0, :2]
    return (places.max(0) + places.min(0)) / 2, float(np.ptp(places, axis=0).max())


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one[:2] - other[:2]))


def _anchors(side: int, strides: Sequence[int]) -> np.ndarray:
    """Centers of the anchors, 0..1, [N,2]: two for each layer at each place of its grid; layers of one stride are interleaved."""
    centers = []
    for stride in sorted(set(strides)):
        places = (np.arange(side // stride) + 0.5) / (side // stride)
        rows, columns = np.meshgrid(places, places, indexing="ij")
        centers.append(np.column_stack([columns.ravel(), rows.ravel()]).repeat(2 * strides.count(stride), axis=0))
    return np.vstack(centers)


def _refined(points: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Points [N,2], 0..1, moved to the mean of the heat around them where that is certain.

    Args:
        heat: scores before the sigmoid, [h,w,N].
    """
    height, width = heat.shape[:2]
    result = points.copy()
    for index, (x, y) in enumerate(points * (width, height)):
        left, top = max(0, int(x) - _REACH), max(0, int(y) - _REACH)
        window = _sigmoid(heat[top : max(0, int(y) + _REACH + 1), left : max(0, int(x) + _REACH + 1), index])
        if window.size and window.max() >= _LEAST_SCORE:
            rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
            total = window.sum()
            result[index] = (left + (columns * window).sum() / total) / width, (top + (rows * window).sum() / total) / height
    return result


def _turn(first: np.ndarray, second: np.ndarray, target: float) -> float:
    """By how much a region is turned so that the line from `first` to `second` has the direction `target` in it, in radians."""
    angle = target - math.atan2(-(second[1] - first[1]), second[0] - first[0])
    return angle - 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi))


def _around(center: np.ndarray, edge: np.ndarray) -> _Region:
    """The region of a body, from the middle of its hips and a point that tells its size and direction."""
    return _Region(center[0], center[1], 2.5 * float(np.hypot(*(edge - center))), _turn(center, edge, math.pi / 2))


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of boxes (x, y, width, height)."""
    low = np.maximum(one[:2] - one[2:] / 2, other[:2] - other[2:] / 2)
    high = np.minimum(one[:2] + one[2:] / 2, other[:2] + other[2:] / 2)
    common = float(np.prod((high - low).clip(min=0)))
    return common / max(1e-9, float(np.prod(one[2:]) + np.prod(other[2:])) - common)


def _sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(np.asarray(values, np.float64), -100, 100)))
