"""Displays of progress: a bar for each task on a terminal, about a line a minute in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vidgen.progress import Display, Update, line

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60.0


def display() -> Display:
    """What fits stderr."""
    return Bars() if sys.stderr.isatty() else Lines()


class Lines:
    """Tasks in a log: nothing of short ones, then about a line a minute, with rate and time left."""

    @contextmanager
    def task(self, what: str, total: int | None) -> Iterator[Update]:
        started = time.monotonic()
        due = started + SECONDS_BETWEEN_LINES

        def update(done: int) -> None:
            nonlocal due
            now = time.monotonic()
            if now >= due:
                log.info("%s", line(what, done, total, now - started))
                due = now + SECONDS_BETWEEN_LINES

        yield update


class Bars:
    """Tasks as bars with count, rate and time left; they go when they are done."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._num_tasks = 0

    @contextmanager
    def task(self, what: str, total: int | None) -> Iterator[Update]:
        from rich.markup import escape

        if not log.isEnabledFor(logging.INFO):
            yield lambda done: None
            return
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        bars, started = self._bars, time.monotonic()
        number = bars.add_task(escape(what), total=total, rate="")
        self._num_tasks += 1

        def update(done: int) -> None:
            rate = done / max(1e-9, time.monotonic() - started)
            bars.update(number, completed=done, rate=f"{rate:.1f}/s")

        try:
            yield update
        finally:
            bars.remove_task(number)
            self._num_tasks -= 1
            if self._num_tasks == 0:
                bars.stop()
                self._bars = None


def _new_bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
