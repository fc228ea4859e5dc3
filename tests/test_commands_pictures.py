"""animate, sample, super-resolve, harmonize, edit and paint as their users meet them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from tests.test_single_image import landscape
from tests.tiny_networks import filled
from vidgen import cli
from vidgen.commands import pictures
from vidgen.errors import ConfigError
from vidgen.evaluation.networks import WeightsFile, load_networks
from vidgen.media import images
from vidgen.media.frames import open_source
from vidgen.metrics.backbones import empty
from vidgen.single_image import budget


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a picture and what is made from it, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    picture = landscape(32, 40)
    images.write_png(tmp_path / "a.png", picture)
    changed = picture.copy()
    changed[10:18, 10:20] = 255
    images.write_png(tmp_path / "changed.png", changed)
    images.write_png(tmp_path / "black.png", np.zeros((32, 40), np.uint8))
    images.write_png(tmp_path / "mask.png", (changed != picture).any(axis=2).astype(np.uint8) * 255)
    images.write_png(tmp_path / "other.png", np.full((20, 20), 255, np.uint8))
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("RGB", (3, 2000)).save(tmp_path / "line.png")
    images.write_png(tmp_path / "inner" / "000.png", picture)
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    return tmp_path


def run(line: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The result of a command that succeeds."""
    code = cli.main([*shlex.split(line), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    result = json.loads(out)
    assert isinstance(result, dict)
    return result


def test_an_animation_is_a_video_of_the_length_size_and_rate_asked_for(home, capsys):
    result = run("animate a.png -o 'bewegt é.mp4' --loop --num-frames 8 --fps 8 --size 48x36 --start-scale 0", capsys)
    source = open_source("bewegt é.mp4")
    assert (source.count(), source.size, source.frame_rate) == (8, (36, 48), 8)
    assert result["frames"] == 8
    assert result["loop_gap"] < 2
    assert result["method"] == "patch"


@pytest.mark.parametrize("output", ["a.webm", "a.gif", "a.apng", "a.webp", "frames/"])
def test_an_animation_is_written_in_every_form(home, capsys, output):
    run(f"animate a.png -o {output} --num-frames 3", capsys)
    path = home / output
    if path.is_dir():
        assert [file.name for file in sorted(path.glob("*.png"))] == ["00000.png", "00001.png", "00002.png"]
    else:
        assert path.stat().st_size > 0


def test_a_clip_gives_another_clip(home, capsys):
    for index in range(5):
        images.write_png(home / "clip" / f"{index}.png", np.roll(landscape(24, 28), index, axis=1))
    result = run("animate clip -o new.mkv --num-frames 7 --loop --quality lossless", capsys)
    assert open_source("new.mkv").count() == 7
    assert result["size"] == "28x24"
    assert run("animate clip -o other.mkv --dry-run", capsys)["training"] == "none"
    assert not (home / "other.mkv").exists()


def test_a_clip_that_is_cut_off_is_refused_unless_what_is_left_will_do(home, capsys):
    run("animate a.png -o whole.mkv --num-frames 20 --quality lossless", capsys)
    content = (home / "whole.mkv").read_bytes()
    (home / "cut.mkv").write_bytes(content[: len(content) * 7 // 10])
    assert cli.main(["animate", "cut.mkv", "-o", "x.mp4"]) == 2
    assert "with --allow-truncated" in capsys.readouterr().err
    assert not (home / "x.mp4").exists()
    assert 0 < run("animate cut.mkv -o x.mp4 --allow-truncated", capsys)["frames"] < 20


def test_samples_make_a_sheet_or_a_folder_and_are_measured_by_three_numbers(home, capsys):
    result = run("sample a.png -o sheet.png --num-samples 2 --aspect 2:1 --score", capsys)
    assert list(result["scores"]) == ["swd", "diversity", "copy"]
    assert result["size"] == "51x25"
    assert images.read_size(home / "sheet.png") == (4 + 32 + 4, 4 + 44 + 2 * 55)
    run("sample a.png -o folder --num-samples 2 --size 20x30", capsys)
    assert sorted(file.name for file in (home / "folder").iterdir()) == [".vidgen.json", "000.png", "001.png", "sheet.png"]
    assert images.read_size(home / "folder" / "001.png") == (30, 20)
    run("sample a.png -o folder --num-samples 1 --overwrite", capsys)
    assert sorted(file.name for file in (home / "folder").iterdir()) == [".vidgen.json", "000.png", "sheet.png"]


@pytest.fixture
def inception(tmp_path: Path) -> Path:
    """torchvision's network at random, saved as it is published; only what SIFID reads."""
    network = filled(empty(lambda: models.inception_v3(weights=None, init_weights=False)))
    tensors = {name: value.clone() for name, value in network.state_dict().items() if name.startswith("Conv2d_")}
    torch.save(tensors, tmp_path / "inception.pth")
    return tmp_path / "inception.pth"


def test_samples_are_measured_by_sifid_where_its_weights_are_given(home, capsys, inception):
    picture = landscape(64, 80)
    images.write_png(home / "large.png", picture)
    scores = run(f"sample large.png -o sheet.png --num-samples 2 --score --pretrained sifid={inception}", capsys)["scores"]
    assert list(scores) == ["swd", "diversity", "copy", "sifid"]
    assert scores["sifid"] > 0
    networks, _ = load_networks(["sifid"], {"sifid": WeightsFile(inception)})
    assert pictures.score_samples([picture], picture, networks)["sifid"] == pytest.approx(0, abs=1e-3)
    assert scores["sifid"] < pictures.score_samples([np.full_like(picture, 128)], picture, networks)["sifid"]
    small = run(f"sample a.png -o small.png --num-samples 1 --size 20x20 --score --pretrained sifid={inception}", capsys)["scores"]
    assert small["sifid"] == "needs frames of at least 32 pixels on the shorter side"


def test_samples_of_a_transparent_picture_are_transparent(home, capsys):
    opacity = np.full((32, 40), 255, np.uint8)
    opacity[:16] = 0
    images.write_png(home / "clear.png", np.dstack([landscape(32, 40), opacity]))
    run("sample clear.png -o clear --num-samples 1", capsys)
    with Image.open(home / "clear" / "000.png") as image:
        assert image.mode == "RGBA"
    run("animate clear.png -o clear.mp4 --num-frames 2", capsys)


def test_a_picture_is_enlarged_harmonized_edited_and_painted(home, capsys):
    assert run("super-resolve a.png -o large.png --factor 2", capsys)["size"] == "80x64"
    for line in (
        "harmonize changed.png --image a.png --mask mask.png -o h.png",
        "harmonize changed.png --image a.png -o h2.png",
        "edit-image a.png changed.png --mask mask.png -o e.png",
        "paint other.png --image a.png -o p.png",
    ):
        assert run(line, capsys)["size"] == "40x32", line
    assert not np.array_equal(images.read_picture(home / "e.png"), images.read_picture(home / "changed.png"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("animate dot.png -o x.mp4", "error: dot.png: 1x1; at least 16x16 pixels are needed to learn from\n"),
        ("sample line.png -o x.png", "error: line.png: 3x2000; at least 16x16 pixels are needed to learn from\n"),
        ("sample broken.png -o x.png", "error: broken.png: not a picture that can be read (png, jpg, webp, bmp, tiff, ppm)\n"),
        ("sample none.png -o x.png", "error: none.png: not found\n"),
        (
            "sample a.png -o other.png",
            "error: other.png: exists already\nhint: add --overwrite to replace it, or choose another name with -o\n",
        ),
        ("sample a.png -o a.png", "error: a.png: is also read as an input (a.png)\n"),
        ("sample a.png -o x.jpg", "error: x.jpg: pictures are written as .png, or into a folder\n"),
        ("sample a.png -o x.png --size 300", "error: --size 300: expected WIDTHxHEIGHT, such as 320x180\n"),
        ("sample a.png -o x.png --aspect 1:100", "error: aspect 0.01: gives 4x358; sides are from 16 to 8192 pixels\n"),
        ("sample a.png -o x.png --max-size big", "error: --max-size big: expected auto, or pixels from 16 to 8192\n"),
        ("sample a.png -o x.png --start-scale 7", "error: start scale 7: this picture has scales 0 to 1\n"),
        ("animate a.png -o '' --overwrite", "error: the output has no name\n"),
        ("animate a.png -o x.txt", "error: x.txt: cannot write .txt; known are"),
        ("harmonize changed.png --image a.png --mask black.png -o x.png", "error: black.png: the mask is black everywhere;"),
        (
            "harmonize changed.png --image a.png --mask other.png -o x.png",
            "error: other.png: 20x20, but the picture it belongs to is",
        ),
        ("harmonize a.png --image a.png -o x.png", "error: the changed picture is the original: there is nothing to blend in\n"),
        ("edit-image a.png other.png -o x.png", "error: other.png: 20x20, but a.png is 40x32; expected the same size\n"),
        (
            "sample a.png -o x.png --score --pretrained dino=a",
            "error: pretrained network dino: scores of samples need none of that name; sifid=FILE adds SIFID\n",
        ),
        (
            "sample a.png -o x.png --pretrained sifid=a",
            "error: pretrained network sifid: is for scores of samples, which were not asked for\n",
        ),
        ("sample a.png -o inner", "error: inner: the folder holds other things, such as 000.png; it is left alone\n"),
        ("sample a.png -o inner --overwrite", "error: inner: the folder holds other things, such as 000.png; it is left alone\n"),
        ("sample a.png -o taken.png --overwrite", "error: taken.png: is a folder; a file is to be written\n"),
        ("super-resolve a.png -o taken.png --overwrite", "error: taken.png: is a folder; a file is to be written\n"),
        ("animate a.png -o x.mp4 --size nanxnan", "error: --size nanxnan: expected WIDTHxHEIGHT, such as 320x180\n"),
        ("animate a.png -o x.mp4 --size infx20", "error: --size infx20: expected WIDTHxHEIGHT, such as 320x180\n"),
        ("animate a.png -o x.mp4 --aspect nan:1", "error: --aspect nan:1: expected WIDTH:HEIGHT, such as 16:9\n"),
        ("animate a.png -o x.mp4 --fps nan", "error: Invalid value for '--fps': nan is not a finite number"),
        ("animate a.png -o x.mp4 --alpha nan", "error: Invalid value for '--alpha': nan is not a finite number"),
        (
            "sample a.png -o x.png --method fast --run mask.png",
            "error: model mask.png: is a file; a folder to train into was expected\n",
        ),
        ("sample a.png -o x.png --run m", "error: model m: method patch trains none; take method fast or consingan or singan\n"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_writes_nothing(home, capsys, line, message):
    before = sorted(path.name for path in home.iterdir())
    assert cli.main(shlex.split(line)) in (1, 2)
    assert capsys.readouterr().err.startswith(message)
    assert sorted(path.name for path in home.iterdir()) == before


@pytest.mark.parametrize(("file", "message"), [("none.pth", "sifid: none.pth: No such file"), ("dot.png", "sifid: dot.png: ")])
def test_a_file_that_is_no_network_is_refused(home, capsys, file, message):
    assert cli.main(shlex.split(f"sample a.png -o x.png --score --pretrained sifid={file}")) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (home / "x.png").exists()


def test_a_dry_run_shows_the_scales(home, capsys):
    assert run("sample a.png -o x.png --dry-run", capsys)["scales"] == "30x24, 40x32"
    assert not (home / "x.png").exists()


def test_a_budget_is_for_the_whole_command(home, capsys):
    rows = run("animate a.png -o x.mp4 --method fast --time-limit 30s --dry-run", capsys)["scales"]
    seconds = sum(row["seconds"] for row in rows)
    assert 10 < seconds <= budget.SHARE * 30 + 0.1 * len(rows)


@pytest.mark.slow
def test_a_model_is_trained_once_for_a_picture_and_its_settings(home, capsys, caplog):
    caplog.set_level("INFO")
    options: dict[str, Any] = {"method": "fast", "budget_seconds": 40.0, "num_samples": 2}
    first = pictures.sample(home / "a.png", home / "one.png", **options)
    assert first["method"] == "fast"
    assert "training on it in" in caplog.text
    caplog.clear()
    (home / "a.png").rename(home / "renamed.png")
    pictures.sample(home / "renamed.png", home / "two.png", **options)
    assert "learned already" in caplog.text
    assert np.array_equal(images.read_picture(home / "one.png"), images.read_picture(home / "two.png"))
    (model,) = (home / "cache" / "vidgen" / "single").iterdir()
    animated = pictures.animate(
        str(home / "renamed.png"), str(home / "m.mp4"), method="fast", model=model, num_frames=4, loop=True, size="48x32"
    )
    assert (animated["frames"], animated["size"]) == (4, "48x32")
    with pytest.raises(ConfigError, match="has learned another picture"):
        pictures.sample(home / "changed.png", home / "three.png", method="fast", model=model)


def test_a_method_that_does_not_enlarge_says_so(home):
    with pytest.raises(ConfigError, match="consingan is not made for super-resolution"):
        pictures.super_resolve(home / "a.png", home / "x.png", method="consingan")
