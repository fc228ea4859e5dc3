"""TemporalSmoother videos from models that make every frame alone: each frame is blended with the one before it, moved along."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flow.engines import create_engine
from flow.warp import forward_backward_occlusion, resize_flow, warp
from vidgen.media.pixels import to_pixels, to_tensor

MOTION_HEIGHT = 288
"""Motion is estimated at no more than this height: flicker is a matter of areas, and time grows with the pixels."""

_REFERENCE_HEIGHT = 436
_SAME_COLOR = 0.1


class TemporalSmoother:
    """Blends each generated frame with the previous result, warped along the motion of the source frames.

    Motion comes from the source (frames, or label maps in color), never from the flickering result. Where the source cannot be
    followed from its previous frame - it is occluded, enters the picture, or looks different - the new frame stays as it is.
    Source: the forward-backward test of Sundaram et al., ECCV 2010; see `flow.warp.forward_backward_occlusion`.

    Args:
        weight: 0..1, share of the previous result where it can be followed.
        engine: a name that `flow.engines.create_engine` knows.
    """

    def __init__(self, weight: float, engine: str = "dis") -> None:
        self.weight = weight
        self._estimate = create_engine(engine)
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, generated: np.ndarray, source: np.ndarray) -> np.ndarray:
        """The next frame of the smoothed video.

        Args:
            generated: uint8 [H,W,3], the frame that the model gave.
            source: uint8 [H,W,3], what it was generated from.
        """
        result, current = to_tensor(generated)[None], _reduced(to_tensor(source)[None])
        if self._last is not None:
            last_result, previous = self._last
            flow, visible = self._motion(current, previous)
            size = (generated.shape[0], generated.shape[1])
            share = self.weight * F.interpolate(visible, size=size, mode="bilinear", align_corners=False)
            result = torch.lerp(result, warp(last_result, resize_flow(flow, size)), share)
        self._last = result, current
        return to_pixels(result[0])

    def _motion(self, current: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Flow of `current` into `previous` [1,2,h,w], and where it can be followed, 0 or 1, [1,1,h,w]."""
        flow, backward = self._estimate(current, previous), self._estimate(previous, current)
        occluded = forward_backward_occlusion(flow, backward, reference_height=_REFERENCE_HEIGHT)
        same = (warp(previous, flow) - current).abs().mean(1, keepdim=True) < _SAME_COLOR
        return flow, (same & ~occluded).float()


def _reduced(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    if height <= MOTION_HEIGHT:
        return image
    size = (MOTION_HEIGHT, round(width * MOTION_HEIGHT / height))
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
