"""Pyramids, exact resizing, level networks and noise paths of single-image generators."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vidgen.networks import single_image
from vidgen.networks.single_image import (
    LevelGenerator,
    LevelNetwork,
    mirror_to,
    noise_loop,
    noise_walk,
    pixelwise_gradient_penalty,
    plan_concurrent_pyramid,
    plan_pyramid,
    resize_by,
    resize_to,
)

PUBLISHED = {
    (167, 250): (0.7887, "26x38 32x48 41x61 51x77 65x97 82x123 104x156 132x198 167x250"),
    (188, 250): (0.7992, "26x34 32x42 40x53 49x66 62x82 77x102 96x128 121x160 151x200 188x250"),
    (250, 250): (0.7943, "25x25 32x32 40x40 50x50 63x63 80x80 100x100 126x126 158x158 199x199 250x250"),
    (512, 512): (0.7743, "26x26 33x33 42x42 54x54 70x70 90x90 117x117 150x150 194x194 250x250"),
    (768, 1024): (0.7771, "25x34 33x43 42x56 54x71 69x92 89x118 114x151 147x195 188x250"),
    (1080, 1920): (0.7810, "25x45 33x57 41x73 53x94 68x120 87x153 111x196 141x250"),
}


@pytest.mark.parametrize("size", PUBLISHED, ids=str)
def test_the_pyramid_has_the_published_sizes(size: tuple[int, int]) -> None:
    ratio, sizes = PUBLISHED[size]
    pyramid = plan_pyramid(size)
    assert " ".join(f"{height}x{width}" for height, width in pyramid.sizes) == sizes
    assert pyramid.step(1) == pytest.approx(1 / ratio, abs=2e-4)


@pytest.mark.parametrize("size", [(40, 400), (400, 40), (60, 1000), (100, 2000), (18, 18), (17, 60), (16, 16), (25, 25), (34, 34)])
def test_long_and_small_pictures_get_a_pyramid_that_grows(size: tuple[int, int]) -> None:
    pyramid = plan_pyramid(size)
    assert pyramid.num_levels >= 2
    assert all(1 / pyramid.step(level) < 0.95 for level in range(1, pyramid.num_levels))
    assert all(min(level) >= single_image.MIN_SIDE for level in pyramid.sizes)
    assert all(a < b for (a, _), (b, _) in itertools.pairwise(pyramid.sizes))


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (15, 15)])
def test_pictures_without_room_for_two_levels_are_refused_with_the_least_size(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[1]}x{size[0]}; both sides need at least 16"):
        plan_pyramid(size)


def test_super_resolution_counts_portraits_and_landscapes_alike() -> None:
    options = {"min_size": 18, "scale_factor": 0.5 ** (1 / 3), "count": "floor"}
    upright = plan_pyramid((120, 80), **options)  # type: ignore[arg-type]
    lying = plan_pyramid((80, 120), **options)  # type: ignore[arg-type]
    assert upright.sizes == tuple((height, width) for width, height in lying.sizes)


def test_concurrent_stages_have_the_published_sizes() -> None:
    sizes = plan_concurrent_pyramid((152, 250), 6).sizes
    assert " ".join(f"{height}x{width}" for height, width in sizes) == "26x42 31x51 40x66 57x94 106x175 152x250"
    assert plan_concurrent_pyramid((152, 250), 2).num_levels == 2


def test_halving_equals_the_antialiased_cubic_resize_inside() -> None:
    image = torch.rand(1, 3, 40, 60)
    expected = F.interpolate(image, scale_factor=0.5, mode="bicubic", antialias=True)
    torch.testing.assert_close(resize_by(image, 0.5)[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3], atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.41, 0.75, 1.0, 1.26, 2.7])
def test_resizing_keeps_constants_is_symmetric_and_identity_at_scale_one(scale: float) -> None:
    image = torch.rand(1, 2, 31, 23, dtype=torch.float32)
    made = resize_by(image, scale)
    assert made.shape[-2:] == (single_image.ceil(31 * scale), single_image.ceil(23 * scale))
    torch.testing.assert_close(resize_by(torch.full_like(image, 0.3), scale), torch.full_like(made, 0.3))
    turned = resize_to(image.flip(-1, -2), (20, 40)).flip(-1, -2)
    torch.testing.assert_close(resize_to(image, (20, 40)), turned, atol=1e-5, rtol=0)
    if scale == 1.0:
        torch.testing.assert_close(made, image, atol=1e-6, rtol=0)


def test_resizing_passes_gradients_and_stays_float32_under_autocast() -> None:
    image = torch.rand(1, 1, 8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = resize_by(image, 1.3)
    assert made.dtype == torch.float32
    made.sum().backward()
    assert image.grad is not None
    assert image.grad.sum() == pytest.approx(made.numel(), rel=1e-4)


def test_legacy_quantization_moves_a_picture_by_half_a_level() -> None:
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    shift = (resize_by(image, 1.0, legacy_quantize=True) - image) * 127.5
    assert -0.6 < float(shift.mean()) < -0.4
    assert float(shift.min()) > -1.01


def _load(path: Path) -> tuple[dict, dict, dict]:
    archive = np.load(path)
    config = json.loads(bytes(archive["config"]).decode())
    tensors = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "config"}
    weights = {name.removeprefix("weight/"): value for name, value in tensors.items() if name.startswith("weight/")}
    return config, weights, {name: value for name, value in tensors.items() if not name.startswith("weight/")}


def _filled(network: nn.Module, config: dict, weights: dict) -> nn.Module:
    names = single_image.rename_original(weights)
    network.load_state_dict({names[key]: value for key, value in weights.items()}, strict=True)
    return network.train(config["mode"] == "train")


@pytest.mark.parametrize("mode", ["eval", "train"])
@torch.no_grad()
def test_level_generator_equals_the_original(parity_root: Path, mode: str) -> None:
    config, weights, values = _load(parity_root / f"singan_generator_{mode}.npz")
    network = _filled(LevelGenerator(config["width"], config["layers"]), config, weights)
    made = network(values["input/noise"], values["input/previous"])
    torch.testing.assert_close(made, values["output/image"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["eval", "train"])
@torch.no_grad()
def test_level_discriminator_equals_the_original(parity_root: Path, mode: str) -> None:
    config, weights, values = _load(parity_root / f"singan_discriminator_{mode}.npz")
    network = _filled(LevelNetwork(1, config["width"], config["layers"]), config, weights)
    torch.testing.assert_close(network(values["input/image"]), values["output/scores"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("width", "generator", "discriminator"), [(32, 29_763, 29_185), (64, 114_819, 113_665), (128, 450_819, 448_513)]
)
def test_level_networks_have_the_published_number_of_parameters(width: int, generator: int, discriminator: int) -> None:
    assert sum(parameter.numel() for parameter in LevelGenerator(width).parameters()) == generator
    assert sum(parameter.numel() for parameter in LevelNetwork(1, width).parameters()) == discriminator


def test_the_gradient_penalty_is_the_squared_distance_of_the_slope_from_one_and_float32() -> None:
    class Slope(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dtype == torch.float32
            return x[:, :1] * 3 + x[:, 1:2] * 4

    real, fake = torch.rand(1, 3, 6, 6), torch.rand(1, 3, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = pixelwise_gradient_penalty(Slope(), real, fake)
    assert float(penalty) == pytest.approx(16.0, rel=1e-5)


def test_mirroring_cuts_and_continues_without_a_seam() -> None:
    row = torch.arange(4.0)[None, None, None]
    assert mirror_to(row, (1, 10))[0, 0, 0].tolist() == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1]
    assert mirror_to(row, (2, 3)).shape == (1, 1, 2, 3)


def test_a_noise_loop_closes_at_zero_and_moves_evenly() -> None:
    frames = torch.stack(list(noise_loop((1, 3, 20, 20), 60, alpha=0.1, beta=0.9, device="cpu", generator=torch.Generator())))
    assert frames[0].abs().max() < 1e-5
    steps = (frames.roll(-1, 0) - frames).square().mean(dim=(1, 2, 3, 4)).sqrt()
    assert float(steps[-1]) < 1.5 * float(steps.median())
    assert float(steps[0]) < 1.5 * float(steps.median())


def test_a_noise_loop_never_stands_still() -> None:
    """The frame after the last is the first; so the last is not."""
    frames = torch.stack(list(noise_loop((1, 3, 20, 20), 12, alpha=0.1, beta=0.5, device="cpu", generator=torch.Generator())))
    steps = (frames.roll(-1, 0) - frames).square().mean(dim=(1, 2, 3, 4)).sqrt()
    assert float(steps.min()) > 0.3 * float(steps.median())


def test_a_noise_loop_is_as_lively_as_the_published_walk() -> None:
    generator = torch.Generator().manual_seed(1)
    options = {"alpha": 0.1, "beta": 0.9, "device": "cpu", "generator": generator}
    loop = torch.stack(list(noise_loop((1, 3, 16, 16), 200, **options)))  # type: ignore[arg-type]
    walk = torch.stack(list(itertools.islice(noise_walk((1, 3, 16, 16), **options), 200)))  # type: ignore[arg-type]
    assert walk[0].abs().max() == 0
    assert float(loop[50:150].std()) == pytest.approx(float(walk[50:150].std()), rel=0.15)
    speed = [float((path[51:150] - path[50:149]).std()) for path in (loop, walk)]
    assert speed[0] == pytest.approx(speed[1], rel=0.25)
