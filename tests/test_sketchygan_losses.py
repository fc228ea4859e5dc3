"""Every loss of SketchyGAN as a number: by its formula, written out here, and as a literal; see `test_losses_literal`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import tests.literal as lit
from vidgen.translators import sketchygan
from vidgen.types import Batch, Condition

WEIGHTS = {
    "gan_weight": 1.3,
    "gradient_penalty_weight": 9.0,
    "class_weight": 1.1,
    "generated_class_weight": 0.6,
    "focal_gamma": 1.5,
    "l1_weight": 8.0,
    "perceptual_weight": 2.5,
    "diversity_weight": 7.0,
    "decay_weight": 1e-3,
}
_ALL = {
    "class": 0.7003692,
    "discriminator_decay": 0.1023259,
    "generated_class": 0.6758938,
    "l1": 3.895722,
    "perceptual": 0.09154584,
    "diversity": -0.06129815,
    "decay": 0.1242192,
}
LITERALS: dict[str, dict[str, float]] = {
    "dragan": _ALL
    | {"discriminator_real": 0.9204836, "discriminator_fake": 0.8936853, "discriminator_penalty": 8.876008, "gan": 0.9087774},
    "logistic": _ALL | {"discriminator_real": 0.9204836, "discriminator_fake": 0.8936853, "gan": 0.9087774},
    "wasserstein": _ALL
    | {"discriminator_real": 0.03687661, "discriminator_fake": -0.0150921, "discriminator_penalty": 8.871593, "gan": 0.0150921},
}


def _config(**changes: Any) -> sketchygan.Config:
    return sketchygan.Config.model_validate(
        {
            "condition_channels": 1,
            "num_classes": 3,
            "image_size": 32,
            "generator": {"base_channels": 4, "noise_channels": 8},
            "discriminator": {"base_channels": 4, "spectral_norm": False} | changes,
            "losses": {**WEIGHTS, "perceptual_network": "vgg19"},
        }
    )


def _batch() -> Batch:
    condition = Condition(frames=lit.pictures("sketch", 2, 1, 1, 32, 32), class_id=torch.tensor([2, 0]))
    return Batch(condition, lit.pictures("photo", 2, 1, 3, 32, 32))


def _softplus(values: Tensor) -> float:
    return sum(math.log1p(math.exp(-abs(value))) + max(value, 0.0) for value in values.flatten().tolist()) / values.numel()


def _entropies(logits: Tensor) -> list[float]:
    """Minus the logarithm of the probability of each sample's class."""
    classes = (2, 0)
    return [
        -math.log(math.exp(row[wanted]) / sum(math.exp(value) for value in row))
        for row, wanted in zip(logits.tolist(), classes, strict=True)
    ]


def _penalty(discriminator: Any, objective: str, real: Tensor, fake: Tensor, seed: int) -> float:
    """(the norm of the gradient of the mean judgment - 1)^2: around real pictures, or on the way to the fake ones."""
    torch.manual_seed(seed)
    if objective == "dragan":
        near = real + 0.5 * real.std() * torch.rand_like(real)
        share = torch.rand(2, 1, 1, 1)
        places = real + share * (near - real)
    else:
        share = torch.rand(2, 1, 1, 1)
        places = share * real + (1 - share) * fake
    total = 0.0
    for place in places.split(1):
        place = place.clone().requires_grad_()
        judged, _ = discriminator(place, torch.zeros(1, dtype=torch.long))
        (gradient,) = torch.autograd.grad(judged.mean(), place)
        excess = gradient.square().sum().sqrt().item() - 1
        total += excess**2
    return total / 2


def _formulas(translator: Any, objective: str, batch: Batch, rolled: lit.Rollout, seed: int) -> dict[str, float]:
    discriminator, weights = translator.discriminator, WEIGHTS
    fake, real = rolled.frames.detach()[:, 0], batch.target[:, 0]
    penalty = _penalty(discriminator, objective, real, fake, seed)
    with torch.no_grad():
        (of_fake, fake_classes), (of_real, real_classes) = (discriminator(frames, torch.tensor([2, 0])) for frames in (fake, real))
        torch.manual_seed(seed + 1)
        noises = torch.randn(4, 8)  # of the rollout: two for each sketch
        other = rolled.whole.extras["second"]
        regenerated = translator.generator(batch.condition.frames[:, 0].repeat(2, 1, 1, 1), noises, torch.tensor([2, 0, 2, 0]))
        torch.testing.assert_close(regenerated, torch.cat([fake, other]))
        distances = [(noises[place] - noises[place + 2]).square().sum().sqrt().item() for place in (0, 1)]
        apart = [(fake[place] - other[place]).abs().mean().item() for place in (0, 1)]
        networks = lit.pretrained_networks()
        layers = zip(lit.perceptual_features(networks, fake), lit.perceptual_features(networks, real), strict=True)
        likeness = sum(
            weight * (a - b).abs().mean().item() for weight, (a, b) in zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), layers, strict=True)
        )
        decays = [
            0.5 * sum(value.square().sum().item() for name, value in network.named_parameters() if value.ndim == 4)
            for network in (discriminator, translator.generator)
        ]
    focal = [(1 - math.exp(-entropy)) ** weights["focal_gamma"] * entropy for entropy in _entropies(real_classes)]
    if objective == "wasserstein":
        adversarial = -of_real.mean().item(), of_fake.mean().item(), -of_fake.mean().item()
    else:
        adversarial = _softplus(-of_real), _softplus(of_fake), _softplus(-of_fake)
    return {
        "discriminator_real": weights["gan_weight"] * adversarial[0],
        "discriminator_fake": weights["gan_weight"] * adversarial[1],
        "gan": weights["gan_weight"] * adversarial[2],
        "class": weights["class_weight"] * sum(focal) / 2,
        "generated_class": weights["generated_class_weight"] * sum(_entropies(fake_classes)) / 2,
        "l1": weights["l1_weight"] * (fake - real).abs().mean().item(),
        "perceptual": weights["perceptual_weight"] * likeness,
        "diversity": -weights["diversity_weight"] * sum(a / (d + 1e-6) for a, d in zip(apart, distances, strict=True)) / 2,
        "discriminator_decay": weights["decay_weight"] * decays[0],
        "decay": weights["decay_weight"] * decays[1],
        **({} if objective == "logistic" else {"discriminator_penalty": weights["gradient_penalty_weight"] * penalty}),
    }


@pytest.mark.parametrize("objective", ["dragan", "logistic", "wasserstein"])
def test_losses(objective: str) -> None:
    config = _config(objective=objective)
    translator = lit.build(config)
    (stage, *_) = lit.stages(config, 9)
    lit.begin(translator, stage)
    batch = _batch()
    torch.manual_seed(18)
    rolled = lit.roll_out(translator, batch)
    found = {
        name: value.item()
        for group in lit.losses_of(translator, stage, batch, rolled, seed=17).values()
        for name, value in group.items()
    }
    assert found == pytest.approx(_formulas(translator, objective, batch, rolled, 17), rel=1e-4, abs=1e-5)
    assert found == pytest.approx(LITERALS[objective], rel=1e-4, abs=1e-5)


def test_the_networks_learn_at_the_published_rates() -> None:
    (seen, *_) = lit.learning_of(_config(), lambda stage: _batch())
    found = {name: (learning.groups[0][0], learning.betas) for name, learning in seen.items()}
    assert found == {"discriminator": (pytest.approx(2e-4), (0.0, 0.9)), "generator": (pytest.approx(1e-4), (0.0, 0.9))}


def test_the_weights_are_those_of_the_release() -> None:
    weights = sketchygan.LossWeights()
    totals = (weights.gan_weight, weights.class_weight, weights.generated_class_weight, weights.l1_weight, weights.diversity_weight)
    assert totals == (1.0, 1.0, 0.5, 10.0, 10.0)
    assert weights.perceptual_weight == pytest.approx(10 * 0.3)
    assert (weights.focal_gamma, weights.gradient_penalty_weight) == (2.0, 10.0)
