"""What configurations say of generators of a single picture. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from vidgen.errors import ConfigError
from vidgen.networks.choices import MIN_SIDE
from vidgen.translators.settings import Count, DataFacts, ModelConfig, Weight
from vidgen.types import Input, Pretrained, Stage

if TYPE_CHECKING:
    from vidgen.networks.single_image import Pyramid, Size


class SingleImageConfig(ModelConfig):
    """A model of one picture: what its pyramid, its schedule and its losses have in common."""

    kind: str = ""
    image_size: tuple[Count, Count] | None = None
    """Height and width of the picture; it follows the data."""
    min_size: Annotated[int, Field(ge=MIN_SIDE)] = 25
    """Short side of the coarsest scale in pixels; 20 for animation, 18 for super-resolution."""
    max_size: Annotated[int, Field(ge=16)] = 250
    """Long side of the finest scale in pixels; a larger picture is downscaled."""
    border: Literal["zeros", "noise", "mirror"] = "zeros"
    """What surrounds a scale's input. zeros: fix the layout at the border. noise: frees it, around zeros (animation as published).
    mirror: noise around the mirrored picture, which leaves no dark rim after a short training."""
    steps_per_scale: Count | tuple[Count, ...] = 2000
    """One number, or one for each scale."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    decay_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The learning rate drops to a tenth after this share of a scale's steps."""
    num_discriminator_steps: Count = 3
    penalty_weight: Weight = 0.1
    reconstruction_weight: Weight = 10.0
    """100 for super-resolution."""
    noise_amplitude: Weight = 0.1
    """Noise of a scale, relative to what is missing in the reconstruction of the scale below."""
    penalty_crop_size: Annotated[int, Field(ge=24)] | None = None
    """Take the gradient penalty on random squares of this side."""

    @property
    def pyramid(self) -> Pyramid:
        """Sizes of the scales.

        Raises:
            ConfigError: the picture's size is not known yet.
            InputError: the picture is too small to learn from.
        """
        raise NotImplementedError

    def width(self, level: int) -> int:
        """Channels of a scale."""
        raise NotImplementedError

    def steps(self, level: int) -> int:
        """Training steps of a scale."""
        return self.steps_per_scale if isinstance(self.steps_per_scale, int) else self.steps_per_scale[level]

    @model_validator(mode="after")
    def _fits_its_pyramid(self) -> Self:
        if self.image_size is not None:
            self.check_scales()
        return self

    def following(self, facts: DataFacts) -> Self:
        followed = self._filled(image_size=facts.size)
        try:
            followed.check_scales()
        except ValueError as error:
            raise ConfigError(f"model.{error}") from None
        return followed

    def check_scales(self) -> None:
        """
        Raises:
            ValueError: something in here belongs to another number of scales.
            InputError: the picture is too small to learn from.
        """
        levels = self.pyramid.num_levels
        if isinstance(self.steps_per_scale, tuple) and len(self.steps_per_scale) != levels:
            raise ValueError(f"steps_per_scale: has {len(self.steps_per_scale)} numbers for {levels} scales")

    @property
    def has_noise_around(self) -> bool:
        """Whether noise reaches beyond the border."""
        return self.border != "zeros"

    @property
    def padding_mode(self) -> Literal["constant", "reflect"]:
        """What continues a picture beyond its border, in `torch`'s words."""
        return "reflect" if self.border == "mirror" else "constant"

    @property
    def known_size(self) -> Size:
        """
        Raises:
            ConfigError: the picture's size is not known yet.
        """
        if self.image_size is None:
            raise ConfigError("model.image_size: not known before the data are read")
        return self.image_size

    def scale_stages(self, levels: Sequence[int], word: str, learning: Literal["all", "paint"] = "all") -> tuple[Stage, ...]:
        """Each scale in two parts: the learning rate falls to a tenth after the first. Epochs play no role."""
        result = []
        for level in levels:
            steps = self.steps(level)
            early = max(1, round(steps * self.decay_at))
            for name, count, rate in (("", early, self.learning_rate), (" slow", steps - early, self.learning_rate / 10)):
                if count:
                    result.append(Stage(f"{word} {level}{name}", count, rate, rate, num_active_scales=level + 1, learning=learning))
        return tuple(result)


def inputs(config: SingleImageConfig) -> tuple[Input, ...]:
    """It reads nothing of a video but its size."""
    return ()


def pretrained(config: SingleImageConfig) -> tuple[Pretrained, ...]:
    """It needs none."""
    return ()
