"""Measure a video: is it steady, does it move like its source, how close is it to paired real frames.

One pass over the frames, memory that does not grow with them. The motion of the reference is estimated once and cached by content.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from flow.engines import Dis
from vidgen import durable
from vidgen.errors import ConfigError, InputError, OutputError, PartialFailure, QualityGateError
from vidgen.metrics import quality, temporal
from vidgen.metrics.score import METRICS, Score, metric_of

SCHEMA_VERSION = 1
DEFAULT_CACHE = Path("~/.cache/vidgen/flow")
CACHE_BYTES = 2 << 30
MAX_ASPECT_DIFFERENCE = 0.02
_GATE = re.compile(r"\s*([\w@/]+)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*")
_FRAME_SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr": quality.psnr,
    "ssim": quality.ssim,
    "ssim_luma": lambda first, second: quality.ssim(quality.luma(first), quality.luma(second)),
    "ms_ssim": quality.ms_ssim,
}
_CHANGE_SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tpsnr": quality.psnr,
    "tssim": lambda first, second: quality.ssim(quality.luma(first), quality.luma(second)),
}

Where = str | Path | Iterable[Any]
"""A file, folder or pattern; or frames themselves: uint8 [H,W,3] RGB, or objects that hold such in `pixels`."""


@dataclass(frozen=True)
class Gate:
    """A condition that fails the evaluation where it holds, such as `warp_error@1>0.02`."""

    key: str
    comparison: str
    limit: float

    @staticmethod
    def parse(text: str) -> Gate:
        match = _GATE.fullmatch(text)
        if not match:
            raise ConfigError(
                f"--fail-if {text!r}: expected KEY, one of < <= > >=, and a number", hint="--fail-if 'warp_error@1>0.02'"
            )
        key, comparison, limit = match.groups()
        if key.partition("@")[0].partition("/")[0] not in METRICS:
            raise ConfigError(f"--fail-if {text!r}: no metric is called {key!r}", hint="vidgen eval --list-metrics")
        try:
            return Gate(key, comparison, float(limit))
        except ValueError:
            raise ConfigError(f"--fail-if {text!r}: {limit!r} is not a number") from None

    def fault(self, scores: Mapping[str, Score]) -> str | None:
        """What is wrong, or None; a missing value is a fault, since nobody knows that it would have passed."""
        key = self.key if self.key in scores else f"{self.key}@1"
        if key not in scores:
            return f"{self.key} was not measured"
        value = scores[key].value
        if value is None:
            return f"{key} has no value: {scores[key].reason}"
        failed = {"<": value < self.limit, "<=": value <= self.limit, ">": value > self.limit, ">=": value >= self.limit}
        return f"{key} is {value:.6g}, and {self.comparison} {self.limit:g} fails" if failed[self.comparison] else None


@dataclass(frozen=True)
class Scores:
    """The report on one video.

    Attributes:
        scores: by key; see `vidgen.metrics.score.METRICS` for units and meaning.
        reasons: why the video should not be ranked; empty where it may.
        cuts: frames at which the reference changes scene.
        provenance: everything the numbers depend on.
        columns: per-frame values behind the scores.
        gates: the conditions `check` enforces.
    """

    scores: dict[str, Score]
    reasons: list[str]
    cuts: list[int]
    provenance: dict[str, Any]
    columns: temporal.Columns = field(repr=False)
    gates: tuple[Gate, ...] = ()

    def __getitem__(self, key: str) -> float | None:
        return self.scores[key].value

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values; keys stay what they are within a `schema_version`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "metrics": {key: _score_to_dict(key, score) for key, score in self.scores.items()},
            "verdict": {"rankable": not self.reasons, "reasons": self.reasons},
            "cuts": self.cuts,
            "provenance": self.provenance,
        }

    def table(self) -> str:
        """The report as text for people: one metric a line, then the verdict."""
        rows = [
            (key, _shown(score), metric_of(key).better, metric_of(key).unit, score.reason or "")
            for key, score in self.scores.items()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4])).rstrip() for row in rows
        ]
        return "\n".join(lines + [f"not rankable: {reason}" for reason in self.reasons])

    def csv_row(self) -> dict[str, Any]:
        return {"output": self.provenance["output"]} | {key: score.value for key, score in self.scores.items()}

    def check(self, *, strict: bool = False) -> None:
        """Enforce the gates.

        Raises:
            QualityGateError: a condition of `--fail-if` holds, or its metric has no value.
            PartialFailure: `strict`, and some metric has no value.
        """
        faults = [fault for gate in self.gates if (fault := gate.fault(self.scores))]
        if faults:
            raise QualityGateError("; ".join(faults))
        missing = [f"{key} ({score.reason})" for key, score in self.scores.items() if score.value is None]
        if strict and missing:
            raise PartialFailure("no value for " + ", ".join(missing))


def _score_to_dict(key: str, score: Score) -> dict[str, Any]:
    metric = metric_of(key)
    result = {"value": score.value, "unit": metric.unit, "better": metric.better, "n": score.count, "skipped": score.skipped}
    return result if score.reason is None else result | {"reason": score.reason}


def _shown(score: Score) -> str:
    return "-" if score.value is None else f"{score.value:.6g}"


def evaluate(
    output: Where,
    *,
    source: Where | None = None,
    target: Where | None = None,
    metrics: str = "default",
    flow: str = "dis",
    flow_from: str = "auto",
    eval_height: int | None = 288,
    strides: Sequence[int] = (1, 3, 9),
    fast: bool = False,
    allow_trim: bool = False,
    cache: Path | None = DEFAULT_CACHE,
    per_frame: Path | None = None,
    fail_if: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Measure `output`.

    Args:
        output: the video under test.
        source: what it was made from.
        target: paired real frames, where there are any.
        metrics: "default", "all" (also the slow ones), or keys separated by commas.
        flow: engine that estimates motion.
        flow_from: whose motion is followed: "source", "target", or "auto" (the target where given: label maps have no texture).
        eval_height: everything is reduced to this height first (area averages; never enlarged); None keeps the size.
        strides: distances in frames at which steadiness is measured.
        fast: stride 1 only.
        allow_trim: stop with the shortest input instead of refusing inputs of different lengths.
        cache: folder for flow of the reference, or None.
        per_frame: CSV file for the values of every frame.
        fail_if: conditions for `Scores.check`.
        progress: called with the number of frames done.

    Raises:
        InputError: inputs cannot be read, or differ in length or shape.
        ConfigError: an option is wrong.
    """
    gates = tuple(Gate.parse(text) for text in fail_if)
    reference = _choose_reference(flow_from, source is not None, target is not None)
    strides = (1,) if fast else tuple(sorted(set(strides)))
    chosen = _choose_metrics(metrics, source is not None, target is not None)
    engine = Dis()
    meter = temporal.TemporalMeter(
        strides,
        engine,
        motion_of=_FlowCache(engine, flow, cache),
        flow_from=reference if any(_needs_flow(name) for name in chosen) else None,
        with_farneback="tof_farneback" in chosen,
    )
    inputs = {name: where for name, where in (("output", output), ("source", source), ("target", target)) if where is not None}
    rows, before, size = [], None, (0, 0)
    for now in _moments(inputs, eval_height, allow_trim):
        rows.append(meter.add(now) | _paired_row(before, now, chosen))
        before, size = now, (now.output.shape[-2], now.output.shape[-1])
        if progress:
            progress(len(rows))
    columns = temporal.columns_of(rows)
    cuts = temporal.find_cuts(columns)
    scores = _all_scores(temporal.without_cuts(columns, cuts), cuts, strides, size)
    scores = {key: score for key, score in scores.items() if key.partition("@")[0] in chosen}
    provenance = _provenance(inputs, engine=flow, flow_from=reference, size=size, strides=strides, num_frames=len(rows))
    result = Scores(scores, temporal.judge(scores), cuts, provenance, columns, gates)
    if per_frame is not None:
        durable.write_text(per_frame, _csv(columns))
    return result


def _choose_reference(flow_from: str, has_source: bool, has_target: bool) -> str | None:
    given = {"source": has_source, "target": has_target}
    if flow_from == "auto":
        return "target" if has_target else "source" if has_source else None
    if flow_from not in given:
        raise ConfigError(f"flow_from: expected auto, source or target, got {flow_from!r}")
    if not given[flow_from]:
        raise ConfigError(f"flow_from {flow_from}: no --{flow_from} was given")
    return flow_from


def _needs_flow(name: str) -> bool:
    return METRICS[name].needs in ("reference", "source", "target") and name not in (*_FRAME_SCORES, *_CHANGE_SCORES)


def _choose_metrics(text: str, has_source: bool, has_target: bool) -> set[str]:
    given = {"": True, "source": has_source, "target": has_target, "reference": has_source or has_target}
    possible = {name for name, metric in METRICS.items() if given.get(metric.needs, False)}
    if text == "all":
        return possible
    if text == "default":
        return possible - {"tof_farneback"}
    chosen = {name.strip().partition("@")[0] for name in text.split(",") if name.strip()}
    for name in sorted(chosen):
        if name not in METRICS:
            raise ConfigError(f"--metrics: no metric is called {name!r}", hint="vidgen eval --list-metrics")
        if name not in possible:
            raise ConfigError(f"--metrics {name}: needs a {METRICS[name].needs}, which is not given")
    return chosen


def _paired_row(before: temporal.Frames | None, now: temporal.Frames, chosen: set[str]) -> dict[str, float]:
    if now.target is None:
        return {}
    target = now.target
    row = {name: score(now.output, target).item() for name, score in _FRAME_SCORES.items() if name in chosen}
    if before is not None and before.target is not None:
        changes = now.output - before.output, target - before.target
        row |= {name: score(*changes).item() for name, score in _CHANGE_SCORES.items() if name in chosen}
    return row


def _all_scores(columns: temporal.Columns, cuts: list[int], strides: Sequence[int], size: tuple[int, int]) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    for name in (*_FRAME_SCORES, *_CHANGE_SCORES):
        if name in columns:
            side = quality.MS_SSIM_MIN_SIDE if name == "ms_ssim" else quality.SSIM_WINDOW
            reason = f"frames of {size[1]}x{size[0]} are too small: the shorter side must have at least {side} pixels"
            scores[name] = temporal.mean_score(columns, name, reason, span=int(name in _CHANGE_SCORES))
    scores |= temporal.summarise(columns, strides)
    if "coverage@1" in scores:
        scores["cuts"] = Score(float(len(cuts)), len(columns["sharpness"]))
    return scores


def _moments(inputs: Mapping[str, Where], eval_height: int | None, allow_trim: bool) -> Iterator[temporal.Frames]:
    """The inputs side by side, frame by frame, on one canvas."""
    streams = {name: _pixels(where) for name, where in inputs.items()}
    size: tuple[int, int] | None = None
    for index in range(1 << 62):
        pixels = {name: next(stream, None) for name, stream in streams.items()}
        ended = [name for name, frame in pixels.items() if frame is None]
        if ended:
            if index == 0:
                raise InputError(f"{_named(inputs[ended[0]])}: holds no frames")
            if len(ended) < len(streams) and not allow_trim:
                longer = next(name for name in streams if name not in ended)
                raise InputError(
                    f"{_named(inputs[ended[0]])} ends after {index} frames, but {_named(inputs[longer])} goes on",
                    hint="add --allow-trim to measure the common part",
                )
            return
        frames = {name: frame for name, frame in pixels.items() if frame is not None}
        if size is None:
            size = canvas_size({name: frame.shape[:2] for name, frame in frames.items()}, eval_height)
        yield temporal.Frames(**{name: _on_canvas(frame, size) for name, frame in frames.items()})


def _pixels(where: Where) -> Iterator[np.ndarray]:
    """uint8 [H,W,3] frames."""
    if isinstance(where, str | Path):
        from vidgen.media.frames import open_source

        frames = open_source(where)
    else:
        frames = where
    for frame in frames:
        pixels = np.asarray(getattr(frame, "pixels", frame))
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise InputError(f"{_named(where)}: expected frames of uint8 [H,W,3], got {pixels.dtype} {pixels.shape}")
        yield pixels


def _named(where: Where) -> str:
    return str(where) if isinstance(where, str | Path) else f"the {type(where).__name__} of frames"


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
    if smallest == height:
        return height, width
    smallest = max(smallest // 2 * 2, 2)
    return smallest, max(round(width * smallest / height / 2) * 2, 2)


def _on_canvas(pixels: np.ndarray, size: tuple[int, int]) -> Tensor:
    """[1,3,H,W] in 0..1, reduced by area averages."""
    frame: np.ndarray = pixels.astype(np.float32) / 255
    if frame.shape[:2] != size:
        frame = cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None]


class _FlowCache:
    """Motion of reference frames, kept in files named by what it depends on: both frames, engine and version of the format.

    Flow is rounded to half precision whether it was cached or not, so that a cache never changes a score.
    """

    def __init__(self, engine: temporal.FlowEstimator, name: str, folder: Path | None) -> None:
        self._engine, self._name = engine, name
        self._folder = folder.expanduser() if folder is not None else None

    def __call__(self, first: Tensor, second: Tensor) -> temporal.Motion:
        path = self._path(first, second)
        motion = _read_motion(path, first.shape[-2:]) if path else None
        if motion is None:
            motion = temporal.reference_motion(first, second, self._engine)
            motion = temporal.Motion(motion.flow.half().float(), motion.mask)
            if path:
                self._write(path, motion)
        return motion

    def _path(self, first: Tensor, second: Tensor) -> Path | None:
        if self._folder is None:
            return None
        digest = hashlib.sha256(f"motion 1 {self._name} cv2 {cv2.__version__} {tuple(first.shape)}".encode())
        for frame in (first, second):
            digest.update(frame.numpy().tobytes())
        return self._folder / f"{digest.hexdigest()[:32]}.npz"

    def _write(self, path: Path, motion: temporal.Motion) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, flow=motion.flow.half().numpy(), mask=np.packbits(motion.mask.numpy()))
        try:
            durable.write_bytes(path, buffer.getvalue())
        except OutputError:
            self._folder = None  # a cache that cannot be written is no reason to stop


def _read_motion(path: Path, size: Sequence[int]) -> temporal.Motion | None:
    """A cached motion, or None where there is none or it is damaged."""
    height, width = size
    try:
        with np.load(path) as file:
            flow = torch.from_numpy(file["flow"]).float().view(1, 2, height, width)
            mask = np.unpackbits(file["mask"], count=height * width).reshape(1, 1, height, width)
        return temporal.Motion(flow, torch.from_numpy(mask.astype(bool)))
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile):
        return None


def _provenance(inputs: Mapping[str, Where], *, engine: str, **settings: Any) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("vidgen", "torch", "numpy")} | {"cv2": cv2.__version__}
    return {**{name: _named(where) for name, where in inputs.items()}, "flow": engine, **settings, "versions": versions}


def _csv(columns: temporal.Columns) -> str:
    """One line per frame; empty where a frame has no such value."""
    names = sorted(columns)
    lines = [["frame", *names]]
    for index, values in enumerate(zip(*(columns[name] for name in names), strict=True)):
        lines.append([str(index), *("" if np.isnan(value) else repr(float(value)) for value in values)])
    return "".join(",".join(line) + "\n" for line in lines)
