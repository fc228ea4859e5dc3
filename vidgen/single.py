"""New pictures and clips from a single one: one interface over patches, which need no training, and over trained models.

Pictures come in and go out as uint8 [H,W,3], or [H,W,4] where the original has transparent parts and the method keeps them.
Scales count from 0, the coarsest: what begins at a finer one keeps more of the layout that it begins with.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from vidgen.media import images, paths
from vidgen.media.conditions import resize_picture
from vidgen.media.frames import open_source
from vidgen.networks import patches
from vidgen.networks.patches import Example, Matching
from vidgen.translators.cascade import SingleImageTranslator

log = logging.getLogger(__name__)

Size = tuple[int, int]
"""(height, width)"""

SAMPLE_NOISE = 1.25
"""Standard deviation of the noise that samples begin with, in units of -1..1."""
HARMONIZE_RADIUS, EDIT_RADIUS = 7, 20
"""Pixels that the mask of what was pasted grows by. Source: SinGAN, the authors' code."""
_MASK_BLUR = 5.0
_DETAIL_PARTS = 80
"""A picture's longer side in units of what counts as fine."""
_TEXTURE_SHARE, _DETAIL_SHARE = 0.5, 0.8
_FLOW_BLUR = 3
_MAX_CLIP_FRAMES = 240


@dataclass(frozen=True)
class Picture:
    """What everything is made from.

    Attributes:
        pixels: uint8 [H,W,3], laid over white where it is transparent.
        opacity: uint8 [H,W], or None.
        name: for messages.
    """

    pixels: np.ndarray
    opacity: np.ndarray | None
    name: str

    @property
    def size(self) -> Size:
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def sha256(self) -> str:
        """Of the content, whatever file it came from."""
        content = self.pixels.tobytes() + (b"" if self.opacity is None else self.opacity.tobytes())
        return hashlib.sha256(repr(self.size).encode() + content).hexdigest()

    def reduced(self, max_side: int) -> Picture:
        """The same with at most `max_side` pixels a side."""
        scale = max_side / max(self.size)
        if scale >= 1:
            return self
        height, width = (max(1, round(side * scale)) for side in self.size)
        log.info("%s: reduced from %dx%d to %dx%d; --max-size keeps more", self.name, *self.size[::-1], width, height)
        opacity = None if self.opacity is None else cv2.resize(self.opacity, (width, height), interpolation=cv2.INTER_AREA)
        return Picture(resize_picture(self.pixels, (height, width)), opacity, self.name)


def read_picture(path: Path, *, max_side: int | None = None) -> Picture:
    """One picture; of a clip or an animation its first frame, which is said.

    Raises:
        InputError: it cannot be read, or is below 16 pixels on a side.
    """
    if images.is_image(path):
        pixels, opacity = images.read_with_opacity(path)
    else:
        pixels, opacity = open_source(path).read(0, 1)[0].pixels, None
        log.info("%s: is a clip; its first frame is taken", paths.display(path))
    height, width = pixels.shape[:2]
    if min(height, width) < patches.MIN_SIDE:
        least = patches.MIN_SIDE
        raise InputError(f"{paths.display(path)}: {width}x{height}; at least {least}x{least} pixels are needed to learn from")
    picture = Picture(pixels, opacity, paths.display(path))
    if max_side is None:
        return picture
    reduced = picture.reduced(max_side)
    if min(reduced.size) < patches.MIN_SIDE:
        least = patches.MIN_SIDE
        raise InputError(
            f"{picture.name}: {width}x{height} reduced to {reduced.size[1]}x{reduced.size[0]}; {least} pixels a side are needed",
            hint="cut out a part that is less long, or give a larger --max-size",
        )
    return reduced


def read_mask(path: Path, size: Size) -> np.ndarray:
    """Where something was pasted, bool [H,W]: the bright parts of a picture of `size`.

    Raises:
        InputError: it has another size, or marks nothing.
    """
    mask = images.read_picture(path).max(axis=2) > 127
    if mask.shape != size:
        raise InputError(
            f"{paths.display(path)}: {mask.shape[1]}x{mask.shape[0]}, but the picture it belongs to is {size[1]}x{size[0]}",
            hint="save the mask at the size of the picture",
        )
    if not mask.any():
        raise InputError(f"{paths.display(path)}: the mask is black everywhere; white marks what was pasted")
    return mask


def difference_mask(changed: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Where two pictures of one size differ visibly, bool [H,W].

    Raises:
        InputError: they differ in size, or nowhere.
    """
    if changed.shape != original.shape:
        sizes = [f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (changed, original)]
        raise InputError(f"the changed picture is {sizes[0]}, the original {sizes[1]}", hint="give --mask")
    far = np.abs(changed.astype(int) - original).max(axis=2) > 24
    mask = cv2.morphologyEx(far.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
    if not mask.any():
        raise InputError("the changed picture is the original: there is nothing to blend in")
    return mask


def soft_mask(mask: np.ndarray, radius: int, blur: float = _MASK_BLUR) -> np.ndarray:
    """bool [H,W] grown by a disk and blurred: float32 [H,W] in 0..1, 1 on all that was marked."""
    grown = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2))
    return cv2.GaussianBlur(grown.astype(np.float32), (0, 0), blur)


def blend_in(made: np.ndarray, original: np.ndarray, mask: np.ndarray, radius: int, blur: float = _MASK_BLUR) -> np.ndarray:
    """`made` where the mask is, the original elsewhere; uint8 [H,W,3]."""
    share = soft_mask(mask, radius, blur)[:, :, None]
    return np.rint(share * made[:, :, :3] + (1 - share) * original).astype(np.uint8)


class Applications(ABC):
    """What can be made of one picture."""

    picture: Picture
    num_scales: int

    @abstractmethod
    def sample(self, num_samples: int, *, size: Size | None = None, start_scale: int = 0, seed: int = 0) -> Iterator[np.ndarray]:
        """New pictures of any size and aspect."""

    @abstractmethod
    def animate(
        self,
        num_frames: int,
        *,
        loop: bool = True,
        size: Size | None = None,
        start_scale: int = 1,
        alpha: float = 0.1,
        beta: float = 0.9,
        seed: int = 0,
    ) -> Iterator[np.ndarray]:
        """Frames that begin with the picture; in a loop, the first follows the last.

        Args:
            alpha: how strongly everything is drawn back to the picture.
            beta: how slowly it changes, 0..1.
        """

    @abstractmethod
    def super_resolve(self, factor: float = 4.0, *, seed: int = 0) -> np.ndarray:
        """The picture with `factor` times as many pixels a side."""

    @abstractmethod
    def remake(self, changed: np.ndarray, *, start_scale: int | None = None, layout: bool = True, seed: int = 0) -> np.ndarray:
        """A picture uint8 [h,w,3] made anew in the look of the original, at the original's size.

        Args:
            start_scale: where it is taken in; by default in the middle.
            layout: whether it shows what the original shows where, roughly.
        """

    def harmonize(self, naive: np.ndarray, mask: np.ndarray, *, start_scale: int | None = None, seed: int = 0) -> np.ndarray:
        """What was pasted into the picture, in the picture's look; `mask` is bool [H,W]."""
        made = self.remake(naive, start_scale=start_scale, layout=False, seed=seed)
        return blend_in(made, self.picture.pixels, mask, HARMONIZE_RADIUS)

    def edit(self, edited: np.ndarray, mask: np.ndarray, *, start_scale: int | None = None, seed: int = 0) -> np.ndarray:
        """Parts of the picture that were copied or moved, without seams."""
        made = self.remake(edited, start_scale=start_scale, layout=False, seed=seed)
        return blend_in(made, self.picture.pixels, mask, EDIT_RADIUS)

    def paint(self, painting: np.ndarray, *, start_scale: int = 1, seed: int = 0) -> np.ndarray:
        """What a rough painting means, in the picture's look."""
        return self.remake(painting, start_scale=start_scale, seed=seed)

    def check_scale(self, start_scale: int, first: int = 0) -> None:
        """Refuse a scale that there is not.

        Raises:
            InputError: with those there are.
        """
        if not first <= start_scale < self.num_scales:
            raise InputError(f"start scale {start_scale}: this picture has scales {first} to {self.num_scales - 1}")


class Patches(Applications):
    """Everything from the picture's own patches, without training; see `vidgen.networks.patches`."""

    def __init__(self, picture: Picture, matching: Matching | None = None) -> None:
        self.picture = picture
        self.matching = matching or Matching()
        self._volume = _volume(picture)
        self._sizes = patches.level_sizes((1, *picture.size))
        self.num_scales = len(self._sizes)

    def sample(self, num_samples: int, *, size: Size | None = None, start_scale: int = 0, seed: int = 0) -> Iterator[np.ndarray]:
        self.check_scale(start_scale)
        for number in range(num_samples):
            yield _pixels(self._sample(size or self.picture.size, start_scale, SAMPLE_NOISE, _seed(seed, number)))[0]

    def animate(
        self,
        num_frames: int,
        *,
        loop: bool = True,
        size: Size | None = None,
        start_scale: int = 1,
        alpha: float = 0.1,
        beta: float = 0.9,
        seed: int = 0,
    ) -> Iterator[np.ndarray]:
        """A walk from sample to sample along the motion between them; each frame is made of the picture's patches again."""
        self.check_scale(start_scale)
        noise = SAMPLE_NOISE * 1.2 * math.sqrt(0.1 / max(alpha, 0.001))
        num_moves = max(2, min(12, round(num_frames * (1 - beta)))) if num_frames > 1 else 1
        target = size or self.picture.size
        first = patches.resize(self._volume, (1, *target))[:3]
        stations = [first]
        for number in range(1, num_moves + (not loop)):
            stations.append(self._sample(target, start_scale, min(noise, 3.0), _seed(seed, number))[:3])
        frames = _along(stations, num_frames, loop)
        if size is None:
            frames = self._sharpened(frames, seed)
        for frame in _steadied(frames, loop):
            yield _pixels(frame)[0]

    def super_resolve(self, factor: float = 4.0, *, seed: int = 0) -> np.ndarray:
        return _pixels(patches.enlarge(self._volume, factor, seed=seed))[0]

    def remake(self, changed: np.ndarray, *, start_scale: int | None = None, layout: bool = True, seed: int = 0) -> np.ndarray:
        scale = (self.num_scales * 5) // 9 if start_scale is None else start_scale
        self.check_scale(scale)
        given = _volume(Picture(resize_picture(changed, self.picture.size), None, ""))
        matching = self.matching if layout else replace(self.matching, layout=0.0, completeness=None)
        example = self._volume[:3]
        made = patches.synthesise(
            example,
            self._sizes,
            self._sizes,
            lambda size: patches.resize(given, size),
            first_level=scale,
            matching=matching,
            seed=seed,
        )
        return _pixels(made)[0]

    def harmonize(self, naive: np.ndarray, mask: np.ndarray, *, start_scale: int | None = None, seed: int = 0) -> np.ndarray:
        """Broad colours and half of the texture come from patches of the picture, fine shapes from what was pasted."""
        scale = max(0, self.num_scales - 2) if start_scale is None else start_scale
        pasted = resize_picture(naive, self.picture.size)
        made = self.remake(pasted, start_scale=scale, layout=False, seed=seed)[:, :, :3]
        blur = max(self.picture.size) / _DETAIL_PARTS
        broad, broad_pasted = (cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), blur) for pixels in (made, pasted))
        mixed = broad + _TEXTURE_SHARE * (made - broad) + _DETAIL_SHARE * (pasted - broad_pasted)
        return blend_in(mixed.clip(0, 255), self.picture.pixels, mask, 1, 1.2)

    def _sample(self, size: Size, start_scale: int, noise: float, seed: int) -> Tensor:
        ratios = [wanted / own for wanted, own in zip(size, self.picture.size, strict=True)]
        sizes = [(1, max(7, round(height * ratios[0])), max(7, round(width * ratios[1]))) for _, height, width in self._sizes[:-1]]
        generator = torch.Generator().manual_seed(seed)

        def start(wanted: patches.Size) -> Tensor:
            guess = patches.resize(self._volume, wanted).clone()
            guess[:3] += noise * torch.randn(3, *wanted, generator=generator)
            return guess

        return patches.synthesise(
            self._volume, [*sizes, (1, *size)], self._sizes, start, first_level=start_scale, matching=self.matching, seed=seed
        )

    def _sharpened(self, frames: Iterator[Tensor], seed: int) -> Iterator[Tensor]:
        """Frames made of patches; each goes on from the matches of the one before, which keeps them steady."""
        matching = replace(self.matching, completeness=None)
        example = Example(self._volume[:3], self._volume[:3], matching)
        generator = torch.Generator().manual_seed(seed)
        matches = None
        for frame in frames:
            made, matches, _ = patches.refine(frame, example, matches, None, matching, generator)
            yield made


class Trained(Applications):
    """Everything from a generator that has learnt the picture.

    Args:
        model: a run folder or weights.
        picture: what it was trained with, at the size it was trained with or larger.
    """

    def __init__(self, model: Path | Model, picture: Picture, *, device: str = "auto") -> None:
        self.model = model if isinstance(model, Model) else Model.load(model, device=device)
        translator = self.model.translator
        if not isinstance(translator, SingleImageTranslator):
            kind = self.model.kind
            raise CheckpointError(f"{model}: is a {kind} model; one that has learnt a single picture is needed")
        self._translator = translator
        self.num_scales: int = translator.num_learned
        size = translator.pyramid.finest
        self.picture = picture if picture.size == size else Picture(resize_picture(picture.pixels, size), None, picture.name)

    def sample(self, num_samples: int, *, size: Size | None = None, start_scale: int = 0, seed: int = 0) -> Iterator[np.ndarray]:
        self.check_scale(start_scale)
        for number in range(num_samples):
            with self._using():
                made = self._translator.generate(size, start_scale=start_scale, generator=_generator(_seed(seed, number)))
            yield _pixels(made[0][:, None])[0]

    def animate(
        self,
        num_frames: int,
        *,
        loop: bool = True,
        size: Size | None = None,
        start_scale: int = 1,
        alpha: float = 0.1,
        beta: float = 0.9,
        seed: int = 0,
    ) -> Iterator[np.ndarray]:
        self.check_scale(start_scale)
        frames = self._translator.animate(
            num_frames, alpha=alpha, beta=beta, start_scale=start_scale, loop=loop, size=size, generator=_generator(seed)
        )
        for _ in range(num_frames):
            with self._using():
                frame = next(frames)
            yield _pixels(frame[0][:, None])[0]

    def super_resolve(self, factor: float = 4.0, *, seed: int = 0) -> np.ndarray:
        enlarge = getattr(self._translator, "super_resolve", None)
        if enlarge is None:
            raise InputError(f"{self.model.kind} does not enlarge", hint="take --method singan or patch")
        with self._using():
            made: Tensor = enlarge(factor, generator=_generator(seed))
        return _pixels(made[0][:, None])[0]

    def remake(self, changed: np.ndarray, *, start_scale: int | None = None, layout: bool = True, seed: int = 0) -> np.ndarray:
        scale = self.num_scales // 2 if start_scale is None else start_scale
        self.check_scale(scale, first=1)
        given = torch.from_numpy(changed).permute(2, 0, 1)[None].float() / 127.5 - 1
        with self._using():
            made = self._translator.inject(self.model.runtime.place(given), scale, generator=_generator(seed))
        return _pixels(made[0][:, None])[0]

    @contextmanager
    def _using(self) -> Iterator[None]:
        with torch.inference_mode(), self.model.runtime.autocast():
            yield


def clip_variation(
    clip: Sequence[np.ndarray], num_frames: int, *, size: Size | None = None, loop: bool = False, noise: float = 1.0, seed: int = 0
) -> Iterator[np.ndarray]:
    """A new clip made of space-time patches of a short one (VGPNN).

    Args:
        clip: uint8 [H,W,3] each.
        size: of the result; the clip's by default.
        loop: the first frame follows the last.

    Raises:
        InputError: the clip is too short or too small.
    """
    if len(clip) < patches.CLIP_PATCH_FRAMES:
        raise InputError(f"the clip has {len(clip)} frames; at least {patches.CLIP_PATCH_FRAMES} are needed")
    if len(clip) > _MAX_CLIP_FRAMES:
        raise InputError(
            f"the clip has {len(clip)} frames; at most {_MAX_CLIP_FRAMES} are learnt from", hint="cut it, as in [0:60]"
        )
    example = torch.from_numpy(np.stack(clip)).permute(3, 0, 1, 2).float() / 127.5 - 1
    own = (len(clip), *clip[0].shape[:2])
    target = (num_frames, *(size or own[1:]))
    example_sizes = patches.level_sizes(own, min_frames=patches.CLIP_PATCH_FRAMES)
    ratios = [wanted / there for wanted, there in zip(target, own, strict=True)]
    sizes = [
        (
            max(patches.CLIP_PATCH_FRAMES, round(level[0] * ratios[0])),
            max(patches.PATCH_SIDE, round(level[1] * ratios[1])),
            max(patches.PATCH_SIDE, round(level[2] * ratios[2])),
        )
        for level in example_sizes[:-1]
    ]
    generator = torch.Generator().manual_seed(seed)

    def start(wanted: patches.Size) -> Tensor:
        return patches.resize(example, wanted) + noise * torch.randn(3, *wanted, generator=generator)

    matching = Matching(window=(patches.CLIP_PATCH_FRAMES, patches.PATCH_SIDE, patches.PATCH_SIDE), num_iterations=3)
    made = patches.synthesise(example, [*sizes, target], example_sizes, start, loop=loop, matching=matching, seed=seed)
    yield from _pixels(made)


def loop_gap(frames: Sequence[np.ndarray]) -> float:
    """Difference of the last frame and the first, over the mean difference of neighbours: about 1 where a loop closes."""
    steps = [np.abs(after.astype(int) - before).mean() for before, after in itertools.pairwise(frames)]
    mean = float(np.mean(steps)) if steps else 0.0
    gap = float(np.abs(frames[-1].astype(int) - frames[0]).mean())
    return gap / mean if mean else (0.0 if gap == 0 else math.inf)


def contact_sheet(pictures: Sequence[np.ndarray], *, num_columns: int | None = None, gap: int = 4) -> np.ndarray:
    """Pictures of any sizes in rows and columns on grey, transparency on white; uint8 [H,W,3]."""
    shown = [_on_white(pixels) for pixels in pictures]
    columns = num_columns or math.ceil(math.sqrt(len(shown)))
    rows = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    width = max(sum(pixels.shape[1] + gap for pixels in row) for row in rows) + gap
    height = sum(max(pixels.shape[0] for pixels in row) + gap for row in rows) + gap
    sheet = np.full((height, width, 3), 128, np.uint8)
    top = gap
    for row in rows:
        left = gap
        for pixels in row:
            sheet[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
            left += pixels.shape[1] + gap
        top += max(pixels.shape[0] for pixels in row) + gap
    return sheet


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
    """Each frame with a share of its neighbours, so that patches do not jump."""
    made = list(frames)
    for index, frame in enumerate(made):
        last = len(made) - 1
        before = made[(index - 1) % len(made) if loop else max(0, index - 1)]
        after = made[(index + 1) % len(made) if loop else min(last, index + 1)]
        yield frame if index == 0 else (before + 2 * frame + after) / 4


def _volume(picture: Picture) -> Tensor:
    pixels = picture.pixels if picture.opacity is None else np.dstack([picture.pixels, picture.opacity])
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[:, None].float() / 127.5 - 1


def _pixels(volume: Tensor) -> np.ndarray:
    """[C,T,H,W] in -1..1 as uint8 [T,H,W,C]; colours over white become those of the transparent picture itself."""
    values = ((volume.detach().float().cpu().clamp(-1, 1) + 1) / 2).permute(1, 2, 3, 0)
    if values.shape[3] == 4:
        opacity = values[..., 3:]
        values = torch.cat([((values[..., :3] - 1 + opacity) / opacity.clamp(min=1 / 255)).clamp(0, 1), opacity], dim=3)
    return (values * 255).round().byte().numpy()


def _on_white(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[2] == 3:
        return pixels
    opacity = pixels[:, :, 3:].astype(np.float32) / 255
    return np.rint(opacity * pixels[:, :, :3] + (1 - opacity) * 255).astype(np.uint8)


def _seed(seed: int, number: int) -> int:
    return seed * 1_000_003 + number


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
