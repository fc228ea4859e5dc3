"""How good the pictures are that a single one was the model for: alike, different from each other, and no mere copies.

No number alone says it: a copy of the picture has a distance of 0, noise has the greatest diversity. They come together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.metrics.distribution import PatchSample
from vidgen.metrics.learned import TOO_SMALL, MetricNetworks, single_image_distance
from vidgen.metrics.score import Score

COPY_WINDOW = 11
COPY_SIDE = 128
"""Copies are looked for in pictures whose shorter side has at most so many pixels."""
COPY_TOLERANCE = 6 / 255
"""Root mean square difference below which a patch counts as copied."""
_TEXTURED = 8 / 255
_NUM_QUERIES = 1024


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


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
