"""SketchyGAN: photos of a named class from sketches, different ones from different noise.

Source: Chen and Hays, "SketchyGAN: Towards Diverse and Realistic Sketch to Image Synthesis", CVPR 2018, and facts of the authors'
release, which is another network than the paper's; `configs/sketchygan/paper.yaml` and `release.yaml` set both. Where we differ on
purpose: batch normalization keeps averages for use, the projected noise has no statistics of its own (at batch size 1 they erase
it), the head of classes has no spectral normalization, and the discriminator sees the real pictures of the generator's pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.networks.encoding import encode, fold_time
from vidgen.networks.feature_adversary import FeatureAdversary
from vidgen.networks.layers import frame_by_frame
from vidgen.networks.losses import adversarial, diversity, dragan_penalty, focal_cross_entropy, gradient_penalty, perceptual
from vidgen.networks.masked_residual import SketchDiscriminator, SketchGenerator, num_downsamplings
from vidgen.networks.noise import normal_of_video, seed_of
from vidgen.translators.base import Carry, Networks, Translator
from vidgen.translators.settings.sketchygan import (
    Config,
    Curriculum,
    Discriminator,
    Generator,
    LossWeights,
    Schedule,
    inputs,
    pretrained,
)
from vidgen.types import Batch, Condition, Losses, OptimizerSettings, Output, Phase, Stage, Step

__all__ = [
    "RENAMES",
    "Config",
    "Curriculum",
    "Discriminator",
    "Generator",
    "LossWeights",
    "Schedule",
    "SketchyGAN",
    "build",
    "inputs",
    "pretrained",
    "stages",
]

RENAMES: dict[str, object] = {}
"""The authors' weights are TensorFlow's, of a network that their present code no longer builds."""

_BETAS = (0.0, 0.9)


class SketchyGAN(Translator[Carry]):
    """The generator with its discriminators."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        shape, judge = config.generator, config.discriminator
        self.generator = SketchGenerator(
            config.channels_per_frame,
            config.num_classes,
            size=config.size,
            base_channels=shape.base_channels,
            noise_channels=shape.noise_channels,
            encoder_form=shape.encoder_form,
            decoder_form=shape.decoder_form,
            num_convs=shape.num_convs,
            norm=shape.norm,
        )
        self.discriminator = SketchDiscriminator(
            config.num_classes,
            size=config.size,
            base_channels=judge.base_channels,
            form=judge.form,
            num_convs=judge.num_convs,
            sketch_channels=config.channels_per_frame if judge.sees_sketch else 0,
            is_spectral=judge.objective == "logistic" if judge.spectral_norm is None else judge.spectral_norm,
            is_class_head_spectral=judge.class_head_spectral_norm,
            has_projection=judge.projection,
        )
        self.size_multiple = 2 * 2 ** num_downsamplings(config.size)
        self.features: FeatureAdversary | None = None
        if config.losses.feature_setting is not None:
            shift = min(8, config.size // 8)
            seen = config.channels_per_frame + config.num_classes
            self.features = FeatureAdversary(seen, config.losses.features(), max_shift=shift)

    # -- use ------------------------------------------------------------------------------------------------------------

    def translate(self, condition: Condition, carry: Carry | None = None) -> tuple[Output, None]:
        """One noise for the whole video; without a seed the mean of all noises, zero."""
        seeds = condition.tensors.get("noise")
        shape, sketch = (1, self.config.generator.noise_channels), self._encode(condition)
        noise = torch.zeros(shape) if seeds is None else normal_of_video(shape, seed_of(seeds))
        classes = _classes(condition)[:1]

        def network(frame: Tensor) -> Tensor:
            picture: Tensor = self.generator(frame, noise.to(frame), classes)
            return picture

        if len(sketch) == 1:
            return Output(frame_by_frame(network, sketch)), None
        samples = [self.translate(_sample(condition, index))[0].frames for index in range(len(sketch))]
        return Output(torch.cat(samples)), None

    def _encode(self, condition: Condition) -> Tensor:
        return encode(condition, num_labels=self.config.num_labels, use_instances=self.config.use_instances)

    # -- training -------------------------------------------------------------------------------------------------------

    def calibrate(self, batches: Iterable[Batch], networks: Networks) -> None:
        if self.features is not None:
            frames = (self._enlarged(fold_time(batch.target)) for batch in batches)
            self.features.calibrate(frames, networks["efficientnet_lite0"])

    def rollout(self, batch: Batch, step: Step, carry: Carry | None = None) -> tuple[Output, None]:
        """Pictures from two noises each, where their difference counts."""
        condition = batch.window_condition
        sketch, num_frames = fold_time(self._encode(condition)), condition.num_frames
        classes = _classes(condition).repeat_interleave(num_frames)
        count = 2 if self.config.losses.diversity_weight else 1
        noises = torch.randn(count * len(sketch), self.config.generator.noise_channels, device=sketch.device)
        pictures = self.generator(sketch.repeat(count, 1, 1, 1), noises, classes.repeat(count))
        extras = {"sketch": sketch, "classes": classes}
        if count == 2:
            (first, second), (one, other) = pictures.chunk(2), noises.chunk(2)
            if self.config.losses.likeness_of == "nearest":
                first, second = _nearest_first(first, second, fold_time(batch.window_target))
            pictures, extras = first, {**extras, "second": second, "noise_distance": (one - other).norm(dim=1)}
        return Output(pictures.unflatten(0, (-1, num_frames)), extras=extras), None

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        judge = OptimizerSettings(learning_rate_scale=2.0, betas=_BETAS)
        phases = [
            Phase("discriminator", (self.discriminator,), judge),
            Phase("generator", (self.generator,), OptimizerSettings(betas=_BETAS)),
        ]
        if self.features is not None and self.features.heads:
            phases.append(Phase("feature_discriminator", self.features.heads, OptimizerSettings(betas=_BETAS)))
        return tuple(phases)

    def losses(self, phase: Phase, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        fake, real = fold_time(output.frames), fold_time(batch.window_target)
        sketch, classes = output.extras["sketch"], output.extras["classes"]
        if self._both_are_judged:
            fake, real, sketch, classes = _both(fake, real, sketch, classes, output)
        if phase.name == "discriminator":
            return self._discriminator_losses(fake.detach(), real, sketch, classes)
        if phase.name == "feature_discriminator":
            assert self.features is not None
            network = networks["efficientnet_lite0"]
            pictures = self._enlarged(fake).detach(), self._enlarged(real), self._shown(sketch, classes)
            return self.features.discriminator_losses(*pictures, output, network)
        return self._generator_losses(fake, real, sketch, classes, output, networks)

    def _discriminator_losses(self, fake: Tensor, real: Tensor, sketch: Tensor, classes: Tensor) -> Losses:
        weights, settings = self.config.losses, self.config.discriminator
        seen = sketch if settings.sees_sketch else None
        objective: Literal["vanilla", "wasserstein"] = "wasserstein" if settings.objective == "wasserstein" else "vanilla"
        real_logits, class_logits = self.discriminator(real, classes, seen)
        fake_logits, _ = self.discriminator(fake, classes, seen)
        losses = {
            f"discriminator_{name}": weights.gan_weight
            * adversarial(logits, real=name == "real", learner="discriminator", objective=objective)
            for name, logits in (("real", real_logits), ("fake", fake_logits))
        }
        if class_logits is not None:
            losses["class"] = weights.class_weight * focal_cross_entropy(class_logits, classes, weights.focal_gamma)

        def critic(pictures: Tensor) -> Tensor:
            """The mean judgment of each picture."""
            logits, _ = self.discriminator(pictures, classes, seen)
            judgment: Tensor = logits.mean((1, 2, 3))
            return judgment

        if settings.objective == "dragan":
            penalty = dragan_penalty(critic, real, is_one_sided=settings.one_sided_penalty)
            losses["discriminator_penalty"] = weights.gradient_penalty_weight * penalty
        elif settings.objective == "wasserstein":
            losses["discriminator_penalty"] = weights.gradient_penalty_weight * gradient_penalty(critic, real, fake)
        return losses | self._decay(self.discriminator, "discriminator_decay")

    def _generator_losses(
        self, fake: Tensor, real: Tensor, sketch: Tensor, classes: Tensor, output: Output, networks: Networks
    ) -> Losses:
        weights, settings = self.config.losses, self.config.discriminator
        num_alike = output.frames.shape[0] * output.frames.shape[1]
        objective: Literal["vanilla", "wasserstein"] = "wasserstein" if settings.objective == "wasserstein" else "vanilla"
        logits, class_logits = self.discriminator(fake, classes, sketch if settings.sees_sketch else None)
        losses = {"gan": weights.gan_weight * adversarial(logits, real=True, learner="generator", objective=objective)}
        if class_logits is not None and weights.generated_class_weight:
            losses["generated_class"] = weights.generated_class_weight * focal_cross_entropy(class_logits, classes)
        if weights.l1_weight:
            losses["l1"] = weights.l1_weight * F.l1_loss(fake[:num_alike].float(), real[:num_alike])
        if self.features is not None:
            pictures = self._enlarged(fake), self._enlarged(real), self._shown(sketch, classes)
            found = self.features.generator_losses(*pictures, output, networks["efficientnet_lite0"], num_alike=num_alike)
            losses |= {"perceptual" if name == "feature" else name: value for name, value in found.items()}
        if weights.perceptual_network == "vgg19" and weights.perceptual_weight:
            likeness = perceptual(networks["vgg19"], self._enlarged(fake[:num_alike]), self._enlarged(real[:num_alike]))
            losses["perceptual"] = weights.perceptual_weight * likeness
        if "second" in output.extras:
            apart = diversity(fake[:num_alike], output.extras["second"], output.extras["noise_distance"], weights.diversity_cap)
            losses["diversity"] = weights.diversity_weight * apart
        return losses | self._decay(self.generator, "decay")

    @property
    def _both_are_judged(self) -> bool:
        """Whether the second picture of a sketch, which has to be like no real one, is shown to the discriminators too."""
        return bool(self.config.losses.diversity_weight) and self.config.losses.likeness_of == "nearest"

    def _decay(self, network: torch.nn.Module, name: str) -> Losses:
        weight = self.config.losses.decay_weight
        if not weight:
            return {}
        squares = [value.square().sum() for value in network.parameters() if value.ndim == 4]
        return {name: weight * 0.5 * torch.stack(squares).sum()}

    def _shown(self, sketch: Tensor, classes: Tensor) -> Tensor:
        """What the discriminator on features knows of a picture: the sketch, and the class as a plane of ones."""
        sketch = self._enlarged(sketch)
        if not self.config.num_classes:
            return sketch
        named = F.one_hot(classes, self.config.num_classes).to(sketch.dtype)[:, :, None, None]
        return torch.cat([sketch, named.expand(-1, -1, *sketch.shape[-2:])], 1)

    def _enlarged(self, pictures: Tensor) -> Tensor:
        size = self.config.losses.perceptual_size
        if size is None or size <= pictures.shape[-2]:
            return pictures
        factor = size / pictures.shape[-2]
        return F.interpolate(pictures, scale_factor=factor, mode="bilinear", align_corners=False)


def _classes(condition: Condition) -> Tensor:
    """int64 [B]; zeros where there are none."""
    found = condition.tensors.get("class_id")
    return torch.zeros(len(condition.main), dtype=torch.long, device=condition.main.device) if found is None else found


def _nearest_first(first: Tensor, second: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The two pictures of every sketch, [N,3,H,W], that whose coarse colors are nearer to the real one's first."""
    with torch.no_grad():
        places = [F.adaptive_avg_pool2d(pictures.float(), 8) for pictures in (first, second, real)]
        distances = [(side - places[2]).abs().mean((1, 2, 3)) for side in places[:2]]
        swapped = (distances[1] < distances[0])[:, None, None, None]
    return torch.where(swapped, second, first), torch.where(swapped, first, second)


def _both(fake: Tensor, real: Tensor, sketch: Tensor, classes: Tensor, output: Output) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fake and real pictures, sketches and classes, [N,...] each, as [2N,...] where the second pictures count too."""
    second: Tensor = output.extras["second"]
    return torch.cat([fake, second]), real.repeat(2, 1, 1, 1), sketch.repeat(2, 1, 1, 1), classes.repeat(2)


def _sample(condition: Condition, index: int) -> Condition:
    return condition.map(lambda value: value[index : index + 1])


def build(config: Config, networks: Networks | None = None) -> SketchyGAN:
    """An untrained model.

    Raises:
        ConfigError: it has no condition to read.
    """
    config.check_condition()
    return SketchyGAN(config)


def stages(config: Config, steps_per_epoch: int) -> tuple[Stage, ...]:
    """One training, cut where the learning rate or the share of sketches stops to change, or bends."""
    schedule, curriculum = config.schedule, config.schedule.curriculum
    total = schedule.epochs * steps_per_epoch
    slope, least = schedule.decay_slope, schedule.final_rate_share
    ends = {0.0, 1.0, min(1.0, (1 - least) / slope) if slope else 1.0}
    if curriculum is not None:
        ends |= {curriculum.end * part / curriculum.num_pieces for part in range(1, curriculum.num_pieces + 1)}
    places = sorted({round(end * total) for end in ends})
    found = []
    for start, stop in itertools.pairwise(places):
        first, last = (schedule.learning_rate * max(least, 1 - slope * place / total) for place in (start, stop))
        mixture = (
            {} if curriculum is None else {curriculum.source: (curriculum.share(start / total), curriculum.share(stop / total))}
        )
        name = "constant rate" if first == last else "falling rate"
        found.append(Stage(name, stop - start, learning_rate=first, final_learning_rate=last, mixture=mixture))
    return tuple(found)
