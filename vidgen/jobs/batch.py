"""The driver of a batch: what is left to do, who does it, and what became of it."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vidgen
from vidgen import durable, progress
from vidgen.jobs import ledger
from vidgen.jobs.clips import Clip, check_distinct, in_one_go, in_shard
from vidgen.jobs.engines import Engine, Outcome, Work, in_this_process
from vidgen.media import paths

log = logging.getLogger(__name__)

MAX_TRIES = 3
"""How often a clip is tried at which workers die."""
MAX_RESULTS = 1000
"""How many results a report holds; the ledger holds them all."""
_MOST_SHOWN = 20
_BUSY_SECONDS = 60.0
_BUSY_WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """What a batch does to each of its clips.

    Attributes:
        command: which command runs it.
        work: what workers do.
        folder: of the outputs and the ledger.
        decides: all beside the clip that decides what its result is; a result of other values is none of this job.
        arguments: of the command, to run it again; JSON values.
        places: what a clip writes, its output first.
        reads: the files that a clip is made from, which no output may replace.
    """

    command: str
    work: Work
    folder: Path
    decides: Mapping[str, Any]
    arguments: Mapping[str, Any]
    places: Callable[[Clip], Sequence[durable.Output]]
    reads: Callable[[Clip], Sequence[Path]]

    @functools.cached_property
    def digest(self) -> str:
        """The job's name in the ledger."""
        text = json.dumps([self.command, self.decides], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def name_for(self, clip: Clip) -> str:
        """The job's name for one clip, which values of its own may set apart."""
        if clip.values.keys() <= {"input"}:
            return self.digest
        special = {name: value for name, value in clip.values.items() if name != "input"}
        text = json.dumps(special, sort_keys=True, default=str)
        return f"{self.digest}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def key(self, clip: Clip) -> str:
        """How the ledger calls a clip's output: below the folder, where it lies there."""
        path = os.path.abspath(clip.output)
        return path[len(self._below) :].replace(os.sep, "/") if path.startswith(self._below) else path

    @functools.cached_property
    def _below(self) -> str:
        """What the absolute paths of all that lies in the folder begin with."""
        return os.path.join(os.path.abspath(self.folder), "")


@dataclass
class Report:
    """What became of a batch.

    Attributes:
        results: of clips that were done now, as their tasks gave them, up to `MAX_RESULTS`.
        failures: the first reasons.
        num_before: clips that an earlier start had done.
        skipped: outputs that were there already and were left alone.
    """

    folder: Path
    num_clips: int = 0
    num_done: int = 0
    num_failed: int = 0
    num_before: int = 0
    skipped: list[str] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON values; a result for each clip, where there are not too many."""
        results = self.results + [{"output": path, "skipped": True} for path in self.skipped]
        counts = {"done": self.num_done, "failed": self.num_failed, "done_before": self.num_before, "skipped": len(self.skipped)}
        if self.num_clips > MAX_RESULTS:
            results = []
        return {"ledger": str(self.folder / ledger.NAME), **counts, "seconds": round(self.seconds, 2), "results": results}


def run(
    job: Job,
    clips: Sequence[Clip],
    *,
    engine: Engine = in_this_process,
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
    skip_existing: bool = False,
) -> Report:
    """Do every clip that this job has not done, and note in the ledger what became of each.

    Raises:
        OutputError: two clips share an output, or an output cannot be written; before anything is done.
        BusyError: the same batch runs already.
        VidgenError: the work itself cannot be begun, such as a model that cannot be loaded.
    """
    started = time.monotonic()
    check_distinct(clips)
    clips = clips if shard[1] == 1 else [clip for clip in clips if in_shard(clip.identity, shard)]
    report = Report(job.folder, len(clips))
    digest = job.digest
    record = ledger.read(job.folder)
    undone = clips if overwrite else _undone(job, clips, record)
    report.num_before = len(clips) - len(undone)
    with ledger.opened(job.folder, digest, shard) as (lines, begun):
        todo, fresh = [], []
        for clip in undone:
            key = job.key(clip)
            is_ours = key in begun.deaths or record.is_ours(key, job.name_for(clip))
            if skip_existing and not is_ours and clip.fault is None and job.places(clip)[0].exists():
                report.skipped.append(clip.output)
                continue
            todo.append((clip, overwrite or is_ours))
            fresh += [] if clip.fault is not None or is_ours else [clip]
        _check(job, fresh, overwrite=overwrite)
        lines.write(
            {
                "job": digest,
                "command": job.command,
                "vidgen": vidgen.__version__,
                "clips": len(clips),
                "shard": None if shard[1] == 1 else f"{shard[0]}/{shard[1]}",
                "working_folder": os.getcwd(),
                "arguments": job.arguments,
            }
        )
        _Driver(job, report, lines, begun).run(todo, engine)
    report.seconds = time.monotonic() - started
    return report


@in_one_go()
def _undone(job: Job, clips: Sequence[Clip], record: ledger.Record) -> list[Clip]:
    """The clips that this very job has not done, or whose outputs are gone."""
    return [clip for clip in clips if not (record.is_done(job.key(clip), job.name_for(clip)) and os.path.lexists(clip.output))]


def _check(job: Job, clips: Sequence[Clip], *, overwrite: bool) -> None:
    places = [place for clip in clips for place in job.places(clip)]
    durable.check_places(places, inputs=[file for clip in clips for file in job.reads(clip)], overwrite=overwrite)


class _Driver:
    """Feeds an engine, and decides what becomes of clips whose workers died."""

    def __init__(self, job: Job, report: Report, lines: ledger.Ledger, begun: ledger.Begun) -> None:
        self._job, self._report, self._lines = job, report, lines
        self._names: dict[str, str] = {}
        self._tries: Counter[str] = Counter(begun.deaths)
        self._busy_since: dict[str, float] = {}

    def run(self, todo: Sequence[tuple[Clip, bool]], engine: Engine) -> None:
        queue: deque[Clip] = deque()
        for clip, may_replace in todo:
            self._names[self._job.key(clip)] = self._job.name_for(clip)
            clip = Clip(clip.identity, clip.output, {**clip.values, "overwrite": may_replace}, clip.fault)
            tries = self._tries[self._job.key(clip)]
            if clip.fault is not None:
                self._end(Outcome(clip, "failed", reason=clip.fault))
            elif tries >= MAX_TRIES:
                self._end(Outcome(clip, "failed", reason=f"the process died {tries} times while it worked on this clip"))
            else:
                queue.append(clip)
        total = len(queue)
        at_work: set[str] = set()

        def begin(clip: Clip) -> None:
            at_work.add(self._job.key(clip))
            self._lines.begin(self._job.key(clip))

        with (
            progress.task(f"{self._job.command}: clips", total if total > 1 else None) as update,
            closing(engine(self._job.work, queue, begin)) as outcomes,  # type: ignore[type-var]
        ):
            try:
                for outcome in outcomes:
                    at_work.discard(self._job.key(outcome.clip))
                    again = self._again(outcome)
                    if again is not None:
                        queue.append(again)
                    update(total - len(queue) - len(at_work))
            except (Exception, KeyboardInterrupt, SystemExit):
                # Stopped in good order: what was at work is no suspect.
                for key in at_work:
                    self._lines.settle(key)
                raise

    def _again(self, outcome: Outcome) -> Clip | None:
        """Note an outcome; the clip, where it is to be tried again."""
        key = self._job.key(outcome.clip)
        if outcome.status == "died":
            self._tries[key] += 1
            if self._tries[key] < MAX_TRIES:
                return Clip(outcome.clip.identity, outcome.clip.output, {**outcome.clip.values, "overwrite": True})
            reason = f"{outcome.reason}, {self._tries[key]} times"
            outcome = Outcome(outcome.clip, "failed", reason=reason)
        elif outcome.status == "busy":
            since = self._busy_since.setdefault(key, time.monotonic())
            if time.monotonic() - since < _BUSY_SECONDS:
                time.sleep(_BUSY_WAIT_SECONDS)  # its former worker may be about to end
                return outcome.clip
        self._end(outcome)
        return None

    def _end(self, outcome: Outcome) -> None:
        report, key = self._report, self._job.key(outcome.clip)
        entry: dict[str, Any] = {"clip": outcome.clip.identity, "output": key, "job": self._names[key]}
        if outcome.status == "done":
            report.num_done += 1
            if len(report.results) < MAX_RESULTS:
                report.results.append(dict(outcome.details))
            self._lines.write({**entry, "status": "done", "seconds": outcome.seconds, "sha256": outcome.sha256})
        else:
            report.num_failed += 1
            reason = outcome.reason or "failed"
            if len(report.failures) < _MOST_SHOWN:
                report.failures.append(reason)
                log.error("%s", reason)
            elif report.num_failed == _MOST_SHOWN + 1:
                log.error("further failures are listed in %s", paths.display(self._job.folder / ledger.NAME))
            foreign = {"foreign": True} if outcome.is_foreign else {}
            self._lines.write({**entry, "status": "failed", "reason": reason, "seconds": outcome.seconds, **foreign})
        self._lines.settle(key)
