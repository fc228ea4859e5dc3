"""How large a single-image model, and how many steps per scale, fit into a time: measured on this machine, then divided up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from vidgen import translators
from vidgen.runtime import Runtime
from vidgen.single_image.pictures import Size, size_text
from vidgen.training.loop import LoopSettings, StepRecord, Trainer
from vidgen.translators import singan
from vidgen.translators.settings.cascade import SingleImageConfig
from vidgen.types import Batch, Condition, Stage

FEWEST_STEPS = 120
"""A scale that would get fewer is not worth its place: the model is made smaller instead."""
_LAYOUT_FACTOR = 4.0
MOST_STEPS = 2000
SHARE = 0.85
"""Part of the time that is planned; the rest is for the start, for checkpoints, for what is generated and written in the end, and
for a machine that has other work."""
_NUM_MEASURED = 3
"""Steps that a measurement of one scale takes; the first does not count."""
_PLANNING_SHARE = 0.1
"""Part of the time after which nothing more is measured; costs of other models then follow from what is known."""
_SMALLER: tuple[dict[str, int], ...] = (
    {},
    {"width": 24},
    {"width": 16},
    {"width": 16, "max_size": 192},
    {"width": 16, "max_size": 144},
    {"width": 12, "max_size": 112},
    {"width": 8, "max_size": 80},
)


@dataclass(frozen=True)
class ScalePlan:
    """One scale: its size (height, width), its channels and training steps, and the seconds that they will take."""

    scale: int
    size: Size
    channels: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class TrainingPlan:
    """A model and its schedule.

    Attributes:
        config: the model's configuration, with the steps of every scale.
    """

    config: SingleImageConfig
    scales: tuple[ScalePlan, ...]

    @property
    def seconds(self) -> float:
        return sum(scale.seconds for scale in self.scales)

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(scale.steps for scale in self.scales)

    def rows(self) -> list[dict[str, Any]]:
        """The plan as a table."""
        return [{**vars(scale), "size": size_text(scale.size), "seconds": round(scale.seconds, 1)} for scale in self.scales]

    def with_steps(self, steps: list[int], costs: list[float], num_done: int = 0) -> TrainingPlan:
        """The same with other steps for the scales from `num_done` on, one of which takes `costs` seconds each."""
        changed = [
            replace(scale, steps=count, seconds=count * cost)
            for scale, count, cost in zip(self.scales[num_done:], steps, costs, strict=True)
        ]
        scales = (*self.scales[:num_done], *changed)
        return TrainingPlan(self.config.model_copy(update={"steps_per_scale": tuple(scale.steps for scale in scales)}), scales)


def plan(config: SingleImageConfig, seconds: float | None, runtime: Runtime) -> TrainingPlan:
    """Divide a time among the scales.

    The model as it stands is always measured, smaller ones while there is time for it. Each scale gets steps in inverse
    proportion to the root of what one costs, which serves a sum of equal diminishing returns best. Where a scale would get too
    few, the model is made narrower, then its finest scale smaller.

    Args:
        config: of a picture of known size; widths, sizes and steps in it are upper limits.
        seconds: for everything; `SHARE` of it is planned. None keeps the configuration and only says how long it takes.

    For animations the coarsest scale gets more: it must know the whole layout by heart, which no finer scale mends.

    Raises:
        InputError: the picture is too small to learn from.
    """
    started = time.monotonic()
    if seconds is None:
        steps = [config.steps(level) for level in range(config.pyramid.num_levels)]
        return _described(config, steps, measure(config, runtime))
    per_work = 0.0
    for change in _SMALLER:
        smaller = _downsized(config, change)
        taken = time.monotonic() - started
        work = _work(smaller)
        hopeless = FEWEST_STEPS * per_work * sum(work) > 2 * (SHARE * seconds - taken)
        if hopeless and change is not _SMALLER[-1]:
            continue
        planning = _PLANNING_SHARE * seconds
        if per_work and taken + _NUM_MEASURED * per_work * sum(work) > planning:
            costs = [per_work * amount for amount in work]
        else:
            costs = measure(smaller, runtime, deadline=started + planning)
            per_work = sum(costs) / sum(work)
        steps = divide(SHARE * seconds - (time.monotonic() - started), costs, _LAYOUT_FACTOR if config.has_noise_around else 1.0)
        if min(steps) >= FEWEST_STEPS or change is _SMALLER[-1]:
            return _described(smaller, steps, costs)
    raise AssertionError("unreachable")


def replan(before: TrainingPlan, num_done: int, seconds_taken: float, seconds_left: float) -> TrainingPlan:
    """The same plan with new steps for the scales that have not begun, after `num_done` took `seconds_taken`; all of
    `seconds_left` is planned."""
    slower = seconds_taken / max(1e-9, sum(scale.seconds for scale in before.scales[:num_done]))
    costs = [slower * scale.seconds / scale.steps for scale in before.scales[num_done:]]
    return before.with_steps(divide(seconds_left, costs), costs, num_done)


def divide(seconds: float, costs: list[float], first_factor: float = 1.0) -> list[int]:
    """Steps of each scale for a time, when one step costs `costs`; at least 1, at most `MOST_STEPS`.

    Args:
        first_factor: what the steps of the first are multiplied with.
    """
    factors = [first_factor] + [1.0] * (len(costs) - 1)

    def steps(scale: float) -> list[int]:
        return [max(1, min(MOST_STEPS, int(scale * factor / cost**0.5))) for cost, factor in zip(costs, factors, strict=True)]

    low, high = 0.0, (MOST_STEPS + 1) * max(costs) ** 0.5
    for _ in range(60):
        middle = (low + high) / 2
        spent = sum(count * cost for count, cost in zip(steps(middle), costs, strict=True))
        low, high = (middle, high) if spent <= seconds else (low, middle)
    return steps(low)


def _work(config: SingleImageConfig) -> list[float]:
    """Something that grows as a step of each scale does: channels times pixels learned from."""
    return [config.width(level) * amount for level, amount in enumerate(_pixels(config))]


def _pixels(config: SingleImageConfig) -> list[float]:
    """Pixels that a step of each scale learns from."""
    side = max(config.pyramid.finest)
    if isinstance(config, singan.Config):
        side = config.crop_size or side
    return [float(min(height, side) * min(width, side)) for height, width in config.pyramid.sizes]


def measure(config: SingleImageConfig, runtime: Runtime, deadline: float = math.inf) -> list[float]:
    """Seconds of one training step at each scale, measured with random weights and a random picture.

    Args:
        deadline: of `time.monotonic`; scales that would take longer are estimated from the coarser ones.
    """
    if isinstance(config, singan.Config) and config.num_kept_cascades:
        config = config.model_copy(update={"num_kept_cascades": 1})  # drawing them is no part of a usual step
    module = translators.find(config.kind)
    translator = module.build(config)
    runtime.prepare(translator)
    schedule = list(_one_stage_per_scale(module.stages(config, 1)))
    settings = LoopSettings(seed=0, ema_decay=None, max_grad_norm=None, max_nonfinite_steps=10, max_steps=None)
    height, width = config.known_size
    picture = torch.rand(1, 1, 3, height, width) * 2 - 1
    batch = Batch(Condition(frames=picture[:, :, :0]), picture)
    levels = {0, len(schedule) // 2, len(schedule) - 1}
    levels |= {level for level in range(1, len(schedule)) if config.width(level) != config.width(level - 1)}
    seconds: dict[int, float] = {}
    work = _work(config)
    for level in sorted(levels):
        if seconds:
            below = max(seconds)
            expected = _NUM_MEASURED * seconds[below] * work[level] / work[below]
            if time.monotonic() + expected > deadline:
                break
        stage = schedule[level]
        clock = _Clock()
        trainer = Trainer(translator, (stage,), settings, {}, runtime)
        trainer.run(lambda step: [(range(1), batch)], clock)
        seconds[level] = clock.seconds
    return _between(seconds, config)


def _between(measured: dict[int, float], config: SingleImageConfig) -> list[float]:
    """Costs of all scales from those of some: linear in the pixels learned from; finer ones in the work."""
    pixels, work = _pixels(config), _work(config)
    known = sorted(measured)
    costs = []
    for level, amount in enumerate(pixels):
        if level > known[-1]:
            costs.append(_extrapolated([(work[item], measured[item]) for item in known[-2:]], work[level]))
            continue
        below = max(item for item in known if item <= level)
        above = min(item for item in known if item >= level)
        span = pixels[above] - pixels[below]
        share = (amount - pixels[below]) / span if span > 0 else 0.0
        costs.append(measured[below] + share * (measured[above] - measured[below]))
    return costs


def _extrapolated(points: list[tuple[float, float]], work: float) -> float:
    """Seconds of more work than was measured: on the line through the last two (work, seconds), or through the origin."""
    last_work, last_seconds = points[-1]
    first_work, first_seconds = points[0]
    if first_work < last_work and first_seconds < last_seconds:
        return last_seconds + (work - last_work) * (last_seconds - first_seconds) / (last_work - first_work)
    return last_seconds * work / last_work


class _Clock:
    """Observer that takes the shortest of some steps after the first."""

    def __init__(self) -> None:
        self._before = 0.0
        self._times: list[float] = []

    def step_done(self, record: StepRecord, trainer: Trainer) -> bool:
        now = time.monotonic()
        if record.step > 1:
            self._times.append(now - self._before)
        self._before = time.monotonic()
        return record.step >= _NUM_MEASURED

    @property
    def seconds(self) -> float:
        return min(self._times)


def _one_stage_per_scale(stages: tuple[Stage, ...]) -> Iterator[Stage]:
    seen = 0
    for stage in stages:
        if stage.num_active_scales > seen:
            seen = stage.num_active_scales
            yield Stage(stage.name, 100, stage.learning_rate, stage.learning_rate, num_active_scales=seen, learning=stage.learning)


def _downsized(config: SingleImageConfig, change: dict[str, int]) -> SingleImageConfig:
    known = type(config).model_fields
    changes = {"max_size": min(change.get("max_size", config.max_size), config.max_size)}
    for name in {"base_channels", "max_channels"} & set(known):
        own = config.model_dump()[name]
        changes[name] = min(change.get("width", own), own)
    return config.model_copy(update={**changes, "steps_per_scale": MOST_STEPS} if change else changes)


def _described(config: SingleImageConfig, steps: list[int], costs: list[float]) -> TrainingPlan:
    scales = tuple(
        ScalePlan(level, size, config.width(level), count, count * cost)
        for level, (size, count, cost) in enumerate(zip(config.pyramid.sizes, steps, costs, strict=True))
    )
    return TrainingPlan(config.model_copy(update={"steps_per_scale": tuple(steps)}), scales)
