"""Sight of frames that training never sees: how far the generated ones are from them, and which weights came closest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vidgen.data.clips import Clips
from vidgen.data.sequences import find_sequences
from vidgen.data.settings import DataSettings
from vidgen.media.labels import LabelTable
from vidgen.metrics.features import feature_distance, unit_features
from vidgen.training.loop import Trainer
from vidgen.types import Condition, Input, Pretrained
from vidgen.weights import pretrained

MAX_SEQUENCES = 4
MAX_FRAMES = 16
NETWORK = "efficientnet_lite0"


def held_out_settings(settings: DataSettings) -> DataSettings:
    """The same data, of which only the held-out frames are left."""
    return settings.model_copy(update={"frames": settings.held_out, "held_out": None, "sources": {}})


class HeldOut:
    """Held-out frames of a run, at most 16 of each of the first 4 sequences.

    Args:
        table: of the training frames.
        size_multiple: of the translator.
        networks: pretrained networks of the run; EfficientNet-Lite0 is loaded where it is not among them.
        inputs: what the translator declares.
    """

    def __init__(
        self,
        settings: DataSettings,
        table: LabelTable | None,
        *,
        size_multiple: int,
        networks: Mapping[str, nn.Module],
        inputs: tuple[Input, ...],
    ) -> None:
        left = held_out_settings(settings)
        sequences = find_sequences(left)[:MAX_SEQUENCES]
        self._clips = Clips(left, sequences, table, seed=0, size_multiple=size_multiple, flow=None)
        self._inputs = inputs
        if NETWORK in networks:
            self._backbone = networks[NETWORK]
        else:
            self._backbone = pretrained.load([Pretrained(NETWORK, "data.held_out")], {}).networks[NETWORK]

    def distance(self, trainer: Trainer) -> float:
        """Distance of generated and real frames in the features of EfficientNet-Lite0, 0 (equal) to 4.

        Every sequence starts from nothing, as in use, and by the averaged weights where there are any.
        """
        distances = []
        translator = trainer.translator
        translator.eval()
        with torch.no_grad(), trainer.averaged():
            for index in range(len(self._clips.sequences)):
                batch = self._clips.excerpt(index, 0, MAX_FRAMES, 0).map(trainer.runtime.place)
                with trainer.runtime.autocast():
                    output, _ = translator.translate(in_use(batch.condition, self._inputs, batch.target))
                pairs = zip(output.frames[0].float().split(1), batch.target[0].split(1), strict=True)
                distances += [feature_distance(*(self._features(frame) for frame in pair)) for pair in pairs]
        translator.train()
        return sum(distances) / len(distances)

    def _features(self, frame: Tensor) -> list[Tensor]:
        return unit_features(self._backbone, (frame + 1) / 2)


def in_use(condition: Condition, inputs: tuple[Input, ...], target: Tensor) -> Condition:
    """A training condition with what is read only in use: one noise; and the ground truth as reference of styles."""
    if any(item.name == "reference" for item in inputs):
        condition = condition.with_tensors(reference=target)
    if any(item.kind == "noise" for item in inputs):
        condition = condition.with_tensors(noise=torch.zeros(len(target), dtype=torch.long))
    return condition
