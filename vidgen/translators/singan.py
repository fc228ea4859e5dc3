"""SinGAN: a generator and a critic per scale of one image's pyramid, trained one scale after another.

Source: Shaham, Dekel, Michaeli, "SinGAN: Learning a Generative Model from a Single Natural Image", ICCV 2019.
Different on purpose: the fixed noise is drawn once, as the paper says (the code draws it anew in every iteration); images pass
between scales in float (the code goes through 8 bits); borders are mirrored on all four sides; the generator's updates each see
the fake of the weights they change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.config import Settings
from vidgen.errors import ConfigError, InputError
from vidgen.networks import single_image
from vidgen.networks.layers import initialize
from vidgen.networks.single_image import (
    LevelGenerator,
    LevelNetwork,
    LevelNorm,
    Pyramid,
    SingleImageApplications,
    Size,
    gradient_penalty,
    mirror_to,
    plan_pyramid,
    pyramid_of,
    randn,
    random_window,
    resize_by,
    resize_to,
)
from vidgen.translators.base import Teachers, Translator
from vidgen.types import Batch, Condition, Losses, Output, Phase, Stage

RENAMES = {"generator": single_image.rename_original, "discriminators": single_image.rename_original}
"""What to rename in the published files: `<scale>/netG.pth` and `<scale>/netD.pth`."""

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class Config(Settings):
    """SinGAN; the defaults are the published ones."""

    kind: Literal["singan"] = "singan"
    image_size: tuple[Count, Count] | None = None
    """Height and width of the picture; it follows the data."""
    scale_factor: Annotated[float, Field(gt=0.3, lt=0.95)] = 0.75
    """Ratio between the sizes of neighbouring scales; fitted, so that the coarsest has min_size."""
    min_size: Annotated[int, Field(ge=single_image.MIN_SIDE)] = 25
    """Short side of the coarsest scale in pixels; 20 for animation, 18 for super-resolution."""
    max_size: Annotated[int, Field(ge=16)] = 250
    """Long side of the finest scale in pixels; a larger picture is reduced."""
    count_scales: Literal["ceil", "floor"] = "ceil"
    """How the number of scales is rounded; floor for super-resolution."""
    sizes: tuple[tuple[Count, Count], ...] | None = None
    """Heights and widths of all scales, coarsest first, in place of the above; for weights made elsewhere."""
    border: Literal["zeros", "noise"] = "zeros"
    """What surrounds the noise: zeros fix the layout at the border, noise frees it (animation)."""
    base_channels: Count = 32
    """Width at the coarsest scale; it doubles every 4 scales."""
    max_channels: Count = 128
    """No scale is wider."""
    num_layers: Annotated[int, Field(ge=3, le=9)] = 5
    discriminator_norm: LevelNorm = "batch"
    steps_per_scale: Count | tuple[Count, ...] = 2000
    """One number, or one for each scale."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    decay_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The learning rate drops to a tenth after this share of a scale's steps."""
    num_discriminator_steps: Count = 3
    num_generator_steps: Count = 3
    penalty_weight: Weight = 0.1
    reconstruction_weight: Weight = 10.0
    """100 for super-resolution."""
    noise_amplitude: Weight = 0.1
    """Noise of a scale, relative to what is missing in the reconstruction of the scale below."""
    crop_size: Annotated[int, Field(ge=32)] | None = None
    """Train on random squares of this side where a scale is larger; whole pictures by default."""
    penalty_crop_size: Annotated[int, Field(ge=24)] | None = None
    """Take the gradient penalty on random squares of this side."""
    num_kept_cascades: Annotated[int, Field(ge=0)] = 0
    """Draw the coarser scales' result from so many kept ones; 0 makes a new one for every update."""
    legacy_quantize: bool = False
    """Pass images between scales through 8 bits, as the published code does; only for its weights."""
    paint_scale: Annotated[int, Field(ge=1)] | None = None
    """Retrain this scale alone on pictures reduced to a few colours (paint-to-image); needs a trained model as --init."""
    num_paint_colors: Annotated[int, Field(ge=2, le=64)] = 5
    """How many colours a picture is reduced to for that."""

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.image_size is not None:
            levels = self.pyramid.num_levels
            if isinstance(self.steps_per_scale, tuple) and len(self.steps_per_scale) != levels:
                raise ValueError(f"steps_per_scale has {len(self.steps_per_scale)} numbers for {levels} scales")
            if self.paint_scale is not None and self.paint_scale >= levels:
                raise ValueError(f"paint_scale: {self.paint_scale}, but the scales are 0 to {levels - 1}")
        return self

    @property
    def pyramid(self) -> Pyramid:
        if self.image_size is None:
            raise ConfigError("model.image_size: not known before the data are read")
        if self.sizes is not None:
            return pyramid_of(self.sizes)
        try:
            return plan_pyramid(
                self.image_size,
                min_size=self.min_size,
                max_size=self.max_size,
                scale_factor=self.scale_factor,
                count=self.count_scales,
            )
        except ValueError as error:
            raise InputError(str(error)) from None

    def width(self, level: int) -> int:
        """Channels of a scale."""
        return min(self.base_channels * 2 ** (level // 4), self.max_channels)

    def steps(self, level: int) -> int:
        return self.steps_per_scale if isinstance(self.steps_per_scale, int) else self.steps_per_scale[level]


@dataclass(frozen=True)
class Samples:
    """How many samples a stream has given: each has noise of its own."""

    count: int

    def detach(self) -> Samples:
        return self


@dataclass(frozen=True)
class _Attempt:
    """What the updates of one step share.

    Attributes:
        noise: of the newest scale, padded.
        previous: the coarser scales' result, padded.
        window: (top, left, height, width) of the part of the image to learn from.
    """

    noise: Tensor
    previous: Tensor
    window: tuple[int, int, int, int]


class SinGAN(Translator, SingleImageApplications):
    """The pyramid of generators with its critics.

    Buffers (all in the weights file, which is enough for every application):
        image: [1,3,H,W], -1..1, the picture at the finest scale.
        fixed_noise: [1,1,h,w], noise of the coarsest scale from which the picture is reconstructed; it is zero elsewhere.
        amplitudes: [levels], of the noise; 1 at the coarsest.
        palette: [num_paint_colors,3], colours of paint-to-image.
        num_begun_scales: scales that have begun to learn. has_image, has_palette: whether those are filled.
    """

    generator: nn.ModuleList
    image: Tensor
    fixed_noise: Tensor
    amplitudes: Tensor
    palette: Tensor
    num_begun_scales: Tensor
    has_image: Tensor
    has_palette: Tensor
    size_multiple = 1

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.pyramid = config.pyramid
        levels, layers = range(self.pyramid.num_levels), config.num_layers
        self.margin = layers
        self.generator = nn.ModuleList(LevelGenerator(config.width(level), layers) for level in levels)
        self.discriminators = nn.ModuleList(
            LevelNetwork(1, config.width(level), layers, norm=config.discriminator_norm) for level in levels
        )
        initialize(self)
        height, width = self._noise_size(self.pyramid.sizes[0])
        self.register_buffer("image", torch.zeros(1, 3, *self.pyramid.finest))
        self.register_buffer("fixed_noise", torch.randn(1, 1, height, width))
        self.register_buffer("amplitudes", torch.full((len(levels),), config.noise_amplitude))
        self.amplitudes[0] = 1.0
        self.register_buffer("palette", torch.zeros(config.num_paint_colors, 3))
        for name in ("num_begun_scales", "has_image", "has_palette"):
            self.register_buffer(name, torch.tensor(0))
        self._begun, self._knows_image, self._knows_palette = 0, False, False
        self._checked_image = False
        self._mode: tuple[bool, int] | None = None
        self._attempt: _Attempt | None = None
        self._kept: dict[Any, Tensor] = {}
        self.register_load_state_dict_post_hook(lambda module, _: module._read_progress())

    def _read_progress(self) -> None:
        self._begun = int(self.num_begun_scales)
        self._knows_image, self._knows_palette = bool(self.has_image), bool(self.has_palette)
        self._kept.clear()
        self.train(self.training)

    # -- the cascade --------------------------------------------------------------------------------------------------

    def _noise_size(self, size: Size) -> Size:
        grown = 2 * self.margin if self.config.border == "noise" else 0
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

    def taken_in(self, reference: Tensor, level: int, sizes: Sequence[Size]) -> Tensor:
        """As the published code does: reduced to the bandwidth of the scale below. Level 0 takes nothing in: at least 1."""
        finest = resize_to(reference, sizes[-1])
        return resize_by(finest, self.pyramid.scales[level - 1], sizes[level - 1])

    def _padded(self, noise: Tensor) -> Tensor:
        return noise if self.config.border == "noise" else F.pad(noise, [self.margin] * 4)

    def _padded_previous(self, level: int, state: Tensor | None, size: Size) -> Tensor:
        if state is None:
            image = torch.zeros(1, 3, *size, device=self.fixed_noise.device)
        else:
            image = resize_by(state, self.pyramid.step(level), size, legacy_quantize=self.config.legacy_quantize)
            if self._knows_palette and level == self.config.paint_scale:
                image = self.quantize(image)
        return F.pad(image, [self.margin] * 4)

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
            consistent: correct the result so that it gives the learned picture when it is reduced.
        """
        times = max(1, round(math.log(factor) / math.log(2 ** (1 / 3))))
        step = factor ** (1 / times)
        last = self.num_learned - 1
        image = self.image
        for _ in range(times):
            height, width = image.shape[-2:]
            size = (single_image.ceil(height * step), single_image.ceil(width * step))
            grown = F.pad(resize_by(image, step, size), [self.margin] * 4)
            noise = self._padded(self.draw(max(1, last), size, 1, generator))
            image = self.generator[last](self.amplitudes[last] * noise, grown)
        wanted = (int(factor * self.image.shape[-2]), int(factor * self.image.shape[-1]))
        image = image[..., : wanted[0], : wanted[1]]
        if consistent:
            for _ in range(5):
                image = image + resize_to(self.image - resize_to(image, self.pyramid.finest), wanted)
        return image.clamp(-1, 1)

    def quantize(self, image: Tensor) -> Tensor:
        """[B,3,H,W] with every pixel moved to the nearest colour of the palette."""
        pixels = image.permute(0, 2, 3, 1)
        nearest = torch.cdist(pixels.reshape(-1, 3).float(), self.palette).argmin(dim=1)
        return self.palette[nearest].view(pixels.shape).permute(0, 3, 1, 2).contiguous()

    # -- the contract with the loop -----------------------------------------------------------------------------------

    def translate(self, condition: Condition, carry: Any = None) -> tuple[Output, Samples]:
        """Samples of the condition's size; frame k of a stream is sample k. In training: an attempt of the newest scale."""
        num_samples, num_frames, *_, height, width = condition.main.shape
        begin = 0 if carry is None else carry.count
        if self.training:
            return Output(self._try()[:, None]), Samples(begin + num_frames)
        assert self.config.image_size is not None
        size = self.pyramid.size_for((height, width), self.config.image_size)
        frames = []
        for frame in range(begin, begin + num_frames):
            generator = torch.Generator().manual_seed(frame)
            image = self.generate(size, num_samples=num_samples, generator=generator)
            frames.append(resize_to(image, (height, width)).clamp(-1, 1))
        return Output(torch.stack(frames, dim=1)), Samples(begin + num_frames)

    def train(self, mode: bool = True) -> SinGAN:
        """Finished scales stay in eval mode: their batch statistics are settled."""
        learning = self._learning_level
        if self._mode == (mode, learning):
            return self
        self._mode = (mode, learning)
        super().train(mode)
        for level, network in enumerate(self.generator):
            network.train(mode and level == learning)
        return self

    @property
    def _learning_level(self) -> int:
        if self.config.paint_scale is not None:
            return self.config.paint_scale
        return self.num_learned - 1

    def begin(self, stage: Stage) -> None:
        if stage.learning == "paint":
            self._begin_painting()
            return
        while self._begun < stage.active_scales:
            level = self._begun
            if level > 0 and self.config.width(level) == self.config.width(level - 1):
                self.generator[level].load_state_dict(self.generator[level - 1].state_dict())
                self.discriminators[level].load_state_dict(self.discriminators[level - 1].state_dict())
            self._begun += 1
            self.num_begun_scales.fill_(self._begun)
            self._kept.clear()
            self.train(self.training)
            if self._knows_image:
                self._measure_amplitude(level)

    def _measure_amplitude(self, level: int) -> None:
        if level == 0:
            return
        with torch.no_grad():
            size = self.pyramid.sizes[level]
            given = self._padded_previous(level, self._reconstruction(level - 1), size)
            given = given[..., self.margin : -self.margin, self.margin : -self.margin]
            missing = F.mse_loss(given, self.pyramid.level(self.image, level)).sqrt()
            self.amplitudes[level] = self.config.noise_amplitude * missing

    def _begin_painting(self) -> None:
        level = self.config.paint_scale
        if self._knows_palette or level is None:
            return
        if not self._knows_image or self._begun <= level:
            raise ConfigError("model.paint_scale: only a trained model can learn to paint", hint="name one: --init RUN_FOLDER")
        colors = dominant_colors(self.pyramid.level(self.image, level), self.config.num_paint_colors)
        self._measure_amplitude(level)  # before the colours are reduced, as published
        self.palette.copy_(colors)
        self.has_palette.fill_(1)
        self._knows_palette = True
        fresh = [LevelGenerator(self.config.width(level), self.margin)]
        judges = [LevelNetwork(1, self.config.width(level), self.margin, norm=self.config.discriminator_norm)]
        for networks, owner in ((fresh, self.generator), (judges, self.discriminators)):
            initialize(networks[0])
            owner[level].load_state_dict(networks[0].state_dict())
        self._kept.clear()
        self.train(self.training)

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        level = self.config.paint_scale if stage.learning == "paint" else stage.active_scales - 1
        assert level is not None
        judge, maker = (self.discriminators[level],), (self.generator[level],)
        judging = tuple(Phase("discriminator", judge, repetition=turn) for turn in range(self.config.num_discriminator_steps))
        making = tuple(Phase("generator", maker, repetition=turn) for turn in range(self.config.num_generator_steps))
        return judging + making

    def losses(self, phase: Phase, batch: Batch, output: Output, teachers: Teachers) -> Losses:
        self._see(batch.window_target)
        fake = output.frames[:, 0] if phase.repetition == 0 else None
        if phase.name == "discriminator":
            return self._discriminator_losses(fake)
        return self._generator_losses(fake)

    # -- one update ---------------------------------------------------------------------------------------------------

    def _try(self) -> Tensor:
        """A fake of the newest scale [1,3,h,w], with what the step's further updates need of it."""
        level = self._learning_level
        size = self.pyramid.sizes[level]
        noise = self._padded(self.draw(level, size, 1))
        self._attempt = _Attempt(noise, self._random_previous(), random_window(size, self.config.crop_size))
        return self._fake(self._attempt.previous)

    def _fake(self, previous: Tensor) -> Tensor:
        assert self._attempt is not None
        level = self._learning_level
        seen = self._cut(previous)
        result: Tensor = self.generator[level](self.amplitudes[level] * self._cut(self._attempt.noise), seen)
        return result

    def _cut(self, padded: Tensor) -> Tensor:
        """The part of a padded image [B,3,h+2m,w+2m] that makes the step's window."""
        assert self._attempt is not None
        top, left, height, width = self._attempt.window
        return padded[..., top : top + height + 2 * self.margin, left : left + width + 2 * self.margin]

    def _random_previous(self) -> Tensor:
        """A sample of the coarser scales, padded for the newest; one of the kept ones where there are such."""
        if not self.config.num_kept_cascades:
            return self._make_previous(None)
        chosen = int(torch.randint(self.config.num_kept_cascades, ()))
        if chosen not in self._kept:
            self._kept[chosen] = self._make_previous(torch.Generator().manual_seed(1000 * self._learning_level + chosen))
        return self._kept[chosen]

    def _make_previous(self, generator: torch.Generator | None) -> Tensor:
        level = self._learning_level
        with torch.no_grad():
            return self._padded_previous(level, self._cascade(level, generator), self.pyramid.sizes[level])

    def _keep(self, name: str, make: Any) -> Tensor:
        """A tensor that stays the same for the whole scale."""
        if name not in self._kept:
            with torch.no_grad():
                self._kept[name] = make()
        return self._kept[name]

    def _real(self) -> Tensor:
        assert self._attempt is not None
        level = self._learning_level
        whole = self._keep("real", lambda: self.pyramid.level(self.image, level))
        top, left, height, width = self._attempt.window
        return whole[..., top : top + height, left : left + width]

    def _discriminator_losses(self, fake: Tensor | None) -> Losses:
        if fake is None:
            with torch.no_grad():
                fake = self._fake(self._random_previous())
        fake, real = fake.detach(), self._real()
        judge = self.discriminators[self._learning_level]
        quality = judge(fake).float().mean() - judge(real).float().mean()
        top, left, height, width = random_window((real.shape[-2], real.shape[-1]), self.config.penalty_crop_size)
        rows, columns = slice(top, top + height), slice(left, left + width)
        penalty = gradient_penalty(judge, real[..., rows, columns], fake[..., rows, columns])
        return {"discriminator": quality, "discriminator_penalty": self.config.penalty_weight * penalty}

    def _generator_losses(self, fake: Tensor | None) -> Losses:
        assert self._attempt is not None
        if fake is None:
            fake = self._fake(self._attempt.previous)
        level = self._learning_level
        adversarial = -self.discriminators[level](fake).float().mean()
        given = self._keep("given", lambda: self._given(level))
        seen = self._cut(given)
        noise = self._keep("fixed", lambda: self._padded(self.fixed(level, self.pyramid.sizes[level])))
        made = self.generator[level](self.amplitudes[level] * self._cut(noise), seen)
        reconstruction = self.config.reconstruction_weight * F.mse_loss(made.float(), self._real())
        return {"generator": adversarial, "reconstruction": reconstruction}

    def _given(self, level: int) -> Tensor:
        """What the coarser scales reconstruct, padded for `level`."""
        state = self._reconstruction(level - 1) if level else None
        return self._padded_previous(level, state, self.pyramid.sizes[level])


def dominant_colors(image: Tensor, count: int) -> Tensor:
    """Centres [count,3] of k-means over the pixels of [1,3,H,W], begun with pixels far from each other; deterministic."""
    pixels = image[0].permute(1, 2, 0).reshape(-1, 3).float()
    centres = pixels.mean(dim=0, keepdim=True)
    for _ in range(count):
        centres = torch.cat([centres, pixels[torch.cdist(pixels, centres).amin(dim=1).argmax()][None]])
    centres = centres[1:]
    for _ in range(20):
        nearest = torch.cdist(pixels, centres).argmin(dim=1)
        for index in range(count):
            members = pixels[nearest == index]
            if len(members):
                centres[index] = members.mean(dim=0)
    return centres


def build(config: Config) -> SinGAN:
    """An untrained model."""
    return SinGAN(config)


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """Each scale in two parts: the learning rate falls to a tenth after the first. Epochs play no role."""
    if config.paint_scale is not None:
        levels, learning = [config.paint_scale], "paint"
    else:
        num_levels = config.pyramid.num_levels if config.image_size is not None else 1
        levels, learning = list(range(num_levels)), "all"
    result = []
    for level in levels:
        steps = config.steps(level)
        early = max(1, round(steps * config.decay_at))
        for name, count, rate in (("", early, config.learning_rate), (" slow", steps - early, config.learning_rate / 10)):
            if count:
                stage = Stage(f"scale {level}{name}", count, rate, rate, active_scales=level + 1, learning=learning)
                result.append(stage)
    return tuple(result)
