"""Measure a video: is it steady, does it move like its source, how close is it to paired real frames or to a set of real ones.

One pass over the frames, in memory that does not grow with them. The motion of the reference is estimated once and cached by the
content of the frames it belongs to.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

import vidgen
from flow.engines import Dis, create_engine
from vidgen import durable
from vidgen.errors import ConfigError, InputError, OutputError
from vidgen.media.frames import PictureSource, VideoSource, list_sources, open_source
from vidgen.metrics import quality, temporal
from vidgen.metrics.distribution import LookSample
from vidgen.metrics.report import Gate, Scores, compare_scores, enforce, frames_csv, scores_csv, table
from vidgen.metrics.score import METRICS, Score, base_of

__all__ = ["Scores", "enforce", "evaluate", "list_metrics", "run", "table"]

log = logging.getLogger(__name__)

DEFAULT_CACHE = Path("~/.cache/vidgen/flow")
CACHE_BYTES = 2 << 30
MIN_EVAL_HEIGHT = 16
MAX_ASPECT_DIFFERENCE = 0.02
MAX_FRAME_RATE_DIFFERENCE = 0.01
LOG_EVERY_FRAMES = 50
SLOW_METRICS = {"tof_farneback"}

Where = str | Path | Iterable[Any]
"""A file, folder or pattern; or frames themselves: uint8 [H,W,3] RGB, or objects that hold such in `pixels`."""


def _luma_ssim(first: Tensor, second: Tensor) -> Tensor:
    return quality.ssim(quality.luma(first), quality.luma(second))


_FRAME_SCORES = {"psnr": quality.psnr, "ssim": quality.ssim, "ssim_luma": _luma_ssim, "ms_ssim": quality.ms_ssim}
_CHANGE_SCORES = {"tpsnr": quality.psnr, "tssim": _luma_ssim}
_SET_SCORES = ("swd", "swd_t", "niqe_ref", "colour_distance")


def list_metrics() -> dict[str, Any]:
    """Every metric: what it is, in which unit, which way is better, and what must be given for it."""
    return {
        name: {"about": metric.about, "unit": metric.unit, "better": metric.better, "needs": metric.needs or "nothing else"}
        for name, metric in METRICS.items()
    }


def run(
    output: str,
    *,
    compare: Sequence[str] = (),
    strides: str | Sequence[int] = (1, 3, 9),
    cache: Path | None = DEFAULT_CACHE,
    no_cache: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """What the command line calls: `evaluate` with `compare` as NAME=PATH, `strides` as "1,3,9"; gives `Scores.to_dict`.

    Raises:
        ConfigError: one of these is not written so.
    """
    others = {}
    for text in compare:
        name, sign, path = text.partition("=")
        if not (name and sign and path) or name in others:
            raise ConfigError(f"--compare {text!r}: expected NAME=PATH, each NAME once")
        others[name] = path
    if isinstance(strides, str):
        if not re.fullmatch(r"\d+(,\d+)*", strides):
            raise ConfigError(f"--strides {strides!r}: expected whole numbers separated by commas, such as 1,3,9")
        strides = [int(part) for part in strides.split(",")]
    return evaluate(output, compare=others, strides=strides, cache=None if no_cache else cache, **options).to_dict()


def evaluate(
    output: Where,
    *,
    source: Where | None = None,
    target: Where | None = None,
    reference_set: str | Path | None = None,
    metrics: str = "default",
    flow: str = "dis",
    flow_weights: Path | None = None,
    flow_from: str = "auto",
    eval_height: int | None = 288,
    strides: Sequence[int] = (1, 3, 9),
    fast: bool = False,
    allow_trim: bool = False,
    cache: Path | None = DEFAULT_CACHE,
    csv: Path | None = None,
    per_frame: Path | None = None,
    compare: Mapping[str, Where] | None = None,
    fail_if: Sequence[str] = (),
) -> Scores:
    """Measure `output`.

    Args:
        output: the video under test.
        source: what it was made from.
        target: paired real frames, where there are any.
        reference_set: real frames that are not paired: a folder of pictures, or of videos.
        metrics: "default", "all" (also the slow ones), or names separated by commas.
        flow: engine that estimates motion, one of `flow.engines.ENGINES`.
        flow_weights: its weights file, where it needs one.
        flow_from: whose motion is followed: "source", "target", or "auto" (the target where given: label maps have no texture).
        eval_height: everything is reduced to this height first (area averages; never enlarged); None keeps the size.
        strides: distances in frames at which steadiness is measured; 1 is always among them.
        fast: coarser flow, and stride 1 only.
        allow_trim: stop with the shortest input instead of refusing inputs of different lengths.
        cache: folder for the motion of the reference, or None.
        csv: file for one line of scores, and one for each of `compare`.
        per_frame: CSV file for the values of every frame.
        compare: other videos, by name, to be measured in the same way and compared.
        fail_if: conditions that `enforce` fails for, such as "warp_error@1>0.02".

    Raises:
        InputError: inputs cannot be read, or differ in length, shape or frame rate.
        ConfigError: an option is wrong.
        flow.errors.FlowError: the engine cannot be used.
    """
    if eval_height is not None and eval_height < MIN_EVAL_HEIGHT:
        raise ConfigError(f"--eval-height {eval_height}: expected at least {MIN_EVAL_HEIGHT}")
    gates = [Gate.parse(text) for text in fail_if]
    inputs = {"source": source, "target": target, "reference set": reference_set}
    given = {name for name, where in inputs.items() if where is not None}
    setting = _Setting(
        chosen=_choose_metrics(metrics, given),
        strides=_checked_strides((1,) if fast else strides),
        engine=_Engine.create(flow, flow_weights, fast=fast),
        flow_from=_choose_reference(flow_from, given),
        eval_height=eval_height,
        allow_trim=allow_trim,
        cache=cache,
    )
    paired = {name: where for name, where in (("source", source), ("target", target)) if where is not None}
    report = _measure({"output": output, **paired}, reference_set, setting)
    others = {name: _measure({"output": other, **paired}, reference_set, setting) for name, other in (compare or {}).items()}
    report = replace(
        report,
        faults=[fault for gate in gates if (fault := gate.fault(report.scores))],
        comparisons={
            name: compare_scores(report, other, partial(column_scores, strides=setting.strides)) for name, other in others.items()
        },
    )
    if per_frame is not None:
        durable.write_text(per_frame, frames_csv(report.columns))
    if csv is not None:
        durable.write_text(csv, scores_csv({_named(output): report, **others}))
    return report


@dataclass(frozen=True)
class _Setting:
    """How videos are measured, the same for all that are compared."""

    chosen: set[str]
    strides: tuple[int, ...]
    engine: _Engine
    flow_from: str | None
    eval_height: int | None
    allow_trim: bool
    cache: Path | None

    @property
    def needs_flow(self) -> bool:
        """Whether a chosen metric follows the motion of the reference."""
        without = {*_FRAME_SCORES, *_CHANGE_SCORES}
        return any(METRICS[name].needs in ("reference", "source", "target") for name in self.chosen - without)


@dataclass(frozen=True)
class _Engine:
    """An estimator of flow and the words that identify it."""

    name: str
    estimate: temporal.FlowEstimator

    @staticmethod
    def create(name: str, weights: Path | None, *, fast: bool) -> _Engine:
        if name == "folder":
            raise ConfigError("--flow folder: measuring needs flow both ways and at every stride, and a folder holds one of them")
        if fast and name == "dis":
            return _Engine("dis (medium preset)", Dis(finest_scale=None, num_variational_iterations=None))
        estimate = create_engine(name, path=weights)
        if weights is not None:
            name = f"{name} (weights {hashlib.sha256(weights.read_bytes()).hexdigest()[:16]})"
        return _Engine(f"{name}, cv2 {cv2.__version__}, torch {torch.__version__}", estimate)


def _choose_reference(flow_from: str, given: set[str]) -> str | None:
    if flow_from == "auto":
        return "target" if "target" in given else "source" if "source" in given else None
    if flow_from not in ("source", "target"):
        raise ConfigError(f"--flow-from: expected auto, source or target, got {flow_from!r}")
    if flow_from not in given:
        raise ConfigError(f"--flow-from {flow_from}: no --{flow_from} is given")
    return flow_from


def _choose_metrics(text: str, given: set[str]) -> set[str]:
    met = given | {""} | ({"reference"} if given & {"source", "target"} else set())
    possible = {name for name, metric in METRICS.items() if metric.needs in met}
    if text in ("default", "all"):
        return possible if text == "all" else possible - SLOW_METRICS
    chosen = {base_of(name.strip()) for name in text.split(",") if name.strip()}
    if not chosen:
        raise ConfigError(f"--metrics {text!r}: names no metric", hint="vidgen evaluate --list-metrics")
    for name in sorted(chosen):
        if name not in METRICS:
            raise ConfigError(f"--metrics: no metric is called {name!r}", hint="vidgen evaluate --list-metrics")
        if name not in possible:
            wanted = {"reference": "--source or --target", "reference set": "--reference-set"}.get(METRICS[name].needs)
            raise ConfigError(f"--metrics {name}: needs {wanted or f'--{METRICS[name].needs}'}, which is not given")
    return chosen


def _checked_strides(strides: Sequence[int]) -> tuple[int, ...]:
    if not strides or min(strides) < 1:
        raise ConfigError(f"--strides: expected numbers of at least 1, got {tuple(strides)}")
    even = [stride for stride in strides if stride % 2 == 0]
    if even:
        log.warning("even strides are blind to flicker of period two: %s", even)
    return tuple(sorted({1, *strides}))


def _measure(inputs: Mapping[str, Where], reference_set: str | Path | None, setting: _Setting) -> Scores:
    """The report on `inputs["output"]`, without comparisons."""
    meter = temporal.TemporalMeter(
        setting.strides,
        setting.engine.estimate,
        motion_of=_MotionCache(setting.engine, setting.cache),
        flow_from=setting.flow_from if setting.needs_flow else None,
        farneback=create_engine("farneback") if "tof_farneback" in setting.chosen else None,
    )
    wants_set = bool(setting.chosen & set(_SET_SCORES))
    reference = _look_of(reference_set, setting.eval_height) if reference_set is not None and wants_set else None
    sample = LookSample(reference.height) if reference is not None else None
    rows: list[dict[str, float]] = []
    before, size = None, (0, 0)
    streams = {name: _opened(where) for name, where in inputs.items()}
    for now in _moments(streams, setting.eval_height, setting.allow_trim):
        rows.append(meter.add(now) | _paired_row(before, now, setting.chosen))
        if sample is not None:
            sample.add(now.output)
        before, size = now, (now.output.shape[-2], now.output.shape[-1])
        if len(rows) % LOG_EVERY_FRAMES == 0:
            log.info("measured %d frames", len(rows))
    columns = temporal.columns_of(rows)
    cuts = temporal.find_cuts(columns)
    columns = temporal.without_cuts(columns, cuts)
    scores = column_scores(columns, setting.strides)
    if setting.flow_from is not None and setting.needs_flow:
        scores["cuts"] = Score(float(len(cuts)), len(rows))
    if sample is not None and reference is not None:
        scores |= sample.scores(reference)
    provenance = {
        **{name: _named(where) for name, where in inputs.items()},
        "reference_set": None if reference_set is None else str(reference_set),
        "flow": setting.engine.name,
        "flow_from": setting.flow_from,
        "size": list(size),
        "strides": list(setting.strides),
        "num_frames": len(rows),
        "frame_rate": _frame_rate(streams["output"]),
        "versions": {module.__name__: module.__version__ for module in (vidgen, torch, np, cv2)},
    }
    reasons = temporal.judge(scores)
    kept = {key: scores[key] for name in METRICS if name in setting.chosen for key in scores if base_of(key) == name}
    return Scores(kept, reasons, cuts, provenance, columns)


def _paired_row(before: temporal.Frames | None, now: temporal.Frames, chosen: set[str]) -> dict[str, float]:
    """Fidelity to the target of a frame, and of its change since the one before."""
    if now.target is None:
        return {}
    target = now.target
    row = {name: score(now.output, target).item() for name, score in _FRAME_SCORES.items() if name in chosen}
    row |= {name: math.nan for name in _CHANGE_SCORES if name in chosen}
    if before is not None and before.target is not None:
        changes = now.output - before.output, target - before.target
        row |= {name: score(*changes).item() for name, score in _CHANGE_SCORES.items() if name in chosen}
    return row


def column_scores(columns: temporal.Columns, strides: Sequence[int]) -> dict[str, Score]:
    """Every score that follows from per-frame values."""
    scores: dict[str, Score] = {}
    for name in (*_FRAME_SCORES, *_CHANGE_SCORES):
        if name in columns:
            side = quality.MS_SSIM_MIN_SIDE if name == "ms_ssim" else quality.SSIM_WINDOW
            reason = f"needs frames of at least {side} pixels on the shorter side"
            if name in _CHANGE_SCORES and len(columns[name]) < 2:
                reason = "needs at least 2 frames, got 1"
            scores[name] = temporal.mean_score(columns, name, reason, span=int(name in _CHANGE_SCORES))
    return scores | temporal.summarise(columns, strides)


# --- reading --------------------------------------------------------------------------------------------------------------


def _opened(where: Where) -> Iterable[Any]:
    return open_source(where) if isinstance(where, str | Path) else where


def _named(where: Where) -> str:
    return str(where) if isinstance(where, str | Path) else getattr(where, "name", f"{type(where).__name__} of frames")


def _frame_rate(stream: Iterable[Any]) -> float | None:
    """Frames per second of a video; folders of pictures state none."""
    return float(stream.frame_rate) if isinstance(stream, VideoSource) else None


def _check_frame_rates(streams: Mapping[str, Iterable[Any]]) -> None:
    rates = {name: rate for name, stream in streams.items() if (rate := _frame_rate(stream)) is not None}
    for name, rate in rates.items():
        if abs(rate / next(iter(rates.values())) - 1) > MAX_FRAME_RATE_DIFFERENCE:
            listed = ", ".join(f"the {other} has {value:.5g}" for other, value in rates.items())
            raise InputError(
                f"frame rates differ: {listed} frames per second", hint=f"convert the {name} first; repeated frames look steady"
            )


def _moments(streams: Mapping[str, Iterable[Any]], eval_height: int | None, allow_trim: bool) -> Iterator[temporal.Frames]:
    """The inputs side by side, frame by frame, on one canvas."""
    _check_frame_rates(streams)
    frames = {name: _pixels(stream) for name, stream in streams.items()}
    size: tuple[int, int] | None = None
    index = 0
    while True:
        pixels = {name: frame for name, stream in frames.items() if (frame := next(stream, None)) is not None}
        ended = [name for name in streams if name not in pixels]
        if ended:
            _check_ends(streams, ended, index, allow_trim)
            return
        if size is None:
            size = canvas_size({name: frame.shape[:2] for name, frame in pixels.items()}, eval_height)
        yield temporal.Frames(**{name: _on_canvas(frame, size) for name, frame in pixels.items()})
        index += 1


def _check_ends(streams: Mapping[str, Iterable[Any]], ended: Sequence[str], index: int, allow_trim: bool) -> None:
    if index == 0:
        raise InputError(f"{_named(streams[ended[0]])}: holds no frames")
    if len(ended) < len(streams) and not allow_trim:
        longer = next(name for name in streams if name not in ended)
        raise InputError(
            f"{_named(streams[ended[0]])} (the {ended[0]}) ends after {index} frames, but {_named(streams[longer])} does not",
            hint="--allow-trim measures the common part",
        )


def _pixels(stream: Iterable[Any]) -> Iterator[np.ndarray]:
    """uint8 [H,W,3] frames."""
    for frame in stream:
        pixels = np.asarray(getattr(frame, "pixels", frame))
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise InputError(f"{_named(stream)}: expected frames of uint8 [H,W,3], got {pixels.dtype} {list(pixels.shape)}")
        yield pixels


def canvas_size(sizes: Mapping[str, tuple[int, ...]], eval_height: int | None) -> tuple[int, int]:
    """(height, width) on which everything is measured: no higher than any input nor `eval_height`, shaped as the output.

    Raises:
        InputError: the inputs differ in shape by more than two percent.
    """
    height, width = sizes["output"]
    for name, (other_height, other_width) in sizes.items():
        if abs(other_width * height / (other_height * width) - 1) > MAX_ASPECT_DIFFERENCE:
            raise InputError(f"the output is {width}x{height}, but the {name} {other_width}x{other_height}: they differ in shape")
    smallest = min(height, eval_height or height, *(other[0] for other in sizes.values()))
    return quality.shrunk_size((height, width), smallest)


def _on_canvas(pixels: np.ndarray, size: tuple[int, int] | None) -> Tensor:
    """[1,3,H,W] in 0..1, at `size` = (height, width) where one is given."""
    frame = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float() / 255
    return frame if size is None else quality.shrink(frame, *size)


def _look_of(where: str | Path, eval_height: int | None) -> LookSample:
    """The look of all pictures, videos and folders of frames at `where`."""
    clips = [open_source(clip) for clip in list_sources(where)]
    is_stills = len(clips) == 1 and isinstance(clips[0], PictureSource) and Path(where).is_dir()
    if is_stills and isinstance(clips[0], PictureSource):
        clips = [open_source(file) for file in clips[0].files]
    smallest = min(clip.size[0] for clip in clips)
    sample = LookSample(min(smallest, eval_height or smallest), is_stills)
    for clip in clips:
        sample.start_clip()
        for pixels in _pixels(clip):
            sample.add(_on_canvas(pixels, None))
    return sample


# --- motion, cached -------------------------------------------------------------------------------------------------------


class _MotionCache:
    """Motion of reference frames, kept in files named by what it depends on: both frames, the engine and the format.

    Flow is rounded to half precision whether it was cached or not, so that a cache never changes a score.
    """

    def __init__(self, engine: _Engine, folder: Path | None) -> None:
        self._engine, self._folder = engine, folder.expanduser() if folder is not None else None
        self._num_bytes = _folder_bytes(self._folder) if self._folder else 0

    def __call__(self, first: Tensor, second: Tensor) -> temporal.Motion:
        path = self._path(first, second)
        motion = _read_motion(path, first.shape[-2:]) if path else None
        if motion is None:
            motion = temporal.reference_motion(first, second, self._engine.estimate)
            motion = temporal.Motion(motion.flow.half().float(), motion.mask)
            if path:
                self._write(path, motion)
        return motion

    def _path(self, first: Tensor, second: Tensor) -> Path | None:
        if self._folder is None:
            return None
        digest = hashlib.sha256(f"motion 1, {self._engine.name}, {tuple(first.shape)}".encode())
        for frame in (first, second):
            digest.update(frame.numpy().tobytes())
        return self._folder / f"{digest.hexdigest()[:32]}.npz"

    def _write(self, path: Path, motion: temporal.Motion) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, flow=motion.flow.half().numpy(), mask=np.packbits(motion.mask.numpy()))
        try:
            if self._num_bytes + buffer.tell() > CACHE_BYTES:
                self._num_bytes = _remove_oldest(path.parent, CACHE_BYTES // 2)
            durable.write_bytes(path, buffer.getvalue())
            self._num_bytes += buffer.tell()
        except (OutputError, OSError) as error:
            log.warning("motion is not cached any more: %s", error)
            self._folder = None


def _read_motion(path: Path, size: Sequence[int]) -> temporal.Motion | None:
    """A cached motion, or None where there is none or it is damaged."""
    height, width = size
    try:
        with np.load(path) as file:
            flow = torch.from_numpy(file["flow"]).float().view(1, 2, height, width)
            mask = np.unpackbits(file["mask"], count=height * width).reshape(1, 1, height, width).astype(bool)
        return temporal.Motion(flow, torch.from_numpy(mask))
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.npz"))


def _remove_oldest(folder: Path, num_bytes: int) -> int:
    """Remove files, the ones written longest ago first, until no more than `num_bytes` are left; how many are."""
    left = _folder_bytes(folder)
    for path in sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime):
        if left <= num_bytes:
            break
        left -= path.stat().st_size
        path.unlink(missing_ok=True)
    return left
