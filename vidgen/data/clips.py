"""Windows of paired video for training: the same clip for the same (seed, step, index), whatever ran before.

A data set is a root with one folder per role (`images`, `labels`, ...), each holding one folder of frames or one video file per
sequence. Sequences are paired by name, their frames by order after natural sorting. Or every picture is a sequence of one frame,
paired by its name, or holds the picture and its condition side by side. A role may also be a single file.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from flow.warp import warp
from vidgen.config import Settings
from vidgen.data import augment
from vidgen.data.augment import AugmentSettings
from vidgen.data.conditions import ConditionBuilder, ConditionSettings, Size, label_table
from vidgen.data.reference_flow import CachedFlow, FlowFiles
from vidgen.data.stills import HalfSource, Side, find_stills, match_names
from vidgen.errors import ConfigError, InputError
from vidgen.media import conditions, pixels
from vidgen.media.frames import Frame, FrameSource, list_sources, open_source
from vidgen.media.labels import LabelTable
from vidgen.types import Batch, Condition, FlowEstimator, Stage

CONFIDENCE_THRESHOLD = 0.02
"""Reference flow is trusted where the squared difference of frame and warped predecessor, summed over channels, is below this."""


class SourceSettings(Settings):
    """Another source of training pairs beside the first: other folders under the same root."""

    target: str | None = None
    """Folder of real pictures; that of the first source by default."""
    pictures: tuple[str, ...] | None = None
    """Folders of condition pictures, as many as in the first source."""
    labels: str | None = None
    """Folder of label maps with the classes of the first source."""


class DataSettings(Settings):
    """Training data and how it is cut, resized and varied."""

    root: Path
    target: str = "images"
    """Folder (or a single file) under the root with the real pictures."""
    condition: ConditionSettings = ConditionSettings()
    """What the model reads; empty for generators that read only noise."""
    pairs: Literal["sequences", "stills", "side_by_side"] = "sequences"
    """sequences: folders of frames, or videos. stills: every picture is a sequence of its own, paired by name. side_by_side: so
    is every picture of `target`, and it holds two, A on the left and B on the right; a condition whose folder is `target` too
    (a picture, where none is named) is the other half."""
    direction: Literal["a_to_b", "b_to_a"] = "a_to_b"
    """Which half of side_by_side pictures is made from the other."""
    sequences: tuple[str, ...] | None = None
    """Names of the sequences to use; all by default."""
    frames: str | None = None
    """Part of every sequence to use, `first:stop` in frames, such as 0:70; of single pictures, the part of all of them."""
    width: Annotated[int, Field(ge=8)] | None = None
    """Working width in pixels; the source's own, or that which follows the height, by default."""
    height: Annotated[int, Field(ge=8)] | None = None
    """Working height; by default it follows the width at each source's aspect, rounded to what the model needs."""
    crop_width: Annotated[int, Field(ge=8)] | None = None
    crop_height: Annotated[int, Field(ge=8)] | None = None
    """Size of a random crop, the same for all frames of a clip; no crop by default."""
    enlarge: Annotated[float, Field(ge=1, le=2)] = 1.0
    """Clips are enlarged by a random factor of up to this before the crop."""
    flip: bool = True
    """Mirror half of the clips."""
    augment: AugmentSettings = AugmentSettings()
    """Deformations of clips; none by default."""
    sources: Mapping[str, SourceSettings] = Field(default_factory=dict)
    """Further sources by name; the schedule says which share of the samples comes from each, the rest from the first."""
    max_frame_step: Annotated[int, Field(ge=1)] = 1
    """Clips take every n-th frame, n drawn from 1 to this."""
    cache_mb: Annotated[int, Field(ge=0)] = 2048
    """Memory for decoded frames."""
    workers: Annotated[int, Field(ge=0, le=64)] = 1
    """Threads that prepare the next clips; 0 prepares each when it is needed."""

    @field_validator("frames")
    @classmethod
    def _range(cls, value: str | None) -> str | None:
        if value is not None:
            parse_range(value)
        return value

    @model_validator(mode="after")
    def _other_half(self) -> DataSettings:
        shown = self.condition
        if self.pairs == "side_by_side" and self.target not in {item.folder for item in shown.file_inputs}:
            object.__setattr__(self, "condition", shown.model_copy(update={"pictures": (self.target, *shown.pictures)}))
        return self


def parse_range(text: str) -> slice:
    """`first:stop` (either may be missing) -> slice.

    Raises:
        ValueError: anything else.
    """
    parts = text.split(":")
    if len(parts) != 2 or not all(part == "" or part.isdecimal() for part in parts):
        raise ValueError(f"expected first:stop in frames, such as 0:70, got {text!r}")
    first, stop = (int(part) if part else None for part in parts)
    if stop is not None and stop <= (first or 0):
        raise ValueError(f"the range {text} is empty")
    return slice(first, stop)


def source_settings(settings: DataSettings, source: SourceSettings) -> DataSettings:
    """The settings of one further source."""
    condition = settings.condition
    if source.pictures is not None:
        condition = condition.model_copy(update={"pictures": source.pictures})
    if source.labels is not None and condition.labels is not None:
        condition = condition.model_copy(update={"labels": condition.labels.model_copy(update={"folder": source.labels})})
    changes = {"target": source.target or settings.target, "condition": condition, "sources": {}}
    return settings.model_copy(update=changes)


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


def find_sequences(settings: DataSettings) -> list[Sequence]:
    """Pair the sequences of all roles by name.

    Raises:
        InputError: a folder is missing, names or frame counts do not match, or nothing is left.
    """
    inputs = [item for item in settings.condition.file_inputs if item.folder is not None]
    folders = [settings.target, *(item.folder for item in inputs if item.folder is not None)]
    found = {folder: _sequence_paths(settings, folder) for folder in folders}
    if settings.pairs != "sequences":
        found = match_names(found)
    names = list(found[settings.target])
    for folder, paths in found.items():
        _check_names(settings.root, settings.target, names, folder, list(paths))
    if settings.sequences is not None:
        unknown = [name for name in settings.sequences if name not in names]
        if unknown:
            raise ConfigError(f"data.sequences: {unknown[0]!r} is not among {_few(names)} under {settings.root / settings.target}")
        names = [name for name in names if name in settings.sequences]
    part = parse_range(settings.frames) if settings.frames else slice(None)
    if settings.pairs != "sequences":
        if not names[part]:
            raise InputError(f"{settings.root / settings.target}: holds {len(names)} pictures, none in {settings.frames}")
        names, part = names[part], slice(None)
    target_side: Side = "right" if settings.direction == "a_to_b" else "left"
    other_side: Side = "left" if settings.direction == "a_to_b" else "right"

    def source(folder: str, name: str, reading: Literal["pictures", "labels"], side: Side) -> FrameSource:
        whole = open_source(found[folder][name], kind=reading)
        return HalfSource(whole, side) if settings.pairs == "side_by_side" and folder == settings.target else whole

    sequences = []
    for name in names:
        target = source(settings.target, name, "pictures", target_side)
        partners = {item.name: source(item.folder, name, item.reading, other_side) for item in inputs if item.folder is not None}
        sequences.append(_checked(Sequence(name, target, partners, 0, 0), part))
    return sequences


def find_table(settings: DataSettings, sequences: list[Sequence]) -> LabelTable | None:
    """The meaning of the label values, or None where no labels are shown.

    Raises:
        ConfigError, InputError: there is no such table, or none can be discovered.
    """
    if settings.condition.labels is None:
        return None
    sources = [sequence.labels for sequence in sequences if sequence.labels is not None]
    return label_table(settings.condition.labels, settings.root, sources)


def _sequence_paths(settings: DataSettings, folder: str) -> dict[str, Path]:
    root, where = settings.root, settings.root / folder
    if not root.is_dir():
        raise InputError(f"data.root: {root} is not a folder")
    if where.is_file():
        return {"": where}
    if not where.is_dir():
        present = sorted(child.name for child in root.iterdir() if not child.name.startswith("."))
        raise InputError(
            f"{where}: no such folder or file; {root} holds {_few(present)}",
            hint="set data.target and data.condition to the names",
        )
    if settings.pairs != "sequences":
        return find_stills(where)
    paths = list_sources(where)
    return {"" if path == where else path.stem if path.is_file() else path.name: path for path in paths}


def _check_names(root: Path, first: str, names: list[str], second: str, others: list[str]) -> None:
    unmatched = {*names} ^ {*others}
    missing = [name for name in (*names, *others) if name in unmatched]
    if missing:
        raise InputError(
            f"{root}: sequences of {first} and {second} do not match; without a partner: {_few(missing)}"
            f" ({len(names)} in {first}, {len(others)} in {second})"
        )


def _checked(sequence: Sequence, part: slice) -> Sequence:
    counts = [(source.name, source.count()) for source in sequence.roles]
    for name, count in counts[1:]:
        if count != counts[0][1]:
            raise InputError(f"{name}: {count} frames, but {counts[0][0]} has {counts[0][1]}; each frame needs its partner")
    first, stop, _ = part.indices(counts[0][1])
    if stop <= first:
        raise InputError(f"{counts[0][0]}: has {counts[0][1]} frames, none of them in data.frames {part.start or 0}:{part.stop}")
    return replace(sequence, first=first, num_frames=stop - first)


def _few(names: list[str]) -> str:
    shown = ", ".join(name or "(the folder itself)" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"


@dataclass(frozen=True)
class _Cut:
    """Everything random about one clip."""

    sequence: int
    frames: tuple[int, ...]
    mirrored: bool
    load_size: Size
    positions: np.ndarray | None
    top: int
    left: int
    crop_size: Size


class Clips:
    """Random access to training batches by (step, index).

    Args:
        sequences, table: what `find_sequences` and `find_table` gave for the settings.
        seed: with step and index it decides everything about a clip.
        size_multiple: working heights and widths are rounded to it (and to `Stage.size_divisor` times it).
        flow: estimator or files of reference flow; None where the translator needs none.
    """

    def __init__(
        self,
        settings: DataSettings,
        sequences: list[Sequence],
        table: LabelTable | None,
        *,
        seed: int,
        size_multiple: int,
        flow: FlowEstimator | FlowFiles | None,
    ) -> None:
        self.settings = settings
        self.sequences = sequences
        self.table = table
        self._builder = ConditionBuilder(settings.condition, self.table)
        self._seed = seed
        self._multiple = size_multiple
        self._flow = flow
        self._cache = _Cache(settings.cache_mb << 20)
        self._check_sides()
        self._sizes = [self._load_size(sequence) for sequence in sequences]
        self._sources: dict[str, Clips] = {}
        for name, source in settings.sources.items():
            others = source_settings(settings, source)
            self._sources[name] = Clips(others, find_sequences(others), table, seed=seed, size_multiple=size_multiple, flow=flow)
        self.size = self._whole_size(min(self._sizes))

    def _load_size(self, sequence: Sequence) -> Size:
        """(height, width) of a sequence's full-size clips before cropping."""
        settings, multiple, source = self.settings, self._multiple, sequence.roles[0]
        height, width = source.size
        if settings.width and settings.height:
            height, width = settings.height, settings.width
        elif settings.width:
            height, width = round(height * settings.width / width), settings.width
        elif settings.height:
            height, width = settings.height, round(width * settings.height / height)
        if min(height, width) < multiple:
            raise InputError(f"{source.name}: is {width}x{height}; this model needs at least {multiple}x{multiple}")
        return (height, width) if self._crops else self._whole_size((height, width))

    @property
    def _crops(self) -> bool:
        return self.settings.crop_width is not None or self.settings.crop_height is not None

    def _check_sides(self) -> None:
        """Refuse a size for the network that it cannot take; what is cropped may have any."""
        for name in ("crop_width", "crop_height") if self._crops else ("width", "height"):
            value = getattr(self.settings, name)
            if value is not None and value % self._multiple:
                near = max(self._multiple, round(value / self._multiple) * self._multiple)
                raise ConfigError(f"data.{name}: {value} is not a multiple of {self._multiple}, which this model needs; try {near}")

    def _whole_size(self, size: Size) -> Size:
        """The nearest size that the model takes whole."""
        height, width = (max(self._multiple, round(side / self._multiple) * self._multiple) for side in size)
        return height, width

    def batch(
        self, stage: Stage, step: int, indices: range, *, primer_frames: int, batch_size: int, progress: float = 0.0
    ) -> Batch:
        """The clips `indices` of the step's batch.

        Args:
            progress: how much of the stage is done, 0..1, which decides the shares of a mixture of sources.

        All clips of a step have one length: what the shortest of their sequences holds, rounded down to whole windows.

        Raises:
            InputError: a frame cannot be read or holds an unknown label, or a sequence is too short to learn from.
        """
        samples = range(step * batch_size, (step + 1) * batch_size)
        shortest = min((self.sequences[self._sequence_of(sample)] for sample in samples), key=lambda item: item.num_frames)
        num_frames = _clip_frames(stage, shortest, primer_frames) + primer_frames
        cuts = [self._cut(stage, samples[index], num_frames) for index in indices]
        if len({cut.crop_size for cut in cuts}) > 1:
            found = " and ".join(sorted({f"{width}x{height}" for height, width in (cut.crop_size for cut in cuts)})[:2])
            raise ConfigError(
                f"train.micro_batch_size: {len(cuts)}, but clips have different sizes ({found})",
                hint="set data.width and data.height, or data.crop_width and data.crop_height, or train.micro_batch_size=1",
            )
        owners = [self._owner(stage, samples[index], progress) for index in indices]
        alone = replace(stage, mixture={})
        clips = [
            self._clip(cut, primer_frames)
            if owner is self
            else owner.batch(alone, step, range(index, index + 1), primer_frames=primer_frames, batch_size=batch_size)
            for index, owner, cut in zip(indices, owners, cuts, strict=True)
        ]
        return clips[0] if len(clips) == 1 else _join(clips)

    def _owner(self, stage: Stage, sample: int, progress: float) -> Clips:
        """The source of a sample: drawn by the seed and the sample alone, with the shares of the moment."""
        if not stage.mixture:
            return self
        place = float(np.random.default_rng([self._seed, 4, sample]).random())
        for name, (first, last) in stage.mixture.items():
            place -= first + (last - first) * progress
            if place < 0:
                if name not in self._sources:
                    known = ", ".join(self._sources) or "none"
                    raise ConfigError(f"data.sources: the schedule takes samples from {name!r}, but there are {known}")
                return self._sources[name]
        return self

    def _sequence_of(self, sample: int) -> int:
        """Every sequence comes once an epoch, in an order of that epoch's own."""
        epoch, place = divmod(sample, len(self.sequences))
        return int(np.random.default_rng([self._seed, 1, epoch]).permutation(len(self.sequences))[place])

    def excerpt(self, sequence: int, first: int, num_frames: int, primer_frames: int) -> Batch:
        """Consecutive frames as they are, without random variation: for samples and validation."""
        owner = self.sequences[sequence]
        frames = tuple(range(first, min(first + num_frames, owner.num_frames)))
        size = self._whole_size(self._sizes[sequence])
        return self._clip(_Cut(sequence, frames, False, size, None, 0, 0, size), primer_frames)

    def _cut(self, stage: Stage, sample: int, num_frames: int) -> _Cut:
        chosen = self._sequence_of(sample)
        generator = np.random.default_rng([self._seed, 2, sample])
        length = self.sequences[chosen].num_frames
        most = min(self.settings.max_frame_step, (length - 1) // max(1, num_frames - 1)) if num_frames > 1 else 1
        step = int(generator.integers(1, max(1, most) + 1))
        start = int(generator.integers(0, length - (num_frames - 1) * step))
        mirrored = bool(generator.random() < 0.5) and self.settings.flip
        grown = 1 + float(generator.random()) * (self.settings.enlarge - 1)
        multiple, divisor = self._multiple, stage.size_divisor
        height, width = (max(multiple, round(side * grown / divisor)) for side in self._sizes[chosen])
        if not self._crops:
            height, width = self._whole_size((height, width))
        crop_height, crop_width = self.settings.crop_height, self.settings.crop_width
        if self.settings.enlarge > 1 and not self._crops:
            crop_height, crop_width = self._sizes[chosen]
        crop = (
            min(height, (crop_height or height * divisor) // divisor),
            min(width, (crop_width or width * divisor) // divisor),
        )
        crop = (max(multiple, crop[0] // multiple * multiple), max(multiple, crop[1] // multiple * multiple))
        top = int(generator.integers(0, height - crop[0] + 1))
        left = int(generator.integers(0, width - crop[1] + 1))
        frames = tuple(range(start, start + num_frames * step, step))
        positions = augment.draw_positions(self.settings.augment, np.random.default_rng([self._seed, 3, sample]), (height, width))
        return _Cut(chosen, frames, mirrored, (height, width), positions, top, left, crop)

    def _clip(self, cut: _Cut, primer_frames: int) -> Batch:
        moments = [self._builder.encode(self._layers(cut, frame)) for frame in cut.frames]
        rows = slice(cut.top, cut.top + cut.crop_size[0])
        columns = slice(cut.left, cut.left + cut.crop_size[1])

        def view(array: np.ndarray) -> np.ndarray:
            array = array[..., rows, columns]
            return np.ascontiguousarray(array[..., ::-1] if cut.mirrored else array)

        cut_moments = [{name: view(array) for name, array in moment.items()} for moment in moments]
        condition = self._builder.condition(cut_moments)
        pictures = np.stack([moment["target"] for moment in cut_moments])
        target = torch.from_numpy(pixels.normalize(pictures))[None]
        if self._flow is None:
            return Batch(condition, target, primer_frames=primer_frames)
        pairs = [self._reference_flow(cut, index, target) for index in range(target.shape[1])]
        flows = torch.stack([pair[0] for pair in pairs])[None]
        confidence = torch.stack([pair[1] for pair in pairs])[None]
        return Batch(condition, target, flows, confidence, primer_frames)

    def _layers(self, cut: _Cut, frame: int) -> dict[str, np.ndarray]:
        """The layers of one moment, deformed where the cut says so; "target" is uint8 [3,H,W]."""
        layers = self._loaded(cut.sequence, frame, cut.load_size)
        if cut.positions is None:
            return layers
        return {name: augment.deform(layer, cut.positions) for name, layer in layers.items()}

    def _loaded(self, sequence: int, frame: int, size: Size) -> dict[str, np.ndarray]:
        """The layers of one moment at `size`."""

        def make() -> dict[str, np.ndarray]:
            owner = self.sequences[sequence]

            def read(source: FrameSource) -> Frame:
                return source.read(owner.first + frame, owner.first + frame + 1)[0]

            target = read(owner.target)
            partners = {name: read(source) for name, source in owner.inputs.items()}
            for partner in partners.values():
                if partner.pixels.shape[:2] != target.pixels.shape[:2]:
                    raise InputError(
                        f"{partner.name}: is {partner.pixels.shape[1]}x{partner.pixels.shape[0]}, but {target.name} is "
                        f"{target.pixels.shape[1]}x{target.pixels.shape[0]}; what belongs together must have one size"
                    )
            layers = self._builder.load_layers(size, {"edges": target, **partners})
            layers["target"] = np.ascontiguousarray(conditions.resize_picture(target.pixels, size).transpose(2, 0, 1))
            return layers

        return self._cache.get((sequence, frame, size), make)

    def _reference_flow(self, cut: _Cut, index: int, target: Tensor) -> tuple[Tensor, Tensor]:
        """(flow [2,H,W], confidence [1,H,W]) of clip frame `index` into the one before; zeros at the first."""
        if index == 0:
            height, width = cut.crop_size
            return torch.zeros(2, height, width), torch.zeros(1, height, width)

        def make() -> dict[str, np.ndarray]:
            current, previous = target[:, index], target[:, index - 1]
            flow = self._flow_into_previous(cut, index, current, previous)
            difference = (current - warp(previous, flow)).square().sum(1)
            confidence = (difference < CONFIDENCE_THRESHOLD).float()
            return {"flow": flow[0].numpy(), "confidence": confidence.numpy()}

        stays = cut.crop_size == cut.load_size and cut.positions is None
        key = ("flow", cut.sequence, cut.frames[index - 1], cut.frames[index], cut.mirrored, cut.load_size)
        found = self._cache.get(key, make) if stays else make()
        return torch.from_numpy(found["flow"]), torch.from_numpy(found["confidence"])

    def _flow_into_previous(self, cut: _Cut, index: int, current: Tensor, previous: Tensor) -> Tensor:
        """Flow [1,2,H,W] of clip frame `index`; of the whole frame and then cut, where that serves all cuts of a pair."""
        assert self._flow is not None
        numbers = cut.frames[index], cut.frames[index - 1]
        if isinstance(self._flow, FlowFiles):
            if cut.positions is not None:
                raise ConfigError("train.flow: files hold the flow of frames as they are, but data.augment deforms them")
            owner = self.sequences[cut.sequence]
            later, earlier = (owner.first + number for number in numbers)
            whole = self._flow.between(owner.name, later, earlier, cut.load_size)
        elif isinstance(self._flow, CachedFlow) and cut.positions is None and cut.load_size == self._sizes[cut.sequence]:
            pictures = (self._loaded(cut.sequence, number, cut.load_size)["target"] for number in numbers)
            whole = self._flow(*(torch.from_numpy(pixels.normalize(picture))[None] for picture in pictures))
        else:
            return self._flow(current, previous)
        part = whole[..., cut.top : cut.top + cut.crop_size[0], cut.left : cut.left + cut.crop_size[1]]
        return part.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None] if cut.mirrored else part


def _clip_frames(stage: Stage, sequence: Sequence, primer_frames: int) -> int:
    """Frames that a clip of the sequence generates in a stage."""
    available = sequence.num_frames - primer_frames
    if available < 1:
        raise InputError(
            f"{sequence.roles[0].name}: has {sequence.num_frames} frames; this model needs at least {primer_frames + 1}"
        )
    wanted = min(stage.clip_frames, available)
    return wanted if wanted < stage.window_frames else wanted - wanted % stage.window_frames


class _Cache:
    """Arrays by key, the least recently used leaving first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[object, dict[str, np.ndarray]] = OrderedDict()

    def get(self, key: object, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        value: dict[str, np.ndarray] = make()
        with self._lock:
            if key not in self._items:
                self._items[key] = value
                self._bytes += sum(array.nbytes for array in value.values())
            while self._bytes > self._max_bytes and len(self._items) > 1:
                _, old = self._items.popitem(last=False)
                self._bytes -= sum(array.nbytes for array in old.values())
        return value


def _join(clips: list[Batch]) -> Batch:
    """Several clips of equal length as one batch."""

    def gather(values: list[Tensor | None]) -> Tensor | None:
        return None if values[0] is None else torch.cat([value for value in values if value is not None])

    condition = Condition.concatenate([clip.condition for clip in clips])
    target = torch.cat([clip.target for clip in clips])
    flow, confidence = gather([clip.flow for clip in clips]), gather([clip.confidence for clip in clips])
    return Batch(condition, target, flow, confidence, clips[0].primer_frames)
