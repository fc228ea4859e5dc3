"""Measure a video: is it steady, does it move like its source, how close is it to paired real frames or to a set of real ones.

One pass over the frames, in memory that does not grow with them. The motion of the reference is estimated once and cached by the
content of the frames it belongs to.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

import vidgen
from flow.engines import create_engine
from vidgen import durable
from vidgen.errors import ConfigError, InputError
from vidgen.media import labels as label_tables
from vidgen.media.frames import FOLDER_FRAME_RATE, Frame, PictureSource, VideoSource, list_sources, open_source
from vidgen.media.labels import LabelTable
from vidgen.metrics import quality, temporal
from vidgen.metrics.distribution import LookSample
from vidgen.metrics.learned import JudgeMeter, SetMeter, judge_scores
from vidgen.metrics.motion import Engine, MotionCache
from vidgen.metrics.programs import load_program
from vidgen.metrics.report import Gate, Scores, compare_scores, enforce, frames_csv, rank, scores_csv, table
from vidgen.metrics.schema import json_schema
from vidgen.metrics.score import METRICS, Score, base_of
from vidgen.metrics.segmentation import Agreement, InputRange, Segmenter, accuracy
from vidgen.metrics.weights import GivenWeights, Judges, build_judges, needed
from vidgen.weights.state_dicts import read_state_dict

__all__ = ["Scores", "enforce", "evaluate", "json_schema", "list_metrics", "run", "table"]

log = logging.getLogger(__name__)

DEFAULT_CACHE = Path("~/.cache/vidgen/flow")
MIN_EVAL_HEIGHT = 16
MAX_ASPECT_DIFFERENCE = 0.02
MAX_FRAME_RATE_DIFFERENCE = 0.01
LOG_EVERY_FRAMES = 50
SLOW_METRICS = {"tof_farneback"}
SMALL_WEIGHTS = {"lpips-heads", "dists-weights"}
IGNORED_ID = 255
MAX_FRAME_RATE = 1000

Where = str | Path | Iterable[Any]
"""A file, folder or pattern; or frames themselves: uint8 [H,W,3] RGB, or objects that hold such in `pixels`."""


def _luma_ssim(first: Tensor, second: Tensor) -> Tensor:
    return quality.ssim(quality.luma(first), quality.luma(second))


_FRAME_SCORES = {"psnr": quality.psnr, "ssim": quality.ssim, "ssim_luma": _luma_ssim, "ms_ssim": quality.ms_ssim}
_CHANGE_SCORES = {"tpsnr": quality.psnr, "tssim": _luma_ssim}
_SET_SCORES = ("swd", "swd_t", "niqe_ref", "colour_distance")
_LABEL_SCORES = ("pixel_acc", "miou", "pixel_acc_target", "miou_target")


def list_metrics() -> dict[str, Any]:
    """Every metric: what it is, in which unit, which way is better, and what must be given for it."""

    def needs(needed: str, weights: str) -> str:
        return " and ".join(part for part in (needed, weights and f"--weights {weights}") if part) or "nothing else"

    return {
        name: {"about": metric.about, "unit": metric.unit, "better": metric.better, "needs": needs(metric.needs, metric.weights)}
        for name, metric in METRICS.items()
    }


def run(
    output: str,
    *,
    compare: Sequence[str] = (),
    strides: str | Sequence[int] = (1, 3, 9),
    cache: Path | None = None,
    no_cache: bool = False,
    fps: str | None = None,
    segmenter_classes: str | None = None,
    weights: Sequence[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """What the command line calls: `evaluate` with its options as text, such as `strides` "1,3,9"; gives `Scores.to_dict`.

    Args:
        compare: NAME=PATH each.
        fps: a number, or a fraction such as 30000/1001.
        segmenter_classes: "7,8,11".
        weights: NAME=FILE or NAME=FILE#SHA256 each.

    Raises:
        ConfigError: one of these is not written so.
    """
    others = {}
    for text in compare:
        name, sign, path = text.partition("=")
        if not (name and sign and path) or name in others:
            raise ConfigError(f"--compare {text!r}: expected NAME=PATH, each NAME once")
        others[name] = path
    return evaluate(
        output,
        compare=others,
        strides=_numbers("--strides", strides, "1,3,9") if isinstance(strides, str) else strides,
        cache=None if no_cache else cache or DEFAULT_CACHE,
        fps=None if fps is None else _rate(fps),
        segmenter_classes=None if segmenter_classes is None else _numbers("--segmenter-classes", segmenter_classes, "7,8,11"),
        weights=GivenWeights.parse_all(weights),
        **options,
    ).to_dict()


def _numbers(option: str, text: str, example: str) -> list[int]:
    if not re.fullmatch(r"\d{1,6}(,\d{1,6})*", text):
        raise ConfigError(f"{option} {text!r}: expected whole numbers separated by commas, such as {example}")
    return [int(part) for part in text.split(",")]


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"--fps {text!r}: expected frames per second, such as 12 or 30000/1001") from error


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
    fps: Fraction | float | None = None,
    segmenter: str | Segmenter | None = None,
    segmenter_range: InputRange = "unit",
    segmenter_classes: Sequence[int] | None = None,
    label_maps: str | Path | None = None,
    labels: str | None = None,
    weights: Mapping[str, GivenWeights] | None = None,
    allow_trim: bool = False,
    allow_truncated: bool = False,
    cache: Path | None = DEFAULT_CACHE,
    csv: Path | None = None,
    per_frame: Path | None = None,
    compare: Mapping[str, Where] | None = None,
    fail_if: Sequence[str] = (),
) -> Scores:
    """Measure `output`.

    Args:
        output: the video under test; for metrics of a reference set alone, also a folder of videos.
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
        fps: bring all inputs to this frame rate first, by taking the frame nearest in time. Inputs that state no rate (folders,
            frames in memory) are taken to have that of the first video among the inputs, or 25.
        segmenter: network that finds classes, for `pixel_acc` and `miou`: a TorchScript or .onnx file, or MODULE:CALLABLE. Its code
            is run. See `vidgen.metrics.segmentation.Segmenter` for what it gets and gives.
        segmenter_range: what its input is scaled to: "unit" (0..1), "signed" (-1..1) or "imagenet".
        segmenter_classes: the label class that each of its classes stands for, where they are not the same.
        label_maps: label maps of the output's frames; the source, where none are given.
        labels: what their values mean: "ids" (class numbers, 255 is ignored), a known table, palette:NAME, or a table file.
        weights: files of published networks, by the names of `vidgen.metrics.weights.WEIGHTS`.
        allow_trim: stop with the shortest input instead of refusing inputs of different lengths.
        allow_truncated: use the frames there are of a video that ends in the middle of its data.
        cache: folder for the motion of the reference, or None.
        csv: file for one line of scores, and one for each of `compare`.
        per_frame: CSV file for the values of every frame.
        compare: other videos, by name, to be measured in the same way and compared.
        fail_if: conditions that `enforce` fails for, such as "warp_error@1>0.02".

    Raises:
        InputError: inputs cannot be read, or differ in length, shape or frame rate.
        ConfigError: an option is wrong.
        CheckpointError: a file of weights is missing, damaged, or another network.
        flow.errors.FlowError: the engine cannot be used.
    """
    if eval_height is not None and eval_height < MIN_EVAL_HEIGHT:
        raise ConfigError(f"--eval-height {eval_height}: expected at least {MIN_EVAL_HEIGHT}")
    if fps is not None and not 0 < fps <= MAX_FRAME_RATE:
        raise ConfigError(f"--fps {float(fps):g}: expected more than 0 and at most {MAX_FRAME_RATE} frames per second")
    gates = [Gate.parse(text) for text in fail_if]
    paired = {name: where for name, where in (("source", source), ("target", target)) if where is not None}
    if segmenter is not None:
        paired["labels"] = _label_maps(label_maps, source)
    given = {*paired} | ({"reference set"} if reference_set is not None else set())
    chosen = _choose_metrics(metrics, given, weights or {})
    if reference_set is not None and not paired and _is_set(output):
        chosen = _set_metrics_of(chosen, metrics)
    segmenting = _segmenter(segmenter, segmenter_range, segmenter_classes, labels) if chosen & set(_LABEL_SCORES) else None
    setting = _Setting(
        chosen=chosen,
        strides=_checked_strides((1,) if fast else strides),
        engine=Engine.create(flow, flow_weights, fast=fast),
        flow_from=_choose_reference(flow_from, given),
        eval_height=eval_height,
        fps=None if fps is None else Fraction(fps).limit_denominator(1001),
        judges=build_judges(sorted({METRICS[name].weights for name in chosen} - {""}), weights or {}, read_state_dict),
        segmenter=segmenting,
        allow_trim=allow_trim,
        allow_truncated=allow_truncated,
        cache=cache,
    )
    paired = {name: where for name, where in paired.items() if name != "labels" or segmenting is not None}
    reference = None
    if reference_set is not None and chosen & {name for name, metric in METRICS.items() if metric.needs == "reference set"}:
        reference = _look_at(reference_set, setting, None, is_set=True)
    measure = partial(_measure, paired=paired, reference=reference, reference_set=reference_set, setting=setting)
    report = measure(output)
    others = {name: measure(other) for name, other in (compare or {}).items()}
    report = replace(
        report,
        faults=[fault for gate in gates if (fault := gate.fault(report.scores))],
        comparisons={
            name: compare_scores(report, other, partial(column_scores, setting=setting)) for name, other in others.items()
        },
        ranking=rank({_named(output): report, **others}) if others else None,
    )
    if per_frame is not None:
        durable.write_text(per_frame, frames_csv(report.columns))
    if csv is not None:
        durable.write_text(csv, scores_csv({_named(output): report, **others}))
    return report


def _label_maps(label_maps: str | Path | None, source: Where | None) -> str | Path:
    if label_maps is not None:
        return label_maps
    if isinstance(source, str | Path):
        return source
    raise ConfigError("--segmenter: needs label maps to compare with", hint="--source LABELS, or --label-maps LABELS")


def _segmenter(
    segmenter: str | Segmenter | None, input_range: InputRange, classes: Sequence[int] | None, labels: str | None
) -> tuple[Segmenter, LabelTable]:
    """The network, and what the values in label maps mean."""
    if labels is None or labels == "ids":
        table = label_tables.plain(IGNORED_ID, (IGNORED_ID,))
    elif labels in label_tables.NAMES:
        table = label_tables.named(labels)
    elif labels.startswith("palette:"):
        table = label_tables.named(labels.removeprefix("palette:"))
        table = LabelTable(table.names, table.colors, None)
    else:
        table = LabelTable.from_file(Path(labels))
    if isinstance(segmenter, Segmenter):
        return segmenter, table
    wrong = [index for index in classes or () if not 0 <= index < table.num_classes]
    if wrong:
        raise ConfigError(f"--segmenter-classes: {wrong[0]} is not a label class; they are 0..{table.num_classes - 1}")
    assert segmenter is not None
    program = load_program(segmenter, "--segmenter")
    return Segmenter(segmenter, program, table.num_classes, classes, input_range), table


@dataclass(frozen=True)
class _Setting:
    """How videos are measured, the same for all that are compared."""

    chosen: set[str]
    strides: tuple[int, ...]
    engine: Engine
    flow_from: str | None
    eval_height: int | None
    fps: Fraction | None
    judges: Judges
    segmenter: tuple[Segmenter, LabelTable] | None
    allow_trim: bool
    allow_truncated: bool
    cache: Path | None

    @property
    def needs_flow(self) -> bool:
        """Whether a chosen metric follows the motion of the reference."""
        without = {*_FRAME_SCORES, *_CHANGE_SCORES} | {name for name, metric in METRICS.items() if metric.weights}
        return any(METRICS[name].needs in ("reference", "source", "target") for name in self.chosen - without)


def _choose_reference(flow_from: str, given: set[str]) -> str | None:
    if flow_from == "auto":
        return "target" if "target" in given else "source" if "source" in given else None
    if flow_from not in ("source", "target"):
        raise ConfigError(f"--flow-from: expected auto, source or target, got {flow_from!r}")
    if flow_from not in given:
        raise ConfigError(f"--flow-from {flow_from}: no --{flow_from} is given")
    return flow_from


def _choose_metrics(text: str, given: set[str], weights: Mapping[str, GivenWeights]) -> set[str]:
    met = given | {""} | ({"reference"} if given & {"source", "target"} else set())
    met |= ({"segmenter"} if "labels" in given else set()) | ({"segmenter and target"} if given >= {"labels", "target"} else set())
    possible = {
        name for name, metric in METRICS.items() if metric.needs in met and (not metric.weights or metric.weights in weights)
    }
    for name in weights.keys() - {METRICS[name].weights for name in possible} - SMALL_WEIGHTS:
        wanted = next(metric.needs for metric in METRICS.values() if metric.weights == name)
        log.warning("--weights %s: not used, since there is no %s", name, wanted)
    if text in ("default", "all"):
        return possible if text == "all" else possible - SLOW_METRICS
    chosen = {base_of(name.strip()) for name in text.split(",") if name.strip()}
    if not chosen:
        raise ConfigError(f"--metrics {text!r}: names no metric", hint="vidgen evaluate --list-metrics")
    for name in sorted(chosen - possible):
        if name not in METRICS:
            raise ConfigError(f"--metrics: no metric is called {name!r}", hint="vidgen evaluate --list-metrics")
        if METRICS[name].needs in met:
            raise needed(name, METRICS[name].weights)
        options = {
            "reference": "--source or --target",
            "reference set": "--reference-set",
            "segmenter": "--segmenter and label maps (--source or --label-maps)",
            "segmenter and target": "--segmenter, label maps (--source or --label-maps) and --target",
        }
        wanted = options.get(METRICS[name].needs, f"--{METRICS[name].needs}")
        raise ConfigError(f"--metrics {name}: needs {wanted}, which is not given")
    return chosen


def _set_metrics_of(chosen: set[str], text: str) -> set[str]:
    """Those that a set of videos can have.

    Raises:
        ConfigError: others were asked for by name.
    """
    possible = {name for name in chosen if METRICS[name].needs == "reference set"}
    if text not in ("default", "all") and chosen - possible:
        raise ConfigError(f"--metrics {min(chosen - possible)}: is of one video, but the output holds several")
    return possible


def _checked_strides(strides: Sequence[int]) -> tuple[int, ...]:
    if not strides or min(strides) < 1:
        raise ConfigError(f"--strides: expected numbers of at least 1, got {tuple(strides)}")
    even = [stride for stride in strides if stride % 2 == 0]
    if even:
        log.warning("even strides are blind to flicker of period two: %s", even)
    return tuple(sorted({1, *strides}))


def _measure(
    output: Where, *, paired: Mapping[str, Where], reference: _Look | None, reference_set: str | Path | None, setting: _Setting
) -> Scores:
    """The report on one output, without comparisons."""
    if reference is not None and not paired and _is_set(output):
        return _measure_set(output, reference, reference_set, setting)
    inputs = {"output": output, **paired}
    meter = temporal.TemporalMeter(
        setting.strides,
        setting.engine.estimate,
        motion_of=MotionCache(setting.engine, setting.cache),
        flow_from=setting.flow_from if setting.needs_flow else None,
        farneback=create_engine("farneback") if "tof_farneback" in setting.chosen else None,
        chosen=setting.chosen,
    )
    judges, answers = JudgeMeter(setting.judges, setting.chosen), _Answers(setting)
    rows: list[dict[str, float]] = []
    before, size = None, (0, 0)
    streams = {name: _opened(name, where, setting) for name, where in inputs.items()}
    rates = _rates(streams, setting)
    look = reference.like(rates["output"], setting) if reference is not None else None
    contents = {name: hashlib.sha256() for name in streams}
    for now, pixels in _moments(streams, rates, setting):
        rows.append(meter.add(now) | _paired_row(before, now, setting.chosen) | judges.add(now, pixels) | answers.add(pixels))
        if look is not None:
            look.add(pixels["output"], now.output)
        before, size = now, (now.output.shape[-2], now.output.shape[-1])
        for name, content in contents.items():
            content.update(pixels[name].tobytes())
        if len(rows) % LOG_EVERY_FRAMES == 0:
            log.info("measured %d frames", len(rows))
    columns = temporal.columns_of(rows)
    cuts = temporal.find_cuts(columns)
    columns = temporal.without_cuts(columns, cuts)
    scores = column_scores(columns, setting) | answers.scores()
    if setting.flow_from is not None and setting.needs_flow:
        scores["cuts"] = Score(float(len(cuts)), len(rows))
    if look is not None and reference is not None:
        scores |= look.scores(reference, setting)
    provenance = {
        **{name: _named(where) for name, where in inputs.items()},
        "reference_set": None if reference_set is None else str(reference_set),
        "flow": setting.engine.name,
        "flow_from": setting.flow_from,
        "size": list(size),
        "strides": list(setting.strides),
        "num_frames": len(rows),
        "frame_rate": _frame_rate(streams["output"]),
        **_provenance(setting),
        "content_sha256": {name: content.hexdigest() for name, content in contents.items()},
    }
    remarks = [
        f"the output is the {name} itself, pixel for pixel"
        for name in ("source", "target")
        if name in contents and contents[name].digest() == contents["output"].digest()
    ]
    if (scores.get("motion_ratio", Score(None)).reason or "").startswith("source static"):
        remarks.append("the reference does not move: only its steadiness is compared")
    return Scores(_asked_for(scores, setting), temporal.judge(scores), cuts, provenance, columns, remarks=remarks)


def _measure_set(output: Where, reference: _Look, reference_set: str | Path | None, setting: _Setting) -> Scores:
    """The report on several videos, which knows distances to the reference set only."""
    assert isinstance(output, str | Path)
    look = _look_at(output, setting, reference.height, is_set=False)
    provenance = {
        "output": str(output),
        "reference_set": None if reference_set is None else str(reference_set),
        "flow": None,
        "flow_from": None,
        "size": None,
        "strides": [],
        "num_frames": look.num_frames,
        "frame_rate": None,
        **_provenance(setting),
        "content_sha256": {},
    }
    scores = look.scores(reference, setting)
    return Scores(_asked_for(scores, setting), temporal.judge(scores), [], provenance, {})


def _provenance(setting: _Setting) -> dict[str, Any]:
    segmenter = setting.segmenter[0] if setting.segmenter is not None else None
    return {
        "versions": {module.__name__: module.__version__ for module in (vidgen, torch, np, cv2)},
        "fps": None if setting.fps is None else float(setting.fps),
        "weights": setting.judges.files,
        "segmenter": None
        if segmenter is None
        else {
            "name": segmenter.name,
            "sha256": _file_hash(Path(segmenter.name).expanduser()),
            "range": segmenter.input_range,
            "classes": None if segmenter.classes is None else list(segmenter.classes),
        },
    }


def _file_hash(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _asked_for(scores: Mapping[str, Score], setting: _Setting) -> dict[str, Score]:
    """In the order of the catalogue."""
    return {key: scores[key] for name in METRICS if name in setting.chosen for key in scores if base_of(key) == name}


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


class _Answers:
    """What the segmenter finds in the output and in the target, against the label maps."""

    def __init__(self, setting: _Setting) -> None:
        self._segmenter = setting.segmenter[0] if setting.segmenter is not None else None
        self._agreements: dict[str, Agreement] = {}
        self._chosen = setting.chosen

    def add(self, pixels: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Per-frame accuracies."""
        row: dict[str, float] = {}
        if self._segmenter is None:
            return row
        for name, suffix in (("output", ""), ("target", "_target")):
            if name in pixels and self._chosen & {f"pixel_acc{suffix}", f"miou{suffix}"}:
                found = self._segmenter.predict(pixels[name], (pixels["labels"].shape[0], pixels["labels"].shape[1]))
                empty = Agreement(self._segmenter.num_classes, self._segmenter.classes)
                agreement = self._agreements.setdefault(suffix, empty)
                row[f"pixel_acc{suffix}"], row["label_pixels"] = agreement.add(pixels["labels"], found)
        return row

    def scores(self) -> dict[str, Score]:
        """Scores that do not follow from the accuracies of frames."""
        return {f"miou{suffix}": agreement.mean_iou() for suffix, agreement in self._agreements.items()}


def column_scores(columns: temporal.Columns, setting: _Setting) -> dict[str, Score]:
    """Every score that follows from per-frame values."""
    scores: dict[str, Score] = {}
    for name in (*_FRAME_SCORES, *_CHANGE_SCORES):
        if name in columns:
            side = quality.MS_SSIM_MIN_SIDE if name == "ms_ssim" else quality.SSIM_WINDOW
            reason = f"needs frames of at least {side} pixels on the shorter side"
            if name in _CHANGE_SCORES and len(columns[name]) < 2:
                reason = "needs at least 2 frames, got 1"
            scores[name] = temporal.mean_score(columns, name, reason, span=int(name in _CHANGE_SCORES))
    scores |= {name: accuracy(columns, name) for name in ("pixel_acc", "pixel_acc_target") if name in columns}
    return scores | temporal.summarise(columns, setting.strides) | judge_scores(columns, setting.judges)


# --- reading --------------------------------------------------------------------------------------------------------------


def _opened(name: str, where: Where, setting: _Setting) -> Iterable[Any]:
    if not isinstance(where, str | Path):
        return where
    return open_source(where, kind="labels" if name == "labels" else "pictures", allow_truncated=setting.allow_truncated)


def _named(where: Where) -> str:
    return str(where) if isinstance(where, str | Path) else getattr(where, "name", f"{type(where).__name__} of frames")


def _is_set(where: Where) -> bool:
    """Whether several videos are there, or a folder around one."""
    if not isinstance(where, str | Path):
        return False
    clips = list_sources(where)
    return clips != [Path(where)]


def _frame_rate(stream: Iterable[Any]) -> float | None:
    """Frames per second of a video; folders of pictures state none."""
    return float(stream.frame_rate) if isinstance(stream, VideoSource) else None


def _check_frame_rates(streams: Mapping[str, Iterable[Any]]) -> None:
    rates = {name: rate for name, stream in streams.items() if (rate := _frame_rate(stream)) is not None}
    for name, rate in rates.items():
        if abs(rate / next(iter(rates.values())) - 1) > MAX_FRAME_RATE_DIFFERENCE:
            listed = ", ".join(f"the {other} has {value:.5g}" for other, value in rates.items())
            raise InputError(
                f"frame rates differ: {listed} frames per second",
                hint=f"--fps {min(rates.values()):.5g} brings all to one rate, or convert the {name} first",
            )


def _rates(streams: Mapping[str, Iterable[Any]], setting: _Setting) -> dict[str, Fraction | None]:
    """Frames per second of each input as it is measured; None where nobody says."""
    if setting.fps is not None:
        return dict.fromkeys(streams, setting.fps)
    _check_frame_rates(streams)
    return {name: stream.frame_rate if isinstance(stream, VideoSource) else None for name, stream in streams.items()}


def _moments(
    streams: Mapping[str, Iterable[Any]], rates: Mapping[str, Fraction | None], setting: _Setting
) -> Iterator[tuple[temporal.Frames, dict[str, np.ndarray]]]:
    """The inputs side by side, frame by frame: on one canvas, and as they are (label maps as classes)."""
    stated = (stream.frame_rate for stream in streams.values() if isinstance(stream, VideoSource))
    assumed = next(stated, FOLDER_FRAME_RATE)
    table = setting.segmenter[1] if setting.segmenter is not None else None
    frames = {
        name: _classes(frame, table) if name == "labels" and table is not None else _pixels(frame, _named(streams[name]))
        for name, frame in ((name, _resampled(stream, setting.fps, assumed)) for name, stream in streams.items())
    }
    size: tuple[int, int] | None = None
    index = 0
    while True:
        pixels = {name: frame for name, stream in frames.items() if (frame := next(stream, None)) is not None}
        ended = [name for name in streams if name not in pixels]
        if ended:
            _check_ends(streams, ended, index, setting.allow_trim)
            return
        if size is None:
            size = canvas_size({name: frame.shape[:2] for name, frame in pixels.items()}, setting.eval_height)
        canvas = {name: _on_canvas(frame, size) for name, frame in pixels.items() if name != "labels"}
        yield temporal.Frames(**canvas), pixels
        index += 1


def _resampled(stream: Iterable[Any], fps: Fraction | None, assumed: Fraction) -> Iterator[Any]:
    """The frames of a stream at the times k / fps, each time the nearest one; all of them where `fps` is None.

    Args:
        assumed: frames per second of a stream that states none.
    """
    if fps is None:
        yield from stream
        return
    last: tuple[Fraction, Any] | None = None
    index = 0
    rate = stream.frame_rate if isinstance(stream, VideoSource) else assumed
    for time, frame in _timed(stream, rate):
        while last is not None and index / fps <= (last[0] + time) / 2:
            yield last[1]
            index += 1
        last = time, frame
    while last is not None and index / fps < last[0] + 1 / rate:
        yield last[1]
        index += 1


def _timed(stream: Iterable[Any], rate: Fraction) -> Iterator[tuple[Fraction, Any]]:
    """Frames with their time in seconds since the first.

    Containers round times, to a millisecond in Matroska; where that explains the deviation from a constant rate, the rate counts.
    """
    first = 0
    for number, frame in enumerate(stream):
        time = Fraction(number) / rate
        if isinstance(stream, VideoSource) and isinstance(frame, Frame):
            first = frame.pts if number == 0 else first
            stated = (frame.pts - first) * stream.time_base
            time = time if abs(stated - time) <= stream.time_base else stated
        yield time, frame


def _check_ends(streams: Mapping[str, Iterable[Any]], ended: Sequence[str], index: int, allow_trim: bool) -> None:
    if index == 0:
        raise InputError(f"{_named(streams[ended[0]])}: holds no frames")
    if len(ended) < len(streams) and not allow_trim:
        longer = next(name for name in streams if name not in ended)
        raise InputError(
            f"{_named(streams[ended[0]])} (the {ended[0]}) ends after {index} frames, but {_named(streams[longer])} does not",
            hint="--allow-trim measures the common part",
        )


def _pixels(stream: Iterable[Any], name: str) -> Iterator[np.ndarray]:
    """uint8 [H,W,3] frames."""
    for frame in stream:
        pixels = np.asarray(getattr(frame, "pixels", frame))
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise InputError(f"{name}: expected frames of uint8 [H,W,3], got {pixels.dtype} {list(pixels.shape)}")
        yield pixels


def _classes(stream: Iterable[Any], table: LabelTable) -> Iterator[np.ndarray]:
    """int64 [H,W] classes of label maps, -1 where there is none."""
    for frame in stream:
        try:
            yield table.decode(frame.pixels, frame.name)
        except InputError as error:
            raise InputError(str(error), hint=f"--labels TABLE says what the values of {frame.name} mean") from error


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


@dataclass
class _Look:
    """What is kept of a video or of a set to compare them as sets; a half that nobody asks for stays None."""

    height: int
    sample: LookSample | None
    features: SetMeter | None
    num_frames: int = field(default=0)

    @staticmethod
    def create(height: int, setting: _Setting, *, is_stills: bool = False) -> _Look:
        features = any(METRICS[name].needs == "reference set" and METRICS[name].weights for name in setting.chosen)
        looks = bool(setting.chosen & set(_SET_SCORES))
        return _Look(height, LookSample(height, is_stills) if looks else None, SetMeter(setting.judges) if features else None)

    def like(self, frame_rate: Fraction | None, setting: _Setting) -> _Look:
        """An empty one, to be compared with this."""
        look = _Look.create(self.height, setting)
        look.start_clip(frame_rate)
        return look

    def start_clip(self, frame_rate: Fraction | None, *, is_still: bool = False) -> None:
        if self.sample is not None:
            self.sample.start_clip()
        if self.features is not None:
            self.features.start_clip(None if frame_rate is None else float(frame_rate), is_still=is_still)

    def add(self, pixels: np.ndarray, canvas: Tensor | None = None) -> None:
        """Take in a frame uint8 [H,W,3], and the same on the canvas, where there is one."""
        self.num_frames += 1
        if self.sample is not None:
            self.sample.add(_on_canvas(pixels, None) if canvas is None else canvas)
        if self.features is not None:
            self.features.add(pixels)

    def scores(self, reference: _Look, setting: _Setting) -> dict[str, Score]:
        scores: dict[str, Score] = {}
        if self.sample is not None and reference.sample is not None:
            scores |= self.sample.scores(reference.sample)
        if self.features is not None and reference.features is not None:
            scores |= self.features.scores(reference.features, setting.chosen)
        return scores


def _look_at(where: str | Path, setting: _Setting, height: int | None, *, is_set: bool) -> _Look:
    """All pictures, videos and folders of frames at `where`; at a height of their own, where none is given.

    A folder of pictures is one of stills for a reference set, and a clip otherwise.
    """
    places = list_sources(where)
    clips = [open_source(place, allow_truncated=setting.allow_truncated) for place in places]
    is_stills = is_set and places == [Path(where)] and isinstance(clips[0], PictureSource) and Path(where).is_dir()
    if is_stills and isinstance(clips[0], PictureSource):
        clips = [open_source(file) for file in clips[0].files]
    smallest = min(clip.size[0] for clip in clips)
    look = _Look.create(height or min(smallest, setting.eval_height or smallest), setting, is_stills=is_stills)
    for clip in clips:
        look.start_clip(setting.fps or (clip.frame_rate if isinstance(clip, VideoSource) else None), is_still=is_stills)
        frames: Iterable[Any] = clip if is_stills else _resampled(clip, setting.fps, FOLDER_FRAME_RATE)
        for pixels in _pixels(frames, clip.name):
            look.add(pixels)
    return look
