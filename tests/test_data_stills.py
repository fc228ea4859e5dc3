"""Data sets of single pictures: paired by name, of any size, side by side; bad files and labels are refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from vidgen.commands.data import check
from vidgen.data.clips import Clips
from vidgen.data.sequences import find_sequences, find_table
from vidgen.data.settings import DataSettings
from vidgen.data.stills import find_stills
from vidgen.errors import ConfigError, InputError
from vidgen.media import images
from vidgen.media.images import write_png
from vidgen.types import Batch, Stage

STAGE = Stage("test", 10, 1e-3, 0.0)
IDS = {"labels": {"num_classes": 4}}


def _picture(seed: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def _clips(root: Path, multiple: int = 4, condition: object = IDS, **values: object) -> Clips:
    data = DataSettings.model_validate({"root": root, "condition": condition, "pairs": "stills", **values})
    sequences = find_sequences(data)
    return Clips(data, sequences, find_table(data, sequences), seed=0, size_multiple=multiple, flow=None)


def _batch(clips: Clips, step: int = 0, count: int = 1) -> Batch:
    return clips.batch(STAGE, step, range(count), primer_frames=0, batch_size=count)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures of different sizes, each with a label map of its own class."""
    for index, (height, width) in enumerate([(32, 48), (40, 40), (64, 32)]):
        write_png(tmp_path / "images" / f"shot{index}.png", np.full((height, width, 3), 60 * index, np.uint8))
        write_png(tmp_path / "labels" / f"shot{index}.png", np.full((height, width), index, np.uint8))
    return tmp_path


def test_every_picture_is_a_sequence_of_one_frame_and_comes_once_an_epoch(root):
    clips = _clips(root)
    assert [sequence.name for sequence in clips.sequences] == ["shot0", "shot1", "shot2"]
    classes = []
    for step in range(3):
        batch = _batch(clips, step)
        assert batch.condition.labels is not None
        classes += batch.condition.labels.unique().tolist()
        assert batch.target.unique().item() == pytest.approx(classes[-1] * 60 / 127.5 - 1)
    assert sorted(classes) == [0, 1, 2]


def test_without_a_width_every_picture_keeps_its_size_rounded_to_what_the_model_takes(root):
    clips = _clips(root, multiple=16)
    assert {tuple(_batch(clips, step).target.shape[-2:]) for step in range(3)} == {(32, 48), (32, 32), (64, 32)}


def test_a_width_alone_scales_every_picture_at_its_aspect(root):
    clips = _clips(root, width=96)
    assert {tuple(_batch(clips, step).target.shape[-2:]) for step in range(3)} == {(64, 96), (96, 96), (192, 96)}


def test_a_height_alone_scales_every_picture_at_its_aspect(root):
    clips = _clips(root, height=64)
    assert {tuple(_batch(clips, step).target.shape[-2:]) for step in range(3)} == {(64, 96), (64, 64), (64, 32)}


def test_resize_and_crop_enlarges_to_any_size_and_cuts_what_the_model_takes(root):
    clips = _clips(root, multiple=32, width=70, height=70, crop_width=64, crop_height=64)
    batch = _batch(clips, count=3)
    assert batch.target.shape == (3, 1, 3, 64, 64)
    assert clips.excerpt(0, 0, 1, 0).target.shape[-2:] == (64, 64)


def test_a_crop_alone_cuts_from_the_original_size(tmp_path):
    ramp = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(64, axis=0)
    write_png(tmp_path / "images" / "a.png", ramp)
    write_png(tmp_path / "labels" / "a.png", np.zeros((64, 120), np.uint8))
    target = _batch(_clips(tmp_path, crop_width=32, crop_height=16, flip=False)).target
    assert target.shape[-2:] == (16, 32)
    torch.testing.assert_close(target.diff(dim=-1), torch.full((1, 1, 3, 16, 31), 2 / 127.5))


def test_scale_width_and_crop_leaves_the_aspect_alone(root):
    clips = _clips(root, width=96, crop_width=64, crop_height=64)
    assert {tuple(_batch(clips, step).target.shape[-2:]) for step in range(3)} == {(64, 64)}


def test_pictures_of_different_sizes_in_one_batch_need_a_common_size(root):
    with pytest.raises(ConfigError, match=r"train.micro_batch_size: 3, but clips have different sizes") as caught:
        _batch(_clips(root), count=3)
    assert "data.crop_width" in str(caught.value.hint)
    assert len(_batch(_clips(root, width=64, height=32), count=3).target) == 3


def test_a_picture_smaller_than_the_model_takes_is_refused_before_training(root):
    write_png(root / "images" / "shot1.png", np.zeros((1, 1, 3), np.uint8))
    write_png(root / "labels" / "shot1.png", np.zeros((1, 1), np.uint8))
    with pytest.raises(InputError, match=r"shot1.png: is 1x1; this model needs at least 16x16"):
        _clips(root, multiple=16)


def test_a_crop_that_the_model_cannot_take_names_the_next_that_it_can(root):
    with pytest.raises(ConfigError, match=r"data.crop_width: 50 is not a multiple of 16.*try 48"):
        _clips(root, multiple=16, crop_width=50, crop_height=32)


def test_data_check_takes_pictures_of_different_sizes_for_single_pictures(root):
    roles = {role["role"]: role for role in check(root)["roles"]}
    assert [(roles[name]["sequences"], roles[name]["frames"]) for name in ("images", "labels")] == [(3, 3), (3, 3)]
    assert roles["labels"]["sizes"] == ["32x64", "40x40", "48x32"]


def test_part_of_the_pictures_can_be_held_back(root):
    assert [sequence.name for sequence in _clips(root, frames="0:2").sequences] == ["shot0", "shot1"]
    with pytest.raises(InputError, match=r"holds 3 pictures, none in 5:9"):
        _clips(root, frames="5:9")


def test_names_match_without_the_words_that_all_of_a_role_end_with(tmp_path):
    for city in ("x/aachen_000", "x/aachen_001", "y/bonn_000"):
        write_png(tmp_path / "images" / f"{city}_photo.png", _picture(0))
        write_png(tmp_path / "labels" / f"{city}_fine_ids.png", np.zeros((32, 48), np.uint8))
    assert [sequence.name for sequence in _clips(tmp_path).sequences] == ["x/aachen_000", "x/aachen_001", "y/bonn_000"]


def test_pictures_are_taken_in_natural_order(tmp_path):
    for index in (10, 2, 1):
        write_png(tmp_path / f"frame{index}.png", _picture(index, 8, 8))
    assert list(find_stills(tmp_path)) == ["frame1", "frame2", "frame10"]


def test_a_loop_of_links_is_followed_once(tmp_path):
    write_png(tmp_path / "a" / "one.png", _picture(0, 8, 8))
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert list(find_stills(tmp_path)) == ["a/one"]


def test_a_name_that_is_no_text_is_a_name_like_any_other(tmp_path):
    name = os.fsdecode(b"caf\xe9 [1:2] %05d -x$(y)")
    for role, pixels in (("images", _picture(3)), ("labels", np.zeros((32, 48), np.uint8))):
        write_png(tmp_path / role / f"{name}.png", pixels)
    assert _batch(_clips(tmp_path, flip=False)).target.shape[-2:] == (32, 48)


def test_real_stills_with_labels_and_16_bit_instances_make_batches(data_root):
    condition = {"labels": {"table": "cityscapes"}, "instances": "instances"}
    clips = _clips(data_root / "cityscapes_stills", 32, condition, width=256, frames="0:5")
    batch = _batch(clips)
    assert len(clips.sequences) == 5
    assert batch.target.shape == (1, 1, 3, 128, 256)
    assert batch.condition.labels is not None
    assert batch.condition.instances is not None
    objects = batch.condition.instances >= 1000
    assert objects.any()
    assert int(batch.condition.instances.max()) > 24_000
    same_class = (batch.condition.instances // 1000)[objects] == batch.condition.labels[objects]
    assert same_class.float().mean() > 0.95


# -- side by side ----------------------------------------------------------------------------------------------------------


def _write_halves(folder: Path) -> Path:
    for index in range(2):
        left, right = np.full((32, 48, 3), 40 + index, np.uint8), np.full((32, 48, 3), 200 + index, np.uint8)
        write_png(folder / "train" / f"{index}.png", np.concatenate([left, right], axis=1))
    return folder


@pytest.mark.parametrize(("direction", "target", "shown"), [("a_to_b", 200, 40), ("b_to_a", 40, 200)])
def test_halves_of_a_picture_are_target_and_condition_in_either_direction(tmp_path, direction, target, shown):
    root = _write_halves(tmp_path)
    batch = _clips(root, condition={}, target="train", pairs="side_by_side", direction=direction).excerpt(0, 0, 1, 0)
    assert batch.target.shape == (1, 1, 3, 32, 48)
    assert batch.target.unique().item() == pytest.approx(target / 127.5 - 1)
    assert batch.condition.frames is not None
    assert batch.condition.frames.unique().item() == pytest.approx(shown / 127.5 - 1)


def test_the_other_half_may_be_a_label_map_in_colours(tmp_path):
    root = _write_halves(tmp_path)
    condition = {"labels": {"folder": "train", "table": "main_colors"}}
    clips = _clips(root, condition=condition, target="train", pairs="side_by_side")
    assert clips.table is not None
    assert clips.table.colors == ((40, 40, 40),)
    assert clips.excerpt(1, 0, 1, 0).condition.labels is not None


def test_the_other_half_counts_as_a_picture_of_three_channels(tmp_path):
    settings = DataSettings.model_validate({"root": tmp_path, "target": "train", "pairs": "side_by_side"})
    assert settings.condition.pictures == ("train",)
    assert settings.condition.num_picture_channels == 3
    assert DataSettings.model_validate(settings.model_dump()) == settings


def test_a_picture_of_odd_width_holds_no_two_halves(tmp_path):
    write_png(tmp_path / "train" / "a.png", _picture(0, 32, 47))
    with pytest.raises(InputError, match=r"a.png: is 47 pixels wide; two pictures side by side need an even width"):
        _clips(tmp_path, condition={}, target="train", pairs="side_by_side")


# -- one pair, several sources, edges --------------------------------------------------------------------------------------


def test_two_sources_and_a_target_make_six_channels_in_their_order(tmp_path):
    for index, role in enumerate(("source", "source2", "target")):
        write_png(tmp_path / role / "scene.png", np.full((32, 48, 3), 50 * index, np.uint8))
    batch = _clips(tmp_path, condition={"pictures": ["source", "source2"]}, target="target").excerpt(0, 0, 1, 0)
    assert batch.condition.frames is not None
    assert ((batch.condition.frames[0, 0, :, 0, 0] + 1) * 127.5).tolist() == pytest.approx([0, 0, 0, 50, 50, 50])


def test_edges_drawn_over_pictures_are_black_and_over_labels_of_no_class(tmp_path):
    square = np.full((48, 64, 3), 255, np.uint8)
    square[12:36, 16:48] = 90
    write_png(tmp_path / "image.png", square)
    write_png(tmp_path / "painted.png", np.full((48, 64, 3), 128, np.uint8))
    write_png(tmp_path / "ids.png", np.full((48, 64), 3, np.uint8))
    edges = {"low": 100, "high": 200, "drawn": "over"}
    condition = {"pictures": ["painted.png"], "labels": {"folder": "ids.png", "num_classes": 4}, "edges": edges}
    batch = _clips(tmp_path, condition=condition, target="image.png").excerpt(0, 0, 1, 0)
    assert batch.condition.frames is not None
    assert batch.condition.labels is not None
    assert batch.condition.frames.shape[2] == 3
    drawn = batch.condition.frames[0, 0, 0] == -1
    assert 80 < int(drawn.sum()) < 200
    assert torch.equal(batch.condition.labels[0, 0] == -1, drawn)
    assert batch.condition.frames[0, 0, :, ~drawn].unique().item() == pytest.approx(128 / 127.5 - 1, abs=1e-6)


def test_the_main_colours_of_a_real_antialiased_label_picture_are_its_classes(data_root):
    condition = {"labels": {"folder": "labels.png", "table": "main_colors"}}
    clips = _clips(data_root / "deepsim_car", 16, condition, target="image.png", width=320)
    assert clips.table is not None
    assert clips.table.num_classes == 5
    batch = clips.excerpt(0, 0, 1, 0)
    assert batch.target.shape[-2:] == (160, 320)
    assert batch.condition.labels is not None
    assert batch.condition.labels.unique().tolist() == [0, 1, 2, 3, 4]
    edited = images.read_labels(data_root / "deepsim_car" / "edited_labels_1.png")
    painted = clips.table.colorize(clips.table.decode(edited, "edited")).astype(int)
    assert np.median(np.abs(painted - edited)) <= 3
    yellow = next(index for index, color in enumerate(clips.table.colors) if color[0] > 200 < color[1] and color[2] < 50)
    original = clips.table.decode(images.read_labels(data_root / "deepsim_car" / "labels.png"), "labels")
    assert (clips.table.decode(edited, "edited") == yellow).sum() > 1.2 * (original == yellow).sum()  # it has a third wheel


# -- bad files and bad labels ----------------------------------------------------------------------------------------------


def _missing_partner(root: Path) -> None:
    for index in range(7):
        write_png(root / "images" / f"lonely{index}.png", _picture(0))


def _other_size(root: Path) -> None:
    write_png(root / "labels" / "shot0.png", np.zeros((16, 24), np.uint8))


def _label(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda root: write_png(root / "labels" / "shot0.png", pixels)


def _jpeg(root: Path) -> None:
    (root / "labels" / "shot0.png").unlink()
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(root / "labels" / "shot0.jpg")


def _corrupt(root: Path) -> None:
    path = root / "images" / "shot0.png"
    write_png(path, _picture(0))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def _cut_off(root: Path) -> None:
    path = root / "images" / "shot0.png"
    write_png(path, _picture(0))
    path.write_bytes(path.read_bytes()[:-200])


def _empty(root: Path) -> None:
    (root / "images" / "shot0.png").write_bytes(b"")


def _bomb(root: Path) -> None:
    Image.new("1", (9000, 9000)).save(root / "images" / "shot0.png")


def _video(root: Path) -> None:
    (root / "labels" / "film.mp4").write_bytes(b"not looked into")


def _double(root: Path) -> None:
    Image.fromarray(_picture(0)).save(root / "images" / "shot0.jpg")


def _transparent_label(root: Path) -> None:
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[:, :20, 3] = 255
    Image.fromarray(pixels).save(root / "labels" / "shot0.png")


def _blurred_label(root: Path) -> None:
    ids = np.zeros((32, 48), np.uint8)
    ids[:, 20:] = 3
    ids[:, 30:] = 200
    write_png(root / "labels" / "shot0.png", cv2.GaussianBlur(ids, (0, 0), 2))


BAD = {
    "a picture without label map": (_missing_partner, r"without a partner: lonely0, .*lonely4 and 2 more \(10 in images, 3 in"),
    "a label map of another size": (_other_size, r"labels.shot0.png: is 24x16, but .*images.shot0.png is 48x32"),
    "an id out of range": (_label(np.full((32, 48), 4, np.uint8)), r"shot0.png: label id 4 at row 0.*1536 pixels.*0\.\.3"),
    "the id 255": (_label(np.full((32, 48), 255, np.uint8)), r"shot0.png: label id 255 at row 0, column 0 \(1536 pixels\)"),
    "a 16-bit id": (_label(np.full((32, 48), 26_003, np.uint16)), r"shot0.png: label id 26003"),
    "colours where ids are wanted": (_label(_picture(1)), r"shot0.png: holds colors, but the label table knows ids"),
    "a JPEG label map": (_jpeg, r"shot0.jpg: JPEG blurs label ids"),
    "a blurred label map": (_blurred_label, r"shot0.png: label id \d+ at row.* more unknown ids"),
    "a label map with holes": (_transparent_label, r"shot0.png: a label map with transparent parts"),
    "a flipped bit": (_corrupt, r"shot0.png: damaged picture"),
    "a cut-off file": (_cut_off, r"shot0.png: damaged picture"),
    "an empty file": (_empty, r"shot0.png: the file is empty"),
    "a bomb": (_bomb, r"shot0.png: 9000x9000 is 81 million pixels; at most 64"),
    "a video among pictures": (_video, r"film.mp4: a video among pictures"),
    "two files of one name": (_double, r"shot0.(png|jpg): shot0.(png|jpg) has the same name"),
}


def _read_all(root: Path, condition: object = IDS) -> None:
    clips = _clips(root, condition=condition)
    for step in range(3):
        _batch(clips, step)


@pytest.mark.parametrize("case", BAD)
def test_is_refused_with_file_and_reason(root, case):
    spoil, message = BAD[case]
    spoil(root)
    with pytest.raises(InputError, match=message):
        _read_all(root)


def test_an_unknown_colour_is_refused_with_its_place_and_number(root, tmp_path):
    table = tmp_path / "colours.csv"
    table.write_text("name,r,g,b\nsky,0,0,0\nroad,9,9,9\n")
    painted = np.zeros((32, 48, 3), np.uint8)
    painted[5, 7] = (1, 2, 3)
    for index, size in enumerate([(32, 48), (40, 40), (64, 32)]):
        write_png(root / "labels" / f"shot{index}.png", np.zeros((*size, 3), np.uint8))
    write_png(root / "labels" / "shot0.png", painted)
    with pytest.raises(InputError, match=r"shot0.png: label color \(1, 2, 3\) at row 5, column 7 \(1 pixels\)"):
        _read_all(root, condition={"labels": {"table": str(table)}})


def test_ignored_ids_belong_to_no_class_even_where_nothing_else_is(root):
    _label(np.full((32, 48), 255, np.uint8))(root)
    clips = _clips(root, condition={"labels": {"num_classes": 4, "ignore": [255]}})
    batch = clips.excerpt(0, 0, 1, 0)
    assert batch.condition.labels is not None
    assert batch.condition.labels.unique().tolist() == [-1]


def test_a_palette_label_map_gives_its_indices(root):
    image = Image.fromarray(np.full((32, 48), 2, np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(root / "labels" / "shot0.png")
    batch = _clips(root).excerpt(0, 0, 1, 0)
    assert batch.condition.labels is not None
    assert batch.condition.labels.unique().tolist() == [2]


def test_resized_labels_hold_no_new_ids(root):
    ids = np.random.default_rng(0).choice([0, 3], (32, 48)).astype(np.uint8)
    _label(ids)(root)
    batch = _clips(root, width=112, height=76).excerpt(0, 0, 1, 0)
    assert batch.condition.labels is not None
    assert batch.condition.labels.unique().tolist() == [0, 3]


@pytest.mark.parametrize("mode", ["RGBA", "L", "I;16", "P"])
def test_pictures_with_alpha_grey_16_bits_or_a_palette_become_rgb(root, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((32, 48), 40_000, np.uint16))
    else:
        image = Image.fromarray(np.full((32, 48, 3), 155, np.uint8)).convert(mode)
    image.save(root / "images" / "shot0.png")
    target = _clips(root).excerpt(0, 0, 1, 0).target
    assert target.shape[2] == 3
    assert target.mean().item() == pytest.approx(155 / 127.5 - 1, abs=0.01)
