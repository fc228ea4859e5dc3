"""The values that flow between the rooms; see each class for shapes, units and ranges.

Absent is `None`, never 0. Checks stand here, in the constructors, so networks need none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

Losses = dict[str, Tensor]
"""Name -> scalar, already weighted; the sum is minimised and each is logged."""

FlowEstimator = Callable[[Tensor, Tensor], Tensor]
"""(current, previous), both [N,3,H,W] in -1..1 -> flow [N,2,H,W] in pixels, from the current grid into the previous frame."""


def _check(value: Tensor | None, name: str, dims: int, floating: bool) -> None:
    if value is None:
        return
    if value.ndim != dims:
        raise ValueError(f"{name}: expected {dims} dimensions, got shape {tuple(value.shape)}")
    if value.is_floating_point() != floating:
        raise ValueError(f"{name}: expected {'floating point' if floating else 'int64'}, got {value.dtype}")


@dataclass(frozen=True)
class Clip:
    """Decoded frames with their timing.

    Attributes:
        frames: uint8 [T,3,H,W], RGB.
        pts: presentation time of each frame in units of `time_base`, increasing.
        time_base: seconds per pts unit.
        source: where it came from, for messages and audio.
    """

    frames: Tensor
    pts: tuple[int, ...]
    time_base: Fraction
    source: str = ""

    def __post_init__(self) -> None:
        if self.frames.dtype != torch.uint8 or self.frames.ndim != 4 or self.frames.shape[1] != 3:
            raise ValueError(f"Clip.frames: expected uint8 [T,3,H,W], got {self.frames.dtype} {tuple(self.frames.shape)}")
        if len(self.pts) != len(self.frames):
            raise ValueError(f"Clip.pts: {len(self.pts)} times for {len(self.frames)} frames")

    @property
    def fps(self) -> Fraction:
        """Mean frames per second over the clip (25 for a single frame, which has none)."""
        if len(self.pts) < 2:
            return Fraction(25)
        return Fraction(len(self.pts) - 1) / ((self.pts[-1] - self.pts[0]) * self.time_base)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.frames.shape[2], self.frames.shape[3]


@dataclass(frozen=True)
class Condition:
    """All that a generator may see of a clip; the target is not in it.

    Attributes:
        labels: int64 [B,T,H,W], class ids; -1 marks ignored pixels (an all-zero one-hot).
        frames: float [B,T,C,H,W], -1..1 (edge maps, pose drawings, pictures).
        instances: int64 [B,T,H,W], object ids; only their boundaries are seen.
        reference: float [B,R,3,H,W], -1..1, pictures whose look is wanted.
        styles: float [B,T,C,H,W], -1..1, a look for every pixel, for generators with a feature encoder.
    """

    labels: Tensor | None = None
    frames: Tensor | None = None
    instances: Tensor | None = None
    reference: Tensor | None = None
    styles: Tensor | None = None

    def __post_init__(self) -> None:
        _check(self.labels, "Condition.labels", 4, floating=False)
        _check(self.frames, "Condition.frames", 5, floating=True)
        _check(self.instances, "Condition.instances", 4, floating=False)
        _check(self.reference, "Condition.reference", 5, floating=True)
        _check(self.styles, "Condition.styles", 5, floating=True)
        if self.labels is None and self.frames is None:
            raise ValueError("Condition: needs labels or frames")
        shape = self.main.shape
        if self.styles is not None and (self.styles.shape[:2], self.styles.shape[-2:]) != (shape[:2], shape[-2:]):
            raise ValueError(f"Condition.styles: {tuple(self.styles.shape)} does not fit {tuple(shape)}")

    @property
    def main(self) -> Tensor:
        """Labels, or frames where there are none: the tensor that defines B, T, H and W."""
        if self.labels is not None:
            return self.labels
        assert self.frames is not None
        return self.frames

    @property
    def num_frames(self) -> int:
        return self.main.shape[1]

    def time_slice(self, start: int, stop: int) -> Condition:
        """Frames start..stop-1 of everything that has a time axis."""

        def cut(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[:, start:stop]

        changed = {name: cut(getattr(self, name)) for name in ("labels", "frames", "instances", "styles")}
        return replace(self, **changed)

    def map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """Apply `change` (such as a move to a device) to every tensor."""
        return _map_tensors(self, change)


@dataclass(frozen=True)
class Output:
    """What a translator made of a window of T frames.

    Attributes:
        frames: float [B,T,3,H,W], -1..1, the result.
        raw: the same before blending with the warped past; None where there is no past.
        flow: [B,T,2,H,W], pixels, from the frame's grid into the previous frame; None where the translator has no flow.
        mask: [B,T,1,H,W], 0..1; 1 trusts the generated pixel, 0 the warped one.
        previous: [B,T,3,H,W], the frame before each, as the generator saw it (detached, uncorrupted).
        history: [B,P,3,H,W], results of earlier windows of the clip (detached), kept while training for temporal judges.
    """

    frames: Tensor
    raw: Tensor | None = None
    flow: Tensor | None = None
    mask: Tensor | None = None
    previous: Tensor | None = None
    history: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Training clips and the window of them under work.

    Attributes:
        condition: the whole clips.
        target: float [B,T,3,H,W], -1..1, real frames of the whole clips.
        flow: [B,T,2,H,W], pixels, reference flow of frame t into frame t-1 (zero at t = 0), or None.
        confidence: [B,T,1,H,W], 0..1, where that flow explains the frame (zero at t = 0), or None.
        primer_frames: how many leading frames only start the recurrence; they are never generated.
        start, stop: the window, in frames of the clip; the whole generated part by default.
    """

    condition: Condition
    target: Tensor
    flow: Tensor | None = None
    confidence: Tensor | None = None
    primer_frames: int = 0
    start: int = field(default=-1)
    stop: int = field(default=-1)

    def __post_init__(self) -> None:
        _check(self.target, "Batch.target", 5, floating=True)
        if self.target.shape[1] != self.condition.num_frames:
            raise ValueError(f"Batch: {self.target.shape[1]} target frames for {self.condition.num_frames} condition frames")
        if self.start < 0:
            object.__setattr__(self, "start", self.primer_frames)
            object.__setattr__(self, "stop", self.target.shape[1])

    def windows(self, window_frames: int) -> list[Batch]:
        """The generated part cut into windows of `window_frames` (the last may be shorter), each keeping the whole clip."""
        total = self.target.shape[1]
        starts = range(self.primer_frames, total, window_frames)
        return [replace(self, start=start, stop=min(start + window_frames, total)) for start in starts]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Apply `change` (such as a move to a device) to every tensor."""
        return _map_tensors(self, change)

    @property
    def window_condition(self) -> Condition:
        return self.condition.time_slice(self.start, self.stop)

    @property
    def window_target(self) -> Tensor:
        return self.target[:, self.start : self.stop]

    @property
    def previous_target(self) -> Tensor:
        """Real frame before each frame of the window [B,T,3,H,W]; the first frame of a clip is its own predecessor."""
        if self.start > 0:
            return self.target[:, self.start - 1 : self.stop - 1]
        return torch.cat([self.target[:, :1], self.target[:, : self.stop - 1]], dim=1)


def _map_tensors(value, change):  # type: ignore[no-untyped-def]
    changed = {}
    for item in fields(value):
        old = getattr(value, item.name)
        if isinstance(old, Tensor):
            changed[item.name] = change(old)
        elif isinstance(old, Condition):
            changed[item.name] = old.map(change)
    return replace(value, **changed)


@dataclass(frozen=True)
class Phase:
    """A part of a translator that learns together, by one optimizer.

    Attributes:
        name: the optimizer's name in logs and checkpoints.
        modules: what learns; everything else is frozen meanwhile.
        learning_rate_scale: factor on the stage's learning rate (two time-scale update rule).
        betas: Adam's.
        repetition: how often a phase of this name came before in the same step; all of them share one optimizer.
        module_scales: a further factor for each of the modules; all 1 where it is empty.
        num_updates: optimizer steps that are taken with the same gradient.
    """

    name: str
    modules: tuple[nn.Module, ...]
    learning_rate_scale: float = 1.0
    betas: tuple[float, float] = (0.5, 0.999)
    repetition: int = 0
    module_scales: tuple[float, ...] = ()
    num_updates: int = 1

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for module in self.modules for parameter in module.parameters()]


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one setting; a staged schedule is a tuple of these.

    Attributes:
        name: shown to the user.
        num_steps: training steps (one batch of clips each).
        learning_rate, final_learning_rate: at its first step and just after its last; linear in between.
        clip_frames: frames generated per clip.
        window_frames: frames generated per update; the carry is detached between windows.
        backpropagate_frames: how many frames a gradient flows back through the generated past.
        active_scales: how many spatial scales exist so far.
        size_divisor: the data's size is divided by this.
        learning: which part learns; a word of the translator's.
        uses_past: whether frames are made with the help of those before them.
    """

    name: str
    num_steps: int
    learning_rate: float
    final_learning_rate: float
    clip_frames: int = 1
    window_frames: int = 1
    backpropagate_frames: int = 1
    active_scales: int = 1
    size_divisor: int = 1
    learning: str = "all"
    uses_past: bool = True
