"""Optical flow of videos and pairs of pictures; measuring flow engines against known truth; training the network of `flow`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from flow.engines import Engine, Learned, create_engine, describe
from flow.files import flow_to_picture, picture_scale, read_flow, write_flow
from flow.losses import angular_error, endpoint_error, outlier_share, share_beyond
from flow.synthetic import read_textures
from flow.train import LOCK, TrainConfig, check_folder, fine_tune, train_supervised
from flow.warp import forward_backward_occlusion
from vidgen import durable, progress
from vidgen.data.street_pairs import street_pairs, training_streets
from vidgen.errors import ConfigError, InputError
from vidgen.inference.backends.choice import BackendName
from vidgen.inference.flow import learned_network
from vidgen.media import images
from vidgen.media.frames import FrameSink, FrameSource, files_read, open_sink, open_source, output_place
from vidgen.media.paths import display, list_folder
from vidgen.media.pixels import to_tensor

Into = Literal["previous", "next"]
Kind = Literal["flow", "picture"]

NUM_SCALE_FIELDS = 16
"""So many fields at the beginning decide the colour scale, unless it is given."""

_FIRST_STREET_FRAME, _PAIRS_PER_STREET = 30, 3

_Display = tuple[int, int | None]
"""When a frame is displayed and for how long, as `Frame` has it."""

_Pair = tuple[Tensor, Tensor, _Display]
"""Two images [1,3,H,W] in -1..1 and the display of the first; its grid is that of the flow."""

KnownFlow = tuple[Tensor, Tensor, Tensor, Tensor]
"""Two images [1,3,H,W] in -1..1, the flow [1,2,H,W] of the first into the second, and bool [1,1,H,W], where it counts."""

_FLOW_SUFFIXES = (".flo", ".pfm")


def estimate(
    first: str | Path,
    second: str | Path | None = None,
    *,
    output: str | Path | None = None,
    occlusion: str | Path | None = None,
    engine: str = "dis",
    weights: Path | None = None,
    sha256: str | None = None,
    into: Into = "previous",
    kind: Kind | None = None,
    max_flow: float | None = None,
    backend: BackendName = "torch",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Estimate flow and write it: between two pictures, or between all consecutive frames of a video.

    Args:
        first: a picture (with `second`), or a video or folder of frames (without).
        second: the other picture; the flow goes from the grid of `first` into it, and `into` does not matter.
        output: for two pictures a .flo, .pfm or .png file; for a video a folder, or a video file of colour pictures. None writes
            occlusion alone.
        occlusion: where to write, white, what the other picture does not show, by comparing with the flow back: a .png file for
            two pictures, a folder or a video file for a video.
        engine: one of `flow.engines.ENGINES`.
        weights: its weights file, or the folder of flow files of engine folder.
        sha256: expected SHA-256 of the weights file.
        into: for a video, whether frame t's flow points into frame t-1 ("previous") or frame t-1's into frame t ("next").
        kind: "flow" writes numbers, "picture" colours. None takes what the output suggests: numbers for .flo, .pfm and folders
            (of .flo files), colours for .png and videos. A .png of numbers is in KITTI's format.
        max_flow: length in pixels that gets full colour; None takes the 99th percentile over the first fields.
        backend: what computes the learned network; other engines have none.
        overwrite: replace an output that exists.

    Returns:
        output, occlusion, kind, engine, backend (what computed the network of learned, and why; None for others), num_fields,
        max_flow (None for numbers), occluded_share (None without occlusion).

    Raises:
        InputError: an input cannot be read, or the output's name does not fit.
        OutputError: the output exists or cannot be written.
        ConfigError: a backend is asked for, and the engine has no network.
        flow.errors.FlowError: the engine cannot be used.
    """
    if backend not in ("auto", "torch") and engine != "learned":
        raise ConfigError(f"`backend` {backend}: computes the engine learned, and {engine} has no network to export")
    is_pair = second is not None
    kind, places = _places(output, occlusion, kind, engine, is_pair=is_pair)
    inputs = [file for where in (first, *([second] if second is not None else [])) for file in files_read(where)]
    with ExitStack() as stack:
        claim = stack.enter_context(durable.claim(places, inputs=[*inputs, *([weights] if weights else [])], overwrite=overwrite))
        network = learned_network(backend, weights) if engine == "learned" else None
        if network is not None:
            compute: Engine = Learned(weights, sha256, network=network)
        else:
            compute = create_engine(engine, path=weights, sha256=sha256)
        chosen = {"backend": "torch", "why": "asked for"} if engine == "learned" else None
        source = open_source(first)
        pairs = _video_pairs(source, into) if second is None else _pair(source, open_source(second))
        shares: list[float] = []

        def open_pictures(where: str | Path) -> AbstractContextManager[FrameSink]:
            return open_sink(where, time_base=source.time_base, frame_rate=source.frame_rate, single=is_pair, claim=claim)

        sink = None if occlusion is None else stack.enter_context(open_pictures(occlusion))
        fields = _fields(pairs, compute, sink, shares)
        if kind == "picture":
            assert output is not None
            beginning = list(itertools.islice(fields, NUM_SCALE_FIELDS))
            if max_flow is None:
                max_flow = picture_scale(torch.stack([flow for flow, _ in beginning]))
            with open_pictures(output) as pictures:
                num_fields = _write_pictures(itertools.chain(beginning, fields), pictures, max_flow)
        elif output is None:
            num_fields = sum(1 for _ in fields)
        elif second is None:
            num_fields = _write_folder(fields, durable.Output(Path(output), "folder"))
        else:
            write_flow(output, next(fields)[0])
            num_fields = 1
    if network is not None:
        chosen = network.describe()
    return {
        "output": None if output is None else str(output),
        "occlusion": None if occlusion is None else str(occlusion),
        "kind": kind,
        "engine": engine,
        "backend": chosen,
        "num_fields": num_fields,
        "max_flow": max_flow if kind == "picture" else None,
        "occluded_share": float(np.mean(shares)) if shares else None,
    }


def evaluate(folder: str | Path, *, engine: str = "dis", weights: Path | None = None, sha256: str | None = None) -> dict[str, Any]:
    """Measure an engine against known flow.

    Args:
        folder: holds a folder for each pair (or is itself one) with two pictures, first and second by name, and the flow of the
            first into the second as .flo or .pfm, as the Middlebury set does.
        engine, weights, sha256: as in `estimate`.

    Returns:
        engine, pairs (name -> endpoint_error in pixels, angular_error in degrees, outlier_share (over 3 pixels and 5 %),
        beyond_1px_share, known_share, milliseconds of processor time) and mean (the same, averaged over the pairs).

    Raises:
        InputError: there is no such pair, or a file cannot be read.
        flow.errors.FlowError: the engine or a flow file cannot be used.
    """
    found = _find_pairs(Path(folder))
    compute = create_engine(engine, path=weights, sha256=sha256)
    pairs = {name: measure(compute, *_read_pair(*files)) for name, files in found.items()}
    return {"engine": describe(engine, weights), "pairs": pairs, "mean": mean_scores(list(pairs.values()))}


def read_pairs(folder: Path) -> dict[str, KnownFlow]:
    """The pairs of a folder as `evaluate` finds them, by name.

    Raises:
        InputError, flow.errors.FlowError: as `evaluate`.
    """
    return {name: _read_pair(*files) for name, files in _find_pairs(folder).items()}


def measure(compute: Engine, first: Tensor, second: Tensor, truth: Tensor, known: Tensor) -> dict[str, float]:
    """The scores of one pair; see `evaluate`."""
    began = time.process_time()
    flow = compute(first, second)
    seconds = time.process_time() - began
    return {
        "endpoint_error": float(endpoint_error(flow, truth, known)),
        "angular_error": float(angular_error(flow, truth, known)),
        "outlier_share": float(outlier_share(flow, truth, known)),
        "beyond_1px_share": float(share_beyond(flow, truth, known, pixels=1)),
        "known_share": float(known.float().mean()),
        "milliseconds": 1000 * seconds,
    }


def mean_scores(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each score averaged over the pairs."""
    return {key: float(np.mean([pair[key] for pair in scores])) for key in scores[0]}


def train(
    folder: str | Path,
    *,
    textures: Path | None = None,
    video: str | Path | None = None,
    num_streets: int = 0,
    initial: Path | None = None,
    measure_on: Path | None = None,
    device: str = "cpu",
    **settings: Any,
) -> dict[str, Any]:
    """Train the network of `flow` on synthetic pairs, or fine-tune it on a video; goes on where `folder` stopped.

    Args:
        folder: of the run.
        textures: folder of photographs for the synthetic layers to wear.
        num_streets: so many procedural streets (as frames, label maps and line art) are rendered and mixed in.
        video: frames to fine-tune on, without truth, instead of synthetic pairs. They are all held in memory.
        initial: weights to begin with.
        measure_on: folder as for `evaluate`; its endpoint errors go to the log at every checkpoint.
        device: of torch.
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
    pairs = {} if measure_on is None else read_pairs(measure_on)

    def endpoint_errors(network: Engine) -> dict[str, float]:
        return {f"endpoint_error_{name}": measure(network, *pair)["endpoint_error"] for name, pair in pairs.items()}

    def follow(steps: range) -> Iterator[int]:
        return progress.follow(steps, f"training flow in {display(folder)}", len(steps))

    options: dict[str, Any] = {"evaluate": endpoint_errors, "initial": initial, "device": device, "follow": follow}
    check_folder(Path(folder))
    with durable.held_folder(Path(folder), LOCK):
        weights = _train(folder, config, textures, video, num_streets, options)
    return {"weights": str(weights), "settings": asdict(config)}


def _train(
    folder: str | Path,
    config: TrainConfig,
    textures: Path | None,
    video: str | Path | None,
    num_streets: int,
    options: Mapping[str, Any],
) -> Path:
    if video is None:
        streets = training_streets(num_streets, config.height, config.width)
        made = [pair for street in streets for _, pair in street_pairs(street, _FIRST_STREET_FRAME, _PAIRS_PER_STREET)]
        worn = read_textures(textures) if textures else ()
        return train_supervised(folder, config, textures=worn, known_pairs=made, **options)
    clip = torch.stack([torch.from_numpy(frame.pixels).permute(2, 0, 1) for frame in open_source(video)])
    return fine_tune(folder, config, clip, **options)


def _places(
    output: str | Path | None, occlusion: str | Path | None, kind: Kind | None, engine: str, *, is_pair: bool
) -> tuple[Kind | None, list[durable.Output]]:
    """What to write under `output`, None for nothing, and all places that are written to.

    Raises:
        InputError: nothing is asked for, a name does not fit, or the engine cannot give what is asked for.
    """
    if output is None and occlusion is None:
        raise InputError("nothing is to be written", hint="give -o, --occlusion or both")
    places = []
    if occlusion is not None:
        if engine == "folder":
            raise InputError("--occlusion: needs the flow back too, and a folder holds one direction")
        _choose_kind(occlusion, "picture", is_pair=is_pair)
        places.append(output_place(occlusion, single=is_pair))
    if output is None:
        return None, places
    kind = _choose_kind(output, kind, is_pair=is_pair)
    if kind == "picture":
        places.append(output_place(output, single=is_pair))
    else:
        places.append(durable.Output(Path(output), "file" if is_pair else "folder"))
    return kind, places


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
        raise InputError(f"{display(output)}: the {kind or 'flow'} of {what} is written to {names}")
    return chosen


def _video_pairs(source: FrameSource, into: Into) -> Iterator[_Pair]:
    """Consecutive frames.

    Raises:
        InputError: there is one frame only, or the size changes on the way.
    """
    previous: tuple[Tensor, _Display] | None = None
    index = -1
    for index, frame in enumerate(progress.follow(source, f"estimating flow of {source.name}", source.num_frames)):
        current = to_tensor(frame.pixels)[None], (frame.pts, frame.duration)
        if previous is not None:
            if current[0].shape != previous[0].shape:
                sizes = [f"{images.shape[-1]}x{images.shape[-2]}" for images, _ in (current, previous)]
                raise InputError(f"{source.name}: frame {index} is {sizes[0]}, the frame before it {sizes[1]}; all must be alike")
            here, there = (current, previous) if into == "previous" else (previous, current)
            yield here[0], there[0], here[1]
        previous = current
    if index < 1:
        raise InputError(f"{source.name}: holds one frame; flow needs two", hint="give the second picture too")


def _pair(first: FrameSource, second: FrameSource) -> Iterator[_Pair]:
    for source in (first, second):
        if source.count() != 1:
            raise InputError(f"{source.name}: holds {source.count()} frames; with two inputs each must be one picture")
    one, other = (to_tensor(source.read(0, 1)[0].pixels)[None] for source in (first, second))
    yield one, other, (0, None)


def _fields(
    pairs: Iterable[_Pair], compute: Engine, sink: FrameSink | None, shares: list[float]
) -> Iterator[tuple[Tensor, _Display]]:
    """Flow [2,H,W] of each pair with its display; on the way, occlusion goes to `sink` and its share to `shares`."""
    for here, there, display_of in pairs:
        flow = compute(here, there)
        if sink is not None:
            hidden = forward_backward_occlusion(flow, compute(there, here))[0, 0].numpy()
            shares.append(float(hidden.mean()))
            sink.write(np.repeat(hidden[..., None], 3, axis=2) * np.uint8(255), *display_of)
        yield flow[0], display_of


def _write_pictures(flows: Iterator[tuple[Tensor, _Display]], sink: FrameSink, max_flow: float) -> int:
    for flow, display_of in flows:
        picture = flow_to_picture(flow[None], max_flow=max_flow)[0]
        sink.write(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()), *display_of)
    return sink.num_frames


def _write_folder(flows: Iterator[tuple[Tensor, _Display]], folder: durable.Output) -> int:
    num_fields = 0
    with durable.replacing_output(folder) as temporary:
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
        raise InputError(f"{display(root)}: neither it nor a folder in it holds two pictures and one {' or '.join(_FLOW_SUFFIXES)}")
    return found


def _read_pair(first: Path, second: Path, truth: Path) -> KnownFlow:
    one, other = (to_tensor(images.read_picture(path))[None] for path in (first, second))
    flow, known = (value[None] for value in read_flow(truth))
    for path, image in ((first, one), (second, other)):
        if image.shape[-2:] != flow.shape[-2:]:
            size = f"{image.shape[3]}x{image.shape[2]}"
            raise InputError(f"{display(truth)}: is {flow.shape[3]}x{flow.shape[2]}, but {display(path)} is {size}")
    return one, other, flow, known
