"""What can be generated from one picture: one interface over patches, which need no training, and over trained models.

Pictures come in and go out as uint8 [H,W,3], or [H,W,4] where the original has transparent parts and the method keeps them.
Scales count from 0, the coarsest: what begins at a finer one keeps more of the layout that it begins with.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flow.engines import estimate
from flow.warp import warp
from vidgen.errors import CheckpointError, InputError
from vidgen.inference.model import Model
from vidgen.media import paths
from vidgen.media.conditions import resize_picture
from vidgen.media.pixels import to_pixels, to_tensor
from vidgen.networks import patches
from vidgen.networks.patches import Example, Matching
from vidgen.single_image.options import Walk
from vidgen.single_image.pictures import Picture, Size, paste, soft_mask, with_opacity
from vidgen.translators.cascade import SingleImageTranslator
from vidgen.translators.singan import SinGAN

SAMPLE_NOISE = 1.25
"""Standard deviation of the noise that samples begin with, in units of -1..1."""
HARMONIZE_RADIUS, EDIT_RADIUS = 7, 20
"""Pixels that the mask of what was pasted grows by. Source: SinGAN, the authors' code."""
_DETAIL_PARTS = 80
"""A picture's longer side in units of what counts as fine."""
_TEXTURE_SHARE, _DETAIL_SHARE = 0.5, 0.8
_FLOW_BLUR = 3


class SingleImageModel(ABC):
    """What can be generated from one picture.

    Attributes:
        original: the picture itself, at its full size.
        picture: the same at the size that is worked at.
        num_scales: scales from the coarsest to that size.
    """

    original: Picture
    picture: Picture
    num_scales: int

    @abstractmethod
    def sample(self, num_samples: int, *, size: Size | None = None, start_scale: int = 0, seed: int = 0) -> Iterator[np.ndarray]:
        """New pictures of any size and aspect."""

    @abstractmethod
    def animate(self, walk: Walk, *, seed: int = 0) -> Iterator[np.ndarray]:
        """Frames that begin with the picture; in a loop, the first follows the last."""

    @abstractmethod
    def super_resolve(self, factor: float = 4.0, *, seed: int = 0) -> np.ndarray:
        """The picture with `factor` times as many pixels a side."""

    @abstractmethod
    def resynthesize(
        self, changed: np.ndarray, *, start_scale: int | None = None, keep_layout: bool = True, seed: int = 0
    ) -> np.ndarray:
        """A picture uint8 [h,w,3] generated anew in the style of the original, at the size that is worked at.

        Args:
            start_scale: where it is injected; by default in the middle.
            keep_layout: whether it shows what the original shows where, roughly.
        """

    def harmonize(self, changed: Picture, mask: np.ndarray, *, start_scale: int | None = None, seed: int = 0) -> np.ndarray:
        """What was pasted into the original, in the original's style, at its full size; all else stays as it is.

        Args:
            changed: the original with something pasted into it, at the same size.
            mask: bool [H,W], where.
        """
        generated = self._generated(changed, start_scale, seed) + self._finer_than_work(changed)
        return self._paste(generated, changed, mask, HARMONIZE_RADIUS)

    def edit(self, changed: Picture, mask: np.ndarray, *, start_scale: int | None = None, seed: int = 0) -> np.ndarray:
        """Parts of the original that were copied or moved, without seams, at its full size; see `harmonize`."""
        edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(bool)
        away_from_seams = 1 - soft_mask(edge, 2 * self._enlargement, 2 * self._enlargement)[:, :, None]
        generated = self._generated(changed, start_scale, seed) + away_from_seams * self._finer_than_work(changed)
        return self._paste(generated, changed, mask, EDIT_RADIUS)

    def paint(self, painting: np.ndarray, *, start_scale: int = 1, seed: int = 0) -> np.ndarray:
        """What a rough painting means, in the picture's style."""
        return self.resynthesize(painting, start_scale=start_scale, seed=seed)

    def check_scale(self, start_scale: int, first: int = 0) -> None:
        """Refuse a scale that there is not.

        Raises:
            InputError: with those there are.
        """
        if not first <= start_scale < self.num_scales:
            raise InputError(f"start scale {start_scale}: this picture has scales {first} to {self.num_scales - 1}")

    @property
    def _enlargement(self) -> float:
        """Pixels of the original for one that is worked at."""
        return max(self.original.size) / max(self.picture.size)

    def _generated(self, changed: Picture, start_scale: int | None, seed: int) -> np.ndarray:
        """What is generated from a changed picture, at the original's size: float32 [H,W,3], 0..255."""
        small = resize_picture(changed.pixels, self.picture.size)
        generated = self.resynthesize(small, start_scale=start_scale, keep_layout=False, seed=seed)[:, :, :3]
        return resize_picture(np.ascontiguousarray(generated), self.original.size).astype(np.float32)

    def _finer_than_work(self, changed: Picture) -> np.ndarray:
        """What of a picture is lost at the size that is worked at: float32 [H,W,3]."""
        there_and_back = resize_picture(resize_picture(changed.pixels, self.picture.size), self.original.size)
        return changed.pixels.astype(np.float32) - there_and_back

    def _paste(self, generated: np.ndarray, changed: Picture, mask: np.ndarray, radius: float, blur: float = 5.0) -> np.ndarray:
        share = soft_mask(mask, radius * self._enlargement, blur * self._enlargement)
        return paste(generated, self.original, share, changed.opacity)


class Patches(SingleImageModel):
    """Everything from the picture's own patches, without training; see `vidgen.networks.patches`.

    Args:
        original: the picture.
        max_side: longer side that is worked at; the picture's own by default.
        matching: how patches are compared.

    Raises:
        InputError: the picture is too small to learn from.
    """

    def __init__(self, original: Picture, *, max_side: int | None = None, matching: Matching | None = None) -> None:
        self.original = original
        self.picture = original.downscaled(max_side or max(original.size))
        self.matching = matching or Matching()
        self._volume = _volume(self.picture)
        self._sizes = patches.level_sizes((1, *self.picture.size))
        self.num_scales = len(self._sizes)

    def sample(self, num_samples: int, *, size: Size | None = None, start_scale: int = 0, seed: int = 0) -> Iterator[np.ndarray]:
        self.check_scale(start_scale)
        for number in range(num_samples):
            yield _pixels(self._sample(size or self.picture.size, start_scale, SAMPLE_NOISE, _seed(seed, number)))[0]

    def animate(self, walk: Walk, *, seed: int = 0) -> Iterator[np.ndarray]:
        """A walk from sample to sample along the motion between them; each frame is made of the picture's patches again."""
        start_scale = min(1, self.num_scales - 1) if walk.start_scale is None else walk.start_scale
        self.check_scale(start_scale)
        size = walk.shape.of(self.picture.size)
        num_frames = walk.length()
        noise = SAMPLE_NOISE * 1.2 * math.sqrt(0.1 / max(walk.alpha, 0.001))
        num_moves = max(2, min(12, round(num_frames * (1 - walk.beta)))) if num_frames > 1 else 1
        target = size or self.picture.size
        first = patches.resize(self._volume, (1, *target))[:3]
        stations = [first]
        for number in range(1, num_moves + (not walk.loop)):
            stations.append(self._sample(target, start_scale, min(noise, 3.0), _seed(seed, number))[:3])
        frames = _along(stations, num_frames, walk.loop)
        if size is None:
            frames = self._sharpened(frames, seed)
        for frame in _steadied(frames, walk.loop):
            yield _pixels(frame)[0]

    def super_resolve(self, factor: float = 4.0, *, seed: int = 0) -> np.ndarray:
        return _pixels(patches.enlarge(self._volume, factor, seed=seed))[0]

    def resynthesize(
        self, changed: np.ndarray, *, start_scale: int | None = None, keep_layout: bool = True, seed: int = 0
    ) -> np.ndarray:
        scale = (self.num_scales * 5) // 9 if start_scale is None else start_scale
        self.check_scale(scale)
        injected = _volume(Picture(resize_picture(changed, self.picture.size)))
        generated = patches.synthesize(
            self._volume[:3],
            self._sizes,
            self._sizes,
            lambda size: patches.resize(injected, size),
            first_level=scale,
            matching=self.matching if keep_layout else replace(self.matching, layout=0.0, completeness=None),
            seed=seed,
        )
        return _pixels(generated)[0]

    def harmonize(self, changed: Picture, mask: np.ndarray, *, start_scale: int | None = None, seed: int = 0) -> np.ndarray:
        """Broad colors and half of the texture come from patches of the picture, fine shapes from what was pasted."""
        scale = max(0, self.num_scales - 2) if start_scale is None else start_scale
        generated, pasted = self._generated(changed, scale, seed), changed.pixels.astype(np.float32)
        blur = max(self.original.size) / _DETAIL_PARTS
        broad, broad_pasted = (cv2.GaussianBlur(pixels, (0, 0), blur) for pixels in (generated, pasted))
        mixed = broad + _TEXTURE_SHARE * (generated - broad) + _DETAIL_SHARE * (pasted - broad_pasted)
        return self._paste(mixed.clip(0, 255), changed, mask, 1, 1.2)

    def _sample(self, size: Size, start_scale: int, noise: float, seed: int) -> Tensor:
        ratios = [new / own for new, own in zip(size, self.picture.size, strict=True)]
        sizes = [(1, max(7, round(height * ratios[0])), max(7, round(width * ratios[1]))) for _, height, width in self._sizes[:-1]]
        generator = torch.Generator().manual_seed(seed)

        def start(size: patches.Size) -> Tensor:
            guess = patches.resize(self._volume, size).clone()
            guess[:3] += noise * torch.randn(3, *size, generator=generator)
            return guess

        return patches.synthesize(
            self._volume, [*sizes, (1, *size)], self._sizes, start, first_level=start_scale, matching=self.matching, seed=seed
        )

    def _sharpened(self, frames: Iterator[Tensor], seed: int) -> Iterator[Tensor]:
        """Frames made of patches; each goes on from the matches of the one before, which keeps them steady."""
        matching = replace(self.matching, completeness=None)
        example = Example(self._volume[:3], self._volume[:3], matching)
        generator = torch.Generator().manual_seed(seed)
        matches = None
        for frame in frames:
            refined, matches, _ = patches.refine(frame, example, matches, None, matching, generator)
            yield refined


class Trained(SingleImageModel):
    """Everything from a generator that has learned the picture.

    Args:
        model: a run folder or weights.
        original: the picture that it has learned, at any size.

    Raises:
        CheckpointError: it is no model of a single picture.
        ConfigError: it has learned another picture.
    """

    def __init__(self, model: Path | Model, original: Picture, *, device: str = "auto") -> None:
        self.model = model if isinstance(model, Model) else Model.load(model, device=device)
        translator = self.model.translator
        if not isinstance(translator, SingleImageTranslator):
            raise CheckpointError(f"{model}: is a {self.model.kind} model; one that has learned a single picture is needed")
        self._translator: SingleImageTranslator = translator
        self.num_scales = translator.num_active_scales
        self.original = original
        self.picture = replace(original.resized(translator.pyramid.finest), opacity=None)
        translator.check_image(self.model.runtime.place(to_tensor(self.picture.pixels)[None]), paths.display(self.model.path))

    def sample(self, num_samples: int, *, size: Size | None = None, start_scale: int = 0, seed: int = 0) -> Iterator[np.ndarray]:
        self.check_scale(start_scale)
        for number in range(num_samples):
            with self._using():
                generated = self._translator.generate(size, start_scale=start_scale, generator=_generator(_seed(seed, number)))
            yield to_pixels(generated[0])

    def animate(self, walk: Walk, *, seed: int = 0) -> Iterator[np.ndarray]:
        start_scale = min(1, self.num_scales - 1) if walk.start_scale is None else walk.start_scale
        self.check_scale(start_scale)
        num_frames = walk.length()
        frames = self._translator.animate(
            num_frames,
            alpha=walk.alpha,
            beta=walk.beta,
            start_scale=start_scale,
            loop=walk.loop,
            size=walk.shape.of(self.picture.size),
            generator=_generator(seed),
        )
        for _ in range(num_frames):
            with self._using():
                frame = next(frames)
            yield to_pixels(frame[0])

    def super_resolve(self, factor: float = 4.0, *, seed: int = 0) -> np.ndarray:
        if not isinstance(self._translator, SinGAN):
            raise InputError(f"{self.model.kind} does not enlarge", hint="take method singan or patch")
        with self._using():
            enlarged = self._translator.super_resolve(factor, generator=_generator(seed))
        return to_pixels(enlarged[0])

    def resynthesize(
        self, changed: np.ndarray, *, start_scale: int | None = None, keep_layout: bool = True, seed: int = 0
    ) -> np.ndarray:
        scale = self.num_scales // 2 if start_scale is None else start_scale
        self.check_scale(scale, first=1)
        with self._using():
            injected = self.model.runtime.place(to_tensor(changed)[None])
            generated = self._translator.inject(injected, scale, generator=_generator(seed))
        return to_pixels(generated[0])

    @contextmanager
    def _using(self) -> Iterator[None]:
        with torch.inference_mode(), self.model.runtime.autocast():
            yield


def _along(stations: Sequence[Tensor], num_frames: int, loop: bool) -> Iterator[Tensor]:
    """Frames [3,1,H,W] from station to station: each pixel moves along the flow between two, and fades from one to the other."""
    num_moves = len(stations) if loop else len(stations) - 1
    known: dict[int, tuple[Tensor, Tensor]] = {}
    for frame in range(num_frames):
        position = num_moves * frame / (num_frames if loop else max(1, num_frames - 1))
        index = min(int(position), num_moves - 1) if num_moves else 0
        share = position - index
        before, after = (stations[(index + step) % len(stations)][:, 0][None] for step in (0, 1))
        if index not in known:
            known = {index: (_motion(before, after), _motion(after, before))}
        forth, back = known[index]
        fade = math.sin(share * math.pi / 2) ** 2
        yield ((1 - fade) * warp(before, share * back) + fade * warp(after, (1 - share) * forth))[0][:, None]


def _motion(first: Tensor, second: Tensor) -> Tensor:
    """Flow [1,2,H,W] from the grid of `first` into `second`, smooth: neither shows how the other came about."""
    if min(first.shape[2:]) < 2 * patches.MIN_SIDE:
        return torch.zeros(1, 2, *first.shape[2:])
    flow = estimate((first.clamp(-1, 1) + 1) / 2, (second.clamp(-1, 1) + 1) / 2)
    reach = 3 * _FLOW_BLUR
    kernel = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * _FLOW_BLUR**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(flow.transpose(0, 1), [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None]).transpose(0, 1)


def _steadied(frames: Iterator[Tensor], loop: bool) -> Iterator[Tensor]:
    """Each frame with a share of its neighbors, so that patches do not jump."""
    whole = list(frames)
    last = len(whole) - 1
    for index, frame in enumerate(whole):
        before = whole[(index - 1) % len(whole) if loop else max(0, index - 1)]
        after = whole[(index + 1) % len(whole) if loop else min(last, index + 1)]
        yield frame if index == 0 else (before + 2 * frame + after) / 4


def _volume(picture: Picture) -> Tensor:
    """[C,1,H,W] in -1..1, opacity as the fourth channel."""
    pixels = picture.pixels if picture.opacity is None else np.dstack([picture.pixels, picture.opacity])
    return to_tensor(pixels)[:, None]


def _pixels(volume: Tensor) -> np.ndarray:
    """[C,T,H,W] in -1..1 as uint8 [T,H,W,C]; colors over white become those of the transparent picture itself."""
    pixels = to_pixels(volume.transpose(0, 1))
    if pixels.shape[3] == 4:
        return np.stack([with_opacity(frame[:, :, :3], frame[:, :, 3]) for frame in pixels])
    return pixels


def _seed(seed: int, number: int) -> int:
    return seed * 1_000_003 + number


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
