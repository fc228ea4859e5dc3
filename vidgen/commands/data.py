"""Look at a data set before training on it: what is there, what does not fit together, what the labels hold.

torch is imported only where a training configuration is read.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidgen import durable
from vidgen.config import load
from vidgen.data import layouts
from vidgen.data.stills import find_stills
from vidgen.errors import InputError, PartialFailure
from vidgen.media import conditions, images, labels
from vidgen.media.frames import FrameSource, list_sources, open_source
from vidgen.media.images import write_png
from vidgen.media.labels import LabelTable

if TYPE_CHECKING:
    from vidgen.data.settings import DataSettings

_FEW_VALUES = 64
"""A folder whose first frame has at most this many values or colours is taken for label maps."""
_THUMBNAIL_HEIGHT = 160


@dataclass(frozen=True)
class Role:
    """One folder under the root, such as images or labels."""

    name: str
    is_labels: bool
    sources: dict[str, FrameSource]


def check(
    root: Path, *, config: Path | None = None, sets: tuple[str, ...] = (), write_labels: Path | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Count, compare and decode everything under `root`.

    Args:
        config: a training configuration whose `data` section names roles and label table; without one they are guessed.
        write_labels: write the discovered label table here, ready for `data.condition.labels.table`.

    Returns:
        per role: sequences, frames, sizes; the label values with their share; and the faults found.

    Raises:
        InputError: `root` holds nothing usable.
        PartialFailure: faults were found; they are listed in the message.
    """
    with durable.claim([] if write_labels is None else [write_labels], overwrite=overwrite):
        return _checked(root, config, sets, write_labels)


def _checked(root: Path, config: Path | None, sets: tuple[str, ...], write_labels: Path | None) -> dict[str, Any]:
    roles = _roles(root)
    faults = [fault for first, second in itertools.pairwise(roles) for fault in _mismatches(first, second)]
    table: LabelTable | None = None
    if config is not None:
        from vidgen.training import run

        settings = load(config, run.run_schema(), (*sets, f"data.root={root}")).data
        faults += _configured_faults(settings)
        table = _configured_table(settings, faults)
    report: dict[str, Any] = {"root": str(root), "roles": []}
    label_role = next((role for role in roles if role.name == "labels"), next((role for role in roles if role.is_labels), None))
    for role in roles:
        entry, found = _describe(role, table, faults)
        report["roles"].append(entry)
        if role is label_role and write_labels is not None and table is None and found is not None:
            durable.write_json(write_labels, found.to_dict())
            report["labels_written"] = str(write_labels)
    report["faults"] = faults
    if faults:
        raise PartialFailure(f"{root}: {len(faults)} faults:\n  " + "\n  ".join(faults[:20]))
    return report


def preview(root: Path, out: Path, *, num_columns: int = 4, overwrite: bool = False) -> dict[str, Any]:
    """A contact sheet: a row per role and sequence, moments from left to right; labels in colour.

    Raises:
        InputError: `root` holds nothing usable.
        OutputError: `out` exists.
    """
    with durable.claim([out], overwrite=overwrite):
        rows = []
        for role in _roles(root):
            table = labels.discover(_sampled(source) for source in role.sources.values()) if role.is_labels else None
            for source in list(role.sources.values())[:4]:
                rows.append(np.concatenate(list(_thumbnails(source, table, num_columns)), axis=1))
        width = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((2, 2), (0, width - row.shape[1]), (0, 0))) for row in rows]
        write_png(out, np.concatenate(padded))
    return {"preview": str(out), "rows": len(rows)}


def import_data(kind: str, folder: Path, out: Path, *, copy: bool = False) -> dict[str, Any]:
    """Bring a well-known data set into the layout that training reads; see `layouts`.

    Args:
        kind: which data set, one of `layouts.KINDS`.
        copy: copy the files instead of linking to them.

    Returns:
        for each part of the data set its root, counts and the settings that fit it.

    Raises:
        InputError: `folder` does not hold such data.
        OutputError: `out` exists or cannot be written.
    """
    parts = layouts.write_layout(layouts.read_layout(kind, folder), out, copy=copy)
    return {"data": str(out), "files": "copies" if copy else "links", "parts": parts}


def _roles(root: Path) -> list[Role]:
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder")
    roles = []
    for folder in sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")):
        try:
            paths = _named_clips(folder)
        except InputError:
            continue
        is_labels = _looks_like_labels(next(iter(paths.values())))
        sources = {name: open_source(path, kind="labels" if is_labels else "pictures") for name, path in paths.items()}
        roles.append(Role(folder.name, is_labels, sources))
    if not roles:
        raise InputError(
            f"{root}: holds no folder of videos or pictures",
            hint="expected folders such as images/SEQUENCE/*.png and labels/SEQUENCE/*.png",
        )
    return roles


def _named_clips(folder: Path) -> dict[str, Path]:
    """The sequences of a role by name; pictures of different sizes directly in the folder are single pictures, not a clip."""
    clips = list_sources(folder)
    if clips == [folder]:
        stills = find_stills(folder)
        return {"": folder} if len({images.read_size(path) for path in stills.values()}) == 1 else stills
    return {path.stem if path.is_file() else path.name: path for path in clips}


def _looks_like_labels(path: Path) -> bool:
    try:
        frame = next(iter(open_source(path, kind="labels")))
    except InputError:
        return False
    pixels = frame.pixels if frame.pixels.ndim == 2 else frame.pixels.reshape(-1, 3)
    if frame.pixels.ndim == 2 and frame.pixels.dtype == np.uint16:
        return True
    return len(np.unique(pixels, axis=None if frame.pixels.ndim == 2 else 0)) <= _FEW_VALUES


def _mismatches(first: Role, second: Role) -> Iterator[str]:
    for name in sorted({*first.sources} ^ {*second.sources}):
        there, absent = (first, second) if name in first.sources else (second, first)
        yield f"sequence {name or '(the folder itself)'}: in {there.name}, but not in {absent.name}"
    for name in sorted({*first.sources} & {*second.sources}):
        a, b = first.sources[name], second.sources[name]
        if a.count() != b.count():
            yield f"sequence {name}: {a.count()} frames in {first.name}, {b.count()} in {second.name}"
        if a.size != b.size:
            yield f"sequence {name}: {_size(a)} in {first.name}, {_size(b)} in {second.name}"


def _configured_faults(settings: DataSettings) -> list[str]:
    from vidgen.data.sequences import find_sequences

    try:
        find_sequences(settings)
    except InputError as error:
        return [str(error)]
    return []


def _configured_table(settings: DataSettings, faults: list[str]) -> LabelTable | None:
    from vidgen.data.sequences import find_sequences, find_table

    if settings.condition.labels is None or faults:
        return None
    return find_table(settings, find_sequences(settings))


def _describe(role: Role, table: LabelTable | None, faults: list[str]) -> tuple[dict[str, Any], LabelTable | None]:
    counts = [source.count() for source in role.sources.values()]
    entry: dict[str, Any] = {
        "role": role.name,
        "holds": "label maps" if role.is_labels else "pictures",
        "sequences": len(counts),
        "frames": sum(counts),
        "sizes": sorted({_size(source) for source in role.sources.values()}),
    }
    if not role.is_labels:
        return entry, None
    pixels: Counter[int] = Counter()
    total = 0
    try:
        found = labels.discover(iter(source) for source in role.sources.values())
        for source in role.sources.values():
            for frame in source:
                ids = (table or found).decode(frame.pixels, frame.name)
                pixels.update(dict(zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True)))
                total += ids.size
    except InputError as error:
        faults.append(str(error))
        return entry, None
    names = (table or found).names
    entry["classes"] = {
        ("ignored" if index < 0 else names[index]): f"{100 * count / total:.2f} %" for index, count in sorted(pixels.items())
    }
    return entry, found


def _sampled(source: FrameSource) -> Iterator[Any]:
    count = source.count()
    for index in sorted({0, count // 2, count - 1}):
        yield source.read(index, index + 1)[0]


def _thumbnails(source: FrameSource, table: LabelTable | None, num_columns: int) -> Iterator[np.ndarray]:
    count = source.count()
    height, width = source.size
    size = (_THUMBNAIL_HEIGHT, max(1, round(width * _THUMBNAIL_HEIGHT / height)))
    for index in np.linspace(0, count - 1, num_columns).round().astype(int).tolist():
        frame = source.read(index, index + 1)[0]
        if table is None:
            yield conditions.resize_picture(frame.pixels, size)
        else:
            yield table.colorize(conditions.resize_labels(_known(table, frame), size))


def _known(table: LabelTable, frame: Any) -> np.ndarray:
    try:
        return table.decode(frame.pixels, frame.name)
    except InputError:  # a class that only other frames hold; a preview shows it as ignored
        return np.full(frame.pixels.shape[:2], -1)


def _size(source: FrameSource) -> str:
    return f"{source.size[1]}x{source.size[0]}"
