"""What stands and moves in a street, each built about its own origin on the ground."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vidgen.data.street.polygons import (
    BUILDING_LAYER,
    GROUND_LAYER,
    MARKING_LAYER,
    PAVEMENT_LAYER,
    Builder,
    Mesh,
    Sun,
    along,
    disc,
    flat,
    hull,
    upright,
)
from vidgen.data.street.textures import Array, Color
from vidgen.media.labels import STREET

CLASSES = tuple(zip(STREET.names, STREET.colors, strict=True))
"""(name, color) of each label id."""

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, MARKING, CAR, PEDESTRIAN = range(len(CLASSES))

FULL_LIGHT = (1.0, 1.0, 1.0)


class Thing(NamedTuple):
    """Polygons of a thing, and those of its shadow on the ground, whose tint is the light that is left, 0..255."""

    mesh: Mesh
    shadow: Mesh


# ----------------------------------------------------------------------------------------------------------------- shadows


def add_shadow(builder: Builder, outline: Array, softness: float, darkness: float, y: float = 0.0) -> None:
    """Add a convex shadow with the given (x, z) outline [k,2] that gets darker in steps towards its inside."""
    corners = hull(outline)
    center = corners.mean(axis=0)
    rays = corners - center
    lengths = np.linalg.norm(rays, axis=1, keepdims=True)
    for layer, (grow, part) in enumerate(((1.0, 0.2), (0.5, 0.45), (0.0, 0.75), (-0.5, 1.0))):
        ring = center + rays * np.maximum(1 + grow * softness / lengths, 0.05)
        light = np.full(3, 255 * (1 - darkness * part))
        points = np.stack([ring[:, 0], np.full(len(ring), y), ring[:, 1]], axis=1)
        builder.add(points, light, ROAD, layer=layer, light=FULL_LIGHT)


def _cast(outline: Array, height: float, sun: Sun) -> Array:
    """Outline of a thing's footprint together with the shadow of its top."""
    return np.concatenate([outline, outline + height * sun.shadow])


def _footprint(half_width: float, rear: float, front: float) -> Array:
    return np.array([(x, z) for x in (-half_width, half_width) for z in (rear, front)])


# -------------------------------------------------------------------------------------------------------------------- cars


class CarShape(NamedTuple):
    """A car that looks towards +z, in metres.

    Attributes:
        half_width: of the body.
        rear, front: ends of the body.
        waist, roof: heights of the body and of the cabin on it.
        cabin: z of the rear foot, rear top, front top and front foot of the cabin.
    """

    half_width: float
    rear: float
    front: float
    waist: float
    roof: float
    cabin: tuple[float, float, float, float]


CAR_SHAPES = (
    CarShape(0.88, -2.15, 2.2, 0.92, 1.46, (-1.85, -1.25, 0.25, 1.05)),
    CarShape(0.86, -1.9, 2.0, 0.95, 1.52, (-1.86, -1.55, 0.3, 1.1)),
    CarShape(0.97, -2.4, 2.4, 1.1, 2.05, (-2.38, -2.3, 1.2, 1.75)),
)
CAR_COLORS: tuple[Color, ...] = (
    (188, 190, 194), (222, 222, 220), (52, 54, 60), (44, 66, 118), (150, 36, 34), (112, 116, 122),
)  # fmt: skip
_DARK, _RUBBER = (38, 38, 40), (30, 30, 32)
_ENDS, _SIDES = ("rear", "front"), ("left", "right")


def _box(bottom: tuple[float, float, float, float], top: tuple[float, float, float, float]) -> dict[str, Array]:
    """Faces of a box that narrows upwards, from (half width, rear z, front z, height) of its bottom and its top."""

    def corners(half_width: float, rear: float, front: float, y: float) -> Array:
        return np.array([(-half_width, y, rear), (half_width, y, rear), (half_width, y, front), (-half_width, y, front)])

    low, high = corners(*bottom), corners(*top)
    faces = {"top": high}
    for index, name in enumerate(("rear", "right", "front", "left")):
        other = (index + 1) % 4
        faces[name] = np.stack([low[index], low[other], high[other], high[index]])
    return faces


def _inset(face: Array, left: float, right: float, low: float, high: float) -> Array:
    """The part of a four-cornered face between fractions of its width and height."""
    u, v = np.array([(left, low), (right, low), (right, high), (left, high)]).T[..., None]
    return (face[0] * (1 - u) + face[1] * u) * (1 - v) + (face[3] * (1 - u) + face[2] * u) * v


class _CarBuilder:
    """Adds the parts of a car, turned so that a car that comes towards the camera shows its front."""

    def __init__(self, builder: Builder, shape: CarShape, color: ArrayLike, drives_away: bool) -> None:
        self.builder, self.shape, self.color = builder, shape, np.asarray(color)
        self.turn = (1, 1, 1) if drives_away else (-1, 1, -1)
        rear_foot, rear_top, front_top, front_foot = shape.cabin
        width, waist = shape.half_width, shape.waist
        self.body = _box((width, shape.rear, shape.front, 0.24), (width - 0.05, shape.rear, shape.front, waist))
        self.cabin = _box((width - 0.07, rear_foot, front_foot, waist), (width - 0.24, rear_top, front_top, shape.roof))

    def add(self, points: Array, color: ArrayLike, **options: Any) -> None:
        self.builder.add(points * self.turn, color, CAR, **options)

    def add_underbody(self) -> None:
        """Tyres seen from behind or from the front, and the dark between them."""
        for name in _ENDS:
            lowered = self.body[name] - (0, 0.24, 0)
            for left, right in ((0.02, 0.16), (0.84, 0.98)):
                self.add(_inset(lowered, left, right, 0.0, 0.5), _RUBBER)
            self.add(_inset(lowered, 0.12, 0.88, 0.18, 0.5), _DARK)

    def add_body(self) -> None:
        for name, face in self.body.items():
            self.add(face, self.color)
            if name in _SIDES:
                self.add(_inset(face, 0.02, 0.98, 0.0, 0.16), self.color * 0.55)
                self.add_wheels(1 if name == "right" else -1)
            elif name in _ENDS:
                self.add(_inset(face, 0.0, 1.0, 0.0, 0.2), _DARK)

    def add_wheels(self, side: int) -> None:
        for z in (self.shape.rear + 0.75, self.shape.front - 0.75):
            for radius, color in ((0.31, _RUBBER), (0.17, (140, 142, 146))):
                across, y, _ = disc(0.0, 0.31, 0.0, radius, radius).T
                x = np.full_like(across, side * self.shape.half_width)
                self.add(np.stack([x, y, z + side * across], axis=1), color)

    def add_cabin(self) -> None:
        for name, face in self.cabin.items():
            self.add(face, self.color)
            if name != "top":
                self.add(_inset(face, 0.06, 0.94, 0.08, 0.9), (62, 70, 80), tile="glass", repeat=(50.0, 1.0))
            if name in _SIDES:
                self.add(_inset(face, 0.5, 0.54, 0.08, 0.9), self.color)

    def add_lights(self) -> None:
        for name, lamp in (("rear", (190, 22, 18)), ("front", (250, 248, 235))):
            for left, right in ((0.03, 0.22), (0.78, 0.97)):
                self.add(_inset(self.body[name], left, right, 0.55, 0.8), lamp, light=FULL_LIGHT)
            self.add(_inset(self.body[name], 0.38, 0.62, 0.35, 0.52), (225, 225, 215))
        self.add(_inset(self.body["front"], 0.26, 0.74, 0.58, 0.76), _DARK)


def car(sun: Sun, shape: CarShape, color: ArrayLike, drives_away: bool) -> Thing:
    """A car on its wheels; one that drives away from the camera shows its rear."""
    builder, shadow = Builder(sun), Builder(sun)
    parts = _CarBuilder(builder, shape, color, drives_away)
    parts.add_underbody()
    parts.add_body()
    parts.add_cabin()
    parts.add_lights()
    footprint = _footprint(shape.half_width, shape.rear, shape.front)
    add_shadow(shadow, _cast(footprint * 0.9, 0.85 * shape.roof, sun), 0.3, 0.42)
    add_shadow(shadow, footprint * 0.97, 0.35, 0.72)
    return Thing(builder.mesh(), shadow.mesh())


# ------------------------------------------------------------------------------------------------------------- pedestrians

COAT_COLORS: tuple[Color, ...] = ((78, 82, 104), (148, 54, 48), (70, 106, 80), (172, 160, 140), (54, 94, 150), (44, 44, 48))
_TROUSERS, _SKIN, _HAIR = np.array((58, 62, 82)), (206, 160, 132), (62, 48, 40)


def pedestrian(sun: Sun, coat: ArrayLike, height: float) -> Thing:
    """A walker, whose limbs are polygons of their own that swing about their joints."""
    builder, shadow = Builder(sun), Builder(sun)
    scale, coat = height / 1.75, np.asarray(coat)
    light = sun.on((0.0, 0.3, -0.95))

    def add(points: ArrayLike, color: ArrayLike, **options: Any) -> None:
        builder.add(np.asarray(points) * scale, color, PEDESTRIAN, light=light, **options)

    def add_limb(x: float, top: float, length: float, width: float, color: ArrayLike, swing: float) -> None:
        left, right, low = x - width / 2, x + width / 2, top - length
        outline = [(left + 0.01, low, 0), (right, low, 0), (right, top, 0), (left, top, 0)]
        add(outline, color, swing=swing, pivot=np.array((x, top, 0)) * scale)

    add_limb(-0.09, 0.9, 0.88, 0.15, _TROUSERS * 0.85, 0.36)
    add_limb(0.09, 0.9, 0.88, 0.15, _TROUSERS, -0.36)
    add_limb(-0.22, 1.42, 0.6, 0.1, coat * 0.8, -0.3)
    add([(-0.17, 0.8, 0), (0.17, 0.8, 0), (0.21, 1.38, 0), (0.12, 1.5, 0), (-0.12, 1.5, 0), (-0.21, 1.38, 0)], coat)
    add_limb(0.22, 1.42, 0.6, 0.1, coat * 0.9, 0.3)
    add(disc(0, 1.62, 0, 0.11, 0.14), _SKIN)
    add(disc(0, 1.68, 0, 0.115, 0.09), _HAIR)
    add_shadow(shadow, _cast(_footprint(0.2, -0.02, 0.02), height, sun), 0.15, 0.4)
    add_shadow(shadow, _footprint(0.25, -0.15, 0.15), 0.15, 0.4)
    return Thing(builder.mesh(), shadow.mesh())


# -------------------------------------------------------------------------------------------------------- trees and poles

_CLUMPS = ((0.0, 0.66, 0.36), (-0.17, 0.58, 0.25), (0.18, 0.6, 0.25), (-0.06, 0.82, 0.24), (0.1, 0.5, 0.22))
"""Across, up and radius of the clumps of leaves of a tree of height 1, the far ones first."""


def tree(sun: Sun, rng: np.random.Generator, height: float, leaf_color: ArrayLike, layer: int) -> Thing:
    """A trunk and overlapping clumps of leaves."""
    builder, shadow = Builder(sun), Builder(sun)
    radius = 0.09 + 0.015 * height
    trunk = upright(-radius, radius, 0, 0.5 * height, 0.3)
    builder.add(trunk, (96, 78, 62), TREE, tile="pipe", repeat=(2 * radius, 3.0), layer=layer)
    for index, (across, up, size) in enumerate(_CLUMPS):
        angles = (np.arange(11) + rng.uniform(-0.35, 0.35, 11)) * (2 * np.pi / 11) - np.pi / 2
        wide = height * size * rng.uniform(0.85, 1.1)
        outline = disc(height * across * rng.uniform(0.8, 1.2), height * up, 0.25 - 0.12 * index, wide, wide * 0.85, angles)
        light = sun.on((0, 0, -1)) * 0.45 + sun.on((0, 1, 0)) * (0.25 + 0.45 * up)
        shift = (float(rng.uniform()), float(rng.uniform()))
        builder.add(outline, leaf_color, TREE, tile="leaves", repeat=(3.2, 3.2), offset=shift, light=light, layer=layer)
    crown = disc(0, 0, 0, 0.38 * height, 0.38 * height)[:, :2]
    add_shadow(shadow, crown + 0.62 * height * sun.shadow, 0.5, 0.4)
    add_shadow(shadow, _cast(_footprint(0.15, -0.02, 0.02), 0.5 * height, sun), 0.1, 0.4)
    add_shadow(shadow, _footprint(0.5, -0.3, 0.3), 0.3, 0.3)
    return Thing(builder.mesh(), shadow.mesh())


def lamp_post(sun: Sun, side: int) -> Thing:
    """A street lamp that reaches over the road from one side (-1 left, 1 right)."""
    builder, shadow = Builder(sun), Builder(sun)
    metal = (92, 98, 100)
    builder.add(upright(-0.13, 0.13, 0, 1.0), metal, POLE, tile="pipe", repeat=(0.26, 3.0))
    builder.add(upright(-0.08, 0.08, 1.0, 7.2), metal, POLE, tile="pipe", repeat=(0.16, 3.0))
    builder.add(upright(0.08 * side, -1.7 * side, 7.08, 7.2), metal, POLE)
    builder.add(upright(-1.1 * side, -1.9 * side, 6.95, 7.12, -0.05), (200, 200, 190), POLE)
    add_shadow(shadow, _cast(_footprint(0.1, -0.02, 0.02), 7.0, sun), 0.05, 0.35)
    return Thing(builder.mesh(), shadow.mesh())


_SIGN_COLORS = (((186, 28, 30), (236, 236, 232)), ((30, 70, 150), (44, 92, 176)))


def sign(sun: Sun, kind: int) -> Thing:
    """A round traffic sign on a post: a prohibition (0) or an order (1)."""
    builder, shadow = Builder(sun), Builder(sun)
    rim, field = _SIGN_COLORS[kind]
    builder.add(upright(-0.05, 0.05, 0, 2.9), (120, 122, 124), POLE)
    builder.add(disc(0, 2.6, -0.05, 0.38, 0.38), rim, POLE)
    builder.add(disc(0, 2.6, -0.06, 0.28, 0.28), field, POLE)
    add_shadow(shadow, _cast(_footprint(0.06, -0.02, 0.02), 2.6, sun), 0.05, 0.35)
    return Thing(builder.mesh(), shadow.mesh())


# --------------------------------------------------------------------------------------------------------------- buildings

BAY = 3.0
FACADES = ("brick", "plaster", "panels")
FACADE_COLORS: tuple[Color, ...] = (
    (176, 104, 82), (214, 200, 170), (168, 168, 166), (202, 168, 118), (160, 172, 184), (188, 138, 108),
)  # fmt: skip
_STOREY, _GROUND_STOREY = 3.1, 3.7
_DEPTH = 11.0


class House(NamedTuple):
    """A building on one side of the street (-1 left, 1 right), `x` metres from its middle, that begins at z = 0."""

    side: int
    x: float
    length: float
    num_storeys: int
    facade: str
    color: Array
    has_shop: bool
    has_pitched_roof: bool

    @property
    def eaves(self) -> float:
        return _GROUND_STOREY + _STOREY * self.num_storeys


def house(sun: Sun, plan: House) -> Thing:
    """A building with a front towards the street and a gable towards the camera."""
    builder, shadow = Builder(sun), Builder(sun)
    side, x, eaves = plan.side, plan.x, plan.eaves
    trim = np.minimum(plan.color * 0.35 + 150, 235)

    def add(points: ArrayLike, color: ArrayLike, **options: Any) -> None:
        builder.add(points, color, BUILDING, layer=BUILDING_LAYER, **options)

    for is_front in (False, True):

        def wall(low: float, high: float, is_front: bool = is_front) -> Array:
            return along(side, x, low, high, plan.length) if is_front else upright(side * x, side * (x + _DEPTH), low, high)

        ground = ("shop" if plan.has_shop else "porch") if is_front else "plain"
        add(wall(0, _GROUND_STOREY), plan.color, tile=ground, repeat=(4 * BAY, _GROUND_STOREY))
        add(wall(_GROUND_STOREY, eaves), plan.color, tile=plan.facade, repeat=(4 * BAY, 4 * _STOREY))
        add(wall(_GROUND_STOREY - 0.12, _GROUND_STOREY + 0.12), trim)
        add(wall(eaves - 0.3, eaves), trim)
    if plan.has_pitched_roof:
        gable = upright(side * x, side * (x + 9), eaves, eaves + 3.2)[[0, 1, 2]]
        gable[2, 0] = side * (x + 4.5)
        add(gable, plan.color)
        add(along(side, x, eaves, eaves + 3.2, plan.length, rise=4.5), (150, 92, 72), tile="roof", repeat=(4.0, 4.0))
    add_shadow(shadow, _cast(np.array([(side * x, 0), (side * x, plan.length)]), eaves, sun), 0.5, 0.42)
    return Thing(builder.mesh(), shadow.mesh())


def hedge(sun: Sun, side: int, x: float, length: float, leaf_color: ArrayLike) -> Thing:
    """A hedge along one side of the street, `x` metres from its middle."""
    builder, shadow = Builder(sun), Builder(sun)
    face = along(side, x, 0, 1.5, length)
    builder.add(face, np.asarray(leaf_color) * 0.85, TREE, tile="leaves", repeat=(2.5, 2.5), layer=BUILDING_LAYER)
    add_shadow(shadow, _cast(np.array([(side * x, 0), (side * x, length)]), 1.5, sun), 0.2, 0.35)
    return Thing(builder.mesh(), shadow.mesh())


# ------------------------------------------------------------------------------------------------------------- the ground

LANE_WIDTH, PARKING_WIDTH, KERB_HEIGHT = 3.3, 2.2, 0.12


def ground(sun: Sun, num_lanes: int, length: float, crossing_z: float | None) -> Mesh:
    """Road with lane markings, kerbs and pavements; a zebra crossing at `crossing_z`."""
    builder = Builder(sun)
    half_road = num_lanes * LANE_WIDTH
    kerb_x = half_road + PARKING_WIDTH
    builder.add(flat(-kerb_x, kerb_x, 0, length), (100, 100, 103), ROAD, tile="asphalt", repeat=(8.0, 8.0), layer=GROUND_LAYER)
    for side in (-1, 1):
        near, far, edge = side * kerb_x, side * (kerb_x + 70), side * (kerb_x + 0.3)
        slabs: dict[str, Any] = {"tile": "slabs", "repeat": (4.0, 4.0), "layer": PAVEMENT_LAYER}
        builder.add(flat(near, far, 0, length, KERB_HEIGHT), (152, 146, 138), PAVEMENT, **slabs)
        builder.add(flat(near, edge, 0, length, KERB_HEIGHT), (176, 174, 168), PAVEMENT, layer=PAVEMENT_LAYER)
        builder.add(along(side, kerb_x, 0, KERB_HEIGHT, length), (150, 148, 144), PAVEMENT, layer=PAVEMENT_LAYER)

    def mark(x: float, width: float, low: float, high: float) -> None:
        builder.add(flat(x - width / 2, x + width / 2, low, high), (226, 226, 220), MARKING, layer=MARKING_LAYER)

    for side in (-1, 1):
        mark(side * (half_road + 0.05), 0.12, 0, length)
    for low in np.arange(0, length, 6.0):
        if low != crossing_z:
            for lane in range(1 - num_lanes, num_lanes):
                mark(lane * LANE_WIDTH, 0.16, low, low + 3.0)
    if crossing_z is not None:
        for x in np.arange(-half_road + 0.6, half_road - 0.3, 1.0):
            mark(float(x), 0.5, crossing_z, crossing_z + 3.0)
    return builder.mesh()
