"""What a run leaves behind while it trains: log lines, sample pictures, checkpoints, a progress bar."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from types import FrameType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vidgen import durable
from vidgen.data.clips import Clips
from vidgen.errors import MissingExtraError, install_hint
from vidgen.media import images
from vidgen.media.frames import open_sink
from vidgen.media.pixels import to_pixels
from vidgen.progress import duration
from vidgen.training import parallel
from vidgen.training.held_out import HeldOut, in_use
from vidgen.training.history import read_history
from vidgen.training.loop import StepRecord, Trainer
from vidgen.training.run import Folder
from vidgen.training.settings import RunSettings
from vidgen.types import Batch
from vidgen.weights import checkpoints
from vidgen.weights.files import pack
from vidgen.weights.model_file import ModelCard

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60.0
"""Of a training whose log is no terminal."""


class StopRequest:
    """Remembers SIGINT and SIGTERM, so that a step is finished and saved before the process ends; a second one ends it at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the two signals over while the block runs; only the main thread of a program can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        log.warning("stopping after this step; once more stops at once")


class Recorder:
    """Observer of the loop: writes everything a run folder holds. Only the first process writes.

    Args:
        clips: what samples are generated from; None writes none.
        held_out: frames to measure at every checkpoint.
        card: what the weights files say of themselves; it may be replaced while the run goes on.
        stop_after_seconds: end the run, saved, after so long; None for no limit.
    """

    def __init__(
        self,
        folder: Folder,
        settings: RunSettings,
        clips: Clips | None,
        card: ModelCard,
        *,
        stop: StopRequest,
        stop_after_seconds: float | None,
        held_out: HeldOut | None = None,
    ) -> None:
        self._folder = folder
        self._settings = settings.train
        self._clips = clips
        self._held_out = held_out
        self._best: float | None = None
        self.card = card
        self._stop = stop
        self._deadline = None if stop_after_seconds is None else time.monotonic() + stop_after_seconds
        self._writes = parallel.rank() == 0
        self._metrics: durable.Appender | None = None
        self._board: Any = None
        self._bar: Bar | None = None
        self._last_line = self._started = time.monotonic()
        self._first_step = 0
        self.out_of_time = False

    @contextmanager
    def recording(self, trainer: Trainer) -> Iterator[None]:
        """Open the log and the progress bar around a run."""
        if not self._writes:
            yield
            return
        if self._settings.tensorboard:
            self._board = _summary_writer(self._folder)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not (sys.stderr.isatty() and log.isEnabledFor(logging.INFO)),
        )
        with durable.appending(self._folder.metrics) as self._metrics, self._bar:
            self._best = read_history(self._folder.metrics).best
            self._started, self._first_step = time.monotonic(), trainer.progress.step
            self._task = self._bar.add_task("training", total=trainer.total_steps, completed=trainer.progress.step)
            yield

    def step_done(self, record: StepRecord, trainer: Trainer) -> bool:
        """Record a step; True where the run ends here: by a signal or the time limit."""
        late = self._deadline is not None and time.monotonic() > self._deadline
        ending = parallel.any_process(self._stop.signal is not None or late)
        self.out_of_time = ending and self._stop.signal is None
        last = record.step >= record.total_steps or ending
        if self._writes:
            saves = record.skipped_updates == 0 and record.step % self._settings.checkpoint_every_steps == 0
            complete = record.step >= record.total_steps
            # Only where an uninterrupted run measures too, so that both leave the same log.
            measures = self._held_out is not None and (saves or complete)
            distance = self._held_out.distance(trainer) if measures and self._held_out is not None else None
            self._write_line(record, distance)
            self._report(record)
            if distance is not None:
                self._keep_best(distance, record, trainer)
            every = self._settings.sample_every_steps
            if every and self._clips is not None and (record.step % every == 0 or last):
                self._write_samples(self._clips, record, trainer)
            if saves or (last and record.skipped_updates == 0):
                self.save(trainer)
        return ending

    def _keep_best(self, distance: float, record: StepRecord, trainer: Trainer) -> None:
        """Write the weights of use if they are closer to the held-out frames than all before."""
        log.info("step %d: held-out frames at a feature distance of %.4f", record.step, distance)
        if not math.isfinite(distance) or (self._best is not None and distance >= self._best):
            return
        self._best = distance
        with trainer.averaged():
            content = pack(trainer.translator.state_dict(), {**self.card.metadata(), "best_of_step": str(record.step)})
        durable.write_bytes(self._folder.best, content)

    def _write_line(self, record: StepRecord, held_out: float | None) -> None:
        line = {
            "step": record.step,
            "stage": record.stage_name,
            "learning_rate": record.learning_rate,
            "losses": record.losses,
        }
        if held_out is not None:
            line["held_out"] = held_out
        if record.skipped_updates:
            line["skipped_updates"] = record.skipped_updates
        assert self._metrics is not None
        self._metrics.write_line(json.dumps(line))
        if self._board is not None:
            for name, value in record.losses.items():
                self._board.add_scalar(f"loss/{name}", value, record.step)
            self._board.add_scalar("learning_rate", record.learning_rate, record.step)
            if held_out is not None:
                self._board.add_scalar("held_out", held_out, record.step)

    def _report(self, record: StepRecord) -> None:
        total = sum(value for name, value in record.losses.items() if "discriminator" not in name)
        text = f"{record.stage_name}: generator loss {total:.3g}"
        assert self._bar is not None
        self._bar.update(self._task, completed=record.step, total=record.total_steps, description=text)
        now = time.monotonic()
        if self._bar.disable and (now - self._last_line > SECONDS_BETWEEN_LINES or record.step in (1, record.total_steps)):
            self._last_line = now
            pace = (now - self._started) / max(1, record.step - self._first_step)
            left = f", {duration(pace * (record.total_steps - record.step))} left" if record.step > self._first_step else ""
            log.info("step %d of %d%s: %s", record.step, record.total_steps, left, text)

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint of this moment."""
        assert self._metrics is not None
        self._metrics.sync()
        metadata = self.card.metadata()
        files = {checkpoints.MODEL: pack(trainer.translator.state_dict(), metadata)}
        ema = trainer.ema_tensors()
        if ema is not None:
            files[checkpoints.EMA] = pack(ema, metadata)
        files[checkpoints.OPTIMIZERS] = pack(checkpoints.optimizer_tensors(trainer.optimizers), {})
        checkpoints.write_checkpoint(self._folder.checkpoints, trainer.progress, files, self._settings.keep_checkpoints)

    def _write_samples(self, clips: Clips, record: StepRecord, trainer: Trainer) -> None:
        """A picture strip (condition, result, ground truth by column) and a short video of the first sequence."""
        translator = trainer.translator
        stage = trainer.stages[record.stage]
        if stage.size_divisor > 1:
            return
        batch = clips.excerpt(0, 0, self._settings.sample_frames + translator.num_past_frames, translator.num_past_frames)
        generator_state = torch.random.get_rng_state()
        translator.eval()
        with torch.no_grad(), trainer.runtime.autocast():
            batch = batch.map(trainer.runtime.place)
            condition = in_use(batch.window_condition, self.card.inputs, batch.window_target)
            output, _ = translator.translate(condition, trainer.primed(batch))
        translator.train()
        torch.random.set_rng_state(generator_state)
        pictures = (self._condition_pictures(clips, batch), to_pixels(output.frames[0]), to_pixels(batch.window_target[0]))
        rows = [row for row in pictures if len(row)]
        columns = [np.concatenate(moment, axis=0) for moment in zip(*rows, strict=True)]
        name = f"step-{record.step:07d}"
        spread = np.linspace(0, len(columns) - 1, min(4, len(columns))).round().astype(int)
        images.write_png(self._folder.samples / f"{name}.png", np.concatenate([columns[index] for index in spread], axis=1))
        rate = Fraction(12)
        with open_sink(self._folder.samples / f"{name}.mp4", time_base=1 / rate, frame_rate=rate, overwrite=True) as sink:
            for index, moment in enumerate(zip(*rows, strict=True)):
                sink.write(np.concatenate(moment, axis=1), index)

    def _condition_pictures(self, clips: Clips, batch: Batch) -> list[np.ndarray]:
        condition = batch.window_condition
        if condition.labels is not None and clips.table is not None:
            return [clips.table.colorize(ids.cpu().numpy()) for ids in condition.labels[0]]
        assert condition.frames is not None
        frames = condition.frames[0]
        if frames.shape[1] == 0:
            return []
        if frames.shape[1] < 3:
            return list(to_pixels(frames[:, :1].expand(-1, 3, -1, -1)))
        return list(to_pixels(frames[:, :3]))


def _summary_writer(folder: Folder) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("train.tensorboard: tensorboard is not installed", hint=install_hint("track")) from error
    return SummaryWriter(str(folder.path / "tensorboard"))
