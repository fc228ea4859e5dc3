"""The values that flow between the rooms; see each class for shapes, units and ranges.

Absent is `None`, never 0. Checks stand here, in the constructors, so networks need none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:  # declarations of inputs and stages do without torch
    import torch
    from torch import Tensor, nn

Losses: TypeAlias = "dict[str, Tensor]"
"""Name -> scalar, already weighted; the sum is minimised and each is logged."""

FlowEstimator: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""(current, previous), both [N,3,H,W] in -1..1 -> flow [N,2,H,W] in pixels, from the current grid into the previous frame."""


def _check(value: Tensor | None, name: str, dims: int, floating: bool) -> None:
    if value is None:
        return
    if value.ndim != dims:
        raise ValueError(f"{name}: expected {dims} dimensions, got shape {tuple(value.shape)}")
    if value.is_floating_point() != floating:
        raise ValueError(f"{name}: expected {'floating point' if floating else 'int64'}, got {value.dtype}")


InputKind = Literal["labels", "instances", "picture", "lines", "edges", "sketch", "class_id", "style_picture", "styles", "noise"]


@dataclass(frozen=True)
class Input:
    """One input that a translator declares; data loading, command options, forms and importers derive from these.

    Attributes:
        name: key of its tensor in a `Condition`; pictures and edges of a frame share the tensor "frames", in this order.
        kind: what it is, which decides how files become its tensor.
        channels: channels that the network reads of it (classes for labels, 1 for the boundaries of instances).
        per_frame: one for each frame; False for one that holds for the whole video.
        when: whether it is read in training, in use, or in both.
    """

    name: str
    kind: InputKind
    channels: int
    per_frame: bool = True
    when: Literal["training", "use", "both"] = "both"


@dataclass(frozen=True)
class Pretrained:
    """A pretrained network that a translator declares; it is loaded once and is never part of the translator's weights.

    Attributes:
        name: key in the catalog of pretrained networks, such as "vgg19".
        because: the setting that asks for it, for messages, such as "model.losses.perceptual_weight".
        when: whether training alone needs it, or use too.
    """

    name: str
    because: str
    when: Literal["training", "both"] = "training"


class Condition:
    """All that a generator may see of a clip, as tensors by name; the ground truth is not among them.

    The usual names, all with a batch axis first and, unless they are in `whole_video`, a time axis second:

    - labels: int64 [B,T,H,W], class ids; -1 marks ignored pixels (an all-zero one-hot).
    - frames: float [B,T,C,H,W], -1..1 (edge maps, pose drawings, pictures).
    - instances: int64 [B,T,H,W], object ids; only their boundaries are seen.
    - reference: float [B,T,3,H,W], -1..1, pictures of the scene whose style is wanted.
    - styles: float [B,T,C,H,W], -1..1, a style for every pixel, for generators with a feature encoder.
    - noise: int64 [B], seed of a generator's noise, the same for all frames of a video.
    - style: float [B,3,S,S], -1..1, the picture whose style a whole video is to have.
    - class_id: int64 [B], which of the model's classes the video shows.

    Args:
        whole_video: names of further tensors that hold for the whole video, without a time axis (a class id, a style picture).
        tensors: by name; those that are None are left out.

    Raises:
        ValueError: a tensor has another type or shape than its name says, or there is none to take sizes from.
    """

    _WHOLE_VIDEO = frozenset({"noise", "style", "class_id"})
    _DIMS: Mapping[str, tuple[int, bool]] = {
        "labels": (4, False),
        "frames": (5, True),
        "instances": (4, False),
        "reference": (5, True),
        "styles": (5, True),
    }

    def __init__(self, *, whole_video: Iterable[str] = (), **tensors: Tensor | None) -> None:
        self.tensors: dict[str, Tensor] = {name: value for name, value in tensors.items() if value is not None}
        self.whole_video = (self._WHOLE_VIDEO | frozenset(whole_video)) & self.tensors.keys()
        for name, value in self.tensors.items():
            if name in self._DIMS and name not in self.whole_video:
                dims, floating = self._DIMS[name]
                _check(value, f"Condition.{name}", dims, floating)
        if "labels" not in self.tensors and "frames" not in self.tensors:
            raise ValueError("Condition: needs labels or frames")
        shape = self.main.shape
        if self.styles is not None and (self.styles.shape[:2], self.styles.shape[-2:]) != (shape[:2], shape[-2:]):
            raise ValueError(f"Condition.styles: {tuple(self.styles.shape)} does not fit {tuple(shape)}")

    @property
    def labels(self) -> Tensor | None:
        return self.tensors.get("labels")

    @property
    def frames(self) -> Tensor | None:
        return self.tensors.get("frames")

    @property
    def instances(self) -> Tensor | None:
        return self.tensors.get("instances")

    @property
    def reference(self) -> Tensor | None:
        return self.tensors.get("reference")

    @property
    def styles(self) -> Tensor | None:
        return self.tensors.get("styles")

    @property
    def main(self) -> Tensor:
        """Labels, or frames where there are none: the tensor that defines B, T, H and W."""
        return self.tensors["labels"] if "labels" in self.tensors else self.tensors["frames"]

    @property
    def num_frames(self) -> int:
        return self.main.shape[1]

    def slice_time(self, start: int, stop: int) -> Condition:
        """Frames start..stop-1 of everything that has a time axis."""
        return self._changed(lambda value: value[:, start:stop], per_frame_only=True)

    def repeat(self, num_frames: int) -> Condition:
        """Its single frame, `num_frames` times."""
        return self._changed(lambda value: value.expand(-1, num_frames, *value.shape[2:]), per_frame_only=True)

    def map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """Apply `change` (such as a move to a device) to every tensor."""
        return self._changed(change)

    def to(self, device: torch.device | str) -> Condition:
        """On another device."""
        return self.map(lambda value: value.to(device))

    def with_tensors(self, **tensors: Tensor) -> Condition:
        """The same with more tensors, or with others in their place."""
        return Condition(whole_video=self.whole_video, **{**self.tensors, **tensors})

    @staticmethod
    def concatenate(conditions: Sequence[Condition]) -> Condition:
        """Several conditions with equal names as one batch."""
        first = conditions[0]
        import torch

        joined = {name: torch.cat([item.tensors[name] for item in conditions]) for name in first.tensors}
        return Condition(whole_video=first.whole_video, **joined)

    def _changed(self, change: Callable[[Tensor], Tensor], *, per_frame_only: bool = False) -> Condition:
        fixed = self.whole_video if per_frame_only else frozenset()
        tensors = {name: value if name in fixed else change(value) for name, value in self.tensors.items()}
        return Condition(whole_video=self.whole_video, **tensors)


@dataclass(frozen=True)
class Output:
    """What a translator generated for a window of T frames.

    Attributes:
        frames: float [B,T,3,H,W], -1..1, the result.
        raw: the same before blending with the warped past; None where there is no past.
        flow: [B,T,2,H,W], pixels, from the frame's grid into the previous frame; None where the translator has no flow.
        mask: [B,T,1,H,W], 0..1; 1 trusts the generated pixel, 0 the warped one.
        previous: [B,T,3,H,W], the frame before each, as the generator saw it (detached, uncorrupted).
        history: [B,P,3,H,W], results of earlier windows of the clip (detached), kept in training for temporal discriminators.
        extras: further values of a training window by name. Losses of one phase may leave here what those of the next need
            again, such as features of the ground truth.
    """

    frames: Tensor
    raw: Tensor | None = None
    flow: Tensor | None = None
    mask: Tensor | None = None
    previous: Tensor | None = None
    history: Tensor | None = None
    extras: dict[str, Any] = field(default_factory=dict, compare=False)


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
        """The generated part, cut into windows of `window_frames` (the last may be shorter), each keeping the whole clip."""
        total = self.target.shape[1]
        starts = range(self.primer_frames, total, window_frames)
        return [replace(self, start=start, stop=min(start + window_frames, total)) for start in starts]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Apply `change` (such as a move to a device) to every tensor."""
        return _map_tensors(self, change)

    @property
    def window_condition(self) -> Condition:
        return self.condition.slice_time(self.start, self.stop)

    @property
    def window_target(self) -> Tensor:
        return self.target[:, self.start : self.stop]

    @property
    def previous_target(self) -> Tensor:
        """Real frame before each frame of the window [B,T,3,H,W]; the first frame of a clip is its own predecessor."""
        if self.start > 0:
            return self.target[:, self.start - 1 : self.stop - 1]
        import torch

        return torch.cat([self.target[:, :1], self.target[:, : self.stop - 1]], dim=1)


def _map_tensors(value, change):  # type: ignore[no-untyped-def]
    import torch

    changed = {}
    for item in fields(value):
        old = getattr(value, item.name)
        if isinstance(old, torch.Tensor):
            changed[item.name] = change(old)
        elif isinstance(old, Condition):
            changed[item.name] = old.map(change)
    return replace(value, **changed)


OptimizerName = Literal["adam", "muon"]
"""Of the generator; see `vidgen.training.muon`."""


@dataclass(frozen=True)
class OptimizerSettings:
    """How a phase learns.

    Attributes:
        learning_rate_scale: factor on the stage's learning rate (two time-scale update rule).
        betas, weight_decay: of Adam, which becomes AdamW where there is weight decay.
        module_scales: a further factor for each of the phase's modules; all 1 where it is empty.
        num_updates: optimizer steps taken with the same gradient.
    """

    learning_rate_scale: float = 1.0
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0
    module_scales: tuple[float, ...] = ()
    num_updates: int = 1


@dataclass(frozen=True)
class Phase:
    """A part of a translator that learns together, by one optimizer.

    Attributes:
        name: the optimizer's name in logs and checkpoints.
        modules: what learns; everything else is frozen meanwhile.
        optimizer: how.
        every: it learns in every n-th step only.
        repeats: updates in each of those steps.
        scale: index of the temporal or spatial scale that it belongs to, where there are several of a kind.
    """

    name: str
    modules: tuple[nn.Module, ...]
    optimizer: OptimizerSettings = OptimizerSettings()
    every: int = 1
    repeats: int = 1
    scale: int = 0

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for module in self.modules for parameter in module.parameters()]


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one setting; a staged schedule is a tuple of these.

    Attributes:
        name: what logs call it.
        num_steps: training steps (one batch of clips each).
        learning_rate, final_learning_rate: at its first step and just after its last; linear in between.
        clip_frames: frames generated per clip.
        window_frames: frames generated per update; the carry is detached between windows.
        backpropagate_frames: how many frames a gradient flows back through the generated past.
        num_active_scales: how many spatial scales exist so far.
        size_divisor: the data's size is divided by this.
        learning: which part learns: everything, the finest scale alone, or the scale that paints.
        uses_past: whether frames are generated with the help of those before them.
        adversarial: factor on the adversarial losses at its first step and just after its last; linear in between.
        mixture: share of samples from each of `data.sources`, at its first step and just after its last; the rest comes from the
            first source.
    """

    name: str
    num_steps: int
    learning_rate: float
    final_learning_rate: float
    clip_frames: int = 1
    window_frames: int = 1
    backpropagate_frames: int = 1
    num_active_scales: int = 1
    size_divisor: int = 1
    learning: Literal["all", "finest", "paint"] = "all"
    uses_past: bool = True
    adversarial: tuple[float, float] = (1.0, 1.0)
    mixture: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Step:
    """A training step: where in its stage it lies.

    Attributes:
        progress: 0 at the stage's first step, 1 just after its last.
    """

    stage: Stage
    progress: float = 0.0

    def between(self, ends: tuple[float, float]) -> float:
        """The value that goes from the first of `ends` to the second over the stage."""
        return ends[0] + (ends[1] - ends[0]) * self.progress
