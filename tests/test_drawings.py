"""Drawings of poses and faces as the published models were trained on them, and the files of points they come from."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import feature

from tests.media_clips import smooth_frames, write_clip
from vidgen.commands import condition as command
from vidgen.errors import ConfigError, InputError
from vidgen.labeling.conditions import ConditionSettings, open_condition
from vidgen.media import drawings
from vidgen.media.drawings import Person, PoseAugmentation
from vidgen.media.frames import open_source
from vidgen.media.keypoints import read_points

SIZE = (240, 160)


def standing(shift: float = 0.0) -> np.ndarray:
    """BODY_25 of a person who stands, [25,3]."""
    x = [80, 80, 60, 50, 45, 100, 110, 115, 80, 70, 68, 66, 90, 92, 94, 77, 83, 73, 87, 100, 98, 93, 60, 62, 67]
    y = [40, 60, 62, 90, 118, 62, 90, 118, 120, 120, 165, 210, 120, 165, 210, 36, 36, 40, 40, 218, 217, 214, 218, 217, 214]
    return np.column_stack([np.array(x) + shift, y, np.ones(25)]).astype(float)


def landmarks(width: int = 60, center: tuple[int, int] = (80, 120)) -> np.ndarray:
    """68 points of a schematic face, [68,2]."""
    angle = np.linspace(np.pi, 0, 17)
    contour = np.column_stack([np.cos(angle) * 0.5, np.sin(angle) * 0.6])
    brow = np.column_stack([np.linspace(-0.38, -0.1, 5), [-0.18, -0.22, -0.23, -0.22, -0.18]])
    eye = np.array([[-0.35, 0], [-0.28, -0.05], [-0.2, -0.05], [-0.12, 0], [-0.2, 0.04], [-0.28, 0.04]])
    nose = np.array([[0, 0], [0, 0.07], [0, 0.14], [0, 0.2], [-0.09, 0.23], [-0.05, 0.25], [0, 0.26], [0.05, 0.25], [0.09, 0.23]])
    turn = np.linspace(np.pi, -np.pi, 13)[:-1]
    mouth = np.column_stack([np.cos(turn) * 0.2, 0.4 - np.sin(turn) * 0.1])
    turn = np.linspace(np.pi, -np.pi, 9)[:-1]
    inner = np.column_stack([np.cos(turn) * 0.13, 0.4 - np.sin(turn) * 0.04])
    mirror = np.array([-1, 1])
    other_eye = eye[[3, 2, 1, 0, 5, 4]] * mirror
    points = np.vstack([contour, brow, brow[::-1] * mirror, nose, eye, other_eye, mouth, inner])
    return points * width + center


def openpose(*people: np.ndarray, **more: Any) -> dict[str, Any]:
    return {"people": [{"pose_keypoints_2d": body.ravel().tolist(), "face_keypoints_2d": [], **more} for body in people]}


def test_a_line_is_cut_off_and_sampled_at_every_pixel_of_its_longer_axis() -> None:
    columns, rows = drawings.curve(np.array([10.0, 20.0]), np.array([5.0, 10.0])) or ([], [])
    assert columns.tolist() == [10, 11, 12, 13, 14, 15, 16, 17, 18, 20]
    assert rows.tolist() == [5, 5, 6, 6, 7, 7, 8, 8, 9, 10]
    upright = drawings.curve(np.array([5.0, 10.0]), np.array([20.0, 10.0]))
    assert upright is not None
    assert upright[1].tolist() == [10, 11, 12, 13, 14, 15, 16, 17, 18, 20]


def test_three_points_make_a_parabola_unless_it_bends_too_much() -> None:
    bent = drawings.curve(np.array([0.0, 10.0, 20.0]), np.array([0.0, 8.0, 0.0]))
    assert bent is not None
    assert bent[1].max() in (7, 8)
    assert drawings.curve(np.array([0.0, 2.0, 4.0]), np.array([0.0, 0.0, 0.0])) is not None
    assert drawings.curve(np.array([0.0, 10.0, 10.5]), np.array([0.0, 0.0, 9.0])) is None


def test_a_stroke_is_a_square_brush_and_mixes_with_what_is_there() -> None:
    canvas = np.zeros((20, 20), np.uint8)
    drawings.stroke(canvas, (np.array([10]), np.array([10])))
    assert np.argwhere(canvas).tolist() == [[9, 9], [9, 10], [10, 9], [10, 10]]
    color = np.zeros((20, 20, 3), np.uint8)
    drawings.stroke(color, (np.array([10]), np.array([10])), brush=1, color=(200, 0, 0))
    assert color[9, 9].tolist() == [200, 0, 0]
    drawings.stroke(color, (np.array([10]), np.array([10])), brush=1, color=(0, 100, 0))
    assert color[9, 9].tolist() == [100, 50, 0]


def test_a_pose_has_the_published_colors_and_only_what_is_certain() -> None:
    drawing = drawings.draw_pose([Person(standing())], SIZE)
    assert drawing[90, 50].tolist() != [0, 0, 0]
    assert max(drawing[:, :, 0].max(), drawing[:, :, 1].max(), drawing[:, :, 2].max()) == 153
    right_thigh = drawing[140:145, 66:74].reshape(-1, 3)
    assert (right_thigh[right_thigh.any(1)][:, 0] == 0).all()
    hidden = standing()
    hidden[4, 2] = 0.005  # the right hand is not certain
    without = drawings.draw_pose([Person(hidden)], SIZE)
    assert not without[112:122, 42:49].any()
    assert drawing[112:122, 42:49].any()
    limbs = drawings.draw_pose([Person(standing())], SIZE, only="body")
    assert not limbs[34:38, 76:84].any() or limbs.sum() < drawing.sum()


def test_hands_and_faces_are_drawn_where_all_points_of_a_curve_are_there() -> None:
    hand = np.zeros((21, 3))
    for finger in range(5):
        for joint in range(1, 5):
            hand[finger * 4 + joint] = 60 + 10 * finger, 100 - 10 * joint, 1
    hand[0] = 80, 110, 1
    face = np.zeros((70, 3))
    face[:68, :2], face[:, 2] = landmarks(center=(80, 180)), 1
    person = Person(np.zeros((25, 3)), face, left_hand=hand)
    drawing = drawings.draw_pose([person], SIZE)
    assert drawing[60:112].any()
    assert (drawing[160:] == 255).any()
    fingers = drawings.draw_pose([person], SIZE, only="hands")
    assert not fingers[130:].any()
    hand[8, 2] = 0
    fewer = drawings.draw_pose([Person(np.zeros((25, 3)), left_hand=hand)], SIZE, only="hands")
    assert not (fewer == (163, 204, 0)).all(-1).any()


def test_augmentation_leaves_parts_out_and_the_same_seed_the_same_ones() -> None:
    def draw(seed: int, drop: float) -> np.ndarray:
        return drawings.draw_pose(
            [Person(standing())], SIZE, augmentation=PoseAugmentation(np.random.default_rng(seed), drop, True)
        )

    assert (draw(3, 0.5) == draw(3, 0.5)).all()
    assert not draw(0, 1.0).any()
    full = drawings.draw_pose([Person(standing())], SIZE)
    assert 0 < (draw(1, 0.3) > 0).sum() < 1.2 * (full > 0).sum()
    assert (
        drawings.draw_pose([Person(standing())], SIZE, augmentation=PoseAugmentation(np.random.default_rng(0), 0.0)) == full
    ).all()


def test_a_face_has_fifteen_channels_and_seven_parts() -> None:
    picture = np.full((*SIZE, 3), 90, np.uint8)
    cv2.line(picture, (5, 5), (150, 5), (255, 255, 255), 3)
    face = drawings.draw_face(landmarks(), SIZE, picture)
    assert face.channels.shape == (15, *SIZE)
    assert set(np.unique(face.parts)) == set(range(7))
    assert face.edges[:12].any()  # of the picture, above the face
    assert not drawings.draw_face(landmarks(), SIZE).edges[:12].any()
    contour = face.distances[0]
    assert contour[121, 50] == 0
    assert abs(int(contour[120, 10]) - 40 // 3) <= 1  # 40 pixels from the left end of the contour


def test_the_forehead_is_the_mirrored_contour() -> None:
    points = drawings.with_forehead(landmarks())
    assert points.shape == (83, 2)
    base = landmarks()[0, 1]
    chin = points[8, 1] - base
    assert points[68 + 7, 1] == pytest.approx(base - chin * 2 / 3, abs=2)
    assert points[68, 0] > points[82, 0]  # from right to left, so that the outline closes


def test_background_edges_are_those_of_scikit_image() -> None:
    generator = np.random.default_rng(0)
    picture = cv2.GaussianBlur(generator.uniform(0, 255, (*SIZE, 3)).astype(np.float32), (0, 0), 3)
    picture = ((picture - picture.min()) / np.ptp(picture) * 255).astype(np.uint8)
    theirs = feature.canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    ours = drawings.gray_edges(picture) > 0
    near = cv2.dilate(theirs.astype(np.uint8), np.ones((3, 3))) > 0
    assert (ours & near).sum() > 0.95 * ours.sum()
    assert 0.8 < ours.sum() / theirs.sum() < 1.25


def test_crops_are_those_of_the_published_models() -> None:
    left, top, right, bottom = drawings.face_crop(landmarks(60, (200, 200)), (400, 400))
    assert (right - left, bottom - top) == (150, 150)
    assert (left + right) / 2 == 200
    moved = drawings.face_crop(landmarks(60, (20, 20)), (400, 400))
    assert moved[:2] == (0, 0)
    assert moved[2] == 150
    assert drawings.pose_crop((256, 400)) == (104, 0, 296, 256)


def test_densepose_parts_are_spread_and_faces_removed() -> None:
    picture = np.array([[[10, 20, 24], [10, 20, 12], [0, 0, 0]]], np.uint8)
    assert drawings.rescale_densepose(picture)[0].tolist() == [[10, 20, 255], [10, 20, 127], [0, 0, 0]]
    assert drawings.rescale_densepose(picture, without_face=True)[0, 0].tolist() == [0, 0, 0]


def test_lines_are_dark_on_white_and_flat_areas_stay_white() -> None:
    picture = np.full((40, 40, 3), 180, np.uint8)
    picture[:, 20:] = 60
    lines = drawings.line_art(picture)
    assert lines[:, :10].min() > 250
    assert lines[:, 18:24].min() < 60


# --- files of points ------------------------------------------------------------------------------------------------------


def test_openpose_files_are_read_with_missing_and_several_people(tmp_path: Path) -> None:
    for index, content in enumerate([openpose(standing()), openpose(), openpose(standing(), standing(20))]):
        (tmp_path / f"{index}_keypoints.json").write_text(json.dumps(content))
    frames = read_points(tmp_path)
    assert [len(frame.people) for frame in frames] == [1, 0, 2]
    assert frames[0].landmarks is None
    assert (frames[0].people[0].body == standing()).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}',
            r"pose_keypoints_2d: has 1 points; expected 25 \(BODY_25\) or 18",
        ),
        ('{"people": [{"pose_keypoints_2d": [1, 2]}]}', "expected x, y and score"),
        ('{"people": [{"pose_keypoints_2d": ["a", 2, 3]}]}', "are no numbers"),
        ('{"people": 3}', "no list of people"),
        ('{"persons": []}', "no list of people"),
        ("[1]", "holds no object"),
        ("{", "is no JSON"),
        ('{"annotations": [], "images": [{"id": 1}]}', "no COCO keypoints"),
        ('{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "keypoints": [1, 2, 2]}]}', "are 17"),
    ],
)
def test_files_of_points_that_are_none_are_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "points.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_points(tmp_path / "points.json")
    assert "\n" not in str(caught.value)


def test_eighteen_openpose_points_and_coco_points_become_a_body(tmp_path: Path) -> None:
    coco = np.zeros((17, 3))
    body = standing()
    for ours, theirs in {0: 0, 2: 6, 5: 5, 9: 12, 12: 11, 11: 16, 14: 15}.items():
        coco[theirs] = *body[ours, :2], 2
    content = {
        "images": [{"id": 7, "file_name": "b10.png"}, {"id": 8, "file_name": "b9.png"}],
        "annotations": [{"image_id": 7, "keypoints": coco.ravel().tolist()}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    first, second = read_points(tmp_path / "coco.json")
    assert (first.people, len(second.people)) == ((), 1)  # b9 comes before b10
    found = second.people[0].body
    assert found[1, :2].tolist() == [(60 + 100) / 2, 62]
    assert found[8, :2].tolist() == [80, 120]
    assert found[19, 2] == 0
    eighteen = np.vstack([body[:8], body[9:15], body[15:19]])
    (tmp_path / "old.json").write_text(json.dumps(openpose(eighteen)))
    assert (read_points(tmp_path / "old.json")[0].people[0].body[:19] == body[:19]).all()


def test_landmark_files_have_68_lines(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "1.txt", landmarks(), delimiter=",")
    frame = read_points(tmp_path)[0]
    assert frame.landmarks is not None
    assert np.allclose(frame.landmarks, landmarks())
    np.savetxt(tmp_path / "1.txt", landmarks()[:5], delimiter=",")
    with pytest.raises(InputError, match="5 lines of 2 numbers; a face has 68"):
        read_points(tmp_path)


# --- streams --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mkv", smooth_frames(4, 240, 160))


@pytest.mark.parametrize("kind", ["edges", "lines", "distance"])
def test_any_video_becomes_a_condition_video(clip: Path, tmp_path: Path, kind: Any) -> None:
    result = command.condition(str(clip), str(tmp_path / "out"), kind=kind, low=10, high=30)
    frames = open_source(tmp_path / "out").read(0, 4)
    assert result["frames"] == 4
    assert frames[0].pixels.shape == (240, 160, 3)
    assert frames[0].pixels.min() < frames[0].pixels.max()


def test_poses_are_drawn_frame_by_frame_and_empty_frames_are_listed(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    points = tmp_path / "poses"
    points.mkdir()
    for index in range(4):
        (points / f"{index}.json").write_text(json.dumps(openpose() if index == 2 else openpose(standing(3 * index))))
    with caplog.at_level(logging.WARNING):
        result = command.condition(str(clip), str(tmp_path / "out"), kind="pose", points=str(points))
    frames = open_source(tmp_path / "out").read(0, 4)
    assert [bool(frame.pixels.any()) for frame in frames] == [True, True, False, True]
    assert result["empty_frames"] == [2]
    assert "no person in frames 2" in caplog.text
    assert result["largest_step"] == pytest.approx(3)


def test_saved_points_are_read_back_and_draw_the_same(clip: Path, tmp_path: Path) -> None:
    points = tmp_path / "poses"
    points.mkdir()
    for index in range(4):
        (points / f"{index}.json").write_text(json.dumps(openpose(standing(3 * index)) if index else openpose()))
    saved = tmp_path / "saved"
    command.condition(str(clip), str(tmp_path / "one"), kind="pose", points=str(points), save_points=str(saved), steady=True)
    assert sorted(path.name for path in saved.glob("*_keypoints.json")) == [f"0000{index}_keypoints.json" for index in range(4)]
    command.condition(str(clip), str(tmp_path / "two"), kind="pose", points=str(saved))
    for one, two in zip(*(open_source(tmp_path / name) for name in ("one", "two")), strict=True):
        assert (one.pixels == two.pixels).all()
    with pytest.raises(ConfigError, match="drawn from the pictures"):
        command.condition(str(clip), str(tmp_path / "three"), kind="edges", save_points=str(saved))


def test_all_channels_of_a_face_its_parts_and_frames_are_cropped_alike(clip: Path, tmp_path: Path) -> None:
    points = tmp_path / "faces"
    points.mkdir()
    for index in range(4):
        np.savetxt(points / f"{index}.txt", landmarks(48), delimiter=",")
    options: dict[str, Any] = {"all_channels": True, "crop": True}
    parts, frames = str(tmp_path / "parts.mkv"), str(tmp_path / "frames")
    result = command.condition(
        str(clip), str(tmp_path / "face"), kind="face", points=str(points), part_labels=parts, frames=frames, **options
    )
    assert len(result["output"]) == 5
    shapes = {open_source(where).size for where in (*result["output"], frames)} | {open_source(parts, kind="labels").size}
    assert shapes == {(120, 120)}
    assert set(np.unique(open_source(parts, kind="labels").read(0, 1)[0].pixels)) == set(range(7))


def test_options_that_do_not_fit_are_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pose: is drawn from points, and none were given"):
        command.condition(str(clip), str(tmp_path / "out"), kind="pose")
    with pytest.raises(InputError, match="edges: is drawn from the pictures"):
        open_condition(open_source(clip), ConditionSettings("edges"), points=tmp_path)
    with pytest.raises(ConfigError, match="only faces have parts"):
        command.condition(str(clip), str(tmp_path / "out"), kind="edges", part_labels="x.mkv")
    (tmp_path / "one.json").write_text(json.dumps(openpose()))
    with pytest.raises(InputError, match=r"points of 1 frames, but .* has 4 frames"):
        command.condition(str(clip), str(tmp_path / "out"), kind="pose", points=str(tmp_path / "one.json"))
