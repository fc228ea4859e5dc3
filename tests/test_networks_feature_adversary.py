"""The discriminators that play beside the feature losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.errors import ConfigError
from vidgen.networks.choices import Judge
from vidgen.networks.feature_adversary import LITE0_CHANNELS, LITE0_STRIDES, FeatureAdversary, FeatureWeights
from vidgen.translators.settings import FeatureSettings, feature_adversary
from vidgen.types import Output

NUM_LABELS = 3


class Backbone(nn.Module):
    """Features of the shapes of EfficientNet-Lite0: averages of red, in as many channels."""

    def forward(self, frames: Tensor, num_maps: int = len(LITE0_CHANNELS)) -> list[Tensor]:
        red = frames[:, :1]
        shapes = list(zip(LITE0_CHANNELS, LITE0_STRIDES, strict=True))[:num_maps]
        return [F.avg_pool2d(red, stride).expand(-1, channels, -1, -1) for channels, stride in shapes]


def labels() -> Tensor:
    ids = torch.zeros(2, 64, 64, dtype=torch.int64)
    ids[:, :, 32:], ids[:, 48:] = 1, 2
    return ids


def condition() -> Tensor:
    return F.one_hot(labels(), NUM_LABELS).movedim(-1, 1).float()


def real() -> Tensor:
    """Every class has a color of its own."""
    colors = torch.tensor([[-0.8, 0.0, 0.8], [0.8, -0.8, 0.0], [0.0, 0.8, -0.8]])
    return colors[labels()].movedim(-1, 1)


def adversary(judge: Judge) -> FeatureAdversary:
    torch.manual_seed(0)
    result = FeatureAdversary(NUM_LABELS, FeatureWeights(gan=0.5), judge=judge, num_labels=NUM_LABELS, max_shift=0)
    result.calibrate([real(), -real()], Backbone())
    return result


def play(game: FeatureAdversary, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of the generator and of the discriminator."""
    output = Output(frames=fake.unsqueeze(1))
    of_generator = game.generator_losses(fake, real(), condition(), output, Backbone())
    of_discriminator = game.discriminator_losses(fake, real(), condition(), output, Backbone())
    return of_generator["feature_gan"], of_discriminator["feature_discriminator"]


@pytest.mark.parametrize("judge", ["features", "pixels", "segmentation"])
def test_every_discriminator_learns_to_tell_and_shows_the_way(judge: Judge) -> None:
    game = adversary(judge)
    learned = [parameter for module in game.heads for parameter in module.parameters()]
    fake = torch.zeros(2, 3, 64, 64)
    optimizer = torch.optim.Adam(learned, 2e-3)
    losses = []
    for _ in range(25):
        loss = play(game, fake)[1]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    drawn = fake.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(play(game, drawn)[0], drawn)
    assert gradient.abs().max() > 0


def test_the_loss_of_the_discriminator_sends_nothing_back_to_the_generator() -> None:
    for judge in ("features", "pixels", "segmentation"):
        drawn = torch.zeros(2, 3, 64, 64, requires_grad=True)
        loss = play(adversary(judge), drawn)[1]
        assert torch.autograd.grad(loss, [drawn], allow_unused=True)[0] is None


def test_a_segmentation_discriminator_asks_for_the_classes_of_the_condition() -> None:
    game = adversary("segmentation")
    assert isinstance(game.discriminator, nn.Module)
    ids = F.interpolate(labels()[:, None].float(), scale_factor=0.5)[:, 0].long()
    certain = 20 * F.one_hot(ids + 1, NUM_LABELS + 1).movedim(-1, 1).float()
    generated = 20 * F.one_hot(torch.zeros_like(ids), NUM_LABELS + 1).movedim(-1, 1).float()
    answers = {"generator": certain, "both": torch.cat([generated, certain])}
    game.discriminator.forward = lambda frames: answers["generator" if len(frames) == 2 else "both"]  # type: ignore[method-assign]
    for loss in play(game, torch.zeros(2, 3, 64, 64)):
        assert loss.item() == pytest.approx(0, abs=1e-6)
    answers = {"generator": generated, "both": torch.cat([certain, generated])}
    of_generator, of_discriminator = play(game, torch.zeros(2, 3, 64, 64))
    assert of_generator.item() == pytest.approx(0.5 * 20, rel=1e-3)
    assert of_discriminator.item() == pytest.approx(2 * 20, rel=1e-3)


def test_classes_cannot_be_named_where_there_are_none() -> None:
    chosen = FeatureSettings(gan_weight=0.3, discriminator="segmentation")
    with pytest.raises(ConfigError, match="segmentation names the classes of label maps, but there are none"):
        feature_adversary(chosen, 1, 0)
