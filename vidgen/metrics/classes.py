"""Whether generated pictures are taken for their classes, by a classifier of real ones; how varied they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

NUM_FOLDS = 5
_TAPS = (3, 4, 5)
_DECAY = 1e-3
_ITERATIONS = 60


def pooled_features(maps: Sequence[Tensor]) -> Tensor:
    """Features of whole pictures [N,D]: the means of the deeper feature maps of EfficientNet-Lite0."""
    return torch.cat([maps[tap].float().mean((2, 3)) for tap in _TAPS], 1)


@dataclass(frozen=True)
class Classifier:
    """Softmax regression on standardized features.

    Attributes:
        mean, deviation: of the features, [D].
        weights: [D+1,K], the last row is the bias.
    """

    mean: Tensor
    deviation: Tensor
    weights: Tensor

    @classmethod
    def fit(cls, features: Tensor, classes: Tensor, num_classes: int) -> Classifier:
        """Learn from features [N,D] and classes int64 [N]; every class weighs as much. The result follows from them alone."""
        features = features.double()
        mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
        inputs = _with_one((features - mean) / deviation)
        share = 1 / torch.bincount(classes, minlength=num_classes).clamp_min(1).double()
        weights = torch.zeros(inputs.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(inputs @ weights, classes, share) + _DECAY * weights[:-1].square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return cls(mean, deviation, weights.detach())

    def probabilities(self, features: Tensor) -> Tensor:
        """Of the classes [N,K] for features [N,D]."""
        return (_with_one((features.double() - self.mean) / self.deviation) @ self.weights).softmax(1)


def _with_one(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], 1)


def cross_validated_accuracy(features: Tensor, classes: Tensor, num_classes: int) -> float:
    """Share of real pictures that a classifier of the others recognizes; accuracies of generated ones are held against it."""
    folds = torch.arange(len(features)) % NUM_FOLDS
    hits = 0
    for fold in range(NUM_FOLDS):
        held = folds == fold
        if held.any() and not held.all():
            classifier = Classifier.fit(features[~held], classes[~held], num_classes)
            hits += int((classifier.probabilities(features[held]).argmax(1) == classes[held]).sum())
    return hits / len(features)


def inception_score(probabilities: Tensor, num_splits: int = 10) -> tuple[float, float]:
    """exp of the mean divergence of each picture's classes from those of all, and its standard deviation over splits.

    Args:
        probabilities: [N,K]; splits follow their order, so mix the pictures before.

    Source: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, section 4.
    """
    scores = []
    for part in probabilities.double().chunk(min(num_splits, len(probabilities))):
        logs = part.clamp_min(1e-16).log() - part.mean(0, keepdim=True).clamp_min(1e-16).log()
        scores.append((part * logs).sum(1).mean().exp())
    found = torch.stack(scores)
    return found.mean().item(), found.std(correction=0).item()


def mean_difference(pictures: Tensor) -> float:
    """Mean absolute difference of all pairs of pictures [N,3,H,W] of one condition, in the unit of their values."""
    pairs = [(pictures[one] - pictures[other]).abs().mean() for one in range(len(pictures)) for other in range(one)]
    return torch.stack(pairs).mean().item() if pairs else 0.0
