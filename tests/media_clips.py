"""Tiny real media files for the tests of vidgen.media, made on the fly, and file operations that fail on demand."""

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

from vidgen import durable

MATRIX_TAGS = {"601": Colorspace.ITU601, "709": Colorspace.ITU709}
RANGE_TAGS = {"limited": ColorRange.MPEG, "full": ColorRange.JPEG}


def smooth_frames(num_frames: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Smooth colors that wander, uint8 [H,W,3]; every frame differs from every other."""
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
    matrix: str = "709",
    color_range: str = "limited",
    tagged: bool = True,
    orientation: tuple[int, bool, bool] | None = None,
    with_sound: bool = False,
) -> Path:
    """A video of `frames` (uint8 [H,W,3], or labels [H,W] for gray formats), encoded with PyAV directly."""
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream: Any = container.add_stream(codec, rate=25, options=dict(codec_options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        if tagged and pixel_format.startswith("yuv"):
            stream.codec_context.colorspace = MATRIX_TAGS[matrix]
            stream.codec_context.color_range = RANGE_TAGS[color_range]
        if orientation is not None:
            stream.set_display_rotation(orientation[0], hflip=orientation[1], vflip=orientation[2])
        sound: Any = container.add_stream("aac", rate=16000, layout="mono") if with_sound else None
        for index, pixels in enumerate(frames):
            frame = video_frame(pixels, pixel_format, matrix, color_range)
            frame.pts, frame.time_base = (index if pts is None else pts[index]), time_base
            container.mux(stream.encode(frame))
            if sound is not None:
                container.mux(sound.encode(_sound_frame(index)))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return path


def video_frame(pixels: np.ndarray, pixel_format: str, matrix: str = "709", color_range: str = "limited") -> av.VideoFrame:
    """A frame in the format of an encoder; YUV is computed here by the formulas of the standards, not by FFmpeg."""
    if pixels.ndim == 2:
        return av.VideoFrame.from_ndarray(pixels, {"uint8": "gray", "uint16": "gray16le"}[pixels.dtype.name])
    if not pixel_format.startswith("yuv"):
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        return frame if pixel_format == "rgb24" else frame.reformat(format=pixel_format)
    height, width = pixels.shape[:2]
    frame = av.VideoFrame(width, height, pixel_format)
    bits = 10 if "10" in pixel_format else 8
    for plane, values in zip(frame.planes, _yuv(pixels, matrix, color_range, bits, subsampled="420" in pixel_format), strict=True):
        rows = np.zeros((values.shape[0], plane.line_size), np.uint8)
        content = values.astype(np.uint8 if bits == 8 else "<u2").view(np.uint8)
        rows[:, : content.shape[1]] = content
        plane.update(rows.tobytes())
    return frame


def _yuv(pixels: np.ndarray, matrix: str, color_range: str, bits: int, subsampled: bool) -> list[np.ndarray]:
    """Source: ITU-R BT.601 and BT.709. Chroma samples of 4:2:0 are means of four pixels."""
    red_weight, blue_weight = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}[matrix]
    red, green, blue = np.moveaxis(pixels.astype(float) / 255, 2, 0)
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    chroma = [(blue - luma) / (2 - 2 * blue_weight), (red - luma) / (2 - 2 * red_weight)]
    if subsampled:
        chroma = [_halved(plane) for plane in chroma]
    scale = 2 ** (bits - 8)
    luma_range, luma_offset, chroma_range = (219, 16, 224) if color_range == "limited" else (255, 0, 255)
    if color_range == "full" and bits > 8:
        luma_range = chroma_range = (2**bits - 1) / scale
    planes = [luma * luma_range + luma_offset, *(plane * chroma_range + 128 for plane in chroma)]
    return [np.rint(plane * scale).clip(0, 2**bits - 1) for plane in planes]


def _halved(plane: np.ndarray) -> np.ndarray:
    padded = np.pad(plane, [(0, length % 2) for length in plane.shape], mode="edge")
    return (padded[0::2, 0::2] + padded[0::2, 1::2] + padded[1::2, 0::2] + padded[1::2, 1::2]) / 4


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


class FaultyOperations(durable.Operations):
    """Keeps a log, and fails at the chosen operation as a full disk, a broken disk or a short write does."""

    def __init__(self, fail_at: int, error: BaseException | None, short: bool = False) -> None:
        self.fail_at, self.error, self.short = fail_at, error, short
        self.log: list[tuple[str, str]] = []

    def _step(self, name: str, path: Path) -> None:
        self.log.append((name, path.name))
        if len(self.log) - 1 == self.fail_at and self.error is not None:
            raise self.error

    def write(self, path: Path, data: bytes | memoryview) -> None:
        if self.short and len(self.log) == self.fail_at:
            super().write(path, memoryview(data)[: len(data) // 2])
        self._step("write", path)
        super().write(path, data)

    def make_folder(self, path: Path) -> None:
        self._step("make_folder", path)
        super().make_folder(path)

    def sync(self, path: Path) -> None:
        self._step("sync", path)
        super().sync(path)

    def replace(self, source: Path, target: Path) -> None:
        self._step("replace", source)
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        self._step("remove", path)
        super().remove(path)
