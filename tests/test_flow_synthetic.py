from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flow.errors import FlowError
from flow.synthetic import Scenes, read_textures, to_texture
from flow.warp import warp


def smooth_textures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    small = [random.random((12, 12, 3), np.float32) for _ in range(6)]
    return [cv2.resize(grid, (300, 260), interpolation=cv2.INTER_CUBIC) for grid in small]


SCENES = Scenes(96, 128, smooth_textures(), photograph_share=1, flat_share=0, photometric_scale=0)


def away_from_edges(flow: torch.Tensor) -> torch.Tensor:
    """Pixels whose neighbours, three deep, move like them."""
    spread = F.max_pool2d(flow, 7, 1, 3) + F.max_pool2d(-flow, 7, 1, 3)
    return spread.amax(dim=1, keepdim=True) < 3


def test_the_flow_explains_every_visible_pixel():
    pairs = SCENES.batch(0, 12)
    sampled = F.max_pool2d(pairs.visible.float().neg(), 7, 1, 3).neg().bool() & away_from_edges(pairs.flow)
    error = (warp(pairs.second, pairs.flow) - pairs.first).abs().amax(dim=1, keepdim=True)
    assert sampled.float().mean() > 0.5
    assert torch.quantile(error[sampled], 0.99) < 0.03
    assert (pairs.second - pairs.first).abs().mean() > 10 * error[sampled].mean()


def test_hidden_pixels_are_not_explained():
    pairs = SCENES.batch(0, 12)
    error = (warp(pairs.second, pairs.flow) - pairs.first).abs().mean(dim=1, keepdim=True)
    assert 0.02 < (~pairs.visible).float().mean() < 0.4
    assert error[~pairs.visible].mean() > 10 * error[pairs.visible].mean()


def test_pixels_that_leave_the_frame_are_not_visible():
    pairs = SCENES.batch(1, 8)
    x = torch.arange(128) + pairs.flow[:, 0]
    assert not pairs.visible[:, 0][(x < -0.5) | (x > 127.5)].any()


def test_a_pair_is_a_pure_function_of_seed_step_and_index():
    batch = Scenes(64, 64).batch(5, 3)
    again = Scenes(64, 64).pair(5, 2)
    assert all(torch.equal(value[2], other) for value, other in zip((batch.first, batch.second, batch.flow), again, strict=False))
    others = (Scenes(64, 64).pair(6, 2), Scenes(64, 64).pair(5, 1), Scenes(64, 64, seed=1).pair(5, 2))
    assert not any(torch.equal(again[2], other[2]) for other in others)


def test_values_have_the_promised_shapes_and_ranges():
    pairs = Scenes(64, 96).batch(0, 2)
    assert pairs.first.shape == pairs.second.shape == (2, 3, 64, 96)
    assert pairs.flow.shape == (2, 2, 64, 96)
    assert pairs.visible.shape == (2, 1, 64, 96)
    assert pairs.visible.dtype == torch.bool
    assert pairs.first.dtype == pairs.flow.dtype == torch.float32
    assert min(pairs.first.min(), pairs.second.min()) >= -1
    assert max(pairs.first.max(), pairs.second.max()) <= 1


def test_motion_has_a_heavy_tail_and_stillness_happens():
    lengths = torch.stack([Scenes(32, 32, flat_share=1).pair(step, 0)[2].norm(dim=0) for step in range(120)])
    assert 0.1 < lengths.median() < 5
    assert torch.quantile(lengths[:, ::2, ::2].flatten(), 0.995) > 6 * lengths.median()
    assert (lengths.amax(dim=(1, 2)) == 0).any()
    assert lengths.isfinite().all()


def test_flat_scenes_have_large_areas_without_texture():
    flat, textured = (Scenes(64, 64, flat_share=share, photometric_scale=0).batch(0, 12).first for share in (1, 0))
    assert (flat.diff(dim=3).abs().amax(dim=1) < 1e-6).float().mean() > 0.7
    assert (textured.diff(dim=3).abs().amax(dim=1) < 1e-6).float().mean() < 0.5


def test_photographs_are_read_shrunk_and_used(tmp_path):
    picture = np.zeros((900, 1300, 3), np.uint8)
    picture[..., 2] = 200  # red, in the order of OpenCV
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/red.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    textures = read_textures(tmp_path)
    assert [texture.shape for texture in textures] == [(443, 640, 3)]
    assert textures[0][0, 0].tolist() == pytest.approx([200 / 255, 0, 0])
    first = Scenes(64, 64, textures, photograph_share=1, flat_share=0, photometric_scale=0).pair(0, 0)[0]
    assert first.mean(dim=(1, 2)).tolist() == pytest.approx([2 * 200 / 255 - 1, -1, -1], abs=1e-5)


def test_pictures_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(FlowError, match="holds no photographs"):
        read_textures(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(FlowError, match=r"broken\.jpg: is not a picture"):
        read_textures(tmp_path)
    with pytest.raises(FlowError, match=r"uint8 \[H,W,3\]"):
        to_texture(np.zeros((4, 4), np.uint8))
