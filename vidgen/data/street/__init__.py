"""A procedural street seen from a driving car, with exact labels, instances, optical flow and occlusion.

Everything in it is a flat polygon with a texture that sticks to it, so depth and motion of every pixel are known in closed
form, and any frame of any size follows from the seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidgen.data.street import rendering
from vidgen.data.street.textures import Array
from vidgen.data.street.things import CLASSES
from vidgen.data.street.world import World
from vidgen.media import images

__all__ = ["CLASSES", "Street", "StreetFrame", "write_clip"]


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


@dataclass(frozen=True)
class Street:
    """A street of one seed, seen from a car that drives along it.

    Attributes:
        seed: decides the houses, the trees, the traffic, the light and the drive; not negative.
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

    def __post_init__(self) -> None:
        if self.seed < 0 or self.height < 1 or self.width < 1 or self.fps < 1 or not 0 <= self.variety <= 1:
            raise ValueError(f"{self}: seed must not be negative, height, width and fps at least 1, variety 0..1")

    def frames(self, num_frames: int, start: int = 0) -> Iterator[StreetFrame]:
        """Frames start .. start + num_frames - 1; each depends on nothing but the street and its own number."""
        world = World(self.seed, self.variety, self.speed)
        before = self._rasterize(world, start - 1) if start > 0 else None
        for number in range(start, start + num_frames):
            now = self._rasterize(world, number)
            yield _frame(now, before, world.haze)
            before = now

    def _rasterize(self, world: World, number: int) -> rendering.Raster:
        time, time_before = number / self.fps, max(number - 1, 0) / self.fps
        return rendering.rasterize(world.scene(time, time_before, self.height, self.width), self.height, self.width)


def _frame(now: rendering.Raster, before: rendering.Raster | None, haze: Array) -> StreetFrame:
    surfaces, pixels = now.scene.mesh.surfaces, now.pixels
    if before is None:
        flow, occluded = np.zeros((*pixels.shape, 2), dtype=np.float32), np.ones(pixels.shape, dtype=bool)
    else:
        flow, occluded = rendering.flow(now, before)
    image = rendering.shade(now, haze)
    return StreetFrame(image, surfaces["label"].take(pixels), surfaces["instance"].take(pixels), flow, occluded)


def write_clip(folder: Path, street: Street, num_frames: int, *, start: int = 0, sequence: str | None = None) -> None:
    """Write <folder>/{images,labels,instances}/<sequence>/%05d.png; the sequence is named after the seed by default.

    Raises:
        OutputError: the disk is full or read-only.
    """
    sequence = f"street{street.seed:04d}" if sequence is None else sequence
    for number, frame in enumerate(street.frames(num_frames, start), start):
        for kind, pixels in (("images", frame.image), ("labels", frame.labels), ("instances", frame.instances)):
            images.write_png(folder / kind / sequence / f"{number:05d}.png", pixels)
