from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from flow.losses import (
    angular_error,
    census_loss,
    endpoint_error,
    multilevel_loss,
    outlier_share,
    smoothness_loss,
    unsupervised_loss,
)
from flow.warp import resize_flow


def uniform(dx: float, dy: float, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.tensor([float(dx), float(dy)]).view(1, 2, 1, 1).expand(1, 2, height, width).clone()


def pan(dx: int = 3, dy: int = -2) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    picture = F.interpolate(noise, size=(96, 96), mode="bicubic").clamp(-1, 1)
    return picture[..., 16:80, 16:80], picture[..., 16 - dy : 80 - dy, 16 - dx : 80 - dx]


ALL = torch.ones(1, 1, 32, 32, dtype=torch.bool)


def test_the_endpoint_error_is_that_of_kornia():
    from kornia.metrics import aepe

    a, b = torch.randn(2, 3, 2, 8, 9, generator=torch.Generator().manual_seed(0)).unbind()
    expected = aepe(a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1), reduction="mean")
    torch.testing.assert_close(endpoint_error(a, b), expected)


def test_errors_count_known_pixels_only():
    truth, flow = uniform(0, 0), uniform(0, 0)
    flow[..., :16] = 10
    known = ALL.clone()
    known[..., :16] = False
    for error in (endpoint_error, angular_error, outlier_share):
        assert error(flow, truth, known) == 0
        assert error(flow, truth, ~known) == pytest.approx(2 * float(error(flow, truth)))
        assert error(flow, truth, ALL & False) == 0


def test_the_angular_error_is_measured_in_space_and_time():
    assert angular_error(uniform(1, 0), uniform(0, 0)) == pytest.approx(45)
    assert angular_error(uniform(2, -3), uniform(2, -3)) == pytest.approx(0, abs=1e-4)


def test_an_outlier_is_off_by_3_pixels_and_by_5_percent():
    assert outlier_share(uniform(3.1, 0), uniform(0, 0)) == 1
    assert outlier_share(uniform(2.9, 0), uniform(0, 0)) == 0
    assert outlier_share(uniform(104, 0), uniform(100, 0)) == 0
    assert outlier_share(uniform(106, 0), uniform(100, 0)) == 1


def test_the_multilevel_loss_is_least_at_the_truth_of_every_level():
    truth = uniform(4, -2)
    levels = [resize_flow(truth, (size, size)) for size in (8, 16, 32)]
    right = multilevel_loss(levels, truth, ALL)
    for index in range(3):
        wrong = [flow + (0.5 if at == index else 0) for at, flow in enumerate(levels)]
        assert multilevel_loss(wrong, truth, ALL) > 1.5 * right


def test_hidden_pixels_weigh_less():
    truth, flow, visible = uniform(0, 0), uniform(0, 0), ALL.clone()
    flow[..., :16] = 3
    visible[..., :16] = False
    assert multilevel_loss([flow], truth, visible) < multilevel_loss([flow], truth, ~visible)
    assert multilevel_loss([flow], truth, visible, hidden_weight=0) == multilevel_loss([truth], truth, visible)


def test_the_census_is_blind_to_exposure_but_not_to_motion():
    first, second = pan()
    visible = torch.ones(1, 1, 64, 64)
    same = census_loss(first, first, visible)
    assert census_loss(first, first + 0.1, visible) == pytest.approx(float(same), rel=1e-4)
    assert census_loss(first, second, visible) > 3 * same


def test_the_census_ignores_what_is_masked():
    first, _ = pan()
    other, visible = first.clone(), torch.ones(1, 1, 64, 64)
    other[..., 20:40, 20:40] = 0
    visible[..., 16:44, 16:44] = 0
    assert census_loss(first, other, visible) == pytest.approx(float(census_loss(first, first, visible)))


def test_calling_everything_hidden_is_no_bargain():
    first, second = pan()
    few = torch.zeros(1, 1, 64, 64)
    few[..., 30:32, 30:32] = 1
    exact = first.requires_grad_()
    census_loss(exact, second, few).backward()
    assert exact.grad.abs().sum() < 4 * 0.02


def test_smoothness_is_free_for_uniform_motion_and_cheap_across_edges():
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1
    at_edge, inside = uniform(0, 0), uniform(0, 0)
    at_edge[..., 16:] = 3
    inside[..., 8:] = 3
    free = smoothness_loss(uniform(5, 5), image)
    assert free < 0.0011
    assert smoothness_loss(at_edge, image) - free < 0.01 * (smoothness_loss(inside, image) - free)


def test_the_unsupervised_loss_prefers_the_true_motion():
    first, second = pan(3, -2)

    def total(dx: float, dy: float) -> float:
        return float(sum(unsupervised_loss(first, second, uniform(dx, dy, 64, 64), uniform(-dx, -dy, 64, 64)).values()))

    right = total(3, -2)
    assert all(total(3 + dx, -2 + dy) > right for dx, dy in [(1, 0), (-1, 0), (0, 1), (0, -1), (-3, 2)])


def test_no_gradient_flows_through_the_occlusion_test():
    first, second = pan(3, -2)
    forward = uniform(3, -2, 64, 64).requires_grad_()
    backward = uniform(-3, 2, 64, 64).requires_grad_()
    unsupervised_loss(first, second, forward, backward, smoothness_weight=0)["census"].backward()
    alone = forward.grad.clone()
    forward.grad = None
    unsupervised_loss(first, second, forward, backward.detach() + 0.01, smoothness_weight=0)["census"].backward()
    torch.testing.assert_close(forward.grad, alone)
