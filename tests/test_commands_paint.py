"""Drawings in the colors of a style picture, as a user meets it: pictures, folders, videos, sheets; and what is refused."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vidgen
from vidgen.commands.train import train
from vidgen.commands.translate import translate
from vidgen.errors import ConfigError, InputError, OutputError
from vidgen.media.drawings import line_art
from vidgen.media.frames import open_sink, open_source
from vidgen.media.images import read_picture, write_png
from vidgen.weights.model_file import for_use, read_card

HEIGHT, WIDTH = 32, 48
CONFIG = """
model:
  kind: style2paints
  generator: {{base_channels: 8, mid_channels: 32, num_levels: 2}}
  hint: {{encoder: color_statistics, normalization: data}}
  discriminator: null
  losses: {{l1_weight: 10}}
  schedule: {{epochs: 20, decay_epochs: 5, learning_rate: 5.0e-3}}
data:
  root: {root}
  target: paintings
  pairs: stills
  condition:
    lines: {{}}
    style: {{size: 32, warp: 0}}
train: {{precision: fp32, sample_every_steps: 0, checkpoint_every_steps: 40, batch_size: 3, micro_batch_size: 3}}
"""


def _painting(color: tuple[int, int, int], place: int) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = (rows - 16) ** 2 + (columns - 12 - 3 * place) ** 2 < 80
    return np.where(inside[..., None], color, tuple(255 - value // 2 for value in color)).astype(np.uint8)


COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 210)}


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paints")
    for index in range(6):
        color = list(COLORS.values())[index % 3]
        write_png(folder / "data" / "paintings" / f"{index}.png", _painting(color, index))
    config = folder / "paints.yaml"
    config.write_text(CONFIG.format(root=folder / "data"))
    train(config, folder / "run", steps=100)
    return folder / "run"


@pytest.fixture
def styles(tmp_path: Path) -> Path:
    for name, color in COLORS.items():
        write_png(tmp_path / "styles" / f"{name}.png", _painting(color, 6))
    return tmp_path / "styles"


def _drawing(place: int) -> np.ndarray:
    return np.repeat(line_art(_painting((120, 120, 120), place))[..., None], 3, axis=2)


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    write_png(tmp_path / "lines.png", _drawing(2))
    return tmp_path / "lines.png"


def test_a_drawing_takes_the_colors_of_the_style_picture(painter: Path, styles: Path, drawing: Path, tmp_path: Path) -> None:
    means = {}
    for name in ("red", "blue"):
        saved = translate(painter, [str(drawing)], str(tmp_path / f"{name}.png"), chosen=[str(styles / f"{name}.png")])
        assert Path(saved["style"]).name == f"{name}.png"
        means[name] = read_picture(tmp_path / f"{name}.png")[12:20, 16:20].mean((0, 1))
    assert read_picture(tmp_path / "red.png").shape == (HEIGHT, WIDTH, 3)
    assert means["red"][0] > means["blue"][0] + 40
    assert means["blue"][2] > means["red"][2] + 40
    painted, wanted = (picture.astype(float) for picture in (read_picture(tmp_path / "red.png"), _painting(COLORS["red"], 2)))
    mean = np.mean([_painting(color, place) for color in COLORS.values() for place in range(6)], axis=0)
    error = np.abs(painted - wanted).mean()
    assert error < np.abs(mean - wanted).mean()
    assert error < np.abs(_drawing(2) - wanted).mean()
    assert painted.std() > 0.05 * 255


def test_the_style_is_an_input_like_any_other(painter: Path, styles: Path, drawing: Path, tmp_path: Path) -> None:
    style = str(styles / "red.png")
    translate(painter, [str(drawing)], str(tmp_path / "one.png"), chosen=[style])
    translate(painter, [str(drawing)], str(tmp_path / "two.png"), further=[f"style={style}"])
    model = vidgen.load(painter)
    assert [item.name for item in model.inputs] == ["lines", "style"]
    (three,) = model.translate(drawing, further={"style": style})
    four = model.session((HEIGHT, WIDTH)).step(read_picture(drawing), style=read_picture(Path(style)))
    one = read_picture(tmp_path / "one.png")
    for other in (read_picture(tmp_path / "two.png"), three, four):
        assert np.array_equal(one, other)


def test_every_drawing_comes_in_every_style_with_a_sheet(painter: Path, styles: Path, tmp_path: Path) -> None:
    for index in range(2):
        write_png(tmp_path / f"lines{index}.png", _drawing(index))
    inputs = [str(tmp_path / f"lines{index}.png") for index in range(2)]
    sheet = tmp_path / "sheet.png"
    result = translate(painter, inputs, str(tmp_path / "out"), chosen=[str(styles)], sheet=sheet)
    names = {f"lines{index}-{name}.png" for index in range(2) for name in COLORS}
    assert {Path(item["output"]).name for item in result["results"]} == names
    height, width = read_picture(sheet).shape[:2]
    cell = (128 + 8, 192 + 8)
    assert (height, width) == (3 * cell[0], 4 * cell[1])
    first = read_picture(sheet)[cell[0] + 4 : cell[0] + 132, cell[1] + 4 : cell[1] + 196]
    expected = read_picture(tmp_path / "out" / "lines0-blue.png")
    assert np.abs(first[64, 96].astype(int) - expected[16, 24]).max() < 40
    with pytest.raises(OutputError):
        translate(painter, inputs, str(tmp_path / "other"), chosen=[str(styles)], sheet=sheet)


def test_a_video_of_drawings_has_one_style(painter: Path, styles: Path, tmp_path: Path) -> None:
    clip = tmp_path / "lines.mkv"
    with open_sink(clip, time_base=Fraction(1, 25), frame_rate=Fraction(25), quality="lossless") as sink:
        for index in range(5):
            sink.write(_drawing(index), index)
    translate(painter, [str(clip)], str(tmp_path / "out.mkv"), chosen=[str(styles / "green.png")], quality="lossless", steady=0.0)
    frames = [frame.pixels for frame in open_source(tmp_path / "out.mkv")]
    assert len(frames) == 5
    model = vidgen.load(painter)
    read = [frame.pixels for frame in open_source(clip)]
    session = model.session((HEIGHT, WIDTH))
    alone = [session.step(read[0], style=read_picture(styles / "green.png")), *(session.step(frame) for frame in read[1:])]
    assert max(np.abs(one.astype(int) - other).max() for one, other in zip(frames, alone, strict=True)) <= 3
    session.reset()
    with pytest.raises(InputError, match="reads a style picture, but got none"):
        session.step(read[0])


def test_a_slim_model_file_alone_is_enough(painter: Path, styles: Path, drawing: Path, tmp_path: Path) -> None:
    card, weights, place = read_card(painter)
    slim = for_use(card, weights, place)
    assert {name.split(".")[0] for name in slim.tensors} == {"generator"}


def test_white_lines_on_black_are_mentioned_and_can_be_turned_over(
    painter: Path, styles: Path, drawing: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(tmp_path / "negative.png", 255 - read_picture(drawing))
    style = [str(styles / "red.png")]
    translate(painter, [str(drawing)], str(tmp_path / "one.png"), chosen=style)
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "vidgen"):
        translate(painter, [str(tmp_path / "negative.png")], str(tmp_path / "wrong.png"), chosen=style)
    assert "light lines on dark" in caplog.text
    assert "--invert" in caplog.text
    caplog.clear()
    translate(painter, [str(tmp_path / "negative.png")], str(tmp_path / "two.png"), chosen=style, inverted=True)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert np.array_equal(read_picture(tmp_path / "one.png"), read_picture(tmp_path / "two.png"))


def test_a_photo_in_place_of_a_drawing_is_mentioned(
    painter: Path, styles: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(tmp_path / "photo.png", _painting(COLORS["blue"], 1))
    with caplog.at_level(logging.WARNING, "vidgen"):
        translate(painter, [str(tmp_path / "photo.png")], str(tmp_path / "out.png"), chosen=[str(styles / "red.png")])
    assert "looks like a photo" in caplog.text


def test_transparent_paper_is_white(painter: Path, styles: Path, drawing: Path, tmp_path: Path) -> None:
    ink = 255 - read_picture(drawing)[:, :, 0]
    layers = np.dstack([np.zeros((HEIGHT, WIDTH, 3), np.uint8), ink])
    Image.fromarray(layers, "RGBA").save(tmp_path / "transparent.png")
    style = [str(styles / "red.png")]
    translate(painter, [str(drawing)], str(tmp_path / "one.png"), chosen=style)
    translate(painter, [str(tmp_path / "transparent.png")], str(tmp_path / "two.png"), chosen=style)
    assert np.array_equal(read_picture(tmp_path / "one.png"), read_picture(tmp_path / "two.png"))


def test_what_cannot_be_painted_is_refused_in_one_line(painter: Path, styles: Path, drawing: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out.png")
    with pytest.raises(InputError, match="also needs a style picture"):
        translate(painter, [str(drawing)], out)
    write_png(tmp_path / "dot.png", np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(InputError, match=r"dot\.png: is 1x1; a style picture has at least"):
        translate(painter, [str(drawing)], out, chosen=[str(tmp_path / "dot.png")])
    write_png(tmp_path / "blank.png", np.full((HEIGHT, WIDTH, 3), 255, np.uint8))
    with pytest.raises(InputError, match=r"blank\.png: is blank; a line drawing was expected"):
        translate(painter, [str(tmp_path / "blank.png")], out, chosen=[str(styles / "red.png")])
    with pytest.raises(InputError, match="nowhere"):
        translate(painter, [str(drawing)], out, chosen=[str(tmp_path / "nowhere.png")])
    write_png(tmp_path / "more" / "red.png", _painting(COLORS["red"], 1))
    with pytest.raises(OutputError, match="red"):
        translate(painter, [str(drawing)], out, chosen=[str(styles / "red.png"), str(tmp_path / "more" / "red.png")])
    with pytest.raises(ConfigError, match="NAME=FILE"):
        translate(painter, [str(drawing)], out, chosen=[str(styles / "red.png")], pretrained=["vgg19"])
    assert not (tmp_path / "out.png").exists()


def test_a_training_that_is_gone_on_with_gives_the_same_bits_and_can_be_planned(painter: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text((painter / "config.yaml").read_text())
    sets = ["model.discriminator={base_channels: 4, num_layers: 2, switch_every: 3}", "train.max_steps=14"]
    planned = train(config, tmp_path / "plan", sets=[*sets, "model.hint.encoder=efficientnet_lite0"], dry_run=True)
    assert planned["stages"][0]["activations_mb"] >= 0
    train(config, tmp_path / "whole", sets=sets)
    train(config, tmp_path / "parts", sets=sets, steps=5)
    train(config, tmp_path / "parts", sets=sets, resume=True)
    whole, parts = (read_card(tmp_path / name)[1].tensors for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_models_say_whether_they_read_a_style(painter: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text((painter / "config.yaml").read_text())
    with pytest.raises(ConfigError, match=r"data\.condition\.style: is not set, but style2paints reads a style picture"):
        train(config, tmp_path / "run", sets=["data.condition.style=null"])
    with pytest.raises(ConfigError, match=r"data\.condition\.style: is set, but pix2pix reads no style picture"):
        train(config, tmp_path / "run", sets=["model={kind: pix2pix}"])
