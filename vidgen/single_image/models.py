"""What can be generated from one picture: one interface over patches, which need no training, and over trained models.

Pictures come in and go out as uint8 [H,W,3], or [H,W,4] where the original has transparent parts and the method keeps them.
Scales count from 0, the coarsest: what begins at a finer one keeps more of the layout that it begins with.
"""

from __future__ import annotations

import itertools
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
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
from vidgen.media.conditions import canny_edges, resize_picture
from vidgen.media.pixels import to_pixels, to_tensor
from vidgen.metrics.single import mean_motion
from vidgen.networks import patches
from vidgen.networks.patches import Matching
from vidgen.networks.single_image import walk_deviation
from vidgen.single_image.options import Walk
from vidgen.single_image.pictures import Picture, Size, paste, soft_mask, with_opacity
from vidgen.translators.cascade import SingleImageTranslator, Surroundings
from vidgen.translators.singan import SinGAN

log = logging.getLogger(__name__)

SAMPLE_NOISE = 1.25
"""Standard deviation of the noise that samples begin with, in units of -1..1."""
HARMONIZE_RADIUS, EDIT_RADIUS = 7, 20
"""Pixels that the mask of what was pasted grows by. Source: SinGAN, the authors' code."""
_DETAIL_PARTS = 80
"""A picture's longer side in units of what counts as fine."""
_TEXTURE_SHARE, _DETAIL_SHARE = 0.5, 0.8
_MOTION_SIDE = 320
"""Longer side at which the samples of an animation are generated; their motion is enlarged."""
_PROBE_SIDE = 128
"""Longer side at which the scale of an animation is chosen."""
_CALM_SHARE = 0.75
"""Share of the picture that stays what it is, times the share of its edges that stay in place, in an animation."""
_FLOW_BLUR, _BROAD = 3.0, 2.0
_TRUST_PARTS = 40
_STRAIGHT_PARTS = 60
_RANGE_PARTS = 80
_INVISIBLE_COLOR = 0.008
"""A change of color that nobody sees, in units of -1..1."""
_MOTION_SHARE = 0.002
"""Mean motion from frame to frame that a trained model's walk is brought to, as a part of the picture's longer side."""
_NEAR_GOAL, _NUM_TRIALS = 0.9, 4
_PROBED = (0.2, 0.5, 0.8)
"""Where in the walk its motion is measured."""
_SAME_ASPECT = 0.04
_INVISIBLE_VARIANCE = 0.001
"""Of differences that nobody sees, in units of -1..1."""
_WEAKEST_EDGE = 0.002
"""Mean square of gradients below which there is no edge."""


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
        """A walk from sample to sample along the motion between them.

        Samples are generated at a moderate size and give the motion and the broad colors; fine detail is the picture's own, moved
        along, so every frame is as sharp as the picture. Where a sample shows something that the picture does not have there (or
        lacks what it has), the picture stays.
        """
        size = walk.shape.of(self.picture.size) or self.picture.size
        coarse = self if max(self.picture.size) <= _MOTION_SIDE else Patches(self.picture, max_side=_MOTION_SIDE)
        start_scale = coarse.calm_scale(seed) if walk.start_scale is None else walk.start_scale
        coarse.check_scale(start_scale)
        num_frames = walk.length()
        noise = min(SAMPLE_NOISE * 1.2 * math.sqrt(0.1 / max(walk.alpha, 0.001)), 3.0)
        num_moves = max(2, min(12, round(num_frames * (1 - walk.beta) * walk.motion))) if num_frames > 1 else 1
        enlargement = max(1.0, max(size) / _MOTION_SIDE)
        work = (max(1, round(size[0] / enlargement)), max(1, round(size[1] / enlargement)))
        picture = patches.resize(coarse._volume[:3], (1, *work))[:, 0][None]
        stations = [picture]
        free = 1 - _straight(picture)
        for number in range(1, num_moves + (not walk.loop)):
            drawn = coarse._sample(work, start_scale, noise, _seed(seed, number))[:3, 0][None]
            trust = free * _trust(picture, drawn)
            stations.append(trust * drawn + (1 - trust) * picture)
        full = patches.resize(self._volume[:3], (1, *size))[:, 0][None]
        for frame in _along(stations, full, num_frames, walk.loop):
            yield to_pixels(frame[0])

    def calm_scale(self, seed: int = 0) -> int:
        """The coarsest scale from which samples can differ while the picture's edges stay where they are, found on a small
        version of it: textures such as clouds and grass may move as a whole, buildings hardly at all."""
        small = self if max(self.picture.size) <= _PROBE_SIDE else Patches(self.picture, max_side=_PROBE_SIDE)
        picture = small._volume[:3, 0][None]
        last = small.num_scales - 1
        for scale in range(min(1, last), last):
            drawn = small._sample(small.picture.size, scale, SAMPLE_NOISE, _seed(seed, 0))[:3, 0][None]
            if float(_trust(picture, drawn).mean()) * _edges_in_place(picture, drawn) > _CALM_SHARE:
                return scale
        return last

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
        ).volume
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
        ).volume


class Trained(SingleImageModel):
    """Everything from a generator that has learned the picture.

    Args:
        model: a run folder or weights.
        original: the picture that it has learned, at any size.
        max_side: longer side of animations; the picture's own by default, which then is more than the generator works at.

    Raises:
        CheckpointError: it is no model of a single picture.
        ConfigError: it has learned another picture.
    """

    def __init__(self, model: Path | Model, original: Picture, *, max_side: int | None = None, device: str = "auto") -> None:
        self.model = model if isinstance(model, Model) else Model.load(model, device=device)
        translator = self.model.translator
        if not isinstance(translator, SingleImageTranslator):
            raise CheckpointError(f"{model}: is a {self.model.kind} model; one that has learned a single picture is needed")
        self._translator: SingleImageTranslator = translator
        self.num_scales = translator.num_active_scales
        self.original = original
        self.picture = replace(original.resized(translator.pyramid.finest), opacity=None)
        self.shown = original.downscaled(max_side).size if max_side is not None else original.size
        translator.check_image(self.model.runtime.place(to_tensor(self.picture.pixels)[None]), paths.display(self.model.path))

    def sample(self, num_samples: int, *, size: Size | None = None, start_scale: int = 0, seed: int = 0) -> Iterator[np.ndarray]:
        self.check_scale(start_scale)
        for number in range(num_samples):
            with self._using():
                generated = self._translator.generate(size, start_scale=start_scale, generator=_generator(_seed(seed, number)))
            yield to_pixels(generated[0])

    def animate(self, walk: Walk, *, seed: int = 0) -> Iterator[np.ndarray]:
        """A walk through noise around the picture, as wide as it takes for the picture to move.

        What the generator has not learned of the picture is added, moved along with what it has: so the first frame is the picture
        itself, the others are as sharp, and all have its own size. In another aspect the generator is on its own.
        """
        size = walk.shape.of(self.shown) or self.shown
        if walk.start_scale is not None:
            self.check_scale(walk.start_scale)
        keeps_aspect = abs(size[0] * self.picture.size[1] / (size[1] * self.picture.size[0]) - 1) < _SAME_ASPECT
        with self._using():
            surroundings, amplitude = self._moving_surroundings(walk, None if keeps_aspect else size, seed)
            completion = _Completion(surroundings, to_tensor(self.original.resized(size).pixels)[None]) if keeps_aspect else None
        for away in self._deviations(surroundings, walk, seed):
            with self._using():
                generated = surroundings.picture(away, amplitude).cpu()
            yield to_pixels((completion(generated) if completion else generated)[0])

    def _moving_surroundings(self, walk: Walk, size: Size | None, seed: int) -> tuple[Surroundings, float]:
        """Where to walk, and how far, so that the picture moves as it shall.

        Fine scales are preferred, for there things stay where they are. Noise goes no further from what reconstructs the picture
        than the generator has met in training, so that there is a limit to motion.
        """
        widest = 1 / walk_deviation(walk.alpha, walk.beta)
        goal = walk.motion * _MOTION_SHARE * max(size or self.picture.size)
        scales = (walk.start_scale,) if walk.start_scale is not None else tuple(range(min(1, self.num_scales - 1), -1, -1))
        for scale in scales:
            surroundings = self._translator.surroundings(scale, size)
            completion = _Completion(surroundings, to_tensor(self.picture.pixels)[None]) if size is None else None
            pairs = self._probes(surroundings, walk, seed)
            amplitude, motion = _reach(goal, widest, partial(_mean_motion, surroundings, completion, pairs))
            if not motion < _NEAR_GOAL * goal:
                break
        log.info("moves from scale %d on, by about %.2f pixels a frame", scale, motion)
        return surroundings, amplitude

    def _probes(self, surroundings: Surroundings, walk: Walk, seed: int) -> list[_Pair]:
        """Deviations of a few pairs of neighboring frames."""
        last = walk.length() - 2
        wanted = {round(place * last) for place in _PROBED} if last >= 0 else set()
        neighbors = itertools.pairwise(self._deviations(surroundings, walk, seed))
        return [pair for number, pair in enumerate(neighbors) if number in wanted]

    def _deviations(self, surroundings: Surroundings, walk: Walk, seed: int) -> Iterator[dict[int, Tensor]]:
        return surroundings.walk(walk.length(), alpha=walk.alpha, beta=walk.beta, loop=walk.loop, generator=_generator(seed))

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


def _along(stations: Sequence[Tensor], full: Tensor, num_frames: int, loop: bool) -> Iterator[Tensor]:
    """Frames [1,3,H,W] from station to station.

    Broad colors move along the flow between two stations and fade from one to the other; fine detail is that of the picture,
    moved by as much as the stations have moved away from it. Colors that no motion explains change within `_range_of_colors`.

    Args:
        stations: [1,3,h,w] each, the first being the picture.
        full: [1,3,H,W], the picture at full size.
    """
    size, work = (full.shape[2], full.shape[3]), (stations[0].shape[2], stations[0].shape[3])
    detail = full - _resized(_blur(stations[0], _BROAD), size)
    away = [_sure_motion(station, stations[0]) if index else torch.zeros(1, 2, *work) for index, station in enumerate(stations)]
    broad = [_blur(stations[0], _BROAD)]
    limit = _range_of_colors(stations[0])
    for station, flow in zip(stations[1:], away[1:], strict=True):
        moved = warp(broad[0], flow)
        broad.append(moved + _limited(_blur(station, _BROAD) - moved, limit))
    num_moves = len(stations) if loop else len(stations) - 1
    known: dict[int, tuple[Tensor, Tensor]] = {}
    for frame in range(num_frames):
        position = num_moves * frame / (num_frames if loop else max(1, num_frames - 1))
        index = min(int(position), num_moves - 1) if num_moves else 0
        share = position - index
        here, there = index % len(stations), (index + 1) % len(stations)
        if index not in known:
            known = {index: (_motion(stations[here], stations[there]), _motion(stations[there], stations[here]))}
        forth, back = known[index]
        fade = math.sin(share * math.pi / 2) ** 2
        colors = (1 - fade) * warp(broad[here], share * back) + fade * warp(broad[there], (1 - share) * forth)
        moved = (1 - fade) * away[here] + fade * away[there]
        yield _with_detail(colors, detail, moved)


def _with_detail(broad: Tensor, detail: Tensor, moved: Tensor) -> Tensor:
    """The sum [1,3,H,W] of what is broad [1,3,h,w] and of detail [1,3,H,W] that has moved by a flow [1,2,h,w]."""
    size, work = (detail.shape[2], detail.shape[3]), moved.shape[2:]
    scale = torch.tensor([size[1] / work[1], size[0] / work[0]])[None, :, None, None]
    return _resized(broad, size) + _sharply_warped(detail, scale * _resized(moved, size))


class _Completion:
    """Adds to what a generator makes of a picture what it has not learned of it, moved along with what it has.

    Long straight edges, which belong to rigid things, stay; and so does the picture where something else has been generated. Colors
    that no motion explains change within `_range_of_colors`.

    Args:
        surroundings: about the picture.
        full: [1,3,H,W], the picture itself at the size that comes out.
    """

    def __init__(self, surroundings: Surroundings, full: Tensor) -> None:
        nowhere = {level: torch.zeros_like(noise) for level, noise in surroundings.still.items()}
        self._still, self._full = surroundings.picture(nowhere).cpu(), full
        picture = _resized(full, (self._still.shape[2], self._still.shape[3]))
        self._free, self._limit = 1 - _straight(picture), _range_of_colors(picture)

    def __call__(self, generated: Tensor) -> Tensor:
        """[1,3,H,W] of what was generated [1,3,h,w]."""
        free = self._free * _trust(self._still, generated)
        moved = free * _sure_motion(generated, self._still)
        change = _limited(free * (generated - warp(self._still, moved)), self._limit)
        return _with_detail(change, self._full, moved)


_Pair = tuple[dict[int, Tensor], dict[int, Tensor]]
"""Deviations of two neighboring frames."""


def _mean_motion(surroundings: Surroundings, completion: _Completion | None, pairs: Sequence[_Pair], amplitude: float) -> float:
    """Pixels by which the picture moves from frame to frame, mean over all pixels of some pairs."""
    steps = []
    for pair in pairs:
        first, second = (surroundings.picture(away, amplitude).cpu() for away in pair)
        if completion is not None:
            first, second = completion(first), completion(second)
        steps.append(mean_motion(first, second))
    return sum(steps) / max(1, len(steps))


def _reach(goal: float, widest: float, motion: Callable[[float], float]) -> tuple[float, float]:
    """An amplitude up to `widest` at which the motion is about `goal` (more the wider, as a rule), and that motion.

    Pictures too small for a flow have a motion of NaN; they move as widely as they may.
    """
    if goal <= 0:
        return 0.0, 0.0
    amplitude, moved = widest, motion(widest)
    low, high = 0.0, widest
    for _ in range(_NUM_TRIALS):
        if not moved > goal / _NEAR_GOAL and (amplitude == widest or moved >= _NEAR_GOAL * goal):
            break
        low, high = (amplitude, high) if moved < goal else (low, amplitude)
        guess = amplitude * goal / max(moved, 1e-6)
        amplitude = guess if low < guess < high else (low + high) / 2
        moved = motion(amplitude)
    return amplitude, moved


def _sharply_warped(image: Tensor, flow: Tensor) -> Tensor:
    """As `flow.warp.warp`, bicubic: what lies between pixels stays sharp."""
    height, width = flow.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([2 * (columns + flow[0, 0]) / max(width - 1, 1) - 1, 2 * (rows + flow[0, 1]) / max(height - 1, 1) - 1], -1)
    return F.grid_sample(image, grid[None], mode="bicubic", padding_mode="border", align_corners=True)


def _resized(images: Tensor, size: Size) -> Tensor:
    return images if tuple(images.shape[2:]) == size else F.interpolate(images, size, mode="bicubic", align_corners=False)


def _motion(first: Tensor, second: Tensor) -> Tensor:
    """Flow [1,2,H,W] from the grid of `first` into `second`, smooth: neither shows how the other came about."""
    if min(first.shape[2:]) < 2 * patches.MIN_SIDE:
        return torch.zeros(1, 2, *first.shape[2:])
    flow = _blur(estimate(first.clamp(-1, 1), second.clamp(-1, 1)), _FLOW_BLUR)
    for component, axis in ((0, 3), (1, 2)):  # nothing leaves or enters across the border
        places = torch.arange(flow.shape[axis])
        inside = torch.minimum(places, places.flip(0)) * (_TRUST_PARTS / max(flow.shape[2:]))
        flow[:, component] *= inside.clamp(max=1).view(-1, *[1] * (3 - axis))
    return flow


def _sure_motion(first: Tensor, second: Tensor) -> Tensor:
    """As `_motion`, weaker where it explains little of the difference: what has become something else has not moved there."""
    flow = _motion(first, second)
    deviation = max(1.0, max(first.shape[2:]) / _TRUST_PARTS)
    before, after = (_blur((first - other) ** 2, deviation).mean(1, keepdim=True) for other in (second, warp(second, flow)))
    return flow * _blur((2 * (1 - after / (before + 1e-6))).clamp(0, 1), deviation)


def _blur(images: Tensor, deviation: float) -> Tensor:
    """[B,C,H,W] smoothed by a Gaussian, the edge repeated."""
    reach = max(1, round(3 * deviation))
    kernel = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * deviation**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(images.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[:, 0].view(images.shape)


def _trust(picture: Tensor, drawn: Tensor) -> Tensor:
    """Where a sample [1,3,h,w] shows the same kind of thing as the picture: 1; where it shows something else: 0. [1,1,h,w]

    Two pieces of one texture differ by about twice its variance; an object where there was none, or none where there was one,
    differs by far more than the variance of the emptier of the two.
    """
    deviation = max(1.0, max(picture.shape[2:]) / _TRUST_PARTS)
    means = [_blur(image, deviation) for image in (picture, drawn)]
    variances = [
        (_blur(image**2, deviation) - mean**2).mean(1, keepdim=True) for image, mean in zip((picture, drawn), means, strict=True)
    ]
    difference = _blur((picture - drawn) ** 2, deviation).mean(1, keepdim=True)
    ratio = difference / (torch.minimum(*variances).clamp(min=0) + _INVISIBLE_VARIANCE)
    return _blur(((5 - ratio) / 2).clamp(0, 1), deviation)


def _range_of_colors(picture: Tensor) -> Tensor:
    """By how much colors may change without showing what is not there: as much as they vary in the least varied part of the
    surroundings of a place [1,3,h,w].

    A smooth sky keeps its colors, up to the outlines of what is before it, while clouds may grow and glow.
    """
    deviation = max(1.0, max(picture.shape[2:]) / _RANGE_PARTS)
    variance = (_blur(picture**2, deviation) - _blur(picture, deviation) ** 2).clamp(min=0)
    reach = 2 * math.ceil(2 * deviation) + 1
    least = -F.max_pool2d(-variance, reach, stride=1, padding=reach // 2)
    return _blur(least, deviation).clamp(min=0).sqrt() + _INVISIBLE_COLOR


def _limited(change: Tensor, limit: Tensor) -> Tensor:
    """A change that approaches the limit where it is larger."""
    return limit * (change / limit).tanh()


def _straight(picture: Tensor) -> Tensor:
    """Where a picture [1,3,h,w] has long straight edges, which belong to rigid things: 1 there, 0 elsewhere; [1,1,h,w].

    The measure is the coherence of the structure tensor over a window that curves and textures do not fit into.
    """
    gray = picture.mean(1, keepdim=True)
    padded = F.pad(gray, [1] * 4, mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    reach = max(picture.shape[2:]) / _STRAIGHT_PARTS
    xx, yy, xy = (_blur(product, reach) for product in (across * across, down * down, across * down))
    coherence = ((xx - yy) ** 2 + 4 * xy**2).sqrt() / (xx + yy + _WEAKEST_EDGE)
    return _blur(((coherence - 0.5) / 0.25).clamp(0, 1), reach)


def _edges_in_place(picture: Tensor, drawn: Tensor) -> float:
    """Share of the picture's edges next to which the sample has an edge too."""
    edges = [canny_edges(to_pixels(image[0]), 100, 200, blur=1.0) > 0 for image in (picture, drawn)]
    near = cv2.dilate(edges[1].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return float((edges[0] & near).sum() / max(1, edges[0].sum()))


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
