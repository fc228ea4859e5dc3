"""Checkpoints of a run: complete or absent, verified when read, the newest complete one wins.

Layout: `checkpoints/step-0000120/` holds `model.safetensors` (all weights, with the resolved configuration in its metadata),
`average.safetensors` (averaged generator, where one is kept), `optimizers.safetensors`, and `state.json` with the progress and
the SHA-256 of the other files. Nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from vidgen import durable
from vidgen.errors import CheckpointError

FORMAT_VERSION = 1
METADATA_KEY = "vidgen"
NUM_AVERAGED = "n_averaged"
"""Name of the average's count of updates among its weights."""
MODEL, AVERAGE, OPTIMIZERS, STATE = "model.safetensors", "average.safetensors", "optimizers.safetensors", "state.json"


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step.

    Attributes:
        step: steps done.
        stage: index of the stage that the next step belongs to.
        bad_steps: steps in a row whose losses were not finite.
        seconds: training time so far.
    """

    step: int = 0
    stage: int = 0
    bad_steps: int = 0
    seconds: float = 0.0


@dataclass
class Weights:
    """What a weights file holds: tensors by name, and text metadata (configuration, labels, versions)."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Safetensors bytes; tensors are copied to the CPU in plain layout.

    The metadata go under one key as JSON, since safetensors writes several in random order: equal weights, equal bytes.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(plain, {METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)} if metadata else None)


def read_weights(path: Path) -> Weights:
    """Read a safetensors file whole.

    Raises:
        CheckpointError: it is missing, truncated, or something else under that name.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        return Weights(load(path.read_bytes()), metadata)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such weights file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {describe_foreign_file(path)}") from error


def describe_foreign_file(path: Path) -> str:
    """What a file that is no readable safetensors seems to be, in words that help."""
    try:
        if path.is_dir():
            return "is a folder; name a weights file or a run folder"
        head = path.open("rb").read(512)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not head:
        return "is empty; copy or download it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights; fetch the real file with `git lfs pull`"
    if head.lstrip()[:1] == b"<":
        return "is a web page, not weights; the download went wrong"
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        return "is a PyTorch pickle file; only safetensors weights are read here"
    return "is not a complete safetensors file; it may be truncated"


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill a module, every key accounted for; an empty tensor takes whatever shape it is given.

    Raises:
        CheckpointError: keys are missing or too many, or shapes differ; the first five of each are named.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    extra = [name for name in tensors if name not in own]
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in tensors and own[name].numel() and tensors[name].shape != own[name].shape
    ]
    faults = [
        f"{len(found)} {what}: {', '.join(found[:5])}" + ("..." if len(found) > 5 else "")
        for what, found in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if found
    ]
    if faults:
        raise CheckpointError(f"{where}: these weights belong to another model; {'; '.join(faults)}")
    module.load_state_dict(dict(tensors))


def optimizer_tensors(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Adam's moments and step counts of all optimizers, flat: `<phase>/<parameter index>/<name>`."""
    result = {}
    for phase, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                result[f"{phase}/{index}/{name}"] = value if isinstance(value, Tensor) else torch.tensor(float(value))
    return result


def fill_optimizers(optimizers: Mapping[str, torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`; phases without stored values stay fresh."""
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
        progress = Progress(**state["progress"])
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
