"""style2paints V1: a line drawing in the colors of a reference picture.

Source: Zhang, Ji, Lin and Liu, "Style Transfer for Anime Sketches with Enhanced Residual U-net and Auxiliary Classifier GAN", ACPR
2017. The authors released neither code for training nor weights, and the paper states neither optimizer, schedule, data, nor the
weight of L1: all of these are choices made here. Where we differ on purpose: the discriminator's outputs are trained by binary
cross-entropy with the style as soft target, since equation 3 as printed drives all of them to 1 (`discriminator.objective: literal`
does what is printed); and its generator is asked to reach the outputs of the wanted style, not to raise all.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks.compact import ADAM_BETAS
from vidgen.networks.encoding import encode, fold_time
from vidgen.networks.feature_adversary import LITE0_CHANNELS
from vidgen.networks.style_adversary import StyleAdversary, StyleDiscriminator, StyleObjective, soft_targets
from vidgen.networks.style_compact import CompactPainter
from vidgen.networks.style_hints import HintEncoder, HintNorm, color_statistics, pooled_features, random_features
from vidgen.networks.style_unet import GuideDecoder, StyleUNet
from vidgen.translators.base import Networks, Translator, compared
from vidgen.translators.settings import feature_adversary, feature_phases
from vidgen.translators.settings.style2paints import (
    Config,
    Discriminator,
    EncoderName,
    Generator,
    Hint,
    LossWeights,
    inputs,
    pretrained,
)
from vidgen.types import Batch, Condition, Losses, OptimizerSettings, Output, Phase, Stage, Step

__all__ = [
    "RENAMES",
    "Config",
    "Discriminator",
    "Generator",
    "Hint",
    "LossWeights",
    "Style2Paints",
    "build",
    "inputs",
    "pretrained",
    "stages",
]

log = logging.getLogger(__name__)

RENAMES: dict[str, str] = {}
"""There are no published weights of this system."""

HINT_CHANNELS: dict[str, int] = {
    "efficientnet_lite0": 2 * sum(LITE0_CHANNELS),
    "vgg19_fc1": 4096,
    "color_statistics": 70,
    "random_features": 128,
}
_GRAY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class StyleCarry:
    """The hint [B,K] of a video, read from its style picture once."""

    hint: Tensor

    def detach(self) -> StyleCarry:
        return StyleCarry(self.hint.detach())


class Painter(nn.Module):
    """What use needs: one of the networks, and the normalization of its hints."""

    def __init__(self, norm: HintNorm, *, unet: StyleUNet | None = None, compact: CompactPainter | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.compact = compact
        self.norm = norm

    def forward(self, drawing: Tensor, hint: Tensor) -> Tensor:
        """[N,C,H,W] in -1..1, and normalized hints [N,K] -> [N,3,H,W] in -1..1."""
        network = self.compact or self.unet
        assert network is not None
        frame: Tensor = network(drawing, hint)
        return frame


class Style2Paints(Translator[StyleCarry]):
    """The generator with its guide decoders and its discriminator.

    Args:
        encoder: of hints; frozen, and no part of the weights.
    """

    generator: Painter

    def __init__(self, config: Config, encoder: HintEncoder) -> None:
        super().__init__()
        self.config = config
        self._encoder = (encoder,)  # in a tuple, so that a network is no submodule
        num_styles = HINT_CHANNELS[config.hint.encoder]
        self.generator = _painter(config, num_styles)
        self.size_multiple = 2**config.generator.num_levels
        self.gray_guide, self.color_guide = _guides(config, self.generator.unet)
        self.discriminator: StyleDiscriminator | None = None
        if config.discriminator is not None:
            judged = config.discriminator
            self.discriminator = StyleDiscriminator(
                num_styles if judged.has_styles else 0,
                base_channels=judged.base_channels,
                num_layers=judged.num_layers,
                norm=judged.norm,
                has_realness=judged.has_realness,
            )
        self.features = feature_adversary(config.features, config.channels_per_frame, config.num_labels)

    # -- use ------------------------------------------------------------------------------------------------------------

    def hint_of(self, pictures: Tensor) -> Tensor:
        """Normalized hints [N,K] of style pictures [N,3,S,S] in -1..1."""
        if pictures.is_meta:  # only shapes are asked for, and the encoder's weights are elsewhere
            return pictures.new_empty(len(pictures), HINT_CHANNELS[self.config.hint.encoder])
        with torch.no_grad():
            hints: Tensor = self.generator.norm(self._encoder[0](pictures))
        return hints

    def translate(self, condition: Condition, carry: StyleCarry | None = None) -> tuple[Output, StyleCarry]:
        carry = StyleCarry(self._hint(condition)) if carry is None else carry
        drawings = self._encode(condition)
        hints = carry.hint.repeat_interleave(drawings.shape[1], 0)
        pairs = zip(fold_time(drawings).split(1), hints.split(1), strict=True)  # one by one, so that no statistics mix them
        frames = torch.cat([self.generator(drawing, hint) for drawing, hint in pairs])
        return Output(frames.unflatten(0, drawings.shape[:2])), carry

    def _hint(self, condition: Condition) -> Tensor:
        style = condition.tensors.get("style")
        if style is None:
            raise ValueError("this model reads a style picture, but the condition has none")
        return self.hint_of(style)

    def _encode(self, condition: Condition) -> Tensor:
        return encode(condition, num_labels=self.config.num_labels, use_instances=self.config.use_instances)

    # -- learning -------------------------------------------------------------------------------------------------------

    def rollout(self, batch: Batch, step: Step, carry: StyleCarry | None = None) -> tuple[Output, None]:
        """All frames at once, with the pictures of the guide decoders in the extras."""
        condition = batch.window_condition
        drawings = self._encode(condition)
        hint = self._hint(condition).repeat_interleave(drawings.shape[1], 0)
        extras = {"hint": hint}
        if self.generator.compact is not None:
            frames = self.generator.compact.draw(fold_time(drawings), hint)
            return Output(frames.unflatten(0, drawings.shape[:2]), extras=extras), None
        assert self.generator.unet is not None
        painting = self.generator.unet.paint(fold_time(drawings), hint)
        if self.gray_guide is not None:
            extras["gray"] = self.gray_guide(painting.entry)
        if self.color_guide is not None:
            extras["color"] = self.color_guide(painting.exit)
        return Output(painting.frame.unflatten(0, drawings.shape[:2]), extras=extras), None

    def calibrate(self, batches: Iterable[Batch], networks: Networks) -> None:
        batches = list(batches)
        if self.config.hint.normalization == "data":
            # With their colors exchanged too: what is normal is more than the one look that many data sets have.
            orders = list(itertools.permutations(range(3)))
            with torch.no_grad():
                styles = [batch.condition.tensors["style"][:, order] for batch in batches for order in orders]
                self.generator.norm.measure(self._encoder[0](style) for style in styles)
        if self.features is not None:
            self.features.calibrate((fold_time(batch.target) for batch in batches), networks["efficientnet_lite0"])

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        guides = tuple(guide for guide in (self.gray_guide, self.color_guide) if guide is not None)
        betas = (0.5, 0.999) if self.generator.compact is None else ADAM_BETAS
        phases = [Phase("generator", (self.generator, *guides), OptimizerSettings(betas=betas))]
        if stage.adversarial == (0.0, 0.0):
            return tuple(phases)
        phases += feature_phases(self.config.features, self.features)
        if self.discriminator is not None:
            phases.append(Phase("discriminator", (self.discriminator,)))
        return tuple(phases)

    def losses(self, phase: Phase, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        fake, real = fold_time(output.frames), fold_time(batch.window_target)
        target, realness = soft_targets(output.extras["hint"]), self._plays_dcgan(step)
        if phase.name == "discriminator":
            return self._adversary.discriminator_losses(fake, real, target, realness=realness)
        if phase.name == "feature_discriminator":
            assert self.features is not None
            return self.features.discriminator_losses(*compared(self.config, batch, output), output, networks["efficientnet_lite0"])
        losses = self._likeness(fake, real, output)
        factor = step.between(step.stage.adversarial)
        if self.discriminator is not None and factor:
            losses |= self._adversary.generator_losses(fake, target, realness=realness, factor=factor)
        if self.features is not None:
            backbone = networks["efficientnet_lite0"]
            losses |= self.features.generator_losses(*compared(self.config, batch, output), output, backbone, factor=factor)
        return losses

    def _likeness(self, fake: Tensor, real: Tensor, output: Output) -> Losses:
        """L1 of the picture and of the guides, section 3.2 of the paper."""
        weights = self.config.losses
        losses: Losses = {"l1": weights.l1_weight * F.l1_loss(fake, real)}
        if "gray" in output.extras:
            wanted = gray(real) if weights.gray_guide_target == "gray" else real
            losses["gray_guide"] = weights.l1_weight * weights.gray_guide_weight * F.l1_loss(output.extras["gray"], wanted)
        if "color" in output.extras:
            losses["color_guide"] = weights.l1_weight * weights.color_guide_weight * F.l1_loss(output.extras["color"], real)
        return losses

    def _plays_dcgan(self, step: Step) -> bool:
        """Whether the discriminator tells real from generated in this step, rather than styles."""
        judged = self.config.discriminator
        if judged is None or not judged.has_styles:
            return True
        if not judged.switch_every:
            return False
        return round(step.progress * step.stage.num_steps) // judged.switch_every % 2 == 1

    @property
    def _adversary(self) -> StyleAdversary:
        judged = self.config.discriminator
        assert self.discriminator is not None
        assert judged is not None
        objective: StyleObjective = "bce" if judged.objective == "dcgan" else judged.objective
        return StyleAdversary(self.discriminator, objective, judged.generator == "match", self.config.losses.gan_weight)


def _painter(config: Config, num_styles: int) -> Painter:
    shape, norm = config.generator, HintNorm(num_styles, config.hint.normalization)
    if shape.network == "compact":
        return Painter(
            norm, compact=CompactPainter(config.channels_per_frame, num_styles, width=shape.width, num_levels=shape.num_levels)
        )
    unet = StyleUNet(
        config.channels_per_frame,
        num_styles,
        base_channels=shape.base_channels,
        mid_channels=shape.mid_channels,
        num_levels=shape.num_levels,
        skips=shape.skips,
        norm=shape.norm,
        upsampling=shape.upsampling,
    )
    return Painter(norm, unet=unet)


def _guides(config: Config, unet: StyleUNet | None) -> tuple[GuideDecoder | None, GuideDecoder | None]:
    """The gray and the color guide decoder of a U-Net; none where their weights are 0, and none of the compact generator."""
    if unet is None:
        return None, None
    shape, weights = config.generator, config.losses

    def guide(in_channels: int, out_channels: int) -> GuideDecoder:
        return GuideDecoder(in_channels, unet.exit_channels, shape.num_levels, out_channels, upsampling=shape.upsampling)

    gray_guide = guide(unet.entry_channels, 1 if weights.gray_guide_target == "gray" else 3) if weights.gray_guide_weight else None
    return gray_guide, guide(unet.exit_channels, 3) if weights.color_guide_weight else None


def gray(pictures: Tensor) -> Tensor:
    """[N,3,H,W] -> [N,1,H,W], ITU-R BT.601."""
    weights = torch.tensor(_GRAY, device=pictures.device, dtype=pictures.dtype).view(1, 3, 1, 1)
    return (pictures * weights).sum(1, keepdim=True)


def build(config: Config, networks: Networks | None = None) -> Style2Paints:
    """An untrained model.

    Args:
        networks: with the declared encoder of hints; without it the model cannot be used.

    Raises:
        ConfigError: it has no condition to read.
    """
    config.check_condition()
    if config.discriminator is not None and config.discriminator.objective == "literal":
        log.warning(
            "model.discriminator.objective: literal drives all outputs for real pictures to 1, whatever their style; bce does not"
        )
    if networks and config.hint.encoder != "vgg19_fc1":
        log.info(
            "style hints: %d numbers of %s; the paper's are 4096 of VGG-19 (model.hint.encoder: vgg19_fc1, with its file)",
            HINT_CHANNELS[config.hint.encoder],
            config.hint.encoder.replace("_", " "),
        )
    return Style2Paints(config, _encoder(config.hint.encoder, networks or {}))


def _encoder(name: EncoderName, networks: Networks) -> HintEncoder:
    if name == "color_statistics":
        return color_statistics
    if name == "random_features":
        return random_features

    def encoder(pictures: Tensor) -> Tensor:
        if name not in networks:
            raise ValueError(f"the encoder of style hints, {name}, is not loaded")
        if name == "efficientnet_lite0":
            return pooled_features(networks[name], pictures)
        hints: Tensor = networks[name](pictures)
        return hints

    return encoder


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """The schedule: one stage per stretch in which nothing changes its slope."""
    schedule = config.schedule
    return tuple(schedule.stage("painting", start, stop, steps_per_epoch) for start, stop in schedule.stretches())
