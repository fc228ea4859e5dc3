"""Optical flow of videos and pairs of pictures; measuring flow engines against known truth; training the network of `flow`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from flow.engines import Engine, create_engine, estimate_video
from flow.files import flow_to_picture, picture_scale, read_flow, write_flow
from flow.losses import angular_error, endpoint_error, outlier_share
from flow.synthetic import read_textures
from flow.train import TrainConfig, fine_tune, train_supervised
from vidgen import durable
from vidgen.data.street_pairs import street_pairs, training_streets
from vidgen.errors import InputError, OutputError
from vidgen.media import images
from vidgen.media.frames import FrameSource, check_output, open_sink, open_source
from vidgen.media.paths import list_folder, shown

Into = Literal["previous", "next"]
Kind = Literal["flow", "picture"]

NUM_SCALE_FIELDS = 16
"""So many fields at the beginning decide the colour scale, unless it is given."""

_FIRST_STREET_FRAME, _PAIRS_PER_STREET = 30, 3

_FLOW_SUFFIXES = (".flo", ".pfm")


def estimate(
    first: str | Path,
    second: str | Path | None = None,
    *,
    output: str | Path,
    engine: str = "dis",
    weights: Path | None = None,
    sha256: str | None = None,
    into: Into = "previous",
    kind: Kind | None = None,
    max_flow: float | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Estimate flow and write it: between two pictures, or between all consecutive frames of a video.

    Args:
        first: a picture (with `second`), or a video or folder of frames (without).
        second: the other picture; the flow goes from the grid of `first` into it, and `into` does not matter.
        output: for two pictures a .flo, .pfm or .png file; for a video a folder, or a video file of colour pictures.
        engine: one of `flow.engines.ENGINES`.
        weights: its weights file, or the folder of flow files of engine folder.
        sha256: expected SHA-256 of the weights file.
        into: for a video, whether frame t's flow points into frame t-1 ("previous") or frame t-1's into frame t ("next").
        kind: "flow" writes numbers, "picture" colours. None takes what the output suggests: numbers for .flo, .pfm and folders
            (of .flo files), colours for .png and videos. A .png of numbers is in KITTI's format.
        max_flow: length in pixels that gets full colour; None takes the 99th percentile over the first fields.
        overwrite: replace an output that exists.

    Returns:
        output, kind, engine, num_fields, max_flow (None for numbers).

    Raises:
        InputError: an input cannot be read, or the output's name does not fit.
        OutputError: the output exists or cannot be written.
        flow.errors.FlowError: the engine cannot be used.
    """
    kind = _choose_kind(output, kind, is_pair=second is not None)
    if kind == "picture":
        check_output(output, overwrite=overwrite)
    else:
        _check_numbers_output(Path(output), overwrite=overwrite)
    compute = create_engine(engine, path=weights, sha256=sha256)
    source = open_source(first)
    flows = _video_flows(source, compute, into) if second is None else _pair_flow(source, open_source(second), compute)
    if kind == "picture":
        beginning = list(itertools.islice(flows, NUM_SCALE_FIELDS))
        if max_flow is None:
            max_flow = picture_scale(torch.stack([flow for flow, _ in beginning]))
        num_fields = _write_pictures(itertools.chain(beginning, flows), source, output, max_flow, overwrite)
    elif second is None:
        num_fields = _write_folder(flows, Path(output))
    else:
        write_flow(output, next(flows)[0])
        num_fields = 1
    return {
        "output": str(output),
        "kind": kind,
        "engine": engine,
        "num_fields": num_fields,
        "max_flow": max_flow if kind == "picture" else None,
    }


def evaluate(folder: str | Path, *, engine: str = "dis", weights: Path | None = None, sha256: str | None = None) -> dict[str, Any]:
    """Measure an engine against known flow.

    Args:
        folder: holds a folder for each pair (or is itself one) with two pictures, first and second by name, and the flow of the
            first into the second as .flo or .pfm, as the Middlebury set does.
        engine, weights, sha256: as in `estimate`.

    Returns:
        engine, pairs (name -> endpoint_error in pixels, angular_error in degrees, outlier_share, known_share, seconds) and mean
        (the same, averaged over the pairs).

    Raises:
        InputError: there is no such pair, or a file cannot be read.
        flow.errors.FlowError: the engine or a flow file cannot be used.
    """
    found = _find_pairs(Path(folder))
    compute = create_engine(engine, path=weights, sha256=sha256)
    pairs = {name: _measure(compute, *files) for name, files in found.items()}
    mean = {key: float(np.mean([scores[key] for scores in pairs.values()])) for key in next(iter(pairs.values()))}
    return {"engine": engine, "pairs": pairs, "mean": mean}


def train(
    folder: str | Path,
    *,
    textures: Path | None = None,
    video: str | Path | None = None,
    num_streets: int = 0,
    initial: Path | None = None,
    measure: Path | None = None,
    device: str = "cpu",
    show_progress: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Train the network of `flow` on synthetic pairs, or fine-tune it on a video; goes on where `folder` stopped.

    Args:
        folder: of the run.
        textures: folder of photographs for the synthetic layers to wear.
        num_streets: so many procedural streets (as frames, label maps and line art) are rendered and mixed in.
        video: frames to fine-tune on, without truth, instead of synthetic pairs. They are all held in memory.
        initial: weights to begin with.
        measure: folder as for `evaluate`; its endpoint errors go to the log at every checkpoint.
        device: of torch.
        show_progress: a bar on stderr.
        settings: fields of `flow.train.TrainConfig`.

    Returns:
        weights (path) and settings.

    Raises:
        InputError: the video cannot be read, or a setting is not known.
        flow.errors.FlowError: the run cannot go on.
    """
    known = [field.name for field in fields(TrainConfig)]
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise InputError(f"{unknown[0]}: is no setting of flow training; there are {', '.join(known)}")
    config = TrainConfig(**settings)
    pairs = {} if measure is None else _find_pairs(measure)

    def endpoint_errors(network: Engine) -> dict[str, float]:
        return {f"endpoint_error_{name}": _measure(network, *files)["endpoint_error"] for name, files in pairs.items()}

    options: dict[str, Any] = {"evaluate": endpoint_errors, "initial": initial, "device": device, "show_progress": show_progress}
    if video is None:
        streets = training_streets(num_streets, config.height, config.width)
        known = [known for street in streets for _, known in street_pairs(street, _FIRST_STREET_FRAME, _PAIRS_PER_STREET)]
        worn = read_textures(textures) if textures else ()
        weights = train_supervised(folder, config, textures=worn, known_pairs=known, **options)
    else:
        clip = torch.stack([torch.from_numpy(frame.pixels).permute(2, 0, 1) for frame in open_source(video)])
        weights = fine_tune(folder, config, clip, **options)
    return {"weights": str(weights), "settings": asdict(config)}


def _choose_kind(output: str | Path, kind: Kind | None, *, is_pair: bool) -> Kind:
    """What to write under the name `output`.

    Raises:
        InputError: nothing of that kind can have that name.
    """
    suffix = "" if str(output).endswith("/") else Path(output).suffix.lower()
    possible: tuple[Kind, ...]
    if is_pair:
        possible = {".flo": ("flow",), ".pfm": ("flow",), ".png": ("picture", "flow")}.get(suffix, ())  # type: ignore[assignment]
        names = "a .flo, .pfm or .png file"
    else:
        possible = ("flow", "picture") if not suffix else () if suffix in _FLOW_SUFFIXES else ("picture",)
        names = "a folder, or a video file for colour pictures"
    chosen = kind or next(iter(possible), None)
    if chosen is None or chosen not in possible:
        what = "two pictures" if is_pair else "a video"
        raise InputError(f"{shown(output)}: the {kind or 'flow'} of {what} is written to {names}")
    return chosen


def _check_numbers_output(target: Path, *, overwrite: bool) -> None:
    """Refuse early an output that exists, and always a folder that holds anything but flow files.

    Raises:
        OutputError: it is so.
    """
    if target.is_dir():
        foreign = [entry.name for entry in list_folder(target) if entry.suffix != ".flo"]
        if foreign:
            raise OutputError(f"{shown(target)}: the folder holds other things, such as {shown(foreign[0])}; it is left alone")
    durable.check_writable_target(target, overwrite=overwrite)


def _video_flows(source: FrameSource, compute: Engine, into: Into) -> Iterator[tuple[Tensor, int]]:
    """Flow [2,H,W] of each pair of frames, with the time of the frame on whose grid it is.

    Raises:
        InputError: there is one frame only.
    """
    times: list[int] = []

    def pictures() -> Iterator[Tensor]:
        for frame in source:
            times.append(frame.pts)
            yield _to_tensor(frame.pixels)

    index = -1
    for index, flow in enumerate(estimate_video(pictures(), compute, into=into)):
        yield flow, times[index + (into == "previous")]
    if index < 0:
        raise InputError(f"{source.name}: holds one frame; flow needs two", hint="give the second picture too")


def _pair_flow(first: FrameSource, second: FrameSource, compute: Engine) -> Iterator[tuple[Tensor, int]]:
    for source in (first, second):
        if source.count() != 1:
            raise InputError(f"{source.name}: holds {source.count()} frames; with two inputs each must be one picture")
    yield compute(*(_to_tensor(source.read(0, 1)[0].pixels)[None] for source in (first, second)))[0], 0


def _write_pictures(
    flows: Iterator[tuple[Tensor, int]], source: FrameSource, output: str | Path, max_flow: float, overwrite: bool
) -> int:
    with open_sink(output, time_base=source.time_base, frame_rate=source.frame_rate, overwrite=overwrite) as sink:
        for flow, pts in flows:
            picture = flow_to_picture(flow[None], max_flow=max_flow)[0]
            sink.write(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()), pts)
    return sink.num_frames


def _write_folder(flows: Iterator[tuple[Tensor, int]], folder: Path) -> int:
    num_fields = 0
    with durable.replacing(folder) as temporary:
        durable.operations.make_folder(temporary)
        for flow, _ in flows:
            write_flow(temporary / f"{num_fields:05d}.flo", flow)
            num_fields += 1
    return num_fields


def _find_pairs(root: Path) -> dict[str, tuple[Path, Path, Path]]:
    """Name -> first picture, second picture, flow file.

    Raises:
        InputError: there are none.
    """
    found = {}
    for place in (root, *(entry for entry in list_folder(root) if entry.is_dir())):
        files = list_folder(place)
        pictures = [file for file in files if images.is_image(file)]
        truths = [file for file in files if file.suffix.lower() in _FLOW_SUFFIXES]
        if len(pictures) == 2 and len(truths) == 1:
            found[place.name] = (pictures[0], pictures[1], truths[0])
    if not found:
        raise InputError(f"{shown(root)}: neither it nor a folder in it holds two pictures and one {' or '.join(_FLOW_SUFFIXES)}")
    return found


def _measure(compute: Engine, first: Path, second: Path, truth: Path) -> dict[str, float]:
    pair = [_to_tensor(images.read_picture(path))[None] for path in (first, second)]
    right, known = (value[None] for value in read_flow(truth))
    began = time.perf_counter()
    flow = compute(*pair)
    seconds = time.perf_counter() - began
    if flow.shape != right.shape:
        raise InputError(f"{shown(truth)}: is {right.shape[3]}x{right.shape[2]}, its pictures {flow.shape[3]}x{flow.shape[2]}")
    return {
        "endpoint_error": float(endpoint_error(flow, right, known)),
        "angular_error": float(angular_error(flow, right, known)),
        "outlier_share": float(outlier_share(flow, right, known)),
        "known_share": float(known.float().mean()),
        "seconds": seconds,
    }


def _to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [H,W,3] as float [3,H,W] in -1..1."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1
