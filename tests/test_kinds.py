"""What is given in the place of something else is named, and so is what was wanted."""

from __future__ import annotations

import shlex
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vidgen import cli, kinds
from vidgen.commands.train import train
from vidgen.media.frames import open_sink
from vidgen.media.images import write_png


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its data and configuration, a video and a photo."""
    folder = tmp_path_factory.mktemp("kinds")
    train(tiny.write_config(folder, tiny.write_data(folder / "data", 1, 6)), folder / "run", steps=1)
    photos = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), dtype=np.uint8)
    with open_sink(folder / "clip.mp4", time_base=Fraction(1, 25), frame_rate=Fraction(25)) as sink:
        for index, photo in enumerate(photos):
            sink.write(photo, index)
    write_png(folder / "photo.png", photos[0])
    (folder / "endless.safetensors").symlink_to("/dev/zero")
    return folder


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("translate clip.mp4 run -o x.mp4", "clip.mp4: is a video, and run is a run folder; the model comes first"),
        ("translate data/labels/clip0 run -o x.mp4", "is a folder of pictures, and run is a run folder; the model comes first"),
        ("edit-labels photo.png run", "photo.png: is a picture, and run is a run folder; the model comes first"),
        ("translate run run -o x.mp4", "run: is a run folder; a video or a folder of pictures was expected"),
        ("animate run -o x.mp4", "run: is a run folder; a video or a folder of pictures was expected"),
        ("evaluate tiny.yaml", "tiny.yaml: is a configuration file; a video, a picture or a folder of pictures was expected"),
        ("translate run photo.png -o x.png", "photo.png: holds 1536 different colors, as a photo does; a label map was expected"),
        ("translate tiny.yaml clip.mp4 -o x.mp4", "tiny.yaml: is a configuration file; a run folder or a weights file"),
        ("models info clip.mp4", "clip.mp4: is a video; a run folder or a weights file"),
        ("models info endless.safetensors", "endless.safetensors: is neither a file nor a folder; a run folder or a weights file"),
        ("models slim data/labels/clip0 -o m.safetensors", "is a folder of pictures; a run folder or a weights file"),
        ("train tiny.yaml --init clip.mp4 -o other", "clip.mp4: is a video; a run folder or a weights file"),
        ("report clip.mp4 -o r.html", "clip.mp4: is a video; scores (the JSON of an evaluation) or a run folder were expected"),
        ("config check run", "run: is a run folder; a configuration file (YAML) was expected"),
        ("train clip.mp4", "clip.mp4: is a video; a configuration file (YAML) was expected"),
        ("data check run", "run: is a run folder; the folder of a data set was expected"),
        ("data check clip.mp4", "clip.mp4: is a video; the folder of a data set was expected"),
        ("data check data --config photo.png", "photo.png: is a picture; a configuration file (YAML) was expected"),
        (
            "translate run data/labels/clip0 -o x.mp4 --label-encoding photo.png",
            "photo.png: is a picture; a label table (.json or .csv) was expected",
        ),
        ("translate run data/labels/clip0 -o x.mp4 --device 0", "a CUDA device has its number behind it: cuda:0"),
    ],
)
def test_what_was_given_and_what_was_wanted_are_named(
    line: str, message: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    assert cli.main(["-q", *shlex.split(line)]) in (1, 2)
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) <= 2


def test_paths_are_called_by_what_they_lead_to(place: Path, tmp_path: Path) -> None:
    found = {
        name: kinds.kind_of(place / name)
        for name in ("run", "clip.mp4", "photo.png", "tiny.yaml", "data/labels/clip0", "data", "absent")
    }
    assert list(found.values()) == [
        "a run folder",
        "a video",
        "a picture",
        "a configuration file",
        "a folder of pictures",
        "a folder",
        "nothing",
    ]
    assert kinds.kind_of(tmp_path) == "an empty folder"
