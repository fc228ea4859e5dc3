"""Pictures of motion and of unsteadiness at the moments that matter most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from flow.engines import create_engine
from flow.files import flow_to_picture, picture_scale
from flow.warp import warp
from vidgen.media.frames import FrameSource
from vidgen.metrics import quality
from vidgen.metrics.temporal import FlowEstimator, reference_motion
from vidgen.pages.templates import picture_uri

NUM_MOMENTS = 4
MIN_ERROR_SCALE = 8.0
_NOT_FOLLOWED = (128, 128, 128)
_WHEEL_PIXELS = 72


@dataclass(frozen=True)
class _Pair:
    """What happens between two frames: float [1,3,H,W] in 0..1 each."""

    first: Tensor
    second: Tensor

    @staticmethod
    def read(source: FrameSource, index: int, size: tuple[int, int]) -> _Pair:
        """Frames `index` - 1 and `index` at `size` = (height, width)."""
        frames = [
            torch.from_numpy(np.ascontiguousarray(frame.pixels.transpose(2, 0, 1))) for frame in source.read(index - 1, index + 1)
        ]
        return _Pair(*(quality.shrink(frame[None].float() / 255, *size) for frame in frames))


def choose_moments(errors: Mapping[str, np.ndarray], num_frames: int) -> dict[int, str]:
    """Frames worth a look, with the reason: where each output is least steady, and one at which nothing special happens."""
    moments: dict[int, str] = {}
    for name, values in errors.items():
        if np.isfinite(values).any() and len(moments) < NUM_MOMENTS - 1:
            moments.setdefault(int(np.nanargmax(values)), f"{name} is least steady")
    pooled = [values for values in errors.values() if np.isfinite(values).any()]
    if pooled:
        total = np.nansum([values / np.nanmedian(values) if np.nanmedian(values) > 0 else values for values in pooled], axis=0)
        usual = np.abs(total - np.median(total[1:])) if len(total) > 1 else total
        usual[0] = np.inf
        moments.setdefault(int(np.argmin(usual)), "an ordinary moment")
    return {index: why for index, why in sorted(moments.items()) if 0 < index < num_frames}


def draw(
    reference: FrameSource, outputs: Mapping[str, FrameSource], moments: Mapping[int, str], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """For each moment: the reference and its motion; of each output its motion and where it changes along that of the reference.

    Motion is DIS's, of the frame before into the frame, as the scores have it.

    Raises:
        InputError: a frame cannot be read.
    """
    estimate = create_engine("dis")
    return [_moment(reference, outputs, index, why, size, estimate) for index, why in moments.items()]


def _moment(
    reference: FrameSource,
    outputs: Mapping[str, FrameSource],
    index: int,
    why: str,
    size: tuple[int, int],
    estimate: FlowEstimator,
) -> dict[str, Any]:
    frames = _Pair.read(reference, index, size)
    motion = reference_motion(frames.first, frames.second, estimate)
    scale = picture_scale(motion.flow)
    pairs = {name: _Pair.read(source, index, size) for name, source in outputs.items()}
    errors = {name: _error(pair, motion.flow) for name, pair in pairs.items()}
    followed = motion.mask[0, 0].numpy()
    most = max([MIN_ERROR_SCALE, *(float(np.percentile(error[followed], 99.5)) for error in errors.values() if followed.any())])
    return {
        "index": index,
        "why": why,
        "flow_scale": scale,
        "error_scale": most,
        "reference": picture_uri(_pixels(frames.second)),
        "reference_flow": _flow_uri(motion.flow, scale),
        "outputs": [
            {
                "name": name,
                "error": picture_uri(_error_picture(errors[name], followed, most)),
                "flow": _flow_uri(estimate(pair.first * 2 - 1, pair.second * 2 - 1), scale),
            }
            for name, pair in pairs.items()
        ],
    }


def _error(pair: _Pair, flow: Tensor) -> np.ndarray:
    """Root mean square over channels of the change along the motion, in gray levels of 255, [H,W]."""
    change = warp(pair.second, flow) - pair.first
    return 255 * change.square().mean(dim=1).sqrt()[0].numpy()


def _error_picture(error: np.ndarray, followed: np.ndarray, most: float) -> np.ndarray:
    levels = (error / most * 255).clip(0, 255).astype(np.uint8)
    picture = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, :, ::-1].copy()
    picture[~followed] = _NOT_FOLLOWED
    return picture


def _pixels(frame: Tensor) -> np.ndarray:
    return (frame[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def _flow_uri(flow: Tensor, scale: float) -> str:
    return picture_uri(flow_to_picture(flow, max_flow=scale)[0].permute(1, 2, 0).numpy())


def wheel() -> str:
    """The key to the colors of motion: the color at each place is that of a motion from the center to there."""
    axis = torch.linspace(-1, 1, _WHEEL_PIXELS)
    flow = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))[None]
    return picture_uri(flow_to_picture(flow, max_flow=1.0)[0].permute(1, 2, 0).numpy())
