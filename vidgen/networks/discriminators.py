"""Patch discriminators: each output value judges one patch of the input as real or made."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from vidgen.networks.choices import NormKind
from vidgen.networks.layers import halve, normalization


class PatchDiscriminator(nn.Module):
    """A stack of 4x4 convolutions whose every stage is returned, the last being the logits.

    Source: Isola et al., CVPR 2017 (70x70 patches for 3 layers); pix2pixHD and vid2vid pad by 2, pix2pix by 1.

    Args:
        num_layers: strided convolutions; one of stride 1 and the logits follow.
        max_channels: widths double from `base_channels` up to this; pix2pix ends at eight times `base_channels` instead.
        bias_before_norm: whether convolutions before a norm have biases; pix2pix leaves them out before batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int = 64,
        num_layers: int = 3,
        *,
        norm: NormKind = "instance",
        padding: int = 2,
        max_channels: int = 512,
        use_spectral_norm: bool = False,
        bias_before_norm: bool = True,
    ) -> None:
        super().__init__()
        widths = [min(base_channels * 2**layer, max_channels) for layer in range(num_layers + 1)]
        stages = []
        for index, width in enumerate(widths):
            bias = index == 0 or bias_before_norm
            conv = nn.Conv2d(in_channels, width, 4, stride=2 if index < num_layers else 1, padding=padding, bias=bias)
            parts: list[nn.Module] = [spectral_norm(conv) if use_spectral_norm else conv]
            if index > 0:
                parts.append(normalization(norm, width))
            stages.append(nn.Sequential(*parts, nn.LeakyReLU(0.2)))
            in_channels = width
        logits = nn.Conv2d(in_channels, 1, 4, padding=padding)
        stages.append(nn.Sequential(spectral_norm(logits) if use_spectral_norm else logits))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        results = []
        for stage in self.stages:
            x = stage(x)
            results.append(x)
        return results


class PixelDiscriminator(nn.Module):
    """Judges every pixel on its own, by 1x1 convolutions; stages as those of `PatchDiscriminator`.

    Source: Isola et al., CVPR 2017, section 3.2.2.
    """

    def __init__(self, in_channels: int, base_channels: int = 64, *, norm: NormKind = "batch") -> None:
        super().__init__()
        wide = 2 * base_channels
        bias = norm == "instance"
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(in_channels, base_channels, 1), nn.LeakyReLU(0.2)),
                nn.Sequential(nn.Conv2d(base_channels, wide, 1, bias=bias), normalization(norm, wide), nn.LeakyReLU(0.2)),
                nn.Sequential(nn.Conv2d(wide, 1, 1, bias=bias)),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        results = []
        for stage in self.stages:
            x = stage(x)
            results.append(x)
        return results


class MultiscaleDiscriminator(nn.Module):
    """Equal patch discriminators on an image pyramid.

    Source: Wang et al., CVPR 2018 (pix2pixHD), section 3.2. Scales are numbered from the coarsest, so that a grown
    discriminator with one scale more keeps the others' weights.

    Args:
        widen_coarse: coarser scales are wider, base_channels * 2^(distance to the finest), at most 64 (vid2vid).
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int = 64,
        num_layers: int = 3,
        num_scales: int = 2,
        *,
        norm: NormKind = "instance",
        widen_coarse: bool = False,
        use_spectral_norm: bool = False,
    ) -> None:
        super().__init__()

        def width(scale: int) -> int:
            return min(64, base_channels * 2 ** (num_scales - 1 - scale)) if widen_coarse else base_channels

        self.scales = nn.ModuleList(
            PatchDiscriminator(in_channels, width(scale), num_layers, norm=norm, use_spectral_norm=use_spectral_norm)
            for scale in range(num_scales)
        )

    def forward(self, x: Tensor, num_scales: int | None = None) -> list[list[Tensor]]:
        """Stages per scale, finest first; `num_scales` limits them to the coarse ones grown so far."""
        active = list(self.scales)[: num_scales or len(self.scales)]
        results = []
        for index, scale in enumerate(reversed(active)):
            if index > 0:
                x = halve(x)
            results.append(scale(x))
        return results


def rename_original(keys: Iterable[str]) -> dict[str, str]:
    """Keys of the authors' MultiscaleDiscriminator (`scale0_layer1.0.weight`) -> keys of the class here.

    Without feature matching they keep each scale in one sequence (`layer0.2.weight`).
    """
    renamed = {}
    for key in keys:
        if key.startswith("layer"):
            scale, number, rest = key.removeprefix("layer").split(".", 2)
            renamed[key] = f"scales.{scale}.stages.{_stage_entry(int(number))}.{rest}"
            continue
        scale_layer, rest = key.split(".", 1)
        scale, layer = scale_layer.removeprefix("scale").split("_layer")
        renamed[key] = f"scales.{scale}.stages.{layer}.{rest}"
    return renamed


def rename_pix2pix(keys: Iterable[str]) -> dict[str, str]:
    """Keys of pix2pix's judges of patches (`model.2.weight`) or pixels (`net.2.weight`) -> keys of the classes here."""
    return {key: f"stages.{_stage_entry(int(key.split('.')[1]))}.{key.split('.')[2]}" for key in keys}


def _stage_entry(number: int) -> str:
    """Entry of a stage by its number in one sequence: convolution and activation, then threes with a norm between."""
    return f"{(number + 1) // 3}.{(number + 1) % 3}" if number else "0.0"
