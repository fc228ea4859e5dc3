"""HED: edges lie where they are in the picture, weights come under old and new names, and nothing else is taken for them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidgen.commands.condition import condition
from vidgen.errors import CheckpointError, InputError
from vidgen.media.images import read_picture, write_png
from vidgen.networks.hed import HolisticallyNestedEdges
from vidgen.weights.pretrained import load_hed


def brightness_detector() -> HolisticallyNestedEdges:
    """Its stages pass brightness on, pixel by pixel, and all have a say."""
    network = HolisticallyNestedEdges(16)
    for name, value in network.named_parameters():
        value.zero_()
        if name.startswith("netVgg") and value.ndim == 4:
            value[0, :, 1, 1] = 1 / value.shape[1] if value.shape[1] == 3 else 0
            value[0, 0, 1, 1] = max(value[0, 0, 1, 1].item(), 1.0)
        elif name.startswith("netScore") and value.ndim == 4:
            value[0, 0] = 0.01
        elif name.startswith("netCombine") and value.ndim == 4:
            value.fill_(1.0)
    return network


@pytest.mark.parametrize(("size", "spot"), [((64, 96), (24, 40)), ((61, 83), (50, 7))])
def test_edges_lie_where_they_are_in_the_picture(size: tuple[int, int], spot: tuple[int, int]) -> None:
    picture = torch.full((1, 3, *size), -1.0)
    picture[..., spot[0], spot[1]] = 1
    strengths = brightness_detector()(picture)[0, 0]
    assert strengths.shape == size
    assert divmod(int(strengths.argmax()), size[1]) == spot


@pytest.mark.parametrize("prefix", ["net", "module"])
def test_weights_of_the_port_are_read_under_old_and_new_names(prefix: str, tmp_path: Path) -> None:
    network = brightness_detector()
    state = {name.replace("net", prefix, 1): value for name, value in network.state_dict().items()}
    torch.save(state, tmp_path / "hed.pth")
    again = load_hed(tmp_path / "hed.pth", width_divisor=16)
    pictures = torch.rand(1, 3, 32, 48) * 2 - 1
    torch.testing.assert_close(again(pictures), network(pictures))


def test_a_file_of_something_else_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    write_png(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        condition(str(tmp_path / "a.png"), str(tmp_path / "out.png"), kind="edge-map", edge_network=tmp_path / "other.pth")
    with pytest.raises(InputError, match="edge-map"):
        condition(str(tmp_path / "a.png"), str(tmp_path / "out.png"), kind="lines", edge_network=tmp_path / "other.pth")
    assert not (tmp_path / "out.png").exists()


def test_a_video_is_drawn_with_the_edges_of_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = HolisticallyNestedEdges()
    for name, value in network.named_parameters():
        value.copy_(torch.zeros_like(value))
        if name == "netVggOne.0.weight":
            value[0, :, 1, 1] = 1.0
        elif name == "netVggOne.2.weight":
            value[0, 0, 1, 1] = 1.0
        elif name == "netScoreOne.weight" or name == "netCombine.0.weight":
            value[0, 0] = 1.0
        elif name == "netCombine.0.bias":
            value.fill_(-300.0)
    torch.save(network.state_dict(), tmp_path / "hed.pth")
    picture = np.zeros((64, 64, 3), np.uint8)
    cv2.line(picture, (8, 32), (56, 32), (255, 255, 255), 1)
    write_png(tmp_path / "a.png", picture)
    condition(str(tmp_path / "a.png"), str(tmp_path / "out.png"), kind="edge-map", edge_network=tmp_path / "hed.pth")
    drawn = read_picture(tmp_path / "out.png")[..., 0] == 0
    assert drawn[32, 12:52].all()
    assert drawn.sum() == drawn[32].sum()
