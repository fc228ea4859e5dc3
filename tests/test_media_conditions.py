"""Edges, sizes and margins."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vidgen.media import conditions, images


def test_the_edges_of_a_square_are_its_outline():
    pixels = np.zeros((32, 40, 3), np.uint8)
    pixels[8:24, 10:30] = (250, 200, 30)
    edges = conditions.canny_edges(pixels, 100, 200)
    rows, columns = np.nonzero(edges)
    assert edges.dtype == np.uint8
    assert set(np.unique(edges)) == {0, 255}
    assert (rows.min(), rows.max(), columns.min(), columns.max()) in {(7, 23, 9, 29), (8, 24, 10, 30), (7, 24, 9, 30)}
    assert not edges[12:20, 14:26].any()


def test_a_higher_threshold_leaves_fewer_edges(data_root):
    pixels = images.read_picture(data_root / "camvid/images/0016E5/0016E5_07959.png")
    shares = [(conditions.canny_edges(pixels, low, 2 * low) > 0).mean() for low in (30, 100, 300)]
    assert shares == sorted(shares, reverse=True)
    assert 0.02 < shares[1] < 0.3


def test_resized_labels_hold_no_new_values_and_keep_their_places(data_root):
    labels = images.read_labels(data_root / "camvid/labels/0016E5/0016E5_07959.png")
    small = conditions.resize_labels(labels, (90, 120))
    assert set(np.unique(small)) <= set(np.unique(labels))
    assert (conditions.resize_labels(small, (360, 480)) == labels).mean() > 0.95
    for dtype in (np.uint8, np.uint16, np.int64):
        assert conditions.resize_labels(labels.astype(dtype), (45, 60)).dtype == dtype


def test_labels_take_the_pixel_whose_centre_is_nearest():
    assert conditions.resize_labels(np.arange(9)[None].repeat(2, 0), (1, 3)).tolist() == [[1, 4, 7]]
    assert conditions.resize_labels(np.arange(3)[None], (1, 6)).tolist() == [[0, 0, 1, 1, 2, 2]]


@pytest.mark.parametrize("size", [(24, 32), (96, 128), (48, 64)])
def test_a_resized_picture_keeps_its_mean_colour(size):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    resized = conditions.resize_picture(pixels, size)
    assert resized.shape == (*size, 3)
    assert resized.dtype == np.uint8
    assert np.abs(resized.mean((0, 1)) - pixels.mean((0, 1))).max() < 2


def test_nothing_that_was_generated_is_lost_by_enlarging(data_root):
    picture = images.read_picture(data_root / "camvid/images/0016E5/0016E5_07959.png")
    small = conditions.resize_picture(picture, (192, 256))
    enlarged = conditions.enlarge_generated(small, (360, 480))
    again = conditions.resize_picture(enlarged, (192, 256))
    filtered = conditions.resize_picture(conditions.resize_picture(small, (360, 480)), (192, 256))
    assert enlarged.shape == (360, 480, 3)
    assert np.abs(again.astype(int) - small).mean() < 0.3 < np.abs(filtered.astype(int) - small).mean()
    assert cv2.PSNR(enlarged, picture) > cv2.PSNR(conditions.resize_picture(small, (360, 480)), picture)


@pytest.mark.parametrize("value", [0, 255])
def test_enlarging_keeps_what_is_flat(value):
    assert (conditions.enlarge_generated(np.full((8, 12, 3), value, np.uint8), (13, 20)) == value).all()


@pytest.mark.parametrize("shape", [(3, 37, 50), (37, 50), (3, 32, 64)])
def test_padding_repeats_the_edge_to_the_right_and_below(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    padded = conditions.pad_to_multiple(array, 16)
    height, width = shape[-2:]
    assert padded.shape[-2] % 16 == 0
    assert padded.shape[-1] % 16 == 0
    assert (padded[..., height:, :width] == array[..., -1:, :]).all()
    assert np.array_equal(padded[..., :height, :width], array)
