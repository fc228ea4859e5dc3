"""Train a model on one picture, to a plan that fits a time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import torch

from vidgen import config as yaml_config
from vidgen import durable
from vidgen.commands.train import train
from vidgen.errors import InputError
from vidgen.media.frames import open_source
from vidgen.networks.single_image import Size
from vidgen.training import budget
from vidgen.training.budget import Plan
from vidgen.training.precision import Precision, Runtime
from vidgen.training.run import Folder

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
        "discriminator_norm": "none",
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
    run = Folder(folder)
    checkpoint = run.newest_checkpoint(log.warning)
    plan_file = folder / "plan.yaml"
    spent = checkpoint.progress.seconds if checkpoint else 0.0
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
        for row in chosen.rows():
            log.info("scale %(scale)d: %(size)s, %(channels)d channels, %(steps)d steps, about %(seconds)s s", row)
        log.info("about %.0f s in all", chosen.seconds)
        durable.write_text(plan_file, yaml_config.to_yaml(_run_settings(image, chosen, seed, precision, max_size)))
    if budget_seconds is not None and spent > 0.8 * budget_seconds:
        return folder
    recorder = logging.getLogger("vidgen.training.recorder")
    before = recorder.level
    recorder.setLevel(before if show_progress else logging.WARNING)
    try:
        limit = None if budget_seconds is None else budget_seconds - spent
        train(plan_file, folder, time_limit_seconds=limit, device=device)
    finally:
        recorder.setLevel(before)
    return folder


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
