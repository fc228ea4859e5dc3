"""Weights that were made elsewhere: read without running anything in them, every key accounted for."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vidgen.errors import CheckpointError
from vidgen.weights.files import describe_foreign_file, read_weights


def read_state_dict(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """A state dict from a .safetensors or a PyTorch .pth file.

    Args:
        sha256: what the file's SHA-256 must begin with; unchecked if None.

    Raises:
        CheckpointError: the file is missing, damaged, holds anything but tensors, or has another checksum.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(sha256.lower()):
            raise CheckpointError(f"{path}: its SHA-256 is {found}, expected {sha256}")
    if path.suffix == ".safetensors":
        stored = read_weights(path).tensors
        _check_tensors(path, stored)
        return stored
    if path.suffix in (".pt2", ".pt1"):
        raise CheckpointError(f"{path}: exported programs are refused, since loading one can run code; export a state dict instead")
    loaded = _load(path)
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path}: is not a plain state dict (name -> tensor)")
    _check_tensors(path, loaded)
    return {str(name): value for name, value in loaded.items()}


def read_tensors(path: Path) -> list[Tensor]:
    """A list of tensors (numbers among them become tensors) from a PyTorch .pth file.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    loaded = _load(path)
    if not isinstance(loaded, list) or not all(isinstance(value, Tensor | int | float) for value in loaded):
        raise CheckpointError(f"{path}: is not a list of tensors")
    tensors = [value if isinstance(value, Tensor) else torch.tensor(float(value)) for value in loaded]
    _check_tensors(path, {f"item {index}": value for index, value in enumerate(tensors)}, growth=4)
    return [value.float() for value in tensors]


def _load(path: Path) -> object:
    """What a PyTorch file holds, tensors and plain containers only."""
    _check_container(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nine kinds of errors on foreign files
        what = describe_foreign_file(path)
        if "pickle" in what:
            what = "holds more than tensors (pickled objects or code) and was refused; save a plain state dict instead"
        raise CheckpointError(f"{path}: {what}") from error


def _check_container(path: Path) -> None:
    """Refuse archives that a training never writes: compressed ones may unpack to any size, damaged ones load in silence."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return
        with zipfile.ZipFile(path) as archive:
            packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise CheckpointError(f"{path}: {packed[0]!r} inside is compressed, which torch.save never does; refused")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: is not a complete PyTorch file ({error})", hint="copy or download it again") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: {damaged!r} inside does not match its checksum", hint="copy or download it again")


def _check_tensors(path: Path, state: Mapping[str, Tensor], growth: int = 1) -> None:
    """Refuse tensors that are no weights, and views that would grow beyond `growth` times the file once they are copied."""
    for name, value in state.items():
        if value.layout is not torch.strided or value.is_quantized or not (value.is_floating_point() or value.dtype == torch.int64):
            raise CheckpointError(f"{path}: {name} is {value.dtype} in {value.layout} layout; weights are dense float tensors")
    total = sum(value.numel() * value.element_size() for value in state.values())
    if total > growth * path.stat().st_size:
        raise CheckpointError(f"{path}: its tensors would take {total} bytes, more than the file has; refused")
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite")
