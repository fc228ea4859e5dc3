"""Translate one or many videos with a trained model."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vidgen import durable, progress
from vidgen.commands.inputs import check_order, further_inputs, partner_of
from vidgen.errors import ConfigError, InputError, OutputError, PartialFailure, VidgenError
from vidgen.inference.backends.choice import BackendName
from vidgen.inference.model import Model, Options
from vidgen.inference.session import WorkSize, class_number, with_polarity
from vidgen.media import images, labels, paths, video
from vidgen.media.frames import OUTPUT_SUFFIXES, files_read, list_sources, open_source, output_place, sidecar_place
from vidgen.media.labels import LabelTable

if TYPE_CHECKING:
    from vidgen.inference.styles import StyleAssignment
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
    further: Sequence[str] = (),
    instances: str | None = None,
    side_by_side: bool = False,
    work_size: WorkSize = "auto",
    steady: float | None = None,
    styles: Path | None = None,
    chosen: Sequence[str] = (),
    reference: Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    frame_rate: float | None = None,
    shard: str | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
    backend: BackendName = "auto",
    quality: Literal["draft", "good", "lossless"] = "good",
    seed: int = 0,
    weights: Literal["auto", "average", "ema", "last", "best"] = "auto",
    samples: int = 1,
    class_name: str | None = None,
    inverted: bool = False,
    sheet: Path | None = None,
) -> dict[str, Any]:
    """Translate one or many inputs; see `Model.open` for what an input may be.

    Args:
        out: output file or folder of frames for one input; a folder for several, each named after its input. A JSON file beside
            each result, named after the whole of it (out.mp4.json), tells how it was made.
        samples: how many results of each input, from one seed each; the number goes into their names (out-1.png). They differ
            where the model has noise (the dropout of pix2pix) or draws styles.
        class_name: what the inputs show, for models that know classes.
        inverted: sketches are light on dark.
        sheet: also write a contact sheet (.png) of single pictures, each input and its samples in a row.
        first_frame: picture or video to continue, or a model (run folder or weights) that makes the first frame.
        further, instances: the model's other inputs; see `further_inputs`. For several inputs, each of these and `first_frame` is
            a folder that holds one for each, under its name.
        labels: how the input stores classes: auto (as in training), ids, palette:NAME or a table file.
        frame_rate: frames per second of folders of frames, which state none; 25 by default.
        steady: share of the last result in each frame of an image model, 0..1; None means 0 and a warning for videos.
        styles, chosen, reference: styles of the objects, for models with a feature encoder; see `choose_style`.
        backend: what computes; auto takes OpenVINO where it is installed and gives torch's frames on this machine.
        shard: `K/N` takes every input whose name falls into part K of N; `auto` reads a SLURM array's variables.

    Returns:
        one entry per input.

    Raises:
        PartialFailure: some inputs failed; the others are done.
    """
    check_order(model, inputs)
    failures: list[str] = []
    jobs = list(_jobs(inputs, failures))
    several = len(inputs) > 1 or len(jobs) > 1
    if several and _names_a_file(out):
        raise OutputError(f"{paths.display(out)}: is one file, and there are {len(jobs)} inputs", hint="name a folder: results/")
    jobs = [job for job in jobs if _in_shard(job.name, shard)]
    targets = [
        _Target(job, index, _target(out, job if several else None, index + 1 if samples > 1 else None), _is_picture(job))
        for job, index in itertools.product(jobs, range(samples))
    ]
    if sheet is not None and not all(target.single for target in targets):
        raise ConfigError(f"`sheet` {sheet}: shows single pictures, and there are videos among the inputs")
    skipped = [target for target in targets if skip_existing and target.exists]
    targets = [target for target in targets if target not in skipped]
    read = [Path(where) for where in (instances, *(entry.partition("=")[2] for entry in further)) if where]
    read += [first_frame] if first_frame is not None else []
    files = [file for where in (*(target.job for target in targets), *read) for file in files_read(where)]
    places = [place for target in targets for place in (target.place, sidecar_place(target.path))]
    places += [durable.Output(sheet)] if sheet is not None else []
    results: list[dict[str, Any]] = [{"output": target.path, "skipped": True} for target in skipped]
    with ExitStack() as stack:
        durable.check_places(places, inputs=[*files, model], overwrite=overwrite)
        # One job holds its outputs from the start; those of many, each when its turn comes.
        claim = stack.enter_context(durable.claim(places, overwrite=overwrite)) if len(targets) == 1 else None
        if reference and backend == "auto":
            backend = "torch"  # the encoder, which looks at the reference, is no part of an exported graph
        loaded = Model.load(
            model,
            device=device,
            precision=precision or "auto",
            weights="ema" if weights == "average" else weights,
            backend=backend,
            threads=threads,
            num_frames=_total_frames(targets) if backend == "auto" else None,
        )
        table = input_table(labels, loaded)
        class_number(loaded.condition, class_name)
        with_polarity(loaded.condition, inverted=inverted)
        companions = further_inputs(loaded, further, instances=instances)
        assignments = [
            _style(loaded, styles=styles, chosen=chosen, reference=reference, seed=seed + index) for index in range(samples)
        ]
        first_model: Model | None = None
        if first_frame is not None and (first_frame.suffix == ".safetensors" or (first_frame / "checkpoints").is_dir()):
            first_model, first_frame = Model.load(first_frame, device=device, precision=precision or "auto", threads=threads), None
        if several:
            for job in jobs:
                _partners(job, companions, first_frame, several=True)
        for target in targets:
            try:
                partners, first_frames = _partners(target.job, companions, first_frame, several=several)
                opened = loaded.open(
                    target.job,
                    further=partners,
                    first_frames=first_model or first_frames,
                    start=start,
                    end=end,
                    frame_rate=None if frame_rate is None else Fraction(frame_rate).limit_denominator(1001),
                )
                if steady is None and loaded.facts.num_past_frames == 0 and opened.main.num_frames != 1:
                    steady = 0.0
                    log.warning(_FLICKERS, loaded.kind)
                chosen_options = Options(
                    seed + target.sample, table, work_size, steady or 0.0, assignments[target.sample], class_name, inverted
                )
                translation = loaded.translate(opened, options=chosen_options)
                what = f"translating {Path(target.path).name}"
                with progress.task(what, translation.inputs.main.num_frames) as report:
                    saved = translation.save(
                        target.path,
                        side_by_side=side_by_side,
                        quality=quality,
                        overwrite=overwrite,
                        report=report,
                        claim=claim,
                    )
                results.append(saved)
            except VidgenError as error:
                if not several:
                    raise
                failures.append(str(error))
                log.error("%s", error)
    if sheet is not None and results:
        _write_sheet(sheet, [target for target in (*skipped, *targets) if Path(target.path).is_file()])
    if failures:
        raise PartialFailure(f"{len(failures)} of {len(failures) + len(results)} inputs failed; the first: {failures[0]}")
    return {"results": results} if several or samples > 1 or not results else results[0]


def _style(model: Model, **options: Any) -> StyleAssignment | None:
    """See `choose_style`, which a model without an encoder need not load."""
    if not model.num_style_channels and not any(options[name] for name in ("styles", "chosen", "reference")):
        return None
    from vidgen.commands.styles import choose_style

    return choose_style(model, **options)


def _write_sheet(out: Path, targets: Sequence[_Target]) -> None:
    from vidgen.single_image.pictures import contact_sheet  # here, because it needs torch, which exported graphs do without

    rows: dict[Path, list[np.ndarray]] = {}
    for target in targets:
        row = rows.setdefault(target.job, [])
        if not row:
            row.append(images.read_picture(target.job))
        row.append(images.read_picture(Path(target.path)))
    pictures = [picture for row in rows.values() for picture in row]
    images.write_png(out, contact_sheet(pictures, num_columns=max(len(row) for row in rows.values())))


def _total_frames(targets: Sequence[_Target]) -> int | None:
    """Of all results, or None where one does not say how many it will have."""
    counts = []
    for target in targets:
        try:
            source = open_source(target.job)
        except VidgenError:  # it is opened again, as what it is, when its turn comes
            return None
        counts.append(source.num_frames)
    return None if any(count is None for count in counts) else sum(count for count in counts if count is not None)


def _jobs(inputs: Sequence[str], failures: list[str]) -> Iterator[Path]:
    """The clips of all inputs; of several inputs, one that cannot be read fails alone."""
    for where in inputs:
        try:
            yield from list_sources(where)
        except InputError as error:
            if len(inputs) == 1:
                raise
            failures.append(str(error))
            log.error("%s", error)


def _partners(
    job: Path, companions: Mapping[str, str], first_frame: Path | None, *, several: bool
) -> tuple[dict[str, str], str | None]:
    """The further inputs of a job by name, and its first frame.

    Raises:
        InputError: see `partner_of`.
    """
    further = {name: partner_of(job, where, several=several, what=name) for name, where in companions.items()}
    first = None if first_frame is None else partner_of(job, first_frame, several=several, what="`first_frame`")
    return further, first


@dataclass(frozen=True)
class _Target:
    """One result: of which input, which of its samples, where it goes, and whether it is a single picture."""

    job: Path
    sample: int
    path: str
    single: bool

    @property
    def place(self) -> durable.Output:
        return output_place(self.path, single=self.single)

    @property
    def exists(self) -> bool:
        return self.place.exists()


def _target(out: str, job: Path | None, number: int | None) -> str:
    """Where a result goes: `out`, or in it under the name of one of several jobs; with the number of one of several samples."""
    if job is None:
        return out if number is None else _numbered(out, number)
    source = _source(job)
    # Folders have no suffix, also where there is a dot in the name; patterns and globs are called after their folder.
    if source.is_dir():
        name = source.name
    elif source.exists():
        name = source.stem
    else:
        name = source.parent.name
    name += "" if number is None else f"-{number}"
    return str(Path(out) / f"{name}{'.png' if _is_picture(job) else '.mp4'}")


def _source(job: Path) -> Path:
    """The path of a job without its cut."""
    return Path(os.path.abspath(paths.split_cut(str(job))[0]))


def _is_picture(job: Path) -> bool:
    source = _source(job)
    return images.is_image(source) and source.is_file()


def _names_a_file(out: str) -> bool:
    path = Path(out)
    known = path.suffix.lower() in OUTPUT_SUFFIXES or images.is_image(path) or video.is_video(path)
    return known and not out.endswith(("/", os.sep)) and not path.is_dir()


def _numbered(out: str, number: int) -> str:
    path = Path(out)
    if out.endswith(("/", os.sep)):
        return f"{path}-{number}/"
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


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


def input_table(text: str | None, model: Model) -> LabelTable | None:
    """How the input stores classes, by the words of the command line; None means as in training."""
    if text is None or text == "auto":
        return None
    if model.table is None:
        raise ConfigError(f"--label-encoding {text}: this model reads no label maps")
    if text == "ids":
        table = labels.plain(model.table.num_classes, model.table.ignore)
    else:
        table = labels.find(text)
    if table.num_classes != model.table.num_classes:
        raise ConfigError(f"--label-encoding {text}: has {table.num_classes} classes, the model knows {model.table.num_classes}")
    return table
