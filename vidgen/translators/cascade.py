"""What generators of a single picture share, whatever their levels are: one cascade over a pyramid, trained level after level.

Levels count from 0, the coarsest. Pictures are float [B,3,H,W] in -1..1; sizes are (height, width) in pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.errors import ConfigError
from vidgen.networks.single_image import (
    Pyramid,
    Size,
    noise_loop,
    noise_walk,
    pixelwise_gradient_penalty,
    random_window,
    resize_to,
)
from vidgen.translators.base import Translator
from vidgen.translators.settings.cascade import SingleImageConfig
from vidgen.types import Batch, Condition, Losses, Output, Stage

_SAME_IMAGE = 0.04
"""Mean difference up to which two pictures are one: what different ways to downscale and compress leave, in units of -1..1."""


@dataclass(frozen=True)
class Samples:
    """How many samples a stream has had: each has noise of its own."""

    count: int

    def detach(self) -> Samples:
        return self


@dataclass(frozen=True)
class ScaleMemory:
    """What stays the same while a scale learns.

    Attributes:
        level: the scale.
        real: [1,3,h,w], the picture at that scale.
    """

    level: int
    real: Tensor

    def detach(self) -> Self:
        return self


@dataclass(frozen=True)
class Surroundings:
    """The pictures around a learned one: its noise, and what lies near it, at the levels that are free.

    Attributes:
        sizes: of all levels.
        layout: the state before the first free level.
        still: the fixed noise of every free level, by number.
    """

    translator: SingleImageTranslator
    sizes: tuple[Size, ...]
    layout: Any
    still: Mapping[int, Tensor]

    def walk(
        self, num_frames: int, *, alpha: float, beta: float, loop: bool, generator: torch.Generator | None
    ) -> Iterator[dict[int, Tensor]]:
        """Deviations from the fixed noise of every free level, frame by frame; those of the first are zero."""
        paths = {}
        for level, still in self.still.items():
            shape = self.translator.draw(level, self.sizes[level], 1, generator).shape
            if loop:
                paths[level] = noise_loop(shape, num_frames, alpha=alpha, beta=beta, device=still.device, generator=generator)
            else:
                paths[level] = noise_walk(shape, alpha=alpha, beta=beta, device=still.device, generator=generator)
        for _ in range(num_frames):
            yield {level: next(path) for level, path in paths.items()}

    def picture(self, away: Mapping[int, Tensor], amplitude: float = 1.0) -> Tensor:
        """The picture [1,3,H,W] at some deviations, `amplitude` times as far away."""
        state = self.layout
        for level, still in self.still.items():
            state = self.translator.advance(level, still + amplitude * away[level], state, self.sizes[level])
        return self.translator._finished(state, self.sizes, None)


class SingleImageTranslator(Translator[Samples | ScaleMemory]):
    """A generator that learns one picture; everything it is good for is one cascade over its levels.

    Call its applications under `torch.inference_mode()` and the runtime's autocast, in eval mode. A "state" is what one level
    hands to the next.

    Buffers (all in the weights file, which is enough for every application):
        image: [1,3,H,W], -1..1, the picture at the finest scale. has_image: whether it is known.
        amplitudes: [levels], of the noise; 1 at the coarsest.
        num_begun_scales: scales that have begun to learn.
    """

    config: SingleImageConfig
    pyramid: Pyramid
    image: Tensor
    amplitudes: Tensor
    num_begun_scales: Tensor
    has_image: Tensor
    size_multiple = 1

    def _register_progress(self) -> None:
        """The buffers that all have."""
        self.register_buffer("image", torch.zeros(1, 3, *self.pyramid.finest))
        self.register_buffer("amplitudes", torch.full((self.pyramid.num_levels,), self.config.noise_amplitude))
        self.amplitudes[0] = 1.0
        for name in ("num_begun_scales", "has_image"):
            self.register_buffer(name, torch.tensor(0))

    @property
    def num_active_scales(self) -> int:
        """Levels that have begun to learn; finer ones are not used. All of them on the meta device, where nobody can tell."""
        return self.pyramid.num_levels if self.num_begun_scales.is_meta else max(1, int(self.num_begun_scales))

    # -- what a level is ----------------------------------------------------------------------------------------------

    @abstractmethod
    def draw(self, level: int, size: Size, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Unit noise of a level for images of `size`."""

    @abstractmethod
    def fixed(self, level: int, size: Size) -> Tensor:
        """The noise of a level that reconstructs the picture, for images of `size`."""

    @abstractmethod
    def advance(self, level: int, noise: Tensor, state: Any, size: Size) -> Any:
        """One level of the cascade; `state` is None at the coarsest."""

    @abstractmethod
    def picture(self, state: Any) -> Tensor:
        """The image [B,3,h,w] of a state, unclamped."""

    @abstractmethod
    def layout(self, level: int, sizes: Sequence[Size]) -> Any:
        """The state before `level` that keeps the picture's layout; None before level 0."""

    @abstractmethod
    def inject_image(self, reference: Tensor, level: int, sizes: Sequence[Size]) -> Any:
        """The state before `level` that stands for a picture made by hand."""

    # -- applications -------------------------------------------------------------------------------------------------

    def generate(
        self,
        size: Size | None = None,
        *,
        start_scale: int = 0,
        start_image: Tensor | None = None,
        num_samples: int = 1,
        stop_scale: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """New pictures [num_samples,3,H,W].

        Args:
            size: of the result; the learned size by default. Any aspect.
            start_scale: first level with fresh noise; the coarser ones keep the layout of the learned picture.
            start_image: a picture [1,3,h,w] to inject before `start_scale` in place of the learned one.
            stop_scale: the last level to run; the result then has that level's size.
        """
        sizes = self.pyramid.sizes_for(size or self.pyramid.finest)
        state = self.layout(start_scale, sizes) if start_image is None else self.inject_image(start_image, start_scale, sizes)
        for level in range(start_scale, self._last_level(stop_scale) + 1):
            state = self.advance(level, self.draw(level, sizes[level], num_samples, generator), state, sizes[level])
        return self._finished(state, sizes, stop_scale)

    def reconstruct(self, stop_scale: int | None = None) -> Tensor:
        """The learned picture as the generator gives it back [1,3,H,W]."""
        sizes = self.pyramid.sizes
        return self._finished(self.layout(self._last_level(stop_scale) + 1, sizes), sizes, stop_scale)

    def inject(self, reference: Tensor, scale: int, *, num_samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """A picture [1,3,h,w] of any size made anew in the learned picture's style, from level `scale` (1 or finer) on."""
        size = self.pyramid.finest
        if reference.shape[-2:] != size:
            reference = resize_to(reference, size)
        return self.generate(size, start_scale=scale, start_image=reference, num_samples=num_samples, generator=generator)

    def animate(
        self,
        num_frames: int,
        *,
        alpha: float = 0.1,
        beta: float = 0.9,
        start_scale: int = 0,
        loop: bool = True,
        size: Size | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """Frames [1,3,H,W] of a walk through noise around the learned picture; the first is the picture as it is reconstructed.

        Args:
            alpha: how strongly the walk is drawn back to the picture.
            beta: how smoothly it goes, 0..1.
            start_scale: the first level that moves; finer starts move less.
            loop: close the path, so that the frame after the last is the first.
        """
        surroundings = self.surroundings(start_scale, size)
        for away in surroundings.walk(num_frames, alpha=alpha, beta=beta, loop=loop, generator=generator):
            yield surroundings.picture(away)

    def surroundings(self, start_scale: int, size: Size | None = None) -> Surroundings:
        """What an animation walks about in: the learned picture, where the levels from `start_scale` on are free."""
        sizes = self.pyramid.sizes_for(size or self.pyramid.finest)
        still = {level: self.fixed(level, sizes[level]) for level in range(start_scale, self.num_active_scales)}
        return Surroundings(self, sizes, self.layout(start_scale, sizes), still)

    def _last_level(self, stop_scale: int | None) -> int:
        last = self.num_active_scales - 1
        return last if stop_scale is None else min(stop_scale, last)

    def _finished(self, state: Any, sizes: Sequence[Size], stop_scale: int | None) -> Tensor:
        """Clamped, and at the full size where finer levels have not learned yet."""
        image = self.picture(state).float()
        if stop_scale is None:
            image = resize_to(image, sizes[-1])
        return image.clamp(-1, 1)

    # -- the contract with the loop -----------------------------------------------------------------------------------

    def translate(self, condition: Condition, carry: Samples | ScaleMemory | None = None) -> tuple[Output, Samples]:
        """Samples of the condition's size; frame k of a stream is sample k."""
        num_samples, num_frames, *_, height, width = condition.main.shape
        begin = carry.count if isinstance(carry, Samples) else 0
        size = self.pyramid.size_for((height, width), self.config.known_size)
        frames = []
        for frame in range(begin, begin + num_frames):
            image = self.generate(size, num_samples=num_samples, generator=torch.Generator().manual_seed(frame))
            frames.append(resize_to(image, (height, width)).clamp(-1, 1))
        return Output(torch.stack(frames, dim=1)), Samples(begin + num_frames)

    def begin(self, stage: Stage) -> None:
        """Let scales begin until there are as many as the stage has; a stage that has begun before changes nothing."""
        for level in range(self._num_begun, stage.num_active_scales):
            if level > 0:
                self._start_from_scale_below(level)
            self.num_begun_scales.fill_(level + 1)
            if self._knows_image:
                self._measure_amplitude(level)

    def memory(self, stage: Stage, batch: Batch) -> ScaleMemory:
        """The picture at the stage's scale.

        Raises:
            ConfigError: the picture is another one than the model has learned so far.
        """
        self._set_training_image(batch.window_target)
        level = stage.num_active_scales - 1
        return ScaleMemory(level, self.pyramid.level(self.image, level))

    @property
    def _num_begun(self) -> int:
        return self.pyramid.num_levels if self.num_begun_scales.is_meta else int(self.num_begun_scales)

    @property
    def _knows_image(self) -> bool:
        return not self.has_image.is_meta and bool(self.has_image)

    def _set_training_image(self, target: Tensor) -> None:
        if self._knows_image:
            self.check_image(target[:1, 0], "data")
            return
        self.image.copy_(self.pyramid.finest_of(target[:1, 0].float()))
        self.has_image.fill_(1)
        for level in range(self.num_active_scales):
            self._measure_amplitude(level)

    def check_image(self, image: Tensor, where: str) -> None:
        """
        Args:
            image: [1,3,h,w], -1..1; downscaling it in another way makes no difference.

        Raises:
            ConfigError: the model has learned another picture.
        """
        if float((self.pyramid.finest_of(image.float()) - self.image).abs().mean()) > _SAME_IMAGE:
            raise ConfigError(f"{where}: the model has learned another picture", hint="choose another folder for this one")

    @abstractmethod
    def _start_from_scale_below(self, level: int) -> None:
        """Copy what a scale begins with from the one before it."""

    @abstractmethod
    def _measure_amplitude(self, level: int) -> None:
        """Set how strong a level's noise is, from what the levels before it lack of the picture."""

    # -- losses -------------------------------------------------------------------------------------------------------

    def _critic_losses(self, critic: nn.Module, fake: Tensor, real: Tensor) -> Losses:
        """What a critic learns from; gradients do not reach `fake`."""
        fake = fake.detach()
        quality = critic(fake).float().mean() - critic(real).float().mean()
        top, left, height, width = random_window((real.shape[-2], real.shape[-1]), self.config.penalty_crop_size)
        rows, columns = slice(top, top + height), slice(left, left + width)
        penalty = pixelwise_gradient_penalty(critic, real[..., rows, columns], fake[..., rows, columns])
        return {"discriminator": quality, "discriminator_penalty": self.config.penalty_weight * penalty}

    def _generator_losses(self, critic: nn.Module, fake: Tensor, reconstruction: Tensor, real: Tensor) -> Losses:
        """What a generator learns from: the critic's view of a sample, and how well it gives the picture back."""
        return {
            "generator": -critic(fake).float().mean(),
            "reconstruction": self.config.reconstruction_weight * F.mse_loss(reconstruction.float(), real),
        }
