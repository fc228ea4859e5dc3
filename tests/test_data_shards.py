"""Data sets in shards: the same frames and losses as from folders, readable by anything that reads tar, and damage is named."""

from __future__ import annotations

import io
import json
import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vidgen import durable
from vidgen.commands.data import check, pack
from vidgen.commands.train import train
from vidgen.data import shards
from vidgen.data.sequences import Sequence, find_sequences
from vidgen.data.settings import ConditionSettings, DataSettings, LabelSettings
from vidgen.errors import InputError
from vidgen.media.frames import open_sink
from vidgen.media.images import write_png


def _video_set(root: Path, num_sequences: int = 3) -> Path:
    rng = np.random.default_rng(3)
    for index in range(num_sequences):
        for role, suffix in (("images", "mp4"), ("labels", "mkv")):
            kind = "labels" if role == "labels" else "pictures"
            path = root / role / f"drive.{index}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_sink(path, time_base=Fraction(1, 25), frame_rate=Fraction(25), kind=kind) as sink:  # type: ignore[arg-type]
                for pts in range(6):
                    labels = np.full((32, 48), (pts + index) % 4, np.uint8)
                    sink.write(labels if role == "labels" else rng.integers(0, 255, (32, 48, 3), dtype=np.uint8), pts)
    return root


def _settings(root: Path, **changes: object) -> DataSettings:
    condition = ConditionSettings(labels=LabelSettings(num_classes=4))
    return DataSettings.model_validate({"root": root, "condition": condition, **changes})


def _all_frames(sequence: Sequence) -> list[dict[str, np.ndarray]]:
    return [{name: frame.pixels for name, frame in moment.items()} for moment in sequence.moments()]


def _same(first: list[Sequence], second: list[Sequence]) -> None:
    assert [(item.name, item.num_frames, item.target.size) for item in first] == [
        (item.name, item.num_frames, item.target.size) for item in second
    ]
    for one, other in zip(first, second, strict=True):
        for left, right in zip(_all_frames(one), _all_frames(other), strict=True):
            assert left.keys() == right.keys()
            assert all(np.array_equal(left[name], right[name]) for name in left)
        last = one.num_frames - 1
        assert np.array_equal(one.read(last)["target"].pixels, other.read(last)["target"].pixels)
        assert (one.target.time_base, one.target.frame_rate) == (other.target.time_base, other.target.frame_rate)


@pytest.mark.parametrize("kind", ["videos", "frames", "stills"])
def test_packed_samples_have_the_frames_of_their_folders(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "set"
    if kind == "videos":
        _video_set(root)
    elif kind == "frames":
        tiny.write_data(root, 3, 4)
    else:
        for name in ("a", "b c"):
            write_png(root / "images" / f"{name}.png", np.full((16, 20 + len(name), 3), 70, np.uint8))
            write_png(root / "labels" / f"{name}.png", np.full((16, 20 + len(name)), 2, np.uint8))
    result = pack(root, tmp_path / "shards", max_megabytes=0.02)
    assert result["samples"] == (2 if kind == "stills" else 3)
    pairs = "stills" if kind == "stills" else "sequences"
    packed = find_sequences(_settings(tmp_path / "shards", pairs=pairs))
    _same(find_sequences(_settings(root, pairs=pairs)), packed)
    # Each read by itself, whatever was read before.
    assert np.array_equal(packed[-1].read(0)["labels"].pixels, _all_frames(packed[-1])[0]["labels"])


def test_a_folder_of_shards_is_read_by_what_the_data_set_told_of_itself(tmp_path: Path) -> None:
    tiny.write_data(tmp_path / "set", 2, 3)
    pack(tmp_path / "set", tmp_path / "shards")
    before, after = (check(root) for root in (tmp_path / "set", tmp_path / "shards"))
    assert after["roles"] == before["roles"]
    assert (after["faults"], after["read_as"]) == ([], before["read_as"])
    with pytest.raises(InputError, match=r"shards: the shards hold no poses; they hold images, labels"):
        find_sequences(_settings(tmp_path / "shards", target="poses"))


@pytest.mark.slow
def test_training_on_shards_gives_the_losses_of_training_on_folders(tmp_path: Path) -> None:
    root = tiny.write_data(tmp_path / "set")
    pack(root, tmp_path / "shards", max_megabytes=0.01)
    logs = []
    for name, place in (("one", root), ("two", tmp_path / "shards")):
        folder = tmp_path / name
        folder.mkdir()
        train(tiny.write_config(folder, place), folder / "run", steps=4)
        lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
        logs.append([{key: value for key, value in line.items() if "seconds" not in key and "time" not in key} for line in lines])
    losses = [[{key: value for key, value in line.items() if key != "memory_mb"} for line in log] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) >= 4


def test_shards_are_plain_tar_files_of_whole_samples(tmp_path: Path) -> None:
    tiny.write_data(tmp_path / "set", 3, 2)
    (tmp_path / "set/labels.json").write_text("{}")
    pack(tmp_path / "set", tmp_path / "shards", max_megabytes=0.02)
    files = sorted((tmp_path / "shards").glob("*.tar"))
    assert len(files) > 1
    keys = []
    for file in files:
        with tarfile.open(file) as archive:
            names = archive.getnames()
            assert all(member.isfile() and member.mtime == 0 for member in archive)
            about = json.load(archive.extractfile(names[-1]))  # type: ignore[arg-type]
        assert about["roles"]["images"]["files"] == ["000.png", "001.png"]
        keys += list(dict.fromkeys(name.partition(".")[0] for name in names))
    assert keys == ["00000000-clip0", "00000001-clip1", "00000002-clip2"]
    assert (tmp_path / "shards/labels.json").read_text() == "{}"


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    _video_set(tmp_path / "set")
    pack(tmp_path / "set", tmp_path / "shards", max_megabytes=0.02)
    files = [str(file) for file in sorted((tmp_path / "shards").glob("*.tar"))]
    samples = list(webdataset.WebDataset(files, shardshuffle=False))
    assert [json.loads(sample["json"])["name"] for sample in samples] == ["drive.0", "drive.1", "drive.2"]
    for sample in samples:
        name = json.loads(sample["json"])["name"]
        assert sample["images.mp4"] == (tmp_path / f"set/images/{name}.mp4").read_bytes()
        assert sample["labels.mkv"] == (tmp_path / f"set/labels/{name}.mkv").read_bytes()


def test_a_missing_or_damaged_shard_is_named(tmp_path: Path) -> None:
    _video_set(tmp_path / "set")
    pack(tmp_path / "set", tmp_path / "shards", max_megabytes=0.02)
    settings = _settings(tmp_path / "shards")
    shard = tmp_path / "shards/000001.tar"
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[700] ^= 1
    shard.write_bytes(bytes(damaged))
    shards._opened.cache_clear()
    sequence = find_sequences(settings)[1]
    with pytest.raises(InputError, match=r"000001\.tar/00000001-drive-1\.images\.mp4: its content is not what the index says"):
        sequence.read(0)
    for content, words in (
        (None, r"000001\.tar: is missing; the index tells of 3 shards"),
        (whole[:-512], rf"000001\.tar: has {len(whole) - 512} bytes, the index tells of {len(whole)}"),
    ):
        shard.unlink() if content is None else shard.write_bytes(content)
        shards._opened.cache_clear()
        with pytest.raises(InputError, match=words):
            find_sequences(settings)


def test_a_cut_or_foreign_index_is_refused(tmp_path: Path) -> None:
    tiny.write_data(tmp_path / "set", 2, 2)
    pack(tmp_path / "set", tmp_path / "shards")
    index = tmp_path / "shards" / shards.INDEX
    lines = index.read_text().splitlines(keepends=True)
    for text, words in (
        ("".join(lines[:-1]), "tells of 1 of 2 samples; it is cut off"),
        ("".join(lines)[:-40], "is no index of shards, or damaged"),
        ("[]\n", "is no index of shards"),
        ("", "is no index of shards"),
        (lines[0].replace('"format": 1', '"format": 9'), "has format 9; this version reads 1"),
    ):
        index.write_text(text)
        shards._opened.cache_clear()
        with pytest.raises(InputError, match=words):
            find_sequences(_settings(tmp_path / "shards"))


def test_what_was_read_least_lately_leaves_the_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _video_set(tmp_path / "set")
    pack(tmp_path / "set", tmp_path / "shards")
    monkeypatch.setattr(shards, "_SCRATCH_BYTES", 1)
    shards._opened.cache_clear()
    sequences = find_sequences(_settings(tmp_path / "shards"))
    _same(find_sequences(_settings(tmp_path / "set")), sequences)
    scratch = shards.at(tmp_path / "shards")._scratch
    assert scratch._folder is not None
    assert list(scratch._folder.iterdir()) == []
    folder = scratch._folder
    del sequences, scratch
    shards._opened.cache_clear()
    assert not folder.exists()


def test_packing_refuses_what_training_would_and_replaces_nothing(tmp_path: Path) -> None:
    root = tiny.write_data(tmp_path / "set", 2, 3)
    (root / "labels/clip1/002.png").unlink()
    with pytest.raises(InputError, match="its numbers do not match"):
        pack(root, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
    tiny.write_data(root, 2, 3)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/mine.txt").write_text("precious")
    with pytest.raises(durable.OutputError, match="holds other things, such as mine"):
        pack(root, tmp_path / "shards")
    with pytest.raises(InputError, match="is packed already"):
        pack(pack(root, tmp_path / "packed") and tmp_path / "packed", tmp_path / "again")


def test_a_header_is_what_the_standard_library_writes() -> None:
    class Sink(io.BytesIO):
        def sync(self) -> None: ...

    ours = Sink()
    tar = shards._Tar(ours)  # type: ignore[arg-type]
    tar.add_bytes("a.json", b"{}")
    info = tarfile.TarInfo("a.json")
    info.size = 2
    assert ours.getvalue()[:512] == info.tobuf(tarfile.USTAR_FORMAT)
