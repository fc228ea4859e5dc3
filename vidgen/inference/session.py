"""A model in use on one video: one frame in, one frame out, in memory that does not grow with the video.

Arrays are numpy's here, so that a model that runs on an exported graph loads no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from vidgen.data.conditions import WHOLE_VIDEO, ConditionBuilder
from vidgen.data.settings import ConditionSettings, Size
from vidgen.errors import InputError
from vidgen.inference.facts import Facts
from vidgen.inference.styles import StyleAssignment
from vidgen.media import conditions, pixels
from vidgen.media.frames import Frame
from vidgen.media.labels import LabelTable

Arrays = Mapping[str, np.ndarray]
"""The condition of one moment by the names of `vidgen.types.Condition`, [1,1,...] each: int64, or float32 in -1..1; what holds for
the whole video, [1,...]."""

WorkSize = Literal["auto", "input"]

_SIZE_TOLERANCE = 1.25
"""Inputs up to this factor off the training height are translated at their own size."""


class Backend(Protocol):
    """What computes a step of a translator: PyTorch, or an exported graph."""

    def step(self, arrays: Arrays, state: Any, seed: int) -> tuple[np.ndarray, Any]:
        """One moment.

        Args:
            arrays: the condition.
            state: what the step before returned; None at the start of a video.
            seed: of the noise, for models that have any.

        Returns:
            the frame float32 [3,H,W] in -1..1, and the state for the next step.
        """
        ...

    def prime(self, arrays: Arrays, frames: np.ndarray) -> Any:
        """The state of a video that begins with known `frames`, float32 [K,3,H,W], all under the same moment."""
        ...

    def describe(self) -> str:
        """Name, device and precision, for reports."""
        ...


class LoadedModel(Protocol):
    """What a session needs to know of its model."""

    facts: Facts

    def working_size(self, size: Size, work_size: WorkSize = "auto") -> Size: ...


def as_frame(value: np.ndarray | Frame, name: str) -> Frame:
    """An array of pixels as a frame without a time."""
    return value if isinstance(value, Frame) else Frame(np.ascontiguousarray(value), 0, name)


class Session:
    """A video in the making. Get one from `Model.session`; feed it frame by frame.

    Example:
        >>> session = vidgen.load("runs/street").session((256, 512), seed=1)  # doctest: +SKIP
        >>> pixels = session.step(labels)  # uint8 [256,512,3]  # doctest: +SKIP

    Attributes:
        size: (height, width) of the inputs and of the results.
        work_size: at which the network runs.
    """

    def __init__(
        self,
        model: LoadedModel,
        backend: Backend,
        size: Size,
        *,
        seed: int = 0,
        table: LabelTable | None = None,
        work_size: WorkSize = "auto",
        style: StyleAssignment | None = None,
        class_name: str | None = None,
        inverted: bool = False,
    ) -> None:
        self._model = model
        self._backend = backend
        condition = with_polarity(model.facts.condition, inverted=inverted)
        self._builder = ConditionBuilder(condition, table or model.facts.table, is_video=True)
        self._class = class_number(model.facts.condition, class_name)
        self._style = style
        self._seed = seed
        self._state: Any = None
        self._whole_video: dict[str, Frame] = {}
        self.size = size
        self.work_size = model.working_size(size, work_size)

    @property
    def main_input(self) -> str:
        """Name of the model's first input."""
        inputs = self._builder.settings.file_inputs
        return inputs[0].name if inputs else "pictures"

    def reset(self) -> None:
        """Begin another video."""
        self._state = None
        self._whole_video.clear()

    def build(self, frames: Mapping[str, Frame]) -> Arrays:
        """The condition of a moment, padded to the model's multiple; safe to call ahead of `step`.

        Args:
            frames: by the names of the model's inputs. Those that hold for the whole video, such as a style picture, are taken from
                its first moment; later ones may leave them out.

        Raises:
            InputError: an input is missing, has another size than its companions, or holds an unknown value.
        """
        for item in self._builder.settings.file_inputs:
            if not item.per_frame and item.name in frames:
                self._whole_video.setdefault(item.name, frames[item.name])
        arrays = self._builder.build(self.work_size, {**frames, **self._whole_video})
        multiple = self._model.facts.size_multiple
        whole = {name: arrays.pop(name)[None] for name in WHOLE_VIDEO if name in arrays}
        padded = {name: conditions.pad_to_multiple(array, multiple) for name, array in arrays.items()}
        if self._style is not None:
            padded["styles"] = self._style.features(*regions(padded, self._model.facts))
        if self._class is not None:
            whole["class_id"] = np.array([self._class])
        return {**{name: np.ascontiguousarray(array)[None, None] for name, array in padded.items()}, **whole}

    def step(self, main: np.ndarray | Frame | Arrays, /, **further: np.ndarray | Frame) -> np.ndarray:
        """The next frame, uint8 [H,W,3].

        Args:
            main: label map [H,W] or picture [H,W,3], uint8 or uint16, as the files hold them; or what `build` gave.
            further: likewise by the names of the model's further inputs, such as `instances`.

        Raises:
            InputError: see `build`.
        """
        arrays = main if isinstance(main, Mapping) else self.build(self._frames(main, further))
        frame, self._state = self._backend.step(arrays, self._state, self._seed)
        return fit(pixels.quantize(frame).transpose(1, 2, 0), self.work_size, self.size)

    def prime(self, main: np.ndarray | Frame | Arrays, known: Sequence[np.ndarray], /, **further: np.ndarray | Frame) -> np.ndarray:
        """Begin with known frames, uint8 [H,W,3], all taken to lie under the present moment; the last of them is returned."""
        arrays = main if isinstance(main, Mapping) else self.build(self._frames(main, further))
        multiple = self._model.facts.size_multiple
        frames = np.stack([picture_array(picture, self.work_size, multiple) for picture in known])
        self._state = self._backend.prime(arrays, frames)
        return conditions.resize_picture(known[-1], self.size)

    def _frames(self, main: np.ndarray | Frame, further: Mapping[str, np.ndarray | Frame]) -> dict[str, Frame]:
        names = [item.name for item in self._builder.settings.file_inputs]
        unknown = sorted(further.keys() - {*names[1:]})
        if unknown:
            raise InputError(f"{unknown[0]}: this model has no such further input; it reads {', '.join(names)}")
        frame = as_frame(main, "the input")
        if frame.pixels.shape[:2] != self.size:
            height, width = frame.pixels.shape[:2]
            raise InputError(f"{frame.name}: is {width}x{height}, but this session is of {self.size[1]}x{self.size[0]}")
        return {self.main_input: frame, **{name: as_frame(value, name) for name, value in further.items()}}


def class_number(condition: ConditionSettings, name: str | None) -> int | None:
    """The number of a class among those of a model; None for a model without classes.

    Raises:
        InputError: the model does not know the class, or needs one and gets none.
    """
    known = condition.classes.names if condition.classes is not None else ()
    if not known:
        if name is not None:
            raise InputError(f"class {name!r}: this model knows no classes")
        return None
    if name is None:
        raise InputError(f"this model needs a class: {', '.join(known)}", hint="name one of them with `class_name`")
    wanted = name.strip().casefold().replace(" ", "_")
    for number, one in enumerate(known):
        if one.casefold().replace(" ", "_") == wanted:
            return number
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean {near[0]}?" if near else None
    raise InputError(f"class {name!r}: this model does not know it; it knows {', '.join(known)}", hint=hint)


def with_polarity(condition: ConditionSettings, *, inverted: bool) -> ConditionSettings:
    """The condition with sketches of the other polarity.

    Raises:
        InputError: the model reads no sketches.
    """
    if not inverted:
        return condition
    if condition.sketch is None:
        raise InputError("`inverted`: this model reads no sketches")
    return condition.model_copy(update={"sketch": condition.sketch.model_copy(update={"polarity": "light"})})


def regions(moment: Arrays, facts: Facts) -> tuple[np.ndarray, np.ndarray]:
    """Classes of a moment, and the regions that have one style each: int64 [H,W] both, from arrays [H,W]."""
    labels = moment["labels"]
    return labels, labels if "instances" not in moment or facts.style_regions == "labels" else moment["instances"]


def picture_array(picture: np.ndarray, size: Size, multiple: int) -> np.ndarray:
    """uint8 [H,W,3] -> float32 [3,h,w] in -1..1 at the working size, padded to the multiple."""
    resized = conditions.resize_picture(picture, size).transpose(2, 0, 1)
    return pixels.normalize(conditions.pad_to_multiple(resized, multiple))


def working_size(size: Size, trained_size: Size, size_multiple: int, work_size: WorkSize = "auto") -> Size:
    """(height, width) at which the network runs for an input of `size`, before padding to its multiple.

    Raises:
        InputError: it is too small.
    """
    height, width = size
    factor = trained_size[0] / height
    if work_size == "auto" and not 1 / _SIZE_TOLERANCE <= factor <= _SIZE_TOLERANCE:
        height, width = round(height * factor), round(width * factor)
    if min(height, width) < size_multiple:
        raise InputError(f"the input is {size[1]}x{size[0]}; this model needs at least {size_multiple}x{size_multiple}")
    return height, width


def fit(picture: np.ndarray, work: Size, size: Size) -> np.ndarray:
    """Take the padding off uint8 [H,W,3] and resize to the output's size."""
    picture = np.ascontiguousarray(picture[: work[0], : work[1]])
    if work == size:
        return picture
    enlarges = size[0] > work[0]
    return conditions.enlarge_generated(picture, size) if enlarges else conditions.resize_picture(picture, size)
