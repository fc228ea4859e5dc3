"""Deformations: the published spline, the same for all that belongs together, and labels stay labels."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from vidgen.data.augment import AugmentSettings, deform, draw_positions, thin_plate_spline
from vidgen.data.clips import Clips
from vidgen.data.sequences import find_sequences, find_table
from vidgen.data.settings import DataSettings
from vidgen.errors import ConfigError
from vidgen.media.images import write_png
from vidgen.training.settings import load_run_config
from vidgen.types import Batch, Stage

SIZE = (40, 64)
STAGE = Stage("test", 10, 1e-3, 0.0)
DEEPSIM = AugmentSettings(thin_plate=0.99, shear=0.3, rotation_degrees=1, translation=0.2, cutmix=0.5, cutmix_largest=32)


def _positions(seed: int = 0, **values: float) -> np.ndarray:
    drawn = draw_positions(AugmentSettings(**values), np.random.default_rng(seed), SIZE)  # type: ignore[arg-type]
    assert drawn is not None
    return drawn


def test_a_spline_takes_every_control_point_to_its_target():
    rng = np.random.default_rng(0)
    source = np.stack(np.meshgrid([0.0, 30, 60], [0.0, 20, 40]), -1).reshape(-1, 2)
    target = source + rng.uniform(-6, 6, source.shape)
    np.testing.assert_allclose(thin_plate_spline(source, target, source), target, atol=1e-9)


def test_the_spline_is_that_of_scipy():
    interpolate = pytest.importorskip("scipy.interpolate")
    rng = np.random.default_rng(1)
    source, target, points = rng.uniform(0, 60, (9, 2)), rng.uniform(0, 60, (9, 2)), rng.uniform(0, 60, (50, 2))
    expected = interpolate.RBFInterpolator(source, target, kernel="thin_plate_spline")(points)
    np.testing.assert_allclose(thin_plate_spline(source, target, points), expected, atol=1e-6)


def test_an_affine_shift_of_the_control_points_bends_nothing():
    source = np.stack(np.meshgrid([0.0, 30, 60], [0.0, 20, 40]), -1).reshape(-1, 2)
    points = np.random.default_rng(2).uniform(0, 60, (20, 2))
    matrix, offset = np.array([[1.1, 0.2], [-0.1, 0.9]]), np.array([3.0, -2.0])
    np.testing.assert_allclose(thin_plate_spline(source, source @ matrix + offset, points), points @ matrix + offset, atol=1e-8)


def test_control_points_move_by_up_to_the_given_part_of_width_and_height():
    for seed in range(20):
        moved = _positions(seed, thin_plate=1.0, thin_plate_shift=0.1) - np.mgrid[: SIZE[0], : SIZE[1]]
        corners = moved[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert (np.abs(corners[0]) <= 0.1 * (SIZE[0] - 1) + 1e-3).all()
        assert (np.abs(corners[1]) <= 0.1 * (SIZE[1] - 1) + 1e-3).all()
        assert np.abs(corners).max() > 0.5


def test_the_probability_is_the_part_of_clips_that_are_bent():
    settings_ = AugmentSettings(thin_plate=0.25)
    bent = [draw_positions(settings_, np.random.default_rng([7, seed]), (8, 8)) is not None for seed in range(800)]
    assert 0.2 < np.mean(bent) < 0.3


def test_a_draw_depends_on_its_generator_alone():
    first, again, other = (draw_positions(DEEPSIM, np.random.default_rng([0, 3, step]), SIZE) for step in (5, 5, 6))
    assert first is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_nothing_is_drawn_where_nothing_is_asked_for():
    assert all(draw_positions(AugmentSettings(), np.random.default_rng(seed), SIZE) is None for seed in range(20))


@pytest.mark.parametrize("values", [{"translation": 0.2}, {"rotation_degrees": 20.0}, {"shear": 0.3}])
def test_each_affine_change_is_made_to_half_of_the_clips(values):
    drawn = [draw_positions(AugmentSettings(**values), np.random.default_rng([1, seed]), SIZE) for seed in range(200)]
    assert 0.35 < np.mean([positions is not None for positions in drawn]) < 0.65


def test_a_translation_shifts_every_pixel_alike():
    for seed in range(10):
        drawn = draw_positions(AugmentSettings(translation=0.2), np.random.default_rng(seed), SIZE)
        if drawn is not None:
            moved = drawn - np.mgrid[: SIZE[0], : SIZE[1]]
            assert np.ptp(moved, axis=(1, 2)).max() < 1e-3
            assert np.abs(moved[0]).max() <= 0.2 * SIZE[0]


def test_cutmix_exchanges_two_patches_and_leaves_the_rest():
    positions = _positions(3, cutmix=1.0, cutmix_smallest=8, cutmix_largest=12)
    numbers = np.arange(SIZE[0] * SIZE[1], dtype=np.int64).reshape(SIZE)
    made = deform(numbers, positions)
    changed = made != numbers
    assert 0 < changed.sum() <= 2 * 12 * 12
    if changed.sum() == 2 * round((changed.sum() / 2) ** 0.5) ** 2:  # the patches do not overlap
        assert sorted(made[changed]) == sorted(numbers[changed])


@given(seed=some.integers(0, 10**6), height=some.integers(1, 50), width=some.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_labels_hold_no_new_value_whatever_the_deformation(seed, height, width):
    rng = np.random.default_rng(seed)
    ids = rng.choice([-1, 0, 7, 33_003], (height, width)).astype(np.int64)
    drawn = draw_positions(DEEPSIM, rng, (height, width))
    made = ids if drawn is None else deform(ids, drawn)
    assert made.dtype == np.int64
    assert made.shape == ids.shape
    assert set(made.ravel().tolist()) <= set(ids.ravel().tolist())


def test_picture_and_labels_are_deformed_alike():
    labels = np.zeros(SIZE, np.int64)
    labels[10:30, 20:45] = 1
    picture = np.repeat((labels * 200).astype(np.uint8)[None], 3, axis=0)
    for seed in range(10):
        positions = _positions(seed, thin_plate=1.0)
        bent, shown = deform(labels, positions), deform(picture, positions)
        assert ((shown[0] > 100) == (bent == 1)).mean() > 0.995
        assert (bent != labels).mean() > 0.005


def test_beyond_the_border_the_picture_is_reflected():
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None], 40, axis=0)
    positions = np.mgrid[:40, :64].astype(np.float32)
    positions[1] -= 5
    for array in (ramp, ramp.astype(np.int64)):
        assert deform(array, positions)[0, :8].tolist() == [5, 4, 3, 2, 1, 0, 1, 2]


def _write_pair(root: Path) -> Path:
    labels = np.zeros((64, 96), np.uint8)
    labels[16:48, 24:72] = 1
    texture = np.random.default_rng(0).integers(0, 60, (64, 96, 3))
    write_png(root / "image.png", (texture + labels[:, :, None] * 150).astype(np.uint8))
    write_png(root / "labels.png", labels)
    return root


def _clips(root: Path, **values: object) -> Clips:
    data = DataSettings.model_validate(
        {
            "root": root,
            "target": "image.png",
            "condition": {"labels": {"folder": "labels.png", "num_classes": 2}},
            "flip": False,
            **values,
        }
    )
    sequences = find_sequences(data)
    return Clips(data, sequences, find_table(data, sequences), seed=0, size_multiple=4, flow=None)


def _batches(clips: Clips, steps: range) -> list[Batch]:
    return [clips.batch(STAGE, step, range(1), primer_frames=0, batch_size=1) for step in steps]


def test_one_pair_gives_a_new_pair_every_step_and_the_same_for_the_same_step(tmp_path):
    root = _write_pair(tmp_path)
    clips, again = (_clips(root, augment={"thin_plate": 0.99}) for _ in range(2))
    targets = [batch.target for batch in _batches(clips, range(6))]
    assert not any(torch.equal(first, second) for first, second in itertools.pairwise(targets))
    assert torch.equal(_batches(again, range(4, 5))[0].target, targets[4])
    for batch in _batches(clips, range(6)):
        assert batch.condition.labels is not None
        inside = batch.condition.labels[0, 0] == 1
        assert batch.target[0, 0, :, inside].mean() > batch.target[0, 0, :, ~inside].mean() + 0.9


def test_samples_show_the_pair_as_it_is(tmp_path):
    root = _write_pair(tmp_path)
    plain = _clips(root).excerpt(0, 0, 1, 0)
    assert torch.equal(_clips(root, augment={"thin_plate": 1.0}).excerpt(0, 0, 1, 0).target, plain.target)


def test_edges_are_those_of_the_deformed_picture(tmp_path):
    root = _write_pair(tmp_path)
    shown = {"edges": {"low": 150, "high": 300, "blur": 1.5}}
    clips = _clips(root, condition=shown, augment={"thin_plate": 1.0})
    from vidgen.media.conditions import canny_edges

    for batch in _batches(clips, range(3)):
        picture = ((batch.target[0, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        assert batch.condition.frames is not None
        found = batch.condition.frames[0, 0, 0].numpy() > 0
        assert found.any()
        np.testing.assert_array_equal(found, canny_edges(picture, 150, 300, 1.5) > 0)


def test_a_cutmix_range_upside_down_is_refused_with_its_place(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: {kind: vid2vid}\ndata: {root: x, augment: {cutmix_smallest: 90, cutmix_largest: 9}}\n")
    with pytest.raises(ConfigError, match=r"data.augment.*cutmix_smallest 90 exceeds cutmix_largest 9"):
        load_run_config(path, [])
