"""The three numbers of pictures made after one: likeness, diversity, copies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.metrics.single import AnimationMeter, copy_share, diversity, patch_distance, single_scores


def textured(seed: int, height: int = 64, width: int = 80) -> Tensor:
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bilinear")[0]


def test_a_picture_is_nearer_to_itself_than_to_a_blur_and_to_noise():
    original = textured(0)
    blurred = F.avg_pool2d(original[None], 7, 1, 3)[0]
    noise = torch.rand(original.shape, generator=torch.Generator().manual_seed(1))
    same, blur, far = (patch_distance(picture, original) for picture in (original, blurred, noise))
    assert same == 0
    assert blur > 0
    assert far > 0
    assert patch_distance(textured(2), original) < min(blur, far)


def test_diversity_is_the_deviation_of_pixels_over_that_of_the_picture():
    original = textured(0)
    samples = [textured(seed) for seed in range(1, 9)]
    stack = torch.stack([sample.mean(dim=0) for sample in samples])
    expected = (stack - stack.mean(dim=0)).square().mean(dim=0).sqrt().mean() / original.mean(dim=0).std(correction=0)
    assert diversity(samples, original).value == pytest.approx(expected.item(), rel=1e-5)
    assert diversity([original, original], original).value == 0


@pytest.mark.parametrize(
    ("samples", "reason"),
    [([textured(1)], "got 1 of 1 sizes"), ([textured(1), textured(2, 32, 32)], "got 2 of 2 sizes")],
)
def test_diversity_says_why_it_has_no_value(samples, reason):
    score = diversity(samples, textured(0))
    assert score.value is None
    assert reason in (score.reason or "")


def test_copies_are_found_wherever_they_stand():
    original = textured(0)
    assert copy_share(original, original) == 1
    assert copy_share(original[:, 8:40, 16:70], original) == 1
    assert copy_share(original.flip(2), original) < 0.2
    half = original.clone()
    half[:, :, 40:] = textured(5)[:, :, 40:]
    assert 0.3 < copy_share(half, original) < 0.6


def test_a_flat_picture_has_nothing_to_copy():
    assert math.isnan(copy_share(torch.full((3, 40, 40), 0.5), textured(0)))


def test_the_three_numbers_come_together():
    scores = single_scores([textured(1), textured(2)], textured(0))
    assert list(scores) == ["swd", "diversity", "copy"]
    assert all(score.value is not None for score in scores.values())
    tiny = single_scores([torch.rand(3, 5, 5)], torch.rand(3, 5, 5))
    assert [score.value for score in tiny.values()] == [None, None, None]


def scores_of(frames: list[np.ndarray], original: np.ndarray) -> dict[str, float | None]:
    meter = AnimationMeter([original])
    for frame in frames:
        meter.add(frame)
    return {name: score.value for name, score in meter.scores().items()}


def test_an_animation_is_measured_by_its_motion_its_sharpness_and_its_rim():
    original = (textured(0, 96, 128) * 255).permute(1, 2, 0).numpy().astype(np.uint8)
    still = scores_of([original] * 3, original)
    assert still == {"motion": pytest.approx(0, abs=0.02), "sharpness": pytest.approx(1), "rim": pytest.approx(1)}
    moving = scores_of([np.roll(original, step, axis=1) for step in (0, 2, 4)], original)
    assert moving["motion"] == pytest.approx(2, rel=0.25)
    soft = original.astype(float)
    soft = (soft + np.roll(soft, 2, 0) + np.roll(soft, 2, 1) + np.roll(soft, (2, 2), (0, 1))) / 4
    blurred = scores_of([soft.astype(np.uint8)] * 2, original)["sharpness"]
    assert blurred is not None
    assert blurred < 0.9
    dark = original.copy()
    dark[:, :3] //= 2
    assert scores_of([dark] * 2, original)["rim"] == pytest.approx(0.6, abs=0.15)
    assert scores_of([original], original)["motion"] is None
