"""What configurations say of pix2pix. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from vidgen.config import Settings
from vidgen.networks.choices import CriticObjective, NormKind
from vidgen.translators.settings import ConditionalConfig, Count, FeatureSettings, ScaleSchedule, Weight
from vidgen.types import Input, Pretrained


class Generator(Settings):
    """The generator's shape."""

    network: Literal["unet", "resnet", "compact"] = "unet"
    """unet and resnet: the paper's networks. compact: wide layers at a quarter of the size and below, modulated by the condition;
    it draws more in the same time on a processor, has no dropout, and of the settings below it reads only width and
    num_downsamplings."""
    width: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    """Of the compact generator: factor on the channels of all levels."""
    base_channels: Count = 64
    num_downsamplings: Annotated[int, Field(ge=1, le=10)] | None = None
    """8 for the U-Net (pictures of 256x256; 7 for 128x128), 2 for the ResNet, 4 for the compact generator by default."""
    num_blocks: Count = 9
    """Residual blocks of the ResNet."""
    norm: NormKind = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of values that dropout zeroes; it is the only noise the generator has."""

    @property
    def depth(self) -> int:
        """Number of down-samplings."""
        return self.num_downsamplings or {"unet": 8, "resnet": 2, "compact": 4}[self.network]


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
    discriminator: Discriminator | None = Discriminator()
    """null for none."""
    losses: LossWeights = LossWeights()
    features: FeatureSettings | None = None
    """Losses and a discriminator on pretrained features; none in the original."""
    schedule: ScaleSchedule = ScaleSchedule()
    batch_norm_at_test: Literal["batch", "running"] = "batch"
    """Batch norm at test normalises by the picture's own statistics, as published, or by the averages of training."""
    dropout_at_test: bool = True
    """Keep dropout at test, as published; results then differ by the seed."""

    @property
    def has_noise(self) -> bool:
        """Whether results depend on a seed."""
        return self.dropout_at_test and self.generator.dropout > 0 and self.generator.network != "compact"

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.generator.network == "compact" and not 3 <= self.generator.depth <= 6:
            raise ValueError("generator.num_downsamplings: the compact generator has 3 to 6 of them")
        return self

    def for_use(self) -> Config:
        return self.model_copy(update={"discriminator": None, "features": None})


def inputs(config: Config) -> tuple[Input, ...]:
    """What it reads of every frame, and in use the seed of its dropout."""
    noise = (Input("noise", "noise", 1, per_frame=False, when="use"),) if config.has_noise else ()
    return (*config.frame_inputs(), *noise)


def pretrained(config: Config) -> tuple[Pretrained, ...]:
    """EfficientNet-Lite0 for losses on features."""
    return () if config.features is None else (Pretrained("efficientnet_lite0", "model.features"),)
