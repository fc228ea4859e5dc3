"""pix2pixHD: large pictures from label maps, coarse to fine, with a look for every object.

Source: Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018, and facts of the
authors' release. Where we differ on purpose: coarse-to-fine training is one run, in which every level that is trained as the
finest one has a head of its own; learning rates decay by the step; a finer level that joins learns alone first and the rest
surely joins afterwards, also in a resumed run; objects without a known style get the neutral one. Off by default as the original
does not have them: hinge and vanilla losses with logits, spectral norm, resize-convolution, L1 and edge losses.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.config import Settings
from vidgen.errors import ConfigError
from vidgen.networks import coarse_to_fine, discriminators, label_convolution
from vidgen.networks.coarse_to_fine import CoarseToFineGenerator, FeatureEncoder
from vidgen.networks.discriminators import MultiscaleDiscriminator
from vidgen.networks.encoding import encode, instance_edges
from vidgen.networks.image_pool import ImagePool
from vidgen.networks.layers import NormKind, Upsampling, initialize
from vidgen.networks.losses import (
    GanObjective,
    Judgement,
    feature_matching,
    gradient_difference,
    multiscale_adversarial,
    perceptual,
)
from vidgen.translators.base import Teachers, Translator
from vidgen.types import Batch, Condition, Losses, Output, Phase, Stage

RENAMES = {
    "generator": coarse_to_fine.rename_generator,
    "encoder": coarse_to_fine.rename_encoder,
    "discriminator": discriminators.rename_original,
}
"""What to rename in the published files: `G` fills `generator.image`, `E` `generator.encoder`, `D` `discriminator`."""

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class Generator(Settings):
    """The generator's shape."""

    base_channels: Count = 64
    """Width of the global network after its first convolution; each enhancer has half of the one before."""
    num_downsamplings: Annotated[int, Field(ge=1, le=6)] = 4
    num_blocks: Count = 9
    """Residual blocks of the global network."""
    num_enhancers: Annotated[int, Field(ge=0, le=3)] = 0
    """Local enhancers, each of which doubles the size of the picture; 1 for 2048x1024."""
    num_local_blocks: Count = 3
    """Residual blocks of each enhancer."""
    norm: NormKind = "instance"
    upsampling: Upsampling = "transposed"


class Encoder(Settings):
    """The encoder of objects' looks."""

    base_channels: Count = 16
    num_downsamplings: Annotated[int, Field(ge=1, le=6)] = 4
    num_features: Count = 3
    """Numbers that describe the look of an object."""
    regions: Literal["instances", "labels"] = "instances"
    """What has one look: every object, or every class."""


class Discriminators(Settings):
    """Judges of pictures at several sizes."""

    base_channels: Count = 64
    num_layers: Count = 3
    num_scales: Count = 2
    """Picture sizes that are judged when all enhancers have joined; 3 for 2048x1024."""
    norm: NormKind = "instance"
    use_spectral_norm: bool = False
    objective: GanObjective = "least_squares"
    pool_size: Annotated[int, Field(ge=0)] = 0
    """Made pictures that are remembered and judged again later; 0 for none."""


class LossWeights(Settings):
    """Weights of the loss terms; the defaults are the published ones."""

    gan_weight: Weight = 1.0
    feature_matching_weight: Weight = 10.0
    perceptual_weight: Weight = 10.0
    """Needs `train.perceptual_weights`, the file of a pretrained VGG-19; without one set this to 0."""
    l1_weight: Weight = 0.0
    """Plain L1 to the real picture; not in the original, useful where no perceptual weights are at hand."""
    gradient_weight: Weight = 0.0
    """L1 between the Sobel gradients of the made and the real picture: edges in the same places."""


class Growth(Settings):
    """The schedule of one level; an epoch is one pass over the pictures unless `train.steps_per_epoch` says otherwise."""

    epochs: Annotated[int, Field(ge=0)] = 100
    """Epochs at the full learning rate."""
    decay_epochs: Annotated[int, Field(ge=0)] = 100
    """Epochs over which it falls to zero."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    finest_only_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start in which only the finest level learns."""


class Config(Settings):
    """A pix2pixHD model."""

    kind: Literal["pix2pixhd"] = "pix2pixhd"
    num_labels: Annotated[int, Field(ge=0)] = 0
    """Classes of the label maps; 0 where the condition is pictures."""
    condition_channels: Annotated[int, Field(ge=0)] = 0
    """Channels of condition pictures (1 for edges, 3 for each picture); 0 where it is labels."""
    use_instances: bool = False
    """Read instance maps too, as boundary edges."""
    generator: Generator = Generator()
    encoder: Encoder | None = None
    """Learn a look for every object, to choose at test; none by default."""
    discriminators: Discriminators = Discriminators()
    losses: LossWeights = LossWeights()
    growth: Annotated[tuple[Growth, ...], Field(min_length=1)] = (Growth(),)
    """One schedule per level that is grown, coarsest first; a single one trains all levels together."""

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        num_levels = self.generator.num_enhancers + 1
        if len(self.growth) > num_levels:
            raise ValueError(f"growth has {len(self.growth)} entries for {num_levels} levels (generator.num_enhancers + 1)")
        if self.generator.base_channels % 2**self.generator.num_enhancers:
            raise ValueError("generator.base_channels must be divisible by 2^num_enhancers, since each enhancer halves it")
        return self

    @property
    def channels_per_frame(self) -> int:
        return self.num_labels + self.condition_channels + int(self.use_instances)


class StyledGenerator(nn.Module):
    """The generator of pictures, and the encoder of looks that it reads, if there is one."""

    def __init__(self, image: CoarseToFineGenerator, encoder: FeatureEncoder | None) -> None:
        super().__init__()
        self.image = image
        self.encoder = encoder


class Pix2PixHD(Translator):
    """The coarse-to-fine generator with its judges.

    Buffers:
        active_levels: how many generator levels have grown; a weights file alone then tells how to run it.
    """

    generator: StyledGenerator
    active_levels: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        shape, judges, styles = config.generator, config.discriminators, config.encoder
        encoder = None
        if styles is not None:
            encoder = FeatureEncoder(styles.num_features, styles.base_channels, styles.num_downsamplings, norm=shape.norm)
        image = CoarseToFineGenerator(
            config.channels_per_frame + (styles.num_features if styles else 0),
            shape.base_channels,
            shape.num_downsamplings,
            shape.num_blocks,
            shape.num_enhancers,
            shape.num_local_blocks,
            norm=shape.norm,
            upsampling=shape.upsampling,
            num_trained_levels=len(config.growth),
        )
        self.generator = StyledGenerator(image, encoder)
        self.discriminator = MultiscaleDiscriminator(
            config.channels_per_frame + 3,
            judges.base_channels,
            judges.num_layers,
            judges.num_scales,
            norm=judges.norm,
            use_spectral_norm=judges.use_spectral_norm,
        )
        self.pool = ImagePool(judges.pool_size) if judges.pool_size else None
        self.register_buffer("active_levels", torch.tensor(shape.num_enhancers + 1))
        self.num_active_levels = shape.num_enhancers + 1
        self.register_load_state_dict_post_hook(lambda module, _: module._read_active_levels())
        self.size_multiple = 2 ** max(shape.num_downsamplings + shape.num_enhancers, styles.num_downsamplings if styles else 0)
        initialize(self)

    # -- making pictures ----------------------------------------------------------------------------------------------

    def translate(self, condition: Condition, carry: Any = None) -> tuple[Output, None]:
        """Each frame by itself. With an encoder, objects look as `condition.styles` says, or else as they do in
        `condition.reference`, a picture of the same scene for every frame; without either they get the neutral style 0."""
        styles = None if self.generator.encoder is None else self._styles(condition)
        begun = self._begun(condition, styles)
        seen: Tensor | None = None
        if begun is None or self.num_active_levels > 1:
            seen = self._encode(condition) if styles is None else torch.cat([self._encode(condition), styles], dim=2)
            seen = seen.flatten(0, 1)
        if self.training:
            made = self.generator.image(seen, self.num_active_levels)
        else:
            inputs = (_each(seen, condition), _each(begun, condition))
            made = torch.cat([self.generator.image(x, self.num_active_levels, start) for x, start in zip(*inputs, strict=True)])
        return Output(made.unflatten(0, condition.main.shape[:2])), None

    def _begun(self, condition: Condition, styles: Tensor | None) -> Tensor | None:
        """The first convolution's result by the short way, [B*T,C,H,W]; None where there is none, or the plain way is as fast."""
        first = self.generator.image.first_convolution(self.num_active_levels)
        if condition.labels is None or self.training or not label_convolution.is_faster(first, condition.labels):
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
        """The look of every object in real `frames` [B,T,3,H,W]: [B,T,num_features,H,W] in -1..1, the same all over an object.

        Raises:
            ValueError: the model has no encoder, or the condition lacks the map of its regions.
        """
        styles, encoder = self.config.encoder, self.generator.encoder
        if styles is None or encoder is None:
            raise ValueError("this model was trained without an encoder of looks")
        regions = condition.instances if styles.regions == "instances" else condition.labels
        if regions is None:
            raise ValueError(f"this model's encoder needs {styles.regions}, but the condition has none")
        features = encoder(frames.flatten(0, 1), regions.flatten(0, 1))
        return features.unflatten(0, frames.shape[:2])

    def _styles(self, condition: Condition) -> Tensor:
        assert self.config.encoder is not None
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

    def _read_active_levels(self) -> None:
        self.num_active_levels = int(self.active_levels)

    def begin(self, stage: Stage) -> None:
        self.active_levels.fill_(stage.active_scales)
        self.num_active_levels = stage.active_scales

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        finest_only = stage.learning == "finest"
        learners = self.generator.image.learners(stage.active_scales, finest_only=finest_only)
        if self.generator.encoder is not None and not finest_only:
            learners.append(self.generator.encoder)
        return Phase("generator", tuple(learners)), Phase("discriminator", (self.discriminator,))

    def shown(self, batch: Batch) -> Condition:
        if self.generator.encoder is None:
            return batch.window_condition
        return replace(batch.window_condition, reference=batch.window_target)

    def losses(self, phase: Phase, batch: Batch, output: Output, teachers: Teachers) -> Losses:
        condition = self._encode(batch.window_condition).flatten(0, 1)
        made, real = output.frames.flatten(0, 1), batch.window_target.flatten(0, 1)
        if phase.name == "generator":
            return self._generator_losses(condition, made, real, teachers)
        return self._discriminator_losses(condition, made, real)

    def _generator_losses(self, condition: Tensor, made: Tensor, real: Tensor, teachers: Teachers) -> Losses:
        weights = self.config.losses
        judgement = self._judge(torch.cat([condition, made], dim=1))
        gan = multiscale_adversarial(judgement, real=True, learner="generator", objective=self.config.discriminators.objective)
        losses = {"gan": weights.gan_weight * gan}
        if weights.feature_matching_weight:
            with torch.no_grad():
                truth = self._judge(torch.cat([condition, real], dim=1))
            losses["feature_matching"] = weights.feature_matching_weight * feature_matching(judgement, truth)
        if weights.perceptual_weight:
            if teachers.perceptual is None:
                raise ValueError("losses.perceptual_weight needs a teacher of perception")
            losses["perceptual"] = weights.perceptual_weight * perceptual(teachers.perceptual, made, real)
        if weights.l1_weight:
            losses["l1"] = weights.l1_weight * F.l1_loss(made, real)
        if weights.gradient_weight:
            losses["gradient"] = weights.gradient_weight * gradient_difference(made, real)
        return losses

    def _discriminator_losses(self, condition: Tensor, made: Tensor, real: Tensor) -> Losses:
        fake = torch.cat([condition, made.detach()], dim=1)
        judged = {True: torch.cat([condition, real], dim=1), False: fake if self.pool is None else self.pool(fake)}
        objective = self.config.discriminators.objective
        terms = {
            is_real: multiscale_adversarial(self._judge(pictures), real=is_real, learner="discriminator", objective=objective)
            for is_real, pictures in judged.items()
        }
        return {"discriminator_real": 0.5 * terms[True], "discriminator_fake": 0.5 * terms[False]}

    def _judge(self, pictures: Tensor) -> Judgement:
        """Fewer sizes are judged while levels are missing, so that the coarsest stays the same."""
        missing = self.config.generator.num_enhancers + 1 - self.num_active_levels
        judgement: Judgement = self.discriminator(pictures, max(1, self.config.discriminators.num_scales - missing))
        return judgement


def build(config: Config) -> Pix2PixHD:
    """An untrained model.

    Raises:
        ConfigError: it has no condition to read, or an encoder without the map of its regions.
    """
    if config.channels_per_frame == 0:
        raise ConfigError("model: neither num_labels nor condition_channels is set; the model needs a condition")
    if config.encoder is not None:
        has_regions = config.use_instances if config.encoder.regions == "instances" else bool(config.num_labels)
        if not has_regions:
            raise ConfigError(
                f"model.encoder.regions: is {config.encoder.regions}, but the data show none; set data.condition."
                f"{config.encoder.regions}, or let the encoder average over {_other(config.encoder.regions)}"
            )
    return Pix2PixHD(config)


def _each(flat: Tensor | None, condition: Condition) -> list[Tensor | None]:
    """The frames of [B*T,...] one by one; as many times None where there are none."""
    batch, num_frames = condition.main.shape[:2]
    return [None] * (batch * num_frames) if flat is None else list(flat.split(1))


def _other(regions: str) -> str:
    return "labels" if regions == "instances" else "instances"


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """The published schedule as one run: the coarse level at a fraction of the size, then the next enhancer alone, then both.

    Source: section 3.1 of the paper and the release's training scripts. One stage per stretch in which nothing changes.
    """
    result = []
    num_levels = config.generator.num_enhancers + 1
    for index, growth in enumerate(config.growth):
        active = num_levels - len(config.growth) + 1 + index
        total = growth.epochs + growth.decay_epochs
        finest_only = growth.finest_only_epochs if active > 1 else 0
        edges = sorted({edge for edge in (0, finest_only, growth.epochs, total) if edge <= total})
        for start, stop in itertools.pairwise(edges):
            alone = start < finest_only
            result.append(
                Stage(
                    name=f"{active} of {num_levels} levels" + ", finest level only" * alone,
                    num_steps=(stop - start) * steps_per_epoch,
                    learning_rate=growth.learning_rate * _rate_factor(growth, start),
                    final_learning_rate=growth.learning_rate * _rate_factor(growth, stop),
                    active_scales=active,
                    size_divisor=2 ** (num_levels - active),
                    learning="finest" if alone else "all",
                )
            )
    return tuple(result)


def _rate_factor(growth: Growth, epoch: int) -> float:
    return 1.0 if epoch <= growth.epochs else 1.0 - (epoch - growth.epochs) / growth.decay_epochs
