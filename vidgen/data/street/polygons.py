"""Flat polygons in space, which the street is made of, and the light on them.

Lengths are metres; x points right, y up, z along the street.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

from vidgen.data.street import textures
from vidgen.data.street.textures import Array

SURFACE = np.dtype(
    [
        ("frame", "f8", (3, 3)),  # columns: unit vectors u and v and the origin, so that world = frame @ (u, v, 1)
        ("texture", "f8", (4,)),  # repeats per metre along u and v, offsets in repeats
        ("tile", "i4"),
        ("tint", "f4", (3,)),  # colour times light, 0..255
        ("haze", "f4"),  # 1 / the distance at which half the contrast is gone
        ("label", "u1"),
        ("instance", "u2"),
        ("thing", "i8"),  # what the polygon is part of; the same in every frame
        ("layer", "i1"),  # lower layers are painted first; within a layer, far to near
        ("across", "f8"),  # x of the thing, and
        ("distance", "f8"),  # z of the thing, by which far and near are decided
        ("swing", "f8"),  # amplitude of the rotation about the origin in the x-y plane (limbs)
    ]
)
GROUND_LAYER, PAVEMENT_LAYER, MARKING_LAYER, BUILDING_LAYER, OBJECT_LAYER = range(5)
_HAZE = 1 / 85


class Mesh(NamedTuple):
    """Polygons: their surfaces [n], their corners (u, v) one polygon after the other [m,2], how many corners each has [n]."""

    surfaces: Array
    corners: Array
    counts: Array

    def marked(self, **values: Any) -> Mesh:
        """A copy whose surfaces have other values in some fields."""
        surfaces = self.surfaces.copy()
        for name, value in values.items():
            surfaces[name] = value
        return self._replace(surfaces=surfaces)

    def frames_at(self, offset: Array, swing: float = 0.0) -> Array:
        """Frames [n,3,3] at another place with the limbs swung; `swing` is -1..1."""
        frames = self.surfaces["frame"].copy()
        frames[:, :, 2] += offset
        if swing:
            limbs = np.flatnonzero(self.surfaces["swing"])
            angles = self.surfaces["swing"][limbs] * swing
            frames[limbs, 0, 0] = frames[limbs, 1, 1] = np.cos(angles)
            frames[limbs, 1, 0] = np.sin(angles)
            frames[limbs, 0, 1] = -np.sin(angles)
        return frames

    def moved(self, offset: ArrayLike, swing: float = 0.0, **values: Any) -> Mesh:
        """A copy at another place, with its limbs swung and other values in some fields."""
        offset = np.asarray(offset, dtype=np.float64)
        across, distance = self.surfaces["across"] + offset[0], self.surfaces["distance"] + offset[2]
        return self.marked(frame=self.frames_at(offset, swing), across=across, distance=distance, **values)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """All polygons of several meshes, in order."""
    surfaces, corners, counts = zip(*meshes, strict=True)
    # as bytes: numpy compares the fields of every part otherwise, which takes longer than drawing
    joined = np.concatenate([part.view(np.uint8) for part in surfaces]).view(SURFACE)
    return Mesh(joined, np.concatenate(corners), np.concatenate(counts))


class Sun(NamedTuple):
    """Light of a street: `shadow` is the (x, z) displacement of the shadow of a point one metre above the ground."""

    direction: Array
    shadow: Array
    sunlight: Array
    skylight: Array

    def on(self, normal: ArrayLike) -> Array:
        """Light [3] that falls on a surface; 1 keeps its colour."""
        normal = np.asarray(normal)
        return self.skylight * (0.86 + 0.14 * normal[1]) + self.sunlight * max(0.0, float(normal @ self.direction))


class Builder:
    """Collects polygons given by their corners in space. Seen from its front, a polygon's first edge points to the right."""

    def __init__(self, sun: Sun) -> None:
        self._sun = sun
        self._surfaces: list[tuple[Any, ...]] = []
        self._corners: list[Array] = []

    def add(
        self,
        points: ArrayLike,
        color: ArrayLike,
        label: int,
        *,
        tile: str = "plain",
        repeat: tuple[float, float] = (2.0, 2.0),
        offset: tuple[float, float] = (0.0, 0.0),
        layer: int = OBJECT_LAYER,
        haze: float = _HAZE,
        light: ArrayLike | None = None,
        swing: float = 0.0,
        pivot: ArrayLike | None = None,
    ) -> None:
        """Add a convex polygon.

        Args:
            points: [k,3], metres.
            color: [3], 0..255, in full light.
            label: class id.
            tile: name of its texture, which repeats every `repeat` metres from `offset` repeats at the first corner on.
            layer: painted after all lower ones.
            haze: 1 / the distance at which half the contrast is gone.
            light: [3]; by default what falls on its front.
            swing: radians by which it swings to and fro about `pivot`, a point of its plane (the first corner by default);
                only for polygons that face the camera squarely.
        """
        points = np.asarray(points, dtype=np.float64)
        right = _unit(points[1] - points[0])
        front = _unit(cross(points[-1] - points[0], right))
        origin = points[0] if pivot is None else np.asarray(pivot, dtype=np.float64)
        frame = np.stack([right, cross(right, front), origin], axis=1)
        light = self._sun.on(front) if light is None else np.asarray(light)
        tint = np.clip(np.asarray(color) * light, 0, 255)
        texture = (1 / repeat[0], 1 / repeat[1], *offset)
        self._surfaces.append((frame, texture, textures.NAMES.index(tile), tint, haze, label, 0, 0, layer, 0.0, 0.0, swing))
        self._corners.append((points - origin) @ frame[:, :2])

    def mesh(self) -> Mesh:
        """What was added."""
        counts = np.array([len(corners) for corners in self._corners], dtype=np.int64)
        return Mesh(np.array(self._surfaces, dtype=SURFACE), np.concatenate(self._corners), counts)


def cross(a: Array, b: Array) -> Array:
    """Cross product over the last axis; numpy's own takes ten times as long for a few vectors."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def _unit(vector: Array) -> Array:
    return vector / math.sqrt(float(vector @ vector))


def upright(x0: float, x1: float, y0: float, y1: float, z: float = 0.0) -> Array:
    """A rectangle facing the camera; x0 and x1 in any order."""
    left, right = min(x0, x1), max(x0, x1)
    return np.array([(left, y0, z), (right, y0, z), (right, y1, z), (left, y1, z)])


def along(side: int, x: float, y0: float, y1: float, length: float, rise: float = 0.0) -> Array:
    """A rectangle from z = 0 to `length` on one side of the street (-1 left, 1 right), facing the street.

    Its foot is at `side * x`, its top `rise` metres further outside.
    """
    a, b = (0.0, length) if side < 0 else (length, 0.0)
    foot, top = side * x, side * (x + rise)
    return np.array([(foot, y0, a), (foot, y0, b), (top, y1, b), (top, y1, a)])


def flat(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> Array:
    """A rectangle on the ground; x0 and x1 in any order."""
    left, right = min(x0, x1), max(x0, x1)
    return np.array([(left, y, z0), (right, y, z0), (right, y, z1), (left, y, z1)])


def disc(x: float, y: float, z: float, radius_x: float, radius_y: float, angles: Array | None = None) -> Array:
    """An ellipse facing the camera, cut to a polygon at `angles` (twelve even ones by default)."""
    angles = np.arange(12) * (np.pi / 6) - np.pi * 7 / 12 if angles is None else angles
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles), np.full(len(angles), z)], axis=1)


def hull(points: Array) -> Array:
    """Convex outline of points [k,2], counterclockwise."""
    outline = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
    x, y = outline.T
    return outline if x @ np.roll(y, -1) > y @ np.roll(x, -1) else outline[::-1]
