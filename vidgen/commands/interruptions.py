"""Ctrl-C and SIGTERM end a command whatever runs when they come.

Both raise an exception in whatever Python code runs at that moment, and in some places nobody ever sees it: destructors, callbacks
of weak references, and code that C calls and whose errors it takes for a plain no, such as a `__getattr__` behind `hasattr`.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from vidgen.errors import Terminated
from vidgen.progress import Display, Update

_SECONDS_TO_ARRIVE = 0.2
"""An exception that has not ended the work by then was dropped."""


class Interruptions:
    """Signals that have raised an exception, and what to do where it got lost."""

    def __init__(self) -> None:
        self._raised: BaseException | None = None
        self._when = 0.0

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Handle the signals for the time of the context; those that the caller of the program ignores stay ignored."""
        handlers = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._terminate)}
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
        tell, sys.unraisablehook = sys.unraisablehook, lambda ignored: _send_again_or_tell(tell, ignored)
        try:
            yield
        finally:
            sys.unraisablehook = tell
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def noticed_by(self, display: Display) -> Display:
        """The display; work that reports progress to it although it was interrupted is interrupted then."""
        return _Noticing(display, self._raise_again)

    def _interrupt(self, number: int, frame: FrameType | None) -> NoReturn:
        self._raise(KeyboardInterrupt())

    def _terminate(self, number: int, frame: FrameType | None) -> NoReturn:
        self._raise(SystemExit(Terminated.exit_code))

    def _raise(self, stop: BaseException) -> NoReturn:
        self._raised, self._when = stop, time.monotonic()
        raise stop

    def _raise_again(self) -> None:
        if self._raised is None or threading.current_thread() is not threading.main_thread():
            return
        if time.monotonic() > self._when + _SECONDS_TO_ARRIVE:
            self._raise(self._raised)


class _Noticing:
    def __init__(self, display: Display, notice: Callable[[], None]) -> None:
        self._display, self._notice = display, notice

    @contextmanager
    def task(self, what: str, total: int | None) -> Iterator[Update]:
        with self._display.task(what, total) as show:

            def update(done: int) -> None:
                self._notice()
                show(done)

            yield update


def _send_again_or_tell(tell: Callable[[Any], Any], ignored: Any) -> None:
    """Where a signal reached a destructor or a callback of a weak reference, Python drops its exception: send the signal again.

    Args:
        tell: what happens to other exceptions.
        ignored: `sys.UnraisableHookArgs`, which exist for type checkers only.
    """
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        _thread.start_new_thread(_send_soon, (signal.SIGINT,))
    elif issubclass(ignored.exc_type, SystemExit):
        _thread.start_new_thread(_send_soon, (signal.SIGTERM,))
    else:
        tell(ignored)


def _send_soon(number: int) -> None:
    time.sleep(0.01)  # until the destructor has ended, and this hook
    os.kill(os.getpid(), number)
