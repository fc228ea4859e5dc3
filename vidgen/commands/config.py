"""Configuration files: check one, print it in full, write a template, and give the JSON schema of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidgen import config, durable
from vidgen.errors import ConfigError
from vidgen.training import run
from vidgen.translators import available
from vidgen.weights.model_file import read_card

_HEADER = """\
# vidgen train {file} -o runs/{name}
# Commented lines show the defaults. Check the file with: vidgen config check {file}
"""


def check(file: Path, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Say that a configuration file is valid.

    Raises:
        ConfigError: it is not; one line per fault.
    """
    settings = run.load_run_config(file, list(sets))
    return {"file": str(file), "valid": True, "model": settings.model.kind, "data": str(settings.data.root)}


def show(file: Path, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Every setting of a configuration file, defaults included; or of a run folder or weights file, as it was trained.

    Raises:
        ConfigError: the file is not valid, or `sets` are given for what is trained already.
        CheckpointError: the run folder or weights file cannot be used.
    """
    if not (file.is_dir() or file.suffix == ".safetensors"):
        return run.load_run_config(file, list(sets)).model_dump(mode="json")
    if sets:
        raise ConfigError(f"--set {sets[0]}: {file} is trained already; its settings stay what they are")
    if file.is_dir() and (file / "config.yaml").is_file():
        return run.load_run_config(file / "config.yaml", []).model_dump(mode="json")
    card, _, _ = read_card(file)
    return {"model": card.model.model_dump(mode="json"), "data": {"condition": dict(card.condition)}}


def schema() -> dict[str, Any]:
    """The JSON schema of a complete run."""
    return run.run_schema().model_json_schema()


def new(file: Path, kind: str = "vid2vid", *, overwrite: bool = False) -> dict[str, Any]:
    """Write a valid configuration in which every setting is explained, and all but the necessary ones are commented out.

    Raises:
        ConfigError: there is no translator `kind`.
        OutputError: `file` exists already or cannot be written.
    """
    if kind not in available():
        raise ConfigError(f"--model {kind}: no such translator; there are {', '.join(available())}")
    path = file if file.suffix in (".yaml", ".yml") else file.with_name(f"{file.name}.yaml")
    durable.check_writable_target(path, overwrite=overwrite)
    given = {"model": {"kind": kind}, "data": {"root": "path/to/data", "condition": {"labels": {"table": "cityscapes"}}}}
    text = _HEADER.format(file=path, name=path.stem) + config.template(run.run_schema(), given)
    durable.write_text(path, text)
    return {"file": str(path), "next": f"set data.root, then: vidgen train {path} -o runs/{path.stem}"}
