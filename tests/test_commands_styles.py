"""Styles as a user meets them: found in a data set, chosen by class, object or reference, and seen in the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from vidgen import config, durable
from vidgen.commands import models
from vidgen.commands.edit import edit_labels
from vidgen.commands.styles import choose_style, styles
from vidgen.commands.translate import translate
from vidgen.errors import ConfigError, InputError
from vidgen.inference.model import Model
from vidgen.media import images, labels
from vidgen.training import run
from vidgen.training import settings as run_settings
from vidgen.weights.files import pack


def _model(path: Path, **changes: object) -> Path:
    """An untrained pix2pixHD with a feature encoder."""
    model = {
        "kind": "pix2pixhd",
        "num_labels": tiny.NUM_CLASSES,
        "use_instances": True,
        "generator": {"base_channels": 4, "num_downsamplings": 2, "num_blocks": 1},
        "encoder": {"base_channels": 4, "num_downsamplings": 2, "num_features": 2},
        "discriminators": {"base_channels": 4, "num_scales": 1},
        **changes,
    }
    return _weights(path, model)


def _weights(path: Path, model: dict) -> Path:
    """An untrained model of any kind that reads the tiny data with instances."""
    shown = {"labels": {"num_classes": tiny.NUM_CLASSES}, "instances": "instances"}
    settings = config.from_data({"model": model, "data": {"root": ".", "condition": shown}}, run_settings.run_schema(), "test")
    torch.manual_seed(0)
    translator = run.build(settings)
    for parameter in translator.parameters():
        parameter.data *= 5  # so that an untrained model's answers differ by more than a grey level
    card = run.model_card(settings, labels.plain(tiny.NUM_CLASSES), (tiny.HEIGHT, tiny.WIDTH))
    durable.write_bytes(path, pack(translator.state_dict(), card.metadata()))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a data set with instance maps, and the styles found in it."""
    folder = tmp_path_factory.mktemp("styles")
    data = tiny.write_data(folder / "data", num_frames=3)
    for path in sorted((data / "labels").rglob("*.png")):
        stored = images.read_labels(path).astype(np.uint16)
        objects = np.where(stored >= 2, stored * 1000, stored).astype(np.uint16)
        images.write_png(data / "instances" / path.relative_to(data / "labels"), objects)
    styles(_model(folder / "m.safetensors"), data, folder / "m.styles.safetensors", num_styles=3)
    return folder


def _maps(folder: Path) -> tuple[str, str]:
    return str(folder / "data/labels/clip0/000.png"), str(folder / "data/instances/clip0/000.png")


def test_styles_are_counted_by_class_and_found_beside_the_model(folder: Path) -> None:
    told = styles(folder / "m.safetensors", folder / "data", folder / "again.safetensors", num_styles=3)
    assert told["channels"] == 2
    assert told["classes"]["class 2"] == "3 styles of 3 objects"
    assert told["classes"]["class 0"] == "3 styles of 6 objects"
    assert (folder / "again.safetensors").read_bytes()[-40:] == (folder / "m.styles.safetensors").read_bytes()[-40:]
    info = models.info(folder / "again.safetensors")
    assert (info["kind"], info["channels"], info["classes"]["class 2"]) == ("styles", 2, "3 styles")
    style = choose_style(Model.load(folder / "m.safetensors"))
    assert style is not None
    assert style.styles is not None
    assert sorted(style.styles.centres) == [0, 1, 2, 3]


def test_a_style_changes_the_object_it_is_set_for(folder: Path, tmp_path: Path) -> None:
    label_map, objects = _maps(folder)
    made = edit_labels(folder / "m.safetensors", label_map, tmp_path / "car.png", instances=objects, variants="2000:3")
    assert made["output"] == [str(tmp_path / f"car-{style}.png") for style in range(3)]
    first, second, third = (images.read_picture(Path(path)).astype(int) for path in made["output"])
    inside = images.read_labels(Path(objects)) == 2000
    for other in (second, third):
        assert np.abs(first - other)[inside].mean() > 1
    edit_labels(folder / "m.safetensors", label_map, tmp_path / "set.png", instances=objects, object_styles=["2000:1"])
    assert np.array_equal(images.read_picture(tmp_path / "set.png"), second)


def test_a_reference_picture_lends_its_styles(folder: Path, tmp_path: Path) -> None:
    label_map, objects = _maps(folder)
    model = Model.load(folder / "m.safetensors")
    reference = (str(folder / "data/images/clip0/000.png"), label_map, objects)
    style = choose_style(model, reference=reference)
    assert style is not None
    assert sorted(style.of_object) == [0, 1, 2000]
    other = choose_style(model, reference=reference, chosen=["class 2=0"])
    assert other is not None
    assert style.styles is not None
    assert 2000 not in other.of_object
    assert np.array_equal(other.of_class[2], style.styles.one(2, 0))
    translate(folder / "m.safetensors", [label_map], str(tmp_path / "a.png"), instances=objects, reference=reference)
    translate(folder / "m.safetensors", [label_map], str(tmp_path / "b.png"), instances=objects, chosen=["class 0=1", "class 2=2"])
    assert not np.array_equal(images.read_picture(tmp_path / "a.png"), images.read_picture(tmp_path / "b.png"))


@pytest.mark.parametrize(
    ("orders", "error", "message"),
    [
        ({"chosen": ["lorry=1"]}, ConfigError, "--style lorry=1: expected CLASS=STYLE, such as car=3; classes: class 0, class 1"),
        ({"chosen": ["class 2=9"]}, ConfigError, "style 9: class 2 has the styles 0..2"),
        ({"object_styles": ["2000:x"]}, ConfigError, "expected ID:STYLE"),
        ({"object_styles": ["2009:1"]}, InputError, "object 2009: is not in the picture"),
        ({"variants": "2000"}, ConfigError, "--variants 2000: expected ID:N"),
        ({"variants": "2000:4"}, ConfigError, "style 3: class 2 has the styles 0..2"),
    ],
)
def test_every_faulty_choice_is_one_clear_line(
    folder: Path, tmp_path: Path, orders: dict, error: type[Exception], message: str
) -> None:
    label_map, objects = _maps(folder)
    with pytest.raises(error) as caught:
        edit_labels(folder / "m.safetensors", label_map, tmp_path / "out.png", instances=objects, **orders)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_model_without_an_encoder_has_no_styles_and_one_without_styles_says_so(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    label_map, objects = _maps(folder)
    plain = _model(tmp_path / "plain.safetensors", encoder=None)
    with pytest.raises(ConfigError, match="no feature encoder"):
        edit_labels(plain, label_map, tmp_path / "out.png", instances=objects, chosen=["class 2=1"])
    with pytest.raises(ConfigError, match="no feature encoder"):
        styles(plain, folder / "data", tmp_path / "s.safetensors")
    edit_labels(_model(tmp_path / "m.safetensors"), label_map, tmp_path / "out.png", instances=objects, removals=["2000"])
    assert "make some with: vidgen styles" in caplog.text
    with pytest.raises(ConfigError, match="no styles are known"):
        edit_labels(tmp_path / "m.safetensors", label_map, tmp_path / "x.png", instances=objects, chosen=["class 2=1"])


def test_an_image_model_makes_the_first_frame_of_vid2vid(folder: Path, tmp_path: Path) -> None:
    model = {
        "kind": "vid2vid",
        "num_labels": tiny.NUM_CLASSES,
        "use_instances": True,
        "generator": {"base_channels": 4, "num_downsamplings": 2, "num_blocks": 2},
        "discriminators": {"base_channels": 4, "num_scales": 1, "num_temporal_scales": 0},
    }
    video_model = _weights(tmp_path / "v.safetensors", model)
    label_maps, objects = str(folder / "data/labels/clip0"), str(folder / "data/instances/clip0")
    made = translate(video_model, [label_maps], str(tmp_path / "out/"), instances=objects, first_frame=folder / "m.safetensors")
    assert (made["frames"], made["first_frames_given"]) == (3, 1)
    image = next(iter(Model.load(folder / "m.safetensors").translate(label_maps, instances=objects)))
    assert np.array_equal(images.read_picture(sorted((tmp_path / "out").glob("*.png"))[0]), image)
