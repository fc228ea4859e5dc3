"""Measure a video: is it steady, does it move like its source, how close is it to paired real frames or to a set of real ones.

One pass over the frames, in memory that does not grow with them. The motion of the reference is estimated once and cached by the
content of the frames it belongs to.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

import vidgen
from flow.engines import create_engine
from vidgen import progress
from vidgen.errors import ConfigError
from vidgen.evaluation.compare import compare_reports, rank
from vidgen.evaluation.inputs import FramesLike, Inputs, as_tensor, is_set, name_of, open_set, pixels_of, place_of, resampled
from vidgen.evaluation.networks import WeightsFile, at_hand, load_networks, missing_weights
from vidgen.evaluation.report import Gate, MetricValue, Provenance, Report, SegmenterUsed, Verdict, WeightsUsed
from vidgen.evaluation.styles import measure_styles
from vidgen.media import labels as label_tables
from vidgen.media.frames import VideoSource
from vidgen.media.labels import LabelTable
from vidgen.metrics import quality, temporal
from vidgen.metrics.distribution import DistributionSample
from vidgen.metrics.features import KERNEL_METRICS, FeatureMeter, FeatureSample, feature_scores, unit_features
from vidgen.metrics.learned import MetricNetworks, NetworkMeter, SetMeter, network_scores
from vidgen.metrics.motion import Engine, MotionCache
from vidgen.metrics.programs import load_program
from vidgen.metrics.score import METRICS, RENAMED, Need, Score, base_of
from vidgen.metrics.segmentation import Agreement, InputRange, Segmenter, accuracy

log = logging.getLogger(__name__)

DEFAULT_CACHE = Path("~/.cache/vidgen/flow")
MIN_HEIGHT = 16
SLOW_METRICS = {"tof_farneback"}
VERDICT_NETWORKS = {"efficientnet_lite0"}
SMALL_WEIGHTS = {"lpips-heads", "dists-weights"}
IGNORED_ID = 255
MAX_FRAME_RATE = 1000


def _luma_ssim(first: Tensor, second: Tensor) -> Tensor:
    return quality.ssim(quality.luma(first), quality.luma(second))


_FRAME_SCORES = {"psnr": quality.psnr, "ssim": quality.ssim, "ssim_luma": _luma_ssim, "ms_ssim": quality.ms_ssim}
_CHANGE_SCORES = {"tpsnr": quality.psnr, "tssim": _luma_ssim}
_DISTRIBUTION_SCORES = {"swd", "swd_t", "niqe_ref", "color_distance"}
_NEEDS: dict[Need, str] = {
    "reference": "source or target",
    "source": "source",
    "target": "target",
    "real": "target or reference_set",
    "reference_set": "reference_set",
    "segmenter": "segmenter",
    "labels": "source or label_maps",
    "styles": "styles",
}


def list_metrics() -> dict[str, dict[str, str]]:
    """Every metric: what it is, in which unit, which way is better, and what must be there for it."""
    return {
        name: {
            "about": metric.about,
            "unit": metric.unit,
            "better": metric.better,
            "needs": " and ".join([*_missing(name), *([f"weights {metric.weights}"] if metric.weights else [])]) or "nothing else",
        }
        for name, metric in METRICS.items()
    }


def _missing(name: str, available: frozenset[Need] = frozenset()) -> list[str]:
    """What a metric lacks, in words."""
    missing = METRICS[name].needs - available
    if len(missing) > 1:
        missing -= {"reference"}  # whatever else it needs has a motion
    return [words for need, words in _NEEDS.items() if need in missing]


def evaluate(
    result: FramesLike,
    *,
    source: FramesLike | None = None,
    target: FramesLike | None = None,
    reference_set: str | Path | None = None,
    label_maps: str | Path | None = None,
    styles: str | Path | None = None,
    compare: Mapping[str, FramesLike] | None = None,
    metrics: str | Sequence[str] = "default",
    strides: Sequence[int] = (1, 3, 9),
    eval_height: int | None = 288,
    fps: Fraction | float | None = None,
    flow: str = "dis",
    flow_weights: Path | None = None,
    flow_from: str = "auto",
    fast: bool = False,
    segmenter: str | Segmenter | None = None,
    segmenter_range: InputRange = "unit",
    segmenter_classes: Sequence[int] | None = None,
    labels: str | None = None,
    weights: Mapping[str, WeightsFile] | None = None,
    allow_trim: bool = False,
    allow_truncated: bool = False,
    cache: Path | None = DEFAULT_CACHE,
    fail_if: Sequence[str] = (),
) -> Report:
    """Measure `result`.

    Args:
        result: the video under test; for metrics of a reference set alone, also a folder of videos.
        source: what it was generated from.
        target: paired real frames, where there are any.
        reference_set: real frames that are not paired: a folder of pictures, or of videos.
        label_maps: label maps of the result's frames; by default the source.
        styles: the style pictures among which each result's own is to be the one most alike; the result is then a folder of
            pictures or videos, or one of these, named or described as `translate` does.
        compare: other videos, by name, to be measured in the same way and compared.
        metrics: "default", "all" (also the slow ones), or names, as a list or separated by commas.
        strides: distances in frames at which steadiness is measured; 1 is always among them.
        eval_height: everything is reduced to this height first (area averages; never enlarged); None keeps the size.
        fps: bring all inputs to this frame rate first, by taking the frame nearest in time. Inputs that state no rate (folders,
            frames in memory) are taken to have that of the first video among the inputs, or 25.
        flow: engine that estimates motion, one of `flow.engines.ENGINES`.
        flow_weights: its weights file, where it needs one.
        flow_from: whose motion is followed: "source", "target", or "auto" (the target where there is one: label maps have no
            texture).
        fast: coarser flow, and stride 1 only.
        segmenter: network that finds classes, for `pixel_acc` and `miou`: a TorchScript or .onnx file, or MODULE:CALLABLE. Its code
            is run. See `vidgen.metrics.segmentation.Segmenter` for what goes in and out.
        segmenter_range: what its input is scaled to: "unit" (0..1), "signed" (-1..1) or "imagenet".
        segmenter_classes: the label class that each of its classes stands for, where they are not the same.
        labels: what values of label maps mean: "ids" (class numbers, 255 is ignored), a known table, palette:NAME, or a table file.
        weights: files of published networks, by the names of `vidgen.evaluation.networks.WEIGHTS`.
        allow_trim: stop with the shortest input instead of refusing inputs of different lengths.
        allow_truncated: use the frames there are of a video that ends in the middle of its data.
        cache: folder for the motion of the reference, or None.
        fail_if: conditions that `Report.enforce` fails for, such as "warp_error@1>0.02".

    Raises:
        InputError: inputs cannot be read, or differ in length, shape or frame rate.
        ConfigError: an option is wrong.
        CheckpointError: a file of weights is missing, damaged, or another network.
        flow.errors.FlowError: the engine cannot be used.
    """
    if eval_height is not None and eval_height < MIN_HEIGHT:
        raise ConfigError(f"`eval_height` {eval_height}: expected at least {MIN_HEIGHT}")
    if fps is not None and not 0 < fps <= MAX_FRAME_RATE:
        raise ConfigError(f"`fps` {float(fps):g}: expected more than 0 and at most {MAX_FRAME_RATE} frames per second")
    gates = [Gate.parse(text) for text in fail_if]
    places = {name: where for name, where in (("source", source), ("target", target)) if where is not None}
    available = _available(
        places.keys(), has_set=reference_set is not None, has_segmenter=segmenter is not None, has_styles=styles is not None
    )
    if metrics == "default" and available == {"styles"}:
        metrics = "style_retrieval"  # the others are of a video, and results in many styles are none
    files = weights or {}
    only_set = reference_set is not None and not places and segmenter is None and is_set(result)
    chosen = _choose_metrics(metrics, available, files, only_set=only_set)
    segmenting = None
    if segmenter is not None:
        places["labels"] = _label_maps(label_maps, source)
        if any("segmenter" in METRICS[name].needs for name in chosen):
            segmenting = _segmenting(segmenter, segmenter_range, segmenter_classes, labels)
        else:
            del places["labels"]
    networks, weights_used = load_networks(sorted(_network_names(chosen, available, files)), files)
    evaluator = _Evaluator(
        places=places,
        reference_set=reference_set,
        styles=styles,
        chosen=chosen,
        strides=_checked_strides((1,) if fast else strides),
        engine=Engine.create(flow, flow_weights, fast=fast),
        flow_from=_choose_reference(flow_from, available),
        height=eval_height,
        fps=None if fps is None else Fraction(fps).limit_denominator(1001),
        networks=networks,
        weights_used=weights_used,
        segmenting=segmenting,
        allow_trim=allow_trim,
        allow_truncated=allow_truncated,
        cache=cache,
    )
    measure = partial(evaluator.measure, reference=evaluator.sample_reference_set(), only_set=only_set)
    report = measure(result)
    others = {name: measure(other) for name, other in (compare or {}).items()}
    return report.compared_with(
        others,
        faults=[fault for gate in gates if (fault := gate.fault(report.metrics))],
        comparisons={name: compare_reports(report, other, evaluator.summarize) for name, other in others.items()},
        ranking=rank({name_of(result): report, **others}) if others else None,
    )


# --- choosing -------------------------------------------------------------------------------------------------------------


def _available(roles: Iterable[str], *, has_set: bool, has_segmenter: bool, has_styles: bool) -> frozenset[Need]:
    """What is there to measure with."""
    needs: set[Need] = set()
    if "source" in roles:
        needs |= {"source", "reference"}
    if "target" in roles:
        needs |= {"target", "reference", "real"}
    if has_set:
        needs |= {"reference_set", "real"}
    if has_segmenter:
        needs |= {"segmenter", "labels"}
    if has_styles:
        needs |= {"styles"}
    return frozenset(needs)


def _choose_metrics(
    metrics: str | Sequence[str], available: frozenset[Need], files: Mapping[str, WeightsFile], *, only_set: bool
) -> frozenset[str]:
    """The metrics asked for.

    Args:
        only_set: several videos are measured, which have distances to the reference set alone.

    Raises:
        ConfigError: one of them is unknown, or lacks what it needs.
    """
    networks = at_hand(files)
    possible = {name for name, metric in METRICS.items() if metric.needs <= available and metric.weights in {"", *networks}}
    for name in files.keys() - {METRICS[name].weights for name in possible} - SMALL_WEIGHTS:
        missing = next(metric.needs for metric in METRICS.values() if metric.weights == name) - available
        log.warning("weights %s: not used, since there is no %s", name, " and no ".join(sorted(missing)).replace("_", " "))
    of_sets = {name for name, metric in METRICS.items() if metric.needs & {"reference_set", "real"}}
    if metrics in ("default", "all"):
        chosen = possible if metrics == "all" else possible - SLOW_METRICS
        return frozenset(chosen & of_sets if only_set else chosen)
    names = metrics.split(",") if isinstance(metrics, str) else metrics
    chosen = {base_of(RENAMED.get(name.strip(), name.strip())) for name in names if name.strip()}
    if not chosen:
        raise ConfigError(f"`metrics` {metrics!r}: names no metric", hint="`list_metrics` shows them all")
    for name in sorted(chosen - possible):
        if name not in METRICS:
            raise ConfigError(f"`metrics`: no metric is called {name!r}", hint="`list_metrics` shows them all")
        if METRICS[name].needs <= available:
            raise missing_weights(name, METRICS[name].weights)
        lacking = " and ".join(re.sub(r"\w{3,}", r"`\g<0>`", words) for words in _missing(name, available))
        raise ConfigError(f"`metrics` {name}: needs {lacking}, which is not there")
    if only_set and chosen - of_sets:
        raise ConfigError(f"`metrics` {min(chosen - of_sets)}: is of one video, but the output holds several")
    return frozenset(chosen)


def _network_names(chosen: frozenset[str], available: frozenset[Need], files: Mapping[str, WeightsFile]) -> set[str]:
    """The networks to load: those of the metrics, and what the verdict wants to see where there is motion and a target."""
    names = {METRICS[name].weights for name in chosen} - {""}
    has_verdict = "target" in available and any("reference" in METRICS[name].needs for name in chosen)
    return names | (VERDICT_NETWORKS & at_hand(files) if has_verdict else set())


def _choose_reference(flow_from: str, available: frozenset[Need]) -> str | None:
    if flow_from == "auto":
        return "target" if "target" in available else "source" if "source" in available else None
    if flow_from not in ("source", "target"):
        raise ConfigError(f"`flow_from`: expected auto, source or target, got {flow_from!r}")
    if flow_from not in available:
        raise ConfigError(f"`flow_from` {flow_from}: there is no `{flow_from}`")
    return flow_from


def _checked_strides(strides: Sequence[int]) -> tuple[int, ...]:
    if not strides or min(strides) < 1:
        raise ConfigError(f"`strides`: expected numbers of at least 1, got {tuple(strides)}")
    even = [stride for stride in strides if stride % 2 == 0]
    if even:
        log.warning("even strides are blind to flicker of period two: %s", even)
    return tuple(sorted({1, *strides}))


def _label_maps(label_maps: str | Path | None, source: FramesLike | None) -> str | Path:
    if label_maps is not None:
        return label_maps
    if isinstance(source, str | Path):
        return source
    raise ConfigError("`segmenter`: needs label maps to compare with", hint="`source` LABELS, or `label_maps` LABELS")


@dataclass(frozen=True)
class _Segmenting:
    """A segmentation network, and what the values in label maps mean."""

    network: Segmenter
    table: LabelTable

    def provenance(self) -> SegmenterUsed:
        network = self.network
        return SegmenterUsed(
            name=network.name,
            sha256=_file_hash(Path(network.name).expanduser()),
            range=network.input_range,
            classes=None if network.classes is None else list(network.classes),
        )


def _segmenting(
    segmenter: str | Segmenter, input_range: InputRange, classes: Sequence[int] | None, labels: str | None
) -> _Segmenting:
    table = find_label_table(labels)
    if isinstance(segmenter, Segmenter):
        return _Segmenting(segmenter, table)
    wrong = [index for index in classes or () if not 0 <= index < table.num_classes]
    if wrong:
        raise ConfigError(f"`segmenter_classes`: {wrong[0]} is not a label class; they are 0..{table.num_classes - 1}")
    program = load_program(segmenter, "`segmenter`")
    return _Segmenting(Segmenter(segmenter, program, table.num_classes, classes, input_range), table)


def find_label_table(labels: str | None) -> LabelTable:
    """What values of label maps mean, as `evaluate` is told it."""
    if labels is None or labels == "ids":
        return label_tables.plain(IGNORED_ID, (IGNORED_ID,))
    return label_tables.find(labels)


# --- measuring ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Evaluator:
    """How videos are measured, the same for all that are compared.

    Attributes:
        places: by role, what the video under test is compared with: "source", "target", "labels".
        chosen: metrics of the catalog.
        flow_from: the role whose motion is followed; None where there is none.
        height: that frames are reduced to.
    """

    places: Mapping[str, FramesLike]
    reference_set: str | Path | None
    styles: str | Path | None
    chosen: frozenset[str]
    strides: tuple[int, ...]
    engine: Engine
    flow_from: str | None
    height: int | None
    fps: Fraction | None
    networks: MetricNetworks
    weights_used: dict[str, WeightsUsed]
    segmenting: _Segmenting | None
    allow_trim: bool
    allow_truncated: bool
    cache: Path | None

    @property
    def needs_motion(self) -> bool:
        """Whether a chosen metric follows the motion of the reference."""
        return any("reference" in METRICS[name].needs for name in self.chosen)

    @property
    def _samples_features(self) -> bool:
        """Whether kernel distances are to the reference set, since there is no target."""
        return "target" not in self.places and bool(self.chosen & KERNEL_METRICS)

    def measure(self, result: FramesLike, *, reference: _SetSample | None, only_set: bool) -> Report:
        """The report on one video, without comparisons.

        Args:
            reference: what is known of the reference set.
            only_set: measure nothing but the distance to it; `result` may then hold several videos.
        """
        if self.chosen == {"style_retrieval"}:
            scores = self._style_scores(result)
            return self._report(scores, [], self._provenance(result, num_frames=scores["style_retrieval"].count))
        if only_set and reference is not None and is_set(result):
            assert isinstance(result, str | Path)
            sample = self._sample(result, reference.height, as_stills=False)
            scores = sample.scores(reference)
            provenance = self._provenance(result, num_frames=sample.num_frames)
            return self._report(scores, temporal.verdict(scores), provenance)
        return self._measure_video(result, reference)

    def _style_scores(self, result: FramesLike) -> dict[str, Score]:
        if "style_retrieval" not in self.chosen or self.styles is None:
            return {}
        if not isinstance(result, str | Path):
            return {"style_retrieval": Score.missing("needs files, whose names say which style they have")}
        return {"style_retrieval": measure_styles(result, self.styles)}

    def _measure_video(self, result: FramesLike, reference: _SetSample | None) -> Report:
        inputs = Inputs(
            {"output": result, **self.places},
            fps=self.fps,
            height=self.height,
            table=None if self.segmenting is None else self.segmenting.table,
            allow_trim=self.allow_trim,
            allow_truncated=self.allow_truncated,
        )
        meter = temporal.TemporalMeter(
            self.strides,
            self.engine.estimate,
            motion_of=MotionCache(self.engine, self.cache),
            flow_from=self.flow_from if self.needs_motion else None,
            farneback=create_engine("farneback") if "tof_farneback" in self.chosen else None,
            chosen=self.chosen,
        )
        features = FeatureMeter(self.networks.features, self.chosen | (KERNEL_METRICS if self.needs_motion else set()))
        networks, segmentation = NetworkMeter(self.networks, self.chosen), _SegmentationMeter(self.segmenting, self.chosen)
        sample = None if reference is None else reference.empty_like(inputs.measured_rate)
        rows: list[dict[str, float]] = []
        before = None
        for now, pixels in progress.follow(inputs, f"measuring {name_of(result)}", inputs.expected_frames):
            row = meter.add(now) | _paired_row(before, now, self.chosen) | features.add(now)
            rows.append(row | networks.add(now, pixels) | segmentation.add(pixels))
            if sample is not None:
                sample.add(pixels["output"], now.output)
            before = now
        columns = temporal.columns_of(rows)
        cuts = temporal.find_cuts(columns)
        columns = temporal.without_cuts(columns, cuts)
        scores = self.summarize(columns) | segmentation.scores() | features.scores()
        if meter.flow_from is not None:
            scores["cuts"] = Score(float(len(cuts)), len(rows))
        reasons = temporal.verdict(scores)
        if sample is not None and reference is not None:
            scores |= sample.scores(reference)
        scores |= self._style_scores(result)
        provenance = self._provenance(result, inputs=inputs)
        return self._report(scores, reasons, provenance, cuts=cuts, columns=columns, remarks=_remarks(inputs, scores))

    def _report(
        self,
        scores: Mapping[str, Score],
        reasons: list[str],
        provenance: Provenance,
        *,
        cuts: Sequence[int] = (),
        columns: temporal.Columns | None = None,
        remarks: Sequence[str] = (),
    ) -> Report:
        # In the order of the catalog.
        chosen = {key: scores[key] for name in METRICS if name in self.chosen for key in scores if base_of(key) == name}
        return Report(
            metrics={key: MetricValue.of(key, score) for key, score in chosen.items()},
            verdict=Verdict(rankable=not reasons, reasons=reasons, remarks=list(remarks)),
            cuts=list(cuts),
            provenance=provenance,
            per_frame=columns or {},
        )

    def _provenance(self, result: FramesLike, *, inputs: Inputs | None = None, num_frames: int = 0) -> Provenance:
        """Of a video, or of several where there are no `inputs`."""
        places = {} if inputs is None else {name: place_of(where) for name, where in self.places.items()}
        return Provenance(
            output=place_of(result),
            **places,
            reference_set=None if self.reference_set is None else place_of(self.reference_set),
            flow=None if inputs is None else self.engine.name,
            flow_from=None if inputs is None else self.flow_from,  # type: ignore[arg-type]  # one of the two, as checked
            size=None if inputs is None else list(inputs.size),
            strides=[] if inputs is None else list(self.strides),
            num_frames=num_frames if inputs is None else inputs.num_frames,
            frame_rate=None if inputs is None else inputs.frame_rate,
            fps=None if self.fps is None else float(self.fps),
            versions={module.__name__: module.__version__ for module in (vidgen, torch, np, cv2)},
            weights=self.weights_used,
            segmenter=None if self.segmenting is None else self.segmenting.provenance(),
            content_sha256={} if inputs is None else inputs.digests,
        )

    def summarize(self, columns: temporal.Columns) -> dict[str, Score]:
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
        return scores | temporal.summarize(columns, self.strides) | network_scores(columns, self.networks) | feature_scores(columns)

    # --- sets

    def sample_reference_set(self) -> _SetSample | None:
        """What is known of the reference set; None where there is none, or nothing asks for it."""
        is_needed = any("reference_set" in METRICS[name].needs for name in self.chosen) or self._samples_features
        if self.reference_set is None or not is_needed:
            return None
        return self._sample(self.reference_set, None, as_stills=True)

    def _sample(self, where: str | Path, height: int | None, *, as_stills: bool) -> _SetSample:
        """All pictures, videos and folders of frames at `where`; at a height of their own, where none is set."""
        clips, are_stills = open_set(where, allow_truncated=self.allow_truncated, as_stills=as_stills)
        smallest = min(clip.size[0] for clip in clips)
        height = height or min(smallest, self.height or smallest)
        chosen = self.chosen if self._samples_features else self.chosen - KERNEL_METRICS
        sample = _SetSample.create(height, chosen, self.networks, are_stills=are_stills, seed=int(as_stills))
        for clip in clips:
            sample.start_clip(self.fps or (clip.frame_rate if isinstance(clip, VideoSource) else None))
            frames = pixels_of(clip if are_stills else resampled(clip, self.fps), clip.name)
            for pixels in progress.follow(frames, f"measuring {clip.name}", clip.num_frames):
                sample.add(pixels)
        return sample


def _remarks(inputs: Inputs, scores: Mapping[str, Score]) -> list[str]:
    digests = inputs.digests
    remarks = [
        f"the output is the {name} itself, pixel for pixel"
        for name in ("source", "target")
        if digests.get(name) == digests["output"]
    ]
    if (scores.get("motion_ratio", Score(None)).reason or "").startswith("source static"):
        remarks.append("the reference does not move: only its steadiness is compared")
    return remarks


def _file_hash(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _paired_row(before: temporal.Frames | None, now: temporal.Frames, chosen: frozenset[str]) -> dict[str, float]:
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


class _SegmentationMeter:
    """What the segmenter finds in the output and in the target, against the label maps."""

    def __init__(self, segmenting: _Segmenting | None, chosen: frozenset[str]) -> None:
        self._segmenter = None if segmenting is None else segmenting.network
        self._agreements: dict[str, Agreement] = {}
        self._chosen = chosen

    def add(self, pixels: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Per-frame accuracies."""
        row: dict[str, float] = {}
        if self._segmenter is None:
            return row
        labels = pixels["labels"]
        for name, suffix in (("output", ""), ("target", "_target")):
            if name in pixels and self._chosen & {f"pixel_acc{suffix}", f"miou{suffix}"}:
                predicted = self._segmenter.predict(pixels[name], (labels.shape[0], labels.shape[1]))
                empty = Agreement(self._segmenter.num_classes, self._segmenter.classes)
                agreement = self._agreements.setdefault(suffix, empty)
                row[f"pixel_acc{suffix}"], row["label_pixels"] = agreement.add(labels, predicted)
        return row

    def scores(self) -> dict[str, Score]:
        """Scores that do not follow from the accuracies of frames."""
        return {f"miou{suffix}": agreement.mean_iou() for suffix, agreement in self._agreements.items()}


@dataclass
class _SetSample:
    """What is kept of a video or of a set to compare them as sets; a half that nobody asks for stays None."""

    height: int
    chosen: frozenset[str]
    networks: MetricNetworks
    are_stills: bool
    distribution: DistributionSample | None
    features: SetMeter | None
    places: FeatureSample | None
    num_frames: int = field(default=0)

    @staticmethod
    def create(
        height: int, chosen: frozenset[str], networks: MetricNetworks, *, are_stills: bool = False, seed: int = 0
    ) -> _SetSample:
        needs_features = any("reference_set" in METRICS[name].needs and METRICS[name].weights for name in chosen)
        return _SetSample(
            height,
            chosen,
            networks,
            are_stills,
            DistributionSample(height, are_stills) if chosen & _DISTRIBUTION_SCORES else None,
            SetMeter(networks) if needs_features else None,
            FeatureSample(seed) if chosen & KERNEL_METRICS else None,
        )

    def empty_like(self, frame_rate: Fraction | None) -> _SetSample:
        """An empty one of one clip, to be compared with this."""
        sample = _SetSample.create(self.height, self.chosen, self.networks)
        sample.start_clip(frame_rate)
        return sample

    def start_clip(self, frame_rate: Fraction | None) -> None:
        if self.distribution is not None:
            self.distribution.start_clip()
        if self.features is not None:
            self.features.start_clip(None if frame_rate is None else float(frame_rate), is_still=self.are_stills)
        if self.places is not None:
            self.places.start_clip()

    def add(self, pixels: np.ndarray, reduced: Tensor | None = None) -> None:
        """Count a frame uint8 [H,W,3] in, and the same at the common size, where there is one."""
        self.num_frames += 1
        frame = as_tensor(pixels) if reduced is None else reduced
        if self.distribution is not None:
            self.distribution.add(frame)
        if self.places is not None and self.networks.features is not None:
            if self.are_stills:
                self.places.start_clip()
            self.places.add(unit_features(self.networks.features, quality.shrink(frame, self.height)))
        if self.features is not None:
            self.features.add(pixels)

    def scores(self, reference: _SetSample) -> dict[str, Score]:
        """How far this is from `reference`."""
        scores: dict[str, Score] = {}
        if self.distribution is not None and reference.distribution is not None:
            scores |= self.distribution.scores(reference.distribution)
        if self.features is not None and reference.features is not None:
            scores |= self.features.scores(reference.features, self.chosen)
        if self.places is not None and reference.places is not None:
            scores |= self.places.scores(reference.places)
        return scores
