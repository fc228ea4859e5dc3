"""How large a single-image model, and how many steps per scale, fit into a time: measured on this machine, then divided up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from vidgen.errors import ConfigError
from vidgen.networks.single_image import Size
from vidgen.runtime import Runtime
from vidgen.training.loop import LoopSettings, StepRecord, Trainer
from vidgen.translators import available
from vidgen.types import Batch, Condition, Stage

FEWEST_STEPS = 120
"""A scale that would get fewer is not worth its place: the model is made smaller instead."""
MOST_STEPS = 2000
_NUM_MEASURED = 3
"""Steps that a measurement of one scale takes; the first does not count."""
_SHARE = 0.85
"""Part of the budget that is planned; the rest is for start, checkpoints, and a machine that has other work."""
_PLANNING_SHARE = 0.1
"""Part of the budget after which nothing more is measured; costs of other models then follow from what is known."""
_SMALLER: tuple[dict[str, Any], ...] = (
    {},
    {"width": 24},
    {"width": 16},
    {"width": 16, "max_size": 192},
    {"width": 16, "max_size": 144},
    {"width": 12, "max_size": 112},
    {"width": 8, "max_size": 80},
)


@dataclass(frozen=True)
class LevelPlan:
    """One scale: its size, width, steps, and the seconds they will take."""

    level: int
    size: Size
    channels: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A model and a schedule.

    Attributes:
        model: the model's section of a run's configuration, all but what follows the data.
    """

    model: dict[str, Any]
    levels: tuple[LevelPlan, ...]

    @property
    def seconds(self) -> float:
        return sum(level.seconds for level in self.levels)

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(level.steps for level in self.levels)

    def rows(self) -> list[dict[str, Any]]:
        """The plan as a table."""
        return [
            {
                "scale": level.level,
                "size": f"{level.size[1]}x{level.size[0]}",
                "channels": level.channels,
                "steps": level.steps,
                "seconds": round(level.seconds, 1),
            }
            for level in self.levels
        ]


def plan(size: Size, model: dict[str, Any], budget_seconds: float | None, runtime: Runtime) -> Plan:
    """Divide a time among the scales.

    The model as it stands is always measured, smaller ones while there is time for it. Each scale gets steps in inverse
    proportion to the root of what one costs, which serves a sum of equal diminishing returns best. Where a scale would get too
    few, the model is made narrower, then its finest scale smaller.

    Args:
        size: (height, width) of the picture.
        model: the model's configuration; widths, sizes and steps in it are upper limits.
        budget_seconds: for everything; None keeps the configuration and only says how long it takes.

    Raises:
        ConfigError, InputError: the configuration does not fit the picture.
    """
    config = _config(model, size)
    if budget_seconds is None:
        return _described(
            model, size, [config.steps(level) for level in range(config.pyramid.num_levels)], measure(config, runtime)
        )
    started = time.monotonic()
    per_work = 0.0
    for change in _SMALLER:
        smaller = _reduced(model, change)
        config = _config(smaller, size)
        taken = time.monotonic() - started
        left = _SHARE * budget_seconds - taken
        work = _work(config)
        hopeless = FEWEST_STEPS * per_work * sum(work) > 2 * left
        if hopeless and change is not _SMALLER[-1]:
            continue
        planning = _PLANNING_SHARE * budget_seconds
        if per_work and taken + _NUM_MEASURED * per_work * sum(work) > planning:
            costs = [per_work * amount for amount in work]
        else:
            costs = measure(config, runtime, deadline=started + planning)
            per_work = sum(costs) / sum(work)
        steps = divide(_SHARE * budget_seconds - (time.monotonic() - started), costs)
        if min(steps) >= FEWEST_STEPS or change is _SMALLER[-1]:
            return _described({**smaller, "steps_per_scale": tuple(steps)}, size, steps, costs)
    raise AssertionError("unreachable")


def _work(config: Any) -> list[float]:
    """Something that grows as a step of each scale does: channels times pixels learnt from."""
    return [config.width(level) * amount for level, amount in enumerate(_pixels(config))]


def _pixels(config: Any) -> list[float]:
    """Pixels that a step of each scale learns from."""
    side = getattr(config, "crop_size", None) or max(config.pyramid.finest)
    return [float(min(height, side) * min(width, side)) for height, width in config.pyramid.sizes]


def replan(before: Plan, num_done: int, seconds_taken: float, seconds_left: float) -> Plan:
    """The same plan with new steps for the scales that have not begun, after `num_done` took `seconds_taken`."""
    done, rest = before.levels[:num_done], before.levels[num_done:]
    slower = seconds_taken / max(1e-9, sum(level.seconds for level in done))
    costs = [slower * level.seconds / level.steps for level in rest]
    steps = divide(_SHARE * seconds_left, costs)
    changed = tuple(
        replace(level, steps=count, seconds=count * cost) for level, count, cost in zip(rest, steps, costs, strict=True)
    )
    return Plan({**before.model, "steps_per_scale": (*(level.steps for level in done), *steps)}, (*done, *changed))


def divide(seconds: float, costs: list[float]) -> list[int]:
    """Steps of each scale for a time, when one step costs `costs`; at least 1, at most `MOST_STEPS`."""

    def steps(scale: float) -> list[int]:
        return [max(1, min(MOST_STEPS, int(scale / cost**0.5))) for cost in costs]

    low, high = 0.0, (MOST_STEPS + 1) * max(costs) ** 0.5
    for _ in range(60):
        middle = (low + high) / 2
        spent = sum(count * cost for count, cost in zip(steps(middle), costs, strict=True))
        low, high = (middle, high) if spent <= seconds else (low, middle)
    return steps(low)


def measure(config: Any, runtime: Runtime, deadline: float = math.inf) -> list[float]:
    """Seconds of one training step at each scale, measured with random weights and a random picture.

    Args:
        deadline: of `time.monotonic`; scales that would take longer are estimated from the coarser ones.
    """
    if getattr(config, "num_kept_cascades", 0):
        config = config.model_copy(update={"num_kept_cascades": 1})  # making them is no part of a usual step
    module = available()[config.kind]
    translator = module.build(config)
    runtime.prepare(translator)
    schedule = list(_one_stage_per_scale(module.stages(config, 1)))
    settings = LoopSettings(seed=0, ema_decay=None, max_grad_norm=None, max_nonfinite_steps=10, max_steps=None)
    height, width = config.image_size
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


def _between(measured: dict[int, float], config: Any) -> list[float]:
    """Costs of all scales from those of some: linear in the pixels learnt from; finer ones in the work."""
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


def _reduced(model: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    reduced = dict(model)
    if "width" in change:
        known = available()[model["kind"]].Config.model_fields
        for name in {"base_channels", "max_channels"} & set(known):
            reduced[name] = min(change["width"], reduced.get(name, change["width"]))
    if "max_size" in change:
        reduced["max_size"] = min(change["max_size"], reduced.get("max_size", change["max_size"]))
    return reduced


def _config(model: dict[str, Any], size: Size) -> Any:
    names = available()
    if model["kind"] not in names:
        raise ConfigError(f"unknown kind {model['kind']!r}; known: {', '.join(names)}")
    return names[model["kind"]].Config(**{**model, "image_size": size})


def _described(model: dict[str, Any], size: Size, steps: list[int], costs: list[float]) -> Plan:
    config = _config(model, size)
    levels = tuple(
        LevelPlan(level, config.pyramid.sizes[level], config.width(level), count, count * cost)
        for level, (count, cost) in enumerate(zip(steps, costs, strict=True))
    )
    return Plan(model, levels)
