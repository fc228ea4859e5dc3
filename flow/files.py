"""Flow fields in files (.flo, 16-bit KITTI .png, .pfm) and as color pictures.

Reading checks everything before it believes anything: the length must be exact, so a truncated file is refused, never filled
by repetition. The only exception that leaves this file is `FlowError`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from flow.errors import FlowError

MAX_PIXELS = 1 << 26
SUFFIXES = (".flo", ".png", ".pfm")
_MAX_BYTES = 12 * MAX_PIXELS + 4096
_UNKNOWN = 1e9
_FLO_MAGIC = b"PIEH"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_KITTI_ZERO, _KITTI_STEPS_PER_PIXEL = 32768, 64

_numbers = itertools.count()


def read_flow(path: Path | str) -> tuple[Tensor, Tensor]:
    """Flow and known pixels of a .flo, KITTI .png or .pfm file, by its suffix.

    Returns:
        flow float32 [2,H,W] in pixels (0 where unknown) and known bool [1,H,W]. Unknown is |value| > 1e9 in .flo and .pfm,
        a third channel of 0 in .png.

    Raises:
        FlowError: the file is missing, unreadable, of another kind, truncated, too long, or holds NaN.
    """
    path = Path(path)
    reader = {".flo": _parse_flo, ".png": _parse_kitti, ".pfm": _parse_pfm}[_suffix(path)]
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FlowError(f"{_name(path)}: {path.stat().st_size} bytes are more than any flow field of {MAX_PIXELS} pixels")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise FlowError(f"{_name(path)}: could not be read ({getattr(error, 'strerror', None) or error})") from error
    flow, known = reader(data, _name(path))
    if np.isnan(flow).any():
        raise FlowError(f"{_name(path)}: holds NaN; unknown pixels are written as 1e10 in .flo and .pfm")
    known &= (np.abs(flow) <= _UNKNOWN).all(axis=2)
    flow = np.where(known[..., None], flow, np.float32(0)).astype(np.float32)
    return torch.from_numpy(flow.transpose(2, 0, 1).copy()), torch.from_numpy(known[None])


def write_flow(path: Path | str, flow: Tensor, known: Tensor | None = None) -> None:
    """Write flow [2,H,W] in pixels as .flo, KITTI .png or .pfm, by the suffix; the old file or the new one stays, whole.

    .flo and .pfm keep float32 exactly. .png rounds to 1/64 pixel and marks components outside -512..511.98 as unknown.

    Args:
        path: where to; its folder is made.
        flow: [2,H,W], any float dtype, any device.
        known: bool [1,H,W]; False marks unknown pixels. None: all known.

    Raises:
        FlowError: a wrong shape, a known value that is not finite or above 1e9, or a failed write.
    """
    path = Path(path)
    if flow.ndim != 3 or flow.shape[0] != 2 or 0 in flow.shape or not flow.is_floating_point():
        raise FlowError(f"{_name(path)}: flow to write must be float [2,H,W], got {flow.dtype} {tuple(flow.shape)}")
    if known is not None and known.shape != (1, *flow.shape[1:]):
        raise FlowError(f"{_name(path)}: known must be [1,H,W] like the flow, got {tuple(known.shape)}")
    values = flow.detach().float().cpu().permute(1, 2, 0).numpy()
    mask = np.ones(values.shape[:2], bool) if known is None else known[0].cpu().bool().numpy()
    if not (np.abs(values[mask]) <= _UNKNOWN).all():
        raise FlowError(f"{_name(path)}: flow to write holds values that are not finite or above 1e9 pixels")
    writer = {".flo": _format_flo, ".png": _format_kitti, ".pfm": _format_pfm}[_suffix(path)]
    write_atomically(path, writer(values, mask))


def flow_to_picture(flow: Tensor, *, max_flow: float | None = None) -> Tensor:
    """Middlebury colors: hue is direction, saturation is length; uint8 [N,3,H,W].

    Args:
        flow: [N,2,H,W] in pixels, a whole clip at once if it is to be shown as one.
        max_flow: length in pixels that gets full saturation (longer is clipped to it). None takes `picture_scale(flow)`.
            Fixed over a clip, the colors do not flicker; torchvision alone scales each call by its own maximum.
    """
    from torchvision.utils import flow_to_image

    limit = picture_scale(flow) if max_flow is None else max_flow
    if not limit > 0:
        raise FlowError(f"max_flow: must be above 0 pixels, got {max_flow}")
    flow = flow.detach().float()
    length = flow.norm(dim=1, keepdim=True)
    clipped = flow * (limit / length.clamp(min=limit))
    # One more column of exactly that length pins the maximum that torchvision divides by.
    reference = torch.zeros_like(clipped[..., :1])
    reference[:, 0] = limit
    return flow_to_image(torch.cat([clipped, reference], dim=3))[..., :-1]


def picture_scale(flow: Tensor) -> float:
    """A saturation length for `flow_to_picture`: the 99th percentile of the lengths, at least 1 pixel."""
    length = flow.detach().float().norm(dim=1)
    stride = max(1, length.numel() // 1_000_000)
    return max(1.0, float(torch.quantile(length.flatten()[::stride], 0.99)))


def _parse_flo(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    if data[:4] != _FLO_MAGIC or len(data) < 12:
        raise FlowError(f"{name}: not a .flo file (it starts with {data[:4]!r}, not {_FLO_MAGIC!r} and a size)")
    width, height = struct.unpack("<ii", data[4:12])
    _check_size(width, height, name)
    _check_length(len(data) - 12, 8 * width * height, name, width, height)
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2)
    return flow, np.ones((height, width), bool)


def _format_flo(flow: np.ndarray, known: np.ndarray) -> bytes:
    height, width = known.shape
    values = np.where(known[..., None], flow, np.float32(10 * _UNKNOWN)).astype("<f4")
    return _FLO_MAGIC + struct.pack("<ii", width, height) + values.tobytes()


def _parse_pfm(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    header = re.match(rb"PF\s+(\d{1,9})\s+(\d{1,9})\s+([+-]?[0-9.]{1,20}(?:[eE][+-]?\d{1,3})?)\s", data[:128])
    if header is None:
        raise FlowError(f"{name}: not a color .pfm file (its header must be 'PF', width, height, scale)")
    width, height = int(header[1]), int(header[2])
    _check_size(width, height, name)
    _check_length(len(data) - header.end(), 12 * width * height, name, width, height)
    byte_order = "<f4" if header[3].startswith(b"-") else ">f4"
    values = np.frombuffer(data, byte_order, offset=header.end()).reshape(height, width, 3)
    return values[::-1, :, :2].astype(np.float32), np.ones((height, width), bool)


def _format_pfm(flow: np.ndarray, known: np.ndarray) -> bytes:
    height, width = known.shape
    values = np.zeros((height, width, 3), "<f4")
    values[..., :2] = np.where(known[..., None], flow, np.float32(10 * _UNKNOWN))
    return b"PF\n%d %d\n-1.0\n" % (width, height) + values[::-1].tobytes()


def _parse_kitti(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    width, height = _check_png(data, name)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise FlowError(f"{name}: damaged PNG ({error.err})") from error
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape != (height, width, 3):
        raise FlowError(f"{name}: damaged PNG; it does not decode to the 16-bit RGB its header announces")
    known = pixels[..., 0] > 0
    flow = (pixels[..., 2:0:-1].astype(np.float32) - _KITTI_ZERO) / _KITTI_STEPS_PER_PIXEL
    return flow, known


def _format_kitti(flow: np.ndarray, known: np.ndarray) -> bytes:
    steps = np.rint(np.where(known[..., None], flow, 0).astype(np.float64) * _KITTI_STEPS_PER_PIXEL) + _KITTI_ZERO
    known = known & ((steps >= 0) & (steps <= 65535)).all(axis=2)
    pixels = np.zeros((*known.shape, 3), np.uint16)
    pixels[known] = np.stack([np.ones_like(steps[..., 0]), steps[..., 1], steps[..., 0]], axis=2)[known].astype(np.uint16)
    encoded, data = cv2.imencode(".png", pixels)
    if not encoded:
        raise FlowError(f"flow of {known.shape[1]}x{known.shape[0]} pixels could not be encoded as PNG")
    return data.tobytes()


def _check_png(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of a PNG that is whole: every checksum right, every pixel there.

    The decoder does not tell: from a PNG cut in the middle it returns the rest as zeros, without an error.
    """
    if data[:8] != _PNG_MAGIC:
        raise FlowError(f"{name}: not a PNG file (it starts with {data[:8]!r})")
    position, header, pixels, ended = 8, b"", [], False
    while not ended and position + 12 <= len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kind, end = data[position + 4 : position + 8], position + 8 + length
        body = data[position + 8 : end]
        if data[end : end + 4] != struct.pack(">I", zlib.crc32(kind + body)):
            raise FlowError(f"{name}: damaged or truncated PNG (checksum of its {kind!r} part at byte {position})")
        if position == 8:
            header = body if kind == b"IHDR" else b""
        if kind == b"IDAT":
            pixels.append(body)
        ended, position = kind == b"IEND", end + 4
    if not ended or position != len(data) or len(header) != 13:
        raise FlowError(f"{name}: truncated PNG, or bytes after its end")
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", header)
    _check_size(width, height, name)
    if (depth, color, interlace) != (16, 2, 0):
        raise FlowError(f"{name}: KITTI flow is a plain 16-bit RGB PNG; this one has {depth} bits, color type {color}")
    expected = height * (1 + 6 * width)
    try:
        found = len(zlib.decompressobj().decompress(b"".join(pixels), expected + 1))
    except zlib.error as error:
        raise FlowError(f"{name}: damaged PNG ({error})") from error
    _check_length(found, expected, name, width, height)
    return width, height


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise FlowError(f"{name}: announces {width}x{height} pixels; 1 to {MAX_PIXELS} pixels are accepted")


def _check_length(found: int, expected: int, name: str, width: int, height: int) -> None:
    if found != expected:
        fault = "truncated" if found < expected else "too long"
        raise FlowError(f"{name}: {fault}: {found} bytes of flow where {width}x{height} pixels need {expected}")


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FlowError(f"{_name(path)}: flow files end in {', '.join(SUFFIXES)}, not {suffix or 'nothing'}")
    return suffix


def _name(path: Path) -> str:
    """The path as text that any terminal can print."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` under `path` so that a reader finds the old content or the new, whole, even after a crash.

    Raises:
        FlowError: the write failed; `path` is as it was.
    """
    # A name of this process alone, and never through a link: two writers meet only at the renaming, which is whole.
    temporary = path.with_name(f".{path.name[:80]}.{os.getpid()}-{next(_numbers)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name != "nt":  # where folders cannot be flushed
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()
        raise FlowError(f"{_name(path)}: could not be written ({getattr(error, 'strerror', None) or error})") from error
