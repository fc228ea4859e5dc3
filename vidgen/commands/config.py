"""Configuration files: check one, print it in full, write a template, and give the JSON schema of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidgen import config, durable, translators
from vidgen.errors import ConfigError, VidgenError
from vidgen.training import settings as run_settings
from vidgen.training.settings import RunSettings
from vidgen.translators.settings import ConditionalConfig

_HEADER = """\
# vidgen train {file} -o runs/{name}
# Commented lines show the defaults. Check the file with: vidgen config check {file}
"""


def check(file: Path, sets: Sequence[str] = (), *, settings_only: bool = False) -> dict[str, Any]:
    """Say that training can start from a configuration file.

    Args:
        settings_only: look at the file alone, not at the data and weights files that it names.

    Raises:
        ConfigError: it cannot; one line per problem, in the words of training.
    """
    settings = run_settings.load_run_config(file, list(sets))
    found = [] if settings_only else _problems(settings)
    if found:
        raise ConfigError("\n".join(map(str, found)), hint=next((problem.hint for problem in found if problem.hint), None))
    return {"file": str(file), "valid": True, "model": settings.model.kind, "data": str(settings.data.root)}


def _problems(settings: RunSettings) -> list[VidgenError]:
    from vidgen.commands import train  # which needs torch

    return train.problems(settings)


def show(file: Path, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Every setting of a configuration file, defaults included; or of a run folder or weights file, as it was trained.

    Raises:
        ConfigError: the file is not valid, or `sets` are given for what is trained already.
        CheckpointError: the run folder or weights file cannot be used.
    """
    if not (file.is_dir() or file.suffix == ".safetensors"):
        return run_settings.load_run_config(file, list(sets)).model_dump(mode="json")
    if sets:
        raise ConfigError(f"--set {sets[0]}: {file} is trained already; its settings stay what they are")
    if file.is_dir() and (file / "config.yaml").is_file():
        return run_settings.load_run_config(file / "config.yaml", []).model_dump(mode="json")
    from vidgen.weights.model_file import read_card  # which needs torch

    card, _, _ = read_card(file)
    return {"model": card.model.model_dump(mode="json"), "data": {"condition": dict(card.condition)}}


def schema() -> dict[str, Any]:
    """The JSON schema of a complete run."""
    return run_settings.run_schema().model_json_schema()


def new(file: Path, kind: str = "vid2vid", *, overwrite: bool = False) -> dict[str, Any]:
    """Write a valid configuration in which every setting is explained, and all but the necessary ones are commented out.

    Raises:
        ConfigError: there is no translator `kind`.
        OutputError: `file` exists already or cannot be written.
    """
    module = translators.declared(kind, "--model")
    if file.name in ("", ".."):
        raise ConfigError(
            f"{file}: is a folder; a configuration file is to be written", hint=f"name it, such as {file / 'mine.yaml'}"
        )
    path = file if file.suffix in (".yaml", ".yml") else file.with_name(f"{file.name}.yaml")
    model: dict[str, Any] = {"kind": kind}
    if any(item.because == "model.losses.perceptual_weight" for item in module.pretrained(module.Config())):
        model["losses"] = {"perceptual_weight": 0, "l1_weight": 10}  # trains without a file of others
    data: dict[str, Any] = {"root": "path/to/data"}
    if issubclass(module.Config, ConditionalConfig):
        data["condition"] = {"labels": {"table": "cityscapes"}}
    else:
        data |= {"target": "image.png", "flip": False}
    given = {"model": model, "data": data}
    text = _HEADER.format(file=path, name=path.stem) + config.template(run_settings.run_schema(), given)
    with durable.claim([path], overwrite=overwrite):
        durable.write_text(path, text)
    return {"file": str(path), "next": f"set data.root, then: vidgen train {path} -o runs/{path.stem}"}
