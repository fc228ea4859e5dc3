"""Weights files: made from published checkpoints, and looked into."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidgen import durable
from vidgen.commands.inputs import files_of_model, suggestion
from vidgen.errors import ConfigError
from vidgen.inference.styles import KIND as STYLES_KIND
from vidgen.inference.styles import Styles
from vidgen.weights import arrays, published, singan
from vidgen.weights.checkpoints import find_weights
from vidgen.weights.files import pack
from vidgen.weights.model_file import ModelCard, fill, for_use, read_card


def import_weights(
    files: Sequence[str],
    system: str,
    output: Path,
    *,
    labels: str | None = None,
    size: str | None = None,
    foreground: Sequence[int] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a weights file from the files of a published model; see `published.import_weights`.

    Args:
        files: state dicts; for SinGAN the folder of a model; for pix2pixHD also its file of clusters
            (`features_clustered_010.npy`), whose styles are written beside the weights, where `vidgen translate` and
            `vidgen edit` find them.
        size: `WIDTHxHEIGHT` to work at.

    Returns:
        what `info` says of the new file.

    Raises:
        CheckpointError: a file is unsafe or broken, or does not fit the system.
        OutputError: the output exists or cannot be written.
    """
    _check_name(output)
    clusters = [file for file in files if file.endswith(".npy")]
    if len(clusters) > 1:
        raise ConfigError(f"{clusters[1]}: a model has one file of clusters, and {clusters[0]} is one already")
    others = [file for file in files if file not in clusters]
    beside = output.with_suffix(".styles.safetensors")
    read = [Path(file.rpartition("=")[2]) for file in files]
    with durable.claim([output, *([beside] if clusters else [])], inputs=read, overwrite=overwrite):
        found = [Styles(_centres(file), {"imported": file}) for file in clusters]
        if system == "singan":
            made = singan.import_weights(_single_folder(others))
        else:
            made = published.import_weights(system, others, labels=labels, size=_size(size), foreground=foreground)
        for styles in found:
            styles.write(beside)
        durable.write_bytes(output, pack(made.tensors, made.metadata))
    return info(output)


def slim(model: Path, output: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write a model file that holds only what use needs, of a run's averaged weights where there are any.

    Returns:
        what `info` says of the new file.

    Raises:
        CheckpointError: there are no usable weights.
        OutputError: the output exists or cannot be written.
    """
    _check_name(output)
    with durable.claim([output], inputs=files_of_model(model), overwrite=overwrite):
        card, weights, path = read_card(model)
        content = for_use(card, weights, path)
        durable.write_bytes(output, pack(content.tensors, content.metadata))
    return info(output)


def _check_name(output: Path) -> None:
    if output.suffix != ".safetensors":
        raise ConfigError(f"{output}: weights are written as .safetensors", hint=suggestion(output, ".safetensors"))


def info(file: Path) -> dict[str, Any]:
    """What a weights file (or the newest checkpoint of a run folder), or a file of styles, holds.

    Raises:
        CheckpointError: it is no weights file of vidgen.
    """
    weights, path = find_weights(file)
    if weights.metadata.get("kind") == STYLES_KIND:
        return _styles_info(path)
    card = ModelCard.read(weights.metadata, str(path))
    translator = card.build_for(weights, path)
    fill(translator, weights, path)
    table, (height, width) = card.table, card.size
    return {
        "file": str(path),
        "kind": card.kind,
        "size": f"{width}x{height}",
        "parameters": sum(parameter.numel() for parameter in translator.parameters()),
        "generator_parameters": sum(parameter.numel() for parameter in translator.generator.parameters()),
        "condition": {
            "labels": table.num_classes if table else None,
            "pictures": list(card.condition.get("pictures") or ()) or None,
            "edges": bool(card.condition.get("edges")) or None,
            "instances": bool(card.condition.get("instances")) or None,
        },
        "labels": list(table.names) if table else None,
        "past_frames": translator.num_past_frames,
        "imported": json.loads(weights.metadata["imported"]) if "imported" in weights.metadata else None,
        "pretrained": dict(card.pretrained) or None,
        "vidgen": card.version,
        **_identity(path),
    }


def _styles_info(path: Path) -> dict[str, Any]:
    styles = Styles.read(path)
    counts = {f"class {label}": f"{len(centres)} styles" for label, centres in styles.centres.items()}
    return {
        "file": str(path),
        "kind": STYLES_KIND,
        "channels": styles.num_channels,
        "classes": counts,
        "origin": dict(styles.origin),
        **_identity(path),
    }


def _identity(path: Path) -> dict[str, Any]:
    with path.open("rb") as opened:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _centres(file: str) -> dict[int, np.ndarray]:
    return {label: np.array(centres, np.float32) for label, centres in arrays.read_array_dictionary(Path(file)).items()}


def _single_folder(files: Sequence[str]) -> Path:
    if len(files) != 1:
        raise ConfigError(f"--from singan: reads one model's folder, got {len(files)} names")
    return Path(files[0])


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or "0" in match.groups():
        raise ConfigError(f"--size {text}: expected WIDTHxHEIGHT, such as 1024x512")
    return int(match[2]), int(match[1])
