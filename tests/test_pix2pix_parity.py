"""The networks and losses of pix2pix and pix2pixHD against the behaviour and the sizes of the originals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidgen.networks.coarse_to_fine import CoarseToFineGenerator, FeatureEncoder, GlobalGenerator
from vidgen.networks.discriminators import MultiscaleDiscriminator, PatchDiscriminator, PixelDiscriminator
from vidgen.networks.losses import adversarial, feature_matching, multiscale_adversarial
from vidgen.networks.unet import UNet
from vidgen.translators import pix2pix, pix2pixhd

TOLERANCE = 1e-4


def _load(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """(config, weights under the original names, inputs and outputs)"""
    archive = np.load(path)
    config = json.loads(bytes(archive["config"]).decode())
    tensors = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "config"}
    weights = {name.removeprefix("weight/"): value for name, value in tensors.items() if name.startswith("weight/")}
    return config, weights, {name: value for name, value in tensors.items() if not name.startswith("weight/")}


def _fill(network: nn.Module, weights: dict[str, Tensor], rename: Callable[..., dict[str, str]]) -> nn.Module:
    names = rename(weights)
    network.load_state_dict({names[key]: value for key, value in weights.items()}, strict=True)
    return network.eval()


def _assert_equal(made: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0
    torch.testing.assert_close(made, expected, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_the_unet_equals_the_original(parity_root: Path) -> None:
    config, weights, values = _load(parity_root / "pix2pix_unet.npz")
    network = UNet(config["input_nc"], config["output_nc"], config["ngf"], config["num_downs"], dropout=0.5)
    for part in network.modules():
        if hasattr(part, "is_noise"):
            part.is_noise = config["dropout"]
    _fill(network, weights, pix2pix.RENAMES["unet"])
    _assert_equal(network(values["input/condition"]), values["output/image"])


@torch.no_grad()
def test_the_judge_of_patches_equals_the_original(parity_root: Path) -> None:
    config, weights, values = _load(parity_root / "pix2pix_patchgan.npz")
    network = PatchDiscriminator(
        config["input_nc"], config["ndf"], config["n_layers"], norm="batch", padding=1, bias_before_norm=False
    )
    _fill(network, weights, pix2pix.RENAMES["discriminator"])
    _assert_equal(network(values["input/pair"])[-1], values["output/logits"])


@torch.no_grad()
@pytest.mark.parametrize("name", ["global", "local"])
def test_the_generator_of_pix2pixhd_equals_the_original(parity_root: Path, name: str) -> None:
    config, weights, values = _load(parity_root / f"pix2pixhd_{name}.npz")
    num_enhancers = config.get("n_local_enhancers", 0)
    network = CoarseToFineGenerator(
        config["input_nc"],
        config["ngf"] * 2**num_enhancers,
        config["n_downsample_global"],
        config["n_blocks_global"],
        num_enhancers,
        config.get("n_blocks_local", 3),
    )
    _fill(network, weights, pix2pixhd.RENAMES["generator"])
    _assert_equal(network(values["input/condition"]), values["output/image"])


@torch.no_grad()
def test_the_encoder_equals_the_original(parity_root: Path) -> None:
    config, weights, values = _load(parity_root / "pix2pixhd_encoder.npz")
    network = FeatureEncoder(config["output_nc"], config["nef"], config["n_downsample_E"])
    _fill(network, weights, pix2pixhd.RENAMES["encoder"])
    _assert_equal(network(values["input/image"], values["input/instances"][:, 0].long()), values["output/features"])


@torch.no_grad()
def test_the_multiscale_judge_equals_the_original(parity_root: Path) -> None:
    config, weights, values = _load(parity_root / "pix2pixhd_discriminator.npz")
    network = MultiscaleDiscriminator(config["input_nc"], config["ndf"], config["n_layers_D"], config["num_D"])
    _fill(network, weights, pix2pixhd.RENAMES["discriminator"])
    judged = network(torch.cat([values["input/condition"], values["input/image"]], dim=1))
    for scale, stages in enumerate(judged):
        for stage, made in enumerate(stages):
            _assert_equal(made, values[f"output/scale{scale}/stage{stage}"])
    assert len(judged) * len(judged[0]) == 10


def test_the_losses_equal_the_original(parity_root: Path) -> None:
    config, _, values = _load(parity_root / "pix2pixhd_losses.npz")
    num_stages = config["n_layers_D"] + 2
    fake, real = (
        [[values[f"input/{kind}/scale{scale}/stage{stage}"] for stage in range(num_stages)] for scale in range(config["num_D"])]
        for kind in ("fake", "real")
    )
    made = {
        "g_gan": multiscale_adversarial(fake, real=True, learner="generator", objective="least_squares"),
        "d_fake": multiscale_adversarial(fake, real=False, learner="discriminator", objective="least_squares"),
        "d_real": multiscale_adversarial(real, real=True, learner="discriminator", objective="least_squares"),
        "feature_matching": config["lambda_feat"] * feature_matching(fake, real),
    }
    for name, value in made.items():
        torch.testing.assert_close(value, values[f"output/{name}"], atol=TOLERANCE, rtol=0)


def _num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "build", "expected"),
    [
        ("U-Net for 256x256", lambda: UNet(3, 3, 64, 8), 54_413_955),
        ("U-Net for 128x128", lambda: UNet(3, 3, 64, 7), 41_828_995),
        ("judge of patches", lambda: PatchDiscriminator(6, norm="batch", padding=1, bias_before_norm=False), 2_768_705),
        ("global generator", lambda: GlobalGenerator(36), 182_546_755),
        ("local enhancer", lambda: CoarseToFineGenerator(36, 64, num_enhancers=1), 182_857_059),
        ("judge, two scales", lambda: MultiscaleDiscriminator(39, num_scales=2), 5_603_202),
        ("judge, three scales", lambda: MultiscaleDiscriminator(39, num_scales=3), 8_404_803),
        ("encoder", lambda: FeatureEncoder(3, 16, 4), 788_803),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, build: Callable[[], nn.Module], expected: int) -> None:
    with torch.device("meta"):
        assert _num_parameters(build()) == expected, name


def test_judged_maps_have_the_published_sizes() -> None:
    with torch.device("meta"):
        wide = MultiscaleDiscriminator(39)(torch.empty(1, 39, 512, 1024))
        square = MultiscaleDiscriminator(39)(torch.empty(1, 39, 256, 256))
        patches = PatchDiscriminator(6, norm="batch", padding=1)(torch.empty(1, 6, 256, 256))
    assert [[tuple(stage.shape[-2:]) for stage in scale] for scale in wide] == [
        [(257, 513), (129, 257), (65, 129), (66, 130), (67, 131)],
        [(129, 257), (65, 129), (33, 65), (34, 66), (35, 67)],
    ]
    assert [[stage.shape[-1] for stage in scale] for scale in square] == [[129, 65, 33, 34, 35], [65, 33, 17, 18, 19]]
    assert patches[-1].shape[-2:] == (30, 30)


def _maps(value: float, num_scales: int, num_stages: int = 5) -> list[list[Tensor]]:
    return [[torch.full((1, 2, 4, 4), value) for _ in range(num_stages)] for _ in range(num_scales)]


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_losses_of_zero_maps_count_the_scales_and_features_one_apart_cost_forty(num_scales: int) -> None:
    zeros, ones = _maps(0, num_scales), _maps(1, num_scales)
    assert multiscale_adversarial(zeros, real=True, learner="generator", objective="least_squares") == num_scales
    assert multiscale_adversarial(zeros, real=True, learner="discriminator", objective="least_squares") == num_scales
    assert multiscale_adversarial(zeros, real=False, learner="discriminator", objective="least_squares") == 0
    assert feature_matching(zeros, zeros) == 0
    assert 10 * feature_matching(zeros, ones) == pytest.approx(40)


def test_a_critic_is_paid_for_the_difference_of_real_and_made() -> None:
    logits = torch.tensor([2.0, 4.0])
    assert adversarial(logits, real=True, learner="discriminator", objective="wasserstein") == -3
    assert adversarial(logits, real=False, learner="discriminator", objective="wasserstein") == 3
    assert adversarial(logits, real=True, learner="generator", objective="wasserstein") == -3


@torch.no_grad()
def test_the_original_resnet_runs_under_its_own_keys() -> None:
    """pix2pix's ResNet generator with dropout, built here layer by layer as its authors do."""

    def convolution(channels_in: int, channels_out: int, size: int, **options: Any) -> list[nn.Module]:
        return [nn.Conv2d(channels_in, channels_out, size, bias=False, **options), nn.BatchNorm2d(channels_out)]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            reflect, relu = nn.ReflectionPad2d(1), nn.ReLU()
            self.conv_block = nn.Sequential(
                reflect, *convolution(16, 16, 3), relu, nn.Dropout(0.5), nn.ReflectionPad2d(1), *convolution(16, 16, 3)
            )

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv_block(x)

    def up(channels: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, 1, bias=False), nn.BatchNorm2d(channels // 2), nn.ReLU()]

    original = nn.Module()
    original.model = nn.Sequential(
        nn.ReflectionPad2d(3), *convolution(3, 4, 7), nn.ReLU(),
        *convolution(4, 8, 3, stride=2, padding=1), nn.ReLU(), *convolution(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        Block(), Block(), *up(16), *up(8), nn.ReflectionPad2d(3), nn.Conv2d(4, 3, 7), nn.Tanh(),
    )  # fmt: skip
    torch.manual_seed(0)
    for parameter in original.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    ours = GlobalGenerator(3, 3, 4, 2, 2, norm="batch", dropout=0.5, bias=False)
    for part in ours.modules():
        if hasattr(part, "is_noise"):
            part.is_noise = False
    _fill(ours, original.state_dict(), pix2pix.RENAMES["resnet"])
    for part in original.modules():
        part.train(not isinstance(part, nn.Dropout))
    picture = torch.randn(1, 3, 32, 32)
    _assert_equal(ours(picture), original.model(picture))


def test_a_foreign_key_is_not_renamed() -> None:
    for rename in (pix2pixhd.RENAMES["generator"], pix2pixhd.RENAMES["encoder"], pix2pix.RENAMES["resnet"]):
        with pytest.raises(KeyError):
            rename(["model.1.weight", "model.5.weight", "model.11.weight", "other.1.weight"])


def test_the_pixel_judge_has_a_value_for_every_pixel() -> None:
    judge = PixelDiscriminator(6)
    assert judge(torch.zeros(1, 6, 8, 8))[-1].shape == (1, 1, 8, 8)
    names = pix2pix.RENAMES["discriminator"](["net.0.weight", "net.2.weight", "net.3.weight", "net.5.weight"])
    assert set(names.values()) <= set(judge.state_dict())
