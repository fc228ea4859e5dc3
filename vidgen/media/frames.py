"""Reading and writing sequences of frames, wherever they are: videos, folders, numbered files, one picture, standard input.

`open_source` gives frames one at a time with their times, so that a long video needs no more memory than a short one;
`open_sink` writes them, and what it writes appears under its name only when it is complete.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidgen import durable, kinds
from vidgen.errors import DamagedVideoError, InputError
from vidgen.media import images, paths, video
from vidgen.media.video import FrameKind, Quality

log = logging.getLogger(__name__)

FOLDER_FRAME_RATE = Fraction(25)
"""Frames per second of a folder of pictures, which states none."""

OUTPUT_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".gif", ".apng", ".webp", ".png")
"""What names of single files end with; anything else is a folder or is refused."""

_MAX_LIST_BYTES = 64 << 20
_FOLDER_PATTERN = "%05d.png"
_ANIMATION_SUFFIXES = (".apng", ".webp")


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        pixels: pictures uint8 [H,W,3] RGB; labels uint8 or uint16 [H,W] ids, or uint8 [H,W,3] colors.
        pts: presentation time in units of the source's time base.
        name: for messages, a file name or "clip.mp4 frame 12".
        duration: of a clip's last frame, how long it is displayed, in the same units; None where the next frame or the rate tells.
    """

    pixels: np.ndarray
    pts: int
    name: str
    duration: int | None = None


class FrameSource(ABC):
    """Frames that can be read again and again, one at a time.

    Attributes:
        name: for messages.
        size: (height, width), upright.
        time_base: seconds per pts unit.
        frame_rate: frames per second, the mean for variable rates.
        num_frames: how many there are, or are said to be; None when unknown. Only a hint for videos.
        audio: the sound that belongs to the frames, or None.
        pixel_aspect: width of a pixel by its height.
        paths: the files that are read; none where they are of no use to others.
        single: whether it is one picture that was named by itself.
        frame_names: of picture files, what results made of them are called (without suffix); None where frames have no names.
        damage: what is wrong with the file, when it was read with `allow_truncated` and ended early; None before.
    """

    name: str
    size: tuple[int, int]
    time_base: Fraction
    frame_rate: Fraction
    num_frames: int | None
    audio: video.Audio | None = None
    pixel_aspect: Fraction = Fraction(1)
    paths: tuple[Path, ...] = ()
    single: bool = False
    frame_names: tuple[str, ...] | None = None
    damage: str | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """All frames in order.

        Raises:
            InputError: a frame is damaged or has another size.
        """

    @abstractmethod
    def count(self) -> int:
        """How many frames there really are; a video is scanned for it once, without decoding."""

    @abstractmethod
    def read(self, start: int, stop: int) -> list[Frame]:
        """Frames start..stop-1, exactly those that iteration gives there.

        Raises:
            InputError: there are fewer, or one is damaged.
        """


def open_source(
    where: str | Path,
    *,
    kind: FrameKind = "pictures",
    start: str | None = None,
    end: str | None = None,
    allow_truncated: bool = False,
    frame_rate: Fraction = FOLDER_FRAME_RATE,
) -> FrameSource:
    """The frames at `where`: a video, a picture, a folder of pictures, a glob, `frames/%05d.png`, or `-` for standard input.

    A suffix such as `[10:90]` takes frames 10 to 89, `[1.5s:4s]` takes seconds. `start` and `end` do the same: `45f` counts
    frames, any other number seconds. `frame_rate` is that of pictures; videos know their own. With `allow_truncated`, a video
    that ends early gives the frames it has, with a warning.

    Raises:
        InputError: nothing readable is there.
    """
    location, cut = paths.split_cut(paths.expanded(where))
    if "://" in location and not os.path.lexists(location):
        raise InputError(f"{paths.display(location)}: addresses are not read", hint="save the file first, or pipe it in and give -")
    if start is not None or end is not None:
        cut = paths.Cut(
            paths.parse_moment(start, plain="seconds") or cut.start, paths.parse_moment(end, plain="seconds") or cut.end
        )
    if location == "-":
        return StandardInput(kind, cut, allow_truncated)
    path = Path(location)
    files = _picture_files(path)
    if files is not None:
        return PictureSource(paths.display(location), files, kind, cut, frame_rate)
    if not os.path.lexists(path) and paths.is_glob(location):
        path = _single_match(location)
    _check_kind(path)
    if images.is_animation(path):
        return AnimationSource(path, kind, cut)
    return VideoSource(path, kind, cut, allow_truncated)


def _check_kind(path: Path) -> None:
    kind = kinds.other_kind(path, "a video", "a picture")
    if kind is not None and path.is_file():
        raise InputError(f"{paths.display(path)}: is {kind}; a video, a picture or a folder of pictures was expected")
    error = paths.foreign_kind(path)
    if error is not None and path.is_file():
        raise error


def list_sources(where: str | Path) -> list[Path]:
    """The clips at `where`, each of which `open_source` opens.

    A folder of videos or of frame folders holds many, as do a glob and `@list.txt`, which names one per line; a folder of
    pictures, a glob of pictures, a video and a picture are one. A cut such as `[10:90]` stays with every clip.

    Raises:
        InputError: nothing readable is there.
    """
    where = paths.expanded(where)
    if where.startswith("@") and not os.path.lexists(where):
        return [clip for line in _listed(Path(os.fspath(where)[1:])) for clip in list_sources(line)]
    location, _ = paths.split_cut(where)
    suffix = where[len(location) :]
    return [Path(f"{clip}{suffix}") for clip in _clips_at(location)]


def _clips_at(location: str) -> list[Path]:
    path = Path(location)
    if location == "-" or _is_picture_pattern(location):
        return [path]
    if path.is_dir():
        return [path] if _pictures_in(path) else _clips_in(path)
    if not os.path.lexists(path) and paths.is_glob(location):
        matches = paths.matching_glob(location)
        if matches and all(images.is_image(match) for match in matches):
            return [path]
        clips = [clip for match in paths.unique(matches) if _is_clip(match) for clip in _clips_at(os.fspath(match))]
        if not clips:
            raise InputError(f"{paths.display(location)}: matches no video and no folder of pictures")
        return clips
    paths.check_file(path)
    _check_kind(path)
    return [path]


def _listed(path: Path) -> list[str]:
    lines = os.fsdecode(paths.read_bounded(path, _MAX_LIST_BYTES)).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _is_picture_pattern(location: str) -> bool:
    return paths.is_pattern(location) and images.is_image(Path(location)) and not os.path.lexists(location)


def _is_clip(path: Path) -> bool:
    return path.is_dir() or ((video.is_video(path) or images.is_animation_name(path)) and path.is_file())


def _pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order; none where it holds other things.

    Raises:
        InputError: it holds both pictures and videos, so that it is not clear what is meant.
    """
    entries = paths.list_folder(folder)
    pictures = [entry for entry in entries if images.is_image(entry) and entry.is_file()]
    num_videos = sum(video.is_video(entry) for entry in entries)
    if pictures and num_videos:
        raise InputError(
            f"{paths.display(folder)}: holds {len(pictures)} pictures and {num_videos} videos",
            hint=f"say which, as in '{paths.display(folder)}/*{pictures[0].suffix}'",
        )
    return pictures


def _clips_in(folder: Path) -> list[Path]:
    entries = [entry for entry in paths.list_folder(folder) if _is_clip(entry)]
    clips = [entry for entry in entries if not entry.is_dir() or _pictures_in(entry)]
    if not clips:
        if kinds.is_model(folder):
            raise InputError(f"{paths.display(folder)}: is {kinds.kind_of(folder)}; a video or a folder of pictures was expected")
        others = _foreign_among(folder)
        raise InputError(f"{paths.display(folder)}: holds no pictures, no videos and no folders of pictures{others}")
    return paths.unique(clips)


def _foreign_among(folder: Path) -> str:
    """Words for files of kinds that are known but not read."""
    suffixes = Counter(entry.suffix.lower() for entry in paths.list_folder(folder) if paths.foreign_kind(entry) is not None)
    if not suffixes:
        return ""
    suffix, count = suffixes.most_common(1)[0]
    return f"; its {count} {suffix} files are of a kind that is not read"


def _picture_files(path: Path) -> list[Path] | None:
    """The pictures that make the sequence at `path`; None where it is a video."""
    location = os.fspath(path)
    if path.is_dir():
        pictures = _pictures_in(path)
        if not pictures:
            if kinds.is_model(path):
                raise InputError(f"{paths.display(path)}: is {kinds.kind_of(path)}; a video or a folder of pictures was expected")
            clips = [clip.name for clip in paths.list_folder(path) if _is_clip(clip)]
            hint = f"give one of what it holds, such as {paths.display(path / clips[0])}" if clips else None
            raise InputError(f"{paths.display(path)}: the folder holds no pictures{_foreign_among(path)}", hint=hint)
        return pictures
    if _is_picture_pattern(location):
        files = paths.matching_pattern(location)
        if not files:
            raise InputError(f"{paths.display(path)}: no file has such a name")
        return files
    if paths.is_glob(location) and not os.path.lexists(path):
        matches = paths.matching_glob(location)
        return matches if matches and all(images.is_image(match) for match in matches) else None
    return [path] if images.is_image(path) and not images.is_animation(path) else None


def _single_match(pattern: str) -> Path:
    matches = paths.matching_glob(pattern)
    if not matches:
        raise InputError(f"{paths.display(pattern)}: matches nothing")
    if len(matches) > 1:
        raise InputError(
            f"{paths.display(pattern)}: matches {len(matches)} files that are not all pictures; one video was expected"
        )
    return matches[0]


class PictureSource(FrameSource):
    """Picture files as the frames of a clip, in the given order."""

    def __init__(self, name: str, files: Sequence[Path], kind: FrameKind, cut: paths.Cut, frame_rate: Fraction) -> None:
        gap = paths.numbering_gap(files)
        if gap:
            log.warning("%s: numbers are missing: %s", name, gap)
        times = np.arange(len(files), dtype=np.int64)
        first, last = _cut_range(name, times, 1 / frame_rate, cut)
        self.name, self.files, self.kind = name, list(files[first:last]), kind
        self.size = images.read_size(self.files[0])
        self.time_base, self.frame_rate, self.num_frames = 1 / frame_rate, frame_rate, len(self.files)
        self.single = len(files) == 1 and name == paths.display(files[0])
        self.paths, self.frame_names = tuple(self.files), _result_names(self.files)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(len(self.files)):
            yield self._frame(index)

    def count(self) -> int:
        return len(self.files)

    def read(self, start: int, stop: int) -> list[Frame]:
        _check_range(self.name, start, stop, len(self.files))
        return [self._frame(index) for index in range(start, stop)]

    def _frame(self, index: int) -> Frame:
        path = self.files[index]
        pixels = images.read_labels(path) if self.kind == "labels" else images.read_picture(path)
        if pixels.shape[:2] != self.size:
            height, width = pixels.shape[:2]
            raise InputError(
                f"{paths.display(path)}: {width}x{height},"
                f" but {paths.display(self.files[0].name)} is {self.size[1]}x{self.size[0]};"
                " all frames of a clip have one size",
                hint="if they are single pictures, train with data.pairs=stills",
            )
        return Frame(pixels, index, paths.display(path))


class NegativeSource(FrameSource):
    """Pictures with light and dark exchanged."""

    def __init__(self, whole: FrameSource) -> None:
        self._whole = whole
        for name in FrameSource.__annotations__:
            setattr(self, name, getattr(whole, name))

    def __iter__(self) -> Iterator[Frame]:
        return map(self._negative, self._whole)

    def count(self) -> int:
        return self._whole.count()

    def read(self, start: int, stop: int) -> list[Frame]:
        return [self._negative(frame) for frame in self._whole.read(start, stop)]

    @staticmethod
    def _negative(frame: Frame) -> Frame:
        return replace(frame, pixels=255 - frame.pixels)


class AnimationSource(FrameSource):
    """The pictures of an animated .apng, .png or .webp file, which are decoded from the first each time."""

    def __init__(self, path: Path, kind: FrameKind, cut: paths.Cut) -> None:
        self.path, self.kind, self.name, self.paths = path, kind, paths.display(path), (path,)
        if kind == "labels":
            raise InputError(f"{self.name}: an animation holds no exact ids", hint="keep labels as FFV1 in .mkv or as PNG files")
        self.size = images.read_size(path)
        self._durations = images.read_durations(path)
        times = np.concatenate([[0], np.cumsum(self._durations)]).astype(np.int64)
        self._first, self._last = _cut_range(self.name, times[:-1], Fraction(1, 1000), cut)
        self._times, self.time_base = times, Fraction(1, 1000)
        self.num_frames = self._last - self._first
        self.frame_rate = Fraction(1000 * self.num_frames, max(1, int(times[self._last] - times[self._first])))

    def __iter__(self) -> Iterator[Frame]:
        return self._between(self._first, self._last)

    def count(self) -> int:
        return self._last - self._first

    def read(self, start: int, stop: int) -> list[Frame]:
        _check_range(self.name, start, stop, self.count())
        return list(self._between(self._first + start, self._first + stop))

    def _between(self, first: int, last: int) -> Iterator[Frame]:
        origin = int(self._times[self._first])
        for index, pixels in enumerate(itertools.islice(images.read_animation(self.path), last)):
            if index >= first:
                duration = int(self._durations[index]) if index == self._last - 1 else None
                yield Frame(pixels, int(self._times[index]) - origin, f"{self.name} frame {index}", duration)


class VideoSource(FrameSource):
    """The frames of a video file; the file is open only while they are read."""

    def __init__(self, path: Path, kind: FrameKind, cut: paths.Cut, allow_truncated: bool) -> None:
        self.path, self.kind, self.allow_truncated = path, kind, allow_truncated
        self.paths = (path,)
        self.name = paths.display(path)
        info = video.probe(path, kind=kind)
        if info.missing_bytes and not allow_truncated:
            raise DamagedVideoError(f"{self.name}: truncated: {info.missing_bytes} bytes are missing at the end")
        self.size, self.time_base, self.frame_rate = info.size, info.time_base, info.frame_rate
        self.pixel_aspect = info.pixel_aspect
        self.num_frames, self.audio = info.num_frames, video.Audio(path) if info.has_audio else None
        self._times: np.ndarray | None = None
        self._range: tuple[int, int] | None = None
        if cut:
            times = self._all_times()
            first, last = self._range = _cut_range(self.name, times, self.time_base, cut)
            self.num_frames = last - first
            if self.audio is not None:
                self.audio = video.Audio(path, int(times[first]) * self.time_base)

    def __iter__(self) -> Iterator[Frame]:
        if self._range is not None:
            yield from self._between(*self._range)
            return
        num_read = 0
        try:
            for pixels, pts, duration in video.decode(self.path, kind=self.kind):
                yield Frame(pixels, pts, f"{self.name} frame {num_read}", duration)
                num_read += 1
        except DamagedVideoError as error:
            self._accept(error, num_read)

    def read(self, start: int, stop: int) -> list[Frame]:
        _check_range(self.name, start, stop, self.count())
        offset = self._range[0] if self._range else 0
        frames = list(self._between(offset + start, offset + stop))
        if len(frames) < stop - start:
            raise DamagedVideoError(f"{self.name}: frames {start}..{stop - 1} were asked for, {len(frames)} can be read")
        return frames

    def _between(self, first: int, last: int) -> Iterator[Frame]:
        """Frames by their number in the file; a cut clip starts at time 0."""
        times = self._all_times()
        origin = int(times[self._range[0]]) if self._range else 0
        index = first
        try:
            for pixels, pts, duration in self._decode_from(first):
                if index + 1 == last and last < len(times):
                    duration = int(times[last]) - pts
                yield Frame(pixels, pts - origin, f"{self.name} frame {index}", duration if index + 1 == last else None)
                index += 1
                if index == last:
                    return
            raise DamagedVideoError(f"{self.name}: ends after frame {index - 1}, but states {len(times)} frames")
        except DamagedVideoError as error:
            self._accept(error, index - first)

    def _decode_from(self, first: int) -> Iterator[tuple[np.ndarray, int, int | None]]:
        """Frame `first` and what follows: by way of the keyframe before it, or from the start where seeking misses it."""
        time = int(self._all_times()[first])
        if self._can_seek:
            frames = video.decode(self.path, kind=self.kind, first_pts=time)
            start = next(frames, None)
            if start is not None and start[1] == time:
                yield start
                yield from frames
                return
        yield from itertools.islice(video.decode(self.path, kind=self.kind), first, None)

    def count(self) -> int:
        return len(self._all_times()) if self._range is None else self._range[1] - self._range[0]

    def _all_times(self) -> np.ndarray:
        if self._times is None:
            self._times, self._can_seek = video.read_times(self.path)
        return self._times

    def _accept(self, error: DamagedVideoError, num_read: int) -> None:
        if not self.allow_truncated or num_read == 0:
            raise error
        self.damage = str(error)
        log.warning("%s; going on with the frames before that", error)


class StandardInput(VideoSource):
    """A video that arrives on standard input, kept in a temporary file for as long as this object lives."""

    def __init__(self, kind: FrameKind, cut: paths.Cut, allow_truncated: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vidgen-")
        path = Path(self._folder.name) / "standard-input"
        try:
            with open(path, "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            self._folder.cleanup()
            raise durable.describe_write_failure(error, path) from error
        super().__init__(path, kind, cut, allow_truncated)
        self.name, self.paths = "standard input", ()


def _result_names(files: Sequence[Path]) -> tuple[str, ...]:
    """Distinct names: without the suffix, with it where two files differ in it alone, and numbers for files of several folders."""
    numbers = [f"{index:05d}" for index in range(len(files))]
    for names in ([file.stem for file in files], [file.name for file in files], numbers):
        if len({name.casefold() for name in names}) == len(names):
            break
    return tuple(names)


def _cut_range(name: str, times: np.ndarray, time_base: Fraction, cut: paths.Cut) -> tuple[int, int]:
    """First and one past the last of the frames within `cut`."""

    def position(moment: paths.Moment | None, default: int) -> int:
        if moment is None:
            return default
        if moment.unit == "frames":
            return min(int(moment.value), len(times))
        return int(np.searchsorted(times - times[0], math.ceil(moment.value / time_base)))

    if len(times) == 0:
        raise InputError(f"{name}: holds no frames")
    first, last = position(cut.start, 0), position(cut.end, len(times))
    if first >= last:
        seconds = float((int(times[-1]) - int(times[0])) * time_base)
        raise InputError(f"{name}: the cut leaves no frame; the clip has {len(times)} frames, the last at {seconds:.2f} s")
    return first, last


def _check_range(name: str, start: int, stop: int, num_frames: int) -> None:
    if not 0 <= start < stop <= num_frames:
        raise InputError(f"{name}: frames {start}..{stop - 1} were asked for, it has {num_frames}")


class FrameSink(ABC):
    """Takes frames one at a time, all of one size and kind, in increasing order of time."""

    def __init__(self, name: str, kind: FrameKind) -> None:
        self.name, self.kind = name, kind
        self.num_frames = 0
        self._layout: str | None = None
        self._last_pts: int | None = None

    def write(self, pixels: np.ndarray, pts: int, duration: int | None = None) -> None:
        """Add a frame: uint8 [H,W,3]; labels also uint8 or uint16 [H,W].

        Args:
            pts: its time, in units of the time base.
            duration: how long it is displayed, where it is the last one; see `Frame`.

        Raises:
            InputError: it differs from the frames before in size or kind.
            OutputError: the disk or the encoder refuses it.
        """
        layout = f"{pixels.dtype} {'x'.join(map(str, pixels.shape))}"
        colored = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
        if not colored and not (self.kind == "labels" and pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16)):
            raise ValueError(f"{self.name}: cannot write {layout} as {self.kind}")
        if self._layout not in (None, layout):
            raise InputError(f"{self.name}: frame {self.num_frames} is {layout}, the frames before are {self._layout}")
        if self._last_pts is not None and pts <= self._last_pts:
            raise ValueError(f"{self.name}: frame {self.num_frames} has pts {pts} after {self._last_pts}")
        self._layout, self._last_pts = layout, pts
        self._write(pixels, pts, duration)
        self.num_frames += 1

    @abstractmethod
    def _write(self, pixels: np.ndarray, pts: int, duration: int | None) -> None: ...


class _VideoSink(FrameSink):
    def __init__(self, name: str, kind: FrameKind, writer: video.VideoWriter) -> None:
        super().__init__(name, kind)
        self._writer = writer

    def _write(self, pixels: np.ndarray, pts: int, duration: int | None) -> None:
        self._writer.write(pixels, pts, duration)


class _PictureSink(FrameSink):
    """PNG files in a folder, with the names that are given, then numbered."""

    def __init__(self, name: str, kind: FrameKind, folder: Path, pattern: str, names: Sequence[str]) -> None:
        super().__init__(name, kind)
        self._folder, self._pattern, self._names = folder, pattern, names

    def _write(self, pixels: np.ndarray, pts: int, duration: int | None) -> None:
        index = self.num_frames
        file = f"{self._names[index]}.png" if index < len(self._names) else paths.pattern_name(self._pattern, index)
        durable.operations.write(self._folder / file, images.encode_png(pixels, fast=True))


class _SinglePictureSink(FrameSink):
    def __init__(self, name: str, kind: FrameKind, path: Path) -> None:
        super().__init__(name, kind)
        self._path = path

    def _write(self, pixels: np.ndarray, pts: int, duration: int | None) -> None:
        if self.num_frames:
            raise InputError(f"{self.name}: holds one picture, and there are more", hint="name a folder or a video")
        durable.operations.write(self._path, images.encode_png(pixels))


class _AnimationSink(FrameSink):
    """One file of animated pictures; they are kept until the end, since its encoder wants them all at once."""

    def __init__(self, name: str, path: Path, time_base: Fraction, frame_rate: Fraction) -> None:
        super().__init__(name, "pictures")
        self._path, self._time_base, self._frame_rate = path, time_base, frame_rate
        self._frames: list[np.ndarray] = []
        self._times: list[int] = []

    def _write(self, pixels: np.ndarray, pts: int, duration: int | None) -> None:
        self._frames.append(pixels.copy())
        self._times.append(pts)
        self._last_duration = float(duration * self._time_base) if duration is not None else float(1 / self._frame_rate)

    def finish(self) -> None:
        """Write the file."""
        lengths = [float((after - before) * self._time_base) for before, after in itertools.pairwise(self._times)]
        if self._frames:
            suffix = self._path.suffix.lower()
            content = images.encode_animation(self._frames, [*lengths, self._last_duration], suffix)
            durable.operations.write(self._path, content)


def output_place(path: str | Path, *, kind: FrameKind = "pictures", single: bool = False) -> durable.Output:
    """The place that a name of an output stands for, to claim it; see `open_sink` for the names.

    Args:
        single: whether there is one picture, whose name is taken as it is, also where it looks like a pattern.

    Raises:
        InputError: it has no name, its suffix is not one that is written, or it blurs labels.
    """
    target, pattern = _target(path, single=single)
    name = paths.display(path)
    if pattern is not None:
        if paths.is_pattern(os.fspath(path)):
            return durable.Output(target, "numbered", paths.pattern_expression(pattern), name)
        return durable.Output(target, "folder", name=name)
    suffix = target.suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise InputError(
            f"{name}: cannot write {suffix}; known are {' '.join(OUTPUT_SUFFIXES)} and folders",
            hint="end the name with / to fill a folder with pictures",
        )
    if kind == "labels" and suffix not in (".mkv", ".png"):
        raise InputError(f"{name}: {suffix} blurs label ids", hint="write labels to .mkv or to a folder of PNG files")
    return durable.Output(target, name=name)


def sidecar_path(path: str | Path) -> Path:
    """The JSON file that tells how an output was made: `clip.mp4.json` beside `clip.mp4`, `frames.json` beside `frames/`."""
    place = Path(paths.expanded(path))
    place = _named(place) if place.name in ("", "..") else place
    if not place.name:
        raise InputError(f"{paths.display(path)}: is the outermost folder; a file or folder of its own is to be written")
    return place.with_name(f"{place.name}.json")


def sidecar_place(path: str | Path) -> durable.Output:
    """The place of `sidecar_path`, to claim it."""
    return durable.Output(sidecar_path(path), "sidecar")


def files_read(where: str | Path) -> list[Path]:
    """The files that `open_source` reads, and their folder where it is named; for claims, which keep inputs safe from outputs."""
    location, _ = paths.split_cut(paths.expanded(where))
    if location == "-":
        return []
    if not os.path.lexists(location):
        if _is_picture_pattern(location):
            return paths.matching_pattern(location)
        if paths.is_glob(location):
            return paths.matching_glob(location)
    path = Path(location)
    return [path, *(entry for entry in paths.list_folder(path) if images.is_image(entry))] if path.is_dir() else [path]


def check_output(path: str | Path, *, kind: FrameKind = "pictures", overwrite: bool = False, single: bool = False) -> None:
    """Refuse an output that cannot be written; `durable.claim` does so too, and holds it.

    Raises:
        InputError: see `output_place`.
        OutputError: see `durable.claim`.
    """
    durable.check_place(output_place(path, kind=kind, single=single), overwrite=overwrite)


@contextmanager
def open_sink(
    path: str | Path,
    *,
    time_base: Fraction,
    frame_rate: Fraction,
    kind: FrameKind = "pictures",
    audio: video.Audio | Path | None = None,
    pixel_aspect: Fraction = Fraction(1),
    quality: Quality = "good",
    overwrite: bool = False,
    names: Sequence[str] | None = None,
    single: bool = False,
    claim: durable.Claim | None = None,
) -> Iterator[FrameSink]:
    """A place to write frames to; it appears under `path`, whole, when the `with` block ends, and not at all if it fails.

    The suffix decides: .mp4 .mov .mkv .webm .gif .apng .webp, .png for a single picture; a name without suffix or ending with `/`
    is a folder of PNG files, `dir/%05d.png` one with names of your own, which may hold other things. Labels go to .mkv (FFV1) or
    PNG, exactly. Odd sizes are padded by a row or column inside H.264, which our reader takes off again.

    Args:
        audio: sound that is copied along, with all its tracks.
        pixel_aspect: width of a pixel by its height, which videos carry.
        names: of the files in a folder, without suffix; see `FrameSource.frame_names`.
        single: see `output_place`.
        claim: what the caller holds already; without it, the output is claimed here.

    Raises:
        InputError: no frame was written, or the suffix is not known or blurs labels.
        OutputError: the disk is full or read-only, or the place is taken.
    """
    place = output_place(path, kind=kind, single=single)
    name = place.label
    with ExitStack() as stack:
        if claim is None or not claim.covers(place):
            stack.enter_context(durable.claim([place], overwrite=overwrite))
        temporary = stack.enter_context(durable.replacing_output(place))
        suffix = place.path.suffix.lower()
        if not place.is_file:
            durable.operations.make_folder(temporary)
            pattern = _target(path, single=single)[1] or _FOLDER_PATTERN
            sink: FrameSink = _PictureSink(name, kind, temporary, pattern, (names or ()) if place.kind == "folder" else ())
            yield sink
        elif suffix == ".png":
            sink = _SinglePictureSink(name, kind, temporary)
            yield sink
        elif suffix in _ANIMATION_SUFFIXES:
            animation = _AnimationSink(name, temporary, time_base, frame_rate)
            sink = animation
            yield sink
            animation.finish()
        else:
            with video.VideoWriter(
                temporary,
                name=name,
                suffix=suffix,
                time_base=time_base,
                frame_rate=frame_rate,
                kind=kind,
                quality=quality,
                audio=video.Audio(audio) if isinstance(audio, Path) else audio,
                pixel_aspect=pixel_aspect,
            ) as writer:
                sink = _VideoSink(name, kind, writer)
                yield sink
        if sink.num_frames == 0:
            raise InputError(f"{name}: there was no frame to write")


def _target(path: str | Path, *, single: bool) -> tuple[Path, str | None]:
    """What to create, and the pattern of the file names if it is a folder.

    Raises:
        InputError: it is standard output, which is not written to, or nothing.
    """
    name = paths.expanded(path)
    if not name.strip():
        raise InputError("the output has no name")
    if name == "-":
        raise InputError("-: videos are not written to standard output", hint="name a file")
    if not single and paths.is_pattern(name) and Path(name).suffix.lower() == ".png":
        return _named(Path(name).parent), Path(name).name
    if name.endswith(("/", os.sep)) or not Path(name).suffix:
        return _named(Path(name)), _FOLDER_PATTERN
    return Path(name), None


def _named(folder: Path) -> Path:
    """The folder by a path that ends with its own name, which `.` and `..` do not."""
    return folder if folder.name not in ("", "..") else Path(os.path.abspath(folder))
