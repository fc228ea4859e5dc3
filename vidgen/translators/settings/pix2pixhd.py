"""What configurations say of pix2pixHD. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from vidgen.config import Settings
from vidgen.networks.choices import GanObjective, NormKind, Upsampling
from vidgen.translators.settings import ConditionalConfig, Count, FeatureSettings, ScaleSchedule, Weight
from vidgen.types import Input, Pretrained


class Generator(Settings):
    """The generator's shape."""

    kind: Literal["published", "compact"] = "published"
    """published: the paper's networks. compact: wide layers at a quarter of the size and below, modulated by the labels; it draws
    more in the same time on a processor, and of the settings below it reads only num_levels and width."""
    num_levels: Annotated[int, Field(ge=3, le=6)] = 4
    """Of the compact generator: halvings of the size; 4 up to 512x256, one more for each doubling."""
    width: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    """Of the compact generator: factor on the channels of all levels."""
    base_channels: Count = 64
    """Width of the global network after its first convolution; each enhancer has half of the one before."""
    num_downsamplings: Annotated[int, Field(ge=1, le=6)] = 4
    num_blocks: Count = 9
    """Residual blocks of the global network."""
    num_enhancers: Annotated[int, Field(ge=0, le=3)] = 0
    """Local enhancers, each of which doubles the size of the picture; 1 for 2048x1024."""
    num_local_blocks: Count = 3
    """Residual blocks of each enhancer."""
    norm: NormKind = "instance"
    upsampling: Upsampling = "transposed"


class Encoder(Settings):
    """The encoder of the styles of objects."""

    base_channels: Count = 16
    num_downsamplings: Annotated[int, Field(ge=1, le=6)] = 4
    num_features: Count = 3
    """Numbers that describe the style of an object."""
    regions: Literal["instances", "labels"] = "instances"
    """What has one style: every object, or every class."""


class Discriminators(Settings):
    """Discriminators of pictures at several sizes."""

    patch: bool = True
    """A multi-scale patch discriminator."""
    base_channels: Count = 64
    num_layers: Count = 3
    num_scales: Count = 2
    """Picture sizes that are discriminated when all enhancers have joined; 3 for 2048x1024."""
    norm: NormKind = "instance"
    use_spectral_norm: bool = False
    objective: GanObjective = "least_squares"
    pool_size: Annotated[int, Field(ge=0)] = 0
    """Size of the image history buffer (Shrivastava et al.); 0 for none."""


class LossWeights(Settings):
    """Weights of the loss terms; the defaults are the published ones."""

    gan_weight: Weight = 1.0
    feature_matching_weight: Weight = 10.0
    perceptual_weight: Weight = 10.0
    """Needs `train.pretrained.vgg19`, the file of a pretrained VGG-19; without one set this to 0."""
    l1_weight: Weight = 0.0
    """Plain L1 to the real picture; not in the original, useful where no perceptual weights are at hand."""
    gradient_weight: Weight = 0.0
    """L1 between the Sobel gradients of the generated and the real picture: edges in the same places."""


class Config(ConditionalConfig):
    """A pix2pixHD model."""

    renamed: ClassVar[Mapping[str, tuple[str, str]]] = {"growth": ("schedules", "0.3.0")}

    kind: Literal["pix2pixhd"] = "pix2pixhd"
    generator: Generator = Generator()
    encoder: Encoder | None = None
    """Learn a style for every object, to choose in use; none by default."""
    discriminators: Discriminators = Discriminators()
    losses: LossWeights = LossWeights()
    features: FeatureSettings | None = None
    """Losses and a discriminator on pretrained features; none in the original."""
    schedules: Annotated[tuple[ScaleSchedule, ...], Field(min_length=1)] = (ScaleSchedule(),)
    """One schedule per level that is grown, coarsest first; a single one trains all levels together."""

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        num_levels = self.generator.num_enhancers + 1
        if len(self.schedules) > num_levels:
            raise ValueError(f"schedules has {len(self.schedules)} entries for {num_levels} levels (generator.num_enhancers + 1)")
        if self.generator.kind == "compact" and self.generator.num_enhancers:
            raise ValueError("generator.kind: compact has no enhancers; set num_levels for larger pictures")
        if self.generator.base_channels % 2**self.generator.num_enhancers:
            raise ValueError("generator.base_channels must be divisible by 2^num_enhancers, since each enhancer halves it")
        return self

    def for_use(self) -> Config:
        discriminators = self.discriminators.model_copy(update={"patch": False, "pool_size": 0})
        return self.model_copy(update={"discriminators": discriminators, "features": None})


def inputs(config: Config) -> tuple[Input, ...]:
    """What it reads of every frame; with an encoder, the real picture in training and styles in use."""
    if config.encoder is None:
        return config.frame_inputs()
    styles = (
        Input("reference", "picture", 3, when="training"),
        Input("styles", "styles", config.encoder.num_features, when="use"),
    )
    return (*config.frame_inputs(), *styles)


def pretrained(config: Config) -> tuple[Pretrained, ...]:
    """VGG-19 for the perceptual loss, EfficientNet-Lite0 for losses on features."""
    networks = []
    if config.losses.perceptual_weight:
        networks.append(Pretrained("vgg19", "model.losses.perceptual_weight"))
    if config.features is not None:
        networks.append(Pretrained("efficientnet_lite0", "model.features"))
    return tuple(networks)
