"""One street that follows from its seed: what is where at any time, and the camera that drives along it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from vidgen.data.street import things
from vidgen.data.street.polygons import (
    BUILDING_LAYER,
    OBJECT_LAYER,
    Builder,
    Mesh,
    Sun,
    join,
)
from vidgen.data.street.textures import Array, Color
from vidgen.data.street.things import CAR, PEDESTRIAN, SKY, House, Thing

_CHUNK_LENGTH = 48.0
_NUM_CHUNKS = 6
_NUM_SHADED_CHUNKS = 3
_PAVEMENT_WIDTH = 4.2
_SIGHT = {CAR: 4 * _CHUNK_LENGTH, PEDESTRIAN: 2.5 * _CHUNK_LENGTH}
"""Metres ahead of the camera at which moving things appear, as small as a few pixels."""
_PLOTS_PER_CHUNK, _BAYS_PER_CHUNK = 4, 16
_PARKING_PER_SIDE = 6
_NUM_PARKING_INSTANCES = 600
"""The instance numbers of cars from here on belong to traffic."""
_ORIGIN = 2**20
"""Added to the numbers of chunks and slots, which may be negative, where they make a seed or an id."""
_SIDE_WEIGHT = 1.5
_SKY_THING, _GROUND_THING = 0, 1
_THINGS_PER_CHUNK, _PARTS_PER_MOVER = 1024, 16


_Placed = tuple[Thing, float, float, float]
"""A thing and its x, y, z."""


class Camera(NamedTuple):
    """`matrix` takes a ray from `center` to homogeneous pixel coordinates whose third component is the depth."""

    matrix: Array
    center: Array

    def homographies(self, frames: Array) -> Array:
        """From (u, v, 1) on each plane [n,3,3] to the image."""
        frames = frames.copy()
        frames[:, :, 2] -= self.center
        return self.matrix @ frames


class Scene(NamedTuple):
    """What may be seen at a time: the first polygon is the sky.

    Attributes:
        mesh: all polygons.
        frames_before: [n,3,3], where their planes were one frame earlier.
        shadows: polygons on the ground.
        camera, camera_before: now and one frame earlier.
    """

    mesh: Mesh
    frames_before: Array
    shadows: Mesh
    camera: Camera
    camera_before: Camera


class _Stream(NamedTuple):
    """Things that follow each other along the street, one in most of the slots.

    Attributes:
        label: class id.
        first_instance: the first of its instance numbers, and
        num_instances: how many it has before they repeat.
        x: where across the street.
        spacing: metres from slot to slot.
        speed: of the slots, metres per second; None where they go with the camera.
    """

    label: int
    first_instance: int
    num_instances: int
    x: float
    spacing: float
    speed: float | None


class _Draw(NamedTuple):
    """What chance decides about the thing in a slot: its place in fractions of the slot, its gait, and its looks."""

    jitter: float
    phase: float
    thing: Thing


def _put_sides_behind(surfaces: Array, camera_x: float) -> None:
    """Make what stands farther to the side count as farther away.

    Along the street things are longer than the gaps between them, so z alone puts a parked car before one that passes it. Nothing
    can hide what is nearer to the camera's line, so the side may weigh more than it does in the true distance.
    """
    objects = surfaces["layer"] == OBJECT_LAYER
    surfaces["distance"][objects] += _SIDE_WEIGHT * np.abs(surfaces["across"][objects] - camera_x)


class World:
    """Everything about one street."""

    def __init__(self, seed: int, variety: float, speed: float | None) -> None:
        self._seed, self._variety = seed, variety
        rng = np.random.default_rng([seed, 0])
        self._num_lanes = int(rng.choice([1, 1, 2]))
        self._kerb_x = self._num_lanes * things.LANE_WIDTH + things.PARKING_WIDTH
        drawn = float(rng.uniform(4.0, 8.0))
        self._speed = drawn if speed is None else speed
        self._lane_x = (int(rng.integers(self._num_lanes)) + 0.5) * things.LANE_WIDTH
        self._phases = rng.uniform(0, 2 * np.pi, 4)
        self._sun = self._make_sun(rng)
        self.haze = np.clip(np.array([206.0, 214.0, 222.0]) + variety * rng.normal(0, 14, 3), 0, 255)
        self._sky = self._make_sky(rng)
        self._house_weights = rng.dirichlet(np.full(len(things.FACADE_COLORS), 1.5))
        self._leaf_color = np.array([104.0, 130.0, 92.0]) + variety * rng.normal(0, 16, 3)
        self._streams = self._make_streams(rng)
        self._chunk = lru_cache(maxsize=2 * _NUM_CHUNKS)(self._make_chunk)
        self._car = lru_cache(maxsize=None)(self._make_car)
        self._pedestrian = lru_cache(maxsize=None)(self._make_pedestrian)
        self._draw = lru_cache(maxsize=256)(self._make_draw)

    def scene(self, time: float, time_before: float, height: int, width: int) -> Scene:
        """What the camera may see at a time, and where it was at another, for frames of `height` by `width` pixels."""
        camera, camera_before = (self._camera(when, height, width) for when in (time, time_before))
        first = math.floor(camera.center[2] / _CHUNK_LENGTH)
        chunks = [self._chunk(index) for index in range(first, first + _NUM_CHUNKS)]
        meshes = [self._sky, *(chunk.mesh for chunk in chunks)]
        frames_before = [mesh.surfaces["frame"] for mesh in meshes]
        shadows = [chunk.shadow for chunk in chunks[:_NUM_SHADED_CHUNKS]]
        for mesh, shadow, before in self._movers(time, time_before):
            meshes.append(mesh)
            shadows.append(shadow)
            frames_before.append(before)
        mesh = join(meshes)
        _put_sides_behind(mesh.surfaces, camera.center[0])
        return Scene(mesh, np.concatenate(frames_before), join(shadows), camera, camera_before)

    # -- the drive

    def _travelled(self, time: float) -> float:
        """Metres from the start of the street to the camera."""
        return self._speed * (time + 0.35 * math.sin(0.7 * time + self._phases[0]))

    def _camera(self, time: float, height: int, width: int) -> Camera:
        """Sways with the distance travelled, so that a camera of speed 0 stands perfectly still."""
        distance = self._travelled(time)
        first, second, third = self._phases[1:]
        yaw = 0.045 * math.sin(distance / 17 + first) + 0.02 * math.sin(distance / 7.3 + second)
        pitch = 0.01 + 0.004 * math.sin(distance / 3.1 + third)
        roll = 0.006 * math.sin(distance / 5.7 + first)
        forward = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)])
        level = np.array([math.cos(yaw), 0.0, -math.sin(yaw)])
        plumb = np.cross(level, forward)
        right = level * math.cos(roll) + plumb * math.sin(roll)
        down = plumb * math.cos(roll) - level * math.sin(roll)
        focal = 0.78 * max(width, height)
        lens = np.array([[focal, 0, (width - 1) / 2], [0, focal, 0.47 * (height - 1)], [0, 0, 1]])
        center = np.array([self._lane_x + 0.3 * math.sin(distance / 23 + third), 1.55, distance])
        return Camera(lens @ np.stack([right, down, forward]), center)

    # -- light and colours

    def _make_sun(self, rng: np.random.Generator) -> Sun:
        """Never ahead, so that what faces the camera is lit."""
        elevation, azimuth = rng.uniform(0.65, 1.0), rng.choice([-1, 1]) * rng.uniform(0.5, 1.2)
        level = math.cos(elevation)
        direction = np.array([math.sin(azimuth) * level, math.sin(elevation), -math.cos(azimuth) * level])
        warmth = self._variety * rng.normal(0, 0.06)
        sunlight, skylight = np.array([0.62 + warmth, 0.59, 0.53 - warmth]), np.array([0.60, 0.63, 0.68])
        return Sun(direction, -direction[[0, 2]] / direction[1], sunlight, skylight)

    def _make_sky(self, rng: np.random.Generator) -> Mesh:
        """A plane of clouds high above; its haze makes the gradient down to the horizon."""
        builder = Builder(self._sun)
        plane, shift = [(-1, 400, 0), (1, 400, 0), (1, 400, -1)], (float(rng.uniform()), float(rng.uniform()))
        look: dict[str, Any] = {"tile": "sky", "repeat": (1300.0, 1300.0), "offset": shift, "haze": 1 / 1500}
        builder.add(plane, (128, 128, 128), SKY, light=things.FULL_LIGHT, **look)
        return builder.mesh().marked(thing=_SKY_THING)

    def _vary(self, colors: Sequence[Color], index: int) -> Array:
        """A colour of a palette pulled towards the palette's mean, the less the more variety is wanted."""
        mean = np.mean(colors, axis=0)
        return mean + (np.asarray(colors[index]) - mean) * min(1.0, math.sqrt(self._variety))

    # -- what stands

    def _make_chunk(self, index: int) -> Thing:
        """The standing things of the stretch of street from index * 48 m on."""
        rng = np.random.default_rng([self._seed, 1, index + _ORIGIN])
        z0 = index * _CHUNK_LENGTH
        crossing_z = 6.0 * int(rng.integers(3, 6)) if rng.random() < 0.35 else None
        ground = things.ground(self._sun, self._num_lanes, _CHUNK_LENGTH, crossing_z)
        meshes, shadows = [ground.moved((0, 0, z0), thing=_GROUND_THING)], []
        first_thing = (index + _ORIGIN) * _THINGS_PER_CHUNK
        for number, (thing, x, y, z) in enumerate(self._standing(rng, index)):
            meshes.append(thing.mesh.moved((x, y, z0 + z), thing=first_thing + number))
            shadows.append(thing.shadow.moved((x, y, z0 + z)))
        return Thing(join(meshes), join(shadows))

    def _standing(self, rng: np.random.Generator, index: int) -> Iterator[_Placed]:
        """What stands in a chunk, and where in it."""
        for side in (-1, 1):
            yield from self._buildings(rng, side)
            yield from self._kerbside(rng, side)
            yield from self._parked(rng, side, index)

    def _buildings(self, rng: np.random.Generator, side: int) -> Iterator[_Placed]:
        facade_x = self._kerb_x + _PAVEMENT_WIDTH
        bay = 0
        while bay < _BAYS_PER_CHUNK:
            num_bays = min(int(rng.integers(3, 8)), _BAYS_PER_CHUNK - bay)
            z, length = bay * things.BAY, num_bays * things.BAY
            bay += num_bays
            if num_bays < 3 or rng.random() < 0.1:
                for distance in (9.0, 4.0):
                    tree = things.tree(self._sun, rng, rng.uniform(6, 9), self._leaf_color, BUILDING_LAYER)
                    yield tree, side * (facade_x + distance), things.KERB_HEIGHT, z + rng.uniform(1, length - 1)
                yield things.hedge(self._sun, side, facade_x + 0.6, length, self._leaf_color), 0.0, things.KERB_HEIGHT, z
            else:
                yield things.house(self._sun, self._plan_house(rng, side, facade_x, length)), 0.0, things.KERB_HEIGHT, z

    def _plan_house(self, rng: np.random.Generator, side: int, facade_x: float, length: float) -> House:
        return House(
            side=side,
            x=facade_x + float(rng.choice([0.0, 0.0, 0.6, 1.2])),
            length=length,
            num_storeys=int(rng.integers(1, 5)),
            facade=str(rng.choice(things.FACADES)),
            color=self._vary(things.FACADE_COLORS, int(rng.choice(len(things.FACADE_COLORS), p=self._house_weights))),
            has_shop=bool(rng.random() < 0.5),
            has_pitched_roof=bool(rng.random() < 0.55),
        )

    def _kerbside(self, rng: np.random.Generator, side: int) -> Iterator[_Placed]:
        """Trees, lamps and signs."""
        plot = _CHUNK_LENGTH / _PLOTS_PER_CHUNK
        for number in range(_PLOTS_PER_CHUNK):
            z = number * plot + rng.uniform(2, 5)
            if rng.random() < 0.62:
                tree = things.tree(self._sun, rng, rng.uniform(4.5, 7.0), self._leaf_color, OBJECT_LAYER)
                yield tree, side * (self._kerb_x + 0.9), things.KERB_HEIGHT, z
        for z in (9.0, 33.0) if side < 0 else (21.0, 45.0):
            yield things.lamp_post(self._sun, side), side * (self._kerb_x + 0.5), things.KERB_HEIGHT, z
        if rng.random() < 0.6:
            traffic_sign = things.sign(self._sun, int(rng.integers(2)))
            z = plot * int(rng.integers(_PLOTS_PER_CHUNK)) + rng.uniform(10, 11.5)
            yield traffic_sign, side * (self._kerb_x + 0.45), things.KERB_HEIGHT, z

    def _parked(self, rng: np.random.Generator, side: int, index: int) -> Iterator[_Placed]:
        spacing = _CHUNK_LENGTH / _PARKING_PER_SIDE
        for number in range(_PARKING_PER_SIDE):
            z = number * spacing + rng.uniform(3, 5)
            car = self._car(int(rng.integers(len(things.CAR_SHAPES))), int(rng.integers(len(things.CAR_COLORS))), side > 0)
            if rng.random() < 0.6:
                place = 2 * (index * _PARKING_PER_SIDE + number) + (side > 0)
                mesh = car.mesh.marked(instance=1000 * CAR + place % _NUM_PARKING_INSTANCES)
                yield car._replace(mesh=mesh), side * (self._kerb_x - 1.05), 0.0, z

    def _make_car(self, shape: int, color: int, drives_away: bool) -> Thing:
        return things.car(self._sun, things.CAR_SHAPES[shape], self._vary(things.CAR_COLORS, color), drives_away)

    def _make_pedestrian(self, coat: int, size: int) -> Thing:
        return things.pedestrian(self._sun, self._vary(things.COAT_COLORS, coat), 1.6 + 0.08 * size)

    # -- what moves

    def _make_streams(self, rng: np.random.Generator) -> list[_Stream]:
        oncoming = float(rng.uniform(4.0, 9.0))
        streams = []
        for lane in range(self._num_lanes):
            x = (lane + 0.5) * things.LANE_WIDTH
            speed = None if x == self._lane_x else 1.15 * self._speed
            streams.append(_Stream(CAR, _NUM_PARKING_INSTANCES + 200 * lane, 100, -x, 27.0, -oncoming * (1 + 0.15 * lane)))
            streams.append(_Stream(CAR, _NUM_PARKING_INSTANCES + 100 + 200 * lane, 100, x, 27.0, speed))
        for number, (side, way) in enumerate((side, way) for side in (-1, 1) for way in (-1, 1)):
            x = side * (self._kerb_x + 0.6 * _PAVEMENT_WIDTH + 0.55 * way)
            streams.append(_Stream(PEDESTRIAN, 250 * number, 250, x, 10.0, way * float(rng.uniform(1.1, 1.5))))
        return streams

    def _movers(self, time: float, time_before: float) -> Iterator[tuple[Mesh, Mesh, Array]]:
        """Polygons and shadow of each thing that moves, and where its planes were one frame earlier."""
        camera_z = self._travelled(time)
        for number, stream in enumerate(self._streams):
            begin = camera_z - self._shift(stream, time)
            first, last = math.floor(begin / stream.spacing) - 1, math.floor((begin + _SIGHT[stream.label]) / stream.spacing)
            for slot in range(max(first, 0) if stream.speed is None else first, last + 1):
                draw = self._draw(number, slot)
                if draw is None:
                    continue
                position, position_before = (self._position(stream, slot, draw, when) for when in (time, time_before))
                swing, swing_before = (math.sin(2 * np.pi * 0.9 * when + draw.phase) for when in (time, time_before))
                mesh = draw.thing.mesh.moved(position, swing)
                yield mesh, draw.thing.shadow.moved(position), draw.thing.mesh.frames_at(position_before, swing_before)

    def _shift(self, stream: _Stream, time: float) -> float:
        """Metres by which the slots of a stream have moved."""
        return self._travelled(time) if stream.speed is None else stream.speed * time

    def _position(self, stream: _Stream, slot: int, draw: _Draw, time: float) -> Array:
        z = stream.spacing * (slot + draw.jitter) + self._shift(stream, time)
        if stream.speed is None:  # ahead of the camera in its lane, now nearer, now farther
            z += 13.0 + 0.25 * self._speed * math.sin(0.5 * time + draw.phase)
        return np.array([stream.x, things.KERB_HEIGHT if stream.label == PEDESTRIAN else 0.0, z])

    def _make_draw(self, number: int, slot: int) -> _Draw | None:
        """The thing in a slot of a stream, if there is one."""
        rng = np.random.default_rng([self._seed, 2, number, slot + _ORIGIN])
        chance, jitter, phase = rng.random(), rng.uniform(0, 0.55), rng.uniform(0, 2 * np.pi)
        if chance > 0.6:
            return None
        stream = self._streams[number]
        if stream.label == CAR:
            shape, color = int(rng.integers(len(things.CAR_SHAPES))), int(rng.integers(len(things.CAR_COLORS)))
            thing = self._car(shape, color, stream.x > 0)
        else:
            thing = self._pedestrian(int(rng.integers(len(things.COAT_COLORS))), int(rng.integers(4)))
        # limbs pass in front of each other at one depth, so each counts as a thing of its own
        parts = np.arange(len(thing.mesh.counts)) if stream.label == PEDESTRIAN else 0
        first_part = -((number * 4 * _ORIGIN + slot + _ORIGIN) * _PARTS_PER_MOVER)
        instance = 1000 * stream.label + stream.first_instance + slot % stream.num_instances
        return _Draw(jitter, phase, thing._replace(mesh=thing.mesh.marked(thing=first_part - parts, instance=instance)))
