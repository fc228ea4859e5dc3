"""Editing as a user meets it: maps in, changed maps and the picture of them out, one clear line for every fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidgen import config, durable
from vidgen.commands.edit import edit_labels
from vidgen.errors import ConfigError, InputError, OutputError
from vidgen.inference.model import Model
from vidgen.media import images, labels
from vidgen.media.labels import LabelTable
from vidgen.training import run
from vidgen.training import settings as run_settings
from vidgen.weights.files import pack

TABLE = LabelTable(("road", "sky", "traffic light", "car"), labels.distinct_colors(4), (7, 23, 19, 26), (0,))
ROAD, SKY, CAR = 7, 23, 26


def _model(path: Path, table: LabelTable, *, instances: bool) -> Path:
    """An untrained model that makes every picture alone."""
    model = {
        "kind": "vid2vid",
        "num_labels": table.num_classes,
        "use_instances": instances,
        "num_input_frames": 1,
        "generator": {"base_channels": 4, "num_downsamplings": 2, "num_blocks": 2, "flow": "none"},
        "discriminators": {"base_channels": 4, "num_scales": 1, "num_temporal_scales": 0},
    }
    shown = {"labels": {"num_classes": table.num_classes}, "instances": "instances" if instances else None}
    settings = config.from_data({"model": model, "data": {"root": ".", "condition": shown}}, run_settings.run_schema(), "test")
    torch.manual_seed(0)
    weights = pack(run.build(settings).state_dict(), run.model_card(settings, table, (40, 60)).metadata())
    durable.write_bytes(path, weights)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory.mktemp("model") / "m.safetensors", TABLE, instances=True)


@pytest.fixture
def maps(tmp_path: Path) -> tuple[str, str]:
    """Cars 26000 and 26001 on a road under the sky; a row that belongs to no class."""
    stored = np.full((40, 60), SKY, np.uint8)
    stored[20:] = ROAD
    stored[39] = 0
    objects = stored.astype(np.uint16)
    stored[24:32, 8:20], objects[24:32, 8:20] = CAR, 26000
    stored[24:28, 40:44], objects[24:28, 40:44] = CAR, 26001
    images.write_png(tmp_path / "labels.png", stored)
    images.write_png(tmp_path / "objects.png", objects)
    return str(tmp_path / "labels.png"), str(tmp_path / "objects.png")


def test_edits_are_written_beside_the_picture_that_is_made_of_them(model: Path, maps: tuple[str, str], tmp_path: Path) -> None:
    output = tmp_path / "out/edited.png"
    made = edit_labels(
        model,
        maps[0],
        output,
        instances=maps[1],
        classes=["26000:sky"],
        removals=["26001"],
        paints=["traffic light:2,2,1", "car:rectangle:50,30,53,33", "26:polygon:30,36,36,36,36,30"],
    )
    stored, objects = (
        images.read_labels(tmp_path / "out/edited.labels.png"),
        images.read_labels(tmp_path / "out/edited.instances.png"),
    )
    before = images.read_labels(Path(maps[0]))
    assert (stored[24:32, 8:20] == SKY).all()
    assert (stored[24:28, 40:44] == ROAD).all()
    assert (stored[2, 2], stored[31, 51], objects[31, 51], objects[2, 2]) == (19, CAR, CAR, 19)
    assert stored[36, 36] == CAR
    assert (stored[39] == 0).all()
    assert (stored != before).sum() == 8 * 12 + 4 * 4 + 5 + 16 + (stored[30:37, 30:37] == CAR).sum()
    picture = images.read_picture(output)
    assert picture.shape == (40, 60, 3)
    assert made["maps"] == [str(tmp_path / "out/edited.labels.png"), str(tmp_path / "out/edited.instances.png")]
    again = Model.load(model)
    frames = list(again.translate(made["maps"][0], instances=made["maps"][1]))
    assert np.array_equal(frames[0], picture)


def test_a_moved_object_takes_its_id_along(model: Path, maps: tuple[str, str], tmp_path: Path) -> None:
    edit_labels(model, maps[0], tmp_path / "moved.png", instances=maps[1], moves=["26000:+3,-2"])
    assert (images.read_labels(tmp_path / "moved.instances.png")[22:30, 11:23] == 26000).all()


def test_without_an_edit_the_objects_are_listed_and_nothing_is_written(
    model: Path, maps: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(tmp_path.iterdir())
    for output in (None, tmp_path / "same.png"):
        result = edit_labels(model, maps[0], output, instances=maps[1])
        assert result == {"objects": {"26000": "car, 96 pixels, x 8..19, y 24..31", "26001": "car, 16 pixels, x 40..43, y 24..27"}}
    assert "same.png is not written" in caplog.text
    assert set(tmp_path.iterdir()) == before
    with pytest.raises(ConfigError, match="edits need an image to write"):
        edit_labels(model, maps[0], instances=maps[1], removals=["26000"])


def test_without_an_instance_map_class_0_is_numbered_from_0(tmp_path: Path) -> None:
    table = LabelTable(("ground", "body"), ((0, 255, 0), (255, 0, 0)), (0, 1))
    stored = np.zeros((40, 60), np.uint8)
    stored[:, 30:40] = 1
    images.write_png(tmp_path / "labels.png", stored)
    model = _model(tmp_path / "m.safetensors", table, instances=False)
    result = edit_labels(model, str(tmp_path / "labels.png"))
    assert result["objects"] == {
        "0": "ground, 1200 pixels, x 0..29, y 0..39",
        "1": "ground, 800 pixels, x 40..59, y 0..39",
        "1000": "body, 400 pixels, x 30..39, y 0..39",
    }
    edit_labels(model, str(tmp_path / "labels.png"), tmp_path / "out.png", classes=["1:body"], paints=["0:45,5,1"])
    edited = images.read_labels(tmp_path / "out.labels.png")
    assert edited[:, 41:].sum() == 40 * 19 - 5
    assert edited[5, 45] == 0


def test_without_an_instance_map_and_with_colours_the_connected_areas_are_edited(tmp_path: Path) -> None:
    table = LabelTable(("ground", "body"), ((0, 255, 0), (255, 0, 0)), None)
    painted = np.full((40, 60, 3), (0, 255, 0), np.uint8)
    painted[10:20, 10:20] = painted[30:32, 30:32] = (255, 0, 0)
    images.write_png(tmp_path / "primitive.png", painted)
    model = _model(tmp_path / "m.safetensors", table, instances=False)
    edit_labels(model, str(tmp_path / "primitive.png"), tmp_path / "edited.png", removals=["1001"], moves=["1000:5,0"])
    edited = images.read_labels(tmp_path / "edited.labels.png")
    assert (edited[10:20, 15:25] == (255, 0, 0)).all()
    assert ((edited == (255, 0, 0)).all(-1)).sum() == 100
    assert not (tmp_path / "edited.instances.png").exists()


@pytest.mark.parametrize(
    ("orders", "error", "message"),
    [
        ({"removals": ["26009"]}, InputError, "object 26009: is not in the picture; the objects there are 26000, 26001"),
        ({"removals": ["car"]}, ConfigError, "--remove car: expected ID or ID:CLASS"),
        ({"removals": ["26000:lake"]}, ConfigError, "no class 'lake'; there are road, sky, traffic light, car"),
        ({"moves": ["26000:4"]}, ConfigError, "--move 26000:4: expected ID:DX,DY"),
        ({"moves": ["26000:400,0"]}, InputError, "leaves the picture of 60x40"),
        ({"classes": ["26000=road"]}, ConfigError, "--set-class 26000=road: expected ID:CLASS"),
        ({"object_styles": ["26000:1"]}, ConfigError, "this model has no feature encoder"),
        ({"paints": ["car:1,2"]}, ConfigError, "--paint car:1,2: 2 numbers; expected"),
        ({"paints": ["car:circle:1,2,3"]}, ConfigError, "expected CLASS:X,Y,...,RADIUS"),
        ({"paints": ["car:polygon:1,2,3,4"]}, ConfigError, "4 numbers"),
        ({"paints": ["car:rectangle:90,90,99,99"]}, InputError, "misses the picture of 60x40"),
    ],
)
def test_every_faulty_order_is_one_clear_line_and_nothing_is_written(
    model: Path, maps: tuple[str, str], tmp_path: Path, orders: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        edit_labels(model, maps[0], tmp_path / "out.png", instances=maps[1], **orders)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out*"))


def test_outputs_that_exist_or_cannot_be_pictures_are_refused(model: Path, maps: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "out.labels.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"out\.labels\.png: exists already"):
        edit_labels(model, maps[0], tmp_path / "out.png", instances=maps[1], removals=["26000"])
    assert not (tmp_path / "out.png").exists()
    with pytest.raises(ConfigError, match=r"written as \.png"):
        edit_labels(model, maps[0], tmp_path / "out.mp4", instances=maps[1])
