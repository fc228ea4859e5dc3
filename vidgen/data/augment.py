"""Random deformations of a clip: the same for every frame and for all that belongs to it, and labels stay labels.

A deformation is a map of positions: where in the source each pixel is taken from. Pictures are interpolated there, ids taken
from the nearest pixel; beyond the border the source is reflected.
"""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
from pydantic import Field, model_validator

from vidgen.config import Settings

Probability = Annotated[float, Field(ge=0, le=1)]

_GRID_POINTS = 3


class AugmentSettings(Settings):
    """How clips are deformed; everything is off by default.

    Source: Vinker et al., "Image Shape Manipulation from a Single Augmented Training Sample" (DeepSIM), ICCV 2021, whose values
    are thin_plate 0.99, shear 0.3, translation 0.2, rotation_degrees 1, cutmix 0.5. Where we differ on purpose: control points
    of the border move freely instead of being pinned as well, ids are never interpolated, and the affine part adds to the
    spline instead of replacing it.
    """

    thin_plate: Probability = 0.0
    """Part of the clips that a thin-plate spline bends."""
    thin_plate_shift: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Its 3x3 control points move by up to this part of the width and of the height."""
    shear: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Half of the clips are sheared along both axes by up to this."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Half of the clips are turned by up to this."""
    translation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Half of the clips are shifted by up to this part of the width and of the height."""
    cutmix: Probability = 0.0
    """Part of the clips in which two square patches change places."""
    cutmix_smallest: Annotated[int, Field(ge=1)] = 32
    cutmix_largest: Annotated[int, Field(ge=1)] = 96
    """Side of those patches in pixels of the working size."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentSettings:
        if self.cutmix_smallest > self.cutmix_largest:
            raise ValueError(f"cutmix_smallest {self.cutmix_smallest} exceeds cutmix_largest {self.cutmix_largest}")
        return self


def draw_positions(settings: AugmentSettings, generator: np.random.Generator, size: tuple[int, int]) -> np.ndarray | None:
    """Where each pixel of a clip of `size` (height, width) is taken from, float32 [2,H,W] (row, column) in pixels.

    None where the draw leaves the clip as it is.
    """
    extent = np.maximum(np.array(size, float) - 1, 1)
    spline = generator.random() < settings.thin_plate
    shifts = generator.uniform(-1, 1, (_GRID_POINTS**2, 2)) * settings.thin_plate_shift * extent
    matrix, offset = _draw_affine(settings, generator, extent)
    swapped = generator.random() < settings.cutmix
    patches = _draw_patches(settings, generator, size)
    changed = spline or swapped or offset.any() or not np.array_equal(matrix, np.eye(2))
    if not changed:
        return None
    positions = np.mgrid[: size[0], : size[1]].reshape(2, -1).T.astype(float)
    if spline:
        positions = _bent(positions, shifts, extent)
    positions = (positions - extent / 2) @ matrix.T + extent / 2 + offset
    field = np.ascontiguousarray(positions.T.reshape(2, *size), dtype=np.float32)
    return _swap(field, *patches) if swapped else field


def bent_positions(shifts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where each pixel is taken from when 3x3 control points move by `shifts` [9,2], in shares of the height and width:
    float32 [2,H,W]."""
    extent = np.array(size, float) - 1
    positions = np.mgrid[: size[0], : size[1]].reshape(2, -1).T.astype(float)
    return np.ascontiguousarray(_bent(positions, shifts * extent, extent).T.reshape(2, *size), dtype=np.float32)


def _bent(positions: np.ndarray, shifts: np.ndarray, extent: np.ndarray) -> np.ndarray:
    lines = np.linspace(0, 1, _GRID_POINTS)
    control = np.stack(np.meshgrid(lines, lines, indexing="ij"), axis=-1).reshape(-1, 2) * extent
    return thin_plate_spline(control, control + shifts, positions)


def thin_plate_spline(source: np.ndarray, target: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The smoothest map that takes each `source` point to its `target`, at `points`; all [N,2], in pixels.

    Source: Bookstein, "Principal Warps: Thin-Plate Splines and the Decomposition of Deformations", 1989.
    """
    scale = np.ptp(source, axis=0).max()
    source, points = source / scale, points / scale
    plane = np.column_stack([np.ones(len(source)), source])
    system = np.block([[_bending(source, source), plane], [plane.T, np.zeros((3, 3))]])
    weights = np.linalg.solve(system, np.vstack([target, np.zeros((3, 2))]))
    mapped: np.ndarray = np.column_stack([_bending(points, source), np.ones(len(points)), points]) @ weights
    return mapped


def _bending(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """r^2 log r^2 of every distance, [N,M]."""
    squares = np.square(points[:, None] - centers[None]).sum(-1)
    bending: np.ndarray = squares * np.log(np.where(squares > 0, squares, 1))
    return bending


def _draw_affine(settings: AugmentSettings, generator: np.random.Generator, extent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(matrix [2,2], offset [2]) on (row, column) around the centre."""
    chosen = generator.random(3) < 0.5
    shear = generator.uniform(-1, 1, 2) * settings.shear * chosen[0]
    angle = np.radians(generator.uniform(-1, 1) * settings.rotation_degrees * chosen[1])
    offset = generator.uniform(-1, 1, 2) * settings.translation * chosen[2] * extent
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turned @ np.array([[1, shear[0]], [shear[1], 1]]), offset


def _draw_patches(
    settings: AugmentSettings, generator: np.random.Generator, size: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    side = min(int(generator.integers(settings.cutmix_smallest, settings.cutmix_largest + 1)), *size)
    corners = generator.integers(0, np.array(size) - side + 1, (2, 2)).tolist()
    first, second = ((slice(top, top + side), slice(left, left + side)) for top, left in corners)
    return first, second


def _swap(field: np.ndarray, first: tuple[slice, slice], second: tuple[slice, slice]) -> np.ndarray:
    swapped = field.copy()
    swapped[:, *first], swapped[:, *second] = field[:, *second], field[:, *first]
    return swapped


def deform(array: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """`array` [...,H,W] with each pixel taken from `positions`: uint8 pictures interpolated, any other dtype from the nearest."""
    if array.dtype != np.uint8:
        rows, columns = (
            _reflected(np.rint(places).astype(int), length) for places, length in zip(positions, array.shape[-2:], strict=True)
        )
        return array[..., rows, columns]
    planes = array.reshape(-1, *array.shape[-2:])
    made = [cv2.remap(plane, positions[1], positions[0], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101) for plane in planes]
    return np.stack(made).reshape(array.shape) if made else array


def _reflected(places: np.ndarray, length: int) -> np.ndarray:
    """Whole positions folded back into 0..length-1, as a mirror at the outermost pixels does."""
    period = max(1, 2 * (length - 1))
    folded = places % period
    return np.minimum(folded, period - folded)
