"""What became of the clips of a batch: `jobs.jsonl` in the output folder, one line for each clip that ended.

Lines are only ever appended, so a crash costs at most the last one, and that clip is done again. Of several lines about one output
the last counts. A line says by which job it was written, a hash of all that decides the result; an output of another job is not
taken for one of this. Shards, which may run on different hosts, have a ledger each, and readers read them all.

Beside it, while a batch runs, a journal says which clips were begun: their outputs are ours to replace, and a clip at which the
driver itself died again and again is not tried for ever.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidgen import durable
from vidgen.errors import BusyError, InputError, OutputError
from vidgen.jobs.clips import in_one_go, read_json
from vidgen.media import paths

NAME = "jobs.jsonl"
_SYNC_SECONDS = 2.0
_WRITE_TRIES = 6
_WAIT_SECONDS = 0.5


def file_name(shard: tuple[int, int] = (1, 1)) -> str:
    """Of the ledger of a batch, or of one of its shards."""
    return NAME if shard[1] == 1 else f"jobs.{shard[0]}-{shard[1]}.jsonl"


@dataclass
class Record:
    """All that the ledgers of a folder say.

    Attributes:
        entries: the last line about each output, by the output's path in the folder.
        jobs: the starts of jobs here, in their order within each ledger.
        num_torn: lines that cannot be read, as a crash leaves them.
    """

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    num_torn: int = 0

    def is_done(self, key: str, job: str) -> bool:
        """Whether this very job has finished an output."""
        entry = self.entries.get(key)
        return entry is not None and entry["status"] == "done" and entry["job"] == job

    def is_ours(self, key: str, job: str) -> bool:
        """Whether what lies at an output was left by an earlier start of this job."""
        entry = self.entries.get(key)
        return entry is not None and entry["job"] == job and not entry.get("foreign")


@in_one_go()
def read(folder: Path) -> Record:
    """What the ledgers of an output folder say; an empty record where there is none.

    Raises:
        InputError: one cannot be read.
    """
    record = Record()
    try:
        files = [folder / NAME, *sorted(folder.glob("jobs.*-*.jsonl"), key=paths.natural_key)]
        for file in files:
            if file.is_file():
                _read_into(record, file)
    except OSError as error:
        raise paths.unreadable(folder, error) from error
    return record


def _read_into(record: Record, file: Path) -> None:
    with open(file, "rb") as lines:
        for line in lines:
            try:
                value = read_json(line)
                if "output" in value:
                    known = value["status"] in ("done", "failed") and isinstance(value["job"], str)
                    key = value["output"] if known else None
                    if not isinstance(key, str):
                        raise ValueError
                    record.entries[key] = value
                else:
                    if not isinstance(value["arguments"], dict) or not isinstance(value["clips"], int):
                        raise ValueError
                    record.jobs.append(value)
            except (ValueError, TypeError, KeyError, RecursionError):
                record.num_torn += 1


def require(folder: Path) -> Record:
    """As `read`, of a folder that is said to hold a batch.

    Raises:
        InputError: it holds none.
    """
    record = read(folder)
    if not record.jobs:
        raise InputError(f"{paths.display(folder)}: holds no batch; {NAME} is missing or empty")
    return record


class Ledger:
    """The ledger of a batch that runs; see `opened`."""

    def __init__(self, path: Path, job: str, lines: durable.Appender, begun: durable.Appender, was_torn: bool) -> None:
        self._path, self._job = path, job
        self._lines, self._begun = lines, begun
        self._is_torn = was_torn
        self._synced = time.monotonic()
        self._identity = _identity(path)

    def write(self, value: Mapping[str, Any]) -> None:
        """Append a line; a full disk is given a few seconds to recover.

        Raises:
            OutputError: it stays full, or the file is gone.
        """
        if _identity(self._path) != self._identity:
            raise OutputError(
                f"{paths.display(self._path)}: vanished while the batch ran", hint="run the same command again; it continues"
            )
        line = json.dumps(value, default=str)
        for tries_left in reversed(range(_WRITE_TRIES)):
            try:
                # A line that a full disk cut off is ended first, so that it spoils no other.
                self._lines.write_line(f"\n{line}" if self._is_torn else line)
                self._is_torn = False
                break
            except OutputError:
                self._is_torn = True
                if not tries_left:
                    raise
                time.sleep(_WAIT_SECONDS)
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def begin(self, key: str) -> None:
        """Note that an output is worked on from now on."""
        self._note("+", key)

    def settle(self, key: str) -> None:
        """Note that work on an output ended in good order, however it went."""
        self._note("=", key)

    def _note(self, sign: str, key: str) -> None:
        try:
            self._begun.write_line(sign + json.dumps([self._job, key]))
        except OutputError:  # the disk is full: the ledger says so, and waits
            pass

    def sync(self) -> None:
        """Flush all lines to the disk."""
        self._lines.sync()
        self._synced = time.monotonic()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@dataclass(frozen=True)
class Begun:
    """What the journal of an earlier start of a job says: how often each output was begun without coming to an end."""

    deaths: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, job: str) -> Begun:
        """Of a file; nothing where there is none."""
        deaths: Counter[str] = Counter()
        try:
            with open(path, "rb") as lines:
                for line in lines:
                    try:
                        owner, key = read_json(line[1:])
                        if owner == job:
                            deaths[key] = deaths[key] + 1 if line[:1] == b"+" else 0
                    except (ValueError, TypeError, RecursionError):
                        continue
        except OSError:
            pass
        return cls(deaths)


@contextmanager
def opened(folder: Path, job: str, shard: tuple[int, int] = (1, 1)) -> Iterator[tuple[Ledger, Begun]]:
    """The ledger of a batch, held by this process alone, and what an earlier start of the same job had begun.

    Raises:
        BusyError: another process runs the same batch.
        OutputError: the folder cannot be written to.
    """
    path = folder / file_name(shard)
    journal = folder / f".{path.name}.begun"
    try:
        durable.operations.make_folder(folder)
    except OSError as error:
        raise durable.describe_write_failure(error, path) from error
    with ExitStack() as stack:
        try:
            stack.enter_context(durable.lock(folder / f".{path.name}.lock"))
        except BusyError as error:
            owner = str(error).rpartition("(")[2].rstrip(")")
            raise BusyError(
                f"{paths.display(folder)}: another batch is writing here ({owner})", hint="wait for it, or choose another folder"
            ) from error
        begun = Begun.read(journal, job)
        lines = stack.enter_context(durable.appending(path))
        notes = stack.enter_context(durable.appending(journal))
        ledger = Ledger(path, job, lines, notes, _ends_torn(path))
        yield ledger, begun
        ledger.sync()
        durable.operations.remove(journal)


def _ends_torn(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
