"""Pairs to fuse, made from frames: what is in focus is the frame's own, and what is not takes no color across a sharp edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner

from tools.fusion_pairs import by_night_and_day, defocused, main, sharper, through_aperture, to_linear, to_pixels
from vidgen.media.images import read_picture, write_png

RED, GREEN = (200, 20, 20), (20, 160, 20)


def test_light_and_pixels_are_each_others_inverse() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert (to_pixels(to_linear(levels)) == levels).all()
    assert to_linear(np.full((1, 1, 3), 188, np.uint8)).mean() == pytest.approx(0.5, abs=0.005)


def test_a_point_out_of_focus_becomes_a_disk_of_the_same_light() -> None:
    point = np.zeros((21, 21), np.float32)
    point[10, 10] = 1
    disk = through_aperture(point, 4)
    assert disk.sum() == pytest.approx(1, abs=1e-5)
    lit = np.argwhere(disk > disk.max() / 2) - 10
    assert np.hypot(*lit.T).max() == pytest.approx(4, abs=0.5)
    assert disk.max() == pytest.approx(1 / (np.pi * 4**2), rel=0.05)


def test_a_sharp_foreground_lends_no_color_to_what_is_behind_it() -> None:
    frame = np.full((48, 64, 3), GREEN, np.uint8)
    near = np.zeros((48, 64), bool)
    near[12:36, 20:44] = True
    frame[near] = RED
    near_in_focus, far_in_focus = (picture.astype(int) for picture in defocused(frame, near, 4))
    inside, outside = np.zeros_like(near), ~near
    inside[15:33, 23:41] = True
    outside[9:39, 17:47] = False
    assert np.abs(near_in_focus[inside] - RED).max() <= 1
    assert np.abs(near_in_focus[outside] - GREEN).max() <= 1  # one pixel from a sharp edge, nothing is red
    assert np.abs(far_in_focus[18:30, 26:38] - RED).max() <= 1
    assert np.abs(far_in_focus[:6] - GREEN).max() <= 1
    edge = far_in_focus[24, 12:28, 0]
    assert (np.diff(edge) >= -1).all()  # the blurred foreground spreads over both sides of its edge
    assert GREEN[0] + 20 < edge[6] < edge[9] < RED[0] - 5


def test_the_background_behind_a_blurred_foreground_comes_from_around_it() -> None:
    frame = np.full((48, 64, 3), GREEN, np.uint8)
    near = np.zeros((48, 64), bool)
    near[:, 31:33] = True
    frame[near] = (255, 255, 255)
    _, far_in_focus = defocused(frame, near, 5)
    share = to_linear(far_in_focus)[24, 31:33, 0].mean()
    assert share == pytest.approx(0.23, abs=0.06)  # a pole of 2 pixels in a disk of 11: mostly the green behind it


def test_a_night_and_a_day_each_lose_what_the_other_keeps() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(64, 0).repeat(3, 2)
    night, day = (picture.astype(float) for picture in by_night_and_day(ramp, np.random.default_rng(0)))
    assert np.ptp(day[:, 220:, 0]) == 0  # its bright parts are white
    assert np.ptp(night[:, 220:, 0].mean(axis=0)) > 8
    for picture, is_noisy in ((night, True), (day, False)):
        noise, range_ = picture[:, 8:40, 1].std(axis=0).max(), np.ptp(picture[:, 8:40, 1].mean(axis=0))
        assert bool(noise > 0.1 * range_) is is_noisy
    assert night[:, 100:, 2].mean() > night[:, 100:, 0].mean()
    assert day[:, 20:140, 0].mean() > day[:, 20:140, 2].mean()


def test_frames_become_pairs_for_training_and_apart_from_them_for_the_test(tmp_path: Path) -> None:
    for index in range(9):
        write_png(tmp_path / "frames" / f"{index}.png", skimage.data.chelsea()[index : index + 96, :128])
        write_png(tmp_path / "labels" / f"{index}.png", np.repeat(np.uint8([[1, 8]]), 96, 0).repeat(64, 1))
    arguments = ["make", "focus", str(tmp_path / "frames"), str(tmp_path / "labels"), "-o", str(tmp_path / "data")]
    result = CliRunner().invoke(main, [*arguments, "--height", "48", "--held-out", "2"], catch_exceptions=False)
    assert result.exit_code == 0
    names = {part: sorted(path.stem for path in (tmp_path / "data" / part / "source2").iterdir()) for part in ("train", "test")}
    assert names == {"train": ["00000", "00001", "00002"], "test": ["00007", "00008"]}
    pair = [read_picture(tmp_path / "data" / "test" / role / "00007.png").astype(int) for role in ("source", "source2", "target")]
    assert pair[0].shape == (48, 64, 3)
    assert np.abs(pair[0][:, 36:] - pair[2][:, 36:]).max() <= 1 < np.abs(pair[1][:, 36:] - pair[2][:, 36:]).max()
    assert np.abs(pair[1][:, :24] - pair[2][:, :24]).max() <= 1 < np.abs(pair[0][:, :24] - pair[2][:, :24]).max()
    both = sharper(*(part.astype(np.uint8) for part in pair[:2]))
    assert np.abs(both - pair[2]).mean() < 0.5 * min(np.abs(part - pair[2]).mean() for part in pair[:2])
