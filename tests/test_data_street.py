"""The procedural street: the same from the same seed, and exact in labels, instances, flow and occlusion."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from flow.warp import warp
from vidgen.data.street import CLASSES, Street, StreetFrame, rendering, write_clip
from vidgen.data.street.polygons import Builder, Sun, join, upright
from vidgen.data.street.world import Camera, Scene, World
from vidgen.media import images

NAMES = [name for name, _ in CLASSES]
ROAD, CAR, PEDESTRIAN = (NAMES.index(name) for name in ("road", "car", "pedestrian"))
FIELDS = ("image", "labels", "instances", "flow", "occluded")


def assert_same(first: StreetFrame, second: StreetFrame) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field), err_msg=field)


def fetched(values: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """[H,W] values at the nearest pixel that the flow leads to."""
    height, width = values.shape
    y, x = np.mgrid[:height, :width]
    column = np.clip(np.rint(x + flow[..., 0]), 0, width - 1).astype(int)
    row = np.clip(np.rint(y + flow[..., 1]), 0, height - 1).astype(int)
    return values[row, column]


def decibels(difference: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(difference).mean()))


def test_the_same_seed_gives_the_same_frames_and_another_seed_another_street():
    first, again, other = (list(Street(seed, 48, 96).frames(3)) for seed in (4, 4, 5))
    for one, two in zip(first, again, strict=True):
        assert_same(one, two)
    assert (first[2].labels != other[2].labels).mean() > 0.1


def test_frames_from_a_later_start_are_the_tail_of_frames_from_the_beginning():
    street = Street(2, 40, 72)
    for whole, tail in zip(list(street.frames(9))[6:], street.frames(3, start=6), strict=True):
        assert_same(whole, tail)


def test_twice_the_frame_rate_shows_every_frame_of_the_single_rate():
    slow, fast = list(Street(3, 40, 72, fps=8).frames(4)), list(Street(3, 40, 72, fps=16).frames(7))
    for one, two in zip(slow, fast[::2], strict=True):
        np.testing.assert_array_equal(one.image, two.image)


def test_the_first_frame_has_no_flow_and_is_all_occluded():
    first = next(Street(0, 32, 64).frames(1))
    assert not first.flow.any()
    assert first.occluded.all()


@pytest.mark.parametrize(("height", "width"), [(64, 128), (37, 53), (90, 31), (1, 1), (3, 200)])
def test_any_size_gives_arrays_of_that_size_and_of_the_promised_types(height, width):
    for frame in Street(1, height, width).frames(2):
        assert (frame.image.shape, frame.image.dtype) == ((height, width, 3), np.uint8)
        assert (frame.labels.shape, frame.labels.dtype) == ((height, width), np.uint8)
        assert (frame.instances.shape, frame.instances.dtype) == ((height, width), np.uint16)
        assert (frame.flow.shape, frame.flow.dtype) == ((height, width, 2), np.float32)
        assert (frame.occluded.shape, frame.occluded.dtype) == ((height, width), np.bool_)
        assert np.isfinite(frame.flow).all()


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"height": 0}, {"width": 0}, {"fps": 0}, {"variety": 1.5}])
def test_a_street_that_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Street(**{"seed": 0, "height": 8, "width": 8, **wrong})


def test_every_class_appears_and_class_colours_differ():
    seen = np.zeros(len(CLASSES), dtype=int)
    for seed in range(4):
        for start in (0, 40):
            frame = next(Street(seed, 128, 256).frames(1, start=start))
            seen += np.bincount(frame.labels.ravel(), minlength=len(CLASSES)) > 20
    assert len(seen) == len(CLASSES)
    assert (seen >= 6).all(), dict(zip(NAMES, seen, strict=True))
    assert len({color for _, color in CLASSES}) == len(CLASSES)


def test_variety_changes_colours_and_nothing_else():
    plain, colourful = (list(Street(6, 48, 96, variety=variety).frames(2))[1] for variety in (0.0, 1.0))
    for field in ("labels", "instances", "flow", "occluded"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(colourful, field))
    assert np.abs(plain.image.astype(int) - colourful.image).mean() > 2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_previous_frame_warped_by_the_flow_is_the_current_frame_wherever_it_is_not_occluded(seed):
    for previous, current in pairwise(Street(seed, 128, 256).frames(4, start=20)):
        image = torch.from_numpy(previous.image).permute(2, 0, 1)[None].float()
        flow = torch.from_numpy(current.flow).permute(2, 0, 1)[None]
        warped = warp(image, flow)[0].permute(1, 2, 0).numpy()
        clear = ~current.occluded
        assert clear.mean() > 0.85
        explained = decibels((warped - current.image)[clear])
        unexplained = decibels((previous.image.astype(float) - current.image)[clear])
        assert explained > 30
        assert explained > unexplained + 6


def test_the_flow_of_the_road_is_that_of_a_plane_under_a_moving_camera():
    height, width, fps, number = 60, 100, 12, 30
    frame = next(Street(8, height, width, fps=fps).frames(1, start=number))
    scene = World(8, 0.3, None).scene(number / fps, (number - 1) / fps, height, width)
    y, x = np.nonzero(frame.labels == ROAD)
    rays = np.linalg.solve(scene.camera.matrix, np.stack([x, y, np.ones_like(x)]))
    points = scene.camera.center[:, None] - rays * scene.camera.center[1] / rays[1]
    before = scene.camera_before.matrix @ (points - scene.camera_before.center[:, None])
    expected = before[:2] / before[2] - (x, y)
    assert len(x) > 1000
    assert np.abs(expected).max() > 2
    np.testing.assert_allclose(frame.flow[y, x], expected.T, atol=1e-3)


def test_a_camera_that_stands_still_sees_flow_only_where_something_moves():
    moved = 0
    for previous, frame in pairwise(Street(1, 96, 192, speed=0.0).frames(5)):
        moves = np.abs(frame.flow).max(axis=-1) > 1e-3
        assert set(np.unique(frame.labels[moves])) <= {CAR, PEDESTRIAN}
        assert set(np.unique(previous.labels[frame.occluded & ~moves])) <= {CAR, PEDESTRIAN}
        moved += int(moves.sum())
    assert moved > 100


def traced(scene: Scene, height: int, width: int) -> np.ndarray:
    """Label ids [H,W] of the nearest polygon on the ray through each pixel, found without painting."""
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    surfaces, corners, counts = scene.mesh
    nearest, labels = np.zeros(x.size), np.full(x.size, surfaces["label"][0])
    matrices = scene.camera.homographies(surfaces["frame"])
    polygons = np.split(corners, np.cumsum(counts)[:-1])
    for surface, polygon, matrix in list(zip(surfaces, polygons, matrices, strict=True))[1:]:
        if np.linalg.det(matrix) > -1e-6:
            continue
        u, v, closeness = np.linalg.solve(matrix, np.stack([x, y, np.ones_like(x)]))
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = u / closeness, v / closeness
        turns = [(b[0] - a[0]) * (v - a[1]) - (b[1] - a[1]) * (u - a[0]) for a, b in pairwise([*polygon, polygon[0]])]
        inside = (np.min(turns, axis=0) >= 0) | (np.max(turns, axis=0) <= 0)
        closeness = closeness * (1 + 1e-6 * surface["layer"])  # lane paint lies on the road
        seen = inside & (closeness < 1 / 0.4) & (closeness > nearest)
        nearest[seen], labels[seen] = closeness[seen], surface["label"]
    return labels.reshape(height, width)


@pytest.mark.parametrize(("seed", "number"), [(21, 140), (2, 60)])
def test_what_is_seen_is_the_nearest_thing_on_the_ray_but_for_the_edges(seed, number):
    frame = next(Street(seed, 48, 96).frames(1, start=number))
    scene = World(seed, 0.3, None).scene(number / 12, number / 12, 48, 96)
    differs = frame.labels != traced(scene, 48, 96)
    inner = cv2.erode(differs.astype(np.uint8), np.ones((3, 3), dtype=np.uint8))
    assert differs.mean() < 0.08  # outlines are filled too, which is much of so small a frame
    assert not inner.any()


SUN = Sun(np.array([0.0, 1.0, 0.0]), np.zeros(2), np.full(3, 0.5), np.full(3, 0.5))


def screen(*, square_moves: float = 0.0, camera_moves: float = 0.0) -> tuple[rendering.Raster, rendering.Raster]:
    """A square 5 m ahead before a wall 10 m ahead, now and one frame earlier; 10 pixels are 1 m at the wall, 2 at the square.

    Now the square covers columns 21..40 and rows 11..30 of 64 x 48.
    """
    lens = np.array([[100.0, 0, 31.5], [0, 100.0, 23.5], [0, 0, 1]]) @ np.diag([1.0, -1.0, 1.0])
    parts = []
    for thing, points in enumerate(
        (upright(-90, 90, -90, 90, 50), upright(-9, 9, -9, 9, 10), upright(-0.55, 0.45, -0.35, 0.65, 5))
    ):
        builder = Builder(SUN)
        builder.add(points, (200, 200, 200), 1)
        parts.append(builder.mesh().moved(np.zeros(3), thing=thing, layer=thing))
    still = np.zeros(3)
    now, before = join(parts), join([*parts[:2], parts[2].moved((-square_moves, 0.0, 0.0))])
    camera, camera_before = Camera(lens, still), Camera(lens, np.array([-camera_moves, 0.0, 0.0]))
    scene = Scene(now, before.surfaces["frame"], now, camera, camera_before)
    scene_before = Scene(before, before.surfaces["frame"], before, camera_before, camera_before)
    return rendering.rasterize(scene, 48, 64), rendering.rasterize(scene_before, 48, 64)


def test_a_square_that_moves_uncovers_exactly_the_strip_it_leaves_behind():
    now, before = screen(square_moves=0.3)
    flow, occluded = rendering.flow(now, before)
    square = np.zeros((48, 64), dtype=bool)
    square[11:31, 21:41] = True
    np.testing.assert_array_equal(now.pixels == 2, square)
    np.testing.assert_allclose(flow[square], np.broadcast_to([-6.0, 0.0], (400, 2)), atol=1e-4)
    np.testing.assert_allclose(flow[~square], 0, atol=1e-6)
    uncovered = np.zeros((48, 64), dtype=bool)
    uncovered[11:31, 15:21] = True
    np.testing.assert_array_equal(occluded, uncovered)


def test_a_camera_that_moves_aside_uncovers_a_strip_beside_the_square_and_one_at_the_border():
    now, before = screen(camera_moves=0.4)
    flow, occluded = rendering.flow(now, before)
    square = now.pixels == 2
    np.testing.assert_allclose(flow[square][:, 0], 8.0, atol=1e-4)
    np.testing.assert_allclose(flow[~square][:, 0], 4.0, atol=1e-4)
    expected = np.zeros((48, 64), dtype=bool)
    expected[:, 60:] = True
    expected[11:31, 41:45] = True
    np.testing.assert_array_equal(occluded, expected)


def test_instances_are_numbered_by_class_and_exactly_cars_and_pedestrians_have_one():
    for frame in Street(5, 96, 192).frames(3):
        things = frame.instances > 0
        np.testing.assert_array_equal(things, np.isin(frame.labels, (CAR, PEDESTRIAN)))
        np.testing.assert_array_equal(frame.instances[things] // 1000, frame.labels[things])


def test_a_thing_keeps_its_instance_number_and_its_label_from_frame_to_frame():
    followed = set()
    for previous, current in pairwise(Street(7, 96, 192).frames(12)):
        clear = ~current.occluded
        for field in ("instances", "labels"):
            now, before = getattr(current, field), fetched(getattr(previous, field), current.flow)
            same = now[clear] == before[clear]
            # lane paint and road are one surface, so at the edge of a line the nearest pixel may have the other label
            assert same.all() if field == "instances" else same.mean() > 0.99
        followed |= set(np.unique(current.instances[clear]))
    assert len(followed) > 8


def test_different_things_in_a_frame_have_different_instance_numbers():
    for seed in range(3):
        surfaces = World(seed, 0.3, None).scene(9.0, 8.9, 64, 128).mesh.surfaces
        cars = surfaces[surfaces["label"] == CAR]
        assert len(np.unique(cars["thing"])) == len(np.unique(cars["instance"])) > 20


def test_a_clip_on_disk_holds_the_frames(tmp_path):
    street = Street(12, 24, 40)
    write_clip(tmp_path, street, 2, start=3)
    for number, frame in enumerate(street.frames(2, start=3), 3):
        path = f"street0012/{number:05d}.png"
        np.testing.assert_array_equal(images.read_picture(tmp_path / "images" / path), frame.image)
        np.testing.assert_array_equal(images.read_labels(tmp_path / "labels" / path), frame.labels)
        np.testing.assert_array_equal(images.read_labels(tmp_path / "instances" / path), frame.instances)
    assert len(list(tmp_path.rglob("*.png"))) == 6
