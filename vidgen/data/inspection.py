"""What is under the root of a data set, judged by what reads it for training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Listed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vidgen import kinds, progress
from vidgen.data import shards
from vidgen.data.sequences import Sequence, find_table, survey
from vidgen.data.settings import ConditionSettings, DataSettings, FileInput, LabelSettings, source_settings
from vidgen.errors import InputError, VidgenError
from vidgen.media import images, labels, paths, video
from vidgen.media.frames import Frame, FrameSource, list_sources
from vidgen.media.labels import LabelTable

_TARGETS = {"image", "img", "frame", "photo", "rgb", "target", "picture", "real", "video", "leftimg8bit"}
_LABELS = {"label", "seg", "segmentation", "semantic", "mask", "annotation", "annot", "gt", "gtfine", "id", "class", "trainannot"}
_INSTANCES = {"instance", "inst"}
_SPLITS = {"train", "val", "test", "training", "validation", "testing", "trainval"}
_FEW_VALUES = 64
_USUALLY_IGNORED = 255
_LEAST_SHARE = 0.001
_NUM_SAMPLES = 3


@dataclass
class RoleReport:
    """What one folder of a data set holds."""

    name: str
    kind: str
    sources: list[FrameSource]
    pixels: Counter[str] = field(default_factory=Counter)

    @property
    def num_frames(self) -> int:
        return sum(source.count() for source in self.sources)


@dataclass
class Inspection:
    """What is under a root.

    Attributes:
        settings: by which it was read.
        table: meaning of the label values; None where there are none, or where none can be found.
        faults: what training would refuse, in its words.
        notes: what it would not, and yet may be wrong.
    """

    settings: DataSettings
    roles: list[RoleReport] = field(default_factory=list)
    table: LabelTable | None = None
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def guess(root: Path) -> list[DataSettings]:
    """How a root without a configuration is to be read, by the names of its folders; one for each split that it holds.

    Raises:
        InputError: it is no folder, or holds nothing usable.
    """
    if not root.is_dir():
        if not root.exists():
            raise paths.missing(root)
        raise InputError(f"{paths.display(root)}: is {kinds.kind_of(root)}; the folder of a data set was expected")
    if kinds.kind_of(root) == "a run folder":
        raise InputError(f"{paths.display(root)}: is a run folder; the folder of a data set was expected")
    if shards.is_packed(root):
        return [DataSettings.model_validate({"root": root, **shards.at(root).settings})]
    folders = [entry for entry in paths.list_folder(root) if entry.is_dir()]
    roles = {_kind_by_name(folder.name) for folder in folders}
    splits = [folder for folder in folders if folder.name.lower() in _SPLITS]
    if splits and not {"target", "labels"} <= roles:
        if any(entry.is_dir() for split in splits for entry in paths.list_folder(split)):
            return [settings for split in splits for settings in guess(split)]
        if all(_has_two_halves(split) for split in splits):
            return [DataSettings(root=root, target=split.name, pairs="side_by_side") for split in splits]
    held = [entry for entry in paths.list_folder(root) if _holds_frames(entry)]
    if not held:
        raise InputError(
            f"{paths.display(root)}: holds no folder of videos or pictures",
            hint="expected folders such as images/SEQUENCE/*.png and labels/SEQUENCE/*.png",
        )
    return [_settings_of(root, held)]


def _kind_by_name(name: str) -> str | None:
    words = {word.removesuffix("s") if len(word) > 3 else word for word in re.split(r"[^a-z0-9]+", Path(name).stem.lower())}
    words |= set(re.split(r"[^a-z0-9]+", Path(name).stem.lower()))
    for kind, known in (("instances", _INSTANCES), ("labels", _LABELS), ("target", _TARGETS)):
        if words & known:
            return kind
    return None


def _is_not_plain(name: str) -> bool:
    """Whether more than one word names a folder of label maps."""
    return re.fullmatch(r"[a-z]+", Path(name).stem.lower()) is None


def _holds_frames(entry: Path) -> bool:
    if not entry.is_dir():
        return (video.is_video(entry) or images.is_image(entry)) and _kind_by_name(entry.name) is not None
    try:
        return bool(list_sources(entry))
    except InputError as error:
        return "holds no pictures" not in str(error)


def _settings_of(root: Path, held: Listed[Path]) -> DataSettings:
    by_kind: dict[str | None, list[str]] = {}
    for entry in held:
        by_kind.setdefault(_kind_by_name(entry.name), []).append(entry.name)
    label_names, unknown = sorted(by_kind.get("labels", []), key=_is_not_plain), by_kind.get(None, [])
    targets = by_kind.get("target", [])
    if not targets and unknown:
        targets, unknown = unknown[-1:], unknown[:-1]
    target = targets[0] if targets else label_names[0] if label_names else held[0].name
    instances = next(iter(by_kind.get("instances", [])), None)
    condition = ConditionSettings(
        labels=LabelSettings(folder=label_names[0], table="discover") if label_names else None,
        pictures=tuple(name for name in (*targets[1:], *unknown) if name != target),
        instances=instances if instances != target else None,
    )
    pairs = "stills" if _differ_in_size(root / target) else "sequences"
    return DataSettings.model_validate({"root": root, "target": target, "condition": condition, "pairs": pairs})


def _differ_in_size(folder: Path) -> bool:
    """Whether pictures that would be frames of one clip have several sizes."""
    if not folder.is_dir():
        return False
    for clip in list_sources(folder):
        files = [entry for entry in paths.list_folder(clip) if images.is_image(entry)] if clip.is_dir() else []
        try:
            if len({images.read_size(path) for path in files}) > 1:
                return True
        except InputError:
            continue  # training says what is wrong with it
    return False


def _has_two_halves(folder: Path) -> bool:
    files = [entry for entry in paths.list_folder(folder) if images.is_image(entry)]
    try:
        sizes = [images.read_size(path) for path in files[:_NUM_SAMPLES]]
    except InputError:
        return False
    return bool(sizes) and all(width == 2 * height for height, width in sizes)


def inspect(settings: DataSettings, *, is_guess: bool) -> Inspection:
    """Read all that training would read, and note every fault instead of ending at the first.

    Args:
        is_guess: whether the settings come from `guess` and not from a configuration.
    """
    found = survey(settings)
    result = Inspection(settings, faults=list(map(_in_words, found.faults)))
    for name in settings.sources:
        result.faults += map(_in_words, survey(source_settings(settings, settings.sources[name])).faults)
    result.roles = roles_of(settings, found.sequences, found.unpaired)
    unpaired_maps = found.unpaired.get("labels", ())
    result.notes += list(_notes_on_folders(settings)) if is_guess else []
    if not found.sequences and not unpaired_maps:
        return result
    without_table = None
    try:
        result.table = _table(settings, found.sequences, unpaired_maps)
    except VidgenError as error:
        without_table = _in_words(error)
    for sequence in found.sequences:
        _read(sequence, result)
    for source in unpaired_maps:
        _read_maps(source, result)
    if without_table is not None and not (is_guess and result.faults):  # of files that cannot be read it is only a consequence
        result.faults.append(without_table)
    result.notes += _notes_on_content(result)
    return result


def _table(settings: DataSettings, sequences: list[Sequence], unpaired: Iterable[FrameSource]) -> LabelTable | None:
    """The label table; one that is discovered, of the frames that can be read."""
    if settings.condition.labels is None or settings.condition.labels.table != "discover":
        return find_table(settings, sequences)
    maps = [sequence.labels for sequence in sequences if sequence.labels is not None]
    return labels.discover(_readable(source) for source in (*maps, *unpaired))


def _readable(source: FrameSource) -> Iterator[Frame]:
    if len(source.paths) == 1:  # a video, which ends for us where it is damaged
        with suppress(InputError):
            yield from source
        return
    for index in range(source.count()):
        with suppress(InputError):
            yield source.read(index, index + 1)[0]


def _in_words(error: VidgenError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def roles_of(
    settings: DataSettings, sequences: list[Sequence], unpaired: Mapping[str, Listed[FrameSource]] | None = None
) -> list[RoleReport]:
    """The folders that are read, the real pictures first; with what is in them of sequences that cannot be used."""
    inputs = [item for item in settings.condition.file_inputs if item.folder is not None]
    roles = [FileInput("target", "picture", settings.target), *inputs]
    kinds = {"labels": "label maps", "instances": "instance maps"}
    reports = {}
    for role in roles:
        sources = [sequence.target if role.name == "target" else sequence.inputs[role.name] for sequence in sequences]
        sources += (unpaired or {}).get(role.name, ())
        reports[role.name] = RoleReport(role.folder or role.name, kinds.get(role.kind, "pictures"), sources)
    if "labels" in reports and reports["labels"].name == settings.target:
        del reports["target"]  # there is nothing but label maps
    return list(reports.values())


def _read(sequence: Sequence, result: Inspection) -> None:
    """Decode every frame of a sequence as training does, and count the classes."""

    def look(frames: dict[str, Frame]) -> None:
        if "instances" in frames:
            labels.instance_ids(frames["instances"].pixels, frames["instances"].name)
        if "labels" in frames:
            _count(frames["labels"], result)

    name = sequence.name or result.settings.root.name
    steps = progress.follow(range(sequence.num_frames), f"reading {name}", sequence.num_frames)
    if any(len(source.paths) == 1 and source.count() > 1 for source in sequence.roles):
        # A video is read from its beginning, and after a fault its frames are in doubt.
        try:
            for _, frames in zip(steps, sequence.moments(), strict=False):
                look(frames)
        except VidgenError as error:
            result.faults.append(_in_words(error))
        return
    for index in steps:
        try:
            look(sequence.read(index))
        except VidgenError as error:
            if str(error) not in result.faults:
                result.faults.append(_in_words(error))


def _read_maps(source: FrameSource, result: Inspection) -> None:
    """The same with label maps that have no partner."""
    for frame in progress.follow(_readable(source), f"reading {source.name}", source.num_frames):
        try:
            _count(frame, result)
        except VidgenError as error:
            if _in_words(error) not in result.faults:
                result.faults.append(_in_words(error))


def _count(frame: Frame, result: Inspection) -> None:
    label_role = next((role for role in result.roles if role.kind == "label maps"), None)
    if result.table is None or label_role is None:
        return
    classes = result.table.decode(frame.pixels, frame.name)
    values, counts = np.unique(classes, return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        label_role.pixels["ignored" if value < 0 else result.table.names[value]] += count


# --- notes ------------------------------------------------------------------------------------------------------------------


def _notes_on_folders(settings: DataSettings) -> Iterator[str]:
    root = settings.root
    read = {settings.target, *(item.folder for item in settings.condition.file_inputs)}
    for entry in paths.list_folder(root):
        if not entry.is_dir() or entry.name in read:
            continue
        kinds = Counter(path.suffix.lower() or "no suffix" for path in entry.rglob("*") if path.is_file())
        held = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(3)) or "nothing"
        yield f"{paths.display(entry.name)}: is not read; it holds {held}"
    if _kind_by_name(settings.target) is None and settings.pairs != "side_by_side":
        yield f"{paths.display(settings.target)}: is taken for the real pictures; its name does not say so"


def _notes_on_content(result: Inspection) -> Iterator[str]:
    by_kind = {role.kind: role for role in reversed(result.roles)}
    pictures, maps = by_kind.get("pictures"), by_kind.get("label maps")
    if pictures is not None and maps is not None:
        flat, rich = _looks_like_labels(pictures), not _looks_like_labels(maps)
        if flat and rich:
            yield f"{pictures.name} looks like label maps and {maps.name} like pictures; are they swapped?"
        elif flat:
            yield f"{pictures.name}: looks like label maps, and is read as pictures"
        elif rich:
            yield f"{maps.name}: looks like pictures, and is read as label maps"
    if maps is None or result.table is None:
        return
    table, total = result.table, sum(maps.pixels.values())
    if table.values is not None and _USUALLY_IGNORED in table.values:
        share = maps.pixels[table.names[table.values.index(_USUALLY_IGNORED)]] / max(1, total)
        if share >= _LEAST_SHARE:
            yield (
                f"{maps.name}: id {_USUALLY_IGNORED} covers {100 * share:.1f} % of the pixels; in most data sets it is no class, "
                "and then belongs to `ignore` of the label table"
            )
    if (
        result.settings.condition.labels is not None
        and result.settings.condition.labels.table == "discover"
        and table.values is None
    ):
        fitting = labels.matching_palettes(np.array([table.colors], np.uint8))
        if fitting:
            yield f"{maps.name}: its colors are those of the label table {fitting[0]}"


def _looks_like_labels(role: RoleReport) -> bool:
    """Whether some frames of a role, all of them, have few values in large areas, and not merely one."""
    seen: set[bytes] = set()
    for source in role.sources[:_NUM_SAMPLES]:
        count = source.count()
        try:
            for index in sorted({0, count // 2, count - 1}):
                pixels = source.read(index, index + 1)[0].pixels
                values = np.unique(pixels.reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1), axis=0)
                if len(values) > _FEW_VALUES:
                    return False
                seen.update(value.tobytes() for value in values)
        except InputError:
            return False
    return len(seen) > 1


def sizes_of(role: RoleReport) -> list[str]:
    """Sizes of a role's sequences, as WIDTHxHEIGHT."""
    return sorted({f"{width}x{height}" for height, width in (source.size for source in role.sources)})


def described(settings: DataSettings) -> list[str]:
    """The settings by which a data set was read, as a configuration states them."""
    condition = settings.condition
    lines = [f"data.target={settings.target}", f"data.pairs={settings.pairs}"]
    if condition.labels is not None:
        lines.append(f"data.condition.labels.folder={condition.labels.folder}")
    if condition.pictures and settings.pairs != "side_by_side":
        lines.append(f"data.condition.pictures=[{', '.join(condition.pictures)}]")
    if condition.instances is not None:
        lines.append(f"data.condition.instances={condition.instances}")
    return lines
