"""Losses on inputs whose value is known by hand."""

from __future__ import annotations

import torch

from vidgen.networks.losses import gradient_difference, gradient_penalty


def test_equal_edges_cost_nothing_whatever_the_brightness():
    picture = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gradient_difference(picture, picture + 0.25), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_a_missing_step_costs_its_height_on_both_sides_of_the_step():
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1
    # Sobel, normalised, gives half the step in the two columns beside it, in one of two directions
    torch.testing.assert_close(gradient_difference(torch.zeros_like(step), step), torch.tensor(0.5 * 2 / 8 / 2))


def test_a_blurred_edge_gets_the_gradient_that_sharpens_it():
    target = torch.zeros(1, 1, 8, 8)
    target[..., 4:] = 1
    blurred = torch.linspace(0, 1, 8).expand(1, 1, 8, 8).clone().requires_grad_()
    gradient_difference(blurred, target).backward()
    assert blurred.grad is not None
    assert blurred.grad[..., 3].mean() > 0
    assert blurred.grad[..., 4].mean() < 0


def test_the_gradient_penalty_is_taken_of_each_image_by_itself():
    slopes = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1) / 48**0.5  # of 48 values each: gradients of norm 1 and 3
    penalty = gradient_penalty(lambda images: (slopes * images).sum(dim=(1, 2, 3)), torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4))
    torch.testing.assert_close(penalty, torch.tensor(2.0))
