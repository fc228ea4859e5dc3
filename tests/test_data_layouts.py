"""Well-known data sets become roots for training: what belongs together is paired, and what does not fit is named."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vidgen import cli
from vidgen.commands.data import import_data
from vidgen.data import layouts
from vidgen.data.clips import Clips
from vidgen.data.sequences import find_sequences, find_table
from vidgen.data.settings import DataSettings
from vidgen.errors import InputError, OutputError
from vidgen.media import images, labels
from vidgen.media.frames import open_sink
from vidgen.media.images import write_png
from vidgen.media.labels import LabelTable
from vidgen.types import Batch, Stage

SIZE = (32, 64)


def _photo(shade: int = 90) -> np.ndarray:
    return np.full((*SIZE, 3), shade, np.uint8)


def _first_batch(part: dict[str, object]) -> Batch:
    """What training sees first under the settings that the import gives."""
    values: dict[str, object] = {}
    for setting in part["settings"]:  # type: ignore[attr-defined]
        key, _, value = setting.removeprefix("data.").partition("=")
        *sections, name = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})  # type: ignore[assignment]
        place[name] = value.strip("[]").split(",") if value.startswith("[") else {} if value == "{}" else value
    data = DataSettings.model_validate(values)
    sequences = find_sequences(data)
    clips = Clips(data, sequences, find_table(data, sequences), seed=0, size_multiple=8, flow=None)
    return clips.batch(Stage("test", 10, 1e-3, 0.0), 0, range(1), primer_frames=0, batch_size=1)


def _cityscapes(folder: Path, endings: tuple[str, ...] = ("labelIds", "instanceIds", "color", "polygons")) -> Path:
    for split, frames in (("train", 3), ("val", 1)):
        for frame in range(frames):
            name = f"aachen_{frame:06d}_000019"
            write_png(folder / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png", _photo())
            for ending in endings:
                path = folder / "gtFine" / split / "aachen" / f"{name}_gtFine_{ending}.png"
                if ending == "polygons":
                    path.with_suffix(".json").write_text("{}")
                elif ending == "color":
                    write_png(path, np.full((*SIZE, 3), (70, 130, 180), np.uint8))
                else:
                    write_png(path, np.full(SIZE, {"instanceIds": 26001, "labelIds": 26}.get(ending, 13), np.uint16))
    return folder


def test_cityscapes_is_read_with_its_several_files_a_frame(tmp_path: Path) -> None:
    source = _cityscapes(tmp_path / "downloads")
    (source / "gtFine/train/aachen/aachen_000002_000019_gtFine_labelIds.png").unlink()
    result = import_data("cityscapes", source, tmp_path / "ours")
    train, val = result["parts"]
    assert {key: train[key] for key in ("images", "labels", "instances", "left_out", "label_table")} == {
        "images": 2,
        "labels": 2,
        "instances": 2,
        "left_out": 1,
        "label_table": "cityscapes",
    }
    assert (val["images"], "left_out" in val) == (1, False)
    batch = _first_batch(train)
    assert batch.condition.labels is not None
    assert batch.condition.instances is not None
    assert batch.condition.labels.unique().tolist() == [26]
    assert batch.condition.instances.unique().tolist() == [26001]
    assert (tmp_path / "ours/train/images/aachen/aachen_000000_000019.png").resolve().is_relative_to(source.resolve())


@pytest.mark.parametrize(
    ("ending", "table", "name"), [("labelTrainIds", "cityscapes_train_ids", "car"), ("color", "palette:cityscapes", "sky")]
)
def test_cityscapes_in_train_ids_or_colors_gets_their_table(tmp_path: Path, ending: str, table: str, name: str) -> None:
    source = _cityscapes(tmp_path / "downloads", (ending,))
    part = import_data("cityscapes", source, tmp_path / "ours")["parts"][0]
    assert part["label_table"] == table
    batch = _first_batch(part)
    assert batch.condition.labels is not None
    assert labels.named(table).names[int(batch.condition.labels.unique())] == name


def test_archives_unpacked_beside_each_other_are_found(tmp_path: Path) -> None:
    _cityscapes(tmp_path / "x")
    (tmp_path / "y/leftImg8bit_trainvaltest").mkdir(parents=True)
    (tmp_path / "y/gtFine_trainvaltest").mkdir()
    (tmp_path / "x/leftImg8bit").rename(tmp_path / "y/leftImg8bit_trainvaltest/leftImg8bit")
    (tmp_path / "x/gtFine").rename(tmp_path / "y/gtFine_trainvaltest/gtFine")
    assert [part["images"] for part in import_data("cityscapes", tmp_path / "y", tmp_path / "ours")["parts"]] == [3, 1]


def test_the_own_release_of_camvid_is_read_in_its_32_colors(tmp_path: Path) -> None:
    for number in (390, 420):
        write_png(tmp_path / "own/701_StillsRaw_full" / f"0016E5_{number:05d}.png", _photo())
        painted = np.full((*SIZE, 3), (0, 0, 192), np.uint8)  # sidewalk
        painted[:8] = (128, 128, 128)
        write_png(tmp_path / "own/LabeledApproved_full" / f"0016E5_{number:05d}_L.png", painted)
    (part,) = import_data("camvid", tmp_path / "own", tmp_path / "ours")["parts"]
    assert part["label_table"] == "palette:camvid_32"
    assert (tmp_path / "ours/labels/0016E5/0016E5_00390.png").is_file()
    batch = _first_batch(part)
    assert batch.condition.labels is not None
    assert [labels.named("camvid_32").names[index] for index in batch.condition.labels.unique()] == ["Sidewalk", "Sky"]


def test_camvid_as_segnet_has_it_is_read_with_its_12_ids(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_png(tmp_path / "segnet" / split / "0001TP_006690.png", _photo())
        write_png(tmp_path / "segnet" / f"{split}annot" / "0001TP_006690.png", np.full(SIZE, 11, np.uint8))
    parts = import_data("camvid", tmp_path / "segnet", tmp_path / "ours")["parts"]
    assert [(Path(part["root"]).name, part["label_table"]) for part in parts] == [("train", "camvid"), ("test", "camvid")]


def test_ade20k_is_read_with_0_as_no_class(tmp_path: Path) -> None:
    source = tmp_path / "ADEChallengeData2016"
    annotated = np.full(SIZE, 150, np.uint8)
    annotated[0] = 0
    for split in ("training", "validation"):
        write_png(source / "images" / split / f"ADE_{split}_1.png", _photo())
        write_png(source / "annotations" / split / f"ADE_{split}_1.png", annotated)
    parts = import_data("ade20k", source, tmp_path / "ours")["parts"]
    assert [Path(part["root"]).name for part in parts] == ["training", "validation"]
    batch = _first_batch(parts[0])
    assert batch.condition.labels is not None
    assert batch.condition.labels.unique().tolist() == [-1, 149]


def _snippets(folder: Path, annotated: tuple[int, ...]) -> Path:
    """Two snippets of one recording, numbered with a gap between them, and label maps of the frames at some positions of each."""
    for first in (0, 275):
        for position in range(4):
            name = f"aachen_000000_{first + position:06d}"
            write_png(folder / "leftImg8bit_sequence/train/aachen" / f"{name}_leftImg8bit.png", _photo(90 + position))
            if position in annotated:
                write_png(folder / "gtFine/train/aachen" / f"{name}_gtFine_labelIds.png", np.full(SIZE, 7, np.uint8))
    return folder


def test_snippets_of_cityscapes_become_sequences_with_the_annotated_frame_to_label_the_rest_from(tmp_path: Path) -> None:
    (part,) = import_data("cityscapes_sequence", _snippets(tmp_path / "downloads", (2,)), tmp_path / "ours")["parts"]
    root = tmp_path / "ours/train"
    assert sorted(path.name for path in (root / "images").iterdir()) == ["aachen_000000_000000", "aachen_000000_000275"]
    assert (part["images"], part["painted"], part["label_table"]) == (8, 2, "cityscapes")
    assert (root / "painted/aachen_000000_000275/2.png").samefile(
        tmp_path / "downloads/gtFine/train/aachen/aachen_000000_000277_gtFine_labelIds.png"
    )
    batch = _first_batch(part)
    assert batch.condition.labels is None
    assert batch.condition.frames is not None  # edges


def test_snippets_whose_every_frame_has_a_label_map_are_trained_on_with_them(tmp_path: Path) -> None:
    (part,) = import_data("cityscapes_sequence", _snippets(tmp_path / "downloads", (0, 1, 2, 3)), tmp_path / "ours")["parts"]
    assert (part["images"], part["labels"], "painted" in part) == (8, 8, False)
    batch = _first_batch(part)
    assert batch.condition.labels is not None
    assert batch.condition.labels.unique().tolist() == [7]


@pytest.mark.parametrize(
    ("pictures", "maps"),
    [("images/train2017", "stuffthingmaps/train2017"), ("images/train2017", "annotations/train2017"), ("train_img", "train_label")],
)
def test_coco_stuff_is_read_with_the_ids_of_its_pixel_maps(tmp_path: Path, pictures: str, maps: str) -> None:
    source = tmp_path / "coco"
    write_png(source / pictures / "000000000009.png", _photo())
    painted = np.full(SIZE, 181, np.uint8)
    painted[0] = 255
    write_png(source / maps / "000000000009.png", painted)
    write_png(source / maps / "000000000009_labelTrainIds.png", painted)
    (part,) = import_data("coco_stuff", source, tmp_path / "ours")["parts"]
    assert (part["images"], part["labels"], part["label_table"], "left_out" in part) == (1, 1, "coco_stuff", False)
    batch = _first_batch(part)
    assert batch.condition.labels is not None
    assert [labels.named("coco_stuff").names[index] for index in batch.condition.labels.unique() if index >= 0] == ["wood"]


def test_voc_is_split_by_its_lists_and_pictures_without_a_segmentation_are_not_in_them(tmp_path: Path) -> None:
    root = tmp_path / "downloads/VOCdevkit/VOC2012"
    for name in ("2007_000032", "2007_000039", "2007_000999"):
        write_png(root / "JPEGImages" / f"{name}.png", _photo())
        if name != "2007_000999":
            write_png(root / "SegmentationClass" / f"{name}.png", np.full(SIZE, 1, np.uint8))
            write_png(root / "SegmentationObject" / f"{name}.png", np.full(SIZE, 2, np.uint8))
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n")
    (lists / "val.txt").write_text("2007_000039\n")
    parts = import_data("voc", tmp_path / "downloads", tmp_path / "ours")["parts"]
    assert [(Path(part["root"]).name, part["images"], part["labels"], part["instances"]) for part in parts] == [
        ("train", 1, 1, 1),
        ("val", 1, 1, 1),
    ]
    batch = _first_batch(parts[1])
    assert batch.condition.labels is not None
    assert labels.named("voc").names[int(batch.condition.labels.unique())] == "aeroplane"
    (lists / "train.txt").unlink()
    (lists / "val.txt").unlink()
    (part,) = import_data("voc", root, tmp_path / "unlisted")["parts"]
    assert (part["images"], part["left_out"]) == (2, 1)


@pytest.mark.parametrize("version", ["", "v1.2"])
def test_mapillary_is_read_in_both_of_its_releases(tmp_path: Path, version: str) -> None:
    split = tmp_path / "downloads/training"
    write_png(split / "images/a.png", _photo())
    write_png(split / version / "labels/a.png", np.full(SIZE, 55, np.uint8))
    write_png(split / version / "instances/a.png", np.full(SIZE, 55 * 256 + 3, np.uint16))
    (part,) = import_data("mapillary", tmp_path / "downloads", tmp_path / "ours")["parts"]
    assert (Path(part["root"]).name, part["label_table"]) == ("training", "mapillary")
    batch = _first_batch(part)
    assert batch.condition.labels is not None
    assert batch.condition.instances is not None
    assert labels.named("mapillary").names[int(batch.condition.labels.unique())] == "Car"
    assert batch.condition.instances.unique().tolist() == [55 * 256 + 3]


def test_pictures_of_two_halves_are_split_so_that_test_pictures_can_be_translated(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_png(tmp_path / "facades" / split / "1.png", np.concatenate([_photo(200), _photo(20)], axis=1))
    parts = import_data("facades", tmp_path / "facades", tmp_path / "ours")["parts"]
    assert [(Path(part["root"]).name, part["images"], part["drawings"]) for part in parts] == [("test", 1, 1), ("train", 1, 1)]
    assert np.unique(images.read_picture(tmp_path / "ours/test/drawings/1.png")).tolist() == [20]
    assert np.unique(images.read_picture(tmp_path / "ours/test/images/1.png")).tolist() == [200]
    batch = _first_batch(parts[0])
    assert batch.target.unique().item() == pytest.approx(200 / 127.5 - 1)
    assert batch.condition.frames is not None
    assert batch.condition.frames.unique().item() == pytest.approx(20 / 127.5 - 1)
    write_png(tmp_path / "odd/train/1.png", np.zeros((4, 7, 3), np.uint8))
    with pytest.raises(InputError, match="even width"):
        import_data("facades", tmp_path / "odd", tmp_path / "other")


def _person(left: float) -> dict[str, list[float]]:
    body = [0.0, 0.0, 0.0] * 25
    body[3:6], body[24:27] = [left, 4.0, 0.9], [left, 24.0, 0.9]  # neck and middle of the hip
    return {"pose_keypoints_2d": body, "face_keypoints_2d": [], "hand_left_keypoints_2d": []}


@pytest.mark.parametrize("as_video", [False, True])
def test_openpose_keypoints_become_drawings_beside_their_frames(tmp_path: Path, as_video: bool) -> None:
    source = tmp_path / "dance"
    (source / "json" / "solo").mkdir(parents=True)
    for index in range(3):
        name = f"solo_{index:012d}"
        (source / "json/solo" / f"{name}_keypoints.json").write_text(json.dumps({"people": [_person(10 + 10 * index)]}))
        if not as_video:
            write_png(source / "frames/solo" / f"{name}.png", _photo())
    if as_video:
        with open_sink(source / "solo.mp4", time_base=Fraction(1, 25), frame_rate=Fraction(25)) as sink:
            for index in range(3):
                sink.write(_photo(), index)
    (part,) = import_data("openpose", source, tmp_path / "ours")["parts"]
    assert part["openpose"] == 3
    batch = _first_batch(part)
    assert batch.condition.frames is not None
    assert batch.condition.frames.shape[2] == 3
    drawings = sorted((tmp_path / "ours/openpose/solo").iterdir())
    columns = [np.nonzero(images.read_picture(path).any(axis=2))[1] for path in drawings]
    assert [(found.min(), found.max()) for found in columns] == [(5, 15), (15, 25), (25, 35)]  # round ends of 6 pixels


def test_keypoints_without_their_frames_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x_keypoints.json").write_text('{"people": []}')
    with pytest.raises(InputError, match=r"a: 0 clips belong to these keypoints"):
        import_data("openpose", tmp_path, tmp_path / "ours")
    write_png(tmp_path / "frames/y.png", _photo())
    with pytest.raises(InputError, match=r"y\.png: no keypoints belong to it; expected y_keypoints\.json"):
        import_data("openpose", tmp_path, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_holds_something_else_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    write_png(tmp_path / "pictures/1.png", _photo())
    for kind in set(layouts.KINDS) - {"openpose"}:
        with pytest.raises(InputError, match=rf"no {kind} data in it; expected .*, found pictures"):
            import_data(kind, tmp_path, tmp_path / "ours")
    with pytest.raises(InputError, match=r"nothing: not found"):
        import_data("camvid", tmp_path / "nothing", tmp_path / "ours")


def test_an_import_never_replaces_what_is_there_and_may_copy(tmp_path: Path) -> None:
    source = _cityscapes(tmp_path / "downloads")
    import_data("cityscapes", source, tmp_path / "ours", copy=True)
    copied = tmp_path / "ours/train/images/aachen/aachen_000000_000019.png"
    assert not copied.is_symlink()
    assert np.array_equal(images.read_picture(copied), _photo())
    assert LabelTable.from_file(tmp_path / "ours/train/labels.json") == labels.CITYSCAPES
    with pytest.raises(OutputError):
        import_data("cityscapes", source, tmp_path / "ours")


def test_the_command_knows_every_data_set_that_is_read() -> None:
    assert cli.KNOWN_DATA_SETS == layouts.KINDS


def test_the_command_prints_the_settings_to_train_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _cityscapes(tmp_path / "downloads")
    assert cli.main(["data", "import", "cityscapes", str(source), "-o", str(tmp_path / "ours")]) == 0
    shown = capsys.readouterr().out
    assert f"data.root={tmp_path / 'ours/train'}, data.pairs=stills, data.condition.labels.table=labels.json" in shown
