"""A run: its configuration and its folder.

A run folder holds `config.yaml` (resolved), `metrics.jsonl` (one line a step), `samples/`, `checkpoints/`,
`run.lock` and, where frames are held out, `best.safetensors`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidgen import config, durable, translators
from vidgen.data.clips import Clips
from vidgen.errors import OutputError, printable
from vidgen.media.labels import LabelTable
from vidgen.training.history import read_history
from vidgen.training.settings import RunSettings
from vidgen.translators.base import Networks, Translator
from vidgen.translators.settings import DataFacts
from vidgen.types import Stage
from vidgen.weights import checkpoints
from vidgen.weights.checkpoints import Checkpoint
from vidgen.weights.model_file import ModelCard


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
