"""Weights that were made elsewhere: read without running anything in them, every key accounted for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from vidgen.errors import CheckpointError
from vidgen.networks.features import Vgg19Features
from vidgen.training.checkpoint import describe_foreign_file, load_into, read_weights


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
        return read_weights(path).tensors
    if path.suffix in (".pt2", ".pt1"):
        raise CheckpointError(f"{path}: exported programs are refused, since loading one can run code; export a state dict instead")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nine kinds of errors on foreign files
        what = describe_foreign_file(path)
        if "pickle" in what:
            what = "holds more than tensors (pickled objects or code) and was refused; save a plain state dict instead"
        raise CheckpointError(f"{path}: {what}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path}: is not a plain state dict (name -> tensor)")
    return loaded


def load_vgg19(path: Path, sha256: str | None = None, width_divisor: int = 1) -> Vgg19Features:
    """VGG-19 features from torchvision's `vgg19` weights; the classifier's are ignored.

    Raises:
        CheckpointError: the file is missing or is not VGG-19.
    """
    if not path.is_file():
        raise CheckpointError(
            f"train.perceptual_weights: {path}: no such file",
            hint="it is the state dict of torchvision.models.vgg19 (vgg19-dcbb9e9d.pth); save it there, or set "
            "model.losses.perceptual_weight to 0",
        )
    state = read_state_dict(path, sha256)
    features = Vgg19Features(width_divisor=width_divisor)
    wanted = {name: value for name, value in state.items() if name in features.state_dict()}
    load_into(features, wanted, str(path))
    return features.eval()
