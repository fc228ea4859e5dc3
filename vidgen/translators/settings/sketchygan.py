"""What configurations say of SketchyGAN. Needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from vidgen.config import Settings
from vidgen.errors import ConfigError
from vidgen.networks.choices import Form, NormKind
from vidgen.translators.settings import ConditionalConfig, Count, DataFacts, Weight
from vidgen.types import Input, Pretrained

if TYPE_CHECKING:
    from vidgen.networks.feature_adversary import FeatureWeights


class Generator(Settings):
    """The generator's shape."""

    base_channels: Count = 64
    noise_channels: Count = 256
    encoder_form: Form = "paper"
    """How units mix features and sketch: paper, gru, stretched, image, or residual (no masks), on the way down."""
    decoder_form: Form = "paper"
    """The same on the way up."""
    num_convs: Count = 1
    """Convolutions of a unit's candidate."""
    norm: NormKind = "batch"
    """Statistics of the normalization, whose scales and offsets belong to classes."""


class Discriminator(Settings):
    """The discriminator's shape and objective."""

    base_channels: Count = 64
    form: Form = "paper"
    num_convs: Count = 1
    objective: Literal["dragan", "logistic", "wasserstein"] = "dragan"
    """dragan, as in the paper: logistic with a gradient penalty around real pictures. logistic, as released: without, and with
    spectral normalization. wasserstein: with a penalty between real and generated pictures."""
    spectral_norm: bool | None = None
    """Of all convolutions; by default where the objective is logistic."""
    class_head_spectral_norm: bool = False
    """Of the head of classes too, as released; it learns more slowly."""
    one_sided_penalty: bool = False
    """dragan punishes gradients above 1 alone, as released."""
    sees_sketch: bool = False
    """Judge the picture together with the sketch."""
    projection: bool = False
    """The class is part of the judgment, in the place of a head of classes."""


class LossWeights(Settings):
    """Weights of the loss terms; the defaults are the release's totals."""

    gan_weight: Weight = 1.0
    gradient_penalty_weight: Weight = 10.0
    class_weight: Weight = 1.0
    """Of the class of real pictures, for the discriminator."""
    generated_class_weight: Weight = 0.5
    """Of the class of generated pictures, for the generator."""
    focal_gamma: Weight = 2.0
    """Of the discriminator's class loss, which weighs doubtful pictures more; 0 for plain cross entropy."""
    l1_weight: Weight = 10.0
    perceptual_weight: Weight = 3.0
    """Features of the generated picture against those of the real one."""
    perceptual_network: Literal["efficientnet_lite0", "vgg19"] = "efficientnet_lite0"
    """Which network's; the authors' was Inception-V4. EfficientNet-Lite0 comes with vidgen."""
    perceptual_size: Annotated[int, Field(ge=32)] | None = None
    """Enlarge pictures to this height before the network; their own by default."""
    texture_weight: Weight = 0.0
    """Local deviation of shallow features of EfficientNet-Lite0: as much fine structure, but not pixel for pixel."""
    feature_gan_weight: Weight = 0.0
    """A second discriminator, on features of EfficientNet-Lite0."""
    diversity_weight: Weight = 10.0
    """Pushes results of different noise apart, by their difference over that of the noises."""
    diversity_cap: Annotated[float, Field(gt=0, le=2)] | None = None
    """Mean difference (of pictures in -1..1) from which on more is no gain; published without."""
    likeness_of: Literal["first", "nearest"] = "first"
    """Which of the two pictures of a sketch has to be like the real one, where diversity counts: the first, as published, or that
    whose colors are nearer, so that other noise may stand for another photo (the variety loss of Gupta et al., CVPR 2018)."""
    decay_weight: Weight = 0.0
    """Half the sum of the squared weights of convolutions; 1e-5 in the release."""

    def features(self) -> FeatureWeights:
        """What is asked of EfficientNet-Lite0."""
        from vidgen.networks.feature_adversary import FeatureWeights  # which needs torch

        likeness = self.perceptual_weight if self.perceptual_network == "efficientnet_lite0" else 0.0
        return FeatureWeights(likeness, self.texture_weight, self.feature_gan_weight)

    @property
    def feature_setting(self) -> str | None:
        """The setting that asks for EfficientNet-Lite0."""
        weights = self.features()
        named = {"perceptual_weight": weights.likeness, "texture_weight": weights.texture, "feature_gan_weight": weights.gan}
        return next((name for name, weight in named.items() if weight), None)


class Curriculum(Settings):
    """How training goes over from edge maps to sketches: the share of samples of one of `data.sources`.

    The share is first + min(last - first, span t^exponent) after the part t of the training. The paper: 0.1 to 0.9 with a span
    of 1, so that it ends at t = 0.8. The release: 0.2 to 0.8 with a span of 0.6.
    """

    source: str = "sketches"
    """Name in `data.sources`."""
    first: Annotated[float, Field(ge=0, le=1)] = 0.1
    last: Annotated[float, Field(ge=0, le=1)] = 0.9
    span: Annotated[float, Field(gt=0, le=1)] = 1.0
    exponent: Annotated[float, Field(gt=0)] = 1.0

    @property
    def end(self) -> float:
        """The part of the training after which the share stays."""
        return float(min(1.0, (max(0.0, self.last - self.first) / self.span) ** (1 / self.exponent)))

    @property
    def num_pieces(self) -> int:
        """Straight lines that stand for the curve; its largest error is then a thousandth."""
        return 1 if self.exponent == 1 else 16

    def share(self, part: float) -> float:
        """Share of samples after a part 0..1 of the training."""
        return float(self.first + min(max(0.0, self.last - self.first), self.span * part**self.exponent))


class Schedule(Settings):
    """The schedule; an epoch is one pass over the data unless `train.steps_per_epoch` says otherwise."""

    epochs: Count = 100
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Of the generator; that of the discriminator is twice it."""
    final_rate_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the learning rate at the end."""
    decay_slope: Annotated[float, Field(ge=0)] = 0.9
    """The rate falls by this share over the whole training, until the final share is reached; 0 keeps it constant."""
    curriculum: Curriculum | None = None
    """From edge maps to sketches; all samples come from the first source by default."""


class Config(ConditionalConfig):
    """A SketchyGAN model."""

    kind: Literal["sketchygan"] = "sketchygan"
    num_classes: Annotated[int, Field(ge=0)] = 0
    """Classes of pictures, by the folders of the data; 0 where they have none."""
    image_size: Annotated[int, Field(ge=16, le=1024)] | None = None
    """Height and width in training as a power of two, which decides the depth; by default the largest that the data hold."""
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    losses: LossWeights = LossWeights()
    schedule: Schedule = Schedule()

    @field_validator("image_size")
    @classmethod
    def _power_of_two(cls, value: int | None) -> int | None:
        if value is not None and value & (value - 1):
            raise ValueError(f"{value} is not a power of two, such as 32, 64, 128 or 256")
        return value

    def following(self, facts: DataFacts) -> Config:
        size = self.image_size or max(16, 1 << min(facts.size).bit_length() - 1)
        return super().following(facts)._filled(num_classes=facts.num_classes).model_copy(update={"image_size": size})

    @property
    def size(self) -> int:
        """The height and width that decide the depth.

        Raises:
            ConfigError: the data have not been read.
        """
        if self.image_size is None:
            raise ConfigError("model.image_size: not known before the data are read")
        return self.image_size


def inputs(config: Config) -> tuple[Input, ...]:
    """A sketch for every frame, the class, and in use the seed of the noise."""
    named = (Input("class_id", "class_id", config.num_classes, per_frame=False),) if config.num_classes else ()
    return (*config.frame_inputs(), *named, Input("noise", "noise", 1, per_frame=False, when="use"))


def pretrained(config: Config) -> tuple[Pretrained, ...]:
    """What the losses on features need."""
    weights, needed = config.losses, []
    if weights.feature_setting is not None:
        needed.append(Pretrained("efficientnet_lite0", f"model.losses.{weights.feature_setting}"))
    if weights.perceptual_network == "vgg19" and weights.perceptual_weight:
        needed.append(Pretrained("vgg19", "model.losses.perceptual_weight"))
    return tuple(needed)
