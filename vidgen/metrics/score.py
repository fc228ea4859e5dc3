"""A measured value, or the reason why there is none; and the catalog of everything that can be measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["low", "high", "one", "context"]
"""Which way a value is better; "one": a ratio that is best at 1; "context": it says how far to trust the others."""

Need = Literal["source", "target", "reference", "real", "reference_set", "segmenter", "labels", "styles"]
"""What a metric needs besides the video under test; "reference" is the motion of the source or of the target, "real" are real
pictures: the target, or the reference set where there is no target."""


@dataclass(frozen=True)
class Metric:
    """What a key of a report means.

    Attributes:
        unit: of the value.
        needs: all that must be there besides the video under test.
        about: one line.
        weights: the published network that it needs, one of `vidgen.evaluation.networks.WEIGHTS`; empty for none.
    """

    unit: str
    better: Better
    needs: frozenset[Need]
    about: str
    weights: str = ""


_ALONE: frozenset[Need] = frozenset()
_REFERENCE: frozenset[Need] = frozenset({"reference"})
_SOURCE: frozenset[Need] = frozenset({"reference", "source"})
_TARGET_MOTION: frozenset[Need] = frozenset({"reference", "target"})
_TARGET: frozenset[Need] = frozenset({"target"})
_REAL: frozenset[Need] = frozenset({"real"})
_LITE0 = "efficientnet_lite0"
_SET: frozenset[Need] = frozenset({"reference_set"})
_LABELS: frozenset[Need] = frozenset({"segmenter", "labels"})


METRICS: dict[str, Metric] = {
    "warp_error": Metric("squared intensity 0..1", "low", _REFERENCE, "mean squared change along the motion, visible pixels, RGB"),
    "warp_psnr": Metric("dB", "high", _REFERENCE, "warp_error in decibels, at most 100"),
    "warp_error_norm": Metric("ratio", "low", _REFERENCE, "warp_error@1 over the local 7x7 variance: a blur does not help"),
    "warp_error_source": Metric("squared intensity 0..1", "low", _SOURCE, "warp_error of the source itself"),
    "warp_error_target": Metric("squared intensity 0..1", "low", _TARGET_MOTION, "warp_error of the target itself"),
    "warp_ratio_source": Metric("ratio", "one", _SOURCE, "warp_error_norm over that of the source: 1 is as steady as the input"),
    "warp_ratio_target": Metric(
        "ratio", "one", _TARGET_MOTION, "warp_error_norm over that of the target: 1 is as steady as the ground truth"
    ),
    "motion_fidelity": Metric("ratio", "low", _REFERENCE, "wrong motion over true motion, textured pixels: 0 perfect, 1 frozen"),
    "tof": Metric("pixels", "low", _REFERENCE, "mean difference of motion on textured pixels, each capped at 10"),
    "tof_farneback": Metric("pixels", "low", _REFERENCE, "tof as TecoGAN computes it: Farneback flow, all pixels, no cap"),
    "motion_ratio": Metric("ratio", "one", _REFERENCE, "how much the output moves over how much the reference moves"),
    "flicker_global": Metric(
        "gray levels 0..255", "low", _ALONE, "brightness going back and forth; the amplitude of an alternation"
    ),
    "flicker_local": Metric("gray levels 0..255", "low", _REFERENCE, "change of 16x16 blocks along the motion: blotches"),
    "noise_temporal": Metric("gray levels 0..255", "low", _REFERENCE, "what of warp_error@1 is independent from pixel to pixel"),
    "frame_diff": Metric("intensity 0..1", "context", _ALONE, "mean absolute difference of neighboring frames"),
    "vbench_temporal_flickering": Metric("1 - intensity", "context", _ALONE, "1 - frame_diff, as VBench has it: best when frozen"),
    "dup_frames": Metric("fraction", "low", _REFERENCE, "repeated frames, among those where the reference changes"),
    "jumps": Metric("fraction", "low", _REFERENCE, "frames that change far more than others, where the reference does not"),
    "sharpness_ratio": Metric("ratio", "one", _REFERENCE, "detail over that of the reference; patterns of a grid are no detail"),
    "smeared": Metric("fraction", "low", _REFERENCE, "detailed 16x16 blocks of the reference in which most detail is lost"),
    "grid": Metric("fraction", "low", _ALONE, "finest detail that repeats every 2, 4 or 8 pixels; 0.06 without a pattern"),
    "grid_reference": Metric("fraction", "context", _REFERENCE, "grid of the reference"),
    "coverage": Metric("fraction", "context", _REFERENCE, "pixels that can be followed, so that count in warp_error"),
    "textured": Metric("fraction", "context", _REFERENCE, "pixels with texture enough to have a motion"),
    "pairs": Metric("count", "context", _REFERENCE, "pairs of neighboring frames measured"),
    "cuts": Metric("count", "context", _REFERENCE, "scene cuts found in the reference; no pair across one is measured"),
    "psnr": Metric("dB", "high", _TARGET, "mean of the frames' peak signal-to-noise ratio, RGB; equal frames count 100"),
    "ssim": Metric("index", "high", _TARGET, "structural similarity, Gaussian window of sigma 1.5, mean of R, G and B"),
    "ssim_luma": Metric("index", "high", _TARGET, "structural similarity of luma"),
    "ms_ssim": Metric("index", "high", _TARGET, "structural similarity over five scales, RGB"),
    "tpsnr": Metric("dB", "high", _TARGET, "psnr of frame differences"),
    "tssim": Metric("index", "high", _TARGET, "structural similarity of frame differences, luma"),
    "feature_distance": Metric(
        "distance", "low", _TARGET, "of EfficientNet-Lite0's features at the same place, five depths; not fitted to people", _LITE0
    ),
    "temporal_feature_distance": Metric(
        "distance", "low", _TARGET, "the same of how features change from frame to frame: wrong motion, flicker, freezing", _LITE0
    ),
    "kernel_distance": Metric(
        "distance", "low", _REAL, "MMD of the same features at strides 8 and 16, every place a sample: unlike textures", _LITE0
    ),
    "pair_kernel_distance": Metric(
        "distance", "low", _REAL, "the same at stride 8, of two frames in a row at one place: unlike changes", _LITE0
    ),
    "swd": Metric("x 1000", "low", _SET, "sliced Wasserstein distance of 7x7 patches, mean over scales"),
    "swd_t": Metric("x 1000", "low", _SET, "swd of luma patches 7x7 pixels by 3 frames; needs clips in the set"),
    "niqe_ref": Metric("distance", "low", _SET, "natural-scene statistics against a model fitted to the reference set"),
    "color_distance": Metric("gray levels 0..255", "low", _SET, "sliced earth mover's distance of the colors"),
    "pixel_acc": Metric("fraction", "high", _LABELS, "pixels in which the segmenter finds the class of the label map"),
    "miou": Metric("fraction", "high", _LABELS, "intersection over union, mean over the classes that occur"),
    "pixel_acc_target": Metric("fraction", "context", _LABELS | _TARGET, "pixel_acc of the target: what the segmenter can do"),
    "miou_target": Metric("fraction", "context", _LABELS | _TARGET, "miou of the target: what the segmenter can do"),
    "lpips": Metric("distance", "low", _TARGET, "learned perceptual distance, mean over frames", "lpips"),
    "tlp": Metric("distance x 100", "low", _TARGET, "TecoGAN's tLP: how the perceptual change of frames differs", "lpips"),
    "dists": Metric("distance", "low", _TARGET, "deep structure and texture dissimilarity, mean over frames", "dists"),
    "sifid": Metric("distance", "low", _TARGET, "SinGAN's single-image Fréchet distance, mean over frames", "sifid"),
    "fid": Metric("distance", "low", _SET, "Fréchet distance of Inception features, one frame a second", "inception"),
    "kid": Metric("distance", "low", _SET, "kernel distance of the same features; unbiased, so about 0 at best", "inception"),
    "fvd": Metric(
        "distance",
        "low",
        _SET,
        "Fréchet distance of I3D logits: 16 frames in a row, squashed to 224x224, not smoothed",
        "i3d",
    ),
    "kvd": Metric("distance", "low", _SET, "kernel distance of the same logits; unbiased, so about 0 at best", "i3d"),
    "style_retrieval": Metric(
        "fraction", "high", frozenset({"styles"}), "results whose own style picture is the one most alike in colors, of all styles"
    ),
    "clip_consistency": Metric(
        "cosine", "context", _ALONE, "likeness to the frame before and the first, by CLIP; a frozen one has 1", "clip"
    ),
    "dino_consistency": Metric(
        "cosine", "context", _ALONE, "likeness to the frame before and the first, by DINO; a frozen one has 1", "dino"
    ),
}


@dataclass(frozen=True)
class Score:
    """One value of a report.

    Attributes:
        value: finite, or None with a `reason`; never a number that stands for "could not be measured".
        count: how many frames, pairs or samples it rests on.
        skipped: how many more there were that could not be used.
        reason: why there is no value.
        note: how far to trust the value, where there is something to say.
        deviation: of the value over random subsets of the samples, where it is measured so.
    """

    value: float | None
    count: int = 0
    skipped: int = 0
    reason: str | None = None
    note: str | None = None
    deviation: float | None = None

    @staticmethod
    def of(value: float, count: int, skipped: int = 0, reason: str = "not a number") -> Score:
        """`value` where it is finite, else None because of `reason`."""
        if count > 0 and math.isfinite(value):
            return Score(float(value), count, skipped)
        return Score.missing(reason, skipped)

    @staticmethod
    def missing(reason: str, skipped: int = 0) -> Score:
        return Score(None, 0, skipped, reason)

    def noted(self, note: str | None) -> Score:
        """The same with `note` added, where there is a value to speak of."""
        if note is None or self.value is None:
            return self
        return replace(self, note=note if self.note is None else f"{self.note}; {note}")


RENAMED = {"colour_distance": "color_distance"}
"""Names in scores of vidgen 0.1 that are called otherwise today."""


def base_of(key: str) -> str:
    """The catalog name in a key of a report: `warp_error` of `warp_error@3`, `swd` of `swd/2`."""
    return key.partition("@")[0].partition("/")[0]


def metric_of(key: str) -> Metric:
    """The catalog entry of a key of a report."""
    return METRICS[base_of(key)]
