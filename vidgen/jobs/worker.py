"""One worker process: reads what to do and then clips from standard input, and answers on standard output, a line each.

It ends when its input does, which also happens when whoever started it is killed.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn

from vidgen.errors import VidgenError
from vidgen.jobs.clips import Clip
from vidgen.jobs.engines import Work, attempt, reason_of

_LAST_SECONDS = 5.0


def main() -> None:
    """Work until there is nothing more."""
    # Whatever a library prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value, default=str).encode() + b"\n")
        answers.flush()

    first = orders.get()
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")
    try:
        task = Work(first["task"], first["options"]).open()
    except Exception as error:
        hint = error.hint if isinstance(error, VidgenError) else None
        answer({"error": {"kind": type(error).__name__, "message": reason_of(error), "hint": hint}})
        return
    answer({"ready": os.getpid()})
    while True:
        answer(attempt(task, Clip(**orders.get())))


def _listen(orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        orders.put(json.loads(line))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST_SECONDS)
    os._exit(1)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    try:
        main()
    finally:
        os._exit(0)  # the thread that listens holds its input for good
