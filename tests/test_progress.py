"""Progress: nothing for a library, a bar on a terminal, a line a minute in a log; with rate and time left."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import REPOSITORY
from vidgen import progress
from vidgen.commands import progress as displays
from vidgen.commands.data import check


def test_a_loop_without_a_screen_gives_its_items_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.follow(iter("abc"), "reading")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (120, 300, 60.0, "reading: 120 of 300, 2.0/s, 1m 30s left"),
        (5, None, 2.0, "reading: 5, 2.5/s"),
        (1, 10001, 1.0, "reading: 1 of 10001, 1.0/s, 2h 46m left"),
        (9, 10, 9.0, "reading: 9 of 10, 1.0/s, 1s left"),
        (12, 10, 6.0, "reading: 12, 2.0/s"),
    ],
)
def test_a_line_says_count_rate_and_time_left(done: int, total: int | None, seconds: float, text: str) -> None:
    assert progress.line("reading", done, total, seconds) == text


def test_a_log_gets_lines_only_as_often_as_they_are_due(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny.write_data(tmp_path / "data", 1, 4)
    caplog.set_level(logging.INFO, "vidgen")
    with progress.shown_on(displays.Lines()):
        check(root)
    assert not caplog.records
    monkeypatch.setattr(displays, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.shown_on(displays.Lines()):
        check(root)
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        f"reading clip0: {number} of 4" for number in (1, 2, 3, 4)
    ]
    assert all("/s, " in record.message and record.message.endswith("left") for record in caplog.records)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_shows_a_bar_unless_it_is_to_be_quiet(tmp_path: Path, quiet: bool) -> None:
    tiny.write_data(tmp_path / "data", 1, 4)
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "vidgen", *(["-q"] if quiet else []), "data", "check", "data"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=terminal, check=True, timeout=120)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(screen, 65536):
            shown += part
    except OSError:  # how the end of a pseudo-terminal reads on Linux
        pass
    os.close(screen)
    assert (b"reading clip0" in shown) != quiet
    assert b"faults: none" in done.stdout
