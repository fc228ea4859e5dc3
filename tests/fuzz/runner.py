"""Gives files to a reader in a process of its own, which may die, hang or swell without harm to the one that watches."""

from __future__ import annotations

import gc
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tests.fuzz.corpus import EXPECTED, Kind, quiet
from tests.fuzz.mutations import mutated

MAX_GROWTH_MIB = 744
"""8 bytes for each of the 64 million pixels that pictures may have, and 256 MiB."""
MAX_SECONDS = 30.0
"""A file that keeps its reader for longer counts as a hang; many times what any takes on a busy machine."""
_PREPARED_EVERY = 50
_MAX_FAILURES = 10
_STATE = struct.Struct("qqqd")


@dataclass
class Result:
    """What came of the files of a kind.

    Attributes:
        num_files: files that were read.
        num_refused: those that the reader refused as it should.
        failures: (content, what happened) of those that it did not survive.
        peak_mib: memory that reading took at most, beyond what the process had before.
    """

    num_files: int = 0
    num_refused: int = 0
    failures: list[tuple[bytes, str]] = field(default_factory=list)
    peak_mib: int = 0

    def __str__(self) -> str:
        counts = f"{self.num_files:7} files, {self.num_refused:7} refused"
        return f"{counts}, {self.peak_mib:4} MiB more memory, {len(self.failures)} failures"


def fuzz(kind: Kind, folder: Path, *, seed: int, seconds: float | None = None, count: int | None = None) -> Result:
    """Read damaged files of a kind, for so long or so many of them."""
    seeds = kind.seeds()
    result = Result()
    deadline = None if seconds is None else time.monotonic() + seconds
    number = 0
    while (count is None or number < count) and (deadline is None or time.monotonic() < deadline):
        number = _watch(kind, folder, seeds, seed, number, count, deadline, result)
        if len({what for _, what in result.failures}) >= _MAX_FAILURES:
            break
    return result


def _watch(
    kind: Kind, folder: Path, seeds: list[bytes], seed: int, first: int, count: int | None, deadline: float | None, result: Result
) -> int:
    """Let a child read files from number `first` on until it ends or has to be ended; the number to go on with."""
    temporary = folder.with_name(f"{folder.name}.temporary")  # also of a reader that is killed
    temporary.mkdir(parents=True, exist_ok=True)
    shared = mmap.mmap(-1, _STATE.size)
    shared[:] = _STATE.pack(first, 0, 0, time.monotonic())
    message = folder.with_name(f"{folder.name}.failure")
    message.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 2
        tempfile.tempdir = str(temporary)
        try:
            code = _read_files(kind, folder, seeds, seed, first, count, deadline, shared, message)
        except BaseException:
            message.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    while True:
        finished, status = os.waitpid(child, os.WNOHANG)
        number, refused, peak, began = _STATE.unpack(shared[:])
        if finished:
            break
        if time.monotonic() - began > MAX_SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            status = None
            break
        time.sleep(0.02)
    shutil.rmtree(temporary, ignore_errors=True)
    result.num_refused += refused
    result.num_files += number - first
    result.peak_mib = max(result.peak_mib, peak)
    if status == 0:
        return number
    result.num_files += 1
    if status is None:
        what = f"took longer than {MAX_SECONDS:.0f} s"
    elif os.WIFSIGNALED(status):
        what = f"died of signal {os.WTERMSIG(status)}"
    else:
        what = message.read_text() if message.exists() else f"ended with code {os.waitstatus_to_exitcode(status)}"
    result.failures.append((mutated(random.Random(f"{seed} {kind.name} {number}"), seeds), what))
    return number + 1


def _read_files(
    kind: Kind,
    folder: Path,
    seeds: list[bytes],
    seed: int,
    first: int,
    count: int | None,
    deadline: float | None,
    shared: mmap.mmap,
    message: Path,
) -> int:
    """In the child: 0 when the time or the files are over, 1 after one that its reader did not survive."""
    quiet()
    torch.set_num_threads(1)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    refused, peak, number = 0, 0, first
    _limit_memory()
    while (count is None or number < count) and (deadline is None or time.monotonic() < deadline):
        if (number - first) % _PREPARED_EVERY == 0:
            gc.collect()
            shutil.rmtree(folder, ignore_errors=True)
            path = kind.place(folder)
            before = _peak_mib()
        path.write_bytes(mutated(random.Random(f"{seed} {kind.name} {number}"), seeds))
        shared[:] = _STATE.pack(number, refused, peak, time.monotonic())
        try:
            kind.read(path)
        except EXPECTED:
            refused += 1
        except Exception as error:
            message.write_text(_described(error))
            shared[:] = _STATE.pack(number, refused, peak, time.monotonic())
            return 1
        peak = max(peak, _peak_mib() - before)
        if peak > MAX_GROWTH_MIB:
            message.write_text(f"took {peak} MiB of memory")
            return 1
        number += 1
        shared[:] = _STATE.pack(number, refused, peak, time.monotonic())
    return 0


def _described(error: Exception) -> str:
    places = [entry for entry in traceback.extract_tb(error.__traceback__) if "fuzz" not in entry.filename]
    place = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "?"
    own = [entry for entry in places if "site-packages" not in entry.filename and "lib/python" not in entry.filename]
    within = f" (from {Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__} at {place}{within}: {' '.join(str(error).split())[:200]}"


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _limit_memory() -> None:
    """Let absurd allocations fail at once instead of driving out everything else on the machine."""
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 30), size + (4 << 30)))
