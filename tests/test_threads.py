"""Threads beside the main one end with it, whenever it is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY
from vidgen.threads import BackgroundWriter, prefetch

INTERRUPTED = """
import faulthandler, sys
from contextlib import closing
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
    sys.settrace(stop_at(place))
    with BackgroundWriter(lambda item: None, depth=1) as writer:
        writer.put(0)
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
def use_two_readers():
    sys.settrace(stop_at(place))
    with closing(prefetch(lambda: iter(range(100)), 1)) as first, closing(prefetch(lambda: map(abs, first), 1)) as second:
        next(second)
        next(second)
    sys.settrace(None)
for use in (use_writer, use_reader, use_two_readers):
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


def test_what_another_thread_reads_may_be_closed() -> None:
    released = threading.Event()

    def slowly() -> Iterator[int]:
        yield 0
        released.wait(60)

    items = prefetch(slowly)
    read: list[int] = []
    reader = threading.Thread(target=lambda: read.extend(items))
    reader.start()
    while not read:
        time.sleep(0.001)
    closer = threading.Thread(target=items.close)
    closer.start()
    reader.join(timeout=60)
    assert not reader.is_alive()
    released.set()
    closer.join(timeout=60)
    assert (read, list(items)) == ([0], [])


def test_a_writer_that_is_left_by_an_exception_drops_what_waits_and_has_ended() -> None:
    written: list[int] = []
    busy, released = threading.Event(), threading.Event()

    def write(item: int) -> None:
        busy.set()
        released.wait(60)
        written.append(item)

    def leave() -> None:
        with BackgroundWriter(write) as writer:
            for number in range(3):
                writer.put(number)
            busy.wait(60)
            threading.Timer(0.05, released.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert written == [0]


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
