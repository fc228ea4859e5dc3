"""Points of people found by the graphs of a wheel that the user has fetched."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from vidgen.errors import CheckpointError, InputError, MissingExtraError
from vidgen.labeling.conditions import ConditionSettings, open_condition
from vidgen.labeling.estimators import _GRAPHS, _STRIDES, PersonFinder, _anchors, _refined, _Region, _turn, assembled
from vidgen.labeling.steadying import PointSteadier
from vidgen.media import images
from vidgen.media.drawings import NUM_BODY, NUM_FACE, NUM_HAND, Person
from vidgen.media.frames import open_source
from vidgen.media.keypoints import PointFrame


def test_a_region_cut_out_and_its_points_brought_back_agree() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[100:104, 150:154] = 255
    region = _Region(160, 95, 80, 0.6)
    cut = region.cut(picture, 160)
    rows, columns = np.nonzero(cut[:, :, 0] > 200)
    found = region.to_frame(np.array([[columns.mean(), rows.mean()]]) / 160)
    assert np.abs(found - (151.5, 101.5)).max() < 1


def test_a_turn_makes_a_line_lie_as_wanted() -> None:
    assert _turn(np.array([0, 0]), np.array([5, 0]), 0) == pytest.approx(0)
    assert _turn(np.array([0, 0]), np.array([5, 5]), 0) == pytest.approx(np.pi / 4)  # eyes that sink to the right: clockwise
    assert _turn(np.array([0, 5]), np.array([0, 0]), np.pi / 2) == pytest.approx(0)  # a hand that points up


def test_anchors_are_as_many_as_the_graphs_answer() -> None:
    counts = {name: len(_anchors(_GRAPHS[name].side, strides)) for name, strides in _STRIDES.items()}
    assert counts == {"face detection": 896, "pose detection": 2254, "palm detection": 2016}
    assert _anchors(128, (8, 16, 16, 16))[0].tolist() == [1 / 32, 1 / 32]


def test_points_move_to_the_heat_around_them_only_where_it_is_certain() -> None:
    heat = np.full((64, 64, 2), -20.0)
    heat[22, 31, 0] = 5
    moved = _refined(np.array([[0.5, 0.33], [0.5, 0.33]]), heat)
    assert moved[0].tolist() == pytest.approx([31 / 64, 22 / 64], abs=1e-3)
    assert moved[1].tolist() == [0.5, 0.33]


def test_parts_go_to_the_people_they_are_on() -> None:
    def body(x: float) -> np.ndarray:
        points = np.zeros((NUM_BODY, 3))
        points[[0, 4, 7]] = (x, 40, 1), (x - 30, 120, 1), (x + 30, 120, 1)
        return points

    def around(count: int, x: float, y: float) -> np.ndarray:
        angles = np.arange(count)
        return np.column_stack([x + 12 * np.sin(angles), y + 12 * np.cos(angles), np.ones(count)])

    faces = [around(NUM_FACE, 202, 40), around(NUM_FACE, 300, 40)]
    hands = [(around(NUM_HAND, 172, 120), True), (around(NUM_HAND, 129, 120), True), (around(NUM_HAND, 500, 500), False)]
    first, second, bare = assembled([body(100), body(200)], faces, hands, 4)
    assert (first.face[0, 2], second.face[0, 0], bare.face[0, 0]) == (0, 202, 300)
    assert not bare.body.any()
    eyes = faces[0][36:42, :2].mean(0)
    assert second.body[[0, 15], :2].tolist() == [faces[0][30, :2].tolist(), eyes.tolist()]  # more precise than a body's
    assert second.right_hand[0, 0] == 172  # at that wrist, whatever the graph takes it for
    assert first.left_hand[0, 0] == 129
    assert not first.right_hand.any()
    (alone,) = assembled([body(100)], faces[:1], hands[:2], 1)
    assert (alone.face[0, 0], alone.left_hand[0, 0], alone.right_hand[0, 0]) == (202, 172, 129)
    assert assembled([], [], [], 3) == []


def test_points_move_as_the_picture_does_and_those_that_jump_are_followed_at_once() -> None:
    generator = np.random.default_rng(0)
    texture = cv2.GaussianBlur(generator.uniform(0, 255, (160, 260, 3)).astype(np.float32), (0, 0), 2).clip(0, 255)
    texture = ((texture - texture.min()) * 255 / np.ptp(texture)).astype(np.uint8)
    places = np.column_stack([generator.uniform(40, 120, (NUM_BODY, 2)), np.ones(NUM_BODY)])
    given: list[np.ndarray] = []
    steadier, measuring = PointSteadier(steady=True), PointSteadier(steady=False)
    for time in range(8):
        body = places.copy()
        body[:, 0] += 3 * time
        body[:, :2] += generator.normal(0, 0.4, (NUM_BODY, 2))
        if time == 7:
            body[5, 1] += 30
        other = Person(body + np.array([0, 400, 0]))
        frame = PointFrame((Person(body), other) if time % 2 else (other, Person(body)), "")  # files list people in any order
        pixels = np.ascontiguousarray(texture[:, 30 - 3 * time : 230 - 3 * time])
        steady = steadier(pixels, frame).people[1 - time % 2]
        assert measuring(pixels, frame).people == frame.people
        given.append(steady.body - places - (3 * time, 0, 0))
    assert given[7][5, 1] == pytest.approx(30, abs=2)
    assert np.diff([each[:, :2] for each in given[:7]], axis=0).std() < 0.35  # of 0.57 as they were found
    assert measuring.steadiness.deviation == measuring.steadiness.found_deviation == pytest.approx(0.7, abs=0.2)
    assert steadier.steadiness.deviation < 0.7 * steadier.steadiness.found_deviation
    assert steadier.steadiness.step == pytest.approx(30, abs=3)
    assert steadier.steadiness.frame == 7


def test_a_file_that_is_no_such_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"not a wheel")
    with pytest.raises(CheckpointError, match=r"is no wheel of mediapipe 0\.10\.21"):
        PersonFinder(tmp_path / "x.whl", face=True)
    with zipfile.ZipFile(tmp_path / "y.whl", "w") as archive:
        for graph in _GRAPHS.values():
            archive.writestr(f"mediapipe/modules/{graph.path}.tflite", b"other")
    with pytest.raises(CheckpointError, match="has the SHA-256"):
        PersonFinder(tmp_path / "y.whl", body=True)
    with pytest.raises(InputError, match="not found"):
        PersonFinder(tmp_path / "z.whl", hands=True)


@pytest.fixture
def wheel() -> Path:
    """The wheel, where VIDGEN_MEDIAPIPE names it."""
    path = os.environ.get("VIDGEN_MEDIAPIPE")
    if path is None:
        pytest.skip("VIDGEN_MEDIAPIPE names no wheel of mediapipe 0.10.21")
    return Path(path)


def test_without_openvino_one_line_says_what_to_install(wheel: Path) -> None:
    if importlib.util.find_spec("openvino") is not None:
        pytest.skip("it is installed")
    with pytest.raises(MissingExtraError, match="OpenVINO") as caught:
        PersonFinder(wheel, face=True)
    assert "[pose]" in (caught.value.hint or "")


def test_a_face_is_found_and_followed_and_nobody_is_nobody(wheel: Path, data_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    source = open_source(f"{next((data_root / 'face' / 'images').iterdir())}[0:6]")
    video = open_condition(source, ConditionSettings("face"), weights=wheel)
    frames = list(video)
    assert video.empty == []
    assert all(set(np.unique(frame.parts)) == set(range(7)) for frame in frames if frame.parts is not None)
    assert video.steadiness.step < 25
    assert video.steadiness.deviation < video.steadiness.found_deviation
    pair = PersonFinder(wheel, face=True, people=3)
    for frame in source.read(0, 3):
        small = cv2.resize(frame.pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        people = pair.find(np.hstack([small, np.roll(small, 3, axis=0)]), "two")
        assert len(people.people) == 2
    images.write_png(tmp_path / "0.png", np.full((120, 160, 3), 128, np.uint8))
    empty = open_condition(open_source(tmp_path), ConditionSettings("pose"), weights=wheel)
    assert not next(iter(empty)).pictures[0].any()


def test_bodies_of_two_people_are_found_and_their_eyes_lie_where_the_faces_have_them(wheel: Path) -> None:
    pytest.importorskip("openvino")
    photograph = data.astronaut()
    both = np.hstack([photograph, photograph[:, ::-1]])
    bodies = PersonFinder(wheel, body=True, people=2).find(both, "both").people
    faces = PersonFinder(wheel, face=True, people=2).find(both, "both").people
    assert len(bodies) == len(faces) == 2
    bodies, faces = (sorted(people, key=middle) for people in (bodies, faces))
    for body, face in zip(bodies, faces, strict=True):
        eyes = face.face[36:42, :2].mean(0), face.face[42:48, :2].mean(0)
        assert np.abs(body.body[[15, 16], :2] - eyes).max() < 20
        shoulders = body.body[[2, 5]]
        assert (shoulders[:, 2] > 0.5).all()
        assert 60 < shoulders[1, 0] - shoulders[0, 0] < 260  # the right one at the left of the picture
        assert (shoulders[:, 1] > body.body[0, 1] + 40).all()


def middle(person: Person) -> float:
    """Where a person stands, from the left, in pixels."""
    points = np.vstack([person.body, person.face])
    return float(points[points[:, 2] > 0, 0].mean())
