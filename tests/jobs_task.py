"""A small real task for batches: it turns the bytes of a file around, and fails or dies where the file says so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidgen import durable
from vidgen.errors import InputError
from vidgen.jobs import batch
from vidgen.jobs.clips import Clip
from vidgen.jobs.engines import Work

CONTENTS = {"a/x": b"first", "a/y": b"wrong", "b/x": b"second", "b/y": b"bug", "c": b"third"}


def clips_of(folder: Path, contents: Mapping[str, bytes] = CONTENTS) -> list[Clip]:
    """Files with these contents, as clips of a batch below the folder."""
    clips = []
    for name, data in contents.items():
        file = folder / "in" / f"{name}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        clips.append(Clip(f"{name}.bin", str(folder / "out" / f"{name}.out"), {"input": str(file)}))
    return clips


def job_of(folder: Path, **options: Any) -> batch.Job:
    """A batch that turns them around."""
    return batch.Job(
        "reverse",
        Work("tests.jobs_task:Reverse", options),
        folder / "out",
        options,
        {},
        lambda clip: [durable.Output(Path(clip.output))],
        lambda clip: [Path(clip.values["input"])],
    )


class Reverse:
    """Opened once in each worker."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        if options.get("refuse"):
            raise InputError("model.safetensors: damaged", hint="copy it again")
        self.num_done = 0
        self.seconds = options.get("seconds", 0.0)

    def __call__(self, clip: Clip) -> dict[str, Any]:
        self.num_done += 1
        data = Path(clip.values["input"]).read_bytes()
        print("libraries print")
        with durable.claim([Path(clip.output)], overwrite=clip.values.get("overwrite", False)):
            time.sleep(self.seconds)
            for word, act in {
                b"wrong": lambda: _raise(InputError(f"{clip.identity}: is wrong")),
                b"bug": lambda: _raise(ZeroDivisionError("in a\nlibrary")),
                b"die": lambda: os.kill(os.getpid(), signal.SIGKILL),
                b"once": lambda: _die_once(Path(clip.values["input"]).with_suffix(".died")),
            }.items():
                if data == word:
                    act()
            durable.write_bytes(Path(clip.output), data[::-1])
        return {"output": clip.output, "of_worker": self.num_done}


def _raise(error: Exception) -> None:
    raise error


def _die_once(mark: Path) -> None:
    if not mark.exists():
        mark.write_bytes(b"")
        os.kill(os.getpid(), signal.SIGKILL)
