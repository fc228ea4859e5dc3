"""Blending with the moved last result: flicker falls, motion stays, cuts stay cuts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flow.engines import estimate
from flow.warp import warp
from vidgen.media.conditions import resize_picture
from vidgen.media.frames import open_source
from vidgen.media.pixels import to_tensor
from vidgen.media.smoothing import TemporalSmoother

SHIFT = 2


def _street(num_frames: int = 6, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """A smooth texture that moves to the right by SHIFT pixels a frame."""
    rng = np.random.default_rng(0)
    wide = rng.random((height // 8, (width + SHIFT * num_frames) // 8 + 2, 3))
    picture = np.kron(wide, np.ones((8, 8, 1)))
    for _ in range(3):
        picture = (picture + np.roll(picture, 3, 0) + np.roll(picture, 3, 1)) / 3
    frames = []
    for index in range(num_frames):
        start = SHIFT * (num_frames - index)
        frames.append((picture[:height, start : start + width] * 255).astype(np.uint8))
    return frames


def _flickering(frames: list[np.ndarray]) -> list[np.ndarray]:
    """The same frames with a noise of their own each, as a model makes that sees one frame at a time."""
    rng = np.random.default_rng(1)
    return [np.clip(frame + rng.normal(0, 20, frame.shape), 0, 255).astype(np.uint8) for frame in frames]


def _change_along_motion(frames: list[np.ndarray]) -> float:
    pairs = zip(frames[1:], frames, strict=False)
    inner = slice(8, -8)
    return float(np.mean([np.abs(b[inner, inner].astype(float) - np.roll(a, SHIFT, 1)[inner, inner]).mean() for b, a in pairs]))


def test_flicker_falls_with_the_weight_and_the_picture_moves_on() -> None:
    street = _street()
    noisy = _flickering(street)
    changes = []
    for weight in (0.0, 0.4, 0.8):
        steadier = TemporalSmoother(weight)
        result = [steadier(made, shown) for made, shown in zip(noisy, street, strict=True)]
        changes.append(_change_along_motion(result))
        if weight == 0:
            assert all(np.array_equal(a, b) for a, b in zip(result, noisy, strict=True))
    assert changes[0] > 1.5 * changes[1] > 2 * changes[2]
    error = np.abs(result[-1][8:-8, 16:-8].astype(float) - street[-1][8:-8, 16:-8]).mean()
    assert error < 0.75 * np.abs(noisy[-1][8:-8, 16:-8].astype(float) - street[-1][8:-8, 16:-8]).mean()


def test_nothing_of_the_last_frame_comes_through_a_cut() -> None:
    before, after = np.full((64, 96, 3), 30, np.uint8), np.full((64, 96, 3), 220, np.uint8)
    steadier = TemporalSmoother(1.0)
    steadier(before, before)
    assert np.array_equal(steadier(after, after), after)


@pytest.mark.parametrize("size", [(33, 47), (400, 300)])
def test_any_size_works_and_a_still_scene_with_weight_one_stands_still(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    steadier = TemporalSmoother(1.0)
    first = steadier(rng.integers(0, 256, (*size, 3), dtype=np.uint8), shown)
    second = steadier(rng.integers(0, 256, (*size, 3), dtype=np.uint8), shown)
    assert first.shape == (*size, 3)
    assert np.abs(first.astype(int) - second).max() <= 1


def test_a_real_drive_is_steadier_with_blending(data_root: Path) -> None:
    street = [resize_picture(frame.pixels, (120, 160)) for frame in open_source(data_root / "camvid/images/0016E5").read(0, 4)]
    noisy = _flickering(street)
    steadier = TemporalSmoother(0.7)
    steady = [steadier(made, shown) for made, shown in zip(noisy, street, strict=True)]

    def warping_error(frames: list[np.ndarray]) -> float:
        errors = []
        for index in range(1, len(frames)):
            flow = estimate(to_tensor(street[index])[None], to_tensor(street[index - 1])[None])
            errors.append((warp(to_tensor(frames[index - 1])[None], flow) - to_tensor(frames[index])[None]).square().mean().item())
        return float(np.mean(errors))

    assert warping_error(steady) < 0.6 * warping_error(noisy)
