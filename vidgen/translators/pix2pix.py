"""pix2pix: pictures from pictures, by a U-Net and a patch discriminator.

Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, and facts of the authors'
release. Where we differ on purpose: learning rates decay by the step; which statistics and whether dropout is used at test is said
by the configuration; the dropout's zeros depend on the seed alone, so a video does not flicker from them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks import coarse_to_fine, compact, discriminators, unet
from vidgen.networks.adversary import Adversary
from vidgen.networks.coarse_to_fine import GlobalGenerator
from vidgen.networks.compact import ADAM_BETAS, CompactGenerator, default_blocks, default_widths, draw_noise_shift
from vidgen.networks.discriminators import PatchDiscriminator, PixelDiscriminator
from vidgen.networks.encoding import encode, fold_time
from vidgen.networks.layers import BatchNorm, NoiseDropout, frame_by_frame, initialize
from vidgen.networks.noise import seed_of
from vidgen.networks.unet import UNet
from vidgen.translators.base import Carry, Networks, Translator, compared
from vidgen.translators.settings import feature_adversary, feature_phases
from vidgen.translators.settings.pix2pix import Config, Discriminator, Generator, LossWeights, inputs, pretrained
from vidgen.types import Batch, Condition, Losses, OptimizerSettings, Output, Phase, Stage, Step

__all__ = ["RENAMES", "Config", "Generator", "LossWeights", "Pix2Pix", "build", "inputs", "pretrained", "stages"]

RENAMES = {
    "unet": unet.rename_original,
    "resnet": coarse_to_fine.rename_global,
    "discriminator": discriminators.rename_pix2pix,
}
"""What to rename in the published files: `net_G` of either kind fills `generator`, `net_D` `discriminator`."""


class Pix2Pix(Translator[Carry]):
    """The generator with its discriminator."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = _generator(config)
        self.discriminator = None if config.discriminator is None else _discriminator(config, config.discriminator)
        self.size_multiple = 2**config.generator.depth
        for part in self.generator.modules():
            if isinstance(part, BatchNorm):
                part.statistics_in_use = config.batch_norm_at_test
        drops = [part for part in self.generator.modules() if isinstance(part, NoiseDropout)]
        for index, part in enumerate(drops):
            part.layer_index = index
        if not isinstance(self.generator, CompactGenerator):  # which begins with weights of its own
            initialize(self.generator, zero_biases=True)
        if self.discriminator is not None:
            initialize(self.discriminator, zero_biases=True)
        self.features = feature_adversary(config.features, config.channels_per_frame, config.num_labels)

    def translate(self, condition: Condition, carry: Carry | None = None) -> tuple[Output, None]:
        seeds = condition.tensors.get("noise")
        seed = seed_of(seeds) if seeds is not None and self.config.has_noise else None
        draw = _compactly(self.generator) or functools.partial(self.generator, seed=seed)
        return Output(frame_by_frame(draw, self._encode(condition))), None

    def rollout(self, batch: Batch, step: Step, carry: Carry | None = None) -> tuple[Output, None]:
        encoded = self._encode(batch.window_condition)
        draw = _compactly(self.generator, training=True) or self.generator
        frames = frame_by_frame(draw, encoded, together=True)
        return Output(frames, extras={"condition": fold_time(encoded)}), None

    def _encode(self, condition: Condition) -> Tensor:
        return encode(condition, num_labels=self.config.num_labels, use_instances=self.config.use_instances)

    @property
    def per_class_parameters(self) -> frozenset[str]:
        return compact.per_class_parameters(self)

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        betas = ADAM_BETAS if isinstance(self.generator, CompactGenerator) else (0.5, 0.999)
        phases = [Phase("generator", (self.generator,), OptimizerSettings(betas=betas))]
        if stage.adversarial == (0.0, 0.0):
            return tuple(phases)
        if self.discriminator is not None:
            phases.insert(0, Phase("discriminator", (self.discriminator,)))
        phases += feature_phases(self.config.features, self.features)
        return tuple(phases)

    def calibrate(self, batches: Iterable[Batch], networks: Networks) -> None:
        if self.features is not None:
            frames = (fold_time(batch.target) for batch in batches)
            self.features.calibrate(frames, networks["efficientnet_lite0"])

    def losses(self, phase: Phase, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        condition: Tensor = output.extras["condition"]
        fake, real = fold_time(output.frames), fold_time(batch.window_target)
        pairs = torch.cat([condition, fake], 1), torch.cat([condition, real], 1)
        if phase.name == "discriminator":
            return self._adversary.discriminator_losses([pairs[0]], pairs[1])
        if phase.name == "feature_discriminator":
            assert self.features is not None
            return self.features.discriminator_losses(*compared(self.config, batch, output), output, networks["efficientnet_lite0"])
        factor = step.between(step.stage.adversarial)
        losses: Losses = {}
        if self.discriminator is not None and factor:
            losses |= self._adversary.generator_losses([pairs[0]], pairs[1], factor=factor)
        if self.features is not None:
            backbone = networks["efficientnet_lite0"]
            losses |= self.features.generator_losses(*compared(self.config, batch, output), output, backbone, factor=factor)
        return losses | {"l1": self.config.losses.l1_weight * F.l1_loss(fake, real)}

    @property
    def _adversary(self) -> Adversary:
        weights = self.config.losses
        assert self.discriminator is not None
        assert self.config.discriminator is not None
        return Adversary(
            self.discriminator,
            self.config.discriminator.objective,
            weights.gan_weight,
            penalty_weight=weights.gradient_penalty_weight,
        )


def _generator(config: Config) -> nn.Module:
    shape = config.generator
    if shape.network == "compact":
        extras = config.channels_per_frame - config.num_labels
        widths = default_widths(shape.depth, shape.width)
        return CompactGenerator(config.num_labels, extras, widths=widths, num_blocks=default_blocks(shape.depth))
    sizes = (config.channels_per_frame, 3, shape.base_channels, shape.depth)
    if shape.network == "unet":
        return UNet(*sizes, norm=shape.norm, dropout=shape.dropout)
    bias = shape.norm == "instance"
    return GlobalGenerator(*sizes, shape.num_blocks, norm=shape.norm, dropout=shape.dropout, bias=bias)


def _compactly(generator: nn.Module, *, training: bool = False) -> Callable[[Tensor], Tensor] | None:
    """The compact generator as a function of the encoded condition; None for the others."""
    if not isinstance(generator, CompactGenerator):
        return None
    return lambda encoded: generator(encoded, noise_shift=draw_noise_shift() if training else (0, 0)).frame


def _discriminator(config: Config, shape: Discriminator) -> nn.Module:
    channels = config.channels_per_frame + 3
    if shape.network == "pixel":
        return PixelDiscriminator(channels, shape.base_channels, norm=shape.norm)
    return PatchDiscriminator(
        channels,
        shape.base_channels,
        shape.num_layers,
        norm=shape.norm,
        padding=1,
        max_channels=8 * shape.base_channels,
        bias_before_norm=shape.norm == "instance",
    )


def build(config: Config, networks: Networks | None = None) -> Pix2Pix:
    """An untrained model.

    Raises:
        ConfigError: it has no condition to read.
    """
    config.check_condition()
    return Pix2Pix(config)


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """The published schedule is a constant learning rate, then one that falls to zero; one stage per stretch in which nothing
    bends.
    """
    schedule = config.schedule
    result = []
    for start, stop in schedule.stretches():
        first, last = schedule.rate(start), schedule.rate(stop)
        name = "constant rate" if first == last else "falling rate" if first > last else "rising rate"
        result.append(schedule.stage(name, start, stop, steps_per_epoch))
    return tuple(result)
