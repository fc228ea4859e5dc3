"""Training a model on one picture, to a plan that fits a time: one call of the loop, watched by what keeps to the plan."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vidgen import durable, translators
from vidgen.data.settings import ConditionSettings, DataSettings
from vidgen.errors import ConfigError, Terminated
from vidgen.media import images, paths
from vidgen.media.pixels import to_tensor
from vidgen.runtime import Runtime
from vidgen.single_image import budget
from vidgen.single_image.budget import SHARE, TrainingPlan
from vidgen.single_image.options import Kind, Profile, Purpose, SingleImageOptions
from vidgen.single_image.pictures import Picture, Size
from vidgen.training import run
from vidgen.training.loop import LoopSettings, StepRecord, Trainer
from vidgen.training.recorder import Recorder, StopRequest
from vidgen.training.run import Folder
from vidgen.training.settings import RunSettings, TrainSettings
from vidgen.translators.settings.cascade import SingleImageConfig
from vidgen.types import Batch, Condition
from vidgen.weights import checkpoints
from vidgen.weights.checkpoints import Checkpoint
from vidgen.weights.model_file import ModelCard

log = logging.getLogger(__name__)

PICTURE = "picture.png"
"""The picture, in the run folder, at the size that it is learned at."""
_COMPLETE = "complete.json"
_LATEST = 0.95
"""Part of the time after which the training ends wherever it is."""

_PURPOSES: Mapping[Kind, Mapping[Purpose, Mapping[str, Any]]] = {
    "singan": {
        "sample": {},
        "animation": {"min_size": 20, "border": "noise"},
        "super_resolution": {
            "min_size": 18,
            "scale_factor": 0.5 ** (1 / 3),
            "count_scales": "floor",
            "reconstruction_weight": 100.0,
        },
    },
    "consingan": {"sample": {}, "animation": {"min_size": 20, "border": "noise", "coarsest": "noise"}},
}
_FAST: Mapping[Kind, Mapping[str, Any]] = {
    "singan": {
        "max_channels": 32,
        "num_discriminator_steps": 1,
        "num_generator_steps": 1,
        "crop_size": 112,
        "penalty_crop_size": 48,
        "num_kept_cascades": 32,
    },
    "consingan": {"base_channels": 32, "num_discriminator_steps": 1, "num_updates": 1, "penalty_crop_size": 48},
}
_FAST_ANIMATION: Mapping[str, Any] = {
    "generator_norm": "none",
    "border": "mirror",
    "learning_rate": 2e-3,
    "reconstruction_weight": 100.0,
}
"""An animation stays near its picture, so what counts is how well that is known after a few hundred steps: on lightning at 244
pixels, 100 seconds of one core give back its fine scales 2.0 times as sharp with these settings as with the published ones, and no
rim is left."""


def model_config(
    kind: Kind, profile: Profile, purpose: Purpose, *, image_size: Size | None = None, max_size: int = 250
) -> SingleImageConfig:
    """The configuration that a training begins with, before any plan.

    Raises:
        ConfigError: the kind does not serve the purpose.
    """
    if purpose not in _PURPOSES[kind]:
        raise ConfigError(f"{kind} is not made for {purpose.replace('_', '-')}; it is for {', '.join(_PURPOSES[kind])}")
    fast: Mapping[str, Any] = _FAST[kind] if profile == "fast" else {}
    if fast and purpose == "animation":
        fast = {**fast, **_FAST_ANIMATION}
    settings = {**_PURPOSES[kind][purpose], **fast, "image_size": image_size, "max_size": max_size}
    config: SingleImageConfig = translators.find(kind).Config(**settings)
    return config


def plan_training(picture: Picture, purpose: Purpose, options: SingleImageOptions, seconds: float | None = None) -> TrainingPlan:
    """What `train` would do, without doing it (measuring takes some seconds).

    Args:
        picture: at the size that is worked at.
        seconds: for the training, where that is less than the whole budget.

    Raises:
        InputError: the picture is too small to learn from.
    """
    config = model_config(options.kind, options.profile, purpose, image_size=picture.size, max_size=max(picture.size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return budget.plan(config, seconds or options.budget_seconds, Runtime.choose(options.device, options.precision))


def is_complete(folder: Path) -> bool:
    """Whether the training in a run folder has come to its end, or is none that `train` here began."""
    return (folder / _COMPLETE).is_file() or not (folder / PICTURE).is_file()


def train(picture: Picture, folder: Path, purpose: Purpose, options: SingleImageOptions) -> None:
    """Train a model on one picture in a run folder.

    The same call goes on with an interrupted run, and does nothing for a complete one.

    Args:
        picture: at the size that is worked at.
        options: with a budget, the plan ends in that time, and the training at the latest then; without one the whole schedule
            is trained.

    Raises:
        InputError: the picture is too small to learn from.
        ConfigError: the folder's model has learned another picture.
        BusyError: another training is running there.
        OutputError, TrainingError, Terminated: see `vidgen.training`.
        KeyboardInterrupt: interrupted; everything is saved.
    """
    started = time.monotonic()
    files = Folder(folder)
    files.check()
    saved = files.newest_checkpoint(log.warning)
    if saved is not None and (folder / _COMPLETE).is_file():
        return
    runtime = Runtime.choose(options.device, options.precision)
    spent = saved.progress.seconds if saved else 0.0
    clock = _Clock(started - spent, options.budget_seconds)
    plan, config = None, _saved_config(saved)
    if config is None:
        plan = plan_training(picture, purpose, options, clock.left(1.0))
        config = plan.config
        _announce(plan)
    torch.manual_seed(options.seed)
    module = translators.find(config.kind)
    translator = module.build(config)
    runtime.prepare(translator)
    limits = LoopSettings(seed=options.seed, ema_decay=None, max_grad_norm=None, max_nonfinite_steps=5, max_steps=None)
    trainer = Trainer(translator, module.stages(config, 1), limits, {}, runtime)
    target = runtime.place(to_tensor(picture.pixels)[None, None])
    batch = Batch(Condition(frames=target[:, :, :0]), target)
    stop = StopRequest()
    with files.locked():
        if saved is not None:
            trainer.restore(saved)
            files.keep_metrics_until(saved.progress.step, log.warning)
        else:
            files.clear()
            durable.operations.remove(folder / _COMPLETE)
            images.write_png(folder / PICTURE, picture.pixels)
        settings = _run_settings(folder, config, options)
        files.write_config(settings)
        card = run.model_card(settings, None, picture.size)
        recorder = Recorder(files, settings, None, card, stop=stop, stop_after_seconds=clock.left(_LATEST))
        with stop.listening(), recorder.recording(trainer):
            trainer.run(lambda step: [(range(1), batch)], _Pacemaker(recorder, plan, clock, files, settings))
        if stop.signal is not None:
            message = f"saved after step {trainer.progress.step} of {trainer.total_steps}; the same again goes on"
            raise Terminated(message) if stop.signal == signal.SIGTERM else KeyboardInterrupt(message)
        durable.write_json(folder / _COMPLETE, {"picture": picture.name, "purpose": purpose, "steps": trainer.progress.step})


@dataclass(frozen=True)
class _Clock:
    """The time that a training has.

    Attributes:
        started: of `time.monotonic`, as if it had not been interrupted.
        budget_seconds: for everything; None sets no limit.
    """

    started: float
    budget_seconds: float | None

    def left(self, share: float) -> float | None:
        """Seconds until a share of the budget is spent; at least one."""
        if self.budget_seconds is None:
            return None
        return max(1.0, share * self.budget_seconds - (time.monotonic() - self.started))


class _Pacemaker:
    """Observer of the loop that records, and compares the plan with the clock where a third and two thirds of its time should be
    over: scales that have not begun then get more or fewer steps."""

    def __init__(self, recorder: Recorder, plan: TrainingPlan | None, clock: _Clock, files: Folder, settings: RunSettings) -> None:
        self._recorder, self._plan, self._clock = recorder, plan, clock
        self._files, self._settings = files, settings
        self._pauses = _pauses(plan) if plan is not None and clock.budget_seconds is not None else []

    def step_done(self, record: StepRecord, trainer: Trainer) -> bool:
        if self._recorder.step_done(record, trainer):
            return True
        if self._plan is not None and self._pauses and record.step == sum(self._plan.steps[: self._pauses[0]]):
            self._replan(self._plan, self._pauses.pop(0), trainer)
        return False

    def _replan(self, plan: TrainingPlan, num_done: int, trainer: Trainer) -> None:
        left = self._clock.left(SHARE)
        assert left is not None
        self._plan = budget.replan(plan, num_done, trainer.progress.seconds, left)
        log.info("%.0f s to go, as it now seems", sum(scale.seconds for scale in self._plan.scales[num_done:]))
        config = self._plan.config
        trainer.stages = tuple(translators.find(config.kind).stages(config, 1))
        self._recorder.card = replace(self._recorder.card, model=config)
        self._files.write_config(self._settings.model_copy(update={"model": config}))


def _pauses(plan: TrainingPlan) -> list[int]:
    """Numbers of complete scales at which the plan is compared with the clock."""
    pauses: list[int] = []
    for done in range(1, len(plan.scales)):
        share = sum(scale.seconds for scale in plan.scales[:done]) / plan.seconds
        if share > (len(pauses) + 1) / 3 and len(pauses) < 2:
            pauses.append(done)
    return pauses


def _saved_config(saved: Checkpoint | None) -> SingleImageConfig | None:
    """The configuration of an interrupted run, with the steps that were last planned."""
    model = saved.read(checkpoints.MODEL) if saved is not None else None
    if saved is None or model is None:
        return None
    config = ModelCard.read(model.metadata, str(saved.path)).model
    if not isinstance(config, SingleImageConfig):
        raise ConfigError(f"{paths.display(saved.path)}: is no model of a single picture")
    return config


def _run_settings(folder: Path, config: SingleImageConfig, options: SingleImageOptions) -> RunSettings:
    steps: Sequence[int] = [config.steps(level) for level in range(config.pyramid.num_levels)]
    return RunSettings(
        model=config,
        data=DataSettings(root=folder.absolute(), target=PICTURE, flip=False, condition=ConditionSettings()),
        train=TrainSettings(
            seed=options.seed,
            precision=options.precision,
            checkpoint_every_steps=max(20, round(sum(steps) / 20)),
            sample_every_steps=0,
        ),
    )


def _announce(plan: TrainingPlan) -> None:
    for row in plan.rows():
        log.info("scale %(scale)d: %(size)s, %(channels)d channels, %(steps)d steps, about %(seconds)s s", row)
    log.info("about %.0f s in all", plan.seconds)
