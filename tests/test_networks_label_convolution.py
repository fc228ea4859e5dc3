"""The short way through the first convolution gives what the dense one gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidgen.networks.encoding import encode
from vidgen.networks.label_convolution import convolve_labels, is_faster
from vidgen.translators import pix2pixhd
from vidgen.types import Condition

CLASSES = 6


def _blocks(seed: int, low: int = -1) -> torch.Tensor:
    """[2,1,40,64] of areas of one class, some of them of none."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(low, CLASSES, (2, 1, 4, 4), generator=generator)
    return coarse.repeat_interleave(10, 2).repeat_interleave(16, 3)


@torch.no_grad()
@pytest.mark.parametrize("num_pictures", [0, 2])
@pytest.mark.parametrize("num_styles", [0, 3])
@pytest.mark.parametrize("use_instances", [False, True])
def test_the_sum_of_table_rows_is_the_convolution(num_pictures: int, num_styles: int, use_instances: bool) -> None:
    torch.manual_seed(0)
    labels, instances = _blocks(0), _blocks(1, 0)
    pictures = torch.randn(2, 1, num_pictures, 40, 64) if num_pictures else None
    styles = torch.randn(2, num_styles, 40, 64) if num_styles else None
    channels = encode(
        Condition(labels=labels, frames=pictures, instances=instances), num_labels=CLASSES, use_instances=use_instances
    )[:, 0]
    dense = channels if styles is None else torch.cat([channels, styles], dim=1)
    conv = nn.Conv2d(dense.shape[1], 5, 7, padding=3, padding_mode="reflect")
    made = convolve_labels(
        conv,
        labels[:, 0],
        CLASSES,
        before_edges=None if pictures is None else pictures[:, 0],
        edges=channels[:, -1:] if use_instances else None,
        after_edges=styles,
    )
    torch.testing.assert_close(made, conv(dense), atol=1e-5, rtol=0)


def test_learning_goes_the_dense_way() -> None:
    conv = nn.Conv2d(3, 4, 7, padding=3, padding_mode="reflect")
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    assert not is_faster(conv, labels)
    with torch.no_grad():
        assert is_faster(conv, labels)
        assert not is_faster(nn.Conv2d(3, 4, 7, padding=3), labels)


@torch.no_grad()
@pytest.mark.parametrize("num_enhancers", [0, 1])
def test_a_translator_makes_the_same_picture_either_way(num_enhancers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pix2pixhd.Config(
        num_labels=CLASSES,
        use_instances=True,
        generator=pix2pixhd.Generator(base_channels=8, num_downsamplings=1, num_blocks=1, num_enhancers=num_enhancers),
        encoder=pix2pixhd.Encoder(base_channels=4, num_downsamplings=1),
        losses=pix2pixhd.LossWeights(perceptual_weight=0),
    )
    torch.manual_seed(0)
    translator = pix2pixhd.build(config).eval()
    condition = Condition(labels=_blocks(0), instances=_blocks(1, 0), styles=torch.rand(2, 1, 3, 40, 64))
    short, _ = translator.translate(condition)
    monkeypatch.setattr("vidgen.networks.label_convolution.is_faster", lambda conv, labels: False)
    dense, _ = translator.translate(condition)
    assert dense.frames.std() > 0.01
    torch.testing.assert_close(short.frames, dense.frames, atol=2e-4, rtol=0)
