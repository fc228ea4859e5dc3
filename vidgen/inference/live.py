"""Translation of what happens now: the newest frame wins, so that the picture lags behind by one frame and never by a queue."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from vidgen.data.settings import Size
from vidgen.errors import InputError
from vidgen.inference.model import Model
from vidgen.inference.session import Session, WorkSize
from vidgen.media import conditions
from vidgen.media.cameras import LiveFrame
from vidgen.media.frames import Frame
from vidgen.media.labels import LabelTable

log = logging.getLogger(__name__)
Item = TypeVar("Item")

_WINDOW_SECONDS = 3.0
_NUM_LATENCIES = 600


class Latest(Generic[Item]):
    """A queue of one between threads: what is put in replaces what nobody has taken yet.

    Attributes:
        num_replaced: items that nobody took.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._error: BaseException | None = None
        self._is_closed = False
        self.num_replaced = 0

    def put(self, item: Item) -> None:
        """Offer an item."""
        with self._changed:
            self.num_replaced += self._item is not None
            self._item = item
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """No more items will come; `error` is raised where they are taken."""
        with self._changed:
            self._is_closed, self._error = True, self._error or error
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> Item | None:
        """The newest item, once there is one; None at the end.

        Raises:
            TimeoutError: none came in `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._item is not None or self._is_closed, timeout):
                raise TimeoutError
            item, self._item = self._item, None
            if item is None and self._error is not None:
                raise self._error
            return item


class Meter:
    """Frame rate of the last seconds, and latencies from capture to picture."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: deque[float] = deque()
        self._latencies: deque[float] = deque(maxlen=_NUM_LATENCIES)
        self._started: float | None = None
        self._last = 0.0
        self.num_frames = 0

    def count(self, captured: float) -> None:
        """A picture of a frame that was captured then is ready now."""
        now = time.monotonic()
        with self._lock:
            self._started = now if self._started is None else self._started
            self._last = now
            self.num_frames += 1
            self._latencies.append(now - captured)
            self._times.append(now)
            while self._times[0] < now - _WINDOW_SECONDS:
                self._times.popleft()

    def describe(self) -> dict[str, Any]:
        """Frames, their rate now and in all, and the median and 95th percentile of the last latencies."""
        with self._lock:
            latencies, times = sorted(self._latencies), list(self._times)
            span = self._last - (self._started or 0.0)
            count = self.num_frames
        lately = time.monotonic() - times[0] if times else 0.0
        return {
            "frames": count,
            "frames_per_second": round(len(times) / lately, 2) if lately > 0 else None,
            "mean_frames_per_second": round((count - 1) / span, 2) if count > 1 and span > 0 else None,
            "latency_ms_median": _milliseconds(latencies, 0.5),
            "latency_ms_p95": _milliseconds(latencies, 0.95),
        }


def _milliseconds(ordered: list[float], share: float) -> float | None:
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None


@dataclass(frozen=True)
class LivePicture:
    """A result: uint8 [H,W,3], when its frame was captured, and its number."""

    pixels: np.ndarray
    captured: float
    number: int


class Live:
    """A model on a stream: reading, conditions and network overlap, with a queue of one between them.

    Args:
        frames: the stream; iterated in a thread of its own.
        prepare: what turns a frame uint8 [H,W,3] into what the model reads, such as a labeler; nothing by default.
        patience: seconds without a frame after which the stream counts as stopped; None waits for ever.
    """

    def __init__(
        self,
        model: Model,
        frames: Iterable[LiveFrame],
        *,
        seed: int = 0,
        table: LabelTable | None = None,
        work_size: WorkSize = "auto",
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
        patience: float | None = 10.0,
    ) -> None:
        reads = [item.name for item in model.inputs if item.kind != "instances"]
        if len(reads) != 1:
            raise InputError(f"{model.path}: reads {' and '.join(reads) or 'nothing'} for each frame, and a stream is one input")
        self.meter = Meter()
        self._model, self._frames, self._prepare, self._patience = model, frames, prepare, patience
        self._options: Mapping[str, Any] = {"seed": seed, "table": table, "work_size": work_size}
        self._read: Latest[LiveFrame] = Latest()
        self._built: Latest[tuple[LiveFrame, Session, Any]] = Latest()
        self._size: Size | None = None
        self._odd_size: Size | None = None
        self._session: Session | None = None
        self._stop = threading.Event()

    @property
    def num_skipped(self) -> int:
        """Frames that were not translated because newer ones had come."""
        return self._read.num_replaced + self._built.num_replaced

    def stop(self) -> None:
        """End after the present frame; may be called from any thread."""
        self._stop.set()
        self._read.close()
        self._built.close()

    def run(self, deliver: Callable[[LivePicture], None]) -> None:
        """Translate until the stream ends or `stop` is called; `deliver` gets each picture and should not take long.

        Raises:
            InputError: the stream cannot be read, breaks off, or sends nothing for too long.
        """
        for work in (self._reading, self._building):
            threading.Thread(target=work, name=f"vidgen-live{work.__name__}", daemon=True).start()
        number = 0
        while not self._stop.is_set():
            try:
                item = self._built.take(self._patience)
            except TimeoutError:
                raise InputError(f"the stream sent no frame for {self._patience:.0f} s, after {number} frames") from None
            if item is None:
                if number == 0 and not self._stop.is_set():
                    raise InputError("the stream ended before its first frame")
                return
            frame, session, arrays = item
            pixels = session.step(arrays)
            self.meter.count(frame.captured)
            deliver(LivePicture(pixels, frame.captured, number))
            number += 1

    def _reading(self) -> None:
        try:
            for frame in self._frames:
                if self._stop.is_set():
                    break
                self._read.put(frame)
            self._read.close()
        except BaseException as error:
            self._read.close(error)

    def _building(self) -> None:
        try:
            while (frame := self._read.take()) is not None:
                session, pixels = self._fitting(frame)
                main = Frame(pixels if self._prepare is None else self._prepare(pixels), 0, frame.name)
                self._built.put((frame, session, session.build({item.name: main for item in self._model.inputs})))
            self._built.close()
        except BaseException as error:
            self._built.close(error)

    def _fitting(self, frame: LiveFrame) -> tuple[Session, np.ndarray]:
        """The session, and the frame's pixels at its size: that of the stream's first frame."""
        height, width = frame.pixels.shape[:2]
        if self._session is None:
            self._session = self._model.session((height, width), **self._options)
            self._size = (height, width)
            if self._model.condition.instances is not None:
                log.info("this model reads instances, which a stream has not: boundaries of classes stand for those of objects")
        assert self._size is not None
        if (height, width) == self._size:
            return self._session, frame.pixels
        if (height, width) != self._odd_size:
            self._odd_size = (height, width)
            log.warning(
                "%s: is %dx%d now; it is brought to the %dx%d it began with",
                *(frame.name, width, height, self._size[1], self._size[0]),
            )
        is_labels = self._model.condition.labels is not None and self._prepare is None
        return self._session, (conditions.resize_labels if is_labels else conditions.resize_picture)(frame.pixels, self._size)
