"""What configurations say of style2paints. Needs no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from vidgen.config import Settings
from vidgen.networks.choices import HintNormalization, NormKind, SkipKind, Upsampling
from vidgen.translators.settings import ConditionalConfig, Count, FeatureSettings, ScaleSchedule, Weight
from vidgen.types import Input, Pretrained

EncoderName = Literal["efficientnet_lite0", "vgg19_fc1", "color_statistics", "random_features"]


class Generator(Settings):
    """The network; the defaults are the figure's."""

    network: Literal["unet", "compact"] = "unet"
    """unet: the paper's. compact: wide layers at a quarter of the size and below, modulated by the style at every level; it paints
    more in the same time on a processor, has no guide decoders, and of the settings below it reads only width and num_levels."""
    width: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    """Of the compact generator: factor on the channels of all levels."""
    base_channels: Count = 16
    mid_channels: Count = 2048
    """Width of the middle, which is also what the hint is brought to."""
    num_levels: Annotated[int, Field(ge=2, le=8)] = 5
    """Sizes of the encoder, and halvings of the compact generator; sides are multiples of 2^num_levels."""
    skips: SkipKind = "paper"
    """paper: from the first convolution of a level, as wide as the level before; symmetric: from the whole level."""
    norm: NormKind = "none"
    """Of the encoder alone; the paper names none."""
    upsampling: Upsampling = "transposed"


class Hint(Settings):
    """What describes a style."""

    encoder: EncoderName = "efficientnet_lite0"
    """vgg19_fc1 is the paper's (4096 numbers; needs `train.pretrained.vgg19_fc1`, torchvision's file); efficientnet_lite0 (1088
    pooled features) comes with vidgen; color_statistics are 70 numbers of colors alone; random_features are for checks."""
    normalization: HintNormalization = "picture"
    """The paper's "global normalization": of the numbers of each hint; or, with data, of each number over the training pictures."""


class Discriminator(Settings):
    """The discriminator of styles."""

    objective: Literal["bce", "mse", "literal", "dcgan"] = "bce"
    """dcgan tells real from generated and knows no styles (equation 4); literal is equation 3 as printed, which loses the style."""
    generator: Literal["match", "raise"] = "match"
    """The generator reaches the outputs of the wanted style, or raises all of them as printed."""
    switch_every: Annotated[int, Field(ge=0)] = 0
    """Alternate between the objective and dcgan every so many steps; 0 never."""
    base_channels: Count = 64
    num_layers: Annotated[int, Field(ge=1, le=8)] = 5
    norm: NormKind = "none"
    """batch is DCGAN's; with few pictures at once it subtracts what tells the style."""

    @property
    def has_styles(self) -> bool:
        return self.objective != "dcgan"

    @property
    def has_realness(self) -> bool:
        return not self.has_styles or self.switch_every > 0


class LossWeights(Settings):
    """Weights of the loss terms; the paper states those of the guides alone."""

    gan_weight: Weight = 1.0
    l1_weight: Weight = 100.0
    """Of the three pictures together."""
    gray_guide_weight: Weight = 0.3
    """Share of the guide at the entry of the middle, which paints gray; 0 for no such guide."""
    color_guide_weight: Weight = 0.9
    """Share of the guide at the exit of the middle, which paints in color; 0 for no such guide."""
    gray_guide_target: Literal["gray", "color"] = "gray"
    """color is the paper's first version: the entry of the middle knows no style, and its guide paints mean colors then."""


class Config(ConditionalConfig):
    """A style2paints model."""

    reads_style: ClassVar[bool] = True

    kind: Literal["style2paints"] = "style2paints"
    generator: Generator = Generator()
    hint: Hint = Hint()
    discriminator: Discriminator | None = Discriminator()
    losses: LossWeights = LossWeights()
    features: FeatureSettings | None = None
    """Losses and a discriminator on pretrained features; none in the original."""
    schedule: ScaleSchedule = ScaleSchedule()

    @model_validator(mode="after")
    def _plays(self) -> Config:
        if self.discriminator is not None and not self.discriminator.has_styles and self.discriminator.switch_every:
            raise ValueError("discriminator.switch_every: alternates between styles and dcgan, but the objective is dcgan")
        return self

    def for_use(self) -> Config:
        losses = self.losses.model_copy(update={"gray_guide_weight": 0.0, "color_guide_weight": 0.0})
        return self.model_copy(update={"discriminator": None, "features": None, "losses": losses})


def inputs(config: Config) -> tuple[Input, ...]:
    """The drawing of every frame, and one style picture for the whole video."""
    return (*config.frame_inputs(), Input("style", "style_picture", 3, per_frame=False))


def pretrained(config: Config) -> tuple[Pretrained, ...]:
    """The encoder of hints, which is needed in use too, and EfficientNet-Lite0 for losses on features."""
    networks: dict[str, Pretrained] = {}
    if config.features is not None:
        networks["efficientnet_lite0"] = Pretrained("efficientnet_lite0", "model.features")
    if config.hint.encoder in ("efficientnet_lite0", "vgg19_fc1"):
        networks[config.hint.encoder] = Pretrained(config.hint.encoder, "model.hint.encoder", when="both")
    return tuple(networks.values())
