"""Flow that is corrected by the conditions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidgen.media import conditions, images
from vidgen.networks.alignment import correction

STRIDE = 4


def tiles(labels: Tensor, num_labels: int = 4) -> Tensor:
    """Labels [N,H,W] as shares of classes in tiles, [N,num_labels,H/4,W/4]."""
    return F.avg_pool2d(F.one_hot(labels, num_labels).movedim(-1, 1).float(), STRIDE)


def blobs(height: int = 96, width: int = 128) -> Tensor:
    """Labels [1,H,W] of a few wide regions."""
    noise = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(3))
    return F.interpolate(noise, size=(height, width), mode="bicubic").argmax(1)


def moved(labels: Tensor, flow: Tensor) -> Tensor:
    """Labels fetched along a flow from the grid of the result."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in labels.shape[-2:]), indexing="ij")
    x = (columns + flow[0, 0]).round().long().clamp(0, labels.shape[-1] - 1)
    y = (rows + flow[0, 1]).round().long().clamp(0, labels.shape[-2] - 1)
    return labels[:, y, x]


def error(flow: Tensor, truth: Tensor) -> float:
    return float((flow - truth).norm(dim=1).mean())


def test_a_shift_of_all_labels_is_found():
    before = blobs()
    truth = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 96, 128)
    found = correction(torch.zeros(1, 2, 96, 128), tiles(before), tiles(moved(before, truth)), STRIDE)
    assert error(found, truth) < 0.25 * error(torch.zeros_like(truth), truth)


def test_what_is_right_already_stays():
    before = blobs()
    truth = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 96, 128)
    found = correction(truth, tiles(before), tiles(moved(before, truth)), STRIDE)
    assert error(found, torch.zeros_like(truth)) < 0.3


def test_a_camera_that_goes_forward_is_found():
    before = blobs()
    x, y = torch.meshgrid(torch.linspace(-4, 4, 128), torch.linspace(-3, 3, 96), indexing="xy")
    truth = torch.stack([x, y])[None]
    found = correction(torch.zeros(1, 2, 96, 128), tiles(before), tiles(moved(before, truth)), STRIDE)
    assert error(found, truth) < 0.75 * error(torch.zeros_like(truth), truth)


@pytest.mark.parametrize("start", [0.0, 1.5])
def test_conditions_that_say_nothing_change_nothing(start):
    flat = tiles(torch.ones(2, 96, 128, dtype=torch.int64))
    assert correction(torch.full((2, 2, 96, 128), start), flat, flat, STRIDE).abs().max() == 0


def test_a_cut_gives_a_bounded_correction_and_no_gradient():
    flow = torch.zeros(1, 2, 96, 128, requires_grad=True)
    found = correction(flow, tiles(blobs()), tiles(torch.zeros(1, 96, 128, dtype=torch.int64)), STRIDE)
    assert found.isfinite().all()
    assert found.abs().max() <= 2 * 4 * STRIDE
    assert not found.requires_grad


def test_precision_is_that_of_float32_also_where_convolutions_have_half():
    before = blobs()
    truth = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 96, 128)
    given = (torch.zeros(1, 2, 96, 128), tiles(before), tiles(moved(before, truth)), STRIDE)
    with torch.autocast("cpu", torch.bfloat16):
        found = correction(*given)
    assert torch.equal(found, correction(*given))


def test_samples_are_corrected_apart():
    before, still = blobs(), torch.zeros(2, 2, 96, 128)
    truth = torch.tensor([[3.0, -2.0], [-1.0, 2.0]]).view(2, 2, 1, 1).expand(2, 2, 96, 128)
    now = torch.cat([moved(before, each[None]) for each in truth])
    both = correction(still, tiles(before.expand(2, -1, -1)), tiles(now), STRIDE)
    alone = [correction(still[:1], tiles(before), tiles(each[None]), STRIDE) for each in now]
    torch.testing.assert_close(both, torch.cat(alone))


def test_borders_of_a_real_street_show_where_the_camera_turned_otherwise(data_root):
    """Truth: flow between the frames themselves."""
    names = [f"0016E5_{number:05d}.png" for number in (7959, 7961)]
    folder = data_root / "camvid"
    labels = [conditions.resize_labels(images.read_labels(folder / "labels/0016E5" / name), (192, 256)) for name in names]
    frames = [conditions.resize_picture(images.read_picture(folder / "images/0016E5" / name), (192, 256)) for name in names]
    before, now = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    truth = torch.from_numpy(engine.calc(now, before, None)).movedim(-1, 0)[None]
    classes = [tiles(torch.from_numpy(each.astype(np.int64))[None], 256) for each in labels]
    across = torch.linspace(-1, 1, 256).expand(1, 1, 192, 256)
    wrong = truth + torch.cat([1.5 + across, 1 - across], dim=1)
    assert error(wrong + correction(wrong, *classes, STRIDE), truth) < 0.6 * error(wrong, truth)
