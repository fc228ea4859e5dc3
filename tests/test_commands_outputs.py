"""Wherever a command is told to write, it writes there or says in one line why not; and what lay there before is not lost."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vidgen import cli, durable
from vidgen.errors import InputError
from vidgen.media.frames import sidecar_path
from vidgen.media.images import write_png

COMMANDS = (
    "train vid2vid/one_clip -o OUT --set data.root=data",
    "translate street-world labels -o OUT",
    "edit-labels street-world labels/0.png --paint road:1,1,1 -o OUT",
    "edit-image a.png b.png -o OUT",
    "animate a.png -o OUT --num-frames 2",
    "sample a.png -o OUT --num-samples 1",
    "super-resolve a.png -o OUT",
    "harmonize a.png --image b.png -o OUT",
    "paint a.png --image b.png -o OUT",
    "evaluate labels --target labels --no-cache --csv OUT",
    "evaluate labels --target labels --no-cache --per-frame OUT",
    "report scores.json -o OUT",
    "compare a.png b.png -o OUT",
    "flow field a.png b.png -o OUT",
    "flow field labels -o OUT",
    "flow train -o OUT --steps 1 --batch-size 1 --height 64 --width 64",
    "styles street-world data -o OUT",
    "models slim street-world -o OUT",
    "models import --from pix2pix a.pth -o OUT",
    "data check . --write-labels OUT",
    "data preview . -o OUT",
    "config new OUT",
    "demo -o OUT",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with some pictures and something of the user's own."""
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.chdir(place)
    for name in ("a.png", "b.png"):
        write_png(place / name, np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    for index in range(2):
        write_png(place / "labels" / f"{index}.png", np.zeros((32, 32), np.uint8))
    (place / "notes.txt").write_text("mine")
    (place / "file").write_text("mine")
    return place


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("where", [".", "..", "./", "/proc", "''", "file/inside", "/dev/full", "/proc/out.mp4"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_refused_in_one_line_and_nothing_is_lost(
    home: Path, capsys: pytest.CaptureFixture[str], command: str, where: str
) -> None:
    if command.startswith("config new") and not Path(where).suffix and where.startswith("/"):
        pytest.skip("the file gets a suffix")
    before = _contents(home)
    code = cli.main(shlex.split(f"{command.replace('OUT', where)}{'' if 'flow train' in command else ' --overwrite'}"))
    said = capsys.readouterr().err
    assert code in (1, 2), said
    assert re.search(r"^error: ", said, re.MULTILINE), said
    assert "bug:" not in said
    assert _contents(home) == before


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A disk that cannot be written to, where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk_is_told_in_one_line(
    home: Path, read_only: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for name in ("x", "deep/x.png", "x.mp4", "x.html", "x.safetensors", "x.csv", "x.yaml"):
        code = cli.main(shlex.split(command.replace("OUT", str(read_only / name))))
        said = capsys.readouterr().err
        assert code in (1, 2), said
        assert "bug:" not in said


@pytest.mark.parametrize("line", ["evaluate labels --target labels --fast --cache {}", "evaluate labels --target labels --fast"])
def test_a_cache_that_cannot_be_written_only_costs_time(
    home: Path, read_only: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("HOME", str(read_only))
    assert cli.main(shlex.split(line.format(read_only / "cache"))) == 0
    assert "motion is not cached any more" in capsys.readouterr().err


def test_a_flow_training_begins_in_a_folder_of_its_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "place").mkdir()
    (home / "place" / "weights.safetensors").write_text("mine")
    assert cli.main(shlex.split("flow train -o place --steps 1 --batch-size 1 --height 64 --width 64")) == 2
    assert "holds no run, but other things, such as 'weights.safetensors'" in capsys.readouterr().err
    assert (home / "place" / "weights.safetensors").read_text() == "mine"
    with durable.held_folder(home / "run", "run.lock"):
        assert cli.main(shlex.split("flow train -o run --steps 1 --batch-size 1 --height 64 --width 64")) == 1
    assert "another training is running here" in capsys.readouterr().err


def test_the_outermost_folder_is_no_output(home: Path) -> None:
    with pytest.raises(InputError, match="is the outermost folder"):
        sidecar_path("/")


def test_an_input_is_never_also_the_output(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _contents(home)
    lines = (
        "edit-image a.png b.png -o b.png",
        "sample a.png -o a.png",
        "super-resolve a.png -o ./a.png",
        "harmonize a.png --image b.png -o a.png",
        "paint a.png --image b.png -o b.png",
        "animate labels -o labels",
        "compare a.png b.png -o b.png",
    )
    for line in lines:
        assert cli.main(shlex.split(f"{line} --overwrite")) == 1
        assert "is also read as an input" in capsys.readouterr().err
    assert _contents(home) == before


def test_an_output_that_another_job_writes_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with durable.claim([home / "out.png"]):
        assert cli.main(shlex.split("sample a.png -o out.png --num-samples 1")) == 1
    assert "another process is writing here" in capsys.readouterr().err
    assert cli.main(shlex.split("sample a.png -o out.png --num-samples 1")) == 0


def test_a_folder_of_samples_is_replaced_only_while_nobody_changed_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(shlex.split("sample a.png -o out --num-samples 2")) == 0
    assert cli.main(shlex.split("sample a.png -o out --num-samples 1")) == 1
    assert "exists already" in capsys.readouterr().err
    assert cli.main(shlex.split("sample a.png -o out --num-samples 1 --overwrite")) == 0
    assert sorted(name for name in os.listdir("out") if not name.startswith(".")) == ["000.png", "sheet.png"]
    write_png(home / "out" / "000.png", np.zeros((4, 4, 3), np.uint8))
    before = _contents(home)
    assert cli.main(shlex.split("sample a.png -o out --num-samples 1 --overwrite")) == 1
    assert _contents(home) == before


def test_a_demo_is_not_written_among_other_things(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "place").mkdir()
    (home / "place" / "config.yaml").write_text("mine")
    (home / "place" / "thesis.tex").write_text("mine")
    assert cli.main(["demo", "-o", "place", "--overwrite"]) == 1
    assert "such as thesis.tex" in capsys.readouterr().err
    assert (home / "place" / "config.yaml").read_text() == "mine"
