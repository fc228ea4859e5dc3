"""vid2vid: each frame from a window of the condition and the frames generated before it.

Source: Wang et al., "Video-to-Video Synthesis", NeurIPS 2018, and facts of the authors' release.
Where we differ on purpose: the temporal discriminators' learning rate decays too; learning rates decay by the step
instead of the epoch; every input frame gets an output frame; a video may start from nothing, from a picture or from another
translator's pictures. Options the original does not have are off by default: hinge loss, spectral norm, resize-convolution,
L1 loss, and corruption of the past frames (noise and dropout), which is what keeps a generator steady on its own frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flow.warp import warp
from vidgen.errors import ConfigError
from vidgen.networks import compact, composite, discriminators
from vidgen.networks.adversary import Adversary
from vidgen.networks.anchor import Anchor
from vidgen.networks.compact import ADAM_BETAS, CompactGenerator, LabelWindow, default_blocks, default_widths, draw_noise_shift
from vidgen.networks.composite import CompositeGenerator, Composition, LocalCompositeGenerator
from vidgen.networks.discriminators import MultiscaleDiscriminator
from vidgen.networks.encoding import encode, fold_time
from vidgen.networks.layers import initialize, pyramid
from vidgen.networks.losses import masked_l1, perceptual
from vidgen.translators.base import Networks, Translator, compared
from vidgen.translators.settings import feature_adversary, feature_phases
from vidgen.translators.settings.vid2vid import (
    Config,
    Discriminators,
    Generator,
    LossWeights,
    PastCorruption,
    Region,
    Schedule,
    inputs,
    pretrained,
)
from vidgen.types import Batch, Condition, Losses, OptimizerSettings, Output, Phase, Stage, Step

__all__ = [
    "RENAMES",
    "Config",
    "Discriminators",
    "Generator",
    "LossWeights",
    "Region",
    "Schedule",
    "Vid2Vid",
    "build",
    "inputs",
    "pretrained",
    "stages",
]

RENAMES = {"generator": composite.rename_original, "discriminator": discriminators.rename_original}
"""What to rename in the published files: `G{s}` are generators, `D` and `D_T{s}` discriminators."""


@dataclass(frozen=True)
class Vid2VidCarry:
    """The recent past of a video.

    Attributes:
        condition: [B,K,C,H,W], encoded condition of the last K = num_input_frames - 1 frames.
        past: per active scale, coarsest first: the last K generated frames [B,K,3,h,w].
        num_frames: frames of the video so far; 0 means there is no past to warp.
        history: [B,P,3,H,W], generated frames (detached) that temporal discriminators may still need.
        anchor: what the compact generator fetches known surfaces from; none before the first frame.
    """

    condition: Tensor
    past: tuple[Tensor, ...]
    num_frames: int
    history: Tensor | None
    anchor: Anchor | None = None

    def detach(self) -> Vid2VidCarry:
        return Vid2VidCarry(
            self.condition.detach(),
            tuple(frames.detach() for frames in self.past),
            self.num_frames,
            None if self.history is None else self.history.detach(),
            None if self.anchor is None else self.anchor.detach(),
        )


@dataclass(frozen=True)
class _Training:
    """What training adds to a window: the stage, the corruption of the past, and which clips start from nothing."""

    stage: Stage
    past: PastCorruption
    fresh: Tensor | None


class Vid2Vid(Translator[Vid2VidCarry]):
    """The sequential generator with its discriminators.

    Buffers:
        active_scales: how many generator scales have grown; a weights file alone then tells how to run it.
    """

    generator: nn.ModuleList
    active_scales: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        shape, discriminating = config.generator, config.discriminators
        self.num_past_frames = config.num_input_frames - 1
        self.num_primer_frames = self.num_past_frames if config.first_frame == "real" else 0
        self.needs_flow = self.num_past_frames > 0 or discriminating.num_temporal_scales > 0
        self.generator = nn.ModuleList(_published_scales(config) if shape.kind == "published" else [])
        network = {
            "base_channels": discriminating.base_channels,
            "num_layers": discriminating.num_layers,
            "num_scales": discriminating.num_scales,
            "norm": discriminating.norm,
            "widen_coarse": True,
            "use_spectral_norm": discriminating.use_spectral_norm,
        }
        self.discriminator: MultiscaleDiscriminator | None = None
        if discriminating.patch:
            self.discriminator = MultiscaleDiscriminator(config.channels_per_frame + 3, **network)  # type: ignore[arg-type]
        self.region_discriminator: MultiscaleDiscriminator | None = None
        if discriminating.region is not None:
            smaller = {**network, "num_scales": max(1, discriminating.num_scales - 2)}
            self.region_discriminator = MultiscaleDiscriminator(config.channels_per_frame + 3, **smaller)  # type: ignore[arg-type]
        temporal_channels = 3 * discriminating.num_temporal_frames + 2 * (discriminating.num_temporal_frames - 1)
        self.temporal_discriminators = nn.ModuleList(
            MultiscaleDiscriminator(temporal_channels, **network)  # type: ignore[arg-type]
            for _ in range(discriminating.num_temporal_scales)
        )
        self.register_buffer("active_scales", torch.tensor(shape.num_scales))
        self.size_multiple = 2 ** (shape.num_downsamplings + shape.num_scales - 1)
        initialize(self)
        if shape.kind == "compact":  # this and the discriminator on features begin with weights of their own
            generator = _compact(config)
            self.generator.append(generator)
            self.size_multiple = generator.size_multiple
        self.features = feature_adversary(config.features, config.channels_per_frame, config.num_labels, has_clips=True)

    @property
    def num_active_scales(self) -> int:
        """Generator scales that have grown."""
        return int(self.active_scales)

    # -- generating frames --------------------------------------------------------------------------------------------

    def prime(self, condition: Condition, frames: Tensor) -> Vid2VidCarry | None:
        if self.num_past_frames == 0:
            return None
        encoded = self._encode_for_generator(condition)
        past = self._fill_past(frames.float())
        scales = _frame_pyramid(past, self.num_active_scales)
        return Vid2VidCarry(self._fill_past(encoded), tuple(scales), frames.shape[1], None)

    def translate(self, condition: Condition, carry: Vid2VidCarry | None = None) -> tuple[Output, Vid2VidCarry]:
        return self._generate(self._encode_for_generator(condition), carry, self.num_active_scales)

    def first_state(self, size: tuple[int, int]) -> dict[str, Tensor]:
        """The last K moments as they were read, the last K frames of every scale, and how many frames there have been."""
        past = self.num_past_frames
        if not past:
            return {}
        moments = {
            item.name: torch.zeros(1, past, *size, dtype=torch.int64)
            if item.kind in ("labels", "instances")
            else torch.zeros(1, past, item.channels, *size)
            for item in self.config.frame_inputs()
        }
        scales = _frame_pyramid(torch.zeros(1, past, 3, *size), self.num_active_scales)
        generated = {f"generated_{scale}": frames for scale, frames in enumerate(scales)}
        anchors: dict[str, Tensor] = {}
        if self._has_anchor:
            anchors = {f"anchor_{name}": part for name, part in Anchor.none(scales[-1][:, 0])._asdict().items()}
        begun = {f"past_{name}": value for name, value in moments.items()}
        return {**begun, **generated, **anchors, "num_frames": torch.zeros(1).long()}

    def step(self, condition: Condition, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.num_past_frames:
            return super().step(condition, state)
        begins = (state["num_frames"] == 0).view(1, 1, 1, 1)
        window, after = {}, {}
        for name in (item.name for item in self.config.frame_inputs()):
            now, before = condition.tensors[name], state[f"past_{name}"]
            window[name] = torch.cat([torch.where(begins.view(*[1] * before.ndim), now, before), now], dim=1)
            after[f"past_{name}"] = window[name][:, 1:]
        past = [state[f"generated_{scale}"] for scale in range(self.num_active_scales)]
        anchor = Anchor(*(state[f"anchor_{name}"] for name in Anchor._fields)) if self._has_anchor else None
        generated = self._generate_frame(self._encode_for_generator(Condition(**window)), past, 1, None, begins, anchor)
        if generated[-1].anchor is not None:
            after |= {f"anchor_{name}": part for name, part in generated[-1].anchor._asdict().items()}
        for scale, frames in enumerate(past):
            frame = generated[scale].frame.unsqueeze(1)
            later = torch.cat([frames[:, 1:], frame], dim=1)
            repeats = self.config.first_frame == "real"
            after[f"generated_{scale}"] = torch.where(begins.unsqueeze(1), frame, later) if repeats else later
        return generated[-1].frame.unsqueeze(1), {**after, "num_frames": state["num_frames"] + 1}

    def rollout(self, batch: Batch, step: Step, carry: Vid2VidCarry | None = None) -> tuple[Output, Vid2VidCarry]:
        encoded = self._encode_for_generator(batch.window_condition)
        training = _Training(step.stage, self.config.past, self._draw_fresh(batch))
        output, after = self._generate(encoded, carry, step.stage.num_active_scales, training)
        if training.fresh is not None:
            output.extras["fresh"] = training.fresh
        frames = output.frames.detach()
        history = frames if output.history is None else torch.cat([output.history, frames], dim=1)
        return output, replace(after, history=history[:, -self._reach :] if self._reach else None)

    def _draw_fresh(self, batch: Batch) -> Tensor | None:
        """Which clips of a first window start from nothing although their first frames are known: bool [B,1,1,1]."""
        share = self.config.past.from_nothing
        if not share or not batch.primer_frames or batch.start != batch.primer_frames:
            return None
        return torch.rand(len(batch.target), 1, 1, 1, device=batch.target.device) < share

    def _generate(
        self, encoded: Tensor, carry: Vid2VidCarry | None, num_scales: int, training: _Training | None = None
    ) -> tuple[Output, Vid2VidCarry]:
        carry = carry or self._start(encoded, num_scales)
        past, num_frames, anchor = list(carry.past), carry.num_frames, carry.anchor
        window = torch.cat([carry.condition, encoded], dim=1)
        compositions: list[Composition] = []
        previous: list[Tensor] = []
        fresh = training.fresh if training is not None else None
        if fresh is not None:
            past = [torch.where(fresh.unsqueeze(1), torch.zeros_like(frames), frames) for frames in past]
        for time in range(encoded.shape[1]):
            if training is None or time % training.stage.backpropagate_frames == 0:
                past = [frames.detach() for frames in past]
                anchor = None if anchor is None else anchor.detach()
            seen = window[:, time : time + self.num_past_frames + 1]
            previous.append((past[-1][:, -1] if self.num_past_frames else torch.zeros_like(encoded[:, 0, :3])).detach())
            begins = fresh if time == 0 else None
            generated = self._generate_frame(seen, past, num_frames, training, begins, anchor)
            compositions.append(generated[-1])
            anchor = generated[-1].anchor
            if self.num_past_frames:
                past = [self._append(frames, step.frame, num_frames, begins) for frames, step in zip(past, generated, strict=True)]
            num_frames += 1
        output = Output(
            frames=torch.stack([step.frame for step in compositions], dim=1),
            raw=_stacked([step.raw for step in compositions]) if compositions[0].flow is not None else None,
            flow=_stacked([step.flow for step in compositions]),
            mask=_stacked([step.mask for step in compositions]),
            previous=torch.stack(previous, dim=1) if self.num_past_frames else None,
            history=carry.history,
        )
        kept = window[:, window.shape[1] - self.num_past_frames :]
        return output, Vid2VidCarry(kept, tuple(past), num_frames, carry.history, anchor)

    def _generate_frame(
        self,
        seen: Tensor,
        past: list[Tensor],
        num_frames: int,
        training: _Training | None,
        fresh: Tensor | None,
        anchor: Anchor | None,
    ) -> list[Composition]:
        """One frame at every active scale, coarsest first. `seen` is the condition window [B,K+1,C,H,W], as it was encoded for
        the generator.
        """
        active = len(past) if self.num_past_frames else (training.stage.num_active_scales if training else self.num_active_scales)
        windows: Sequence[Tensor | LabelWindow]
        if self._looks_up:
            extras = seen[:, :, 1:].flatten(1, 2) if self._extras else None
            windows = [LabelWindow(seen[:, :, 0].long(), extras)]
        else:
            windows = pyramid(seen.flatten(1, 2), active)
        masks = pyramid(self._foreground_mask(seen[:, -1]), active) if self.config.generator.foreground_labels else [None] * active
        raw_only = _raw_only(len(seen), num_frames, seen.device, training)
        if fresh is not None:
            raw_only = fresh if raw_only is None else fresh | raw_only
        hidden = raw_only if self.config.generator.kind == "published" else None  # the compact one learns flow from it all the same
        generated: list[Composition] = []
        for scale in range(active):
            before = _corrupt(past[scale], hidden, training).flatten(1, 2) if self.num_past_frames else None
            network = self.generator[scale]
            further: dict[str, Any] = {}
            if isinstance(network, CompactGenerator):
                further = {"anchor": anchor, "noise_shift": draw_noise_shift() if training is not None else (0, 0)}
            learns = any(parameter.requires_grad for parameter in network.parameters())
            with torch.set_grad_enabled(torch.is_grad_enabled() and (learns or bool(generated))):
                step = network(
                    windows[scale],
                    before,
                    raw_only=raw_only,
                    foreground_mask=masks[scale],
                    coarse=generated[-1] if generated else None,
                    **further,
                )
            generated.append(step)
        return generated

    @property
    def _has_anchor(self) -> bool:
        return any(network.has_anchor for network in self.generator if isinstance(network, CompactGenerator))

    def _encode(self, condition: Condition, *, as_ids: bool = False) -> Tensor:
        config = self.config
        return encode(condition, num_labels=config.num_labels, use_instances=config.use_instances, as_ids=as_ids)

    def _encode_for_generator(self, condition: Condition) -> Tensor:
        """As `_encode`, but where the generator looks classes up, ids stand in place of one-hot channels."""
        return self._encode(condition, as_ids=self._looks_up)

    @property
    def _extras(self) -> int:
        """Channels of the condition beside the labels."""
        return self.config.condition_channels + self.config.use_instances

    @property
    def _looks_up(self) -> bool:
        """Whether the generator takes ids: to the compact one, one-hot channels of many classes cost a tenth of an update."""
        return self.config.generator.kind == "compact" and self.config.num_labels > 0

    def _foreground_mask(self, encoded: Tensor) -> Tensor:
        if self._looks_up:
            ids = torch.stack([encoded[:, :1] == label for label in self.config.generator.foreground_labels])
            return ids.any(0).float()
        return encoded[:, list(self.config.generator.foreground_labels)].sum(1, keepdim=True).clamp(0, 1)

    def _start(self, encoded: Tensor, num_scales: int) -> Vid2VidCarry:
        """The carry before the first frame: the condition's first frame repeated, zeros for the missing past."""
        batch, _, _, height, width = encoded.shape
        condition = encoded[:, :1].expand(-1, self.num_past_frames, -1, -1, -1)
        past: list[Tensor] = []
        if self.num_past_frames:
            past = _frame_pyramid(encoded.new_zeros(batch, self.num_past_frames, 3, height, width), num_scales)
        return Vid2VidCarry(condition, tuple(past), 0, None)

    def _fill_past(self, frames: Tensor) -> Tensor:
        """The last K frames; where there are fewer, the earliest is repeated."""
        frames = frames[:, -self.num_past_frames :]
        missing = self.num_past_frames - frames.shape[1]
        return torch.cat([frames[:, :1]] * missing + [frames], dim=1)

    def _append(self, past: Tensor, frame: Tensor, num_frames: int, fresh: Tensor | None) -> Tensor:
        """The past one frame later. A video that started from nothing repeats its first frame unless it was trained on zeros."""
        repeated = frame.unsqueeze(1).expand(-1, self.num_past_frames, -1, -1, -1)
        if num_frames == 0 and self.config.first_frame == "real":
            return repeated
        later = torch.cat([past[:, 1:], frame.unsqueeze(1)], dim=1)
        return later if fresh is None else torch.where(fresh.unsqueeze(1), repeated, later)

    @property
    def _reach(self) -> int:
        """Generated frames that the temporal discriminators look back."""
        discriminating = self.config.discriminators
        if discriminating.num_temporal_scales == 0:
            return 0
        frames = discriminating.num_temporal_frames
        reach: int = frames ** (discriminating.num_temporal_scales - 1) * (frames - 1)
        return reach

    # -- learning -----------------------------------------------------------------------------------------------------

    def begin(self, stage: Stage) -> None:
        self.active_scales.fill_(stage.num_active_scales)

    @property
    def per_class_parameters(self) -> frozenset[str]:
        return compact.per_class_parameters(self)

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        generators = list(self.generator)[: stage.num_active_scales]
        if stage.learning == "finest":
            generators = generators[-1:]
        slow, fast, betas = (0.5, 2.0, (0.0, 0.9)) if self.config.two_time_scales else (1.0, 1.0, (0.5, 0.999))
        discriminating = OptimizerSettings(fast, betas)
        phases = [Phase("generator", tuple(generators), OptimizerSettings(slow, self._generator_betas or betas))]
        if stage.adversarial == (0.0, 0.0):
            return tuple(phases)
        phases += feature_phases(self.config.features, self.features)
        if self.discriminator is not None:
            phases.append(Phase("discriminator", (self.discriminator,), discriminating))
        if self.region_discriminator is not None:
            phases.append(Phase("region", (self.region_discriminator,), discriminating))
        for scale, network in enumerate(self.temporal_discriminators):
            phases.append(Phase(f"temporal_discriminator_{scale}", (network,), scale=scale))
        return tuple(phases)

    def applies(self, phase: Phase, batch: Batch) -> bool:
        if phase.name == "feature_discriminator":
            assert self.features is not None
            return self.features.judges(batch.stop - batch.start)
        return phase.modules[0] not in set(self.temporal_discriminators) or bool(self._windows(phase.scale, batch))

    def losses(self, phase: Phase, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        num_scales = self._num_discriminated_scales(step.stage)
        if phase.name == "generator":
            return self._generator_losses(step, batch, output, networks)
        if phase.name == "feature_discriminator":
            assert self.features is not None
            return self.features.discriminator_losses(*compared(self.config, batch, output), output, networks["efficientnet_lite0"])
        if phase.name == "discriminator":
            fakes, real = self._frame_pairs(batch, output, self._versions(output))
            return self._frame_adversary.discriminator_losses(fakes, real, num_scales=num_scales)
        if phase.name == "region":
            fake, real = self._region_inputs(batch, output)
            return self._region_adversary.discriminator_losses([fake], real)
        fake, real = self._temporal_inputs(phase.scale, batch, output, networks)
        return self._temporal_adversary(phase.scale).discriminator_losses([fake], real, num_scales=num_scales)

    def calibrate(self, batches: Iterable[Batch], networks: Networks) -> None:
        if self.features is not None:
            frames = (fold_time(batch.target) for batch in batches)
            self.features.calibrate(frames, networks["efficientnet_lite0"])

    @property
    def _generator_betas(self) -> tuple[float, float] | None:
        return ADAM_BETAS if self.config.generator.kind == "compact" else None

    @property
    def _frame_adversary(self) -> Adversary:
        weights = self.config.losses
        assert self.discriminator is not None
        objective = self.config.discriminators.objective
        return Adversary(self.discriminator, objective, weights.gan_weight, weights.feature_matching_weight)

    @property
    def _region_adversary(self) -> Adversary:
        """Its feature matching counts per scale of the discriminator of whole frames."""
        region, weights, shape = self.config.discriminators.region, self.config.losses, self.config.discriminators
        assert region is not None
        assert self.region_discriminator is not None
        share = len(self.region_discriminator.scales) / shape.num_scales
        return Adversary(
            self.region_discriminator,
            shape.objective,
            region.weight * weights.gan_weight,
            region.weight * weights.feature_matching_weight * share,
            prefix="region_",
        )

    def _temporal_adversary(self, scale: int) -> Adversary:
        weights = self.config.losses
        return Adversary(
            self.temporal_discriminators[scale],
            self.config.discriminators.objective,
            weights.temporal_gan_weight,
            weights.feature_matching_weight,
            prefix="temporal_",
            suffix=f"_{scale}",
        )

    def _generator_losses(self, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        weights = self.config.losses
        num_scales, factor = self._num_discriminated_scales(step.stage), step.between(step.stage.adversarial)
        real = fold_time(batch.window_target)
        fakes = self._versions(output)
        losses: Losses = {}
        if self.discriminator is not None and factor:
            pairs, real_pair = self._frame_pairs(batch, output, fakes)
            losses |= self._frame_adversary.generator_losses(pairs, real_pair, num_scales=num_scales, factor=factor)
        if self.features is not None:
            backbone = networks["efficientnet_lite0"]
            losses |= self.features.generator_losses(*compared(self.config, batch, output), output, backbone, factor=factor)
        if weights.perceptual_weight:
            terms = [perceptual(networks["vgg19"], frames, real) for frames in fakes]
            losses["perceptual"] = weights.perceptual_weight * torch.stack(terms).sum()
        if weights.l1_weight:
            losses["l1"] = weights.l1_weight * torch.stack([(frames.float() - real).abs().mean() for frames in fakes]).sum()
        losses |= self._motion_losses(step, batch, output)
        if self.region_discriminator is not None and factor:
            fake, truth = self._region_inputs(batch, output)
            losses |= self._region_adversary.generator_losses([fake], truth, factor=factor)
        for scale in range(len(self.temporal_discriminators)):
            if factor and self._windows(scale, batch):
                fake, truth = self._temporal_inputs(scale, batch, output, networks)
                adversary = self._temporal_adversary(scale)
                losses |= adversary.generator_losses([fake], truth, num_scales=num_scales, factor=factor)
        return losses

    def _motion_losses(self, step: Step, batch: Batch, output: Output) -> Losses:
        """Losses of flow, mask and warped past; see `LossWeights` for what each compares."""
        if output.previous is None or batch.flow is None or batch.confidence is None:
            return {}
        weights, losses = self.config.losses, {}
        reference = batch.flow[:, batch.start : batch.stop].flatten(0, 1)
        confidence = batch.confidence[:, batch.start : batch.stop].flatten(0, 1)
        real, frames = fold_time(batch.window_target), fold_time(output.frames)
        if weights.warp_weight and (step.stage.uses_past or self.config.generator.kind == "published"):
            warped = warp(fold_time(output.previous), reference)
            losses["warp"] = weights.warp_weight * masked_l1(frames, warped, _without_fresh(confidence, output))
        if output.flow is None or output.mask is None:
            return losses
        flow = fold_time(output.flow)
        losses["flow"] = weights.flow_weight / 2 ** (step.stage.num_active_scales - 1) * masked_l1(flow, reference, confidence)
        moved = warp(fold_time(batch.previous_target), flow)
        losses["flow_warp"] = weights.flow_warp_weight * masked_l1(moved, real, confidence)
        if weights.mask_weight:
            mask = fold_time(output.mask)
            losses["mask"] = weights.mask_weight * masked_l1(mask, torch.zeros_like(mask), confidence)
        return losses

    def _region_inputs(self, batch: Batch, output: Output) -> tuple[Tensor, Tensor]:
        """The square around the region of each frame, generated and real, under its condition: [N, C+3, side, side].

        Of a frame without the region its middle is taken, so that all processes take equally many.
        """
        condition = self._condition(batch, output)
        side = min(max(16, condition.shape[-1] // 32 * 8), condition.shape[-2])
        crops: tuple[list[Tensor], list[Tensor]] = ([], [])
        pictures = (fold_time(output.frames), fold_time(batch.window_target))
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

    def _frame_pairs(self, batch: Batch, output: Output, versions: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """What the discriminator of frames sees: every generated version, and the ground truth, [N,C+3,H,W] each."""
        condition = self._condition(batch, output)
        fakes = [torch.cat([condition, frames], dim=1) for frames in versions]
        return fakes, torch.cat([condition, fold_time(batch.window_target)], dim=1)

    def _condition(self, batch: Batch, output: Output) -> Tensor:
        """Of the generated frames, [N,C,H,W] with one-hot labels; made once for all discriminators of an update."""
        if "condition" not in output.extras:
            output.extras["condition"] = fold_time(self._encode(batch.window_condition))
        condition: Tensor = output.extras["condition"]
        return condition

    def _versions(self, output: Output) -> list[Tensor]:
        """The generated frames and, of the published generator, those before blending, [N,3,H,W] each."""
        raw = output.raw if self.config.generator.kind == "published" else None
        return [fold_time(frames) for frames in (output.frames, raw) if frames is not None]

    def _num_discriminated_scales(self, stage: Stage) -> int:
        shape = self.config
        return max(1, shape.discriminators.num_scales - (shape.generator.num_scales - stage.num_active_scales))

    def _windows(self, scale: int, batch: Batch) -> list[tuple[int, ...]]:
        discriminating = self.config.discriminators
        return temporal_windows(
            batch.start - batch.primer_frames,
            batch.stop - batch.start,
            num_frames=discriminating.num_temporal_frames,
            scale=scale,
            num_scales=discriminating.num_temporal_scales,
            mode=discriminating.temporal_windows,
        )

    def _temporal_inputs(self, scale: int, batch: Batch, output: Output, networks: Networks) -> tuple[Tensor, Tensor]:
        """What the temporal discriminator at `scale` sees: generated and real windows [N, 3*tD + 2*(tD-1), H, W].

        Both carry the same reference flows, divided by 20.
        """
        windows = self._windows(scale, batch)
        real = batch.target[:, batch.primer_frames :]
        generated = output.frames if output.history is None else torch.cat([output.history, output.frames], dim=1)
        forgotten = batch.stop - batch.primer_frames - generated.shape[1]
        inputs: tuple[list[Tensor], list[Tensor]] = ([], [])
        for window in windows:
            flows = self._window_flows(window, scale, batch, real, networks) / composite.FLOW_SCALE
            for collected, frames in zip(
                inputs, (generated[:, [frame - forgotten for frame in window]], real[:, list(window)]), strict=True
            ):
                collected.append(torch.cat([frames.flatten(1, 2), flows], dim=1))
        return torch.cat(inputs[0]), torch.cat(inputs[1])

    def _window_flows(self, window: tuple[int, ...], scale: int, batch: Batch, real: Tensor, networks: Networks) -> Tensor:
        """Reference flows between the frames of a window, [B, 2*(tD-1), H, W]: known ones at stride 1, else estimated anew."""
        if scale == 0 and batch.flow is not None:
            return batch.flow[:, [frame + batch.primer_frames for frame in window[1:]]].flatten(1, 2)
        later, earlier = real[:, list(window[1:])], real[:, list(window[:-1])]
        flow = networks["flow"](later.flatten(0, 1), earlier.flatten(0, 1))
        return flow.unflatten(0, later.shape[:2]).flatten(1, 2)


def _published_scales(config: Config) -> list[nn.Module]:
    """The paper's generators, coarsest first."""
    shape = config.generator
    num_past_frames = config.num_input_frames - 1
    window_channels = config.channels_per_frame * config.num_input_frames
    common: dict[str, Any] = {
        "norm": shape.norm,
        "upsampling": shape.upsampling,
        "use_flow": shape.flow == "learned",
        "use_foreground": bool(shape.foreground_labels),
    }
    sizes = (shape.base_channels, shape.num_downsamplings, shape.num_blocks)
    scales: list[nn.Module] = [CompositeGenerator(window_channels, 3 * num_past_frames, *sizes, **common)]
    for scale in range(1, shape.num_scales):
        common |= {"scale": scale, "narrow_foreground": shape.num_downsamplings > 2}
        width = shape.base_channels // 2**scale
        scales.append(LocalCompositeGenerator(window_channels, 3 * num_past_frames, width, shape.num_local_blocks, **common))
    return scales


def _compact(config: Config) -> CompactGenerator:
    shape = config.generator
    return CompactGenerator(
        config.num_labels,
        config.channels_per_frame - config.num_labels,
        num_condition_frames=config.num_input_frames,
        num_past_frames=config.num_input_frames - 1,
        widths=default_widths(shape.num_levels, shape.width),
        num_blocks=default_blocks(shape.num_levels),
        use_flow=shape.flow == "learned",
        use_foreground=bool(shape.foreground_labels),
        max_generated=shape.max_generated,
        anchor_frames=shape.anchor_frames,
        past_tolerance=shape.past_tolerance,
        past_enlargement=shape.past_enlargement,
    )


def _without_fresh(confidence: Tensor, output: Output) -> Tensor:
    """The confidence [N,1,H,W], zero where a clip started from nothing, so that there is no frame to compare with."""
    fresh = output.extras.get("fresh")
    if fresh is None:
        return confidence
    confidence = confidence.unflatten(0, output.frames.shape[:2]).clone()
    confidence[:, 0] *= ~fresh
    return confidence.flatten(0, 1)


def _stacked(values: Sequence[Tensor | None]) -> Tensor | None:
    """One per frame -> [B,T,...]; None where there are none."""
    present = [value for value in values if value is not None]
    return torch.stack(present, dim=1) if present else None


def _frame_pyramid(frames: Tensor, num_scales: int) -> list[Tensor]:
    """[B,T,C,H,W] at every scale, coarsest first."""
    return [level.unflatten(0, frames.shape[:2]) for level in pyramid(fold_time(frames), num_scales)]


def _raw_only(batch: int, num_frames: int, device: torch.device, training: _Training | None) -> Tensor | None:
    """Which samples have no past: all at the start of a video; in training some by dropout, or all; bool [B,1,1,1]."""
    if num_frames == 0 or (training is not None and not training.stage.uses_past):
        return torch.ones(batch, 1, 1, 1, dtype=torch.bool, device=device)
    if training is not None and training.past.dropout > 0:
        return torch.rand(batch, 1, 1, 1, device=device) < training.past.dropout
    return None


def _corrupt(past: Tensor, raw_only: Tensor | None, training: _Training | None) -> Tensor:
    if training is not None and training.past.noise > 0:
        past = past + torch.randn_like(past) * training.past.noise
    if raw_only is not None:
        past = torch.where(raw_only.unsqueeze(1), torch.zeros_like(past), past)
    return past


def _start_of_square(places: list[int], side: int, length: int) -> int:
    """First row or column of a square of `side` centred on `places` and kept inside 0..length-1."""
    centre = (places[0] + places[-1]) // 2 if places else length // 2
    return min(max(0, centre - side // 2), length - side)


def temporal_windows(
    first: int, count: int, *, num_frames: int, scale: int, num_scales: int, mode: Literal["dense", "sparse"] = "dense"
) -> list[tuple[int, ...]]:
    """Frames of a clip that the temporal discriminator at `scale` sees once frames first..first+count-1 are new, as windows, the
    newest first.

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


def build(config: Config, networks: Networks | None = None) -> Vid2Vid:
    """An untrained model.

    Raises:
        ConfigError: it has no condition to read, or foreground classes that do not exist.
    """
    config.check_condition()
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
    for index, schedule in enumerate(config.schedules):
        active = shape.num_scales - len(config.schedules) + 1 + index
        growth = range(0, schedule.total_epochs, schedule.grow_every_epochs)
        for start, stop in schedule.stretches(*growth, schedule.frame_only_epochs, schedule.finest_only_epochs):
            doubled = 2 ** (start // schedule.grow_every_epochs)
            window = min(schedule.max_window_frames, schedule.window_frames * doubled)
            limit = min(schedule.max_backpropagate_frames, doubled)
            finest_only = active > 1 and start < schedule.finest_only_epochs
            uses_past = start >= schedule.frame_only_epochs
            clip = min(schedule.max_clip_frames, schedule.clip_frames * doubled)
            if shape.kind == "compact" and not uses_past:
                clip = 1  # its flow learns from the real frames before it
            notes = ", finest scale only" * finest_only + ", without past" * (not uses_past)
            result.append(
                schedule.stage(
                    f"{active} scale{'s' * (active > 1)}, clips of {clip}{notes}",
                    start,
                    stop,
                    steps_per_epoch,
                    clip_frames=clip,
                    window_frames=min(window, clip),
                    backpropagate_frames=min(window, clip) // math.ceil(min(window, clip) / limit),
                    num_active_scales=active,
                    size_divisor=2 ** (shape.num_scales - active),
                    learning="finest" if finest_only else "all",
                    uses_past=uses_past,
                )
            )
    return tuple(result)
