"""Names of files as people mean them."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest

from vidgen.errors import InputError
from vidgen.media import paths
from vidgen.media.paths import Cut, Moment


def test_frame_10_comes_after_frame_2():
    names = ["frame10.png", "frame2.png", "frame1.png", "frame02.png", "a.png", "Frame1.png"]
    assert sorted(names, key=paths.natural_key) == ["Frame1.png", "a.png", "frame1.png", "frame02.png", "frame2.png", "frame10.png"]


def test_digits_of_other_scripts_do_not_break_the_order():
    assert sorted(["x²", "x1", "x٣"], key=paths.natural_key)[0] == "x1"


@pytest.mark.parametrize(
    ("where", "path", "cut"),
    [
        ("clip.mp4", "clip.mp4", Cut()),
        ("clip.mp4[10:90]", "clip.mp4", Cut(Moment(Fraction(10), "frames"), Moment(Fraction(90), "frames"))),
        ("clip.mp4[:90f]", "clip.mp4", Cut(None, Moment(Fraction(90), "frames"))),
        ("clip.mp4[1.5s:]", "clip.mp4", Cut(Moment(Fraction(3, 2), "seconds"), None)),
        ("frames/*.png[2:4]", "frames/*.png", Cut(Moment(Fraction(2), "frames"), Moment(Fraction(4), "frames"))),
        ("shots/[ab].mp4", "shots/[ab].mp4", Cut()),
    ],
)
def test_a_cut_is_read_from_the_end_of_a_name(where, path, cut):
    assert paths.split_cut(where) == (path, cut)


def test_a_file_that_bears_such_a_name_is_not_cut(tmp_path):
    name = str(tmp_path / "clip[1:2]")
    Path(name).touch()
    assert paths.split_cut(name) == (name, Cut())


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("45f", Moment(Fraction(45), "frames")),
        ("0.4", Moment(Fraction(2, 5), "seconds")),
        ("4", Moment(Fraction(4), "seconds")),
        ("", None),
    ],
)
def test_start_and_end_are_seconds_unless_they_say_frames(text, moment):
    assert paths.parse_moment(text, plain="seconds") == moment


@pytest.mark.parametrize("text", ["-3", "1.5f", "soon", "1e3", "nan", "3 4"])
def test_other_moments_are_refused_with_an_example(text):
    with pytest.raises(InputError, match="expected frames such as 45f or seconds"):
        paths.parse_moment(text, plain="frames")


def test_near_names_are_suggested(tmp_path):
    (tmp_path / "drive.mp4").touch()
    (tmp_path / "unrelated.txt").touch()
    with pytest.raises(InputError, match="not found") as caught:
        paths.check_file(tmp_path / "drvie.mp4")
    assert caught.value.hint == "similar names there: drive.mp4"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        paths.check_file(tmp_path / "nowhere" / "a.png")


def test_what_is_no_readable_file_is_told_apart(tmp_path):
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, message in {
        "empty.mp4": "0 bytes",
        ".": "is a folder",
        "pipe": "neither a file nor a folder",
        "loop": "leads nowhere",
    }.items():
        with pytest.raises(InputError, match=message):
            paths.check_file(tmp_path / name)


def test_a_name_with_a_null_byte_is_an_input_error():
    with pytest.raises(InputError, match="not found"):
        paths.check_file(Path("a\0b.png"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to lose the right to read")
def test_a_file_one_may_not_read_is_an_input_error_with_the_systems_reason(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    secret.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            paths.check_file(secret)
        except InputError as error:
            os._exit(0 if "Permission denied" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_numbers_left_out_are_found_and_a_constant_stride_is_no_gap():
    def gap(*numbers):
        return paths.numbering_gap([Path(f"a_{number:03d}_x.png") for number in numbers])

    assert gap(1, 2, 3, 4) is None
    assert gap(7959, 7961, 7963, 7965) is None
    assert gap(1, 2, 4, 5) == "a_002_x.png is followed by a_004_x.png"
    assert paths.numbering_gap([Path("a.png"), Path("b.png"), Path("c.png")]) is None


def test_a_numbered_pattern_finds_its_files_in_the_order_of_numbers(tmp_path):
    for name in ("f_2.png", "f_10.png", "f_1.png", "f_x.png", "g_3.png", "f_3.jpg"):
        (tmp_path / name).touch()
    assert [path.name for path in paths.matching_pattern(str(tmp_path / "f_%d.png"))] == ["f_1.png", "f_2.png", "f_10.png"]
    assert [path.name for path in paths.matching_pattern(str(tmp_path / "f_%02d.png"))] == ["f_10.png"]
    assert paths.pattern_name("f_%03d.png", 7) == "f_007.png"


def test_names_that_are_no_utf8_can_be_shown_anywhere():
    assert paths.display(os.fsdecode(b"caf\xe9.png")) == r"caf\xe9.png"
    assert paths.display("café.png") == "café.png"


def test_names_that_differ_in_their_unicode_form_alone_are_called_so(tmp_path):
    (tmp_path / "cafe\u0301.png").touch()
    assert paths.comparable("caf\u00e9") == paths.comparable("cafe\u0301")
    assert "written with other Unicode characters" in str(paths.missing(tmp_path / "caf\u00e9.png"))


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["0.png", "1.png", "5.png"], [0, 1, 5]),
        (["0016E5_07983_L.png", "0016E5_07985_L.png"], [7983, 7985]),
        (["a_000000_000019.png", "a_000001_000019.png"], [0, 1]),
        (["day.png", "night.png"], None),
        (["only1.png"], None),
        (["a1.png", "b1.png"], None),
    ],
)
def test_the_numbers_that_count_frames_are_found_in_their_names(names, numbers):
    assert paths.frame_numbers([Path(name) for name in names]) == numbers


@pytest.mark.parametrize(
    ("first", "second", "alone"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], ([], [])),
        ([0, 1, 3, 4], [0, 1, 2, 4], ([3], [2])),
        ([1, 2, 4], [11, 12, 14], ([], [])),  # the same gap
        ([0, 1, 2], [1, 2, 3], ([], [])),  # without gaps, counted from elsewhere
        ([0, 1, 2], [0, 10, 20], ([], [])),
        ([0, 1, 2, 3], [0, 1, 2], ([3], [])),
        ([0, 1, 3], [0, 1, 2], ([3], [2])),  # as many, but one has a gap
    ],
)
def test_numbered_files_without_a_partner_are_named(first, second, alone):
    found = paths.unpaired([Path(f"{number}.png") for number in first], [Path(f"m{number:04d}.png") for number in second])
    assert tuple([int(path.stem.strip("m")) for path in files] for files in found) == alone
