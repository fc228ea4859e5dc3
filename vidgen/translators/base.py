"""What a translator is: the contract between the published systems, the training loop and the commands.

A translator's file offers, beside its class: `Config` (a pydantic model), `build(config) -> Translator`,
`stages(config, steps_per_epoch) -> tuple[Stage, ...]` (the paper's schedule) and `RENAMES` (original checkpoint keys -> ours).
The translator says what learns, the loop says when.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from vidgen.types import Batch, Condition, FlowEstimator, Losses, Output, Phase, Stage


class Carry(Protocol):
    """What a translator hands from one window of a video to the next; None starts a video."""

    def detach(self) -> Any: ...


@dataclass(frozen=True)
class Teachers:
    """Pretrained or classical judges used by losses; never part of a translator's weights.

    Attributes:
        flow: reference optical flow.
        perceptual: image [N,3,H,W] in -1..1 -> its features, one tensor per layer; None where no weights are given.
    """

    flow: FlowEstimator | None = None
    perceptual: nn.Module | None = None


class Translator(nn.Module, ABC):
    """Base of all systems. Holds weights only: everything that changes along a video travels in the carry.

    Attributes:
        generator: the module that `translate` uses; the rest serves training only.
        size_multiple: heights and widths must be multiples of this; callers pad and crop.
        num_past_frames: how many earlier frames each new one is made from; 0 for image translators.
        num_primer_frames: how many real frames start a training clip.
        needs_flow: whether its losses need reference flow.
    """

    generator: nn.Module
    size_multiple: int
    num_past_frames: int = 0
    num_primer_frames: int = 0
    needs_flow: bool = False

    @abstractmethod
    def translate(self, condition: Condition, carry: Any = None) -> tuple[Output, Any]:
        """Make the T frames of `condition`. Windows of any length, with the carry handed on, give the same video."""

    def shown(self, batch: Batch) -> Condition:
        """What the generator is shown of a training window; more than at test where it learns to read a reference."""
        return batch.window_condition

    def prime(self, condition: Condition, frames: Tensor) -> Any:
        """The carry of a video that begins with known `frames` [B,K,3,H,W] under the same K frames of `condition`."""
        return None

    def begin(self, stage: Stage) -> None:
        """Get ready for a stage, before its optimizers are made (grow to its scales, copy weights between scales)."""

    @abstractmethod
    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        """Which parts learn in this stage, in the order in which they step."""

    def applies(self, phase: Phase, batch: Batch) -> bool:
        """Whether the phase has anything to learn from this window; the same on all processes."""
        return True

    @abstractmethod
    def losses(self, phase: Phase, batch: Batch, output: Output, teachers: Teachers) -> Losses:
        """Weighted losses of one phase on one window."""
