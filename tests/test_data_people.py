"""Pictures of people vary in training: gaps and shifts that follow from seed and step alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_drawings import openpose, standing
from vidgen.data.clips import Clips
from vidgen.data.sequences import find_sequences
from vidgen.data.settings import DataSettings
from vidgen.errors import ConfigError, InputError
from vidgen.media import drawings, images
from vidgen.media.keypoints import read_points
from vidgen.types import Stage

HEIGHT, WIDTH, LENGTH = 240, 160, 3
STAGE = Stage("test", 10, 1e-3, 0.0, clip_frames=2)


def write_people(root: Path) -> None:
    """A sequence with pictures, poses drawn from points, and DensePose pictures of two parts."""
    parts = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    parts[40:120, 20:140] = (90, 60, 2)
    parts[120:200, 20:140] = (30, 50, 23)
    for time in range(LENGTH):
        points = root / "poses" / "a" / f"{time}_keypoints.json"
        points.parent.mkdir(parents=True, exist_ok=True)
        points.write_text(json.dumps(openpose(standing(3 * time))))
        drawing = drawings.draw_pose(read_points(points)[0].people, (HEIGHT, WIDTH))
        for folder, picture in (
            ("images", np.full((HEIGHT, WIDTH, 3), 128, np.uint8)),
            ("openpose", drawing),
            ("densepose", drawings.rescale_densepose(parts)),
        ):
            images.write_png(root / folder / "a" / f"{time}.png", picture)


def open_clips(root: Path, people: dict[str, Any], *, seed: int = 0) -> Clips:
    settings = DataSettings.model_validate(
        {"root": root, "condition": {"pictures": ["densepose", "openpose"]}, "flip": False, "people": people}
    )
    return Clips(settings, find_sequences(settings), None, seed=seed, size_multiple=8, flow=None)


def pictures(clips: Clips, step: int) -> np.ndarray:
    """What training sees in a step: DensePose and OpenPose, uint8 [T,6,H,W]."""
    frames = clips.batch(STAGE, step, range(1), primer_frames=0, batch_size=1).condition.frames
    assert frames is not None
    return ((frames[0].numpy() + 1) * 127.5).round().astype(np.uint8)


def test_gaps_are_others_in_every_step_and_the_same_after_a_resume(tmp_path: Path) -> None:
    write_people(tmp_path)
    people = {"openpose": {"points": "poses", "drop": 0.3}, "densepose": {"drop": 0.5}}
    plain, varied = open_clips(tmp_path, {}), open_clips(tmp_path, people)
    seen = [pictures(varied, step) for step in range(8)]
    whole = [pictures(plain, step) for step in range(8)]
    for some, every in zip(seen, whole, strict=True):
        for picture in (slice(0, 3), slice(3, 6)):
            assert (some[:, picture].any(1) <= every[:, picture].any(1)).all()  # gaps, and nothing new
    parts = [{int(value) for value in np.unique(frame[2]) if value} for each in seen for frame in each]
    assert {frozenset(each) for each in parts} == {frozenset(each) for each in (set(), {21}, {244}, {21, 244})}
    drawn = [int((frame[3:] > 0).sum()) for each in seen for frame in each]
    assert len(set(drawn)) > 8
    resumed = open_clips(tmp_path, people)
    assert all((pictures(resumed, step) == seen[step]).all() for step in (5, 2))
    assert any((pictures(open_clips(tmp_path, people, seed=1), step) != seen[step]).any() for step in range(3))
    assert (varied.excerpt(0, 0, 2, 0).condition.frames == plain.excerpt(0, 0, 2, 0).condition.frames).all()  # samples are whole


def test_without_gaps_the_drawn_pictures_are_those_of_the_files(tmp_path: Path) -> None:
    write_people(tmp_path)
    varied = open_clips(tmp_path, {"openpose": {"points": "poses", "drop": 0}})
    assert (pictures(varied, 0) == pictures(open_clips(tmp_path, {}), 0)).all()


def test_heads_move_and_the_face_of_densepose_is_removed(tmp_path: Path) -> None:
    write_people(tmp_path)
    people = {"openpose": {"points": "poses", "drop": 1e-9, "remove_face": True}, "densepose": {"drop": 0, "remove_face": True}}
    frame = pictures(open_clips(tmp_path, people), 0)[0]
    plain = pictures(open_clips(tmp_path, {}), 0)[0]
    assert {int(value) for value in np.unique(frame[2])} == {0, 21}
    changed = np.nonzero((frame[3:] != plain[3:]).any(0))[0]
    assert len(changed)
    assert changed.max() < np.nonzero(plain[3:].any(0))[0].max() - 40  # only at the head


@pytest.mark.parametrize(
    ("people", "error", "message"),
    [
        ({"pose": {"points": "poses"}}, ConfigError, "there are no pictures called pose"),
        ({"openpose": {"points": "none"}}, InputError, "holds no points of a"),
        ({"densepose": {"points": "poses"}}, InputError, "does not show the points"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, people: dict[str, Any], error: type[Exception], message: str) -> None:
    write_people(tmp_path)
    with pytest.raises(error, match=message):
        open_clips(tmp_path, people)
