"""Checkpoints of a run: complete or absent, verified when read, the newest complete one wins.

Layout: `checkpoints/step-0000120/` holds `model.safetensors` (all weights, with the model card in its metadata),
`ema.safetensors` (averaged generator, where one is kept), `optimizers.safetensors`, and `state.json` with the progress and
the SHA-256 of the other files. Nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vidgen import durable
from vidgen.errors import CheckpointError
from vidgen.weights.files import Weights, read_weights

if TYPE_CHECKING:  # finding a file does not need torch
    import torch
    from torch import Tensor

FORMAT_VERSION = 1
NUM_AVERAGED = "n_averaged"
"""Name of the average's count of updates among its weights."""
MODEL, EMA, OPTIMIZERS, STATE = "model.safetensors", "ema.safetensors", "optimizers.safetensors", "state.json"
OLD_EMA = "average.safetensors"
"""What 0.1 called the file of averaged weights."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step.

    Attributes:
        step: steps done.
        stage: index of the stage that the next step belongs to.
        nonfinite_steps: steps in a row whose losses were not finite.
        seconds: training time so far.
    """

    step: int = 0
    stage: int = 0
    nonfinite_steps: int = 0
    seconds: float = 0.0


def optimizer_tensors(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Adam's moments and step counts of all optimizers, flat: `<phase>/<parameter index>/<name>`."""
    import torch

    result = {}
    for phase, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                result[f"{phase}/{index}/{name}"] = value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
    return result


def fill_optimizers(optimizers: Mapping[str, torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`; phases without stored values stay fresh."""
    import torch

    for phase, optimizer in optimizers.items():
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            owner, index, name = key.rsplit("/", 2)
            if owner == phase:
                like = parameters[int(index)]
                # the moments must lie in memory as the weights do: the fused optimizer walks both together
                laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                state.setdefault(int(index), {})[name] = laid_out
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def write_checkpoint(folder: Path, progress: Progress, files: Mapping[str, bytes], keep: int) -> Path:
    """Write one complete checkpoint and drop all but the newest `keep`.

    Raises:
        OutputError: the disk is full or read-only; earlier checkpoints stay.
    """
    state = {
        "format_version": FORMAT_VERSION,
        "progress": vars(progress),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    path = folder / f"step-{progress.step:07d}"
    durable.write_folder(path, {**files, STATE: (json.dumps(state, indent=2) + "\n").encode()})
    for old in _by_step(folder)[keep:]:
        durable.operations.remove(old)
    return path


def _by_step(folder: Path) -> list[Path]:
    """Checkpoint folders, newest step first; by the number in the name, never by the clock."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and path.name[5:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    path: Path
    progress: Progress
    files: tuple[str, ...]

    def read(self, name: str) -> Weights | None:
        return read_weights(self.path / name) if name in self.files else None

    @property
    def ema(self) -> str | None:
        """Name of the file of averaged weights, if there is one."""
        return next((name for name in (EMA, OLD_EMA) if name in self.files), None)


def newest(folder: Path, warn: Any = None) -> Checkpoint | None:
    """The newest complete and undamaged checkpoint in `folder`, or None if there never was one.

    Args:
        warn: called with one line for each damaged checkpoint that was passed over.

    Raises:
        CheckpointError: there are checkpoints, but none is usable.
    """
    faults = []
    for path in _by_step(folder):
        try:
            return _verified(path)
        except CheckpointError as error:
            faults.append(str(error))
            if warn is not None:
                warn(f"{error}; trying the one before")
    if faults:
        raise CheckpointError(f"{folder}: no usable checkpoint ({faults[0]})")
    return None


def _verified(path: Path) -> Checkpoint:
    try:
        state = json.loads((path / STATE).read_text())
        version, hashes = state["format_version"], dict(state["sha256"])
        progress = _progress(state["progress"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: {STATE} is missing or damaged") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: written in format {version}; this version of vidgen reads format {FORMAT_VERSION}")
    for name, expected in hashes.items():
        try:
            with (path / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path / name}: missing") from error
        if found != expected:
            raise CheckpointError(f"{path / name}: damaged (its SHA-256 is not the recorded one)")
    return Checkpoint(path, progress, tuple(hashes))


def _progress(stored: Mapping[str, Any]) -> Progress:
    """0.1 wrote `bad_steps`."""
    renamed = {"bad_steps": "nonfinite_steps"}
    return Progress(**{renamed.get(name, name): value for name, value in stored.items()})


def shipped() -> dict[str, Path]:
    """Models that come with vidgen: name -> weights file."""
    folder = Path(str(resources.files("vidgen.weights") / "shipped"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_weights(model: Path, prefer: Literal["auto", "ema", "last"] = "auto") -> tuple[Weights, Path]:
    """Weights by the path of a weights file, a checkpoint folder or a run folder (its newest checkpoint), or a shipped name.

    Args:
        prefer: in a checkpoint, the averaged generator where there is one ("auto"), only that, or the last weights.

    Raises:
        CheckpointError: there are none.
    """
    file, averaged = find_files(model, prefer)
    last = read_weights(file)
    if averaged is None:
        return last, file
    generator = {f"generator.{name}": value for name, value in read_weights(averaged).tensors.items() if name != NUM_AVERAGED}
    return Weights({**last.tensors, **generator}, last.metadata), averaged


def find_files(model: Path, prefer: Literal["auto", "ema", "last"] = "auto") -> tuple[Path, Path | None]:
    """The files that `find_weights` reads: the last weights and, where they are preferred, the averaged ones.

    Raises:
        CheckpointError: there are none.
    """
    if model.is_file():
        return model, None
    if not model.exists() and model.name in shipped():
        return shipped()[model.name], None
    if not model.exists():
        raise CheckpointError(f"{model}: no such weights file or run folder")
    if (model / STATE).is_file():
        found: Checkpoint | None = _verified(model)
    else:
        found = newest(model / "checkpoints")
    if found is None:
        raise CheckpointError(f"{model}: holds no checkpoint; train one first")
    if prefer == "last" or (prefer == "auto" and found.ema is None):
        return found.path / MODEL, None
    if found.ema is None:
        raise CheckpointError(f"{found.path}: holds no averaged weights (train.ema_decay was not set); use the last ones")
    return found.path / MODEL, found.path / found.ema
