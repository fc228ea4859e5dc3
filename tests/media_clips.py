"""Tiny real media files for the tests of vidgen.media: videos with a known picture in every frame, PNG files byte by byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

CODEC_TAGS = {"601": Colorspace.ITU601, "709": Colorspace.ITU709}
RANGE_TAGS = {"limited": ColorRange.MPEG, "full": ColorRange.JPEG}


def smooth_frames(num_frames: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Smooth colours that wander, uint8 [H,W,3]; every frame differs from every other."""
    generator = np.random.default_rng(seed)
    phases = generator.uniform(0, 6, 3)
    rows, columns = np.mgrid[:height, :width]
    waves = [
        [
            np.sin((rows + 2 * time) / 9 + phases[0]),
            np.sin((columns + 3 * time) / 7 + phases[1]),
            np.cos((rows + columns + time) / 11 + phases[2]),
        ]
        for time in range(num_frames)
    ]
    return [np.rint(128 + 90 * np.stack(wave, axis=2)).astype(np.uint8) for wave in waves]


def label_frames(num_frames: int, height: int = 48, width: int = 64, num_ids: int = 12, dtype: type = np.uint8) -> list[np.ndarray]:
    """Blocky label maps [H,W] that change in every frame."""
    generator = np.random.default_rng(1)
    blocks = generator.integers(0, num_ids, (num_frames, height // 8 + 1, width // 8 + 1))
    return [np.kron(block, np.ones((8, 8)))[:height, :width].astype(dtype) for block in blocks]


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    codec_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    time_base: Fraction = Fraction(1, 25),
    pts: Sequence[int] | None = None,
    matrix: str | None = "709",
    color_range: str | None = "limited",
    rotation: tuple[int, bool, bool] | None = None,
    with_sound: bool = False,
) -> Path:
    """A video of `frames` (uint8 [H,W,3], or [H,W] for gray formats), encoded with PyAV directly."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream: Any = container.add_stream(codec, rate=25, options=dict(codec_options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = time_base
        if matrix is not None:
            stream.codec_context.colorspace = CODEC_TAGS[matrix]
        if color_range is not None:
            stream.codec_context.color_range = RANGE_TAGS[color_range]
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1], vflip=rotation[2])
        sound: Any = container.add_stream("aac", rate=16000, layout="mono") if with_sound else None
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels), "rgb24" if pixels.ndim == 3 else _GREY[pixels.dtype.name]
            )
            if pixel_format != frame.format.name:
                frame = frame.reformat(
                    format=pixel_format,
                    dst_colorspace=CODEC_TAGS[matrix or "601"],
                    src_color_range=ColorRange.JPEG,
                    dst_color_range=RANGE_TAGS[color_range or "limited"],
                )
            frame.pts, frame.time_base = (index if pts is None else pts[index]), time_base
            container.mux(stream.encode(frame))
            if sound is not None:
                container.mux(sound.encode(_sound_frame(index)))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return path


_GREY = {"uint8": "gray", "uint16": "gray16le"}


def _sound_frame(index: int) -> av.AudioFrame:
    times = np.arange(index * 640, (index + 1) * 640)
    frame = av.AudioFrame.from_ndarray((0.3 * np.sin(times / 12)).astype(np.float32)[None], "fltp", "mono")
    frame.sample_rate, frame.pts = 16000, index * 640
    return frame


def png_bytes(width: int, height: int, bit_depth: int, color_type: int, rows: bytes) -> bytes:
    """A PNG file from its header fields and its unfiltered rows, for kinds that no library writes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels."""
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
