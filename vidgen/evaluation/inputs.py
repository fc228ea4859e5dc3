"""What is measured: videos, folders and frames in memory, side by side, at one size and one frame rate."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgen.errors import InputError
from vidgen.media.frames import FOLDER_FRAME_RATE, Frame, FrameSource, PictureSource, VideoSource, list_sources, open_source
from vidgen.media.labels import LabelTable
from vidgen.metrics import quality, temporal

MAX_ASPECT_DIFFERENCE = 0.02
MAX_FRAME_RATE_DIFFERENCE = 0.01

FramesLike = str | Path | Iterable[Any]
"""A file, folder or pattern; or frames themselves: uint8 [H,W,3] RGB, or objects that hold such in `pixels`."""


def name_of(where: FramesLike) -> str:
    """For messages."""
    return str(where) if isinstance(where, str | Path) else getattr(where, "name", f"{type(where).__name__} of frames")


def place_of(where: FramesLike) -> str:
    """Where it is, whatever the working folder; frames in memory have their name only."""
    text = name_of(where)
    if not isinstance(where, str | Path) or text == "-":
        return text
    return "@" + os.path.abspath(text[1:]) if text.startswith("@") and not os.path.lexists(text) else os.path.abspath(text)


def is_set(where: FramesLike) -> bool:
    """Whether several videos are there, or a folder around one."""
    return isinstance(where, str | Path) and list_sources(where) != [Path(where)]


class Inputs:
    """The video under test and what it is compared with, read side by side.

    Args:
        places: by role: "output", "source", "target", "labels".
        fps: frames per second that all are brought to, by taking the frame nearest in time; None leaves them as they are.
        height: that nothing exceeds, None for no limit.
        table: what values of the role "labels" mean.
        allow_trim: end with the shortest instead of refusing inputs of different lengths.
        allow_truncated: use the frames there are of a video that ends in the middle of its data.

    Attributes:
        size: (height, width) of the frames compared; (0, 0) before the first.
        num_frames: read so far.

    Raises:
        InputError: an input cannot be read, or frame rates differ.
    """

    def __init__(
        self,
        places: Mapping[str, FramesLike],
        *,
        fps: Fraction | None,
        height: int | None,
        table: LabelTable | None = None,
        allow_trim: bool = False,
        allow_truncated: bool = False,
    ) -> None:
        self.places = dict(places)
        self.size, self.num_frames = (0, 0), 0
        self._streams = {name: _opened(name, where, allow_truncated) for name, where in places.items()}
        self._fps, self._height, self._table, self._allow_trim = fps, height, table, allow_trim
        self._contents = {name: hashlib.sha256() for name in places}
        if fps is None:
            _check_frame_rates(self._streams)

    @property
    def frame_rate(self) -> float | None:
        """Frames per second that the video under test states; folders of pictures state none."""
        rate = _stated_rate(self._streams["output"])
        return None if rate is None else float(rate)

    @property
    def measured_rate(self) -> Fraction | None:
        """Frames per second of the video under test as it is measured; None where nobody says."""
        return self._fps if self._fps is not None else _stated_rate(self._streams["output"])

    @property
    def expected_frames(self) -> int | None:
        """How many frames there will be, where all inputs say it and none is resampled."""
        counts = [getattr(stream, "num_frames", None) for stream in self._streams.values()]
        return None if self._fps is not None else min((count for count in counts if count), default=None)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the pixels of each input, as far as they were read."""
        return {name: content.hexdigest() for name, content in self._contents.items()}

    def __iter__(self) -> Iterator[tuple[temporal.Frames, dict[str, np.ndarray]]]:
        """Frame by frame: at the common size, and as they are (label maps as classes).

        Raises:
            InputError: inputs differ in length or shape, or are no pictures.
        """
        stated = (rate for stream in self._streams.values() if (rate := _stated_rate(stream)) is not None)
        assumed = next(stated, FOLDER_FRAME_RATE)
        streams = {name: self._decoded(name, resampled(stream, self._fps, assumed)) for name, stream in self._streams.items()}
        while True:
            pixels = {name: frame for name, stream in streams.items() if (frame := next(stream, None)) is not None}
            ended = [name for name in streams if name not in pixels]
            if ended:
                self._check_ends(ended)
                return
            if not self.num_frames:
                self.size = common_size({name: frame.shape[:2] for name, frame in pixels.items()}, self._height)
            for name, content in self._contents.items():
                content.update(pixels[name].tobytes())
            self.num_frames += 1
            frames = {name: as_tensor(frame, self.size) for name, frame in pixels.items() if name != "labels"}
            yield temporal.Frames(**frames), pixels

    def _decoded(self, name: str, stream: Iterable[Any]) -> Iterator[np.ndarray]:
        if name == "labels" and self._table is not None:
            return _classes(stream, self._table)
        return pixels_of(stream, name_of(self._streams[name]))

    def _check_ends(self, ended: Sequence[str]) -> None:
        if self.num_frames == 0:
            raise InputError(f"{name_of(self._streams[ended[0]])}: holds no frames")
        if len(ended) < len(self._streams) and not self._allow_trim:
            longer = next(name for name in self._streams if name not in ended)
            raise InputError(
                f"{name_of(self._streams[ended[0]])} (the {ended[0]}) ends after {self.num_frames} frames, "
                f"but {name_of(self._streams[longer])} does not",
                hint="`allow_trim` measures the common part",
            )


def open_set(where: str | Path, *, allow_truncated: bool, as_stills: bool) -> tuple[list[FrameSource], bool]:
    """All pictures, videos and folders of frames at `where`, and whether they are stills, which do not follow each other in time.

    Args:
        as_stills: take a folder of pictures for a set of stills, not for a clip.

    Raises:
        InputError: nothing readable is there.
    """
    places = list_sources(where)
    clips = [open_source(place, allow_truncated=allow_truncated) for place in places]
    first = clips[0]
    if as_stills and places == [Path(where)] and isinstance(first, PictureSource) and Path(where).is_dir():
        return [open_source(file) for file in first.files], True
    return clips, False


def common_size(sizes: Mapping[str, tuple[int, ...]], height: int | None) -> tuple[int, int]:
    """(height, width) at which everything is measured: no higher than any input nor `height`, shaped as the output.

    Args:
        sizes: (height, width) of the inputs, by role.

    Raises:
        InputError: the inputs differ in shape by more than two percent.
    """
    own_height, width = sizes["output"]
    for name, (other_height, other_width) in sizes.items():
        if abs(other_width * own_height / (other_height * width) - 1) > MAX_ASPECT_DIFFERENCE:
            raise InputError(
                f"the output is {width}x{own_height}, but the {name} {other_width}x{other_height}: they differ in shape"
            )
    smallest = min(own_height, height or own_height, *(other[0] for other in sizes.values()))
    return quality.shrunk_size((own_height, width), smallest)


def as_tensor(pixels: np.ndarray, size: tuple[int, int] | None = None) -> Tensor:
    """uint8 [H,W,3] as float [1,3,H,W] in 0..1, reduced to `size` = (height, width) where one is given."""
    frame = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float() / 255
    return frame if size is None else quality.shrink(frame, *size)


def pixels_of(stream: Iterable[Any], name: str) -> Iterator[np.ndarray]:
    """uint8 [H,W,3] frames.

    Raises:
        InputError: something else comes.
    """
    for frame in stream:
        pixels = np.asarray(getattr(frame, "pixels", frame))
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise InputError(f"{name}: expected frames of uint8 [H,W,3], got {pixels.dtype} {list(pixels.shape)}")
        yield pixels


def resampled(stream: Iterable[Any], fps: Fraction | None, assumed: Fraction = FOLDER_FRAME_RATE) -> Iterator[Any]:
    """The frames of a stream at the times k / fps, each time the nearest one; all of them where `fps` is None.

    Args:
        assumed: frames per second of a stream that states none.
    """
    if fps is None:
        yield from stream
        return
    last: tuple[Fraction, Any] | None = None
    index = 0
    rate = _stated_rate(stream) or assumed
    for time, frame in _timed(stream, rate):
        while last is not None and index / fps <= (last[0] + time) / 2:
            yield last[1]
            index += 1
        last = time, frame
    while last is not None and index / fps < last[0] + 1 / rate:
        yield last[1]
        index += 1


def _timed(stream: Iterable[Any], rate: Fraction) -> Iterator[tuple[Fraction, Any]]:
    """Frames with their time in seconds since the first.

    Containers round times, to a millisecond in Matroska; where that explains the deviation from a constant rate, the rate counts.
    """
    first = 0
    for number, frame in enumerate(stream):
        time = Fraction(number) / rate
        if isinstance(stream, VideoSource) and isinstance(frame, Frame):
            first = frame.pts if number == 0 else first
            stated = (frame.pts - first) * stream.time_base
            time = time if abs(stated - time) <= stream.time_base else stated
        yield time, frame


def _stated_rate(stream: Iterable[Any]) -> Fraction | None:
    return stream.frame_rate if isinstance(stream, VideoSource) else None


def _opened(name: str, where: FramesLike, allow_truncated: bool) -> Iterable[Any]:
    if not isinstance(where, str | Path):
        return where
    return open_source(where, kind="labels" if name == "labels" else "pictures", allow_truncated=allow_truncated)


def _check_frame_rates(streams: Mapping[str, Iterable[Any]]) -> None:
    rates = {name: float(stated) for name, stream in streams.items() if (stated := _stated_rate(stream)) is not None}
    for name, rate in rates.items():
        if abs(rate / next(iter(rates.values())) - 1) > MAX_FRAME_RATE_DIFFERENCE:
            listed = ", ".join(f"the {other} has {value:.5g}" for other, value in rates.items())
            raise InputError(
                f"frame rates differ: {listed} frames per second",
                hint=f"`fps` {min(rates.values()):.5g} brings all to one rate, or convert the {name} first",
            )


def _classes(stream: Iterable[Any], table: LabelTable) -> Iterator[np.ndarray]:
    """int64 [H,W] classes of label maps, -1 where there is none."""
    for frame in stream:
        try:
            yield table.decode(frame.pixels, frame.name)
        except InputError as error:
            raise InputError(str(error), hint=f"`labels` TABLE says what the values of {frame.name} mean") from error
