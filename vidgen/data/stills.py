"""Data sets of single pictures: every picture is a sequence of one frame, paired with its partners by file name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vidgen.errors import InputError
from vidgen.media import images, paths, video
from vidgen.media.frames import Frame, FrameSource

Side = Literal["left", "right"]


def find_stills(where: Path, pattern: str | None = None) -> dict[str, Path]:
    """Name -> file of every picture at `where`, subfolders included, in natural order; a single file has the name "".

    Names are paths without their suffix, or, with a pattern of file names, with what its `*` stands for. Links are followed once.

    Raises:
        InputError: there is no picture, there are videos, or two files differ only in their suffix.
    """
    if where.is_file():
        return {"": where}
    found: dict[str, Path] = {}
    for path in _pictures_under(where, set()):
        if pattern is None:
            name = os.fspath(path.relative_to(where).with_suffix(""))
        else:
            before, _, after = pattern.partition("*")
            stem = path.name.removesuffix(after).removeprefix(before)
            if path.name != before + stem + after:
                continue
            name = os.fspath(path.relative_to(where).with_name(stem)) if stem else ""
        if name in found:
            raise InputError(f"{paths.display(path)}: {paths.display(found[name].name)} has the same name; which of them is meant?")
        found[name] = path
    if not found:
        fitting = "" if pattern is None else f" whose names fit {pattern}"
        raise InputError(f"{paths.display(where)}: holds no pictures{fitting}")
    return found


def _pictures_under(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in paths.list_folder(folder):
        if entry.is_dir():
            yield from _pictures_under(entry, seen)
        elif images.is_image(entry) and entry.is_file():
            yield entry
        elif video.is_video(entry):
            raise InputError(f"{paths.display(entry)}: a video among pictures", hint="for videos set data.pairs=sequences")


def match_names(roles: dict[str, dict[str, Path]]) -> dict[str, dict[str, Path]]:
    """The same stills under names that match: without the part from `_` on that all names of a role end with, where that helps.

    So `city_01_photo` and `city_01_labels` find each other as `city_01`. What still does not match is left for the caller.
    """
    if all(names.keys() == next(iter(roles.values())).keys() for names in roles.values()):
        return roles
    return {role: _without_common_end(found) for role, found in roles.items()}


def several_drawings(targets: Mapping[str, Path], drawings: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Pairs of targets and drawings, where a target has several that end with -1, -2: each becomes a pair of its own.

    Targets without a drawing are left out. Names that need no such thing stay as they are.
    """
    owners = {name: name if name in targets else _NUMBER.sub("", name) for name in drawings}
    if all(name == owner for name, owner in owners.items()) or not all(owner in targets for owner in owners.values()):
        return dict(targets), dict(drawings)
    return {name: targets[owner] for name, owner in owners.items()}, dict(drawings)


_NUMBER = re.compile(r"-[0-9]+$")


def read_excluded(root: Path, files: Sequence[str]) -> frozenset[str]:
    """Names in text files under `root`, one a line, without suffixes.

    Raises:
        InputError: a file is missing or is no text.
    """
    names = set()
    for file in files:
        path = root / file
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"data.exclude: {paths.display(path)}: cannot be read as a list of names ({error})") from error
        stripped = (line.strip() for line in lines)
        names |= {os.fspath(Path(line).with_suffix("")) if images.is_image(Path(line)) else line for line in stripped if line}
    return frozenset(names)


def is_excluded(name: str, excluded: frozenset[str]) -> bool:
    """Whether the name of a still, the last part of it, or that of the target it draws is among them."""
    whole = {name, _NUMBER.sub("", name)}
    return not excluded.isdisjoint(whole | {part.rpartition("/")[2] for part in whole})


def _without_common_end(found: dict[str, Path]) -> dict[str, Path]:
    ends = zip(*(reversed(name) for name in found), strict=False)
    common = "".join(letters[0] for letters in itertools.takewhile(lambda letters: len(set(letters)) == 1, ends))[::-1]
    start = common.find("_")
    length = len(common) - start if start >= 0 else 0
    return {name[: len(name) - length]: path for name, path in found.items()}


class HalfSource(FrameSource):
    """One half of pictures that hold two side by side.

    Raises:
        InputError: the width is odd.
    """

    def __init__(self, whole: FrameSource, side: Side) -> None:
        height, width = whole.size
        if width % 2:
            raise InputError(f"{whole.name}: is {width} pixels wide; two pictures side by side need an even width")
        self._whole, self._side = whole, side
        self.name, self.size = whole.name, (height, width // 2)
        self.time_base, self.frame_rate, self.num_frames = whole.time_base, whole.frame_rate, whole.num_frames
        self.paths = whole.paths

    def __iter__(self) -> Iterator[Frame]:
        return map(self._half, self._whole)

    def count(self) -> int:
        return self._whole.count()

    def read(self, start: int, stop: int) -> list[Frame]:
        return [self._half(frame) for frame in self._whole.read(start, stop)]

    def _half(self, frame: Frame) -> Frame:
        middle = self.size[1]
        pixels = frame.pixels[:, :middle] if self._side == "left" else frame.pixels[:, middle:]
        return Frame(np.ascontiguousarray(pixels), frame.pts, frame.name)
