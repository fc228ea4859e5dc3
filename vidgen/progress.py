"""How far long loops are: the library says it here, and whoever has a screen shows it; without one, nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from vidgen.errors import printable

Item = TypeVar("Item")
Update = Callable[[int], None]
"""Takes the number of items that are done."""


class Display(Protocol):
    """What shows progress."""

    def task(self, what: str, total: int | None) -> AbstractContextManager[Update]:
        """A piece of work of `total` items, or of unknown length, for the time of the context."""
        ...


_display: ContextVar[Display | None] = ContextVar("display", default=None)


@contextmanager
def shown_on(display: Display) -> Iterator[None]:
    """Show the progress of all that runs inside."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


@contextmanager
def task(what: str, total: int | None = None) -> Iterator[Update]:
    """A piece of work; what it gives takes the number of items done.

    Args:
        what: such as "measuring result.mp4".
        total: how many items there are, where that is known.
    """
    display = _display.get()
    if display is None:
        yield lambda done: None
        return
    with display.task(printable(what), total) as update:
        yield update


def follow(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The items, as a `task`."""
    with task(what, total) as update:
        for count, item in enumerate(items, 1):
            yield item
            update(count)


def line(what: str, done: int, total: int | None, seconds: float) -> str:
    """The state of a task in words, such as `reading drive1: 120 of 300, 2.0/s, 1m 30s left`.

    Args:
        seconds: that the items done have taken.
    """
    rate = done / max(1e-9, seconds)
    if total is None or total < done:
        return f"{what}: {done}, {rate:.1f}/s"
    return f"{what}: {done} of {total}, {rate:.1f}/s, {duration((total - done) / max(1e-9, rate))} left"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45s, 3m 20s, 2h 05m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
