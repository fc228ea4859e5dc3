"""From one or a few painted frames to label maps of a whole clip.

A head on frozen features learns the painted frames; the painted labels also go along the motion, as far as it can be followed, and
so do the head's own answers, which steadies them. What is known from all of these is added up by weight on a small grid and brought
to the full size along the edges of the picture. Frames are read one after the other, so that memory does not grow with the clip.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.errors import InputError
from vidgen.labeling.head import FrameFeatures, TrainedHead, to_work_size, train_head, work_size
from vidgen.labeling.motion import Evidence, MotionEstimator, Step, trust
from vidgen.labeling.painted import (
    PaintedFrame,
    frame_label,
    output_table,
    present_classes,
    read_painted,
    warn_of_misfits,
)
from vidgen.labeling.parts import find_parts
from vidgen.labeling.refine import refine
from vidgen.media.frames import FOLDER_FRAME_RATE, Frame, FrameSource, open_source
from vidgen.media.labels import LabelTable

log = logging.getLogger(__name__)

_PAINT_WEIGHT, _PAINT_FADING = 20.0, 0.95
_ANSWER_FADING = 0.8
_REACH = 100
"""Frames over which a painted frame is followed backward: by then it counts no more than a fifth of the head's answer."""

_CHUNK = 16


@dataclass(frozen=True)
class LabeledFrame:
    """The label map of one frame.

    Attributes:
        index: of the frame in the clip.
        pixels: the frame itself, uint8 [H,W,3].
        classes: int64 [H,W], classes of the table.
        confidence: float32 [H,W], 0..1.
        pts, duration: as the frame's.
        flow: float32 [2,h,w], from this frame into the one before it, in pixels of its own size; None for the first of a scene.
    """

    index: int
    pixels: np.ndarray
    classes: np.ndarray
    confidence: np.ndarray
    pts: int
    duration: int | None = None
    flow: np.ndarray | None = None


@dataclass
class Labeling:
    """A clip with all that is needed to label it; see `label`.

    Attributes:
        source: the clip.
        parts: the frames of its scenes.
        painted: the painted frames by index.
        heads: the one that labels each part.
        head: the one that learned from all painted frames.
        table: meaning of the classes, and the ids that files hold.
    """

    source: FrameSource
    parts: list[range]
    painted: Mapping[int, PaintedFrame]
    heads: list[TrainedHead]
    head: TrainedHead
    table: LabelTable
    features: FrameFeatures
    _confidences: list[float] = field(default_factory=list)

    def __iter__(self) -> Iterator[LabeledFrame]:
        """Label the clip, frame by frame.

        Raises:
            InputError: a frame cannot be read.
        """
        self._confidences.clear()
        frames = enumerate(self.source)
        for part, head in zip(self.parts, self.heads, strict=True):
            labeler = _PartLabeler(self, part, head)
            for index, frame in frames:
                result = labeler.label(index, frame)
                self._confidences.append(float(result.confidence.mean()))
                yield result
                if index + 1 == part.stop and part is not self.parts[-1]:
                    break

    @property
    def confidences(self) -> list[float]:
        """Mean confidence of each frame labeled so far."""
        return list(self._confidences)

    def values(self, classes: np.ndarray) -> np.ndarray:
        """Classes as the ids that label files hold, uint8 or uint16."""
        assert self.table.values is not None
        stored = np.array(self.table.values, np.uint16 if max(self.table.values) > 255 else np.uint8)
        ids: np.ndarray = stored[classes]
        return ids

    def suggestions(self, count: int) -> list[int]:
        """Frames whose painting would help most: the least confident ones, apart from each other and from those painted.

        Raises:
            InputError: the clip was not labeled yet.
        """
        if not self._confidences:
            raise InputError(f"{self.source.name}: label the clip before asking which frames to paint")
        doubt = 1 - np.array(self._confidences)
        places = np.arange(len(doubt))
        spread = max(1.0, len(doubt) / (2 * (count + len(self.painted) + 1)))
        for index in self.painted:
            doubt = doubt * (1 - np.exp(-np.square((places - index) / spread) / 2))
        chosen: list[int] = []
        for _ in range(min(count, len(doubt) - len(self.painted))):
            best = int(doubt.argmax())
            chosen.append(best)
            doubt = doubt * (1 - np.exp(-np.square((places - best) / spread) / 2))
        return chosen

    def frame_label(self, index: int) -> str:
        """What a user calls a frame: the name of its picture, or its number."""
        return frame_label(self.source, index)

    def summary(self) -> dict[str, Any]:
        """What there is to tell, as plain values."""
        return {
            "frames": len(self._confidences),
            "painted": [self.frame_label(index) for index in sorted(self.painted)],
            "classes": [self.table.names[value] for value in self.head.classes],
            "cuts": [self.frame_label(part.start) for part in self.parts[1:]],
            "confidence": float(np.mean(self._confidences)) if self._confidences else None,
        }


def label(
    clip: str | Path,
    painted: Sequence[str | Path] = (),
    *,
    head: Path | str | None = None,
    table: LabelTable | None = None,
    weights: Path | None = None,
    start: str | None = None,
    end: str | None = None,
    frame_rate: Fraction = FOLDER_FRAME_RATE,
    seed: int = 0,
) -> Labeling:
    """Learn to label a clip from painted frames, or take a head that learned before; then iterate over the result.

    Args:
        clip: a video or folder of pictures.
        painted: label maps of some of its frames: PNG files of ids or colors; see `vidgen.labeling.painted.read_painted`.
        head: file of a head that learned from painted frames, of this clip or another one. With painted frames too, they go along
            the motion, and the head is kept as it is.
        table: meaning of their values; None for one class for every id or color that occurs.
        weights: file of EfficientNet-Lite0; None for the one of its package.
        start, end: as for `vidgen.media.frames.open_source`.

    Raises:
        InputError: the clip or a painted frame cannot be used.
        ConfigError: EfficientNet-Lite0 is not installed.
        CheckpointError: the head's file is something else.

    Example:
        >>> labeling = vidgen.label("drive.mp4", ["12.png"])  # doctest: +SKIP
        >>> for frame in labeling:  # doctest: +SKIP
        ...     print(frame.index, labeling.values(frame.classes).shape, frame.confidence.mean())
    """
    if not painted and head is None:
        raise InputError(f"{clip}: no painted frame and no head to label it with", hint="paint at least one frame")
    source = open_source(clip, start=start, end=end, frame_rate=frame_rate)
    features = FrameFeatures.load(weights)
    loaded = TrainedHead.load(Path(head), features) if head is not None else None
    if table is None and loaded is not None:
        table = loaded.table
    found, known = read_painted(painted, source, table) if painted else ([], table)
    assert known is not None
    warn_of_misfits(found, source)
    parts = find_parts(source)
    if len(parts) > 1:
        names = ", ".join(frame_label(source, part.start) for part in parts[1:])
        log.info("%s: cuts before frame %s; nothing is followed across them", source.name, names)
    by_index = {item.index: item for item in found}
    if loaded is not None:
        _check_head_knows(loaded, found)
        heads = [loaded] * len(parts)
        return Labeling(source, parts, by_index, heads, loaded, output_table(known), features)
    known = output_table(known)
    learn = _Teacher(source, known, features, seed)
    everything = learn(found)
    heads = []
    for part in parts:
        own = [item for item in found if item.index in part]
        if not own:
            log.warning(
                "%s: no frame of the scene from %s to %s is painted; it is labeled by what the others show",
                source.name,
                frame_label(source, part.start),
                frame_label(source, part.stop - 1),
            )
        heads.append(everything if not own or len(own) == len(found) else learn(own))
    return Labeling(source, parts, by_index, heads, everything, known, features)


def _check_head_knows(head: TrainedHead, painted: Sequence[PaintedFrame]) -> None:
    unknown = sorted(set(present_classes(painted)) - set(head.classes))
    if unknown:
        raise InputError(
            f"{painted[0].name}: the head has not learned {head.table.names[unknown[0]]}",
            hint="train one on these frames: leave the saved head out",
        )


@dataclass(frozen=True)
class _Teacher:
    """Trains heads on painted frames of a clip."""

    source: FrameSource
    table: LabelTable
    features: FrameFeatures
    seed: int

    def __call__(self, painted: Sequence[PaintedFrame]) -> TrainedHead:
        frames = [(self.source.read(item.index, item.index + 1)[0].pixels, item.classes) for item in painted]
        return train_head(frames, self.table, self.features, seed=self.seed)


class _PartLabeler:
    """Labels the frames of one scene, in order."""

    def __init__(self, labeling: Labeling, part: range, head: TrainedHead) -> None:
        self._labeling, self._part, self._head = labeling, part, head
        height, width = work_size(labeling.source.size)
        self._size = height // 2, width // 2
        self._motion = MotionEstimator(self._size)
        numbers = np.full(labeling.table.num_classes + 1, -1, np.int64)
        numbers[list(head.classes)] = np.arange(len(head.classes))
        self._numbers = numbers
        self._paint = Evidence.nothing(len(head.classes), self._size)
        self._answers = Evidence.nothing(len(head.classes), self._size)
        self._previous: Tensor | None = None
        self._from_behind: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._steps: dict[int, Step] = {}
        self._painted = [index for index in sorted(labeling.painted) if index in part]

    @torch.inference_mode()
    def label(self, index: int, frame: Frame) -> LabeledFrame:
        """The next frame of the scene."""
        image = to_work_size(frame.pixels)
        small = self._motion.reduced(image)
        if self._previous is not None:
            step = self._steps.pop(index - 1, None)
            flow, back = self._both(step or self._motion.between(self._previous, small))
            visible = trust(back, flow)
            self._paint = self._paint.moved(back, visible, _PAINT_FADING)
            self._answers = self._answers.moved(back, visible, _ANSWER_FADING)
            motion: np.ndarray | None = back[0].numpy()
        else:
            motion = None
        self._previous = small
        painted = self._labeling.painted.get(index)
        if painted is not None:
            self._paint = self._evidence(painted).plus(self._paint)
        self._look_back_from_next(index)
        shares = self._head.probabilities(image, self._labeling.features)
        answer = F.interpolate(shares, size=self._size, mode="bilinear", align_corners=False)
        self._answers = Evidence(answer, torch.ones(1, 1, *self._size)).plus(self._answers)
        known = self._answers.plus(self._paint)
        behind = self._from_behind.pop(index, None)
        if behind is not None:
            known = known.plus(Evidence.unpacked(behind, len(self._head.classes)))
        numbers, confidence = refine(known.shares[0].numpy(), frame.pixels)
        classes = np.array(self._head.classes, np.int64)[numbers]
        if painted is not None:
            is_painted = painted.classes >= 0
            classes = np.where(is_painted, painted.classes, classes)
            confidence = np.where(is_painted, np.float32(1), confidence)
        return LabeledFrame(index, frame.pixels, classes, confidence, frame.pts, frame.duration, motion)

    @staticmethod
    def _both(step: Step) -> tuple[Tensor, Tensor]:
        return step.forward.float(), step.backward.float()

    def _evidence(self, painted: PaintedFrame) -> Evidence:
        return Evidence.painted(self._numbers[painted.classes], len(self._head.classes), self._size, _PAINT_WEIGHT)

    def _look_back_from_next(self, index: int) -> None:
        """When the next painted frame comes within reach, follow it backward to here; keep what that says of the frames between."""
        later = next((painted for painted in self._painted if painted > index), None)
        earlier = max((painted for painted in self._painted if painted <= index), default=self._part.start - 1)
        if later is None or index != max(earlier, self._part.start, later - _REACH) or index + (index in self._painted) >= later:
            return
        evidence = self._evidence(self._labeling.painted[later])
        following: Tensor | None = None
        for stop in range(later + 1, index, -_CHUNK):
            first = max(index, stop - _CHUNK)
            chunk = [self._motion.reduced(to_work_size(frame.pixels)) for frame in self._labeling.source.read(first, stop)]
            for place, small in zip(reversed(range(first, stop)), reversed(chunk), strict=True):
                if following is not None:
                    step = self._motion.between(small, following)
                    self._steps[place] = step.packed()
                    evidence = evidence.moved(step.forward, trust(step.forward, step.backward), _PAINT_FADING)
                    if place not in self._labeling.painted:
                        self._from_behind[place] = evidence.packed()
                following = small


def overlay(pixels: np.ndarray, classes: np.ndarray, table: LabelTable, opacity: float = 0.55) -> np.ndarray:
    """A frame with its classes in color over it, uint8 [H,W,3], for people to look at."""
    return cv2.addWeighted(table.colorize(classes), opacity, pixels, 1 - opacity, 0)
