"""Outputs are claimed before the work; temporary files, locks and links lose nothing, whatever is killed and when."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import media_clips
from tests.conftest import REPOSITORY
from vidgen import durable
from vidgen.durable import Output, claim
from vidgen.errors import BusyError, OutputError, OutputExistsError
from vidgen.media import frames
from vidgen.media.frames import open_sink, open_source

CLOCK = {"time_base": Fraction(1, 10), "frame_rate": Fraction(10)}


def write(where: str | Path, pictures: Sequence[np.ndarray], **options: object) -> None:
    with open_sink(where, **CLOCK, **options) as sink:  # type: ignore[arg-type]
        for index, picture in enumerate(pictures):
            sink.write(picture, index)


def visible(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def in_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# Claims


def test_a_job_whose_outputs_share_a_place_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    pairs = (
        (tmp_path / "a.mp4", tmp_path / "a.mp4"),
        (tmp_path / "a.mp4", tmp_path / "A.MP4"),
        (tmp_path / "a.mp4", tmp_path / "link" / "a.mp4"),
        (tmp_path / "a.mp4", tmp_path / "x" / ".." / "a.mp4"),
    )
    for pair in pairs:
        with pytest.raises(OutputError, match="two results of one job"), claim(pair):
            pass
    with pytest.raises(OutputError, match="lies inside"), claim([Output(tmp_path / "out", "folder"), tmp_path / "out" / "a.csv"]):
        pass
    assert visible(tmp_path) == ["link"]


def test_no_output_is_also_an_input_by_whatever_name(tmp_path: Path) -> None:
    source = tmp_path / "in" / "a.mp4"
    source.parent.mkdir()
    source.write_bytes(b"precious")
    (tmp_path / "hard.mp4").hardlink_to(source)
    (tmp_path / "way").symlink_to(source.parent, target_is_directory=True)
    for output in (
        source,
        tmp_path / "hard.mp4",
        tmp_path / "way" / "a.mp4",
        Output(source.parent, "folder"),
        Output(tmp_path, "folder"),
    ):
        with pytest.raises(OutputError, match="is also read as an input"), claim([output], inputs=[source], overwrite=True):
            pass
    numbered = frames.output_place(tmp_path / "in" / "%05d.png")
    with pytest.raises(OutputError, match="is also read as an input"), claim([numbered], inputs=[source.parent]):
        pass
    assert source.read_bytes() == b"precious"


def test_frames_in_the_folder_of_the_frames_that_are_read_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "in", media_clips.smooth_frames(2))
    read = frames.files_read(tmp_path / "in")
    for output in ("in/", "in/%05d.png", "in/00000.png"):
        place = frames.output_place(f"{tmp_path}/{output}")
        with pytest.raises(OutputError, match="is also read as an input"), claim([place], inputs=read, overwrite=True):
            pass


def test_a_claimed_output_is_refused_to_others_and_free_afterwards(tmp_path: Path) -> None:
    with claim([tmp_path / "deep" / "a.mp4"]):
        with pytest.raises(BusyError, match=r"a\.mp4: another process is writing here \(process \d+\)"):
            write(tmp_path / "deep" / "a.mp4", media_clips.smooth_frames(1))
        write(tmp_path / "deep" / "b.mp4", media_clips.smooth_frames(1))
    write(tmp_path / "deep" / "a.mp4", media_clips.smooth_frames(1))
    assert sorted(os.listdir(tmp_path / "deep")) == ["a.mp4", "b.mp4"]


def test_folders_made_for_a_job_that_wrote_nothing_disappear_again(tmp_path: Path) -> None:
    with claim([tmp_path / "x" / "y" / "a.mp4"]):
        assert (tmp_path / "x" / "y").is_dir()
    assert os.listdir(tmp_path) == []


def test_side_files_are_checked_before_the_work_and_only_our_own_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.mp4.json").write_text('{"names": ["road"], "colors": [[1, 2, 3]]}')
    places = [Output(tmp_path / "a.mp4"), frames.sidecar_place(tmp_path / "a.mp4")]
    with pytest.raises(OutputExistsError, match=r"a\.mp4\.json: exists already"), claim(places):
        pass
    durable.write_json(tmp_path / "a.mp4.json", {"vidgen": "0.1.0"})
    with claim(places):
        pass


def test_side_files_are_named_after_the_whole_output(tmp_path: Path) -> None:
    names = {
        "frame.mp4": "frame.mp4.json",
        "out/": "out.json",
        "out": "out.json",
        "o/%05d.png": "%05d.png.json",
        "v1.5/": "v1.5.json",
    }
    for output, sidecar in names.items():
        assert frames.sidecar_path(f"{tmp_path}/{output}").name == sidecar


# Folders


def test_a_folder_written_before_is_replaced_whole_but_only_while_nobody_changed_it(tmp_path: Path) -> None:
    write(tmp_path / "out", media_clips.smooth_frames(3))
    with pytest.raises(OutputExistsError):
        write(tmp_path / "out", media_clips.smooth_frames(2))
    write(tmp_path / "out", media_clips.smooth_frames(2), overwrite=True)
    assert visible(tmp_path / "out") == ["00000.png", "00001.png"]
    retouched = tmp_path / "out" / "00001.png"
    retouched.write_bytes(retouched.read_bytes()[:-1] + b"!")
    with pytest.raises(OutputError, match=r"holds other things, such as 00001\.png; it is left alone"):
        write(tmp_path / "out", media_clips.smooth_frames(2), overwrite=True)
    assert retouched.read_bytes().endswith(b"!")


@pytest.mark.parametrize("foreign", ["notes.txt", "99999.png", ".git/config", "sub/00000.png"])
def test_a_folder_with_anything_foreign_in_it_is_never_replaced(tmp_path: Path, foreign: str) -> None:
    write(tmp_path / "out", media_clips.smooth_frames(2))
    (tmp_path / "out" / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / foreign).write_text("mine")
    with pytest.raises(OutputError, match="holds other things"):
        write(tmp_path / "out", media_clips.smooth_frames(1), overwrite=True)
    assert (tmp_path / "out" / foreign).read_text() == "mine"


def test_numbered_files_replace_what_the_pattern_wrote_before_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "out" / "b_%03d.png", media_clips.smooth_frames(1))
    for name in ("notes.txt", "a_000.png", "b_x.png", "b_000.png.json"):
        (tmp_path / "out" / name).write_text("mine")
    place = tmp_path / "out" / "a%02d.png"
    write(place, media_clips.smooth_frames(3))
    with pytest.raises(OutputExistsError):
        write(place, media_clips.smooth_frames(1))
    write(place, media_clips.smooth_frames(2, seed=1), overwrite=True)
    assert visible(tmp_path / "out") == ["a00.png", "a01.png", "a_000.png", "b_000.png", "b_000.png.json", "b_x.png", "notes.txt"]
    (tmp_path / "out" / "a07.png").write_text("mine")
    with pytest.raises(OutputError, match=r"such as a07\.png"):
        write(place, media_clips.smooth_frames(2), overwrite=True)
    assert (tmp_path / "out" / "a07.png").read_text() == "mine"


def test_a_damaged_manifest_makes_everything_foreign(tmp_path: Path) -> None:
    write(tmp_path / "out", media_clips.smooth_frames(1))
    manifest = tmp_path / "out" / durable.MANIFEST
    for content in ("", "[1]", '{"files": {"00000.png": 3}}', '{"files": {"00000.png": ["x", 1]}}', "[" * 100_000):
        manifest.write_text(content)
        with pytest.raises(OutputError, match="holds other things"):
            write(tmp_path / "out", media_clips.smooth_frames(1), overwrite=True)


def test_a_manifest_never_leads_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    place = tmp_path / "out" / "%d.png"
    write(place, media_clips.smooth_frames(1))
    manifest = next(path for path in (tmp_path / "out").iterdir() if path.name.endswith(durable.MANIFEST))
    value = json.loads(manifest.read_text())
    value["files"]["../thesis.tex"] = [13, "0" * 64]
    value["files"][str(tmp_path / "thesis.tex")] = [13, "0" * 64]
    manifest.write_text(json.dumps(value))
    write(place, media_clips.smooth_frames(1), overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


# Patterns and names


def test_a_percent_sign_is_no_pattern_where_a_letter_follows_or_there_is_one_picture(tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(b"mine")
    write(tmp_path / "50%done.png", media_clips.smooth_frames(1))
    write(tmp_path / "take%d.png", media_clips.smooth_frames(1), single=True)
    assert visible(tmp_path) == ["50%done.png", "other.png", "take%d.png"]
    with pytest.raises(Exception, match="holds one picture"):
        write(tmp_path / "70%done.png", media_clips.smooth_frames(2))
    write(tmp_path / "x%d_y.png", media_clips.smooth_frames(2))
    assert (tmp_path / "x1_y.png").exists()


def test_results_of_pictures_keep_their_names(tmp_path: Path) -> None:
    for name in ("1.png", "10.png", "2.png"):
        write(tmp_path / "in" / name, media_clips.smooth_frames(1))
    source = open_source(tmp_path / "in")
    assert source.frame_names == ("1", "2", "10")
    write(tmp_path / "out", [frame.pixels for frame in source], names=source.frame_names)
    assert visible(tmp_path / "out") == ["1.png", "10.png", "2.png"]
    (tmp_path / "in" / "1.jpg").write_bytes((tmp_path / "in" / "1.png").read_bytes())
    assert open_source(tmp_path / "in").frame_names == ("1.jpg", "1.png", "2.png", "10.png")


# Two writers, dead writers


WRITER = """
import sys
from fractions import Fraction
import numpy as np
from vidgen.errors import OutputError
from vidgen.media.frames import open_sink
shade = int(sys.argv[2])
try:
    with open_sink(sys.argv[1], time_base=Fraction(1, 10), frame_rate=Fraction(10), overwrite=True) as sink:
        print("ready", flush=True)
        sys.stdin.readline()
        for index in range(60):
            sink.write(np.full((64, 96, 3), shade, np.uint8), index)
except OutputError as error:
    print(type(error).__name__, error, flush=True)
else:
    print("done", flush=True)
"""


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "out/", "out/%05d.png"])
def test_of_two_writers_of_one_output_one_writes_it_whole_and_one_is_refused(tmp_path: Path, name: str) -> None:
    first = in_python(WRITER, f"{tmp_path}/{name}", 60)
    assert first.stdout is not None
    assert first.stdout.readline() == "ready\n"
    second = in_python(WRITER, f"{tmp_path}/{name}", 200)
    said, _ = second.communicate("\n", timeout=120)
    assert re.fullmatch(rf"BusyError .*: another process is writing here \(process {first.pid}\)\n", said)
    said, _ = first.communicate("\n", timeout=120)
    assert said == "done\n"
    pixels = [frame.pixels for frame in open_source(f"{tmp_path}/{name}".rstrip("/"))]
    assert len(pixels) == 60
    assert all(abs(int(frame.mean()) - 60) <= 2 for frame in pixels)
    assert visible(tmp_path) == [name.partition("/")[0]]


@pytest.mark.parametrize("name", ["a.mkv", "out/"])
def test_what_a_killed_writer_left_is_removed_and_holds_nobody_up(tmp_path: Path, name: str) -> None:
    writer = in_python(WRITER, f"{tmp_path}/{name}", 60)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    assert writer.stdin is not None
    writer.stdin.write("\n")
    writer.stdin.flush()
    deadline = time.monotonic() + 60
    while not any(durable.PART in entry for entry in os.listdir(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.005)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    write(f"{tmp_path}/{name}", media_clips.smooth_frames(2), overwrite=True)
    assert os.listdir(tmp_path) == [name.rstrip("/")]
    assert len(list(open_source(f"{tmp_path}/{name}".rstrip("/")))) == 2


def test_temporary_files_of_a_living_writer_are_left_alone(tmp_path: Path) -> None:
    with durable.replacing(tmp_path / "a.txt") as first:
        first.write_text("first")
        with claim([tmp_path / "a.txt"], overwrite=True), durable.replacing(tmp_path / "a.txt") as second:
            assert second != first
            second.write_text("second")
        assert (tmp_path / "a.txt").read_text() == "second"
        assert first.exists()
    assert (tmp_path / "a.txt").read_text() == "first"


def test_a_folder_lost_between_two_renamings_comes_back(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from vidgen import durable
class Killed(durable.Operations):
    count = 0
    def replace(self, source, target):
        super().replace(source, target)
        Killed.count += 1
        if Killed.count == 1:
            os.kill(os.getpid(), signal.SIGKILL)
durable.write_folder(Path(sys.argv[1]), {"old": b"old"})
durable.operations = Killed()
durable.write_folder(Path(sys.argv[1]), {"new": b"new"})
"""
    process = in_python(code, tmp_path / "out")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    durable.write_text(tmp_path / "anything", "")
    assert sorted(os.listdir(tmp_path)) == ["anything", "out"]
    assert os.listdir(tmp_path / "out") == ["old"]


# Links


def test_a_lock_never_empties_a_file_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    (tmp_path / "soft.lock").symlink_to(precious)
    (tmp_path / "hard.lock").hardlink_to(precious)
    os.mkfifo(tmp_path / "pipe.lock")
    for name in ("soft.lock", "hard.lock", "pipe.lock"):
        with (
            pytest.raises(OutputError, match=r"a file of its own was expected|is no regular file of its own"),
            durable.lock(tmp_path / name),
        ):
            pass
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize("call", ["fstat", "lseek", "ftruncate", "write"])
def test_a_signal_while_a_lock_is_taken_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "deep" / "out.mp4"

    def interrupted(*_: Any) -> Any:
        monkeypatch.undo()
        assert list(path.parent.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, interrupted)
    with pytest.raises(KeyboardInterrupt), durable.claim([path]):
        pass
    assert not list(tmp_path.iterdir())


def test_a_signal_while_another_holds_the_lock_leaves_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with durable.lock(tmp_path / "out.lock"):
        monkeypatch.setattr(durable, "_owner", interrupted)
        with pytest.raises(KeyboardInterrupt), durable.lock(tmp_path / "out.lock"):
            pass
        assert (tmp_path / "out.lock").exists()


def test_a_lock_of_a_run_stays_and_names_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    busy = pytest.raises(BusyError, match=rf"another process is writing here \(process {os.getpid()}\)")
    with durable.lock(path, keep=True), busy, durable.lock(path, keep=True):
        pass
    assert (tmp_path / "run.lock").exists()
    with durable.lock(tmp_path / "run.lock", keep=True):
        pass


def test_an_output_that_is_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    precious = tmp_path / "precious.mkv"
    precious.write_bytes(b"years of work")
    (tmp_path / "out.mkv").symlink_to(precious)
    with pytest.raises(OutputExistsError):
        write(tmp_path / "out.mkv", media_clips.smooth_frames(1))
    write(tmp_path / "out.mkv", media_clips.smooth_frames(1), overwrite=True)
    assert precious.read_bytes() == b"years of work"
    assert not (tmp_path / "out.mkv").is_symlink()


def test_lines_are_never_appended_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "log").symlink_to(tmp_path / "target")
    (tmp_path / "hard").hardlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("log", "hard", "pipe"):
        with pytest.raises(OutputError), durable.appending(tmp_path / name):
            pass
    with durable.appending(tmp_path / "new") as file:
        file.write_line("a")
    with durable.appending(tmp_path / "new") as file:
        file.write_line("b")
    assert (tmp_path / "new").read_text() == "a\nb\n"
    assert (tmp_path / "target").read_text() == "mine"


def test_names_as_long_as_disks_take_them_are_written(tmp_path: Path) -> None:
    name = "é" * 120 + ".png"
    write(tmp_path / name, media_clips.smooth_frames(1))
    assert os.listdir(tmp_path) == [name]


def test_devices_are_no_outputs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(OutputError, match="neither a file nor a folder"):
        write(tmp_path / "pipe.mp4", media_clips.smooth_frames(1), overwrite=True)


def test_reading_and_writing_need_no_module_that_only_some_systems_have(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
from flow import engines, files, synthetic, train
from vidgen import durable, errors, threads
from vidgen.media import conditions, edits, frames, images, integrity, labels, paths, pixels, smoothing, video
with durable.claim([Path(sys.argv[1])]):
    durable.write_text(Path(sys.argv[1]), "written")
"""
    process = in_python(code, tmp_path / "a.txt")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert (tmp_path / "a.txt").read_text() == "written"


def test_a_file_in_writing_is_safe_from_one_written_beside_it_under_another_name_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with durable.replacing(tmp_path / "folder" / "long.bin") as temporary:
        durable.operations.write(temporary, b"long")
        durable.write_bytes(Path("folder/short.bin"), b"short")
    assert (tmp_path / "folder" / "long.bin").read_bytes() == b"long"
