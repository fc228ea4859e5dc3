"""Turning conditions into channels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vidgen.networks.encoding import encode, tile_averages
from vidgen.types import Condition


@pytest.mark.parametrize("size", [(12, 16), (6, 8), (5, 7)])
@pytest.mark.parametrize("instances", [True, False])
def test_ids_are_pooled_as_one_hot_channels_are(size: tuple[int, int], instances: bool) -> None:
    labels = torch.randint(-1, 5, (2, 3, 24, 32), generator=torch.Generator().manual_seed(0))
    condition = Condition(labels=labels, instances=labels.clamp(min=0) if instances else None)
    ids, channels = (
        encode(condition, num_labels=5, use_instances=instances, as_ids=chosen).flatten(0, 1) for chosen in (True, False)
    )
    result = tile_averages(ids, size, 5)
    assert torch.equal(result, F.adaptive_avg_pool2d(channels, size))
    assert result.shape == (6, 5 + instances, *size)


def test_pictures_are_pooled_as_they_are() -> None:
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(tile_averages(pictures, (4, 4), 0), F.avg_pool2d(pictures, 2))
