"""pix2pix: pictures from pictures, by a U-Net and a judge of patches.

Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, and facts of the authors'
release. Where we differ on purpose: learning rates decay by the step; which statistics and whether dropout is used at test is said
by the configuration; the dropout's zeros depend on the seed alone, so a video does not flicker from them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.config import Settings
from vidgen.errors import ConfigError
from vidgen.networks import coarse_to_fine, discriminators, unet
from vidgen.networks.coarse_to_fine import GlobalGenerator
from vidgen.networks.discriminators import PatchDiscriminator, PixelDiscriminator
from vidgen.networks.encoding import encode
from vidgen.networks.layers import BatchNorm, NoiseDropout, NormKind, frame_by_frame, initialize
from vidgen.networks.losses import CriticObjective, adversarial, gradient_penalty
from vidgen.networks.unet import UNet
from vidgen.translators.base import Teachers, Translator
from vidgen.types import Batch, Condition, Losses, Output, Phase, Stage

RENAMES = {
    "unet": unet.rename_original,
    "resnet": coarse_to_fine.rename_global,
    "discriminator": discriminators.rename_pix2pix,
}
"""What to rename in the published files: `net_G` of either kind fills `generator`, `net_D` `discriminator`."""

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


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
    """The judge: of patches (70x70 pixels for 3 layers) or of single pixels."""

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


class Schedule(Settings):
    """How long it learns; an epoch is one pass over the pictures unless `train.steps_per_epoch` says otherwise."""

    epochs: Annotated[int, Field(ge=0)] = 100
    """Epochs at the full learning rate."""
    decay_epochs: Annotated[int, Field(ge=0)] = 100
    """Epochs over which it falls to zero."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4


class Config(Settings):
    """A pix2pix model."""

    kind: Literal["pix2pix"] = "pix2pix"
    num_labels: Annotated[int, Field(ge=0)] = 0
    """Classes of the label maps; 0 where the condition is pictures."""
    condition_channels: Annotated[int, Field(ge=0)] = 0
    """Channels of condition pictures (1 for edges, 3 for each picture); 0 where it is labels."""
    use_instances: bool = False
    """Read instance maps too, as boundary edges."""
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    losses: LossWeights = LossWeights()
    schedule: Schedule = Schedule()
    statistics_at_test: Literal["batch", "running"] = "batch"
    """Batch norm at test normalises by the picture's own statistics, as published, or by the averages of training."""
    dropout_at_test: bool = True
    """Keep dropout at test, as published; results then differ by the seed."""

    @property
    def channels_per_frame(self) -> int:
        return self.num_labels + self.condition_channels + int(self.use_instances)


class Pix2Pix(Translator):
    """The generator with its judge."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = _generator(config)
        self.discriminator = _discriminator(config)
        self.size_multiple = 2**config.generator.depth
        for part in self.generator.modules():
            if isinstance(part, BatchNorm):
                part.statistics_in_use = config.statistics_at_test
        drops = [part for part in self.generator.modules() if isinstance(part, NoiseDropout)]
        for place, part in enumerate(drops):
            part.is_noise, part.place = config.dropout_at_test, place
        initialize(self, zero_biases=True)

    def translate(self, condition: Condition, carry: Any = None) -> tuple[Output, None]:
        return Output(frame_by_frame(self.generator, self._encode(condition), together=self.training)), None

    def _encode(self, condition: Condition) -> Tensor:
        return encode(condition, num_labels=self.config.num_labels, use_instances=self.config.use_instances)

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        return Phase("discriminator", (self.discriminator,)), Phase("generator", (self.generator,))

    def losses(self, phase: Phase, batch: Batch, output: Output, teachers: Teachers) -> Losses:
        condition = self._encode(batch.window_condition).flatten(0, 1)
        made, real = output.frames.flatten(0, 1), batch.window_target.flatten(0, 1)
        weights, objective = self.config.losses, self.config.discriminator.objective
        if phase.name == "generator":
            gan = adversarial(self._judge(torch.cat([condition, made], 1)), real=True, learner="generator", objective=objective)
            return {"gan": weights.gan_weight * gan, "l1": weights.l1_weight * F.l1_loss(made, real)}
        judged = {False: torch.cat([condition, made.detach()], 1), True: torch.cat([condition, real], 1)}
        terms = {
            is_real: adversarial(self._judge(pair), real=is_real, learner="discriminator", objective=objective)
            for is_real, pair in judged.items()
        }
        losses = {"discriminator_real": 0.5 * terms[True], "discriminator_fake": 0.5 * terms[False]}
        if objective == "wasserstein":
            penalty = gradient_penalty(self._judge, judged[True], judged[False])
            losses["discriminator_penalty"] = weights.gradient_penalty_weight * penalty
        return losses

    def _judge(self, pairs: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(pairs)[-1]
        return logits


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


def build(config: Config) -> Pix2Pix:
    """An untrained model.

    Raises:
        ConfigError: it has no condition to read.
    """
    if config.channels_per_frame == 0:
        raise ConfigError("model: neither num_labels nor condition_channels is set; the model needs a condition")
    return Pix2Pix(config)


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """The published schedule: a constant learning rate, then one that falls to zero."""
    schedule = config.schedule
    rate = schedule.learning_rate
    constant = Stage("constant rate", schedule.epochs * steps_per_epoch, learning_rate=rate, final_learning_rate=rate)
    falling = Stage("falling rate", schedule.decay_epochs * steps_per_epoch, learning_rate=rate, final_learning_rate=0.0)
    return tuple(stage for stage in (constant, falling) if stage.num_steps)
