"""Points of people made steady: between two frames they move as the picture does, unless they are found far from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch

from flow.engines import create_engine
from vidgen.media.drawings import Person
from vidgen.media.keypoints import PointFrame
from vidgen.media.pixels import to_tensor

MOTION_HEIGHT = 288
"""Motion is estimated at no more than this height."""

_PARTS = ("body", "face", "left_hand", "right_hand")
_LEAST_PULL = 0.15
_TOLERANCE = 0.03
"""Part of the size of a face, a hand or a body by which a point may lie beside its way before it is believed at once."""
_SAME_PERSON = 0.5
_NEIGHBORHOOD = 2


@dataclass
class Steadiness:
    """How points moved, beside how the picture moved under them.

    Attributes:
        step, motion: the largest step of a point between two frames, and how far the picture moved there, in pixels.
        frame: where it was, counted from 0.
        found_deviation, deviation: how far the steps of points lie from the motion of the picture, as they were found and as they
            were given out, in pixels: the mean over all points and frames.
    """

    step: float = 0.0
    motion: float = 0.0
    frame: int = 0
    found_deviation: float = 0.0
    deviation: float = 0.0
    _sums: np.ndarray = field(default_factory=lambda: np.zeros(3), repr=False)

    def add(self, frame: int, steps: np.ndarray, found_steps: np.ndarray, motion: np.ndarray) -> None:
        """Take in the steps of the points of a person [N,2], and the motion [N,2] at each."""
        if not len(steps):
            return
        lengths = np.linalg.norm(steps, axis=1)
        place = int(lengths.argmax())
        if lengths[place] > self.step:
            self.step, self.motion, self.frame = float(lengths[place]), float(np.linalg.norm(motion[place])), frame
        self._sums += (*(float(np.linalg.norm(each - motion, axis=1).sum()) for each in (found_steps, steps)), len(steps))
        self.found_deviation, self.deviation = (float(total / self._sums[2]) for total in self._sums[:2])


class PointSteadier:
    """Follows the people of a clip from frame to frame, and steadies their points where it is asked to.

    A point goes on from where it was by the motion of the picture, which has no jitter, and is pulled to where it was found: a
    little where both are near each other, all the way where they are not, so that nothing trails behind.

    Args:
        steady: whether points are changed; otherwise they are only measured.
    """

    def __init__(self, *, steady: bool) -> None:
        self.steadiness = Steadiness()
        self._steady = steady
        self._engine = create_engine("dis-fast")
        self._last: tuple[np.ndarray, tuple[Person, ...], tuple[Person, ...]] | None = None
        self._index = -1

    def __call__(self, pixels: np.ndarray, found: PointFrame) -> PointFrame:
        """The people of the next frame, uint8 [H,W,3]."""
        people = found.people
        self._index += 1
        if self._last is not None and people and self._last[1]:
            before, earlier, earlier_found = self._last
            flow = self._flow(before, pixels)
            given = []
            for person, number in zip(people, _matches(earlier, people), strict=True):
                given.append(person if number is None else self._follow(flow, earlier[number], earlier_found[number], person))
            people = tuple(given)
        self._last = pixels, people, found.people
        return replace(found, people=people)

    def _flow(self, before: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Motion from the frame before into this one, float32 [H,W,2] in pixels."""
        height, width = pixels.shape[:2]
        if before.shape != pixels.shape:
            return np.zeros((height, width, 2), np.float32)
        scale = min(1.0, MOTION_HEIGHT / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = [to_tensor(cv2.resize(each, size, interpolation=cv2.INTER_AREA))[None] for each in (before, pixels)]
        with torch.inference_mode():
            flow = self._engine(*small)[0].permute(1, 2, 0).numpy()
        whole: np.ndarray = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
        return whole * np.array([width / size[0], height / size[1]], np.float32)

    def _follow(self, flow: np.ndarray, earlier: Person, earlier_found: Person, person: Person) -> Person:
        changed = {}
        for name in _PARTS:
            points, past, past_found = (getattr(each, name) for each in (person, earlier, earlier_found))
            both = (points[:, 2] > 0) & (past[:, 2] > 0)
            if not both.any():
                continue
            motion = _motion_at(flow, past[both, :2])
            places = points.copy()
            if self._steady:
                expected = past[both, :2] + motion
                aside = np.linalg.norm(points[both, :2] - expected, axis=1) / (_TOLERANCE * _extent(points))
                pull = (_LEAST_PULL + np.square(aside)).clip(max=1)[:, None]
                places[both, :2] = expected + pull * (points[both, :2] - expected)
                changed[name] = places
            steps = places[both, :2] - past[both, :2]
            self.steadiness.add(self._index, steps, points[both, :2] - past_found[both, :2], motion)
        return replace(person, **changed)


def _motion_at(flow: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The median motion around each place [N,2] (x, y): float [N,2]."""
    height, width = flow.shape[:2]
    columns, rows = (places[:, axis].round().astype(int) for axis in (0, 1))
    around = range(-_NEIGHBORHOOD, _NEIGHBORHOOD + 1)
    each = [flow[(rows + dy).clip(0, height - 1), (columns + dx).clip(0, width - 1)] for dy in around for dx in around]
    median: np.ndarray = np.median(each, axis=0)
    return median


def _extent(points: np.ndarray) -> float:
    """The larger side of the box around the points that are there, in pixels."""
    places = points[points[:, 2] > 0, :2]
    return max(1.0, float(np.ptp(places, axis=0).max()))


def _matches(earlier: Sequence[Person], people: Sequence[Person]) -> list[int | None]:
    """For each person the number of the same one in the frame before: the nearest first, each only once."""
    distances = np.array([[_distance(before, person) for before in earlier] for person in people])
    matches: list[int | None] = [None] * len(people)
    while np.isfinite(distances).any():
        row, column = (int(place) for place in np.unravel_index(int(distances.argmin()), distances.shape))
        matches[row] = column
        distances[row], distances[:, column] = np.inf, np.inf
    return matches


def _distance(one: Person, other: Person) -> float:
    """How far the common points of two people lie apart, by their size; infinite where they are not the same."""
    first, second = (np.vstack([getattr(person, name) for name in _PARTS]) for person in (one, other))
    both = (first[:, 2] > 0) & (second[:, 2] > 0)
    if not both.any():
        return np.inf
    distance = float(np.linalg.norm(first[both, :2] - second[both, :2], axis=1).mean()) / max(_extent(first), _extent(second))
    return distance if distance < _SAME_PERSON else np.inf
