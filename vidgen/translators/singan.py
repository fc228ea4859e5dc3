"""SinGAN: a generator and a critic per scale of one image's pyramid, trained one scale after another.

Source: Shaham, Dekel, Michaeli, "SinGAN: Learning a Generative Model from a Single Natural Image", ICCV 2019.
Different on purpose: the fixed noise is drawn once, as the paper says (the code draws it anew in every iteration); images pass
between scales in float (the code goes through 8 bits); borders are mirrored on all four sides; the generator's updates each see
the fake of the weights they change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.errors import ConfigError
from vidgen.networks import single_image
from vidgen.networks.layers import initialize
from vidgen.networks.single_image import (
    LevelGenerator,
    LevelNetwork,
    Size,
    mirror_to,
    randn,
    random_window,
    resize_by,
    resize_to,
)
from vidgen.translators.base import Networks
from vidgen.translators.cascade import Samples, ScaleMemory, SingleImageTranslator
from vidgen.translators.settings.singan import Config, inputs, pretrained
from vidgen.types import Batch, Losses, Output, Phase, Stage, Step

__all__ = ["RENAMES", "Config", "SinGAN", "build", "inputs", "pretrained", "stages"]

RENAMES = {"generator": single_image.rename_original, "discriminators": single_image.rename_original}
"""What to rename in the published files: `<scale>/netG.pth` and `<scale>/netD.pth`."""


@dataclass(frozen=True)
class SinGANMemory(ScaleMemory):
    """What stays the same while a scale learns.

    Attributes:
        previous: [1,3,h+2m,w+2m], what the coarser scales reconstruct, padded.
        noise: [1,3,h+2m,w+2m], the fixed noise, padded.
        cascades: results of the coarser scales [1,3,h+2m,w+2m] by number, each filled when it is first drawn; its number is
            its seed, so it does not matter when that is.
    """

    previous: Tensor
    noise: Tensor
    cascades: dict[int, Tensor] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Draw:
    """What one fake of a step is drawn from.

    Attributes:
        memory: of the scale that learns.
        noise: [1,3,h+2m,w+2m], of that scale, padded.
        previous: [1,3,h+2m,w+2m], a sample of the coarser scales, padded.
        window: (top, left, height, width) of the part of the picture to learn from.
    """

    memory: SinGANMemory
    noise: Tensor
    previous: Tensor
    window: tuple[int, int, int, int]

    def cut(self, padded: Tensor, margin: int) -> Tensor:
        """The part of a padded image [B,3,h+2m,w+2m] from which the window's pixels come."""
        top, left, height, width = self.window
        return padded[..., top : top + height + 2 * margin, left : left + width + 2 * margin]

    @property
    def real(self) -> Tensor:
        """The picture in the window [1,3,height,width]."""
        top, left, height, width = self.window
        return self.memory.real[..., top : top + height, left : left + width]


class SinGAN(SingleImageTranslator):
    """The pyramid of generators with its critics.

    Further buffers:
        fixed_noise: [1,1,h,w], noise of the coarsest scale from which the picture is reconstructed; it is zero elsewhere.
        palette: [num_paint_colors,3], colors of paint-to-image. has_palette: whether it is filled.
    """

    config: Config
    generator: nn.ModuleList
    fixed_noise: Tensor
    palette: Tensor
    has_palette: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.pyramid = config.pyramid
        levels, layers = range(self.pyramid.num_levels), config.num_layers
        self.margin = layers
        self.generator = nn.ModuleList(LevelGenerator(config.width(level), layers, norm=config.generator_norm) for level in levels)
        self.discriminators = nn.ModuleList(
            LevelNetwork(1, config.width(level), layers, norm=config.discriminator_norm) for level in levels
        )
        initialize(self)
        self.register_buffer("fixed_noise", torch.randn(1, 1, *self._noise_size(self.pyramid.sizes[0])))
        self._register_progress()
        self.register_buffer("palette", torch.zeros(config.num_paint_colors, 3))
        self.register_buffer("has_palette", torch.tensor(0))

    # -- the cascade --------------------------------------------------------------------------------------------------

    def _noise_size(self, size: Size) -> Size:
        grown = 2 * self.margin if self.config.has_noise_around else 0
        return size[0] + grown, size[1] + grown

    def draw(self, level: int, size: Size, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        channels = 1 if level == 0 else 3
        noise = randn((num_samples, channels, *self._noise_size(size)), self.fixed_noise.device, generator)
        return noise.expand(-1, 3, -1, -1)

    def fixed(self, level: int, size: Size) -> Tensor:
        if level == 0:
            return mirror_to(self.fixed_noise, self._noise_size(size)).expand(-1, 3, -1, -1)
        return torch.zeros(1, 3, *self._noise_size(size), device=self.fixed_noise.device)

    def advance(self, level: int, noise: Tensor, state: Any, size: Size) -> Tensor:
        previous = self._padded_previous(level, state, size)
        result: Tensor = self.generator[level](self.amplitudes[level] * self._padded(noise), previous)
        return result

    def picture(self, state: Any) -> Tensor:
        image: Tensor = state
        return image

    def layout(self, level: int, sizes: Sequence[Size]) -> Tensor | None:
        if level == 0:
            return None
        image = self._reconstruction(level - 1)
        return image if tuple(sizes) == self.pyramid.sizes else resize_to(image, sizes[level - 1])

    def inject_image(self, reference: Tensor, level: int, sizes: Sequence[Size]) -> Tensor:
        """As the published code does: limited to the bandwidth of the scale below. Nothing enters before level 0: at least 1."""
        finest = resize_to(reference, sizes[-1])
        return resize_by(finest, self.pyramid.scales[level - 1], sizes[level - 1])

    def _padded(self, noise: Tensor) -> Tensor:
        return noise if self.config.has_noise_around else F.pad(noise, [self.margin] * 4)

    def _padded_previous(self, level: int, state: Tensor | None, size: Size) -> Tensor:
        if state is None:
            image = torch.zeros(1, 3, *size, device=self.fixed_noise.device)
        else:
            image = resize_by(state, self.pyramid.step(level), size, legacy_quantize=self.config.legacy_quantize)
            if level == self.config.paint_scale and self._has_palette:
                image = self.quantize(image)
        return F.pad(image, [self.margin] * 4, mode=self.config.padding_mode)

    def _reconstruction(self, level: int) -> Tensor:
        """The picture as the scales 0..level give it back [1,3,h,w]."""
        state: Tensor | None = None
        for coarser in range(level + 1):
            size = self.pyramid.sizes[coarser]
            state = self.advance(coarser, self.fixed(coarser, size), state, size)
        assert state is not None
        return state

    def _cascade(self, num_levels: int, generator: torch.Generator | None = None) -> Tensor | None:
        """A random sample of the scales below `num_levels`."""
        state: Tensor | None = None
        for level in range(num_levels):
            size = self.pyramid.sizes[level]
            state = self.advance(level, self.draw(level, size, 1, generator), state, size)
        return state

    # -- applications of this method alone ----------------------------------------------------------------------------

    def super_resolve(self, factor: float = 4.0, *, consistent: bool = True, generator: torch.Generator | None = None) -> Tensor:
        """The learned picture enlarged by `factor` [1,3,H*factor,W*factor], by the finest scale applied again and again.

        Source: SinGAN, section 4; the ratio of each application is close to that which the pyramid was trained with.

        Args:
            consistent: correct the result so that it gives the learned picture when it is downscaled.
        """
        times = max(1, round(math.log(factor) / math.log(2 ** (1 / 3))))
        step = factor ** (1 / times)
        last = self.num_active_scales - 1
        image = self.image
        for _ in range(times):
            height, width = image.shape[-2:]
            size = (single_image.ceil(height * step), single_image.ceil(width * step))
            grown = F.pad(resize_by(image, step, size), [self.margin] * 4, mode=self.config.padding_mode)
            noise = self._padded(self.draw(max(1, last), size, 1, generator))
            image = self.generator[last](self.amplitudes[last] * noise, grown)
        full_size = (int(factor * self.image.shape[-2]), int(factor * self.image.shape[-1]))
        image = image[..., : full_size[0], : full_size[1]]
        if consistent:
            for _ in range(5):
                image = image + resize_to(self.image - resize_to(image, self.pyramid.finest), full_size)
        return image.clamp(-1, 1)

    def quantize(self, image: Tensor) -> Tensor:
        """[B,3,H,W] with every pixel moved to the nearest color of the palette."""
        pixels = image.permute(0, 2, 3, 1)
        nearest = torch.cdist(pixels.reshape(-1, 3).float(), self.palette).argmin(dim=1)
        return self.palette[nearest].view(pixels.shape).permute(0, 3, 1, 2).contiguous()

    # -- the contract with the loop -----------------------------------------------------------------------------------

    def begin(self, stage: Stage) -> None:
        if stage.learning == "paint":
            self._begin_painting(stage.num_active_scales - 1)
            return
        super().begin(stage)

    def _start_from_scale_below(self, level: int) -> None:
        if self.config.width(level) == self.config.width(level - 1):
            self.generator[level].load_state_dict(self.generator[level - 1].state_dict())
            self.discriminators[level].load_state_dict(self.discriminators[level - 1].state_dict())

    def _measure_amplitude(self, level: int) -> None:
        if level == 0:
            return
        self._settle_scales()
        with torch.no_grad():
            size = self.pyramid.sizes[level]
            previous = self._padded_previous(level, self._reconstruction(level - 1), size)
            previous = previous[..., self.margin : -self.margin, self.margin : -self.margin]
            missing = F.mse_loss(previous, self.pyramid.level(self.image, level)).sqrt()
            self.amplitudes[level] = self.config.noise_amplitude * missing

    @property
    def _has_palette(self) -> bool:
        return self.has_palette.is_meta or bool(self.has_palette)

    def _begin_painting(self, level: int) -> None:
        if self._has_palette:
            return
        if not self._knows_image or self._num_begun <= level:
            raise ConfigError(
                "model.paint_scale: only a trained model can learn to paint",
                hint="start from the weights of one that knows the picture",
            )
        colors = dominant_colors(self.pyramid.level(self.image, level), self.config.num_paint_colors)
        self._measure_amplitude(level)  # before the colors are reduced, as published
        self.palette.copy_(colors)
        self.has_palette.fill_(1)
        fresh = [LevelGenerator(self.config.width(level), self.margin, norm=self.config.generator_norm)]
        critics = [LevelNetwork(1, self.config.width(level), self.margin, norm=self.config.discriminator_norm)]
        for networks, owner in ((fresh, self.generator), (critics, self.discriminators)):
            initialize(networks[0])
            owner[level].load_state_dict(networks[0].state_dict())

    def _settle_scales(self, learning: int | None = None) -> None:
        """Only the scale that learns takes statistics of its batches; those of the others are settled."""
        for level, network in enumerate(self.generator):
            network.train(level == learning)

    def memory(self, stage: Stage, batch: Batch) -> SinGANMemory:
        memory = super().memory(stage, batch)
        level, size = memory.level, self.pyramid.sizes[memory.level]
        self._settle_scales()
        with torch.no_grad():
            previous = self._padded_previous(level, self._reconstruction(level - 1) if level else None, size)
            return SinGANMemory(level, memory.real, previous, self._padded(self.fixed(level, size)))

    def rollout(self, batch: Batch, step: Step, carry: Samples | ScaleMemory | None = None) -> tuple[Output, SinGANMemory]:
        """A fake of the scale that learns [1,1,3,h,w], in a random window; `extras["draw"]` says what it was drawn from."""
        memory = carry if isinstance(carry, SinGANMemory) else self.memory(step.stage, batch)
        self._settle_scales(memory.level)
        size = self.pyramid.sizes[memory.level]
        noise = self._padded(self.draw(memory.level, size, 1))
        draw = Draw(memory, noise, self._random_previous(memory), random_window(size, self.config.crop_size))
        return self._drawn(draw), memory

    def again(self, phase: Phase, step: Step, batch: Batch, output: Output) -> Output:
        """The critic sees another sample of the coarser scales under the same noise; the generator its own fake once more, by the
        weights that it has by now."""
        draw: Draw = output.extras["draw"]
        if phase.name == "generator":
            return self._drawn(draw)
        with torch.no_grad():
            return self._drawn(replace(draw, previous=self._random_previous(draw.memory)))

    def _drawn(self, draw: Draw) -> Output:
        return Output(self._in_window(draw, draw.noise, draw.previous)[:, None], extras={"draw": draw})

    def _in_window(self, draw: Draw, noise: Tensor, previous: Tensor) -> Tensor:
        """What the scale that learns makes of padded noise and image, in the window [1,3,height,width]."""
        level, previous = draw.memory.level, draw.cut(previous, self.margin)
        result: Tensor = self.generator[level](self.amplitudes[level] * draw.cut(noise, self.margin), previous)
        return result

    def _random_previous(self, memory: SinGANMemory) -> Tensor:
        """A sample of the coarser scales, padded for the scale that learns; one of the stored ones where there are such."""
        if not self.config.num_kept_cascades:
            return self._sampled_previous(memory.level, None)
        number = int(torch.randint(self.config.num_kept_cascades, ()))
        if number not in memory.cascades:
            generator = torch.Generator().manual_seed(1000 * memory.level + number)
            memory.cascades[number] = self._sampled_previous(memory.level, generator)
        return memory.cascades[number]

    def _sampled_previous(self, level: int, generator: torch.Generator | None) -> Tensor:
        with torch.no_grad():
            return self._padded_previous(level, self._cascade(level, generator), self.pyramid.sizes[level])

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        level = stage.num_active_scales - 1
        return (
            Phase("discriminator", (self.discriminators[level],), repeats=self.config.num_discriminator_steps),
            Phase("generator", (self.generator[level],), repeats=self.config.num_generator_steps),
        )

    def losses(self, phase: Phase, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        draw: Draw = output.extras["draw"]
        critic, fake = self.discriminators[draw.memory.level], output.frames[:, 0]
        if phase.name == "discriminator":
            return self._critic_losses(critic, fake, draw.real)
        reconstruction = self._in_window(draw, draw.memory.noise, draw.memory.previous)
        return self._generator_losses(critic, fake, reconstruction, draw.real)


def dominant_colors(image: Tensor, count: int) -> Tensor:
    """Centers [count,3] of k-means over the pixels of [1,3,H,W], begun with pixels far from each other; deterministic."""
    pixels = image[0].permute(1, 2, 0).reshape(-1, 3).float()
    centers = pixels.mean(dim=0, keepdim=True)
    for _ in range(count):
        centers = torch.cat([centers, pixels[torch.cdist(pixels, centers).amin(dim=1).argmax()][None]])
    centers = centers[1:]
    for _ in range(20):
        nearest = torch.cdist(pixels, centers).argmin(dim=1)
        for index in range(count):
            members = pixels[nearest == index]
            if len(members):
                centers[index] = members.mean(dim=0)
    return centers


def build(config: Config, networks: Networks | None = None) -> SinGAN:
    """An untrained model.

    Raises:
        ConfigError: the picture's size is not known.
        InputError: the picture is too small to learn from.
    """
    return SinGAN(config)


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """One scale after another, or the one that learns to paint. Epochs play no role."""
    if config.paint_scale is not None:
        return config.scale_stages([config.paint_scale], "scale", "paint")
    return config.scale_stages(range(config.pyramid.num_levels if config.image_size is not None else 1), "scale")
