"""Ctrl-C and SIGTERM end a command at whatever moment they come, also while Python runs what no exception leaves."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

PROGRAM = """
import signal, sys, time, weakref
from vidgen import cli, progress

class Dropped:
    pass

class Destroyed:
    def __del__(self):
        signal.raise_signal({number})

class Broken:
    def __del__(self):
        raise ValueError("of a destructor")

def by_callback():
    dropped = Dropped()
    watched = weakref.ref(dropped, lambda reference: signal.raise_signal({number}))
    del dropped
    time.sleep(60)

def by_destructor():
    Destroyed()
    time.sleep(60)

def by_itself():
    Broken()

class Asked:
    def __getattr__(self, name):
        signal.raise_signal({number})

def by_question():
    with progress.task("asking") as update:
        try:
            Asked().answer  # C code that asks with PyObject_HasAttr drops whatever comes, as here
        except BaseException:
            pass
        for done in range(600):
            time.sleep(0.1)
            update(done)

for work in (by_callback, by_destructor, by_itself, by_question):
    cli.cli.command(work.__name__, example="-")(work)
sys.exit(cli.main(sys.argv[1:]))
"""


def run(command: str, number: int = 0) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", PROGRAM.format(number=int(number)), command]
    return subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=50, check=False)  # before the 60 s are over


@pytest.mark.parametrize("where", ["by_destructor", "by_callback", "by_question"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_not_lost_where_python_ignores_exceptions(where: str, number: int, code: int) -> None:
    done = run(where, number)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_other_errors_of_destructors_are_told_as_python_tells_them() -> None:
    done = run("by_itself")
    assert done.returncode == 0
    assert "ValueError: of a destructor" in done.stderr
