"""A compact generator: wide layers at a quarter of the size and below, modulated by the labels at every scale.

The published generators spend most of their arithmetic on narrow layers at full size, which processors do slowly, and their
normalization washes flat labels out. Here the condition modulates every normalized layer, pixels of the past come in by
space-to-depth, and full size sees two convolutions. There are no batch statistics and no state: use and training are one function.

Source: modulation: Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization", CVPR 2019; blending with the
    warped
past: Wang et al., "Video-to-Video Synthesis", NeurIPS 2018, section 3; bounded by the agreement of labels here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flow.warp import in_frame, warp
from vidgen.networks.alignment import correction
from vidgen.networks.anchor import Anchor, warp_bicubic, warp_nearest
from vidgen.networks.composite import FLOW_SCALE, Composition
from vidgen.networks.encoding import tile_averages
from vidgen.networks.layers import InstanceNorm, beside

ADAM_BETAS = (0.5, 0.99)
"""With which it learns; networks of the papers take 0.999."""

_INITIAL_DEVIATION = 0.02
_SLOPE = 0.2
_NOISE_CHANNELS = 2
NOISE_SIDE = 64
"""Side of the noise tile, in places of each level; it repeats."""
MAX_SHARPENING = 0.5
"""How much detail finer than a 3x3 average may be amplified in the warped past; with what is generated anew it stays a
contraction.
"""

MAX_REPAIR = 0.2
"""Largest detail that is added to the warped past, in units of the -1..1 range."""


@dataclass(frozen=True)
class LabelWindow:
    """A condition window with label ids to look up.

    Attributes:
        labels: int64 [N,T,H,W], oldest first; -1 has no class.
        extras: [N,T*E,H,W], the other channels frame by frame, or None.
    """

    labels: Tensor
    extras: Tensor | None = None


def default_widths(num_levels: int, width: float = 1.0) -> tuple[int, ...]:
    """Channels at full size, 1/2, ..., 1/2^num_levels: 32, 64, 128, 192, 256 for four levels; finer levels have 24 and 32.

    Args:
        width: factor on all of them; they stay multiples of 8.
    """
    coarse = (64, 128, 192, 256)
    fine = (24, *[32] * (num_levels - 4)) if num_levels > 4 else (32,)
    return tuple(max(8, round(channels * width / 8) * 8) for channels in (*fine, *coarse[-num_levels:]))


def default_blocks(num_levels: int) -> tuple[int, ...]:
    """Residual blocks at full size, 1/2, ..., 1/2^num_levels."""
    coarse = (1, 2, 2, 1)
    return (0,) * (num_levels - 3) + coarse if num_levels > 4 else (0, *coarse[-num_levels:])


def per_class_parameters(module: nn.Module) -> frozenset[str]:
    """Names of the parameters in `module` whose second axis begins with one entry per class."""
    parts = module.named_modules()
    return frozenset(f"{name}.embedding.weight" for name, part in parts if isinstance(part, CompactGenerator) and part.num_labels)


def draw_noise_shift() -> tuple[int, int]:
    """A shift of the noise for one training frame, from torch's random numbers."""
    down, right = torch.randint(NOISE_SIDE, (2,)).tolist()
    return int(down), int(right)


class CompactGenerator(nn.Module):
    """One frame from a window of conditions and, where it has a past, from the previous frame moved along a predicted flow.

    With `use_flow` the frame is `mask * raw + (1 - mask) * (warped past + repair)`, the repair being fine detail that
    resampling lost; the past comes from an `Anchor` where it can. The flow is corrected by how the conditions moved (`alignment`),
    which holds for motions that training never saw. The mask is bounded by what the condition says: where the
    previous condition, moved along the flow, agrees with the present one, at most `max_generated` of a pixel is generated anew,
    so that texture travels with the surface it belongs to; where it does not, or the flow leaves the frame, all of it is. Without
    the bound learning prefers to paint every frame anew, with texture that sticks to the screen. With a `past_tolerance` the bound
    is also lifted where what is drawn and what is fetched differ in color over some twelve pixels: faults of the past, which would
    be carried on for as long as labels agree, are mended then, while texture, of the same mean color, stays. And with a
    `past_enlargement` what comes nearer is drawn anew when its texture is shown so much larger than it was drawn: a leaf that was
    a pixel is a smear by the time it fills ten.

    A wide surface of one label gives a convolutional network nothing to vary texture by but the lattice of its own up-sampling,
    and it prints that. So the finer levels also see noise, the same in every frame.

    Args:
        num_labels: classes of the label maps; 0 where there are none.
        num_extras: further channels per condition frame: pictures, edges, styles.
        num_condition_frames: condition frames per window, the present one last.
        num_past_frames: past frames seen; 0 for an image model.
        widths, num_blocks: per level, full size first; `default_widths` and `default_blocks` give good ones.
        use_flow: predict flow and mask. Without it the past is only a hint.
        use_foreground: foreground classes get a tail of their own, from a quarter of the size to the pixels.
        max_generated: largest share of a pixel that is generated anew where past and present agree; 1 leaves the mask free.
        anchor_frames: frames that fetch their known surfaces from one `Anchor`; 1 fetches every frame from the one before it.
        past_tolerance: difference (of -1..1) at which trust in the past has fallen to 1/e; None for the labels' word alone.
        past_enlargement: factor above 1 of enlargement at which trust in the past has fallen to 1/e; None enlarges without end.
        num_drawing_channels: so many of the first extras are a drawing, which an encoder reads in the place of a past. Labels say
            at every pixel what is there; a line says it of the surfaces beside it, which have to be found from afar.
    """

    noise: Tensor

    def __init__(
        self,
        num_labels: int,
        num_extras: int = 0,
        *,
        num_condition_frames: int = 1,
        num_past_frames: int = 0,
        widths: Sequence[int] = (32, 64, 128, 192, 256),
        num_blocks: Sequence[int] = (0, 1, 2, 2, 1),
        embedding_channels: int = 16,
        modulation_channels: int = 64,
        use_flow: bool = True,
        use_foreground: bool = False,
        max_generated: float = 0.25,
        anchor_frames: int = 1,
        past_tolerance: float | None = None,
        past_enlargement: float | None = None,
        num_drawing_channels: int = 0,
    ) -> None:
        super().__init__()
        if num_drawing_channels and (num_past_frames or num_drawing_channels > num_extras):
            raise ValueError("a drawing is read in the place of a past, and from extras: there must be so many extras, and no past")
        if len(widths) != len(num_blocks) or len(widths) < 3:
            raise ValueError(
                f"widths and num_blocks need one entry per level and at least 3, got {len(widths)} and {len(num_blocks)}"
            )
        self.num_labels, self.num_extras = num_labels, num_extras
        self.num_condition_frames, self.num_past_frames = num_condition_frames, num_past_frames
        self.num_levels = len(widths) - 1
        self.max_generated = max_generated
        self.anchor_frames = anchor_frames
        self.past_tolerance = past_tolerance
        self.past_enlargement = past_enlargement
        self.use_flow = use_flow and num_past_frames > 0
        self.use_foreground = use_foreground
        coarsest, self.branch_level = self.num_levels, max(1, self.num_levels - 2)
        self.embedding = nn.Conv2d(num_labels + num_extras, embedding_channels, 1)
        self.condition_layers = nn.ModuleList(
            nn.Conv2d(
                embedding_channels + (2 if self._has_positions(level) else _NOISE_CHANNELS), modulation_channels, 3, padding=1
            )
            for level in range(1, self.num_levels + 1)
        )
        self.num_drawing_channels = num_drawing_channels
        seen = 3 if num_past_frames else num_drawing_channels
        self.hint = _Hint(seen, self.branch_level, self.num_levels, widths[1]) if seen else None
        self.start = nn.Conv2d(
            modulation_channels + (0 if self.hint is None else self.hint.channels[-1]), widths[coarsest], 3, padding=1
        )
        self.trunk = _Decoder(widths, num_blocks, coarsest, self.branch_level, modulation_channels)
        if self.hint is not None:
            self.hint_to_trunk = nn.Conv2d(self.hint.channels[0], widths[self.branch_level], 1)
        pixel_channels = embedding_channels + _NOISE_CHANNELS + (4 if num_past_frames else 0)
        self.tail = _Tail(widths, num_blocks, self.branch_level, modulation_channels, pixel_channels)
        if use_foreground:
            narrow = [widths[level] if level >= self.branch_level else widths[level] // 2 for level in range(len(widths))]
            self.foreground_tail = _Tail(narrow, num_blocks, self.branch_level, modulation_channels, pixel_channels)
        if self.use_flow:
            self.flow_branch = _FlowBranch(embedding_channels * num_condition_frames, 3 * num_past_frames, self.branch_level)
        _initialize(self)
        tiles = torch.randn(len(widths), _NOISE_CHANNELS, NOISE_SIDE, NOISE_SIDE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", tiles, persistent=False)

    @property
    def has_anchor(self) -> bool:
        """Whether it carries an `Anchor` from frame to frame."""
        return self.use_flow and (self.anchor_frames > 1 or self.past_enlargement is not None)

    @property
    def size_multiple(self) -> int:
        """Heights and widths must be multiples of this."""
        return int(2**self.num_levels)

    def _has_positions(self, level: int) -> bool:
        """Whether a level sees coordinates (the two coarsest, for the layout) or noise; finer coordinates would nail texture to the
        screen.
        """
        return level >= self.num_levels - 1

    def forward(
        self,
        condition: Tensor | LabelWindow,
        past: Tensor | None = None,
        *,
        raw_only: Tensor | None = None,
        foreground_mask: Tensor | None = None,
        coarse: Composition | None = None,
        anchor: Anchor | None = None,
        noise_shift: tuple[int, int] = (0, 0),
    ) -> Composition:
        """One frame per sample.

        Args:
            condition: [N,T*(num_labels+num_extras),H,W], the window flattened frame by frame, oldest first, one-hot labels before
                the extras; or the same with label ids.
            past: [N,3*num_past_frames,H,W] in -1..1, oldest first; the last three channels are the previous frame.
            raw_only: bool [N,1,1,1]; True where there is no past to use. Flow is predicted from `past` all the same, so that it
                learns from real frames while frames are still drawn without a past.
            foreground_mask: [N,1,H,W], 0..1.
            coarse: not used; there is one generator for all scales.
            anchor: of the previous frame's composition; none where that was known from elsewhere.
            noise_shift: down and right, how far the fixed noise is moved. Training draws it anew for every frame, so that new
                surfaces take their irregularity from the noise and known ones from the past; in use it stays.
        """
        present = self._present(condition)
        flow = mask = warped = logit = trusted = crisp = None
        warped_hint: Tensor | None = None
        moved: Anchor | None = None
        if past is not None and self.num_past_frames:
            known = torch.ones_like(past[:, :1]) if raw_only is None else (~raw_only).to(past).expand(-1, 1, *past.shape[-2:])
            warped = past[:, -3:].float()
            if self.use_flow:
                window = self._pooled_window(condition)
                flow, logit, boost = self.flow_branch(window, past)
                if self.num_condition_frames > 1:
                    before, now = self._frames(window)[:, -2:].unbind(1)
                    flow = flow + correction(flow, before, now, self.flow_branch.stride)
                is_bounded = self.max_generated < 1
                trusted = self.agreement(condition, flow.detach()) if self.has_anchor or is_bounded else torch.zeros_like(logit)
                fetched = warp_bicubic(warped, flow)
                if self.has_anchor:
                    moved = (Anchor.none(warped) if anchor is None else anchor).moved(warped, flow, trusted, self.anchor_frames)
                    fetched = torch.lerp(fetched, warp_bicubic(moved.frame, moved.flow), moved.known)
                warped = _sharpened(fetched, MAX_SHARPENING * torch.sigmoid(boost))
                if raw_only is not None and moved is not None:
                    moved = moved._replace(age=moved.age * ~raw_only)
                if moved is not None and self.past_enlargement is not None:
                    crisp = torch.exp(-moved.enlargement / math.log(self.past_enlargement))
                    known = known * crisp
            warped_hint = torch.cat([warped * known, known], dim=1).to(memory_format=torch.channels_last)
        modulations = self._modulations(present, noise_shift)
        features = modulations[-1]
        hints: list[Tensor] = []
        if self.hint is not None:
            if self.num_drawing_channels:
                hints = self.hint(self._present_extras(condition)[:, : self.num_drawing_channels])
            elif warped_hint is not None:
                hints = self.hint(warped_hint[:, :3])
            else:
                raise ValueError("this generator needs past frames (zeros and raw_only where there are none)")
            features = beside(features, hints[-1])
        features = self.trunk(self.start(features), modulations)
        if hints:
            features = features + self.hint_to_trunk(hints[1])
        pixels = [present, self._noise(present, 0, noise_shift), *([] if warped_hint is None else [warped_hint])]
        fine_hint = hints[0] if hints else None
        raw, repair = self.tail(features, modulations, pixels, fine_hint)
        frame = raw
        if logit is not None:
            assert warped is not None
            assert trusted is not None
            if self.past_tolerance is not None:
                trusted = trusted * self.plausibility(warped, raw)
            if crisp is not None:
                trusted = trusted * crisp
            mask = self._mask(logit, trusted)
            if raw_only is not None:
                mask = torch.where(raw_only, torch.ones_like(mask), mask)
            if moved is not None:
                moved = moved._replace(enlargement=moved.enlargement * (1 - mask.detach()))
            frame = raw * mask + (warped + repair).clamp(-1, 1) * (1 - mask)
        if self.use_foreground:
            assert foreground_mask is not None
            foreground, _ = self.foreground_tail(features, modulations, pixels, None)
            frame = foreground * foreground_mask + frame * (1 - foreground_mask)
            raw = foreground * foreground_mask + raw * (1 - foreground_mask)
        return Composition(frame, raw, flow, mask, features, None, None, moved)

    def _present(self, condition: Tensor | LabelWindow) -> Tensor:
        """The embedded present condition, [N,E,H,W]: a learned vector per class plus a linear map of the extras."""
        if isinstance(condition, Tensor):
            return self.embedding(self._frames(condition)[:, -1].contiguous(memory_format=torch.channels_last))
        return self._looked_up(condition.labels[:, -1], None if condition.extras is None else self._present_extras(condition))

    def _present_extras(self, condition: Tensor | LabelWindow) -> Tensor:
        """Of the window's last frame, [N,num_extras,H,W]."""
        if isinstance(condition, Tensor):
            return self._frames(condition)[:, -1, self.num_labels :].contiguous(memory_format=torch.channels_last)
        assert condition.extras is not None
        return self._frames(condition.extras)[:, -1]

    def _pooled_window(self, condition: Tensor | LabelWindow) -> Tensor:
        """The embedded window averaged over the flow branch's tiles, [N,T*E,h,w]. Embedding is linear, so averages may come
        first.
        """
        stride = 2**self.branch_level
        if isinstance(condition, Tensor):
            averages = self._frames(F.avg_pool2d(condition, stride)).flatten(0, 1)
        else:
            labels = condition.labels.flatten(0, 1)
            extras = None if condition.extras is None else self._frames(condition.extras).flatten(0, 1)
            if torch.compiler.is_exporting():  # graphs have no counting
                return self._frames_to_channels(F.avg_pool2d(self._looked_up(labels, extras), stride))
            ids = labels.unsqueeze(1).float()
            encoded = ids if extras is None else torch.cat([ids, extras], dim=1)
            averages = tile_averages(encoded, (labels.shape[-2] // stride, labels.shape[-1] // stride), self.num_labels)
        return self._frames_to_channels(self.embedding(averages.contiguous(memory_format=torch.channels_last)))

    def _frames(self, window: Tensor) -> Tensor:
        return window.unflatten(1, (self.num_condition_frames, -1))

    def _frames_to_channels(self, embedded: Tensor) -> Tensor:
        return embedded.unflatten(0, (-1, self.num_condition_frames)).flatten(1, 2)

    def _looked_up(self, labels: Tensor, extras: Tensor | None) -> Tensor:
        """Embedding of ids [N,H,W] and extras [N,num_extras,H,W] without their one-hot channels."""
        weight, bias = self.embedding.weight[:, :, 0, 0], self.embedding.bias
        assert bias is not None
        table = torch.cat([weight[:, : self.num_labels].t(), torch.zeros_like(weight[:, :1]).t()]) + bias
        embedded = F.embedding(torch.where(labels < 0, self.num_labels, labels), table).movedim(-1, 1)
        if torch.is_autocast_enabled(labels.device.type):  # rounded after the look-up: gradients of the table are sums of many
            embedded = embedded.to(torch.get_autocast_dtype(labels.device.type))
        if torch.compiler.is_exporting():
            embedded = embedded.contiguous()  # in this layout no stride hangs on whether a side is 1, which a graph cannot know
        return embedded if extras is None else embedded + F.conv2d(extras, self.embedding.weight[:, self.num_labels :])

    def _noise(self, like: Tensor, level: int, shift: tuple[int, int]) -> Tensor:
        """The level's noise, repeated to the size of `like` [N,...,h,w]; the same for all samples."""
        height, width = like.shape[-2:]
        tile = self.noise[level].roll(shift, dims=(1, 2))
        rows, columns = (torch.arange(length, device=tile.device) % NOISE_SIDE for length in (height, width))
        tiled = tile.index_select(1, rows).index_select(2, columns).unsqueeze(0)
        return tiled.to(like.dtype).expand(len(like), -1, -1, -1)

    def _modulations(self, present: Tensor, noise_shift: tuple[int, int]) -> list[Tensor]:
        """What the condition says at 1/2, 1/4, ..., [N,modulation_channels,h,w] each."""
        result = []
        pooled = present
        for level, layer in enumerate(self.condition_layers, start=1):
            pooled = F.avg_pool2d(pooled, 2)
            extra = _positions(pooled) if self._has_positions(level) else self._noise(pooled, level, noise_shift)
            result.append(F.relu(layer(beside(pooled, extra)), inplace=True))
        return result

    def _mask(self, logit: Tensor, trusted: Tensor) -> Tensor:
        free = torch.sigmoid(logit)
        return free if self.max_generated >= 1 else (1 - trusted) + trusted * self.max_generated * free

    @torch.no_grad()
    def plausibility(self, past: Tensor, drawn: Tensor) -> Tensor:
        """How far a past [N,3,H,W] has the colors of what is drawn in its place; float [N,1,H,W], 0..1."""
        apart = F.avg_pool2d(F.avg_pool2d((past - drawn).float(), 4), 3, 1, 1, count_include_pad=False).abs().mean(1, keepdim=True)
        assert self.past_tolerance is not None
        near = torch.exp(-(apart / self.past_tolerance).square())
        return F.interpolate(near, size=past.shape[-2:], mode="bilinear", align_corners=False)

    @torch.no_grad()
    def agreement(self, condition: Tensor | LabelWindow, flow: Tensor) -> Tensor:
        """How well the previous condition, moved along `flow`, explains the present one; float [N,1,H,W], 0..1.

        1 for an equal label, but for a soft margin around what differs: flow misses the borders of things by a pixel or so, and
        pixels that are fetched and generated by turns along a border show as a dotted line. Without labels, 1 for equal extras,
        falling to 0 at a mean difference of a quarter. 0 outside the frame.
        """
        inside = in_frame(flow).float()
        if self.num_condition_frames < 2:
            return inside
        if isinstance(condition, LabelWindow):
            if self.num_labels:
                now, before = condition.labels[:, -1:], condition.labels[:, -2:-1]
                moved = warp_nearest((before + 1).float(), flow)
                return _with_margin(inside * (moved.round() == (now + 1).float()))
            assert condition.extras is not None
            window = condition.extras
        else:
            window = condition
        before, now = window.unflatten(1, (self.num_condition_frames, -1))[:, -2:].float().unbind(1)
        if self.num_labels:
            moved = warp_nearest(before[:, : self.num_labels], flow)
            distance = (moved - now[:, : self.num_labels]).abs().sum(1, keepdim=True)
            return _with_margin(inside * (distance < 0.5))
        difference = (warp(before, flow) - now).abs().mean(1, keepdim=True)
        return inside * (1 - 4 * difference).clamp(min=0)


def _with_margin(trusted: Tensor) -> Tensor:
    """A mask [N,1,H,W] of 0 and 1 less one pixel along its border, with a ramp of three pixels."""
    shrunk = -F.max_pool2d(-trusted, 3, 1, 1)
    return _averaged(shrunk)


class _Modulated(nn.Module):
    """Instance normalization, scaled and shifted place by place by what the condition says, then leaky ReLU and a 3x3
    convolution.
    """

    def __init__(self, channels: int, modulation_channels: int) -> None:
        super().__init__()
        self.norm = InstanceNorm()
        self.modulation = nn.Conv2d(modulation_channels, 2 * channels, 1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        gain, offset = F.conv2d(modulation, self.modulation.weight, self._bias()).chunk(2, dim=1)
        return self.conv(F.leaky_relu(torch.addcmul(offset, self.norm(x), gain), _SLOPE, inplace=True))

    def _bias(self) -> Tensor:
        """Of the modulation, so that gains lie around 1: adding it to a bias is cheaper than to every place."""
        bias = self.modulation.bias
        assert bias is not None
        gain, offset = bias.chunk(2)
        return torch.cat([1 + gain, offset])


class _Block(nn.Module):
    def __init__(self, channels: int, modulation_channels: int) -> None:
        super().__init__()
        self.first, self.second = _Modulated(channels, modulation_channels), _Modulated(channels, modulation_channels)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        return x + self.second(self.first(x, modulation), modulation)


class _Decoder(nn.Module):
    """Residual blocks from the level `first` up to the level `last`, each finer one after a narrowing 1x1 and bilinear doubling."""

    def __init__(self, widths: Sequence[int], num_blocks: Sequence[int], first: int, last: int, modulation_channels: int) -> None:
        super().__init__()
        self.levels = range(first, last - 1, -1)
        self.blocks = nn.ModuleList(
            nn.ModuleList(_Block(widths[level], modulation_channels) for _ in range(num_blocks[level])) for level in self.levels
        )
        self.narrow = nn.ModuleList(nn.Conv2d(widths[a], widths[b], 1) for a, b in itertools.pairwise(self.levels))

    def forward(self, x: Tensor, modulations: list[Tensor]) -> Tensor:
        for place, level in enumerate(self.levels):
            if place:
                x = F.interpolate(self.narrow[place - 1](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            blocks = self.blocks[place]
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, modulations[level - 1])
        return x


class _Tail(nn.Module):
    """From the branching level to pixels in -1..1; full size sees two convolutions."""

    def __init__(
        self, widths: Sequence[int], num_blocks: Sequence[int], branch_level: int, modulation_channels: int, pixel_channels: int
    ) -> None:
        super().__init__()
        self.has_levels = branch_level > 1
        if self.has_levels:
            self.narrow = nn.Conv2d(widths[branch_level], widths[branch_level - 1], 1)
            self.decoder = _Decoder(widths, num_blocks, branch_level - 1, 1, modulation_channels)
        self.widths = widths
        self.last = nn.Conv2d(widths[1], widths[0], 1)
        self.full = nn.Conv2d(widths[0] + pixel_channels, widths[0], 3, padding=1)
        self.head = nn.Conv2d(widths[0], 6, 3, padding=1)

    def forward(self, x: Tensor, modulations: list[Tensor], pixels: Sequence[Tensor], hint: Tensor | None) -> tuple[Tensor, Tensor]:
        """A picture, and fine detail to add to another one. `pixels` are seen at full size; `hint` is added at half size."""
        if self.has_levels:
            x = self.decoder(F.interpolate(self.narrow(x), scale_factor=2.0, mode="bilinear", align_corners=False), modulations)
        if hint is not None:
            x = x + hint
        x = F.interpolate(self.last(F.leaky_relu(x, _SLOPE)), scale_factor=2.0, mode="bilinear", align_corners=False)
        x = F.leaky_relu(self.full(beside(x, *pixels)), _SLOPE, inplace=True)
        raw, repair = torch.tanh(self.head(x).float()).chunk(2, dim=1)
        return raw, _detail(MAX_REPAIR * repair)


class _Hint(nn.Module):
    """The warped past, or a drawing, at half size and, from the branching level down, at every level, fine to coarse."""

    def __init__(self, in_channels: int, branch_level: int, num_levels: int, fine_channels: int) -> None:
        super().__init__()
        self.stride = 2**branch_level
        self.channels = [64 + 32 * step for step in range(num_levels - branch_level + 1)]
        self.fine = nn.Conv2d(4 * in_channels, fine_channels, 3, padding=1)
        self.first = nn.Conv2d(in_channels * self.stride**2, self.channels[0], 3, padding=1)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(self.channels))

    def forward(self, picture: Tensor) -> list[Tensor]:
        levels = [F.relu(self.first(space_to_depth(picture, self.stride)), inplace=True)]
        for layer in self.downs:
            levels.append(F.relu(layer(levels[-1]), inplace=True))
        return [self.fine(space_to_depth(picture, 2)), *levels]


class _FlowBranch(nn.Module):
    """Flow, mask and sharpening from the window of conditions and the past frames, at the branching level and two below it."""

    def __init__(self, window_channels: int, past_channels: int, level: int) -> None:
        super().__init__()
        self.stride = 2**level
        self.stem = nn.Conv2d(window_channels + past_channels * self.stride**2 + 2, 64, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(64, 96, 3, 2, 1), nn.Conv2d(96, 128, 3, 2, 1)])
        self.blocks = nn.ModuleList(nn.Sequential(*_plain_block(128)) for _ in range(2))
        self.up = nn.ModuleList([nn.Conv2d(128, 96, 3, padding=1), nn.Conv2d(96, 64, 3, padding=1)])
        self.head = nn.Conv2d(64, 4, 3, padding=1)

    def forward(self, window: Tensor, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Flow [N,2,H,W] in pixels, the logits of mask and sharpening [N,1,H,W] each, float32."""
        seen = beside(window, space_to_depth(past, self.stride), _positions(window))
        fine = F.leaky_relu(self.stem(seen), _SLOPE, inplace=True)
        middle = F.leaky_relu(self.down[0](fine), _SLOPE, inplace=True)
        x = F.leaky_relu(self.down[1](middle), _SLOPE, inplace=True)
        for block in self.blocks:
            x = x + block(x)
        for layer, skip in zip(self.up, (middle, fine), strict=True):
            x = F.leaky_relu(layer(F.interpolate(x, size=skip.shape[-2:], mode="nearest")) + skip, _SLOPE, inplace=True)
        result = F.interpolate(self.head(x).float(), scale_factor=float(self.stride), mode="bilinear", align_corners=False)
        return result[:, :2] * FLOW_SCALE, result[:, 2:3], result[:, 3:]


def _plain_block(channels: int) -> list[nn.Module]:
    first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return [nn.LeakyReLU(_SLOPE), first, nn.LeakyReLU(_SLOPE), second]


def space_to_depth(x: Tensor, stride: int) -> Tensor:
    """[N,C,H,W] -> [N,C*stride^2,H/stride,W/stride]: the pixels of each tile as channels."""
    return F.pixel_unshuffle(x, stride).contiguous(memory_format=torch.channels_last)


def _sharpened(image: Tensor, amount: Tensor) -> Tensor:
    """Undo the blur of resampling: what differs from the 3x3 average of its neighborhood is amplified by 1 + `amount`; kept in
    -1..1.
    """
    return (image + amount * _detail(image)).clamp(-1, 1)


def _detail(image: Tensor) -> Tensor:
    """What differs from the 3x3 average of the neighborhood."""
    return image - _averaged(image)


def _averaged(image: Tensor) -> Tensor:
    """The 3x3 average around each pixel, borders repeated; sums of slices take a fifth of the time of torch's pooling."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    across = padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]
    return (across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]) / 9


def _positions(x: Tensor) -> Tensor:
    """Horizontal and vertical coordinates, -1..1, [N,2,h,w]."""
    height, width = x.shape[-2:]
    across = _evenly_spaced(width, x).expand(height, width)
    down = _evenly_spaced(height, x)[:, None].expand(height, width)
    return torch.stack([across, down]).expand(len(x), -1, -1, -1)


def _evenly_spaced(count: int, like: Tensor) -> Tensor:
    if torch.compiler.is_exporting():  # exported graphs know a range of any length, but linspace only of a fixed one
        return torch.arange(count, device=like.device, dtype=torch.float32).mul(2 / (count - 1)).sub(1).to(like.dtype)
    return torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype)


def _initialize(network: CompactGenerator) -> None:
    """Variance-preserving weights, but small ones where a layer starts as (nearly) no change: modulation, pixels, flow."""
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        if name.endswith((".modulation", "tail.head")):
            nn.init.normal_(module.weight, 0.0, _INITIAL_DEVIATION)
        elif name == "flow_branch.head":
            nn.init.normal_(module.weight, 0.0, _INITIAL_DEVIATION / 2)
        elif name == "embedding":
            nn.init.normal_(module.weight, 0.0, 1.0)
        elif name.endswith(".second.conv"):
            nn.init.kaiming_normal_(module.weight, a=_SLOPE)
            with torch.no_grad():
                module.weight.mul_(0.5)
