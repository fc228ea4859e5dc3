"""How long a schedule takes here, measured on throwaway copies, so that a run can be made to fit a time."""

from __future__ import annotations

import copy
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import torch

from vidgen.runtime import Runtime
from vidgen.training import parallel
from vidgen.training.loop import Groups, LoopSettings, StepRecord, Trainer
from vidgen.translators.base import Networks, Translator
from vidgen.types import Stage

log = logging.getLogger(__name__)

_NUM_MEASURED = 3
_SHARE_FOR_MEASURING = 0.1
_SHARE_FOR_TRAINING = 0.92
"""The rest is for samples and checkpoints, and for machines that grow busier."""

StageBatches = Callable[[Stage, Iterable[int]], Generator[Groups, None, None]]
"""A stage and numbers of its steps -> this process's groups of clips of each of them, loaded as in training."""


class _Clock:
    """Observer of a few steps: the first one, which warms caches up, does not count; after the deadline one step is enough."""

    def __init__(self, deadline: float) -> None:
        self._times = [time.monotonic()]
        self._deadline = deadline

    def step_done(self, record: StepRecord, trainer: Trainer) -> bool:
        self._times.append(time.monotonic())
        num_measured = len(self._times) - 2
        return num_measured >= (_NUM_MEASURED if self._times[-1] < self._deadline else 1)

    @property
    def seconds(self) -> float:
        """The median of the steps: the least of them would promise that the machine is never busy."""
        lengths = [later - earlier for earlier, later in itertools.pairwise(self._times)]
        return statistics.median(lengths[1:] or lengths)


def _cost(stage: Stage) -> tuple[Any, ...]:
    """What decides how long a step of a stage takes."""
    plays = stage.adversarial != (0.0, 0.0)
    return (
        stage.clip_frames,
        stage.window_frames,
        stage.num_active_scales,
        stage.size_divisor,
        stage.learning,
        stage.uses_past,
        plays,
    )


def seconds_per_step(
    translator: Translator[Any],
    stages: Sequence[Stage],
    settings: LoopSettings,
    networks: Networks,
    runtime: Runtime,
    batches: StageBatches,
    *,
    deadline: float,
) -> list[float]:
    """Seconds of one training step of each stage.

    Args:
        deadline: of `time.monotonic`; stages that come later are estimated by their frames.
    """
    measured: dict[tuple[Any, ...], float] = {}
    per_frame = 0.0
    for stage in stages:
        if _cost(stage) in measured:
            continue
        frames = stage.clip_frames / stage.size_divisor**2
        expected = 2 * per_frame * frames
        if measured and time.monotonic() + expected > deadline:
            measured[_cost(stage)] = per_frame * frames
            continue
        random_state = torch.random.get_rng_state()
        trainer = Trainer(copy.deepcopy(translator), (stage,), settings, networks, runtime)
        clips = batches(stage, range(1 + _NUM_MEASURED))
        clock = _Clock(deadline)
        trainer.run(lambda step, clips=clips: next(clips), clock)  # type: ignore[misc]
        clips.close()
        torch.random.set_rng_state(random_state)
        measured[_cost(stage)] = clock.seconds
        per_frame = clock.seconds / frames
    return [measured[_cost(stage)] for stage in stages]


def fitting_stretch(
    translator: Translator[Any],
    stages: Sequence[Stage],
    settings: LoopSettings,
    networks: Networks,
    runtime: Runtime,
    batches: StageBatches,
    *,
    seconds: float,
) -> float:
    """The factor on the length of every stage with which the schedule is complete after `seconds`; the same on all processes."""
    started = time.monotonic()
    costs = seconds_per_step(
        translator, stages, settings, networks, runtime, batches, deadline=started + _SHARE_FOR_MEASURING * seconds
    )
    needed = sum(stage.num_steps * cost for stage, cost in zip(stages, costs, strict=True))
    left = _SHARE_FOR_TRAINING * seconds - (time.monotonic() - started)
    stretch = float(parallel.mean_over_processes(torch.tensor([max(0.0, left) / needed]).double()))
    log.info("the schedule would take %.1f minutes here; its stages are scaled by %.3g to fit", needed / 60, stretch)
    return max(float(f"{stretch:.4g}"), 1e-6)
