"""The U-Net of pix2pix: an encoder and a decoder with a skip connection at every size.

Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, appendix 6.1.1.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks.choices import NormKind
from vidgen.networks.layers import NoiseDropout, normalization

_MAX_FACTOR = 8
"""Widths double with each down-sampling up to this many times the first."""


class _Level(nn.Module):
    """A 4x4 convolution of stride 2, down or up, with its norm and its dropout."""

    def __init__(self, conv: nn.Module, norm: nn.Module | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm if norm is not None else nn.Identity()
        self.dropout = NoiseDropout(dropout) if dropout else None

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        x = self.norm(self.conv(x))
        return x if self.dropout is None else self.dropout(x, seed)


class UNet(nn.Module):
    """[N,in_channels,H,W] -> [N,out_channels,H,W] in -1..1; H and W are multiples of 2^num_downsamplings.

    Args:
        base_channels: width of the first level; the following double it up to eight times.
        num_downsamplings: 8 for 256x256, 7 for 128x128, as published.
        dropout: in the decoder levels of eight times the width, but the innermost.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        base_channels: int = 64,
        num_downsamplings: int = 8,
        *,
        norm: NormKind = "batch",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        bias = norm == "instance"
        last = num_downsamplings - 1
        widths = [base_channels * min(2**level, _MAX_FACTOR) for level in range(num_downsamplings)]
        downs, ups = [], []
        for level, width in enumerate(widths):
            before = widths[level - 1] if level else in_channels
            normed = normalization(norm, width) if 0 < level < last else None
            downs.append(_Level(nn.Conv2d(before, width, 4, 2, 1, bias=bias), normed))
            joined = width if level == last else 2 * width
            if level == 0:
                ups.append(_Level(nn.ConvTranspose2d(joined, out_channels, 4, 2, 1)))
                continue
            drops = dropout if 4 <= level < last else 0.0
            ups.append(_Level(nn.ConvTranspose2d(joined, before, 4, 2, 1, bias=bias), normalization(norm, before), drops))
        self.downs = nn.ModuleList(downs)
        self.ups = nn.ModuleList(ups)

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        """`seed` is that of the dropout in use; without it nothing is dropped there."""
        encoded: list[Tensor] = []
        for down in self.downs:
            x = down(F.leaky_relu(x, 0.2) if encoded else x)
            encoded.append(x)
        for level in reversed(range(len(encoded))):
            skip = encoded.pop()
            x = self.ups[level](F.relu(skip if level == len(self.ups) - 1 else torch.cat([skip, x], dim=1)), seed)
        return torch.tanh(x.float())


def rename_original(keys: Iterable[str]) -> dict[str, str]:
    """Keys of the authors' nested U-Net (`model.model.1.model.3.model.1.weight`) -> keys of the class here."""
    keys = list(keys)
    depths = {key: _place(key)[0] for key in keys}
    innermost = max(depths.values())
    renamed = {}
    for key in keys:
        level, number, parameter = _place(key)
        entries = {1: "downs conv", 2: "downs norm", 5: "ups conv", 6: "ups norm"}
        if level == 0:
            entries = {0: "downs conv", 3: "ups conv"}
        elif level == innermost:
            entries = {1: "downs conv", 3: "ups conv", 4: "ups norm"}
        side, part = entries[number].split()
        renamed[key] = f"{side}.{level}.{part}.{parameter}"
    return renamed


def _place(key: str) -> tuple[int, int, str]:
    """(level, number in the level's sequence, parameter) of one of the original's keys."""
    *nesting, number, parameter = key.split(".")
    return nesting.count("model") - 2, int(number), parameter
