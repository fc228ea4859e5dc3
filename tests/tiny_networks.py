"""Random weights in the layout of published networks, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
import torchmetrics
from torch import Tensor, nn

I3D_LAYERS: tuple[str | tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    "Conv3d_1a_7x7",
    ((1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1",
    "Conv3d_2c_3x3",
    ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b",
    "Mixed_3c",
    ((3, 3, 3), (2, 2, 2)),
    *(f"Mixed_4{letter}" for letter in "bcdef"),
    ((2, 2, 2), (2, 2, 2)),
    "Mixed_5b",
    "Mixed_5c",
)


def filled(module: nn.Module, seed: int = 1) -> nn.Module:
    """`module` with random weights that keep the scale of what passes through."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if "running_var" in name:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.ndim > 1:
            value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
        elif value.is_floating_point():
            value.copy_(0.1 * torch.randn(value.shape, generator=generator) + float(name.endswith("weight")))
    return module


def torchmetrics_file(name: str) -> dict[str, Tensor]:
    path = Path(torchmetrics.__file__).parent / "functional" / "image" / name
    return torch.load(path, map_location="cpu", weights_only=True)


def i3d_tensors(width: int) -> dict[str, Tensor]:
    """I3D with `width` channels in every branch, and 5 logits."""
    generator = torch.Generator().manual_seed(2)
    tensors: dict[str, Tensor] = {}

    def unit(name: str, num_in: int, num_out: int, kernel: int) -> None:
        scale = (2 / (num_in * kernel**3)) ** 0.5
        tensors[f"{name}.conv3d.weight"] = scale * torch.randn(num_out, num_in, kernel, kernel, kernel, generator=generator)
        for key in ("weight", "running_var"):
            tensors[f"{name}.bn.{key}"] = 0.5 + torch.rand(num_out, generator=generator)
        for key in ("bias", "running_mean"):
            tensors[f"{name}.bn.{key}"] = 0.1 * torch.randn(num_out, generator=generator)

    channels = 3
    for layer in I3D_LAYERS:
        if isinstance(layer, tuple):
            continue
        if layer.startswith("Mixed"):
            for part in ("b0", "b1a", "b2a", "b3b"):
                unit(f"{layer}.{part}", channels, width, 1)
            for part in ("b1b", "b2b"):
                unit(f"{layer}.{part}", width, width, 3)
            channels = 4 * width
        else:
            unit(layer, channels, width, {"7x7": 7, "1x1": 1, "3x3": 3}[layer[-3:]])
            channels = width
    tensors["logits.conv3d.weight"] = torch.randn(5, channels, 1, 1, 1, generator=generator)
    tensors["logits.conv3d.bias"] = torch.randn(5, generator=generator)
    return tensors


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(6)
    tensors = {}
    for name, shape in shapes.items():
        is_norm = ("norm" in name or "ln_" in name) and name.endswith("weight")
        scale = shape[-1] ** -0.5 if len(shape) == 2 else 0.1
        tensors[name] = scale * torch.randn(shape, generator=generator) + float(is_norm)
    return tensors


def dino_tensors(width: int, depth: int, patch: int) -> dict[str, Tensor]:
    num_patches = (224 // patch) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, num_patches + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for index in range(depth):
        for name, rows, columns in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            shapes |= {f"blocks.{index}.{name}.weight": (rows, columns), f"blocks.{index}.{name}.bias": (rows,)}
        shapes |= {f"blocks.{index}.norm{k}.{part}": (width,) for k in (1, 2) for part in ("weight", "bias")}
    return _random(shapes)


def clip_tensors(width: int, depth: int, patch: int, embedding: int) -> dict[str, Tensor]:
    num_patches = (224 // patch) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "class_embedding": (width,),
        "positional_embedding": (num_patches + 1, width),
        "conv1.weight": (width, 3, patch, patch),
        "proj": (width, embedding),
    }
    shapes |= {f"{name}.{part}": (width,) for name in ("ln_pre", "ln_post") for part in ("weight", "bias")}
    for index in range(depth):
        block = f"transformer.resblocks.{index}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        for name, rows, columns in (
            ("attn.out_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            shapes |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (rows,)}
        shapes |= {f"{block}.ln_{k}.{part}": (width,) for k in (1, 2) for part in ("weight", "bias")}
    return {f"visual.{name}": value for name, value in _random(shapes).items()}
