"""Threads beside the main one end with it, whenever it is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import REPOSITORY
from vidgen.threads import BackgroundWriter, prefetch

INTERRUPTED = """
import faulthandler, random, signal, sys
from vidgen.threads import BackgroundWriter
faulthandler.dump_traceback_later(60, exit=True)
class Stop(BaseException):
    pass
def stop(number, frame):
    raise Stop
signal.signal(signal.SIGALRM, stop)
rng = random.Random(0)
for _ in range(1500):
    try:
        with BackgroundWriter(lambda item: None) as writer:
            signal.setitimer(signal.ITIMER_REAL, 1e-5 + 0.003 * rng.random(), 0.5)
            while True:
                writer.put(1)
    except Stop:
        signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_a_writer_that_is_interrupted_at_any_moment_ends() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


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
