"""What configurations say of ConSinGAN. Needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from vidgen.errors import InputError
from vidgen.networks.choices import LevelNorm
from vidgen.translators.settings import Count
from vidgen.translators.settings.cascade import SingleImageConfig, inputs, pretrained

if TYPE_CHECKING:
    from vidgen.networks.single_image import Pyramid

__all__ = ["Config", "inputs", "pretrained"]


class Config(SingleImageConfig):
    """ConSinGAN; the defaults are the published ones. A scale is what the paper calls a stage."""

    kind: Literal["consingan"] = "consingan"
    num_stages: Annotated[int, Field(ge=2, le=12)] = 6
    """Sizes that are trained one after another; 3 for harmonization and editing."""
    num_concurrent_stages: Count = 3
    """The newest stages that learn together."""
    stage_learning_rate_scale: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor on the learning rate for each stage further back; 0.5 for pictures with a complex layout."""
    coarsest: Literal["image", "noise"] = "image"
    """What the picture is reconstructed from: itself at the coarsest size, or noise (animation)."""
    base_channels: Count = 64
    num_layers: Annotated[int, Field(ge=1, le=6)] = 3
    """Convolutions of a stage."""
    generator_norm: LevelNorm = "none"
    slope: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Of the LeakyReLUs; 0.3 for harmonization and editing."""
    num_updates: Count = 3
    """Generator updates with one gradient."""

    @property
    def pyramid(self) -> Pyramid:
        from vidgen.networks.single_image import plan_concurrent_pyramid  # which needs torch

        size = self.known_size
        try:
            return plan_concurrent_pyramid(size, self.num_stages, min_size=self.min_size, max_size=self.max_size)
        except ValueError as error:
            raise InputError(str(error)) from None

    def width(self, level: int) -> int:
        """Channels of a stage: the same for all."""
        return self.base_channels
