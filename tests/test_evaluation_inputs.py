"""How scores name what they were measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidgen.evaluation.inputs import place_of
from vidgen.media.frames import open_source
from vidgen.media.images import write_png


def test_a_place_means_the_same_in_every_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "@mine.mkv").touch()
    monkeypatch.chdir(tmp_path)
    assert place_of("out/a.mkv") == place_of(Path("out/a.mkv")) == str(tmp_path / "out" / "a.mkv")
    assert place_of("@list.txt") == f"@{tmp_path / 'list.txt'}"
    assert place_of("@mine.mkv") == str(tmp_path / "@mine.mkv")


def test_what_has_no_place_keeps_its_name(tmp_path: Path) -> None:
    frame = np.zeros((16, 16, 3), np.uint8)
    write_png(tmp_path / "clip" / "0.png", frame)
    source = open_source(tmp_path / "clip")
    assert place_of("-") == "-"
    assert place_of([frame]) == "list of frames"
    assert place_of(source) == source.name
