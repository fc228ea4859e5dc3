"""The discriminator of style2paints V1, which says which style a picture has, and the losses of both sides of its game.

Source: Zhang et al., "Style Transfer for Anime Sketches with Enhanced Residual U-net and Auxiliary Classifier GAN", ACPR 2017,
equations 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks.choices import NormKind
from vidgen.networks.losses import adversarial
from vidgen.networks.style_unet import Conv, initialize_he
from vidgen.types import Losses

StyleObjective = Literal["bce", "mse", "literal"]
_FLOOR = 0.1
_EPSILON = 1e-6


class StyleDiscriminator(nn.Module):
    """Says of a picture alone, without the drawing, which style hint it has: one logit for each number of the hint.

    Stacked 4x4 convolutions of stride 2 as in DCGAN, the mean over all places, and a linear layer.

    Args:
        num_styles: numbers of a hint (4096 in the paper); 0 for no such head.
        has_realness: a second head of one logit, real or generated, for the alternation with the plain objective of DCGAN.
    """

    def __init__(
        self, num_styles: int, *, base_channels: int = 64, num_layers: int = 4, norm: NormKind = "none", has_realness: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for layer in range(num_layers):
            width = base_channels * 2 ** min(layer, 3)
            layers.append(Conv(before, width, halves=True, norm=norm if layer else "none"))
            before = width
        self.layers = nn.Sequential(*layers)
        self.styles = nn.Linear(before, num_styles) if num_styles else None
        self.realness = nn.Linear(before, 1) if has_realness else None
        initialize_he(self)

    def forward(self, pictures: Tensor, *, realness: bool = False) -> Tensor:
        """[N,3,H,W] in -1..1 -> float32 logits [N,num_styles], or [N,1] of whether it is real."""
        head = self.realness if realness else self.styles
        if head is None:
            raise ValueError(f"this discriminator has no head for {'realness' if realness else 'styles'}")
        features = self.layers(pictures).mean((-2, -1))
        logits: Tensor = head(features)
        return logits.float()


def soft_targets(hints: Tensor) -> Tensor:
    """What a discriminator is to say of pictures with these normalized hints [N,K]: 0.1 to 0.9, since 0 means generated."""
    return _FLOOR + (1 - 2 * _FLOOR) * torch.sigmoid(hints)


@dataclass(frozen=True)
class StyleAdversary:
    """The discriminator of styles and the losses of both sides; it holds no weights of its own.

    Attributes:
        objective: "bce", binary cross-entropy with the style as soft target, 0 for generated pictures; "mse", squares in its place;
            "literal", equation 3 as printed, log(D + 1 - V) + log(1 - D(G)), whose first term rises with D whatever V is, so that
            the style is lost.
        matches: the generator is to reach the soft target of the wanted style, rather than to raise all outputs.
        gan_weight: of the generator's loss.
    """

    discriminator: StyleDiscriminator
    objective: StyleObjective = "bce"
    matches: bool = True
    gan_weight: float = 1.0

    def generator_losses(self, fake: Tensor, target: Tensor, *, realness: bool = False, factor: float = 1.0) -> Losses:
        """Loss of the generator.

        Args:
            fake: [N,3,H,W].
            target: soft targets [N,K] of the wanted styles.
            realness: play the plain game of equation 4 in this step.
        """
        logits = self.discriminator(fake, realness=realness)
        if realness:
            loss = adversarial(logits, real=True, learner="generator", objective="vanilla")
        else:
            wanted = target if self.matches else torch.ones_like(target)
            if self.objective == "mse":
                loss = F.mse_loss(logits, wanted)
            else:  # non-saturating: -log D rather than log(1 - D)
                loss = F.binary_cross_entropy_with_logits(logits, wanted)
        return {"gan": self.gan_weight * factor * loss}

    def discriminator_losses(self, fake: Tensor, real: Tensor, target: Tensor, *, realness: bool = False) -> Losses:
        """Losses of the discriminator; gradients do not reach `fake`.

        Args:
            target: soft targets [N,K] of the real pictures.
        """
        of_real, of_fake = (self.discriminator(pictures, realness=realness) for pictures in (real, fake.detach()))
        if realness:
            losses = [
                adversarial(logits, real=is_real, learner="discriminator", objective="vanilla")
                for logits, is_real in ((of_real, True), (of_fake, False))
            ]
        elif self.objective == "mse":
            losses = [F.mse_loss(of_real, target), of_fake.square().mean()]
        else:
            as_generated = F.binary_cross_entropy_with_logits(of_fake, torch.zeros_like(of_fake))
            if self.objective == "bce":
                losses = [F.binary_cross_entropy_with_logits(of_real, target), as_generated]
            else:
                losses = [-(torch.sigmoid(of_real) + 1 - target + _EPSILON).log().mean(), as_generated]
        return {"discriminator_real": losses[0], "discriminator_fake": losses[1]}
