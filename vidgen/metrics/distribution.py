"""Distances between two sets of frames, videos or features; nothing here needs pairs.

The samplers are fed frame by frame and keep a bounded sample, chosen by the content of the frames: the order in which frames
come does not change it, nor does the machine.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from vidgen.metrics.quality import NATURAL_SCENE_BLOCK, luma, natural_scene_features, shrink
from vidgen.metrics.score import Score

PATCH = 7
PATCHES_PER_FRAME = 128
MAX_PATCHES = 8192
NUM_DIRECTIONS = 512
MIN_LEVEL_SIDE = 16
MAX_LEVELS = 4
COLOR_BINS = 256
NUM_COLOR_DIRECTIONS = 64
MAX_COLORS_PER_FRAME = 1 << 14
MIN_NATURAL_SCENE_BLOCKS = 72
_KERNEL_ROWS = 1024
"""So many rows of a kernel matrix are held at a time."""


def random_directions(count: int, dimensions: int, seed: int = 0) -> Tensor:
    """Unit vectors, uniform on the sphere, float32 [count, dimensions]; the same on every call."""
    directions = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))
    return directions / directions.norm(dim=1, keepdim=True)


def sliced_wasserstein(first: Tensor, second: Tensor, directions: Tensor) -> float:
    """Mean over directions of the Wasserstein-1 distance between the projections of two sets [N,D] of equal size.

    Source: Rabin et al., "Wasserstein Barycenter and Its Application to Texture Mixing", 2011.

    Raises:
        ValueError: the sets differ in shape.
    """
    if first.shape != second.shape:
        raise ValueError(f"sliced_wasserstein: sets of equal shape are needed, got {tuple(first.shape)} and {tuple(second.shape)}")
    total = 0.0
    for block in directions.split(64):
        sorted_first, sorted_second = ((values @ block.T).sort(dim=0).values for values in (first, second))
        total += (sorted_first - sorted_second).abs().sum(dtype=torch.float64).item()
    return total / (len(first) * len(directions))


def laplacian_pyramid(channels: np.ndarray) -> list[np.ndarray]:
    """Band-pass levels of [H,W,C], finest first, the last one low-pass; as many as keep the shorter side at 16 or more.

    Source: Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983.
    """
    levels: list[np.ndarray] = []
    while len(levels) < MAX_LEVELS - 1 and min(channels.shape[:2]) >= 2 * MIN_LEVEL_SIDE:
        smaller = cv2.pyrDown(channels)
        levels.append(channels - cv2.pyrUp(smaller, dstsize=(channels.shape[1], channels.shape[0])))
        channels = smaller
    return [*levels, channels]


@dataclass
class PatchSample:
    """A bounded random sample of 7x7 patches, for each level of the Laplacian pyramid.

    Source: Karras et al., "Progressive Growing of GANs", ICLR 2018, appendix: 128 patches a picture. Three frames of luma in the
    place of three colors make patches in time.
    """

    _levels: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, channels: Tensor) -> None:
        """Draw patches from [3,H,W], float32; frames of less than 7 pixels have none."""
        image = np.ascontiguousarray(channels.permute(1, 2, 0).numpy())
        generator = torch.Generator().manual_seed(zlib.crc32(image.tobytes()))
        for level, band in enumerate(laplacian_pyramid(image)):
            if min(band.shape[:2]) < PATCH:
                break
            patches = _draw_patches(torch.from_numpy(band).permute(2, 0, 1), generator)
            ranks = torch.rand(len(patches), generator=generator)
            if level < len(self._levels):
                earlier, earlier_ranks = self._levels[level]
                patches, ranks = torch.cat([earlier, patches]), torch.cat([earlier_ranks, ranks])
                if len(ranks) > 2 * MAX_PATCHES:
                    patches, ranks = _first(patches, ranks, MAX_PATCHES)
                self._levels[level] = (patches, ranks)
            else:
                self._levels.append((patches, ranks))

    @property
    def count(self) -> int:
        """Patches at hand on the finest level."""
        return min(len(self._levels[0][1]), MAX_PATCHES) if self._levels else 0

    def distances(self, other: PatchSample) -> list[float]:
        """Sliced Wasserstein distance x 1000 of each level both have, finest first; each channel has mean 0 and deviation 1."""
        result = []
        for mine, theirs in zip(self._levels, other._levels, strict=False):
            size = min(len(mine[1]), len(theirs[1]), MAX_PATCHES)
            first, second = (_standardized(_first(*sample, size)[0]) for sample in (mine, theirs))
            result.append(1000 * sliced_wasserstein(first, second, random_directions(NUM_DIRECTIONS, first.shape[1])))
        return result


def _draw_patches(channels: Tensor, generator: torch.Generator) -> Tensor:
    """[PATCHES_PER_FRAME, 3, 7*7] at random places."""
    windows = channels.unfold(1, PATCH, 1).unfold(2, PATCH, 1)
    rows, columns = (torch.randint(size, (PATCHES_PER_FRAME,), generator=generator) for size in windows.shape[1:3])
    return windows[:, rows, columns].permute(1, 0, 2, 3).flatten(2)


def _first(patches: Tensor, ranks: Tensor, size: int) -> tuple[Tensor, Tensor]:
    order = ranks.argsort(stable=True)[:size]
    return patches[order], ranks[order]


def _standardized(patches: Tensor) -> Tensor:
    """Each channel with mean 0 and standard deviation 1 over the set (a flat channel stays 0); [N, 3*7*7]."""
    double = patches.double()
    mean = double.mean(dim=(0, 2), keepdim=True)
    deviation = (double - mean).square().mean(dim=(0, 2), keepdim=True).sqrt()
    return ((double - mean) / deviation.clamp(min=1e-8)).float().flatten(1)


@dataclass
class ColorSample:
    """Histograms of the colors along fixed random directions of RGB."""

    _counts: np.ndarray = field(default_factory=lambda: np.zeros((NUM_COLOR_DIRECTIONS, COLOR_BINS)))
    num_frames: int = 0

    def add(self, frame: Tensor) -> None:
        """Count the colors of [3,H,W] in 0..1, of a regular grid of pixels where there are many; every frame weighs the same."""
        stride = math.ceil(math.sqrt(frame.shape[1] * frame.shape[2] / MAX_COLORS_PER_FRAME))
        colors = frame[:, ::stride, ::stride].flatten(1)
        projections = random_directions(NUM_COLOR_DIRECTIONS, 3) @ (colors - 0.5)
        # The cube's corner is sqrt(3)/2 from its middle, so this range holds every projection.
        bins = ((projections / 3**0.5 + 0.5) * COLOR_BINS).long().clamp(0, COLOR_BINS - 1)
        bins += torch.arange(NUM_COLOR_DIRECTIONS)[:, None] * COLOR_BINS
        counts = torch.bincount(bins.flatten(), minlength=self._counts.size).view(self._counts.shape)
        self._counts += counts.numpy() / projections.shape[1]
        self.num_frames += 1

    def distance(self, other: ColorSample) -> float:
        """Mean over directions of the earth mover's distance, in gray levels of 255."""
        shares = [sample._counts.cumsum(axis=1) / sample.num_frames for sample in (self, other)]
        return float(np.abs(shares[0] - shares[1]).sum(axis=1).mean() * 3**0.5 / COLOR_BINS * 255)


@dataclass
class GaussianStatistics:
    """Mean and covariance of feature vectors, fed in pieces; float64, exact however they are cut.

    Source: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    """

    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    _scatter: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def add(self, features: Tensor) -> None:
        """Count [N,D] in; rows that are not finite are left out."""
        rows = features.detach().double().cpu().numpy()
        rows = rows[np.isfinite(rows).all(axis=1)]
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        centered = rows - mean
        if not self.count:
            self.count, self.mean, self._scatter = len(rows), mean, centered.T @ centered
            return
        total, shift = self.count + len(rows), mean - self.mean
        self._scatter += centered.T @ centered + np.outer(shift, shift) * (self.count * len(rows) / total)
        self.mean = self.mean + shift * (len(rows) / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, [D,D]."""
        return self._scatter / max(self.count - 1, 1)


def frechet_distance(first: GaussianStatistics, second: GaussianStatistics) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); biased upwards by far below 2048 samples.

    Source: Dowson and Landau, "The Fréchet Distance between Multivariate Normal Distributions", 1982. The root's trace is taken
    from the eigenvalues of the symmetric S1^(1/2) S2 S1^(1/2), so it stays real and finite for singular covariances.
    """
    values, vectors = np.linalg.eigh(first.covariance)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    cross = np.linalg.eigvalsh(root @ second.covariance @ root).clip(min=0)
    traces = np.trace(first.covariance) + np.trace(second.covariance) - 2 * np.sqrt(cross).sum()
    return float(np.square(first.mean - second.mean).sum() + traces)


def gaussian_separation(first: GaussianStatistics, second: GaussianStatistics) -> float:
    """sqrt((m1 - m2)^T ((S1 + S2) / 2)^+ (m1 - m2)): how far apart two feature models are.

    Source: Mittal, Soundararajan, Bovik, "Making a Completely Blind Image Quality Analyzer", 2013, equation 10.
    """
    shift = first.mean - second.mean
    return float(np.sqrt(max(shift @ np.linalg.pinv((first.covariance + second.covariance) / 2, hermitian=True) @ shift, 0)))


def squared_mmd(first: Tensor, second: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of two sets [N,D] under the cubic kernel (x.y / D + 1)^3.

    Source: Bińkowski et al., "Demystifying MMD GANs", 2018. It can be below 0, and is for identical sets.

    Raises:
        ValueError: a set has fewer than two members.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"squared_mmd: needs at least 2 members in each set, got {len(first)} and {len(second)}")
    first, second = first.double(), second.double()

    def cube(products: Tensor) -> Tensor:
        return (products / first.shape[1] + 1) ** 3

    def total(left: Tensor, right: Tensor) -> Tensor:
        return torch.stack([cube(rows @ right.T).sum() for rows in left.split(_KERNEL_ROWS)]).sum()

    def among(members: Tensor) -> Tensor:
        with_itself = cube(members.square().sum(1)).sum()
        return (total(members, members) - with_itself) / (len(members) * (len(members) - 1))

    between = total(first, second) / (len(first) * len(second))
    return (among(first) + among(second) - 2 * between).item()


def kernel_distance(
    first: Tensor, second: Tensor, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """`squared_mmd` as KID and KVD report it: mean and standard deviation over random subsets.

    Subsets are at most half of the smaller set, so that they differ from each other.

    Raises:
        ValueError: a set has fewer than four members.
    """
    size = min(subset_size, min(len(first), len(second)) // 2)
    if size < 2:
        raise ValueError(f"kernel_distance: needs at least 4 members in each set, got {len(first)} and {len(second)}")
    generator = torch.Generator().manual_seed(seed)

    def subset(members: Tensor) -> Tensor:
        return members[torch.randperm(len(members), generator=generator)[:size].to(members.device)]

    values = np.array([squared_mmd(subset(first), subset(second)) for _ in range(num_subsets)])
    return float(values.mean()), float(values.std())


@dataclass
class DistributionSample:
    """What is kept of a video or of a reference set to compare their appearance.

    Attributes:
        height: frames are reduced to it, so that textures are compared at one scale.
        is_stills: the pictures do not follow each other in time.
    """

    height: int
    is_stills: bool = False
    patches: PatchSample = field(default_factory=PatchSample)
    patches_in_time: PatchSample = field(default_factory=PatchSample)
    colors: ColorSample = field(default_factory=ColorSample)
    scenes: GaussianStatistics = field(default_factory=GaussianStatistics)
    _lumas: deque[Tensor] = field(default_factory=lambda: deque(maxlen=3))

    def start_clip(self) -> None:
        """The next frame does not follow the last one."""
        self._lumas.clear()

    def add(self, frame: Tensor) -> None:
        """Take in [1,3,H,W], float32 in 0..1."""
        frame = shrink(frame, self.height)
        self.patches.add(frame[0])
        self.colors.add(frame[0])
        self.scenes.add(natural_scene_features(frame))
        self._lumas.append(luma(frame)[0, 0])
        if len(self._lumas) == 3 and not self.is_stills:
            self.patches_in_time.add(torch.stack(list(self._lumas)))

    def scores(self, reference: DistributionSample) -> dict[str, Score]:
        """How far this is from `reference`."""
        levels = self.patches.distances(reference.patches)
        scores = {"swd": Score.of(_mean(levels), self.patches.count, reason="frames are smaller than a patch of 7 pixels")}
        scores |= {f"swd/{2**level}": Score(value, self.patches.count) for level, value in enumerate(levels)}
        still = "the reference set holds no three frames in a row; give videos, or a folder of folders of frames"
        in_time = self.patches_in_time.distances(reference.patches_in_time)
        scores["swd_t"] = Score.of(_mean(in_time), self.patches_in_time.count, reason=still)
        blocks = min(self.scenes.count, reference.scenes.count)
        if blocks < MIN_NATURAL_SCENE_BLOCKS:
            side = NATURAL_SCENE_BLOCK
            reason = f"needs {MIN_NATURAL_SCENE_BLOCKS} textured blocks of {side}x{side} pixels on both sides, got {blocks}"
            scores["niqe_ref"] = Score.missing(reason)
        else:
            scores["niqe_ref"] = Score.of(gaussian_separation(self.scenes, reference.scenes), self.scenes.count)
        scores["color_distance"] = Score.of(self.colors.distance(reference.colors), self.colors.num_frames)
        return scores


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
