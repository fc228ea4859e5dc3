"""Line drawings: what is drawn from pictures, and how people's drawings are read."""

from __future__ import annotations

import numpy as np
import pytest

from vidgen.media import lines
from vidgen.media.drawings import line_art

SIZE = (48, 64)


def _picture(size: tuple[int, int] = SIZE) -> np.ndarray:
    """A dark disc on a lighter ground, uint8 [H,W,3]."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 3) ** 2
    return np.where(inside[..., None], (40, 60, 120), (200, 180, 150)).astype(np.uint8)


@pytest.mark.parametrize("method", lines.METHODS)
def test_lines_stand_at_contours_and_flat_parts_stay_white(method: lines.Method) -> None:
    drawing = lines.draw(_picture(), lines.Pen(method), SIZE)
    assert drawing.shape == SIZE
    assert drawing.dtype == np.uint8
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    away = np.abs(np.hypot(rows - SIZE[0] / 2, columns - SIZE[1] / 2) - SIZE[0] / 3)
    assert drawing[away < 2].min() == 0
    assert drawing[away > 12].min() > 200


def test_high_pass_is_the_published_formula() -> None:
    import cv2

    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    values = picture.astype(np.float64)
    blurred = np.stack([cv2.GaussianBlur(values[..., channel], (0, 0), 3) for channel in range(3)], axis=2)
    expected = 255 * (1 - np.clip(2 * ((blurred - values) / 128).max(2), 0, 1))
    assert np.abs(lines.high_pass_lines(picture) - expected).max() <= 1


def test_xdog_at_its_own_size_is_line_art() -> None:
    pen = lines.Pen("xdog", 1.2)
    assert np.array_equal(lines.draw(_picture(), pen, SIZE), lines.full_contrast(line_art(_picture(), 1.2)))


def test_a_pale_pen_draws_pale_lines() -> None:
    strong, pale = (lines.draw(_picture(), lines.Pen(strength=strength), SIZE) for strength in (1.0, 0.5))
    assert np.abs(pale.astype(int) - np.rint(255 - 0.5 * (255.0 - strong))).max() <= 1


def test_gray_paper_and_pencil_become_white_and_black() -> None:
    drawing = np.full((*SIZE, 3), 180, np.uint8)
    drawing[10:12] = 90
    read = lines.read(drawing, SIZE)
    assert read[10:12].max() == 0
    assert read[20:].min() == 255
    assert lines.read(np.full((*SIZE, 3), 77, np.uint8), SIZE).min() == 255, "nothing is drawn, so nothing is amplified"


def test_a_large_drawing_keeps_its_lines_when_it_is_shrunk() -> None:
    drawing = np.full((480, 640, 3), 255, np.uint8)
    drawing[240:242] = 0
    assert lines.read(drawing, SIZE)[23:26].min() == 0


def test_drawings_negatives_photos_and_blank_pictures_are_told_apart() -> None:
    drawing = np.repeat(line_art(_picture())[..., None], 3, axis=2)
    assert lines.kind_of_drawing(drawing) == "drawing"
    assert lines.kind_of_drawing(255 - drawing) == "inverted"
    assert lines.kind_of_drawing(np.full((*SIZE, 3), 255, np.uint8)) == "blank"
    assert lines.kind_of_drawing(_picture()) == "photo"
    noise = np.random.default_rng(0).normal(120, 40, SIZE).clip(0, 255).astype(np.uint8)
    assert lines.kind_of_drawing(np.repeat(noise[..., None], 3, axis=2)) == "photo"
    assert lines.kind_of_drawing(np.zeros((1, 1, 3), np.uint8)) == "blank"
