"""The sequences of a data set: which files belong together, frame by frame.

Training and what checks data before it read them here, so that both judge the same. Needs no torch.
"""

from __future__ import annotations

import glob
import itertools
import logging
import os
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Listed
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vidgen.data import shards
from vidgen.data.settings import DataSettings, FileInput, label_table, parse_range
from vidgen.data.stills import HalfSource, Side, find_stills, is_excluded, match_names, read_excluded, several_drawings
from vidgen.errors import ConfigError, InputError, VidgenError
from vidgen.media import conditions
from vidgen.media import paths as names_of
from vidgen.media.frames import Frame, FrameSource, list_sources, open_source
from vidgen.media.labels import LabelTable

log = logging.getLogger(__name__)

_ONE_SIZE = "what belongs together must have one size"


@dataclass(frozen=True)
class Sequence:
    """One video with all that belongs to it, frame by frame.

    Attributes:
        target: real pictures.
        inputs: what belongs to them, by the names of `ConditionSettings.file_inputs`.
        first, num_frames: the part in use.
    """

    name: str
    target: FrameSource
    inputs: Mapping[str, FrameSource]
    first: int
    num_frames: int

    @property
    def labels(self) -> FrameSource | None:
        return self.inputs.get("labels")

    @property
    def roles(self) -> list[FrameSource]:
        return [self.target, *self.inputs.values()]

    def read(self, index: int) -> dict[str, Frame]:
        """Frame `index` of the part in use: the "target", and what belongs to it by the names of the inputs.

        Raises:
            InputError: one cannot be read, or they are of different sizes.
        """
        place = self.first + index
        return self._checked({name: source.read(place, place + 1)[0] for name, source in self._named.items()})

    def moments(self) -> Iterator[dict[str, Frame]]:
        """All frames of the part in use, as `read` gives them, one after the other: faster than single ones of a video.

        Raises:
            InputError: as for `read`.
        """
        stop = self.first + self.num_frames
        for frames in zip(*(itertools.islice(source, self.first, stop) for source in self._named.values()), strict=True):
            yield self._checked(dict(zip(self._named, frames, strict=True)))

    @property
    def _named(self) -> dict[str, FrameSource]:
        return {"target": self.target, **self.inputs}

    @staticmethod
    def _checked(frames: dict[str, Frame]) -> dict[str, Frame]:
        target = frames["target"]
        for partner in frames.values():
            if partner.pixels.shape[:2] != target.pixels.shape[:2]:
                sizes = _size(partner.pixels.shape), _size(target.pixels.shape)
                raise InputError(f"{partner.name}: is {sizes[0]}, but {target.name} is {sizes[1]}; {_ONE_SIZE}")
        return frames


@dataclass(frozen=True)
class Survey:
    """What is under a root: the sequences that can be used, and what training would refuse.

    Attributes:
        unpaired: by role, what can be opened of sequences that cannot be used.
    """

    sequences: list[Sequence] = field(default_factory=list)
    faults: list[VidgenError] = field(default_factory=list)
    unpaired: Mapping[str, Listed[FrameSource]] = field(default_factory=dict)


def find_sequences(settings: DataSettings) -> list[Sequence]:
    """Pair the sequences of all roles by name.

    Raises:
        InputError: a folder is missing, names, numbers or frame counts do not match, or nothing is left.
    """
    found = survey(settings)
    if found.faults:
        raise found.faults[0]
    return found.sequences


def survey(settings: DataSettings) -> Survey:
    """As `find_sequences`, but with every fault that can be found before frames are decoded."""
    faults: list[VidgenError] = []
    roles = [FileInput("target", "picture", settings.target)]
    roles += [item for item in settings.condition.file_inputs if item.folder is not None]
    found: dict[str, dict[str, Path]] = {}
    for role in roles:
        try:
            found[role.name] = paths_of(settings, role)
        except VidgenError as error:
            faults.append(error)
    if faults:
        return Survey([], faults, _opened(settings, roles, found, {name for files in found.values() for name in files}))
    if settings.pairs != "sequences":
        try:
            found = _chosen(settings, found)
        except VidgenError as error:
            return Survey([], [error])
        if "sketch" in found:
            found["target"], found["sketch"] = several_drawings(found["target"], found["sketch"])
        found = match_names(found)
    names = list(found["target"])
    for role in roles[1:]:
        mismatch = _unmatched(settings, names, role, list(found[role.name]))
        faults += [mismatch] if mismatch is not None else []
    names = [name for name in names if all(name in files for files in found.values())]
    unusable = {name for files in found.values() for name in files} - set(names)
    if settings.sequences is not None:
        wanted = [names_of.comparable(name) for name in settings.sequences]
        unknown = [name for name in wanted if name not in found["target"]]
        if unknown:
            where = settings.root / settings.target
            faults.append(ConfigError(f"data.sequences: {unknown[0]!r} is not among {names_of.few(names)} under {where}"))
        names = [name for name in names if name in wanted]
    part = parse_range(settings.frames) if settings.frames else slice(None)
    if settings.pairs != "sequences":
        if not names[part] and not faults:
            where = settings.root / settings.target
            faults.append(InputError(f"{where}: holds {len(names)} pictures, none in {settings.frames}"))
        names, part = names[part], slice(None)
    sequences = []
    for name in names:
        try:
            sequences.append(_sequence(settings, roles, {role: files[name] for role, files in found.items()}, name, part))
        except VidgenError as error:
            faults.append(error)
            unusable.add(name)
    _mention_offsets(sequences)
    _mention_crops(settings, sequences)
    return Survey(sequences, faults, _opened(settings, roles, found, unusable))


def _opened(
    settings: DataSettings, roles: Listed[FileInput], found: Mapping[str, Mapping[str, Path]], names: set[str]
) -> dict[str, list[FrameSource]]:
    """Of the sequences of those names what can be opened, by role."""
    opened: dict[str, list[FrameSource]] = {}
    for role in roles:
        for name, path in found.get(role.name, {}).items():
            if name in names:
                with suppress(VidgenError):
                    opened.setdefault(role.name, []).append(_source(settings, role, path))
    return opened


def _chosen(settings: DataSettings, found: Mapping[str, Mapping[str, Path]]) -> dict[str, dict[str, Path]]:
    """The stills of the classes in use that no list leaves out."""
    excluded, classes = read_excluded(settings.root, settings.exclude), settings.condition.classes
    chosen = set(classes.names) if classes is not None else set()
    result = {
        role: {
            name: path
            for name, path in files.items()
            if not is_excluded(name, excluded) and (not chosen or class_name(name) in chosen)
        }
        for role, files in found.items()
    }
    empty = next((role for role, files in result.items() if not files), None)
    if empty is not None:
        unused = f" of the classes {', '.join(classes.names)}" if classes is not None and classes.names else ""
        raise InputError(f"{settings.root}: holds no {'pictures' if empty == 'target' else empty}{unused} that are not excluded")
    return result


def class_name(name: str) -> str:
    """The class of a still: the folder that it lies in, or "" for none."""
    return name.rpartition("/")[0].partition("/")[0]


def find_classes(settings: DataSettings, sequences: Listed[Sequence]) -> DataSettings:
    """The same settings with the names of the classes filled in, where pictures have classes.

    Raises:
        InputError: a picture lies in no folder, or a class has no picture.
    """
    classes = settings.condition.classes
    if classes is None:
        return settings
    names = {sequence.name: class_name(sequence.name) for sequence in sequences}
    lost = next((name for name, found in names.items() if not found), None)
    if lost is not None:
        where = settings.root / settings.target
        raise InputError(f"{where}: {lost} lies in no folder of a class; expected {where.name}/CLASS/{lost}")
    present = sorted(set(names.values()))
    missing = [name for name in classes.names if name not in present]
    if missing:
        raise InputError(f"data.condition.classes: there is no picture of {missing[0]!r} among {names_of.few(present)}")
    filled = classes.model_copy(update={"names": classes.names or tuple(present)})
    return settings.model_copy(update={"condition": settings.condition.model_copy(update={"classes": filled})})


def _source(settings: DataSettings, role: FileInput, path: Path) -> FrameSource:
    """The frames of a sequence in a role, from a folder or from shards."""
    if not shards.is_packed(settings.root):
        return open_source(location(settings, role, path), kind=role.reading)
    assert role.folder is not None
    name = path.relative_to(settings.root / role.folder).as_posix()
    return shards.at(settings.root).source(role.folder, "" if name == "." else name, role.reading)


def _sequence(settings: DataSettings, roles: Listed[FileInput], files: Mapping[str, Path], name: str, part: slice) -> Sequence:
    target_side: Side = "right" if settings.direction == "a_to_b" else "left"
    other_side: Side = "left" if settings.direction == "a_to_b" else "right"

    def source(role: FileInput) -> FrameSource:
        whole = _source(settings, role, files[role.name])
        if settings.pairs == "side_by_side" and role.folder == settings.target:
            whole = HalfSource(whole, target_side if role.name == "target" else other_side)
        return whole

    sources = [source(role) for role in roles]
    check_partners(sources)
    _check_counts(sources)
    if settings.fit == "crop" and settings.width and settings.height:
        sources = [_with_aspect(whole, (settings.height, settings.width)) for whole in sources]
    target = sources[0]
    first, stop, _ = part.indices(target.count())
    if stop <= first:
        raise InputError(f"{target.name}: has {target.count()} frames, none of them in data.frames {part.start or 0}:{part.stop}")
    return Sequence(
        name, target, {role.name: found for role, found in zip(roles[1:], sources[1:], strict=True)}, first, stop - first
    )


def check_partners(sources: Listed[FrameSource]) -> None:
    """Refuse sources that do not belong together frame by frame, as far as it shows before frames are counted and decoded.

    Raises:
        InputError: sizes or numbers of frames differ.
    """
    first = sources[0]
    check_numbers(sources)
    for other in sources[1:]:
        if other.size != first.size:
            raise InputError(f"{other.name}: is {_size(other.size)}, but {first.name} is {_size(first.size)}; {_ONE_SIZE}")


def check_numbers(sources: Listed[FrameSource]) -> None:
    """Refuse files of frames whose numbers do not match: where some are left out, all leave out the same.

    Raises:
        InputError: a numbered file has no partner.
    """
    for first, other in ((sources[0], other) for other in sources[1:]):
        alone, other_alone = names_of.unpaired(first.paths, other.paths)
        missing = [
            f"{names_of.few([path.name for path in files], 3)} of {source.name}"
            for source, files in ((first, alone), (other, other_alone))
            if files
        ]
        if missing:
            raise InputError(
                f"{other.name}: its numbers do not match those of {first.name}; without a partner: {' and '.join(missing)}",
                hint="remove what has no partner, or number the files of both anew",
            )


def _check_counts(sources: Listed[FrameSource]) -> None:
    count = sources[0].count()
    for other in sources[1:]:
        if other.count() != count:
            raise InputError(
                f"{other.name}: {other.count()} frames, but {sources[0].name} has {count}; each frame needs its partner"
            )


def find_table(settings: DataSettings, sequences: list[Sequence]) -> LabelTable | None:
    """The meaning of the label values, or None where no labels are read.

    Raises:
        ConfigError, InputError: there is no such table, or none can be discovered.
    """
    if settings.condition.labels is None:
        return None
    sources = [sequence.labels for sequence in sequences if sequence.labels is not None]
    return label_table(settings.condition.labels, settings.root, sources)


# --- files ------------------------------------------------------------------------------------------------------------------


def paths_of(settings: DataSettings, role: FileInput) -> dict[str, Path]:
    """Where the sequences of a role are, by the name that partners share.

    Raises:
        InputError: there is no such folder, or nothing usable in it.
    """
    assert role.folder is not None
    if shards.is_packed(settings.root):
        names = shards.at(settings.root).names(role.folder)
        return {names_of.comparable(name): settings.root / role.folder / name for name in names}
    root, where = settings.root, settings.root / role.folder
    pattern = settings.pattern.get(role.name)
    if not root.is_dir():
        raise InputError(f"data.root: {root} is not a folder")
    if where.is_file():
        return {"": where}
    if not where.is_dir():
        present = sorted(child.name for child in root.iterdir() if not child.name.startswith("."))
        raise InputError(
            f"{where}: no such folder or file; {root} holds {names_of.few(present)}",
            hint="set data.target and data.condition to the names",
        )
    if settings.pairs != "sequences":
        found = find_stills(where, pattern)
    elif pattern is not None and any(_matching(where, pattern)):
        found = {"": where}
    else:
        paths = list_sources(where)
        found = {"" if path == where else path.stem if path.is_file() else path.name: path for path in paths}
    return {names_of.comparable(name): path for name, path in found.items()}


def _matching(folder: Path, pattern: str) -> Iterator[str]:
    return glob.iglob(_glob(folder, pattern))


def _glob(folder: Path, pattern: str) -> str:
    return os.path.join(glob.escape(os.fspath(folder)), pattern)


def location(settings: DataSettings, role: FileInput, path: Path) -> str | Path:
    """What to open for a sequence: a folder, or only the files in it that the role's pattern takes.

    Raises:
        InputError: it takes none.
    """
    pattern = settings.pattern.get(role.name)
    if pattern is None or not path.is_dir():
        return path
    if not any(_matching(path, pattern)):
        raise InputError(f"{names_of.display(path)}: no file in it fits data.pattern.{role.name}: {pattern}")
    return _glob(path, pattern)


def _unmatched(settings: DataSettings, names: list[str], role: FileInput, others: list[str]) -> InputError | None:
    unmatched = {*names} ^ {*others}
    missing = [name for name in (*names, *others) if name in unmatched]
    if not missing:
        return None
    return InputError(
        f"{settings.root}: sequences of {settings.target} and {role.folder} do not match; "
        f"without a partner: {names_of.few(missing)} ({len(names)} in {settings.target}, {len(others)} in {role.folder})"
    )


def _mention_offsets(sequences: list[Sequence]) -> None:
    """Say, of the first sequence, that files are paired in order though their numbers differ."""
    for sequence in sequences:
        target = sequence.target
        for source in sequence.inputs.values():
            numbers, others = names_of.frame_numbers(target.paths), names_of.frame_numbers(source.paths)
            if numbers is not None and others is not None and numbers != others:
                first, other = (names_of.display(files[0].name) for files in (target.paths, source.paths))
                log.warning("%s begins with %s, but %s with %s; they are paired in order", source.name, other, target.name, first)
                return


# --- aspect -----------------------------------------------------------------------------------------------------------------


def _with_aspect(whole: FrameSource, size: tuple[int, int]) -> FrameSource:
    rows, columns = conditions.middle_of_aspect(whole.size, size)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return whole if (height, width) == whole.size else MiddleSource(whole, rows, columns)


class MiddleSource(FrameSource):
    """The middle part of every frame."""

    def __init__(self, whole: FrameSource, rows: slice, columns: slice) -> None:
        self._whole, self._rows, self._columns = whole, rows, columns
        self.name, self.size = whole.name, (rows.stop - rows.start, columns.stop - columns.start)
        self.time_base, self.frame_rate, self.num_frames = whole.time_base, whole.frame_rate, whole.num_frames
        self.paths = whole.paths
        self.whole_size = whole.size

    def __iter__(self) -> Iterator[Frame]:
        return map(self._middle, self._whole)

    def count(self) -> int:
        return self._whole.count()

    def read(self, start: int, stop: int) -> list[Frame]:
        return [self._middle(frame) for frame in self._whole.read(start, stop)]

    def _middle(self, frame: Frame) -> Frame:
        return replace(frame, pixels=np.ascontiguousarray(frame.pixels[self._rows, self._columns]))


def _mention_crops(settings: DataSettings, sequences: list[Sequence]) -> None:
    """Say, of the first sequence, what is not seen of frames of another aspect."""
    for sequence in sequences:
        if isinstance(sequence.target, MiddleSource):
            (height, width), (part_height, part_width) = sequence.target.whole_size, sequence.target.size
            log.warning(
                "%s: is %dx%d; data.width and data.height have another aspect, so only its middle %dx%d is used"
                " (data.fit: stretch distorts it instead)",
                sequence.target.name,
                width,
                height,
                part_width,
                part_height,
            )
            return


def _size(shape: Listed[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
