"""`vidgen condition`: any video as a condition video, streamed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import vidgen
from vidgen import durable, progress
from vidgen.commands.batches import (
    Calling,
    Changes,
    EngineName,
    Scale,
    call_each,
    is_number,
    is_picture,
    is_text,
    is_whole,
)
from vidgen.errors import ConfigError
from vidgen.labeling.conditions import OF_PICTURES, ConditionSettings, Kind, open_condition, output_names
from vidgen.media.frames import (
    FOLDER_FRAME_RATE,
    FrameSink,
    files_read,
    open_sink,
    open_source,
    output_place,
    sidecar_path,
    sidecar_place,
)
from vidgen.media.keypoints import OPENPOSE_SUFFIX, openpose_json
from vidgen.media.video import FrameKind, Quality


def condition_each(
    inputs: Sequence[str],
    out: str,
    *,
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
    """Draw the conditions of one or many clips; further options are those of `condition`.

    Args:
        out: of several clips a folder, whose tree mirrors theirs; so are `points`, `frames` and `part_labels`.
    """
    scale = Scale(inputs_list, shard, engine, workers, address, gpus, skip_existing, overwrite)
    calling = Calling(
        "condition",
        "condition.condition",
        "clip",
        "out",
        lambda place: ".png" if is_picture(place) else ".mp4",
        _places,
        Changes(("points",), {"start": is_text, "end": is_text, "seed": is_whole, "line_width": is_number(0.3, 20)}),
        companions=("points",),
        extra_outputs={"frames": ".mp4", "part_labels": ".mkv", "save_points": ""},
    )
    return call_each(calling, inputs, out, scale=scale, shared=options)


def _places(arguments: Mapping[str, Any]) -> list[durable.Output]:
    """What a call writes: the condition, what tells about it, and what else is asked for."""
    settings = {item.name: arguments[item.name] for item in dataclasses.fields(ConditionSettings) if item.name in arguments}
    places = [output_place(name) for name in output_names(arguments["out"], ConditionSettings(**settings))]
    frames, parts = arguments.get("frames"), arguments.get("part_labels")
    places += [output_place(frames)] if frames else []
    places += [_points_place(arguments["save_points"])] if arguments.get("save_points") else []
    return [*places, sidecar_place(arguments["out"]), *([output_place(parts, kind="labels")] if parts else [])]


def _points_place(folder: str) -> durable.Output:
    return durable.Output(Path(folder), "folder")


def condition(
    clip: str,
    out: str,
    *,
    kind: Kind,
    points: str | None = None,
    weights: Path | None = None,
    part_labels: str | None = None,
    frames: str | None = None,
    save_points: str | None = None,
    start: str | None = None,
    end: str | None = None,
    frame_rate: float | None = None,
    quality: Quality = "good",
    overwrite: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Draw the condition of a clip; further options are those of `vidgen.labeling.conditions.ConditionSettings`.

    Args:
        points: OpenPose or COCO JSON, or text files of landmarks.
        weights: the wheel whose graphs find the points where none are given.
        part_labels: where to write the part labels of faces.
        frames: where to write the frames, cropped like the condition.
        save_points: folder for the points, one file of OpenPose JSON for each frame.
    """
    chosen = ConditionSettings(kind, **settings)
    if part_labels is not None and kind != "face":
        raise ConfigError(f"`part_labels`: only faces have parts, not {kind}")
    if chosen.all_channels and kind != "face":
        raise ConfigError(f"`all_channels`: only faces have 15 channels, not {kind}")
    if save_points is not None and kind in OF_PICTURES:
        raise ConfigError(f"`save_points`: {kind} is drawn from the pictures, not from points")
    rate = FOLDER_FRAME_RATE if frame_rate is None else Fraction(frame_rate).limit_denominator(1001)
    source = open_source(clip, start=start, end=end, frame_rate=rate)
    video = open_condition(source, chosen, points, weights)
    names = output_names(out, chosen)
    places = _places({**vars(chosen), "out": out, "frames": frames, "part_labels": part_labels, "save_points": save_points})
    with ExitStack() as stack:
        claim = stack.enter_context(durable.claim(places, inputs=files_read(clip), overwrite=overwrite))

        def sink(path: str, written: FrameKind = "pictures") -> FrameSink:
            return stack.enter_context(
                open_sink(
                    path,
                    time_base=source.time_base,
                    frame_rate=source.frame_rate,
                    kind=written,
                    pixel_aspect=source.pixel_aspect,
                    quality=quality,
                    names=source.frame_names,
                    single=source.single,
                    claim=claim,
                )
            )

        drawn = [sink(name) for name in names]
        parts = sink(part_labels, "labels") if part_labels else None
        cropped = sink(frames) if frames else None
        saved = stack.enter_context(durable.replacing_output(_points_place(save_points))) if save_points else None
        if saved is not None:
            durable.operations.make_folder(saved)
        count = 0
        for frame in progress.follow(video, f"drawing {kind} of {source.name}", source.num_frames):
            if saved is not None and frame.points is not None:
                name = source.frame_names[count] if source.frame_names else f"{count:05d}"
                durable.operations.write(saved / f"{name}{OPENPOSE_SUFFIX}", json.dumps(openpose_json(frame.points)).encode())
            count += 1
            for place, picture in zip(drawn, frame.pictures, strict=True):
                place.write(picture, frame.pts, frame.duration)
            if parts is not None and frame.parts is not None:
                parts.write(frame.parts, frame.pts, frame.duration)
            if cropped is not None:
                cropped.write(frame.frame, frame.pts, frame.duration)
    details: dict[str, Any] = {"vidgen": vidgen.__version__, "input": source.name, "kind": kind, "frames": count}
    if kind not in OF_PICTURES:
        steady = video.steadiness
        details["empty_frames"] = video.empty
        details["largest_step"] = round(steady.step, 2)
        details["motion_there"] = round(steady.motion, 2)
        details["at_frame"] = steady.frame
        details["deviation_from_motion"] = round(steady.deviation, 2)
        details["deviation_as_found"] = round(steady.found_deviation, 2)
    durable.write_json(sidecar_path(out), details)
    return {"output": out if len(names) == 1 else list(names), **details}
