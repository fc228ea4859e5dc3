"""Damaged files of every kind: those that once made a reader fail, and a few new ones; `make fuzz` tries many."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.fuzz.corpus import EXPECTED, KINDS
from tests.fuzz.runner import fuzz

CRASHES = Path(__file__).with_name("fuzz") / "crashes"
STORED = sorted(path for path in CRASHES.glob("*/*") if path.is_file())


@pytest.mark.parametrize("stored", STORED, ids=lambda path: f"{path.parent.name}-{path.name[:6]}")
def test_what_once_made_a_reader_fail_does_no_more(stored: Path, tmp_path: Path) -> None:
    kind = KINDS[stored.parent.name]
    path = kind.place(tmp_path)
    shutil.copyfile(stored, path)
    with contextlib.suppress(*EXPECTED):
        kind.read(path)


@pytest.mark.parametrize("name", KINDS)
def test_no_damage_to_a_file_makes_its_reader_fail(name: str, tmp_path: Path) -> None:
    result = fuzz(KINDS[name], tmp_path / name, seed=3, count=25)
    assert [what for _, what in result.failures] == []
    assert result.num_files == 25


@pytest.mark.parametrize("name", KINDS)
def test_whole_files_are_read(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    path = kind.place(tmp_path)
    before = os.listdir(tempfile.gettempdir())
    contents = kind.seeds()
    assert os.listdir(tempfile.gettempdir()) == before  # nothing is left where they were written
    for content in contents:
        path.write_bytes(content)
        kind.read(path)
