"""A model's condition: which files of a data set it is made from, and how frames become tensors.

Training and translation share this room, so that a model meets the same preparation in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vidgen.data.settings import ConditionSettings, FileInput, Size
from vidgen.errors import InputError
from vidgen.media import conditions, edge_maps, labels, lines, pixels
from vidgen.media.frames import Frame
from vidgen.media.labels import LabelTable

if TYPE_CHECKING:
    from vidgen.types import Condition


WHOLE_VIDEO = ("style",)
"""Names of arrays that hold for a whole video, without a time axis and of sizes of their own."""
_NO_DRAWING = {
    "blank": ("is blank; a sketch needs strokes", None),
    "inverted": ("is light on dark, but sketches are dark on light", "give `inverted`"),
    "photo": ("looks like a photo, not like a sketch", "draw its edge map first: vidgen condition edge-map"),
}


class ConditionBuilder:
    """Turns the frames of one moment into numpy channels at a working size, and several moments into a `Condition`.

    Args:
        table: meaning of the label values; None where the model reads no labels.
        is_video: what comes is one video, so that the first drawing tells whether it is one; later ones may be blank.
    """

    def __init__(self, settings: ConditionSettings, table: LabelTable | None, *, is_video: bool = False) -> None:
        self.settings = settings
        self.table = table
        self._is_video = is_video
        self._knows_drawing = False

    def build(self, size: Size, frames: Mapping[str, Frame]) -> dict[str, np.ndarray]:
        """Arrays of one moment: "labels" int64 [H,W], "instances" int64 [H,W], "frames" float32 [C,H,W] in -1..1; and for the whole
        video "style" float32 [3,S,S] in -1..1.

        Where the model reads nothing, "frames" has no channels.

        Args:
            frames: of the moment, by the names of `ConditionSettings.file_inputs`.

        Raises:
            InputError: a frame is missing, has another size than its companions, or holds an unknown value.
        """
        return self.encode(self.load_layers(size, frames))

    def load_layers(self, size: Size, frames: Mapping[str, Frame]) -> dict[str, np.ndarray]:
        """What `encode` builds a moment from, and what may be deformed before: "labels" and "instances" as there, "pictures" uint8
        [3N,H,W], "lines" uint8 [1,H,W], "sketch" uint8 [1,H,W] (distances, 0 on strokes), "edge_source" uint8 [3,H,W]; and "style"
        uint8 [3,S,S].

        Raises:
            InputError: as for `build`.
        """
        return self._layers(size, [(item, self._frame_of(item, frames)) for item in self.settings.file_inputs])

    def load_training_layers(self, size: Size, frames: Mapping[str, Frame]) -> dict[str, np.ndarray]:
        """The same of a moment of a data set, whose inputs without a folder are found in the "target": that is uint8 [3,H,W] here,
        and instead of "lines" and "style" there is what to draw them from, "line_source" uint8 [3,h,w].

        Raises:
            InputError: as for `build`.
        """
        target = frames["target"]
        of_target = {"edges": target}
        items = [item for item in self.settings.file_inputs if item.kind not in ("lines", "style_picture")]
        layers = self._layers(size, [(item, self._frame_of(item, {**of_target, **frames})) for item in items])
        layers["target"] = _planes(target, size)
        if self.settings.lines is not None:
            whole = (target.pixels.shape[0], target.pixels.shape[1])
            layers["line_source"] = _planes(target, lines.enlarged(size, self.settings.lines.enlarge, whole))
        return layers

    def _layers(self, size: Size, read: Sequence[tuple[FileInput, Frame]]) -> dict[str, np.ndarray]:
        per_frame = [frame for item, frame in read if item.per_frame]
        for frame in per_frame[1:]:
            first = per_frame[0]
            if frame.pixels.shape[:2] != first.pixels.shape[:2]:
                raise InputError(
                    f"{frame.name}: is {_size_text(frame)}, but {first.name} is {_size_text(first)}; frames of one moment "
                    "must have equal sizes"
                )
        layers: dict[str, np.ndarray] = {}
        pictures = [np.zeros((0, *size), np.uint8)]
        for item, frame in read:
            if item.kind == "labels":
                assert self.table is not None
                layers["labels"] = conditions.resize_labels(self.table.decode(frame.pixels, frame.name), size)
            elif item.kind == "instances":
                layers["instances"] = conditions.resize_labels(labels.instance_ids(frame.pixels, frame.name), size)
            elif item.kind == "edges":
                layers["edge_source"] = _planes(frame, size)
            elif item.kind == "lines":
                layers["lines"] = lines.read(frame.pixels, size)[None]
            elif item.kind == "style_picture":
                assert self.settings.style is not None
                layers["style"] = _planes(frame, (self.settings.style.size, self.settings.style.size))
            elif item.kind == "sketch":
                layers["sketch"] = np.rint(
                    255 * cv2.resize(self._distance(frame), (size[1], size[0]), interpolation=cv2.INTER_AREA)
                )
                layers["sketch"] = layers["sketch"].astype(np.uint8)[None]
            else:
                pictures.append(_planes(frame, size))
        return {**layers, "pictures": np.concatenate(pictures)}

    @staticmethod
    def _frame_of(item: FileInput, frames: Mapping[str, Frame]) -> Frame:
        if item.name not in frames:
            raise InputError(f"this model reads {item.description}, but got none")
        return frames[item.name]

    def _distance(self, frame: Frame) -> np.ndarray:
        """Distances to the strokes of a drawing, float32 [H,W] in 0..1; 1 everywhere where a later frame of a video has none."""
        sketch = self.settings.sketch
        assert sketch is not None
        drawing = frame.pixels if sketch.polarity == "dark" else 255 - frame.pixels
        kind = edge_maps.kind_of(drawing)
        if self._is_video and self._knows_drawing:
            if kind == "blank":
                return np.ones(drawing.shape[:2], np.float32)
        elif kind != "drawing":
            message, hint = _NO_DRAWING[kind]
            raise InputError(f"{frame.name}: {message}", hint=hint)
        self._knows_drawing = True
        mask = edge_maps.strokes(drawing)
        return edge_maps.stroke_distance(mask) if mask.any() and not mask.all() else np.ones(drawing.shape[:2], np.float32)

    def encode(self, layers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of a moment from its layers: edges are detected here, and pictures brought to -1..1; others are kept."""
        apart = ("pictures", "lines", "sketch", "edge_source", "style")
        arrays = {name: layer for name, layer in layers.items() if name not in apart}
        frames = pixels.normalize(layers["pictures"])
        for name in ("lines", "sketch"):
            if name in layers:
                frames = np.concatenate([frames, pixels.normalize(layers[name])])
        if "style" in layers:
            arrays["style"] = pixels.normalize(layers["style"])
        settings = self.settings.edges
        if settings is not None:
            source = np.ascontiguousarray(layers["edge_source"].transpose(1, 2, 0))
            edges = conditions.canny_edges(source, settings.low, settings.high, settings.blur)
            if settings.drawn == "apart":
                frames = np.concatenate([frames, pixels.normalize(edges[None])])
            else:
                frames[:, edges > 0] = -1
                if "labels" in arrays:
                    arrays["labels"] = np.where(edges > 0, labels.IGNORED, arrays["labels"])
        if len(frames) or self.table is None:
            arrays["frames"] = frames
        return arrays

    @staticmethod
    def condition(moments: Sequence[dict[str, np.ndarray]]) -> Condition:
        """A batch of one: [1,T,...]; what holds for the whole video is taken from the first moment, [1,...]."""
        import torch  # here, because translation with an exported graph does without

        from vidgen.types import Condition

        names = [name for name in ("labels", "frames", "instances") if name in moments[0]]
        tensors = {name: torch.from_numpy(np.stack([moment[name] for moment in moments]))[None] for name in names}
        whole = {name: torch.from_numpy(moments[0][name])[None] for name in WHOLE_VIDEO if name in moments[0]}
        return Condition(**tensors, **whole)


def _planes(frame: Frame, size: Size) -> np.ndarray:
    """uint8 [3,H,W] at `size`."""
    return np.ascontiguousarray(conditions.resize_picture(frame.pixels, size).transpose(2, 0, 1))


def _size_text(frame: Frame) -> str:
    return f"{frame.pixels.shape[1]}x{frame.pixels.shape[0]}"
