"""How good the pictures are that a single one was the model for: alike, different from each other, and no mere copies; and how
good an animation of one is.

No number alone says it: a copy of the picture has a distance of 0, noise has the greatest diversity. They come together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flow.engines import estimate
from vidgen.metrics.distribution import PatchSample
from vidgen.metrics.learned import TOO_SMALL, MetricNetworks, single_image_distance
from vidgen.metrics.quality import luma, sharpness
from vidgen.metrics.score import Score

COPY_WINDOW = 11
COPY_SIDE = 128
"""Copies are looked for in pictures whose shorter side has at most so many pixels."""
COPY_TOLERANCE = 6 / 255
"""Root mean square difference below which a patch counts as copied."""
_TEXTURED = 8 / 255
_NUM_QUERIES = 1024
_MIN_FLOW_SIDE = 32
_RIM_PARTS = 80
"""A picture's longer side in widths of what counts as its rim."""


def single_scores(samples: Sequence[Tensor], original: Tensor) -> dict[str, Score]:
    """The three numbers that belong together.

    Args:
        samples: pictures [3,H,W], float32 in 0..1, of any size.
        original: the picture they were generated from, [3,H,W].

    Returns:
        `swd`: sliced Wasserstein distance of patches over scales, mean over the samples; low is alike. `diversity`: of samples of
        one size. `copy`: share of textured patches that stand in the original as they are.
    """
    distances = [patch_distance(sample, original) for sample in samples]
    copies = [copy_share(sample, original) for sample in samples]
    return {
        "swd": Score.of(_mean(distances), len(samples), reason="pictures are smaller than a patch of 7 pixels"),
        "diversity": diversity(samples, original),
        "copy": Score.of(_mean(copies), len(samples), reason=f"pictures have no {COPY_WINDOW}x{COPY_WINDOW} patch with texture"),
    }


def patch_distance(sample: Tensor, original: Tensor) -> float:
    """Sliced Wasserstein distance x 1000 of 7x7 patches, mean over the levels of a Laplacian pyramid; [3,H,W] in 0..1 each.

    Source: Karras et al., "Progressive Growing of GANs", ICLR 2018; the pictures are cut into many patches each, for one has few.
    """
    sets = []
    for picture in (sample, original):
        patches = PatchSample()
        for shift in range(16):  # patches are drawn anew for each content; a shift by a pixel is another content
            patches.add(picture[:, shift // 4 :, shift % 4 :].contiguous())
        sets.append(patches)
    return _mean(sets[0].distances(sets[1]))


def diversity(samples: Sequence[Tensor], original: Tensor) -> Score:
    """Standard deviation of each pixel's intensity over the samples, mean over the pixels, over that of the original's intensity.

    Source: Shaham et al., "SinGAN", ICCV 2019, section 3.
    """
    sizes = {tuple(sample.shape) for sample in samples}
    if len(samples) < 2 or len(sizes) > 1:
        return Score.missing(f"needs two samples of one size, got {len(samples)} of {len(sizes)} sizes")
    spread = original.mean(dim=0).std(correction=0).item()
    if spread == 0:
        return Score.missing("the original is of one brightness")
    intensities = torch.stack([sample.mean(dim=0) for sample in samples])
    return Score.of(intensities.std(dim=0, correction=0).mean().item() / spread, len(samples), reason="")


def copy_share(sample: Tensor, original: Tensor) -> float:
    """Share of the sample's textured patches (11x11, both pictures reduced alike) that stand in the original, anywhere.

    Returns:
        0..1, NaN where there is no such patch.
    """
    scale = min(1.0, COPY_SIDE / min(original.shape[1:]))
    reduced = [
        F.interpolate(picture[None], scale_factor=scale, mode="bicubic", antialias=True) if scale < 1 else picture[None]
        for picture in (sample, original)
    ]
    if any(min(picture.shape[2:]) < COPY_WINDOW for picture in reduced):
        return math.nan
    queries, keys = (F.unfold(picture, COPY_WINDOW)[0].T for picture in reduced)
    queries = queries[queries.view(len(queries), 3, -1).std(dim=2).mean(dim=1) > _TEXTURED]
    if not len(queries):
        return math.nan
    chosen = torch.linspace(0, len(queries) - 1, min(_NUM_QUERIES, len(queries))).long()
    queries = queries[chosen]
    middle = keys.mean(dim=0)
    queries, keys = queries - middle, keys - middle
    lengths = keys.square().sum(dim=1)
    nearest = torch.cat(
        [(part.square().sum(dim=1)[:, None] + lengths - 2 * part @ keys.T).min(dim=1).values for part in queries.split(256)]
    )
    return (nearest / keys.shape[1] < COPY_TOLERANCE**2).float().mean().item()


def sifid(networks: MetricNetworks, samples: Sequence[np.ndarray], original: np.ndarray) -> Score:
    """Single-image Fréchet distance of the samples to the original, mean over them; low is alike. Pictures are uint8 [H,W,3].

    Source: Shaham et al., "SinGAN", ICCV 2019, section 3.
    """
    assert networks.sifid is not None
    distances = [single_image_distance(networks.sifid, sample, original) for sample in samples]
    return Score.of(_mean(distances), len(samples), reason=TOO_SMALL).noted(networks.note("sifid"))


def mean_motion(first: Tensor, second: Tensor) -> float:
    """Mean length of the optical flow between two pictures [1,3,H,W] in -1..1, pixels; NaN where they are too small to tell."""
    if min(first.shape[2:]) < _MIN_FLOW_SIDE:
        return math.nan
    return float(estimate(first.clamp(-1, 1), second.clamp(-1, 1)).norm(dim=1).mean())


class AnimationMeter:
    """Takes the frames of an animation one by one, and says how they compare with what they show.

    Args:
        original: the picture, or the frames of the clip, uint8 [H,W,3] at the frames' size.
    """

    def __init__(self, original: Sequence[np.ndarray]) -> None:
        pictures = [_unit(pixels) for pixels in original]
        self._sharpness = _mean([float(sharpness(picture)) for picture in pictures])
        self._rim = torch.stack([_rim(picture) for picture in pictures]).mean(dim=0)
        self._before: Tensor | None = None
        self._rows: dict[str, list[float]] = {"motion": [], "sharpness": []}
        self._rims: list[Tensor] = []

    def add(self, pixels: np.ndarray) -> None:
        """The next frame, uint8 [H,W,3]."""
        frame = _unit(pixels)
        self._rows["sharpness"].append(float(sharpness(frame)))
        self._rims.append(_rim(frame))
        if self._before is not None:
            self._rows["motion"].append(mean_motion(2 * self._before - 1, 2 * frame - 1))
        self._before = frame

    def scores(self) -> dict[str, Score]:
        """
        Returns:
            `motion`: mean optical flow from frame to frame, pixels. `sharpness`: of the frames over that of the original; 1 is
            equal. `rim`: brightness of the outermost pixels over that of the original, at the side that differs most; 1 is equal.
        """
        count = len(self._rims)
        result = {"motion": Score.of(_mean(self._rows["motion"]), count - 1, reason="frames are too small, or only one")}
        flat = "the original is flat" if self._sharpness == 0 else "frames are too small"
        ratio = _mean(self._rows["sharpness"]) / self._sharpness if self._sharpness else math.nan
        result["sharpness"] = Score.of(ratio, count, reason=flat)
        sides = (torch.stack(self._rims).mean(dim=0) + _TEXTURED) / (self._rim + _TEXTURED)
        result["rim"] = Score.of(float(sides[(sides - 1).abs().argmax()]), count, reason="")
        return result


def _unit(pixels: np.ndarray) -> Tensor:
    """uint8 [H,W,3] as float [1,3,H,W] in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255


def _rim(frame: Tensor) -> Tensor:
    """Mean luma of the four sides' outermost pixels [4], 0..1."""
    width = max(1, round(max(frame.shape[2:]) / _RIM_PARTS))
    brightness = luma(frame)[0, 0]
    sides = (brightness[:width], brightness[-width:], brightness[:, :width], brightness[:, -width:])
    return torch.stack([side.mean() for side in sides])


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
