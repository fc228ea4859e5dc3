"""Changes of label and instance maps: objects get another class, move or disappear, new areas are painted.

Pure functions from scene to scene, for the command line and for any program with a brush. A picture of the changed scene is then
made by a model that reads such maps.
Source: the editing abilities of pix2pixHD (Wang et al., CVPR 2018, section 4.2).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from vidgen.errors import InputError

FIRST_OBJECT = 1000
"""Ids from here on are countable objects, class * 1000 + number in Cityscapes; below, an id is the class of an uncounted area."""

_MAX_LISTED = 12

Point = tuple[int, int]
"""(x, y) in pixels; x to the right, y down."""


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene: its class, its area in pixels, and the box (left, top, right, bottom) around it, ends excluded."""

    number: int
    label: int
    num_pixels: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """What a picture is to show.

    Attributes:
        labels: int64 [H,W], class of each pixel, -1 where ignored.
        instances: int64 [H,W], object id of each pixel.
        first_object: ids from here on are countable objects.
    """

    labels: np.ndarray
    instances: np.ndarray
    first_object: int = FIRST_OBJECT

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.shape != self.instances.shape:
            raise InputError(
                f"label map of shape {self.labels.shape} and instance map of shape {self.instances.shape}; need equal [H,W]"
            )

    @classmethod
    def from_labels(cls, labels: np.ndarray) -> Scene:
        """A scene without an instance map: every connected area is an object, class * 1000 + number, the largest first.

        Areas from the thousandth of a class on share one number.
        """
        instances = np.full(labels.shape, -1, np.int64)
        for label in np.unique(labels[labels >= 0]):
            _, areas, statistics, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=8)
            by_size = np.argsort(-statistics[1:, cv2.CC_STAT_AREA], kind="stable")
            numbers = np.empty(len(by_size) + 1, np.int64)
            numbers[0] = 0
            numbers[by_size + 1] = np.arange(len(by_size))
            inside = areas > 0
            instances[inside] = int(label) * FIRST_OBJECT + np.minimum(numbers[areas[inside]], FIRST_OBJECT - 1)
        return cls(labels.astype(np.int64), instances, first_object=0)

    @property
    def objects(self) -> dict[int, SceneObject]:
        """All countable objects by id, the largest first."""
        found = []
        for number in np.unique(self.instances[self.instances >= self.first_object]).tolist():
            rows, columns = np.nonzero(self.instances == number)
            label = int(np.bincount(self.labels[rows, columns] + 1).argmax()) - 1
            box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
            found.append(SceneObject(number, label, len(rows), box))
        return {item.number: item for item in sorted(found, key=lambda item: -item.num_pixels)}

    def mask(self, number: int) -> np.ndarray:
        """Where an object is, bool [H,W].

        Raises:
            InputError: there is no such object; those that exist are named.
        """
        inside = self.instances == number
        if not inside.any():
            known = [str(other) for other in self.objects]
            listed = ", ".join(known[:_MAX_LISTED]) + (f" and {len(known) - _MAX_LISTED} more" if len(known) > _MAX_LISTED else "")
            raise InputError(f"object {number}: is not in the picture; the objects there are {listed or 'none'}")
        return inside


def change_class(scene: Scene, number: int, label: int) -> Scene:
    """The object becomes one of class `label`, in the same place."""
    return _fill(scene, scene.mask(number), label)


def remove_object(scene: Scene, number: int, fill: int | None = None) -> Scene:
    """The object disappears.

    Args:
        fill: class that takes its place; by default each pixel becomes what lies nearest to it, other objects left out where
            there is anything else.

    Raises:
        InputError: there is no such object, or nothing else.
    """
    hole = scene.mask(number)
    return _fill_from_around(scene, hole) if fill is None else _fill(scene, hole, fill)


def move_object(scene: Scene, number: int, dx: int, dy: int) -> Scene:
    """The object moves by (dx, dy) pixels, in front of everything; its old place is filled as by `remove_object`.

    Raises:
        InputError: there is no such object, or it would leave the picture.
    """
    inside = scene.mask(number)
    rows, columns = np.nonzero(inside)
    labels = scene.labels[rows, columns]
    rows, columns = rows + dy, columns + dx
    height, width = inside.shape
    visible = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    if not visible.any():
        raise InputError(f"object {number}: moved by {dx},{dy} it leaves the picture of {width}x{height}")
    behind = _fill_from_around(scene, inside)
    rows, columns = rows[visible], columns[visible]
    behind.labels[rows, columns] = labels[visible]
    behind.instances[rows, columns] = number
    return behind


def paint_stroke(scene: Scene, label: int, points: Sequence[Point], radius: int) -> Scene:
    """A round brush of `radius` pixels drawn along `points` paints class `label`; a single point gives a disc."""
    canvas = np.zeros(scene.labels.shape, np.uint8)
    for start, stop in itertools.pairwise(points):
        cv2.line(canvas, start, stop, 1, thickness=2 * radius + 1)
    for point in points:
        cv2.circle(canvas, point, radius, 1, thickness=-1)
    return _painted(scene, canvas > 0, label)


def paint_polygon(scene: Scene, label: int, corners: Sequence[Point]) -> Scene:
    """The area inside `corners` becomes class `label`."""
    canvas = np.zeros(scene.labels.shape, np.uint8)
    cv2.fillPoly(canvas, [np.array(corners, np.int32)], 1)
    return _painted(scene, canvas > 0, label)


def paint_rectangle(scene: Scene, label: int, first: Point, second: Point) -> Scene:
    """The rectangle between two opposite corners (both inside it) becomes class `label`."""
    (left, right), (top, bottom) = (sorted(pair) for pair in zip(first, second, strict=True))
    area = np.zeros(scene.labels.shape, bool)
    area[max(0, top) : max(0, bottom + 1), max(0, left) : max(0, right + 1)] = True
    return _painted(scene, area, label)


def _painted(scene: Scene, area: np.ndarray, label: int) -> Scene:
    if not area.any():
        height, width = area.shape
        raise InputError(f"the paint misses the picture of {width}x{height}")
    return _fill(scene, area, label)


def _fill(scene: Scene, area: np.ndarray, label: int) -> Scene:
    """`area` becomes class `label`: a new object where the scene counts objects of that class, else part of its uncounted area."""
    instances = np.where(area, _number_for(scene, label), scene.instances)
    return replace(scene, labels=np.where(area, label, scene.labels), instances=instances)


def _number_for(scene: Scene, label: int) -> int:
    own = scene.instances[scene.labels == label]
    if scene.first_object == 0:  # as `Scene.from_labels` numbers them
        return label * FIRST_OBJECT + min(own.size and int(own.max()) % FIRST_OBJECT + 1, FIRST_OBJECT - 1)
    counted = own[own >= scene.first_object]
    if counted.size:
        return int(counted.max()) + 1
    return int(np.bincount(own[own >= 0]).argmax()) if (own >= 0).any() else label


def _fill_from_around(scene: Scene, hole: np.ndarray) -> Scene:
    """Each pixel of the hole takes class and id of the nearest pixel outside that is no object (or is one, if all are)."""
    usable = ~hole & (scene.labels >= 0)
    if (usable & (scene.instances < scene.first_object)).any():
        usable &= scene.instances < scene.first_object
    if not usable.any():
        raise InputError("there is nothing around the object to fill its place with", hint="name a class to fill with")
    _, nearest = cv2.distanceTransformWithLabels(
        (~usable).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(usable)
    source = np.empty(len(rows) + 1, np.int64)
    source[nearest[rows, columns]] = np.arange(len(rows))
    chosen = source[nearest[hole]]
    filled = replace(scene, labels=scene.labels.copy(), instances=scene.instances.copy())
    filled.labels[hole] = scene.labels[rows[chosen], columns[chosen]]
    filled.instances[hole] = scene.instances[rows[chosen], columns[chosen]]
    return filled
