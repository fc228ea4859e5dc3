"""Photos become drawings, drawings become distances, and what is neither is told apart."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.ndimage

from vidgen.media import edge_maps
from vidgen.media.edge_maps import EdgeMapOptions

SQUARE = (60, 60, 120, 140)


@pytest.fixture
def photo() -> np.ndarray:
    """A square, an ellipse, and sixty specks."""
    rng = np.random.default_rng(0)
    picture = np.full((256, 256, 3), 200, np.uint8)
    cv2.rectangle(picture, SQUARE[:2], SQUARE[2:], (40, 60, 90), -1)
    cv2.ellipse(picture, (190, 170), (40, 25), 20, 0, 360, (90, 30, 30), -1)
    for y, x in rng.integers(8, 248, (60, 2)):
        picture[y : y + 2, x : x + 2] = 80
    return picture


def _components(mask: np.ndarray) -> int:
    return int(scipy.ndimage.label(mask, np.ones((3, 3)))[1])


@pytest.mark.parametrize("detector", ["canny", "sobel"])
def test_every_step_leaves_what_it_says(photo: np.ndarray, detector: edge_maps.DetectorName) -> None:
    steps = edge_maps.edge_map_steps(photo, EdgeMapOptions(detector, blur=1))
    masks = steps.masks
    thinned = masks["thinned"]
    full = thinned[:-1, :-1] & thinned[1:, :-1] & thinned[:-1, 1:] & thinned[1:, 1:]
    assert full.sum() <= 2, "lines are one pixel wide"
    for name in ("without isolated pixels", "edge map"):
        neighbors = scipy.ndimage.convolve(masks[name].astype(int), np.ones((3, 3)), mode="constant") - masks[name]
        assert not (masks[name] & (neighbors == 0)).any()
    counts = [_components(masks[name]) for name in ("thinned", "without isolated pixels", "without small components")]
    assert counts[0] >= counts[1] > counts[2] >= 2
    assert all((masks[after] <= masks[before]).all() for before, after in zip([*masks][1:-1], [*masks][2:], strict=True))
    assert set(np.unique(steps.drawing)) == {0, 255}


@pytest.mark.parametrize("detector", ["canny", "sobel"])
def test_edges_lie_on_the_contour(detector: edge_maps.DetectorName) -> None:
    picture = np.full((256, 256, 3), 220, np.uint8)
    left, top, right, bottom = SQUARE
    picture[top:bottom, left:right] = 30
    rows, columns = np.nonzero(edge_maps.edge_map(picture, EdgeMapOptions(detector)) == 0)
    assert abs(rows.mean() - (top + bottom - 1) / 2) < 1
    assert abs(columns.mean() - (left + right - 1) / 2) < 1
    assert abs(columns.min() - left) <= 2
    assert abs(columns.max() - right) <= 2


def _thinned_by_hand(mask: np.ndarray) -> np.ndarray:
    """Zhang and Suen's rules (a) to (d), pixel by pixel."""
    mask = np.pad(mask, 1)
    while True:
        removed = False
        for c_and_d in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            marked = []
            for row in range(1, mask.shape[0] - 1):
                for column in range(1, mask.shape[1] - 1):
                    steps = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
                    around = [bool(mask[row + dy, column + dx]) for dy, dx in steps]
                    rises = sum(not one and other for one, other in zip(around, around[1:] + around[:1], strict=True))
                    is_open = all(not all(around[place] for place in three) for three in c_and_d)
                    if mask[row, column] and 2 <= sum(around) <= 6 and rises == 1 and is_open:
                        marked.append((row, column))
            for place in marked:
                mask[place] = False
            removed |= bool(marked)
        if not removed:
            return mask[1:-1, 1:-1]


def test_thinning_is_that_of_zhang_and_suen() -> None:
    rng = np.random.default_rng(1)
    mask = cv2.GaussianBlur(rng.random((30, 34)), (0, 0), 2) > 0.5
    assert np.array_equal(edge_maps.thin(mask), _thinned_by_hand(mask))


def test_small_components_and_ends_are_counted_in_pixels() -> None:
    mask = np.zeros((20, 40), bool)
    mask[2, 3:8] = True  # five
    mask[6, 3:7] = True  # four
    assert edge_maps.without_small(mask, 5).sum() == 5
    line = np.zeros((5, 40), bool)
    line[2, 3:37] = True
    assert [edge_maps.without_ends(line).sum(), edge_maps.without_ends(edge_maps.without_ends(line)).sum()] == [32, 30]


def test_any_detector_can_take_part(photo: np.ndarray) -> None:
    def stripes(picture: np.ndarray) -> np.ndarray:
        strength = np.zeros(picture.shape[:2], np.float32)
        strength[:, 100:104] = 0.5
        return strength

    drawing = edge_maps.edge_map(photo, EdgeMapOptions(stripes))
    assert 1 <= (drawing == 0).any(0).sum() <= 2
    with pytest.raises(ValueError, match="the detector gave"):
        edge_maps.edge_map(photo, EdgeMapOptions(lambda picture: np.zeros((3, 3))))


def test_distances_are_euclidean_and_nothing_has_none() -> None:
    rng = np.random.default_rng(2)
    mask = rng.random((32, 32)) < 0.02
    distance = edge_maps.stroke_distance(mask)
    rows, columns = np.nonzero(mask)
    y, x = np.indices(mask.shape)
    brute = np.sqrt(((y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2).min(-1))
    np.testing.assert_allclose(distance, brute / brute.max(), atol=1e-5)
    assert (distance[mask] == 0).all()
    assert distance.max() == 1
    assert np.array_equal(edge_maps.from_distance(distance) == 0, mask)
    for nothing in (np.zeros((8, 8), bool), np.ones((8, 8), bool)):
        with pytest.raises(ValueError, match="strokes and paper"):
            edge_maps.stroke_distance(nothing)


def test_a_flat_photo_has_a_blank_edge_map() -> None:
    for detector in ("canny", "sobel"):
        flat = np.full((64, 64, 3), 120, np.uint8)
        assert edge_maps.kind_of(edge_maps.edge_map(flat, EdgeMapOptions(detector))) == "blank"  # type: ignore[arg-type]


def test_drawings_photos_and_inverted_drawings_are_told_apart(photo: np.ndarray) -> None:
    drawing = edge_maps.edge_map(photo)
    assert edge_maps.kind_of(drawing) == "drawing"
    assert edge_maps.kind_of(255 - drawing) == "inverted"
    assert edge_maps.kind_of(np.full((9, 9), 255, np.uint8)) == "blank"
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 3, photo.shape)
    real = np.linspace(20, 230, 256)[:, None, None] + cv2.GaussianBlur(rng.normal(0, 120, (256, 256, 3)), (0, 0), 4) + noise
    assert edge_maps.kind_of(real.clip(0, 255).astype(np.uint8)) == "photo"
    scanned = (np.repeat(drawing[..., None] * 0.6 + 60, 3, 2) + noise).clip(0, 255).astype(np.uint8)  # gray paper, gray pencil
    assert edge_maps.kind_of(scanned) == "drawing"
    assert np.array_equal(edge_maps.strokes(scanned), drawing == 0)
