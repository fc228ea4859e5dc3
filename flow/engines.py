"""One interface over several ways to estimate optical flow."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


class Dis:
    """Dense inverse search of OpenCV, medium preset with finest scale 0 and 10 variational iterations.

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._dis.setFinestScale(0)
        self._dis.setVariationalRefinementIterations(10)

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow from the grid of `first` into `second`, both [N,3,H,W] in -1..1; [N,2,H,W] in pixels."""
        pairs = zip(_luma(first), _luma(second), strict=True)
        flows = [self._dis.calc(a, b, None) for a, b in pairs]
        return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).contiguous().to(first.device)


def _luma(images: Tensor) -> list[np.ndarray]:
    pixels = ((images.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in pixels]
