"""Video files, decoded and encoded one frame at a time with their timing, colors and sound; the only user of PyAV.

Files are opened by absolute path with the container formats and protocols spelled out, because FFmpeg otherwise follows
references inside files (playlists, ffconcat) to other files and addresses. Containers are closed in `with` blocks: an open
decoder that survives into a forked process makes that process hang.
"""

from __future__ import annotations

import logging
import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from vidgen.errors import DamagedVideoError, InputError, OutputError, VidgenError
from vidgen.media import images, integrity, paths

log = logging.getLogger(__name__)

Quality = Literal["draft", "good", "lossless"]
FrameKind = Literal["pictures", "labels"]

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"})
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
_LOSSLESS_CODECS = frozenset({"ffv1", "png", "apng", "rawvideo", "huffyuv", "ffvhuff", "utvideo"})
_CODECS_WITH_HIDDEN_FRAMES = frozenset({"vp8", "libvpx"})
_MATROSKA_TICK = Fraction(1, 1000)
_MP4_OPTIONS = {"movflags": "+faststart+use_metadata_tags"}
# Sound often starts a little before time 0; the muxer would move the pictures back with it.
_MATROSKA_OPTIONS = {"avoid_negative_ts": "disabled"}
_MUXERS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("mp4", _MP4_OPTIONS),
    ".mov": ("mov", _MP4_OPTIONS),
    ".mkv": ("matroska", _MATROSKA_OPTIONS),
    ".webm": ("webm", _MATROSKA_OPTIONS),
    ".gif": ("gif", {}),
}
_MAX_GIF_RATE = 100
_MAX_UNTIMED = 16
_CROP_KEY = "VIDGEN_SIZE"
# Bicubic chroma at full resolution keeps 5 dB more of a photo than the default; bit-exact gives every processor the same result.
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
_HIGH_DYNAMIC_RANGE = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is decoded.

    Attributes:
        size: (height, width) of the frames as they are read, upright.
        time_base: seconds per pts unit.
        frame_rate: frames per second, the mean for variable rates.
        num_frames: what the container states, which may be wrong; None when it does not.
        missing_bytes: how much of a cut-off file is not there.
        has_audio: whether there is sound.
        pixel_aspect: width of a pixel by its height, upright; 1 where it is square or unknown.
    """

    size: tuple[int, int]
    time_base: Fraction
    frame_rate: Fraction
    num_frames: int | None
    missing_bytes: int
    has_audio: bool
    pixel_aspect: Fraction = Fraction(1)


@dataclass(frozen=True)
class Audio:
    """The sound that belongs to frames.

    Attributes:
        path: the file that holds it.
        start: seconds into the file at which the frames begin; the sound before that is left out.
    """

    path: Path
    start: Fraction | None = None


def is_video(path: Path) -> bool:
    """Whether the name says that `path` is a video."""
    return path.suffix.lower() in SUFFIXES


def probe(path: Path, *, kind: FrameKind = "pictures") -> VideoInfo:
    """Facts about a video, from its header and its first frame.

    Raises:
        InputError: missing, damaged, too large or not a video, or labels asked of a lossy codec.
    """
    with _opened(path) as (container, stream):
        if kind == "labels":
            _check_lossless(paths.display(path), stream)
        frame = next(_frames(path, container, stream), None)
        if frame is None:
            raise InputError(f"{paths.display(path)}: not one frame can be read")
        height, width = _cropped_size(container, frame)
        aspect, transposed = _pixel_aspect(stream), _Orientation.of(frame).transposed
        return VideoInfo(
            size=(width, height) if transposed else (height, width),
            time_base=stream.time_base,
            frame_rate=_frame_rate(stream),
            num_frames=_num_frames(container, stream),
            missing_bytes=integrity.missing_bytes(path),
            has_audio=bool(container.streams.audio),
            pixel_aspect=1 / aspect if transposed else aspect,
        )


def _pixel_aspect(stream: Any) -> Fraction:
    return Fraction(stream.sample_aspect_ratio or 1)


def read_times(path: Path) -> tuple[np.ndarray, bool]:
    """Presentation times of all frames, int64 [N] in units of the time base, increasing; and whether the file states them all.

    They are read from the packets; only where those do not tell are the frames decoded, as `decode` does. Times that the file does
    not state are no places to seek to.

    Raises:
        InputError: as for `probe`.
    """
    with _opened(path) as (container, stream):
        times = _packet_times(container, stream)
    if times is not None:
        return np.array(times, dtype=np.int64), True
    with _opened(path) as (container, stream):
        frames = [(pts, frame.pts == pts) for frame, pts in _timed_frames(path, container, stream)]
    return np.array([pts for pts, _ in frames], dtype=np.int64), all(stated for _, stated in frames)


def _packet_times(container: Any, stream: Any) -> list[int] | None:
    """Times of the packets from the first that can be decoded; None where packets are not frames one to one."""
    times: list[int] = []
    first = None
    for packet in container.demux(stream):
        if not packet.size and packet.dts is None and packet.pts is None:
            continue  # asks the decoder for the frames it still holds
        if packet.pts is None:
            return None
        if not packet.is_discard and packet.size:
            times.append(packet.pts)
        if first is None:
            first = next((frame.pts for frame in packet.decode()), None)
    times = sorted(time for time in times if first is None or time >= first)
    if stream.codec_context.name in _CODECS_WITH_HIDDEN_FRAMES or any(before == after for before, after in pairwise(times)):
        return None
    return times


def decode(
    path: Path, *, kind: FrameKind = "pictures", first_pts: int | None = None
) -> Iterator[tuple[np.ndarray, int, int | None]]:
    """Frames of a video with their pts, one at a time, upright; and for the last, how long it is displayed, where that is stated.

    Pictures are uint8 [H,W,3] RGB; labels are exact ids, uint8 or uint16 [H,W], or colors uint8 [H,W,3]. With `first_pts`,
    decoding starts at the keyframe before it and frames before it are dropped.

    Raises:
        DamagedVideoError: the file ends early or a frame is broken; all good frames before it were given.
        InputError: missing, not a video, frames of several sizes, or labels asked of a lossy codec.
    """
    # One thread holds back the fewest frames, which matters where those at the end are not given.
    with _opened(path, threads="NONE" if integrity.missing_bytes(path) else "AUTO") as (container, stream):
        if kind == "labels":
            _check_lossless(paths.display(path), stream)
        convert = _Conversion(paths.display(path), container, kind)
        if first_pts is not None:
            container.seek(first_pts, stream=stream, backward=True)
        held: tuple[np.ndarray, int, int | None] | None = None
        try:
            for index, (frame, pts) in enumerate(_timed_frames(path, container, stream)):
                if first_pts is None or pts >= first_pts:
                    if held is not None:
                        yield held
                    held = convert(frame, index), pts, frame.duration or None
        except DamagedVideoError:
            if held is not None:
                yield (*held[:2], None)
            raise
        if held is not None:
            yield (*held[:2], _last_duration(container, stream, *held[1:]))


def _last_duration(container: Any, stream: Any, pts: int, stated: int | None) -> int | None:
    """How long the last frame is displayed, in units of the time base: until the end that the file states, else as stated."""
    end = _stated_end(container, stream)
    until_end = None if end is None else round(end / stream.time_base) - pts
    return max((duration for duration in (stated, until_end) if duration is not None and duration > 0), default=None)


def _timed_frames(path: Path, container: Any, stream: Any) -> Iterator[tuple[Any, int]]:
    """Decoded frames with times that increase, also where the file gives none or the same twice.

    Frames without a time at the beginning, as cuts between keyframes leave them, lie before the first with one, each as far from
    the next as frames are in the mean.
    """
    step = max(1, round(1 / (_frame_rate(stream) * stream.time_base)))
    untimed: list[Any] = []
    last: int | None = None
    for frame in _frames(path, container, stream):
        if last is None and frame.pts is None and len(untimed) < _MAX_UNTIMED:
            untimed.append(frame)
            continue
        if last is None:
            first = frame.pts if frame.pts is not None else (stream.start_time or 0) + len(untimed) * step
            yield from ((early, first - (len(untimed) - index) * step) for index, early in enumerate(untimed))
            last = first
        else:
            last = frame.pts if frame.pts is not None and frame.pts > last else last + (step if frame.pts is None else 1)
        yield frame, last
    if last is None:
        start = stream.start_time or 0
        yield from ((frame, start + index * step) for index, frame in enumerate(untimed))


def _frames(path: Path, container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames, until the end or the first sign of damage.

    In a cut-off file each frame waits for the next, since the last may be half a frame, and what the decoder still holds at the
    end is not given, since frames that go between are lost.
    """
    name = paths.display(path)
    num_read = 0
    held = None
    missing = integrity.missing_bytes(path)
    packets = _PacketCount()
    checksums = integrity.SliceChecksums() if stream.codec_context.name == "ffv1" else None
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise _damaged(name, num_read, stream, "the next packet is incomplete")
            if packet.size and checksums is not None and not checksums.accept(bytes(packet)):
                raise _damaged(name, num_read, stream, "a checksum does not fit")
            if missing and packet.dts is None and packet.pts is None:
                break
            packets.add(packet)
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise _damaged(name, num_read, stream, "the next frame is broken")
                packets.see_first(frame)
                if missing:
                    frame, held = held, frame
                if frame is not None:
                    yield frame
                    num_read += 1
    except (av.FFmpegError, OSError, ValueError, IndexError, EOFError) as error:
        raise _damaged(name, num_read, stream, f"decoder: {_reason(error)}") from error
    if missing:
        raise _damaged(name, num_read, stream, f"{missing} bytes are missing at the end of the file")
    structure = integrity.read_structure(path, list(container.streams.video).index(stream))
    fault = structure.fault or (images.find_gif_damage(path) if container.format.name == "gif" else None)
    if fault:
        raise _damaged(name, num_read, stream, fault)
    num_stated = stream.frames if container.format.name == "avi" else 0
    if packets.num_seen < num_stated:
        raise _damaged(name, num_read, stream, f"{num_stated} are stated")
    num_hidden = packets.num_hidden - (packets.num_cut if structure.is_uncut else 0)
    num_stored = max(packets.num_seen, _num_indexed(container, stream), structure.num_frames or 0) - num_hidden
    if num_read < num_stored and stream.codec_context.name not in _CODECS_WITH_HIDDEN_FRAMES:
        raise _damaged(name, num_read, stream, f"{num_stored} are stored")
    stated = _stated_end(container, stream)
    if stated is not None and packets.end + 1 / _frame_rate(stream) + _MATROSKA_TICK < stated:
        raise _damaged(name, num_read, stream, f"they end at {float(packets.end):.2f} s, the file states {float(stated):.2f} s")


class _PacketCount:
    """How many packets were seen, how many of them are never shown, and when the last one ends.

    Never shown are those that an edit list cuts away (`num_cut` of them), empty ones, and the leading pictures of a clip that was
    cut between keyframes, which lack the frames they build on.
    """

    def __init__(self) -> None:
        self.num_seen = self.num_hidden = self.num_cut = 0
        self.end = Fraction(0)
        self._first: int | None = None
        self._early: list[int] = []
        self._are_leading = True

    def add(self, packet: Any) -> None:
        if packet.dts is None and packet.pts is None and not packet.size:
            return
        self.num_seen += 1
        # Without a time it may be one of the leading pictures that lie before time 0.
        if packet.is_discard or not packet.size or (packet.pts is None and packet.dts is None):
            self.num_hidden += 1
            self.num_cut += packet.is_discard
        elif packet.pts is not None:
            if self._first is None:
                self._early.append(packet.pts)
            else:
                self._count_leading(packet.pts)
        if packet.pts is not None:
            self.end = max(self.end, (packet.pts + (packet.duration or 0)) * packet.time_base)

    def see_first(self, frame: Any) -> None:
        if self._first is None and frame.pts is not None:
            self._first = frame.pts
            for pts in self._early:
                self._count_leading(pts)
            self._early.clear()

    def _count_leading(self, pts: int) -> None:
        """Leading pictures are stored before the first that follows the keyframe; what comes early after that is damage."""
        assert self._first is not None
        if pts > self._first:
            self._are_leading = False
        elif pts < self._first and self._are_leading:
            self.num_hidden += 1


def _num_indexed(container: Any, stream: Any) -> int:
    """How many frames the index of the file lists; Matroska lists keyframes only, and reads its index when it seeks."""
    try:
        container.seek(0)
    except (av.FFmpegError, OSError, ValueError):
        pass
    return len(stream.index_entries)


def _stated_end(container: Any, stream: Any) -> Fraction | None:
    """When the pictures end according to the file, in seconds; None when it says so only for all streams together."""
    start = (stream.start_time or 0) * stream.time_base
    if stream.duration:
        return start + stream.duration * stream.time_base
    tag = re.match(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    if tag is not None:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + Fraction(tag[3])
    if container.duration and len(container.streams) == 1:
        return Fraction(container.start_time or 0, av.time_base) + Fraction(container.duration, av.time_base)
    return None


def _damaged(name: str, num_read: int, stream: Any, reason: str) -> DamagedVideoError:
    stated = f" of {stream.frames}" if stream.frames else ""
    return DamagedVideoError(f"{name}: damaged after {num_read}{stated} frames ({reason})")


class _Conversion:
    """Turns decoded frames of one video into arrays, checking that they keep their size."""

    def __init__(self, name: str, container: Any, kind: str) -> None:
        self.name, self.container, self.kind = name, container, kind
        self.reformatter = VideoReformatter()
        self.size: tuple[int, int] | None = None
        self.is_transparent = False

    def __call__(self, frame: Any, index: int) -> np.ndarray:
        size = (frame.height, frame.width)
        if self.size is None:
            self.size = size
            self._warn_about_metadata(frame)
        if size != self.size:
            raise InputError(
                f"{self.name} frame {index}: {size[1]}x{size[0]}, but the frames before are {self.size[1]}x{self.size[0]}",
                hint="cut the video where its size changes",
            )
        pixels = self._labels(frame) if self.kind == "labels" else self._picture(frame)
        height, width = _cropped_size(self.container, frame)
        return np.ascontiguousarray(_Orientation.of(frame).apply(pixels[:height, :width]))

    def _warn_about_metadata(self, frame: Any) -> None:
        aspect = _pixel_aspect(_video_stream(self.name, self.container))
        if aspect != 1:
            log.warning("%s: its pixels are not square (%s); results keep that, pictures of frames cannot", self.name, aspect)
        if frame.interlaced_frame:
            log.warning("%s: is interlaced; both fields are read as one frame, so what moves looks combed", self.name)
        if frame.color_trc in _HIGH_DYNAMIC_RANGE:
            log.warning("%s: high dynamic range is read without tone mapping; colors will look flat", self.name)

    def _picture(self, frame: Any) -> np.ndarray:
        has_alpha = _has_alpha(frame)
        # Untagged files follow the convention of players: BT.709 for high definition, BT.601 below.
        untagged_high_definition = frame.colorspace == 2 and frame.height >= 720
        converted = self.reformatter.reformat(
            frame,
            format="rgba" if has_alpha else "rgb24",
            src_colorspace=Colorspace.ITU709 if untagged_high_definition else None,
            dst_color_range=ColorRange.JPEG,
            interpolation=_SCALING,
            threads=1,
        )
        pixels = converted.to_ndarray()
        if not has_alpha or (pixels[:, :, 3] == 255).all():  # all GIFs could be transparent, and few are
            return pixels[:, :, :3]
        if not self.is_transparent:
            self.is_transparent = True
            log.info("%s: transparent parts are laid over white", self.name)
        return images.over_white(pixels[:, :, :3], pixels[:, :, 3])

    def _labels(self, frame: Any) -> np.ndarray:
        if frame.format.name in ("gray", "gray16le"):
            return frame.to_ndarray()
        if not frame.format.is_rgb or len(frame.format.components) not in (3, 4):
            raise InputError(f"{self.name}: a label video holds {frame.format.name}; expected gray, gray16le or RGB without loss")
        return self.reformatter.reformat(frame, format="rgb24", interpolation=_SCALING, threads=1).to_ndarray()


@dataclass(frozen=True)
class _Orientation:
    """How stored pictures are turned and mirrored to stand upright: rows and columns exchanged, then axes reversed."""

    transposed: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False

    @staticmethod
    def of(frame: Any) -> _Orientation:
        """From the display matrix: (x, y) is shown at (a x + c y, b x + d y); other angles become the nearest right one."""
        side_data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        if side_data is None:
            return _Orientation()
        a, b, _, c, d, *_ = struct.unpack("<9i", bytes(side_data))
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return _Orientation(False, d < 0, a < 0)
        return _Orientation(True, b < 0, c < 0)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        upright = pixels.swapaxes(0, 1) if self.transposed else pixels
        return upright[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


def _has_alpha(frame: Any) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _check_lossless(name: str, stream: Any) -> None:
    codec = stream.codec_context.name
    if codec not in _LOSSLESS_CODECS:
        raise InputError(
            f"{name}: {codec} blurs label ids; a label video needs a lossless codec",
            hint="keep labels as FFV1 in .mkv or as PNG files",
        )


def _cropped_size(container: Any, frame: Any) -> tuple[int, int]:
    """(height, width) without the row or column that our own writer adds to odd sizes."""
    recorded = next((value for key, value in container.metadata.items() if key.upper() == _CROP_KEY), "")
    width, _, height = recorded.partition("x")
    if width.isdecimal() and height.isdecimal() and frame.width - int(width) in (0, 1) and frame.height - int(height) in (0, 1):
        return int(height), int(width)
    return frame.height, frame.width


def _frame_rate(stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return Fraction(rate) if rate else Fraction(25)


def _num_frames(container: Any, stream: Any) -> int | None:
    """What the file says, by its count or by its duration, whichever is less: edit lists hide frames that are counted."""
    end = _stated_end(container, stream)
    if end is None:
        return stream.frames or None
    by_duration = max(1, round((end - (stream.start_time or 0) * stream.time_base) * _frame_rate(stream)))
    return min(by_duration, stream.frames or by_duration)


@contextmanager
def _opened(path: Path, *, threads: Literal["NONE", "AUTO"] = "NONE") -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream, checked and about to be decoded; closed on the way out."""
    with _open_container(path) as container:
        stream = _video_stream(paths.display(path), container)
        stream.thread_type = threads
        stream.codec_context.options = {"max_pixels": str(integrity.MAX_PIXELS)}
        yield container, stream


@contextmanager
def _open_container(path: Path) -> Iterator[Any]:
    paths.check_file(path)
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file", "max_pixels": str(integrity.MAX_PIXELS)}
    try:
        with av.open(os.path.abspath(path), options=options, metadata_errors="replace") as container:
            yield container
    except VidgenError:
        raise
    except (av.FFmpegError, OSError, ValueError, IndexError, EOFError) as error:
        raise _unopenable(path, error) from error


def _unopenable(path: Path, error: Exception) -> InputError:
    name = paths.display(path)
    if missing := integrity.missing_bytes(path):
        return DamagedVideoError(f"{name}: truncated: {missing} bytes are missing at the end, its index among them")
    return InputError(f"{name}: damaged, or not one of mp4, mov, mkv, webm, avi, gif ({_reason(error)})")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _video_stream(name: str, container: Any) -> Any:
    streams = [stream for stream in container.streams.video if not stream.disposition & stream.disposition.attached_pic]
    if not streams:
        raise InputError(f"{name}: has no video stream")
    stream = next((stream for stream in streams if stream.disposition & stream.disposition.default), streams[0])
    context = stream.codec_context
    if context is None or not context.name:
        raise InputError(f"{name}: its codec is not known here")
    if not context.width:
        raise InputError(f"{name}: its size is not stated, or above {integrity.MAX_PIXELS / 1e6:.0f} million pixels")
    most = integrity.MAX_GIF_PIXELS if context.name == "gif" else integrity.MAX_PIXELS
    integrity.check_size(name, context.width, context.height, most)
    return stream


@dataclass(frozen=True)
class Encoding:
    """How frames are stored: the encoder, its pixel format and its options; `even` where sides must be even."""

    codec: str
    pixel_format: str
    options: dict[str, str]
    even: bool = False


# The scaler puts chroma samples in the middle of their four pixels; H.264 assumes the left edge unless it is told (chromaloc).
_X264 = {
    "draft": {"crf": "28", "preset": "veryfast", "x264-params": "chromaloc=1"},
    "good": {"crf": "18", "preset": "medium", "x264-params": "chromaloc=1"},
}
_VP9 = {"draft": {"crf": "40", "cpu-used": "6"}, "good": {"crf": "24", "cpu-used": "3"}}
_FFV1 = {"level": "3", "slices": "4", "slicecrc": "1", "g": "1"}


def encoding_for(suffix: str, quality: Quality, pixels: np.ndarray, kind: FrameKind) -> Encoding:
    """What stores `pixels` best in a file with this suffix.

    Labels are FFV1; lossless pictures are FFV1 in .mkv, RGB H.264 in .mp4 and .mov, RGB VP9 in .webm.

    Raises:
        InputError: labels anywhere but in .mkv, or a lossless .gif.
    """
    if kind == "labels":
        if suffix != ".mkv":
            raise InputError(f"{suffix}: blurs label ids", hint="write labels to .mkv or to a folder of PNG files")
        formats = {(2, "uint8"): "gray", (2, "uint16"): "gray16le", (3, "uint8"): "bgr0"}
        return Encoding("ffv1", formats[pixels.ndim, str(pixels.dtype)], _FFV1)
    if suffix == ".gif":
        if quality == "lossless":
            raise InputError(".gif: holds 256 colors, never lossless", hint="write .mkv, or choose another quality")
        return Encoding("gif", "pal8", {})
    if suffix == ".webm":
        if quality == "lossless":
            return Encoding("libvpx-vp9", "gbrp", {"lossless": "1", "row-mt": "1"})
        return Encoding("libvpx-vp9", "yuv420p", {"b:v": "0", "row-mt": "1", **_VP9[quality]})
    if quality == "lossless":
        return Encoding("ffv1", "bgr0", _FFV1) if suffix == ".mkv" else Encoding("libx264rgb", "rgb24", {"qp": "0"})
    return Encoding("libx264", "yuv420p", _X264[quality], even=True)


class VideoWriter:
    """Encodes frames into a new file; the container opens with the first frame, so that no frames leave no file.

    A context manager: leaving it normally flushes and closes the file, leaving it by an exception only closes it.

    Args:
        path: the file to create.
        name: how messages call it.
        suffix: decides the container: .mp4 .mov .mkv .webm .gif.
        time_base: seconds per pts unit of the frames to come.
        frame_rate: mean frames per second, a hint for the encoder.
        audio: sound that goes along, all of its tracks, copied packet by packet.
        pixel_aspect: width of a pixel by its height.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        suffix: str,
        time_base: Fraction,
        frame_rate: Fraction,
        kind: FrameKind = "pictures",
        quality: Quality = "good",
        audio: Audio | None = None,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self.pixel_aspect = pixel_aspect
        self._durations: dict[int, int] = {}
        self._held: Any = None
        self.path, self.name, self.suffix = path, name, suffix
        self.time_base, self.frame_rate = time_base, frame_rate
        self.kind, self.quality, self.audio = kind, quality, audio
        self._closing = ExitStack()
        self._container: Any = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._closing:
            if kind is None and self._container is not None:
                with _encoder_errors(self.name):
                    self._finish()

    def write(self, pixels: np.ndarray, pts: int, duration: int | None = None) -> None:
        """Encode one frame: uint8 [H,W,3], or labels uint8 or uint16 [H,W].

        Args:
            pts: its time, in units of the time base.
            duration: how long it is displayed, where it is the last one; None for as long as frames are in the mean.

        Raises:
            OSError: the disk refuses it.
            OutputError: the encoder refuses it.
        """
        with _encoder_errors(self.name):
            if self._container is None:
                self._start(pixels)
                # Times below 0 would make an edit list that hides the frame.
                self._delay = max(0, -pts)
            pts += self._delay
            self._last_pts, self._last_duration = pts, duration
            self._end = (pts + duration) * self.time_base if duration is not None else pts * self.time_base + 1 / self.frame_rate
            if duration is not None:
                self._durations[pts] = duration
            for frame in self._prepared(pixels, pts):
                self._mux(self._stream.encode(frame))
            for copy in self._audio_copies:
                copy.copy_until(self._end)

    def _mux(self, packets: list[Any]) -> None:
        """Write packets, always one behind: what the last of them says of its duration is known at the end only."""
        for packet in packets:
            duration = self._durations.pop(round(packet.pts * packet.time_base / self.time_base), None)
            if duration is not None:
                packet.duration = round(duration * self.time_base / packet.time_base)
            if self._held is not None:
                self._container.mux(self._held)
            self._held = packet

    def _mux_last(self) -> None:
        if self._held is None:
            return
        if self._last_duration is not None and self.suffix in (".mp4", ".mov"):
            # The track lasts until the end of the packet that is stored last, which need not be the frame displayed last.
            packet = self._held
            packet.duration = max(1, round(self._end / packet.time_base) - packet.pts)
        self._container.mux(self._held)
        self._held = None

    def _start(self, pixels: np.ndarray) -> None:
        if self.suffix == ".gif" and self.frame_rate > _MAX_GIF_RATE:
            raise InputError(f"{self.name}: {float(self.frame_rate):.0f} frames per second; a .gif has at most {_MAX_GIF_RATE}")
        self._encoding = encoding = encoding_for(self.suffix, self.quality, pixels, self.kind)
        height, width = pixels.shape[:2]
        self._margin = (height % 2, width % 2) if encoding.even else (0, 0)
        muxer, options = _MUXERS[self.suffix]
        self._container = av.open(os.path.abspath(self.path), "w", format=muxer, options=dict(options))
        self._closing.callback(self._close_quietly)
        if any(self._margin):
            self._container.metadata[_CROP_KEY] = f"{width}x{height}"
        self._stream = stream = self._container.add_stream(encoding.codec, rate=self.frame_rate, options=dict(encoding.options))
        stream.height, stream.width = height + self._margin[0], width + self._margin[1]
        stream.pix_fmt = encoding.pixel_format
        context = stream.codec_context
        context.time_base = self.time_base
        if self.pixel_aspect != 1:
            context.sample_aspect_ratio = self.pixel_aspect
        if encoding.pixel_format.startswith("yuv"):
            context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
            context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        self._reformatter = VideoReformatter()
        self._palette = _Palette(stream.width, stream.height, self.time_base) if encoding.pixel_format == "pal8" else None
        self._audio_copies = self._open_audio()

    def _prepared(self, pixels: np.ndarray, pts: int) -> list[Any]:
        """The frame in the encoder's format."""
        margins = [(0, margin) for margin in self._margin] + [(0, 0)] * (pixels.ndim - 2)
        padded = np.ascontiguousarray(np.pad(pixels, margins, mode="edge")) if any(self._margin) else np.ascontiguousarray(pixels)
        layout = {(2, "uint8"): "gray", (2, "uint16"): "gray16le", (3, "uint8"): "rgb24"}[pixels.ndim, str(pixels.dtype)]
        frame = av.VideoFrame.from_ndarray(padded, layout)
        frame.pts, frame.time_base = pts, self.time_base
        if self._palette is not None:
            return self._palette.apply(frame)
        if self._encoding.pixel_format == layout:
            return [frame]
        is_yuv = self._encoding.pixel_format.startswith("yuv")
        converted = self._reformatter.reformat(
            frame,
            format=self._encoding.pixel_format,
            dst_colorspace=Colorspace.ITU709 if is_yuv else None,
            src_color_range=ColorRange.JPEG if is_yuv else None,
            dst_color_range=ColorRange.MPEG if is_yuv else None,
            dst_color_trc=ColorTrc.BT709 if is_yuv else None,
            dst_color_primaries=ColorPrimaries.BT709 if is_yuv else None,
            interpolation=_SCALING,
            threads=1,
        )
        return [converted]

    def _finish(self) -> None:
        if self._palette is not None:
            for frame in self._palette.rest():
                self._mux(self._stream.encode(frame))
        self._mux(self._stream.encode(None))
        self._mux_last()
        for copy in self._audio_copies:
            copy.finish(self._end)
        self._container.close()
        if self.suffix == ".gif" and self._last_duration is not None:
            integrity.set_last_gif_delay(self.path, self._last_duration * self.time_base)

    def _close_quietly(self) -> None:
        try:
            self._container.close()
        except (av.FFmpegError, OSError, ValueError):
            pass

    def _open_audio(self) -> list[_AudioCopy]:
        """A copier for each track that the container takes."""
        if self.audio is None or self.suffix == ".gif":
            return []
        name, copies = paths.display(self.audio.path), []
        with _open_container(self.audio.path) as container:
            num_tracks = len(container.streams.audio)
        for index in range(num_tracks):
            source = self._closing.enter_context(_open_container(self.audio.path))
            stream = source.streams.audio[index]
            codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
            if codec not in self._container.supported_codecs:
                log.warning("%s: its %s sound does not fit into %s and is left out; .mkv takes it", name, codec, self.suffix)
                continue
            copies.append(_AudioCopy(name, source, stream, self._container, self.audio.start))
        return copies


class _AudioCopy:
    """Copies the packets of one sound track from one container to another, in step with the pictures.

    Args:
        start: seconds at which the pictures begin; packets that begin before are left out, the others move to the front.
    """

    def __init__(self, name: str, source: Any, stream: Any, container: Any, start: Fraction | None) -> None:
        self.name, self.source, self.container, self.start = name, source, container, start
        self.copy = container.add_stream_from_template(stream)
        self.copy.disposition = stream.disposition
        for key in ("language", "title"):
            if key in stream.metadata:
                self.copy.metadata[key] = stream.metadata[key]
        self.packets = self._increasing_packets(stream)
        self.waiting: Any = None

    def _increasing_packets(self, stream: Any) -> Iterator[Any]:
        """The packets in order of time, which is all that containers take; damage ends them."""
        last = None
        try:
            if self.start is not None:
                self.source.seek(int(self.start / stream.time_base), stream=stream, backward=True)
            for packet in self.source.demux(stream):
                if packet.dts is None or (last is not None and packet.dts <= last):
                    continue
                last = packet.dts
                if self.start is not None:
                    # Rounded up: nothing comes before time 0.
                    shift = -(-self.start // packet.time_base)
                    if packet.dts < shift:
                        continue
                    packet.dts -= shift
                    packet.pts = None if packet.pts is None else packet.pts - shift
                yield packet
        except (av.FFmpegError, OSError, ValueError) as error:
            log.warning("%s: its sound is damaged and ends early (%s)", self.name, _reason(error))

    def copy_until(self, end: Fraction | None) -> bool:
        """Copy the packets that start before `end` seconds, or all that are left; whether any are left."""
        while (packet := self.waiting or next(self.packets, None)) is not None:
            self.waiting = packet
            if end is not None and packet.dts * packet.time_base >= end:
                return True
            packet.stream = self.copy
            self.container.mux(packet)
            self.waiting = None
        return False

    def finish(self, end: Fraction) -> None:
        """Copy the rest if the pictures end where those of the sound's own file do; otherwise the sound ends with them."""
        pictures = _video_stream(self.name, self.source) if self.source.streams.video else None
        stated = None if pictures is None else _stated_end(self.source, pictures)
        same_length = stated is not None and abs(stated - (self.start or 0) - end) <= 2 / _frame_rate(pictures)
        if self.copy_until(None if same_length else end):
            log.info("%s: the sound goes on after the pictures and is cut there", self.name)


class _Palette:
    """Reduces every frame to the 256 colors that suit it best, for GIF."""

    def __init__(self, width: int, height: int, time_base: Fraction) -> None:
        graph = self.graph = Graph()
        source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24", width, height), time_base=time_base)
        split, choose, use = (
            graph.add("split"),
            graph.add("palettegen", "stats_mode=single"),
            graph.add("paletteuse", "new=1:dither=bayer"),
        )
        source.link_to(split)
        split.link_to(choose, 0, 0)
        split.link_to(use, 1, 0)
        choose.link_to(use, 0, 1)
        use.link_to(graph.add("buffersink"))
        graph.configure()

    def apply(self, frame: Any) -> list[Any]:
        self.graph.push(frame)
        return self._ready()

    def rest(self) -> list[Any]:
        self.graph.push(None)
        return self._ready()

    def _ready(self) -> list[Any]:
        frames = []
        while True:
            try:
                frames.append(self.graph.pull())
            except (av.BlockingIOError, av.EOFError):
                return frames


@contextmanager
def _encoder_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise OutputError(f"{name}: the encoder refused a frame ({_reason(error)})") from error
