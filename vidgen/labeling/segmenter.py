"""A segmentation network for evaluation that needs no file: the head of painted frames, trained on real frames and their labels."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.errors import InputError
from vidgen.labeling.head import FrameFeatures, train_head, work_size
from vidgen.media.frames import open_source
from vidgen.media.labels import LabelTable
from vidgen.metrics.segmentation import Segmenter

log = logging.getLogger(__name__)

MAX_FRAMES = 12
"""Frames that it learns from, evenly spread: more teach it little."""


def train_segmenter(
    frames: str | Path, label_maps: str | Path, table: LabelTable, *, weights: Path | None = None, seed: int = 0
) -> Segmenter:
    """A network that finds the classes of `label_maps` in pictures like `frames`.

    Args:
        frames: real frames: a video or folder.
        label_maps: their label maps, as many.
        table: meaning of their values.
        weights: file of EfficientNet-Lite0; None for that of its package.

    Raises:
        InputError: they differ in number or size, or name no class.
        ConfigError: EfficientNet-Lite0 is not installed.
    """
    real, maps = open_source(frames), open_source(label_maps, kind="labels")
    count = min(real.count(), maps.count())
    if real.count() != maps.count():
        log.warning("%s has %d frames, %s %d; the first %d are paired", real.name, real.count(), maps.name, maps.count(), count)
    if real.size != maps.size:
        height, width = maps.size
        raise InputError(f"{maps.name}: is {width}x{height}, but {real.name} is {real.size[1]}x{real.size[0]}; they must be alike")
    features = FrameFeatures.load(weights)
    chosen = sorted({round(place) for place in np.linspace(0, count - 1, min(count, MAX_FRAMES))})
    pairs = []
    for index in chosen:
        (picture,), (label,) = real.read(index, index + 1), maps.read(index, index + 1)
        pairs.append((picture.pixels, table.decode(label.pixels, label.name)))
    if not any((classes >= 0).any() for _, classes in pairs):
        raise InputError(f"{maps.name}: every pixel of its maps is ignored")
    log.info("learning the classes of %s from %d frames of %s", maps.name, len(pairs), real.name)
    head = train_head(pairs, table, features, seed=seed)
    classes = torch.tensor(head.classes)

    @torch.inference_mode()
    def find(frame: Tensor) -> Tensor:
        size = frame.shape[-2:]
        image = F.interpolate(frame, size=work_size((size[0], size[1])), mode="bilinear", align_corners=False)
        shares = F.interpolate(head.probabilities(image, features), size=size, mode="bilinear", align_corners=False)
        return classes[shares.argmax(dim=1)]

    return Segmenter(f"head trained on {real.name} and {maps.name}", find, table.num_classes, input_range="signed")
