from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from vidgen.metrics import learned, temporal
from vidgen.metrics.distribution import squared_mmd
from vidgen.metrics.learned import FeatureSample, MetricNetworks, NetworkMeter, SetMeter
from vidgen.metrics.temporal import Frames


class Means(torch.nn.Module):
    """A network whose features are known: the mean color, from [N,3,...]."""

    def forward(self, values: Tensor) -> Tensor:
        return values.flatten(2).mean(dim=2)


class Perceptual(torch.nn.Module):
    """Of the contract of Lpips: features once a frame, distances of those."""

    def features(self, frames: Tensor) -> list[Tensor]:
        return [frames.mean(dim=(2, 3))]

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        return (first[0] - second[0]).abs().sum(dim=1).double()


def video(levels: list[float]) -> list[np.ndarray]:
    return [np.full((40, 50, 3), level, dtype=np.uint8) for level in levels]


def measured(
    networks: MetricNetworks, chosen: set[str], output: list[float], target: list[float] | None = None
) -> temporal.Columns:
    meter = NetworkMeter(networks, chosen)
    rows = []
    for index, pixels in enumerate(video(output)):
        now = {"output": pixels} | ({} if target is None else {"target": video(target)[index]})
        rows.append(meter.add(Frames(**{name: learned.as_frame(frame) for name, frame in now.items()}), now))
    return temporal.columns_of(rows)


def test_tlp_is_a_hundred_times_the_difference_of_perceptual_changes():
    columns = measured(MetricNetworks(lpips=Perceptual()), {"lpips", "tlp"}, [0, 51, 51], [0, 0, 102])
    np.testing.assert_allclose(columns["lpips"], [0, 0.6, 0.6], atol=1e-6)
    np.testing.assert_allclose(columns["tlp"], [math.nan, 60, 120], atol=1e-4)
    scores = learned.network_scores(columns, MetricNetworks())
    assert scores["tlp"].value == pytest.approx(90)
    assert scores["tlp"].count == 2


def test_consistency_is_the_mean_of_likeness_to_the_frame_before_and_to_the_first():
    class Angle(torch.nn.Module):
        def forward(self, frame: Tensor) -> Tensor:
            angle = torch.deg2rad(frame.mean() * 255)
            return 7 * torch.stack([angle.cos(), angle.sin()])[None]

    columns = measured(MetricNetworks(clip=Angle()), {"clip_consistency"}, [0, 60, 90, 180])
    expected = [(0.5 + 0.5) / 2, (math.cos(math.pi / 6) + 0) / 2, (0 + 0) / 2]
    np.testing.assert_allclose(columns["clip_consistency"][1:], expected, atol=1e-5)
    np.testing.assert_allclose(columns["clip_consistency@2"][2:], [0, -0.5], atol=1e-5)
    scores = learned.network_scores(columns, MetricNetworks())
    assert scores["clip_consistency@1"].value == pytest.approx((0.5 + math.cos(math.pi / 6) + 0) / 3, abs=1e-5)
    assert scores["clip_consistency@20"].reason == "needs at least 21 frames, got 4"


def test_a_frozen_video_is_perfectly_consistent_so_the_catalog_ranks_nobody_by_it():
    columns = measured(MetricNetworks(dino=Means()), {"dino_consistency"}, [50] * 3)
    assert learned.network_scores(columns, MetricNetworks())["dino_consistency"].value == pytest.approx(1)
    assert learned.network_scores(columns, MetricNetworks()).keys() >= {"dino_consistency", "dino_consistency@1"}


def test_frames_too_small_for_a_network_have_a_reason_and_no_value():
    meter = NetworkMeter(MetricNetworks(lpips=Perceptual(), dists=Means()), {"lpips", "tlp", "dists"})
    tiny = torch.rand(1, 3, 16, 16)
    columns = temporal.columns_of(meter.add(Frames(tiny, target=tiny), {}) for _ in range(2))
    for score in learned.network_scores(columns, MetricNetworks()).values():
        assert score.value is None
        assert score.reason == "needs frames of at least 32 pixels on the shorter side"


def test_the_single_image_distance_is_frechets_over_positions():
    class Positions(torch.nn.Module):
        def forward(self, frame: Tensor) -> Tensor:
            return frame[0].flatten(1).T

    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, 256, (40, 44, 3), dtype=np.uint8) // divisor for divisor in (1, 3))
    rows = [pixels.reshape(-1, 3) / 255 for pixels in (first, second)]
    means, covariances = [values.mean(axis=0) for values in rows], [np.cov(values, rowvar=False) for values in rows]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert learned.single_image_distance(Positions(), first, second) == pytest.approx(expected, rel=1e-6)
    assert math.isnan(learned.single_image_distance(Positions(), first[:20], second))


def sample(rows: Tensor) -> FeatureSample:
    found = FeatureSample()
    for part in rows.split(7):
        found.add(part)
    return found


def test_frechet_distances_are_marked_below_2048_samples_and_refused_below_two():
    rows = torch.randn(2048, 2, generator=torch.Generator().manual_seed(0))
    shifted = rows + 3
    assert sample(rows).frechet(sample(shifted), "few").value == pytest.approx(18, rel=1e-4)
    assert sample(rows).frechet(sample(shifted), "few").note is None
    few = sample(rows[:2047]).frechet(sample(shifted), "few")
    assert few.value == pytest.approx(18, rel=0.05)
    assert (few.note or "").startswith("unreliable: 2047 against 2048 samples")
    assert sample(rows[:1]).frechet(sample(shifted), "few").reason == "few"


def test_the_frechet_distance_equals_torch_fidelitys():
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(100, 6, generator=generator), 2 * torch.randn(90, 6, generator=generator) + 1
    statistics = [theirs.fid_features_to_statistics(rows) for rows in (first, second)]
    expected = theirs.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert sample(first).frechet(sample(second), "few").value == pytest.approx(expected, rel=1e-5)


def test_the_kernel_distance_equals_torch_fidelitys():
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    generator = torch.Generator().manual_seed(2)
    first, second = torch.randn(40, 6, generator=generator), torch.randn(40, 6, generator=generator) + 1
    found = theirs.kid_features_to_metric(first, second, kid_subsets=1, kid_subset_size=40, verbose=False)
    assert squared_mmd(first, second) == pytest.approx(found["kernel_inception_distance_mean"], rel=1e-5)


def test_the_kernel_distance_has_a_deviation_and_is_marked_for_few_samples():
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(100, 4, generator=generator), torch.randn(100, 4, generator=generator)
    score = sample(first).kernel(sample(second), "few", 64)
    assert score.note is None
    assert score.deviation is not None
    assert abs(score.value or math.nan) < 3 * score.deviation
    assert (sample(first[:63]).kernel(sample(second), "few", 64).note or "").startswith("unreliable")
    assert sample(first[:3]).kernel(sample(second), "few", 64).value is None


def test_the_members_kept_are_bounded_and_do_not_depend_on_their_order(monkeypatch):
    monkeypatch.setattr(learned, "MAX_MEMBERS", 20)
    rows = torch.randn(100, 3, generator=torch.Generator().manual_seed(4))
    forward, backward = sample(rows), sample(rows.flip(0))
    assert len(forward._members) <= 2 * 20 + 7
    torch.testing.assert_close(forward.members, backward.members)
    assert forward.members.shape == (20, 3)
    assert forward.statistics.count == 100


def test_one_frame_a_second_of_a_video_and_every_picture_count():
    meter = SetMeter(MetricNetworks(inception=Means()))
    meter.start_clip(25.0)
    for pixels in video([float(level) for level in range(60)]):
        meter.add(pixels)
    np.testing.assert_allclose(sorted(meter.frames.members[:, 0].tolist()), [0, 25, 50])
    meter.start_clip(None)
    for pixels in video([100, 101, 102]):
        meter.add(pixels)
    assert meter.frames.statistics.count == 6


def test_clips_are_16_frames_in_a_row_at_224_pixels_in_minus_one_to_one():
    seen = []

    def network(clips: Tensor) -> Tensor:
        seen.append((clips.shape, clips[0, 0, :, 0, 0]))
        return clips.mean(dim=(2, 3, 4))

    meter = SetMeter(MetricNetworks(i3d=network))
    for length in (15, 33):
        meter.start_clip(10.0)
        for pixels in video([float(level) for level in range(length)]):
            meter.add(pixels)
    assert [shape for shape, _ in seen] == [(1, 3, 16, 224, 224)] * 2
    torch.testing.assert_close(seen[0][1], torch.arange(16) / 127.5 - 1)
    torch.testing.assert_close(seen[1][1], torch.arange(16, 32) / 127.5 - 1)
    found = meter.scores(meter, {"fvd", "kvd"})
    assert found["fvd"].value == pytest.approx(0, abs=1e-6)
    assert found["kvd"].reason == "needs at least 4 stretches of 16 frames in a row on both sides, got 2 and 2"
    meter.start_clip(None, is_still=True)
    for pixels in video([0.0] * 16):
        meter.add(pixels)
    assert len(seen) == 2


def test_scores_by_other_weights_than_the_published_say_so():
    networks = MetricNetworks(inception=Means(), unpublished={"inception"})
    meter = SetMeter(networks)
    meter.start_clip(None)
    for pixels in video([0, 10, 30]):
        meter.add(pixels)
    assert "not the published weights" in (meter.scores(meter, {"fid"})["fid"].note or "")
