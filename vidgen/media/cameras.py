"""Frames as they come: cameras, a stream on standard input, and files at the speed at which they were recorded."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from vidgen.errors import InputError
from vidgen.media.frames import open_source

CAMERA = "camera"
STANDARD_INPUT = "-"
_DRIVERS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
_GRAY = {"gray": "gray", "gray16le": "gray16le", "gray16be": "gray16le"}


@dataclass(frozen=True)
class LiveFrame:
    """A frame and when it came.

    Attributes:
        pixels: uint8 [H,W,3] RGB; of gray streams, where label maps are asked for, [H,W] ids.
        captured: of `time.monotonic`.
        name: for messages.
    """

    pixels: np.ndarray
    captured: float
    name: str


def live_frames(where: str, *, kind: Literal["pictures", "labels"], stop: threading.Event) -> Iterator[LiveFrame]:
    """Frames of `camera`, `camera:N`, `camera:/dev/...`, `-` or a file, until it ends or `stop` is set.

    Raises:
        InputError: it does not exist, is in use, cannot be read, or breaks off.
    """
    if where == CAMERA or where.startswith(f"{CAMERA}:"):
        yield from _camera(where, stop)
    elif where == STANDARD_INPUT:
        yield from _standard_input(kind, stop)
    else:
        yield from _paced(where, kind, stop)


def _paced(where: str, kind: Literal["pictures", "labels"], stop: threading.Event) -> Iterator[LiveFrame]:
    source = open_source(where, kind=kind)
    started, first = time.monotonic(), None
    for frame in source:
        first = frame.pts if first is None else first
        due = started + float((frame.pts - first) * source.time_base)
        if stop.wait(max(0.0, due - time.monotonic())):
            return
        yield LiveFrame(frame.pixels, time.monotonic(), frame.name)


def _camera(where: str, stop: threading.Event) -> Iterator[LiveFrame]:
    driver, pattern = _DRIVERS.get(sys.platform, _DRIVERS["linux"])
    chosen = where.partition(":")[2] or "0"
    device = pattern.format(chosen) if chosen.isdecimal() else chosen
    if driver == "v4l2" and not Path(device).exists():
        have = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise InputError(f"{where}: there is no camera {device} here (cameras: {have})")
    with _explained(where) as count, av.open(device, format=driver) as container:
        yield from _decoded(container, where, "pictures", stop, count)
        if not stop.is_set():
            raise InputError(f"{where}: stopped sending after {count[0]} frames; was it unplugged?")


def _standard_input(kind: Literal["pictures", "labels"], stop: threading.Event) -> Iterator[LiveFrame]:
    with _explained("standard input") as count, av.open(sys.stdin.buffer) as container:
        yield from _decoded(container, "standard input", kind, stop, count)


def _decoded(
    container: Any, name: str, kind: Literal["pictures", "labels"], stop: threading.Event, count: list[int]
) -> Iterator[LiveFrame]:
    if not container.streams.video:
        raise InputError(f"{name}: holds no video")
    for frame in container.decode(video=0):
        if stop.is_set():
            return
        layout = _GRAY.get(frame.format.name) if kind == "labels" else None
        count[0] += 1
        yield LiveFrame(frame.to_ndarray(format=layout or "rgb24"), time.monotonic(), f"{name} frame {count[0] - 1}")


@contextmanager
def _explained(name: str) -> Iterator[list[int]]:
    """Failures of the library as errors that say what happened; the number of frames so far stands in the list."""
    count = [0]
    try:
        yield count
    except (av.error.FFmpegError, OSError) as error:
        reason = {errno.EBUSY: "is in use by another program", errno.EACCES: "may not be opened by this user"}.get(error.errno or 0)
        if count[0]:
            reason = f"broke off after {count[0]} frames ({error.strerror or error}); was it unplugged?"
        raise InputError(f"{name}: {reason or f'cannot be opened ({error.strerror or error})'}") from error


def decode_picture(content: bytes, name: str) -> np.ndarray:
    """A JPEG as a page sends it, uint8 [H,W,3] RGB.

    Raises:
        InputError: it is none, or damaged.
    """
    decoder: Any = av.CodecContext.create("mjpeg", "r")
    try:
        frames = [*decoder.decode(av.Packet(content)), *decoder.decode(None)]
        return frames[0].to_ndarray(format="rgb24")
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise InputError(f"{name}: is no JPEG picture") from error
