"""Pictures and clips made of patches of one example, without training.

A guess is refined from coarse to fine: every patch of it looks for the most similar patch of the example, and the overlapping
matches are blended into the next guess. Volumes are float32 [C,T,H,W] in -1..1; a picture has T = 1. The first three channels are
compared; further ones, such as opacity, come along with the patch.

Source: Granot et al., "Drop the GAN: In Defense of Patches Nearest Neighbors as Single Image Generative Models", CVPR 2022
(GPNN); Haim et al., "Diverse Generation from a Single Video Made Possible", ECCV 2022 (VGPNN); Barnes et al., "PatchMatch",
SIGGRAPH 2009. We differ on purpose: patches are compared by their leading principal components, each level begins with the
matches of the level below, and the distances that completeness needs are searched the same way in the other direction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int, int]
"""(frames, height, width)"""

PATCH_SIDE = 7
CLIP_PATCH_FRAMES = 3
MIN_SIDE = 16
"""Pictures below this many pixels on a side have too few patches to make anything of."""

_BLEND_DEVIATION = 1.7
_NUM_BASIS_PATCHES = 8192
_MAX_EXACT_PAIRS = 12_000_000
"""Up to so many pairs of patches all are compared; beyond, PatchMatch searches."""

_FIRST_SEARCHES = 8
"""Rounds of PatchMatch where nothing is known yet."""


@dataclass(frozen=True)
class Matching:
    """How patches are compared and blended.

    Attributes:
        window: (frames, height, width) of a patch.
        num_components: principal components that stand for a patch.
        completeness: the smaller, the harder every part of the example tries to appear; None lets parts be left out.
        layout: how strongly patches keep their relative height in the picture: skies stay above grounds.
        num_iterations: refinements on each level.
        num_searches: rounds of PatchMatch in each refinement.
    """

    window: Size = (1, PATCH_SIDE, PATCH_SIDE)
    num_components: int = 24
    completeness: float | None = 0.02
    layout: float = 0.08
    num_iterations: int = 4
    num_searches: int = 1


def level_sizes(size: Size, *, coarsest_side: int = 24, ratio: float = 0.75, min_frames: int = 1) -> list[Size]:
    """Sizes of a pyramid, coarsest first; its last is `size` and the shorter side of its first is about `coarsest_side`."""
    frames, height, width = size
    short = min(height, width)
    num_steps = max(0, round(math.log(coarsest_side / short) / math.log(ratio))) if short > coarsest_side else 0
    scales = [(coarsest_side / short) ** (step / num_steps) for step in range(num_steps, 0, -1)] if num_steps else []
    smallest = min(frames, min_frames)
    return [
        *(
            (max(smallest, math.ceil(frames * scale)), max(1, round(height * scale)), max(1, round(width * scale)))
            for scale in scales
        ),
        size,
    ]


def resize(volume: Tensor, size: Size) -> Tensor:
    """[C,T,H,W] at `size`: antialiased bicubic in space, linear in time."""
    if tuple(volume.shape[1:]) == size:
        return volume
    frames = volume.transpose(0, 1)
    if tuple(volume.shape[2:]) != size[1:]:
        frames = F.interpolate(frames, size[1:], mode="bicubic", antialias=True, align_corners=False)
    resized = frames.transpose(0, 1)
    if volume.shape[1] != size[0]:
        resized = F.interpolate(resized.flatten(2).transpose(1, 2), size[0], mode="linear", align_corners=False)
        resized = resized.transpose(1, 2).reshape(len(volume), *size)
    return resized


class Example:
    """One level of the example, ready to be searched.

    Args:
        values: [C,T,H,W], what patches are copied from.
        compared: [C,T,H,W], what they are compared by: the same, or less sharp where the guess is not sharp either.
    """

    def __init__(self, values: Tensor, compared: Tensor, matching: Matching) -> None:
        self.values, self.window = values, _fitting(matching.window, values)
        self._layout = matching.layout
        self.basis = _principal_patches(compared[:3], self.window, matching.num_components)
        self.keys = self.describe(compared)
        self.grid = _grid(values, self.window)

    def describe(self, volume: Tensor) -> Tensor:
        """Patches of [C,T,H,W] as float32 [N,K]; the squared distance of two is about their mean squared difference."""
        described = F.conv3d(volume[None, :3], self.basis)[0]
        if self._layout:
            rows = described.shape[2]
            heights = (torch.arange(rows) + 0.5) * (math.sqrt(self._layout) / rows)
            described = torch.cat([described, heights[:, None].expand(1, *described.shape[1:])])
        return described.flatten(1).T.contiguous()


@dataclass
class Matches:
    """For each patch of one grid, a patch of another.

    Attributes:
        places: int64 [3,N], (frame, row, column) of the matching patch.
        grid, other: patches along (frames, height, width) of the two grids.
        costs: float32 [N], of the matches; infinite where nothing is known.
    """

    places: Tensor
    grid: Size
    other: Size
    costs: Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def aligned(cls, grid: Size, other: Size) -> Matches:
        """Each patch finds the one at the same relative place."""
        axes = [
            ((torch.arange(size) + 0.5) * (size_other / size)).long().clamp(max=size_other - 1)
            for size, size_other in zip(grid, other, strict=True)
        ]
        return cls(torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1), grid, other)

    def enlarged(self, grid: Size, other: Size) -> Matches:
        """The same matches between grids of other sizes."""
        into = [
            ((torch.arange(size) + 0.5) * (old / size)) for size, old in zip(grid, self.grid, strict=True)
        ]  # in units of the old grid
        nearest = torch.meshgrid(*(axis.long() for axis in into), indexing="ij")
        rests = torch.meshgrid(*(axis - axis.floor() for axis in into), indexing="ij")
        old = self.places.view(3, *self.grid)
        places = []
        for axis, (size, size_old) in enumerate(zip(other, self.other, strict=True)):
            moved = (old[axis][nearest] + rests[axis]) * (size / size_old)
            places.append(moved.long().clamp(0, size - 1).flatten())
        return Matches(torch.stack(places), grid, other)

    @property
    def indices(self) -> Tensor:
        """int64 [N], places as positions in the other grid, flattened."""
        return _flat(self.places, self.other)


def refine(
    guess: Tensor,
    example: Example,
    matches: Matches | None,
    reverse: Matches | None,
    matching: Matching,
    generator: torch.Generator,
) -> tuple[Tensor, Matches, Matches | None]:
    """The guess [C,T,H,W] made of patches of the example, once; and the matches in both directions, to go on with."""
    grid = _grid(guess, example.window)
    queries = example.describe(guess)
    if len(queries) * len(example.keys) <= _MAX_EXACT_PAIRS:
        exact = Matches(_exact(queries, example.keys, example.grid, matching.completeness), grid, example.grid)
        return blend(example, exact, tuple(guess.shape[1:])), exact, None
    factors = None
    if matching.completeness is not None:
        num_rounds = matching.num_searches if reverse is not None else _FIRST_SEARCHES
        reverse = Matches.aligned(example.grid, grid) if reverse is None else reverse
        search(reverse, example.keys, queries, None, num_rounds, generator)
        factors = 1 / (matching.completeness + reverse.costs)
    num_rounds = matching.num_searches if matches is not None else _FIRST_SEARCHES
    matches = Matches.aligned(grid, example.grid) if matches is None else matches
    search(matches, queries, example.keys, factors, num_rounds, generator)
    return blend(example, matches, tuple(guess.shape[1:])), matches, reverse


def search(
    matches: Matches, queries: Tensor, keys: Tensor, factors: Tensor | None, num_rounds: int, generator: torch.Generator
) -> None:
    """Improve `matches` in place by PatchMatch: try the matches of neighbors, then random places ever closer to the best.

    Args:
        queries: [N,K], keys: [M,K], descriptions of the patches.
        factors: [M], what the cost of a key is multiplied with, or None.
    """
    limits = torch.tensor(matches.other)[:, None] - 1

    def cost(places: Tensor) -> Tensor:
        chosen = _flat(places, matches.other)
        costs = keys.index_select(0, chosen).sub_(queries).square_().sum(1)
        return costs if factors is None else costs.mul_(factors.index_select(0, chosen))

    def attempt(places: Tensor) -> None:
        places = torch.minimum(places.clamp_(min=0), limits)
        costs = cost(places)
        better = costs < matches.costs
        matches.costs = torch.where(better, costs, matches.costs)
        matches.places = torch.where(better, places, matches.places)

    matches.costs = cost(matches.places)
    widest = max(matches.other)
    for _ in range(num_rounds):
        for axis, step in itertools.product(range(3), (1, -1)):
            if matches.grid[axis] > 1:
                shifted = matches.places.view(3, *matches.grid).roll(step, 1 + axis).flatten(1)
                shifted[axis] += step
                attempt(shifted)
        radius = widest // 2
        while radius >= 1:
            spread = torch.minimum(torch.tensor(radius), limits)
            offsets = torch.rand(matches.places.shape, generator=generator).mul_(2).sub_(1).mul_(spread + 0.5).round_().long()
            attempt(matches.places + offsets)
            radius //= 3 if radius > 8 else 2


def blend(example: Example, matches: Matches, size: tuple[int, ...]) -> Tensor:
    """The matching patches, which overlap, averaged with a Gaussian window: [C,T,H,W] of `size`."""
    frames, height, width = example.values.shape[1:]
    colors = example.values.flatten(1).T.contiguous()
    corner = _flat(matches.places, (frames, height, width))
    total = torch.zeros(*size, colors.shape[1])
    weights = torch.zeros(*size, 1)
    window = _gaussian(example.window)
    for t, y, x in itertools.product(*map(range, example.window)):
        weight = float(window[t, y, x])
        patch_values = colors.index_select(0, corner + (t * height + y) * width + x).view(*matches.grid, -1)
        part = (slice(t, t + matches.grid[0]), slice(y, y + matches.grid[1]), slice(x, x + matches.grid[2]))
        total[part].add_(patch_values, alpha=weight)
        weights[part].add_(weight)
    return (total / weights).permute(3, 0, 1, 2).contiguous()


@dataclass(frozen=True)
class Synthesis:
    """Something new made of patches.

    Attributes:
        volume: [C,T,H,W].
        places: int64 [3,T,H,W], for every voxel the (frame, row, column) of the example that the patch around it brings there.
    """

    volume: Tensor
    places: Tensor


def synthesize(
    example: Tensor,
    sizes: Sequence[Size],
    example_sizes: Sequence[Size],
    start: Callable[[Size], Tensor],
    *,
    first_level: int = 0,
    loop: bool = False,
    matching: Matching | None = None,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> Synthesis:
    """Something new made of patches of `example` [C,T,H,W], from coarse to fine.

    Args:
        sizes: of the result on each level, coarsest first.
        example_sizes: of the example on the same levels.
        start: gives the guess to begin with at a size.
        first_level: where it begins; the layout is free at 0 and more and more that of the guess above.
        loop: let the first frame follow the last.
        report: told the number of levels done and of all.

    Returns:
        a volume of the last of `sizes`.
    """
    matching = matching or Matching()
    generator = torch.Generator().manual_seed(seed)
    guess = start(sizes[first_level])
    matches = reverse = None
    overlap = matching.window[0] - 1 if loop else 0
    for level in range(first_level, len(sizes)):
        guess = _continued(resize(guess, sizes[level]), overlap)
        values = resize(example, example_sizes[level])
        sharp = Example(values, values, matching)
        blurred = sharp
        if level > first_level:
            blurred = Example(values, resize(resize(example, example_sizes[level - 1]), example_sizes[level]), matching)
        if matches is not None:
            matches = matches.enlarged(_grid(guess, sharp.window), sharp.grid)
            reverse = reverse.enlarged(sharp.grid, _grid(guess, sharp.window)) if reverse is not None else None
        for iteration in range(matching.num_iterations):
            guess, matches, reverse = refine(guess, blurred if iteration == 0 else sharp, matches, reverse, matching, generator)
            guess = _continued(_closed(guess, overlap), overlap)
        guess = _closed(guess, overlap)
        if report is not None:
            report(level + 1 - first_level, len(sizes) - first_level)
    assert matches is not None
    return Synthesis(guess, _places(matches, sharp.window, sizes[-1], is_loop=overlap > 0))


def enlarge(picture: Tensor, factor: float, *, matching: Matching | None = None, seed: int = 0) -> Tensor:
    """A picture [C,1,H,W] in -1..1 with `factor` times as many pixels a side, its detail taken from the picture itself.

    The size grows in small steps. On each, patches of the blurry enlargement find similar patches of the blurred picture, and
    bring their sharp selves; what does not agree with the picture when downscaled again is corrected.
    Source: Glasner, Bagon, Irani, "Super-Resolution from a Single Image", ICCV 2009; Freedman and Fattal, "Image and Video
    Upscaling from Local Self-Examples", 2011.
    """
    matching = replace(matching or Matching(), window=(1, 5, 5), completeness=None, layout=0.0)
    generator = torch.Generator().manual_seed(seed)
    num_steps = max(1, round(math.log(factor) / math.log(2 ** (1 / 3))))
    height, width = picture.shape[2:]
    current = picture
    for step in range(1, num_steps + 1):
        scale = factor ** (step / num_steps)
        size = (1, round(height * scale), round(width * scale))
        previous = (1, current.shape[2], current.shape[3])
        smaller = (1, max(1, round(previous[1] * previous[1] / size[1])), max(1, round(previous[2] * previous[2] / size[2])))
        blurred = Example(current, resize(resize(current, smaller), previous), matching)
        guess = resize(current, size)
        matches = None
        guess, matches, _ = refine(guess, blurred, matches, None, matching, generator)
        for _ in range(4):
            guess = guess + resize(picture - resize(guess, (1, height, width)), size)
        current = guess.clamp(-1, 1)
    return current


def _places(matches: Matches, window: Size, size: Size, *, is_loop: bool) -> Tensor:
    """Where each voxel comes from, int64 [3,*size], by the patch that it is in the middle of, or nearest to that."""
    axes = [torch.arange(length) for length in size]
    corners = [(axis - side // 2).clamp(0, grid - 1) for axis, side, grid in zip(axes, window, matches.grid, strict=True)]
    inside = [axis - corner for axis, corner in zip(axes, corners, strict=True)]
    if is_loop:  # there is a patch for every frame, the last of which goes on with the first
        corners[0] = (axes[0] - window[0] // 2) % matches.grid[0]
        inside[0] = torch.full_like(axes[0], window[0] // 2)
    found = matches.places.view(3, *matches.grid)[:, corners[0][:, None, None], corners[1][:, None], corners[2]]
    return found + torch.stack(torch.meshgrid(*inside, indexing="ij"))


def _continued(volume: Tensor, overlap: int) -> Tensor:
    """A loop with its first frames again at its end."""
    return torch.cat([volume, volume[:, :overlap]], dim=1) if overlap else volume


def _closed(volume: Tensor, overlap: int) -> Tensor:
    """The inverse of `_continued`: frames that are there twice are averaged."""
    if not overlap:
        return volume
    frames = volume.shape[1] - overlap
    doubled = (volume[:, :overlap] + volume[:, frames:]) / 2
    return torch.cat([doubled, volume[:, overlap:frames]], dim=1)


def _exact(queries: Tensor, keys: Tensor, other: Size, completeness: float | None) -> Tensor:
    """Places [3,N] of the best keys, all compared."""
    distances = (queries.square().sum(1)[:, None] + keys.square().sum(1)).addmm_(queries, keys.T, alpha=-2).clamp_(min=0)
    if completeness is not None:
        distances /= completeness + distances.min(dim=0).values
    best = distances.argmin(dim=1)
    return torch.stack([best // (other[1] * other[2]), best // other[2] % other[1], best % other[2]])


def _principal_patches(volume: Tensor, window: Size, num_components: int) -> Tensor:
    """Filters [K,3,*window] whose responses keep most of the differences between patches of `volume`."""
    grid = _grid(volume, window)
    num_patches = math.prod(grid)
    step = max(1, num_patches // _NUM_BASIS_PATCHES)
    chosen = torch.arange(0, num_patches, step)
    places = torch.stack([chosen // (grid[1] * grid[2]), chosen // grid[2] % grid[1], chosen % grid[2]])
    shape = tuple(volume.shape[1:])
    offsets = torch.tensor(
        [(t * shape[1] + y) * shape[2] + x for t, y, x in itertools.product(*map(range, window))], dtype=torch.int64
    )
    patches = volume.flatten(1)[:, _flat(places, shape)[:, None] + offsets].permute(1, 0, 2).flatten(1).double()
    centered = patches - patches.mean(dim=0)
    _, vectors = torch.linalg.eigh(centered.T @ centered)
    leading = vectors.flip(1)[:, :num_components].T.float() / math.sqrt(patches.shape[1])
    return leading.reshape(len(leading), len(volume), *window)


def _grid(volume: Tensor, window: Size) -> Size:
    frames, height, width = (size - side + 1 for size, side in zip(volume.shape[1:], window, strict=True))
    return frames, height, width


def _fitting(window: Size, volume: Tensor) -> Size:
    frames, height, width = (min(side, size) for side, size in zip(window, volume.shape[1:], strict=True))
    return frames, height, width


def _flat(places: Tensor, shape: Sequence[int]) -> Tensor:
    return (places[0] * shape[1] + places[1]) * shape[2] + places[2]


def _gaussian(window: Size) -> Tensor:
    axes = [torch.exp(-((torch.arange(side) - (side - 1) / 2) ** 2) / (2 * _BLEND_DEVIATION**2)) for side in window]
    return axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
