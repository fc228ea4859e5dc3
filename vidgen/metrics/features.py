"""How pictures and their changes compare in the features of a network for photos, EfficientNet-Lite0, that pip installs with us.

Features are unit vectors at every place, so that neither contrast nor the scale of a channel decides. Nothing here is fitted to
what people say: these numbers order results of one domain and are no LPIPS, FID or tLP, whose networks and calibration are others.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vidgen.metrics.distribution import squared_mmd
from vidgen.metrics.score import Score
from vidgen.metrics.temporal import Columns, Frames, mean_score

Backbone = Callable[[Tensor], list[Tensor]]
"""[N,3,H,W] in -1..1 -> feature maps, shallow to deep; of EfficientNet-Lite0 at 1/2, 1/2, 1/4, 1/8, 1/16 and 1/32."""

MIN_SIDE = 32
PLACES_PER_FRAME = 512
"""Clips are short: ten frames of 64 places each left kernel distances to chance, by .02 between two draws from one result."""

MAX_PLACES = 4096
MIN_PLACES = 256
"""Below this many places a kernel distance is marked as unreliable."""
CHANGE_GAIN = 2.0
"""How much more the change between two frames weighs in their pair than what they show."""
_DEPTHS = slice(1, 6)
_STRIDES = {8: 3, 16: 4}
_PAIR_STRIDE = 8
KERNEL_METRICS = {"kernel_distance", "pair_kernel_distance"}
TOO_SMALL = f"needs frames of at least {MIN_SIDE} pixels on the shorter side"


def unit_features(backbone: Backbone, frames: Tensor) -> list[Tensor]:
    """Features of [N,3,H,W] in 0..1, of length 1 at every place."""
    with torch.no_grad():
        return [values / values.square().sum(dim=1, keepdim=True).add(1e-8).sqrt() for values in backbone(frames * 2 - 1)]


def feature_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Squared distance of unit features at the same place, mean over places, then over five depths; 0 (equal) to 4."""
    distances = [(a - b).square().sum(dim=1).mean() for a, b in zip(first[_DEPTHS], second[_DEPTHS], strict=True)]
    return torch.stack(distances).mean().item()


@dataclass
class PlaceSample:
    """A bounded random sample of feature vectors of many frames, chosen by their content: the order of frames does not change it.

    Attributes:
        seed: equal frames give other places for another seed.
    """

    seed: int = 0
    _members: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _count: int = 0

    def add(self, features: Tensor) -> None:
        """Draw places from [1,C,H,W]."""
        vectors = features[0].flatten(1).T
        generator = torch.Generator().manual_seed(zlib.crc32(vectors.contiguous().numpy().tobytes(), self.seed))
        chosen = torch.randperm(len(vectors), generator=generator)[:PLACES_PER_FRAME]
        self._members.append((vectors[chosen].clone(), torch.rand(len(chosen), generator=generator)))
        self._count += len(chosen)
        if self._count > 2 * MAX_PLACES:
            self._members = [self._bounded()]
            self._count = MAX_PLACES

    def _bounded(self) -> tuple[Tensor, Tensor]:
        vectors, ranks = (torch.cat(parts) for parts in zip(*self._members, strict=True))
        order = ranks.argsort(stable=True)[:MAX_PLACES]
        return vectors[order], ranks[order]

    @property
    def vectors(self) -> Tensor:
        """[N,C], at most 4096."""
        return self._bounded()[0]

    @property
    def count(self) -> int:
        """Vectors at hand."""
        return min(self._count, MAX_PLACES)

    def distance(self, reference: PlaceSample, reason: str) -> Score:
        """Squared maximum mean discrepancy of the two samples under the kernel (cosine + 1)^3; about 0 at best, also just below.

        Source: Bińkowski et al., "Demystifying MMD GANs", ICLR 2018; every place is a sample here, not every picture.
        """
        count = min(self.count, reference.count)
        if count < 2:
            return Score.missing(reason)
        sides = [sample.vectors * math.sqrt(sample.vectors.shape[1]) for sample in (self, reference)]  # to cancel its division
        score = Score.of(squared_mmd(*sides), self.count)
        if count < MIN_PLACES:
            return score.noted(f"unreliable: {self.count} against {reference.count} places, fewer than {MIN_PLACES}")
        return score


@dataclass
class FeatureSample:
    """What is sampled of a video or of a set: places at two strides, and pairs of neighboring frames at the same place.

    Attributes:
        seed: another one for each of two sides, so that neither a copy nor a likeness of them is drawn alike.
    """

    seed: int = 0
    places: dict[int, PlaceSample] = field(init=False)
    pairs: PlaceSample = field(init=False)
    _before: Tensor | None = None

    def __post_init__(self) -> None:
        self.places = {stride: PlaceSample(self.seed) for stride in _STRIDES}
        self.pairs = PlaceSample(self.seed)

    def start_clip(self) -> None:
        """The next frame does not follow the last one."""
        self._before = None

    def add(self, features: Sequence[Tensor]) -> None:
        """Draw from the features of a frame, [1,C,H,W] each."""
        for stride, sample in self.places.items():
            sample.add(features[_STRIDES[stride]])
        now = features[_STRIDES[_PAIR_STRIDE]]
        if self._before is not None and self._before.shape == now.shape:
            pair = torch.cat([now, CHANGE_GAIN * (now - self._before)], dim=1)
            self.pairs.add(pair)
        self._before = now

    def scores(self, reference: FeatureSample) -> dict[str, Score]:
        """How far this is from `reference`."""
        scores = {
            f"kernel_distance/{stride}": sample.distance(reference.places[stride], TOO_SMALL)
            for stride, sample in self.places.items()
        }
        still = "needs two frames in a row on both sides"
        return scores | {"pair_kernel_distance": self.pairs.distance(reference.pairs, still)}


@dataclass
class FeatureMeter:
    """Distances of features to the target's, frame by frame, and samples of both for kernel distances.

    Attributes:
        backbone: None where no metric asks for it.
        chosen: names of the catalog; those of other meters are left alone.
    """

    backbone: Backbone | None
    chosen: Set[str]
    output: FeatureSample = field(default_factory=FeatureSample)
    target: FeatureSample = field(default_factory=lambda: FeatureSample(1))
    _before: tuple[list[Tensor], list[Tensor]] | None = None
    _is_fed: bool = False

    def add(self, frames: Frames) -> dict[str, float]:
        """Measure a frame; a row of `Columns`."""
        if self.backbone is None or frames.target is None:
            return {}
        self._is_fed = True
        row = dict.fromkeys(sorted(self.chosen & {"feature_distance", "temporal_feature_distance"}), math.nan)
        if min(frames.output.shape[-2:]) < MIN_SIDE:
            return row
        now = unit_features(self.backbone, frames.output), unit_features(self.backbone, frames.target)
        if self.chosen & KERNEL_METRICS:
            self.output.add(now[0])
            self.target.add(now[1])
        if "feature_distance" in row:
            row["feature_distance"] = feature_distance(*now)
        if "temporal_feature_distance" in row and self._before is not None:
            changes = [[b - a for a, b in zip(*sides, strict=True)] for sides in zip(self._before, now, strict=True)]
            row["temporal_feature_distance"] = feature_distance(*changes)
        self._before = now
        return row

    def scores(self) -> dict[str, Score]:
        """The kernel distances, where there is a target."""
        return self.output.scores(self.target) if self._is_fed and self.chosen & KERNEL_METRICS else {}


def feature_scores(columns: Columns) -> dict[str, Score]:
    """The scores behind the rows of `FeatureMeter`."""
    scores: dict[str, Score] = {}
    length = max(map(len, columns.values()), default=0)
    if "feature_distance" in columns:
        scores["feature_distance"] = mean_score(columns, "feature_distance", TOO_SMALL)
    if "temporal_feature_distance" in columns:
        short = f"needs at least 2 frames, got {length}" if length < 2 else TOO_SMALL
        scores["temporal_feature_distance"] = mean_score(columns, "temporal_feature_distance", short, span=1)
    return scores
