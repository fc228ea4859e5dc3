"""Losses and discriminators on features: literal values, what gets gradient, and what must not matter."""

import math

import pytest
import torch
from torch import Tensor

from vidgen.networks import feature_discriminators as features
from vidgen.networks.feature_discriminators import (
    FeatureDiscriminator,
    FeatureStatistics,
    PixelDiscriminator,
    SegmentationDiscriminator,
    Variation,
)

CHANNELS, STRIDES = [4, 6, 8], [4, 8, 16]


def some_features(num_samples: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(num_samples, c, 64 // s, 96 // s, generator=generator) for c, s in zip(CHANNELS, STRIDES, strict=True)]


def discriminator(**changes: object) -> FeatureDiscriminator:
    torch.manual_seed(0)
    return FeatureDiscriminator(CHANNELS, STRIDES, 3, mixed_channels=[8, 8, 8], head_channels=8, **changes)  # type: ignore[arg-type]


def condition(num_samples: int = 2) -> Tensor:
    return torch.rand(num_samples, 3, 64, 96, generator=torch.Generator().manual_seed(9))


def test_normalized_training_features_have_mean_0_and_deviation_1() -> None:
    statistics = FeatureStatistics([3, 5])
    batches = [[torch.randn(2, 3, 9, 8) * 4 + 2, torch.randn(2, 5, 4, 4) * 0.5 - 1] for _ in range(3)]
    statistics.measure(batches)
    for index in range(2):
        values = torch.cat([statistics(batch)[index] for batch in batches])
        torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(values.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(values.std((0, 2, 3), correction=0), torch.ones(values.shape[1]), atol=1e-3, rtol=0)


def test_a_channel_that_never_changes_is_not_blown_up() -> None:
    statistics = FeatureStatistics([2])
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    constant = torch.cat([torch.zeros_like(board), board], 1)
    statistics.measure([[constant]])
    assert statistics([constant + 0.01])[0][:, 0].abs().max().item() == pytest.approx(0.01 / (0.001 + 0.01 * 0.5), rel=1e-4)


def test_statistics_need_frames() -> None:
    with pytest.raises(ValueError, match="no frames"):
        FeatureStatistics([2]).measure([])


def test_feature_loss_is_the_mean_over_maps_of_the_mean_absolute_difference() -> None:
    fake, real = [torch.full((1, 2, 4, 4), 3.0), torch.zeros(1, 1, 2, 2)], [torch.ones(1, 2, 4, 4), torch.full((1, 1, 2, 2), 0.5)]
    assert features.feature_loss(fake, real).item() == pytest.approx((2 + 0.5) / 2)
    assert features.feature_loss(fake, real, (1, 3)).item() == pytest.approx((2 + 3 * 0.5) / 4)


def test_texture_loss_ignores_where_texture_lies_but_not_how_much_there_is() -> None:
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8)[None, None]
    assert features.texture_loss([board], [-board]).item() == pytest.approx(0, abs=1e-6)
    expected = math.sqrt(1 + 1e-4) - math.sqrt(0.25 + 1e-4)
    assert features.texture_loss([board], [board / 2]).item() == pytest.approx(expected, rel=1e-5)
    assert features.texture_loss([board[..., :4, :4]], [board[..., :4, :4]]).item() == 0


def test_texture_loss_has_a_gradient_where_there_is_no_texture_yet() -> None:
    flat = torch.full((1, 1, 16, 16), 0.3) + 1e-3 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    flat.requires_grad_(True)
    features.texture_loss([flat], [torch.randn(1, 1, 16, 16)]).backward()
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()
    assert flat.grad.abs().sum() > 0


def test_detail_loss_counts_each_direction_and_width_by_itself() -> None:
    stripes = torch.tensor([1.0, -1.0]).repeat(32, 16)[None, None].expand(1, 3, -1, -1)
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)[None, None].expand(1, 3, -1, -1)
    gray = torch.zeros_like(board)
    assert features.detail_loss(stripes, gray).item() == pytest.approx(2 / 6, rel=1e-5)
    assert features.detail_loss(board, gray).item() == pytest.approx(4 / 6, rel=1e-5)
    assert features.detail_loss(stripes, stripes.transpose(2, 3)).item() == pytest.approx(4 / 6, rel=1e-5)
    assert features.detail_loss(board, -board).item() == pytest.approx(0, abs=1e-6)


def test_a_shift_moves_by_whole_pixels_and_reflects_the_border() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert features.shift(x, 1, -1)[0, 0].tolist() == [[5, 6, 7, 6], [1, 2, 3, 2], [5, 6, 7, 6]]
    assert features.shift(x, 0, 0) is x


def test_one_variation_changes_fake_and_real_alike_and_differs_between_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 3, 32, 32) * 2 - 1
    one, other = (Variation.draw(2, generator, max_shift=8, color=0.5) for _ in range(2))
    assert torch.equal(one(frames), one(frames.clone()))
    assert not torch.equal(one(frames), other(frames))
    assert abs(one.down) <= 8
    assert abs(one.right) <= 8


def test_full_strength_color_follows_the_published_ranges() -> None:
    drawn = Variation.draw(1000, torch.Generator().manual_seed(0), color=1.0)
    assert drawn.brightness is not None
    assert drawn.contrast is not None
    assert drawn.saturation is not None
    for values, low, high in ((drawn.brightness, -0.5, 0.5), (drawn.contrast, 0.5, 1.5), (drawn.saturation, 0, 2)):
        assert low <= values.min()
        assert values.max() <= high
        assert values.max() - values.min() > 0.9 * (high - low)
    gray = Variation(0, 0, torch.tensor([0.25]), torch.tensor([1.0]), torch.tensor([0.0]))
    colored = torch.tensor([0.3, 0.0, -0.3]).view(1, 3, 1, 1)
    torch.testing.assert_close(gray(colored), torch.full((1, 3, 1, 1), 0.25))


def test_heads_give_logits_fine_to_coarse_for_the_strides_asked_for() -> None:
    logits = discriminator(head_strides=(4, 16))([some_features()], condition())
    assert [tuple(values.shape) for values in logits] == [(2, 1, 8, 12), (2, 1, 4, 6)]
    with pytest.raises(ValueError, match="head_strides: 2 is not"):
        discriminator(head_strides=(2,))


def test_only_heads_learn_and_the_generator_gets_gradient_through_every_map() -> None:
    network = discriminator()
    assert {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad} == {"heads"}
    fake = [values.requires_grad_(True) for values in some_features()]
    features.hinge_generator(network([fake], condition())).backward()
    assert all(values.grad is not None and values.grad.abs().sum() > 0 for values in fake)


def test_the_condition_and_the_order_of_a_pair_count() -> None:
    network = discriminator(num_frames=2).eval()
    first, second = some_features(seed=1), some_features(seed=2)
    usual = network([first, second], condition())
    assert not torch.allclose(usual[0], network([second, first], condition())[0])
    assert not torch.allclose(usual[0], network([first, second], 1 - condition())[0])


def test_a_feature_discriminator_learns_to_tell_two_distributions_apart() -> None:
    network = discriminator()
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    real, fake = some_features(seed=1), [0.3 * values for values in some_features(seed=2)]
    losses = []
    for _ in range(30):
        both = [torch.cat(pair) for pair in zip(fake, real, strict=True)]
        logits = network([both], condition(4))
        loss = features.hinge_discriminator([v[:2] for v in logits], [v[2:] for v in logits])
        losses.append(loss.item())
        with torch.no_grad():
            for parameter, gradient in zip(learned, torch.autograd.grad(loss, learned), strict=True):
                parameter -= 0.1 * gradient
    assert losses[-1] < 0.8 * losses[0]


def test_pixel_discriminator_sees_neither_far_pixels_nor_other_samples() -> None:
    torch.manual_seed(0)
    network = PixelDiscriminator(3, base_channels=8).eval()
    frames = torch.rand(2, 3, 64, 64)
    changed = frames.clone()
    changed[1, :, 40:, 40:] = -1
    before, after = (network(x, torch.zeros(2, 3, 64, 64))[0] for x in (frames, changed))
    assert before.shape == (2, 1, 16, 16)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1, :, :6, :6], after[1, :, :6, :6])
    assert not torch.equal(before[1], after[1])


def test_segmentation_discriminator_has_one_class_more_than_the_labels() -> None:
    assert SegmentationDiscriminator(5, (8, 8, 8))(torch.rand(2, 3, 32, 48)).shape == (2, 6, 16, 24)


def test_class_weights_balance_classes_and_leave_absent_ones_out() -> None:
    labels = torch.tensor([[[0, 0, 0, 2], [-1, -1, -1, -1]]])
    weights = features.class_weights(labels, 4)
    torch.testing.assert_close(weights, torch.tensor([4 / 3 / 2, 0.0, 4 / 2, 0.0]))
    assert weights[labels[labels >= 0]].mean().item() == pytest.approx(1)


def test_segmentation_loss_by_hand() -> None:
    labels = torch.tensor([[[0, 1], [1, -1]]])
    logits = torch.zeros(1, 3, 2, 2)
    assert features.segmentation_adversarial(logits, labels, real=False, num_labels=2).item() == pytest.approx(math.log(3))
    assert features.segmentation_adversarial(logits, labels, real=True, num_labels=2).item() == pytest.approx(math.log(3))
    logits[:, 1, 0, 0] = 10.0
    rare = features.segmentation_adversarial(logits, labels, real=True, num_labels=2).item()
    assert rare == pytest.approx(math.log(3) / 2, rel=1e-3)
    nothing = torch.full_like(labels, -1)
    assert features.segmentation_adversarial(logits, nothing, real=True, num_labels=2).item() == 0


def test_hinge_losses_by_hand() -> None:
    fake, real = [torch.tensor([-2.0, 0.5]), torch.tensor([0.0])], [torch.tensor([2.0, 0.0]), torch.tensor([-1.0])]
    assert features.hinge_generator(fake).item() == pytest.approx((0.75 + 0.0) / 2)
    assert features.hinge_discriminator(fake, real).item() == pytest.approx((0.75 + 1.0) / 2 + (0.5 + 2.0) / 2)
