"""What a session needs to know of a model, wherever its network runs; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vidgen import config
from vidgen.data.settings import ConditionSettings, Size
from vidgen.media.labels import LabelTable


@dataclass(frozen=True)
class Facts:
    """A model apart from its network.

    Attributes:
        kind: name of the translator.
        condition: how frames become its condition.
        table: meaning of the labels it reads, or None.
        size: (height, width) of the training frames.
        size_multiple: heights and widths that the network takes are multiples of this.
        num_past_frames: how many earlier frames each new one is made from; 0 for image translators.
        style_regions: what has one style each, for models with an encoder of styles.
        num_style_channels: numbers that describe a style; 0 where there is no encoder.
        fixed_size: whether the network takes frames of `size` alone.
    """

    kind: str
    condition: ConditionSettings
    table: LabelTable | None
    size: Size
    size_multiple: int
    num_past_frames: int = 0
    style_regions: Literal["instances", "labels"] = "instances"
    num_style_channels: int = 0
    fixed_size: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            **vars(self),
            "condition": self.condition.model_dump(mode="json"),
            "table": None if self.table is None else self.table.to_dict(),
            "size": list(self.size),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> Facts:
        """The reverse of `to_dict`.

        Raises:
            ConfigError: the condition is not understood.
            KeyError, TypeError, ValueError: something else is missing or of another type.
        """
        height, width = values["size"]
        read = {
            **values,
            "condition": config.from_data(values["condition"], ConditionSettings, where),
            "table": None if values["table"] is None else LabelTable.from_dict(values["table"]),
            "size": (int(height), int(width)),
        }
        return cls(**read)
