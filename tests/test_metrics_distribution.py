from __future__ import annotations

import math

import numpy as np
import pytest
import skimage.data
import torch
from scipy import linalg, stats
from torch import Tensor

from vidgen.metrics import distribution
from vidgen.metrics.distribution import ColorSample, DistributionSample, GaussianStatistics, PatchSample


def photo_frames(count: int, *, step: int = 3, size: tuple[int, int] = (96, 96), picture: str = "chelsea") -> list[Tensor]:
    pixels = getattr(skimage.data, picture)()
    height, width = size
    windows = [pixels[60 : 60 + height, step * t : step * t + width] for t in range(count)]
    return [torch.from_numpy(window.copy()).permute(2, 0, 1)[None].float() / 255 for window in windows]


def exactly(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int = 0) -> GaussianStatistics:
    """Statistics of a sample whose mean and covariance are exactly these."""
    rows = np.random.default_rng(seed).normal(size=(count, len(mean)))
    rows -= rows.mean(axis=0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T @ np.linalg.cholesky(covariance).T + mean
    return of(torch.from_numpy(rows))


def of(features: Tensor) -> GaussianStatistics:
    statistics = GaussianStatistics()
    statistics.add(features)
    return statistics


# --- Fréchet distance -----------------------------------------------------------------------------------------------------


def test_frechet_distances_known_in_closed_form():
    near, far = exactly(np.zeros(4), np.eye(4), 50), exactly(np.ones(4), 4 * np.eye(4), 60, seed=1)
    assert distribution.frechet_distance(near, far) == pytest.approx(8, rel=1e-9)
    assert distribution.frechet_distance(far, near) == pytest.approx(8, rel=1e-9)
    features = torch.randn(500, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert distribution.frechet_distance(of(features), of(features + 1)) == pytest.approx(400, rel=1e-9)
    doubled = distribution.frechet_distance(of(features), of(2 * features))
    expected = np.trace(of(features).covariance) + np.square(of(features).mean).sum()
    assert doubled == pytest.approx(expected, rel=1e-9)


def test_a_sample_smaller_than_its_dimensions_is_at_no_distance_from_itself():
    features = torch.randn(64, 400, generator=torch.Generator().manual_seed(0))
    assert abs(distribution.frechet_distance(of(features), of(features))) < 1e-3


def test_frechet_distance_equals_the_matrix_square_root_and_torchmetrics():
    from torchmetrics.image.fid import _compute_fid

    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    first = of(torch.randn(80, 12, generator=generator, dtype=torch.float64) @ mixing)
    second = of(torch.randn(90, 12, generator=generator, dtype=torch.float64) + 0.5)
    found = distribution.frechet_distance(first, second)
    root = linalg.sqrtm(first.covariance @ second.covariance).real
    by_root = np.square(first.mean - second.mean).sum() + np.trace(first.covariance + second.covariance - 2 * root)
    assert found == pytest.approx(by_root, rel=1e-8)
    tensors = [torch.from_numpy(array) for s in (first, second) for array in (s.mean, s.covariance)]
    assert found == pytest.approx(_compute_fid(*tensors).item(), rel=1e-8)


def test_statistics_do_not_depend_on_how_the_features_are_cut_and_skip_broken_rows():
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 100
    whole, pieces = of(features), GaussianStatistics()
    for piece in features.split((1, 7, 30, 12)):
        pieces.add(piece)
    pieces.add(torch.full((2, 6), math.nan))
    assert pieces.count == whole.count == 50
    assert np.allclose(pieces.mean, whole.mean, rtol=1e-12)
    assert np.allclose(pieces.covariance, np.cov(features.double().numpy().T), rtol=1e-9)


# --- kernel distance ------------------------------------------------------------------------------------------------------


def test_squared_mmd_of_two_point_sets_is_the_closed_form():
    first, second = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [3.0]])
    within = (1 * 2 + 1) ** 3 + (0 * 3 + 1) ** 3
    across = (0 + 1) ** 3 + (3 + 1) ** 3 + (0 + 1) ** 3 + (6 + 1) ** 3
    assert distribution.squared_mmd(first, second) == pytest.approx(within - across / 2)


def test_squared_mmd_of_identical_sets_is_a_little_below_zero():
    features = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    found = distribution.squared_mmd(features, features)
    assert -0.2 < found < 0


def test_squared_mmd_equals_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    generator = torch.Generator().manual_seed(0)
    first = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    second = torch.randn(40, 8, generator=generator, dtype=torch.float64) + 0.3
    assert distribution.squared_mmd(first, second) == pytest.approx(poly_mmd(first, second).item(), rel=1e-9)


def test_kernel_distance_is_zero_within_its_error_for_samples_of_one_distribution():
    generator = torch.Generator().manual_seed(0)
    draws = [distribution.squared_mmd(*torch.randn(2, 50, 16, generator=generator)) for _ in range(60)]
    assert abs(np.mean(draws)) < 2 * np.std(draws) / math.sqrt(len(draws))
    first, second = torch.randn(2, 100, 16, generator=generator)
    mean, deviation = distribution.kernel_distance(first, second)
    assert abs(mean) < 2 * deviation
    shifted, deviation = distribution.kernel_distance(first, second + 1)
    assert shifted > 5 * deviation
    assert distribution.kernel_distance(first, second) == distribution.kernel_distance(first, second)


@pytest.mark.parametrize(("measure", "count"), [(distribution.squared_mmd, 1), (distribution.kernel_distance, 3)])
def test_too_few_members_are_refused(measure, count):
    with pytest.raises(ValueError, match="needs at least"):
        measure(torch.ones(count, 4), torch.ones(9, 4))


# --- sliced Wasserstein ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [3, 147])
def test_a_shift_moves_sets_apart_by_its_mean_projection(dimensions):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(300, dimensions, generator=generator)
    shift = torch.full((dimensions,), 0.4)
    directions = distribution.random_directions(4000, dimensions)
    found = distribution.sliced_wasserstein(first, first + shift, directions)
    expected = shift.norm().item() * math.gamma(dimensions / 2) / (math.sqrt(math.pi) * math.gamma((dimensions + 1) / 2))
    assert found == pytest.approx(expected, rel=0.05)
    assert found == pytest.approx((directions @ shift).abs().mean().item(), rel=1e-4)


def test_sliced_wasserstein_equals_scipys_distance_along_each_direction():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(70, 5, generator=generator), torch.rand(70, 5, generator=generator)
    directions = distribution.random_directions(130, 5)
    expected = np.mean([stats.wasserstein_distance((first @ u).numpy(), (second @ u).numpy()) for u in directions])
    assert distribution.sliced_wasserstein(first, second, directions) == pytest.approx(expected, rel=1e-5)


def test_identical_sets_are_at_distance_zero_in_any_order_and_directions_are_stable():
    features = torch.randn(100, 9, generator=torch.Generator().manual_seed(0))
    directions = distribution.random_directions(50, 9)
    assert distribution.sliced_wasserstein(features, features.flip(0), directions) == 0
    assert torch.equal(directions, distribution.random_directions(50, 9))
    assert torch.allclose(directions.norm(dim=1), torch.ones(50))


def test_sets_of_different_size_are_refused():
    with pytest.raises(ValueError, match="equal shape"):
        distribution.sliced_wasserstein(torch.ones(3, 2), torch.ones(4, 2), distribution.random_directions(5, 2))


def test_the_levels_of_a_pyramid_add_up_to_the_picture():
    import cv2

    picture = photo_frames(1, size=(101, 132))[0][0].permute(1, 2, 0).numpy()
    levels = distribution.laplacian_pyramid(picture)
    assert [level.shape[:2] for level in levels] == [(101, 132), (51, 66), (26, 33)]
    total = levels[-1]
    for level in reversed(levels[:-1]):
        total = cv2.pyrUp(total, dstsize=(level.shape[1], level.shape[0])) + level
    assert np.allclose(total, picture, atol=1e-5)


def sample_of(frames: list[Tensor]) -> PatchSample:
    sample = PatchSample()
    for frame in frames:
        sample.add(frame[0])
    return sample


def test_patches_do_not_depend_on_the_order_of_the_frames_and_stay_bounded():
    frames = photo_frames(12)
    assert sample_of(frames).distances(sample_of(frames[::-1])) == [0, 0, 0]
    sample = sample_of(photo_frames(50, step=1) * 6)
    assert sample.count == distribution.MAX_PATCHES
    assert all(len(ranks) <= 2 * distribution.MAX_PATCHES for _, ranks in sample._levels)


def test_patches_tell_textures_apart():
    cat = sample_of(photo_frames(20))
    other_cat = sample_of([frame.flip(-1) for frame in photo_frames(20)])
    coffee = sample_of(photo_frames(20, picture="coffee"))
    pairs = zip(cat.distances(other_cat), cat.distances(coffee), strict=True)
    assert all(near < 0.7 * far for near, far in pairs)


# --- colors --------------------------------------------------------------------------------------------------------------


def colors_of(frames: list[Tensor]) -> ColorSample:
    sample = ColorSample()
    for frame in frames:
        sample.add(frame[0])
    return sample


def test_a_shift_of_all_colors_is_measured_in_grey_levels():
    frame = photo_frames(1)[0] * 0.8
    levels = torch.tensor([10.0, 20.0, -5.0]).view(1, 3, 1, 1)
    found = colors_of([frame]).distance(colors_of([frame + levels / 255]))
    assert found == pytest.approx(levels.norm().item() / 2, rel=0.15)  # 64 directions estimate the mean over the sphere
    exact = (distribution.random_directions(64, 3) @ levels.flatten()).abs().mean().item()
    assert found == pytest.approx(exact, rel=0.02)


def test_colors_do_not_depend_on_places_or_order():
    frames = photo_frames(5)
    shuffled = [frame.flatten(2)[..., torch.randperm(96 * 96)].view(1, 3, 96, 96) for frame in frames[::-1]]
    assert colors_of(frames).distance(colors_of(shuffled)) == pytest.approx(0, abs=1e-9)


def test_color_distance_holds_at_the_corners_of_the_cube():
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    exact = distribution.random_directions(64, 3).sum(dim=1).abs().mean().item() * 255
    assert colors_of([black]).distance(colors_of([white])) == pytest.approx(exact, rel=0.02)


# --- all of it ------------------------------------------------------------------------------------------------------------


def look_of(frames: list[Tensor], **options) -> DistributionSample:
    sample = DistributionSample(options.pop("height", 200), **options)
    for frame in frames:
        sample.add(frame)
    return sample


def test_a_video_looks_like_itself():
    frames = photo_frames(14, size=(200, 300), step=7)
    scores = look_of(frames).scores(look_of(frames))
    assert set(scores) == {"swd", "swd/1", "swd/2", "swd/4", "swd/8", "swd_t", "niqe_ref", "color_distance"}
    for key, score in scores.items():
        assert score.value == pytest.approx(0, abs=1e-6), key
        assert score.count > 0, key


def test_every_distance_sees_a_blur_or_a_tint():
    frames = photo_frames(14, size=(200, 300), step=7)
    blurred = [torch.nn.functional.avg_pool2d(frame, 5, 1, 2, count_include_pad=False) for frame in frames]
    tinted = [frame * torch.tensor([1.0, 0.8, 0.8]).view(1, 3, 1, 1) for frame in frames]
    blur, tint = (look_of(changed).scores(look_of(frames)) for changed in (blurred, tinted))
    assert blur["swd"].value > 20
    assert blur["swd_t"].value > 20
    assert blur["niqe_ref"].value > 1
    assert tint["color_distance"].value > 5


def test_patches_in_time_see_a_shuffle_that_patches_in_space_do_not():
    frames = photo_frames(30, step=2)
    shuffled = [frames[index] for index in np.random.default_rng(0).permutation(30)]
    scores = look_of(shuffled).scores(look_of(frames))
    assert scores["swd"].value == 0
    assert scores["swd_t"].value > 20


def test_what_cannot_be_compared_has_a_reason():
    frames = photo_frames(3, size=(64, 64))
    scores = look_of(frames).scores(look_of(frames, is_stills=True))
    assert scores["swd_t"].value is None
    assert "three frames in a row" in (scores["swd_t"].reason or "")
    assert scores["niqe_ref"].value is None
    assert "96x96" in (scores["niqe_ref"].reason or "")
    tiny = photo_frames(3, size=(6, 6))
    assert "smaller than a patch" in (look_of(tiny).scores(look_of(tiny))["swd"].reason or "")


def test_frames_are_compared_at_the_height_of_the_reference():
    large = photo_frames(4, size=(200, 300))
    small = [torch.nn.functional.avg_pool2d(frame, 2) for frame in large]
    scores = look_of(large, height=100).scores(look_of(small, height=100))
    assert scores["swd"].value < 1
    assert scores["color_distance"].value < 0.1
