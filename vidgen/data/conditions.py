"""A model's condition: which files of a data set it is made from, and how frames become tensors.

Training and translation share this room, so that a model meets the same preparation in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from vidgen.config import Settings
from vidgen.errors import ConfigError, InputError
from vidgen.media import conditions, labels, pixels
from vidgen.media.frames import Frame, FrameSource
from vidgen.media.labels import LabelTable

if TYPE_CHECKING:
    from vidgen.types import Condition

Size = tuple[int, int]
"""(height, width) in pixels."""


class LabelSettings(Settings):
    """Label maps as a condition."""

    folder: str = "labels"
    """Under the data's root: a folder of sequences, each a folder of PNG label maps or an FFV1 video."""
    table: str | None = None
    """What the values mean: cityscapes, camvid, street, a table file, discover (every id or color that occurs), or main_colors
    (the few main colors of antialiased pictures of labels); nothing for plain ids 0..num_classes-1."""
    num_classes: Annotated[int, Field(ge=1, le=65536)] | None = None
    ignore: tuple[int, ...] = ()
    """Values that belong to no class."""

    @model_validator(mode="after")
    def _one_meaning(self) -> LabelSettings:
        if self.table is None and self.num_classes is None:
            raise ValueError("set table (cityscapes, camvid, street, discover, main_colors or a file) or num_classes")
        return self


class EdgeSettings(Settings):
    """Canny edges of the pictures as a condition."""

    low: Annotated[int, Field(ge=0, le=1000)] = 100
    high: Annotated[int, Field(ge=0, le=1000)] = 200
    blur: Annotated[float, Field(ge=0, le=20)] = 0.0
    """Standard deviation in pixels of a Gaussian that smooths the picture first."""
    drawn: Literal["apart", "over"] = "apart"
    """apart: in a channel of their own, white on black. over: in black over the pictures, and over label maps as pixels of no
    class (DeepSIM's super-primitive)."""


class ConditionSettings(Settings):
    """Everything a model reads of a frame; empty for generators that read only noise."""

    labels: LabelSettings | None = None
    pictures: tuple[str, ...] = ()
    """Folders of pictures that are read as they are (pose drawings, line art), three channels each."""
    edges: EdgeSettings | None = None
    """Edges detected in the target. Translation detects them in its input, or, where the model also reads labels or pictures,
    in the last of the other inputs."""
    instances: str | None = None
    """Folder of instance maps, of which the boundaries are read."""

    @property
    def num_picture_channels(self) -> int:
        return 3 * len(self.pictures) + (1 if self.edges and self.edges.drawn == "apart" else 0)

    @property
    def reads_picture_for_edges(self) -> bool:
        """Whether translation needs a picture only to find edges in it."""
        return self.edges is not None and (self.labels is not None or bool(self.pictures))


def label_table(settings: LabelSettings, root: Path, sources: Sequence[FrameSource]) -> LabelTable:
    """The table that `settings` name; `sources` are read only to discover one.

    Raises:
        ConfigError: the name is neither built in nor a file.
    """
    if settings.table is None:
        assert settings.num_classes is not None
        return labels.plain(settings.num_classes, settings.ignore)
    if settings.table == "discover":
        return labels.discover(sources)
    if settings.table == "main_colors":
        return labels.main_colors(sources)
    if settings.table in labels.NAMES:
        return labels.named(settings.table)
    for path in (Path(settings.table), root / settings.table):
        if path.is_file():
            return LabelTable.from_file(path)
    known = ", ".join((*labels.NAMES, "discover", "main_colors"))
    raise ConfigError(f"data.condition.labels.table: {settings.table!r} is neither a file nor one of {known}")


class ConditionBuilder:
    """Turns the frames of one moment into numpy channels at a working size, and several moments into a `Condition`.

    Args:
        table: meaning of the label values; None where the model reads no labels.
    """

    def __init__(self, settings: ConditionSettings, table: LabelTable | None) -> None:
        self.settings = settings
        self.table = table

    def build(
        self, size: Size, *, label: Frame | None, instance: Frame | None, pictures: Sequence[Frame], edge_source: Frame | None
    ) -> dict[str, np.ndarray]:
        """Arrays of one moment: "labels" int64 [H,W], "instances" int64 [H,W], "frames" float32 [C,H,W] in -1..1.

        Where the model reads nothing, "frames" has no channels.

        Raises:
            InputError: a frame is missing, has another size than its companions, or holds an unknown value.
        """
        return self.encode(self.load_layers(size, label=label, instance=instance, pictures=pictures, edge_source=edge_source))

    def load_layers(
        self, size: Size, *, label: Frame | None, instance: Frame | None, pictures: Sequence[Frame], edge_source: Frame | None
    ) -> dict[str, np.ndarray]:
        """What `encode` builds a moment from, and what may be deformed before: "labels" and "instances" as there, "pictures" uint8
        [3N,H,W], "edge_source" uint8 [3,H,W].

        Raises:
            InputError: as for `build`.
        """
        frames = [frame for frame in (label, instance, *pictures, edge_source) if frame is not None]
        for frame in frames[1:]:
            if frame.pixels.shape[:2] != frames[0].pixels.shape[:2]:
                raise InputError(
                    f"{frame.name}: is {_size_text(frame)}, but {frames[0].name} is {_size_text(frames[0])}; frames of one moment "
                    "must have equal sizes"
                )
        layers: dict[str, np.ndarray] = {}
        if self.table is not None:
            if label is None:
                raise InputError("this model reads label maps, but none were given")
            layers["labels"] = conditions.resize_labels(self.table.decode(label.pixels, label.name), size)
        if self.settings.instances is not None:
            if instance is None:
                raise InputError("this model reads instance maps, but none were given", hint="name them with --instances")
            layers["instances"] = conditions.resize_labels(_single_channel(instance), size).astype(np.int64)
        layers["pictures"] = np.concatenate([np.zeros((0, *size), np.uint8), *(_planes(picture, size) for picture in pictures)])
        if self.settings.edges is not None:
            if edge_source is None:
                raise InputError("this model reads edges, but no pictures were given to find them in")
            layers["edge_source"] = _planes(edge_source, size)
        return layers

    def encode(self, layers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of a moment from its layers: edges are detected here, and pictures brought to -1..1; others are kept."""
        arrays = {name: layer for name, layer in layers.items() if name not in ("pictures", "edge_source")}
        frames = pixels.normalize(layers["pictures"])
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
        """A batch of one: [1,T,...]."""
        import torch  # here, because translation with an exported graph does without

        from vidgen.types import Condition

        names = [name for name in ("labels", "frames", "instances") if name in moments[0]]
        return Condition(**{name: torch.from_numpy(np.stack([moment[name] for moment in moments]))[None] for name in names})


def _planes(frame: Frame, size: Size) -> np.ndarray:
    """uint8 [3,H,W] at `size`."""
    return np.ascontiguousarray(conditions.resize_picture(frame.pixels, size).transpose(2, 0, 1))


def _single_channel(frame: Frame) -> np.ndarray:
    if frame.pixels.ndim != 2:
        raise InputError(f"{frame.name}: an instance map must have one channel of whole numbers, found a color picture")
    return frame.pixels.astype(np.int64)


def _size_text(frame: Frame) -> str:
    return f"{frame.pixels.shape[1]}x{frame.pixels.shape[0]}"
