"""Animations, samples, enlargement, harmonization, editing and paint from one picture or a short clip, as functions.

Pictures come as paths or as uint8 [H,W,3] or [H,W,4], and come back as such arrays; nothing is written but trained models.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidgen.errors import ConfigError, InputError
from vidgen.media import paths, video
from vidgen.media.conditions import resize_picture
from vidgen.media.frames import FrameSource, open_source
from vidgen.networks import patches
from vidgen.single_image import training
from vidgen.single_image.budget import TrainingPlan
from vidgen.single_image.clips import at_side, clip_variation
from vidgen.single_image.models import Patches, SingleImageModel, Trained
from vidgen.single_image.options import TRAINED, Purpose, Shape, SingleImageOptions, Walk
from vidgen.single_image.pictures import (
    MAX_SIDE,
    Picture,
    check_size,
    difference_mask,
    read_mask,
    read_picture,
    size_text,
)

log = logging.getLogger(__name__)

PictureLike = Path | str | np.ndarray | Picture
DEFAULT, DEFAULT_WALK = SingleImageOptions(), Walk()
PICTURE_RATE = Fraction(12)
"""Frames per second of an animation of a still picture."""
_CLIP_VOXELS = 1_500_000
_CLIP_SIDES = (160, 320)
"""Clips are matched at so many pixels in all frames together (about 20 seconds of a core a million), within these longer sides."""


@dataclass(frozen=True)
class Animation:
    """A moving picture that is generated frame by frame.

    Attributes:
        frames: uint8 [H,W,3] or [H,W,4] each, once.
        frame_rate: frames per second.
        original: what is animated: the picture, or the frames of the clip; uint8 [H,W,3] each, at one size.
    """

    frames: Iterator[np.ndarray]
    frame_rate: Fraction
    original: Sequence[np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What would be done.

    Attributes:
        method: as in the options.
        sizes: of the scales, coarsest first: (height, width), or (frames, height, width) of a clip.
        training: the training that the method needs; None where it trains nothing.
    """

    method: str
    sizes: tuple[tuple[int, ...], ...]
    training: TrainingPlan | None = None

    def report(self) -> dict[str, Any]:
        """The plan as plain data."""
        if self.training is not None:
            return {"method": self.method, "training": f"about {self.training.seconds:.0f} s", "scales": self.training.rows()}
        scales = [f"{size[0]} x {size_text(size[1:])}" if len(size) == 3 else size_text(size) for size in self.sizes]
        return {"method": self.method, "training": "none", "scales": ", ".join(scales)}


def animate(
    source: PictureLike,
    walk: Walk = DEFAULT_WALK,
    options: SingleImageOptions = DEFAULT,
    *,
    frame_rate: Fraction | float = PICTURE_RATE,
    allow_truncated: bool = False,
) -> Animation:
    """Let a still picture move, or make a new clip of a short one.

    Args:
        source: a picture, or the path of a video or of a folder of frames.
        walk: how it moves; of a clip, its length, loop and shape count.
        frame_rate: of an animation of a still picture; a clip keeps its own.
        allow_truncated: take the frames there are of a clip that is cut off.

    Raises:
        InputError: the source cannot be read, or is too small or too short.
        ConfigError: the options do not fit it.
    """
    if is_clip(source):
        clip, size = _open_clip(source, options, allow_truncated)
        frames = [resize_picture(frame.pixels, size) for frame in clip]
        num_frames = walk.length(len(frames))
        work_side = _clip_side((max(len(frames), num_frames), *size))
        generated = clip_variation(
            frames, num_frames, size=walk.shape.of(size), work_side=work_side, loop=walk.loop, seed=options.seed
        )
        return Animation(generated, clip.frame_rate, frames)
    model = prepare(source, "animation", options)
    if model.picture.opacity is not None:
        log.info("%s: its transparent parts are laid over white", model.picture.name)
    moving = model.animate(walk, seed=options.seed)
    return Animation(moving, Fraction(frame_rate).limit_denominator(1001), [model.original.pixels])


def sample(
    image: PictureLike,
    num_samples: int = 6,
    options: SingleImageOptions = DEFAULT,
    *,
    shape: Shape | None = None,
    start_scale: int = 0,
) -> Iterator[np.ndarray]:
    """New pictures in the style of one, of any size.

    Args:
        shape: of the samples; that of the picture by default.
        start_scale: samples differ from this scale on; 0 leaves the layout free.

    Raises:
        InputError: the picture cannot be read or is too small, or there is no such scale.
        ConfigError: the options do not fit it.
    """
    model = prepare(image, "sample", options)
    size = (shape or Shape()).of(model.picture.size)
    return model.sample(num_samples, size=size, start_scale=start_scale, seed=options.seed)


def super_resolve(image: PictureLike, factor: float = 4.0, options: SingleImageOptions = DEFAULT) -> np.ndarray:
    """A picture with `factor` times as many pixels a side, with detail from the picture itself.

    Raises:
        InputError: the picture cannot be read or is too small, or the result would be too large.
        ConfigError: the factor is not more than 1 and at most 16, or the options do not fit the picture.
    """
    picture = read_picture(image)
    _check_factor(picture, factor, options)
    return prepare(picture, "super_resolution", options).super_resolve(factor, seed=options.seed)


def harmonize(
    changed: PictureLike,
    image: PictureLike,
    options: SingleImageOptions = DEFAULT,
    *,
    mask: Path | np.ndarray | None = None,
    start_scale: int | None = None,
) -> np.ndarray:
    """Give what was pasted into a picture the picture's style; all else stays as it is, at its full size.

    Args:
        changed: the picture with something pasted into it.
        image: the picture itself, of the same size.
        mask: white where something was pasted; by default where the two pictures differ.
        start_scale: finer scales keep more of what was pasted.

    Raises:
        InputError: a picture cannot be read, sizes differ, or nothing is marked.
    """
    pasted, marked, model = _prepare_change(changed, image, mask, options)
    return model.harmonize(pasted, marked, start_scale=start_scale, seed=options.seed)


def edit_image(
    image: PictureLike,
    changed: PictureLike,
    options: SingleImageOptions = DEFAULT,
    *,
    mask: Path | np.ndarray | None = None,
    start_scale: int | None = None,
) -> np.ndarray:
    """Remove the seams of a picture whose parts were copied or moved about; all else stays as it is, at its full size.

    Args and errors are those of `harmonize`.
    """
    moved, marked, model = _prepare_change(changed, image, mask, options)
    return model.edit(moved, marked, start_scale=start_scale, seed=options.seed)


def paint(painting: PictureLike, image: PictureLike, options: SingleImageOptions = DEFAULT, *, start_scale: int = 1) -> np.ndarray:
    """What a rough painting, of any size, means in the style of a picture.

    Args:
        start_scale: where the painting is injected: a finer scale keeps more of it.

    Raises:
        InputError: a picture cannot be read or is too small, or there is no such scale.
    """
    drawn = read_picture(painting)
    model = prepare(image, "sample", options)
    return model.paint(drawn.resized(model.picture.size).pixels, start_scale=start_scale, seed=options.seed)


def plan(source: PictureLike, purpose: Purpose, options: SingleImageOptions = DEFAULT) -> Plan:
    """What one of the functions above would do with these options, without doing it.

    Raises:
        InputError: the source cannot be read, or is too small.
    """
    if purpose == "animation" and is_clip(source):
        clip, size = _open_clip(source, options, allow_truncated=False)
        count = clip.count()
        work = at_side(size, _clip_side((count, *size)))
        return Plan(options.method, tuple(patches.level_sizes((count, *work), min_frames=patches.CLIP_PATCH_FRAMES)))
    picture = _at_work(read_picture(source), purpose, options)
    if not options.trains:
        return Plan(options.method, tuple(size[1:] for size in patches.level_sizes((1, *picture.size))))
    trained = training.plan_training(picture, purpose, options)
    return Plan(options.method, tuple(scale.size for scale in trained.scales), trained)


def prepare(image: PictureLike, purpose: Purpose, options: SingleImageOptions = DEFAULT) -> SingleImageModel:
    """What generates from a picture, trained first if need be.

    Raises:
        InputError: the picture cannot be read, or is too small.
        ConfigError: the options do not fit it, or the model has learned another picture.
    """
    picture = read_picture(image)
    if not options.trains:
        if options.budget_seconds is not None:
            log.info("patches need no training: a budget is for the methods %s", ", ".join(TRAINED))
        return Patches(picture, max_side=options.side(purpose, max(picture.size)))
    folder = options.model or _cache_folder(picture, purpose, options)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"model {paths.display(folder)}: is a file; a folder to train into was expected")
    if (folder / "run" / "checkpoints").is_dir():  # as 0.1 laid them out
        folder = folder / "run"
    if (folder / "checkpoints").is_dir() and training.is_complete(folder):
        log.info("%s: learned already, in %s", picture.name, folder)
    else:
        log.info("%s: training on it in %s", picture.name, folder)
        training.train(_at_work(picture, purpose, options), folder, purpose, options)
    return Trained(folder, picture, max_side=options.shown_side(purpose, max(picture.size)), device=options.device)


def is_clip(source: PictureLike) -> bool:
    """Whether it is the path of a video, or of a folder of frames."""
    if not isinstance(source, Path | str):
        return False
    path = Path(paths.split_cut(str(source))[0])
    return video.is_video(path) or path.is_dir()


def _at_work(picture: Picture, purpose: Purpose, options: SingleImageOptions) -> Picture:
    return picture.downscaled(options.side(purpose, max(picture.size)))


def _check_factor(picture: Picture, factor: float, options: SingleImageOptions) -> None:
    if not 1 < factor <= 16:
        raise ConfigError(f"factor {factor:g}: expected more than 1 and at most 16")
    if max(picture.size) * factor > MAX_SIDE and options.max_side is None:
        raise InputError(
            f"{picture.name}: {size_text(picture.size)} times {factor:g} is more than {MAX_SIDE} pixels a side",
            hint="take a smaller factor, or work at a smaller size",
        )


def _prepare_change(
    changed: PictureLike, image: PictureLike, mask: Path | np.ndarray | None, options: SingleImageOptions
) -> tuple[Picture, np.ndarray, SingleImageModel]:
    original, other = read_picture(image), read_picture(changed)
    if other.size != original.size:
        sizes = size_text(other.size), size_text(original.size)
        raise InputError(f"{other.name}: {sizes[0]}, but {original.name} is {sizes[1]}; expected the same size")
    marked = difference_mask(other.pixels, original.pixels) if mask is None else read_mask(mask, original.size)
    return other, marked, prepare(original, "sample", options)


def _open_clip(source: PictureLike, options: SingleImageOptions, allow_truncated: bool) -> tuple[FrameSource, tuple[int, int]]:
    """A clip, and the size that comes out."""
    if options.trains:
        raise ConfigError(f"method {options.method}: learns from one picture, not from a clip; take patch for clips")
    clip = open_source(str(source), allow_truncated=allow_truncated)
    scale = min(1.0, options.shown_side("animation", max(clip.size)) / max(clip.size))
    size = (max(1, round(clip.size[0] * scale)), max(1, round(clip.size[1] * scale)))
    check_size(size, clip.name, before=None if size == clip.size else clip.size)
    if size != clip.size:
        log.info("%s: worked at %s, downscaled from %s", clip.name, size_text(size), size_text(clip.size))
    return clip, size


def _clip_side(size: tuple[int, int, int]) -> int:
    """Longer side at which a clip of (frames, height, width) is matched."""
    frames, height, width = size
    fitting = math.sqrt(_CLIP_VOXELS / (frames * height * width)) * max(height, width)
    return min(max(height, width), max(_CLIP_SIDES[0], min(_CLIP_SIDES[1], round(fitting))))


def _cache_folder(picture: Picture, purpose: Purpose, options: SingleImageOptions) -> Path:
    """Where the model of this picture, learned with these settings, is stored."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidgen" / "single"
    settings = [picture.sha256, options.kind, options.profile, purpose, options.budget_seconds, options.max_side, options.seed]
    return root / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:20]
