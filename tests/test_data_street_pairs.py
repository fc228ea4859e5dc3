from __future__ import annotations

import numpy as np
import pytest
import torch

from flow.synthetic import Scenes
from flow.warp import warp
from vidgen.data.street import Street
from vidgen.data.street_pairs import LOOKS, street_pairs, training_streets


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("speed", [8.0, -8.0])
def test_the_flow_of_a_street_takes_the_earlier_frame_to_the_later(speed):
    [(look, pair)] = street_pairs(Street(3, 96, 192, speed=speed), 30, 1, ["frames"])
    assert look == "frames"
    visible = torch.from_numpy(pair.visible)[None, None]
    error = (warp(as_tensor(pair.second), as_tensor(pair.flow)) - as_tensor(pair.first)).abs().mean(dim=1, keepdim=True)
    before = (as_tensor(pair.second) - as_tensor(pair.first)).abs().mean(dim=1, keepdim=True)
    assert error[visible].mean() < 0.35 * before[visible].mean()


def test_label_maps_and_line_art_share_the_flow_of_their_frames():
    pairs = dict(street_pairs(Street(3, 64, 128), 30, 1))
    assert list(pairs) == list(LOOKS)
    assert all(pair.flow is pairs["frames"].flow for pair in pairs.values())
    assert len(np.unique(pairs["labels"].first.reshape(-1, 3), axis=0)) <= 9
    assert set(np.unique(pairs["lines"].first)) == {0, 255}


def test_training_streets_are_large_enough_to_train_on():
    pairs = [pair for street in training_streets(3, 64, 160) for _, pair in street_pairs(street, 5, 1)]
    assert len(pairs) == 9
    assert Scenes(64, 160, known_pairs=pairs, known_share=1).batch(0, 2).first.shape == (2, 3, 64, 160)
