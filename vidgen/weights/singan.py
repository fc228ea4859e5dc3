"""Published SinGAN models, a folder each, as weights of ours; nothing in them is run.

Read are `<scale>/netG.pth` and `<scale>/netD.pth` (state dicts) and `Zs.pth`, `reals.pth`, `NoiseAmp.pth` (lists of tensors).
`Gs.pth` holds pickled modules and is never opened.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidgen import config, translators
from vidgen.errors import CheckpointError
from vidgen.translators.settings import ModelConfig
from vidgen.weights.files import Weights, load_into
from vidgen.weights.model_file import ModelCard
from vidgen.weights.state_dicts import read_state_dict, read_tensors


def import_singan(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration and tensors of a published model.

    Args:
        folder: such as `TrainedModels/balloons/scale_factor=0.750000,alpha=10`.

    Raises:
        CheckpointError: files are missing, unsafe or broken, or belong to a training that did not end.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: is not a folder; a published SinGAN model is one, with 0/netG.pth ... and Zs.pth in it",
            hint="single files such as Gs.pth hold pickled modules, which could run code; they are refused",
        )
    reals, noises, amplitudes = (read_tensors(folder / name) for name in ("reals.pth", "Zs.pth", "NoiseAmp.pth"))
    levels = range(len(reals))
    if not reals or any(value.ndim != 4 or value.shape[:2] != (1, 3) for value in reals + noises):
        raise CheckpointError(f"{folder}: reals.pth and Zs.pth do not hold images [1,3,H,W]")
    states: dict[str, list[dict[str, Tensor]]] = {}
    for name in ("netG", "netD"):
        files = [folder / str(level) / f"{name}.pth" for level in levels]
        missing = [str(file.relative_to(folder)) for file in files if not file.is_file()]
        if missing:
            raise CheckpointError(
                f"{folder}: its training did not end: reals.pth has {len(reals)} scales, but {missing[0]} is missing"
            )
        states[name] = [read_state_dict(file) for file in files]
    if not len(noises) == len(amplitudes) == len(reals):
        raise CheckpointError(
            f"{folder}: {len(reals)} reals, {len(noises)} Zs and {len(amplitudes)} NoiseAmp; one for each scale is right"
        )
    settings: Any = _settings(folder, reals, noises, states["netG"])
    torch.manual_seed(0)
    model = translators.find("singan").build(settings)
    for name, owner in (("netG", model.generator), ("netD", model.get_submodule("discriminators"))):
        for level, state in enumerate(states[name]):
            _fill(owner.get_submodule(str(level)), state, str(folder / str(level) / f"{name}.pth"))
    margin = 0 if settings.border == "noise" else settings.num_layers
    height, width = noises[0].shape[-2:]
    tensors = model.state_dict()
    found = {
        "image": reals[-1],
        "fixed_noise": noises[0][:, :1, margin : height - margin, margin : width - margin],
        "amplitudes": torch.stack([value.reshape(()) for value in amplitudes]),
        "num_begun_scales": torch.tensor(len(reals)),
        "has_image": torch.tensor(1),
    }
    for name, value in found.items():
        if value.shape != tensors[name].shape:
            raise CheckpointError(f"{folder}: {name} is {tuple(value.shape)}, not {tuple(tensors[name].shape)}")
        tensors[name] = value
    return settings, tensors


def import_weights(folder: Path) -> Weights:
    """The same as `import_singan`, as the content of a weights file."""
    settings, tensors = import_singan(folder)
    origin = {"system": "singan", "files": [str(folder)], "untrained": []}
    size = settings.image_size  # type: ignore[attr-defined]
    return Weights(tensors, ModelCard(settings, {}, None, size, extra={"imported": json.dumps(origin)}).metadata())


def _settings(folder: Path, reals: list[Tensor], noises: list[Tensor], generators: list[dict[str, Tensor]]) -> ModelConfig:
    widths = []
    for level, state in enumerate(generators):
        if "head.conv.weight" not in state:
            raise CheckpointError(f"{folder / str(level) / 'netG.pth'}: has no head.conv.weight; is it a SinGAN generator?")
        widths.append(state["head.conv.weight"].shape[0])
    num_layers = 2 + len({key.split(".")[1] for key in generators[0] if key.startswith("body.")})
    framed = noises[0].clone()
    framed[..., num_layers:-num_layers, num_layers:-num_layers] = 0
    sizes = [list(value.shape[-2:]) for value in reals]
    model = {
        "kind": "singan",
        "image_size": sizes[-1],
        "sizes": sizes,
        "border": "noise" if framed.abs().max() > 0 else "zeros",
        "base_channels": widths[0],
        "max_channels": max(widths),
        "num_layers": num_layers,
        "legacy_quantize": True,
    }
    settings: Any = config.from_data(model, translators.find("singan").Config, str(folder))
    expected = [settings.width(level) for level in range(len(reals))]
    if widths != expected:
        raise CheckpointError(f"{folder}: the scales are {widths} channels wide; {expected} would be a SinGAN")
    result: ModelConfig = settings
    return result


def _fill(module: nn.Module, state: dict[str, Tensor], where: str) -> None:
    try:
        names = translators.find("singan").RENAMES["generator"](state)
    except ValueError as error:
        raise CheckpointError(f"{where}: a key has no place in SinGAN ({error})") from error
    load_into(module, {names[key]: value for key, value in state.items()}, where)
