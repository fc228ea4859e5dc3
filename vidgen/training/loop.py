"""The training loop: the only place that owns optimizers. It sees translators and batches, never a file format.

Every random number of a step comes from (seed, step, window, clip), the learning rate is a pure function of (stage, step), and
the data too, so a run that was killed and resumed from any checkpoint is the same run, bit for bit on one machine.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vidgen.errors import CheckpointError, ConfigError, TrainingError
from vidgen.runtime import Runtime
from vidgen.training import parallel
from vidgen.training.muon import Muon
from vidgen.translators.base import Networks, Translator
from vidgen.types import Batch, Losses, OptimizerName, Output, Phase, Stage, Step
from vidgen.weights import checkpoints
from vidgen.weights.checkpoints import NUM_AVERAGED, Checkpoint, Progress
from vidgen.weights.files import load_into

Groups = Sequence[tuple[range, Batch]]
"""Positions in the update's batch, and the clips there, of one process."""


class Observer(Protocol):
    """Who watches a run: logs, samples, checkpoints, the wish to stop."""

    def step_done(self, record: StepRecord, trainer: Trainer) -> bool:
        """Called after each step; True ends the run here."""
        ...


@dataclass(frozen=True)
class LoopSettings:
    """What the loop itself needs to know."""

    seed: int
    ema_decay: float | None
    max_grad_norm: float | None
    max_nonfinite_steps: int
    max_steps: int | None
    optimizer: OptimizerName = "adam"


@dataclass(frozen=True)
class StepRecord:
    """What a step did; `losses` are means over its windows and clips, of all processes."""

    step: int
    total_steps: int
    stage: int
    stage_name: str
    learning_rate: float
    losses: dict[str, float]
    skipped_updates: int


def learning_rate(stage: Stage, step_in_stage: int) -> float:
    """Linear from the stage's first to its final learning rate."""
    share = step_in_stage / stage.num_steps
    return stage.learning_rate + (stage.final_learning_rate - stage.learning_rate) * share


def stage_of(stages: Sequence[Stage], step: int) -> tuple[int, int]:
    """(stage index, step within it) of global step `step`, counted from 0."""
    for index, stage in enumerate(stages):
        if step < stage.num_steps:
            return index, step
        step -= stage.num_steps
    return len(stages), 0


def seed_of(*parts: int) -> int:
    """A well-mixed seed from whole numbers."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Trainer:
    """Everything with state that changes from step to step: weights, optimizers, average, progress."""

    def __init__(
        self,
        translator: Translator[Any],
        stages: Sequence[Stage],
        settings: LoopSettings,
        networks: Networks,
        runtime: Runtime,
        progress: Progress | None = None,
    ) -> None:
        self.translator = translator
        self.stages = tuple(stages)
        self.settings = settings
        self.networks = networks
        self.runtime = runtime
        self.progress = progress or Progress()
        self.ema: AveragedModel | None = None
        if settings.ema_decay is not None:
            self.ema = AveragedModel(translator.generator, multi_avg_fn=_warmed_up_ema(settings.ema_decay))
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._learning: dict[str, tuple[str, ...]] = {}
        self._phases: tuple[Phase, ...] = ()
        self._others: dict[str, list[nn.Parameter]] = {}
        self._synchronized: dict[str, parallel.Synchronized] = {}
        self._stage_index = -1
        self._memory: Any = None

    @property
    def total_steps(self) -> int:
        total = sum(stage.num_steps for stage in self.stages)
        return min(total, self.settings.max_steps or total)

    def begin_stage(self, index: int) -> None:
        """Make the stage's phases; an optimizer lives on as long as its phase learns the same parameters."""
        stage = self.stages[index]
        self.translator.begin(stage)
        self._phases = self.translator.phases(stage)
        names = {parameter: name for name, parameter in self.translator.named_parameters()}
        optimizers: dict[str, torch.optim.Optimizer] = {}
        for phase in self._phases:
            learning = tuple(names[parameter] for parameter in phase.parameters())
            if self._learning.get(phase.name) == learning:
                optimizers[phase.name] = self.optimizers[phase.name]
            else:
                kind = self.settings.optimizer if phase.name == "generator" else "adam"
                optimizers[phase.name] = _optimizer(phase, stage.learning_rate, kind)
            self._learning[phase.name] = learning
        self.optimizers = optimizers
        learners = {parameter for phase in self._phases for parameter in phase.parameters()}
        for parameter in self.translator.parameters():
            parameter.requires_grad_(parameter in learners)
        self._others = {phase.name: list(learners.difference(phase.parameters())) for phase in self._phases}
        self._synchronized = {phase.name: parallel.Synchronized(self.translator, phase) for phase in self._phases}
        self._stage_index = index
        self._memory = None

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Let the translator measure the data before the first step of a new run."""
        self.translator.calibrate(batches, self.networks)

    def run(self, batches: Callable[[int], Groups], observer: Observer) -> None:
        """Train from the present progress to the end of the schedule or until the observer says stop.

        Args:
            batches: step -> this process's groups of clips of that step.

        Raises:
            TrainingError: losses stay non-finite, or memory ran out.
        """
        while self.progress.step < self.total_steps:
            started = time.monotonic()
            index, step_in_stage = stage_of(self.stages, self.progress.step)
            if index != self._stage_index:
                self.begin_stage(index)
            try:
                record = self._step(index, step_in_stage, batches(self.progress.step))
            except RuntimeError as error:
                raise _explained(error) from error
            following, _ = stage_of(self.stages, self.progress.step + 1)
            self.progress = replace(
                self.progress,
                step=self.progress.step + 1,
                stage=following,
                nonfinite_steps=self.progress.nonfinite_steps + 1 if record.skipped_updates else 0,
                seconds=self.progress.seconds + time.monotonic() - started,
            )
            if self.progress.nonfinite_steps > self.settings.max_nonfinite_steps:
                limit = self.settings.max_nonfinite_steps
                worst = [name for name, value in record.losses.items() if not math.isfinite(value)]
                raise TrainingError(
                    f"step {record.step}: {'losses ' + ', '.join(worst) if worst else 'gradients'} not finite for "
                    f"{self.progress.nonfinite_steps} steps in a row (train.max_nonfinite_steps: {limit})",
                    hint="the last checkpoint is good; lower the learning rate or set train.max_grad_norm",
                )
            if observer.step_done(record, self):
                return

    def _step(self, index: int, step_in_stage: int, groups: Groups) -> StepRecord:
        stage = self.stages[index]
        step = Step(stage, step_in_stage / stage.num_steps)
        rate = learning_rate(stage, step_in_stage)
        phases = [phase for phase in self._phases if self.progress.step % phase.every == 0]
        for phase in phases:
            scales = phase.optimizer.module_scales or (1.0,)
            for options, scale in zip(self.optimizers[phase.name].param_groups, scales, strict=True):
                options["lr"] = rate * phase.optimizer.learning_rate_scale * scale
        self.translator.train()
        moved = [(indices, batch.map(self.runtime.place)) for indices, batch in groups]
        windows = [batch.windows(stage.window_frames) for _, batch in moved]
        carries = [self.primed(batch) for _, batch in moved]
        totals: dict[str, list[Tensor]] = {}
        skipped = 0
        for window in range(len(windows[0])):
            leads = True  # whether the first phase, which the average follows, learns from this window
            for group, (indices, _) in enumerate(moved):
                last = group == len(moved) - 1
                torch.manual_seed(seed_of(self.settings.seed, self.progress.step, window, indices.start))
                batch = windows[group][window]
                with self.runtime.autocast():
                    output, carry = self.translator.rollout(batch, step, carries[group])
                carries[group] = carry if carry is None else carry.detach()
                for phase in phases:
                    if not self.translator.applies(phase, batch):
                        leads = leads and phase is not phases[0]
                        continue
                    seen = output
                    for repeat in range(phase.repeats):
                        if repeat:
                            with self.runtime.autocast():
                                seen = self.translator.again(phase, step, batch, seen)
                        losses = self._backward(phase, step, batch, seen, reduce=last, share=1 / len(moved))
                        for name, value in losses.items():
                            totals.setdefault(name, []).append(value.detach())
                        if last and not self._update(phase):
                            skipped += 1
            for phase in phases:
                self.optimizers[phase.name].zero_grad(set_to_none=True)
            if self.ema is not None and leads:
                self.ema.update_parameters(self.translator.generator)
        names = sorted(totals)
        means = torch.stack([torch.stack(totals[name]).double().mean() for name in names]).cpu()
        values = parallel.mean_over_processes(means).tolist()
        return StepRecord(
            step=self.progress.step + 1,
            total_steps=self.total_steps,
            stage=index,
            stage_name=stage.name,
            learning_rate=rate,
            losses=dict(zip(names, values, strict=True)),
            skipped_updates=skipped,
        )

    def primed(self, batch: Batch) -> Any:
        """What the first rollout of a clip starts from: its primer frames, or else what the stage remembers."""
        if batch.primer_frames:
            primer = batch.condition.slice_time(0, batch.primer_frames)
            with torch.no_grad(), self.runtime.autocast():
                return self.translator.prime(primer, batch.target[:, : batch.primer_frames])
        if self._memory is None:
            with torch.no_grad(), self.runtime.autocast():
                self._memory = self.translator.memory(self.stages[self._stage_index], batch)
        return self._memory

    def _backward(self, phase: Phase, step: Step, batch: Batch, output: Output, *, reduce: bool, share: float) -> Losses:
        """Add the gradients of a phase's losses to its parameters, everything else frozen."""
        frozen, synchronized = self._others[phase.name], self._synchronized[phase.name]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            with synchronized.without_reduction(skip=not reduce):
                with self.runtime.autocast():
                    losses = synchronized.losses(step, batch, output, self.networks)
                total = torch.stack([loss.float() for loss in losses.values()]).sum() * share
                total.backward()
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
        return losses

    def _update(self, phase: Phase) -> bool:
        """One optimizer step and no gradient left; False, and no step, where a gradient is not finite."""
        parameters = [parameter for parameter in phase.parameters() if parameter.grad is not None]
        limit = self.settings.max_grad_norm
        norm = nn.utils.clip_grad_norm_(parameters, limit if limit is not None else math.inf, error_if_nonfinite=False)
        finite = bool(torch.isfinite(norm))
        if finite:
            for _ in range(phase.optimizer.num_updates):
                self.optimizers[phase.name].step()
        self.optimizers[phase.name].zero_grad(set_to_none=True)
        return finite

    # -- state ----------------------------------------------------------------------------------------------------------

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint: weights, progress, optimizers, average.

        Raises:
            CheckpointError: it is incomplete, or belongs to another model.
        """
        model, optimizers = saved.read(checkpoints.MODEL), saved.read(checkpoints.OPTIMIZERS)
        if model is None or optimizers is None:
            raise CheckpointError(f"{saved.path}: holds no weights or no optimizers; it cannot be gone on with")
        load_into(self.translator, model.tensors, str(saved.path))
        self.progress = saved.progress
        index, _ = stage_of(self.stages, max(0, saved.progress.step - 1))
        self.begin_stage(index)
        checkpoints.fill_optimizers(self.optimizers, optimizers.tensors)
        ema = saved.read(saved.ema) if saved.ema is not None else None
        if ema is not None:
            self.fill_ema(ema.tensors)

    def ema_tensors(self) -> Mapping[str, Tensor] | None:
        """The averaged generator's weights and its count of updates, or None where no average is kept."""
        if self.ema is None:
            return None
        return {**self.ema.module.state_dict(), NUM_AVERAGED: self.ema.n_averaged}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The generator with its averaged weights, where there are any, while the block runs."""
        pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        if self.ema is not None:
            pairs = list(zip(self.translator.generator.parameters(), self.ema.module.parameters(), strict=True))
        _swap(pairs)
        try:
            yield
        finally:
            _swap(pairs)

    def fill_ema(self, tensors: Mapping[str, Tensor]) -> None:
        """The reverse of `ema_tensors`."""
        if self.ema is not None:
            weights = dict(tensors)
            self.ema.n_averaged.copy_(weights.pop(NUM_AVERAGED))
            self.ema.module.load_state_dict(weights)


def _swap(pairs: Iterable[tuple[nn.Parameter, nn.Parameter]]) -> None:
    for one, other in pairs:
        one.data, other.data = other.data, one.data


def _optimizer(phase: Phase, rate: float, kind: OptimizerName) -> torch.optim.Optimizer:
    """Adam, fused, or Muon; one group of parameters for each of the phase's modules where they learn at rates of their own."""
    options = phase.optimizer
    groups: Any = phase.parameters()
    if options.module_scales:
        groups = [{"params": list(module.parameters())} for module in phase.modules]
    if kind == "muon":
        if options.weight_decay:
            raise ConfigError("train.optimizer: muon has no weight decay, which this model asks for")
        return Muon(groups, rate, options.betas)
    if options.weight_decay:
        return torch.optim.AdamW(groups, lr=rate, betas=options.betas, weight_decay=options.weight_decay, fused=True)
    return torch.optim.Adam(groups, lr=rate, betas=options.betas, fused=True)


def _warmed_up_ema(decay: float) -> Callable[..., None]:
    """An exponential moving average whose decay is at most (1 + n) / (10 + n) after n updates.

    So a short run's average is not mostly its first weights. Source: the moving averages of TensorFlow and of StyleGAN.
    """

    def update(averages: Any, currents: Any, num_averaged: Tensor | int) -> None:
        count = float(num_averaged)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averages, currents, num_averaged)

    return update


def _explained(error: RuntimeError) -> Exception:
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return TrainingError(
            "out of memory; the last checkpoint is good and the run can go on from it",
            hint="lower train.micro_batch_size, data.width, or the clip's window_frames, then run the same command again",
        )
    return error
