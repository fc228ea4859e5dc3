"""A small segmentation network on frozen features, which learns from a few painted frames in seconds.

Source: the features are those of EfficientNet-Lite0 (`vidgen.networks.efficientnet`); dropping whole feature maps in training
follows Tompson et al., "Efficient Object Localization Using Convolutional Networks", CVPR 2015 (spatial dropout), here all
maps of one scale at once.
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

FORMAT = 1
BACKBONE = "efficientnet_lite0"
WORK_SIDE = 384
"""The shorter side that frames are brought to before features are taken; small ones are enlarged at most twice."""

_SIZE_MULTIPLE = 32
_MAX_ASPECT = 3
_MOST_ENLARGED = 2
_FIRST_TAP, _NUM_TAPS = 2, 6
_HIDDEN_CHANNELS = 64
_SCALES = (0.5, 0.7, 1.0, 1.0, 1.4, 1.8, 2.5)
_NUM_VIEWS = 24
_BRIGHTNESS, _CONTRAST = 0.1, 0.2
_TAP_DROPOUT = 0.25
_HALF_SHARE = 1 / 3
"""How much the answer at half the size counts."""
_LEAST_SHARE = 1e-3
_RATE, _WEIGHT_DECAY, _WARM_UP = 2e-3, 1e-3, 10
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

    Args:
        num_classes: of the painted classes alone.
        channels: of the features.
    """

    def __init__(self, num_classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(width, _HIDDEN_CHANNELS, 1, bias=not index) for index, width in enumerate(channels))
        self.middle = nn.Conv2d(_HIDDEN_CHANNELS, _HIDDEN_CHANNELS, 3, padding=1)
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

        The frame is looked at at its size and, counting less, at half of it, where what is near looks as the same thing does
        farther away: the geometric mean of both answers.
        """
        near = torch.log_softmax(self.network(features(image)), dim=1)
        height, width = (max(_SIZE_MULTIPLE, round(side / 2 / _SIZE_MULTIPLE) * _SIZE_MULTIPLE) for side in image.shape[-2:])
        half = torch.log_softmax(self.network(features(_resized(image, (height, width)))), dim=1)
        far = F.interpolate(half, size=near.shape[-2:], mode="bilinear", align_corners=False)
        return torch.softmax(torch.lerp(near, far, _HALF_SHARE), dim=1)

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
                f"{path}: has format {text.get('format')} on {text.get('backbone')}; this version reads 1 on {BACKBONE}"
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


def train_head(
    frames: Sequence[tuple[np.ndarray, np.ndarray]],
    table: LabelTable,
    features: FrameFeatures,
    *,
    seed: int = 0,
) -> TrainedHead:
    """A head from painted frames: it sees them at several sizes, mirrored, and in other light, so that it knows what comes nearer.

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
    num_steps = min(400, 180 + 20 * len(frames))
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=_WEIGHT_DECAY)
    for step in progress.follow(range(num_steps), "learning the painted frames", num_steps):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        view = views[int(generator.integers(len(views)))]
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
        top, left = int(generator.integers(tall - height + 1)), int(generator.integers(wide - width + 1))
        scaled, classes = (tensor[..., top : top + height, left : left + width] for tensor in (scaled, classes))
    if mirrored:
        scaled, classes = scaled.flip(-1), classes.flip(-1)
    gain, offset = 1 + generator.uniform(-_CONTRAST, _CONTRAST), generator.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    taps = features(((scaled + 1) * gain - 1 + offset).clamp(-1, 1))
    targets = F.interpolate(classes, size=taps[0].shape[-2:], mode="nearest-exact")[:, 0].long()
    return _View([tap.clone() for tap in taps], targets)


def _class_weights(views: Sequence[_View], num_classes: int) -> Tensor:
    counts = torch.zeros(num_classes)
    for view in views:
        counts += torch.bincount(view.targets[view.targets >= 0], minlength=num_classes).float()
    weights = (counts / counts.sum()).clamp(min=_LEAST_SHARE).rsqrt()
    return weights / weights.mean()


def describe(head: TrainedHead) -> dict[str, Any]:
    """For reports."""
    return {"classes": [head.table.names[value] for value in head.classes], "backbone": BACKBONE}
