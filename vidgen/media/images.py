"""Single pictures and label maps, read and written exactly; the only user of Pillow."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vidgen import durable
from vidgen.errors import InputError
from vidgen.media import integrity, paths

log = logging.getLogger(__name__)

# Whatever Pillow has to say about a file is said by our own errors, in one line.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
_LABEL_FORMATS = ("PNG", "BMP", "TIFF", "PPM")
_ORIENTATION_TAG = 0x0112
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def is_image(path: Path) -> bool:
    """Whether the name says that `path` is a picture."""
    return path.suffix.lower() in SUFFIXES


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture as it is read, from its header alone.

    Raises:
        InputError: as for `read_picture`.
    """
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(_ORIENTATION_TAG, 1) >= 5 else (height, width)


def read_picture(path: Path) -> np.ndarray:
    """A picture as uint8 [H,W,3], RGB, upright.

    Gray is replicated, 16 bits are scaled to 8 over their full range, transparency is laid over black.

    Raises:
        InputError: missing, damaged, too large or not a picture.
    """
    colors, opacity = read_with_opacity(path, background=0)
    if opacity is not None:
        _mention_transparency(path.parent)
    return colors


def read_with_opacity(path: Path, background: int = 255) -> tuple[np.ndarray, np.ndarray | None]:
    """A picture as `read_picture` gives it, laid over a gray level, and its opacity uint8 [H,W], or None where it is opaque.

    Raises:
        InputError: as for `read_picture`.
    """
    with _opened(path) as image:
        _load(path, image)
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F":
            raise InputError(f"{paths.display(path)}: holds floating point values; expected 8 or 16 bits per channel")
        if upright.mode in _SIXTEEN_BIT_MODES:
            gray = np.rint(_sixteen_bits(path, upright) * (255 / 65535)).astype(np.uint8)
            return np.repeat(gray[:, :, None], 3, axis=2), None
        if not upright.has_transparency_data:
            return np.array(upright.convert("RGB")), None
        layer = upright.convert("RGBA")
        opacity = np.array(layer.getchannel("A"))
        if opacity.min() == 255:
            return np.array(layer.convert("RGB")), None
        ground = Image.new("RGBA", layer.size, (background,) * 3 + (255,))
        return np.array(Image.alpha_composite(ground, layer).convert("RGB")), opacity


def read_labels(path: Path) -> np.ndarray:
    """A label map exactly as stored: ids uint8 or uint16 [H,W], or colors uint8 [H,W,3].

    Palette images give their indices, gray images their levels.

    Raises:
        InputError: as for `read_picture`; also when the format is lossy or the image does not hold exact ids or colors.
    """
    with _opened(path) as image:
        name = paths.display(path)
        if image.format not in _LABEL_FORMATS or image.info.get("compression") == "jpeg":
            raise InputError(
                f"{name}: {image.format} blurs label ids; a label map needs a lossless file", hint="save labels as PNG"
            )
        if image.getexif().get(_ORIENTATION_TAG, 1) != 1:
            raise InputError(f"{name}: a label map with an EXIF rotation", hint="save it upright, without EXIF data")
        _load(path, image)
        pixels = np.array(image)
        if image.mode in ("P", "L"):
            return _undo_grey_scaling(path, image, pixels)
        if image.mode in _SIXTEEN_BIT_MODES:
            return _sixteen_bits(path, image)
        if image.mode == "1":
            return pixels.astype(np.uint8)
        if image.mode == "RGBA" and np.ptp(pixels[:, :, 3]) > 0:
            raise InputError(f"{name}: a label map with transparent parts", hint="save it without an alpha channel")
        if image.mode in ("RGB", "RGBA"):
            return np.ascontiguousarray(pixels[:, :, :3])
        raise InputError(f"{name}: a label map of mode {image.mode}; expected gray or palette ids (8 or 16 bit) or RGB colors")


def encode_png(pixels: np.ndarray, *, fast: bool = False) -> bytes:
    """PNG file content for uint8 [H,W,3], [H,W,4] (RGBA) or [H,W], or uint16 [H,W]; exact."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1 if fast else 6)
    return buffer.getvalue()


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Replace `path` by a PNG of `pixels` (uint8 [H,W,3] or [H,W], or uint16 [H,W]), all or nothing.

    Raises:
        OutputError: the disk is full or read-only.
    """
    durable.write_bytes(path, encode_png(pixels))


def encode_animation(frames: Sequence[np.ndarray], seconds: Sequence[float], suffix: str) -> bytes:
    """File content of an endlessly repeating animation: .webp, or .apng, which is exact.

    Args:
        frames: uint8 [H,W,3] or [H,W,4], of one size.
        seconds: how long each is shown.
    """
    first, *rest = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    milliseconds = [max(1, round(1000 * value)) for value in seconds]
    options: dict[str, dict[str, Any]] = {"PNG": {"default_image": False}, "WEBP": {"quality": 90, "method": 4}}
    kind = "WEBP" if suffix == ".webp" else "PNG"
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=rest, duration=milliseconds, loop=0, **options[kind])
    return buffer.getvalue()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    paths.check_file(path)
    name = paths.display(path)
    try:
        # The list keeps out decoders that start other programs (EPS) or that nobody fuzzes.
        with Image.open(path, formats=_FORMATS) as image:
            integrity.check_size(name, *image.size)
            if image.format != "JPEG" and getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{name}: holds several pictures", hint="give a video, a .gif or a folder of pictures")
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: more than {integrity.MAX_PIXELS / 1e6:.0f} million pixels") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{name}: not a picture that can be read (png, jpg, webp, bmp, tiff, ppm)") from error
    # Decoders of damaged files raise whatever they stumble over: OSError, SyntaxError, ValueError, struct.error, zlib.error ...
    except Exception as error:
        raise InputError(f"{name}: damaged picture ({error})") from error


@lru_cache(maxsize=64)
def _mention_transparency(folder: Path) -> None:
    log.info("%s: transparent parts of pictures are shown on black", paths.display(folder))


def _load(path: Path, image: Image.Image) -> None:
    """Decode the pixels; a PNG also passes its checksums, which the decoder may not reach after the last pixel."""
    if image.format == "PNG":
        with Image.open(path, formats=("PNG",)) as again:
            again.verify()
    image.load()


def _sixteen_bits(path: Path, image: Image.Image) -> np.ndarray:
    values = np.array(image)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise InputError(f"{paths.display(path)}: values {values.min()}..{values.max()}; 16 bits hold 0..65535")
    return values.astype(np.uint16)


def _undo_grey_scaling(path: Path, image: Image.Image, pixels: np.ndarray) -> np.ndarray:
    """Pillow spreads 2- and 4-bit gray levels over 0..255 (id 7 becomes 119); label maps need the stored levels."""
    if image.format != "PNG" or image.mode != "L":
        return pixels
    with open(path, "rb") as file:
        depth = os.pread(file.fileno(), 1, 24)[0]
    return pixels // (255 // (2**depth - 1)) if depth in (2, 4) else pixels
