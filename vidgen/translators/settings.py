"""Settings that several translators share: their condition, loss weights and schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field

from vidgen.config import Settings
from vidgen.errors import ConfigError
from vidgen.types import Input

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
    """

    num_labels: int
    condition_channels: int
    has_instances: bool
    size: tuple[int, int]


class ModelConfig(Settings):
    """Base of all translators' configurations."""

    def following(self, facts: DataFacts) -> Self:
        """The same with what follows the data filled in.

        Raises:
            ConfigError: it states another number than the data have, or reads a condition that the data do not have.
        """
        return self

    def _filled(self, **found: object) -> Self:
        for name, value in found.items():
            stated = getattr(self, name)
            if stated and stated != value:
                raise ConfigError(f"model.{name}: {stated}, but the data give {value}; leave it out, it follows the data")
        return self.model_copy(update=found)


class ConditionalConfig(ModelConfig):
    """A model that reads label maps, pictures, edges or instances of every frame."""

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


class ScaleSchedule(Settings):
    """The schedule of one scale; an epoch is one pass over the data unless `train.steps_per_epoch` says otherwise."""

    epochs: Annotated[int, Field(ge=0)] = 100
    """Epochs at the full learning rate."""
    decay_epochs: Annotated[int, Field(ge=0)] = 100
    """Epochs over which it falls to zero."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    finest_only_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start in which only the finest scale learns."""

    def rate(self, epoch: int) -> float:
        """The learning rate after so many epochs: constant, then linear to zero."""
        if epoch <= self.epochs:
            return self.learning_rate
        return self.learning_rate * max(0.0, 1.0 - (epoch - self.epochs) / self.decay_epochs)
