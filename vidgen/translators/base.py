"""What a translator is: the contract between the published systems, the training loop and the commands.

A translator's file offers, beside its class:

- `Config`, a pydantic model;
- `inputs(config) -> tuple[Input, ...]`: what it reads of a video, and what of it only in training;
- `pretrained(config) -> tuple[Pretrained, ...]`: networks of others that its losses, discriminators or generator need;
- `build(config, networks) -> Translator`, where `networks` holds the declared ones by name;
- `stages(config, steps_per_epoch) -> tuple[Stage, ...]`, the paper's schedule;
- `RENAMES`, original checkpoint keys -> ours.

The translator says what learns, the loop says when. Using and training a model are two verbs: `translate` and `rollout`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar

from torch import Tensor, nn

from vidgen.networks.encoding import encode, fold_time
from vidgen.types import Batch, Condition, Losses, Output, Phase, Stage, Step

if TYPE_CHECKING:
    from vidgen.translators.settings import ConditionalConfig

Networks = Mapping[str, Any]
"""Pretrained networks by the name they are declared under, and "flow", the estimator of reference flow, where losses need it."""


class Carry(Protocol):
    """What a translator hands from one window of a video to the next; None starts a video."""

    def detach(self) -> Self: ...


CarryT = TypeVar("CarryT", bound=Carry)


class Translator(nn.Module, ABC, Generic[CarryT]):
    """Base of all systems. Holds weights only: what changes along a video travels in the carry, what changes in training in the
    step, and what stays the same for a stage in the memory.

    Attributes:
        generator: the module that `translate` uses; the rest serves training only.
        size_multiple: heights and widths must be multiples of this; callers pad and crop.
        num_past_frames: how many earlier frames each new one is made from; 0 for image translators.
        num_primer_frames: how many real frames start a training clip.
        needs_flow: whether its losses need reference flow.
        style_regions: what has one style each, for translators with an encoder of styles.
    """

    generator: nn.Module
    size_multiple: int
    num_past_frames: int = 0
    num_primer_frames: int = 0
    needs_flow: bool = False
    style_regions: Literal["instances", "labels"] = "instances"

    @property
    def per_class_parameters(self) -> frozenset[str]:
        """Names of parameters whose second axis begins with one entry per class; a model of other classes can start from them."""
        return frozenset()

    # -- use ------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def translate(self, condition: Condition, carry: CarryT | None = None) -> tuple[Output, CarryT | None]:
        """Generate the T frames of `condition`. Windows of any length, with the carry handed on, give the same video."""

    def prime(self, condition: Condition, frames: Tensor) -> CarryT | None:
        """The carry of a video that begins with known `frames` [B,K,3,H,W] under the same K frames of `condition`."""
        return None

    def styles_of(self, frames: Tensor, condition: Condition) -> Tensor:
        """The style of every object in real `frames` [B,T,3,H,W], the same all over an object: [B,T,C,H,W].

        Raises:
            ValueError: this translator has no encoder of styles.
        """
        raise ValueError("this model was trained without an encoder of styles")

    def first_state(self, size: tuple[int, int]) -> dict[str, Tensor]:
        """The state before the first frame of a video of `size` (height, width), all zeros; empty for image translators."""
        return {}

    def step(self, condition: Condition, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One frame as a pure function: what `translate` does, with a state of plain tensors, so that it can be exported.

        Args:
            condition: of one moment, [1,1,...].
            state: `first_state`, or what the step before returned.

        Returns:
            the frame [1,1,3,H,W] in -1..1, and the state for the next step.
        """
        return self.translate(condition)[0].frames, {}

    # -- training -------------------------------------------------------------------------------------------------------

    def begin(self, stage: Stage) -> None:
        """Get ready for a stage, before its optimizers exist (grow to its scales, copy weights between scales)."""

    def calibrate(self, batches: Iterable[Batch], networks: Networks) -> None:
        """Measure what losses need to know of the data; the loop asks once, before the first step of a new run."""

    def memory(self, stage: Stage, batch: Batch) -> CarryT | None:
        """What stays the same for the whole stage; the loop asks once, with the stage's first batch, and starts every rollout of
        the stage with it. Translators whose clips start from primer frames have none."""
        return None

    def rollout(self, batch: Batch, step: Step, carry: CarryT | None = None) -> tuple[Output, CarryT | None]:
        """Generate a training window, with all that training adds (corruption of the past, a reference, a random crop)."""
        return self.translate(batch.window_condition, carry)

    def again(self, phase: Phase, step: Step, batch: Batch, output: Output) -> Output:
        """The output that the next repeat of a phase learns from; the same by default."""
        return output

    @abstractmethod
    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        """Which parts learn in this stage, in the order in which they step."""

    def applies(self, phase: Phase, batch: Batch) -> bool:
        """Whether the phase has anything to learn from this window; the same on all processes."""
        return True

    @abstractmethod
    def losses(self, phase: Phase, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        """Weighted losses of one phase on one window."""


def compared(config: ConditionalConfig, batch: Batch, output: Output) -> tuple[Tensor, Tensor, Tensor]:
    """What losses on features compare: generated frames, real frames and their condition with ids, [N,C,H,W] each."""
    condition = encode(batch.window_condition, num_labels=config.num_labels, use_instances=config.use_instances, as_ids=True)
    return fold_time(output.frames), fold_time(batch.window_target), fold_time(condition)
