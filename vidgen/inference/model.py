"""A trained model in use: it translates videos of any length in memory that does not grow with them."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

import vidgen
from vidgen import config, durable
from vidgen.data.conditions import ConditionBuilder
from vidgen.data.sequences import check_partners
from vidgen.data.settings import ConditionSettings, FileInput, Size
from vidgen.errors import ConfigError, InputError
from vidgen.inference.backends import TorchBackend
from vidgen.inference.session import Backend, Session, WorkSize, fit, working_size
from vidgen.inference.styles import ObjectFeatures, StyleAssignment, object_features
from vidgen.media import conditions, pixels
from vidgen.media.frames import (
    FOLDER_FRAME_RATE,
    Frame,
    FrameSource,
    open_sink,
    open_source,
    output_place,
    sidecar_path,
    sidecar_place,
)
from vidgen.media.labels import LabelTable
from vidgen.media.smoothing import TemporalSmoother
from vidgen.runtime import Precision, Runtime
from vidgen.threads import BackgroundWriter, prefetch
from vidgen.translators.base import Translator
from vidgen.types import Condition
from vidgen.weights.checkpoints import find_weights
from vidgen.weights.model_file import ModelCard, fill

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """What one video is translated from.

    Attributes:
        main: the model's first input: label maps, or pictures.
        further: its other inputs by name.
        first_frames: known pictures of the first frames; the video continues them.
    """

    main: FrameSource
    further: Mapping[str, FrameSource] = field(default_factory=dict)
    first_frames: tuple[np.ndarray, ...] = ()

    @property
    def files(self) -> list[Path]:
        """What is read from the disk, which no output may replace."""
        return [file for source in (self.main, *self.further.values()) for file in source.paths]


@dataclass(frozen=True)
class Translated:
    """One frame of a result.

    Attributes:
        pixels: uint8 [H,W,3].
        preview: gives the condition as a picture of the same size; made only when asked for.
        pts: its time in the source's units.
        duration: of the last frame, how long it is displayed; see `Frame`.
    """

    pixels: np.ndarray
    preview: Callable[[], np.ndarray]
    pts: int
    duration: int | None = None


@dataclass(frozen=True)
class Options:
    """How a video is translated; see `Model.session`.

    Attributes:
        smoothing: 0..1, blend weight of the warped previous output, for image models; see `TemporalSmoother`.
    """

    seed: int = 0
    table: LabelTable | None = None
    work_size: WorkSize = "auto"
    smoothing: float = 0.0
    style: StyleAssignment | None = None


class Model:
    """A trained translator, ready to use. Get one from `vidgen.load`.

    Attributes:
        card: what the model file says of it.
        condition: how frames become its condition.
        table: meaning of the labels it reads, or None.
        sha256: of the weights file.
    """

    def __init__(self, translator: Translator[Any], card: ModelCard, runtime: Runtime, path: Path) -> None:
        self.translator = translator
        runtime.prepare(translator)
        runtime.prepare_for_use(translator)
        self.card = card
        self.condition: ConditionSettings = config.from_data(card.condition, ConditionSettings, str(path))
        self.table = card.table
        self.runtime = runtime
        self.path = path
        self.backend: Backend = TorchBackend(translator, runtime)
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        weights: Literal["auto", "ema", "last", "best"] = "auto",
        pretrained: Mapping[str, Path] | None = None,
    ) -> Model:
        """From a run folder, a checkpoint folder or a weights file.

        Args:
            weights: of a checkpoint: the averaged ones, the last ones, or the averaged ones where there are any.
            pretrained: weights files of the pretrained networks that the generator itself needs.

        Raises:
            CheckpointError: there are no usable weights, or a pretrained network is another than in training.
            ConfigError: the device does not exist.
        """
        found, file = find_weights(Path(path), weights)
        card = ModelCard.read(found.metadata, str(file))
        translator = card.build_for(found, file)
        fill(translator, found, file)
        return cls(translator, card, Runtime.choose(device, precision), file)

    @property
    def kind(self) -> str:
        """Name of the translator."""
        return self.card.kind

    @property
    def trained_size(self) -> Size:
        """(height, width) of the training frames."""
        return self.card.size

    @property
    def size_multiple(self) -> int:
        """Heights and widths that the network takes are multiples of this; inputs are padded."""
        return self.translator.size_multiple

    @property
    def inputs(self) -> tuple[FileInput, ...]:
        """What it reads from files, the main input first."""
        return self.condition.file_inputs

    def open(
        self,
        where: str | Path,
        *,
        instances: str | Path | None = None,
        further: Mapping[str, str | Path] | None = None,
        first_frames: str | Path | Model | None = None,
        start: str | None = None,
        end: str | None = None,
        frame_rate: Fraction | None = None,
    ) -> Inputs:
        """Open what a video is translated from.

        Args:
            where: a video, folder, pattern or picture of the model's main input.
            instances: likewise, for models that read instance maps.
            further: likewise all other inputs by name; see `inputs`.
            first_frames: a picture or video to continue, or an image model that makes the first frame.
            frame_rate: of folders of frames, which state none; 25 by default.

        Raises:
            InputError: something is missing, unreadable, or of another length.
        """
        first, *others = self.inputs or (FileInput("pictures", "picture", None),)
        main = open_source(where, kind=first.reading, start=start, end=end, frame_rate=frame_rate or FOLDER_FRAME_RATE)
        named = {**(further or {}), **({} if instances is None else {"instances": instances})}
        self._check_further(main.name, others, named)
        opened = {item.name: open_source(named[item.name], kind=item.reading, start=start, end=end) for item in others}
        check_partners([main, *opened.values()])
        inputs = Inputs(main, opened)
        return replace(inputs, first_frames=self._first_frames(inputs, first_frames))

    def _check_further(self, main: str, declared: Sequence[FileInput], named: Mapping[str, str | Path]) -> None:
        names = [item.name for item in declared]
        reads = f"beside {self.inputs[0].name} it reads {', '.join(names) or 'nothing'}" if self.inputs else "it reads nothing"
        unknown = next((name for name in named if name not in names), None)
        if unknown is not None:
            raise InputError(f"{main}: this model has no further input {unknown}; {reads}")
        missing = next((item for item in declared if item.name not in named), None)
        if missing is not None:
            raise InputError(f"{main}: this model also needs {missing.description}", hint=f"`further` {missing.name}=PATH")

    def _first_frames(self, inputs: Inputs, given: str | Path | Model | None) -> tuple[np.ndarray, ...]:
        if given is None:
            return ()
        if isinstance(given, Model):
            return (next(iter(given.stream(inputs))).pixels,)
        known = []
        source = open_source(given)
        rows, columns = conditions.middle_of_aspect(source.size, inputs.main.size)
        if (rows.stop - rows.start, columns.stop - columns.start) != source.size:
            log.warning(
                "%s: is %dx%d, unlike the input of %dx%d; its middle %dx%d is used",
                source.name,
                *reversed(source.size),
                *reversed(inputs.main.size),
                columns.stop - columns.start,
                rows.stop - rows.start,
            )
        for frame in source:
            known.append(np.ascontiguousarray(frame.pixels[rows, columns]))
            if len(known) == max(1, self.translator.num_past_frames):
                break
        return tuple(known)

    def session(
        self,
        size: Size,
        *,
        seed: int = 0,
        table: LabelTable | None = None,
        work_size: WorkSize = "auto",
        style: StyleAssignment | None = None,
    ) -> Session:
        """Begin a video of inputs of `size` (height, width): one frame in, one frame out.

        Args:
            seed: of the noise, for models that have any; the same seed gives the same video.
            table: meaning of the input's label values where they are stored in another way than in training.
            work_size: "auto" runs at about the height the model was trained at and resizes the result, "input" at the input's.
            style: of the objects, for models with a feature encoder.

        Raises:
            InputError: the size is too small for the model.
        """
        return Session(self, self.backend, size, seed=seed, table=table, work_size=work_size, style=style)

    def stream(self, inputs: Inputs, options: Options | None = None) -> Generator[Translated, None, None]:
        """Generate the frames one after the other; reading runs ahead of the network in a thread of its own.

        Raises:
            InputError: a frame cannot be read, or the model's condition is incomplete.
            ConfigError: smoothing for a model that sees its own past.
        """
        options = options or Options()
        if options.smoothing and self.translator.num_past_frames:
            raise ConfigError(f"smoothing: {self.kind} sees its own past and needs no blending; leave it out")
        smoother = TemporalSmoother(options.smoothing) if options.smoothing else None
        session = self.session(
            inputs.main.size, seed=options.seed, table=options.table, work_size=options.work_size, style=options.style
        )
        with closing(prefetch(lambda: _moments(session, inputs))) as moments:
            for index, (frame, condition) in enumerate(moments):
                if index < len(inputs.first_frames):
                    result = session.prime(condition, inputs.first_frames[: index + 1])
                else:
                    result = session.step(condition)

                def preview(frame: Frame = frame, condition: Condition = condition) -> np.ndarray:
                    return self.preview(frame, condition, inputs.main.size, session.work_size)

                if smoother is not None:
                    result = smoother(result, frame.pixels if self.table is None else preview())
                yield Translated(result, preview, frame.pts, frame.duration)

    def picture(
        self, main: Frame, further: Mapping[str, Frame], *, style: StyleAssignment | None = None, seed: int = 0
    ) -> np.ndarray:
        """One picture of maps in memory, uint8 [H,W,3] at their size; the inputs are those of `open`, one frame each.

        Raises:
            InputError: the maps do not fit the model or each other.
        """
        session = self.session((main.pixels.shape[0], main.pixels.shape[1]), style=style, seed=seed)
        return session.step(main, **further)

    @property
    def num_style_channels(self) -> int:
        """Numbers that describe the style of an object, for models with a feature encoder; 0 for others."""
        return next((item.channels for item in self.card.inputs if item.kind == "styles"), 0)

    def object_features(self, frames: Tensor, condition: Condition) -> list[ObjectFeatures]:
        """The encoder's features of each object in a real picture.

        Args:
            frames: float [1,1,3,H,W], -1..1.
            condition: its label map and, for models that read it, its instance map.

        Raises:
            ConfigError: the model has no feature encoder.
        """
        if not self.num_style_channels or condition.labels is None:
            raise ConfigError(f"{self.path}: this model has no feature encoder, so its objects have no styles")
        with torch.inference_mode(), self.runtime.autocast():
            styles = self.translator.styles_of(self.runtime.place(frames), condition.map(self.runtime.place))
        return object_features(styles[0, 0].float().cpu().numpy(), *self.regions(condition))

    def reference_features(self, picture: Frame, labels: Frame, instance: Frame | None = None) -> list[ObjectFeatures]:
        """`object_features` of a picture and its maps, as files hold them.

        Raises:
            InputError: the maps do not fit the picture or the model.
        """
        size = self.working_size((picture.pixels.shape[0], picture.pixels.shape[1]))
        builder = ConditionBuilder(self.condition.model_copy(update={"pictures": (), "edges": None}), self.table)
        moment = builder.build(size, {"labels": labels} if instance is None else {"labels": labels, "instances": instance})
        padded = {name: conditions.pad_to_multiple(array, self.size_multiple) for name, array in moment.items()}
        return self.object_features(self.picture_tensor(picture.pixels, size)[None], builder.condition([padded]))

    def regions(self, condition: Condition) -> tuple[np.ndarray, np.ndarray]:
        """Classes of a condition's first frame, and the regions that have one style each: int64 [H,W]."""
        assert condition.labels is not None
        labels = condition.labels[0, 0].cpu().numpy()
        if condition.instances is None or self.translator.style_regions == "labels":
            return labels, labels
        return labels, condition.instances[0, 0].cpu().numpy()

    def translate(self, video: str | Path | Inputs, *, options: Options | None = None, **opening: Any) -> Translation:
        """Translate a video; frames are generated as they are asked for. See `open` for how inputs are named."""
        inputs = video if isinstance(video, Inputs) else self.open(video, **opening)
        return Translation(self, inputs, options or Options())

    def working_size(self, size: Size, work_size: WorkSize = "auto") -> Size:
        """(height, width) at which the network runs for an input of `size`, before padding to its multiple.

        Raises:
            InputError: it is too small.
        """
        return working_size(size, self.trained_size, self.size_multiple, work_size)

    def picture_tensor(self, picture: np.ndarray, size: Size) -> Tensor:
        """uint8 [H,W,3] -> float [1,3,h,w] at the padded working size."""
        resized = conditions.resize_picture(picture, size).transpose(2, 0, 1)
        padded = conditions.pad_to_multiple(resized, self.size_multiple)
        return self.runtime.place(torch.from_numpy(pixels.normalize(padded))[None])

    def preview(self, frame: Frame, condition: Condition, size: Size, work: Size) -> np.ndarray:
        """The condition as a picture, uint8 [H,W,3] at the input's size."""
        if condition.labels is not None and self.table is not None:
            ids = condition.labels[0, 0, : work[0], : work[1]].numpy()
            return self.table.colorize(conditions.resize_labels(ids, size))
        if self.condition.pictures:
            return frame.pixels
        assert condition.frames is not None
        edges = pixels.to_pixels(condition.frames[0, :, :1].expand(-1, 3, -1, -1))[0]
        return fit(edges, work, size)


def load(
    path: Path | str,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    weights: Literal["auto", "ema", "last", "best"] = "auto",
) -> Model:
    """A trained model from a run folder, a checkpoint folder or a weights file.

    Example:
        >>> vidgen.load("runs/street").translate("labels.mkv").save("street.mp4")  # doctest: +SKIP

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16; auto takes bf16 where the processor computes it fast.
        weights: of a checkpoint: the averaged ones, the last ones, or the averaged ones where there are any.

    Raises:
        CheckpointError: there are no usable weights.
        ConfigError: the device does not exist.
    """
    return Model.load(path, device=device, precision=precision, weights=weights)


def _moments(session: Session, inputs: Inputs) -> Iterator[tuple[Frame, Condition]]:
    """Each frame of the main input with its condition [1,1,...]."""
    names = [session.main_input, *inputs.further]
    for frames in _together([inputs.main, *inputs.further.values()]):
        yield frames[0], session.build(dict(zip(names, frames, strict=True)))


class Translation:
    """A video in the making: iterate over its frames, or save it."""

    def __init__(self, model: Model, inputs: Inputs, options: Options) -> None:
        self.model = model
        self.inputs = inputs
        self.options = options

    def __iter__(self) -> Iterator[np.ndarray]:
        """uint8 [H,W,3] RGB."""
        return (frame.pixels for frame in self.model.stream(self.inputs, self.options))

    def save(
        self,
        path: Path | str,
        *,
        side_by_side: bool = False,
        quality: Literal["draft", "good", "lossless"] = "good",
        overwrite: bool = False,
        report: Callable[[int], None] | None = None,
        claim: durable.Claim | None = None,
    ) -> dict[str, Any]:
        """Write the video, whole or not at all, and a JSON file beside it that says how it was made.

        Args:
            side_by_side: condition and result next to each other.
            report: called with the number of frames done.
            claim: what the caller holds already: the output and its `sidecar_place`.

        Returns:
            what the JSON file holds.

        Raises:
            OutputError: the output exists or cannot be written.
        """
        main = self.inputs.main
        if claim is None:
            places = [output_place(path, single=main.single), sidecar_place(path)]
            with durable.claim(places, inputs=self.inputs.files, overwrite=overwrite) as claim:
                return self.save(path, side_by_side=side_by_side, quality=quality, report=report, claim=claim)
        started, count = time.monotonic(), 0
        with open_sink(
            path,
            time_base=main.time_base,
            frame_rate=main.frame_rate,
            audio=main.audio,
            pixel_aspect=main.pixel_aspect,
            quality=quality,
            names=main.frame_names,
            single=main.single,
            claim=claim,
        ) as sink:

            def write(frame: Translated) -> None:
                picture = np.concatenate([frame.preview(), frame.pixels], axis=1) if side_by_side else frame.pixels
                sink.write(picture, frame.pts, frame.duration)

            with BackgroundWriter(write) as writer, closing(self.model.stream(self.inputs, self.options)) as frames:
                for count, frame in enumerate(frames, 1):
                    writer.put(frame)
                    if report is not None:
                        report(count)
        seconds = time.monotonic() - started
        details = self._details(count, seconds, side_by_side)
        durable.write_json(sidecar_path(path), details)
        return {"output": str(path), **details}

    def _details(self, num_frames: int, seconds: float, side_by_side: bool) -> dict[str, Any]:
        model, main = self.model, self.inputs.main
        return {
            "vidgen": vidgen.__version__,
            "model": str(model.path),
            "model_sha256": model.sha256,
            "kind": model.kind,
            "input": main.name,
            "frames": num_frames,
            "size": list(main.size),
            "working_size": list(model.working_size(main.size, self.options.work_size)),
            "fps": float(main.frame_rate),
            "first_frames_given": len(self.inputs.first_frames),
            "smoothing": self.options.smoothing,
            "side_by_side": side_by_side,
            "runtime": model.backend.describe(),
            "seconds": round(seconds, 3),
            "ms_per_frame": round(1000 * seconds / max(1, num_frames), 2),
        }


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
