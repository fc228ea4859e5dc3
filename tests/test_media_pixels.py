"""Between uint8 0..255 and float -1..1."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidgen.media import pixels


@pytest.fixture
def every_value() -> np.ndarray:
    """All 256 levels in uint8 [2,8,16,3]."""
    return np.random.default_rng(0).permutation(np.arange(768) % 256).astype(np.uint8).reshape(2, 8, 16, 3)


def test_every_level_survives_the_way_there_and_back(every_value: np.ndarray) -> None:
    np.testing.assert_array_equal(pixels.to_pixels(pixels.to_tensor(every_value)), every_value)
    np.testing.assert_array_equal(pixels.quantize(pixels.normalize(every_value)), every_value)


def test_arrays_and_tensors_give_the_same_bits(every_value: np.ndarray) -> None:
    torch.testing.assert_close(
        pixels.normalize(torch.from_numpy(every_value)), torch.from_numpy(pixels.normalize(every_value)), rtol=0, atol=0
    )
    values = np.random.default_rng(1).normal(size=(3, 50, 50)).astype(np.float32)
    np.testing.assert_array_equal(pixels.quantize(torch.from_numpy(values)).numpy(), pixels.quantize(values))


def test_black_is_minus_one_white_is_one_and_the_argument_stays() -> None:
    for original in (np.array([0, 51, 255], np.uint8), torch.tensor([0, 51, 255], dtype=torch.uint8), torch.tensor([0.0, 51, 255])):
        assert pixels.normalize(original).tolist() == pytest.approx([-1, -0.6, 1])
        assert original.tolist() == [0, 51, 255]


def test_what_lies_outside_is_clipped_and_ties_go_to_even() -> None:
    values = torch.tensor([-9.0, -1, -1 + 0.5 / 127.5, 0, 1.0, 9])
    assert pixels.quantize(values).tolist() == [0, 0, 0, 128, 255, 255]
    assert pixels.quantize(values.numpy()).tolist() == [0, 0, 0, 128, 255, 255]


def test_channels_move_and_memory_is_contiguous(every_value: np.ndarray) -> None:
    frames = pixels.to_tensor(every_value[:, ::-1])
    assert frames.shape == (2, 3, 8, 16)
    assert frames.is_contiguous()
    assert frames.dtype == torch.float32
    assert frames[1, 2, 0, 5].item() == pytest.approx(every_value[1, -1, 5, 2] / 127.5 - 1)
    back = pixels.to_pixels(frames.to(torch.float64).requires_grad_())
    assert back.flags["C_CONTIGUOUS"]
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, every_value[:, ::-1])
