"""Work that runs beside the main thread: prefetching, writing in the background, preparing in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key")


class _Channel(Generic[Item]):
    """A queue of bounded length whose ends may be interrupted at any moment, as by Ctrl-C.

    `queue.Queue` may not: an exception out of a signal's handler can leave its lock held or its waiting thread asleep, and whoever
    comes next waits for ever.

    Attributes:
        closed: whether nobody takes items any more; for whoever puts them.
    """

    def __init__(self, depth: int) -> None:
        self.closed = False
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(depth):
            self._free.put(None)

    def put(self, item: Item, timeout: float | None = None) -> bool:
        """Add an item once there is room; False where there was none for so long."""
        try:
            self._free.get(timeout=timeout)
        except queue.Empty:
            return False
        self._items.put(item)
        return True

    def put_last(self, item: Item) -> None:
        """Add an item whether there is room or not."""
        self._items.put(item)

    def get(self) -> Item:
        """The next item, once there is one; `done` makes room for another."""
        return self._items.get()

    def done(self) -> None:
        """Say that an item was dealt with."""
        self._free.put(None)


def prefetch(start: Callable[[], Iterator[Item]], depth: int = 4) -> Generator[Item, None, None]:
    """The items of an iterator, computed by a thread up to `depth` ahead; its error is raised here."""
    waiting: _Channel[tuple[str, Any]] = _Channel(depth)

    def work() -> None:
        try:
            for item in start():
                while not waiting.put(("item", item), timeout=0.1):
                    if waiting.closed:
                        return
            waiting.put_last(("end", None))
        except BaseException as error:
            waiting.put_last(("error", error))

    thread = threading.Thread(target=work, name="vidgen-read", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            waiting.done()
            yield value
    finally:
        waiting.closed = True
        thread.join(timeout=5)  # bounded: a generator left open is closed at exit, when threads no longer run


class BackgroundWriter:
    """Hands items to a function that runs in a thread of its own, a few behind; its error is raised at the next item."""

    def __init__(self, work: Callable[[Any], None], depth: int = 4) -> None:
        self._waiting: _Channel[Any] = _Channel(depth)
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="vidgen-write", daemon=True)

    def __enter__(self) -> BackgroundWriter:
        self._thread.start()
        return self

    def put(self, item: Any) -> None:
        self._raise()
        self._waiting.put(item)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._waiting.put_last(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    self._work(item)
                except BaseException as error:
                    self._error = error
            self._waiting.done()


def in_order(prepare: Callable[[Key], Item], keys: Iterator[Key], workers: int) -> Generator[Item, None, None]:
    """prepare(key) for each key in order, by `workers` threads a little ahead; 0 prepares each when it is asked for."""
    if workers == 0:
        yield from (prepare(key) for key in keys)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="vidgen-data") as pool:
        waiting: list[Future[Item]] = []
        try:
            for key in keys:
                waiting.append(pool.submit(prepare, key))
                if len(waiting) > workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
