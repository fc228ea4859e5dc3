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
from vidgen.types import Losses, Output

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
    return labels().unsqueeze(1).float()


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


def _pair_game() -> FeatureAdversary:
    torch.manual_seed(0)
    result = FeatureAdversary(NUM_LABELS, FeatureWeights(pair_gan=0.5), num_labels=NUM_LABELS, max_shift=0)
    result.calibrate([real(), -real()], Backbone())
    return result


def _play_pairs(game: FeatureAdversary, fake: Tensor, truth: Tensor) -> tuple[Losses, Losses]:
    """Losses of the generator and of the discriminator on clips [B,T,3,H,W]."""
    output = Output(frames=fake)
    both = fake.flatten(0, 1), truth.flatten(0, 1), condition()[:1].expand(len(fake) * fake.shape[1], -1, -1, -1)
    return game.generator_losses(*both, output, Backbone()), game.discriminator_losses(*both, output, Backbone())


def test_a_discriminator_of_pairs_tells_the_order_of_frames_and_shows_the_way() -> None:
    game = _pair_game()
    learned = [parameter for module in game.heads for parameter in module.parameters()]
    optimizer = torch.optim.Adam(learned, 2e-3)
    ahead = torch.stack([real(), -real()], dim=1)  # the frames are those of both; only their order differs
    losses = []
    for _ in range(25):
        loss = _play_pairs(game, ahead.flip(1), ahead)[1]["pair_discriminator"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    drawn = ahead.flip(1).requires_grad_()
    (gradient,) = torch.autograd.grad(_play_pairs(game, drawn, ahead)[0]["pair_gan"], drawn)
    assert bool((gradient.abs().amax((0, 2, 3, 4)) > 0).all())
    of_discriminator = _play_pairs(game, drawn, ahead)[1]["pair_discriminator"]
    assert torch.autograd.grad(of_discriminator, [drawn], allow_unused=True)[0] is None


def test_pairs_are_all_consecutive_frames_of_a_clip_under_the_condition_of_the_later_one() -> None:
    game = _pair_game()
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    assert game.pair_discriminator is not None

    def judge(frames: list[list[Tensor]], condition: Tensor) -> list[Tensor]:
        seen.append((frames[0][0][:, :1], frames[1][0][:, :1], condition))
        return [torch.arange(1.0, len(condition) + 1).view(-1, 1, 1, 1)]

    game.pair_discriminator.forward = judge  # type: ignore[method-assign, assignment]
    levels = torch.arange(6.0).view(2, 3, 1, 1, 1) / 10
    fake, truth = (values.expand(-1, -1, 3, 64, 64) for values in (levels, -levels))
    conditions = torch.arange(6.0).view(6, 1, 1, 1).expand(-1, NUM_LABELS, 64, 64)
    output = Output(frames=fake)
    of_generator = game.generator_losses(fake.flatten(0, 1), truth.flatten(0, 1), conditions, output, Backbone())
    of_discriminator = game.discriminator_losses(fake.flatten(0, 1), truth.flatten(0, 1), conditions, output, Backbone())
    assert of_generator["pair_gan"].item() == pytest.approx(-0.5 * 2.5)  # logits 1 to 4 of the four pairs
    assert of_discriminator["pair_discriminator"].item() == pytest.approx(3.5)  # 1 + fakes 1 to 4; reals 5 to 8 are past the margin
    before, after, under = seen[0]
    steps = after.mean((1, 2, 3)) - before.mean((1, 2, 3))
    torch.testing.assert_close(steps, steps[:1].expand(4))
    assert under[:, 0, 0, 0].tolist() == [1, 2, 4, 5]
    assert [len(part) for part in seen[1]] == [8, 8, 8]


def test_there_are_no_pairs_in_single_frames_nor_for_translators_of_pictures() -> None:
    game = _pair_game()
    assert (game.judges(1), game.judges(2)) == (False, True)
    of_generator, of_discriminator = _play_pairs(game, torch.zeros(2, 1, 3, 64, 64), real().unsqueeze(1))
    assert "pair_gan" not in of_generator
    assert not of_discriminator
    with pytest.raises(
        ConfigError, match="pair_gan_weight: judges pairs of frames, but this translator draws each frame by itself"
    ):
        feature_adversary(FeatureSettings(pair_gan_weight=0.1), NUM_LABELS, NUM_LABELS)
