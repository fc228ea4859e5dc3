"""New clips from a short one, made of its space-time patches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vidgen.errors import InputError
from vidgen.media.conditions import resize_picture
from vidgen.media.pixels import to_pixels, to_tensor
from vidgen.networks import patches
from vidgen.networks.patches import Matching, Synthesis
from vidgen.single_image.pictures import Size

MAX_CLIP_FRAMES = 240


def clip_variation(
    clip: Sequence[np.ndarray],
    num_frames: int,
    *,
    size: Size | None = None,
    work_side: int | None = None,
    loop: bool = False,
    noise: float = 1.0,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """A new clip made of space-time patches of a short one (VGPNN).

    Args:
        clip: uint8 [H,W,3] each.
        size: of the result; the clip's by default.
        work_side: longer side of the clip at which patches are matched, which takes nearly all of the time; they bring detail of
            the clip's own size with them. The clip's by default.
        loop: the first frame follows the last.

    Raises:
        InputError: the clip is too short or too long.
    """
    if len(clip) < patches.CLIP_PATCH_FRAMES:
        raise InputError(f"the clip has {len(clip)} frames; at least {patches.CLIP_PATCH_FRAMES} are needed")
    if len(clip) > MAX_CLIP_FRAMES:
        raise InputError(
            f"the clip has {len(clip)} frames; at most {MAX_CLIP_FRAMES} are learned from", hint="cut it, as in [0:60]"
        )
    height, width = clip[0].shape[:2]
    size = size or (height, width)
    work = at_side((height, width), work_side or max(height, width))
    scale = height / work[0]
    small = [resize_picture(frame, work) for frame in clip]
    matched = max(1, round(size[0] / scale)), max(1, round(size[1] / scale))
    synthesis = _synthesis(small, (num_frames, *matched), loop=loop, noise=noise, seed=seed)
    if scale == 1:
        yield from to_pixels(synthesis.volume.transpose(0, 1))
        return
    sharp = np.stack(clip)
    for frame in range(num_frames):
        detail = _copied(sharp, synthesis.places[:, frame].numpy(), frame, size, scale)
        volume = to_tensor(detail)[:, None]
        broad = patches.resize(volume, (1, *synthesis.volume.shape[2:]))
        corrected = volume + patches.resize(synthesis.volume[:, frame : frame + 1] - broad, (1, *size))
        yield to_pixels(corrected[:, 0])


def at_side(size: Size, side: int) -> Size:
    """(height, width) with at most `side` pixels along the longer one."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _synthesis(clip: Sequence[np.ndarray], target: patches.Size, *, loop: bool, noise: float, seed: int) -> Synthesis:
    """A volume of size `target` made of patches of a clip, all at the size at which patches are matched."""
    example = to_tensor(np.stack(clip)).transpose(0, 1)
    own = (len(clip), *clip[0].shape[:2])
    example_sizes = patches.level_sizes(own, min_frames=patches.CLIP_PATCH_FRAMES)
    ratios = [new / old for new, old in zip(target, own, strict=True)]
    sizes = [
        (
            max(patches.CLIP_PATCH_FRAMES, round(level[0] * ratios[0])),
            max(patches.PATCH_SIDE, round(level[1] * ratios[1])),
            max(patches.PATCH_SIDE, round(level[2] * ratios[2])),
        )
        for level in example_sizes[:-1]
    ]
    generator = torch.Generator().manual_seed(seed)

    def start(size: patches.Size) -> Tensor:
        return patches.resize(example, size) + noise * torch.randn(3, *size, generator=generator)

    matching = Matching(window=(patches.CLIP_PATCH_FRAMES, patches.PATCH_SIDE, patches.PATCH_SIDE), num_iterations=3)
    return patches.synthesize(example, [*sizes, target], example_sizes, start, loop=loop, matching=matching, seed=seed)


def _copied(clip: np.ndarray, places: np.ndarray, frame: int, size: Size, scale: float) -> np.ndarray:
    """A frame uint8 [H,W,3] of `size` copied from a clip uint8 [T,h,w,3], `scale` times as large as where it was matched.

    Every pixel comes from where the four matches around it say, weighted as in bilinear interpolation: where they move alike, that
    is one pixel, and sharp; where they do not, one part fades into the other.

    Args:
        places: [3,h',w'], the (frame, row, column) that is matched.
    """
    matched = places.shape[1], places.shape[2]
    shifts = places[1] - np.arange(matched[0])[:, None], places[2] - np.arange(matched[1])[None]
    own = [np.arange(length) for length in size]
    at = [np.clip((axis + 0.5) / scale - 0.5, 0, length - 1) for axis, length in zip(own, matched, strict=True)]
    first = [np.minimum(axis.astype(int), max(0, length - 2)) for axis, length in zip(at, matched, strict=True)]
    share = [(axis - low).astype(np.float32) for axis, low in zip(at, first, strict=True)]
    colors, total = clip.reshape(-1, 3), np.zeros((*size, 3), np.float32)
    for down, right in itertools.product((0, 1), (0, 1)):
        rows, columns = (np.minimum(low + step, end - 1) for low, step, end in zip(first, (down, right), matched, strict=True))
        near = np.ix_(rows, columns)
        sources = [
            np.clip(axis + np.rint(scale * shift[near]).astype(int), 0, length - 1)
            for axis, shift, length in zip((own[0][:, None], own[1][None]), shifts, clip.shape[1:3], strict=True)
        ]
        weights = np.outer(share[0] if down else 1 - share[0], share[1] if right else 1 - share[1])
        total += weights[..., None] * colors[(places[0][near] * clip.shape[1] + sources[0]) * clip.shape[2] + sources[1]]
    return np.rint(total).astype(np.uint8)


def loop_gap(frames: Sequence[np.ndarray]) -> float:
    """Difference of the last frame and the first, over the mean difference of neighbors: about 1 where a loop closes."""
    steps = [np.abs(after.astype(int) - before).mean() for before, after in itertools.pairwise(frames)]
    mean = float(np.mean(steps)) if steps else 0.0
    gap = float(np.abs(frames[-1].astype(int) - frames[0]).mean())
    return gap / mean if mean else (0.0 if gap == 0 else math.inf)
