"""Threads beside the main one end with it, whenever it is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import REPOSITORY
from vidgen.threads import BackgroundWriter, prefetch

INTERRUPTED = """
import faulthandler, sys
from vidgen.threads import BackgroundWriter, prefetch
faulthandler.dump_traceback_later(60, exit=True)
class Stop(BaseException):
    pass
def stop_at(place):
    # as a signal's handler does, between any two steps of the interpreter
    def trace(frame, event, argument):
        global passed
        passed += 1
        if passed == place:
            raise Stop
        return trace
    return trace
def use_writer():
    with BackgroundWriter(lambda item: None, depth=1) as writer:
        writer.put(0)
        sys.settrace(stop_at(place))
        writer.put(1)
        writer.put(2)
        sys.settrace(None)
def use_reader():
    items = prefetch(lambda: iter(range(100)), depth=1)
    next(items)
    sys.settrace(stop_at(place))
    next(items)
    next(items)
    sys.settrace(None)
    items.close()
for use in (use_writer, use_reader):
    place, passed = 0, 0
    while passed == place:
        place, passed = place + 1, 0
        try:
            use()
        except Stop:
            pass
        sys.settrace(None)
    print(place)
"""


def test_threads_end_wherever_the_main_one_is_interrupted() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(int(num_places) > 5 for num_places in done.stdout.split())


def test_a_writer_writes_everything_in_order_and_tells_its_error() -> None:
    written: list[int] = []
    with BackgroundWriter(written.append, depth=2) as writer:
        for number in range(50):
            writer.put(number)
    assert written == list(range(50))

    def fail(item: int) -> None:
        raise ValueError(item)

    caught = None
    try:
        with BackgroundWriter(fail) as writer:
            for number in range(50):
                writer.put(number)
    except ValueError as error:
        caught = error.args
    assert caught == (0,)


def test_what_is_read_ahead_comes_in_order_and_its_thread_ends_when_nobody_asks_any_more() -> None:
    assert list(prefetch(lambda: iter(range(50)), depth=3)) == list(range(50))
    ended: list[bool] = []

    def endless() -> object:
        try:
            while True:
                yield 1
        finally:
            ended.append(True)

    items = prefetch(endless)  # type: ignore[arg-type]
    assert next(items) == 1
    items.close()
    assert ended == [True]
