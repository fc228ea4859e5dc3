"""A run: its configuration and its folder.

A run folder holds `config.yaml` (resolved), `metrics.jsonl` (one line a step), `samples/`, `checkpoints/`,
`run.lock` and, where frames are held out, `best.safetensors`.
"""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, create_model

from vidgen import config, durable, translators
from vidgen.config import Settings
from vidgen.data.clips import Clips
from vidgen.data.settings import DataSettings
from vidgen.errors import OutputError, printable
from vidgen.media.labels import LabelTable
from vidgen.training.history import read_history
from vidgen.translators.base import Networks, Translator
from vidgen.translators.settings import DataFacts
from vidgen.types import Stage
from vidgen.weights import checkpoints
from vidgen.weights.checkpoints import Checkpoint
from vidgen.weights.model_file import ModelCard


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


def _old_convention(value: Any) -> Any:
    return "none" if value == "raw" else value


def _named_engine(value: Any) -> Any:
    return {"engine": value} if isinstance(value, str) else value


class TrainSettings(Settings):
    """How a run trains, whatever the model."""

    renamed: ClassVar[Mapping[str, tuple[str, str]]] = {
        "clips_per_step": ("batch_size", "0.3.0"),
        "clips_at_once": ("micro_batch_size", "0.3.0"),
        "average_decay": ("ema_decay", "0.3.0"),
        "gradient_clip": ("max_grad_norm", "0.3.0"),
        "max_bad_steps": ("max_nonfinite_steps", "0.3.0"),
        "perceptual_weights": ("pretrained.vgg19", "0.3.0"),
        "perceptual_convention": ("perceptual_input_normalization", "0.3.0"),
    }

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Clips per training step over all processes."""
    micro_batch_size: Annotated[int, Field(ge=1)] = 1
    """Clips that go through the network together; more need more memory."""
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """Length of the unit that schedules count in; by default one pass over the sequences."""
    init: str | None = None
    """Start from the weights of this model: a run folder, a weights file, or a model that comes with vidgen, such as street-world.
    Classes start from those of the same name, or from similar ones."""
    stretch: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the length of every stage of the schedule; a time limit sets it to what fits."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Train this many steps: stop in the middle of the schedule, or make its last stage longer."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto takes bf16 where the processor computes it fast."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep an exponential moving average of the generator with this decay; translation then uses it."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm per phase."""
    max_nonfinite_steps: Annotated[int, Field(ge=0)] = 5
    """Steps in a row that may be skipped because a loss or gradient is not finite."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 200
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    sample_every_steps: Annotated[int, Field(ge=0)] = 200
    """Write a picture strip and a short clip to samples/ so often; 0 never."""
    sample_frames: Annotated[int, Field(ge=1)] = 8
    pretrained: Mapping[str, Path] = Field(default_factory=dict)
    """Weights files of pretrained networks by name, such as `vgg19: vgg19-dcbb9e9d.pth` (torchvision's state dict) for
    model.losses.perceptual_weight; those that an installed package carries need none."""
    perceptual_input_normalization: Annotated[Literal["none", "imagenet"], BeforeValidator(_old_convention)] = "none"
    """none feeds images in -1..1 to VGG-19 as they are, as pix2pixHD and vid2vid do."""
    flow: Annotated[FlowSettings, BeforeValidator(_named_engine)] = FlowSettings()
    """Reference flow of real frames; `flow: learned` is short for `flow: {engine: learned}`."""
    process_timeout_minutes: Annotated[float, Field(gt=0)] = 5.0
    """With several processes: end where another one is silent for so long. A checkpoint or sample may not take longer."""
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
    configs = [module.Config for module in translators.available().values()]
    union = functools.reduce(operator.or_, configs)
    annotation = Annotated[union, Field(discriminator="kind")] if len(configs) > 1 else union
    return create_model("Run", __base__=RunSettings, model=(annotation, ...))  # type: ignore[arg-type]


def follow_data(settings: RunSettings, table: LabelTable | None, size: tuple[int, int]) -> RunSettings:
    """The same settings with what the model takes from the data filled in, so that no number is written twice.

    Args:
        size: (height, width) of the data, for models that are built for one size.

    Raises:
        ConfigError: the model states another number than the data have, or reads a condition where there is none.
    """
    condition = settings.data.condition
    facts = DataFacts(
        num_labels=table.num_classes if table else 0,
        condition_channels=condition.num_picture_channels,
        has_instances=condition.instances is not None,
        size=size,
        has_style=condition.style is not None,
        num_classes=len(condition.classes.names) if condition.classes is not None else 0,
    )
    return settings.model_copy(update={"model": settings.model.following(facts)})


def load_run_config(path: Path, sets: list[str]) -> RunSettings:
    """Read a run's configuration file.

    Raises:
        ConfigError: any fault in it, each with its place.
    """
    settings: RunSettings = config.load(path, run_schema(), sets)
    return settings


def model_card(
    settings: RunSettings, table: LabelTable | None, size: tuple[int, int], pretrained: Mapping[str, str] | None = None
) -> ModelCard:
    """What the run's model files say of themselves.

    Args:
        size: (height, width) the model is trained at.
        pretrained: SHA-256 of the pretrained networks.
    """
    condition = settings.data.condition.model_dump(mode="json")
    return ModelCard(settings.model, condition, table, size, pretrained or {})


def build(settings: RunSettings, networks: Networks | None = None) -> Translator[Any]:
    """An untrained translator."""
    translator: Translator[Any] = translators.find(settings.model.kind).build(settings.model, networks)
    return translator


def stages(settings: RunSettings, clips: Clips) -> tuple[Stage, ...]:
    """The run's schedule in steps."""
    per_epoch = settings.train.steps_per_epoch or -(-len(clips.sequences) // settings.train.batch_size)
    schedule = translators.find(settings.model.kind).stages(settings.model, per_epoch)
    stretched = [replace(stage, num_steps=max(1, round(stage.num_steps * settings.train.stretch))) for stage in schedule]
    more = (settings.train.max_steps or 0) - sum(stage.num_steps for stage in stretched)
    if more > 0:
        stretched[-1] = replace(stretched[-1], num_steps=stretched[-1].num_steps + more)
    return tuple(stretched)


# -- the folder ----------------------------------------------------------------------------------------------------------


_SAMPLE = re.compile(r"step-[0-9]{7,18}\.(png|mp4)")
_EVENTS = re.compile(r"events\.out\.tfevents\..*")
LOCK, CONFIG = "run.lock", "config.yaml"


class Folder:
    """The files of a run. A folder that holds anything else, and no run, is never written to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"
        self.config = path / CONFIG
        self.metrics = path / "metrics.jsonl"
        self.best = path / checkpoints.BEST

    @property
    def is_run(self) -> bool:
        """Whether a training began here: its configuration is here, with its lock or a checkpoint."""
        if self.config.is_symlink() or not self.config.is_file():
            return False
        lock = self.path / LOCK
        has_lock = lock.is_file() and not lock.is_symlink()
        return has_lock or any((path / checkpoints.STATE).is_file() for path in checkpoints.by_step(self.checkpoints))

    def check(self) -> None:
        """
        Raises:
            OutputError: the folder holds other things and no run, or is none.
        """
        name = printable(self.path)
        try:
            if os.path.lexists(self.path) and not self.path.is_dir():
                raise OutputError(f"{name}: is a file, not a folder", hint="choose another folder for the run")
            entries = sorted(os.listdir(self.path)) if self.path.is_dir() else []
        except OSError as error:
            raise OutputError(f"{name}: cannot be read ({error.strerror})") from error
        foreign = [entry for entry in entries if entry != LOCK and not entry.startswith(".")]
        if foreign and not self.is_run:
            raise OutputError(
                f"{name}: holds no run, but other things, such as {printable(foreign[0])}; it is left alone",
                hint="choose another folder; a run has one of its own",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the lock ends with the process, however it ends.

        Raises:
            BusyError: another process trains in it.
            OutputError: see `check`; or it cannot be written to.
        """
        self.check()
        with durable.held_folder(self.path, LOCK):
            self.check()  # again: something may have come in between
            yield

    def newest_checkpoint(self, warn: Callable[[str], object] | None = None) -> Checkpoint | None:
        return checkpoints.newest(self.checkpoints, warn)

    def write_config(self, settings: RunSettings) -> None:
        durable.write_text(self.config, config.dump(settings))

    def clear(self) -> None:
        """Remove what an earlier run wrote, and nothing else."""
        checkpoints.remove_all(self.checkpoints)
        for folder, names in ((self.samples, _SAMPLE), (self.tensorboard, _EVENTS)):
            if folder.is_dir():
                for entry in os.listdir(folder):
                    if names.fullmatch(entry):
                        durable.operations.remove(folder / entry)
                durable.remove_if_empty(folder)
        for path in (self.metrics, self.best, self.config):
            durable.operations.remove(path)

    def keep_metrics_until(self, step: int, warn: Callable[[str], object] | None = None) -> None:
        """Drop the lines of steps after `step`, and a half-written last one: they will be written again, the same.

        Args:
            warn: called with one line if others cannot be read; those are left out too.

        Raises:
            CheckpointError: the log is no file, or larger than any log.
            OutputError: it cannot be written.
        """
        if not os.path.lexists(self.metrics):
            return
        history = read_history(self.metrics)
        if history.fault is not None and warn is not None:
            warn(f"{printable(self.path)}: {history.fault}; the others are kept")
        kept = [text for text, line in zip(history.texts, history.lines, strict=True) if line.step <= step]
        durable.write_text(self.metrics, "".join(line + "\n" for line in kept))
