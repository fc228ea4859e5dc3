"""Train a model on one picture, to a plan that fits a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from vidgen import config as yaml_config
from vidgen import durable
from vidgen.commands.train import train
from vidgen.errors import InputError
from vidgen.media.frames import open_source
from vidgen.networks.single_image import Size
from vidgen.runtime import Precision, Runtime
from vidgen.training import budget
from vidgen.training.budget import Plan
from vidgen.training.run import Folder, load_run_config

log = logging.getLogger(__name__)

Kind = Literal["singan", "consingan"]
Mode = Literal["sample", "animation", "super_resolution"]
Profile = Literal["fast", "faithful"]

_MODES: dict[str, dict[str, dict[str, Any]]] = {
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
_FAST: dict[str, dict[str, Any]] = {
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


def model_settings(kind: Kind = "singan", profile: Profile = "fast", mode: Mode = "sample", max_size: int = 250) -> dict[str, Any]:
    """The model's section of a configuration, before any plan."""
    if mode not in _MODES[kind]:
        raise InputError(f"{kind} has no mode {mode}; it has {', '.join(_MODES[kind])}")
    fast = _FAST[kind] if profile == "fast" else {}
    return {"kind": kind, "max_size": max_size, **_MODES[kind][mode], **fast}


def plan_single(
    image: Path,
    *,
    kind: Kind = "singan",
    budget_seconds: float | None = None,
    profile: Profile = "fast",
    mode: Mode = "sample",
    max_size: int = 250,
    precision: Precision = "auto",
    device: str = "auto",
) -> Plan:
    """What `train_single` would do, without doing it (measuring takes some seconds).

    Raises:
        InputError: the picture cannot be read or is too small.
    """
    runtime = Runtime.choose(device, precision)
    size = _reduced_size(open_source(image).size, max_size)
    torch.manual_seed(0)
    return budget.plan(size, model_settings(kind, profile, mode, max_size), budget_seconds, runtime)


def train_single(
    image: Path,
    folder: Path,
    *,
    kind: Kind = "singan",
    budget_seconds: float | None = None,
    profile: Profile = "fast",
    mode: Mode = "sample",
    max_size: int = 250,
    seed: int = 0,
    precision: Precision = "auto",
    device: str = "auto",
    show_progress: bool = True,
) -> Path:
    """Train a model on one picture into a run folder, and return the folder.

    The same call goes on with an interrupted run, and does nothing for a finished one.

    Args:
        budget_seconds: the plan ends in this time, and the training at the latest then; None trains the whole schedule.
        profile: "fast" shares work between updates and learns from crops; "faithful" does what was published.
        mode: what the model is for: its border, number of scales and weights.

    Raises:
        InputError: the picture cannot be read or is too small.
        CheckpointError, OutputError, TrainingError, Terminated: see `train`.
        KeyboardInterrupt: interrupted; everything is saved.
    """
    started = time.monotonic()
    run = Folder(folder)
    checkpoint = run.newest_checkpoint(log.warning)
    plan_file = folder / "plan.yaml"
    spent = checkpoint.progress.seconds if checkpoint else 0.0
    if budget_seconds is not None and spent > 0.8 * budget_seconds:
        return folder

    def left() -> float | None:
        return None if budget_seconds is None else max(1.0, budget_seconds - spent - (time.monotonic() - started))

    with _progress_shown(show_progress):
        if checkpoint is None or not plan_file.is_file():
            chosen = plan_single(
                image,
                kind=kind,
                budget_seconds=budget_seconds,
                profile=profile,
                mode=mode,
                max_size=max_size,
                precision=precision,
                device=device,
            )
            _announce(chosen)
            durable.write_text(plan_file, yaml_config.to_yaml(_run_settings(image, chosen, seed, precision, max_size)))
            for pause in _pauses(chosen) if budget_seconds is not None else ():
                train(plan_file, folder, steps=sum(chosen.steps[: pause + 1]), stop_after_seconds=left(), device=device)
                done = run.newest_checkpoint(log.warning)
                chosen = budget.replan(chosen, pause + 1, done.progress.seconds if done else 0.0, left() or 0.0)
                log.info("%.0f s to go, as it now seems", sum(level.seconds for level in chosen.levels[pause + 1 :]))
                text = yaml_config.to_yaml(_run_settings(image, chosen, seed, precision, max_size))
                durable.write_text(plan_file, text)
                run.write_config(load_run_config(run.config, [f"model.steps_per_scale=[{', '.join(map(str, chosen.steps))}]"]))
        train(plan_file, folder, stop_after_seconds=left(), device=device)
    return folder


def _pauses(plan: Plan) -> list[int]:
    """Scales after which the plan is compared with the clock: where a third and two thirds of the time should be over."""
    pauses: list[int] = []
    for level in range(len(plan.levels) - 1):
        share = sum(item.seconds for item in plan.levels[: level + 1]) / plan.seconds
        if share > (len(pauses) + 1) / 3 and len(pauses) < 2:
            pauses.append(level)
    return pauses


def _announce(plan: Plan) -> None:
    for row in plan.rows():
        log.info("scale %(scale)d: %(size)s, %(channels)d channels, %(steps)d steps, about %(seconds)s s", row)
    log.info("about %.0f s in all", plan.seconds)


@contextmanager
def _progress_shown(shown: bool) -> Iterator[None]:
    recorder = logging.getLogger("vidgen.training.recorder")
    before = recorder.level
    recorder.setLevel(before if shown else logging.WARNING)
    try:
        yield
    finally:
        recorder.setLevel(before)


def _run_settings(image: Path, plan: Plan, seed: int, precision: Precision, max_size: int) -> dict[str, Any]:
    image = image.absolute()
    height, width = _reduced_size(open_source(image).size, max_size)
    model = {name: list(value) if isinstance(value, tuple) else value for name, value in plan.model.items()}
    return {
        "model": model,
        "data": {
            "root": str(image.parent),
            "target": image.name,
            "flip": False,
            "condition": {},
            "width": width,
            "height": height,
        },
        "train": {
            "seed": seed,
            "precision": precision,
            "checkpoint_every_steps": max(20, round(sum(level.steps for level in plan.levels) / 20)),
            "sample_every_steps": 0,
        },
    }


def _reduced_size(size: Size, max_size: int) -> Size:
    """The size at which the picture is read: a large one is reduced before anything sees it, by half as much again as needed."""
    factor = min(1.0, 2 * max_size / max(size))
    return round(size[0] * factor), round(size[1] * factor)
