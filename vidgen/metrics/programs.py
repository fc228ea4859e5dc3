"""Networks that the user brings as programs: TorchScript, ONNX, or a Python callable.

Loading one runs code that somebody else wrote. That happens only for a file or a name that the user chose for this very purpose.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidgen.errors import CheckpointError, ConfigError, MissingExtraError, install_hint

Program = Callable[[Tensor], Any]
"""float32 [1,3,H,W] -> a tensor or array, or a tuple, list or mapping that holds it first or as "out"."""


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive that `load_torchscript` can read, and not one of plain tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def load_torchscript(path: Path) -> nn.Module:
    """A TorchScript module on the CPU, in evaluation mode.

    Raises:
        CheckpointError: the file is missing or is something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # published networks come in this format, whatever its future
            return torch.jit.load(path, map_location="cpu").eval()
    except Exception as error:  # torch.jit raises whatever a damaged archive makes it stumble over
        text = " ".join(str(error).split())
        raise CheckpointError(f"{path}: not a TorchScript file ({text[:120]})") from error


def load_program(text: str, parameter: str) -> Program:
    """What `text` names: a file .onnx, another file (TorchScript), or MODULE:CALLABLE, also in the current folder.

    Args:
        parameter: what to call it in messages, such as "`segmenter`".

    Raises:
        ConfigError: it is none of these.
        CheckpointError: the file cannot be read.
        MissingExtraError: a .onnx file, but onnxruntime is not installed.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return _load_onnx(path) if path.suffix.lower() == ".onnx" else _without_gradients(load_torchscript(path))
    module, colon, name = text.partition(":")
    if colon and all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        return _without_gradients(_load_callable(module, name, f"{parameter} {text}"))
    raise ConfigError(
        f"{parameter} {text}: no such file", hint="give a TorchScript or .onnx file, or MODULE:CALLABLE for a function in Python"
    )


def _without_gradients(program: Program) -> Program:
    def run(frames: Tensor) -> Any:
        with torch.no_grad():
            return program(frames)

    return run


def _load_onnx(path: Path) -> Program:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError(f"{path}: onnxruntime is needed for .onnx files", hint=install_hint("onnx")) from error
    try:
        session = runtime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
    except Exception as error:  # onnxruntime raises classes of its compiled half, which share no base
        raise CheckpointError(f"{path}: not an ONNX network ({' '.join(str(error).split())[:120]})") from error
    return lambda frames: session.run(None, {name: frames.numpy()})[0]


def _load_callable(module: str, name: str, where: str) -> Program:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        target: Any = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
    except Exception as error:  # the module is the user's: importing it can raise anything
        raise ConfigError(f"{where}: cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(target):
        raise ConfigError(f"{where}: is {type(target).__name__}, not a function")
    return target
