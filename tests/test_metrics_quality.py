from __future__ import annotations

import math
from fractions import Fraction

import av
import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch
from scipy import ndimage, special
from torch import Tensor

from vidgen.metrics import quality


def to_frame(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return skimage.data.chelsea()[20:216, 100:353] / 255


@pytest.fixture(scope="module")
def worse(photo: np.ndarray) -> dict[str, np.ndarray]:
    grain = np.random.default_rng(0).normal(size=photo.shape)
    return {
        "noise": (photo + 0.05 * grain).clip(0, 1),
        "blur": ndimage.gaussian_filter(photo, (1.5, 1.5, 0)),
        "darker": photo * 0.7,
        "inverted": 1 - photo,
    }


@pytest.mark.parametrize("kind", ["noise", "blur", "darker", "inverted"])
def test_psnr_and_ssim_equal_scikit_image(photo, worse, kind):
    first, second = to_frame(photo), to_frame(worse[kind])
    settings = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert quality.psnr(first, second).item() == pytest.approx(
        skimage.metrics.peak_signal_noise_ratio(photo, worse[kind], data_range=1), abs=1e-4
    )
    assert quality.ssim(first, second).item() == pytest.approx(
        skimage.metrics.structural_similarity(photo, worse[kind], channel_axis=2, **settings), abs=1e-4
    )
    grays = [picture @ [0.299, 0.587, 0.114] for picture in (photo, worse[kind])]
    assert quality.ssim(quality.luma(first), quality.luma(second)).item() == pytest.approx(
        skimage.metrics.structural_similarity(*grays, **settings), abs=1e-4
    )


@pytest.mark.parametrize("kind", ["noise", "blur", "darker"])
def test_ssim_and_ms_ssim_agree_with_torchmetrics(photo, worse, kind):
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        structural_similarity_index_measure,
    )

    first, second = (to_frame(picture[:192, :240]) for picture in (photo, worse[kind]))
    theirs = structural_similarity_index_measure(first, second, data_range=1.0).item()
    assert quality.ssim(first, second).item() == pytest.approx(theirs, abs=6e-3)  # theirs counts padded borders
    theirs = multiscale_structural_similarity_index_measure(first, second, data_range=1.0, normalize="relu").item()
    assert quality.ms_ssim(first, second).item() == pytest.approx(theirs, abs=1e-3)


def test_psnr_equals_libavfilter(photo, worse):
    grays = [np.ascontiguousarray((picture[..., 1] * 255).round().astype(np.uint8)) for picture in (photo, worse["noise"])]
    height, width = grays[0].shape
    graph = av.filter.Graph()
    inputs = [graph.add_buffer(width=width, height=height, format="gray", time_base="1/25") for _ in grays]
    compare, sink = graph.add("psnr"), graph.add("buffersink")
    for index, source in enumerate(inputs):
        source.link_to(compare, 0, index)
    compare.link_to(sink)
    graph.configure()
    for source, gray in zip(inputs, grays, strict=True):
        frame = av.VideoFrame.from_ndarray(gray, format="gray")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        source.push(frame)
        source.push(None)
    theirs = float(dict(sink.pull().metadata)["lavfi.psnr.psnr.y"])
    first, second = (to_frame(np.repeat(gray[..., None] / 255, 3, axis=2)) for gray in grays)
    assert quality.psnr(first, second).item() == pytest.approx(theirs, abs=1e-4)


def test_equal_frames_have_the_highest_scores(photo):
    frame = to_frame(photo)
    assert quality.psnr(frame, frame).item() == 100
    assert quality.ssim(frame, frame).item() == pytest.approx(1, abs=1e-6)
    assert quality.ms_ssim(frame, frame).item() == pytest.approx(1, abs=1e-6)


def test_frames_smaller_than_the_window_have_no_ssim(photo):
    small = to_frame(photo[:10])
    assert math.isnan(quality.ssim(small, small).item())
    medium = to_frame(photo[:160])
    assert math.isnan(quality.ms_ssim(medium, medium).item())
    assert not math.isnan(quality.ms_ssim(to_frame(photo[:161]), to_frame(photo[:161])).item())


@pytest.mark.parametrize("measure", [quality.psnr, quality.ssim, quality.ms_ssim])
def test_a_frame_scores_the_same_alone_and_in_a_batch(photo, worse, measure):
    seconds = [to_frame(picture) for picture in worse.values()]
    alone = [measure(to_frame(photo), second).item() for second in seconds]
    together = measure(to_frame(photo).expand(len(seconds), -1, -1, -1), torch.cat(seconds))
    assert together.tolist() == pytest.approx(alone, rel=1e-6)


def test_local_variance_equals_that_of_each_window(photo):
    frame = to_frame(photo[:20, :30])
    found = quality.local_variance(frame)[0, 0]
    for y, x in ((0, 0), (3, 0), (10, 12), (19, 29)):
        window = photo[max(y - 3, 0) : min(y + 4, 20), max(x - 3, 0) : min(x + 4, 30)]
        assert found[y, x].item() == pytest.approx(window.var(axis=(0, 1)).mean(), rel=1e-4)


@pytest.mark.parametrize("gray", [0.0, 0.1, 0.5, 0.987])
def test_a_flat_frame_has_no_local_variance(gray):
    assert quality.local_variance(torch.full((1, 3, 40, 40), gray)).max() < 1e-12


def test_sharpness_is_the_second_difference_of_luma():
    x = torch.arange(30) / 30
    parabola = x.square().expand(1, 3, 20, 30)
    assert quality.sharpness(parabola).item() == pytest.approx(2 / 30**2, rel=1e-4)
    assert quality.sharpness(x.expand(1, 3, 20, 30)).item() < 1e-6


def checkerboard(period: int, height: int = 96, width: int = 128) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells = (rows // (period // 2) + columns // (period // 2)) % 2
    return (0.4 + 0.2 * cells).expand(1, 3, height, width)


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_checkerboard_is_no_sharpness_but_a_pattern_of_a_grid(photo, period):
    photo = to_frame(photo)
    soft = torch.nn.functional.avg_pool2d(photo, 9, 1, 4)
    spoilt = soft + checkerboard(period, *photo.shape[-2:]) - 0.5
    assert quality.sharpness(spoilt).item() < 1.35 * quality.sharpness(soft).item() < 0.5 * quality.sharpness(photo).item()
    assert quality.grid_share(spoilt).item() > 0.8
    assert quality.grid_share(photo).item() < 0.1
    assert quality.sharpness(checkerboard(period)).item() < 1e-6


def test_a_grid_that_follows_the_picture_is_no_sharpness_either(photo):
    photo = to_frame(photo)
    soft = torch.nn.functional.avg_pool2d(photo, 9, 1, 4)
    detail = torch.nn.functional.avg_pool2d((photo - soft).abs(), 9, 1, 4)
    spoilt = soft + 3 * detail * (checkerboard(2, *photo.shape[-2:]) - 0.5) / 0.1
    assert quality.sharpness(spoilt).item() < 1.2 * quality.sharpness(soft).item()
    assert quality.grid_share(spoilt).item() > 0.5


def test_noise_has_the_share_of_a_grid_that_chance_gives_it():
    noise = torch.rand(1, 3, 322, 322, generator=torch.Generator().manual_seed(0))
    assert quality.grid_share(noise).item() == pytest.approx(1 / 16, rel=0.1)
    assert math.isnan(quality.grid_share(torch.full((1, 3, 64, 64), 0.5)).item())
    assert math.isnan(quality.grid_share(noise[..., :30, :30]).item())


@pytest.mark.parametrize(("height", "expected"), [(288, (288, 384)), (720, (360, 480)), (181, (180, 240)), (1, (2, 2))])
def test_sizes_shrink_to_even_ones_of_the_same_shape_and_never_grow(height, expected):
    size = expected if height == 288 else (360, 480)
    assert quality.shrunk_size(size, height) == expected


def test_shrinking_averages_areas(photo):
    frame = to_frame(photo[:196, :252])
    halved = quality.shrink(frame, 98)
    assert halved.shape == (1, 3, 98, 126)
    assert torch.allclose(halved, torch.nn.functional.avg_pool2d(frame, 2), atol=1e-6)
    assert quality.shrink(frame, 400) is frame


# --- natural-scene statistics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "left", "right"), [(2.0, 1.0, 1.0), (1.0, 0.5, 0.5), (1.5, 1.0, 2.0), (0.7, 2.0, 1.0)])
def test_an_asymmetric_gaussian_is_found_again_from_its_samples(shape, left, right):
    generator = np.random.default_rng(0)
    sides = generator.random(400_000) < left / (left + right)
    lengths = generator.gamma(1 / shape, size=400_000) ** (1 / shape)
    samples = torch.from_numpy(np.where(sides, -left * lengths, right * lengths))[None]
    found = [values.item() for values in quality.asymmetric_gaussian(samples)]
    assert found == pytest.approx([shape, left, right], rel=0.03)


def fitted(samples: np.ndarray) -> tuple[float, float, float]:
    """The usual numpy code: shape by a search through the table of ratios."""
    shapes = np.arange(0.2, 10, 0.001)
    ratios = special.gamma(2 / shapes) ** 2 / (special.gamma(1 / shapes) * special.gamma(3 / shapes))
    left, right = (np.sqrt(np.mean(part**2)) for part in (samples[samples < 0], samples[samples > 0]))
    skew = left / right
    target = np.mean(np.abs(samples)) ** 2 / np.mean(samples**2) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = shapes[np.argmin((ratios - target) ** 2)]
    scale = np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
    return shape, left * scale, right * scale


def test_natural_scene_features_equal_a_numpy_implementation(photo):
    gray = photo[:192, :192] @ [0.299, 0.587, 0.114] * 255
    offsets = np.arange(-3, 4)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * (7 / 6) ** 2))
    kernel /= kernel.sum()
    mean = ndimage.correlate(gray, kernel, mode="nearest")
    deviation = np.sqrt(np.abs(ndimage.correlate(gray**2, kernel, mode="nearest") - mean**2))
    normalized = (gray - mean) / (deviation + 1)
    found = quality.natural_scene_features(to_frame(photo[:192, :192]).double())
    assert found.shape == (4, 36)
    for index, (y, x) in enumerate(((0, 0), (0, 96), (96, 0), (96, 96))):
        block = normalized[y : y + 96, x : x + 96]
        shape, left, right = fitted(block)
        expected = [shape, (left + right) / 2]
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
            shape, left, right = fitted(block * np.roll(block, shift, axis=(0, 1)))
            expected += [shape, (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape), left, right]
        assert found[index, :18].tolist() == pytest.approx(expected, rel=1e-3, abs=2e-3)


def test_flat_and_small_frames_have_no_natural_scene_features():
    assert quality.natural_scene_features(torch.full((1, 3, 96, 96), 0.5)).isnan().any()
    assert quality.natural_scene_features(torch.rand(1, 3, 95, 200)).shape == (0, 36)
