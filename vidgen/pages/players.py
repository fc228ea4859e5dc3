"""Videos inside a page: the same moments of several clips, at one size, small enough."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from vidgen import progress
from vidgen.media.frames import Frame, open_sink
from vidgen.media.labels import distinct_colors
from vidgen.media.video import Quality
from vidgen.pages.templates import data_uri, megabytes

PROBED_FRAMES = 32
MIN_HEIGHT = 96
MAX_CLASSES = 64
MIN_LABEL_AREA = 0.8
_LABEL_COLORS = np.array(distinct_colors(256), np.uint8)
_STEPS: tuple[tuple[float, Quality], ...] = ((1, "good"), (1, "draft"), (0.75, "draft"), (0.5, "draft"), (0.35, "draft"))


class Frames(Protocol):
    """What a clip is made from, such as a `vidgen.media.frames.FrameSource`."""

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def time_base(self) -> Fraction: ...

    @property
    def frame_rate(self) -> Fraction: ...

    def __iter__(self) -> Iterator[Frame]: ...


@dataclass(frozen=True)
class Clips:
    """Clips that play side by side.

    Attributes:
        videos: name -> H.264 in MP4.
        times: when each frame starts, in seconds from the first.
        size: (height, width) of all of them.
        digests: name -> SHA-256 of the pixels of all those frames, as they were before they were made smaller.
        reductions: what was made smaller than the originals, in words.
    """

    videos: dict[str, bytes]
    times: list[float]
    size: tuple[int, int]
    digests: dict[str, str]
    reductions: list[str] = field(default_factory=list)

    def uri(self, name: str) -> str:
        return data_uri(self.videos[name], "video/mp4")


def embed(clips: Mapping[str, Frames], *, lead: str, max_bytes: float, max_height: int, max_frames: int | None = None) -> Clips:
    """Encode frame 0, 1, 2, ... of all `clips` as videos of one size, with the times of the clip `lead`, within `max_bytes`.

    They end with the shortest. Where they would be too large, they are compressed more, then made smaller, then cut.

    Raises:
        InputError: a clip cannot be read.
    """
    for step, (scale, quality) in enumerate(_STEPS):
        size = even_size(clips[lead].size, max(MIN_HEIGHT, round(scale * min(max_height, clips[lead].size[0]))))
        is_last = step == len(_STEPS) - 1
        if not is_last and _expected_bytes(clips, lead, size, quality, max_frames) > 1.3 * max_bytes:
            continue
        videos, times, digests = encode(clips, lead, size, quality, max_frames)
        if _num_bytes(videos) <= max_bytes:
            break
    all_frames = len(times)
    while _num_bytes(videos) > max_bytes and len(times) > 1:
        limit = max(1, int(len(times) * 0.9 * min(1, max_bytes / _num_bytes(videos))))
        videos, times, digests = encode(clips, lead, size, quality, limit)
    reductions = _scaled_down(clips, size)
    if quality == "draft":
        reductions.append(f"compressed strongly to stay within {megabytes(max_bytes)}: do not assess fine grain from the players")
    if len(times) < all_frames:
        reductions.append(f"only the first {len(times)} of {all_frames} frames, to stay within {megabytes(max_bytes)}")
    return Clips(videos, times, size, digests, reductions)


def _scaled_down(clips: Mapping[str, Frames], size: tuple[int, int]) -> list[str]:
    names: dict[tuple[int, int], list[str]] = {}
    for name, clip in clips.items():
        names.setdefault(clip.size, []).append(name)
    return [
        f"{', '.join(same)}: shown at {size[1]}x{size[0]} pixels, the original has {width}x{height}"
        for (height, width), same in names.items()
        if (height, width) != size
    ]


def even_size(size: tuple[int, int], height: int) -> tuple[int, int]:
    """(height, width), even as H.264 wants them, of the shape of `size`."""
    height = max(2, min(height, size[0]) // 2 * 2)
    return height, max(2, round(size[1] * height / size[0] / 2) * 2)


def _num_bytes(videos: Mapping[str, bytes]) -> int:
    return sum(map(len, videos.values()))


def _expected_bytes(clips: Mapping[str, Frames], lead: str, size: tuple[int, int], quality: Quality, limit: int | None) -> float:
    """The size of all frames, judged from the first ones."""
    videos, times, _ = encode(clips, lead, size, quality, min(PROBED_FRAMES, limit or PROBED_FRAMES))
    counts = [count for clip in clips.values() if (count := getattr(clip, "num_frames", None))]
    total = min([*counts, *([limit] if limit else [])], default=len(times))
    return _num_bytes(videos) * max(1.0, total / len(times))


def encode(
    clips: Mapping[str, Frames], lead: str, size: tuple[int, int], quality: Quality, limit: int | None
) -> tuple[dict[str, bytes], list[float], dict[str, str]]:
    """The clips as H.264 in MP4, when each frame starts in seconds, and the digests of `Clips`; they end with the shortest.

    Raises:
        InputError: a clip cannot be read.
    """
    time_base, rate = clips[lead].time_base, clips[lead].frame_rate
    times: list[int] = []
    contents = {name: hashlib.sha256() for name in clips}
    with tempfile.TemporaryDirectory(prefix="vidgen-") as folder:
        files = {name: Path(folder) / f"{index}.mp4" for index, name in enumerate(clips)}
        with ExitStack() as stack:
            sinks = {
                name: stack.enter_context(open_sink(file, time_base=time_base, frame_rate=rate, quality=quality))
                for name, file in files.items()
            }
            are_labels: dict[str, bool] = {}
            for moment in progress.follow(islice(zip(*clips.values(), strict=False), limit), "writing videos", limit):
                frames = dict(zip(clips, moment, strict=True))
                times.append(frames[lead].pts)
                for name, sink in sinks.items():
                    pixels = frames[name].pixels
                    contents[name].update(pixels.tobytes())
                    if len(times) == 1:
                        are_labels[name] = _is_label_map(pixels)
                    if are_labels[name]:
                        pixels = _LABEL_COLORS[pixels[:, :, 0]]
                    sink.write(fit(pixels, size), frames[lead].pts - times[0], frames[lead].duration)
        videos = {name: file.read_bytes() for name, file in files.items()}
    seconds = [float((time - times[0]) * time_base) for time in times]
    return videos, seconds, {name: content.hexdigest() for name, content in contents.items()}


def _is_label_map(pixels: np.ndarray) -> bool:
    """Whether a picture is a map of class numbers, which would look black: gray, of few low values, in areas."""
    gray = pixels[:, :, 0]
    if gray.max() >= MAX_CLASSES or not (pixels == gray[:, :, None]).all():
        return False
    return 2 <= len(np.unique(gray)) <= MAX_CLASSES and float((gray[:, 1:] == gray[:, :-1]).mean()) > MIN_LABEL_AREA


def fit(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H,W,3] at `size` = (height, width): scaled to fit, centered on black where its shape differs by more than rounding."""
    height, width = size
    if pixels.shape[:2] == size:
        return pixels
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    inner = [min(side, max(1, round(old * scale))) for side, old in zip(size, pixels.shape[:2], strict=True)]
    inner = [side if side - new <= max(2, side // 50) else new for side, new in zip(size, inner, strict=True)]
    method = cv2.INTER_AREA if inner[0] <= pixels.shape[0] else cv2.INTER_CUBIC
    scaled = cv2.resize(np.ascontiguousarray(pixels), (inner[1], inner[0]), interpolation=method)
    if tuple(inner) == size:
        return scaled
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    padded = np.zeros((height, width, 3), np.uint8)
    padded[top : top + inner[0], left : left + inner[1]] = scaled
    return padded
