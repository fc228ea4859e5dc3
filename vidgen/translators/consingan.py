"""ConSinGAN: one growing generator of a single image, its newest stages trained together.

Source: Hinz, Fisher, Wang, Wermter, "Improved Techniques for Training Single-Image GANs", WACV 2021.
Features, not images, pass from stage to stage. Different on purpose: one network of the final shape whose later stages wait for
their turn; gradients of several generator updates in a step are those of one backward pass, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks.choices import LevelNorm
from vidgen.networks.layers import initialize
from vidgen.networks.single_image import (
    ConvBlock,
    LevelNetwork,
    Size,
    mirror_to,
    randn,
    resize_to,
)
from vidgen.translators.base import Networks
from vidgen.translators.cascade import Samples, ScaleMemory, SingleImageTranslator
from vidgen.translators.settings.consingan import Config, inputs, pretrained
from vidgen.types import Batch, Losses, OptimizerSettings, Output, Phase, Stage, Step

__all__ = ["RENAMES", "ConSinGAN", "Config", "build", "inputs", "pretrained", "stages"]

RENAMES: dict[str, Any] = {}
"""Published weights hold pickled modules only; there is nothing safe to rename."""


class GrowingGenerator(nn.Module):
    """Head, one group of convolutions for each stage, tail."""

    def __init__(
        self, width: int, num_stages: int, num_layers: int, *, norm: LevelNorm, slope: float, mirrored: bool = False
    ) -> None:
        super().__init__()
        self.head = ConvBlock(3, width, norm=norm, slope=slope)
        self.body = nn.ModuleList(
            nn.Sequential(*(ConvBlock(width, width, norm=norm, slope=slope) for _ in range(num_layers))) for _ in range(num_stages)
        )
        self.tail = nn.Conv2d(width, 3, 3, padding=1, padding_mode="reflect" if mirrored else "zeros")


class ConSinGAN(SingleImageTranslator):
    """The growing generator with its critic.

    Further buffers:
        fixed_noise_<stage>: noise from which the picture is reconstructed.
    """

    config: Config
    generator: GrowingGenerator

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.pyramid = config.pyramid
        self.generator = GrowingGenerator(
            config.base_channels,
            config.num_stages,
            config.num_layers,
            norm=config.generator_norm,
            slope=config.slope,
            mirrored=config.border == "mirror",
        )
        self.discriminator = LevelNetwork(1, config.base_channels, norm="none", slope=config.slope)
        initialize(self)
        self._register_progress()
        for level, size in enumerate(self.pyramid.sizes):
            self.register_buffer(f"fixed_noise_{level}", self._unit_noise(level, size, 1, None, "cpu"))

    # -- the cascade --------------------------------------------------------------------------------------------------

    def _noise_size(self, level: int, size: Size) -> Size:
        """Stages lose `2 * num_layers` pixels, which noise fills where the border is noise."""
        grown = 2 * self.config.num_layers if self.config.has_noise_around and level > 0 else 0
        return size[0] + grown, size[1] + grown

    def _unit_noise(self, level: int, size: Size, num_samples: int, generator: torch.Generator | None, device: Any) -> Tensor:
        channels = 3 if level == 0 else self.config.base_channels
        return randn((num_samples, channels, *self._noise_size(level, size)), device, generator)

    def draw(self, level: int, size: Size, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return self._unit_noise(level, size, num_samples, generator, self.image.device)

    def fixed(self, level: int, size: Size) -> Tensor:
        if level == 0 and self.config.coarsest == "image":
            return resize_to(self.pyramid.level(self.image, 0), size)
        return mirror_to(self.get_buffer(f"fixed_noise_{level}"), self._noise_size(level, size))

    def advance(self, level: int, noise: Tensor, state: Any, size: Size) -> Tensor:
        """Features [B,C,h,w] of a stage; a residual on those of the stage before."""
        layers, mode = self.config.num_layers, self.config.padding_mode
        if level == 0:
            features = self.generator.head(F.pad(self.amplitudes[0] * noise, [1] * 4, mode=mode))
            if self.config.has_noise_around:
                height, width = size
                grown = _upsample(features, (height + 2, width + 2))
                features_in, features = F.pad(grown, [layers - 1] * 4, mode=mode), features
            else:
                features_in = F.pad(features, [layers] * 4)
        else:
            features = _upsample(state, size)
            if self.config.has_noise_around:
                grown = _upsample(state, self._noise_size(level, size))
                features_in = grown + self.amplitudes[level] * noise
            else:
                features_in = F.pad(features + self.amplitudes[level] * noise, [layers] * 4)
        result: Tensor = self.generator.body[level](features_in) + features
        return result

    def picture(self, state: Any) -> Tensor:
        return torch.tanh(self.generator.tail(state).float())

    def layout(self, level: int, sizes: Sequence[Size]) -> Any:
        state = None
        for coarser in range(level):
            state = self.advance(coarser, self.fixed(coarser, sizes[coarser]), state, sizes[coarser])
        return state

    def inject_image(self, reference: Tensor, level: int, sizes: Sequence[Size]) -> Any:
        """The picture replaces the coarsest image; the stages below `level` then run with their fixed noise."""
        state = None
        for coarser in range(level):
            noise = resize_to(reference, sizes[0]) if coarser == 0 else self.fixed(coarser, sizes[coarser])
            state = self.advance(coarser, noise, state, sizes[coarser])
        return state

    # -- the contract with the loop -----------------------------------------------------------------------------------

    def _start_from_scale_below(self, level: int) -> None:
        self.generator.body[level].load_state_dict(self.generator.body[level - 1].state_dict())

    @torch.no_grad()
    def _measure_amplitude(self, level: int) -> None:
        """From what the stages reconstruct while the new one has no noise yet."""
        if level == 0:
            return
        self.amplitudes[level] = 0
        missing = F.mse_loss(self._reconstruction(level), self.pyramid.level(self.image, level)).sqrt()
        self.amplitudes[level] = self.config.noise_amplitude * missing

    def _reconstruction(self, level: int) -> Tensor:
        return self.picture(self.layout(level + 1, self.pyramid.sizes))

    def rollout(self, batch: Batch, step: Step, carry: Samples | ScaleMemory | None = None) -> tuple[Output, ScaleMemory]:
        """A fake of the newest stage [1,1,3,h,w]; gradients reach the stages that learn. `extras["memory"]` is the stage's."""
        memory = carry if isinstance(carry, ScaleMemory) else self.memory(step.stage, batch)
        return self._drawn(memory), memory

    def again(self, phase: Phase, step: Step, batch: Batch, output: Output) -> Output:
        """Another fake for the critic."""
        with torch.no_grad():
            return self._drawn(output.extras["memory"])

    def _drawn(self, memory: ScaleMemory) -> Output:
        state = None
        for level in range(memory.level + 1):
            size = self.pyramid.sizes[level]
            state = self.advance(level, self.draw(level, size, 1), state, size)
        return Output(self.picture(state)[:, None], extras={"memory": memory})

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        newest, depth = stage.num_active_scales - 1, self.config.num_concurrent_stages
        oldest = max(0, newest - depth + 1)
        scales = [self.config.stage_learning_rate_scale ** (newest - level) for level in range(oldest, newest + 1)]
        modules: list[nn.Module] = [*list(self.generator.body)[oldest : newest + 1], self.generator.tail]
        scales.append(1.0)
        if newest < depth:
            modules.insert(0, self.generator.head)
            scales.insert(0, self.config.stage_learning_rate_scale**newest)
        optimizer = OptimizerSettings(module_scales=tuple(scales), num_updates=self.config.num_updates)
        return (
            Phase("discriminator", (self.discriminator,), repeats=self.config.num_discriminator_steps),
            Phase("generator", tuple(modules), optimizer),
        )

    def losses(self, phase: Phase, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        memory: ScaleMemory = output.extras["memory"]
        fake = output.frames[:, 0]
        if phase.name == "discriminator":
            return self._critic_losses(self.discriminator, fake, memory.real)
        return self._generator_losses(self.discriminator, fake, self._reconstruction(memory.level), memory.real)


def _upsample(features: Tensor, size: Size) -> Tensor:
    if tuple(features.shape[-2:]) == size:
        return features
    return F.interpolate(features, size=size, mode="bicubic", align_corners=True)


def build(config: Config, networks: Networks | None = None) -> ConSinGAN:
    """An untrained model.

    Raises:
        ConfigError: the picture's size is not known.
        InputError: the picture is too small to learn from.
    """
    return ConSinGAN(config)


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """One stage after another. Epochs play no role."""
    return config.scale_stages(range(config.num_stages), "stage")
