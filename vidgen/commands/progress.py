"""How far a loop over frames is: a bar on a terminal, and about a line a minute in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from vidgen.errors import printable

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 60.0


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The items, while stderr says how many are done, how fast, and how long the rest will take.

    Args:
        what: the work, such as "reading drive1".
        total: how many there are, where that is known.
    """
    if not log.isEnabledFor(logging.INFO):
        return iter(items)
    return _bar(items, what, total) if sys.stderr.isatty() else _lines(items, what, total)


def _bar(items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(printable(what)), total=total, rate="")
        for count, item in enumerate(items, 1):
            yield item
            bar.update(task, completed=count, rate=f"{count / max(1e-9, time.monotonic() - started):.1f}/s")


def _lines(items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
    started = time.monotonic()
    due = started + _SECONDS_BETWEEN_LINES
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now >= due:
            log.info("%s", progress_line(what, count, total, now - started))
            due = now + _SECONDS_BETWEEN_LINES


def progress_line(what: str, count: int, total: int | None, seconds: float) -> str:
    """The state of a loop in words: `reading drive1: 120 of 300, 2.0/s, 1m 30s left`."""
    rate = count / max(1e-9, seconds)
    if total is None or total < count:
        return f"{printable(what)}: {count}, {rate:.1f}/s"
    return f"{printable(what)}: {count} of {total}, {rate:.1f}/s, {duration((total - count) / rate)} left"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45s, 3m 20s, 2h 05m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
