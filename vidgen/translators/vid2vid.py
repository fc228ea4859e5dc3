"""vid2vid: each frame from a window of the condition and the frames made before it.

Source: Wang et al., "Video-to-Video Synthesis", NeurIPS 2018, and facts of the authors' release.
Where we differ on purpose: the temporal discriminators' learning rate decays too; learning rates decay by the step
instead of the epoch; every input frame gets an output frame; a video may start from nothing, from a picture or from another
translator's pictures. Options the original does not have are off by default: hinge loss, spectral norm, resize-convolution,
L1 loss, and corruption of the past frames (noise and dropout), which is what keeps a generator steady on its own frames.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from flow.warp import warp
from vidgen.config import Settings
from vidgen.errors import ConfigError
from vidgen.networks import composite, discriminators
from vidgen.networks.composite import CompositeGenerator, Composition, LocalCompositeGenerator
from vidgen.networks.discriminators import MultiscaleDiscriminator
from vidgen.networks.encoding import encode
from vidgen.networks.layers import NormKind, Upsampling, initialize, pyramid
from vidgen.networks.losses import GanObjective, Judgement, feature_matching, masked_l1, multiscale_adversarial, perceptual
from vidgen.translators.base import Teachers, Translator
from vidgen.types import Batch, Condition, Losses, Output, Phase, Stage

RENAMES = {"generator": composite.rename_original, "discriminator": discriminators.rename_original}
"""What to rename in the published files: `G{s}` are generators, `D` and `D_T{s}` discriminators."""

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class Generator(Settings):
    """The generator's shape."""

    base_channels: Count = 128
    """Width after the first convolution at the coarsest scale; finer scales halve it."""
    num_downsamplings: Annotated[int, Field(ge=1, le=6)] = 3
    num_blocks: Count = 9
    """Residual blocks from encoder to head at the coarsest scale."""
    num_local_blocks: Count = 3
    """Residual blocks at each finer scale."""
    num_scales: Annotated[int, Field(ge=1, le=4)] = 1
    """Spatial scales, each twice as fine as the one before."""
    norm: NormKind = "batch"
    upsampling: Upsampling = "transposed"
    flow: Literal["learned", "none"] = "learned"
    """"none" makes every frame without warping the previous one."""
    foreground_labels: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Classes made by a branch of their own (26 is the Cityscapes car)."""


class Region(Settings):
    """A part of the picture, such as the face, that has a judge of its own; a square of a quarter of the width around it."""

    labels: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Classes that make up the region."""
    channel: Annotated[int, Field(ge=0)] | None = None
    """Or: the region is where this channel of the condition pictures exceeds `above` (the part channel of DensePose)."""
    above: Annotated[float, Field(ge=-1, le=1)] = 0.9
    weight: Annotated[float, Field(ge=0)] = 2.0

    @model_validator(mode="after")
    def _one_way(self) -> Region:
        if bool(self.labels) == (self.channel is not None):
            raise ValueError("set either labels or channel")
        return self


class Discriminators(Settings):
    """Judges of frames and of motion."""

    base_channels: Count = 64
    num_layers: Count = 3
    num_scales: Count = 2
    """Image scales judged when all generator scales have grown."""
    norm: NormKind = "batch"
    use_spectral_norm: bool = False
    objective: GanObjective = "least_squares"
    num_temporal_scales: Annotated[int, Field(ge=0)] = 2
    """Judges of motion, each at a stride num_temporal_frames times the one before; 0 for none."""
    num_temporal_frames: Annotated[int, Field(ge=2)] = 3
    temporal_windows: Literal["dense", "sparse"] = "dense"
    region: Region | None = None
    """A further judge of one part of the picture, with two image scales less."""


class LossWeights(Settings):
    """Weights of the loss terms; the defaults are the published ones."""

    gan_weight: Weight = 1.0
    temporal_gan_weight: Weight = 1.0
    feature_matching_weight: Weight = 10.0
    perceptual_weight: Weight = 10.0
    """Needs `train.perceptual_weights`, the file of a pretrained VGG-19; without one set this to 0."""
    l1_weight: Weight = 0.0
    """Plain L1 to the real frame; not in the original, useful where no perceptual weights are at hand."""
    flow_weight: Weight = 10.0
    """Predicted flow against the reference flow, where that is confident; divided by 2^(scales - 1)."""
    flow_warp_weight: Weight = 10.0
    """The real previous frame, warped by the predicted flow, against the real frame."""
    warp_weight: Weight = 10.0
    """The frame against the generated previous frame warped by the reference flow."""
    mask_weight: Weight = 0.0
    """Pulls the mask towards the warped pixel where the reference flow is confident (1 in the original without first frame)."""


class PastCorruption(Settings):
    """Faults put into the past frames in training so that the generator learns to mend its own."""

    noise: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Standard deviation of Gaussian noise, in units of the -1..1 range."""
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of frames whose whole past is replaced by zeros, so that only the made frame counts."""


class Growth(Settings):
    """The schedule of one spatial scale; an epoch is one pass over the sequences unless `train.steps_per_epoch` says otherwise."""

    epochs: Annotated[int, Field(ge=0)] = 10
    """Epochs at the full learning rate."""
    decay_epochs: Annotated[int, Field(ge=0)] = 10
    """Epochs over which it falls to zero."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    clip_frames: Count = 30
    """Frames generated per clip at first."""
    max_clip_frames: Count = 126
    grow_every_epochs: Count = 5
    """Clips and windows double after so many epochs."""
    window_frames: Count = 1
    """Frames generated per update at first."""
    max_window_frames: Count = 1
    max_backpropagate_frames: Count = 1
    """How far gradients flow back through the generated past; reached by doubling."""
    frame_only_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start in which frames are made without their past (flow learns already); not in the original."""
    finest_only_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which only the finest scale learns."""


class Config(Settings):
    """A vid2vid model."""

    kind: Literal["vid2vid"] = "vid2vid"
    num_labels: Annotated[int, Field(ge=0)] = 0
    """Classes of the label maps; 0 where the condition is pictures."""
    condition_channels: Annotated[int, Field(ge=0)] = 0
    """Channels of condition pictures (1 for edges, 6 for two pose drawings); 0 where it is labels."""
    use_instances: bool = False
    """Read instance maps too, as boundary edges."""
    num_input_frames: Count = 3
    """Condition frames seen at a time; one less past frame. 1 makes every frame on its own."""
    first_frame: Literal["real", "zeros"] = "real"
    """Training clips start from real frames, or from nothing (as published for poses)."""
    generator: Generator = Generator()
    discriminators: Discriminators = Discriminators()
    losses: LossWeights = LossWeights()
    past: PastCorruption = PastCorruption()
    two_time_scales: bool = False
    """Generator at half, discriminators at twice the learning rate, Adam betas (0, 0.9)."""
    growth: Annotated[tuple[Growth, ...], Field(min_length=1)] = (Growth(),)
    """One schedule per spatial scale that is grown, coarsest first; a single one trains all scales together."""

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.num_input_frames == 1 and self.generator.flow != "none":
            raise ValueError("num_input_frames: 1 leaves no past frame to warp: set generator.flow: none")
        if len(self.growth) > self.generator.num_scales:
            raise ValueError(f"growth has {len(self.growth)} entries for {self.generator.num_scales} scales")
        return self

    @property
    def channels_per_frame(self) -> int:
        return self.num_labels + self.condition_channels + int(self.use_instances)


@dataclass(frozen=True)
class Vid2VidCarry:
    """The recent past of a video.

    Attributes:
        condition: [B,K,C,H,W], encoded condition of the last K = num_input_frames - 1 frames.
        past: per active scale, coarsest first: the last K generated frames [B,K,3,h,w].
        num_frames: frames of the video so far; 0 means there is no past to warp.
        history: [B,P,3,H,W], generated frames (detached) that temporal discriminators may still need.
    """

    condition: Tensor
    past: tuple[Tensor, ...]
    num_frames: int
    history: Tensor | None

    def detach(self) -> Vid2VidCarry:
        return Vid2VidCarry(
            self.condition.detach(),
            tuple(frames.detach() for frames in self.past),
            self.num_frames,
            None if self.history is None else self.history.detach(),
        )


class Vid2Vid(Translator):
    """The sequential generator with its judges.

    Buffers:
        active_scales: how many generator scales have grown; a weights file alone then tells how to run it.
    """

    generator: nn.ModuleList
    active_scales: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        shape, judges = config.generator, config.discriminators
        self.num_past_frames = config.num_input_frames - 1
        self.num_primer_frames = self.num_past_frames if config.first_frame == "real" else 0
        self.needs_flow = self.num_past_frames > 0 or judges.num_temporal_scales > 0
        window_channels = config.channels_per_frame * config.num_input_frames
        past_channels = 3 * self.num_past_frames
        common: dict[str, Any] = {
            "norm": shape.norm,
            "upsampling": shape.upsampling,
            "use_flow": shape.flow == "learned",
            "use_foreground": bool(shape.foreground_labels),
        }
        scales: list[nn.Module] = [
            CompositeGenerator(
                window_channels, past_channels, shape.base_channels, shape.num_downsamplings, shape.num_blocks, **common
            )
        ]
        for scale in range(1, shape.num_scales):
            width = shape.base_channels // 2**scale
            narrow = shape.num_downsamplings > 2
            scales.append(
                LocalCompositeGenerator(
                    window_channels, past_channels, width, shape.num_local_blocks, scale=scale, narrow_foreground=narrow, **common
                )
            )
        self.generator = nn.ModuleList(scales)
        judge = {
            "base_channels": judges.base_channels,
            "num_layers": judges.num_layers,
            "num_scales": judges.num_scales,
            "norm": judges.norm,
            "widen_coarse": True,
            "use_spectral_norm": judges.use_spectral_norm,
        }
        self.discriminator = MultiscaleDiscriminator(config.channels_per_frame + 3, **judge)  # type: ignore[arg-type]
        self.region_discriminator: MultiscaleDiscriminator | None = None
        if judges.region is not None:
            smaller = {**judge, "num_scales": max(1, judges.num_scales - 2)}
            self.region_discriminator = MultiscaleDiscriminator(config.channels_per_frame + 3, **smaller)  # type: ignore[arg-type]
        temporal_channels = 3 * judges.num_temporal_frames + 2 * (judges.num_temporal_frames - 1)
        self.temporal_discriminators = nn.ModuleList(
            MultiscaleDiscriminator(temporal_channels, **judge)  # type: ignore[arg-type]
            for _ in range(judges.num_temporal_scales)
        )
        self.register_buffer("active_scales", torch.tensor(shape.num_scales))
        self.num_active_scales = shape.num_scales
        self.register_load_state_dict_post_hook(lambda module, _: module._read_active_scales())
        self.size_multiple = 2 ** (shape.num_downsamplings + shape.num_scales - 1)
        self.backpropagate_frames = 1
        self.uses_past = True
        initialize(self)

    # -- making frames ------------------------------------------------------------------------------------------------

    def prime(self, condition: Condition, frames: Tensor) -> Vid2VidCarry | None:
        if self.num_past_frames == 0:
            return None
        encoded = self._encode(condition)
        past = self._fill_past(frames.float())
        scales = self._frame_pyramid(past)
        return Vid2VidCarry(self._fill_past(encoded), tuple(scales), frames.shape[1], None)

    def translate(self, condition: Condition, carry: Any = None) -> tuple[Output, Vid2VidCarry]:
        encoded = self._encode(condition)
        carry = carry or self._start(encoded)
        past, num_frames = list(carry.past), carry.num_frames
        window = torch.cat([carry.condition, encoded], dim=1)
        compositions: list[Composition] = []
        previous: list[Tensor] = []
        for time in range(encoded.shape[1]):
            if time % self.backpropagate_frames == 0:
                past = [frames.detach() for frames in past]
            seen = window[:, time : time + self.num_past_frames + 1]
            previous.append((past[-1][:, -1] if self.num_past_frames else torch.zeros_like(encoded[:, 0, :3])).detach())
            made = self._make_frame(seen, past, num_frames)
            compositions.append(made[-1])
            if self.num_past_frames:
                past = [self._append(frames, step.frame, num_frames) for frames, step in zip(past, made, strict=True)]
            num_frames += 1
        frames = torch.stack([step.frame for step in compositions], dim=1)
        learned_flow = compositions[0].flow is not None
        output = Output(
            frames=frames,
            raw=torch.stack([step.raw for step in compositions], dim=1) if learned_flow else None,
            flow=torch.stack([step.flow for step in compositions], dim=1) if learned_flow else None,  # type: ignore[misc]
            mask=torch.stack([step.mask for step in compositions], dim=1) if learned_flow else None,  # type: ignore[misc]
            previous=torch.stack(previous, dim=1) if self.num_past_frames else None,
            history=carry.history,
        )
        kept = window[:, window.shape[1] - self.num_past_frames :]
        return output, Vid2VidCarry(kept, tuple(past), num_frames, self._extend_history(carry.history, frames))

    def _make_frame(self, seen: Tensor, past: list[Tensor], num_frames: int) -> list[Composition]:
        """One frame at every active scale, coarsest first. `seen` is the condition window [B,K+1,C,H,W]."""
        active = self.num_active_scales
        windows = pyramid(seen.flatten(1, 2), active)
        masks = pyramid(self._foreground_mask(seen[:, -1]), active) if self.config.generator.foreground_labels else [None] * active
        raw_only = self._raw_only(len(seen), num_frames, seen.device)
        made: list[Composition] = []
        for scale in range(active):
            before = self._corrupt(past[scale], raw_only).flatten(1, 2) if self.num_past_frames else None
            network = self.generator[scale]
            learns = any(parameter.requires_grad for parameter in network.parameters())
            with torch.set_grad_enabled(torch.is_grad_enabled() and (learns or bool(made))):
                step = network(
                    windows[scale],
                    before,
                    raw_only=raw_only,
                    foreground_mask=masks[scale],
                    coarse=made[-1] if made else None,
                )
            made.append(step)
        return made

    def _raw_only(self, batch: int, num_frames: int, device: torch.device) -> Tensor | None:
        """Which samples have no past: all at the start of a video; in training some by dropout, or all; bool [B,1,1,1]."""
        if num_frames == 0 or (self.training and not self.uses_past):
            return torch.ones(batch, 1, 1, 1, dtype=torch.bool, device=device)
        dropout = self.config.past.dropout
        if self.training and dropout > 0:
            return torch.rand(batch, 1, 1, 1, device=device) < dropout
        return None

    def _corrupt(self, past: Tensor, raw_only: Tensor | None) -> Tensor:
        if self.training and self.config.past.noise > 0:
            past = past + torch.randn_like(past) * self.config.past.noise
        if raw_only is not None:
            past = torch.where(raw_only.unsqueeze(1), torch.zeros_like(past), past)
        return past

    def _encode(self, condition: Condition) -> Tensor:
        return encode(condition, num_labels=self.config.num_labels, use_instances=self.config.use_instances)

    def _foreground_mask(self, encoded: Tensor) -> Tensor:
        return encoded[:, list(self.config.generator.foreground_labels)].sum(1, keepdim=True).clamp(0, 1)

    def _frame_pyramid(self, frames: Tensor) -> list[Tensor]:
        levels = pyramid(frames.flatten(0, 1), self.num_active_scales)
        return [level.unflatten(0, frames.shape[:2]) for level in levels]

    def _start(self, encoded: Tensor) -> Vid2VidCarry:
        """The carry before the first frame: the condition's first frame repeated, zeros for the missing past."""
        batch, _, _, height, width = encoded.shape
        condition = encoded[:, :1].expand(-1, self.num_past_frames, -1, -1, -1)
        past: list[Tensor] = []
        if self.num_past_frames:
            past = self._frame_pyramid(encoded.new_zeros(batch, self.num_past_frames, 3, height, width))
        return Vid2VidCarry(condition, tuple(past), 0, None)

    def _fill_past(self, frames: Tensor) -> Tensor:
        """The last K frames; where there are fewer, the earliest is repeated."""
        frames = frames[:, -self.num_past_frames :]
        missing = self.num_past_frames - frames.shape[1]
        return torch.cat([frames[:, :1]] * missing + [frames], dim=1)

    def _append(self, past: Tensor, frame: Tensor, num_frames: int) -> Tensor:
        """The past one frame later. A video that started from nothing repeats its first frame unless it was trained on zeros."""
        if num_frames == 0 and self.config.first_frame == "real":
            return frame.unsqueeze(1).expand(-1, self.num_past_frames, -1, -1, -1)
        return torch.cat([past[:, 1:], frame.unsqueeze(1)], dim=1)

    def _extend_history(self, history: Tensor | None, frames: Tensor) -> Tensor | None:
        judges = self.config.discriminators
        if not self.training or judges.num_temporal_scales == 0:
            return None
        reach = judges.num_temporal_frames ** (judges.num_temporal_scales - 1) * (judges.num_temporal_frames - 1)
        frames = frames.detach()
        return (frames if history is None else torch.cat([history, frames], dim=1))[:, -reach:]

    # -- learning -----------------------------------------------------------------------------------------------------

    def _read_active_scales(self) -> None:
        self.num_active_scales = int(self.active_scales)

    def begin(self, stage: Stage) -> None:
        self.active_scales.fill_(stage.active_scales)
        self.num_active_scales = stage.active_scales
        self.backpropagate_frames = stage.backpropagate_frames
        self.uses_past = stage.uses_past

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        generators = list(self.generator)[: stage.active_scales]
        if stage.learning == "finest":
            generators = generators[-1:]
        slow, fast, betas = (0.5, 2.0, (0.0, 0.9)) if self.config.two_time_scales else (1.0, 1.0, (0.5, 0.999))
        temporal = [
            Phase(f"temporal_discriminator_{scale}", (judge,), 1.0) for scale, judge in enumerate(self.temporal_discriminators)
        ]
        region = [] if self.region_discriminator is None else [Phase("region", (self.region_discriminator,), fast, betas)]
        return (
            Phase("generator", tuple(generators), slow, betas),
            Phase("discriminator", (self.discriminator,), fast, betas),
            *region,
            *temporal,
        )

    def applies(self, phase: Phase, batch: Batch) -> bool:
        if not phase.name.startswith("temporal_"):
            return True
        return bool(self._windows(_temporal_scale(phase), batch))

    def losses(self, phase: Phase, batch: Batch, output: Output, teachers: Teachers) -> Losses:
        if phase.name == "generator":
            return self._generator_losses(batch, output, teachers)
        if phase.name == "discriminator":
            return self._discriminator_losses(batch, output)
        if phase.name == "region":
            return self._region_losses(batch, output)
        return self._temporal_losses(_temporal_scale(phase), batch, output, teachers)

    def _generator_losses(self, batch: Batch, output: Output, teachers: Teachers) -> Losses:
        weights, losses = self.config.losses, {}
        real = batch.window_target.flatten(0, 1)
        made = [frames.flatten(0, 1) for frames in (output.frames, output.raw) if frames is not None]
        condition = self._judged_condition(batch)
        objective = self.config.discriminators.objective
        with torch.no_grad():
            truth = self._judge(condition, real)
        gan, matching = [], []
        for frames in made:
            judgement = self._judge(condition, frames)
            gan.append(multiscale_adversarial(judgement, real=True, learner="generator", objective=objective))
            matching.append(feature_matching(judgement, truth))
        losses["gan"] = weights.gan_weight * torch.stack(gan).sum()
        losses["feature_matching"] = weights.feature_matching_weight * torch.stack(matching).sum()
        if weights.perceptual_weight and teachers.perceptual is not None:
            terms = [perceptual(teachers.perceptual, frames, real) for frames in made]
            losses["perceptual"] = weights.perceptual_weight * torch.stack(terms).sum()
        if weights.l1_weight:
            losses["l1"] = weights.l1_weight * torch.stack([(frames.float() - real).abs().mean() for frames in made]).sum()
        losses |= self._motion_losses(batch, output)
        losses |= self._region_generator_losses(batch, output)
        for scale in range(len(self.temporal_discriminators)):
            losses |= self._temporal_generator_losses(scale, batch, output, teachers)
        return losses

    def _motion_losses(self, batch: Batch, output: Output) -> Losses:
        """Losses of flow, mask and warped past; see `LossWeights` for what each compares."""
        if output.previous is None or batch.flow is None or batch.confidence is None:
            return {}
        weights, losses = self.config.losses, {}
        reference = batch.flow[:, batch.start : batch.stop].flatten(0, 1)
        confidence = batch.confidence[:, batch.start : batch.stop].flatten(0, 1)
        real, frames = batch.window_target.flatten(0, 1), output.frames.flatten(0, 1)
        if weights.warp_weight:
            warped = warp(output.previous.flatten(0, 1), reference)
            losses["warp"] = weights.warp_weight * masked_l1(frames, warped, confidence)
        if output.flow is None or output.mask is None:
            return losses
        flow = output.flow.flatten(0, 1)
        losses["flow"] = weights.flow_weight / 2 ** (self.num_active_scales - 1) * masked_l1(flow, reference, confidence)
        moved = warp(batch.previous_target.flatten(0, 1), flow)
        losses["flow_warp"] = weights.flow_warp_weight * masked_l1(moved, real, confidence)
        if weights.mask_weight:
            mask = output.mask.flatten(0, 1)
            losses["mask"] = weights.mask_weight * masked_l1(mask, torch.zeros_like(mask), confidence)
        return losses

    def _discriminator_losses(self, batch: Batch, output: Output) -> Losses:
        condition, real = self._judged_condition(batch), batch.window_target.flatten(0, 1)
        made = [frames.detach().flatten(0, 1) for frames in (output.frames, output.raw) if frames is not None]
        truth = self._judge(condition, real)
        losses = _judge_losses(truth, [self._judge(condition, frames) for frames in made], self.config.discriminators.objective)
        return {f"discriminator_{name}": value for name, value in losses.items()}

    def _region_generator_losses(self, batch: Batch, output: Output) -> Losses:
        """Adversarial loss and feature matching of the region's judge; the latter counts per scale of the main judge."""
        judges = self.config.discriminators
        if self.region_discriminator is None or judges.region is None:
            return {}
        made, real = self._region_inputs(batch, output)
        with torch.no_grad():
            truth = self.region_discriminator(real)
        judgement = self.region_discriminator(made)
        gan = multiscale_adversarial(judgement, real=True, learner="generator", objective=judges.objective)
        matching = feature_matching(judgement, truth) * len(judgement) / judges.num_scales
        weights = self.config.losses
        return {
            "region_gan": judges.region.weight * weights.gan_weight * gan,
            "region_feature_matching": judges.region.weight * weights.feature_matching_weight * matching,
        }

    def _region_losses(self, batch: Batch, output: Output) -> Losses:
        assert self.region_discriminator is not None
        made, real = self._region_inputs(batch, output)
        fake = self.region_discriminator(made.detach())
        losses = _judge_losses(self.region_discriminator(real), [fake], self.config.discriminators.objective)
        return {f"region_discriminator_{name}": value for name, value in losses.items()}

    def _region_inputs(self, batch: Batch, output: Output) -> tuple[Tensor, Tensor]:
        """The square around the region of each frame, made and real, under its condition: [N, C+3, side, side].

        A frame without the region is judged in its middle, so that all processes judge equally many.
        """
        condition = self._judged_condition(batch)
        side = min(max(16, condition.shape[-1] // 32 * 8), condition.shape[-2])
        crops: tuple[list[Tensor], list[Tensor]] = ([], [])
        pictures = (output.frames.flatten(0, 1), batch.window_target.flatten(0, 1))
        for index, inside in enumerate(self._region_mask(condition)):
            rows, columns = (inside.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
            top, left = (
                _start_of_square(places, side, length) for places, length in zip((rows, columns), inside.shape, strict=True)
            )
            square = (slice(None), slice(top, top + side), slice(left, left + side))
            for collected, frames in zip(crops, pictures, strict=True):
                collected.append(torch.cat([condition[index][square], frames[index][square].float()]))
        return torch.stack(crops[0]), torch.stack(crops[1])

    def _region_mask(self, condition: Tensor) -> Tensor:
        region = self.config.discriminators.region
        assert region is not None
        if region.channel is not None:
            return condition[:, self.config.num_labels + region.channel] > region.above
        return condition[:, list(region.labels)].sum(1) > 0

    def _judged_condition(self, batch: Batch) -> Tensor:
        return self._encode(batch.window_condition).flatten(0, 1)

    def _judge(self, condition: Tensor, frames: Tensor) -> Judgement:
        return self.discriminator(torch.cat([condition, frames], dim=1), self._active_judged_scales())

    def _active_judged_scales(self) -> int:
        shape = self.config
        return max(1, shape.discriminators.num_scales - (shape.generator.num_scales - self.num_active_scales))

    def _temporal_generator_losses(self, scale: int, batch: Batch, output: Output, teachers: Teachers) -> Losses:
        if not self._windows(scale, batch):
            return {}
        made, real = self._temporal_inputs(scale, batch, output, teachers)
        judge, judged_scales = self.temporal_discriminators[scale], self._active_judged_scales()
        with torch.no_grad():
            truth = judge(real, judged_scales)
        judgement = judge(made, judged_scales)
        weights, objective = self.config.losses, self.config.discriminators.objective
        gan = multiscale_adversarial(judgement, real=True, learner="generator", objective=objective)
        return {
            f"temporal_gan_{scale}": weights.temporal_gan_weight * gan,
            f"temporal_feature_matching_{scale}": weights.feature_matching_weight * feature_matching(judgement, truth),
        }

    def _temporal_losses(self, scale: int, batch: Batch, output: Output, teachers: Teachers) -> Losses:
        made, real = self._temporal_inputs(scale, batch, output, teachers)
        judge, judged_scales = self.temporal_discriminators[scale], self._active_judged_scales()
        fake = judge(made.detach(), judged_scales)
        losses = _judge_losses(judge(real, judged_scales), [fake], self.config.discriminators.objective)
        return {f"temporal_discriminator_{scale}_{name}": value for name, value in losses.items()}

    def _windows(self, scale: int, batch: Batch) -> list[tuple[int, ...]]:
        judges = self.config.discriminators
        return temporal_windows(
            batch.start - batch.primer_frames,
            batch.stop - batch.start,
            num_frames=judges.num_temporal_frames,
            scale=scale,
            num_scales=judges.num_temporal_scales,
            mode=judges.temporal_windows,
        )

    def _temporal_inputs(self, scale: int, batch: Batch, output: Output, teachers: Teachers) -> tuple[Tensor, Tensor]:
        """What the judge of motion at `scale` sees: made and real windows [N, 3*tD + 2*(tD-1), H, W].

        Both carry the same reference flows, divided by 20.
        """
        windows = self._windows(scale, batch)
        real = batch.target[:, batch.primer_frames :]
        made = output.frames if output.history is None else torch.cat([output.history, output.frames], dim=1)
        forgotten = batch.stop - batch.primer_frames - made.shape[1]
        inputs: tuple[list[Tensor], list[Tensor]] = ([], [])
        for window in windows:
            flows = self._window_flows(window, scale, batch, real, teachers) / composite.FLOW_SCALE
            for collected, frames in zip(
                inputs, (made[:, [frame - forgotten for frame in window]], real[:, list(window)]), strict=True
            ):
                collected.append(torch.cat([frames.flatten(1, 2), flows], dim=1))
        return torch.cat(inputs[0]), torch.cat(inputs[1])

    def _window_flows(self, window: tuple[int, ...], scale: int, batch: Batch, real: Tensor, teachers: Teachers) -> Tensor:
        """Reference flows between the frames of a window, [B, 2*(tD-1), H, W]: known ones at stride 1, else estimated anew."""
        if scale == 0 and batch.flow is not None:
            return batch.flow[:, [frame + batch.primer_frames for frame in window[1:]]].flatten(1, 2)
        if teachers.flow is None:
            raise ValueError("temporal discriminators need a teacher of flow")
        later, earlier = real[:, list(window[1:])], real[:, list(window[:-1])]
        flow = teachers.flow(later.flatten(0, 1), earlier.flatten(0, 1))
        return flow.unflatten(0, later.shape[:2]).flatten(1, 2)


def _temporal_scale(phase: Phase) -> int:
    return int(phase.name.rsplit("_", 1)[1])


def _start_of_square(places: list[int], side: int, length: int) -> int:
    """First row or column of a square of `side` centred on `places` and kept inside 0..length-1."""
    centre = (places[0] + places[-1]) // 2 if places else length // 2
    return min(max(0, centre - side // 2), length - side)


def _judge_losses(truth: Judgement, made: list[Judgement], objective: GanObjective) -> Losses:
    """Half the sum of real and fake losses; the real one counts once per made version, as published."""
    real = multiscale_adversarial(truth, real=True, learner="discriminator", objective=objective)
    fakes = [multiscale_adversarial(one, real=False, learner="discriminator", objective=objective) for one in made]
    return {"real": 0.5 * len(made) * real, "fake": 0.5 * torch.stack(fakes).sum()}


def temporal_windows(
    first: int, count: int, *, num_frames: int, scale: int, num_scales: int, mode: Literal["dense", "sparse"] = "dense"
) -> list[tuple[int, ...]]:
    """Frames of a clip that the judge of motion at `scale` sees once frames first..first+count-1 are new, newest window first.

    dense: windows of stride num_frames^scale end at the newest frame and every num_frames frames before it, as long as they
    hold a new frame. sparse: only every num_frames^scale-th frame of the clip takes part, and windows share one frame.
    Frames further back than the longest window's reach are forgotten.
    """
    stride = num_frames**scale
    reach = num_frames ** (num_scales - 1) * (num_frames - 1)
    if mode == "sparse" and scale > 0:
        new = [frame for frame in range(first, first + count) if frame % stride == 0]
        before = [frame for frame in range(first) if frame % stride == 0]
        known = before[max(0, len(before) - (num_frames - 1)) :] + new
        windows = []
        end = len(known)
        while end >= num_frames and end > len(known) - len(new):
            windows.append(tuple(known[end - num_frames : end]))
            end -= num_frames - 1
        return windows
    oldest = max(0, first - reach)
    span = stride * (num_frames - 1)
    windows = []
    end = first + count - 1
    while end >= first and end - span >= oldest:
        windows.append(tuple(range(end - span, end + 1, stride)))
        end -= num_frames
    return windows


def build(config: Config) -> Vid2Vid:
    """An untrained model.

    Raises:
        ConfigError: it has no condition to read, or foreground classes that do not exist.
    """
    if config.channels_per_frame == 0:
        raise ConfigError("model: neither num_labels nor condition_channels is set; the model needs a condition")
    region = config.discriminators.region
    named = {
        "generator.foreground_labels": config.generator.foreground_labels,
        "discriminators.region.labels": region.labels if region else (),
    }
    for key, classes in named.items():
        outside = [label for label in classes if label >= config.num_labels]
        if outside:
            raise ConfigError(
                f"model.{key}: {outside[0]} is not a class; the label maps have {config.num_labels} (0..{config.num_labels - 1})"
            )
    if region and region.channel is not None and region.channel >= config.condition_channels:
        raise ConfigError(
            f"model.discriminators.region.channel: {region.channel} is outside the {config.condition_channels} condition channels"
        )
    return Vid2Vid(config)


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """The published schedule: clips double in length, finer scales join, the finest learns alone at first, rates decay.

    Source: supplement of the paper and the release's training scripts. One stage per stretch in which nothing changes.
    """
    result = []
    shape = config.generator
    for index, growth in enumerate(config.growth):
        active = shape.num_scales - len(config.growth) + 1 + index
        total = growth.epochs + growth.decay_epochs
        edges = set(range(0, total, growth.grow_every_epochs)) | {
            0,
            growth.frame_only_epochs,
            growth.finest_only_epochs,
            growth.epochs,
            total,
        }
        ordered = sorted(edge for edge in edges if edge <= total)
        for start, stop in itertools.pairwise(ordered):
            doubled = 2 ** (start // growth.grow_every_epochs)
            window = min(growth.max_window_frames, growth.window_frames * doubled)
            limit = min(growth.max_backpropagate_frames, doubled)
            finest_only = active > 1 and start < growth.finest_only_epochs
            uses_past = start >= growth.frame_only_epochs
            clip = min(growth.max_clip_frames, growth.clip_frames * doubled)
            notes = ", finest scale only" * finest_only + ", without past" * (not uses_past)
            result.append(
                Stage(
                    name=f"{active} scale{'s' * (active > 1)}, clips of {clip}{notes}",
                    num_steps=(stop - start) * steps_per_epoch,
                    learning_rate=growth.learning_rate * _rate_factor(growth, start),
                    final_learning_rate=growth.learning_rate * _rate_factor(growth, stop),
                    clip_frames=clip,
                    window_frames=min(window, clip),
                    backpropagate_frames=min(window, clip) // math.ceil(min(window, clip) / limit),
                    active_scales=active,
                    size_divisor=2 ** (shape.num_scales - active),
                    learning="finest" if finest_only else "all",
                    uses_past=uses_past,
                )
            )
    return tuple(result)


def _rate_factor(growth: Growth, epoch: int) -> float:
    if epoch <= growth.epochs:
        return 1.0
    return max(0.0, 1.0 - (epoch - growth.epochs) / growth.decay_epochs)
