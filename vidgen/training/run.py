"""A run: its configuration and its folder.

A run folder holds `config.yaml` (resolved), `metrics.jsonl` (one line a step), `samples/`, `checkpoints/` and `run.lock`.
"""

from __future__ import annotations

import fcntl
import functools
import json
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model

from vidgen import __version__, config, durable
from vidgen.config import Settings
from vidgen.data.clips import Clips, DataSettings
from vidgen.errors import CheckpointError, ConfigError
from vidgen.media.labels import LabelTable
from vidgen.training import checkpoint
from vidgen.training.checkpoint import Checkpoint, Weights
from vidgen.translators import available
from vidgen.translators.base import Translator

METADATA_VERSION = 1


class FlowSettings(Settings):
    """Where the reference flow of real frames comes from."""

    engine: Literal["dis", "dis-fast", "farneback", "learned", "raft-small", "raft-large", "folder"] = "dis"
    """folder reads flow files that were made before, for instance by `vidgen flow`."""
    weights: Path | None = None
    """Weights file (raft-small and raft-large need one), or the folder that holds a folder of flow files for each sequence."""
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{8,64}$")] | None = None
    """Expected checksum of the weights file, or its first digits."""
    cache: Path | None = None
    """Keep the flow of whole frames in this folder, by content, for later epochs and runs."""


def _named_engine(value: Any) -> Any:
    return {"engine": value} if isinstance(value, str) else value


class TrainSettings(Settings):
    """How a run trains, whatever the model."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    clips_per_step: Annotated[int, Field(ge=1)] = 1
    """Clips per training step over all processes."""
    clips_at_once: Annotated[int, Field(ge=1)] = 1
    """Clips that go through the network together; more need more memory."""
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """Length of the unit that schedules count in; by default one pass over the sequences."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many steps, in the middle of the schedule if need be."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto takes bf16 where the processor computes it fast."""
    average_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep an exponential moving average of the generator with this decay; translation then uses it."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm per phase."""
    max_bad_steps: Annotated[int, Field(ge=0)] = 5
    """Steps in a row that may be skipped because a loss or gradient is not finite."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 200
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    sample_every_steps: Annotated[int, Field(ge=0)] = 200
    """Write a picture strip and a short clip to samples/ so often; 0 never."""
    sample_frames: Annotated[int, Field(ge=1)] = 8
    perceptual_weights: Path | None = None
    """State dict of torchvision's vgg19, needed where model.losses.perceptual_weight is not 0."""
    perceptual_convention: Literal["raw", "imagenet"] = "raw"
    """raw feeds images in -1..1 as they are, as pix2pixHD and vid2vid do."""
    flow: Annotated[FlowSettings, BeforeValidator(_named_engine)] = FlowSettings()
    """Teacher of motion; `flow: learned` is short for `flow: {engine: learned}`."""
    tensorboard: bool = False
    """Also log to TensorBoard (needs the extra `track`)."""


class RunSettings(Settings):
    """A complete run. `model` is one of the translators' configurations, told apart by its `kind`."""

    model: Any
    data: DataSettings
    train: TrainSettings = TrainSettings()


@functools.cache
def run_schema() -> type[RunSettings]:
    """`RunSettings` with `model` typed as the union of all translators' configurations."""
    configs = [module.Config for module in available().values()]
    union = functools.reduce(operator.or_, configs)
    annotation = Annotated[union, Field(discriminator="kind")] if len(configs) > 1 else union  # type: ignore[valid-type]
    return create_model("Run", __base__=RunSettings, model=(annotation, ...))  # type: ignore[arg-type]


def follow_data(settings: RunSettings, table: LabelTable | None, size: tuple[int, int] | None = None) -> RunSettings:
    """The same settings with what the model takes from the data filled in, so that no number is written twice.

    Args:
        size: (height, width) of the data, for models that are built for one size.

    Raises:
        ConfigError: the model states another number than the data have, or reads a condition where the data show none.
    """
    shown = settings.data.condition
    found: dict[str, Any] = {
        "num_labels": table.num_classes if table else 0,
        "condition_channels": shown.num_picture_channels,
        "use_instances": shown.instances is not None,
        "image_size": size,
    }
    found = {name: value for name, value in found.items() if name in type(settings.model).model_fields}
    reads_condition = {"num_labels", "condition_channels"} & set(found)
    if reads_condition and not any(found[name] for name in reads_condition):
        raise ConfigError("data.condition: shows nothing, but this model reads label maps, pictures or edges; set one of them")
    for name, value in found.items():
        stated = getattr(settings.model, name)
        if stated and stated != value:
            raise ConfigError(f"model.{name}: {stated}, but the data give {value}; leave it out, it follows the data")
    return settings.model_copy(update={"model": settings.model.model_copy(update=found)})


def load_run_config(path: Path, sets: list[str]) -> RunSettings:
    """Read a run's configuration file.

    Raises:
        ConfigError: any fault in it, each with its place.
    """
    settings: RunSettings = config.load(path, run_schema(), sets)
    return settings


# -- weights that know what they are -------------------------------------------------------------------------------------


def weights_metadata(settings: RunSettings, table: LabelTable | None, size: tuple[int, int]) -> dict[str, str]:
    """Text stored inside weights files: enough to translate with nothing else at hand.

    Args:
        size: (height, width) the model was trained at.
    """
    return {
        "vidgen": __version__,
        "metadata_version": str(METADATA_VERSION),
        "config": json.dumps(settings.model_dump(mode="json")),
        "labels": json.dumps(table.to_dict() if table else None),
        "size": json.dumps(size),
    }


def settings_from_weights(weights: Weights, where: str) -> tuple[RunSettings, LabelTable | None, tuple[int, int]]:
    """The reverse of `weights_metadata`.

    Raises:
        CheckpointError: the file was not written by vidgen.
    """
    if "config" not in weights.metadata:
        raise CheckpointError(
            f"{where}: these weights carry no vidgen configuration", hint="train with vidgen, or import them first"
        )
    settings = config.from_data(json.loads(weights.metadata["config"]), run_schema(), where)
    labels = json.loads(weights.metadata.get("labels", "null"))
    height, width = json.loads(weights.metadata["size"])
    return settings, None if labels is None else LabelTable.from_dict(labels), (height, width)


def build(settings: RunSettings) -> Translator:
    """An untrained translator."""
    translator: Translator = available()[settings.model.kind].build(settings.model)
    return translator


def stages(settings: RunSettings, clips: Clips) -> tuple[Any, ...]:
    """The run's schedule in steps."""
    per_epoch = settings.train.steps_per_epoch or -(-len(clips.sequences) // settings.train.clips_per_step)
    return tuple(available()[settings.model.kind].stages(settings.model, per_epoch))


def find_weights(model: Path, prefer: Literal["auto", "average", "last"] = "auto") -> tuple[Weights, Path]:
    """Weights by the path of a weights file, a checkpoint folder or a run folder (its newest checkpoint).

    Args:
        prefer: in a checkpoint, the averaged generator where there is one ("auto"), only that, or the last weights.

    Raises:
        CheckpointError: there are none.
    """
    if model.is_file():
        return checkpoint.read_weights(model), model
    if not model.exists():
        raise CheckpointError(f"{model}: no such weights file or run folder")
    folder = model if (model / checkpoint.STATE).is_file() else None
    if folder is None:
        found = checkpoint.newest(model / "checkpoints")
        if found is None:
            raise CheckpointError(f"{model}: holds no checkpoint", hint="train first: vidgen train CONFIG -o " + str(model))
        folder = found.path
    last = checkpoint.read_weights(folder / checkpoint.MODEL)
    average = folder / checkpoint.AVERAGE
    if prefer == "last" or (prefer == "auto" and not average.is_file()):
        return last, folder / checkpoint.MODEL
    averaged = checkpoint.read_weights(average)
    generator = {f"generator.{name}": value for name, value in averaged.tensors.items() if name != checkpoint.NUM_AVERAGED}
    merged = {**last.tensors, **generator}
    return Weights(merged, last.metadata), average


# -- the folder ----------------------------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process; the lock ends with the process, however it ends.

    Raises:
        CheckpointError: another process trains in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "run.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise CheckpointError(
                f"{folder}: another training is running here (process {owner})", hint="choose another -o"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class Folder:
    """The files of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"

    def newest_checkpoint(self, warn: Any = None) -> Checkpoint | None:
        return checkpoint.newest(self.checkpoints, warn)

    def write_config(self, settings: RunSettings) -> None:
        durable.write_text(self.config, config.dump(settings))

    def clear(self) -> None:
        """Remove what an earlier run left."""
        for path in (self.checkpoints, self.samples, self.metrics, self.config):
            durable.operations.remove(path)

    def keep_metrics_until(self, step: int) -> None:
        """Drop the lines of steps after `step`, and a half-written last one: they will be made again, the same."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError):
                break
        durable.write_text(self.metrics, "".join(line + "\n" for line in kept))
