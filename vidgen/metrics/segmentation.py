"""Does a picture show what its label map says? A segmentation network of the user's says which class each pixel is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.errors import InputError
from vidgen.metrics.backbones import IMAGENET_DEVIATION, IMAGENET_MEAN
from vidgen.metrics.programs import Program
from vidgen.metrics.score import Score
from vidgen.metrics.temporal import Columns

NO_LABELS = "the label maps name no class that counts (every pixel is ignored)"
InputRange = Literal["unit", "signed", "imagenet"]


@dataclass(frozen=True)
class Segmenter:
    """A segmentation network.

    Attributes:
        name: for messages.
        program: gets a frame, gives scores [1,C,h,w] or class numbers [1,h,w] or [h,w].
        num_classes: of the label maps.
        classes: the label class that each of its own classes stands for; None where they are the same. Label classes that it
            does not name are not counted.
        input_range: "unit" gives it frames in 0..1, "signed" in -1..1, "imagenet" with ImageNet's mean and deviation removed.
    """

    name: str
    program: Program
    num_classes: int
    classes: Sequence[int] | None = None
    input_range: InputRange = "unit"

    def predict(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The class of each pixel of uint8 [H,W,3], int64 at `size` (height, width).

        Scores are interpolated to that size before the largest is taken; class numbers are taken from the nearest pixel.

        Raises:
            InputError: the network fails, or gives something else.
        """
        frame = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float() / 255
        if self.input_range == "signed":
            frame = frame * 2 - 1
        elif self.input_range == "imagenet":
            mean, deviation = (frame.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
            frame = (frame - mean) / deviation
        try:
            answer = _first_tensor(self.program(frame))
        except Exception as error:  # the network is the user's: it can raise anything
            text = " ".join(str(error).split())[:160]
            height, width = pixels.shape[:2]
            raise InputError(
                f"`segmenter` {self.name}: failed on a frame of {width}x{height} ({type(error).__name__}: {text})"
            ) from error
        predicted = self._classes_of(answer, size)
        if self.classes is not None:
            self._check_highest(predicted, len(self.classes), "`segmenter_classes`")
            predicted = np.asarray(self.classes)[predicted]
        self._check_highest(predicted, self.num_classes, "the label table")
        return predicted

    def _classes_of(self, answer: Tensor, size: tuple[int, int]) -> np.ndarray:
        if answer.is_floating_point() and answer.ndim == 4 and len(answer) == 1 and answer.shape[1] > 1:
            if not torch.isfinite(answer).all():
                raise InputError(f"`segmenter` {self.name}: gives scores that are not finite")
            return F.interpolate(answer.float(), size=size, mode="bilinear", align_corners=False).argmax(dim=1)[0].numpy()
        if not answer.is_floating_point() and answer.ndim >= 2 and answer.numel() == math.prod(answer.shape[-2:]):
            return (
                F.interpolate(answer.double().view(1, 1, *answer.shape[-2:]), size=size, mode="nearest-exact")[0, 0].long().numpy()
            )
        shape = f"{answer.dtype} {list(answer.shape)}"
        raise InputError(f"`segmenter` {self.name}: gives {shape}; expected scores [1,classes,h,w] or whole numbers [1,h,w]")

    def _check_highest(self, predicted: np.ndarray, count: int, what: str) -> None:
        if predicted.min() < 0 or predicted.max() >= count:
            wrong = int(predicted.max() if predicted.max() >= count else predicted.min())
            raise InputError(
                f"`segmenter` {self.name}: gives class {wrong}, but {what} knows 0..{count - 1}",
                hint="`segmenter_classes` A,B,... says which label class each of its classes stands for",
            )


def _first_tensor(answer: Any) -> Tensor:
    if isinstance(answer, Mapping):
        answer = answer["out"] if "out" in answer else next(iter(answer.values()))
    elif isinstance(answer, list | tuple):
        answer = answer[0]
    return torch.as_tensor(answer).detach().cpu()


@dataclass
class Agreement:
    """Counts of (label class, predicted class) over a video; pixels of no class are left out.

    Attributes:
        counted: label classes that count; None for all.
    """

    num_classes: int
    counted: Sequence[int] | None = None
    _counts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))

    def __post_init__(self) -> None:
        self._counts = np.zeros((self.num_classes, self.num_classes), dtype=np.int64)
        self._counts_class = np.zeros(self.num_classes, dtype=bool)
        self._counts_class[list(range(self.num_classes) if self.counted is None else self.counted)] = True

    def add(self, labels: np.ndarray, predicted: np.ndarray) -> tuple[float, int]:
        """Count a frame in: classes [H,W], -1 where the label map has none. Its accuracy, NaN where nothing counts, and pixels."""
        known = (labels >= 0) & self._counts_class[labels]
        pairs = labels[known] * self.num_classes + predicted[known]
        counts = np.bincount(pairs, minlength=self.num_classes**2).reshape(self._counts.shape)
        self._counts += counts
        total = int(counts.sum())
        return (float(np.trace(counts) / total) if total else math.nan), total

    def mean_iou(self) -> Score:
        """Mean over the classes that occur, in label maps or answers, of intersection over union, over the whole video.

        Source: Everingham et al., "The Pascal Visual Object Classes Challenge", 2015.
        """
        right = np.diagonal(self._counts)
        union = self._counts.sum(axis=0) + self._counts.sum(axis=1) - right
        occurs = union > 0
        value = float((right[occurs] / union[occurs]).mean()) if occurs.any() else math.nan
        return Score.of(value, int(occurs.sum()), reason=NO_LABELS)


def accuracy(columns: Columns, name: str) -> Score:
    """Share of right pixels over a video, from each frame's share and its counted pixels in the column `label_pixels`."""
    shares, pixels = columns[name], columns["label_pixels"]
    used = np.isfinite(shares)
    total = pixels[used].sum()
    value = float((shares[used] * pixels[used]).sum() / total) if total else math.nan
    return Score.of(value, int(used.sum()), int((~used).sum()), reason=NO_LABELS)
