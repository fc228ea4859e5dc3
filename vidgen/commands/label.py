"""`vidgen label`: label maps of a whole clip from one or a few painted frames."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidgen import durable
from vidgen.commands.batches import Calling, Changes, EngineName, Scale, call_each, is_picture, is_text
from vidgen.errors import ConfigError
from vidgen.labeling import writing
from vidgen.labeling.clips import label as label_clip
from vidgen.labeling.painted import find_table
from vidgen.media import images
from vidgen.media import labels as tables
from vidgen.media.frames import FOLDER_FRAME_RATE, Frame, files_read
from vidgen.media.labels import LabelTable
from vidgen.runtime import limit_threads


def label_each(
    inputs: Sequence[str],
    out: str,
    *,
    painted: Sequence[str] = (),
    inputs_list: Path | None = None,
    shard: str | None = None,
    engine: EngineName = "local",
    workers: int | None = None,
    address: str | None = None,
    gpus: float | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Label one or many clips, many with one head; further options are those of `label`.

    Args:
        out: of several clips a folder, whose tree mirrors theirs; so are `confidence`, `overlay` and `instances`.
    """
    scale = Scale(inputs_list, shard, engine, workers, address, gpus, skip_existing, overwrite)
    calling = Calling(
        "label",
        "label.label",
        "clip",
        "out",
        lambda place: ".png" if is_picture(place) else ".mkv",
        lambda arguments: writing.output_places(
            arguments["out"], **{name: arguments.get(name) for name in ("confidence", "overlay", "instances")}
        ),
        Changes((), {"start": is_text, "end": is_text}),
        extra_outputs={"confidence": ".mkv", "overlay": ".mp4", "instances": ".mkv"},
        single_only=() if options.get("head") is not None else ("painted",),
    )
    return call_each(calling, inputs, out, scale=scale, shared={"painted": list(painted), **options})


def label(
    clip: str,
    painted: Sequence[str],
    out: str,
    *,
    head: Path | None = None,
    labels: str | None = None,
    suggest: int = 0,
    confidence: str | None = None,
    overlay: str | None = None,
    instances: str | None = None,
    counted: str | None = None,
    weights: Path | None = None,
    start: str | None = None,
    end: str | None = None,
    frame_rate: float | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Label a clip; see `vidgen.labeling.clips.label`.

    Args:
        painted: label maps of some frames.
        out: label maps: a folder of PNG files, or an .mkv in FFV1. Beside it stand the table of ids, the head and a report.
        head: a saved head, which is used as it is.
        labels: how painted frames store classes: auto, ids, a known table, palette:NAME or a table file.
        suggest: how many frames to name that should be painted next.
        confidence, overlay, instances: further outputs.
        counted: names of the classes whose objects instance maps count, separated by commas; all by default.
    """
    limit_threads(threads)
    if head is None and not painted:
        raise ConfigError("no painted frame was given", hint="paint one frame of the clip, or give a saved head with `head`")
    if counted is not None and instances is None:
        raise ConfigError("`counted` names objects to count, but no instance maps are written", hint="`instances` objects/")
    places = writing.output_places(out, confidence=confidence, overlay=overlay, instances=instances)
    read = [file for where in (clip, *painted) for file in files_read(where)]
    with durable.claim(places, inputs=[*read, *([head] if head else [])], overwrite=overwrite) as claim:
        labeling = label_clip(
            clip,
            painted,
            head=head,
            table=_table(labels, painted),
            weights=weights,
            start=start,
            end=end,
            frame_rate=FOLDER_FRAME_RATE if frame_rate is None else Fraction(frame_rate).limit_denominator(1001),
            seed=seed,
        )
        return writing.save(
            labeling,
            out,
            confidence=confidence,
            overlay_video=overlay,
            instances=instances,
            counted=None if counted is None else [name.strip() for name in counted.split(",")],
            num_suggestions=suggest,
            claim=claim,
        )


def _table(text: str | None, painted: Sequence[str]) -> LabelTable | None:
    """What painted values mean; None for one class for each value that occurs."""
    if text is None or text == "auto":
        return None
    if text == "ids":
        files = [file for where in painted for file in files_read(where) if images.is_image(file)]
        return find_table(Frame(images.read_labels(file), 0, str(file)) for file in files)
    return tables.find(text)
