"""New clips from a short one, made of its space-time patches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vidgen.errors import InputError
from vidgen.media.pixels import to_pixels, to_tensor
from vidgen.networks import patches
from vidgen.networks.patches import Matching
from vidgen.single_image.pictures import Size

MAX_CLIP_FRAMES = 240


def clip_variation(
    clip: Sequence[np.ndarray], num_frames: int, *, size: Size | None = None, loop: bool = False, noise: float = 1.0, seed: int = 0
) -> Iterator[np.ndarray]:
    """A new clip made of space-time patches of a short one (VGPNN).

    Args:
        clip: uint8 [H,W,3] each.
        size: of the result; the clip's by default.
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
    example = to_tensor(np.stack(clip)).transpose(0, 1)
    own = (len(clip), *clip[0].shape[:2])
    target = (num_frames, *(size or own[1:]))
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
    generated = patches.synthesize(example, [*sizes, target], example_sizes, start, loop=loop, matching=matching, seed=seed)
    yield from to_pixels(generated.transpose(0, 1))


def loop_gap(frames: Sequence[np.ndarray]) -> float:
    """Difference of the last frame and the first, over the mean difference of neighbors: about 1 where a loop closes."""
    steps = [np.abs(after.astype(int) - before).mean() for before, after in itertools.pairwise(frames)]
    mean = float(np.mean(steps)) if steps else 0.0
    gap = float(np.abs(frames[-1].astype(int) - frames[0]).mean())
    return gap / mean if mean else (0.0 if gap == 0 else math.inf)
