"""Losses that several translators share. All return float32 scalars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks.choices import CriticObjective
from vidgen.networks.layers import without_autocast

DiscriminatorFeatures = list[list[Tensor]]
"""[scale][stage] outputs of a multi-scale discriminator; the last stage holds the logits."""


def adversarial(
    logits: Tensor, *, real: bool, learner: Literal["generator", "discriminator"], objective: CriticObjective
) -> Tensor:
    """Adversarial loss of one prediction map.

    Source: least squares: Mao et al., ICCV 2017; hinge: Lim and Ye, 2017; vanilla: Goodfellow et al., 2014, with logits;
    wasserstein: Arjovsky et al., ICML 2017.
    A generator calls it with real=True on what it generated.
    """
    logits = logits.float()
    match objective:
        case "least_squares":
            return (logits - float(real)).square().mean()
        case "vanilla":
            return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
        case "hinge":
            if learner == "generator":
                return -logits.mean()
            return F.relu(1 - logits if real else 1 + logits).mean()
        case "wasserstein":
            return -logits.mean() if real else logits.mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Mean over the images of (norm of the critic's gradient - 1)^2, at a random point between each real and fake one.

    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, equation 3. Always float32.
    """
    with without_autocast(real):
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = (share * real.detach().float() + (1 - share) * fake.detach().float()).requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return ((gradient.flatten(1) + 1e-16).norm(dim=1) - 1).square().mean()


def dragan_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, *, is_one_sided: bool = False) -> Tensor:
    """Mean over the images of (norm of the critic's gradient - 1)^2, at random points around real images alone.

    Args:
        is_one_sided: gradients smaller than 1 are not punished.

    Source: Kodali et al., "On Convergence and Stability of GANs", 2017, algorithm 1; noise of half the standard deviation of the
    batch. Always float32.
    """
    with without_autocast(real):
        real = real.detach().float()
        moved = 0.5 * real.std() * torch.rand_like(real)
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        around = (real + share * moved).requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(critic(around).sum(), around, create_graph=True)
        excess = (gradient.flatten(1) + 1e-16).norm(dim=1) - 1
        return (excess.relu() if is_one_sided else excess).square().mean()


def focal_cross_entropy(logits: Tensor, classes: Tensor, gamma: float = 0.0) -> Tensor:
    """Cross entropy of [N,K] logits, each sample weighted by (1 - probability of its class)^gamma.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4.
    """
    entropy = F.cross_entropy(logits.float(), classes, reduction="none")
    return ((1 - (-entropy).exp()) ** gamma * entropy).mean() if gamma else entropy.mean()


def diversity(one: Tensor, other: Tensor, distance: Tensor, cap: float | None = None) -> Tensor:
    """Minus the mean absolute difference of two results of one condition, each divided by the distance of their noises.

    It is negative, and minimizing it pushes results of different noise apart.

    Args:
        one, other: [N,3,H,W].
        distance: of the noises, [N].
        cap: difference per sample from which on more is no gain.

    Source: the release of SketchyGAN (Chen and Hays, CVPR 2018).
    """
    apart = (one.float() - other.float()).abs().mean((1, 2, 3))
    return -((apart if cap is None else apart.clamp(max=cap)) / (distance.float() + 1e-6)).mean()


def multiscale_adversarial(
    features: DiscriminatorFeatures, *, real: bool, learner: Literal["generator", "discriminator"], objective: CriticObjective
) -> Tensor:
    """Adversarial losses summed (not averaged) over the scales, as pix2pixHD and vid2vid do."""
    terms = [adversarial(scale[-1], real=real, learner=learner, objective=objective) for scale in features]
    return torch.stack(terms).sum()


def feature_matching(fake: DiscriminatorFeatures, real: DiscriminatorFeatures) -> Tensor:
    """Mean absolute difference of the discriminator's inner stages, over scales and stages; `real` gets no gradient.

    Source: Wang et al., CVPR 2018, equation 4, with the authors' factor 4 / (num_layers + 1) per stage and 1 / num_scales.
    """
    terms = []
    for fake_scale, real_scale in zip(fake, real, strict=True):
        inner = len(fake_scale) - 1
        for generated, true in zip(fake_scale[:-1], real_scale[:-1], strict=True):
            terms.append(F.l1_loss(generated.float(), true.detach().float()) * (4.0 / inner))
    return torch.stack(terms).sum() / len(fake)


def masked_l1(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """mean |a*mask - b*mask| over all elements, masked ones included, as vid2vid defines it."""
    return F.l1_loss(a.float() * mask, b.float() * mask)


def perceptual(features: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
    """Weighted L1 between the features of two image batches [N,3,H,W] in -1..1; weights 1/32, 1/16, 1/8, 1/4, 1.

    Source: Wang et al., CVPR 2018, section 3.4; images wider than 1024 are halved first (vid2vid).
    """
    while fake.shape[-1] > 1024:
        fake, real = F.avg_pool2d(fake, 2), F.avg_pool2d(real, 2)
    with torch.no_grad():
        truth = features(real)
    weights = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
    terms = [w * F.l1_loss(a.float(), b.float()) for w, a, b in zip(weights, features(fake), truth, strict=True)]
    return torch.stack(terms).sum()


def gradient_difference(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference of the Sobel gradients of two image batches [N,C,H,W]: edges in the same places, as strong."""
    from kornia.filters import spatial_gradient

    return F.l1_loss(spatial_gradient(fake.float()), spatial_gradient(real.float()))
