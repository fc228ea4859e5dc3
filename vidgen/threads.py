"""Work that runs beside the main thread: prefetching, writing in the background, preparing in order."""

from __future__ import annotations

import _thread
import queue
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
        closed: whether the items that are left do not matter any more.
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


class _Thread:
    """A thread that ends with the program, and of which nothing breaks when whoever starts it or waits for it is interrupted.

    `threading.Thread` waits for its own start; an exception out of a signal's handler then leaves a lock in a state that raises
    another exception in its place.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self.started = False
        self._work = work
        self._running = _thread.allocate_lock()

    def start(self) -> None:
        self._running.acquire()
        _thread.start_new_thread(self._run, ())
        self.started = True

    def join(self, timeout: float = -1) -> None:
        """Wait until it has ended, at most `timeout` seconds."""
        if self.started and self._running.acquire(timeout=timeout):
            self._running.release()

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._running.release()


class prefetch(Iterator[Item]):  # noqa: N801 - used as the function that it would be, were a generator safe to close from outside
    """The items of an iterator, computed by a thread up to `depth` ahead; its error is raised here.

    It may be closed at any moment, also while another thread waits for its next item, which then is the end.
    """

    def __init__(self, start: Callable[[], Iterator[Item]], depth: int = 4) -> None:
        self._waiting: _Channel[tuple[str, Any]] = _Channel(depth)
        waiting = self._waiting  # the thread must not hold this object: its end ends the thread
        self._thread = _Thread(lambda: _fill(waiting, start))

    def __next__(self) -> Item:
        if self._waiting.closed:
            raise StopIteration
        if not self._thread.started:
            self._thread.start()
        kind, value = self._waiting.get()
        if kind == "item":
            self._waiting.done()
            return value
        if not self._waiting.closed:  # by another thread, which waits for ours
            self.close()
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """Give no more items, and end the thread."""
        self._waiting.closed = True
        self._waiting.put_last(("end", None))  # for whoever waits
        self._thread.join(timeout=5)  # bounded: what is left open is closed at exit, when threads no longer run

    def __del__(self) -> None:
        self._waiting.closed = True


def _fill(waiting: _Channel[tuple[str, Any]], start: Callable[[], Iterator[Any]]) -> None:
    try:
        for item in start():
            while not waiting.put(("item", item), timeout=0.1):
                if waiting.closed:
                    return
            if waiting.closed:
                return
        waiting.put_last(("end", None))
    except BaseException as error:
        waiting.put_last(("error", error))


class BackgroundWriter:
    """Hands items to a function that runs in a thread of its own, a few behind; its error is raised at the next item."""

    def __init__(self, work: Callable[[Any], None], depth: int = 4) -> None:
        self._waiting: _Channel[Any] = _Channel(depth)
        self._work = work
        self._error: BaseException | None = None
        self._thread = _Thread(self._run)

    def __enter__(self) -> BackgroundWriter:
        self._thread.start()
        return self

    def put(self, item: Any) -> None:
        self._raise()
        self._waiting.put(item)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self._waiting.closed = kind is not None
            self._waiting.put_last(None)
            self._thread.join()
        except BaseException:  # interrupted: what the thread works on may go once it has ended, and not before
            self._waiting.closed = True
            self._waiting.put_last(None)
            self._thread.join(timeout=5)
            raise
        if kind is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._error is None and not self._waiting.closed:
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
