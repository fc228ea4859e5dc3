"""Generators that blend a generated frame with the warped previous one.

Source: Wang et al., "Video-to-Video Synthesis", NeurIPS 2018, section 3 and its supplement; layer facts from the authors' release.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flow.warp import warp
from vidgen.networks.anchor import Anchor
from vidgen.networks.choices import NormKind, Upsampling
from vidgen.networks.layers import ResidualBlock, UpBlock, down, head, stem

FLOW_SCALE = 20.0
"""Pixels per unit of the flow head, at the coarsest scale."""


@dataclass(frozen=True)
class Composition:
    """One generated frame per sample, and the features the next finer scale builds on.

    frame, raw: [N,3,H,W] in -1..1; flow [N,2,H,W] pixels; mask [N,1,H,W], 1 = generated, 0 = warped;
    features: [N,base_channels,H,W] each; anchor: what the next frame of the compact generator fetches from.
    """

    frame: Tensor
    raw: Tensor
    flow: Tensor | None
    mask: Tensor | None
    image_features: Tensor
    flow_features: Tensor | None
    foreground_features: Tensor | None
    anchor: Anchor | None = None


class _Blending(nn.Module):
    """What the coarse and the local generator share: the way from condition and past to the blended frame.

    Their parts differ: the local one has no residual blocks of its own before its decoders, which hold them.
    """

    condition_down: nn.Module
    past_down: nn.Module | None
    image_blocks: nn.Module
    image_up: nn.Module
    flow_blocks: nn.Module
    flow_up: nn.Module
    foreground_down: nn.Module
    foreground_blocks: nn.Module
    foreground_up: nn.Module
    use_flow: bool
    use_foreground: bool
    image_head: nn.Module
    flow_head: nn.Module
    mask_head: nn.Module
    foreground_head: nn.Module
    flow_scale: float

    def forward(
        self,
        condition: Tensor,
        past: Tensor | None,
        *,
        raw_only: Tensor | None = None,
        foreground_mask: Tensor | None = None,
        coarse: Composition | None = None,
    ) -> Composition:
        """One frame per sample.

        Args:
            condition: [N,condition_channels,H,W], the window flattened frame by frame, oldest first.
            past: [N,past_channels,H,W] in -1..1, oldest first; the last three channels are the previous frame.
            raw_only: bool [N,1,1,1]; True ignores the warped past.
            foreground_mask: [N,1,H,W], 0..1.
            coarse: the result of the next coarser scale at half the size; None at the coarsest.
        """
        encoded = self.condition_down(condition)
        if self.past_down is not None:
            encoded = encoded + self.past_down(past)
        image_features = self.image_up(self.image_blocks(_plus(encoded, coarse.image_features if coarse else None)))
        flow_features = foreground_features = None
        if self.use_flow:
            flow_features = self.flow_up(self.flow_blocks(_plus(encoded, coarse.flow_features if coarse else None)))
        if self.use_foreground:
            foreground = _plus(self.foreground_down(condition), coarse.foreground_features if coarse else None)
            foreground_features = self.foreground_up(self.foreground_blocks(foreground))
        return self._compose(image_features, flow_features, foreground_features, past, raw_only, foreground_mask)

    def _compose(
        self,
        image_features: Tensor,
        flow_features: Tensor | None,
        foreground_features: Tensor | None,
        past: Tensor | None,
        raw_only: Tensor | None,
        foreground_mask: Tensor | None,
    ) -> Composition:
        raw = torch.tanh(self.image_head(image_features).float())
        frame, flow, mask = raw, None, None
        if flow_features is not None:
            assert past is not None
            flow = self.flow_head(flow_features).float() * self.flow_scale
            mask = torch.sigmoid(self.mask_head(flow_features).float())
            if raw_only is not None:
                mask = torch.where(raw_only, torch.ones_like(mask), mask)
            frame = raw * mask + warp(past[:, -3:].float(), flow) * (1 - mask)
        if foreground_features is not None:
            assert foreground_mask is not None
            foreground = torch.tanh(self.foreground_head(foreground_features).float())
            frame = foreground * foreground_mask + frame * (1 - foreground_mask)
            raw = foreground * foreground_mask + raw * (1 - foreground_mask)
        return Composition(frame, raw, flow, mask, image_features, flow_features, foreground_features)


class CompositeGenerator(_Blending):
    """The generator of the coarsest scale.

    Args:
        condition_channels: channels of the whole condition window.
        past_channels: channels of the past frames; 0 for a generator that sees no past (then there is no flow either).
        base_channels: width after the stem; it doubles with each down-sampling.
        num_blocks: residual blocks from encoder to head; the first half (rounded up) before images and flow part ways.
        use_flow: with the flow and mask branch, or the generated frame alone.
        use_foreground: with a separate branch for the foreground classes.
    """

    def __init__(
        self,
        condition_channels: int,
        past_channels: int,
        base_channels: int = 128,
        num_downsamplings: int = 3,
        num_blocks: int = 9,
        *,
        norm: NormKind = "batch",
        upsampling: Upsampling = "transposed",
        use_flow: bool = True,
        use_foreground: bool = False,
    ) -> None:
        super().__init__()
        self.flow_scale = FLOW_SCALE
        widths = [base_channels * 2**level for level in range(num_downsamplings + 1)]

        def encoder(in_channels: int, widths: list[int], num_residual: int) -> nn.Sequential:
            downs = [down(a, b, norm) for a, b in itertools.pairwise(widths)]
            return nn.Sequential(stem(in_channels, widths[0], norm), *downs, *blocks(widths[-1], num_residual))

        def blocks(channels: int, count: int) -> list[nn.Module]:
            return [ResidualBlock(channels, norm=norm) for _ in range(count)]

        def decoder(widths: list[int]) -> nn.Sequential:
            pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
            return nn.Sequential(*(UpBlock(a, b, norm=norm, upsampling=upsampling) for a, b in pairs))

        late = num_blocks // 2
        self.condition_down = encoder(condition_channels, widths, num_blocks - late)
        self.past_down = encoder(past_channels, widths, num_blocks - late) if past_channels else None
        self.image_blocks = nn.Sequential(*blocks(widths[-1], late))
        self.image_up = decoder(widths)
        self.image_head = head(base_channels, 3)
        self.use_flow = use_flow
        if use_flow:
            self.flow_blocks = nn.Sequential(*blocks(widths[-1], late))
            self.flow_up = decoder(widths)
            self.flow_head = head(base_channels, 2)
            self.mask_head = head(base_channels, 1)
        self.use_foreground = use_foreground
        if use_foreground:
            narrow = base_channels // 2 if num_downsamplings > 2 else base_channels
            foreground_widths = [narrow * 2**level for level in range(num_downsamplings + 1)]
            self.foreground_down = encoder(condition_channels, foreground_widths, 0)
            self.foreground_blocks = nn.Sequential(*blocks(foreground_widths[-1], num_blocks))
            self.foreground_up = decoder(foreground_widths)
            self.foreground_head = head(narrow, 3)


class LocalCompositeGenerator(_Blending):
    """A finer scale: adds its own detail to the features of the next coarser scale and predicts its flow anew.

    Args:
        base_channels: this scale's width, half of the coarser scale's.
        scale: 1 for the first finer scale; the flow head speaks in pixels 2^scale times larger.
        narrow_foreground: the foreground branch is half as wide (true for more than two down-samplings at scale 0).
    """

    def __init__(
        self,
        condition_channels: int,
        past_channels: int,
        base_channels: int = 64,
        num_blocks: int = 3,
        *,
        scale: int = 1,
        norm: NormKind = "batch",
        upsampling: Upsampling = "transposed",
        use_flow: bool = True,
        use_foreground: bool = False,
        narrow_foreground: bool = True,
    ) -> None:
        super().__init__()
        self.flow_scale = FLOW_SCALE * 2**scale

        def encoder(in_channels: int, width: int) -> nn.Sequential:
            return nn.Sequential(stem(in_channels, width, norm), down(width, 2 * width, norm))

        def decoder(width: int) -> nn.Sequential:
            blocks = [ResidualBlock(2 * width, norm=norm) for _ in range(num_blocks)]
            return nn.Sequential(*blocks, UpBlock(2 * width, width, norm=norm, upsampling=upsampling))

        self.condition_down = encoder(condition_channels, base_channels)
        self.past_down = encoder(past_channels, base_channels) if past_channels else None
        self.image_blocks = self.flow_blocks = self.foreground_blocks = nn.Identity()
        self.image_up = decoder(base_channels)
        self.image_head = head(base_channels, 3)
        self.use_flow = use_flow
        if use_flow:
            self.flow_up = decoder(base_channels)
            self.flow_head = head(base_channels, 2)
            self.mask_head = head(base_channels, 1)
        self.use_foreground = use_foreground
        if use_foreground:
            narrow = base_channels // 2 if narrow_foreground else base_channels
            self.foreground_down = encoder(condition_channels, narrow)
            self.foreground_up = decoder(narrow)
            self.foreground_head = head(narrow, 3)


def _plus(features: Tensor, coarse: Tensor | None) -> Tensor:
    return features if coarse is None else features + coarse


_BRANCHES = {
    "model_down_seg": "condition_down",
    "model_down_img": "past_down",
    "model_res_img": "image_blocks",
    "model_res_flow": "flow_blocks",
    "model_up_img": "image_up",
    "model_up_flow": "flow_up",
    "model_final_img": "image_head",
    "model_final_flow": "flow_head",
    "model_final_w": "mask_head",
    "indv_down": "foreground_down",
    "indv_res": "foreground_blocks",
    "indv_up": "foreground_up",
    "indv_final": "foreground_head",
}


def rename_original(keys: Iterable[str]) -> dict[str, str]:
    """Keys of the authors' CompositeGenerator or CompositeLocalGenerator -> keys of the classes here.

    The originals number layers (padding, convolution, norm, activation) inside sequences; here a block is one entry.

    Raises:
        KeyError: a key that no such network has.
    """
    keys = list(keys)
    renamed = {}
    for key in keys:
        branch, rest = key.split(".", 1)
        ours = _BRANCHES[branch]
        if ours.endswith("_head"):
            renamed[key] = f"{ours}.{rest.removeprefix('1.')}"
            continue
        residuals = sorted({int(k.split(".")[1]) for k in keys if k.startswith(f"{branch}.") and ".conv_block." in k})
        index, rest = rest.split(".", 1)
        number = int(index)
        if rest.startswith("conv_block."):
            first_place = (residuals[0] - 1) // 3 if ours.endswith("_down") else 0
            _, layer, parameter = rest.split(".")
            half, part = {"1": ("first", "conv"), "2": ("first", "norm"), "5": ("second", "conv"), "6": ("second", "norm")}[layer]
            renamed[key] = f"{ours}.{first_place + residuals.index(number)}.{half}.{part}.{parameter}"
        elif ours.endswith("_down"):
            renamed[key] = f"{ours}.{(number - 1) // 3}.{'conv' if number % 3 == 1 else 'norm'}.{rest}"
        else:
            place = number - len(residuals)
            renamed[key] = f"{ours}.{len(residuals) + place // 3}.{'conv' if place % 3 == 0 else 'norm'}.{rest}"
    return renamed
