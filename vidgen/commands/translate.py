"""Translate one or many videos with a trained model."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import track

from vidgen.commands.styles import choose_style
from vidgen.errors import ConfigError, PartialFailure, VidgenError
from vidgen.inference.model import Model, Options, Translation
from vidgen.inference.session import WorkSize
from vidgen.media import images, labels
from vidgen.media.frames import list_sources
from vidgen.media.labels import LabelTable
from vidgen.runtime import Precision

log = logging.getLogger(__name__)

_FLICKERS = (
    "%s generates each frame independently, so a video will flicker: train vid2vid for videos, or smooth with --smoothing 0.7"
    " (--smoothing 0 for unrelated images)"
)


def translate(
    model: Path,
    inputs: Sequence[str],
    out: str,
    *,
    first_frame: Path | None = None,
    labels: str | None = None,
    instances: str | None = None,
    others: Sequence[str] = (),
    side_by_side: bool = False,
    work_size: WorkSize = "auto",
    steady: float | None = None,
    styles: Path | None = None,
    chosen: Sequence[str] = (),
    reference: Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    shard: str | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
    quality: Literal["draft", "good", "lossless"] = "good",
    seed: int = 0,
    weights: Literal["auto", "average", "ema", "last"] = "auto",
    samples: int = 1,
) -> dict[str, Any]:
    """Translate one or many inputs; see `Model.open` for what an input may be.

    Args:
        out: output file or folder of frames for one input; a folder for several, each named after its input.
        samples: how many results of each input, from one seed each; the number goes into their names (out-1.png). They differ
            where the model has noise (the dropout of pix2pix) or draws styles.
        first_frame: picture or video to continue, or a model (run folder or weights) that makes the first frame.
        labels: how the input stores classes: auto (as in training), ids, palette:NAME or a table file.
        steady: share of the last result in each frame of an image model, 0..1; None means 0 and a warning for videos.
        styles, chosen, reference: styles of the objects, for models with a feature encoder; see `choose_style`.
        shard: `K/N` takes every input whose name falls into part K of N; `auto` reads a SLURM array's variables.

    Returns:
        one entry per input.

    Raises:
        PartialFailure: some inputs failed; the others are done.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    jobs = [job for where in inputs for job in list_sources(where)]
    several = len(jobs) > 1
    jobs = [job for job in jobs if _in_shard(job.name, shard)]
    loaded = Model.load(model, device=device, precision=precision or "auto", weights="ema" if weights == "average" else weights)
    table = _input_table(labels, loaded)
    assignments = [
        choose_style(loaded, styles=styles, chosen=chosen, reference=reference, seed=seed + index) for index in range(samples)
    ]
    first: Path | Model | None = first_frame
    if first_frame is not None and (first_frame.suffix == ".safetensors" or (first_frame / "checkpoints").is_dir()):
        first = Model.load(first_frame, device=device, precision=precision or "auto")
    results: list[dict[str, Any]] = []
    failures: list[str] = []
    for job, (index, style) in itertools.product(jobs, enumerate(assignments)):
        target = _target(out, job if several else None, index + 1 if samples > 1 else None)
        if skip_existing and Path(target).exists():
            results.append({"output": target, "skipped": True})
            continue
        try:
            opened = loaded.open(job, instances=instances, others=others, first_frames=first, start=start, end=end)
            if steady is None and loaded.translator.num_past_frames == 0 and opened.main.num_frames != 1:
                steady = 0.0
                log.warning(_FLICKERS, loaded.kind)
            chosen_options = Options(seed + index, table, work_size, steady or 0.0, style)
            translation = loaded.translate(opened, options=chosen_options)
            saved = _with_progress(translation, target, side_by_side=side_by_side, quality=quality, overwrite=overwrite)
            results.append(saved)
        except VidgenError as error:
            if not several:
                raise
            failures.append(str(error))
            log.error("%s", error)
    if failures:
        raise PartialFailure(f"{len(failures)} of {len(jobs)} inputs failed; the first: {failures[0]}")
    return {"results": results} if several or samples > 1 or not results else results[0]


def _target(out: str, job: Path | None, number: int | None) -> str:
    """Where the result goes: `out`, or in it under the name of one of several jobs; with the number of one of several samples."""
    path = Path(out) if job is None else Path(out) / f"{job.stem}{'.png' if images.is_image(job) else '.mp4'}"
    return str(path) if number is None else str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


def _with_progress(translation: Translation, target: str, **options: Any) -> dict[str, Any]:
    total = translation.inputs.main.num_frames
    steps: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    if not (sys.stderr.isatty() and log.isEnabledFor(logging.INFO)):
        return translation.save(target, **options)

    def counted() -> Iterator[int]:
        while (step := steps.get()) is not None:
            yield step

    def show() -> None:
        for _ in track(counted(), description=Path(target).name, total=total, console=Console(stderr=True)):
            pass

    screen = threading.Thread(target=show, daemon=True)
    screen.start()
    try:
        return translation.save(target, report=steps.put, **options)
    finally:
        steps.put(None)
        screen.join()


def _in_shard(name: str, shard: str | None) -> bool:
    if shard is None:
        return True
    if shard == "auto":
        try:
            first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0"))
            part = int(os.environ["SLURM_ARRAY_TASK_ID"]) - first + 1
            parts = int(os.environ["SLURM_ARRAY_TASK_COUNT"])
        except (KeyError, ValueError) as error:
            raise ConfigError("--shard auto: this is no SLURM array job", hint="give --shard K/N") from error
    else:
        try:
            part, parts = (int(value) for value in shard.split("/"))
        except ValueError as error:
            raise ConfigError(f"--shard {shard}: expected K/N, such as 1/4, or auto") from error
    if not 1 <= part <= parts:
        raise ConfigError(f"--shard {part}/{parts}: the part must be between 1 and {parts}")
    return int(hashlib.sha256(os.fsencode(name)).hexdigest(), 16) % parts == part - 1


def _input_table(text: str | None, model: Model) -> LabelTable | None:
    if text is None or text == "auto":
        return None
    if model.table is None:
        raise ConfigError(f"--label-encoding {text}: this model reads no label maps")
    if text == "ids":
        table = labels.plain(model.table.num_classes, model.table.ignore)
    elif text.startswith("palette:"):
        table = labels.named(text.removeprefix("palette:"))
        table = LabelTable(table.names, table.colors, None)
    else:
        table = LabelTable.from_file(Path(text))
    if table.num_classes != model.table.num_classes:
        raise ConfigError(f"--label-encoding {text}: has {table.num_classes} classes, the model knows {model.table.num_classes}")
    return table
