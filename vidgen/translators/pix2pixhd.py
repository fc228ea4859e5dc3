"""pix2pixHD: large pictures from label maps, coarse to fine, with a style for every object.

Source: Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018, and facts of the
authors' release. Where we differ on purpose: coarse-to-fine training is one run, in which every level that is trained as the
finest one has a head of its own; learning rates decay by the step; a finer level that joins learns alone first and the rest
surely joins afterwards, also in a resumed run; objects without a known style get the neutral one. Off by default as the original
does not have them: hinge and vanilla losses with logits, spectral norm, resize-convolution, L1 and edge losses.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.errors import ConfigError
from vidgen.networks import coarse_to_fine, compact, discriminators, label_convolution
from vidgen.networks.adversary import Adversary
from vidgen.networks.coarse_to_fine import CoarseToFineGenerator, FeatureEncoder
from vidgen.networks.compact import ADAM_BETAS, CompactGenerator, default_blocks, default_widths, draw_noise_shift
from vidgen.networks.discriminators import MultiscaleDiscriminator
from vidgen.networks.encoding import encode, fold_time, instance_edges
from vidgen.networks.image_pool import ImagePool
from vidgen.networks.layers import initialize
from vidgen.networks.losses import gradient_difference, perceptual
from vidgen.translators.base import Carry, Networks, Translator, compared
from vidgen.translators.settings import feature_adversary, feature_phases
from vidgen.translators.settings.pix2pixhd import Config, Discriminators, Encoder, Generator, LossWeights, inputs, pretrained
from vidgen.types import Batch, Condition, Losses, OptimizerSettings, Output, Phase, Stage, Step

__all__ = [
    "RENAMES",
    "Config",
    "Discriminators",
    "Encoder",
    "Generator",
    "LossWeights",
    "Pix2PixHD",
    "build",
    "inputs",
    "pretrained",
    "stages",
]

RENAMES = {
    "generator": coarse_to_fine.rename_generator,
    "encoder": coarse_to_fine.rename_encoder,
    "discriminator": discriminators.rename_original,
}
"""What to rename in the published files: `G` fills `generator.image`, `E` `generator.encoder`, `D` `discriminator`."""


class StyledGenerator(nn.Module):
    """The generator of pictures, and the encoder of styles that it reads, if there is one."""

    def __init__(self, image: CoarseToFineGenerator | CompactGenerator, encoder: FeatureEncoder | None) -> None:
        super().__init__()
        self.image = image
        self.encoder = encoder


class Pix2PixHD(Translator[Carry]):
    """The coarse-to-fine generator with its discriminators.

    Buffers:
        active_levels: how many generator levels have grown; a weights file alone then tells how to run it.
    """

    generator: StyledGenerator
    active_levels: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        shape, discriminating, styles = config.generator, config.discriminators, config.encoder
        encoder = None
        if styles is not None:
            encoder = FeatureEncoder(styles.num_features, styles.base_channels, styles.num_downsamplings, norm=shape.norm)
        image: CoarseToFineGenerator | CompactGenerator = _published(config) if shape.kind == "published" else _compact(config)
        self.generator = StyledGenerator(image, encoder)
        self.discriminator: MultiscaleDiscriminator | None = None
        if discriminating.patch:
            self.discriminator = MultiscaleDiscriminator(
                config.channels_per_frame + 3,
                discriminating.base_channels,
                discriminating.num_layers,
                discriminating.num_scales,
                norm=discriminating.norm,
                use_spectral_norm=discriminating.use_spectral_norm,
            )
        if styles is not None:
            self.style_regions = styles.regions
        self.pool = ImagePool(discriminating.pool_size) if discriminating.pool_size else None
        self.register_buffer("active_levels", torch.tensor(shape.num_enhancers + 1))
        halvings = shape.num_levels if shape.kind == "compact" else shape.num_downsamplings + shape.num_enhancers
        self.size_multiple = 2 ** max(halvings, styles.num_downsamplings if styles else 0)
        if isinstance(image, CompactGenerator):  # it begins with weights of its own
            for part in filter(None, (encoder, self.discriminator)):
                initialize(part)
        else:
            initialize(self)
        self.features = feature_adversary(config.features, config.channels_per_frame, config.num_labels)

    @property
    def num_active_scales(self) -> int:
        """Generator levels that have grown."""
        return int(self.active_levels)

    # -- generating pictures -------------------------------------------------------------------------------------------

    def translate(self, condition: Condition, carry: Carry | None = None) -> tuple[Output, None]:
        """Each frame by itself. With an encoder, objects have the style of `condition.styles`, or else that which they have in
        `condition.reference`, a picture of the same scene for every frame; without either they get the neutral style 0."""
        styles = self._styles(condition)
        image, num_scales = self.generator.image, self.num_active_scales
        if isinstance(image, CompactGenerator):
            encoded = _with_styles(self._encode(condition), styles)
            frames = torch.cat([image(frame).frame for frame in fold_time(encoded).split(1)])
            return Output(frames.unflatten(0, condition.main.shape[:2])), None
        first = self._first_convolution(condition, styles, num_scales)
        inputs: Tensor | None = None
        if first is None or num_scales > 1:
            inputs = _with_styles(self._encode(condition), styles).flatten(0, 1)
        pairs = zip(_each(inputs, condition), _each(first, condition), strict=True)
        frames = torch.cat([image(x, num_scales, start) for x, start in pairs])
        return Output(frames.unflatten(0, condition.main.shape[:2])), None

    def rollout(self, batch: Batch, step: Step, carry: Carry | None = None) -> tuple[Output, None]:
        """All frames at once; the encoder sees the real ones."""
        condition = batch.window_condition
        encoded = self._encode(condition)
        styles = None
        if self.generator.encoder is not None:
            styles = self._styles(condition.with_tensors(reference=batch.window_target))
        inputs = _with_styles(encoded, styles).flatten(0, 1)
        image = self.generator.image
        if isinstance(image, CompactGenerator):
            frames = image(inputs, noise_shift=draw_noise_shift()).frame
        else:
            frames = image(inputs, step.stage.num_active_scales)
        frames = frames.unflatten(0, condition.main.shape[:2])
        return Output(frames, extras={"condition": fold_time(encoded)}), None

    def _first_convolution(self, condition: Condition, styles: Tensor | None, num_scales: int) -> Tensor | None:
        """The first convolution's result by the short way, [B*T,C,H,W]; None where there is none, or the plain way is as fast."""
        assert isinstance(self.generator.image, CoarseToFineGenerator)
        first = self.generator.image.first_convolution(num_scales)
        if condition.labels is None or not label_convolution.is_faster(first, condition.labels):
            return None
        edges = instance_edges(condition.instances) if condition.instances is not None and self.config.use_instances else None
        maps = {"frames": condition.frames, "edges": edges, "styles": styles}
        flat = {name: None if value is None else value.flatten(0, 1) for name, value in maps.items()}
        return label_convolution.convolve_labels(
            first,
            condition.labels.flatten(0, 1),
            self.config.num_labels,
            before_edges=flat["frames"],
            edges=flat["edges"],
            after_edges=flat["styles"],
        )

    def styles_of(self, frames: Tensor, condition: Condition) -> Tensor:
        """The style of every object in real `frames` [B,T,3,H,W]: [B,T,num_features,H,W] in -1..1, the same all over an object.

        Raises:
            ValueError: the model has no encoder, or the condition lacks the map of its regions.
        """
        styles, encoder = self.config.encoder, self.generator.encoder
        if styles is None or encoder is None:
            raise ValueError("this model was trained without an encoder of styles")
        regions = condition.instances if styles.regions == "instances" else condition.labels
        if regions is None:
            raise ValueError(f"this model's encoder needs {styles.regions}, but the condition has none")
        features = encoder(fold_time(frames), regions.flatten(0, 1))
        return features.unflatten(0, frames.shape[:2])

    def _styles(self, condition: Condition) -> Tensor | None:
        if self.config.encoder is None:
            return None
        if condition.styles is not None:
            return condition.styles
        if condition.reference is not None:
            return self.styles_of(condition.reference, condition)
        batch, num_frames, *_ = condition.main.shape
        return torch.zeros(
            batch, num_frames, self.config.encoder.num_features, *condition.main.shape[-2:], device=condition.main.device
        )

    def _encode(self, condition: Condition) -> Tensor:
        return encode(condition, num_labels=self.config.num_labels, use_instances=self.config.use_instances)

    # -- learning -----------------------------------------------------------------------------------------------------

    def begin(self, stage: Stage) -> None:
        self.active_levels.fill_(stage.num_active_scales)

    @property
    def per_class_parameters(self) -> frozenset[str]:
        return compact.per_class_parameters(self)

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        finest_only = stage.learning == "finest"
        image = self.generator.image
        compact = isinstance(image, CompactGenerator)
        learners: list[nn.Module] = [image]
        if isinstance(image, CoarseToFineGenerator):
            learners = image.learners(stage.num_active_scales, finest_only=finest_only)
        if self.generator.encoder is not None and not finest_only:
            learners.append(self.generator.encoder)
        phases = [Phase("generator", tuple(learners), OptimizerSettings(betas=ADAM_BETAS if compact else (0.5, 0.999)))]
        if stage.adversarial == (0.0, 0.0):
            return tuple(phases)
        phases += feature_phases(self.config.features, self.features)
        if self.discriminator is not None:
            phases.append(Phase("discriminator", (self.discriminator,)))
        return tuple(phases)

    def calibrate(self, batches: Iterable[Batch], networks: Networks) -> None:
        if self.features is not None:
            frames = (fold_time(batch.target) for batch in batches)
            self.features.calibrate(frames, networks["efficientnet_lite0"])

    def losses(self, phase: Phase, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        condition: Tensor = output.extras["condition"]
        fake, real = fold_time(output.frames), fold_time(batch.window_target)
        pairs = torch.cat([condition, fake], dim=1), torch.cat([condition, real], dim=1)
        num_scales = self._num_discriminated_scales(step.stage)
        if phase.name == "discriminator":
            return self._adversary.discriminator_losses([pairs[0]], pairs[1], num_scales=num_scales)
        if phase.name == "feature_discriminator":
            assert self.features is not None
            return self.features.discriminator_losses(*compared(self.config, batch, output), output, networks["efficientnet_lite0"])
        factor = step.between(step.stage.adversarial)
        losses: Losses = {}
        if self.discriminator is not None and factor:
            losses |= self._adversary.generator_losses([pairs[0]], pairs[1], num_scales=num_scales, factor=factor)
        if self.features is not None:
            backbone = networks["efficientnet_lite0"]
            losses |= self.features.generator_losses(*compared(self.config, batch, output), output, backbone, factor=factor)
        weights = self.config.losses
        if weights.perceptual_weight:
            losses["perceptual"] = weights.perceptual_weight * perceptual(networks["vgg19"], fake, real)
        if weights.l1_weight:
            losses["l1"] = weights.l1_weight * F.l1_loss(fake, real)
        if weights.gradient_weight:
            losses["gradient"] = weights.gradient_weight * gradient_difference(fake, real)
        return losses

    @property
    def _adversary(self) -> Adversary:
        weights, objective = self.config.losses, self.config.discriminators.objective
        assert self.discriminator is not None
        return Adversary(self.discriminator, objective, weights.gan_weight, weights.feature_matching_weight, pool=self.pool)

    def _num_discriminated_scales(self, stage: Stage) -> int:
        """Fewer sizes are discriminated while levels are missing, so that the coarsest stays the same."""
        missing = self.config.generator.num_enhancers + 1 - stage.num_active_scales
        return max(1, self.config.discriminators.num_scales - missing)


def _published(config: Config) -> CoarseToFineGenerator:
    shape, styles = config.generator, config.encoder
    return CoarseToFineGenerator(
        config.channels_per_frame + (styles.num_features if styles else 0),
        shape.base_channels,
        shape.num_downsamplings,
        shape.num_blocks,
        shape.num_enhancers,
        shape.num_local_blocks,
        norm=shape.norm,
        upsampling=shape.upsampling,
        num_trained_levels=len(config.schedules),
    )


def _compact(config: Config) -> CompactGenerator:
    shape, styles = config.generator, config.encoder
    extras = config.channels_per_frame - config.num_labels + (styles.num_features if styles else 0)
    return CompactGenerator(
        config.num_labels, extras, widths=default_widths(shape.num_levels, shape.width), num_blocks=default_blocks(shape.num_levels)
    )


def build(config: Config, networks: Networks | None = None) -> Pix2PixHD:
    """An untrained model.

    Raises:
        ConfigError: it has no condition to read, or an encoder without the map of its regions.
    """
    config.check_condition()
    if config.encoder is not None:
        has_regions = config.use_instances if config.encoder.regions == "instances" else bool(config.num_labels)
        if not has_regions:
            regions = config.encoder.regions
            other = "labels" if regions == "instances" else "instances"
            raise ConfigError(
                f"model.encoder.regions: is {regions}, but data.condition.{regions} is not set; set it, or let the encoder average "
                f"over {other}"
            )
    return Pix2PixHD(config)


def _each(flat: Tensor | None, condition: Condition) -> list[Tensor | None]:
    """The frames of [B*T,...] one by one; as many times None where there are none."""
    batch, num_frames = condition.main.shape[:2]
    return [None] * (batch * num_frames) if flat is None else list(flat.split(1))


def _with_styles(encoded: Tensor, styles: Tensor | None) -> Tensor:
    return encoded if styles is None else torch.cat([encoded, styles], dim=2)


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """The published schedule as one run: the coarse level at a fraction of the size, then the next enhancer alone, then both.

    Source: section 3.1 of the paper and the release's training scripts. One stage per stretch in which nothing changes.
    """
    result = []
    num_levels = config.generator.num_enhancers + 1
    for index, schedule in enumerate(config.schedules):
        active = num_levels - len(config.schedules) + 1 + index
        finest_only = schedule.finest_only_epochs if active > 1 else 0
        for start, stop in schedule.stretches(finest_only):
            alone = start < finest_only
            result.append(
                schedule.stage(
                    f"{active} of {num_levels} levels" + ", finest level only" * alone,
                    start,
                    stop,
                    steps_per_epoch,
                    num_active_scales=active,
                    size_divisor=2 ** (num_levels - active),
                    learning="finest" if alone else "all",
                )
            )
    return tuple(result)
