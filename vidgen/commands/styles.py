"""Styles of objects: those of each class in a data set, and the choice among them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidgen import durable, progress
from vidgen.commands.inputs import files_of_model
from vidgen.data.clips import Clips
from vidgen.data.sequences import find_sequences
from vidgen.data.settings import DataSettings
from vidgen.errors import ConfigError
from vidgen.inference.model import Model
from vidgen.inference.styles import ObjectFeatures, StyleAssignment, Styles, cluster, gather
from vidgen.media import images
from vidgen.media.frames import open_source
from vidgen.runtime import Precision
from vidgen.training import settings as run_settings

log = logging.getLogger(__name__)

FILE = "styles.safetensors"
"""Looked for in the run folder, or beside the weights, where no file is named."""


def styles(
    model: Path,
    data: Path,
    output: Path,
    *,
    num_styles: int = 10,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Find up to `num_styles` typical styles of each class in the pictures of a data set, and write them.

    Args:
        model: a run folder or weights file of a model with a feature encoder.
        data: root of a data set that is laid out like the one it was trained on.

    Returns:
        the number of styles and of objects per class.

    Raises:
        ConfigError: the model has no encoder.
        InputError: the data cannot be used.
    """
    with durable.claim([output], inputs=files_of_model(model), overwrite=overwrite):
        loaded = Model.load(model, device=device, precision=precision or "auto", threads=threads)
        gathered = gather(_objects(loaded, data))
        found = Styles(cluster(gathered, num_styles, seed=seed), {"model_sha256": loaded.sha256, "data": str(data)})
        found.write(output)
    names = loaded.table.names if loaded.table else ()
    counts = {
        names[label] if names else str(label): f"{len(centres)} styles of {len(gathered[label])} objects"
        for label, centres in found.centres.items()
    }
    return {"output": str(output), "channels": found.num_channels, "classes": counts}


def _objects(loaded: Model, data: Path) -> Iterator[ObjectFeatures]:
    """The features of every object of every picture of the data set."""
    if not loaded.num_style_channels or loaded.table is None:
        raise ConfigError(f"{loaded.path}: this model has no feature encoder, so its objects have no styles")
    whole = _data_settings(loaded, data)
    sequences = find_sequences(whole)
    clips = Clips(whole, sequences, loaded.table, seed=0, size_multiple=loaded.translator.size_multiple, flow=None)
    for index, sequence in enumerate(sequences):
        for frame in progress.follow(range(sequence.num_frames), f"reading {sequence.name}", sequence.num_frames):
            batch = clips.excerpt(index, frame, 1, 0)
            yield from loaded.object_features(batch.target, batch.condition)


def _data_settings(loaded: Model, data: Path) -> DataSettings:
    """How the data set is read: as the model's run did where its folder is at hand, else as stills or sequences of its size."""
    config = loaded.path.parents[2] / "config.yaml" if len(loaded.path.parents) > 2 else None
    if config is None or not config.is_file():
        height, width = loaded.trained_size
        target = data / DataSettings.model_fields["target"].default
        pairs: Literal["stills", "sequences"] = "stills" if any(map(images.is_image, target.glob("*"))) else "sequences"
        return DataSettings(root=data, condition=loaded.condition, pairs=pairs, width=width, height=height)
    trained = run_settings.load_run_config(config, []).data
    changes: dict[str, Any] = {"root": data, "crop_width": None, "crop_height": None}
    if data.resolve() != trained.root.resolve():
        changes |= {"sequences": None, "frames": None}
    return trained.model_copy(update=changes)


def choose_style(
    model: Model,
    *,
    styles: Path | None = None,
    chosen: Sequence[str] = (),
    reference: Sequence[str] | None = None,
    seed: int = 0,
) -> StyleAssignment | None:
    """The styles of a scene's objects, for models with a feature encoder; None for others.

    Args:
        styles: file of `vidgen styles`; by default one beside the model, if there is one.
        chosen: `CLASS=STYLE`; objects of other classes draw a style each, by the seed and their id.
        reference: a picture, its label map and (for models that read it) its instance map: objects of other classes take
            the style of those of the same id there, or else the mean of their class.

    Raises:
        ConfigError: the model has no encoder, a choice is not understood, or there is no such style.
    """
    if not model.num_style_channels or model.table is None:
        if styles is not None or chosen or reference:
            raise ConfigError(f"{model.path}: this model has no feature encoder, so its objects have no styles to choose")
        return None
    path = styles or _styles_beside(model.path)
    known = None if path is None else Styles.read(path)
    if known is not None and known.num_channels != model.num_style_channels:
        wanted = model.num_style_channels
        raise ConfigError(f"{path}: styles of {known.num_channels} numbers, but this model's encoder gives {wanted}")
    if known is None and not reference:
        log.warning("no styles for this model, so all objects take the neutral one; make some with: vidgen styles")
    classes: dict[int, np.ndarray] = {}
    for text in chosen:
        name, _, number = text.rpartition("=")
        if name not in model.table.names or not number.isdecimal():
            raise ConfigError(f"--style {text}: expected CLASS=STYLE, such as car=3; classes: {', '.join(model.table.names)}")
        label = model.table.names.index(name)
        classes[label] = style_of(known, label, int(number))
    objects = [item for item in (_of_reference(model, reference) if reference else []) if item.label not in classes]
    for label, rows in gather(objects).items():
        classes[label] = np.average(rows[:, :-1], axis=0, weights=rows[:, -1]).astype(np.float32)
    return StyleAssignment(model.num_style_channels, known, {item.number: item.vector for item in objects}, classes, seed)


def style_of(known: Styles | None, label: int, number: int) -> np.ndarray:
    """Features of a style of a class.

    Raises:
        ConfigError: there is none, or no styles are known at all.
    """
    if known is None:
        raise ConfigError(
            f"style {number}: no styles are known", hint="make them with: vidgen styles MODEL DATA -o styles.safetensors"
        )
    return known.one(label, number)


def _of_reference(model: Model, reference: Sequence[str]) -> list[ObjectFeatures]:
    picture, *maps = (
        open_source(where, kind="labels" if index else "pictures").read(0, 1)[0] for index, where in enumerate(reference)
    )
    return model.reference_features(picture, *maps)


def _styles_beside(weights: Path) -> Path | None:
    """The styles of a run folder (whose weights lie in checkpoints/step-N/), or beside a weights file."""
    places = (weights.parents[2] / FILE if len(weights.parents) > 2 else None, weights.with_suffix(".styles.safetensors"))
    return next((place for place in places if place is not None and place.is_file()), None)
