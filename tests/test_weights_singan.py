"""Published SinGAN folders: read safely, refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vidgen.errors import CheckpointError
from vidgen.networks import single_image
from vidgen.networks.single_image import LevelGenerator, LevelNetwork
from vidgen.translators import singan
from vidgen.weights.files import load_into
from vidgen.weights.singan import import_singan, import_weights

SIZES = single_image.plan_pyramid((48, 64), min_size=20).sizes


def _original_keys(network: nn.Module, is_generator: bool) -> dict[str, torch.Tensor]:
    """The state of a level under the authors' names."""
    renamed = {}
    for key, value in network.state_dict().items():
        part, rest = key.split(".", 1)
        if part == "blocks":
            index, rest = rest.split(".", 1)
            renamed[f"head.{rest}" if index == "0" else f"body.block{index}.{rest}"] = value
        else:
            renamed[f"tail.0.{rest}" if is_generator else key] = value
    return renamed


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as the authors' code leaves it, of a model four channels wide."""
    torch.manual_seed(0)
    folder = tmp_path / "scale_factor=0.750000,alpha=10"
    for level in range(len(SIZES)):
        (folder / str(level)).mkdir(parents=True)
        torch.save(_original_keys(LevelGenerator(4), True), folder / str(level) / "netG.pth")
        torch.save(_original_keys(LevelNetwork(1, 4), False), folder / str(level) / "netD.pth")
    first = nn.functional.pad(torch.randn(1, 1, *SIZES[0]).expand(1, 3, -1, -1), [5] * 4)
    rest = [torch.zeros(1, 3, height + 10, width + 10, dtype=torch.int64) for height, width in SIZES[1:]]
    torch.save([first, *rest], folder / "Zs.pth")
    torch.save([torch.rand(1, 3, *size) * 2 - 1 for size in SIZES], folder / "reals.pth")
    torch.save([1] + [torch.tensor(0.05)] * (len(SIZES) - 1), folder / "NoiseAmp.pth")
    (folder / "Gs.pth").write_bytes(b"never opened")
    return folder


def test_a_published_folder_becomes_a_model_with_its_sizes_noise_and_picture(published: Path) -> None:
    settings, tensors = import_singan(published)
    model = singan.build(settings)
    load_into(model, tensors, "here")
    model.eval()
    assert settings.border == "zeros"
    assert settings.legacy_quantize
    reals, noises = (torch.load(published / name, weights_only=True) for name in ("reals.pth", "Zs.pth"))
    assert model.pyramid.sizes == SIZES
    assert torch.equal(model.image, reals[-1])
    with torch.inference_mode():
        assert torch.equal(nn.functional.pad(model.fixed(0, SIZES[0]), [5] * 4), noises[0])
        assert model.generate((50, 90), generator=torch.Generator()).shape == (1, 3, 50, 90)
        expected = model.generator[0](noises[0], torch.zeros(1, 3, *noises[0].shape[-2:]))
        torch.testing.assert_close(model.reconstruct(stop_scale=0), expected.clamp(-1, 1))


def test_noise_up_to_the_edge_tells_an_animation_model(published: Path) -> None:
    noises = torch.load(published / "Zs.pth", weights_only=True)
    noises[0] = torch.randn_like(noises[0][:, :1]).expand(1, 3, -1, -1).clone()
    torch.save(noises, published / "Zs.pth")
    assert import_singan(published)[0].border == "noise"
    assert "imported" in import_weights(published).metadata


def test_an_interrupted_training_is_refused_with_the_missing_file(published: Path) -> None:
    (published / str(len(SIZES) - 1) / "netG.pth").unlink()
    with pytest.raises(CheckpointError, match=rf"did not end.*{len(SIZES) - 1}/netG.pth is missing"):
        import_singan(published)


def test_pickled_modules_are_refused_with_the_reason(published: Path) -> None:
    torch.save([LevelGenerator(4)], published / "reals.pth")
    with pytest.raises(CheckpointError, match="pickled objects or code"):
        import_singan(published)
    with pytest.raises(CheckpointError, match="is not a folder") as caught:
        import_singan(published / "Gs.pth")
    assert "pickled modules" in str(caught.value.hint)
