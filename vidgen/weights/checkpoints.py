"""Checkpoints of a run: complete or absent, verified when read, the newest complete one wins.

Layout: `checkpoints/step-0000120/` holds `model.safetensors` (all weights, with the model card in its metadata),
`ema.safetensors` (averaged generator, where one is kept), `optimizers.safetensors`, `state.json` with the progress, and
`manifest.json` with the step and the size and SHA-256 of every other file. Nothing in it can run code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
from pydantic import Field, FiniteFloat, NonNegativeInt

from vidgen import durable, kinds
from vidgen.errors import CheckpointError, printable
from vidgen.weights.files import Stored, Weights, read_json, read_weights

if TYPE_CHECKING:  # finding a file does not need torch
    import torch
    from torch import Tensor

FORMAT_VERSION = 2
"""The format written. 1 had no manifest, and the SHA-256 of the weights in its state; it is still read."""
NUM_AVERAGED = "n_averaged"
"""Name of the average's count of updates among its weights."""
MODEL, EMA, OPTIMIZERS, STATE = "model.safetensors", "ema.safetensors", "optimizers.safetensors", "state.json"
MANIFEST = "manifest.json"
BEST = "best.safetensors"
"""In a run folder: the generator that came closest to the held-out frames."""
OLD_EMA = "average.safetensors"
"""What 0.1 called the file of averaged weights."""
_FILES = (MODEL, EMA, OLD_EMA, OPTIMIZERS, STATE, MANIFEST)
_NAME = re.compile(r"step-([0-9]{7,18})")


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


class _StoredProgress(Stored):
    """`Progress` in a file; 0.1 wrote `bad_steps`."""

    step: NonNegativeInt
    stage: NonNegativeInt
    nonfinite_steps: NonNegativeInt = Field(default=0, validation_alias=pydantic.AliasChoices("nonfinite_steps", "bad_steps"))
    seconds: Annotated[FiniteFloat, Field(ge=0)]


class _State(Stored):
    """`state.json`; format 1 also holds the SHA-256 of the weights."""

    format_version: int
    progress: _StoredProgress
    sha256: dict[str, str] = Field(default_factory=dict)


class _Manifest(Stored):
    """`manifest.json`: size in bytes and SHA-256 of every other file, by its name."""

    step: NonNegativeInt
    files: dict[str, tuple[NonNegativeInt, str]]


def write_checkpoint(folder: Path, progress: Progress, files: Mapping[str, bytes], keep: int) -> Path:
    """Write one complete checkpoint and drop all but the newest `keep`.

    Raises:
        OutputError: the disk is full or read-only; earlier checkpoints stay.
    """
    contents = {**files, STATE: _json({"format_version": FORMAT_VERSION, "progress": vars(progress)})}
    hashes = {name: (print_.num_bytes, print_.sha256) for name, print_ in durable.fingerprints(contents).items()}
    path = folder / f"step-{progress.step:07d}"
    durable.write_folder(path, {**contents, MANIFEST: _json({"step": progress.step, "files": hashes})})
    for old in by_step(folder)[keep:]:
        _remove(old)
    return path


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def by_step(folder: Path) -> list[Path]:
    """Checkpoint folders, newest step first; by the number in the name, never by the clock."""
    found = [
        path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and any((path / name).exists() for name in _FILES)
    ]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def remove_all(folder: Path) -> None:
    """Remove the checkpoints in `folder`, and it too if nothing else is there."""
    for path in by_step(folder):
        _remove(path)
    durable.remove_if_empty(folder)


def _remove(path: Path) -> None:
    """Remove a checkpoint, but nothing that others put into its folder."""
    for name in _FILES:
        durable.operations.remove(path / name)
    durable.remove_if_empty(path)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    path: Path
    progress: Progress
    files: tuple[str, ...]
    note: str | None = None
    """What else to know of it, in words."""

    def read(self, name: str) -> Weights | None:
        return read_weights(self.path / name) if name in self.files else None

    @property
    def ema(self) -> str | None:
        """Name of the file of averaged weights, if there is one."""
        return next((name for name in (EMA, OLD_EMA) if name in self.files), None)


def newest(folder: Path, warn: Callable[[str], object] | None = None) -> Checkpoint | None:
    """The newest complete and undamaged checkpoint in `folder`, or None if there never was one.

    Args:
        warn: called with one line for each damaged checkpoint that was passed over, and for one that cannot be checked whole.

    Raises:
        CheckpointError: there are checkpoints, but none is usable.
    """
    faults = []
    for path in by_step(folder):
        try:
            found = verified(path)
        except CheckpointError as error:
            faults.append(str(error))
            if warn is not None:
                warn(f"{error}; trying the one before")
        else:
            if found.note is not None and warn is not None:
                warn(found.note)
            return found
    if faults:
        raise CheckpointError(f"{printable(folder)}: no usable checkpoint ({faults[0]})")
    return None


def verified(path: Path) -> Checkpoint:
    """The checkpoint in a folder, every file of it compared with what was written.

    Raises:
        CheckpointError: a file is missing or damaged, or it was written by a later version.
    """
    where = printable(path)
    hashes: Mapping[str, durable.Fingerprint] | None = None
    step = None
    if (path / MANIFEST).exists():
        manifest = read_json(path / MANIFEST, _Manifest)
        hashes, step = {name: durable.Fingerprint(*stored) for name, stored in manifest.files.items()}, manifest.step
        _compare(path, hashes)
    state = read_json(path / STATE, _State)
    if not 1 <= state.format_version <= FORMAT_VERSION:
        raise CheckpointError(
            f"{where}: written in format {state.format_version}; this version of vidgen reads formats up to {FORMAT_VERSION}"
        )
    note = None
    if hashes is None:
        if state.format_version > 1:
            raise CheckpointError(f"{where}: {MANIFEST} is missing")
        hashes = {name: durable.Fingerprint(None, digest) for name, digest in state.sha256.items()}
        _compare(path, hashes)
        note = f"{where}: written by an earlier version; its weights are whole, its {STATE} cannot be checked"
    if MODEL not in hashes or (step is not None and STATE not in hashes):
        raise CheckpointError(f"{where}: its list of files leaves out {MODEL if MODEL not in hashes else STATE}")
    name = _NAME.fullmatch(path.name)
    steps = {state.progress.step, *([] if step is None else [step]), *([int(name[1])] if name else [])}
    if len(steps) > 1:
        raise CheckpointError(f"{where}: damaged; its name and files speak of the steps {', '.join(map(str, sorted(steps)))}")
    files = tuple(name for name in hashes if name != STATE)
    return Checkpoint(path, Progress(**state.progress.model_dump()), files, note)


def _compare(path: Path, hashes: Mapping[str, durable.Fingerprint]) -> None:
    """
    Raises:
        CheckpointError: a file of a checkpoint is missing, or is not what was written.
    """
    for name, expected in hashes.items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise CheckpointError(f"{printable(file)}: missing")
        try:
            found = durable.fingerprint(file, expected)
        except OSError as error:
            raise CheckpointError(f"{printable(file)}: cannot be read ({error.strerror})") from error
        if expected.num_bytes is not None and found.num_bytes != expected.num_bytes:
            raise CheckpointError(f"{printable(file)}: damaged (has {found.num_bytes} of {expected.num_bytes} bytes)")
        if found.sha256 != expected.sha256:
            raise CheckpointError(f"{printable(file)}: damaged (its SHA-256 is not the recorded one)")


def shipped() -> dict[str, Path]:
    """Models that come with vidgen: name -> weights file."""
    folder = Path(str(resources.files("vidgen.weights") / "shipped"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_weights(model: Path, prefer: Literal["auto", "ema", "last", "best"] = "auto") -> tuple[Weights, Path]:
    """Weights by the path of a weights file, a checkpoint folder or a run folder (its newest checkpoint), or a shipped name.

    Args:
        prefer: in a checkpoint, the averaged generator where there is one ("auto"), only that, or the last weights; of a run also
            those that came closest to its held-out frames.

    Raises:
        CheckpointError: there are none.
    """
    file, averaged = find_files(model, prefer)
    last = read_weights(file)
    if averaged is None:
        return last, file
    generator = {f"generator.{name}": value for name, value in read_weights(averaged).tensors.items() if name != NUM_AVERAGED}
    return Weights({**last.tensors, **generator}, last.metadata), averaged


def find_files(model: Path, prefer: Literal["auto", "ema", "last", "best"] = "auto") -> tuple[Path, Path | None]:
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
    if prefer == "best":
        if not (model / BEST).is_file():
            raise CheckpointError(f"{model}: has no best weights; a run keeps them where data.held_out is set")
        return model / BEST, None
    if (model / STATE).is_file() or (model / MANIFEST).is_file():
        found: Checkpoint | None = verified(model)
    else:
        found = newest(model / "checkpoints")
    if found is None:
        kind = kinds.other_kind(model, "a run folder", "a checkpoint folder", "an empty folder")
        if kind is not None:
            raise CheckpointError(f"{model}: is {kind}; a run folder or a weights file (.safetensors) was expected")
        raise CheckpointError(f"{model}: holds no checkpoint; train one first")
    if prefer == "last" or (prefer == "auto" and found.ema is None):
        return found.path / MODEL, None
    if found.ema is None:
        raise CheckpointError(f"{found.path}: holds no averaged weights (train.ema_decay was not set); use the last ones")
    return found.path / MODEL, found.path / found.ema
