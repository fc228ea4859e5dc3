"""Settings that several translators share: their condition, loss weights and schedules. Needs no torch.

The modules of this package hold what configurations say of each translator, so that they can be read without its networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field

from vidgen.config import Settings
from vidgen.errors import ConfigError
from vidgen.networks.choices import Judge
from vidgen.types import Input, OptimizerSettings, Phase, Stage

if TYPE_CHECKING:
    from vidgen.networks.feature_adversary import FeatureAdversary, FeatureWeights

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class DataFacts:
    """What a model takes from its data, so that no number is written twice.

    Attributes:
        num_labels: classes of the label maps; 0 where there are none.
        condition_channels: channels of the condition pictures and edges together.
        has_instances: whether there are instance maps.
        size: (height, width) of the ground truth.
        has_style: whether a picture says which style the whole video is to have.
        num_classes: classes of whole pictures; 0 where they have none.
    """

    num_labels: int
    condition_channels: int
    has_instances: bool
    size: tuple[int, int]
    has_style: bool = False
    num_classes: int = 0


class ModelConfig(Settings):
    """Base of all translators' configurations."""

    def following(self, facts: DataFacts) -> Self:
        """The same with what follows the data filled in.

        Raises:
            ConfigError: it states another number than the data have, or reads a condition that the data do not have.
        """
        return self

    def for_use(self) -> Self:
        """The same without what serves training alone, so that a model file of it holds what use needs and no more."""
        return self

    def _filled(self, **found: object) -> Self:
        for name, value in found.items():
            stated = getattr(self, name)
            if stated and stated != value:
                raise ConfigError(f"model.{name}: {stated}, but the data give {value}; leave it out, it follows the data")
        return self.model_copy(update=found)


class ConditionalConfig(ModelConfig):
    """A model that reads label maps, pictures, edges or instances of every frame."""

    reads_style: ClassVar[bool] = False
    """Whether it also reads a style picture for the whole video."""

    num_labels: Annotated[int, Field(ge=0)] = 0
    """Classes of the label maps; 0 where the condition is pictures."""
    condition_channels: Annotated[int, Field(ge=0)] = 0
    """Channels of condition pictures (1 for edges, 3 for each picture); 0 where it is labels."""
    use_instances: bool = False
    """Read instance maps too, as boundary edges."""

    @property
    def channels_per_frame(self) -> int:
        return self.num_labels + self.condition_channels + int(self.use_instances)

    def frame_inputs(self) -> tuple[Input, ...]:
        """The declared inputs of a frame."""
        every = (
            Input("labels", "labels", self.num_labels),
            Input("frames", "picture", self.condition_channels),
            Input("instances", "instances", int(self.use_instances)),
        )
        return tuple(item for item in every if item.channels)

    def following(self, facts: DataFacts) -> Self:
        if not facts.num_labels and not facts.condition_channels:
            raise ConfigError("data.condition: is empty, but this model needs label maps, pictures or edges; set one of them")
        if facts.has_style != self.reads_style:
            kind = getattr(self, "kind", "this model")
            fault = "is not set, but {} reads a style picture" if self.reads_style else "is set, but {} reads no style picture"
            raise ConfigError(f"data.condition.style: {fault.format(kind)}")
        return self._filled(
            num_labels=facts.num_labels, condition_channels=facts.condition_channels, use_instances=facts.has_instances
        )

    def check_condition(self) -> None:
        """
        Raises:
            ConfigError: there is no condition to read.
        """
        if self.channels_per_frame == 0:
            raise ConfigError("model: neither num_labels nor condition_channels is set; the model needs a condition")


class FeatureSettings(Settings):
    """Losses and a discriminator on the features of EfficientNet-Lite0, which comes with vidgen."""

    likeness_weight: Weight = 10.0
    """Normalized features of the generated picture against those of the real one."""
    texture_weight: Weight = 0.0
    """Local deviation of shallow features: as much fine structure of each kind, but not pixel for pixel."""
    detail_weight: Weight = 0.0
    """Mean strength of fine detail (the Laplacian of luma) in each small window, but not pixel for pixel."""
    gan_weight: Weight = 0.0
    """Adversarial loss of the discriminator; 0 for none."""
    pair_gan_weight: Weight = 0.0
    """Likewise of a discriminator that sees the features of two consecutive frames, for videos; 0 for none."""
    discriminator: Judge = "features"
    """What it sees: features, pixels, or pixels of which it names the classes (segmentation, as OASIS; for label maps)."""
    head_strides: tuple[Count, ...] = (4, 8)
    """Strides of the features that the discriminator's heads stand on: 4, 8, 16, 32."""
    max_shift: Annotated[int, Field(ge=0)] = 8
    """Random shift in pixels before the feature network, drawn anew for every update, so that its grid is not printed."""
    learning_rate_scale: Annotated[float, Field(gt=0)] = 0.8
    """Factor on the learning rate for the discriminator."""

    def weights(self) -> FeatureWeights:
        """As the networks take them."""
        from vidgen.networks.feature_adversary import FeatureWeights

        return FeatureWeights(self.likeness_weight, self.texture_weight, self.gan_weight, self.detail_weight, self.pair_gan_weight)


def feature_adversary(
    chosen: FeatureSettings | None, condition_channels: int, num_labels: int, *, has_clips: bool = False
) -> FeatureAdversary | None:
    """What the settings ask for; None where there are none.

    Args:
        condition_channels: of the encoded condition, one for each of the `num_labels` classes first.
        has_clips: whether the translator learns from consecutive frames.

    Raises:
        ConfigError: classes are to be named, or pairs of frames judged, and there are none.
    """
    if chosen is None:
        return None
    if chosen.discriminator == "segmentation" and not num_labels:
        raise ConfigError("model.features.discriminator: segmentation names the classes of label maps, but there are none")
    if chosen.pair_gan_weight and not has_clips:
        raise ConfigError("model.features.pair_gan_weight: judges pairs of frames, but this translator draws each frame by itself")
    from vidgen.networks.feature_adversary import FeatureAdversary

    return FeatureAdversary(
        condition_channels,
        chosen.weights(),
        judge=chosen.discriminator,
        num_labels=num_labels,
        head_strides=chosen.head_strides,
        max_shift=chosen.max_shift,
    )


def feature_phases(chosen: FeatureSettings | None, adversary: FeatureAdversary | None) -> tuple[Phase, ...]:
    """The phase of its discriminators, where it has any."""
    if chosen is None or adversary is None or not adversary.heads:
        return ()
    return (Phase("feature_discriminator", adversary.heads, OptimizerSettings(chosen.learning_rate_scale, (0.0, 0.99))),)


class ScaleSchedule(Settings):
    """The schedule of one scale; an epoch is one pass over the data unless `train.steps_per_epoch` says otherwise."""

    epochs: Annotated[int, Field(ge=0)] = 100
    """Epochs at the full learning rate."""
    decay_epochs: Annotated[int, Field(ge=0)] = 100
    """Epochs over which it falls to zero."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    finest_only_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start in which only the finest scale learns."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start over which the learning rate rises from a tenth."""
    final_rate_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the learning rate that is left at the end of the decay."""
    adversarial_from_epoch: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start without discriminators."""
    adversarial_ramp_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs over which the weight of the adversarial losses then rises to its full value."""

    @property
    def total_epochs(self) -> int:
        return self.epochs + self.decay_epochs

    @property
    def edges(self) -> set[int]:
        """Epochs at which the slope of a rate or weight changes."""
        start, ramp = self.adversarial_from_epoch, self.adversarial_ramp_epochs
        return {0, self.warmup_epochs, start, start + ramp, self.epochs, self.total_epochs}

    def stretches(self, *further: int) -> Iterator[tuple[int, int]]:
        """First and last epoch of every stretch in which nothing bends; `further` epochs end one too."""
        return itertools.pairwise(sorted(edge for edge in self.edges | {*further} if edge <= self.total_epochs))

    def stage(self, name: str, start: int, stop: int, steps_per_epoch: int, **more: Any) -> Stage:
        """The stage of a stretch; `more` is what else a `Stage` says."""
        return Stage(
            name,
            (stop - start) * steps_per_epoch,
            learning_rate=self.rate(start),
            final_learning_rate=self.rate(stop),
            adversarial=self.adversarial_between(start, stop),
            **more,
        )

    def rate(self, epoch: int) -> float:
        """The learning rate after so many epochs: rising, constant, then linear to its final share."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * (0.1 + 0.9 * epoch / self.warmup_epochs)
        if epoch <= self.epochs:
            return self.learning_rate
        left = max(0.0, 1.0 - (epoch - self.epochs) / self.decay_epochs)
        return self.learning_rate * (self.final_rate_share + (1 - self.final_rate_share) * left)

    def adversarial(self, epoch: int) -> float:
        """Factor on the adversarial losses after so many epochs."""
        since = epoch - self.adversarial_from_epoch
        if since < 0:
            return 0.0
        return min(1.0, since / self.adversarial_ramp_epochs) if self.adversarial_ramp_epochs else 1.0

    def adversarial_between(self, start: int, stop: int) -> tuple[float, float]:
        """The factor at both ends of a stretch between two edges."""
        return (0.0, 0.0) if stop <= self.adversarial_from_epoch else (self.adversarial(start), self.adversarial(stop))
