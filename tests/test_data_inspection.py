"""`data check` judges as training does, says what it saw whatever is wrong, and points at what training would not notice."""

from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vidgen import cli
from vidgen.commands.data import check
from vidgen.data.clips import Clips
from vidgen.data.sequences import find_sequences, find_table
from vidgen.data.settings import DataSettings
from vidgen.errors import InputError, VidgenError
from vidgen.media.frames import open_sink
from vidgen.media.images import write_png


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data", 2, 4)


def _photo(seed: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def _refusal_of_training(root: Path, **values: object) -> str | None:
    """What training says when it reads every frame, or None."""
    condition = {"labels": {"table": "discover"}}
    try:
        settings = DataSettings.model_validate({"root": root, "condition": condition, **values})
        sequences = find_sequences(settings)
        clips = Clips(settings, sequences, find_table(settings, sequences), seed=0, size_multiple=4, flow=None)
        for sequence, found in enumerate(sequences):
            clips.excerpt(sequence, 0, found.num_frames, 0)
    except VidgenError as error:
        return str(error)
    return None


def _jpeg_labels(root: Path) -> None:
    for path in list((root / "labels/clip0").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()


def _gray_alpha_labels(root: Path) -> None:
    for path in (root / "labels/clip0").iterdir():
        Image.open(path).convert("LA").save(path)


def _photos_as_labels(root: Path) -> None:
    for index, path in enumerate(sorted((root / "labels/clip0").iterdir())):
        write_png(path, _photo(index))


def _gap(root: Path) -> None:
    (root / "labels/clip0/001.png").unlink()


def _other_size(root: Path) -> None:
    write_png(root / "labels/clip1/002.png", np.zeros((16, 24), np.uint8))


def _damaged(root: Path) -> None:
    path = root / "images/clip1/003.png"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("spoil", [_jpeg_labels, _gray_alpha_labels, _photos_as_labels, _gap, _other_size, _damaged])
def test_what_training_refuses_is_a_fault_in_the_same_words(root: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    assert _refusal_of_training(root) is None
    assert check(root)["faults"] == []
    spoil(root)
    refusal = _refusal_of_training(root)
    faults = check(root)["faults"]
    assert refusal is not None
    assert any(fault.startswith(refusal) for fault in faults), faults


def test_a_fade_in_from_black_is_no_fault(root: Path) -> None:
    for name in ("000.png", "001.png"):
        write_png(root / "images/clip0" / name, np.zeros((32, 48, 3), np.uint8))
    report = check(root)
    assert _refusal_of_training(root) is None
    assert (report["faults"], report["notes"]) == ([], [])
    assert [role["holds"] for role in report["roles"]] == ["pictures", "label maps"]


def test_stills_of_several_sizes_are_single_pictures(tmp_path: Path) -> None:
    for index, size in enumerate([(32, 48), (40, 40)]):
        for role in ("images", "labels"):
            pixels = _photo(index, size) if role == "images" else np.full(size, index, np.uint8)
            write_png(tmp_path / role / "park" / f"{index}.png", pixels)
    report = check(tmp_path)
    assert "data.pairs=stills" in report["read_as"]
    assert report["faults"] == []
    assert _refusal_of_training(tmp_path, pairs="stills") is None


def test_splits_of_pictures_of_two_halves_are_splits_and_not_roles(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for index in range(count):
            write_png(tmp_path / split / f"{index}.png", _photo(index, (32, 64)))
    report = check(tmp_path)
    assert [(part["roles"][0]["role"], part["roles"][0]["frames"]) for part in report["parts"]] == [("train", 3), ("val", 2)]
    assert all("data.pairs=side_by_side" in part["read_as"] and not part["faults"] for part in report["parts"])


def test_splits_that_hold_roles_are_looked_at_one_by_one(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "splits/train")
    shutil.copytree(root, tmp_path / "splits/val")
    shutil.rmtree(tmp_path / "splits/val/labels/clip1")
    train, val = check(tmp_path / "splits")["parts"]
    assert (train["faults"], len(val["faults"])) == ([], 1)


def test_pictures_of_16_bits_are_pictures(root: Path) -> None:
    for path in (root / "images/clip0").iterdir():
        write_png(path, np.random.default_rng(0).integers(0, 65535, (32, 48), dtype=np.uint16))
    report = check(root)
    assert report["roles"][0]["holds"] == "pictures"
    assert report["faults"] == []


def test_swapped_folders_are_noticed(root: Path) -> None:
    (root / "images").rename(root / "x")
    (root / "labels").rename(root / "images")
    (root / "x").rename(root / "labels")
    assert "images looks like label maps and labels like pictures; are they swapped?" in check(root)["notes"]


def test_a_folder_that_is_not_read_is_named_with_what_it_holds(root: Path) -> None:
    (root / "polygons").mkdir()
    for index in range(3):
        (root / "polygons" / f"{index}.json").write_text("{}")
    assert check(root)["notes"] == ["polygons: is not read; it holds 3 .json"]


def test_much_of_id_255_is_noted(root: Path) -> None:
    for path in sorted((root / "labels").rglob("*.png")):
        pixels = np.array(Image.open(path))
        pixels[:4] = 255
        write_png(path, pixels)
    (note,) = check(root)["notes"]
    assert note.startswith("labels: id 255 covers 12.5 % of the pixels; in most data sets it is no class")


def test_the_table_that_colors_fit_is_noted(root: Path) -> None:
    for path in (root / "labels").rglob("*.png"):
        pixels = np.full((32, 48, 3), (0, 0, 192), np.uint8)
        pixels[:8] = (128, 128, 128)
        write_png(path, pixels)
    assert "labels: its colors are those of the label table palette:camvid_32" in check(root)["notes"]


def test_a_fault_does_not_hide_the_overview(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _other_size(root)
    assert cli.main(["data", "check", str(root)]) == 3
    shown = capsys.readouterr()
    assert "labels: label maps, 2 sequences, 8 frames, 48x32" in shown.out
    assert "clip1" in shown.out.partition("faults: 1")[2]
    assert "1 fault; training would refuse this data" in shown.err
    assert cli.main(["data", "check", str(root), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert len(report["faults"]) == 1
    assert report["roles"][1]["classes"]


def test_sequences_without_a_partner_are_in_the_overview(root: Path) -> None:
    (root / "images/clip0/001.png").unlink()
    (root / "labels/clip0/002.png").unlink()
    (root / "images/clip1").rename(root / "images/other")
    report = check(root)
    assert len(report["faults"]) == 2
    assert [(role["sequences"], role["frames"]) for role in report["roles"]] == [(2, 7), (2, 7)]
    assert list(report["roles"][1]["classes"]) == ["id 0", "id 1", "id 2", "id 3"]


def test_roles_come_from_the_configuration_where_there_is_one(root: Path, tmp_path: Path) -> None:
    (root / "images").rename(root / "a")
    (root / "labels").rename(root / "b")
    config = tiny.write_config(tmp_path, root)
    sets = ("data.target=a", "data.condition.labels.folder=b")
    report = check(root, config=config, sets=sets)
    assert [(role["role"], role["holds"]) for role in report["roles"]] == [("a", "pictures"), ("b", "label maps")]
    assert report["faults"] == []
    write_png(root / "b/clip0/000.png", np.full((32, 48), 9, np.uint8))
    (fault,) = check(root, config=config, sets=sets)["faults"]
    assert "label id 9" in fault


def test_videos_are_read_to_their_end(root: Path) -> None:
    for role in ("images", "labels"):
        shutil.rmtree(root / role / "clip1")
    for role, kind in (("images", "pictures"), ("labels", "labels")):
        options = {"time_base": Fraction(1, 25), "frame_rate": Fraction(25), "kind": kind}
        with open_sink(root / role / "clip1.mkv", **options) as sink:  # type: ignore[arg-type]
            for index in range(5):
                sink.write(_photo(index) if role == "images" else np.full((32, 48), index % 3, np.uint8), index)
    report = check(root)
    assert report["faults"] == []
    assert [role["frames"] for role in report["roles"]] == [9, 9]


def test_a_root_is_a_name_and_no_number(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny.write_config(tmp_path, root)
    for name in ("2024", "a #1", "[0001]", "x: y", "null"):
        root.rename(tmp_path / name)
        root = tmp_path / name
        for options in ((), ("--config", str(config))):
            assert cli.main(["-q", "data", "check", name, *options]) == 0
    monkeypatch.setenv("HOME", str(tmp_path))
    root.rename(tmp_path / "street")
    assert cli.main(["-q", "data", "check", "~/street", "--config", str(config)]) == 0
    assert not os.path.lexists("~")


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no folder of videos or pictures"):
        check(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"a\.txt: is a file; the folder of a data set was expected"):
        check(tmp_path / "a.txt")
