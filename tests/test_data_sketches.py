"""Sketches and classes of pictures as conditions: what is paired, what is refused, and how edge maps give way to sketches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import vidgen
from vidgen.commands import translate as translating
from vidgen.commands.train import train
from vidgen.data.clips import Clips
from vidgen.data.sequences import find_classes, find_sequences, survey
from vidgen.data.settings import DataSettings
from vidgen.errors import InputError
from vidgen.media import edge_maps
from vidgen.media.conditions import resize_picture
from vidgen.media.frames import open_source
from vidgen.media.images import read_picture, write_png
from vidgen.types import Stage
from vidgen.weights import checkpoints

SIZE, CLASSES = 32, ("disc", "square")


def _picture(name: str, place: int) -> np.ndarray:
    """A blue disc or a red square on gray, with noise enough to be a photo."""
    rng = np.random.default_rng([len(name), place])
    picture = np.full((64, 64, 3), 150, np.uint8)
    x, y = (int(value) for value in rng.integers(22, 42, 2))
    if name == "disc":
        cv2.circle(picture, (x, y), 15, (30, 60, 200), -1)
    else:
        cv2.rectangle(picture, (x - 13, y - 13), (x + 13, y + 13), (200, 40, 30), -1)
    slope = np.linspace(-90, 90, 64)[:, None, None] + np.linspace(-30, 30, 64)[None, :, None]
    return (picture + slope + rng.normal(0, 2, picture.shape)).clip(0, 255).astype(np.uint8)


def _drawing(name: str, place: int, shift: int = 2) -> np.ndarray:
    rng = np.random.default_rng([len(name), place])
    drawing = np.full((64, 64), 255, np.uint8)
    x, y = (int(value) + shift for value in rng.integers(22, 42, 2))
    if name == "disc":
        cv2.circle(drawing, (x, y), 15, 0, 1)
    else:
        cv2.rectangle(drawing, (x - 13, y - 13), (x + 13, y + 13), 0, 1)
    return drawing


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos each of two classes; the first of each has two drawings, the last none."""
    root = tmp_path_factory.mktemp("things")
    for name in CLASSES:
        for place in range(3):
            write_png(root / "photos" / name / f"{place}.png", _picture(name, place))
        for file, place in (("0-1", 0), ("0-2", 0), ("1-1", 1)):
            write_png(root / "sketches" / name / f"{file}.png", _drawing(name, place, shift=int(file[-1])))
    return root


def _settings(root: Path, **changes: Any) -> DataSettings:
    condition = {"classes": {}, "sketch": {}} | changes.pop("condition", {})
    values = {"root": root, "target": "photos", "pairs": "stills", "width": SIZE, "height": SIZE, "condition": condition}
    return DataSettings.model_validate(values | changes)


def _clips(settings: DataSettings) -> Clips:
    return Clips(settings, find_sequences(settings), None, seed=3, size_multiple=16, flow=None)


def test_every_drawing_of_a_photo_is_a_pair(things: Path) -> None:
    found = find_sequences(_settings(things, condition={"sketch": {"folder": "sketches"}}))
    pairs = {(sequence.target.paths[0].name, sequence.inputs["sketch"].paths[0].name) for sequence in found}
    assert len(found) == 6
    assert pairs == {("0.png", "0-1.png"), ("0.png", "0-2.png"), ("1.png", "1-1.png")}


def test_a_drawing_without_a_photo_is_refused(things: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "photos" / "disc" / "0.png", _picture("disc", 0))
    for name in ("0-1", "9-1"):
        write_png(tmp_path / "sketches" / "disc" / f"{name}.png", _drawing("disc", 0))
    with pytest.raises(InputError, match="without a partner: disc/0, disc/0-1, disc/9-1"):
        find_sequences(_settings(tmp_path, condition={"sketch": {"folder": "sketches"}}))


def test_listed_pictures_are_left_out(things: Path, tmp_path: Path) -> None:
    (things / "info").mkdir(exist_ok=True)
    (things / "info" / "testset.txt").write_text("disc/0.png\n\n")
    (things / "info" / "invalid-error.txt").write_text("0-2\n")
    settings = _settings(
        things, condition={"sketch": {"folder": "sketches"}}, exclude=["info/testset.txt", "info/invalid-error.txt"]
    )
    assert {sequence.name for sequence in find_sequences(settings)} == {"disc/1-1", "square/0-1", "square/1-1"}
    missing = settings.model_copy(update={"exclude": ("info/nothing.txt",)})
    assert "data.exclude" in str(survey(missing).faults[0])


def test_classes_are_the_folders_and_may_be_chosen(things: Path, tmp_path: Path) -> None:
    settings = _settings(things)
    filled = find_classes(settings, find_sequences(settings))
    assert filled.condition.classes is not None
    assert filled.condition.classes.names == CLASSES
    chosen = _settings(things, condition={"classes": {"names": ["square"]}})
    assert {sequence.name for sequence in find_sequences(chosen)} == {"square/0", "square/1", "square/2"}
    with pytest.raises(InputError, match="holds no pictures of the classes horse"):
        find_sequences(_settings(things, condition={"classes": {"names": ["horse"]}}))
    write_png(tmp_path / "photos" / "0.png", _picture("disc", 0))
    with pytest.raises(InputError, match="lies in no folder of a class"):
        _clips(_settings(tmp_path))


def test_a_clip_has_the_distances_to_the_strokes_and_its_class(things: Path) -> None:
    clips = _clips(_settings(things, condition={"sketch": {"folder": "sketches"}}))
    batch = clips.batch(Stage("", 1, 1, 1), 0, range(1), primer_frames=0, batch_size=6)
    assert batch.condition.tensors["class_id"].shape == (1,)
    for index, sequence in enumerate(clips.sequences):
        found = clips.excerpt(index, 0, 1, 0).condition
        assert found.tensors["class_id"].tolist() == [CLASSES.index(sequence.name.split("/")[0])]
        assert found.frames is not None
        distance = (found.frames[0, 0, 0].numpy() + 1) / 2
        strokes = cv2.resize(
            255 - read_picture(sequence.inputs["sketch"].paths[0])[..., 0], (SIZE, SIZE), interpolation=cv2.INTER_AREA
        )
        assert distance[strokes > 100].max() < 0.2
        assert distance.max() > 0.9


def test_without_drawings_edge_maps_of_the_photos_are_drawn(things: Path) -> None:
    clips = _clips(_settings(things))
    frames = clips.excerpt(0, 0, 1, 0).condition.frames
    drawing = edge_maps.edge_map(read_picture(clips.sequences[0].target.paths[0]))
    expected = cv2.resize(edge_maps.stroke_distance(drawing == 0), (SIZE, SIZE), interpolation=cv2.INTER_AREA) * 2 - 1
    assert frames is not None
    np.testing.assert_allclose(frames[0, 0, 0].numpy(), expected, atol=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda drawing: np.full_like(drawing, 255), "0.png: is blank; a sketch needs strokes"),
        (lambda drawing: 255 - drawing, "0.png: is light on dark"),
        (lambda drawing: _picture("disc", 1), "0.png: looks like a photo"),
    ],
)
def test_what_is_no_drawing_is_refused_by_name(tmp_path: Path, change: Any, message: str) -> None:
    write_png(tmp_path / "photos" / "disc" / "0.png", _picture("disc", 0))
    write_png(tmp_path / "sketches" / "disc" / "0.png", change(_drawing("disc", 0)))
    with pytest.raises(InputError, match=message):
        _clips(_settings(tmp_path, condition={"sketch": {"folder": "sketches"}})).excerpt(0, 0, 1, 0)


def test_the_share_of_sketches_follows_the_curriculum(things: Path) -> None:
    settings = _settings(things, sources={"sketches": {"sketches": "sketches"}})
    clips = _clips(settings)
    other = clips._source("sketches")
    assert len(other.sequences) == 6
    shares = {}
    for part, mixture in (("first", (0.1, 0.2)), ("middle", (0.6, 0.6)), ("last", (0.9, 0.9))):
        stage = Stage("", 1, 1, 1, mixture={"sketches": mixture})
        draws = [clips._owner(stage, sample, progress=sample / 4000) is other for sample in range(4000)]
        shares[part] = sum(draws) / len(draws)
    assert shares == pytest.approx({"first": 0.15, "middle": 0.60, "last": 0.90}, abs=0.02)


CONFIG = """
model:
  kind: sketchygan
  generator: {base_channels: 4, noise_channels: 8}
  discriminator: {base_channels: 4, objective: logistic}
  losses: {perceptual_weight: 0}
  schedule: {epochs: 2, learning_rate: 0.001, curriculum: {first: 0.2, last: 0.8}}
data:
  root: ROOT
  target: photos
  pairs: stills
  condition: {classes: {}, sketch: {}}
  sources: {sketches: {sketches: sketches}}
  width: 32
  height: 32
train: {batch_size: 2, micro_batch_size: 2, steps_per_epoch: 4, sample_every_steps: 0, checkpoint_every_steps: 3, precision: fp32}
"""


@pytest.fixture(scope="module")
def model(things: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = folder / "things.yaml"
    config.write_text(CONFIG.replace("ROOT", str(things)))
    train(config, folder / "run")
    return folder / "run"


def test_a_run_that_stopped_in_the_middle_of_the_curriculum_gives_the_same_weights(model: Path, tmp_path: Path) -> None:
    config = model.parent / "things.yaml"
    train(config, tmp_path / "run", steps=4)
    train(config, tmp_path / "run", steps=8)
    one, other = (checkpoints.find_weights(run, "last")[0].tensors for run in (model, tmp_path / "run"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_drawing_becomes_several_pictures_of_its_class(model: Path, tmp_path: Path) -> None:
    drawing = tmp_path / "drawing.png"
    write_png(drawing, _drawing("disc", 7))
    report = translating.translate(
        model, [str(drawing)], str(tmp_path / "out.png"), class_name="Disc", samples=3, sheet=tmp_path / "sheet.png"
    )
    pictures = [read_picture(Path(result["output"])) for result in report["results"]]
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 3
    assert not np.array_equal(pictures[0], pictures[1])
    sheet = read_picture(tmp_path / "sheet.png")
    assert sheet.shape == (128 + 8, 4 * (128 + 8), 3)
    assert np.array_equal(sheet[4:132, 140:268], resize_picture(pictures[0], (128, 128)))
    again = translating.translate(model, [str(drawing)], str(tmp_path / "again.png"), class_name="disc", seed=1)
    assert np.array_equal(read_picture(Path(again["output"])), pictures[1])


def test_a_video_of_drawings_has_one_noise(model: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / "frames" / f"{number}.png", _drawing("disc", 7) if number < 2 else np.full((64, 64), 255, np.uint8))
    session = vidgen.load(model)
    frames = list(session.translate(tmp_path / "frames", options=translating.Options(class_name="disc", seed=4)))
    assert np.array_equal(frames[0], frames[1])
    assert frames[2].shape == frames[0].shape, "a blank drawing within a video is one that is not begun"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"class_name": "horse"}, "it knows disc, square", None),
        ({"class_name": "squares"}, "it knows disc, square", "did you mean square"),
        ({}, "needs a class: disc, square", "class_name"),
    ],
)
def test_an_unknown_class_lists_those_that_there_are(
    model: Path, tmp_path: Path, options: dict[str, Any], message: str, hint: str | None
) -> None:
    write_png(tmp_path / "drawing.png", _drawing("disc", 7))
    with pytest.raises(InputError, match=message) as caught:
        translating.translate(model, [str(tmp_path / "drawing.png")], str(tmp_path / "out.png"), **options)
    assert hint is None or hint in str(caught.value.hint)
    assert not (tmp_path / "out.png").exists()


def test_inverted_drawings_are_told_and_can_be_read(model: Path, tmp_path: Path) -> None:
    drawing, inverted = tmp_path / "drawing.png", tmp_path / "inverted.png"
    write_png(drawing, _drawing("square", 7))
    write_png(inverted, 255 - _drawing("square", 7))
    with pytest.raises(InputError, match="light on dark") as caught:
        translating.translate(model, [str(inverted)], str(tmp_path / "out.png"), class_name="square")
    assert caught.value.hint == "give `inverted`"
    for file, out, is_inverted in ((drawing, "one.png", False), (inverted, "other.png", True)):
        translating.translate(model, [str(file)], str(tmp_path / out), class_name="square", inverted=is_inverted)
    assert np.array_equal(read_picture(tmp_path / "one.png"), read_picture(tmp_path / "other.png"))


def test_transparent_drawings_lie_on_white_and_tiny_ones_are_refused(model: Path, tmp_path: Path) -> None:
    drawing = _drawing("square", 7)
    write_png(tmp_path / "plain.png", drawing)
    write_png(tmp_path / "clear.png", np.dstack([np.zeros((64, 64, 3), np.uint8), 255 - drawing]))
    outs = []
    for name in ("plain", "clear"):
        translating.translate(model, [str(tmp_path / f"{name}.png")], str(tmp_path / f"{name}-out.png"), class_name="square")
        outs.append(read_picture(tmp_path / f"{name}-out.png"))
    assert np.array_equal(*outs)
    write_png(tmp_path / "dot.png", np.zeros((1, 1), np.uint8))
    with pytest.raises(InputError, match=r"dot.png: is blank"):
        translating.translate(model, [str(tmp_path / "dot.png")], str(tmp_path / "o.png"), class_name="square")


def test_a_sheet_shows_the_middle_of_a_video_of_drawings(model: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / "frames" / f"{number}.png", _drawing("disc", 7 + number))
    out = tmp_path / "out.mkv"
    translating.translate(
        model, [str(tmp_path / "frames")], str(out), class_name="disc", sheet=tmp_path / "s.png", quality="lossless"
    )
    sheet, drawn = read_picture(tmp_path / "s.png"), [frame.pixels for frame in open_source(out)]
    assert np.array_equal(sheet[4:132, 140:268], resize_picture(drawn[1], (128, 128)))
