"""What a model is shown: which files of a data set make its condition, and how frames become tensors.

Training and translation share this room, so that a model meets the same preparation in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from vidgen.config import Settings
from vidgen.data import street
from vidgen.errors import ConfigError, InputError
from vidgen.media import conditions, labels
from vidgen.media.frames import Frame, FrameSource
from vidgen.media.labels import LabelTable
from vidgen.types import Condition

STREET = LabelTable(
    tuple(name for name, _ in street.CLASSES), tuple(color for _, color in street.CLASSES), tuple(range(len(street.CLASSES)))
)
"""The classes of the procedural street."""

Size = tuple[int, int]
"""(height, width) in pixels."""


class LabelSettings(Settings):
    """Label maps as a condition."""

    folder: str = "labels"
    """Under the data's root: a folder of sequences, each a folder of PNG label maps or an FFV1 video."""
    table: str | None = None
    """What the values mean: cityscapes, camvid, street, a table file, or discover; nothing for plain ids 0..num_classes-1."""
    num_classes: Annotated[int, Field(ge=1, le=65536)] | None = None
    ignore: tuple[int, ...] = ()
    """Values that belong to no class."""

    @model_validator(mode="after")
    def _one_meaning(self) -> LabelSettings:
        if self.table is None and self.num_classes is None:
            raise ValueError("set table (cityscapes, camvid, street, discover or a file) or num_classes")
        return self


class EdgeSettings(Settings):
    """Canny edges of the pictures as a condition."""

    low: Annotated[int, Field(ge=0, le=1000)] = 100
    high: Annotated[int, Field(ge=0, le=1000)] = 200


class ConditionSettings(Settings):
    """Everything a model is shown of a frame; nothing at all for generators that read only noise."""

    labels: LabelSettings | None = None
    pictures: tuple[str, ...] = ()
    """Folders of pictures that are shown as they are (pose drawings, line art), three channels each."""
    edges: EdgeSettings | None = None
    """Edges found in the target (training) or in the input (translation); one channel."""
    instances: str | None = None
    """Folder of instance maps, of which the boundaries are shown."""

    @property
    def num_picture_channels(self) -> int:
        return 3 * len(self.pictures) + (1 if self.edges else 0)


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
    if settings.table == "street":
        return STREET
    if settings.table in labels.NAMES:
        return labels.named(settings.table)
    for path in (Path(settings.table), root / settings.table):
        if path.is_file():
            return LabelTable.from_file(path)
    known = ", ".join((*labels.NAMES, "street", "discover"))
    raise ConfigError(f"data.condition.labels.table: {settings.table!r} is neither a file nor one of {known}")


class ConditionMaker:
    """Turns the frames of one moment into numpy channels at a working size, and several moments into a `Condition`.

    Args:
        table: meaning of the label values; None where the model sees no labels.
    """

    def __init__(self, settings: ConditionSettings, table: LabelTable | None) -> None:
        self.settings = settings
        self.table = table

    def moment(
        self, size: Size, *, label: Frame | None, instance: Frame | None, pictures: Sequence[Frame], edge_source: Frame | None
    ) -> dict[str, np.ndarray]:
        """Arrays of one moment: "labels" int64 [H,W], "instances" int64 [H,W], "frames" float32 [C,H,W] in -1..1.

        Where the model is shown nothing, "frames" has no channels.

        Raises:
            InputError: a frame is missing, has another size than its companions, or holds an unknown value.
        """
        given = [frame for frame in (label, instance, *pictures, edge_source) if frame is not None]
        for frame in given[1:]:
            if frame.pixels.shape[:2] != given[0].pixels.shape[:2]:
                raise InputError(
                    f"{frame.name}: is {_size_text(frame)}, but {given[0].name} is {_size_text(given[0])}; frames of one moment "
                    "must have equal sizes"
                )
        made: dict[str, np.ndarray] = {}
        if self.table is not None:
            if label is None:
                raise InputError("this model reads label maps, but none were given")
            made["labels"] = conditions.resize_labels(self.table.decode(label.pixels, label.name), size)
        if self.settings.instances is not None:
            if instance is None:
                raise InputError("this model reads instance maps, but none were given", hint="name them with --instances")
            made["instances"] = conditions.resize_labels(_single_channel(instance), size).astype(np.int64)
        channels = [_unit_range(conditions.resize_picture(picture.pixels, size)) for picture in pictures]
        if self.settings.edges is not None:
            if edge_source is None:
                raise InputError("this model reads edges, but no pictures were given to find them in")
            picture = conditions.resize_picture(edge_source.pixels, size)
            edges = conditions.canny_edges(picture, self.settings.edges.low, self.settings.edges.high)
            channels.append(edges[None].astype(np.float32) / 127.5 - 1)
        if channels:
            made["frames"] = np.concatenate(channels)
        elif self.table is None:
            made["frames"] = np.zeros((0, *size), np.float32)
        return made

    @staticmethod
    def condition(moments: Sequence[dict[str, np.ndarray]]) -> Condition:
        """A batch of one: [1,T,...]."""

        def gather(name: str) -> Tensor | None:
            if name not in moments[0]:
                return None
            return torch.from_numpy(np.stack([moment[name] for moment in moments]))[None]

        return Condition(labels=gather("labels"), frames=gather("frames"), instances=gather("instances"))


def _unit_range(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3] -> float32 [3,H,W] in -1..1."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / 127.5 - 1


def _single_channel(frame: Frame) -> np.ndarray:
    if frame.pixels.ndim != 2:
        raise InputError(f"{frame.name}: an instance map must have one channel of whole numbers, found a colour picture")
    return frame.pixels.astype(np.int64)


def _size_text(frame: Frame) -> str:
    return f"{frame.pixels.shape[1]}x{frame.pixels.shape[0]}"
