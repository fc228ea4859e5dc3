"""The pictures that everything is made from: reading them, how small they may be, masks, and pasting a part back."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vidgen.errors import InputError
from vidgen.media import images, paths
from vidgen.media.conditions import resize_picture
from vidgen.media.frames import open_source
from vidgen.networks import patches

log = logging.getLogger(__name__)

Size = tuple[int, int]
"""(height, width)"""

MAX_SIDE = 8192
"""Longest side of a result in pixels."""
_SEAM_BLUR = 5.0
_VISIBLE_DIFFERENCE = 24


@dataclass(frozen=True)
class Picture:
    """What everything is made from.

    Attributes:
        pixels: uint8 [H,W,3], laid over white where it is transparent.
        opacity: uint8 [H,W], or None.
        name: for messages.
    """

    pixels: np.ndarray
    opacity: np.ndarray | None = None
    name: str = "the picture"

    @property
    def size(self) -> Size:
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def sha256(self) -> str:
        """Of the content, whatever file it came from."""
        content = self.pixels.tobytes() + (b"" if self.opacity is None else self.opacity.tobytes())
        return hashlib.sha256(repr(self.size).encode() + content).hexdigest()

    def resized(self, size: Size) -> Picture:
        """The same at another size."""
        if size == self.size:
            return self
        opacity = None if self.opacity is None else resize_mask(self.opacity, size)
        return Picture(resize_picture(self.pixels, size), opacity, self.name)

    def downscaled(self, max_side: int) -> Picture:
        """The same with at most `max_side` pixels a side.

        Raises:
            InputError: that leaves too few pixels to learn from.
        """
        scale = max_side / max(self.size)
        if scale >= 1:
            check_size(self.size, self.name)
            return self
        height, width = (max(1, round(side * scale)) for side in self.size)
        check_size((height, width), self.name, before=self.size)
        log.info("%s: worked at %s, downscaled from %s", self.name, size_text((height, width)), size_text(self.size))
        return self.resized((height, width))


def check_size(size: Size, name: str, *, before: Size | None = None) -> None:
    """The one rule for how small an example may be.

    Args:
        before: its size before it was downscaled.

    Raises:
        InputError: there are too few pixels to learn from.
    """
    least = patches.MIN_SIDE
    if min(size) >= least:
        return
    text = size_text(size) if before is None else f"{size_text(before)} downscaled to {size_text(size)}"
    hint = None if before is None else "crop to a less elongated region, or work at a larger size"
    raise InputError(f"{name}: {text}; at least {least}x{least} pixels are needed to learn from", hint=hint)


def size_text(size: Sequence[int]) -> str:
    """(height, width) as people write it: WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


def read_picture(source: Path | str | np.ndarray | Picture) -> Picture:
    """One picture from a file or from pixels; of a clip or an animation its first frame, which is said.

    Args:
        source: a path, or uint8 [H,W,3] or [H,W,4].

    Raises:
        InputError: it cannot be read, or is too small to learn from.
    """
    if isinstance(source, Picture):
        picture = source
    elif isinstance(source, np.ndarray):
        picture = _from_pixels(source)
    elif images.is_image(path := Path(source)):
        picture = Picture(*images.read_with_opacity(path), paths.display(path))
    else:
        picture = Picture(open_source(path).read(0, 1)[0].pixels, None, paths.display(path))
        log.info("%s: is a clip; its first frame is taken", picture.name)
    check_size(picture.size, picture.name)
    return picture


def _from_pixels(pixels: np.ndarray) -> Picture:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise InputError(f"the picture: {pixels.dtype} {list(pixels.shape)}; expected uint8 [height, width, 3 or 4]")
    if pixels.shape[2] == 3:
        return Picture(pixels)
    return Picture(on_white(pixels), None if pixels[:, :, 3].min() == 255 else pixels[:, :, 3])


# -- masks -----------------------------------------------------------------------------------------------------------------


def read_mask(source: Path | np.ndarray, size: Size) -> np.ndarray:
    """Where something was pasted, bool [H,W]: the bright parts of a picture of `size`.

    Raises:
        InputError: it has another size, or marks nothing.
    """
    if isinstance(source, np.ndarray):
        mask, name = source.astype(bool) if source.ndim == 2 else source.max(axis=2) > 127, "the mask"
    else:
        mask, name = images.read_picture(source).max(axis=2) > 127, paths.display(source)
    if mask.shape != size:
        raise InputError(
            f"{name}: {size_text(mask.shape)}, but the picture it belongs to is {size_text(size)}",
            hint="save the mask at the size of the picture",
        )
    if not mask.any():
        raise InputError(f"{name}: the mask is black everywhere; white marks what was pasted")
    return mask


def difference_mask(changed: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Where two pictures of one size differ visibly, bool [H,W].

    Raises:
        InputError: they differ in size, or nowhere.
    """
    if changed.shape != original.shape:
        raise InputError(f"the changed picture is {size_text(changed.shape)}, the original {size_text(original.shape)}")
    far = np.abs(changed.astype(int) - original).max(axis=2) > _VISIBLE_DIFFERENCE
    mask = cv2.morphologyEx(far.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
    if not mask.any():
        raise InputError("the changed picture is the original: there is nothing to blend in")
    return mask


def soft_mask(mask: np.ndarray, radius: float, blur: float = _SEAM_BLUR) -> np.ndarray:
    """bool [H,W] grown by a disk and blurred: float32 [H,W] in 0..1, 1 on all that was marked."""
    side = 2 * max(1, round(radius)) + 1
    grown = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return cv2.GaussianBlur(grown.astype(np.float32), (0, 0), blur)


def resize_mask(mask: np.ndarray, size: Size) -> np.ndarray:
    """uint8 or float [H,W] at `size`, smooth."""
    height, width = size
    shrinks = height * width < mask.shape[0] * mask.shape[1]
    resized: np.ndarray = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized


def paste(generated: np.ndarray, original: Picture, share: np.ndarray, opacity: np.ndarray | None = None) -> np.ndarray:
    """`generated` where the mask is and the untouched original elsewhere, at the original's full size.

    Args:
        generated: [H,W,3], 0..255, over white like the original's pixels.
        share: float [H,W], 0..1, of the generated picture.
        opacity: uint8 [H,W], of the generated picture; opaque by default.

    Returns:
        uint8 [H,W,3], or [H,W,4] where one of the two has transparent parts.
    """
    weight = share[:, :, None]
    pixels = np.rint(weight * generated + (1 - weight) * original.pixels).clip(0, 255).astype(np.uint8)
    if original.opacity is None and opacity is None:
        return pixels
    opacities = [np.full(original.size, 255, np.uint8) if item is None else item for item in (opacity, original.opacity)]
    mixed = np.rint(share * opacities[0] + (1 - share) * opacities[1]).clip(0, 255).astype(np.uint8)
    return with_opacity(pixels, mixed)


def with_opacity(pixels: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3] over white and its opacity as RGBA [H,W,4] in the colors of the transparent picture itself."""
    share = np.maximum(opacity, 1)[:, :, None] / 255
    colors = ((pixels.astype(np.float32) / 255 - 1 + share) / share).clip(0, 1)
    return np.dstack([np.rint(colors * 255).astype(np.uint8), opacity])


def on_white(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3 or 4] laid over white: uint8 [H,W,3]."""
    if pixels.shape[2] == 3:
        return pixels
    opacity = pixels[:, :, 3:].astype(np.float32) / 255
    return np.rint(opacity * pixels[:, :, :3] + (1 - opacity) * 255).astype(np.uint8)


def contact_sheet(pictures: Sequence[np.ndarray], *, num_columns: int | None = None, gap: int = 4) -> np.ndarray:
    """Pictures of any sizes in rows and columns on gray, transparency on white; uint8 [H,W,3]."""
    cells = [on_white(pixels) for pixels in pictures]
    columns = num_columns or math.ceil(math.sqrt(len(cells)))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    width = max(sum(pixels.shape[1] + gap for pixels in row) for row in rows) + gap
    height = sum(max(pixels.shape[0] for pixels in row) + gap for row in rows) + gap
    sheet = np.full((height, width, 3), 128, np.uint8)
    top = gap
    for row in rows:
        left = gap
        for pixels in row:
            sheet[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
            left += pixels.shape[1] + gap
        top += max(pixels.shape[0] for pixels in row) + gap
    return sheet
