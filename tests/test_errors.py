"""Foreign text (names and values from files) never commands a terminal and never forges a line."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from vidgen import cli
from vidgen.errors import printable, printable_lines

HOSTILE = "a\x1b]0;title\x07\nerror: forged\r\x9b31m\u202egpj.exe\u2028x\x7f\x00b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain name.png", "plain name.png"),
        ("日本 é \u0301 👩\u200d👧.mp4", "日本 é \u0301 👩\u200d👧.mp4"),
        ("a\x1b[31m", r"a\x1b[31m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\u202e\u2066\ufeff\u2028", r"\u202e\u2066\ufeff\u2028"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("\ud800\udfff \udc7f", r"\ud800\udfff \udc7f"),
        (Path("a\x7f"), r"a\x7f"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text: str | Path, expected: str) -> None:
    assert printable(text) == expected
    assert printable(printable(text)) == expected


def test_lines_after_the_first_cannot_pass_for_messages() -> None:
    assert printable_lines("two faults:\n  a.yaml:1: x\nerror: forged\x1b") == "two faults:\n  a.yaml:1: x\n  error: forged\\x1b"


@pytest.mark.parametrize(
    "arguments", [["compare", "-o", "x.html"], ["flow", "-o", "x.flo"], ["data", "check"], ["evaluate", "-o", "scores"]]
)
def test_a_hostile_name_reaches_the_terminal_as_escapes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = HOSTILE.replace("\0", "").replace("/", "")
    assert cli.main([*arguments, name, name]) != 0
    said = "".join(capfd.readouterr())
    assert "a\\x1b]0;title" in said
    assert not set(said) & set("\x1b\x07\r\x9b\u202e\u2028\x7f")
    assert not any(line.startswith("error: forged") for line in said.splitlines())


def test_logs_and_results_are_printed_the_same_way(capfd: pytest.CaptureFixture[str]) -> None:
    cli.Log().emit(logging.LogRecord("x", logging.WARNING, "", 0, "%s: odd", (HOSTILE,), None))
    said = "".join(capfd.readouterr()) + cli._plain(HOSTILE) + cli._plain([HOSTILE])
    assert not set(said) & set("\x1b\x07\r\x9b\u202e\u2028\x7f")
    assert "\nerror: forged" not in said
