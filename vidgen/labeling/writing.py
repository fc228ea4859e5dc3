"""A labeled clip on the disk: label maps, the table of their ids, the head that labeled them, and what else is asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import vidgen
from vidgen import durable, progress
from vidgen.errors import InputError
from vidgen.labeling.clips import Labeling, overlay
from vidgen.labeling.head import BACKBONE
from vidgen.labeling.instances import InstanceTracker
from vidgen.media.frames import open_sink, output_place, sidecar_path, sidecar_place
from vidgen.media.video import FrameKind


def table_path(out: str | Path) -> Path:
    """The label table beside label maps: `labels.table.json` beside `labels/`, `clip.mkv.table.json` beside `clip.mkv`."""
    beside = sidecar_path(out)
    return beside.with_name(f"{beside.stem}.table.json")


def head_path(out: str | Path) -> Path:
    """The head beside label maps: `labels.head.safetensors` beside `labels/`."""
    beside = sidecar_path(out)
    return beside.with_name(f"{beside.stem}.head.safetensors")


def output_places(
    out: str | Path, *, confidence: str | None = None, overlay: str | None = None, instances: str | None = None
) -> list[durable.Output]:
    """All that `save` writes, to claim it.

    Raises:
        InputError: a name is none that can be written, or blurs labels.
    """
    places = [output_place(out, kind="labels"), sidecar_place(out), durable.Output(table_path(out)), durable.Output(head_path(out))]
    exact, shown = (("labels", (confidence, instances)), ("pictures", (overlay,)))
    for kind, names in (exact, shown):
        places += [output_place(name, kind="labels" if kind == "labels" else "pictures") for name in names if name is not None]
    return places


def save(
    labeling: Labeling,
    out: str | Path,
    *,
    confidence: str | None = None,
    overlay_video: str | None = None,
    instances: str | None = None,
    counted: Collection[str] | None = None,
    num_suggestions: int = 0,
    claim: durable.Claim,
) -> dict[str, Any]:
    """Label a clip and write it, whole or not at all.

    Args:
        out: label maps, a folder of PNG files or FFV1 in .mkv.
        confidence: gray values, 255 where the answer is certain.
        overlay_video: the frames with their classes in color.
        instances: instance maps of 16 bits.
        counted: names of the classes whose objects are counted; None for all.
        num_suggestions: how many frames to name that should be painted next.
        claim: of `output_places`.

    Returns:
        what the JSON file beside the label maps holds.

    Raises:
        InputError: a frame cannot be read, or a counted class is not in the table.
        OutputError: something cannot be written.
    """
    source, began = labeling.source, time.monotonic()
    tracker = None if instances is None else InstanceTracker(labeling.table, _numbers(labeling, counted))
    starts = {part.start for part in labeling.parts}

    with ExitStack() as stack:

        def sink(path: str | Path | None, kind: FrameKind) -> Any:
            if path is None:
                return None
            return stack.enter_context(
                open_sink(
                    path,
                    time_base=source.time_base,
                    frame_rate=source.frame_rate,
                    kind=kind,
                    pixel_aspect=source.pixel_aspect,
                    names=source.frame_names,
                    claim=claim,
                )
            )

        maps, doubts, objects = sink(out, "labels"), sink(confidence, "labels"), sink(instances, "labels")
        views = sink(overlay_video, "pictures")
        for frame in progress.follow(labeling, f"labeling {source.name}", source.num_frames):
            maps.write(labeling.values(frame.classes), frame.pts, frame.duration)
            if doubts is not None:
                doubts.write(np.rint(frame.confidence * 255).astype(np.uint8), frame.pts, frame.duration)
            if views is not None:
                views.write(overlay(frame.pixels, frame.classes, labeling.table), frame.pts, frame.duration)
            if tracker is not None:
                if frame.index in starts:
                    tracker.reset()
                objects.write(tracker(frame.classes, frame.flow), frame.pts, frame.duration)
        durable.write_bytes(table_path(out), (json.dumps(labeling.table.to_dict(), indent=2) + "\n").encode())
        labeling.head.save(head_path(out))
    seconds = time.monotonic() - began
    details = {
        "vidgen": vidgen.__version__,
        "input": source.name,
        **labeling.summary(),
        "table": str(table_path(out)),
        "head": str(head_path(out)),
        "backbone": BACKBONE,
        "seconds": round(seconds, 3),
    }
    if num_suggestions:
        details["paint_next"] = [labeling.frame_label(index) for index in labeling.suggestions(num_suggestions)]
    durable.write_json(sidecar_path(out), details)
    return {"output": str(out), **details}


def _numbers(labeling: Labeling, counted: Collection[str] | None) -> list[int] | None:
    if counted is None:
        return None
    names = labeling.table.names
    for name in counted:
        if name not in names:
            raise InputError(f"counted class {name!r}: not in the label table; known are {', '.join(names)}")
    return [names.index(name) for name in counted]
