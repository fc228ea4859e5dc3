"""Muon: what is orthogonalized, that the rest is Adam's, and that a stored state goes on in the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vidgen.training.muon import MOMENTUM, STEP_SIZE, Muon, is_kernel, orthogonalized
from vidgen.weights import checkpoints


def _matrix(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(24, 216), (60, 60), (200, 48)])
def test_singular_values_become_those_of_the_quintic_iteration_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = _matrix(*shape).double()
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    wanted = values / values.square().sum().sqrt()
    for _ in range(5):
        wanted = 3.4445 * wanted - 4.775 * wanted**3 + 2.0315 * wanted**5
    torch.testing.assert_close(orthogonalized(matrix), left @ torch.diag(wanted) @ right, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(orthogonalized(matrix.float()).double(), orthogonalized(matrix), atol=1e-4, rtol=0)
    assert float(torch.linalg.svdvals(orthogonalized(_matrix(24, 216))).min()) > 0.65


def test_kernels_are_wide_convolutions_and_neither_heads_nor_embeddings_nor_biases() -> None:
    network = nn.ModuleList([nn.Conv2d(32, 48, 3), nn.Conv2d(48, 3, 3), nn.Conv2d(12, 64, 1), nn.Linear(64, 64)])
    kernels = [name for name, value in network.named_parameters() if is_kernel(value)]
    assert kernels == ["0.weight"]


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(24, 32, 3), nn.Conv2d(32, 3, 1))


def _learn(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        pictures = torch.randn(2, 24, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(pictures).square().mean().backward()
        optimizer.step()


def test_a_step_of_a_kernel_is_the_orthogonalized_momentum_and_the_rest_is_adam_s() -> None:
    ours, theirs = _network(), _network()
    optimizer = Muon(ours.parameters(), 1e-3, (0.5, 0.99))
    adam = torch.optim.Adam(theirs.parameters(), 1e-3, (0.5, 0.99))
    average = torch.zeros_like(ours[0].weight)
    for step in range(3):
        pictures = torch.randn(2, 24, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        ours(pictures).square().mean().backward()
        gradients = [value.grad.clone() for value in ours.parameters() if value.grad is not None]
        before = ours[0].weight.detach().clone()
        for value, gradient in zip(theirs.parameters(), gradients, strict=True):
            value.grad = gradient
        optimizer.step()
        adam.step()
        average = MOMENTUM * average + (1 - MOMENTUM) * gradients[0]
        ahead = (1 - MOMENTUM) * gradients[0] + MOMENTUM * average
        wanted = before - 1e-3 * STEP_SIZE * 216**0.5 * orthogonalized(ahead.flatten(1)).view_as(before)
        torch.testing.assert_close(ours[0].weight.detach(), wanted, atol=1e-6, rtol=1e-4)
        for one, other in list(zip(ours.parameters(), theirs.parameters(), strict=True))[1:]:
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_kernel_s_step_has_the_size_that_adam_s_have() -> None:
    kernel = nn.Parameter(torch.zeros(32, 24, 3, 3))
    kernel.grad = _matrix(32, 24, 3, 3)
    Muon([kernel], 1e-2, (0.5, 0.99)).step()
    assert 0.15 * 1e-2 < float(kernel.detach().square().mean().sqrt()) < 0.25 * 1e-2


def test_a_stored_state_goes_on_in_the_same_bits() -> None:
    whole, parts = _network(), _network()
    optimizer = Muon(whole.parameters(), 1e-3, (0.5, 0.99))
    _learn(whole, optimizer, range(6))
    first = Muon(parts.parameters(), 1e-3, (0.5, 0.99))
    _learn(parts, first, range(3))
    stored = {name: value.clone() for name, value in checkpoints.optimizer_tensors({"generator": first}).items()}
    again = Muon(parts.parameters(), 1e-3, (0.5, 0.99))
    checkpoints.fill_optimizers({"generator": again}, stored)
    _learn(parts, again, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), parts.parameters(), strict=True))


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="calls no closure"):
        Muon(_network().parameters(), 1e-3, (0.5, 0.99)).step(lambda: 0.0)
