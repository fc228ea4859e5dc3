"""The compact generator as a painter: a style modulates every level of it, and the drawing is read by an encoder.

Source: a style that scales and shifts normalized layers: Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive
Instance Normalization", ICCV 2017. The network of style2paints V1 is `style_unet`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidgen.networks.compact import CompactGenerator, default_blocks, default_widths, draw_noise_shift

_STYLE_CHANNELS = 16
_EMBEDDING_CHANNELS = 24
"""More than the style alone, since the drawing is embedded with it."""


class CompactPainter(nn.Module):
    """A drawing and a style hint -> a picture.

    The style is part of the condition at every place, and so of what modulates each level: it has no middle to get through, and
    needs no guide decoders.

    Args:
        in_channels: of the drawing.
        hint_channels: numbers of the hint.
        width, num_levels: see `default_widths`.
    """

    def __init__(self, in_channels: int, hint_channels: int, *, width: float = 1.0, num_levels: int = 4) -> None:
        super().__init__()
        self.style = nn.Linear(hint_channels, _STYLE_CHANNELS)
        self.generator = CompactGenerator(
            0,
            in_channels + _STYLE_CHANNELS,
            widths=default_widths(num_levels, width),
            num_blocks=default_blocks(num_levels),
            embedding_channels=_EMBEDDING_CHANNELS,
            num_drawing_channels=in_channels,
        )

    def forward(self, drawing: Tensor, hint: Tensor, *, noise_shift: tuple[int, int] = (0, 0)) -> Tensor:
        """[N,in_channels,H,W] in -1..1, and hints [N,hint_channels] -> [N,3,H,W] in -1..1."""
        style = self.style(hint.to(self.style.weight.dtype)).to(drawing.dtype)
        condition = torch.cat([drawing, style[:, :, None, None].expand(-1, -1, *drawing.shape[-2:])], dim=1)
        frame: Tensor = self.generator(condition, noise_shift=noise_shift).frame
        return frame

    def draw(self, drawing: Tensor, hint: Tensor) -> Tensor:
        """`forward` for training, with the noise elsewhere in every update."""
        return self(drawing, hint, noise_shift=draw_noise_shift())
