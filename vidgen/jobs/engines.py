"""What works on clips: this process, or several that hold what they need and are started again when they die.

A task is named as `module:name` and opened once in each worker with options that are JSON values; it takes a clip and gives JSON
values. So processes here and actors on other machines are told the same.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from vidgen import durable, errors
from vidgen.errors import BusyError, OutputExistsError, VidgenError, printable
from vidgen.jobs.clips import Clip

log = logging.getLogger(__name__)

MAX_LOST_STARTS = 6
"""How often workers may die in a row without finishing anything before the batch gives up."""
_GOODBYE_SECONDS = 5.0

Task = Callable[[Clip], Mapping[str, Any]]


@dataclass(frozen=True)
class Work:
    """What a worker does.

    Attributes:
        task: `module:name` of what takes the options and gives a `Task`.
        options: JSON values.
    """

    task: str
    options: Mapping[str, Any]

    def open(self) -> Task:
        """Get ready to work, as by loading a model.

        Raises:
            VidgenError: that cannot be done.
        """
        module, _, name = self.task.partition(":")
        task: Task = getattr(importlib.import_module(module), name)(self.options)
        return task


@dataclass(frozen=True)
class Outcome:
    """How work on a clip ended.

    Attributes:
        status: `died` where the worker did, `busy` where another process held the output; both can be tried again.
        details: what the task gave.
        sha256: of the output, where it is a file, or of the manifest of a folder.
        reason: one line, of failures.
        is_foreign: whether it failed since something foreign lies in the output's place.
    """

    clip: Clip
    status: Literal["done", "failed", "died", "busy"]
    details: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    seconds: float = 0.0
    sha256: str | None = None
    worker: str = ""
    is_foreign: bool = False


Begin = Callable[[Clip], None]
Engine = Callable[[Work, "deque[Clip]", Begin], Iterator[Outcome]]
"""Takes clips from the left of a queue, calls `begin` with each, and gives an outcome for each; the queue may grow meanwhile."""


def attempt(task: Task, clip: Clip) -> dict[str, Any]:
    """Do a clip; whatever goes wrong with it is its own failure. JSON values, which `outcome_of` reads."""
    started = time.monotonic()
    try:
        if clip.fault is not None:
            raise VidgenError(clip.fault)
        details = dict(task(clip))
        reply: dict[str, Any] = {"status": "done", "details": details, "sha256": sha256_of(clip.output)}
    except Exception as error:
        status = "busy" if isinstance(error, BusyError) else "failed"
        reply = {"status": status, "reason": reason_of(error), "is_foreign": isinstance(error, OutputExistsError)}
    return {**reply, "seconds": round(time.monotonic() - started, 4), "worker": f"{os.uname().nodename}-{os.getpid()}"}


def sha256_of(output: str) -> str | None:
    """Of a file, or of a folder's manifest, which holds a hash of each file in it; None for other outputs."""
    path = Path(output)
    file = path / durable.MANIFEST if path.is_dir() else path
    return durable.fingerprint(file).sha256 if file.is_file() else None


def outcome_of(clip: Clip, reply: Mapping[str, Any]) -> Outcome:
    """What `attempt` answered, as a value."""
    return Outcome(clip, **reply)


def reason_of(error: BaseException) -> str:
    """An error in one line; of one that nobody expected, with its kind and place."""
    text = printable(" ".join(str(error).split()))
    if isinstance(error, VidgenError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text or 'no message'}{place}"


def error_of(kind: str, message: str, hint: str | None) -> VidgenError:
    """An error of another process as one of this."""
    cls = getattr(errors, kind, VidgenError)
    return cls(message, hint=hint) if isinstance(cls, type) and issubclass(cls, VidgenError) else VidgenError(message, hint=hint)


def in_this_process(work: Work, clips: deque[Clip], begin: Begin) -> Iterator[Outcome]:
    """One clip after the other, here."""
    task = work.open() if clips else None
    while clips:
        assert task is not None
        clip = clips.popleft()
        begin(clip)
        yield outcome_of(clip, attempt(task, clip))


def in_processes(num_workers: int) -> Engine:
    """Several processes of this machine, each of which holds what the task needs."""

    def run(work: Work, clips: deque[Clip], begin: Begin) -> Iterator[Outcome]:
        with _Pool(work, num_workers) as pool:
            yield from pool.run(clips, begin)

    return run


class _Process:
    """One worker: a process that reads clips from its standard input and answers on its standard output, a line each."""

    def __init__(self, work: Work, threads: int, events: queue.Queue[tuple[_Process, dict[str, Any] | None]]) -> None:
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        # A session of its own keeps Ctrl-C from it; it ends when its input does, so also when this process is killed.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vidgen.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin
        threading.Thread(target=self._listen, args=(self._process.stdout, events), daemon=True).start()
        self.send({"task": work.task, "options": work.options, "level": logging.getLogger("vidgen").getEffectiveLevel()})

    def _listen(self, answers: IO[bytes], events: queue.Queue[tuple[_Process, dict[str, Any] | None]]) -> None:
        for line in answers:
            try:
                events.put((self, json.loads(line)))
            except ValueError:  # cut off by its death
                break
        events.put((self, None))

    def send(self, value: Mapping[str, Any]) -> None:
        """Tell it something; where it is dead already, its reader says so."""
        try:
            self._input.write(json.dumps(value, default=str).encode() + b"\n")
            self._input.flush()
        except OSError:
            pass

    def cause_of_death(self) -> str:
        """How it ended, in words."""
        code = self._process.wait()
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    def stop(self) -> None:
        """Ask it to end, which removes what it has not finished."""
        self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Until it has ended, by force in the end."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass


class _Pool:
    def __init__(self, work: Work, num_workers: int) -> None:
        self._work, self._num_workers = work, num_workers
        self._threads = max(1, (os.cpu_count() or 1) // num_workers)
        self._events: queue.Queue[tuple[_Process, dict[str, Any] | None]] = queue.Queue()
        self._live: list[_Process] = []

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        deadline = time.monotonic() + _GOODBYE_SECONDS
        for process in self._live:
            process.stop()
        for process in self._live:
            process.wait(deadline - time.monotonic())

    def run(self, clips: deque[Clip], begin: Begin) -> Iterator[Outcome]:
        idle: list[_Process] = []
        busy: dict[_Process, Clip] = {}
        num_lost = 0
        while clips or busy:
            while len(self._live) < min(self._num_workers, len(clips) + len(busy)):
                self._live.append(_Process(self._work, self._threads, self._events))
            while clips and idle:
                process, clip = idle.pop(), clips.popleft()
                begin(clip)
                busy[process] = clip
                process.send(asdict(clip))
            process, message = self._events.get()
            if message is None:
                self._live.remove(process)
                cause, lost = process.cause_of_death(), busy.pop(process, None)
                process.wait(0)
                idle = [other for other in idle if other is not process]
                num_lost += 1
                log.warning("a worker died (%s); it is started again", cause)
                if num_lost >= MAX_LOST_STARTS * self._num_workers:
                    raise VidgenError(f"workers died {num_lost} times in a row without finishing a clip; the last one: {cause}")
                if lost is not None:
                    yield Outcome(lost, "died", reason=f"the worker died of it ({cause})")
            elif "error" in message:
                raise error_of(**message["error"])
            elif "ready" in message:
                idle.append(process)
            else:
                num_lost = 0
                idle.append(process)
                yield outcome_of(busy.pop(process), message)
