"""Damaged files of every kind, given to their readers.

    python -m tests.fuzz                      # a minute
    python -m tests.fuzz --seconds 3600       # an hour
    python -m tests.fuzz --only model --only scores --seed 7
    python -m tests.fuzz --count 300          # so many of each kind, however long that takes

Files that make a reader fail are kept in tests/fuzz/crashes/KIND, where `tests/test_fuzz.py` tries them again for good.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.fuzz.corpus import KINDS
from tests.fuzz.runner import Result, fuzz

CRASHES = Path(__file__).with_name("crashes")
_LENGTH_OF_NAMES = 16


@click.command(help=__doc__)
@click.option("--seconds", type=float, default=60.0, show_default=True, help="For all kinds together.")
@click.option("--count", type=int, help="Files of each kind, instead of a time.")
@click.option("--only", multiple=True, type=click.Choice(list(KINDS)), help="Kind; repeatable.")
@click.option("--seed", type=int, default=None, help="Another seed, other files.  [default: by the clock]")
@click.option("--keep/--no-keep", default=True, help="Keep the files that make a reader fail.")
def main(seconds: float, count: int | None, only: tuple[str, ...], seed: int | None, keep: bool) -> None:
    """Run and report."""
    names = only or tuple(KINDS)
    seed = int(time.time()) if seed is None else seed
    click.echo(f"seed {seed}", err=True)
    results: dict[str, Result] = {}
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="vidgen-fuzz-") as scratch:
        for index, name in enumerate(names):
            share = None if count is not None else max(0.5, (deadline - time.monotonic()) / (len(names) - index))
            results[name] = fuzz(KINDS[name], Path(scratch) / name, seed=seed, seconds=share, count=count)
            click.echo(f"{name:14} {results[name]}")
            for content, what in results[name].failures:
                click.echo(f"  {what}")
                if keep:
                    _keep(name, content)
    total = sum(result.num_files for result in results.values())
    failures = sum(len(result.failures) for result in results.values())
    peak = max((result.peak_mib for result in results.values()), default=0)
    click.echo(f"{total} files of {len(results)} kinds: {failures} failures; {peak} MiB more memory at most")
    click.echo(json.dumps({"files": total, "failures": failures, "peak_mib": peak, "seed": seed}))
    sys.exit(1 if failures else 0)


def _keep(kind: str, content: bytes) -> None:
    folder = CRASHES / kind
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(content).hexdigest()[:_LENGTH_OF_NAMES]).write_bytes(content)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in good order removes the temporary folders
    main()
