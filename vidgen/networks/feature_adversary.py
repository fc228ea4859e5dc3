"""Likeness and texture by a pretrained network's features: the losses of both sides of the game, for frames and pairs of frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vidgen.networks.choices import Judge
from vidgen.networks.feature_discriminators import (
    FeatureDiscriminator,
    Features,
    FeatureStatistics,
    PixelDiscriminator,
    SegmentationDiscriminator,
    Variation,
    detail_loss,
    feature_loss,
    hinge_discriminator,
    hinge_generator,
    segmentation_adversarial,
    shift,
    texture_loss,
)
from vidgen.types import Losses, Output

LITE0_CHANNELS = (32, 16, 24, 40, 112, 320)
LITE0_STRIDES = (2, 2, 4, 8, 16, 32)
"""Feature maps of EfficientNet-Lite0."""

_KEY = "features"
_NUM_TEXTURE_MAPS, _NUM_LIKENESS_MAPS = 3, 5


@dataclass(frozen=True)
class FeatureWeights:
    """Weights of the losses; those that are 0 cost nothing."""

    likeness: float = 0.0
    texture: float = 0.0
    gan: float = 0.0
    detail: float = 0.0
    pair_gan: float = 0.0


@dataclass(frozen=True)
class _Side:
    """Frames, and their normalized features."""

    frames: Tensor
    features: Features

    def detach(self) -> _Side:
        """Without the way back to the generator."""
        return _Side(self.frames.detach(), [values.detach() for values in self.features])


@dataclass(frozen=True)
class _Compared:
    """The generated and the real frames of an update, seen through the same variation."""

    fake: _Side
    real: _Side
    condition: Tensor
    num_frames: int
    """Consecutive frames of each clip."""

    def detach(self) -> _Compared:
        """Without the way back to the generator."""
        return replace(self, fake=self.fake.detach())


class FeatureAdversary(nn.Module):
    """The feature loss, the texture loss and discriminators conditional on the labels: one of frames, on features unless it is told
    otherwise, and one of pairs of consecutive frames, on the features of both.

    The generator's losses compute the features once and leave them in `Output.extras`; the discriminator's read them there.

    Args:
        condition_channels: of the encoded condition.
        weights: what is used; without `gan` there is no discriminator of frames, without `pair_gan` none of pairs.
        judge: what the discriminator of frames looks at.
        num_labels: classes, whose ids are the first channel of a condition; a segmentation discriminator names them.
        head_strides: strides of the features that the discriminators' heads stand on.
        max_shift: largest random shift in pixels per update, the same for both; strided features do not print their grid then.

    Buffers:
        calibrated: whether the statistics of the training frames are known.
    """

    calibrated: Tensor

    def __init__(
        self,
        condition_channels: int,
        weights: FeatureWeights,
        *,
        judge: Judge = "features",
        num_labels: int = 0,
        head_strides: tuple[int, ...] = (4, 8),
        max_shift: int = 8,
    ) -> None:
        super().__init__()
        self.weights, self.max_shift, self.num_labels = weights, max_shift, num_labels
        self.statistics = FeatureStatistics(LITE0_CHANNELS)
        self.register_buffer("calibrated", torch.tensor(0))
        self.discriminator: FeatureDiscriminator | PixelDiscriminator | SegmentationDiscriminator | None = None
        self.pair_discriminator: FeatureDiscriminator | None = None
        self._maps = [index for index in range(1, len(LITE0_STRIDES)) if LITE0_STRIDES[index] >= min(head_strides)]
        if weights.gan and judge == "pixels":
            self.discriminator = PixelDiscriminator(condition_channels, num_labels=num_labels)
        elif weights.gan and judge == "segmentation":
            self.discriminator = SegmentationDiscriminator(num_labels)
        elif weights.gan:
            self.discriminator = self._of_features(condition_channels, head_strides)
        if weights.pair_gan:
            self.pair_discriminator = self._of_features(condition_channels, head_strides, num_frames=2)

    def _of_features(self, condition_channels: int, head_strides: tuple[int, ...], *, num_frames: int = 1) -> FeatureDiscriminator:
        channels, strides = ([values[index] for index in self._maps] for values in (LITE0_CHANNELS, LITE0_STRIDES))
        return FeatureDiscriminator(
            channels, strides, condition_channels, num_labels=self.num_labels, num_frames=num_frames, head_strides=head_strides
        )

    def calibrate(self, frames: Iterable[Tensor], backbone: nn.Module) -> None:
        """Take the statistics of features of real frames, [N,3,H,W] in -1..1 each."""
        with torch.no_grad():
            self.statistics.measure(backbone(frame) for frame in frames)
        self.calibrated.fill_(1)

    def generator_losses(
        self,
        fake: Tensor,
        real: Tensor,
        condition: Tensor,
        output: Output,
        backbone: nn.Module,
        *,
        factor: float = 1.0,
        num_alike: int | None = None,
    ) -> Losses:
        """Losses of the generator.

        Args:
            fake, real: [N,3,H,W] in -1..1.
            condition: [N,C,H,W], encoded, with ids in place of one-hot labels.
            output: whose extras carry the features to the discriminator's losses; pairs are those of its clips.
            factor: on the adversarial loss.
            num_alike: how many of the first frames have to be like the real ones; the others are for the discriminator alone.
        """
        plays = factor > 0 and self.judges(output.frames.shape[1])
        compared = self._compare(fake, real, condition, output, backbone, self._num_judged_maps if plays else _NUM_LIKENESS_MAPS)
        output.extras[_KEY] = compared.detach()
        features, truth = ([values[:num_alike] for values in side] for side in (compared.fake.features, compared.real.features))
        losses: Losses = {}
        if self.weights.likeness:
            losses["feature"] = self.weights.likeness * feature_loss(features[:_NUM_LIKENESS_MAPS], truth[:_NUM_LIKENESS_MAPS])
        if self.weights.texture:
            maps = slice(0, _NUM_TEXTURE_MAPS)
            losses["texture"] = self.weights.texture * texture_loss(features[maps], truth[maps])
        if self.weights.detail:
            losses["detail"] = self.weights.detail * detail_loss(fake[:num_alike], real[:num_alike])
        if self.discriminator is not None and plays:
            losses["feature_gan"] = self.weights.gan * factor * self._generator_loss(compared)
        if self.pair_discriminator is not None and plays and compared.num_frames > 1:
            (logits,) = self._judged_pairs(compared, compared.fake)
            losses["pair_gan"] = self.weights.pair_gan * factor * hinge_generator(logits)
        return losses

    def discriminator_losses(self, fake: Tensor, real: Tensor, condition: Tensor, output: Output, backbone: nn.Module) -> Losses:
        """Losses of the discriminators, on what the generator's losses compared where they came before; arguments as there."""
        compared: _Compared | None = output.extras.get(_KEY)
        if compared is None or len(compared.fake.features) < self._num_judged_maps:
            with torch.no_grad():
                compared = self._compare(fake, real, condition, output, backbone, self._num_judged_maps)
        losses: Losses = {}
        if self.discriminator is not None:
            losses["feature_discriminator"] = self._discriminator_loss(compared)
        if self.pair_discriminator is not None and compared.num_frames > 1:
            losses["pair_discriminator"] = hinge_discriminator(*self._judged_pairs(compared, compared.fake, compared.real))
        return losses

    def judges(self, num_frames: int) -> bool:
        """Whether there is a discriminator for clips of so many frames."""
        return self.discriminator is not None or (self.pair_discriminator is not None and num_frames > 1)

    def _generator_loss(self, compared: _Compared) -> Tensor:
        (logits,) = self._judged(compared, compared.fake)
        if isinstance(self.discriminator, SegmentationDiscriminator):
            return self._naming_loss(logits, compared, real=True)
        return hinge_generator(logits)

    def _discriminator_loss(self, compared: _Compared) -> Tensor:
        fake, real = self._judged(compared, compared.fake, compared.real)
        if isinstance(self.discriminator, SegmentationDiscriminator):
            return self._naming_loss(fake, compared, real=False) + self._naming_loss(real, compared, real=True)
        return hinge_discriminator(fake, real)

    def _judged(self, compared: _Compared, *sides: _Side) -> list[list[Tensor]]:
        """Logits of each side, per head."""
        network, count = self.discriminator, len(sides)
        assert network is not None
        condition = _joined([compared.condition] * count)
        if isinstance(network, FeatureDiscriminator):
            logits = network([[_joined([side.features[index] for side in sides]) for index in self._maps]], condition)
        else:
            frames = _joined([side.frames for side in sides])
            logits = [network(frames)] if isinstance(network, SegmentationDiscriminator) else network(frames, condition)
        return _by_side(logits, count)

    def _judged_pairs(self, compared: _Compared, *sides: _Side) -> list[list[Tensor]]:
        """Logits of all pairs of consecutive frames, under the condition of the later one; of each side, per head."""
        assert self.pair_discriminator is not None

        def clips(values: Tensor) -> Tensor:
            return values.unflatten(0, (-1, compared.num_frames))

        features = [_joined([side.features[index] for side in sides]) for index in self._maps]
        before, after = ([clips(values)[:, part].flatten(0, 1) for values in features] for part in (slice(-1), slice(1, None)))
        condition = clips(_joined([compared.condition] * len(sides)))[:, 1:].flatten(0, 1)
        logits = self.pair_discriminator([before, after], condition)
        return _by_side(logits, len(sides))

    def _naming_loss(self, logits: list[Tensor], compared: _Compared, *, real: bool) -> Tensor:
        return segmentation_adversarial(logits[0], self._labels(compared), real=real, num_labels=self.num_labels)

    def _labels(self, compared: _Compared) -> Tensor:
        """int64 [N,H,W]; -1 has no class."""
        return compared.condition[:, 0].long()

    @property
    def _num_judged_maps(self) -> int:
        on_features = self.pair_discriminator is not None or isinstance(self.discriminator, FeatureDiscriminator)
        return len(LITE0_CHANNELS) if on_features else _NUM_LIKENESS_MAPS

    def _compare(
        self, fake: Tensor, real: Tensor, condition: Tensor, output: Output, backbone: nn.Module, num_maps: int
    ) -> _Compared:
        variation = Variation.draw(len(fake), torch.default_generator, max_shift=self.max_shift)
        seen_fake, seen_real = variation(fake.float()), variation(real.float())
        with torch.no_grad():
            truth = self.statistics(backbone(seen_real, num_maps))
        features = self.statistics(backbone(seen_fake, num_maps))
        moved = shift(condition, variation.down, variation.right)
        return _Compared(_Side(seen_fake, features), _Side(seen_real, truth), moved, output.frames.shape[1])

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """What learns of the discriminators; empty where there are none."""
        networks = (network for network in (self.discriminator, self.pair_discriminator) if network is not None)
        return tuple(network.heads if isinstance(network, FeatureDiscriminator) else network for network in networks)


def _by_side(logits: list[Tensor], count: int) -> list[list[Tensor]]:
    """Logits per head of `count` sides at once -> of each side, per head."""
    return [[values.chunk(count)[place] for values in logits] for place in range(count)]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
