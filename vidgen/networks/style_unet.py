"""The generator of style2paints V1: a U-Net that a style enters in the middle, and its guide decoders.

Source: Zhang, Ji, Lin and Liu, "Style Transfer for Anime Sketches with Enhanced Residual U-net and Auxiliary Classifier GAN", ACPR
2017. "Residual" there means the further outputs of the guide decoders, not residual blocks. Widths are those of the paper's figure;
it states neither norms nor activations. Here all have leaky ReLUs, since plain ones die in decoders without norms. The encoder
alone may have one: what a hint adds to the middle is a constant per channel, which instance norm would subtract again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks.choices import NormKind, SkipKind, Upsampling
from vidgen.networks.layers import normalization

_SLOPE = 0.2
_LAST_WIDTH = 4
"""The full-size level of the decoder is this many times as wide as that of the encoder: room for the balance of L1 and GAN."""


@dataclass(frozen=True)
class Painting:
    """What the U-Net gives, with the two maps that guide decoders read.

    Attributes:
        frame: [N,3,H,W] in -1..1.
        entry: [N,16 base,h,w], the last map of the encoder, before the style is added.
        exit: [N,32 base,h,w], the first map of the decoder, after the style and before the first skip.
    """

    frame: Tensor
    entry: Tensor
    exit: Tensor


class Conv(nn.Module):
    """A 3x3 convolution (4x4 where it halves), its norm and its leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, halves: bool, norm: NormKind) -> None:
        super().__init__()
        kernel, stride = (4, 2) if halves else (3, 1)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, 1)
        self.norm = normalization(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), _SLOPE)


class _Doubling(nn.Module):
    """Twice the height and width, and a leaky ReLU; see `Upsampling`."""

    def __init__(self, in_channels: int, out_channels: int, upsampling: Upsampling) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.conv = (
            nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1)
            if upsampling == "transposed"
            else nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.upsampling == "resize":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.leaky_relu(self.conv(x), _SLOPE)


class StyleUNet(nn.Module):
    """A drawing and a style hint -> a picture.

    With the paper's base of 16 and 5 levels, for 256x256: encoder levels of 16, 32, 64, 128 and 256 channels, two convolutions
    each; a middle of 2048 channels at 8x8, to which the hint, brought to its width by a linear layer, is added at every place;
    and a decoder of 512, 128, 64, 32 and 64 channels.

    Args:
        in_channels: of the drawing.
        hint_channels: numbers of the hint; 0 for a U-Net without one.
        mid_channels: width of the middle.
        num_levels: sizes of the encoder, the full one included; sides are multiples of 2^num_levels.
        skips: "paper" joins the first convolution of each level below the full size, but the whole level at the smallest, as in the
            figure; "symmetric" the whole level, the full size included.
        norm: of the encoder.
    """

    def __init__(
        self,
        in_channels: int,
        hint_channels: int,
        *,
        base_channels: int = 16,
        mid_channels: int = 2048,
        num_levels: int = 5,
        skips: SkipKind = "paper",
        norm: NormKind = "none",
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        self.skips = skips
        widths = [base_channels * 2**level for level in range(num_levels)]
        self.encoder = nn.ModuleList()
        before = in_channels
        for level, width in enumerate(widths):
            # The first convolution of a pair halves and keeps the width of the level before.
            first = Conv(before, before if level else width, halves=level > 0, norm=norm)
            self.encoder.append(nn.ModuleList([first, Conv(before if level else width, width, halves=False, norm=norm)]))
            before = width
        self.middle = nn.Conv2d(widths[-1], mid_channels, 4, 2, 1)
        self.hint = nn.Linear(hint_channels, mid_channels) if hint_channels else None
        self.exit_channels = 2 * widths[-1]
        ups = [_Doubling(mid_channels, self.exit_channels, upsampling)]
        joined = self.exit_channels + widths[-1]
        for level in range(num_levels - 2, -1, -1):
            width = widths[level] if level else _LAST_WIDTH * base_channels
            ups.append(_Doubling(joined, width, upsampling))
            joined = width + self._skip_width(widths, level)
        self.decoder = nn.ModuleList(ups)
        self.head = nn.Conv2d(joined, 3, 3, 1, 1)
        self.entry_channels = widths[-1]
        initialize_he(self)

    def _skip_width(self, widths: list[int], level: int) -> int:
        if self.skips == "symmetric":
            return widths[level]
        return widths[level - 1] if level else 0

    def forward(self, drawing: Tensor, hint: Tensor | None) -> Tensor:
        """[N,in_channels,H,W] in -1..1, and hints [N,hint_channels] -> [N,3,H,W] in -1..1."""
        return self.paint(drawing, hint).frame

    def paint(self, drawing: Tensor, hint: Tensor | None) -> Painting:
        """The same with the maps of the guide decoders."""
        entry, skips = self.encode(drawing)
        return self.decode(entry, skips, hint)

    def encode(self, drawing: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The last map of the encoder, and what its levels hand on, full size first."""
        x, skips = drawing, list[Tensor | None]()
        last = len(self.encoder) - 1
        for level, pair in enumerate(self.encoder):
            assert isinstance(pair, nn.ModuleList)
            halved = pair[0](x)
            x = pair[1](halved)
            if self.skips == "symmetric" or level == last:
                skips.append(x)
            else:
                skips.append(halved if level else None)
        return x, skips

    def decode(self, entry: Tensor, skips: list[Tensor | None], hint: Tensor | None) -> Painting:
        """The picture from what `encode` gave."""
        x = self.middle(entry)
        if self.hint is not None:
            if hint is None:
                raise ValueError("this generator reads a style hint, but got none")
            x = x + self.hint(hint.to(x.dtype))[:, :, None, None]
        x = F.leaky_relu(x, _SLOPE)
        leaving: Tensor | None = None
        for up, skip in zip(self.decoder, reversed(skips), strict=True):
            x = up(x)
            leaving = x if leaving is None else leaving
            x = x if skip is None else torch.cat([x, skip], dim=1)
        assert leaving is not None
        return Painting(torch.tanh(self.head(x).float()), entry, leaving)


class GuideDecoder(nn.Module):
    """A picture of full size from a map in the middle alone, without skips, so that its loss reaches the middle.

    512, 256, 128, 64 and 32 channels in the paper.

    Args:
        in_channels: of the map.
        width: of the first level; each further one, at twice the size, is half as wide.
        num_levels: sizes, the first that of the map.
        out_channels: 1 for gray, 3 for color.
    """

    def __init__(self, in_channels: int, width: int, num_levels: int, out_channels: int, *, upsampling: Upsampling) -> None:
        super().__init__()
        widths = [max(1, width // 2**level) for level in range(num_levels)]
        self.first = nn.Conv2d(in_channels, widths[0], 3, 1, 1)
        self.ups = nn.ModuleList([_Doubling(widths[level - 1], widths[level], upsampling) for level in range(1, num_levels)])
        self.head = nn.Conv2d(widths[-1], out_channels, 3, 1, 1)
        initialize_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N,in_channels,h,w] -> [N,out_channels,H,W] in -1..1."""
        x = F.leaky_relu(self.first(x), _SLOPE)
        for up in self.ups:
            x = up(x)
        return torch.tanh(self.head(x).float())


def initialize_he(module: nn.Module) -> None:
    """He et al., ICCV 2015: what passes keeps its scale without norms; the last convolution begins near gray."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if isinstance(part, nn.ConvTranspose2d):
                # A 4x4 kernel of stride 2 adds 4 of its 16 places to each pixel.
                nn.init.normal_(part.weight, 0.0, (2 / (4 * part.in_channels)) ** 0.5)
            else:
                nn.init.kaiming_normal_(part.weight, a=_SLOPE)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
