"""Style pictures as they are typed, and contact sheets of inputs by styles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from vidgen.commands.inputs import named_input
from vidgen.errors import InputError
from vidgen.media import images, paths
from vidgen.media.conditions import resize_picture
from vidgen.media.frames import open_source

STYLE = "style"
"""Name of the input that is a style picture."""

_CELL_HEIGHT = 128
_GAP = 4


def style_pictures(chosen: Sequence[str], further: Sequence[str]) -> tuple[list[str], list[str], list[Path]]:
    """What is left of both without the style pictures among them, and these: files, or all pictures of folders and patterns.

    Args:
        chosen: PICTURE or CLASS=STYLE each.
        further: NAME=INPUT each, of which `style` is a picture.

    Raises:
        InputError: there is no picture.
    """
    pictures: list[Path] = []
    classes, others = [], []
    for entry in chosen:
        name, path = named_input(entry)
        if name is None:
            pictures += _pictures_at(path)
        else:
            classes.append(entry)
    for entry in further:
        name, sign, where = entry.partition("=")
        if sign and name == STYLE and where:
            pictures += _pictures_at(Path(where))
        else:
            others.append(entry)
    return classes, others, pictures


def _pictures_at(path: Path) -> list[Path]:
    if path.is_dir():
        found = [entry for entry in paths.list_folder(path) if images.is_image(entry) and entry.is_file()]
        if not found:
            raise InputError(f"{paths.display(path)}: holds no pictures; a style picture was expected")
        return found
    if paths.is_glob(os.fspath(path)) and not os.path.lexists(path):
        return [Path(match) for match in paths.matching_glob(os.fspath(path))]
    if not path.exists():
        raise paths.missing(path)
    return [path]


def write_sheet(path: Path, results: Sequence[tuple[Path, Path | None, int, str]]) -> None:
    """A picture of results: a row for each input, which comes first, a column for each style, which stands above, and sample.

    Args:
        results: input, style, sample and result each; of videos, the frame in the middle.
    """
    jobs = list(dict.fromkeys(job for job, *_ in results))
    columns = list(dict.fromkeys((style, sample) for _, style, sample, _ in results))
    made = {(job, style, sample): Path(result) for job, style, sample, result in results if Path(result).exists()}
    size = _cell_size(_middle(jobs[0]))
    blank = np.full((*size, 3), 255, np.uint8)
    rows = []
    if any(style is not None for style, _ in columns):
        rows.append([blank, *(blank if style is None else _fitted(_middle(style), size) for style, _ in columns)])
    for job in jobs:
        cells = [made.get((job, *column)) for column in columns]
        rows.append([_fitted(_middle(job), size), *(blank if cell is None else _fitted(_middle(cell), size) for cell in cells)])
    spaced = [np.concatenate([_framed(cell) for cell in row], axis=1) for row in rows]
    images.write_png(path, np.concatenate(spaced, axis=0))


def _middle(path: Path) -> np.ndarray:
    source = open_source(path)
    place = source.count() // 2
    return source.read(place, place + 1)[0].pixels


def _cell_size(picture: np.ndarray) -> tuple[int, int]:
    height, width = picture.shape[:2]
    return _CELL_HEIGHT, max(1, round(width * _CELL_HEIGHT / height))


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The whole picture, as large as it fits, on white."""
    factor = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    height, width = (max(1, round(side * factor)) for side in picture.shape[:2])
    small = resize_picture(picture, (height, width))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return cv2.copyMakeBorder(
        small, top, size[0] - height - top, left, size[1] - width - left, cv2.BORDER_CONSTANT, value=(255, 255, 255)
    )


def _framed(cell: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(cell, _GAP, _GAP, _GAP, _GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))
