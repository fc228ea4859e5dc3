"""A trained model in use: it translates videos of any length in memory that does not grow with them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

import vidgen
from vidgen import durable
from vidgen.data.conditions import ConditionMaker, Size
from vidgen.errors import ConfigError, InputError
from vidgen.media import conditions
from vidgen.media.frames import Frame, FrameSource, open_sink, open_source
from vidgen.media.labels import LabelTable
from vidgen.media.steady import Steadier
from vidgen.threads import Behind, ahead
from vidgen.training import checkpoint, run
from vidgen.runtime import Precision, Runtime
from vidgen.training.recorder import to_pixels
from vidgen.training.run import RunSettings
from vidgen.training.styles import Look, ObjectFeatures, object_features
from vidgen.translators.base import Translator
from vidgen.types import Condition

WorkSize = Literal["auto", "input"]

_SIZE_TOLERANCE = 1.25
"""Inputs up to this factor off the training height are translated at their own size."""


@dataclass(frozen=True)
class Inputs:
    """What one video is translated from.

    Attributes:
        main: label maps, or the first kind of picture that the model reads.
        instances: object ids, for models that read them.
        others: further pictures by the name of their folder in training.
        first_frames: known pictures of the first frames; the video continues them.
    """

    main: FrameSource
    instances: FrameSource | None = None
    others: tuple[FrameSource, ...] = ()
    first_frames: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Translated:
    """One frame of a result: uint8 [H,W,3] and what it was made from, at the same size; its time in the source's units."""

    pixels: np.ndarray
    shown: np.ndarray
    pts: int


class Model:
    """A trained translator, ready to use. Get one from `vidgen.load`.

    Attributes:
        settings: the configuration it was trained with.
        table: meaning of the labels it reads, or None.
        trained_size: (height, width) of the training frames.
        sha256: of the weights file.
    """

    def __init__(
        self,
        translator: Translator,
        settings: RunSettings,
        table: LabelTable | None,
        trained_size: Size,
        runtime: Runtime,
        path: Path,
    ) -> None:
        self.translator = translator
        runtime.prepare(translator)
        runtime.prepare_for_use(translator)
        self.settings = settings
        self.table = table
        self.trained_size = trained_size
        self.runtime = runtime
        self.path = path
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        weights: Literal["auto", "average", "last"] = "auto",
    ) -> Model:
        """From a run folder, a checkpoint folder or a weights file.

        Raises:
            CheckpointError: there are no usable weights.
            ConfigError: the device does not exist.
        """
        found, file = run.find_weights(Path(path), weights)
        settings, table, size = run.settings_from_weights(found, str(file))
        translator = run.build(settings)
        checkpoint.load_into(translator, found.tensors, str(file))
        return cls(translator, settings, table, size, Runtime.choose(device, precision), file)

    def open(
        self,
        where: str | Path,
        *,
        instances: str | None = None,
        others: Sequence[str] = (),
        first_frames: str | Path | Model | None = None,
        start: str | None = None,
        end: str | None = None,
    ) -> Inputs:
        """Open what a video is translated from.

        Args:
            where: a video, folder, pattern or picture of the model's main condition.
            instances, others: likewise, for models that read more.
            first_frames: a picture or video to continue, or an image model that makes the first frame.

        Raises:
            InputError: something is missing, unreadable, or of another length.
        """
        shown = self.settings.data.condition
        reading: Literal["labels", "pictures"] = "labels" if shown.labels is not None else "pictures"
        main = open_source(where, reading=reading, start=start, end=end)
        further = list(shown.pictures if shown.labels is not None else shown.pictures[1:])
        if shown.reads_picture_for_edges:
            further.append("pictures to find edges in")
        if len(further) != len(others):
            wanted = ", ".join(further) or "none"
            raise InputError(f"{main.name}: this model reads {len(further)} further inputs ({wanted}), got {len(others)}")
        if (shown.instances is not None) != (instances is not None):
            need = "needs instance maps" if shown.instances else "reads no instance maps"
            raise InputError(f"{main.name}: this model {need}", hint="see --instances")
        opened = Inputs(
            main,
            None if instances is None else open_source(instances, reading="labels", start=start, end=end),
            tuple(open_source(other, start=start, end=end) for other in others),
        )
        if first_frames is None:
            return opened
        if isinstance(first_frames, Model):
            made = next(iter(first_frames.stream(Inputs(main, opened.instances, opened.others)))).pixels
            return Inputs(main, opened.instances, opened.others, (made,))
        source = open_source(first_frames)
        wanted_frames = max(1, self.translator.num_past_frames)
        known = []
        for frame in source:
            known.append(frame.pixels)
            if len(known) == wanted_frames:
                break
        return Inputs(main, opened.instances, opened.others, tuple(known))

    def stream(
        self,
        inputs: Inputs,
        *,
        table: LabelTable | None = None,
        work_size: WorkSize = "auto",
        steady: float = 0.0,
        look: Look | None = None,
    ) -> Generator[Translated, None, None]:
        """Make the frames one after the other; reading runs ahead of the network in a thread of its own.

        Args:
            table: meaning of the input's label values where they are stored in another way than in training.
            work_size: "auto" works at about the height the model was trained at and resizes the result, "input" at the input's.
            steady: 0..1, share of the last result, moved along, in each frame of an image model; see `Steadier`.
            look: features of the objects, for models with a feature encoder.

        Raises:
            InputError: a frame cannot be read, or the model's condition is incomplete.
            ConfigError: `steady` for a model that sees its own past.
        """
        if steady and self.translator.num_past_frames:
            raise ConfigError(f"steady: {self.settings.model.kind} sees its own past and needs no blending; leave it out")
        steadier = Steadier(steady) if steady else None
        maker = ConditionMaker(self.settings.data.condition, table or self.table)
        size = self.working_size(inputs.main.size, work_size)
        carry: Any = None
        with closing(ahead(lambda: self._moments(maker, inputs, size, look))) as moments:
            for index, (frame, condition) in enumerate(moments):
                condition = condition.map(self.runtime.place)
                with torch.inference_mode(), self.runtime.autocast():
                    if index < len(inputs.first_frames):
                        picture = inputs.first_frames[index]
                        carry = self._primed(condition, size, inputs.first_frames[: index + 1])
                        made = conditions.resize_picture(picture, inputs.main.size)
                    else:
                        output, carry = self.translator.translate(condition, carry)
                        made = _fit(to_pixels(output.frames[0].float())[0], size, inputs.main.size)
                shown = self._shown(frame, condition, inputs.main.size, size)
                if steadier is not None:
                    made = steadier(made, frame.pixels if self.table is None else shown)
                yield Translated(made, shown, frame.pts)

    def picture(
        self, main: Frame, *, instance: Frame | None = None, others: Sequence[Frame] = (), look: Look | None = None
    ) -> np.ndarray:
        """One picture of maps in memory, uint8 [H,W,3] at their size; the inputs are those of `open`, one frame each.

        Raises:
            InputError: the maps do not fit the model or each other.
        """
        height, width = main.pixels.shape[:2]
        size = self.working_size((height, width))
        condition = self._condition(ConditionMaker(self.settings.data.condition, self.table), size, main, instance, others, look)
        with torch.inference_mode(), self.runtime.autocast():
            output, _ = self.translator.translate(condition.map(self.runtime.place))
        return _fit(to_pixels(output.frames[0].float())[0], size, (height, width))

    @property
    def num_style_channels(self) -> int:
        """Numbers that describe the look of an object, for models with a feature encoder; 0 for others."""
        encoder = getattr(self.settings.model, "encoder", None)
        return 0 if encoder is None else int(encoder.num_features)

    def object_features(self, frames: Tensor, condition: Condition) -> list[ObjectFeatures]:
        """How each object looks in a real picture.

        Args:
            frames: float [1,1,3,H,W], -1..1.
            condition: its label map and, for models that read it, its instance map.

        Raises:
            ConfigError: the model has no feature encoder.
        """
        if not self.num_style_channels or condition.labels is None:
            raise ConfigError(f"{self.path}: this model has no feature encoder, so its objects have no styles")
        with torch.inference_mode(), self.runtime.autocast():
            styles = self.translator.styles_of(self.runtime.place(frames), condition.map(self.runtime.place))  # type: ignore[operator]
        return object_features(styles[0, 0].float().cpu().numpy(), *self._regions(condition))

    def reference_features(self, picture: Frame, labels: Frame, instance: Frame | None = None) -> list[ObjectFeatures]:
        """`object_features` of a picture and its maps, as files hold them.

        Raises:
            InputError: the maps do not fit the picture or the model.
        """
        size = self.working_size((picture.pixels.shape[0], picture.pixels.shape[1]))
        maker = ConditionMaker(self.settings.data.condition.model_copy(update={"pictures": (), "edges": None}), self.table)
        moment = maker.moment(size, label=labels, instance=instance, pictures=(), edge_source=None)
        padded = {name: conditions.pad_to_multiple(array, self.translator.size_multiple) for name, array in moment.items()}
        return self.object_features(self._tensor(picture.pixels, size)[None], maker.condition([padded]))

    def _regions(self, condition: Condition) -> tuple[np.ndarray, np.ndarray]:
        """Classes of a condition's first frame, and the regions that have one look each: int64 [H,W]."""
        assert condition.labels is not None
        by_labels = condition.instances is None or self.settings.model.encoder.regions == "labels"
        labels = condition.labels[0, 0].cpu().numpy()
        return labels, labels if by_labels else condition.instances[0, 0].cpu().numpy()  # type: ignore[index]

    def translate(self, video: str | Path | Inputs, **options: Any) -> Translation:
        """Translate a video; frames are made as they are asked for. See `open` and `stream` for the options."""
        streaming: dict[str, Any] = {
            name: options.pop(name) for name in ("table", "work_size", "steady", "look") if name in options
        }
        return Translation(self, video if isinstance(video, Inputs) else self.open(video, **options), streaming)

    def working_size(self, size: Size, work_size: WorkSize = "auto") -> Size:
        """(height, width) at which the network works for an input of `size`, before padding to its multiple."""
        height, width = size
        factor = self.trained_size[0] / height
        if work_size == "auto" and not 1 / _SIZE_TOLERANCE <= factor <= _SIZE_TOLERANCE:
            height, width = round(height * factor), round(width * factor)
        least = self.translator.size_multiple
        if min(height, width) < least:
            raise InputError(f"the input is {size[1]}x{size[0]}; this model needs at least {least}x{least}")
        return height, width

    def _moments(self, maker: ConditionMaker, inputs: Inputs, size: Size, look: Look | None) -> Iterator[tuple[Frame, Condition]]:
        """Each frame of the main input with its condition [1,1,...], padded to the model's multiple."""
        sources = [inputs.main, *([inputs.instances] if inputs.instances else []), *inputs.others]
        for frames in _together(sources):
            others = frames[2 if inputs.instances else 1 :]
            yield frames[0], self._condition(maker, size, frames[0], frames[1] if inputs.instances else None, others, look)

    def _condition(
        self,
        maker: ConditionMaker,
        size: Size,
        main: Frame,
        instance: Frame | None,
        others: Sequence[Frame],
        look: Look | None,
    ) -> Condition:
        """What the model is shown of one moment, [1,1,...], padded to its multiple."""
        shown, rest = maker.settings, list(others)
        edge_source = rest.pop() if shown.reads_picture_for_edges else main if shown.edges is not None else None
        moment = maker.moment(
            size,
            label=main if shown.labels is not None else None,
            instance=instance,
            pictures=([] if shown.labels is not None or not shown.pictures else [main]) + rest,
            edge_source=edge_source,
        )
        padded = {name: conditions.pad_to_multiple(array, self.translator.size_multiple) for name, array in moment.items()}
        condition = maker.condition([padded])
        if look is None:
            return condition
        features = look.features(*self._regions(condition))
        return replace(condition, styles=torch.from_numpy(features)[None, None])

    def _primed(self, condition: Condition, size: Size, known: Sequence[np.ndarray]) -> Any:
        """The carry after the `known` first frames, all taken to lie under the present condition."""
        frames = [self._tensor(item, size) for item in known]
        repeated = Condition(
            labels=_repeat(condition.labels, len(frames)),
            frames=_repeat(condition.frames, len(frames)),
            instances=_repeat(condition.instances, len(frames)),
        )
        return self.translator.prime(repeated, torch.stack(frames, dim=1))

    def _tensor(self, picture: np.ndarray, size: Size) -> Tensor:
        """uint8 [H,W,3] -> float [1,3,h,w] at the padded working size."""
        resized = conditions.resize_picture(picture, size).transpose(2, 0, 1)
        padded = conditions.pad_to_multiple(resized, self.translator.size_multiple)
        return self.runtime.place(torch.from_numpy(padded.astype(np.float32) / 127.5 - 1)[None])

    def _shown(self, frame: Frame, condition: Condition, size: Size, work: Size) -> np.ndarray:
        """The condition as a picture at the input's size."""
        if condition.labels is not None and self.table is not None:
            ids = condition.labels[0, 0, : work[0], : work[1]].cpu().numpy()
            return self.table.colorize(conditions.resize_labels(ids, size))
        if self.settings.data.condition.pictures:
            return frame.pixels
        assert condition.frames is not None
        edges = to_pixels(condition.frames[0, :, :1].expand(-1, 3, -1, -1))[0]
        return _fit(edges, work, size)


class Translation:
    """A video being made: iterate over its frames, or save it."""

    def __init__(self, model: Model, inputs: Inputs, streaming: dict[str, Any]) -> None:
        self.model = model
        self.inputs = inputs
        self._streaming = streaming

    def __iter__(self) -> Iterator[np.ndarray]:
        """uint8 [H,W,3] RGB."""
        return (frame.pixels for frame in self.model.stream(self.inputs, **self._streaming))

    def save(
        self,
        path: Path | str,
        *,
        side_by_side: bool = False,
        quality: Literal["draft", "good", "lossless"] = "good",
        overwrite: bool = False,
        report: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """Write the video, whole or not at all, and a JSON file beside it that says how it was made.

        Args:
            side_by_side: condition and result next to each other.
            report: called with the number of frames done.

        Returns:
            what the JSON file holds.

        Raises:
            OutputError: the output exists or cannot be written.
        """
        main = self.inputs.main
        started, count = time.monotonic(), 0
        with open_sink(
            path,
            time_base=main.time_base,
            frame_rate=main.frame_rate,
            audio=main.audio,
            quality=quality,
            overwrite=overwrite,
        ) as sink:

            def write(frame: Translated) -> None:
                picture = np.concatenate([frame.shown, frame.pixels], axis=1) if side_by_side else frame.pixels
                sink.write(picture, frame.pts)

            with Behind(write) as behind, closing(self.model.stream(self.inputs, **self._streaming)) as frames:
                for count, frame in enumerate(frames, 1):
                    behind.put(frame)
                    if report is not None:
                        report(count)
        seconds = time.monotonic() - started
        details = self._details(count, seconds, side_by_side)
        durable.write_json(_details_path(Path(path)), details)
        return {"output": str(path), **details}

    def _details(self, num_frames: int, seconds: float, side_by_side: bool) -> dict[str, Any]:
        model, main = self.model, self.inputs.main
        return {
            "vidgen": vidgen.__version__,
            "model": str(model.path),
            "model_sha256": model.sha256,
            "kind": model.settings.model.kind,
            "input": main.name,
            "frames": num_frames,
            "size": list(main.size),
            "working_size": list(model.working_size(main.size, self._streaming.get("work_size", "auto"))),
            "fps": float(main.frame_rate),
            "first_frames_given": len(self.inputs.first_frames),
            "steady": self._streaming.get("steady", 0.0),
            "side_by_side": side_by_side,
            "runtime": model.runtime.describe(),
            "seconds": round(seconds, 3),
            "ms_per_frame": round(1000 * seconds / max(1, num_frames), 2),
        }


def _details_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json") if path.suffix == "" or "%" in path.name else path.with_suffix(".json")


def _together(sources: Sequence[FrameSource]) -> Iterator[tuple[Frame, ...]]:
    """Frames of several sources side by side.

    Raises:
        InputError: one ends before the others.
    """
    iterators = [iter(source) for source in sources]
    index = 0
    while True:
        frames = [next(iterator, None) for iterator in iterators]
        if all(frame is None for frame in frames):
            return
        for source, frame in zip(sources, frames, strict=True):
            if frame is None:
                raise InputError(f"{source.name}: ends after {index} frames, before {sources[frames.index(None) - 1].name}")
        yield tuple(frame for frame in frames if frame is not None)
        index += 1


def _fit(pixels: np.ndarray, work: Size, size: Size) -> np.ndarray:
    """Take the padding off and resize to the output's size."""
    pixels = np.ascontiguousarray(pixels[: work[0], : work[1]])
    if work == size:
        return pixels
    enlarges = size[0] > work[0]
    return cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_LANCZOS4 if enlarges else cv2.INTER_AREA)


def _repeat(value: Tensor | None, count: int) -> Tensor | None:
    return None if value is None else value.expand(-1, count, *value.shape[2:])
