"""Work that runs beside the main thread: prefetching, writing in the background, preparing in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key")


def prefetch(start: Callable[[], Iterator[Item]], depth: int = 4) -> Generator[Item, None, None]:
    """The items of an iterator, computed by a thread up to `depth` ahead; its error is raised here."""
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    enough = threading.Event()

    def offer(item: tuple[str, Any]) -> bool:
        while not enough.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in start():
                if not offer(("item", item)):
                    return
            offer(("end", None))
        except BaseException as error:
            offer(("error", error))

    thread = threading.Thread(target=work, name="vidgen-read", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        enough.set()
        thread.join(timeout=5)  # bounded: a generator left open is closed at exit, when threads no longer run


class BackgroundWriter:
    """Hands items to a function that runs in a thread of its own, a few behind; its error is raised at the next item."""

    def __init__(self, work: Callable[[Any], None], depth: int = 4) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue(maxsize=depth)
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
        self._waiting.put(None)
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
