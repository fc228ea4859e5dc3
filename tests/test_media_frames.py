"""Sources and sinks of frames: what people may name, what they get, and what is left when something fails."""

from __future__ import annotations

import io
import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests import media_clips
from vidgen import durable
from vidgen.errors import InputError, OutputError
from vidgen.media import frames, images
from vidgen.media.labels import LabelTable

CLOCK = {"time_base": Fraction(1, 25), "frame_rate": Fraction(25)}


def visible(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def write_pictures(folder: Path, names: list[str], size: tuple[int, int] = (8, 12)) -> Path:
    """PNG files that are gray by their place in `names`."""
    for index, name in enumerate(names):
        images.write_png(folder / name, np.full((*size, 3), index, np.uint8))
    return folder


def grays(source: frames.FrameSource) -> list[int]:
    return [int(frame.pixels[0, 0, 0]) for frame in source]


def write(path: str | Path, pixels: list[np.ndarray], **options) -> None:
    with frames.open_sink(path, **CLOCK, **options) as sink:
        for index, frame in enumerate(pixels):
            sink.write(frame, index)


# Sources


def test_a_folder_is_read_in_natural_order_without_what_are_no_pictures(tmp_path):
    write_pictures(tmp_path, ["frame1.png", "frame2.png", "frame10.png"])
    for name in ("readme.txt", ".hidden.png", "Thumbs.db", "._frame1.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    source = frames.open_source(tmp_path)
    assert grays(source) == [0, 1, 2]
    assert (source.num_frames, source.frame_rate, source.time_base) == (3, 25, Fraction(1, 25))
    assert [frame.pts for frame in source] == [0, 1, 2]
    assert [Path(frame.name).name for frame in source] == ["frame1.png", "frame2.png", "frame10.png"]
    assert grays(frames.open_source(tmp_path, frame_rate=Fraction(15))) == [0, 1, 2]
    assert frames.open_source(tmp_path, frame_rate=Fraction(15)).time_base == Fraction(1, 15)


def test_missing_numbers_are_warned_about(tmp_path, caplog):
    write_pictures(tmp_path, ["f1.png", "f2.png", "f3.png", "f5.png"])
    frames.open_source(tmp_path)
    assert "f3.png is followed by f5.png" in caplog.text


@pytest.mark.parametrize(
    ("where", "start", "end", "expected"),
    [
        ("", None, None, [0, 1, 2, 3, 4, 5]),
        ("[2:4]", None, None, [2, 3]),
        ("[4:]", None, None, [4, 5]),
        ("[:1]", None, None, [0]),
        ("[0.08s:0.16s]", None, None, [2, 3]),
        ("", "2f", "4f", [2, 3]),
        ("", "0.08", "0.16", [2, 3]),
        ("[1:5]", "3f", None, [3, 4]),
        ("/f*.png", None, None, [0, 1, 2, 3, 4, 5]),
        ("/f*.png[1:3]", None, None, [1, 2]),
        ("/f%d.png", None, None, [0, 1, 2, 3, 4, 5]),
        ("/f%d.png[5:99]", None, None, [5]),
        ("/f3.png", None, None, [2]),
    ],
)
def test_pictures_are_named_by_folder_glob_pattern_or_file_and_cut(tmp_path, where, start, end, expected):
    write_pictures(tmp_path, ["f1.png", "f2.png", "f3.png", "f9.png", "f10.png", "f11.png"])
    source = frames.open_source(f"{tmp_path}{where}", start=start, end=end)
    assert grays(source) == expected
    assert [int(frame.pixels[0, 0, 0]) for frame in source.read(0, len(expected))] == expected
    assert source.num_frames == len(expected)


@pytest.mark.parametrize(
    ("where", "start", "end", "expected"),
    [
        ("[10:13]", None, None, [10, 11, 12]),
        ("", "0.4", "13f", [10, 11, 12]),
        ("[24:]", None, None, [24]),
        ("", None, "0.08", [0, 1]),
    ],
)
def test_videos_are_cut_by_frames_and_seconds(tmp_path, where, start, end, expected):
    originals = media_clips.smooth_frames(25)
    path = media_clips.write_clip(tmp_path / "a.mp4", originals, codec_options={"g": "8"})
    whole = list(frames.open_source(path))
    source = frames.open_source(f"{path}{where}", start=start, end=end)
    found = list(source)
    assert len(found) == source.num_frames == len(expected)
    for frame, index in zip(found, expected, strict=True):
        assert np.array_equal(frame.pixels, whole[index].pixels)
        assert frame.pts == whole[index].pts - whole[expected[0]].pts
        assert frame.name == f"{path} frame {index}"
    assert [frame.pts for frame in source.read(0, len(expected))] == [frame.pts for frame in found]


@pytest.mark.parametrize(("start", "end"), [("99f", None), ("3f", "3f"), ("2", "1"), ("60", None)])
def test_a_cut_that_leaves_nothing_says_how_long_the_clip_is(tmp_path, start, end):
    write_pictures(tmp_path, [f"f{index}.png" for index in range(6)])
    with pytest.raises(InputError, match=r"leaves no frame; the clip has 6 frames, the last at 0.20 s"):
        frames.open_source(tmp_path, start=start, end=end)


def test_frames_outside_a_clip_cannot_be_read(tmp_path):
    source = frames.open_source(write_pictures(tmp_path, ["f1.png", "f2.png"]))
    for start, stop in ((0, 3), (-1, 1), (2, 2)):
        with pytest.raises(InputError, match="were asked for, it has 2"):
            source.read(start, stop)


def test_pictures_of_another_size_are_named(tmp_path):
    write_pictures(tmp_path, ["f1.png", "f2.png"])
    images.write_png(tmp_path / "f3.png", np.zeros((9, 12, 3), np.uint8))
    with pytest.raises(InputError, match=r"f3.png: 12x9, but f1.png is 12x8"):
        list(frames.open_source(tmp_path))


def test_label_folders_give_ids_and_picture_folders_colours(tmp_path):
    images.write_png(tmp_path / "0.png", np.array([[1, 26003]], np.uint16))
    assert frames.open_source(tmp_path, kind="labels").read(0, 1)[0].pixels.tolist() == [[1, 26003]]
    assert frames.open_source(tmp_path).read(0, 1)[0].pixels.shape == (1, 2, 3)


def test_labels_are_never_read_from_jpeg(tmp_path):
    from PIL import Image

    Image.new("L", (8, 8)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="JPEG blurs label ids"):
        list(frames.open_source(tmp_path, kind="labels"))


def test_real_folders_are_read_whole(data_root):
    for where, reading, num_frames, size in (
        ("camvid/images/0016E5", "pictures", 80, (360, 480)),
        ("camvid/labels/0016E5", "labels", 80, (360, 480)),
        ("face/labels/clip", "labels", 80, (480, 480)),
        ("cityscapes_clip/images/aachen", "pictures", 10, (1024, 2048)),
    ):
        source = frames.open_source(data_root / where, kind=reading)
        assert (source.num_frames, source.size) == (num_frames, size)
        assert source.read(num_frames - 1, num_frames)[0].pixels.shape[:2] == size


def test_a_video_from_standard_input_is_kept_in_a_file_that_goes_with_the_source(tmp_path, monkeypatch):
    path = media_clips.write_clip(tmp_path / "a.mkv", media_clips.smooth_frames(5), with_sound=True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    source = frames.open_source("-")
    assert len(list(source)) == len(list(source)) == 5
    spooled = source.audio
    assert spooled is not None
    assert spooled.path.exists()
    del source
    assert not spooled.path.exists()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("absent.mp4", "not found"),
        ("absent_%03d.png", "no file has such a name"),
        ("absent*.png", "matches nothing"),
        ("https://example.org/a.mp4", "addresses are not read"),
        ("empty", "holds no pictures"),
        ("mixed", "holds 1 pictures and 1 videos"),
        ("videos", "holds no pictures"),
        ("videos/*.mp4", "matches 2 files"),
        ("notes.txt", "damaged, or not one of mp4"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, monkeypatch, where, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_pictures(tmp_path / "mixed", ["poster.png"])
    for name in ("mixed/a.mp4", "videos/a.mp4", "videos/b.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"some words that are no video")
    with pytest.raises(InputError, match=message):
        frames.open_source(where)


# Many clips


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """Folders as people have them: videos, frame folders, a single clip, links in circles."""
    monkeypatch.chdir(tmp_path)
    for name in ("videos/clip10.mp4", "videos/clip2.mkv", "videos/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in ("sequences/b", "sequences/a", "single"):
        write_pictures(tmp_path / name, ["1.png", "2.png"])
    (tmp_path / "sequences/again").symlink_to(tmp_path / "sequences/a")
    (tmp_path / "sequences/loop").symlink_to(tmp_path / "sequences")
    (tmp_path / "list.txt").write_text("# clips\nvideos/clip2.mkv[1:3]\n\nsequences\n")
    return tmp_path


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("videos", ["videos/clip2.mkv", "videos/clip10.mp4"]),
        ("videos/*", ["videos/clip2.mkv", "videos/clip10.mp4"]),
        ("videos/clip10.mp4", ["videos/clip10.mp4"]),
        ("videos[0:5]", ["videos/clip2.mkv[0:5]", "videos/clip10.mp4[0:5]"]),
        ("sequences", ["sequences/a", "sequences/b"]),
        ("sequences/?", ["sequences/a", "sequences/b"]),
        ("single", ["single"]),
        ("single/*.png", ["single/*.png"]),
        ("single/%d.png", ["single/%d.png"]),
        ("single/1.png", ["single/1.png"]),
        ("-", ["-"]),
        ("@list.txt", ["videos/clip2.mkv[1:3]", "sequences/a", "sequences/b"]),
    ],
)
def test_a_place_holds_one_clip_or_many(library, where, expected):
    assert [str(path) for path in frames.list_sources(where)] == expected


@pytest.mark.parametrize(
    ("where", "message"), [("absent", "not found"), ("*.mp4", "matches no video"), ("@absent.txt", "not found")]
)
def test_a_place_without_clips_is_an_error(library, where, message):
    with pytest.raises(InputError, match=message):
        frames.list_sources(where)


# Sinks


def test_frames_are_written_as_numbered_png_files(tmp_path):
    originals = media_clips.smooth_frames(3)
    for place, names in {"plain": "%05d.png", "slash/": "%05d.png", "named/shot_%02d.png": "shot_%02d.png"}.items():
        write(f"{tmp_path}/{place}", originals)
        folder = tmp_path / Path(place).parts[0]
        assert visible(folder) == [names % index for index in range(3)]
        assert np.array_equal(np.stack([frame.pixels for frame in frames.open_source(folder)]), np.stack(originals))


def test_a_single_picture_holds_one_frame(tmp_path):
    original = media_clips.smooth_frames(1)
    write(tmp_path / "a.png", original)
    assert np.array_equal(images.read_picture(tmp_path / "a.png"), original[0])
    with pytest.raises(InputError, match="holds one picture"):
        write(tmp_path / "b.png", media_clips.smooth_frames(2))
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif", "a.png", "folder", "folder/%03d.png"])
def test_nothing_is_written_without_frames(tmp_path, name):
    with pytest.raises(InputError, match="there was no frame to write"):
        write(tmp_path / name, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.gif", "folder/"])
def test_a_failure_half_way_leaves_the_old_output_and_no_litter(tmp_path, name):
    place = f"{tmp_path}/{name}"
    write(place, media_clips.smooth_frames(2))
    before = [frame.pixels for frame in frames.open_source(place)]

    def interrupted():
        with frames.open_sink(place, **CLOCK, overwrite=True) as sink:
            sink.write(media_clips.smooth_frames(1, seed=1)[0], 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(list(tmp_path.iterdir())) == 1
    assert np.array_equal(np.stack(before), np.stack([frame.pixels for frame in frames.open_source(place)]))


def test_an_output_that_exists_is_replaced_only_on_demand(tmp_path):
    write(tmp_path / "a.mkv", media_clips.smooth_frames(2))
    with pytest.raises(OutputError, match="exists already"):
        frames.check_output(tmp_path / "a.mkv")
    with pytest.raises(OutputError, match="exists already"):
        write(tmp_path / "a.mkv", media_clips.smooth_frames(3))
    write(tmp_path / "a.mkv", media_clips.smooth_frames(3), overwrite=True)
    assert len(list(frames.open_source(tmp_path / "a.mkv"))) == 3


def test_an_input_may_be_its_own_output(tmp_path):
    write(tmp_path / "a.mkv", media_clips.smooth_frames(3), quality="lossless")
    with frames.open_sink(tmp_path / "a.mkv", **CLOCK, quality="lossless", overwrite=True) as sink:
        for index, frame in enumerate(frames.open_source(tmp_path / "a.mkv")):
            sink.write(255 - frame.pixels, index)
    found = next(iter(frames.open_source(tmp_path / "a.mkv"))).pixels
    assert np.array_equal(found, 255 - media_clips.smooth_frames(1)[0])


def test_a_folder_with_other_things_in_it_is_never_replaced(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("years of work")
    monkeypatch.chdir(tmp_path / "home")
    for place in ("../home", ".", "./"):
        with pytest.raises(OutputError, match="holds other things, such as thesis"):
            write(place, media_clips.smooth_frames(1), overwrite=True)
    assert (tmp_path / "home/thesis.tex").read_text() == "years of work"


def test_a_folder_with_hidden_files_is_never_replaced(tmp_path):
    write_pictures(tmp_path / "out", ["00000.png"])
    (tmp_path / "out/.git").mkdir()
    with pytest.raises(OutputError, match="holds other things, such as \\.git"):
        write(tmp_path / "out", media_clips.smooth_frames(1), overwrite=True)


def test_an_empty_folder_is_filled(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", media_clips.smooth_frames(1))
    assert visible(tmp_path / "out") == ["00000.png"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("a.avi", InputError, "cannot write .avi"),
        ("a.jpg", InputError, "cannot write .jpg"),
        ("-", InputError, "not written to standard output"),
        ("notes.txt/a.mp4", OutputError, "is a file, not a folder"),
        ("folder.mp4", OutputError, "is a folder"),
    ],
)
def test_outputs_that_cannot_be_written_are_refused_before_any_work(tmp_path, monkeypatch, name, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(error, match=message):
        frames.check_output(name)
    with pytest.raises(error, match=message):
        write(name, media_clips.smooth_frames(1))


@pytest.mark.parametrize("name", ["a.mkv", "folder", "a.mp4"])
def test_frames_of_one_output_have_one_size_and_kind(tmp_path, name):
    with pytest.raises(InputError, match="frame 1 is uint8 48x62x3, the frames before are uint8 48x64x3"):
        write(tmp_path / name, [*media_clips.smooth_frames(1), *media_clips.smooth_frames(1, width=62)])
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="cannot write"):
            write(tmp_path / name, [wrong])
    assert not list(tmp_path.iterdir())


def test_times_must_increase(tmp_path):
    def repeated():
        with frames.open_sink(tmp_path / "a.mkv", **CLOCK) as sink:
            sink.write(media_clips.smooth_frames(1)[0], 3)
            sink.write(media_clips.smooth_frames(1)[0], 3)

    with pytest.raises(ValueError, match="pts 3 after 3"):
        repeated()


def test_names_that_are_no_utf8_are_read_and_written(tmp_path):
    for suffix in (b".mkv", b".mp4", b""):
        place = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9" + suffix)
        write(place, media_clips.smooth_frames(2))
        source = frames.open_source(place)
        assert len(list(source)) == 2
        assert r"caf\xe9" in source.name
        assert source.name.encode("utf-8")


# Failing operations


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.mkv", ["sync a", "replace a", "sync folder"]),
        (
            "out",
            [
                *("write 0", "write 1", "write manifest", "sync manifest"),
                *("sync 0", "sync 1", "sync out", "replace out", "sync folder"),
            ],
        ),
    ],
)
def test_frames_are_flushed_before_they_take_their_name_and_the_folder_after(tmp_path, monkeypatch, name, expected):
    operations = media_clips.FaultyOperations(-1, None)
    monkeypatch.setattr(durable, "operations", operations)
    write(tmp_path / name, media_clips.smooth_frames(2))
    names = {tmp_path.name: "folder", "00000.png": "0", "00001.png": "1", ".vidgen.json": "manifest"}
    done = [(kind, names.get(path, path[1:].partition(".")[0])) for kind, path in operations.log]
    assert [f"{kind} {what}" for kind, what in done if kind in ("write", "sync", "replace")] == expected


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError(5, "Input/output error")], ids=["full", "broken"]
)
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "out"])
def test_a_failing_disk_operation_leaves_the_old_or_the_new_output_and_no_litter(tmp_path, monkeypatch, name, error):
    old, new = media_clips.smooth_frames(2), media_clips.smooth_frames(3, seed=1)
    is_folder = name == "out"
    for fail_at in range(30):
        place = tmp_path / str(fail_at) / name
        monkeypatch.setattr(durable, "operations", durable.Operations())
        if is_folder:
            place.parent.mkdir()
        else:
            write(place, old)
        operations = media_clips.FaultyOperations(fail_at, error)
        monkeypatch.setattr(durable, "operations", operations)
        try:
            write(place, new, overwrite=True)
            failed = False
        except OutputError:
            failed = True
        left = os.listdir(place.parent)
        assert left in ([name], [])
        assert bool(left) or is_folder
        assert not left or len(list(frames.open_source(place))) in ({3} if is_folder else {2, 3})
        if not failed:
            assert len(list(frames.open_source(place))) == 3
            break
    assert fail_at >= (7 if is_folder else 4)


# Animations, foreign kinds, home folders


@pytest.mark.parametrize("suffix", [".apng", ".webp"])
def test_an_animation_keeps_equal_frames_and_is_read_back(tmp_path, suffix):
    distinct = media_clips.smooth_frames(3)
    originals = [distinct[index] for index in (0, 0, 1, 1, 1, 2)]
    path = tmp_path / f"a{suffix}"
    with frames.open_sink(path, time_base=Fraction(1, 100), frame_rate=Fraction(10)) as sink:
        for index, picture in enumerate(originals):
            sink.write(picture, index * 10, 200 if index == 5 else None)
    source = frames.open_source(path)
    back = list(source)
    assert [frame.pts for frame in back] == [0, 100, 200, 300, 400, 500]
    assert back[-1].duration == 2000
    assert source.count() == source.num_frames == 6
    assert all(media_clips.psnr(frame.pixels, original) > 30 for frame, original in zip(back, originals, strict=True))
    cut = list(frames.open_source(f"{path}[2:4]"))
    assert [frame.pts for frame in cut] == [0, 100]
    assert np.array_equal(cut[0].pixels, source.read(2, 3)[0].pixels)
    assert frames.list_sources(tmp_path) == [tmp_path if suffix == ".webp" else path]


@pytest.mark.parametrize("suffix", [".apng", ".webp"])
def test_equal_transparent_frames_keep_their_opacity(suffix, tmp_path):
    layers = [np.dstack([picture, np.full(picture.shape[:2], 120, np.uint8)]) for picture in media_clips.smooth_frames(2)]
    originals = [layers[0], layers[0], layers[1]]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(images.encode_animation(originals, [0.1] * 3, suffix))
    back = list(images.read_animation(path))
    for original, picture in zip(originals, back, strict=True):
        assert media_clips.psnr(images.over_white(original[..., :3], original[..., 3]), picture) > 30


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("IMG_1.HEIC", "HEIC pictures are not read", "PNG or JPEG"),
        ("00001.MTS", "MTS videos are not read", ".mkv, which needs no encoding again"),
        ("a.wmv", "WMV videos are not read", ".mp4 or .mkv"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_kind(tmp_path, name, message, hint):
    (tmp_path / name).write_bytes(b"some content")
    for read in (frames.open_source, frames.list_sources):
        with pytest.raises(InputError, match=f"{name}: {message}") as caught:
            read(tmp_path / name)
        assert hint in caught.value.hint
    with pytest.raises(InputError, match=rf"its 1 {Path(name).suffix.lower()} files are of a kind that is not read"):
        frames.list_sources(tmp_path)


def test_a_leading_tilde_is_the_home_folder_unless_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write("~/clips/a.mkv", media_clips.smooth_frames(2))
    assert visible(tmp_path / "home/clips") == ["a.mkv"]
    assert len(list(frames.open_source("~/clips/a.mkv"))) == 2
    assert frames.list_sources("~/clips") == [tmp_path / "home/clips/a.mkv"]
    write(tmp_path / "~odd/a.mkv", media_clips.smooth_frames(3))
    assert len(list(frames.open_source("~odd/a.mkv"))) == 3


def test_lists_and_tables_larger_than_any_real_one_are_refused(tmp_path):
    for name in ("list.txt", "table.json"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(1 << 30)
    with pytest.raises(InputError, match="larger than the 64 MiB"):
        frames.list_sources(f"@{tmp_path}/list.txt")
    with pytest.raises(InputError, match="larger than the 16 MiB"):
        LabelTable.from_file(tmp_path / "table.json")
    (tmp_path / "endless").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        frames.list_sources(f"@{tmp_path}/endless")
