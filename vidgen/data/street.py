"""A procedural street seen from a driving car, with exact labels, instances, optical flow and occlusion.

Everything in the world is a flat polygon. The image of a plane is a homography, so one 3x3 matrix per polygon gives depth,
texture coordinates and, together with the polygon's place one frame earlier, the exact flow of each pixel. A frame is made in
two passes: polygons are filled into a buffer of polygon numbers, far to near, at twice the size; then each sample is coloured
from a texture atlas that is anchored to the surfaces, so nothing swims. Lengths are metres, angles radians, times seconds.
World axes: x right, y up, z along the street.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidgen.media import images

Array = NDArray[Any]
Color = tuple[float, float, float]

CLASSES: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("sky", (70, 130, 180)),
    ("building", (70, 70, 70)),
    ("pole", (220, 220, 0)),
    ("road", (128, 64, 128)),
    ("pavement", (244, 35, 232)),
    ("tree", (107, 142, 35)),
    ("lane marking", (255, 255, 255)),
    ("car", (0, 0, 142)),
    ("pedestrian", (220, 20, 60)),
)
"""(name, colour) of each label id."""

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, MARKING, CAR, PEDESTRIAN = range(len(CLASSES))


@dataclass(frozen=True)
class StreetFrame:
    """One frame and all that is known about it.

    Attributes:
        image: uint8 [H,W,3], RGB.
        labels: uint8 [H,W], index into `CLASSES`.
        instances: uint16 [H,W], 1000 * label + k for cars and pedestrians, 0 elsewhere.
        flow: float32 [H,W,2], pixels, (dx, dy) from this frame's grid into the previous frame; zero at t = 0.
        occluded: bool [H,W], where that flow leads outside the previous frame or to something that hid the surface there;
            all True at t = 0.
    """

    image: Array
    labels: Array
    instances: Array
    flow: Array
    occluded: Array


# ---------------------------------------------------------------------------------------------------------------- textures

_TILE = 256
_NUM_LEVELS = 15
_TILES = ("plain", "sky", "asphalt", "slabs", "grass", "leaves", "brick", "plaster", "panels", "shop", "porch", "roof", "glass", "pipe")
_NEUTRAL = 128.0
"""A texture of this value takes the tint's colour unchanged."""


def _noise(rng: np.random.Generator, slope: float, size: int = _TILE) -> Array:
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
    y, x = np.mgrid[:_TILE, :_TILE]
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
        case "grass":
            return _mix((84.0, 104.0, 58.0), (124.0, 138.0, 86.0), 0.5 + 0.3 * soft + 0.15 * fine)
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
            return _gray(np.linspace(170, 80, _TILE)[:, None] + np.zeros((_TILE, _TILE)) + 4 * soft)
        case "pipe":
            return _gray(128 * (0.72 + 0.4 * np.sin(np.linspace(0.3, 2.9, _TILE)))[None] + np.zeros((_TILE, _TILE)))
    return _gray(128 + 3 * soft + 3 * fine)


class _Atlas(NamedTuple):
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
def _atlas() -> _Atlas:
    """The same for every street: a network sees only labels, so textures belong to the class, not to the seed."""
    rng = np.random.default_rng(20180820)
    sizes = [max(2, round(_TILE * 2 ** (-level / 2))) for level in range(_NUM_LEVELS)]
    lefts = np.cumsum([0, *(size + 4 for size in sizes)])
    texture = np.zeros((len(_TILES) * (_TILE + 4), lefts[-1], 4), dtype=np.uint8)
    for index, name in enumerate(_TILES):
        tile = np.clip(_bake_tile(name, rng), 0, 255).astype(np.uint8)[::-1]
        for left, size in zip(lefts, sizes, strict=False):
            small = cv2.resize(tile, (size, size), interpolation=cv2.INTER_AREA)
            top = index * (_TILE + 4)
            texture[top : top + size + 4, left : left + size + 4, :3] = cv2.copyMakeBorder(small, 2, 2, 2, 2, cv2.BORDER_WRAP)
    tops = np.arange(len(_TILES)) * (_TILE + 4) + 1.5
    return _Atlas(texture, tops.astype(np.float32), (lefts[:-1] + 1.5).astype(np.float32), np.asarray(sizes, dtype=np.float32))


# ---------------------------------------------------------------------------------------------------------------- polygons

_SURFACE = np.dtype(
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
        ("place", "f8"),  # z by which far and near are decided
        ("swing", "f8"),  # amplitude of the rotation about the origin in the x-y plane (limbs)
    ]
)
_GROUND_LAYER, _PAVEMENT_LAYER, _MARKING_LAYER, _BUILDING_LAYER, _OBJECT_LAYER = range(5)


class _Mesh(NamedTuple):
    """Polygons: their surfaces [n], their corners (u, v) one polygon after the other [m,2], how many corners each has [n]."""

    surfaces: Array
    corners: Array
    counts: Array


def _join(meshes: Sequence[_Mesh]) -> _Mesh:
    return _Mesh(*(np.concatenate(parts) for parts in zip(*meshes, strict=True)))


def _marked(mesh: _Mesh, **values: Any) -> _Mesh:
    """A copy whose surfaces have other values in some fields."""
    surfaces = mesh.surfaces.copy()
    for name, value in values.items():
        surfaces[name] = value
    return mesh._replace(surfaces=surfaces)


class _Sun(NamedTuple):
    """Light of a street: `shadow` is the (x, z) displacement of the shadow of a point one metre above the ground."""

    direction: Array
    shadow: Array
    sunlight: Array
    skylight: Array

    def on(self, normal: ArrayLike) -> Array:
        """Light [3] that falls on a surface; 1 keeps its colour."""
        normal = np.asarray(normal)
        return self.skylight * (0.86 + 0.14 * normal[1]) + self.sunlight * max(0.0, float(normal @ self.direction))


class _Builder:
    """Collects polygons given by their corners in space. Seen from its front, a polygon's first edge points to the right."""

    def __init__(self, sun: _Sun) -> None:
        self.sun = sun
        self.surfaces: list[tuple[Any, ...]] = []
        self.corners: list[Array] = []

    def add(
        self,
        points: ArrayLike,
        color: ArrayLike,
        label: int,
        *,
        tile: str = "plain",
        repeat: tuple[float, float] = (2.0, 2.0),
        offset: tuple[float, float] = (0.0, 0.0),
        layer: int = _OBJECT_LAYER,
        thing: int = 0,
        place: float = 0.0,
        haze: float = 1 / 85,
        swing: float = 0.0,
        light: ArrayLike | None = None,
    ) -> None:
        points = np.asarray(points, dtype=np.float64)
        right = _unit(points[1] - points[0])
        front = _unit(np.cross(points[-1] - points[0], right))
        frame = np.stack([right, np.cross(right, front), points[0]], axis=1)
        light = self.sun.on(front) if light is None else np.asarray(light)
        tint = np.clip(np.asarray(color) * light, 0, 255)
        texture = (1 / repeat[0], 1 / repeat[1], *offset)
        self.surfaces.append((frame, texture, _TILES.index(tile), tint, haze, label, 0, thing, layer, place, swing))
        self.corners.append((points - points[0]) @ frame[:, :2])

    def mesh(self) -> _Mesh:
        counts = np.array([len(corners) for corners in self.corners], dtype=np.int64)
        corners = np.concatenate(self.corners) if self.corners else np.zeros((0, 2))
        return _Mesh(np.array(self.surfaces, dtype=_SURFACE), corners, counts)


def _unit(vector: Array) -> Array:
    return vector / math.sqrt(float(vector @ vector))


def _upright(x0: float, x1: float, y0: float, y1: float, z: float) -> Array:
    """A rectangle facing the camera."""
    return np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)])


def _flat(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> Array:
    """A rectangle on the ground."""
    return np.array([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)])


def _disc(x: float, y: float, z: float, radius_x: float, radius_y: float, angles: Array | None = None) -> Array:
    """An ellipse facing the camera, cut to a polygon at `angles` (twelve even ones by default)."""
    angles = np.arange(12) * (np.pi / 6) - np.pi * 7 / 12 if angles is None else angles
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles), np.full(len(angles), z)], axis=1)


# ----------------------------------------------------------------------------------------------------------------- things


class _CarShape(NamedTuple):
    """Half widths, heights and ends of a car's body and cabin; it looks towards +z."""

    width: float
    front: float
    rear: float
    waist: float
    roof: float
    cabin: tuple[float, float, float, float]  # z of the rear foot, rear top, front top and front foot of the cabin


_CAR_SHAPES = (
    _CarShape(0.88, 2.2, -2.15, 0.92, 1.46, (-1.85, -1.25, 0.25, 1.05)),
    _CarShape(0.86, 2.0, -1.9, 0.95, 1.52, (-1.86, -1.55, 0.3, 1.1)),
    _CarShape(0.97, 2.4, -2.4, 1.1, 2.05, (-2.38, -2.3, 1.2, 1.75)),
)
_CAR_COLORS: tuple[Color, ...] = (
    (188, 190, 194), (222, 222, 220), (52, 54, 60), (44, 66, 118), (150, 36, 34), (112, 116, 122),
)  # fmt: skip


def _box(half_width: float, half_width_top: float, rear: float, front: float, low: float, high: float, cabin: Sequence[float] = ()) -> dict[str, Array]:
    """Faces of a box on wheels that narrows upwards; `cabin` gives the z of its top edge."""
    top_rear, top_front = cabin or (rear, front)
    w, n = half_width, half_width_top
    low_corners = [np.array(point) for point in ((-w, low, rear), (w, low, rear), (w, low, front), (-w, low, front))]
    high_corners = [
        np.array(point) for point in ((-n, high, top_rear), (n, high, top_rear), (n, high, top_front), (-n, high, top_front))
    ]
    sides = {}
    for index, name in enumerate(("rear", "right", "front", "left")):
        other = (index + 1) % 4
        sides[name] = np.stack([low_corners[index], low_corners[other], high_corners[other], high_corners[index]])
    return {**sides, "top": np.stack(high_corners)}


def _inset(face: Array, left: float, right: float, low: float, high: float) -> Array:
    """The part of a four-cornered face between fractions of its width and height."""
    a, b, c, d = face
    return np.stack([_inside(a, b, c, d, u, v) for u, v in ((left, low), (right, low), (right, high), (left, high))])


def _inside(a: Array, b: Array, c: Array, d: Array, u: float, v: float) -> Array:
    return (a * (1 - u) + b * u) * (1 - v) + (d * (1 - u) + c * u) * v


def _car(sun: _Sun, shape: _CarShape, color: Color, away: bool) -> _Mesh:
    """A car at the origin; one that drives `away` from the camera shows its rear."""
    builder = _Builder(sun)

    def add(points: Array, paint: ArrayLike, **options: Any) -> None:
        turned = points if away else points * (-1, 1, -1)
        builder.add(turned, paint, CAR, **options)

    body = _box(shape.width, shape.width - 0.05, shape.rear, shape.front, 0.24, shape.waist)
    rear_foot, rear_top, front_top, front_foot = shape.cabin
    cabin = _box(shape.width - 0.07, shape.width - 0.24, rear_foot, front_foot, shape.waist, shape.roof, (rear_top, front_top))
    dark, rubber = (38.0, 38.0, 40.0), (30.0, 30.0, 32.0)
    for z in (shape.rear + 0.1, shape.front - 0.1):
        for x in (-shape.width + 0.04, shape.width - 0.26):
            tyre = np.array([(x, 0.0, z), (x + 0.22, 0.0, z), (x + 0.22, 0.35, z), (x, 0.35, z)])
            add(tyre if z < 0 else tyre[[1, 0, 3, 2]], rubber)
    add(_inset(body["rear"] - (0, 0.12, 0), 0.12, 0.88, 0.0, 0.3), dark)
    add(_inset(body["front"] - (0, 0.12, 0), 0.12, 0.88, 0.0, 0.3), dark)
    for name in ("rear", "front", "left", "right", "top"):
        add(body[name], color)
        if name in ("left", "right"):
            add(_inset(body[name], 0.02, 0.98, 0.0, 0.16), np.asarray(color) * 0.55)
            for z in (shape.rear + 0.75, shape.front - 0.75):
                side = -shape.width if name == "left" else shape.width
                ring = _disc(z if name == "right" else -z, 0.31, 0.0, 0.31, 0.31)
                wheel = np.stack([np.full(12, side * 1.002), ring[:, 1], ring[:, 0] * (1 if name == "right" else -1)], axis=1)
                add(wheel, rubber)
                center = wheel.mean(axis=0)
                add(center + (wheel - center) * 0.55, (140.0, 142.0, 146.0))
    for name in ("rear", "front", "left", "right", "top"):
        add(cabin[name], color)
        if name != "top":
            inset = (0.05, 0.95) if name in ("left", "right") else (0.07, 0.93)
            add(_inset(cabin[name], *inset, 0.08, 0.9), (62.0, 70.0, 80.0), tile="glass", repeat=(50.0, 1.0))
    for name, lamp in (("rear", (190.0, 22.0, 18.0)), ("front", (250.0, 248.0, 235.0))):
        add(_inset(body[name], 0.03, 0.22, 0.55, 0.8), lamp, light=(1, 1, 1))
        add(_inset(body[name], 0.78, 0.97, 0.55, 0.8), lamp, light=(1, 1, 1))
        add(_inset(body[name], 0.38, 0.62, 0.35, 0.52), (225.0, 225.0, 215.0))
        add(_inset(body[name], 0.0, 1.0, 0.0, 0.2), dark)
    return builder.mesh()


def _tree(builder: _Builder, rng: np.random.Generator, x: float, z: float, height: float, tone: ArrayLike, thing: int) -> None:
    """A trunk and overlapping clumps of leaves, the far ones first."""
    place = {"thing": thing, "place": z}
    trunk = 0.09 + 0.015 * height
    builder.add(_upright(x - trunk, x + trunk, 0, 0.5 * height, z + 0.3), (96, 78, 62), TREE, tile="pipe", repeat=(2 * trunk, 3), **place)
    clumps = [(0.0, 0.66, 0.36), (-0.17, 0.58, 0.25), (0.18, 0.6, 0.25), (-0.06, 0.82, 0.24), (0.1, 0.5, 0.22)]
    for index, (side, level, size) in enumerate(clumps):
        angles = np.sort(np.arange(11) + rng.uniform(-0.35, 0.35, 11)) * (2 * np.pi / 11) - np.pi / 2
        radius = height * size * rng.uniform(0.85, 1.1)
        center = (x + height * side * rng.uniform(0.8, 1.2), height * level, z + 0.25 - 0.12 * index)
        light = builder.sun.on((0, 0, -1)) * 0.45 + builder.sun.on((0, 1, 0)) * (0.25 + 0.45 * level)
        shift = tuple(rng.uniform(0, 1, 2))
        outline = _disc(*center, radius, radius * 0.85, angles)
        builder.add(outline, tone, TREE, tile="leaves", repeat=(3.2, 3.2), offset=shift, light=light, **place)


def _lamp_post(builder: _Builder, x: float, z: float, thing: int) -> None:
    """A lamp that reaches over the road (towards x = 0)."""
    side, metal = math.copysign(1.0, x), (92.0, 98.0, 100.0)
    place = {"thing": thing, "place": z}
    builder.add(_upright(x - 0.13, x + 0.13, 0, 1.0, z), metal, POLE, tile="pipe", repeat=(0.26, 3), **place)
    builder.add(_upright(x - 0.08, x + 0.08, 1.0, 7.2, z), metal, POLE, tile="pipe", repeat=(0.16, 3), **place)
    arm = sorted((x + 0.08 * side, x - 1.7 * side))
    builder.add(_upright(*arm, 7.08, 7.2, z), metal, POLE, **place)
    head = sorted((x - 1.1 * side, x - 1.9 * side))
    builder.add(_upright(*head, 6.95, 7.12, z - 0.05), (200, 200, 190), POLE, **place)


def _sign(builder: _Builder, rng: np.random.Generator, x: float, z: float, thing: int) -> None:
    """A round traffic sign on a post."""
    place = {"thing": thing, "place": z}
    builder.add(_upright(x - 0.05, x + 0.05, 0, 2.9, z), (120, 122, 124), POLE, **place)
    rim, field = (((186, 28, 30), (236, 236, 232)), ((30, 70, 150), (44, 92, 176)))[rng.integers(2)]
    builder.add(_disc(x, 2.6, z - 0.05, 0.38, 0.38), rim, POLE, **place)
    builder.add(_disc(x, 2.6, z - 0.06, 0.28, 0.28), field, POLE, **place)


_COATS: tuple[Color, ...] = ((60, 62, 78), (120, 44, 42), (58, 86, 66), (150, 140, 124), (44, 78, 124), (30, 30, 32))
_STRIDE = 0.5


def _pedestrian(sun: _Sun, coat: Color, height: float) -> _Mesh:
    """A walker at the origin. Limbs are polygons of their own that swing about their joint."""
    builder = _Builder(sun)
    scale = height / 1.75

    def limb(x: float, top: float, length: float, width: float, color: ArrayLike, swing: float) -> None:
        outline = np.array([(0.5, 0), (0.5, -length), (-0.4, -length), (-0.5, 0)]) * (width, 1)
        frame = np.array([(1, 0, x), (0, 1, top), (0, 0, 0)], dtype=np.float64)
        frame[:2, 2] *= scale
        tint = np.asarray(color) * sun.on((0, 0.3, -0.95))
        builder.surfaces.append((frame, (0.5, 0.5, 0, 0), 0, tint, 1 / 85, PEDESTRIAN, 0, 0, _OBJECT_LAYER, 0.0, swing))
        builder.corners.append(outline * scale)

    def part(points: Array, color: ArrayLike) -> None:
        builder.add(points * scale, color, PEDESTRIAN)

    trousers, skin, hair = (50.0, 54.0, 70.0), (196.0, 150.0, 122.0), (62.0, 48.0, 40.0)
    limb(-0.09, 0.9, 0.88, 0.15, np.asarray(trousers) * 0.85, 0.36)
    limb(0.09, 0.9, 0.88, 0.15, trousers, -0.36)
    limb(-0.22, 1.42, 0.6, 0.1, np.asarray(coat) * 0.8, -0.3)
    part(np.array([(-0.17, 0.8, 0), (0.17, 0.8, 0), (0.21, 1.38, 0), (0.12, 1.5, 0), (-0.12, 1.5, 0), (-0.21, 1.38, 0)]), coat)
    limb(0.22, 1.42, 0.6, 0.1, np.asarray(coat) * 0.9, 0.3)
    part(_disc(0, 1.62, 0, 0.11, 0.14), skin)
    part(_disc(0, 1.68, 0, 0.115, 0.09), hair)
    return builder.mesh()


_STOREY, _GROUND_STOREY, _BAY = 3.1, 3.7, 3.0
_FACADE_TILES = ("brick", "plaster", "panels")
_FACADE_COLORS: tuple[Color, ...] = (
    (176, 104, 82), (214, 200, 170), (168, 168, 166), (202, 168, 118), (160, 172, 184), (188, 138, 108),
)  # fmt: skip


class _House(NamedTuple):
    """A building on one side of the street (-1 left, 1 right)."""

    side: int
    x: float
    z0: float
    z1: float
    num_storeys: int
    tile: str
    color: Color
    has_shop: bool
    has_pitched_roof: bool

    @property
    def eaves(self) -> float:
        return _GROUND_STOREY + _STOREY * self.num_storeys


def _house(builder: _Builder, house: _House, thing: int) -> None:
    side, x, z0, z1, eaves = house.side, house.side * house.x, house.z0, house.z1, house.eaves
    place = {"thing": thing, "place": 0.5 * (z0 + z1), "layer": _BUILDING_LAYER}
    ground_tile = "shop" if house.has_shop else "porch"
    trim = np.minimum(np.asarray(house.color) * 0.35 + 150, 235)

    def front(low: float, high: float, color: ArrayLike, **options: Any) -> None:
        a, b = (z0, z1) if side < 0 else (z1, z0)
        builder.add([(x, low, a), (x, low, b), (x, high, b), (x, high, a)], color, BUILDING, **options, **place)

    def gable(low: float, high: float, color: ArrayLike, **options: Any) -> None:
        builder.add(_upright(*sorted((x, x + 11 * side)), low, high, z0), color, BUILDING, **options, **place)

    for face in (gable, front):
        face(0, _GROUND_STOREY, house.color, tile=ground_tile if face is front else "plain", repeat=(4 * _BAY, _GROUND_STOREY))
        face(_GROUND_STOREY, eaves, house.color, tile=house.tile, repeat=(4 * _BAY, 4 * _STOREY))
        face(_GROUND_STOREY - 0.12, _GROUND_STOREY + 0.12, trim)
        face(eaves - 0.3, eaves, trim)
    if house.has_pitched_roof:
        ridge_x, ridge = x + 4.5 * side, eaves + 3.2
        back_x = x + 9 * side
        corners = [(x, eaves, z0), (ridge_x, ridge, z0), (back_x, eaves, z0)]
        left_to_right = corners[::-1] if side < 0 else corners
        builder.add([left_to_right[0], left_to_right[2], left_to_right[1]], house.color, BUILDING, **place)
        a, b = (z0, z1) if side < 0 else (z1, z0)
        slope = [(x, eaves, a), (x, eaves, b), (ridge_x, ridge, b), (ridge_x, ridge, a)]
        builder.add(slope, (150, 92, 72), BUILDING, tile="roof", repeat=(4, 4), **place)


def _shadow(builder: _Builder, outline: Array, softness: float, darkness: float, y: float) -> None:
    """A convex shadow on the ground from its (x, z) outline, darker in steps towards its inside; `tint` is the light left."""
    hull = cv2.convexHull(outline.astype(np.float32))[:, 0].astype(np.float64)
    if cv2.contourArea(hull.astype(np.float32), oriented=True) < 0:
        hull = hull[::-1]
    center = hull.mean(axis=0)
    ray = hull - center
    length = np.linalg.norm(ray, axis=1, keepdims=True)
    for ring, (grow, part) in enumerate(((1.0, 0.2), (0.5, 0.45), (0.0, 0.75), (-0.5, 1.0))):
        points = center + ray * np.maximum(1 + grow * softness / length, 0.05)
        flat = np.insert(points, 1, y, axis=1)
        place = float(center[1])
        builder.add(flat, 255 * (1 - darkness * part) * np.ones(3), ROAD, layer=ring, place=place, light=(1, 1, 1))


def _cast(outline: Array, height: float, sun: _Sun) -> Array:
    """Outline of a thing's footprint together with the shadow of its top."""
    return np.concatenate([outline, outline + height * sun.shadow])


# ---------------------------------------------------------------------------------------------------------------- world

_CHUNK = 48.0
_SIGHT = 6
"""How many chunks of street are drawn."""
_KERB = 0.12
_PAVEMENT_WIDTH = 4.2
_LANE_WIDTH, _PARKING_WIDTH = 3.3, 2.2


class _Chunk(NamedTuple):
    mesh: _Mesh
    shadows: _Mesh


class _Mover(NamedTuple):
    """Something that moves: its polygons about its own origin, and where that is now and was one frame earlier."""

    mesh: _Mesh
    shadows: _Mesh
    now: Array
    before: Array
    swing_now: float = 0.0
    swing_before: float = 0.0


class _Camera(NamedTuple):
    """`matrix` takes a ray from `center` to homogeneous pixel coordinates whose third component is the depth."""

    matrix: Array
    center: Array

    def homographies(self, frames: Array) -> Array:
        """From (u, v, 1) on each plane [n,3,3] to the image."""
        frames = frames.copy()
        frames[:, :, 2] -= self.center
        return self.matrix @ frames


class _Scene(NamedTuple):
    """All polygons of a frame with their places one frame earlier [n,3,3], the shadows on the ground, and both cameras."""

    mesh: _Mesh
    frames_before: Array
    shadows: _Mesh
    camera: _Camera
    camera_before: _Camera


class _World:
    """Everything about one street that follows from its seed."""

    def __init__(self, street: Street) -> None:
        self.street = street
        rng = np.random.default_rng([street.seed, 0])
        self.num_lanes = int(rng.choice([1, 1, 2]))
        self.kerb_x = self.num_lanes * _LANE_WIDTH + _PARKING_WIDTH
        self.speed = float(rng.uniform(4.0, 8.0)) if street.speed is None else street.speed
        self.lane_x = (rng.integers(self.num_lanes) + 0.5) * _LANE_WIDTH
        self.phases = rng.uniform(0, 2 * np.pi, 4)
        self.sun = self._make_sun(rng)
        self.haze = np.clip(np.array([206.0, 214.0, 222.0]) + street.variety * rng.normal(0, 14, 3), 0, 255)
        self.sky_shift = rng.uniform(0, 1, 2)
        self.house_weights = rng.dirichlet(np.full(len(_FACADE_COLORS), 1.5))
        self.leaf_color = np.array([104.0, 130.0, 92.0]) + self.street.variety * rng.normal(0, 16, 3)
        self.streams = self._make_streams(rng)
        self.chunks: dict[int, _Chunk] = {}
        self.cars: dict[tuple[int, int, bool], _Chunk] = {}
        self.walkers: dict[tuple[int, int], _Chunk] = {}

    def _make_sun(self, rng: np.random.Generator) -> _Sun:
        elevation = rng.uniform(0.65, 1.0)
        azimuth = rng.choice([-1, 1]) * rng.uniform(0.5, 1.2) + rng.choice([0, np.pi])
        across, along = math.sin(azimuth), -abs(math.cos(azimuth))
        direction = np.array([across * math.cos(elevation), math.sin(elevation), along * math.cos(elevation)])
        warmth = self.street.variety * rng.normal(0, 0.06)
        return _Sun(
            direction,
            -direction[[0, 2]] / direction[1],
            np.array([0.62 + warmth, 0.59, 0.53 - warmth]),
            np.array([0.60, 0.63, 0.68]),
        )

    def vary(self, color: Color, colors: Sequence[Color]) -> Array:
        """A colour of a palette pulled towards the palette's mean, the less the more variety is wanted."""
        mean = np.mean(colors, axis=0)
        return mean + (np.asarray(color) - mean) * min(1.0, math.sqrt(self.street.variety))

    # -- things that stand

    def chunk(self, index: int) -> _Chunk:
        """The standing things of the stretch of street from index * 48 m on."""
        if index not in self.chunks:
            self.chunks[index] = self._make_chunk(index)
        return self.chunks[index]

    def forget(self, before: int) -> None:
        """Drop the chunks behind the camera."""
        for index in [index for index in self.chunks if index < before]:
            del self.chunks[index]

    def _make_chunk(self, index: int) -> _Chunk:
        rng = np.random.default_rng([self.street.seed, 1, index + 2**20])
        z0 = index * _CHUNK
        things = iter(range((index + 2**20) * 1000, (index + 2**20 + 1) * 1000))
        ground, raised, shadows = _Builder(self.sun), _Builder(self.sun), _Builder(self.sun)
        self._add_ground(ground, rng, z0, next(things))
        for side in (-1, 1):
            self._add_houses(raised, shadows, rng, side, z0, things)
            self._add_greenery(raised, shadows, rng, side, z0, things)
        meshes = [ground.mesh(), _moved(raised.mesh(), np.array([0, _KERB, 0]))]
        shades = [shadows.mesh()]
        for number, (side, slot) in enumerate((side, slot) for side in (-1, 1) for slot in range(6)):
            shape, color, shift = rng.integers(len(_CAR_SHAPES)), rng.integers(len(_CAR_COLORS)), rng.uniform(3, 5)
            if rng.random() < 0.6:
                car = self._car(int(shape), int(color), side > 0)
                spot = np.array([side * (self.kerb_x - 1.05), 0, z0 + 8 * slot + shift])
                instance = CAR * 1000 + (index * 12 + number) % 600
                meshes.append(_marked(_moved(car.mesh, spot), thing=next(things), instance=instance))
                shades.append(_moved(car.shadows, spot))
        return _Chunk(_join(meshes), _join(shades))

    def _add_ground(self, builder: _Builder, rng: np.random.Generator, z0: float, thing: int) -> None:
        z1, kerb_x = z0 + _CHUNK, self.kerb_x
        middle: dict[str, Any] = {"thing": thing, "place": z0 + _CHUNK / 2}
        asphalt = {"tile": "asphalt", "repeat": (8.0, 8.0), "layer": _GROUND_LAYER}
        builder.add(_flat(-kerb_x, kerb_x, z0, z1), (84, 84, 88), ROAD, **asphalt, **middle)
        for side in (-1, 1):
            inner, outer = sorted((side * kerb_x, side * (kerb_x + 70))), sorted((side * kerb_x, side * (kerb_x + 0.3)))
            slabs = {"tile": "slabs", "repeat": (4.0, 4.0), "layer": _PAVEMENT_LAYER}
            builder.add(_flat(*inner, z0, z1, _KERB), (150, 144, 136), PAVEMENT, **slabs, **middle)
            builder.add(_flat(*outer, z0, z1, _KERB), (176, 174, 168), PAVEMENT, layer=_PAVEMENT_LAYER, **middle)
            a, b = (z0, z1) if side < 0 else (z1, z0)
            x = side * kerb_x
            step = [(x, 0, a), (x, 0, b), (x, _KERB, b), (x, _KERB, a)]
            builder.add(step, (150, 148, 144), PAVEMENT, layer=_PAVEMENT_LAYER, **middle)
        paint: dict[str, Any] = {"layer": _MARKING_LAYER, "thing": thing}
        white = (222, 222, 216)

        def mark(x: float, width: float, low: float, high: float) -> None:
            builder.add(_flat(x - width / 2, x + width / 2, low, high), white, MARKING, place=(low + high) / 2, **paint)

        for side in (-1, 1):
            mark(side * (self.num_lanes * _LANE_WIDTH + 0.05), 0.12, z0, z1)
        lines = [lane * _LANE_WIDTH for lane in range(1 - self.num_lanes, self.num_lanes)]
        for low in np.arange(z0, z1, 6.0):
            for x in lines:
                mark(x, 0.16, low, low + 3.0)
        if rng.random() < 0.35:
            crossing = z0 + rng.integers(3, 6) * 6.0
            for x in np.arange(-self.num_lanes * _LANE_WIDTH + 0.5, self.num_lanes * _LANE_WIDTH, 1.0):
                mark(float(x), 0.5, crossing, crossing + 3.0)

    def _add_houses(
        self, builder: _Builder, shadows: _Builder, rng: np.random.Generator, side: int, z0: float, things: Iterator[int]
    ) -> None:
        bay, num_bays = 0, int(_CHUNK / _BAY)
        facade_x = self.kerb_x + _PAVEMENT_WIDTH
        while bay < num_bays:
            width = min(int(rng.integers(3, 8)), num_bays - bay)
            start, stop = z0 + bay * _BAY, z0 + (bay + width) * _BAY
            bay += width
            if width < 3 or rng.random() < 0.1:
                self._add_garden(builder, rng, side, start, stop, next(things))
                continue
            color = self.vary(_FACADE_COLORS[rng.choice(len(_FACADE_COLORS), p=self.house_weights)], _FACADE_COLORS)
            house = _House(
                side=side,
                x=facade_x + float(rng.choice([0.0, 0.0, 0.6, 1.2])),
                z0=start,
                z1=stop,
                num_storeys=int(rng.integers(1, 5)),
                tile=str(rng.choice(_FACADE_TILES)),
                color=(float(color[0]), float(color[1]), float(color[2])),
                has_shop=bool(rng.random() < 0.5),
                has_pitched_roof=bool(rng.random() < 0.55),
            )
            _house(builder, house, next(things))
            if self.sun.shadow[0] * side < 0:
                edge = np.array([(side * house.x, start), (side * house.x, stop)])
                _shadow(shadows, _cast(edge, house.eaves, self.sun), 0.5, 0.42, _KERB / 2)

    def _add_garden(self, builder: _Builder, rng: np.random.Generator, side: int, z0: float, z1: float, thing: int) -> None:
        """A gap between buildings: a hedge with trees behind it."""
        x = side * (self.kerb_x + _PAVEMENT_WIDTH + 0.6)
        for distance in (9.0, 4.0):
            z = rng.uniform(z0 + 1, z1 - 1)
            _tree(builder, rng, x + side * distance, float(z), rng.uniform(6, 9), self.leaf_color, thing)
        a, b = (z0, z1) if side < 0 else (z1, z0)
        hedge: dict[str, Any] = {"tile": "leaves", "repeat": (2.5, 2.5), "layer": _BUILDING_LAYER, "thing": thing, "place": (z0 + z1) / 2}
        builder.add([(x, 0, a), (x, 0, b), (x, 1.5, b), (x, 1.5, a)], self.leaf_color * 0.85, TREE, **hedge)

    def _add_greenery(
        self, builder: _Builder, shadows: _Builder, rng: np.random.Generator, side: int, z0: float, things: Iterator[int]
    ) -> None:
        """Trees, lamps and signs along the kerb."""
        x = side * (self.kerb_x + 0.9)
        for slot in range(4):
            z = z0 + 12 * slot + float(rng.uniform(2.0, 5.0))
            if rng.random() < 0.62:
                height = float(rng.uniform(4.5, 7.0))
                _tree(builder, rng, x, z, height, self.leaf_color, next(things))
                foot = np.array([x, z])
                crown = _disc(x, z, 0, 0.38 * height, 0.38 * height)[:, :2] + 0.62 * height * self.sun.shadow
                _shadow(shadows, crown, 0.5, 0.4, _KERB / 2)
                trunk = np.array([(x - 0.15, z), (x + 0.15, z)])
                _shadow(shadows, _cast(trunk, 0.5 * height, self.sun), 0.1, 0.4, _KERB)
                _shadow(shadows, foot + np.array([(-0.5, -0.3), (0.5, -0.3), (0.5, 0.3), (-0.5, 0.3)]), 0.3, 0.3, _KERB)
        for slot in range(2):
            _lamp_post(builder, side * (self.kerb_x + 0.5), z0 + 24 * slot + (6.0 if side < 0 else 18.0), next(things))
        if rng.random() < 0.6:
            _sign(builder, rng, side * (self.kerb_x + 0.45), z0 + float(rng.uniform(8, 40)), next(things))

    # -- things that move

    def _car(self, shape: int, color: int, away: bool) -> _Chunk:
        key = (shape, color, away)
        if key not in self.cars:
            form = _CAR_SHAPES[shape]
            shadows = _Builder(self.sun)
            footprint = np.array([(x, z) for x in (-form.width, form.width) for z in (form.rear, form.front)])
            _shadow(shadows, _cast(footprint * 0.9, 0.85 * form.roof, self.sun), 0.3, 0.42, 0)
            _shadow(shadows, footprint * 0.97, 0.35, 0.72, 0)
            self.cars[key] = _Chunk(_car(self.sun, form, self.vary(_CAR_COLORS[color], _CAR_COLORS), away), shadows.mesh())
        return self.cars[key]

    def _walker(self, coat: int, size: int) -> _Chunk:
        key = (coat, size)
        if key not in self.walkers:
            height = 1.6 + 0.08 * size
            shadows = _Builder(self.sun)
            width = np.array([(-0.2, 0.0), (0.2, 0.0)])
            _shadow(shadows, _cast(width, height, self.sun), 0.15, 0.4, _KERB)
            _shadow(shadows, np.array([(-0.25, -0.15), (0.25, -0.15), (0.25, 0.15), (-0.25, 0.15)]), 0.15, 0.4, _KERB)
            self.walkers[key] = _Chunk(_pedestrian(self.sun, self.vary(_COATS[coat], _COATS), height), shadows.mesh())
        return self.walkers[key]

    def _make_streams(self, rng: np.random.Generator) -> list[_Stream]:
        oncoming = float(rng.uniform(4.0, 9.0))
        streams = []
        for lane in range(self.num_lanes):
            x = (lane + 0.5) * _LANE_WIDTH
            streams.append(_Stream(CAR, 600 + 100 * lane, -x, 27.0, -oncoming * (1 + 0.15 * lane), 0.0))
            follows = x == self.lane_x
            streams.append(_Stream(CAR, 800 + 100 * lane, x, 27.0, 0.0 if follows else 1.15 * self.speed, float(follows)))
        for number, (side, way) in enumerate((side, way) for side in (-1, 1) for way in (-1, 1)):
            x = side * (self.kerb_x + _PAVEMENT_WIDTH / 2 + 0.4 + 0.55 * way)
            streams.append(_Stream(PEDESTRIAN, 250 * number, x, 10.0, way * float(rng.uniform(1.1, 1.5)), 0.0))
        return streams

    def travelled(self, time: float) -> float:
        """Metres from the start of the street to the camera."""
        return self.speed * (time + 0.35 * math.sin(0.7 * time + self.phases[0]))

    def camera(self, time: float) -> _Camera:
        """Sways with the distance travelled, so that a camera that does not move stands perfectly still."""
        distance = self.travelled(time)
        first, second, third = self.phases[1:]
        yaw = 0.045 * math.sin(distance / 17 + first) + 0.02 * math.sin(distance / 7.3 + second)
        pitch = 0.01 + 0.004 * math.sin(distance / 3.1 + third)
        roll = 0.006 * math.sin(distance / 5.7 + first)
        forward = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)])
        right = np.array([math.cos(yaw), 0.0, -math.sin(yaw)])
        down = np.cross(forward, right) * (-1)
        right, down = right * math.cos(roll) + down * math.sin(roll), down * math.cos(roll) - right * math.sin(roll)
        height, width = self.street.height, self.street.width
        focal = 0.78 * max(width, height)
        lens = np.array([[focal, 0, (width - 1) / 2], [0, focal, 0.47 * (height - 1)], [0, 0, 1]])
        center = np.array([self.lane_x + 0.3 * math.sin(distance / 23 + third), 1.55, distance])
        return _Camera(lens @ np.stack([right, down, forward]), center)

    def _movers(self, time: float, time_before: float) -> Iterator[_Mover]:
        camera_z = self.travelled(time)
        for number, stream in enumerate(self.streams):
            shift = stream.speed * time + stream.follows * camera_z
            first = math.floor((camera_z - shift) / stream.spacing) - 1
            last = math.floor((camera_z + 4 * _CHUNK - shift) / stream.spacing)
            for slot in range(max(first, 0) if stream.follows else first, last + 1):
                rng = np.random.default_rng([self.street.seed, 2, number, slot + 2**20])
                chance, jitter, phase = rng.random(), rng.uniform(0, 0.55), rng.uniform(0, 2 * np.pi)
                if chance > 0.6:
                    continue
                base = stream.spacing * (slot + jitter) + 13.0 * stream.follows

                def place(when: float, base: float = base, phase: float = phase, stream: _Stream = stream) -> Array:
                    drift = stream.follows * (self.travelled(when) + 0.25 * self.speed * math.sin(0.5 * when + phase))
                    y = _KERB if stream.label == PEDESTRIAN else 0.0
                    return np.array([stream.x, y, base + stream.speed * when + drift])

                thing = -((number * 2**22 + slot + 2**20) * 16)
                instance = stream.label * 1000 + stream.first_instance + slot % (100 if stream.label == CAR else 250)
                if stream.label == CAR:
                    parts = self._car(int(rng.integers(len(_CAR_SHAPES))), int(rng.integers(len(_CAR_COLORS))), stream.x > 0)
                    things: ArrayLike = thing
                else:
                    parts = self._walker(int(rng.integers(len(_COATS))), int(rng.integers(4)))
                    things = thing - np.arange(len(parts.mesh.surfaces))
                mesh = _marked(parts.mesh, thing=things, instance=instance)
                swings = [math.sin(2 * np.pi * 0.9 * when + phase) for when in (time, time_before)]
                yield _Mover(mesh, parts.shadows, place(time), place(time_before), *swings)

    def scene(self, time: float, time_before: float) -> _Scene:
        """All that may be seen at a time, and where it was at another."""
        camera, camera_before = self.camera(time), self.camera(time_before)
        first = math.floor(camera.center[2] / _CHUNK)
        self.forget(first)
        chunks = [self.chunk(index) for index in range(first, first + _SIGHT)]
        movers = list(self._movers(time, time_before))
        meshes = [self._sky(), *(chunk.mesh for chunk in chunks), *(_moved(m.mesh, m.now, m.swing_now) for m in movers)]
        before = [*(mesh.surfaces["frame"] for mesh in meshes[: 1 + len(chunks)])]
        before += [_moved(mover.mesh, mover.before, mover.swing_before).surfaces["frame"] for mover in movers]
        shadows = [chunk.shadows for chunk in chunks[:3]] + [_moved(mover.shadows, mover.now * (1, 0, 1)) for mover in movers]
        return _Scene(_join(meshes), np.concatenate(before), _join(shadows), camera, camera_before)

    def _sky(self) -> _Mesh:
        """A plane of clouds high above; its haze makes the gradient down to the horizon."""
        builder = _Builder(self.sun)
        builder.add(
            [(-1, 400, 0), (1, 400, 0), (1, 400, -1)],
            (128, 128, 128),
            SKY,
            tile="sky",
            repeat=(1300.0, 1300.0),
            offset=(float(self.sky_shift[0]), float(self.sky_shift[1])),
            haze=1 / 1500,
            light=(1, 1, 1),
        )
        return builder.mesh()


class _Stream(NamedTuple):
    """Things that follow each other along the street, one in most of the slots of length `spacing`.

    Attributes:
        label, first_instance: class id, and the first of the instance numbers of the stream.
        x: where across the street.
        speed: of the slots.
        follows: 1 where the slots move with the camera, else 0.
    """

    label: int
    first_instance: int
    x: float
    spacing: float
    speed: float
    follows: float


def _moved(mesh: _Mesh, offset: Array, swing: float = 0.0) -> _Mesh:
    """A copy at another place, its limbs swung."""
    surfaces = mesh.surfaces.copy()
    surfaces["frame"][:, :, 2] += offset
    surfaces["place"] += offset[2]
    limbs = surfaces["swing"] != 0
    if swing and limbs.any():
        angles = surfaces["swing"][limbs] * swing
        rotated = surfaces["frame"][limbs]
        rotated[:, 0, 0] = rotated[:, 1, 1] = np.cos(angles)
        rotated[:, 1, 0] = np.sin(angles)
        rotated[:, 0, 1] = -np.sin(angles)
        surfaces["frame"][limbs] = rotated
    return mesh._replace(surfaces=surfaces)


# -------------------------------------------------------------------------------------------------------------- rendering

_NEAR = 0.4
_SUBPIXEL_BITS = 4


def _inverse(matrices: Array) -> tuple[Array, Array]:
    """Inverses [n,3,3] by cofactors and determinants [n]; planes seen edge-on get a meaningless but finite inverse."""
    a, b, c = matrices[:, 0], matrices[:, 1], matrices[:, 2]
    adjugate = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=2)
    determinants = np.einsum("ni,ni->n", a, adjugate[:, :, 0])
    safe = np.where(np.abs(determinants) < 1e-12, 1.0, determinants)
    return adjugate / safe[:, None, None], determinants


def _cross(a: Array, b: Array) -> Array:
    ax, ay, az = a.T
    bx, by, bz = b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)


def _clip_near(corners: Array) -> Array:
    """The part of a polygon in homogeneous image coordinates [k,3] that lies before the near plane."""
    following = np.roll(corners, -1, axis=0)
    kept = []
    for here, there in zip(corners, following, strict=True):
        if here[2] >= _NEAR:
            kept.append(here)
        if (here[2] >= _NEAR) != (there[2] >= _NEAR):
            kept.append(here + (there - here) * ((_NEAR - here[2]) / (there[2] - here[2])))
    return np.array(kept)


def _paint(buffer: Array, mesh: _Mesh, matrices: Array, facing: Array, values: Sequence[float]) -> None:
    """Fill polygons with their values, far to near, into a buffer of twice the size of the image.

    Args:
        buffer: [2H,2W], changed.
        matrices: [n,3,3], from a polygon's plane to image coordinates of the single size.
        facing: bool [n], which polygons show their front.
    """
    owner = np.repeat(np.arange(len(mesh.counts)), mesh.counts)
    matrices = matrices * np.array([2.0, 2.0, 1.0])[:, None]
    columns = matrices[owner]
    points = columns[:, :, 0] * mesh.corners[:, :1] + columns[:, :, 1] * mesh.corners[:, 1:] + columns[:, :, 2]
    starts = np.cumsum(mesh.counts) - mesh.counts
    depth = points[:, 2]
    nearest = np.minimum.reduceat(depth, starts)
    pixels = points[:, :2] / np.maximum(depth, _NEAR)[:, None]
    low, high = np.minimum.reduceat(pixels, starts), np.maximum.reduceat(pixels, starts)
    height, width = buffer.shape
    inside = (nearest >= _NEAR) & np.all((high > 0) & (low < (width, height)) & (high - low > 0.15), axis=1)
    crossing = (nearest < _NEAR) & (np.maximum.reduceat(depth, starts) > _NEAR)
    order = np.lexsort((-mesh.surfaces["place"], mesh.surfaces["layer"]))
    order = order[(facing & (inside | crossing))[order]]
    fixed = np.rint(np.clip(pixels, -(2**20), 2**20) * 2**_SUBPIXEL_BITS).astype(np.int32)
    for index in order:
        start = starts[index]
        outline = fixed[start : start + mesh.counts[index]]
        if crossing[index]:
            clipped = _clip_near(points[start : start + mesh.counts[index]])
            outline = np.rint(clipped[:, :2] / clipped[:, 2:] * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.fillConvexPoly(buffer, outline, values[index], cv2.LINE_8, _SUBPIXEL_BITS)


class _Raster(NamedTuple):
    """Which polygon is seen where.

    Attributes:
        scene: what was drawn.
        samples: int64 [2H,2W], polygon numbers; the even samples are the pixels' centres.
        inverses: [n,3,3], takes an image point (x, y, 1) to (u, v, 1) / depth on each polygon.
        determinants: [n], of the homographies.
    """

    scene: _Scene
    samples: Array
    inverses: Array
    determinants: Array

    @property
    def pixels(self) -> Array:
        """int64 [H,W], the polygon at the centre of each pixel."""
        return self.samples[::2, ::2]


def _rasterize(scene: _Scene, height: int, width: int) -> _Raster:
    matrices = scene.camera.homographies(scene.mesh.surfaces["frame"])
    inverses, determinants = _inverse(matrices)
    facing = determinants < 0
    facing[0] = False
    samples = np.zeros((2 * height, 2 * width), dtype=np.int32)
    _paint(samples, scene.mesh, matrices, facing, range(len(facing)))
    return _Raster(scene, samples.astype(np.int64), inverses, determinants)


def _light_on_ground(scene: _Scene, height: int, width: int) -> Array:
    """uint8 [2H,2W], 255 in full light."""
    light = np.full((2 * height, 2 * width), 255, dtype=np.uint8)
    matrices = scene.camera.homographies(scene.shadows.surfaces["frame"])
    _paint(light, scene.shadows, matrices, _inverse(matrices)[1] < 0, scene.shadows.surfaces["tint"][:, 0].tolist())
    return cv2.blur(light, (3, 3))


_BAND = 64


def _shade(raster: _Raster, light: Array, haze: Array) -> Array:
    """The picture, uint8 [H,W,3]."""
    atlas = _atlas()
    surfaces = raster.scene.mesh.surfaces
    height, width = raster.samples.shape
    focal = np.linalg.norm(raster.scene.camera.matrix[0]) * 2
    texture = np.zeros((len(surfaces), 3, 3))
    texture[:, 0, 0], texture[:, 1, 1], texture[:, 2, 2] = surfaces["texture"][:, 0], surfaces["texture"][:, 1], 1
    texture[:, :2, 2] = surfaces["texture"][:, 2:]
    # columns halved: samples are half a pixel apart
    to_texture = (texture @ raster.inverses * (0.5, 0.5, 1.0)).astype(np.float32).transpose(1, 2, 0).copy()
    distance = np.maximum(np.abs(raster.determinants) * (2 / focal) ** 2, 1e-3)
    density = _TILE * np.sqrt(surfaces["texture"][:, 0] * surfaces["texture"][:, 1])
    level = (2 * np.log2(density / focal) + np.log2(1 / distance)).astype(np.float32)
    top = atlas.tops[surfaces["tile"]]
    fog = surfaces["haze"] ** 2
    tint = np.zeros((len(surfaces), 4), dtype=np.uint8)
    tint[:, :3] = surfaces["tint"]
    tint_word = tint.view(np.uint32)[:, 0]
    lit = np.where(surfaces["layer"] <= _MARKING_LAYER, 0, 255).astype(np.uint8)
    lit[0] = 255
    gray_word = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1).view(np.uint32)[:, 0]
    veil = np.zeros((256, 4), dtype=np.uint8)
    veil[:, :3] = np.rint(haze * (1 - np.arange(256)[:, None] / 255))
    veil_word = veil.view(np.uint32)[:, 0]
    x = np.arange(width, dtype=np.float32)
    picture = np.empty((height, width, 4), dtype=np.uint8)
    for start in range(0, height, _BAND):
        ids = raster.samples[start : start + _BAND]
        y = np.arange(start, start + len(ids), dtype=np.float32)[:, None]

        def project(row: Array, ids: Array = ids, y: Array = y) -> Array:
            return row[0].take(ids) * x + row[1].take(ids) * y + row[2].take(ids)

        closeness = np.maximum(project(to_texture[2]), np.float32(1e-5))
        depth = 1 / closeness
        u, v = project(to_texture[0]) * depth, project(to_texture[1]) * depth
        step = np.clip(level.take(ids) + 3 * np.log2(depth), 0, _NUM_LEVELS - 1).astype(np.intp)
        size = atlas.sizes.take(step)
        columns = atlas.lefts.take(step) + (u - np.floor(u)) * size
        rows = top.take(ids) + (v - np.floor(v)) * size
        color = cv2.remap(atlas.texture, columns, rows, cv2.INTER_LINEAR)
        color = cv2.multiply(color, _bytes(tint_word.take(ids)), scale=1 / _NEUTRAL)
        clearness = 255 / (1 + fog.take(ids) * depth * depth)
        clear = clearness.astype(np.uint8)
        shine = cv2.multiply(clear, np.maximum(light[start : start + _BAND], lit.take(ids)), scale=1 / 255)
        color = cv2.multiply(color, _bytes(gray_word.take(shine)), scale=1 / 255)
        picture[start : start + _BAND] = cv2.add(color, _bytes(veil_word.take(clear)))
    return np.ascontiguousarray(cv2.pyrDown(picture)[: (height + 1) // 2, : (width + 1) // 2, :3])


def _bytes(words: Array) -> Array:
    return words.view(np.uint8).reshape(*words.shape, 4)


def _flow(now: _Raster, before: _Raster) -> tuple[Array, Array]:
    """Exact flow [H,W,2] into the previous frame, and where it leads to something else or outside, bool [H,W]."""
    scene, ids = now.scene, now.pixels
    height, width = ids.shape
    matrices = scene.camera_before.homographies(scene.frames_before) @ now.inverses
    x, y = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)[:, None]

    def project(rows: Array, ids: Array, x: Array, y: Array) -> Array:
        return rows[:, 0].take(ids) * x + rows[:, 1].take(ids) * y + rows[:, 2].take(ids)

    stretch = project(matrices[:, 2], ids, x, y)
    x_before = project(matrices[:, 0], ids, x, y) / stretch
    y_before = project(matrices[:, 1], ids, x, y) / stretch
    flow = np.stack([x_before - x, y_before - y], axis=-1).astype(np.float32)

    outside = (x_before < 0) | (x_before > width - 1) | (y_before < 0) | (y_before > height - 1) | (stretch <= 0)
    column = np.clip(np.rint(x_before), 0, width - 1).astype(np.intp)
    row = np.clip(np.rint(y_before), 0, height - 1).astype(np.intp)
    found = before.pixels[row, column]
    expected = project(now.inverses[:, 2], ids, x, y) / stretch
    closeness = project(before.inverses[:, 2], found, x_before, y_before)
    same_place = np.abs(closeness - expected) <= 0.01 * np.abs(expected) + 1e-6
    same_thing = before.scene.mesh.surfaces["thing"].take(found) == scene.mesh.surfaces["thing"].take(ids)
    return flow, outside | ~(same_place & same_thing)


# ------------------------------------------------------------------------------------------------------------------ street


@dataclass(frozen=True)
class Street:
    """A street of one seed, seen from a car that drives along it.

    Attributes:
        seed: decides the houses, the trees, the traffic, the light and the drive.
        height, width: of the frames, pixels; any.
        fps: frames per second.
        variety: 0..1, how much colours differ between things and between seeds.
        speed: of the camera in metres per second; None lets the seed choose, 0 stands still.
    """

    seed: int
    height: int
    width: int
    fps: int = 12
    variety: float = 0.3
    speed: float | None = None

    def frames(self, num_frames: int, start: int = 0) -> Iterator[StreetFrame]:
        """Frames start .. start + num_frames - 1; each depends on nothing but the street and its own number."""
        world = _World(self)
        before: _Raster | None = None
        if start > 0:
            before = _rasterize(self._scene(world, start - 1), self.height, self.width)
        for number in range(start, start + num_frames):
            raster = _rasterize(self._scene(world, number), self.height, self.width)
            yield self._frame(world, raster, before)
            before = raster

    def _scene(self, world: _World, number: int) -> _Scene:
        return world.scene(number / self.fps, max(number - 1, 0) / self.fps)

    def _frame(self, world: _World, raster: _Raster, before: _Raster | None) -> StreetFrame:
        surfaces, ids = raster.scene.mesh.surfaces, raster.pixels
        if before is None:
            flow, occluded = np.zeros((*ids.shape, 2), dtype=np.float32), np.ones(ids.shape, dtype=bool)
        else:
            flow, occluded = _flow(raster, before)
        light = _light_on_ground(raster.scene, self.height, self.width)
        return StreetFrame(
            image=_shade(raster, light, world.haze),
            labels=surfaces["label"].take(ids),
            instances=surfaces["instance"].take(ids),
            flow=flow,
            occluded=occluded,
        )


def write_clip(folder: Path, street: Street, num_frames: int, *, start: int = 0, sequence: str | None = None) -> None:
    """Write <folder>/{images,labels,instances}/<sequence>/%05d.png; the sequence is named after the seed by default.

    Raises:
        OutputError: the disk is full or read-only.
    """
    sequence = f"street{street.seed:04d}" if sequence is None else sequence
    for number, frame in enumerate(street.frames(num_frames, start), start):
        for kind, pixels in (("images", frame.image), ("labels", frame.labels), ("instances", frame.instances)):
            images.write_png(folder / kind / sequence / f"{number:05d}.png", pixels)
