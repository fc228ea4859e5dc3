"""ConSinGAN: one growing generator of a single image, its newest stages trained together.

Source: Hinz, Fisher, Wang, Wermter, "Improved Techniques for Training Single-Image GANs", WACV 2021.
Features, not images, pass from stage to stage. Different on purpose: one network of the final shape whose later stages wait for
their turn; gradients of several generator updates in a step are those of one backward pass, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.config import Settings
from vidgen.errors import ConfigError, InputError
from vidgen.networks import single_image
from vidgen.networks.layers import initialize
from vidgen.networks.single_image import (
    ConvBlock,
    LevelNetwork,
    LevelNorm,
    Pyramid,
    SingleImageApplications,
    Size,
    gradient_penalty,
    mirror_to,
    plan_concurrent_pyramid,
    randn,
    random_window,
    resize_to,
)
from vidgen.translators.base import Teachers, Translator
from vidgen.types import Batch, Condition, Losses, Output, Phase, Stage

RENAMES: dict[str, Any] = {}
"""Published weights hold pickled modules only; there is nothing safe to rename."""

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class Config(Settings):
    """ConSinGAN; the defaults are the published ones."""

    kind: Literal["consingan"] = "consingan"
    image_size: tuple[Count, Count] | None = None
    """Height and width of the picture; it follows the data."""
    num_stages: Annotated[int, Field(ge=2, le=12)] = 6
    """Sizes that are trained one after another; 3 for harmonization and editing."""
    num_concurrent_stages: Count = 3
    """The newest stages that learn together."""
    stage_learning_rate_scale: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor on the learning rate for each stage further back; 0.5 for pictures with a complex layout."""
    min_size: Annotated[int, Field(ge=single_image.MIN_SIDE)] = 25
    """Short side of the coarsest stage in pixels; 20 for animation."""
    max_size: Annotated[int, Field(ge=16)] = 250
    """Long side of the finest stage in pixels; a larger picture is reduced."""
    border: Literal["zeros", "noise"] = "zeros"
    """What surrounds each stage's input: zeros are stable in other sizes, noise makes diverse borders (animation)."""
    coarsest: Literal["image", "noise"] = "image"
    """What the picture is reconstructed from: itself at the coarsest size, or noise (animation)."""
    base_channels: Count = 64
    num_layers: Annotated[int, Field(ge=1, le=6)] = 3
    """Convolutions of a stage."""
    generator_norm: LevelNorm = "none"
    slope: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Of the LeakyReLUs; 0.3 for harmonization and editing."""
    steps_per_scale: Count | tuple[Count, ...] = 2000
    """One number, or one for each stage."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    decay_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The learning rate drops to a tenth after this share of a stage's steps."""
    num_discriminator_steps: Count = 3
    num_updates: Count = 3
    """Generator updates with one gradient."""
    penalty_weight: Weight = 0.1
    reconstruction_weight: Weight = 10.0
    noise_amplitude: Weight = 0.1
    """Noise of a stage, relative to what is missing in the reconstruction of the stage before."""
    penalty_crop_size: Annotated[int, Field(ge=24)] | None = None
    """Take the gradient penalty on random squares of this side."""

    @property
    def pyramid(self) -> Pyramid:
        if self.image_size is None:
            raise ConfigError("model.image_size: not known before the data are read")
        try:
            return plan_concurrent_pyramid(self.image_size, self.num_stages, min_size=self.min_size, max_size=self.max_size)
        except ValueError as error:
            raise InputError(str(error)) from None

    def width(self, level: int) -> int:
        """Channels of a stage: the same for all."""
        return self.base_channels

    def steps(self, level: int) -> int:
        return self.steps_per_scale if isinstance(self.steps_per_scale, int) else self.steps_per_scale[level]


@dataclass(frozen=True)
class Samples:
    """How many samples a stream has given: each has noise of its own."""

    count: int

    def detach(self) -> Samples:
        return self


class GrowingGenerator(nn.Module):
    """Head, one group of convolutions for each stage, tail."""

    def __init__(self, width: int, num_stages: int, num_layers: int, *, norm: LevelNorm, slope: float) -> None:
        super().__init__()
        self.head = ConvBlock(3, width, norm=norm, slope=slope)
        self.body = nn.ModuleList(
            nn.Sequential(*(ConvBlock(width, width, norm=norm, slope=slope) for _ in range(num_layers))) for _ in range(num_stages)
        )
        self.tail = nn.Conv2d(width, 3, 3, padding=1)


class ConSinGAN(Translator, SingleImageApplications):
    """The growing generator with its critic.

    Buffers (all in the weights file, which is enough for every application):
        image: [1,3,H,W], -1..1, the picture at the finest size.
        fixed_noise_<stage>: noise from which the picture is reconstructed.
        amplitudes: [stages], of the noise.
        num_begun_scales: stages that have begun to learn. has_image: whether the image is known.
    """

    generator: GrowingGenerator
    image: Tensor
    amplitudes: Tensor
    num_begun_scales: Tensor
    has_image: Tensor
    size_multiple = 1

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.pyramid = config.pyramid
        self.generator = GrowingGenerator(
            config.base_channels, config.num_stages, config.num_layers, norm=config.generator_norm, slope=config.slope
        )
        self.discriminator = LevelNetwork(1, config.base_channels, norm="none", slope=config.slope)
        initialize(self)
        self.register_buffer("image", torch.zeros(1, 3, *self.pyramid.finest))
        self.register_buffer("amplitudes", torch.full((config.num_stages,), config.noise_amplitude))
        self.amplitudes[0] = 1.0
        for level, size in enumerate(self.pyramid.sizes):
            self.register_buffer(f"fixed_noise_{level}", self._unit_noise(level, size, 1, None, "cpu"))
        for name in ("num_begun_scales", "has_image"):
            self.register_buffer(name, torch.tensor(0))
        self._begun, self._knows_image, self._checked_image = 0, False, False
        self._kept: dict[str, Tensor] = {}
        self._noises: list[Tensor] = []
        self.register_load_state_dict_post_hook(lambda module, _: module._read_progress())

    def _read_progress(self) -> None:
        self._begun, self._knows_image = int(self.num_begun_scales), bool(self.has_image)
        self._kept.clear()

    # -- the cascade --------------------------------------------------------------------------------------------------

    def _noise_size(self, level: int, size: Size) -> Size:
        """Stages lose `2 * num_layers` pixels, which noise fills where the border is noise."""
        grown = 2 * self.config.num_layers if self.config.border == "noise" and level > 0 else 0
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
        layers = self.config.num_layers
        if level == 0:
            features = self.generator.head(F.pad(self.amplitudes[0] * noise, [1] * 4))
            if self.config.border == "noise":
                height, width = size
                grown = _upsample(features, (height + 2, width + 2))
                features_in, features = F.pad(grown, [layers - 1] * 4), features
            else:
                features_in = F.pad(features, [layers] * 4)
        else:
            features = _upsample(state, size)
            if self.config.border == "noise":
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

    def taken_in(self, reference: Tensor, level: int, sizes: Sequence[Size]) -> Any:
        """The picture replaces the coarsest image; the stages below `level` then run with their fixed noise."""
        state = None
        for coarser in range(level):
            noise = resize_to(reference, sizes[0]) if coarser == 0 else self.fixed(coarser, sizes[coarser])
            state = self.advance(coarser, noise, state, sizes[coarser])
        return state

    # -- the contract with the loop -----------------------------------------------------------------------------------

    def translate(self, condition: Condition, carry: Any = None) -> tuple[Output, Samples]:
        """Samples of the condition's size; frame k of a stream is sample k. In training: an attempt of the newest stage."""
        num_samples, num_frames, *_, height, width = condition.main.shape
        begin = 0 if carry is None else carry.count
        if self.training:
            return Output(self._try()[:, None]), Samples(begin + num_frames)
        assert self.config.image_size is not None
        size = self.pyramid.size_for((height, width), self.config.image_size)
        frames = []
        for frame in range(begin, begin + num_frames):
            image = self.generate(size, num_samples=num_samples, generator=torch.Generator().manual_seed(frame))
            frames.append(resize_to(image, (height, width)).clamp(-1, 1))
        return Output(torch.stack(frames, dim=1)), Samples(begin + num_frames)

    def begin(self, stage: Stage) -> None:
        while self._begun < stage.active_scales:
            level = self._begun
            if level > 0:
                self.generator.body[level].load_state_dict(self.generator.body[level - 1].state_dict())
            self._begun += 1
            self.num_begun_scales.fill_(self._begun)
            self._kept.clear()
            if self._knows_image:
                self._measure_amplitude(level)

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

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        newest, depth = stage.active_scales - 1, self.config.num_concurrent_stages
        oldest = max(0, newest - depth + 1)
        scales = [self.config.stage_learning_rate_scale ** (newest - level) for level in range(oldest, newest + 1)]
        modules: list[nn.Module] = [*list(self.generator.body)[oldest : newest + 1], self.generator.tail]
        scales.append(1.0)
        if newest < depth:
            modules.insert(0, self.generator.head)
            scales.insert(0, self.config.stage_learning_rate_scale**newest)
        judging = tuple(
            Phase("discriminator", (self.discriminator,), repetition=turn) for turn in range(self.config.num_discriminator_steps)
        )
        making = Phase("generator", tuple(modules), module_scales=tuple(scales), num_updates=self.config.num_updates)
        return (*judging, making)

    def losses(self, phase: Phase, batch: Batch, output: Output, teachers: Teachers) -> Losses:
        self._see(batch.window_target)
        real = self._kept.get("real")
        if real is None:
            real = self._kept["real"] = self.pyramid.level(self.image, self._begun - 1)
        fake = output.frames[:, 0]
        if phase.name == "generator":
            adversarial = -self.discriminator(fake).float().mean()
            made = self._reconstruction(self._begun - 1)
            return {
                "generator": adversarial,
                "reconstruction": self.config.reconstruction_weight * F.mse_loss(made, real),
            }
        if phase.repetition:
            with torch.no_grad():
                fake = self._try()
        fake = fake.detach()
        quality = self.discriminator(fake).float().mean() - self.discriminator(real).float().mean()
        top, left, height, width = random_window((real.shape[-2], real.shape[-1]), self.config.penalty_crop_size)
        rows, columns = slice(top, top + height), slice(left, left + width)
        penalty = gradient_penalty(self.discriminator, real[..., rows, columns], fake[..., rows, columns])
        return {"discriminator": quality, "discriminator_penalty": self.config.penalty_weight * penalty}

    def _try(self) -> Tensor:
        """A fake of the newest stage [1,3,h,w]; gradients reach the stages that learn."""
        state = None
        for level in range(self.num_learned):
            size = self.pyramid.sizes[level]
            state = self.advance(level, self.draw(level, size, 1), state, size)
        return self.picture(state)


def _upsample(features: Tensor, size: Size) -> Tensor:
    if tuple(features.shape[-2:]) == size:
        return features
    return F.interpolate(features, size=size, mode="bicubic", align_corners=True)


def build(config: Config) -> ConSinGAN:
    """An untrained model."""
    return ConSinGAN(config)


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """Each stage in two parts: the learning rate falls to a tenth after the first. Epochs play no role."""
    result = []
    for level in range(config.num_stages):
        steps = config.steps(level)
        early = max(1, round(steps * config.decay_at))
        for name, count, rate in (("", early, config.learning_rate), (" slow", steps - early, config.learning_rate / 10)):
            if count:
                result.append(Stage(f"stage {level}{name}", count, rate, rate, active_scales=level + 1))
    return tuple(result)
