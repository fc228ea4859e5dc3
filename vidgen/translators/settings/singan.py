"""What configurations say of SinGAN. Needs no torch."""

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
    """SinGAN; the defaults are the published ones."""

    kind: Literal["singan"] = "singan"
    scale_factor: Annotated[float, Field(gt=0.3, lt=0.95)] = 0.75
    """Ratio between the sizes of neighboring scales; fitted, so that the coarsest has min_size."""
    count_scales: Literal["ceil", "floor"] = "ceil"
    """How the number of scales is rounded; floor for super-resolution."""
    sizes: tuple[tuple[Count, Count], ...] | None = None
    """Heights and widths of all scales, coarsest first, in place of the above; for weights of others."""
    base_channels: Count = 32
    """Width at the coarsest scale; it doubles every 4 scales."""
    max_channels: Count = 128
    """No scale is wider."""
    num_layers: Annotated[int, Field(ge=3, le=9)] = 5
    generator_norm: LevelNorm = "batch"
    discriminator_norm: LevelNorm = "batch"
    num_generator_steps: Count = 3
    crop_size: Annotated[int, Field(ge=32)] | None = None
    """Train on random squares of this side where a scale is larger; whole pictures by default."""
    num_kept_cascades: Annotated[int, Field(ge=0)] = 0
    """Draw the coarser scales' result from so many stored ones; 0 draws a new one for every update."""
    legacy_quantize: bool = False
    """Pass images between scales through 8 bits, as the published code does; only for its weights."""
    paint_scale: Annotated[int, Field(ge=1)] | None = None
    """Retrain this scale alone on pictures reduced to a few colors (paint-to-image); starts from a trained model."""
    num_paint_colors: Annotated[int, Field(ge=2, le=64)] = 5
    """How many colors a picture is reduced to for that."""

    @property
    def pyramid(self) -> Pyramid:
        from vidgen.networks.single_image import plan_pyramid, pyramid_of  # which needs torch

        size = self.known_size
        if self.sizes is not None:
            return pyramid_of(self.sizes)
        try:
            return plan_pyramid(
                size,
                min_size=self.min_size,
                max_size=self.max_size,
                scale_factor=self.scale_factor,
                count=self.count_scales,
            )
        except ValueError as error:
            raise InputError(str(error)) from None

    def width(self, level: int) -> int:
        return min(self.base_channels * 2 ** (level // 4), self.max_channels)

    def check_scales(self) -> None:
        super().check_scales()
        levels = self.pyramid.num_levels
        if self.paint_scale is not None and self.paint_scale >= levels:
            raise ValueError(f"paint_scale: {self.paint_scale}, but the scales are 0 to {levels - 1}")
