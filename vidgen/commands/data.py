"""Look at a data set before training on it: what is there, what does not fit together, what the labels hold.

torch is imported only where a training configuration is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidgen import durable
from vidgen.config import load
from vidgen.data import inspection, layouts, shards
from vidgen.data.inspection import Inspection
from vidgen.data.sequences import location, paths_of, survey
from vidgen.data.settings import DataSettings, FileInput, source_settings
from vidgen.errors import InputError, PartialFailure
from vidgen.media import conditions, edge_maps, labels, paths
from vidgen.media.frames import Frame, FrameSource
from vidgen.media.images import write_png
from vidgen.media.labels import LabelTable

_THUMBNAIL_HEIGHT = 160
_MAX_LISTED = 20


def check(
    root: Path, *, config: Path | None = None, sets: Sequence[str] = (), write_labels: Path | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Count, compare and decode everything under `root`, as training reads it.

    Args:
        config: a training configuration whose `data` section names roles and label table; without one, the names of the folders
            tell the roles.
        write_labels: write the label table of the values that occur here, ready for `data.condition.labels.table`.

    Returns:
        how it was read; per role: sequences, frames, sizes, and the label values with their share; the faults, which training would
        refuse, and notes, which it would not. Of a root with splits, this for each in "parts".

    Raises:
        InputError: `root` holds nothing usable.
        ConfigError: the configuration is not valid.
    """
    with durable.claim([] if write_labels is None else [write_labels], overwrite=overwrite):
        return _checked(root, config, sets, write_labels)


def _checked(root: Path, config: Path | None, sets: Sequence[str], write_labels: Path | None) -> dict[str, Any]:
    if config is None:
        found = [inspection.inspect(settings, is_guess=True) for settings in inspection.guess(root)]
    else:
        found = [inspection.inspect(_configured(root, config, sets), is_guess=False)]
    report = _as_dict(found[0]) if len(found) == 1 else {"root": str(root), "parts": [_as_dict(part) for part in found]}
    table = next((part.table for part in found if part.table is not None), None)
    if write_labels is not None and table is not None:
        durable.write_json(write_labels, table.to_dict())
        report["labels_written"] = str(write_labels)
    return report


def _configured(root: Path, config: Path, sets: Sequence[str]) -> DataSettings:
    from vidgen.training import settings as run_settings

    settings: DataSettings = load(config, run_settings.run_schema(), sets, {"data.root": str(root)}).data
    return settings


def enforce(report: Mapping[str, Any]) -> None:
    """
    Raises:
        PartialFailure: `check` found faults.
    """
    count = sum(len(part["faults"]) for part in report.get("parts", [report]))
    if count:
        raise PartialFailure(f"{report['root']}: {count} {'fault' if count == 1 else 'faults'}; training would refuse this data")


def as_text(report: Mapping[str, Any]) -> str:
    """The overview for people; faults and notes come last."""
    return "\n\n".join(_part_as_text(part) for part in report.get("parts", [report])) + (
        f"\nlabels_written  {report['labels_written']}" if "labels_written" in report else ""
    )


def _part_as_text(part: Mapping[str, Any]) -> str:
    lines = [f"root     {part['root']}", f"read as  {' '.join(part['read_as'])}"]
    for role in part["roles"]:
        sizes = ", ".join(role["sizes"][:4]) + (f" and {len(role['sizes']) - 4} more" if len(role["sizes"]) > 4 else "")
        lines.append(f"{role['role']}: {role['holds']}, {role['sequences']} sequences, {role['frames']} frames, {sizes}")
        lines += [f"  {share:>8}  {name}" for name, share in role.get("classes", {}).items()]
    for title, entries in (("notes", part["notes"]), ("faults", part["faults"])):
        lines.append(f"{title}: {len(entries) or 'none'}")
        lines += [f"  {entry}" for entry in entries[:_MAX_LISTED]]
        lines += [f"  and {len(entries) - _MAX_LISTED} more"] if len(entries) > _MAX_LISTED else []
    return "\n".join(lines)


def _as_dict(found: Inspection) -> dict[str, Any]:
    roles = []
    for role in found.roles:
        entry: dict[str, Any] = {
            "role": role.name,
            "holds": role.kind,
            "sequences": len(role.sources),
            "frames": role.num_frames,
            "sizes": inspection.sizes_of(role),
        }
        total = sum(role.pixels.values())
        if total and found.table is not None:
            order = ["ignored", *found.table.names]
            entry["classes"] = {
                name: f"{100 * role.pixels[name] / total:.2f} %" for name in dict.fromkeys(order) if name in role.pixels
            }
        roles.append(entry)
    return {
        "root": str(found.settings.root),
        "read_as": inspection.described(found.settings),
        "roles": roles,
        "notes": found.notes,
        "faults": found.faults,
    }


def pack(
    root: Path,
    out: Path,
    *,
    config: Path | None = None,
    sets: Sequence[str] = (),
    max_megabytes: float = 512.0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a data set into tar shards with an index, from which training reads it alike; see `vidgen.data.shards`.

    Args:
        config: a training configuration whose `data` section names the roles; without one, the names of the folders tell them.
        max_megabytes: of a shard, unless one sample is larger.

    Raises:
        InputError: training would refuse the data.
        OutputError: `out` exists, or cannot be written.
    """
    if config is None:
        found = inspection.guess(root)
        if len(found) > 1:
            names = ", ".join(str(part.root) for part in found)
            raise InputError(f"{paths.display(root)}: holds several data sets", hint=f"pack each by itself: {names}")
        settings = found[0]
    else:
        settings = _configured(root, config, sets)
    if shards.is_packed(root):
        raise InputError(f"{paths.display(root)}: is packed already")
    place = durable.Output(out, "folder")
    roles: dict[str, dict[str, str | Path]] = {}
    with durable.claim([place], inputs=[root], overwrite=overwrite):
        for part in (settings, *(source_settings(settings, source) for source in settings.sources.values())):
            faults = survey(part).faults
            if faults:
                raise faults[0]
            for role in (FileInput("target", "picture", part.target), *part.condition.file_inputs):
                if role.folder is not None and role.folder not in roles:
                    roles[role.folder] = {name: location(part, role, path) for name, path in paths_of(part, role).items()}
        held = settings.model_dump(mode="json", include={"target", "condition", "pairs", "direction"})
        counts = shards.pack(root, roles, held, place, max_bytes=round(max_megabytes * 2**20))
    return {"shards_written": str(out), **counts}


def preview(
    root: Path, out: Path, *, num_columns: int = 4, show_edge_maps: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """A contact sheet: a row per role and sequence, moments from left to right; labels in color.

    Args:
        show_edge_maps: instead a row per real picture, as many as `num_columns` of each sequence, with every step from its edges to
            the distances that models of sketches read.

    Raises:
        InputError: `root` holds nothing usable.
        OutputError: `out` exists.
    """
    with durable.claim([out], overwrite=overwrite):
        rows = []
        for settings in inspection.guess(root):
            found = survey(settings)
            if not found.sequences:
                raise found.faults[0]
            if show_edge_maps:
                frames = [frame for sequence in found.sequences[:8] for frame in _sampled(sequence.target, num_columns)]
                rows += [np.concatenate(list(_edge_map_steps(frame.pixels)), axis=1) for frame in frames]
                continue
            for role in inspection.roles_of(settings, found.sequences):
                frames = [frame for source in role.sources[:4] for frame in _sampled(source, num_columns)]
                table = None if role.kind == "pictures" else _colors(frames)
                rows += [np.concatenate(list(_thumbnails(source, table, num_columns)), axis=1) for source in role.sources[:4]]
        width = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((2, 2), (0, width - row.shape[1]), (0, 0))) for row in rows]
        write_png(out, np.concatenate(padded))
    return {"preview": str(out), "rows": len(rows)}


def _edge_map_steps(picture: np.ndarray) -> Iterator[np.ndarray]:
    """Thumbnails: the picture, the strength of its edges, what each step leaves of them, and the distances; strokes are dark."""
    size = (_THUMBNAIL_HEIGHT, max(1, round(picture.shape[1] * _THUMBNAIL_HEIGHT / picture.shape[0])))
    steps = edge_maps.edge_map_steps(picture)
    grays = [255 - np.rint(255 * steps.strength).astype(np.uint8), *map(edge_maps.drawn, steps.masks.values())]
    mask = steps.drawing == 0
    grays.append(np.rint(255 * edge_maps.stroke_distance(mask)).astype(np.uint8) if mask.any() else np.full_like(grays[0], 255))
    for pixels in (picture, *(np.repeat(gray[..., None], 3, axis=2) for gray in grays)):
        yield conditions.resize_picture(pixels, size)


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


def _colors(frames: Sequence[Frame]) -> LabelTable:
    """A table that gives every value of some label or instance maps a color."""
    if frames[0].pixels.ndim == 3:
        return labels.discover([frames])
    values = np.unique(np.concatenate([np.unique(frame.pixels) for frame in frames])).tolist()
    return LabelTable(tuple(map(str, values)), labels.distinct_colors(len(values)), tuple(values))


def _sampled(source: FrameSource, count: int) -> Iterator[Frame]:
    for index in np.linspace(0, source.count() - 1, count).round().astype(int).tolist():
        yield source.read(index, index + 1)[0]


def _thumbnails(source: FrameSource, table: LabelTable | None, num_columns: int) -> Iterator[np.ndarray]:
    height, width = source.size
    size = (_THUMBNAIL_HEIGHT, max(1, round(width * _THUMBNAIL_HEIGHT / height)))
    for frame in _sampled(source, num_columns):
        if table is None:
            yield conditions.resize_picture(frame.pixels, size)
        else:
            yield table.colorize(conditions.resize_labels(table.decode(frame.pixels, frame.name), size))
