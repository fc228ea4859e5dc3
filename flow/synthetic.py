"""Training pairs with exact flow, made on the fly: textured layers that turn, zoom, bend and slide over each other.

Source: the layered 2-D recipe of FlyingChairs (Dosovitskiy et al., ICCV 2015). Motions have a heavy tail, so that a few are large.
A pair is a pure function of (seed, step, index).

The motion of a layer is a function from the first image into the second, and the layer's look is defined in the second: the first
is the same look fetched along the motion. So any smooth motion, not only an invertible one, has exact flow and exact occlusion.

Pairs whose flow is known from elsewhere (renders, label maps of renders) can be mixed in; crops of them are varied in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError

_PHOTOGRAPH_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_MAX_PHOTOGRAPH_SIDE = 640
_PROCEDURAL_SIDE = 256
_STILL_SHARE = 0.08
_CALM_SHARE = 0.25
_UNTOUCHED_SHARE = 0.15

Texture = np.ndarray
"""float32 [H,W,3], RGB in 0..1."""


class KnownPair(NamedTuple):
    """Two images and the flow between them, known from elsewhere.

    Attributes:
        first, second: uint8 [H,W,3], RGB.
        flow: float [H,W,2], pixels, from the grid of `first` into `second`; finite. float16 is precise enough, and half the size.
        visible: bool [H,W]; False where `second` does not show the point.
    """

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    visible: np.ndarray

    def check(self, where: str) -> None:
        """Refuse what cannot be trained on.

        Raises:
            FlowError: a shape, a type or a value is wrong.
        """
        size = self.flow.shape[:2]
        wanted = {
            "first": ((*size, 3), "uint8"),
            "second": ((*size, 3), "uint8"),
            "flow": ((*size, 2), "float"),
            "visible": (size, "bool"),
        }
        for name, (shape, kind) in wanted.items():
            array = getattr(self, name)
            if array.shape != shape or not array.dtype.name.startswith(kind):
                raise FlowError(f"{where}: {name} must be {kind} {list(shape)}, is {array.dtype} {list(array.shape)}")
        if not np.isfinite(self.flow).all():
            raise FlowError(f"{where}: flow holds NaN or infinity")


@dataclass(frozen=True)
class Pairs:
    """Image pairs with their truth.

    Attributes:
        first, second: float32 [N,3,H,W] in -1..1.
        flow: float32 [N,2,H,W], pixels, from the grid of `first` into `second`.
        visible: bool [N,1,H,W]; False where the second image does not show the point (hidden, or out of the frame).
    """

    first: Tensor
    second: Tensor
    flow: Tensor
    visible: Tensor


@dataclass(frozen=True)
class Scenes:
    """An endless supply of pairs.

    Attributes:
        height, width: of the images, in pixels.
        textures: pictures that the layers may wear, besides procedural ones.
        seed: another seed, other scenes.
        photograph_share: how many layers wear one of `textures`, 0..1 (none without textures).
        flat_share: how many scenes consist of flat colored areas only, as label maps and line art do, 0..1.
        motion_scale: typical length of a motion in pixels at height 160; the tail reaches 0.45 of the shorter side.
        photometric_scale: strength of the changes of exposure, the blur and the noise; 0 leaves the layers as they are.
        known_pairs: pairs to mix in, each at least as large as the images.
        known_share: how many pairs are crops of `known_pairs`, 0..1 (none without any).

    Raises:
        FlowError: one of `known_pairs` cannot be used.
    """

    height: int = 160
    width: int = 192
    textures: Sequence[Texture] = ()
    seed: int = 0
    photograph_share: float = 0.7
    flat_share: float = 0.15
    motion_scale: float = 3.0
    photometric_scale: float = 1.0
    known_pairs: Sequence[KnownPair] = ()
    known_share: float = 0.3

    def __post_init__(self) -> None:
        for number, known in enumerate(self.known_pairs):
            known.check(f"known pair {number}")
            height, width = known.visible.shape
            if height < self.height or width < self.width:
                raise FlowError(
                    f"known pair {number}: {width}x{height} is smaller than the training images, {self.width}x{self.height}"
                )

    def batch(self, step: int, batch_size: int) -> Pairs:
        """The `batch_size` pairs of training step `step`."""
        pairs = [self.pair(step, index) for index in range(batch_size)]
        return Pairs(*(torch.stack(values) for values in zip(*pairs, strict=True)))

    def pair(self, step: int, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """first [3,H,W], second [3,H,W], flow [2,H,W] and visible [1,H,W] of one pair; see `Pairs`."""
        random = np.random.default_rng([self.seed, step, index])
        if self.known_pairs and random.random() < self.known_share:
            known = self.known_pairs[int(random.integers(len(self.known_pairs)))]
            first, second, flow, visible = _vary(known, random, self.height, self.width)
        else:
            first, second, flow, visible = _compose(self._layers(random), self.height, self.width)
        untouched = random.random() < _UNTOUCHED_SHARE
        first, second = _photograph(first, second, random, 0.0 if untouched else self.photometric_scale)
        return (
            _to_tensor(first * 2 - 1),
            _to_tensor(second * 2 - 1),
            _to_tensor(flow),
            torch.from_numpy(np.ascontiguousarray(visible))[None],
        )

    def _layers(self, random: np.random.Generator) -> list[_Layer]:
        flat = random.random() < self.flat_share
        strength = _draw_strength(random)
        num_objects = int(random.integers(2, 9))
        camera = self._draw_motion(random, 0.7, 0.0 if random.random() < 0.1 else strength)
        center = np.array([self.width / 2, self.height / 2])
        layers = [_Layer(self._look(random, flat, plain_share=0.0), None, camera.around(center, center, self.height, self.width))]
        for _ in range(num_objects):
            own = self._draw_motion(random, 1.0, 0.0 if random.random() < 0.1 else strength)
            middle = random.random(2) * (self.width, self.height)
            shift = own.shift + camera.shift * (random.random() < 0.7)
            motion = own.around(middle - shift / 2, middle + shift / 2, self.height, self.width)
            shape = _draw_shape(random, middle + shift / 2, self.height, self.width)
            layers.append(_Layer(self._look(random, flat, plain_share=0.4), shape, motion))
        return layers

    def _look(self, random: np.random.Generator, flat: bool, plain_share: float) -> _Look:
        if flat:
            return _Look(_draw_color(random) if random.random() < plain_share else _draw_cells(random), random)
        if self.textures and random.random() < self.photograph_share:
            return _Look(self.textures[int(random.integers(len(self.textures)))], random)
        kind = random.random()
        draw = _draw_noise if kind < 0.6 else _draw_cells if kind < 0.9 else _draw_stripes
        return _Look(draw(random), random)

    def _draw_motion(self, random: np.random.Generator, share: float, strength: float) -> _Motion:
        scale = share * self.motion_scale * self.height / 160
        return _Motion.draw(random, scale, 0.45 * min(self.height, self.width), strength)


def read_textures(folder: Path | str) -> list[Texture]:
    """The photographs of a folder (and of the folders in it) as textures, shrunk to at most 640 pixels.

    Raises:
        FlowError: there are none, or one cannot be decoded.
    """
    files = sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in _PHOTOGRAPH_SUFFIXES)
    if not files:
        raise FlowError(f"{folder}: holds no photographs ({', '.join(_PHOTOGRAPH_SUFFIXES)})")
    return [_read_photograph(file) for file in files]


def to_texture(picture: np.ndarray) -> Texture:
    """A texture from uint8 [H,W,3] RGB, shrunk to at most 640 pixels.

    Raises:
        FlowError: another shape or type.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise FlowError(f"a texture must be uint8 [H,W,3], got {picture.dtype} {picture.shape}")
    scale = _MAX_PHOTOGRAPH_SIDE / max(picture.shape[:2])
    if scale < 1:
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return picture.astype(np.float32) / 255


def _read_photograph(file: Path) -> Texture:
    try:
        pixels = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    except (OSError, cv2.error) as error:
        raise FlowError(f"{file}: could not be read as a photograph ({error})".splitlines()[0]) from error
    if pixels is None:
        raise FlowError(f"{file}: is not a picture that can be decoded")
    return to_texture(pixels)


class _Look:
    """A texture laid over the second image by a random similarity; reflected at its borders, so it has no end."""

    def __init__(self, texture: Texture, random: np.random.Generator) -> None:
        self._texture = texture
        angle, scale = random.uniform(0, 2 * np.pi), np.exp(random.uniform(np.log(0.6), np.log(1.4)))
        self._matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
        self._offset = (random.random(2) * texture.shape[1::-1]).astype(np.float32)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Colors [H,W,3] at positions [H,W,2] (x, y) of the second image."""
        x, y = cv2.split(positions @ self._matrix.T.astype(np.float32) + self._offset)
        return cv2.remap(self._texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


@dataclass(frozen=True)
class _Layer:
    """What moves together: its look, its shape in the second image (None: everywhere), the motion of every pixel."""

    look: _Look
    shape: _Shape | None
    flow: np.ndarray

    def coverage(self, positions: np.ndarray) -> np.ndarray:
        """How much of each position of the second image it covers, [H,W] in 0..1."""
        return np.ones(positions.shape[:2], np.float32) if self.shape is None else self.shape.at(positions)


@dataclass(frozen=True)
class _Shape:
    """An antialiased mask on a canvas larger than the second image by `margin` on every side."""

    mask: np.ndarray
    margin: int

    def at(self, positions: np.ndarray) -> np.ndarray:
        x, y = cv2.split(positions + np.float32(self.margin))
        return cv2.remap(self.mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


@dataclass(frozen=True)
class _Motion:
    """An affine motion plus a smooth bend."""

    matrix: np.ndarray
    shift: np.ndarray
    bend: np.ndarray | None

    @classmethod
    def draw(cls, random: np.random.Generator, scale: float, limit: float, strength: float = 1.0) -> _Motion:
        """A motion of typically `scale` and at most `limit` pixels, times `strength`; all parts have heavy tails."""
        angle = strength * np.radians(4) * np.clip(random.standard_t(3), -10, 10)
        zoom = np.clip(np.exp(0.05 * random.standard_t(3)), 0.7, 1.4) ** strength
        stretch, shear = np.exp(strength * random.normal(0, 0.02)), strength * random.normal(0, 0.02)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = zoom * turn @ np.array([[stretch, shear], [0, 1 / stretch]])
        direction = random.uniform(0, 2 * np.pi)
        length = strength * min(scale * abs(random.standard_t(1.5)), limit)
        bend = None
        if random.random() < 0.4:
            cells = int(random.integers(3, 7))
            bend = (random.normal(0, 0.4 * scale, (cells, cells, 2)) * strength * random.random()).astype(np.float32)
        return cls(matrix, length * np.array([np.cos(direction), np.sin(direction)]), bend)

    def around(self, before: np.ndarray, after: np.ndarray, height: int, width: int) -> np.ndarray:
        """Flow [H,W,2] that takes the point `before` to `after` and everything else along."""
        grid = _grid(height, width)
        flow = (grid - before.astype(np.float32)) @ self.matrix.T.astype(np.float32) + after.astype(np.float32) - grid
        if self.bend is not None:
            flow += cv2.resize(self.bend, (width, height), interpolation=cv2.INTER_CUBIC)
        return flow


def _draw_strength(random: np.random.Generator) -> float:
    """How much a scene moves: mostly as it comes, at times by fractions of a pixel, at times not at all."""
    kind = random.random()
    if kind < _STILL_SHARE:
        return 0.0
    return float(np.exp(random.uniform(np.log(0.02), np.log(0.4)))) if kind < _STILL_SHARE + _CALM_SHARE else 1.0


def _vary(
    known: KnownPair, random: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A crop of a known pair, at times mirrored, negative, in other colors or standing still; the values of `_compose`."""
    top = int(random.integers(known.visible.shape[0] - height + 1))
    left = int(random.integers(known.visible.shape[1] - width + 1))
    first, second, flow, visible = (array[top : top + height, left : left + width] for array in known)
    x, y = cv2.split(_grid(height, width) + flow.astype(np.float32))
    visible = visible & (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    channels = random.permutation(3) if random.random() < 0.3 else np.arange(3)
    first, second = (image[..., channels].astype(np.float32) / 255 for image in (first, second))
    flow = flow.astype(np.float32)
    if random.random() < _STILL_SHARE:
        second, flow, visible = first, np.zeros_like(flow), np.ones_like(visible)
    if random.random() < 0.3:
        first, second = 1 - first, 1 - second
    for axis, share in ((1, 0.5), (0, 0.1)):
        if random.random() < share:
            first, second, flow, visible = (np.flip(value, axis) for value in (first, second, flow, visible))
            flow = flow * np.array([-1, 1] if axis else [1, -1], np.float32)
    return first, second, flow, visible


def _draw_shape(random: np.random.Generator, center: np.ndarray, height: int, width: int) -> _Shape:
    """A polygon, a blob or a thin line around `center` (x, y)."""
    margin = max(height, width) // 2
    canvas = np.zeros((height + 2 * margin, width + 2 * margin), np.uint8)
    size = min(height, width) * np.exp(random.uniform(np.log(0.06), np.log(0.45)))
    kind = random.random()
    if kind < 0.2:
        num_points, stretch = int(random.integers(2, 5)), 2.5
        points = random.normal(0, size, (num_points, 2)) * stretch
    else:
        num_points = int(random.integers(3, 9)) if kind < 0.6 else 24
        angles = np.sort(random.uniform(0, 2 * np.pi, num_points))
        wobble = np.interp(angles, np.linspace(0, 2 * np.pi, 7), np.append(noise := random.uniform(0.4, 1.2, 6), noise[0]))
        points = size * wobble[:, None] * np.stack([np.cos(angles), np.sin(angles) * random.uniform(0.4, 1)], axis=1)
    bits = 4
    corners = np.rint((points + center + margin) * 2**bits).astype(np.int32)[None]
    if kind < 0.2:
        cv2.polylines(canvas, corners, False, 255, int(random.integers(1, 6)), cv2.LINE_AA, bits)
    else:
        cv2.fillPoly(canvas, corners, 255, cv2.LINE_AA, bits)
    return _Shape(canvas.astype(np.float32) / 255, margin)


def _compose(layers: list[_Layer], height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Paint the layers over each other, last on top: first, second [H,W,3], flow [H,W,2], visible [H,W]."""
    grid = _grid(height, width)
    first, second = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 3), np.float32)
    flow, owner = np.zeros((height, width, 2), np.float32), np.zeros((height, width), int)
    for index, layer in enumerate(layers):
        target = grid + layer.flow
        before, after = layer.coverage(target), layer.coverage(grid)
        first += before[..., None] * (layer.look.at(target) - first)
        second += after[..., None] * (layer.look.at(grid) - second)
        owned = before >= 0.5
        flow[owned], owner[owned] = layer.flow[owned], index
    target = grid + flow
    x, y = cv2.split(target)
    visible = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    for index, layer in enumerate(layers[1:], start=1):
        visible &= (owner >= index) | (layer.coverage(target) < 0.5)
    return first, second, flow, visible


def _photograph(first: np.ndarray, second: np.ndarray, random: np.random.Generator, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """What cameras and codecs do: tone and color for both, a little more for the second, blur and noise."""
    gamma, gain = np.exp(scale * random.normal(0, 0.3)), np.exp(scale * random.normal(0, 0.15, 3))
    offset = scale * random.normal(0, 0.05)
    change, drift = np.ones(3), 0.0
    if random.random() < 0.5:
        change, drift = np.exp(scale * random.normal(0, 0.05, 3)), scale * random.normal(0, 0.03)
    blur = scale * random.uniform(0.4, 1.2) if random.random() < 0.15 else 0.0
    noise = scale * random.uniform(0, 0.03) if random.random() < 0.6 else 0.0

    def expose(image: np.ndarray, gain: np.ndarray, offset: float) -> np.ndarray:
        image = np.clip(image, 0, 1) ** np.float32(gamma) * gain.astype(np.float32) + np.float32(offset)
        if blur:
            image = cv2.GaussianBlur(image, (0, 0), blur)
        if noise:
            image = image + noise * random.standard_normal(image.shape, np.float32)
        return np.clip(image, 0, 1).astype(np.float32)

    return expose(first, gain, offset), expose(second, gain * change, offset + drift)


def _draw_noise(random: np.random.Generator) -> Texture:
    """Noise with detail at all sizes, rough or smooth."""
    decay, image = random.uniform(0.4, 0.95), np.zeros((_PROCEDURAL_SIDE, _PROCEDURAL_SIDE, 3), np.float32)
    cells, weight = int(random.integers(2, 6)), 1.0
    while cells < _PROCEDURAL_SIDE:
        grid = random.standard_normal((cells, cells, 3), np.float32)
        image += weight * cv2.resize(grid, (_PROCEDURAL_SIDE,) * 2, interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * decay
    image = image @ random.uniform(0, 1, (3, 3)).astype(np.float32)
    return np.clip(0.5 + image / (4 * image.std() + 1e-6), 0, 1)


def _draw_cells(random: np.random.Generator) -> Texture:
    """A mosaic of flat colors, as in a label map."""
    num_cells = int(random.integers(6, 80))
    seeds = np.full((_PROCEDURAL_SIDE, _PROCEDURAL_SIDE), 255, np.uint8)
    x, y = random.integers(0, _PROCEDURAL_SIDE, (2, num_cells))
    seeds[y, x] = 0
    _, nearest = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    palette = random.random((int(random.integers(3, 20)), 3), np.float32)
    return palette[random.integers(0, len(palette), num_cells + 1)][nearest]


def _draw_stripes(random: np.random.Generator) -> Texture:
    """A grating or a grid, smooth or hard."""
    position = np.linspace(0, 2 * np.pi * random.uniform(4, 40), _PROCEDURAL_SIDE, dtype=np.float32)
    wave = np.sin(position + random.normal(0, 1) * np.sin(position * random.uniform(0.05, 0.3)))
    pattern = wave[:, None] * (wave[None] if random.random() < 0.5 else np.ones((1, _PROCEDURAL_SIDE), np.float32))
    share = np.clip(0.5 + pattern * random.uniform(0.5, 4), 0, 1)[..., None]
    low, high = random.random((2, 3), np.float32)
    return (low + share * (high - low)).astype(np.float32)


def _draw_color(random: np.random.Generator) -> Texture:
    return np.broadcast_to(random.random(3, np.float32), (8, 8, 3)).copy()


def _grid(height: int, width: int) -> np.ndarray:
    """Positions (x, y), float32 [H,W,2]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x, y], axis=2)


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), np.float32))
