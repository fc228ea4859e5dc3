"""The vid2vid networks against the behaviour and the sizes of the originals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flow.warp import warp
from vidgen.networks import composite, discriminators
from vidgen.networks.composite import CompositeGenerator, Composition, LocalCompositeGenerator
from vidgen.networks.discriminators import MultiscaleDiscriminator
from vidgen.networks.encoding import instance_edges

TOLERANCE = 1e-4


def _load(path: Path) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    """(config, weights under the original names, inputs and outputs)"""
    archive = np.load(path)
    config = json.loads(bytes(archive["config"]).decode())
    tensors = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "config"}
    weights = {name.removeprefix("weight/"): value for name, value in tensors.items() if name.startswith("weight/")}
    return config, weights, {name: value for name, value in tensors.items() if not name.startswith("weight/")}


def _fill(network: nn.Module, weights: dict[str, Tensor], names: dict[str, str]) -> nn.Module:
    network.load_state_dict({names[key]: value for key, value in weights.items()}, strict=True)
    return network.eval()


def _assert_composition(made: Composition, expected: dict[str, Tensor]) -> None:
    compared = 0
    for name in ("frame", "raw", "flow", "mask", "image_features", "flow_features", "foreground_features"):
        if f"output/{name}" in expected:
            torch.testing.assert_close(getattr(made, name), expected[f"output/{name}"], atol=TOLERANCE, rtol=0)
            compared += 1
    assert compared >= 6


@pytest.mark.parametrize("name", ["vid2vid_composite", "vid2vid_composite_fg"])
def test_composite_generator_equals_the_original(parity_root: Path, name: str) -> None:
    config, weights, values = _load(parity_root / f"{name}.npz")
    network = CompositeGenerator(
        config["labels_per_frame"] * config["n_frames_G"],
        3 * (config["n_frames_G"] - 1),
        config["ngf"],
        config["n_downsample_G"],
        config["n_blocks"],
        use_foreground=config["fg"],
    )
    _fill(network, weights, composite.rename_original(weights))
    with torch.no_grad():
        made = network(values["input/condition"], values["input/previous"], foreground_mask=values.get("input/foreground_mask"))
    _assert_composition(made, values)


def test_local_composite_generator_equals_the_original(parity_root: Path) -> None:
    config, weights, values = _load(parity_root / "vid2vid_composite_local_fg.npz")
    network = LocalCompositeGenerator(
        config["labels_per_frame"] * config["n_frames_G"],
        3 * (config["n_frames_G"] - 1),
        config["ngf"],
        config["n_blocks_local"],
        scale=config["scale"],
        use_foreground=config["fg"],
        narrow_foreground=config["n_downsample_G"] > 2,
    )
    _fill(network, weights, composite.rename_original(weights))
    empty = torch.zeros(1)
    features = {name: values[f"input/{name}"] for name in ("image_features", "flow_features", "foreground_features")}
    coarse = Composition(frame=empty, raw=empty, flow=None, mask=None, **features)
    with torch.no_grad():
        made = network(
            values["input/condition"], values["input/previous"], foreground_mask=values["input/foreground_mask"], coarse=coarse
        )
    _assert_composition(made, values)


def test_temporal_discriminator_equals_the_original(parity_root: Path) -> None:
    config, weights, values = _load(parity_root / "vid2vid_temporal_discriminator.npz")
    network = MultiscaleDiscriminator(
        config["input_nc"], config["ndf"], config["n_layers_D"], config["num_D"], norm="batch", widen_coarse=True
    )
    _fill(network, weights, discriminators.rename_original(weights))
    with torch.no_grad():
        judged = network(values["input/windows"])
    for scale, stages in enumerate(judged):
        for stage, made in enumerate(stages):
            torch.testing.assert_close(made, values[f"output/scale{scale}/stage{stage}"], atol=TOLERANCE, rtol=0)
    assert len(judged) * len(judged[0]) == 10


def test_warp_equals_the_original(parity_root: Path) -> None:
    _, _, values = _load(parity_root / "warp.npz")
    made = warp(values["input/image"], values["input/flow"])
    torch.testing.assert_close(made, values["output/warped"], atol=TOLERANCE, rtol=0)


def test_instance_edges_equal_the_original(parity_root: Path) -> None:
    _, _, values = _load(parity_root / "instance_edges.npz")
    made = instance_edges(values["input/instances"][:, 0].long())
    torch.testing.assert_close(made, values["output/edges"], atol=0, rtol=0)


def _num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "build", "expected"),
    [
        ("street with foreground", lambda: CompositeGenerator(108, 6, 128, 3, 9, use_foreground=True), 411_335_241),
        ("street, two down-samplings", lambda: CompositeGenerator(108, 6, 128, 2, 9, use_foreground=True), 137_792_649),
        ("face", lambda: CompositeGenerator(45, 6, 128, 3, 9), 364_996_230),
        ("pose", lambda: CompositeGenerator(18, 6, 128, 3, 9), 364_826_886),
        ("pose, 64 channels", lambda: CompositeGenerator(18, 6, 64, 3, 9), 91_285_638),
        ("second scale", lambda: LocalCompositeGenerator(108, 6, 64, 3, scale=1, use_foreground=True), 2_880_489),
        ("third scale", lambda: LocalCompositeGenerator(108, 6, 32, 3, scale=2, use_foreground=True), 859_641),
        ("judge, two scales", lambda: MultiscaleDiscriminator(39, num_scales=2, norm="batch", widen_coarse=True), 5_606_786),
        ("judge, three scales", lambda: MultiscaleDiscriminator(39, num_scales=3, norm="batch", widen_coarse=True), 8_410_179),
        ("judge of motion", lambda: MultiscaleDiscriminator(13, num_scales=2, norm="batch", widen_coarse=True), 5_553_538),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, build, expected: int) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        assert _num_parameters(build()) == expected, name


def test_temporal_discriminator_maps_have_the_published_sizes() -> None:
    with torch.device("meta"):
        judged = MultiscaleDiscriminator(13, norm="batch", widen_coarse=True)(torch.empty(1, 13, 256, 512))
    sizes = [[tuple(stage.shape[-2:]) for stage in scale] for scale in judged]
    assert sizes[0] == [(129, 257), (65, 129), (33, 65), (34, 66), (35, 67)]
    assert sizes[1] == [(65, 129), (33, 65), (17, 33), (18, 34), (19, 35)]
