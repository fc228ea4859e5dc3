"""`vidgen jobs`: what became of a batch, and another try of what failed."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidgen import durable
from vidgen.commands import batches
from vidgen.errors import InputError, PartialFailure
from vidgen.jobs import ledger
from vidgen.media import paths

COMMANDS = {
    "translate": ("translate", "translate"),
    "evaluate": ("evaluate", "evaluate_each"),
    "label": ("label", "label_each"),
    "condition": ("condition", "condition_each"),
    "animate": ("pictures", "animate_each"),
}
"""The module and function of each command that runs batches."""
_MOST_LISTED = 100


def status(folder: Path) -> dict[str, Any]:
    """What the ledgers of an output folder say: how many clips are done, failed and left, and why.

    Raises:
        InputError: the folder holds no batch.
    """
    record = ledger.require(folder)
    latest = _latest(record)
    current = {job["job"] for job in latest}
    entries = [entry for entry in record.entries.values() if entry["job"].partition("-")[0] in current]
    failed = [entry for entry in entries if entry["status"] == "failed"]
    done = [entry for entry in entries if entry["status"] == "done"]
    total = sum(job["clips"] for job in latest)
    running = [owner for file in folder.glob(".jobs*.lock") if (owner := durable.holder(file)) is not None]
    result: dict[str, Any] = {
        "command": ", ".join(sorted({job["command"] for job in latest})),
        "clips": total,
        "done": len(done),
        "failed": len(failed),
        "left": max(0, total - len(done) - len(failed)),
        "running": ", ".join(running) or None,
        "seconds": round(sum(entry.get("seconds", 0.0) for entry in entries), 1),
        "reasons": dict(Counter(_kind(entry) for entry in failed).most_common(10)),
        "failures": {entry["output"]: entry["reason"] for entry in failed[:_MOST_LISTED]},
    }
    if len(failed) > _MOST_LISTED:
        result["further_failures"] = len(failed) - _MOST_LISTED
    if record.num_torn:
        result["torn_lines"] = record.num_torn
    return result


def enforce(result: Mapping[str, Any]) -> None:
    """Fail where not everything is done.

    Raises:
        PartialFailure: something failed or is left.
    """
    if result["failed"] or result["left"]:
        raise PartialFailure(f"{result['failed']} of {result['clips']} clips failed, {result['left']} are left")


def _latest(record: ledger.Record) -> list[dict[str, Any]]:
    """The last start of the last job: of the whole or, where it ran in shards, of each of them."""
    last = record.jobs[-1]
    if last["shard"] is None:
        return [last]
    parts = last["shard"].partition("/")[2]
    shards = {job["shard"]: job for job in record.jobs if job["job"] == last["job"] and job["shard"] is not None}
    return [job for shard, job in shards.items() if shard.partition("/")[2] == parts]


def _kind(entry: Mapping[str, Any]) -> str:
    """The reason of a failure without the name of its file, so that equal ones can be counted."""
    reason = str(entry["reason"])
    _, separator, rest = reason.partition(": ")
    return rest if separator else reason


def retry(
    folder: Path,
    *,
    engine: batches.EngineName | None = None,
    workers: int | None = None,
    address: str | None = None,
    gpus: float | None = None,
) -> dict[str, Any]:
    """Run the last batch of an output folder again as it was told, for the clips that it has not done.

    Raises:
        InputError: the folder holds no batch, or the folder that it was run in is gone.
        PartialFailure: some fail again.
    """
    record = ledger.require(folder)
    results = []
    for job in _latest(record):
        if job["command"] not in COMMANDS:
            raise InputError(f"{paths.display(folder)}: was written by {job['command']!r}, which this version does not know")
        module, function = COMMANDS[job["command"]]
        arguments = batches.decoded(job["arguments"])
        place = Path(job["working_folder"])
        changes = {"engine": engine, "workers": workers, "address": address, "gpus": gpus}
        if engine is not None and engine != arguments.get("engine"):
            arguments |= {"address": None, "gpus": None}
        arguments |= {name: value for name, value in changes.items() if value is not None}
        if not place.is_dir():
            raise InputError(f"{paths.display(folder)}: was run in {paths.display(place)}, which is gone")
        before = Path.cwd()
        os.chdir(place)  # relative paths are meant from there
        try:
            results.append(getattr(importlib.import_module(f"vidgen.commands.{module}"), function)(**arguments))
        finally:
            os.chdir(before)
    return results[0] if len(results) == 1 else {"shards": results}
