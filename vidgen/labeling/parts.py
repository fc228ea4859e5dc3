"""Cuts: where a clip becomes another scene, so that nothing is followed across."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from vidgen import progress
from vidgen.media.frames import FrameSource

_THUMBNAIL = (48, 36)
_LEAST_CHANGE = 20.0
_SUDDENNESS = 3.0
_NEIGHBORHOOD = 6


def find_parts(source: FrameSource) -> list[range]:
    """The frames of each scene of a clip, in order.

    A cut is a sudden change of the whole picture that stays; a flash of one frame is none. Only thumbnails are compared and only
    one number a frame is kept.
    """
    changes, skips = _changes(source)
    starts = [0]
    for index in range(1, len(changes)):
        around = np.concatenate([changes[max(1, index - _NEIGHBORHOOD) : index], changes[index + 1 : index + 1 + _NEIGHBORHOOD]])
        usual = float(np.median(around)) if len(around) else 0.0
        sudden = changes[index] > max(_LEAST_CHANGE, _SUDDENNESS * usual)
        # Frames two apart, before and after: both have changed too, unless this is one edge of a flash.
        lasting = min(skips[index], skips[index + 1] if index + 1 < len(skips) else np.inf) > _LEAST_CHANGE
        if sudden and lasting:
            starts.append(index)
    ends = [*starts[1:], len(changes)]
    return [range(start, end) for start, end in zip(starts, ends, strict=True)]


def _changes(source: FrameSource) -> tuple[np.ndarray, np.ndarray]:
    """Mean difference of each frame from the one before it, and from the one before that; 0 and infinite where there is none."""
    changes: list[float] = []
    skips: list[float] = []
    last: list[np.ndarray] = []
    for thumbnail in _thumbnails(source):
        changes.append(float(np.abs(thumbnail - last[-1]).mean()) if last else 0.0)
        skips.append(float(np.abs(thumbnail - last[-2]).mean()) if len(last) > 1 else np.inf)
        last = [*last[-1:], thumbnail]
    return np.array(changes), np.array(skips)


def _thumbnails(source: FrameSource) -> Iterator[np.ndarray]:
    for frame in progress.follow(source, f"looking for cuts in {source.name}", source.num_frames):
        yield cv2.resize(frame.pixels, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
