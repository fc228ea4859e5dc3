"""Single pictures and label maps, read and written exactly; the only user of Pillow."""

from __future__ import annotations

import io
import itertools
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from vidgen import durable
from vidgen.errors import InputError
from vidgen.media import integrity, paths

log = logging.getLogger(__name__)

# Whatever Pillow has to say about a file is said by our own errors, in one line.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
ANIMATION_SUFFIX = ".apng"
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
_LABEL_FORMATS = ("PNG", "BMP", "TIFF", "PPM")
_ORIENTATION_TAG = 0x0112
_MAX_ANIMATION_FRAMES = 100_000
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_TIFF_MIN_IS_WHITE, _TIFF_MIN_IS_BLACK = 0, 1
_SRGB_NAMES = ("srgb", "c2")
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def is_image(path: Path) -> bool:
    """Whether the name says that `path` is a picture."""
    return path.suffix.lower() in SUFFIXES


def is_animation_name(path: Path) -> bool:
    """Whether the name says that `path` is an animation of pictures."""
    return path.suffix.lower() == ANIMATION_SUFFIX


def is_animation(path: Path) -> bool:
    """Whether `path` is a .apng, or a .png or .webp that holds several pictures."""
    if path.suffix.lower() not in (".apng", ".png", ".webp") or not path.is_file():
        return False
    try:
        with Image.open(path, formats=("PNG", "WEBP")) as image:
            return is_animation_name(path) or getattr(image, "n_frames", 1) > 1
    except Exception:  # whoever reads it will say what is wrong
        return is_animation_name(path)


def read_durations(path: Path) -> list[int]:
    """How long each picture of an animation is displayed, in milliseconds, at least 1.

    Raises:
        InputError: as for `read_picture`.
    """
    return [duration for _, duration in _animated(path)]


def read_animation(path: Path) -> Iterator[np.ndarray]:
    """The pictures of an animation, uint8 [H,W,3], laid over white.

    Raises:
        InputError: as for `read_picture`.
    """
    for image, _ in _animated(path):
        layer = np.array(image.convert("RGBA"))
        yield over_white(layer[:, :, :3], layer[:, :, 3])


def _animated(path: Path) -> Iterator[tuple[Image.Image, int]]:
    with _opened(path, several=True) as image:
        for index in range(min(getattr(image, "n_frames", 1), _MAX_ANIMATION_FRAMES)):
            image.seek(index)
            image.load()
            yield image, max(1, round(float(image.info.get("duration") or 0)))


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture as it is read, from its header alone.

    Raises:
        InputError: as for `read_picture`.
    """
    with _opened(path, several=True) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(_ORIENTATION_TAG, 1) >= 5 else (height, width)


def read_picture(path: Path) -> np.ndarray:
    """A picture as uint8 [H,W,3], RGB, upright.

    Gray is replicated, 16 bits are scaled to 8 over their full range, other color spaces become sRGB by the embedded profile,
    transparency is laid over white.

    Raises:
        InputError: missing, damaged, too large or not a picture.
    """
    return read_with_opacity(path)[0]


def read_with_opacity(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """A picture as `read_picture` gives it, and its opacity uint8 [H,W], or None where it is opaque.

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
        colors = np.array(_in_srgb(path, upright, image.info.get("icc_profile")))
        if not upright.has_transparency_data:
            return colors, None
        opacity = np.array(upright.convert("RGBA").getchannel("A"))
        if opacity.min() == 255:
            return colors, None
        visible = over_white(colors, opacity)
        if np.ptp(visible) == 0:
            log.warning("%s: is laid over white, and nothing of it is left", paths.display(path))
        else:
            _mention_transparency(path.parent)
        return visible, opacity


def over_white(colors: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Colors uint8 [H,W,3] with opacity uint8 [H,W], laid over white: the one rule for transparent pictures and videos."""
    # To the nearest level, in integers: 255 - (255 - color) * opacity / 255.
    darkness = (255 - colors).astype(np.uint16) * opacity.astype(np.uint16)[:, :, None]
    visible: np.ndarray = 255 - ((darkness + 127) // 255).astype(np.uint8)
    return visible


def _in_srgb(path: Path, image: Image.Image, profile: bytes | None) -> Image.Image:
    """The colors of a picture in mode RGB, converted from its embedded profile; without one, or with sRGB, as they are."""
    if profile and image.mode in ("L", "LA", "CMYK"):
        image = image.convert("L") if image.mode == "LA" else image
    elif image.mode != "RGB":
        image = image.convert("RGBA").convert("RGB") if image.has_transparency_data else image.convert("RGB")
    if not profile:
        return image
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        description = ImageCms.getProfileDescription(embedded).strip()
        if image.mode == "RGB" and description.lower().startswith(_SRGB_NAMES):
            return image
        converted = ImageCms.profileToProfile(
            image,
            embedded,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        _mention_bad_profile(path.parent, str(error))
        return image.convert("RGB")
    _mention_profile(path.parent, description)
    assert converted is not None
    return converted


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
        top = _highest_level(path, image)
        _load(path, image)
        pixels = np.array(image)
        if image.mode == "P":
            return pixels
        if image.mode == "L":
            return _unscaled(pixels, top, 255)
        if image.mode in _SIXTEEN_BIT_MODES:
            return _unscaled(_sixteen_bits(path, image), top, 65535)
        if image.mode == "1":
            return pixels.astype(np.uint8)
        if image.mode == "RGBA" and np.ptp(pixels[:, :, 3]) > 0:
            raise InputError(f"{name}: a label map with transparent parts", hint="save it without an alpha channel")
        if image.mode in ("RGB", "RGBA"):
            return np.ascontiguousarray(pixels[:, :, :3])
        raise InputError(f"{name}: a label map of mode {image.mode}; expected gray or palette ids (8 or 16 bit) or RGB colors")


def find_gif_damage(path: Path) -> str | None:
    """The first picture of a GIF whose data do not decode, in words; FFmpeg fills in what is missing and says nothing."""
    index = 0
    try:
        with Image.open(path, formats=("GIF",)) as image:
            while True:
                image.load()
                index += 1
                image.seek(index)
    except EOFError:
        return None
    except Exception as error:
        return f"picture {index} of the file: {error}"


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
    kind = "WEBP" if suffix == ".webp" else "PNG"
    options: dict[str, Any] = {"quality": 90, "method": 4} if kind == "WEBP" else {"default_image": False}
    if any(np.array_equal(one, other) for one, other in itertools.pairwise(frames)):
        # Encoders merge equal pictures, and their number would be lost.
        if kind == "WEBP":
            return _webp_of_whole_pictures([first, *rest], milliseconds, options)
        # Neighbors that are disposed of differently are kept; it shows nowhere, since each covers all.
        options["disposal"] = [index % 2 for index in range(len(frames))]
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=rest, duration=milliseconds, loop=0, **options)
    return buffer.getvalue()


def _webp_of_whole_pictures(pictures: Sequence[Image.Image], milliseconds: Sequence[int], options: dict[str, Any]) -> bytes:
    """An endless animation in which every picture is stored whole.

    Source: RFC 9649, section 2.7 (chunks VP8X, ANIM and ANMF).
    """
    width, height = pictures[0].size
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    parts = []
    for picture, duration in zip(pictures, milliseconds, strict=True):
        still = io.BytesIO()
        picture.save(still, "WEBP", **options)
        content = b"".join(
            _chunk(name, data) for name, data in _webp_chunks(still.getvalue()) if name in (b"ALPH", b"VP8 ", b"VP8L")
        )
        # At the upper left corner, over nothing of the picture before (bit 1), which stays as it is (bit 0).
        parts.append(_chunk(b"ANMF", bytes(6) + size + min(duration, 0xFFFFFF).to_bytes(3, "little") + b"\x02" + content))
    flags = 0x02 | (0x10 if any(picture.mode == "RGBA" for picture in pictures) else 0)
    header = _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size) + _chunk(b"ANIM", bytes(6))
    return _chunk(b"RIFF", b"WEBP" + header + b"".join(parts))


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + len(data).to_bytes(4, "little") + data + b"\0" * (len(data) % 2)


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 12
    while position + 8 <= len(content):
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        yield content[position : position + 4], content[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


@contextmanager
def _opened(path: Path, *, several: bool = False) -> Iterator[Image.Image]:
    paths.check_file(path)
    name = paths.display(path)
    try:
        # The list keeps out decoders that start other programs (EPS) or that nobody fuzzes.
        with Image.open(path, formats=_FORMATS) as image:
            integrity.check_size(name, *image.size)
            if not several and image.format != "JPEG" and getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{name}: holds several pictures", hint="give a video, a .gif or a folder of pictures")
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: more than {integrity.MAX_PIXELS / 1e6:.0f} million pixels") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not a picture that can be read (png, jpg, webp, bmp, tiff, ppm)") from error
    # Decoders of damaged files raise whatever they stumble over: OSError, SyntaxError, ValueError, struct.error, zlib.error ...
    except Exception as error:
        raise InputError(f"{name}: damaged picture ({error})") from error


@lru_cache(maxsize=64)
def _mention_transparency(folder: Path) -> None:
    log.info("%s: transparent parts of pictures are laid over white", paths.display(folder))


@lru_cache(maxsize=64)
def _mention_profile(folder: Path, description: str) -> None:
    log.info("%s: colors are converted from %s to sRGB", paths.display(folder), paths.display(description) or "their own profile")


@lru_cache(maxsize=64)
def _mention_bad_profile(folder: Path, reason: str) -> None:
    where = paths.display(folder)
    log.warning(
        "%s: the color profile of a picture cannot be used; its colors are taken as sRGB (%s)", where, paths.display(reason)
    )


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


def _unscaled(pixels: np.ndarray, top: int | None, decoded_top: int) -> np.ndarray:
    """Levels as the file stores them, 0..top, from those that Pillow spread over 0..decoded_top; None where it did not."""
    if top is None:
        return pixels
    levels: np.ndarray = np.rint(pixels * (top / decoded_top)).astype(np.uint8 if top <= 255 else np.uint16)
    return levels


def _highest_level(path: Path, image: Image.Image) -> int | None:
    """The highest gray level that the file can hold where decoding spreads levels; None where it gives them as they are.

    Raises:
        InputError: what is decoded would not be what is stored, by the header's depth and meaning of levels.
    """
    name = paths.display(path)
    if image.format == "PNG":
        depth, color_type = _bytes_at(path, 24, 2)
        if color_type not in (0, 3) and depth != 8:
            raise InputError(f"{name}: colors of {depth} bits per channel, of which 8 are read; a label map has 8")
        return 2**depth - 1 if color_type == 0 and depth in (2, 4) else None
    if image.format == "PPM":
        return _highest_ppm_level(name, image)
    if image.format == "BMP":
        bits = int.from_bytes(_bytes_at(path, 28, 2), "little")
        if bits == 16 or (bits > 1 and image.mode == "1") or (bits < 8 and image.mode == "L"):
            raise InputError(f"{name}: a BMP of {bits} bits per pixel, whose ids would change", hint="save labels as PNG")
        return None
    tags = image.tag_v2  # type: ignore[attr-defined]
    depths, photometric = tuple(tags.get(_TIFF_BITS, (1,))), tags.get(_TIFF_PHOTOMETRIC)
    if photometric == _TIFF_MIN_IS_WHITE:
        raise InputError(f"{name}: stores its levels inverted (min-is-white), so its ids would change", hint="save labels as PNG")
    if photometric == _TIFF_MIN_IS_BLACK and depths in ((2,), (4,)):
        return int(2 ** depths[0]) - 1
    exact = {8, 16, 32} if image.mode in _SIXTEEN_BIT_MODES else {8}
    if image.mode in ("L", "RGB", "RGBA", *_SIXTEEN_BIT_MODES) and not set(depths) <= exact:
        raise InputError(f"{name}: {max(depths)} bits per channel, which are not read exactly; a label map has 8, or 16 in gray")
    return None


def _highest_ppm_level(name: str, image: Image.Image) -> int | None:
    if image.mode == "1":
        raise InputError(f"{name}: a bitmap whose ones are black, so its ids would change", hint="save labels as PNG")
    codec, _, _, arguments = image.tile[0]  # type: ignore[attr-defined]
    if codec == "raw":
        return None
    top = int(arguments[1])
    if image.mode != "L" and image.mode not in _SIXTEEN_BIT_MODES:
        raise InputError(f"{name}: colors of 0..{top}, which would be scaled to 0..255; a label map has the latter")
    return top


def _bytes_at(path: Path, offset: int, count: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(count)
