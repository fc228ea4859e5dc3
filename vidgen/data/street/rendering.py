"""From a scene to its picture, its labels and its exact flow.

The image of a plane is a homography, so one matrix per polygon gives depth, texture coordinates and, together with the plane's
place one frame earlier, the flow of each pixel. Polygons are filled into a buffer of polygon numbers, far to near, at twice the
size of the image; then every sample is coloured from textures that are anchored to the surfaces, and the picture is halved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from vidgen.data.street import textures, things
from vidgen.data.street.polygons import MARKING_LAYER, Mesh, cross
from vidgen.data.street.textures import Array
from vidgen.data.street.world import Scene

_NEAR = 0.4
_SMALLEST = 0.15
"""Samples; thinner polygons are left out."""
_SUBPIXEL_BITS = 4
_SAME_DEPTH = 0.01
"""Relative difference of depth within which a point is found again."""
_ROUNDING = 1e-6
"""Pixels; what stands still at the border must not be taken to have left the frame."""


def _inverse(matrices: Array) -> tuple[Array, Array]:
    """Inverses [n,3,3] by cofactors and determinants [n]; planes seen edge-on get a meaningless but finite inverse."""
    a, b, c = matrices[:, 0], matrices[:, 1], matrices[:, 2]
    adjugate = np.stack([cross(b, c), cross(c, a), cross(a, b)], axis=2)
    determinants = np.einsum("ni,ni->n", a, adjugate[:, :, 0])
    safe = np.where(np.abs(determinants) < 1e-12, 1.0, determinants)
    return adjugate / safe[:, None, None], determinants


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


def _paint(buffer: Array, mesh: Mesh, matrices: Array, facing: Array, values: Sequence[float]) -> None:
    """Fill polygons with their values, far to near, into a buffer of twice the size of the image.

    Args:
        buffer: [2H,2W], changed.
        matrices: [n,3,3], from a polygon's plane to image coordinates of the single size.
        facing: bool [n], which polygons show their front.
    """
    matrices = np.repeat(matrices * np.array([2.0, 2.0, 1.0])[:, None], mesh.counts, axis=0)
    points = matrices[:, :, 0] * mesh.corners[:, :1] + matrices[:, :, 1] * mesh.corners[:, 1:] + matrices[:, :, 2]
    stops = np.cumsum(mesh.counts)
    starts = stops - mesh.counts
    depth = points[:, 2]
    pixels = points[:, :2] / np.maximum(depth, _NEAR)[:, None]
    low, high = np.minimum.reduceat(pixels, starts), np.maximum.reduceat(pixels, starts)
    before_near = np.minimum.reduceat(depth, starts) >= _NEAR
    visible = before_near & np.all((high > 0) & (low < buffer.shape[::-1]) & (high - low > _SMALLEST), axis=1)
    crossing = ~before_near & (np.maximum.reduceat(depth, starts) > _NEAR)
    order = np.lexsort((-mesh.surfaces["distance"], mesh.surfaces["layer"]))
    order = order[(facing & (visible | crossing))[order]]
    fixed = _fixed_point(pixels)
    columns = (column.tolist() for column in (order, starts[order], stops[order], crossing[order]))
    for index, start, stop, crosses in zip(*columns, strict=True):
        if crosses:
            clipped = _clip_near(points[start:stop])
            outline = _fixed_point(clipped[:, :2] / clipped[:, 2:])
        else:
            outline = fixed[start:stop]
        cv2.fillConvexPoly(buffer, outline, values[index], cv2.LINE_8, _SUBPIXEL_BITS)


def _fixed_point(pixels: Array) -> Array:
    return np.rint(np.clip(pixels, -(2**20), 2**20) * 2**_SUBPIXEL_BITS).astype(np.int32)


class Raster(NamedTuple):
    """Which polygon is seen where.

    Attributes:
        scene: what was drawn.
        samples: int64 [2H,2W], polygon numbers; the even samples are the pixels' centres.
        inverses: [n,3,3], takes an image point (x, y, 1) to (u, v, 1) / depth on each polygon.
        determinants: [n], of the homographies.
    """

    scene: Scene
    samples: Array
    inverses: Array
    determinants: Array

    @property
    def pixels(self) -> Array:
        """int64 [H,W], the polygon at the centre of each pixel."""
        return self.samples[::2, ::2]


def rasterize(scene: Scene, height: int, width: int) -> Raster:
    """Decide which polygon is seen where in a frame of `height` by `width` pixels."""
    matrices = scene.camera.homographies(scene.mesh.surfaces["frame"])
    inverses, determinants = _inverse(matrices)
    facing = determinants < 0
    facing[0] = False
    samples = np.zeros((2 * height, 2 * width), dtype=np.int32)
    _paint(samples, scene.mesh, matrices, facing, range(len(facing)))
    return Raster(scene, samples.astype(np.int64), inverses, determinants)


def _light_on_ground(raster: Raster) -> Array:
    """uint8 [2H,2W], 255 in full light."""
    scene, light = raster.scene, np.full(raster.samples.shape, 255, dtype=np.uint8)
    matrices = scene.camera.homographies(scene.shadows.surfaces["frame"])
    _paint(light, scene.shadows, matrices, _inverse(matrices)[1] < 0, scene.shadows.surfaces["tint"][:, 0].tolist())
    return cv2.blur(light, (3, 3))


_BAND = 64
"""Rows that are coloured at once; their intermediate values stay in the processor's cache."""


class _Palette(NamedTuple):
    """Per polygon, what colouring needs; float32 [n] unless said otherwise.

    Attributes:
        to_texture: [3,3,n], takes (column, row, 1) of a sample to (u, v, 1) / depth, u and v in repeats of the texture.
        level: the texture level at depth 1; it grows by 3 as the depth doubles.
        top: row of the texture in the atlas.
        haze: squared.
        tint: uint32 [n], four bytes.
        glow: uint8 [n], least light; 255 where shadows never fall.
    """

    to_texture: Array
    level: Array
    top: Array
    haze: Array
    tint: Array
    glow: Array


def _palette(raster: Raster, atlas: textures.Atlas) -> _Palette:
    surfaces = raster.scene.mesh.surfaces
    repeats, offsets = surfaces["texture"][:, :2], surfaces["texture"][:, 2:]
    scaled = np.concatenate([raster.inverses[:, :2] * repeats[:, :, None], raster.inverses[:, 2:]], axis=1)
    scaled[:, :2] += offsets[:, :, None] * raster.inverses[:, 2:]
    scaled *= (0.5, 0.5, 1.0)  # samples are half a pixel apart
    focal = 2 * np.linalg.norm(raster.scene.camera.matrix[0])
    # a sample covers depth / focal across and depth^2 / (focal * distance of the plane) along: the mean of both decides
    plane_distance = np.maximum(np.abs(raster.determinants) * (2 / focal) ** 2, 1e-3)
    density = textures.SIZE * np.sqrt(repeats.prod(axis=1)) / focal
    tint = np.zeros((len(surfaces), 4), dtype=np.uint8)
    tint[:, :3] = surfaces["tint"]
    on_ground = (surfaces["layer"] <= MARKING_LAYER) & (surfaces["label"] != things.SKY)
    return _Palette(
        to_texture=np.ascontiguousarray(scaled.transpose(1, 2, 0), dtype=np.float32),
        level=(2 * np.log2(density) - np.log2(plane_distance)).astype(np.float32),
        top=atlas.tops[surfaces["tile"]],
        haze=surfaces["haze"] ** 2,
        tint=tint.view(np.uint32)[:, 0],
        glow=np.where(on_ground, 0, 255).astype(np.uint8),
    )


def shade(raster: Raster, haze: Array) -> Array:
    """The picture, uint8 [H,W,3]; `haze` [3] is the colour of the far distance."""
    atlas = textures.atlas()
    palette, light = _palette(raster, atlas), _light_on_ground(raster)
    gray = _words(np.repeat(np.arange(256)[:, None], 4, axis=1))
    veil = _words(np.append(np.rint(haze * (1 - np.arange(256)[:, None] / 255)), np.zeros((256, 1)), axis=1))
    height, width = raster.samples.shape
    picture = np.empty((height, width, 4), dtype=np.uint8)
    for start in range(0, height, _BAND):
        band = slice(start, start + _BAND)
        ids = raster.samples[band]
        columns, rows, depth = _texture_places(palette, atlas, ids, start)
        color = cv2.remap(atlas.texture, columns, rows, cv2.INTER_LINEAR)
        color = cv2.multiply(color, _bytes(palette.tint.take(ids)), scale=1 / textures.NEUTRAL)
        clearness = (255 / (1 + palette.haze.take(ids) * depth * depth)).astype(np.uint8)
        seen = cv2.multiply(clearness, np.maximum(light[band], palette.glow.take(ids)), scale=1 / 255)
        color = cv2.multiply(color, _bytes(gray.take(np.asarray(seen))), scale=1 / 255)
        picture[band] = cv2.add(color, _bytes(veil.take(clearness)))
    return np.ascontiguousarray(cv2.pyrDown(picture)[:, :, :3])


def _texture_places(palette: _Palette, atlas: textures.Atlas, ids: Array, first_row: int) -> tuple[Array, Array, Array]:
    """Columns and rows in the atlas, and depth, of the samples of a band, float32."""
    x = np.arange(ids.shape[1], dtype=np.float32)
    y = np.arange(first_row, first_row + len(ids), dtype=np.float32)[:, None]
    u, v, closeness = (_project(row, ids, x, y) for row in palette.to_texture)
    depth = 1 / np.maximum(closeness, np.float32(1e-5))
    u, v = u * depth, v * depth
    level = np.clip(palette.level.take(ids) + 3 * np.log2(depth), 0, textures.NUM_LEVELS - 1).astype(np.intp)
    size = atlas.sizes.take(level)
    columns = atlas.lefts.take(level) + (u - np.floor(u)) * size
    rows = palette.top.take(ids) + (v - np.floor(v)) * size
    return columns, rows, depth


def _project(row: Array, ids: Array, x: Array, y: Array) -> Array:
    """One row [3,n] of each pixel's own matrix times (x, y, 1)."""
    return row[0].take(ids) * x + row[1].take(ids) * y + row[2].take(ids)


def _words(table: Array) -> Array:
    """Rows of four byte values as uint32 [n], which are looked up faster."""
    return np.ascontiguousarray(table, dtype=np.uint8).view(np.uint32)[:, 0]


def _bytes(words: Array) -> Array:
    return words.view(np.uint8).reshape(*words.shape, 4)


def flow(now: Raster, before: Raster) -> tuple[Array, Array]:
    """Flow float32 [H,W,2] into the previous frame, and bool [H,W] where it leads outside or to something else."""
    surfaces, surfaces_before, ids = now.scene.mesh.surfaces, before.scene.mesh.surfaces, now.pixels
    height, width = ids.shape
    x, y = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)[:, None]
    matrices = now.scene.camera_before.homographies(now.scene.frames_before) @ now.inverses
    x_before, y_before, stretch = (_project(row, ids, x, y) for row in np.ascontiguousarray(matrices.transpose(1, 2, 0)))
    x_before /= stretch
    y_before /= stretch

    left, top, right, bottom = -_ROUNDING, -_ROUNDING, width - 1 + _ROUNDING, height - 1 + _ROUNDING
    outside = (x_before < left) | (x_before > right) | (y_before < top) | (y_before > bottom) | (stretch <= 0)
    row = np.clip(np.rint(y_before), 0, height - 1).astype(np.intp)
    column = np.clip(np.rint(x_before), 0, width - 1).astype(np.intp)
    found = before.pixels[row, column]
    expected = _project(now.inverses[:, 2].T, ids, x, y) / stretch
    closeness = _project(before.inverses[:, 2].T, found, x_before, y_before)
    same_depth = np.abs(closeness - expected) <= _SAME_DEPTH * np.abs(expected) + 1e-6
    same_thing = surfaces_before["thing"].take(found) == surfaces["thing"].take(ids)
    return np.stack([x_before - x, y_before - y], axis=-1).astype(np.float32), outside | ~(same_depth & same_thing)
