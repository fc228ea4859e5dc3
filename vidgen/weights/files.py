"""Safetensors files of weights: tensors by name and text metadata. Nothing in them can run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pydantic
from safetensors import SafetensorError, safe_open

from vidgen import kinds
from vidgen.errors import CheckpointError, InputError, printable
from vidgen.media import paths

if TYPE_CHECKING:  # finding a file does not need torch
    from torch import Tensor, nn

METADATA_KEY = "vidgen"
_MAX_JSON_BYTES = 1 << 20
_METADATA = pydantic.TypeAdapter(dict[str, str])


class Stored(pydantic.BaseModel):
    """Base of what is stored as JSON beside weights: strict types, finite numbers; keys of later versions are ignored."""

    model_config = pydantic.ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=Stored)


@dataclass
class Weights:
    """What a weights file holds: tensors by name, and text metadata (configuration, labels, versions)."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Safetensors bytes; tensors are copied to the CPU in plain layout.

    The metadata go under one key as JSON, since safetensors writes several in random order: equal weights, equal bytes.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(plain, {METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)} if metadata else None)


def read_json(path: Path, kind: type[S]) -> S:
    """A small JSON file, of which nothing is believed before it is checked.

    Raises:
        CheckpointError: it is missing, damaged or something else; the first fault is named.
    """
    try:
        return kind.model_validate_json(paths.read_bounded(path, _MAX_JSON_BYTES))
    except InputError as error:
        raise CheckpointError(str(error)) from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{printable(path)}: damaged ({f'{key}: ' if key else ''}{first['msg']})") from error


def read_weights(path: Path) -> Weights:
    """Read a safetensors file whole.

    Raises:
        CheckpointError: it is missing, truncated, or something else under that name.
    """
    from safetensors.torch import load

    try:
        if not path.is_file():
            raise CheckpointError(f"{printable(path)}: {describe_foreign_file(path) if path.is_dir() else 'no such weights file'}")
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(METADATA_KEY, "{}")
        metadata = _METADATA.validate_json(text, strict=True)
        return Weights(load(path.read_bytes()), metadata)
    except pydantic.ValidationError as error:
        raise CheckpointError(f"{printable(path)}: its metadata are damaged; expected text by name") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{printable(path)}: {describe_foreign_file(path)}") from error


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
    kind = kinds.other_kind(path, "a weights file")
    if kind is not None:
        return f"is {kind}; a run folder or a weights file (.safetensors) was expected"
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
