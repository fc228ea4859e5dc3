"""A small segmentation network on frozen features, which learns from a few painted frames in seconds.

Source: the features are those of EfficientNet-Lite0 (`vidgen.networks.efficientnet`); dropping whole feature maps in training
follows Tompson et al., "Efficient Object Localization Using Convolutional Networks", CVPR 2015 (spatial dropout), here all
maps of one scale at once; filtering each channel before mixing them follows Chollet, "Xception", CVPR 2017.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen import durable, progress
from vidgen.errors import CheckpointError
from vidgen.media.labels import LabelTable
from vidgen.media.pixels import normalize
from vidgen.networks.efficientnet import EfficientNetFeatures
from vidgen.types import Pretrained
from vidgen.weights import pretrained
from vidgen.weights.files import load_into, pack, read_weights

FORMAT = 2
BACKBONE = "efficientnet_lite0"
WORK_SIDE = 384
"""The shorter side that frames are brought to before features are taken; small ones are enlarged at most twice."""

_SIZE_MULTIPLE = 32
_MAX_ASPECT = 3
_MOST_ENLARGED = 2
_FIRST_TAP, _NUM_TAPS = 2, 6
_HIDDEN_CHANNELS = 96
_SCALES = (0.5, 0.7, 1.0, 1.0, 1.4, 1.8, 2.5)
_NUM_VIEWS = 24
_BRIGHTNESS, _CONTRAST = 0.1, 0.2
_TAP_DROPOUT = 0.25
_LEAST_CELLS = 6
"""Places of the deepest features along a side that a step learns at least; more where half a frame is more."""
_WINDOW, _LEAST_MEAN = 9, 1e-3
"""Places of the answer's grid over which sizes are compared; a place of the smallest size is four of them wide."""
_LEAST_SHARE = 1e-3
_RATE, _WEIGHT_DECAY, _WARM_UP = 4e-3, 1e-3, 10
_LEAST_STEPS, _FRAME_STEPS, _MOST_STEPS = 700, 20, 1000
_IGNORED = -1


def work_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which features of frames of `size` are taken: multiples of 32."""
    scale = min(WORK_SIDE / min(size), _MOST_ENLARGED)
    height, width = (
        max(_SIZE_MULTIPLE, min(round(side * scale / _SIZE_MULTIPLE) * _SIZE_MULTIPLE, WORK_SIDE * _MAX_ASPECT)) for side in size
    )
    return height, width


class FrameFeatures:
    """Features of frames at four scales, always in float32.

    Args:
        network: the backbone.
    """

    def __init__(self, network: EfficientNetFeatures) -> None:
        self.network = network
        self.channels = tuple(network.tap_channels[_FIRST_TAP:_NUM_TAPS])

    @classmethod
    def load(cls, file: Path | None = None) -> FrameFeatures:
        """From the installed package of EfficientNet-Lite0, or from `file`.

        Raises:
            ConfigError: it is not installed.
            CheckpointError: the file is another one.
        """
        declared = [Pretrained(BACKBONE, "labels from painted frames")]
        network = pretrained.load(declared, {BACKBONE: file} if file is not None else {}).networks[BACKBONE]
        assert isinstance(network, EfficientNetFeatures)
        return cls(network)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Tensor]:
        """float [1,3,H,W] in -1..1 at the work size -> features at 1/4, 1/8, 1/16 and 1/32."""
        return self.network(images)[_FIRST_TAP:]


def to_work_size(pixels: np.ndarray) -> Tensor:
    """A frame uint8 [H,W,3] as float [1,3,h,w] in -1..1 at the work size."""
    image = torch.from_numpy(normalize(np.ascontiguousarray(pixels.transpose(2, 0, 1))))[None]
    return _resized(image, work_size(pixels.shape[:2]))


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[-2:] == size:
        return image
    shrinks = size[0] < image.shape[-2] or size[1] < image.shape[-1]
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


class Head(nn.Module):
    """Features at four scales to scores of classes at 1/4 of the work size.

    The first layer is 1x1, so it is applied at each scale before the scales are brought together, which costs next to nothing.
    The second one filters each channel by itself: a step of training costs a third of what it does with a full convolution, and
    more and wider steps teach more than that takes away.

    Args:
        num_classes: of the painted classes alone.
        channels: of the features.
    """

    def __init__(self, num_classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(width, _HIDDEN_CHANNELS, 1, bias=not index) for index, width in enumerate(channels))
        self.middle = nn.Sequential(
            nn.Conv2d(_HIDDEN_CHANNELS, _HIDDEN_CHANNELS, 3, padding=1, groups=_HIDDEN_CHANNELS),
            nn.Conv2d(_HIDDEN_CHANNELS, _HIDDEN_CHANNELS, 1),
        )
        self.last = nn.Conv2d(_HIDDEN_CHANNELS, num_classes, 1)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(sum(channels)))
        self.register_buffer("deviation", torch.ones(sum(channels)))
        self._channels = list(channels)

    def standardize(self, views: Sequence[Sequence[Tensor]]) -> None:
        """Take mean and deviation of every channel from features."""
        for index, part in enumerate(self.mean.split(self._channels)):
            values = torch.cat([view[index].float().flatten(2)[0] for view in views], dim=-1)
            part.copy_(values.mean(-1))
            self.deviation.split(self._channels)[index].copy_(values.std(-1) + 1e-5)

    def forward(self, taps: Sequence[Tensor], kept: Sequence[bool] | None = None) -> Tensor:
        """Features [1,C,h,w] each, the largest first -> scores [1,num_classes,h,w].

        Args:
            kept: the scales that are looked at; the others count as their mean.
        """
        size = taps[0].shape[-2:]
        means, deviations = self.mean.split(self._channels), self.deviation.split(self._channels)
        total: Tensor | None = None
        for index, (layer, tap) in enumerate(zip(self.first, taps, strict=True)):
            plain = (tap.float() - means[index][:, None, None]) / deviations[index][:, None, None]
            if kept is not None and not kept[index]:
                plain = torch.zeros_like(plain)
            hidden = layer(plain)
            if hidden.shape[-2:] != size:
                hidden = F.interpolate(hidden, size=size, mode="bilinear", align_corners=False)
            total = hidden if total is None else total + hidden
        assert total is not None
        scores: Tensor = self.last(F.relu(self.middle(F.relu(total))))
        return scores


@dataclass(frozen=True)
class TrainedHead:
    """A head that has learned, with all that its use needs beside the backbone.

    Attributes:
        network: the head.
        classes: the class of `table` that each of its scores is for.
        table: meaning of the classes.
    """

    network: Head
    classes: tuple[int, ...]
    table: LabelTable

    @torch.inference_mode()
    def probabilities(self, image: Tensor, features: FrameFeatures) -> Tensor:
        """A frame float [1,3,H,W] in -1..1 at the work size -> [1,len(classes),H/4,W/4], which add up to 1.

        The frame is looked at at its size, at half of it and at a quarter, where what is near looks as the same thing does farther
        away. The larger answers say where things are; all of them say how much of each class there is around a place: the smallest
        one has no outlines.
        """
        large, half, small = (self._answer(image, features, divisor) for divisor in (1, 2, 4))
        # Means are arithmetic, so that a certain answer outvotes an unsure one.
        fine, total = (2 * large + half) / 3, (large + half + small) / 3
        around, around_fine = (F.avg_pool2d(part, _WINDOW, 1, _WINDOW // 2, count_include_pad=False) for part in (total, fine))
        shares = fine * (around + _LEAST_MEAN) / (around_fine + _LEAST_MEAN)
        return shares / shares.sum(1, keepdim=True)

    def _answer(self, image: Tensor, features: FrameFeatures, divisor: int) -> Tensor:
        """The answer to the frame at a smaller size, on the grid of the whole size."""
        height, width = (max(_SIZE_MULTIPLE, round(side / divisor / _SIZE_MULTIPLE) * _SIZE_MULTIPLE) for side in image.shape[-2:])
        shares = torch.softmax(self.network(features(_resized(image, (height, width)))), dim=1)
        grid = image.shape[-2] // 4, image.shape[-1] // 4
        return F.interpolate(shares, size=grid, mode="bilinear", align_corners=False)

    def save(self, path: Path) -> None:
        """Write it as safetensors; the metadata hold classes and label table."""
        durable.write_bytes(path, pack(self.network.state_dict(), self.metadata()))

    def metadata(self) -> dict[str, str]:
        """Text for the file."""
        return {
            "kind": "labeling head",
            "format": str(FORMAT),
            "backbone": BACKBONE,
            "classes": json.dumps(self.classes),
            "labels": json.dumps(self.table.to_dict()),
        }

    @staticmethod
    def load(path: Path, features: FrameFeatures) -> TrainedHead:
        """A head from its file.

        Raises:
            CheckpointError: the file is missing, damaged, or something else.
        """
        weights = read_weights(path)
        text = weights.metadata
        if text.get("kind") != "labeling head":
            raise CheckpointError(
                f"{path}: is no head that was trained on painted frames", hint="it is written beside the label maps"
            )
        if text.get("format") != str(FORMAT) or text.get("backbone") != BACKBONE:
            raise CheckpointError(
                f"{path}: has format {text.get('format')} on {text.get('backbone')}; this version reads {FORMAT} on {BACKBONE}",
                hint="label the clip anew from its painted frames, which takes seconds",
            )
        try:
            classes: tuple[int, ...] = tuple(map(int, json.loads(text["classes"])))
            table = LabelTable.from_dict(json.loads(text["labels"]))
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{path}: its classes or label table cannot be read ({error})") from error
        if not classes or not all(0 <= value < table.num_classes for value in classes):
            raise CheckpointError(f"{path}: its classes are not those of its label table")
        network = Head(len(classes), features.channels)
        load_into(network, weights.tensors, str(path))
        return TrainedHead(network.eval().requires_grad_(False), classes, table)


# --- training -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """One look at a painted frame: its features, and the class number (of the head) of each place, -1 where unpainted."""

    taps: list[Tensor]
    targets: Tensor

    def part(self, sides: tuple[int, int], generator: np.random.Generator) -> _View:
        """Some part of it, of so many places of the deepest features: from four parts more is learned than from one view."""
        whole = self.taps[-1].shape[-2:]
        height, width = (min(pair) for pair in zip(sides, whole, strict=True))
        top, left = (int(generator.integers(side - kept + 1)) for side, kept in zip(whole, (height, width), strict=True))

        def cut(tensor: Tensor) -> Tensor:
            cell = tensor.shape[-1] // whole[1]
            return tensor[..., top * cell : (top + height) * cell, left * cell : (left + width) * cell]

        return _View([cut(tap) for tap in self.taps], cut(self.targets))


def train_head(
    frames: Sequence[tuple[np.ndarray, np.ndarray]],
    table: LabelTable,
    features: FrameFeatures,
    *,
    seed: int = 0,
) -> TrainedHead:
    """A head from painted frames: it sees them at several sizes, mirrored, and in other light, so that it knows what comes nearer.
    Enlarged, it sees parts around each of the classes alike: small things would hardly be seen enlarged otherwise.

    The loss is cross-entropy, each class weighted by one over the root of its share; unpainted pixels are left out.

    Args:
        frames: pictures uint8 [H,W,3] and classes int [H,W], -1 where unpainted.
        table: meaning of the classes.
        seed: the same seed gives the same head.
    """
    classes = tuple(sorted({int(value) for _, painted in frames for value in np.unique(painted) if value >= 0}))
    generator = np.random.default_rng(seed)
    views = _views(frames, classes, features, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Head(len(classes), features.channels)
    network.standardize([view.taps for view in views])
    weights = _class_weights(views, len(classes))
    num_steps = min(_MOST_STEPS, _LEAST_STEPS + _FRAME_STEPS * (len(frames) - 1))
    frame_cells = (side // _SIZE_MULTIPLE for side in work_size(frames[0][0].shape[:2]))
    height, width = (max(_LEAST_CELLS, (side + 1) // 2) for side in frame_cells)
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=_WEIGHT_DECAY)
    for step in progress.follow(range(num_steps), "learning the painted frames", num_steps):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        view = views[int(generator.integers(len(views)))].part((height, width), generator)
        kept = [bool(generator.random() >= _TAP_DROPOUT) for _ in view.taps]
        if not any(kept):
            kept = [True] * len(kept)
        loss = F.cross_entropy(network(view.taps, kept), view.targets, weight=weights, ignore_index=_IGNORED, reduction="sum")
        loss = loss / weights[view.targets.clamp(min=0)][view.targets >= 0].sum().clamp(min=1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return TrainedHead(network.eval().requires_grad_(False), classes, table)


def _views(
    frames: Sequence[tuple[np.ndarray, np.ndarray]],
    classes: Sequence[int],
    features: FrameFeatures,
    generator: np.random.Generator,
) -> list[_View]:
    """Features of the painted frames, scaled, cropped, mirrored and relit; small enough to keep all of them."""
    numbers = np.full(max(classes) + 2, _IGNORED, np.int64)
    numbers[list(classes)] = np.arange(len(classes))
    per_frame = max(1, min(2 * len(_SCALES), round(_NUM_VIEWS / len(frames))))
    views: list[_View] = []
    for pixels, painted in frames:
        image, known = to_work_size(pixels), torch.from_numpy(numbers[painted])
        for number in range(per_frame):
            index = len(views)
            scale = 1.0 if per_frame == 1 else _SCALES[(number // 2 if per_frame == 2 * len(_SCALES) else 2 + index) % len(_SCALES)]
            views.append(_view(image, known, scale, index % 2 == 1, features, generator))
    return views


def _view(
    image: Tensor, known: Tensor, scale: float, mirrored: bool, features: FrameFeatures, generator: np.random.Generator
) -> _View:
    height, width = image.shape[-2:]
    tall, wide = (max(_SIZE_MULTIPLE, round(side * scale / _SIZE_MULTIPLE) * _SIZE_MULTIPLE) for side in (height, width))
    scaled = _resized(image, (tall, wide))
    classes = F.interpolate(known[None, None].float(), size=(tall, wide), mode="nearest-exact")
    if scale > 1:
        top, left = _place(known, (tall, wide), (height, width), generator)
        scaled, classes = (tensor[..., top : top + height, left : left + width] for tensor in (scaled, classes))
    if mirrored:
        scaled, classes = scaled.flip(-1), classes.flip(-1)
    gain, offset = 1 + generator.uniform(-_CONTRAST, _CONTRAST), generator.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    taps = features(((scaled + 1) * gain - 1 + offset).clamp(-1, 1))
    targets = F.interpolate(classes, size=taps[0].shape[-2:], mode="nearest-exact")[:, 0].long()
    return _View([tap.clone() for tap in taps], targets)


def _place(known: Tensor, whole: tuple[int, int], part: tuple[int, int], generator: np.random.Generator) -> tuple[int, int]:
    """Top and left of a part of an enlarged frame, with some pixel of some painted class in its middle half, if there is room."""
    number = int(generator.choice(torch.unique(known[known >= 0]).numpy()))
    pixels = (known == number).nonzero()
    pixel = pixels[int(generator.integers(len(pixels)))].tolist()
    corner = (
        int(np.clip(place * side / full - generator.uniform(0.25, 0.75) * kept, 0, side - kept))
        for place, full, side, kept in zip(pixel, known.shape, whole, part, strict=True)
    )
    top, left = corner
    return top, left


def _class_weights(views: Sequence[_View], num_classes: int) -> Tensor:
    counts = torch.zeros(num_classes)
    for view in views:
        counts += torch.bincount(view.targets[view.targets >= 0], minlength=num_classes).float()
    weights = (counts / counts.sum()).clamp(min=_LEAST_SHARE).rsqrt()
    return weights / weights.mean()


def describe(head: TrainedHead) -> dict[str, Any]:
    """For reports."""
    return {"classes": [head.table.names[value] for value in head.classes], "backbone": BACKBONE}
