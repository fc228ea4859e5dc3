"""Windows of paired video for training: the same clip for the same (seed, step, index), whatever ran before.

A data set is a root with one folder per role (`images`, `labels`, ...), each holding one folder of frames or one video file per
sequence. Sequences are paired by name, their frames by order after natural sorting. Or every picture is a sequence of one frame,
paired by its name, or holds the picture and its condition side by side. A role may also be a single file.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flow.warp import warp
from vidgen.data import augment
from vidgen.data.conditions import ConditionBuilder
from vidgen.data.people import PeopleVariation
from vidgen.data.reference_flow import CachedFlow, FlowFiles
from vidgen.data.sequences import Sequence, class_name, find_classes, find_sequences
from vidgen.data.settings import DataSettings, Size, source_settings
from vidgen.data.style_pictures import StyleView, as_style, draw_recoloring, recolor
from vidgen.errors import ConfigError, InputError
from vidgen.media import lines, pixels
from vidgen.media.edge_maps import EdgeMapOptions, edge_map
from vidgen.media.labels import LabelTable
from vidgen.types import Batch, Condition, FlowEstimator, Stage

CONFIDENCE_THRESHOLD = 0.02
"""Reference flow is trusted where the squared difference of frame and warped predecessor, summed over channels, is below this."""


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
    pen: lines.Pen | None = None
    style: StyleView | None = None
    recoloring: np.ndarray | None = None
    sample: int | None = None


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
        settings = find_classes(settings, sequences)
        self._builder = ConditionBuilder(settings.condition, self.table)
        self._classes = settings.condition.classes.names if settings.condition.classes is not None else ()
        self._seed = seed
        self._multiple = size_multiple
        self._flow = flow
        self._cache = _Cache(settings.cache_mb << 20)
        self._check_sides()
        self._sizes = [self._load_size(sequence) for sequence in sequences]
        self._people = PeopleVariation(settings, sequences)
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

    def check(self, stages: Iterable[Stage], primer_frames: int) -> None:
        """Refuse, before any training, what `batch` would refuse of a schedule later.

        Raises:
            InputError: a sequence is too short to learn from.
            ConfigError: a stage takes samples from a source that does not exist.
        """
        for stage in stages:
            for sequence in self.sequences:
                _clip_frames(stage, sequence, primer_frames)
            for name in stage.mixture:
                self._source(name)

    def _source(self, name: str) -> Clips:
        if name not in self._sources:
            known = ", ".join(self._sources) or "none"
            raise ConfigError(f"data.sources: the schedule takes samples from {name!r}, but there are {known}")
        return self._sources[name]

    def _owner(self, stage: Stage, sample: int, progress: float) -> Clips:
        """The source of a sample: drawn by the seed and the sample alone, with the shares of the moment."""
        if not stage.mixture:
            return self
        place = float(np.random.default_rng([self._seed, 4, sample]).random())
        for name, (first, last) in stage.mixture.items():
            place -= first + (last - first) * progress
            if place < 0:
                return self._source(name)
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
        drawn = self._draw_condition(np.random.default_rng([self._seed, 5, sample]))
        return _Cut(chosen, frames, mirrored, (height, width), positions, top, left, crop, *drawn, sample)

    def _draw_condition(self, generator: np.random.Generator) -> tuple[lines.Pen | None, StyleView | None, np.ndarray | None]:
        """What is random about lines and style of a clip."""
        condition = self.settings.condition
        pen = None if condition.lines is None else condition.lines.pen(generator)
        if condition.style is None:
            return pen, None, None
        view = StyleView.draw(condition.style, generator)
        recoloring = draw_recoloring(generator)
        return pen, view, recoloring if generator.random() < condition.style.recolor else None

    def _clip(self, cut: _Cut, primer_frames: int) -> Batch:
        moments = [self._builder.encode(self._layers(cut, frame)) for frame in cut.frames]
        rows = slice(cut.top, cut.top + cut.crop_size[0])
        columns = slice(cut.left, cut.left + cut.crop_size[1])

        def view(array: np.ndarray) -> np.ndarray:
            array = array[..., rows, columns]
            return np.ascontiguousarray(array[..., ::-1] if cut.mirrored else array)

        cut_moments = [{name: view(array) for name, array in moment.items()} for moment in moments]
        style = self.settings.condition.style
        if style is not None:
            cut_moments[0]["style"] = pixels.normalize(self._style_picture(cut, cut_moments[0]["target"], style.size))
        condition = self._builder.condition(cut_moments)
        if self._classes:
            number = self._classes.index(class_name(self.sequences[cut.sequence].name))
            condition = condition.with_tensors(class_id=torch.tensor([number]))
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
        layers = dict(self._loaded(cut.sequence, frame, cut.load_size))
        if "line_source" in layers:
            assert self.settings.condition.lines is not None
            source = np.ascontiguousarray(layers.pop("line_source").transpose(1, 2, 0))
            layers["lines"] = lines.draw(source, cut.pen or self.settings.condition.lines.plain, cut.load_size)[None]
        if cut.recoloring is not None:
            layers["target"] = recolor(layers["target"], cut.recoloring)
        if cut.sample is not None:
            owner, generator = self.sequences[cut.sequence], np.random.default_rng([self._seed, 6, cut.sample, frame])
            layers["pictures"] = self._people(layers["pictures"], owner, frame, owner.target.size, generator)
        if cut.positions is None:
            return layers
        return {name: augment.deform(layer, cut.positions) for name, layer in layers.items()}

    def _style_picture(self, cut: _Cut, first: np.ndarray, side: int) -> np.ndarray:
        """uint8 [3,side,side]: the clip's first frame [3,H,W] itself, or what the cut says instead."""
        if cut.style is None:
            return as_style(first, side)
        if cut.style.place is not None:
            frame = int(cut.style.place * self.sequences[cut.sequence].num_frames)
            first = self._loaded(cut.sequence, frame, cut.load_size)["target"]
            first = first if cut.recoloring is None else recolor(first, cut.recoloring)
        return cut.style(first, side)

    def _loaded(self, sequence: int, frame: int, size: Size) -> dict[str, np.ndarray]:
        """The layers of one moment at `size`."""

        def make() -> dict[str, np.ndarray]:
            frames = self.sequences[sequence].read(frame)
            target, sketch = frames["target"], self.settings.condition.sketch
            if sketch is not None and "sketch" not in frames:
                options = EdgeMapOptions(sketch.detector, threshold=sketch.threshold, min_pixels=sketch.min_pixels)
                drawing = edge_map(target.pixels, options)
                frames["sketch"] = replace(target, pixels=drawing if sketch.polarity == "dark" else 255 - drawing)
            return self._builder.load_training_layers(size, frames)

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
