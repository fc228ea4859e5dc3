"""A trained model in use: it translates videos of any length in memory that does not grow with them.

A model runs on torch, or on an exported graph; torch is loaded where it is needed, so that the latter starts at once.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import vidgen
from vidgen import config, durable
from vidgen.data.conditions import ConditionBuilder
from vidgen.data.sequences import check_partners
from vidgen.data.settings import ConditionSettings, FileInput, Size
from vidgen.errors import ConfigError, InputError, MissingExtraError, VidgenError
from vidgen.inference.backends import choice
from vidgen.inference.backends.choice import BackendName, Choice
from vidgen.inference.backends.graphs import TITLES, EngineName, GraphBackend, engine_version, require_engine
from vidgen.inference.facts import Facts
from vidgen.inference.graph import read_card
from vidgen.inference.session import Arrays, Backend, Session, WorkSize, fit, picture_array, regions, working_size
from vidgen.inference.styles import ObjectFeatures, StyleAssignment, object_features
from vidgen.media import conditions, pixels
from vidgen.media.frames import (
    FOLDER_FRAME_RATE,
    Frame,
    FrameSource,
    NegativeSource,
    open_sink,
    open_source,
    output_place,
    sidecar_path,
    sidecar_place,
)
from vidgen.media.labels import LabelTable
from vidgen.threads import BackgroundWriter, prefetch
from vidgen.weights.checkpoints import find_files, find_weights

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen.runtime import Precision, Runtime
    from vidgen.translators.base import Translator
    from vidgen.types import Condition
    from vidgen.weights.model_file import ModelCard

log = logging.getLogger(__name__)

Prefer = Literal["auto", "ema", "last", "best"]
GRAPH_SUFFIX = ".onnx"
_SMALLEST_STYLE = 8
WORTH_PREPARING = 100
"""Frames of a clip from which on preparing a graph for a faster backend (half a minute, once for a model) pays off."""


@dataclass(frozen=True)
class Inputs:
    """What one video is translated from.

    Attributes:
        main: the model's first input: label maps, or pictures.
        further: its other inputs by name.
        first_frames: known pictures of the first frames; the video continues them.
        whole_video: what holds for all frames, by name, such as a style picture.
    """

    main: FrameSource
    further: Mapping[str, FrameSource] = field(default_factory=dict)
    first_frames: tuple[np.ndarray, ...] = ()
    whole_video: Mapping[str, Frame] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """What is read from the disk, which no output may replace."""
        return [file for source in self.sources for file in source.paths]

    @property
    def sources(self) -> list[FrameSource]:
        """All that has a frame for each frame of the result."""
        return [self.main, *self.further.values()]


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
        class_name: what the video shows, for models that know classes.
        inverted: sketches are light on dark.
    """

    seed: int = 0
    table: LabelTable | None = None
    work_size: WorkSize = "auto"
    smoothing: float = 0.0
    style: StyleAssignment | None = None
    class_name: str | None = None
    inverted: bool = False


class Model:
    """A trained translator, ready to use. Get one from `vidgen.load`.

    Attributes:
        facts: what a session needs to know of it.
        backend: what computes its steps.
        choice: which backend that is, and why.
        path: of the weights or the exported graph.
        sha256: of the weights file.
    """

    def __init__(
        self, facts: Facts, backend: Backend, chosen: Choice, path: Path, sha256: str, parts: _Parts | None = None
    ) -> None:
        self.facts = facts
        self.backend = backend
        self.choice = chosen
        self.path = path
        self.sha256 = sha256
        self._parts = parts

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        weights: Prefer = "auto",
        backend: BackendName = "torch",
        threads: int | None = None,
        num_frames: int | None = None,
        pretrained: Mapping[str, Path] | None = None,
        compiled: bool = False,
    ) -> Model:
        """From a run folder, a checkpoint folder, a weights file, or an exported graph.

        Args:
            weights: of a checkpoint: the averaged ones, the last ones, or the averaged ones where there are any.
            backend: "auto" takes OpenVINO where it is installed and gives torch's frames here. Where a backend that was asked for
                fails, torch takes its place, with a warning.
            threads: of the processor.
            num_frames: how many frames will be translated, where that is known; "auto" prepares no graph for few.
            pretrained: weights files of the pretrained networks that the model needs in use and that no package carries; by default
                those that its run was trained with.
            compiled: compile the steps with `torch.compile` when the first frames come, for long videos and GPUs.

        Raises:
            CheckpointError: there are no usable weights, or the graph has no card that this version reads.
            ConfigError: the device does not exist, or the backend does not fit it.
            MissingExtraError: the backend is not installed.
        """
        path = Path(path)
        if compiled and (backend not in ("auto", "torch") or path.suffix.lower() == GRAPH_SUFFIX):
            raise ConfigError(f"`compiled`: compiles networks in torch, and {path} would run on an exported graph")
        backend = "torch" if compiled else backend
        if path.suffix.lower() == GRAPH_SUFFIX:
            return cls._of_graph(path, backend, device, precision, threads)
        why = "asked for"
        if backend != "torch":
            engine, why = _engine_for(backend, device)
            if engine is not None:
                prepared = _Preparation(path, weights, engine, precision, threads)
                graph, why = prepared.start(None if backend == "openvino" or backend == "onnxruntime" else num_frames)
                if graph is not None:
                    return cls(graph.card.facts, graph, Choice(engine, graph.precision, why), prepared.file, prepared.sha256)
                if backend != "auto" or prepared.failed:
                    log.warning("%s is not used: %s; torch takes its place", TITLES[engine], why)
        return cls._of_weights(
            path, device, precision, weights, threads, why, pretrained=pretrained, compiler="inductor" if compiled else None
        )

    @classmethod
    def _of_weights(
        cls,
        path: Path,
        device: str,
        precision: Precision,
        weights: Prefer,
        threads: int | None,
        why: str,
        pretrained: Mapping[str, Path] | None,
        compiler: str | None,
    ) -> Model:
        from vidgen.inference.backends.pytorch import TorchBackend
        from vidgen.runtime import Runtime
        from vidgen.weights.model_file import ModelCard, fill

        found, file = find_weights(path, weights)
        card = ModelCard.read(found.metadata, str(file))
        runtime = Runtime.choose(device, precision, threads)
        networks = card.networks_in_use(path, pretrained or {})
        for network in networks.values():
            runtime.prepare(network)
        translator = card.build_for(found, file, networks)
        fill(translator, found, file)
        runtime.prepare(translator)
        runtime.prepare_for_use(translator)
        facts = Facts(
            card.kind,
            config.from_data(card.condition, ConditionSettings, str(file)),
            card.table,
            card.size,
            translator.size_multiple,
            translator.num_past_frames,
            translator.style_regions,
            next((item.channels for item in card.inputs if item.kind == "styles"), 0),
            fixed_size=not card.inputs,
        )
        has_noise = any(item.kind == "noise" for item in card.inputs)
        chosen = Choice("torch", "bf16" if runtime.use_bf16 else "fp32", why)
        torch_backend = TorchBackend(translator, runtime, has_noise, compiler)
        return cls(facts, torch_backend, chosen, file, _sha256(file), _Parts(translator, card, runtime))

    @classmethod
    def _of_graph(cls, path: Path, backend: BackendName, device: str, precision: Precision, threads: int | None) -> Model:
        """From a file that was exported: there are no weights for torch to take its place."""
        if device not in ("auto", "cpu"):
            raise ConfigError(f"`device` {device}: exported graphs run on the processor")
        card = read_card(path)
        names: tuple[EngineName, ...] = ("openvino", "onnxruntime")
        if backend in names:
            require_engine(backend)
            names = (backend, *(name for name in names if name != backend))
        installed = [name for name in names if engine_version(name) is not None]
        if not installed:
            require_engine("onnxruntime")
        for name in installed:
            try:
                cache = choice.cache_folder() / "compiled"
                graph, verdict = choice.same_frames(path, name, precision, threads=threads, cache=cache)
            except VidgenError as error:
                if name == installed[-1]:
                    raise
                log.warning("%s is not used: %s", TITLES[name], error)
                continue
            if verdict.passed:
                return cls(card.facts, graph, Choice(name, graph.precision, verdict.describe()), path, _sha256(path))
            log.warning("%s is not used: its frames are not those of torch (%s)", TITLES[name], verdict.describe())
        raise ConfigError(f"{path}: no installed backend gives the frames of torch here", hint="translate the weights with torch")

    @property
    def condition(self) -> ConditionSettings:
        """How frames become its condition."""
        return self.facts.condition

    @property
    def table(self) -> LabelTable | None:
        """Meaning of the labels it reads, or None."""
        return self.facts.table

    @property
    def kind(self) -> str:
        """Name of the translator."""
        return self.facts.kind

    @property
    def trained_size(self) -> Size:
        """(height, width) of the training frames."""
        return self.facts.size

    @property
    def size_multiple(self) -> int:
        """Heights and widths that the network takes are multiples of this; inputs are padded."""
        return self.facts.size_multiple

    @property
    def translator(self) -> Translator[Any]:
        """The network in torch.

        Raises:
            ConfigError: the model runs on an exported graph, without one.
        """
        return self._torch.translator

    @property
    def card(self) -> ModelCard:
        """What the model file says of it.

        Raises:
            ConfigError: as for `translator`.
        """
        return self._torch.card

    @property
    def runtime(self) -> Runtime:
        """Where and how precisely torch computes.

        Raises:
            ConfigError: as for `translator`.
        """
        return self._torch.runtime

    @property
    def _torch(self) -> _Parts:
        if self._parts is None:
            raise ConfigError(
                f"{self.path}: runs on {TITLES[self.choice.backend]}, and this needs torch", hint="load it with the backend torch"
            )
        return self._parts

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
        inverted: bool = False,
    ) -> Inputs:
        """Open what a video is translated from.

        Args:
            where: a video, folder, pattern or picture of the model's main input.
            instances: likewise, for models that read instance maps.
            further: likewise all other inputs by name; see `inputs`. Of those that hold for the whole video, such as a style
                picture, the first frame.
            inverted: take the main input, a picture, as its negative, since its lines are light on dark.
            first_frames: a picture or video to continue, or an image model that makes the first frame.
            frame_rate: of folders of frames, which state none; 25 by default.

        Raises:
            InputError: something is missing, unreadable, or of another length.
        """
        first, *others = self.inputs or (FileInput("pictures", "picture", None),)
        main = open_source(where, kind=first.reading, start=start, end=end, frame_rate=frame_rate or FOLDER_FRAME_RATE)
        named = {**(further or {}), **({} if instances is None else {"instances": instances})}
        self._check_further(main.name, others, named)
        if inverted:
            if first.reading != "pictures":
                raise InputError(f"{main.name}: is read as {first.description}, which have no negative")
            main = NegativeSource(main)
        opened = {
            item.name: open_source(named[item.name], kind=item.reading, start=start, end=end) for item in others if item.per_frame
        }
        check_partners([main, *opened.values()])
        whole = {item.name: _only_frame(named[item.name]) for item in others if not item.per_frame}
        inputs = Inputs(main, opened, whole_video=whole)
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
            if len(known) == max(1, self.facts.num_past_frames):
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
        class_name: str | None = None,
        inverted: bool = False,
    ) -> Session:
        """Begin a video of inputs of `size` (height, width): one frame in, one frame out.

        Args:
            seed: of the noise, for models that have any; the same seed gives the same video.
            table: meaning of the input's label values where they are stored in another way than in training.
            work_size: "auto" runs at about the height the model was trained at and resizes the result, "input" at the input's.
            style: of the objects, for models with a feature encoder.
            class_name: what the video shows, for models that know classes.
            inverted: sketches are light on dark.

        Raises:
            InputError: the size is too small for the model, or it does not know the class.
        """
        return Session(
            self,
            self.backend,
            size,
            seed=seed,
            table=table,
            work_size=work_size,
            style=style,
            class_name=class_name,
            inverted=inverted,
        )

    def stream(self, inputs: Inputs, options: Options | None = None) -> Generator[Translated, None, None]:
        """Generate the frames one after the other; reading runs ahead of the network in a thread of its own.

        Raises:
            InputError: a frame cannot be read, or the model's condition is incomplete.
            ConfigError: smoothing for a model that sees its own past.
        """
        options = options or Options()
        if options.smoothing and self.facts.num_past_frames:
            raise ConfigError(f"smoothing: {self.kind} sees its own past and needs no blending; leave it out")
        smoother: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
        if options.smoothing:
            from vidgen.media.smoothing import TemporalSmoother

            smoother = TemporalSmoother(options.smoothing)
        session = self.session(
            inputs.main.size,
            seed=options.seed,
            table=options.table,
            work_size=options.work_size,
            style=options.style,
            class_name=options.class_name,
            inverted=options.inverted,
        )
        # Decoding, conditions and network overlap, each in a thread of its own; whoever takes the frames may encode in a fourth.
        with (
            closing(prefetch(lambda: _together(inputs.sources))) as decoded,
            closing(prefetch(lambda: moments(session, inputs, decoded))) as ahead,
        ):
            for index, (frame, arrays) in enumerate(ahead):
                if index < len(inputs.first_frames):
                    result = session.prime(arrays, inputs.first_frames[: index + 1])
                else:
                    result = session.step(arrays)

                def preview(frame: Frame = frame, arrays: Arrays = arrays) -> np.ndarray:
                    return self.preview(frame, arrays, inputs.main.size, session.work_size)

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
        return self.facts.num_style_channels

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
        import torch

        with torch.inference_mode(), self.runtime.autocast():
            styles = self.translator.styles_of(self.runtime.place(frames), condition.map(self.runtime.place))
        moment = {name: value[0, 0].cpu().numpy() for name, value in condition.tensors.items()}
        return object_features(styles[0, 0].float().cpu().numpy(), *regions(moment, self.facts))

    def reference_features(self, picture: Frame, labels: Frame, instance: Frame | None = None) -> list[ObjectFeatures]:
        """`object_features` of a picture and its maps, as files hold them.

        Raises:
            InputError: the maps do not fit the picture or the model.
        """
        size = self.working_size((picture.pixels.shape[0], picture.pixels.shape[1]))
        builder = ConditionBuilder(self.condition.model_copy(update={"pictures": (), "edges": None}), self.table)
        moment = builder.build(size, {"labels": labels} if instance is None else {"labels": labels, "instances": instance})
        padded = {name: conditions.pad_to_multiple(array, self.size_multiple) for name, array in moment.items()}
        import torch

        frames = torch.from_numpy(picture_array(picture.pixels, size, self.size_multiple))[None, None]
        return self.object_features(frames, builder.condition([padded]))

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

    def preview(self, frame: Frame, arrays: Arrays, size: Size, work: Size) -> np.ndarray:
        """The condition as a picture, uint8 [H,W,3] at the input's size."""
        if "labels" in arrays and self.table is not None:
            return self.table.colorize(conditions.resize_labels(arrays["labels"][0, 0, : work[0], : work[1]], size))
        if self.condition.pictures or self.condition.lines is not None or self.condition.sketch is not None:
            return frame.pixels
        edges = pixels.quantize(arrays["frames"][0, 0, 0])
        return fit(np.repeat(edges[..., None], 3, axis=2), work, size)


@dataclass(frozen=True)
class _Parts:
    """What there is of a model that runs on torch."""

    translator: Translator[Any]
    card: ModelCard
    runtime: Runtime


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _engine_for(backend: BackendName, device: str) -> tuple[EngineName | None, str]:
    """The engine to try for a model, or None and why torch is taken.

    Raises:
        MissingExtraError: the engine that was asked for is not installed.
        ConfigError: it does not run on the device.
    """
    if backend in ("openvino", "onnxruntime"):
        if device not in ("auto", "cpu"):
            raise ConfigError(f"`backend` {backend}: runs on the processor, not on {device}")
        require_engine(backend)
        return backend, ""
    if device not in ("auto", "cpu") or (device == "auto" and choice.has_accelerator()):
        return None, f"the device is {device}"
    if engine_version("openvino") is None:
        return None, "OpenVINO is not installed"
    return "openvino", ""


class _Preparation:
    """The graph of a weights file for one engine: exported when it is first needed, kept, compared with torch.

    Attributes:
        file: of the weights.
        sha256: of all weights that are used.
        failed: whether something was wrong, rather than not worth it.
    """

    def __init__(self, path: Path, weights: Prefer, engine: EngineName, precision: Precision, threads: int | None) -> None:
        self._path, self._weights, self._engine = path, weights, engine
        self._precision, self._threads = precision, threads
        last, averaged = find_files(path, weights)
        self.file = averaged or last
        self.sha256 = _sha256(self.file)
        self._place = choice.graph_place(self.sha256)
        self.failed = False

    def graph(self) -> Path:
        """The exported graph.

        Raises:
            ConfigError: the model cannot be exported.
        """
        if not self._place.is_file():
            log.info("exporting the model for %s; this is done once and takes about a minute", TITLES[self._engine])
            self._place.parent.mkdir(parents=True, exist_ok=True)
            export_model(Model.load(self._path, device="cpu", precision="fp32", weights=self._weights), self._place)
        return self._place

    def start(self, num_frames: int | None) -> tuple[GraphBackend | None, str]:
        """The backend, or None and why not."""
        if not self._place.is_file() and num_frames is not None and num_frames < WORTH_PREPARING:
            return None, f"the clip is short, and preparing the model for {TITLES[self._engine]} would take longer"
        try:
            place = self.graph()
            compiled = choice.cache_folder() / "compiled"
            graph, verdict = choice.same_frames(place, self._engine, self._precision, threads=self._threads, cache=compiled)
        except MissingExtraError:
            raise
        except (VidgenError, OSError, RuntimeError) as error:
            self.failed = True
            return None, str(error)
        if not verdict.passed:
            self.failed = True
            return None, f"its frames are not those of torch ({verdict.describe()})"
        return graph, verdict.describe()


def prepare(path: Path | str) -> Path:
    """The graph that backends other than torch run for a model; exported now unless it was before.

    Raises:
        ConfigError: the model cannot be exported.
    """
    prepared = _Preparation(Path(path), "auto", "onnxruntime", "fp32", None)
    return prepared.graph()


def export_model(
    model: Model, path: Path, *, form: Literal["onnx", "openvino", "pt2"] = "onnx", real: Sequence[Arrays] = ()
) -> dict[str, Any]:
    """One step of a model as a file of its own; see `vidgen.inference.export`.

    Args:
        model: on torch, on the processor, in fp32.
        real: moments of real input that the file is compared on, as `Session.build` gives them.

    Returns:
        what was written, and how far from torch it is.

    Raises:
        ConfigError: a part of it cannot be exported.
    """
    from vidgen.inference.export import export

    hashes = {"weights": model.sha256, **model.card.pretrained}
    exported = export(model.translator, model.facts, model.card.inputs, path, form=form, hashes=hashes, real=real)
    card = exported.card
    return {
        "files": [str(file) for file in exported.files.values()],
        "kind": model.kind,
        "inputs": {port.name: f"{port.dtype} {list(port.shape)}" for port in (*card.inputs, *card.noise)},
        "states": {port.name: f"{port.dtype} {list(port.shape)}" for port in card.states},
        "size_multiple": None if card.facts.fixed_size else card.facts.size_multiple,
        "difference_to_torch": card.check.difference,
        "difference_on_real_input": card.check.real_difference,
        "tolerance": card.check.tolerance,
    }


def load(
    path: Path | str,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    weights: Prefer = "auto",
    backend: BackendName = "torch",
    pretrained: Mapping[str, Path] | None = None,
) -> Model:
    """A trained model from a run folder, a checkpoint folder, a weights file or an exported graph.

    Example:
        >>> vidgen.load("runs/street").translate("labels.mkv").save("street.mp4")  # doctest: +SKIP

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16; auto takes bf16 where the processor computes it fast.
        weights: of a checkpoint: the averaged ones, the last ones, or the averaged ones where there are any.
        backend: torch, openvino, onnxruntime, or auto: OpenVINO where it is installed and gives torch's frames here.
        pretrained: see `Model.load`.

    Raises:
        CheckpointError: there are no usable weights.
        ConfigError: the device does not exist.
        MissingExtraError: the backend is not installed.
    """
    return Model.load(path, device=device, precision=precision, weights=weights, backend=backend, pretrained=pretrained)


def moments(session: Session, inputs: Inputs, decoded: Iterator[tuple[Frame, ...]] | None = None) -> Iterator[tuple[Frame, Arrays]]:
    """Each frame of the main input with its condition; `decoded` are the frames of all sources, where they are read already."""
    names = [session.main_input, *inputs.further]
    for frames in decoded or _together(inputs.sources):
        yield frames[0], session.build({**dict(zip(names, frames, strict=True)), **inputs.whole_video})


def _only_frame(where: str | Path) -> Frame:
    """The picture at `where`, or the first frame of a video there.

    Raises:
        InputError: there is none, or it is one even color too small to have a style.
    """
    frame = next(iter(open_source(where)))
    height, width = frame.pixels.shape[:2]
    if min(height, width) < _SMALLEST_STYLE:
        raise InputError(
            f"{frame.name}: is {width}x{height}; a style picture has at least {_SMALLEST_STYLE}x{_SMALLEST_STYLE} pixels"
        )
    return frame


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
            **{name: frame.name for name, frame in self.inputs.whole_video.items()},
            "smoothing": self.options.smoothing,
            **({} if self.options.class_name is None else {"class": self.options.class_name}),
            "side_by_side": side_by_side,
            "runtime": model.backend.describe(),
            "backend": model.choice.to_dict(),
            "seconds": round(seconds, 3),
            "ms_per_frame": round(1000 * seconds / max(1, num_frames), 2),
            "frames_per_second": round(num_frames / max(seconds, 1e-9), 2),
            "real_time_factor": round(num_frames / max(seconds, 1e-9) / float(main.frame_rate), 3),
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
