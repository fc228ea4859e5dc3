from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from flow.engines import load_network
from flow.errors import FlowError
from flow.network import RADIUS, FlowNetwork, SoftArgmax, local_costs
from flow.warp import pad_images


@pytest.fixture(scope="module")
def network() -> FlowNetwork:
    """Random weights, also where a new network has zeros."""
    torch.manual_seed(0)
    network = FlowNetwork().eval()
    torch.nn.init.normal_(network.decoder.correction.weight, std=0.05)
    return network


def images(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(height * width)
    first, second = (torch.rand(2, count, 3, height, width, generator=generator) * 2 - 1).unbind()
    return first, second


def test_it_is_compact(network):
    assert sum(parameter.numel() for parameter in network.parameters()) <= 2_000_000


def test_local_costs_are_the_correlations_of_unfolded_neighbourhoods():
    first, second = torch.randn(2, 2, 5, 6, 7, generator=torch.Generator().manual_seed(0)).unbind()
    around = F.unfold(second, 2 * RADIUS + 1, padding=RADIUS).view(2, 5, -1, 6, 7)
    torch.testing.assert_close(local_costs(first, second), (first[:, :, None] * around).sum(dim=1))


def test_the_gradient_of_local_costs_is_right():
    first, second = torch.randn(2, 1, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    assert torch.autograd.gradcheck(local_costs, (first.requires_grad_(), second.requires_grad_()), fast_mode=True)


@pytest.mark.parametrize("motion", [(0, 0), (3, -2), (-4, 4)])
def test_a_distinct_match_is_found_by_the_soft_argmax(motion):
    dx, dy = motion
    features = F.normalize(torch.randn(1, 32, 20, 24, generator=torch.Generator().manual_seed(0)), dim=1)
    moved = torch.roll(features, (dy, dx), dims=(2, 3))
    matching = SoftArgmax()
    torch.nn.init.constant_(matching.log_sharpness, 5)
    inner = matching(local_costs(features, moved))[..., RADIUS:-RADIUS, RADIUS:-RADIUS].detach()
    assert (inner - torch.tensor([dx, dy]).view(1, 2, 1, 1)).abs().max() < 0.01


def test_levels_double_from_a_16th_to_a_quarter_and_end_at_full_size(network):
    flows = network.pyramid(*images(1, 96, 128))
    assert [tuple(flow.shape[1:]) for flow in flows] == [(2, 6, 8), (2, 12, 16), (2, 24, 32), (2, 96, 128)]


def test_large_images_begin_at_half_size(network):
    with torch.no_grad():
        widths = [flow.shape[3] for flow in network.pyramid(*images(1, 320, 340))]
        assert widths == [11, 22, 44, 176, 22, 44, 88, 352]
        assert len(network.pyramid(*images(1, 319, 340))) == 4


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (64, 100)])
def test_any_size_is_that_part_of_the_padded_result(network, size):
    first, second = images(1, *size)
    with torch.no_grad():
        flow = network(first, second)
        padded = network(pad_images(first, 16, 64), pad_images(second, 16, 64))
    assert flow.shape == (1, 2, *size)
    assert flow.isfinite().all()
    assert torch.equal(flow, padded[..., : size[0], : size[1]])


def test_a_batch_gives_what_its_pairs_give_alone(network):
    first, second = images(3, 64, 96)
    with torch.no_grad():
        together = network(first, second)
        alone = torch.cat([network(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_upsampling_mixes_neighbours_so_a_uniform_flow_stays_uniform(network):
    hidden = torch.randn(1, 64, 5, 6, generator=torch.Generator().manual_seed(0))
    motion = torch.tensor([1.5, -2.0]).view(1, 2, 1, 1)
    fine = network.decoder.upsample(motion.expand(1, 2, 5, 6), hidden)
    torch.testing.assert_close(fine, (4 * motion).expand(1, 2, 20, 24))


def test_every_parameter_learns(network):
    loss = sum(flow.square().mean() for flow in network.pyramid(*images(1, 64, 64)))
    loss.backward()
    unmoved = [name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    network.zero_grad()
    assert unmoved == []


def test_weights_come_back_from_a_file_as_they_were(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    loaded = load_network(tmp_path / "network.safetensors")
    pair = images(1, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(*pair), network(*pair))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(FlowError, match="belong to another network"):
        load_network(tmp_path / "other.safetensors")
