"""Edits of scenes: each does what its name says, exactly where it says, and leaves its input alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidgen.errors import InputError
from vidgen.media import edits, images
from vidgen.media.edits import Scene

ROAD, SKY, CAR = 7, 23, 26


@pytest.fixture
def scene() -> Scene:
    """Sky over road; cars 26000 (4x6) and 26001 (2x2) on the road."""
    labels = np.full((20, 30), SKY, np.int64)
    labels[10:] = ROAD
    instances = labels.copy()
    labels[12:16, 4:10], instances[12:16, 4:10] = CAR, 26000
    labels[12:14, 20:22], instances[12:14, 20:22] = CAR, 26001
    return Scene(labels, instances)


def _changed(before: Scene, after: Scene) -> np.ndarray:
    return (before.labels != after.labels) | (before.instances != after.instances)


def test_objects_are_listed_with_class_size_and_place(scene: Scene) -> None:
    first, second = scene.objects.values()
    assert (first.number, first.label, first.num_pixels, first.box) == (26000, CAR, 24, (4, 12, 10, 16))
    assert (second.number, second.num_pixels) == (26001, 4)


def test_an_object_of_a_counted_class_gets_the_next_number_and_else_joins_the_area(scene: Scene) -> None:
    painted = edits.paint_rectangle(scene, CAR, (0, 0), (1, 1))
    assert painted.objects[26002].num_pixels == 4
    road = edits.change_class(scene, 26001, ROAD)
    assert set(np.unique(road.instances[12:14, 20:22])) == {ROAD}
    assert (road.labels[12:14, 20:22] == ROAD).all()
    assert np.array_equal(_changed(scene, road), scene.instances == 26001)
    unseen = edits.change_class(scene, 26001, 24)
    assert (unseen.instances[12:14, 20:22] == 24).all()


def test_a_removed_object_leaves_what_lies_nearest_but_no_other_object(scene: Scene) -> None:
    labels, instances = scene.labels.copy(), scene.instances.copy()
    labels[12:16, 10:12], instances[12:16, 10:12] = CAR, 26005  # touches the car that goes
    crowded = Scene(labels, instances)
    gone = edits.remove_object(crowded, 26000)
    assert 26000 not in gone.objects
    assert set(np.unique(gone.labels[12:16, 4:10])) == {ROAD}
    assert gone.objects[26005].num_pixels == 8
    assert (edits.remove_object(scene, 26000, fill=SKY).labels[12:16, 4:10] == SKY).all()


def test_a_removed_object_at_the_horizon_leaves_sky_above_and_road_below(scene: Scene) -> None:
    at_horizon = edits.move_object(scene, 26000, 0, -4)
    gone = edits.remove_object(at_horizon, 26000)
    assert np.array_equal(gone.labels[8:12, 4:10], np.repeat([[SKY], [SKY], [ROAD], [ROAD]], 6, axis=1))


def test_a_moved_object_keeps_its_shape_and_is_cut_at_the_border(scene: Scene) -> None:
    moved = edits.move_object(scene, 26000, 3, 2)
    assert moved.objects[26000].box == (7, 14, 13, 18)
    assert moved.objects[26000].num_pixels == 24
    assert moved.labels[12, 4] == ROAD
    assert edits.move_object(scene, 26000, -6, 0).objects[26000].num_pixels == 16
    with pytest.raises(InputError, match="leaves the picture of 30x20"):
        edits.move_object(scene, 26000, 100, 0)


def test_strokes_polygons_and_rectangles_cover_what_they_enclose(scene: Scene) -> None:
    disc = edits.paint_stroke(scene, SKY, [(15, 15)], 2)
    assert (_changed(scene, disc).sum(), disc.labels[15, 15], disc.labels[15, 17], disc.labels[17, 17]) == (13, SKY, SKY, ROAD)
    line = edits.paint_stroke(scene, SKY, [(2, 18), (12, 18), (12, 11)], 1)
    assert (line.labels[17:20, 2:13] == SKY).all()
    assert (line.labels[11:19, 11:14] == SKY).all()
    triangle = edits.paint_polygon(scene, SKY, [(24, 19), (29, 19), (29, 14)])
    assert (triangle.labels[19, 24], triangle.labels[19, 29], triangle.labels[14, 24]) == (SKY, SKY, ROAD)
    box = edits.paint_rectangle(scene, SKY, (29, 19), (25, 18))
    assert _changed(scene, box).sum() == 10
    with pytest.raises(InputError, match="misses the picture"):
        edits.paint_rectangle(scene, SKY, (40, 40), (50, 50))


def test_no_edit_changes_its_input(scene: Scene) -> None:
    labels, instances = scene.labels.copy(), scene.instances.copy()
    edits.move_object(scene, 26000, 3, 2)
    edits.remove_object(scene, 26001)
    edits.paint_stroke(scene, SKY, [(15, 15)], 2)
    assert np.array_equal(labels, scene.labels)
    assert np.array_equal(instances, scene.instances)


def test_an_unknown_object_is_refused_with_those_that_exist(scene: Scene) -> None:
    with pytest.raises(InputError, match="object 26009: is not in the picture; the objects there are 26000, 26001"):
        edits.remove_object(scene, 26009)


def test_without_an_instance_map_connected_areas_are_the_objects(scene: Scene) -> None:
    found = Scene.from_labels(scene.labels).objects
    assert [found[number].num_pixels for number in (26000, 26001)] == [24, 4]
    assert found[23000].label == SKY
    gone = edits.remove_object(Scene.from_labels(scene.labels), 26001)
    assert (gone.labels[12:14, 20:22] == ROAD).all()


def test_a_real_car_disappears_from_a_real_street(data_root: Path) -> None:
    folder = data_root / "cityscapes_stills"
    name = sorted((folder / "labels").iterdir())[0]
    labels = images.read_labels(name).astype(np.int64)
    instances = images.read_labels(folder / "instances" / name.name.replace("labelIds", "instanceIds")).astype(np.int64)
    street = Scene(labels, instances)
    car = next(item for item in street.objects.values() if item.label == CAR)
    gone = edits.remove_object(street, car.number)
    hole = street.mask(car.number)
    assert not (gone.labels[hole] == CAR).all()
    assert not _changed(street, gone)[~hole].any()
    assert (gone.instances[hole] < edits.FIRST_OBJECT).all()
