"""Scores by pretrained networks, fed frame by frame like the others; the networks come from files that the user has."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.metrics.backbones import I3D_SIDE, ClipTransformer, DinoTransformer, Dists, FidInception, Lpips, SifidInception
from vidgen.metrics.distribution import GaussianStatistics, frechet_distance, kernel_distance
from vidgen.metrics.score import Score
from vidgen.metrics.temporal import Columns, Frames, mean_score

MIN_SIDE = 32
CLIP_FRAMES = 16
CONSISTENCY_STRIDES = (1, 2, 5, 10, 20)
FRECHET_SAMPLES = 2048
KERNEL_FRAMES, KERNEL_CLIPS = 64, 64
MAX_MEMBERS = 8192
TOO_SMALL = f"needs frames of at least {MIN_SIDE} pixels on the shorter side"


@dataclass
class MetricNetworks:
    """Pretrained networks at hand; None where not asked for.

    Attributes:
        i3d: [1,3,16,224,224] in -1..1 -> [1,400].
        features: EfficientNet-Lite0, see `vidgen.metrics.features`.
        unpublished: names of those whose weights are not the published ones.
    """

    lpips: Lpips | None = None
    dists: Dists | None = None
    sifid: SifidInception | None = None
    inception: FidInception | None = None
    i3d: Callable[[Tensor], Tensor] | None = None
    clip: ClipTransformer | None = None
    dino: DinoTransformer | None = None
    features: Callable[[Tensor], list[Tensor]] | None = None
    unpublished: set[str] = field(default_factory=set)

    def note(self, weights: str) -> str | None:
        """What to say of scores that rest on `weights`."""
        if weights in self.unpublished:
            return "not the published weights: to be compared only among values of this very file"
        return None


def as_frame(pixels: np.ndarray) -> Tensor:
    """uint8 [H,W,3] as float32 [1,3,H,W] in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float() / 255


@dataclass
class NetworkMeter:
    """Per-frame scores: likeness to the target, and of frames to each other.

    Attributes:
        chosen: names of the catalog; those of other meters are left alone.
    """

    networks: MetricNetworks
    chosen: Set[str]
    _perceived: dict[str, list[Tensor]] = field(default_factory=dict)
    _firsts: dict[str, Tensor] = field(default_factory=dict)
    _pasts: dict[str, deque[Tensor]] = field(default_factory=dict)

    def add(self, frames: Frames, pixels: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Measure a frame, at the common size and as it is; a row of `Columns`."""
        row: dict[str, float] = {}
        is_small = min(frames.output.shape[-2:]) < MIN_SIDE
        if frames.target is not None:
            if self.networks.lpips is not None:
                names = self.chosen & {"lpips", "tlp"}
                row |= dict.fromkeys(names, math.nan) if is_small else self._perceptual(frames.output, frames.target)
            if self.networks.dists is not None and "dists" in self.chosen:
                row["dists"] = math.nan if is_small else self.networks.dists(frames.output, frames.target).item()
            if self.networks.sifid is not None and "sifid" in self.chosen:
                row["sifid"] = single_image_distance(self.networks.sifid, pixels["output"], pixels["target"])
        for name, embed in (("clip_consistency", self.networks.clip), ("dino_consistency", self.networks.dino)):
            if embed is not None and name in self.chosen:
                row |= self._consistency(name, F.normalize(embed(as_frame(pixels["output"])), dim=1))
        return row

    def _perceptual(self, output: Tensor, target: Tensor) -> dict[str, float]:
        assert self.networks.lpips is not None
        distance, before = self.networks.lpips.distance, self._perceived
        self._perceived = now = {"output": self.networks.lpips.features(output), "target": self.networks.lpips.features(target)}
        row = {"lpips": distance(now["output"], now["target"]).item()} if "lpips" in self.chosen else {}
        if "tlp" in self.chosen:
            row["tlp"] = math.nan
            if before:
                changes = [distance(before[name], now[name]).item() for name in ("output", "target")]
                row["tlp"] = 100 * abs(changes[0] - changes[1])
        return row

    def _consistency(self, name: str, embedding: Tensor) -> dict[str, float]:
        past = self._pasts.setdefault(name, deque(maxlen=max(CONSISTENCY_STRIDES)))
        first = self._firsts.setdefault(name, embedding)
        row = {name: math.nan} | {f"{name}@{stride}": math.nan for stride in CONSISTENCY_STRIDES}

        def likeness(other: Tensor) -> float:
            return (embedding * other).sum().item()

        if past:
            row[name] = (max(0.0, likeness(past[-1])) + max(0.0, likeness(first))) / 2
        row |= {f"{name}@{stride}": likeness(past[-stride]) for stride in CONSISTENCY_STRIDES if stride <= len(past)}
        past.append(embedding)
        return row


def single_image_distance(network: SifidInception, first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of the features at all positions of two pictures uint8 [H,W,3]; NaN where one is too small for two."""
    if min(*first.shape[:2], *second.shape[:2]) < MIN_SIDE:
        return math.nan
    statistics = []
    for pixels in (first, second):
        statistics.append(GaussianStatistics())
        statistics[-1].add(network(as_frame(pixels)))
    return frechet_distance(*statistics)


def network_scores(columns: Columns, networks: MetricNetworks) -> dict[str, Score]:
    """The scores behind the rows of `NetworkMeter`."""
    scores: dict[str, Score] = {}
    length = max(map(len, columns.values()), default=0)
    for name, weights in (("lpips", "lpips"), ("dists", "dists"), ("sifid", "sifid")):
        if name in columns:
            scores[name] = mean_score(columns, name, TOO_SMALL).noted(networks.note(weights))
    if "tlp" in columns:
        short = f"needs at least 2 frames, got {length}" if length < 2 else TOO_SMALL
        scores["tlp"] = mean_score(columns, "tlp", short, span=1).noted(networks.note("lpips"))
    for name, weights in (("clip_consistency", "clip"), ("dino_consistency", "dino")):
        for key, stride in ((name, 1), *((f"{name}@{stride}", stride) for stride in CONSISTENCY_STRIDES)):
            if key in columns:
                short = f"needs at least {stride + 1} frames, got {length}"
                scores[key] = mean_score(columns, key, short, span=stride).noted(networks.note(weights))
    return scores


@dataclass
class FeatureSample:
    """Features of a set: their mean and covariance, and a bounded number of members that does not depend on their order."""

    statistics: GaussianStatistics = field(default_factory=GaussianStatistics)
    _members: list[tuple[int, Tensor]] = field(default_factory=list)

    def add(self, features: Tensor) -> None:
        """Take in [N,D]."""
        self.statistics.add(features)
        self._members += [(zlib.crc32(row.numpy().tobytes()), row.clone()) for row in features.float()]
        if len(self._members) > 2 * MAX_MEMBERS:
            self._members = self._bounded()

    @property
    def members(self) -> Tensor:
        """[N,D], at most 8192."""
        return torch.stack([row for _, row in self._bounded()])

    def _bounded(self) -> list[tuple[int, Tensor]]:
        return sorted(self._members, key=lambda member: member[0])[:MAX_MEMBERS]

    def frechet(self, reference: FeatureSample, lost: str) -> Score:
        """Fréchet distance, marked where there are too few samples to trust it; None with the reason `lost` without two."""
        count = min(self.statistics.count, reference.statistics.count)
        if count < 2:
            return Score.missing(lost)
        score = Score.of(frechet_distance(self.statistics, reference.statistics), self.statistics.count)
        if count < FRECHET_SAMPLES:
            return score.noted(
                f"unreliable: {self.statistics.count} against {reference.statistics.count} samples, and below {FRECHET_SAMPLES}"
                " this distance is far too large"
            )
        return score

    def kernel(self, reference: FeatureSample, lost: str, trusted: int) -> Score:
        """Kernel distance, mean and deviation over subsets, marked below `trusted` samples; None with `lost` without four."""
        count = min(self.statistics.count, reference.statistics.count)
        if count < 4:
            return Score.missing(lost)
        value, deviation = kernel_distance(self.members, reference.members)
        score = Score(value, self.statistics.count, deviation=deviation)
        if count < trusted:
            return score.noted(
                f"unreliable: {self.statistics.count} against {reference.statistics.count} samples, fewer than {trusted}"
            )
        return score


@dataclass
class SetMeter:
    """Features of frames and of stretches of 16 frames, for distances between sets.

    Attributes:
        networks: without `inception`, or without `i3d`, the respective half stays empty.
    """

    networks: MetricNetworks
    frames: FeatureSample = field(default_factory=FeatureSample)
    clips: FeatureSample = field(default_factory=FeatureSample)
    _stretch: list[Tensor] = field(default_factory=list)
    _index: int = 0
    _every: int = 1
    _is_still: bool = False

    def start_clip(self, frame_rate: float | None, *, is_still: bool = False) -> None:
        """The next frame does not follow the last one. One frame a second counts, or each, where no rate is known."""
        self._stretch, self._index, self._is_still = [], 0, is_still
        self._every = max(round(frame_rate), 1) if frame_rate is not None else 1

    def add(self, pixels: np.ndarray) -> None:
        """Take in a frame, uint8 [H,W,3]."""
        frame = as_frame(pixels)
        if self.networks.inception is not None and self._index % self._every == 0:
            self.frames.add(self.networks.inception((frame * 255).round()))
        self._index += 1
        if self.networks.i3d is None or self._is_still:
            return
        # Squashed, and without smoothing, as the original of FVD does.
        self._stretch.append(F.interpolate(frame, size=(I3D_SIDE, I3D_SIDE), mode="bilinear", align_corners=False)[0])
        if len(self._stretch) == CLIP_FRAMES:
            self.clips.add(self.networks.i3d(torch.stack(self._stretch, dim=1)[None] * 2 - 1))
            self._stretch = []

    def scores(self, reference: SetMeter, chosen: Set[str]) -> dict[str, Score]:
        """How far this is from `reference`."""
        mine, theirs = self.frames.statistics.count, reference.frames.statistics.count
        few = f"needs at least {{}} frames on both sides (one a second of a video), got {mine} and {theirs}"
        stretches = f"{self.clips.statistics.count} and {reference.clips.statistics.count}"
        short = f"needs at least {{}} stretches of {CLIP_FRAMES} frames in a row on both sides, got {stretches}"
        distances: dict[str, tuple[str, Callable[[], Score]]] = {
            "fid": ("inception", lambda: self.frames.frechet(reference.frames, few.format(2))),
            "kid": ("inception", lambda: self.frames.kernel(reference.frames, few.format(4), KERNEL_FRAMES)),
            "fvd": ("i3d", lambda: self.clips.frechet(reference.clips, short.format(2))),
            "kvd": ("i3d", lambda: self.clips.kernel(reference.clips, short.format(4), KERNEL_CLIPS)),
        }
        return {name: make().noted(self.networks.note(weights)) for name, (weights, make) in distances.items() if name in chosen}
