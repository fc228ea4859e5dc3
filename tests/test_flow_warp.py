from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from flow import warp as geometry
from flow.warp import compose, forward_backward_occlusion, in_frame, motion_boundaries, pad_images, resize_flow, warp


def ramp(height: int, width: int) -> torch.Tensor:
    """A picture whose bilinear interpolation is exact: x in channel 0, y in channel 1, 3x - 2y in channel 2."""
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    return torch.stack([x, y, 3 * x - 2 * y])[None]


def uniform(dx: float, dy: float, height: int = 24, width: int = 31) -> torch.Tensor:
    return torch.tensor([dx, dy]).double().view(1, 2, 1, 1).expand(1, 2, height, width).clone()


def linear_flow(matrix: list[list[float]], height: int = 24, width: int = 31) -> torch.Tensor:
    """Flow of p -> centre + matrix (p - centre)."""
    grid = ramp(height, width)[0, :2]
    centred = grid - torch.tensor([(width - 1) / 2, (height - 1) / 2]).double().view(2, 1, 1)
    return (torch.einsum("ij,jhw->ihw", torch.tensor(matrix, dtype=torch.float64), centred) - centred)[None]


def rotation(degrees: float) -> list[list[float]]:
    cos, sin = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    return [[cos, -sin], [sin, cos]]


def test_warp_equals_the_original_resample(parity_root):
    stored = np.load(parity_root / "warp.npz")
    ours = warp(torch.from_numpy(stored["input/image"]), torch.from_numpy(stored["input/flow"]))
    assert json.loads(stored["config"].tobytes())
    torch.testing.assert_close(ours, torch.from_numpy(stored["output/warped"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "flow",
    [uniform(0, 0), uniform(2, -3), uniform(0.25, 1.5), linear_flow(rotation(10)), linear_flow([[1.2, 0], [0, 1.2]])],
    ids=["zero", "whole pixels", "fractions", "rotation", "zoom"],
)
def test_warping_a_ramp_is_exact_inside_the_frame(flow):
    grid = ramp(24, 31)[:, :2]
    moved = grid + flow
    expected = torch.cat([moved, 3 * moved[:, :1] - 2 * moved[:, 1:]], dim=1)
    inner = (moved[:, 0] >= 0) & (moved[:, 0] <= 30) & (moved[:, 1] >= 0) & (moved[:, 1] <= 23)
    assert inner.float().mean() > 0.5
    difference = (warp(ramp(24, 31), flow) - expected).abs().amax(1)
    assert difference[inner].max() < 1e-12


def test_warping_beyond_the_border_repeats_the_border():
    image = ramp(24, 31)
    assert (warp(image, uniform(1000, 0))[:, 0] - 30).abs().max() < 1e-12


def test_warp_keeps_its_precision_under_bfloat16_autocast():
    image = ramp(4, 300).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        warped = warp(image, torch.zeros(1, 2, 4, 300, dtype=torch.bfloat16))
    assert warped.dtype == torch.float32
    assert (warped - image).abs().max() < 1e-3
    assert warp(image.bfloat16(), torch.zeros(1, 2, 4, 300)).dtype == torch.bfloat16


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_flow_that_is_not_finite_shows_in_the_result_and_its_backward_pass_survives(value):
    flow = uniform(0, 0).requires_grad_()
    broken = flow.clone()
    broken[0, 0, 3, 4] = value
    warped = warp(ramp(24, 31).requires_grad_(), broken)
    warped.sum().backward()
    assert warped[0, :, 3, 4].isnan().all()
    assert warped.isfinite().sum() == warped.numel() - 3


def test_gradients_of_warp_resize_and_compose_are_right():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    flow = (torch.rand(1, 2, 5, 6, generator=generator, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, f: warp(i, f), (image, flow))
    assert torch.autograd.gradcheck(lambda f: resize_flow(f, (3, 9)), (flow,))
    assert torch.autograd.gradcheck(lambda f: compose(f, f), (flow,))


def test_pixels_that_leave_the_frame_are_counted_exactly():
    assert in_frame(uniform(3, -2)).sum() == (31 - 3) * (24 - 2)
    assert in_frame(uniform(0, 0)).all()


def square_scene(dx: int = 7, dy: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A 60x60 square over a still ground moving by (dx, dy): forward flow, backward flow, the pixels it hides."""
    before, after = torch.zeros(120, 140, dtype=torch.bool), torch.zeros(120, 140, dtype=torch.bool)
    before[30:90, 40:100] = True
    after[30 + dy : 90 + dy, 40 + dx : 100 + dx] = True
    motion = torch.tensor([dx, dy]).float().view(1, 2, 1, 1)
    return before * motion, -(after * motion), (after & ~before)[None, None]


def test_the_ground_hidden_by_a_moving_square_is_found_exactly():
    forward, backward, hidden = square_scene()
    assert hidden.sum() == 579
    assert torch.equal(forward_backward_occlusion(forward, backward), hidden)


def test_consistent_flows_leave_nothing_occluded_but_what_leaves_the_frame():
    occluded = forward_backward_occlusion(uniform(3, 2), uniform(-3, -2))
    assert torch.equal(occluded, ~in_frame(uniform(3, 2)))
    assert not forward_backward_occlusion(uniform(3, 2), uniform(-3, -2), with_out_of_frame=False).any()


def test_the_absolute_tolerance_follows_the_height_only_when_asked():
    forward, backward = uniform(1.0, 0.0, 218, 40), uniform(-0.5, 0.0, 218, 40)
    assert not forward_backward_occlusion(forward, backward, with_out_of_frame=False).any()
    assert forward_backward_occlusion(forward, backward, reference_height=436, with_out_of_frame=False).all()


def test_motion_boundaries_are_the_edge_of_the_moving_square():
    forward, backward, hidden = square_scene()
    edge = motion_boundaries(forward)
    assert 2 * 60 < edge.sum() <= 4 * 60
    assert not edge[..., 35:85, 45:95].any()
    both = forward_backward_occlusion(forward, backward, with_motion_boundaries=True)
    assert torch.equal(both, hidden | edge)


@pytest.mark.parametrize("size", [(12, 62), (48, 31), (7, 9), (24, 31)])
def test_resizing_scales_each_axis_by_its_own_ratio(size):
    resized = resize_flow(uniform(4, 6), size)
    assert resized.shape == (1, 2, *size)
    torch.testing.assert_close(resized, uniform(4 * size[1] / 31, 6 * size[0] / 24, *size))


def test_resizing_a_zoom_keeps_it_the_same_zoom():
    zoom = [[1.1, 0.0], [0.0, 0.9]]
    smaller = resize_flow(linear_flow(zoom, 64, 64), (32, 16))
    moved_by_a_zoom_at_the_small_size = linear_flow(zoom, 32, 16)
    torch.testing.assert_close(smaller[..., 3:-3, 3:-3], moved_by_a_zoom_at_the_small_size[..., 3:-3, 3:-3], atol=1e-12, rtol=0)


def test_composition_of_rotations_is_the_rotation_by_the_sum():
    composed = compose(linear_flow(rotation(4)), linear_flow(rotation(5)))
    expected = linear_flow(rotation(9))
    inside = in_frame(linear_flow(rotation(4)))
    grid = ramp(24, 31)[:, :2] + linear_flow(rotation(4))
    inside &= (grid[:, :1] >= 0) & (grid[:, :1] <= 30) & (grid[:, 1:] >= 0) & (grid[:, 1:] <= 23)
    assert inside.double().mean() > 0.8
    assert ((composed - expected).abs() * inside).max() < 1e-12


def test_composing_with_no_motion_changes_nothing():
    flow = linear_flow(rotation(7))
    torch.testing.assert_close(compose(torch.zeros_like(flow), flow), flow, atol=1e-12, rtol=0)
    assert torch.equal(compose(flow, torch.zeros_like(flow)), flow)


def test_the_constants_are_the_published_ones():
    assert (geometry.FORWARD_BACKWARD_RELATIVE, geometry.FORWARD_BACKWARD_ABSOLUTE) == (0.01, 0.5)


def test_padding_repeats_the_lower_and_right_border():
    image = ramp(5, 7)
    padded = pad_images(image, 4, 12)
    assert padded.shape == (1, 3, 12, 12)
    assert torch.equal(padded[..., :5, :7], image)
    assert torch.equal(padded[..., 5:, :7], image[..., 4:, :].expand(1, 3, 7, 7))
    assert pad_images(image, 1, 1).shape == image.shape


def test_shrinking_one_side_alone_averages_along_it():
    """Columns of period four whose middle two, that plain interpolation would take, are not the mean of zero."""
    columns = torch.tensor([1.0, -1.0, -1.0, 1.0]).repeat(8)
    wide = columns.expand(1, 2, 6, 32)
    shrunk = resize_flow(wide, (6, 8))[..., 1:-1]
    assert shrunk.abs().max() < 1e-5
    tall = wide.transpose(2, 3)
    assert resize_flow(tall, (8, 6))[..., 1:-1, :].abs().max() < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 2), (2, 5)])
def test_the_smallest_pictures_are_warped_too(size):
    image = ramp(*size)
    still = warp(image, torch.zeros(1, 2, *size, dtype=torch.float64))
    assert (still - image).abs().max() < 1e-12
