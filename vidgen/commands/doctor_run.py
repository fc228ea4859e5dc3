"""The state of a run folder: what is whole, what is damaged, and whether training can go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidgen import durable
from vidgen.errors import CheckpointError, InputError, PartialFailure, VidgenError, printable
from vidgen.training import run
from vidgen.training import settings as run_settings
from vidgen.training.history import read_history
from vidgen.training.run import Folder
from vidgen.weights import checkpoints
from vidgen.weights.checkpoints import Checkpoint
from vidgen.weights.model_file import ModelCard

_WHOLE = "whole"


def doctor_run(path: Path) -> dict[str, Any]:
    """Read every file of a run, and compare it with what was written; nothing is changed.

    Returns:
        what is whole, what is damaged and how, each in words; `resumable`; and `damaged`, the number of damaged parts.

    Raises:
        InputError: the folder holds no run.
    """
    folder = Folder(path)
    found = checkpoints.by_step(folder.checkpoints)
    if not (folder.is_run or found):
        raise InputError(f"{printable(path)}: holds no run", hint="a run has a config.yaml and a folder checkpoints")
    states, newest = _checkpoints(found)
    parts = {"configuration": _configuration(folder), "log": _log(folder, newest)}
    owner = durable.holder(path / run.LOCK)
    damaged = sum(not state.startswith((_WHOLE, "none")) for state in (*parts.values(), *states.values()))
    return {
        "run": str(path),
        **parts,
        "checkpoints": states or "none",
        "unfinished": sorted(entry.name for entry in path.rglob(f"*{durable.PART}*")) or None,
        "training": f"running now ({owner})" if owner else "not running",
        "resumable": _resumable(parts["configuration"], newest, bool(states)),
        "damaged": damaged,
    }


def enforce(result: dict[str, Any]) -> None:
    """Fail where the run cannot go on, or where a part of it is damaged.

    Raises:
        CheckpointError: it cannot.
        PartialFailure: it can, without what is damaged.
    """
    if not result["resumable"].startswith("yes"):
        raise CheckpointError(f"{printable(result['run'])}: cannot be resumed; {result['resumable'].removeprefix('no: ')}")
    if result["damaged"]:
        parts = "1 part is" if result["damaged"] == 1 else f"{result['damaged']} parts are"
        raise PartialFailure(f"{printable(result['run'])}: {parts} damaged; training can go on without")


def _checkpoints(found: list[Path]) -> tuple[dict[str, str], Checkpoint | None]:
    """The state of each checkpoint, newest first, and the newest whole one."""
    states: dict[str, str] = {}
    newest: Checkpoint | None = None
    for path in found:
        try:
            checkpoint = checkpoints.verified(path)
            for name in checkpoint.files:
                weights = checkpoint.read(name)
                if name == checkpoints.MODEL and weights is not None:
                    ModelCard.read(weights.metadata, printable(path / name))
        except VidgenError as error:
            states[path.name] = f"damaged: {_within(error, path)}"
        else:
            states[path.name] = _WHOLE if checkpoint.note is None else f"{_WHOLE} ({_within(checkpoint.note, path)})"
            newest = newest or checkpoint
    return states, newest


def _configuration(folder: Folder) -> str:
    try:
        run_settings.load_run_config(folder.config, [])
    except VidgenError as error:
        return f"damaged: {_within(error, folder.path)}"
    return _WHOLE


def _log(folder: Folder, newest: Checkpoint | None) -> str:
    try:
        history = read_history(folder.metrics)
    except VidgenError as error:
        return f"damaged: {_within(error, folder.path)}"
    if history.fault is not None:
        return f"damaged: {history.fault}"
    if newest is not None and history.num_steps < newest.progress.step:
        return f"damaged: ends at step {history.num_steps}, the newest whole checkpoint is of step {newest.progress.step}"
    return f"{_WHOLE}, {history.num_steps} steps" if history.lines else "none yet"


def _resumable(configuration: str, newest: Checkpoint | None, has_checkpoints: bool) -> str:
    if configuration != _WHOLE:
        return "no: its config.yaml is damaged; give the configuration file it was started with"
    if newest is not None:
        return f"yes, from step {newest.progress.step}"
    if has_checkpoints:
        return "no: none of its checkpoints is whole"
    return "yes, from the start: it has no checkpoint yet"


def _within(text: object, folder: Path) -> str:
    """A message without the folder that everything here lies in."""
    return str(text).replace(f"{printable(folder)}/", "").replace(f"{printable(folder)}: ", "")
