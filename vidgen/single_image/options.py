"""How a picture is learned and what an animation of it does: the two values that every application shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidgen.errors import ConfigError
from vidgen.networks import patches
from vidgen.runtime import Precision
from vidgen.single_image.pictures import MAX_SIDE, Size, size_text

Method = Literal["patch", "fast", "consingan", "singan"]
Kind = Literal["singan", "consingan"]
Profile = Literal["fast", "faithful"]
Purpose = Literal["sample", "animation", "super_resolution"]
"""What a model is trained for: its border, its number of scales and its loss weights follow."""

TRAINED: Mapping[str, tuple[Kind, Profile]] = {
    "fast": ("singan", "fast"),
    "consingan": ("consingan", "fast"),
    "singan": ("singan", "faithful"),
}
METHODS = ("patch", *TRAINED)
_AUTO_SIDES: Mapping[Purpose, int | None] = {"sample": 640, "animation": 1080, "super_resolution": None}
_AUTO_TRAINED_SIDE = 250
DEFAULT_FRAMES = 48
"""Frames of an animation of a still picture."""


@dataclass(frozen=True)
class SingleImageOptions:
    """How a picture is learned.

    Attributes:
        method: "patch" takes the picture's own patches and trains nothing; "fast" trains SinGAN in minutes; "consingan" trains
            ConSinGAN; "singan" trains SinGAN as published.
        budget_seconds: for the whole, training and all, where the method trains; None trains the whole schedule.
        max_side: longer side in pixels that is worked at; by default what suits the method.
        model: run folder of a trained model to use, or to train into; by default in the user's cache.
        seed: the same seed gives the same result.
        device, precision: where and how precisely models compute.

    Raises:
        ConfigError: there is no such method, a size that cannot be worked at, or a model for a method that trains none.
    """

    method: Method = "patch"
    budget_seconds: float | None = None
    max_side: int | None = None
    model: Path | None = None
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method}: known are {', '.join(METHODS)}")
        if self.max_side is not None and not patches.MIN_SIDE <= self.max_side <= MAX_SIDE:
            raise ConfigError(f"longer side {self.max_side}: is worked at from {patches.MIN_SIDE} to {MAX_SIDE} pixels")
        if self.model is not None and not self.trains:
            raise ConfigError(f"model {self.model}: method patch trains none; take method {' or '.join(TRAINED)}")

    @property
    def trains(self) -> bool:
        return self.method in TRAINED

    @property
    def kind(self) -> Kind:
        """The translator that is trained."""
        return TRAINED[self.method][0]

    @property
    def profile(self) -> Profile:
        """fast shares work between updates and learns from crops; faithful does what was published."""
        return TRAINED[self.method][1]

    def side(self, purpose: Purpose, own: int) -> int:
        """Longer side that a picture whose longer side is `own` is worked at."""
        if self.max_side is not None:
            return self.max_side
        if self.trains:
            return _AUTO_TRAINED_SIDE
        return self.shown_side(purpose, own)

    def shown_side(self, purpose: Purpose, own: int) -> int:
        """Longer side of what comes out, where detail of the picture can be added to what is worked at."""
        return self.max_side or _AUTO_SIDES[purpose] or own


@dataclass(frozen=True)
class Shape:
    """What size a result has: that of the picture unless one of these is stated.

    Attributes:
        size: (height, width).
        aspect: width over height, at the picture's area.
    """

    size: Size | None = None
    aspect: float | None = None

    def of(self, own: Size) -> Size | None:
        """(height, width) for a picture of size `own`; None for its own.

        Raises:
            ConfigError: it is below or above what can be generated.
        """
        if self.size is None and self.aspect is None:
            return None
        if self.size is not None:
            size, asked = self.size, f"size {size_text(self.size)}"
        else:
            assert self.aspect is not None
            width = math.sqrt(own[0] * own[1] * self.aspect)
            size = (round(width / self.aspect), round(width))
            asked = f"aspect {self.aspect:g}: gives {size_text(size)}"
        if min(size) < patches.MIN_SIDE or max(size) > MAX_SIDE:
            raise ConfigError(f"{asked}; sides are from {patches.MIN_SIDE} to {MAX_SIDE} pixels")
        return size


@dataclass(frozen=True)
class Walk:
    """A walk through noise around a picture, which makes an animation.

    Attributes:
        num_frames: how many; None for 48, or for as many as a clip has.
        loop: the first frame follows the last.
        start_scale: the coarsest scale that moves; finer ones move less. None chooses it by the picture.
        alpha: how strongly everything is drawn back to the picture.
        beta: how slowly it changes, 0..1.
        shape: size of the frames.
        motion: how fast it moves; 2 is about twice as fast as what suits most pictures.
    """

    num_frames: int | None = None
    loop: bool = False
    start_scale: int | None = None
    alpha: float = 0.1
    beta: float = 0.9
    shape: Shape = Shape()
    motion: float = 1.0

    def length(self, own: int = DEFAULT_FRAMES) -> int:
        """Number of frames, where it is `own` by default."""
        return own if self.num_frames is None else self.num_frames
