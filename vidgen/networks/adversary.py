"""What learns against a generator: a discriminator with its objective, its history and its weights, one for all translators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidgen.networks.choices import CriticObjective
from vidgen.networks.image_pool import ImagePool
from vidgen.networks.losses import (
    DiscriminatorFeatures,
    feature_matching,
    gradient_penalty,
    multiscale_adversarial,
)
from vidgen.types import Losses


@dataclass(frozen=True)
class Adversary:
    """A patch, pixel or multi-scale discriminator and the losses of both sides of its game.

    It holds no weights of its own: the translator owns the discriminator (and the pool) as submodules.

    Attributes:
        discriminator: [N,C,H,W] -> the outputs of its stages, the last being the logits; for several scales a list of those,
            finest first, and then it takes `num_scales` too.
        objective: "wasserstein" adds the gradient penalty.
        pool: history of generated images (Shrivastava et al., CVPR 2017).
        prefix, suffix: of the names of the losses: `<prefix>gan<suffix>`, `<prefix>discriminator<suffix>_real`.
    """

    discriminator: nn.Module
    objective: CriticObjective = "least_squares"
    gan_weight: float = 1.0
    feature_matching_weight: float = 0.0
    penalty_weight: float = 0.0
    pool: ImagePool | None = None
    prefix: str = ""
    suffix: str = ""

    def features(self, images: Tensor, num_scales: int | None = None) -> DiscriminatorFeatures:
        """[scale][stage] outputs for images [N,C,H,W], the condition among their channels."""
        features = self.discriminator(images) if num_scales is None else self.discriminator(images, num_scales)
        return [features] if isinstance(features[0], Tensor) else features

    def generator_losses(
        self, fakes: Sequence[Tensor], real: Tensor, *, num_scales: int | None = None, factor: float = 1.0
    ) -> Losses:
        """Adversarial loss and feature matching of the generator, summed over `fakes`.

        Args:
            fakes: versions of the generated images (after and before blending, for instance), [N,C,H,W] each.
            real: the ground truth under the same condition, [N,C,H,W].
            num_scales: scales in use, where not all have grown.
            factor: on the adversarial loss.
        """
        truth = None
        if self.feature_matching_weight:
            with torch.no_grad():
                truth = self.features(real, num_scales)
        adversarial, matching = [], []
        for fake in fakes:
            features = self.features(fake, num_scales)
            adversarial.append(multiscale_adversarial(features, real=True, learner="generator", objective=self.objective))
            if truth is not None:
                matching.append(feature_matching(features, truth))
        losses = {f"{self.prefix}gan{self.suffix}": self.gan_weight * factor * torch.stack(adversarial).sum()}
        if matching:
            name = f"{self.prefix}feature_matching{self.suffix}"
            losses[name] = self.feature_matching_weight * torch.stack(matching).sum()
        return losses

    def discriminator_losses(self, fakes: Sequence[Tensor], real: Tensor, *, num_scales: int | None = None) -> Losses:
        """Half the sum of the losses on real and on generated images; the real one counts once per fake, as published.

        Gradients do not reach `fakes`.
        """
        fakes = [fake.detach() if self.pool is None else self.pool(fake) for fake in fakes]
        truth = multiscale_adversarial(
            self.features(real, num_scales), real=True, learner="discriminator", objective=self.objective
        )
        terms = [
            multiscale_adversarial(self.features(fake, num_scales), real=False, learner="discriminator", objective=self.objective)
            for fake in fakes
        ]
        name = f"{self.prefix}discriminator{self.suffix}"
        losses = {f"{name}_real": 0.5 * len(fakes) * truth, f"{name}_fake": 0.5 * torch.stack(terms).sum()}
        if self.objective == "wasserstein":
            penalties = [gradient_penalty(lambda images: self.features(images)[-1][-1], real, fake) for fake in fakes]
            losses[f"{name}_penalty"] = self.penalty_weight * torch.stack(penalties).sum()
        return losses
