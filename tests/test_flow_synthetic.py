from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flow.errors import FlowError
from flow.synthetic import KnownPair, Scenes, read_textures, to_texture
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


def known_pair(height: int = 80, width: int = 112, shift: tuple[int, int] = (3, 2)) -> KnownPair:
    """Noise that moves by `shift` (x, y) pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (height + 8, width + 8, 3)).astype(np.uint8)
    first, second = (noise[4 - y : 4 - y + height, 4 - x : 4 - x + width] for x, y in ((0, 0), shift))
    return KnownPair(first, second, np.broadcast_to(np.float16(shift), (height, width, 2)), np.ones((height, width), bool))


def test_known_pairs_are_cropped_and_varied_but_stay_exact():
    scenes = Scenes(64, 64, known_pairs=[known_pair()], known_share=1, photometric_scale=0)
    pairs = scenes.batch(0, 24)
    error = (warp(pairs.second, pairs.flow) - pairs.first).abs().amax(dim=1, keepdim=True)
    assert error[pairs.visible].max() < 1e-4
    assert pairs.visible.float().mean() > 0.8
    seen = {tuple(flow[:, 30, 30].tolist()) for flow in pairs.flow}
    assert seen <= {(3, 2), (-3, 2), (3, -2), (-3, -2), (0, 0)}
    assert len(seen) > 2
    assert len({float(image.sum()) for image in pairs.first}) > 12


def test_known_pairs_come_as_often_as_asked():
    red = KnownPair(*(np.full((64, 64, 3), 7, np.uint8),) * 2, np.zeros((64, 64, 2), np.float32), np.ones((64, 64), bool))
    scenes = Scenes(64, 64, known_pairs=[red], known_share=0.25, photometric_scale=0)
    num_known = sum(float(scenes.pair(0, index)[0].std()) < 1e-6 for index in range(80))
    assert 10 < num_known < 32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first": np.zeros((80, 111, 3), np.uint8)}, "first must be uint8"),
        ({"second": np.zeros((80, 112, 3), np.float32)}, "second must be uint8"),
        ({"flow": np.full((80, 112, 2), np.nan, np.float32)}, "NaN"),
        ({"visible": np.ones((80, 112), np.uint8)}, "visible must be bool"),
    ],
)
def test_known_pairs_that_cannot_be_used_are_named(change, words):
    with pytest.raises(FlowError, match=f"known pair 1: .*{words}"):
        Scenes(64, 64, known_pairs=[known_pair(), known_pair()._replace(**change)])


def test_known_pairs_smaller_than_the_training_images_are_refused():
    with pytest.raises(FlowError, match="112x80 is smaller than the training images, 128x128"):
        Scenes(128, 128, known_pairs=[known_pair()])


def test_some_scenes_stand_still_and_many_move_by_fractions_of_a_pixel():
    lengths = torch.stack([Scenes(64, 64).pair(0, index)[2].norm(dim=0).mean() for index in range(200)])
    assert 8 <= int((lengths == 0).sum()) <= 30
    assert int(((lengths > 0) & (lengths < 0.7)).sum()) > 20
    assert int((lengths > 5).sum()) > 10
