"""Conditions of a stream: each frame becomes a drawing, or a label map by a trained head, as it comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.errors import ConfigError, InputError
from vidgen.labeling.conditions import OF_PICTURES, ConditionSettings, draw_picture, draw_points, find_people
from vidgen.labeling.estimators import FETCH
from vidgen.labeling.head import FrameFeatures, TrainedHead, to_work_size, work_size
from vidgen.labeling.motion import Evidence, MotionEstimator, trust
from vidgen.labeling.refine import refine
from vidgen.labeling.steadying import PointSteadier
from vidgen.media.conditions import resize_picture
from vidgen.media.labels import LabelTable

Prepare = Callable[[np.ndarray], np.ndarray]
"""A frame uint8 [H,W,3] to what a model reads in its place."""

Size = tuple[int, int]
_FADING = 0.8
"""How much of what was known of the frame before still counts; as for clips."""


class StreamDrawer:
    """Drawings of frames: uint8 [H,W,3] to uint8 [H,W,3].

    Args:
        settings: what is drawn.
        weights: for drawings of people, the file that finds them; see `vidgen.labeling.estimators`.

    Raises:
        InputError: the drawing cannot be made of frames alone, or the file is missing.
    """

    def __init__(self, settings: ConditionSettings, weights: Path | None = None) -> None:
        if settings.kind not in OF_PICTURES and weights is None:
            raise InputError(
                f"{settings.kind}: is drawn from people, and a stream has no points",
                hint=f"give the wheel that finds them with `weights` ({FETCH})",
            )
        if settings.all_channels or settings.crop or settings.drop:
            raise InputError(f"{settings.kind}: all channels, cropping and dropping are for clips, not for a stream")
        self._settings = settings
        self._finder = None if settings.kind in OF_PICTURES or weights is None else find_people(settings, weights)
        self._steadier = None if self._finder is None or settings.steady is False else PointSteadier(steady=True)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The drawing of the next frame."""
        if self._finder is None:
            return draw_picture(pixels, self._settings)
        found = self._finder.find(pixels, "the stream")
        if self._steadier is not None:
            found = self._steadier(pixels, found)
        return draw_points(found, pixels, self._settings)[0][0]


class StreamLabeler:
    """Label maps of frames by a head that learned from painted ones: uint8 [H,W,3] to the ids of a model's files, [h,w].

    What was known of the frame before is followed along the motion, so that labels do not flicker.

    Args:
        head: its file.
        table: of the model that reads the labels; classes are matched by name.
        size: (height, width) of the frames -> that of the label maps.
        weights: of the backbone; those of the installed package by default.

    Raises:
        ConfigError: the model does not know a class of the head.
        CheckpointError: the file is no head.
    """

    def __init__(self, head: Path, table: LabelTable, size: Callable[[Size], Size], weights: Path | None = None) -> None:
        self._features = FrameFeatures.load(weights)
        self._head = TrainedHead.load(head, self._features)
        self._values = _values_of(self._head, table, head)
        self._size = size
        self._motion: MotionEstimator | None = None
        self._before: tuple[Tensor, Evidence] | None = None

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The label map of the next frame."""
        image = to_work_size(pixels)
        height, width = work_size((pixels.shape[0], pixels.shape[1]))
        size = height // 2, width // 2
        if self._motion is None or self._motion.size != size:  # the first frame, or the stream changed its size
            self._motion, self._before = MotionEstimator(size, "dis-fast"), None
        small = self._motion.reduced(image)
        answer = F.interpolate(self._head.probabilities(image, self._features), size=size, mode="bilinear", align_corners=False)
        known = Evidence(answer, torch.ones(1, 1, *size))
        if self._before is not None:
            previous, earlier = self._before
            step = self._motion.between(previous, small)
            known = known.plus(earlier.moved(step.backward, trust(step.backward, step.forward), _FADING))
        self._before = small, known
        numbers, _ = refine(known.shares[0].numpy(), resize_picture(pixels, self._size((pixels.shape[0], pixels.shape[1]))))
        ids: np.ndarray = self._values[numbers]
        return ids


def _values_of(head: TrainedHead, table: LabelTable, path: Path) -> np.ndarray:
    """For each score of the head what the files of `table` hold."""
    names = [head.table.names[value] for value in head.classes]
    unknown = next((name for name in names if name not in table.names), None)
    if unknown is not None:
        raise ConfigError(f"{path}: finds the class {unknown}, which the model does not know; it knows {', '.join(table.names)}")
    places = [table.names.index(name) for name in names]
    if table.values is None:
        return np.array([table.colors[place] for place in places], np.uint8)
    values = [table.values[place] for place in places]
    return np.array(values, np.uint16 if max(values) > 255 else np.uint8)
