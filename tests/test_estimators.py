"""Points of people found by the graphs of a wheel that the user has fetched."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vidgen.errors import CheckpointError, InputError, MissingExtraError
from vidgen.labeling.conditions import ConditionSettings, open_condition
from vidgen.labeling.estimators import _GRAPHS, _STRIDES, PersonFinder, _anchors, _refined, _Region, _turn
from vidgen.media import images
from vidgen.media.frames import open_source


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
    images.write_png(tmp_path / "0.png", np.full((120, 160, 3), 128, np.uint8))
    empty = open_condition(open_source(tmp_path), ConditionSettings("pose"), weights=wheel)
    assert not next(iter(empty)).pictures[0].any()
