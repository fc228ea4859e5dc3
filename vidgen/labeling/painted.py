"""Painted frames: which frame of a clip each one is, and what its values or colors mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from vidgen.errors import InputError
from vidgen.media import images, paths
from vidgen.media.frames import Frame, FrameSource, open_source
from vidgen.media.labels import IGNORED, Color, LabelTable, discover, distinct_colors

log = logging.getLogger(__name__)

CONVENTIONAL_IGNORE = 255
"""The id that marks unpainted pixels where no table says otherwise (Cityscapes, Pascal VOC)."""

_HIGHEST_COUNTED = 128
"""Ids up to here count classes; where there are higher ones, values are gray levels, and 255 is the class painted in white."""

_MAX_CLASSES = 256
_MOST_BLENDED = 0.25
_MIN_ALIGNMENT = 1.05
_SOLID = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class PaintedFrame:
    """A frame of a clip that the user painted.

    Attributes:
        index: in the clip, from 0.
        classes: int64 [H,W], -1 where nothing was painted.
        name: for messages.
    """

    index: int
    classes: np.ndarray
    name: str


def read_painted(
    files: Sequence[str | Path], source: FrameSource, table: LabelTable | None = None
) -> tuple[list[PaintedFrame], LabelTable]:
    """The painted frames of a clip, in the order of the clip, and what their values mean.

    Each is placed by its name: that of a picture of the clip, or the last number in it (of a picture's name, or counted from 0 in
    videos). Names without a number are placed by their content, where the outlines fit the picture best.

    Args:
        table: of the values; None for one that is made of the ids or colors that occur.

    Raises:
        InputError: a file is no label map, has another size than the clip, belongs to no frame or to one that another file
            belongs to, or holds a value that the table does not know.
    """
    maps = [Frame(images.read_labels(file), 0, paths.display(file)) for file in _files(files)]
    for item in maps:
        _check_size(item, source)
    table = table or find_table(maps)
    placed: dict[int, PaintedFrame] = {}
    unnamed: list[tuple[Frame, np.ndarray]] = []
    for path, item in zip(_files(files), maps, strict=True):
        classes = table.decode(item.pixels, item.name)
        if not (classes >= 0).any():
            raise InputError(f"{item.name}: nothing is painted; every pixel is ignored")
        index = _index_by_name(path, source)
        if index is None:
            unnamed.append((item, classes))
        else:
            _place(placed, PaintedFrame(index, classes, item.name))
    for item, classes in unnamed:
        index = index_by_content(classes, source, item.name)
        log.info("%s: fits frame %s of %s best", item.name, frame_label(source, index), source.name)
        _place(placed, PaintedFrame(index, classes, item.name))
    return [placed[index] for index in sorted(placed)], table


def _files(given: Sequence[str | Path]) -> list[Path]:
    """The files named, and those of folders named."""
    files: list[Path] = []
    for where in given:
        path = Path(paths.expanded(where))
        if path.is_dir() or (not path.exists() and paths.is_glob(str(path))):
            files += open_source(path, kind="labels").paths
        else:
            paths.check_file(path)
            files.append(path)
    if not files:
        raise InputError("no painted frames were given", hint="paint at least one frame of the clip")
    return files


def _check_size(item: Frame, source: FrameSource) -> None:
    if item.pixels.shape[:2] != source.size:
        height, width = item.pixels.shape[:2]
        raise InputError(
            f"{item.name}: is {width}x{height}, but {source.name} is {source.size[1]}x{source.size[0]}",
            hint="paint on a frame of this clip, at its full size",
        )


def _place(placed: dict[int, PaintedFrame], item: PaintedFrame) -> None:
    if item.index in placed:
        raise InputError(f"{item.name}: is the same frame of the clip as {placed[item.index].name}")
    placed[item.index] = item


def frame_label(source: FrameSource, index: int) -> str:
    """What a user calls a frame of a clip: the name of its picture, or its number from 0."""
    return source.frame_names[index] if source.frame_names is not None else str(index)


def _index_by_name(path: Path, source: FrameSource) -> int | None:
    names, number = source.frame_names, _last_number(path.stem)
    if names is not None:
        for index, name in enumerate(names):
            if paths.comparable(name) == paths.comparable(path.stem):
                return index
        if number is None:
            return None
        matching = [index for index, name in enumerate(names) if _last_number(name) == number]
        if len(matching) == 1:
            return matching[0]
        if all(_last_number(name) is not None for name in names):
            raise InputError(
                f"{paths.display(path)}: no frame of {source.name} has the number {number}; there are {names[0]} to {names[-1]}"
                if not matching
                else f"{paths.display(path)}: {len(matching)} frames of {source.name} have the number {number}",
                hint="name a painted frame like the frame that it shows",
            )
        return None
    if number is None:
        return None
    length = source.count()
    if number >= length:
        raise InputError(
            f"{paths.display(path)}: {source.name} has the frames 0 to {length - 1}, and no frame {number}",
            hint="name a painted frame by its number in the clip, such as 12.png",
        )
    return number


def _last_number(name: str) -> int | None:
    numbers = re.findall(r"[0-9]{1,12}", name)
    return int(numbers[-1]) if numbers else None


# --- meaning of values ----------------------------------------------------------------------------------------------------


def find_table(maps: Iterable[Frame]) -> LabelTable:
    """A table of the ids or colors of painted frames.

    Ids keep their values; 255 means unpainted beside ids up to 128, and a class beside gray levels. Colors that nowhere fill
    a square of 3x3 pixels are taken as blends of smoothed outlines, and stand for the nearest color that does.

    Raises:
        InputError: there are more than 256 classes, ids and colors are mixed, or a file is a photograph.
    """
    maps = list(maps)
    if all(item.pixels.ndim == 2 for item in maps):
        table = discover([maps])
        values = table.values or ()
        others = tuple(value for value in values if value != CONVENTIONAL_IGNORE)
        if CONVENTIONAL_IGNORE in values and others and max(others) <= _HIGHEST_COUNTED:
            log.info("%s: the id 255 is taken as unpainted", maps[0].name)
            values = others
            names = tuple(f"id {value}" for value in values)
            table = LabelTable(names, distinct_colors(len(values)), values, ignore=(CONVENTIONAL_IGNORE,))
        return table
    solid: dict[Color, int] = {}
    blended, total = 0, 0
    for item in maps:
        if item.pixels.ndim == 2:
            raise InputError(f"{item.name}: holds ids, but other painted frames hold colors", hint="paint all frames alike")
        colors, num_blended = _solid_colors(item)
        solid.update(colors)
        blended, total = blended + num_blended, total + item.pixels.shape[0] * item.pixels.shape[1]
    if len(solid) > _MAX_CLASSES or not solid or blended > _MOST_BLENDED * total:
        raise InputError(
            f"{maps[0].name}: {100 * blended / total:.0f} % of the pixels belong to no area of one color; this is a photograph or"
            " was compressed, not a painted label map",
            hint="paint each class in one flat color and save as PNG",
        )
    ordered = sorted(solid)
    names = tuple(f"color {red},{green},{blue}" for red, green, blue in ordered)
    table = LabelTable(names, tuple(ordered), None)
    if blended:
        log.warning(
            "%s: %.2f %% of the pixels have blended colors (smoothed outlines); each counts as the nearest of the %d solid colors",
            maps[0].name,
            100 * blended / total,
            len(solid),
        )
        table = replace(table, nearest=True)
    return table


def _solid_colors(item: Frame) -> tuple[dict[Color, int], int]:
    """Colors that fill at least one square of 3x3 pixels, with their pixels; and the number of all other pixels."""
    wide = item.pixels.astype(np.int32)
    codes = (wide[:, :, 0] << 16) + (wide[:, :, 1] << 8) + wide[:, :, 2]
    low, high = cv2.erode(codes.astype(np.float32), _SOLID), cv2.dilate(codes.astype(np.float32), _SOLID)
    inside = np.unique(codes[low == high])
    if len(inside) > _MAX_CLASSES:
        return {}, codes.size
    solid = np.isin(codes, inside)
    counts = {(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255): int((codes == code).sum()) for code in inside}
    return counts, int((~solid).sum())


def output_table(table: LabelTable) -> LabelTable:
    """The table of label maps that are written: the same classes and ids; ids 0, 1, ... where colors were painted."""
    if table.values is not None:
        return table
    return LabelTable(table.names, table.colors, tuple(range(table.num_classes)))


# --- content --------------------------------------------------------------------------------------------------------------


def alignment(classes: np.ndarray, pixels: np.ndarray) -> float:
    """How well the outlines of a label map lie on edges of a picture: mean gradient there by the mean gradient around there.

    Args:
        classes: int [H,W].
        pixels: uint8 [H,W,3].
    """
    outline = _outline(classes)
    return _alignment(outline, _near(outline), _gradient(pixels))


def _outline(classes: np.ndarray) -> np.ndarray:
    outline = np.zeros(classes.shape, np.uint8)
    outline[:, 1:] |= classes[:, 1:] != classes[:, :-1]
    outline[1:] |= classes[1:] != classes[:-1]
    return cv2.dilate(outline, np.ones((2, 2), np.uint8))


def _near(outline: np.ndarray) -> np.ndarray:
    size = max(5, round(min(outline.shape) / 24))
    return cv2.dilate(outline, np.ones((size, size), np.uint8)) > 0


def _gradient(pixels: np.ndarray) -> np.ndarray:
    lab = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB), (0, 0), 1).astype(np.float32)
    dx, dy = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)
    # Saturates, so that a few strong edges do not decide.
    strength: np.ndarray = np.tanh(np.sqrt((dx * dx + dy * dy).sum(-1)) / 60)
    return strength


def _alignment(outline: np.ndarray, near: np.ndarray, gradient: np.ndarray) -> float:
    if not outline.any():
        return 1.0
    return float(gradient[outline > 0].mean() / max(1e-6, gradient[near].mean()))


def index_by_content(classes: np.ndarray, source: FrameSource, name: str) -> int:
    """The frame whose edges the outlines of a label map fit best.

    Raises:
        InputError: no frame fits clearly better than chance.
    """
    outline = _outline(classes)
    near = _near(outline)
    scores = [_alignment(outline, near, _gradient(frame.pixels)) for frame in source]
    best = int(np.argmax(scores))
    if not outline.any() or scores[best] < _MIN_ALIGNMENT:
        raise InputError(
            f"{name}: has no number in its name, and its outlines fit no frame of {source.name}",
            hint="name it by the number of the frame, such as 12.png",
        )
    return best


def warn_of_misfits(painted: Sequence[PaintedFrame], source: FrameSource) -> None:
    """Say which painted frames hardly follow the picture they are said to be of: they may belong to another clip."""
    for item in painted:
        pixels = source.read(item.index, item.index + 1)[0].pixels
        fit = alignment(item.classes, pixels)
        if fit < _MIN_ALIGNMENT and len(np.unique(item.classes)) > 1:
            log.warning(
                "%s: its outlines do not lie on the edges of frame %s of %s; is it a frame of another clip?",
                item.name,
                frame_label(source, item.index),
                source.name,
            )


def present_classes(painted: Sequence[PaintedFrame]) -> list[int]:
    """The classes that were painted, in increasing order."""
    return sorted({int(value) for item in painted for value in np.unique(item.classes)} - {IGNORED})
