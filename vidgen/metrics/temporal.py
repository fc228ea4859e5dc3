"""Is the video steady, and does it move as it should? Fed frame by frame; memory does not grow but for a few numbers per frame.

Flow and mask come from a reference (the source, or paired real frames), never from the video under test: an estimator
minimizes the very error that is measured. Frames are float [1,3,H,W] in 0..1, RGB; flow is [1,2,H,W] in pixels, from the grid
of the earlier frame into the later one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flow.warp import forward_backward_occlusion, warp
from vidgen.errors import InputError
from vidgen.metrics.quality import decibels, detail, frame_mean, grid_share, local_variance, luma
from vidgen.metrics.score import METRICS, Score

Columns = dict[str, np.ndarray]
"""Name -> one float64 per frame; a value that belongs to a pair stands at the later frame, NaN where there is none."""

FlowEstimator = Callable[[Tensor, Tensor], Tensor]
"""(first, second), both [N,3,H,W] in -1..1 -> [N,2,H,W], pixels, from the grid of the first into the second."""

REFERENCE_HEIGHT = 436
TEXTURED_VARIANCE = (4 / 255) ** 2
TEXTURELESS_VARIANCE = (0.5 / 255) ** 2
STATIC_PIXELS = 0.05
TOF_CAP_PIXELS = 10.0
FLICKER_BLOCK = 16
CHANGED_GRAY_LEVELS = 0.999  # one level of 255, less the rounding of float32
ROUNDING_ERROR = 2 / 12 / 255**2
DETAIL_BLOCK = 16
MIN_BLOCK_DETAIL = 1 / 255
SMEARED_SHARE = 0.4
MIN_SHARPNESS_RATIO, MAX_SMEARED, MAX_JUMPS, MAX_GRID, MAX_KERNEL_DISTANCE = 0.65, 0.25, 0.03, 0.25, 0.5
JUMP_RATIO, JUMP_RATIO_OF_REFERENCE, MIN_JUMP_PAIRS = 4.0, 2.5, 8
CUT_ERROR_RATIO, CUT_MIN_ERROR, CUT_COVERAGE = 10.0, 1e-3, 0.2
_SINGLE_FRAME_COLUMNS = (
    "sharpness",
    "sharpness_reference",
    "grid",
    "grid_reference",
    "detail_blocks",
    "smeared_blocks",
    "feature_distance",
    "psnr",
    "ssim",
    "ssim_luma",
    "ms_ssim",
    "lpips",
    "dists",
    "sifid",
)
_LABEL_COLUMNS = ("pixel_acc", "pixel_acc_target", "label_pixels")
_SPAN_OF_COLUMN = {**dict.fromkeys((*_SINGLE_FRAME_COLUMNS, *_LABEL_COLUMNS), 0), "luma_bend": 2}


@dataclass(frozen=True)
class Motion:
    """How the reference moves between two frames: flow [1,2,H,W] and the pixels that can be followed, bool [1,1,H,W]."""

    flow: Tensor
    mask: Tensor


def reference_motion(first: Tensor, second: Tensor, estimate: FlowEstimator) -> Motion:
    """Flow of `first` into `second` and where it can be trusted: in the frame, forward-backward consistent, no motion boundary.

    Source: Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, with an explicit test for pixels that leave the
    frame and the forward-backward constant scaled to the height, as it is meant for 436 lines.
    """
    forward, backward = _flow(estimate, first, second), _flow(estimate, second, first)
    occluded = forward_backward_occlusion(
        forward, backward, reference_height=REFERENCE_HEIGHT, with_motion_boundaries=True, with_out_of_frame=True
    )
    return Motion(forward, ~occluded)


def _flow(estimate: FlowEstimator, first: Tensor, second: Tensor) -> Tensor:
    return estimate(first * 2 - 1, second * 2 - 1)


def _length(flow: Tensor) -> Tensor:
    return torch.hypot(flow[:, :1], flow[:, 1:])


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of [N,C,H,W] over channels and the pixels of `mask` [N,1,H,W], float64 [N]; NaN where the mask is empty."""
    total = (values * mask).flatten(1).sum(dim=1, dtype=torch.float64)
    return total / (mask.flatten(1).sum(dim=1, dtype=torch.float64) * values.shape[1])


def warping_error(first: Tensor, second: Tensor, motion: Motion) -> Tensor:
    """Mean over followed pixels and channels of (second fetched along the flow - first)^2, [N]; NaN for an empty mask."""
    return masked_mean((warp(second, motion.flow) - first).square(), motion.mask)


def block_flicker(first: Tensor, second: Tensor, motion: Motion) -> Tensor:
    """Mean square over 16x16 blocks of the mean luma change along the flow, [N]; NaN where no block is at least half followed."""
    if min(first.shape[-2:]) < FLICKER_BLOCK:
        return first.new_full((len(first),), math.nan, dtype=torch.float64)
    change = (luma(warp(second, motion.flow)) - luma(first)) * motion.mask
    followed = F.avg_pool2d(motion.mask.double(), FLICKER_BLOCK)
    block_means = F.avg_pool2d(change.double(), FLICKER_BLOCK) / followed
    counted = followed >= 0.5
    return masked_mean(torch.where(counted, block_means.square(), 0), counted)


def textured(frames: Tensor) -> Tensor:
    """Pixels whose neighborhood has contrast enough (4 of 255) for flow to be more than noise; bool [N,1,H,W]."""
    return local_variance(luma(frames)) >= TEXTURED_VARIANCE


@dataclass(frozen=True)
class Frames:
    """What is known of one moment, at one size: the video under test and what it can be compared with."""

    output: Tensor
    source: Tensor | None = None
    target: Tensor | None = None

    def check(self, index: int) -> None:
        for name, frame in self.named():
            if frame.shape != self.output.shape:
                raise InputError(f"frame {index}: the {name} has shape {tuple(frame.shape)}, the output {tuple(self.output.shape)}")
            if not torch.isfinite(frame).all():
                raise InputError(f"frame {index}: the {name} holds values that are not finite")

    def named(self) -> list[tuple[str, Tensor]]:
        pairs = (("output", self.output), ("source", self.source), ("target", self.target))
        return [(name, frame) for name, frame in pairs if frame is not None]


@dataclass
class TemporalMeter:
    """Measures a video while it passes by.

    Attributes:
        strides: distances between the frames compared; 1 is among them. Even ones are blind to flicker of period two.
        estimate: flow of the output itself, for the metrics of motion.
        motion_of: motion of the reference between two frames; by default from `estimate`, and a place to cache.
        flow_from: which of the frames is the reference; None where there is none.
        farneback: Farneback's flow, to measure tOF with it too.
        chosen: metrics of the catalog; what neither they nor `verdict` need is left out of the rows.
    """

    strides: Sequence[int]
    estimate: FlowEstimator
    motion_of: Callable[[Tensor, Tensor], Motion] | None = None
    flow_from: str | None = "source"
    farneback: FlowEstimator | None = None
    chosen: Set[str] = frozenset(METRICS)
    _past: deque[Frames] = field(default_factory=deque)
    _lumas: deque[float] = field(default_factory=lambda: deque(maxlen=3))
    _index: int = 0

    def __post_init__(self) -> None:
        if 1 not in self.strides or min(self.strides) < 1:
            raise ValueError(f"strides: must be positive and contain 1, got {tuple(self.strides)}")
        self._past = deque(maxlen=max(self.strides))

    def add(self, now: Frames) -> dict[str, float]:
        """Measure the frame `now` against those before it; a row of `Columns`.

        Raises:
            InputError: sizes differ, or values are not finite.
        """
        now.check(self._index)
        fine = detail(now.output).abs()
        row = {"sharpness": frame_mean(fine).item(), "grid": grid_share(now.output).item()}
        if "flicker_global" in self.chosen:
            self._lumas.append(frame_mean(luma(now.output)).item())
        if len(self._lumas) == 3:
            row["luma_bend"] = (self._lumas[2] - 2 * self._lumas[1] + self._lumas[0]) / 4
        if self._past and self.chosen & {"frame_diff", "vbench_temporal_flickering"}:
            row["frame_diff"] = frame_mean((now.output - self._past[-1].output).abs()).item()
        if self.flow_from is not None:
            row |= _compare_detail(fine, getattr(now, self.flow_from))
            for stride in self.strides:
                row |= {_error_key(name, stride): math.nan for name, _ in now.named()}
                if stride <= len(self._past):
                    row |= self._measure_pair(self._past[-stride], now, stride)
        self._past.append(now)
        self._index += 1
        return row

    def _measure_pair(self, before: Frames, now: Frames, stride: int) -> dict[str, float]:
        first, second = getattr(before, self.flow_from or ""), getattr(now, self.flow_from or "")
        motion = self.motion_of(first, second) if self.motion_of else reference_motion(first, second, self.estimate)
        row = {f"coverage@{stride}": frame_mean(motion.mask.double()).item()}
        for (name, frame), (_, later) in zip(before.named(), now.named(), strict=True):
            row[_error_key(name, stride)] = warping_error(frame, later, motion).item()
            if stride == 1 and (name == "output" or f"warp_ratio_{name}" in self.chosen):
                row[f"variance_{name}"] = masked_mean(local_variance(frame), motion.mask).item()
        if stride == 1:
            row["reference_error"] = row[_error_key(self.flow_from or "", 1)]
            if self.chosen & {"flicker_local", "noise_temporal"}:
                row["block_flicker"] = block_flicker(before.output, now.output, motion).item()
            if "dup_frames" in self.chosen:
                row["changed"] = _largest_change(before.output, now.output)
                row["reference_changed"] = _largest_change(first, second)
            row |= self._compare_motion(before.output, now.output, first, motion)
            if self.farneback is not None:
                wrong = _flow(self.farneback, before.output, now.output) - _flow(self.farneback, first, second)
                row["tof_farneback"] = frame_mean(_length(wrong)).item()
        return row

    def _compare_motion(self, first: Tensor, second: Tensor, reference: Tensor, motion: Motion) -> dict[str, float]:
        """Sums over textured followed pixels, so that clips are not means of means."""
        where = textured(reference) & motion.mask
        moved = _flow(self.estimate, first, second)
        wrong = _length(moved - motion.flow)

        def total(values: Tensor) -> float:
            return values[where].sum(dtype=torch.float64).item()

        return {
            "textured": frame_mean(where.double()).item(),
            "motion_pixels": float(where.sum()),
            "motion_reference": total(_length(motion.flow)),
            "motion_output": total(_length(moved)),
            "motion_wrong": total(wrong),
            "motion_capped": total(wrong.clamp(max=TOF_CAP_PIXELS)),
        }


def _compare_detail(fine: Tensor, reference: Tensor) -> dict[str, float]:
    """Detail of the reference, and in how many of its detailed blocks of 16x16 pixels the output, `fine`, lost most of it."""
    fine_reference = detail(reference).abs()
    row = {"sharpness_reference": frame_mean(fine_reference).item(), "grid_reference": grid_share(reference).item()}
    if min(fine.shape[-2:]) < DETAIL_BLOCK:
        return row
    blocks, blocks_reference = (F.avg_pool2d(values, DETAIL_BLOCK) for values in (fine, fine_reference))
    counted = blocks_reference >= MIN_BLOCK_DETAIL
    smeared = counted & (blocks < SMEARED_SHARE * blocks_reference)
    return row | {"detail_blocks": float(counted.sum()), "smeared_blocks": float(smeared.sum())}


def _error_key(name: str, stride: int) -> str:
    return f"warp_error@{stride}" if name == "output" else f"warp_error_{name}@{stride}"


def _largest_change(first: Tensor, second: Tensor) -> float:
    """Largest change of any pixel, in gray levels of 255."""
    return (second - first).abs().max().item() * 255


def columns_of(rows: Iterable[dict[str, float]]) -> Columns:
    """Rows of a `TemporalMeter` as columns, NaN where a row lacks the value."""
    rows = list(rows)
    names = {name: None for row in rows for name in row}
    return {name: np.array([row.get(name, math.nan) for row in rows], dtype=np.float64) for name in names}


def find_cuts(columns: Columns) -> list[int]:
    """Frames at which the reference shows a new scene: its own warping error jumps tenfold, or hardly a pixel can be followed."""
    error, coverage = columns.get("reference_error"), columns.get("coverage@1")
    if error is None or coverage is None or not np.isfinite(error).any():
        return []
    jumps = error > max(CUT_ERROR_RATIO * np.nanmedian(error), CUT_MIN_ERROR)
    lost = coverage < min(CUT_COVERAGE, np.nanmedian(coverage) / 2)
    return [int(index) for index in np.flatnonzero(jumps | lost)]


def without_cuts(columns: Columns, cuts: Sequence[int]) -> Columns:
    """The same columns with NaN wherever a value rests on frames of two scenes."""
    result = {name: values.copy() for name, values in columns.items()}
    for name, values in result.items():
        span = int(name.partition("@")[2] or _SPAN_OF_COLUMN.get(name, 1))
        for cut in cuts:
            values[cut : cut + span] = np.nan
    return result


def mean_score(columns: Columns, name: str, reason: str, *, span: int = 0) -> Score:
    """Mean of the finite values of a column; `span` is how many leading frames cannot have one."""
    values = columns.get(name, np.empty(0))
    used = values[np.isfinite(values)]
    possible = max(len(values) - span, 0)
    return Score.of(used.mean() if len(used) else math.nan, len(used), possible - len(used), reason)


def summarize(columns: Columns, strides: Sequence[int]) -> dict[str, Score]:
    """Every temporal score of a clip from its columns (see `without_cuts`); keys are those of the catalog."""
    length = len(columns["sharpness"])
    scores = {"frame_diff": mean_score(columns, "frame_diff", _too_short(2, length), span=1)}
    still = scores["frame_diff"]
    scores["vbench_temporal_flickering"] = still if still.value is None else Score(1 - still.value, still.count, still.skipped)
    bend = mean_score({"square": columns.get("luma_bend", np.empty(0)) ** 2}, "square", _too_short(3, length), span=2)
    scores["flicker_global"] = _transformed(bend, lambda square: 255 * math.sqrt(square))
    scores["grid"] = mean_score(columns, "grid", "needs frames of at least 34 pixels that are not flat")
    if "grid_reference" in columns:
        scores["grid_reference"] = mean_score(columns, "grid_reference", "needs frames of at least 34 pixels that are not flat")
    if "sharpness_reference" in columns:
        scores |= _against_reference(columns, strides, length)
    return scores


def _against_reference(columns: Columns, strides: Sequence[int], length: int) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    for stride in strides:
        lost = _too_short(stride + 1, length) if length <= stride else "no pixel can be followed from frame to frame (empty mask)"
        for key in (_error_key(name, stride) for name in ("output", "source", "target")):
            if key in columns:
                scores[key] = mean_score(columns, key, lost, span=stride)
        scores[f"warp_psnr@{stride}"] = _transformed(scores[f"warp_error@{stride}"], _decibels)
        scores[f"coverage@{stride}"] = mean_score(columns, f"coverage@{stride}", _too_short(stride + 1, length), span=stride)
    scores |= _normalized(columns, scores)
    scores |= _flicker_and_noise(columns, scores["warp_error@1"], length)
    scores |= _motion(columns, length)
    scores["dup_frames"] = _duplicates(columns, length)
    scores["jumps"] = _jumps(columns, length)
    scores["smeared"] = _smeared(columns)
    small = "frames of less than 5 pixels have no sharpness"
    sharp, sharp_reference = (mean_score(columns, name, small) for name in ("sharpness", "sharpness_reference"))
    scores["sharpness_ratio"] = _ratio(sharp, sharp_reference, 1e-4, "the reference is blank: it has no sharpness to compare with")
    scores["pairs"] = Score(float(scores["warp_error@1"].count), length)
    return scores


def _normalized(columns: Columns, scores: dict[str, Score]) -> dict[str, Score]:
    """warp_error over local variance, of the output and of what it is compared with."""
    normal: dict[str, Score] = {}
    for name in ("output", "source", "target"):
        error = scores.get(_error_key(name, 1))
        if error is not None:
            variance = mean_score(columns, f"variance_{name}", error.reason or "empty mask", span=1)
            normal[name] = _ratio(error, variance, TEXTURELESS_VARIANCE, f"the {name} has no texture: 0 over 0")
            if name != "output" and error.value is not None and error.value < ROUNDING_ERROR:
                normal[name] = Score.missing(f"the {name} is steadier than 8-bit rounding: any ratio to it is arbitrary")
    result = {"warp_error_norm": normal.pop("output")}
    return result | {f"warp_ratio_{name}": _ratio(result["warp_error_norm"], score, 0, "") for name, score in normal.items()}


def _flicker_and_noise(columns: Columns, error: Score, length: int) -> dict[str, Score]:
    lost = error.reason or f"no {FLICKER_BLOCK}x{FLICKER_BLOCK} block can be followed"
    blocks = mean_score(columns, "block_flicker", lost, span=1)
    noise = Score.missing(blocks.reason or lost)
    if error.value is not None and blocks.value is not None:
        noise = Score(255 * math.sqrt(max(0.0, error.value - blocks.value) / 2), blocks.count, blocks.skipped)
    return {"flicker_local": _transformed(blocks, lambda square: 255 * math.sqrt(square) / 2), "noise_temporal": noise}


def _motion(columns: Columns, length: int) -> dict[str, Score]:
    """Motion of the output against that of the reference, from sums over textured followed pixels."""
    sums = {
        name: float(np.nansum(columns.get(f"motion_{name}", 0))) for name in ("pixels", "reference", "output", "wrong", "capped")
    }
    count = int(np.isfinite(columns.get("motion_pixels", np.empty(0))).sum())
    lost = _too_short(2, length) if length < 2 else "no textured pixel can be followed"
    scores = {"textured": mean_score(columns, "textured", _too_short(2, length), span=1)}
    if not sums["pixels"]:
        return scores | {name: Score.missing(lost) for name in ("motion_fidelity", "tof", "motion_ratio")}
    scores["tof"] = Score(sums["capped"] / sums["pixels"], count)
    if "tof_farneback" in columns:
        scores["tof_farneback"] = mean_score(columns, "tof_farneback", lost, span=1)
    if sums["reference"] / sums["pixels"] < STATIC_PIXELS:
        static = Score.missing(f"source static: the reference moves less than {STATIC_PIXELS} pixels a frame")
        return scores | {"motion_fidelity": static, "motion_ratio": static}
    scores["motion_fidelity"] = Score(sums["wrong"] / sums["reference"], count)
    scores["motion_ratio"] = Score(sums["output"] / sums["reference"], count)
    return scores


def _duplicates(columns: Columns, length: int) -> Score:
    changes = columns.get("reference_changed", np.empty(0)) >= CHANGED_GRAY_LEVELS
    if not changes.any():
        return Score.missing(_too_short(2, length) if length < 2 else "source static: the frames of the reference repeat too")
    return Score(float((columns["changed"][changes] < CHANGED_GRAY_LEVELS).mean()), int(changes.sum()))


def _jumps(columns: Columns, length: int) -> Score:
    """Share of the pairs at which the output changes along the motion far more than at others, and the reference does not."""
    error, reference = (columns.get(name, np.empty(0)) for name in ("warp_error@1", "reference_error"))
    known = np.isfinite(error) & np.isfinite(reference)
    if known.sum() < MIN_JUMP_PAIRS:
        return Score.missing(f"needs at least {MIN_JUMP_PAIRS} pairs of frames that can be followed, got {int(known.sum())}")
    error, reference = error[known], reference[known]
    usual, usual_reference = (max(float(np.median(values)), ROUNDING_ERROR) for values in (error, reference))
    jumps = (error > JUMP_RATIO * usual) & (error / usual > JUMP_RATIO_OF_REFERENCE * reference / usual_reference)
    return Score.of(float(jumps.mean()), int(known.sum()), length - 1 - int(known.sum()))


def _smeared(columns: Columns) -> Score:
    counted, smeared = (float(np.nansum(columns.get(name, 0))) for name in ("detail_blocks", "smeared_blocks"))
    if not counted:
        return Score.missing(f"the reference has no {DETAIL_BLOCK}x{DETAIL_BLOCK} block with detail")
    return Score(smeared / counted, int(np.isfinite(columns["detail_blocks"]).sum()))


def _ratio(top: Score, bottom: Score, smallest: float, reason: str) -> Score:
    if top.value is None or bottom.value is None:
        return Score.missing(top.reason or bottom.reason or reason)
    if bottom.value <= smallest:
        return Score.missing(reason)
    return Score(top.value / bottom.value, top.count, top.skipped)


def _transformed(score: Score, change: Callable[[float], float]) -> Score:
    return score if score.value is None else Score(change(score.value), score.count, score.skipped)


def _decibels(error: float) -> float:
    return decibels(torch.tensor(error, dtype=torch.float64)).item()


def _too_short(needed: int, length: int) -> str:
    if length >= needed:
        return f"no {needed} frames in a row without a cut"
    return f"needs at least {needed} frames, got {length}"


def verdict(scores: dict[str, Score]) -> list[str]:
    """Why this video should not be ranked by its warping error, in words; empty where nothing speaks against it."""
    if "warp_error@1" not in scores:
        return ["its steadiness was not measured: there is no source and no target, or the metrics asked for do without"]
    reasons = []

    def value(key: str) -> float:
        score = scores[key].value if key in scores else None
        return math.nan if score is None else score

    ratio = value("motion_ratio")
    if not math.isnan(ratio) and not 0.7 <= ratio <= 1.4:
        reasons.append(f"output moves {ratio:.2f}x as much as the reference: warping error is not meaningful")
    if value("sharpness_ratio") < MIN_SHARPNESS_RATIO:
        reasons.append(f"output is only {value('sharpness_ratio'):.2f}x as sharp as the reference: blur lowers the warping error")
    if value("smeared") > MAX_SMEARED:
        reasons.append(
            f"{value('smeared'):.0%} of the detailed blocks are smeared: dragged and blurred parts are steady for nothing"
        )
    if value("jumps") > MAX_JUMPS:
        reasons.append(f"{value('jumps'):.0%} of the frames jump against the one before: the mean hides what happens in between")
    usual = value("grid_reference")
    if value("grid") > (MAX_GRID if math.isnan(usual) else max(MAX_GRID, 2 * usual)):
        reasons.append(f"{value('grid'):.0%} of the finest detail is a pattern that repeats every 2, 4 or 8 pixels")
    if value("kernel_distance/8") > MAX_KERNEL_DISTANCE:
        reasons.append(f"textures are unlike real ones: kernel_distance/8 is {value('kernel_distance/8'):.2f}")
    if value("textured") < 0.05:
        reasons.append(f"only {value('textured'):.1%} of the pixels have texture and can be followed: motion cannot be assessed")
    if value("coverage@1") < 0.5:
        reasons.append(f"only {value('coverage@1'):.0%} of the pixels can be followed from frame to frame")
    if scores["warp_error_norm"].value is None:
        reasons.append(f"no warping error relative to texture: {scores['warp_error_norm'].reason}")
    return reasons
