"""pix2pix: pictures from pictures, by a U-Net and a patch discriminator.

Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, and facts of the authors'
release. Where we differ on purpose: learning rates decay by the step; which statistics and whether dropout is used at test is said
by the configuration; the dropout's zeros depend on the seed alone, so a video does not flicker from them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.config import Settings
from vidgen.networks import coarse_to_fine, discriminators, unet
from vidgen.networks.adversary import Adversary
from vidgen.networks.coarse_to_fine import GlobalGenerator
from vidgen.networks.discriminators import PatchDiscriminator, PixelDiscriminator
from vidgen.networks.encoding import encode, fold_time
from vidgen.networks.layers import BatchNorm, NoiseDropout, NormKind, frame_by_frame, initialize
from vidgen.networks.losses import CriticObjective
from vidgen.networks.noise import seed_of
from vidgen.networks.unet import UNet
from vidgen.translators.base import Carry, Networks, Translator
from vidgen.translators.settings import ConditionalConfig, Count, ScaleSchedule, Weight
from vidgen.types import Batch, Condition, Input, Losses, Output, Phase, Pretrained, Stage, Step

RENAMES = {
    "unet": unet.rename_original,
    "resnet": coarse_to_fine.rename_global,
    "discriminator": discriminators.rename_pix2pix,
}
"""What to rename in the published files: `net_G` of either kind fills `generator`, `net_D` `discriminator`."""


class Generator(Settings):
    """The generator's shape."""

    network: Literal["unet", "resnet"] = "unet"
    base_channels: Count = 64
    num_downsamplings: Annotated[int, Field(ge=1, le=10)] | None = None
    """8 for the U-Net (pictures of 256x256; 7 for 128x128), 2 for the ResNet by default."""
    num_blocks: Count = 9
    """Residual blocks of the ResNet."""
    norm: NormKind = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of values that dropout zeroes; it is the only noise the generator has."""

    @property
    def depth(self) -> int:
        """Number of down-samplings."""
        return self.num_downsamplings or (8 if self.network == "unet" else 2)


class Discriminator(Settings):
    """The discriminator: of patches (70x70 pixels for 3 layers) or of single pixels."""

    network: Literal["patch", "pixel"] = "patch"
    base_channels: Count = 64
    num_layers: Count = 3
    norm: NormKind = "batch"
    objective: CriticObjective = "vanilla"
    """"wasserstein" comes with a gradient penalty."""


class LossWeights(Settings):
    """Weights of the loss terms; the defaults are the published ones."""

    gan_weight: Weight = 1.0
    l1_weight: Weight = 100.0
    gradient_penalty_weight: Weight = 10.0
    """Of the Wasserstein objective."""


class Config(ConditionalConfig):
    """A pix2pix model."""

    renamed: ClassVar[Mapping[str, tuple[str, str]]] = {"statistics_at_test": ("batch_norm_at_test", "0.3.0")}

    kind: Literal["pix2pix"] = "pix2pix"
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    losses: LossWeights = LossWeights()
    schedule: ScaleSchedule = ScaleSchedule()
    batch_norm_at_test: Literal["batch", "running"] = "batch"
    """Batch norm at test normalises by the picture's own statistics, as published, or by the averages of training."""
    dropout_at_test: bool = True
    """Keep dropout at test, as published; results then differ by the seed."""

    @property
    def has_noise(self) -> bool:
        """Whether results depend on a seed."""
        return self.dropout_at_test and self.generator.dropout > 0


def inputs(config: Config) -> tuple[Input, ...]:
    """What it reads of every frame, and in use the seed of its dropout."""
    noise = (Input("noise", "noise", 1, per_frame=False, when="use"),) if config.has_noise else ()
    return (*config.frame_inputs(), *noise)


def pretrained(config: Config) -> tuple[Pretrained, ...]:
    """It needs none."""
    return ()


class Pix2Pix(Translator[Carry]):
    """The generator with its discriminator."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = _generator(config)
        self.discriminator = _discriminator(config)
        self.size_multiple = 2**config.generator.depth
        for part in self.generator.modules():
            if isinstance(part, BatchNorm):
                part.statistics_in_use = config.batch_norm_at_test
        drops = [part for part in self.generator.modules() if isinstance(part, NoiseDropout)]
        for index, part in enumerate(drops):
            part.layer_index = index
        initialize(self, zero_biases=True)

    def translate(self, condition: Condition, carry: Carry | None = None) -> tuple[Output, None]:
        seeds = condition.tensors.get("noise")
        seed = seed_of(seeds) if seeds is not None and self.config.has_noise else None
        return Output(frame_by_frame(functools.partial(self.generator, seed=seed), self._encode(condition))), None

    def rollout(self, batch: Batch, step: Step, carry: Carry | None = None) -> tuple[Output, None]:
        encoded = self._encode(batch.window_condition)
        frames = frame_by_frame(self.generator, encoded, together=True)
        return Output(frames, extras={"condition": fold_time(encoded)}), None

    def _encode(self, condition: Condition) -> Tensor:
        return encode(condition, num_labels=self.config.num_labels, use_instances=self.config.use_instances)

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        return Phase("discriminator", (self.discriminator,)), Phase("generator", (self.generator,))

    def losses(self, phase: Phase, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        condition: Tensor = output.extras["condition"]
        fake, real = fold_time(output.frames), fold_time(batch.window_target)
        pairs = torch.cat([condition, fake], 1), torch.cat([condition, real], 1)
        if phase.name == "discriminator":
            return self._adversary.discriminator_losses([pairs[0]], pairs[1])
        losses = self._adversary.generator_losses([pairs[0]], pairs[1], factor=step.between(step.stage.adversarial))
        return losses | {"l1": self.config.losses.l1_weight * F.l1_loss(fake, real)}

    @property
    def _adversary(self) -> Adversary:
        weights = self.config.losses
        return Adversary(
            self.discriminator,
            self.config.discriminator.objective,
            weights.gan_weight,
            penalty_weight=weights.gradient_penalty_weight,
        )


def _generator(config: Config) -> nn.Module:
    shape = config.generator
    sizes = (config.channels_per_frame, 3, shape.base_channels, shape.depth)
    if shape.network == "unet":
        return UNet(*sizes, norm=shape.norm, dropout=shape.dropout)
    bias = shape.norm == "instance"
    return GlobalGenerator(*sizes, shape.num_blocks, norm=shape.norm, dropout=shape.dropout, bias=bias)


def _discriminator(config: Config) -> nn.Module:
    shape, channels = config.discriminator, config.channels_per_frame + 3
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
    """The published schedule: a constant learning rate, then one that falls to zero."""
    schedule = config.schedule
    rate = schedule.learning_rate
    constant = Stage("constant rate", schedule.epochs * steps_per_epoch, learning_rate=rate, final_learning_rate=rate)
    falling = Stage("falling rate", schedule.decay_epochs * steps_per_epoch, learning_rate=rate, final_learning_rate=0.0)
    return tuple(stage for stage in (constant, falling) if stage.num_steps)
