"""End trainings, translations, labelings, evaluations and batches at random moments, run them again, compare with undisturbed ones.

    python tools/kill.py --runs 100
    python tools/kill.py --runs 1000 --job train --how SIGKILL --seed 7

A disturbance is a signal at a random moment (SIGKILL, SIGTERM, SIGINT), a disk that is full after a random number of bytes, or a
read-only one. Afterwards an output is absent, what it was before, or complete; the same command then ends with the same bits as if
nothing had happened, and nothing else is left behind. A disk is a tmpfs of its own where that can be mounted; elsewhere a limit on
the size of files stands for a full one, and read-only ones are left out. Everything runs in processes forked from this one, which
has imported torch, so that a disturbance takes seconds. So do the two processes of a training that has two: they find each other as
under torchrun, a signal reaches one of them or both, and the other one is to end by itself.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import torch
import torch._dynamo  # optimizers import it at their first use: pay for it once, before forking

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import tiny
from tools.batches import write_clips
from vidgen import cli, durable, translators
from vidgen.commands import evaluate, label, train, translate
from vidgen.errors import PartialFailure
from vidgen.media.frames import open_source
from vidgen.media.video import FrameKind

_PRELOADED = (evaluate, label, train, translate, translators.available())  # for all children

NUM_STEPS = 12
NUM_CLIPS = 12
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
DISTURBANCES = (*SIGNALS, "full disk", "read-only disk")
_MAX_SECONDS = 90.0
_HUNG = -999
_SILENCE_MINUTES = 0.3  # of one of two processes, after which the other one ends: well before it counts as hung
_SHARE_TIMED = 0.25  # of jobs that are watched: their start, before the first line, has moments too
_DISK_MIB = 64

Fingerprint = dict[str, str]
"""What a job leaves: name -> SHA-256."""


@dataclass(frozen=True)
class Job:
    """A command line that is to survive.

    Attributes:
        line: the arguments of vidgen; OUT stands for the folder that it writes into.
        fingerprint: what is there of its outputs; empty where there is none.
        watched: a file in OUT whose lines tell how far it is; None for jobs that are timed.
        trace: what it may leave behind besides its outputs, by the start of the name.
        processes: how many do it together.
    """

    line: Sequence[str]
    fingerprint: Callable[[Path], Fingerprint]
    watched: str | None = None
    trace: tuple[str, ...] = ()
    processes: int = 1

    def arguments(self, out: Path) -> list[str]:
        """The command line for an output folder."""
        return [part.replace("OUT", str(out)) for part in self.line]


def _of_run(out: Path) -> Fingerprint:
    """Log and weights of the newest checkpoint of a complete training."""
    steps = sorted((out / "run" / "checkpoints").glob("step-*"))
    if not steps or int(steps[-1].name[5:]) < NUM_STEPS:
        return {}
    files = [out / "run" / "metrics.jsonl", *sorted(steps[-1].glob("*.safetensors"))]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _of_video(name: str, kind: FrameKind = "pictures") -> Callable[[Path], Fingerprint]:
    def fingerprint(out: Path) -> Fingerprint:
        """Decoded frames; the encoder's bytes may differ from run to run."""
        if not (out / name).exists():
            return {}
        digest = hashlib.sha256()
        for frame in open_source(out / name, kind=kind):
            digest.update(frame.pixels.tobytes())
        return {name: digest.hexdigest()}

    return fingerprint


def _of_files(*names: str) -> Callable[[Path], Fingerprint]:
    def fingerprint(out: Path) -> Fingerprint:
        return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names if (out / name).exists()}

    return fingerprint


def _of_folder(name: str) -> Callable[[Path], Fingerprint]:
    def fingerprint(out: Path) -> Fingerprint:
        """All videos of a tree."""
        files = sorted((out / name).rglob("*.mp4"))
        return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return fingerprint


def _of_labels(out: Path) -> Fingerprint:
    """Label maps, instance maps, table, head, and what the report says but for the time and the place."""
    found = _of_files("labels.table.json", "labels.head.safetensors")(out)
    for name in ("labels", "objects.mkv"):
        found |= _of_video(name, "labels")(out)
    report = out / "labels.json"
    if report.exists():
        said = json.loads(report.read_text().replace(str(out), "OUT"))
        del said["seconds"]
        found[report.name] = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return found


def jobs(home: Path) -> dict[str, Job]:
    """The jobs, with what they read in a folder."""
    data = tiny.write_data(home / "data")
    line = ["train", "CONFIG", "-o", "OUT/run", "--steps", str(NUM_STEPS), "--threads", "1", "--set", "data.workers=1"]
    found = {}
    for kind in ("vid2vid", "pix2pixhd"):
        (home / kind).mkdir()
        config = tiny.write_config(home / kind, data, kind)
        found[f"train {kind}"] = Job([part.replace("CONFIG", str(config)) for part in line], _of_run, "run/metrics.jsonl")
    alone = found["train vid2vid"]
    together = [*alone.line, "--set", "train.batch_size=2", "--set", f"train.process_timeout_minutes={_SILENCE_MINUTES}"]
    found["train on two processes"] = Job(together, _of_run, "run/metrics.jsonl", processes=2)
    model = home / "model"
    if _run(alone, model)[0] != 0:
        raise click.ClickException("the model to translate with could not be trained")
    source = str(data / "labels" / "clip0")
    common = ["translate", str(model / "run"), source, "--threads", "1", "--overwrite"]
    found["translate to a video"] = Job([*common, "-o", "OUT/a.mkv", "--quality", "lossless"], _of_video("a.mkv"))
    found["translate to pictures"] = Job([*common, "-o", "OUT/frames/"], _of_video("frames"))
    images = str(data / "images" / "clip0")
    painted = str(data / "labels" / "clip0" / "000.png")
    maps = ["label", images, painted, "-o", "OUT/labels/", "--instances", "OUT/objects.mkv", "--suggest", "2", "--threads", "1"]
    found["label"] = Job([*maps, "--overwrite"], _of_labels)
    scores = ["evaluate", images, "--target", images, "--source", images, "--fast", "--cache", "OUT/cache", "--overwrite"]
    found["evaluate"] = Job([*scores, "--per-frame", "OUT/frames.csv", "--csv", "OUT/a.csv"], _of_files("frames.csv", "a.csv"))
    listed = write_clips(home / "clips", NUM_CLIPS)
    batch = ["condition", "--inputs", str(listed), "--to", "edges", "-o", "OUT/batch"]
    found["batch"] = Job(batch, _of_folder("batch"), "batch/jobs.jsonl")
    return found


# -- one run ---------------------------------------------------------------------------------------------------------------


def _run(job: Job, out: Path, prepare: Callable[[], None] | None = None) -> tuple[int, str]:
    """Run a job in forked processes to its end: exit code and what it said."""
    with tempfile.TemporaryFile() as said:
        children = _start(job, out, said.fileno(), prepare)
        code = _wait(children)
        said.seek(0)
        return code, said.read().decode(errors="replace")


def _start(job: Job, out: Path, said: int, prepare: Callable[[], None] | None = None) -> list[int]:
    environments: list[dict[str, str]] = [{}]
    if job.processes > 1:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(job.processes)}
        environments = [{**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(job.processes)]
    return [_start_one(job.arguments(out), said, prepare, environment) for environment in environments]


def _start_one(arguments: Sequence[str], said: int, prepare: Callable[[], None] | None, environment: dict[str, str]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.environ.update(environment)
            faulthandler.dump_traceback_later(0.8 * _MAX_SECONDS, file=2)  # where it hangs, if it does
            if prepare is not None:
                prepare()
            torch.set_num_threads(1)
            code = cli.main(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    return child


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(children: Sequence[int]) -> int:
    """Wait until all have ended; of their exit codes the one farthest from zero."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + _MAX_SECONDS
    while time.monotonic() < deadline:
        for child in children:
            finished, status = (child, 0) if child in codes else os.waitpid(child, os.WNOHANG)
            if finished:
                codes.setdefault(child, os.waitstatus_to_exitcode(status))
        if len(codes) == len(children):
            return max(codes.values(), key=abs)
        time.sleep(0.002)
    for child in children:
        if child not in codes:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return _HUNG


@dataclass(frozen=True)
class Quiet:
    """An undisturbed run: what it leaves, how long it takes, the bytes that it writes at most."""

    fingerprint: Fingerprint
    seconds: float
    num_bytes: int


def quiet_run(job: Job, out: Path) -> Quiet:
    """Run a job without disturbing it.

    Raises:
        click.ClickException: it fails.
    """
    began = time.monotonic()
    code, said = _run(job, out)
    if code != 0:
        raise click.ClickException(f"without any disturbance it fails: {said[-500:]}")
    seconds = time.monotonic() - began
    return Quiet(job.fingerprint(out), seconds, sum(path.stat().st_size for path in out.rglob("*") if path.is_file()))


def disturbed_run(job: Job, how: str, out: Path, quiet: Quiet, rng: random.Random, *, on_disk: bool) -> list[str]:
    """Disturb a job, run it again, and compare; what is wrong, in words."""
    (out / "mine.txt").write_text("mine")
    if how in SIGNALS:
        code, said = _signaled(job, SIGNALS[how], out, quiet, rng)
    else:
        code, said = _without_space(job, how, out, quiet, rng, on_disk=on_disk)
    faults = [f"hung: {said[-3000:]}"] if code == _HUNG else []
    if (internal := re.search(r"bug:|Traceback", said)) is not None:
        faults.append(f"said: {said[max(0, internal.start() - 400) :][:4000]}")
    if how not in SIGNALS and code not in (0, 1, PartialFailure.exit_code):
        faults.append(f"ended with {code}")
    left = job.fingerprint(out)
    if left not in ({}, quiet.fingerprint) and any(quiet.fingerprint.get(name) != digest for name, digest in left.items()):
        faults.append("left a half output")
    code, said = _run(job, out)
    if code != 0:
        faults.append(f"cannot be run again ({code}): {said[-400:]}")
    elif job.fingerprint(out) != quiet.fingerprint:
        faults.append("ends with other bits")
    litter = [path.name for path in out.rglob(f"*{durable.PART}*")]
    if litter:
        faults.append(f"leaves {litter[0]}")
    if (out / "mine.txt").read_text() != "mine":
        faults.append("changed a file of others")
    return faults


def _signaled(job: Job, number: signal.Signals, out: Path, quiet: Quiet, rng: random.Random) -> tuple[int, str]:
    with tempfile.TemporaryFile() as said:
        children = _start(job, out, said.fileno())
        if job.watched is None or rng.random() < _SHARE_TIMED:
            time.sleep(rng.random() * quiet.seconds)
        else:
            until = rng.randrange(0, NUM_STEPS)
            deadline = time.monotonic() + _MAX_SECONDS
            while _num_lines(out / job.watched) < until and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(rng.random() * 0.04)
        for child in rng.sample(children, rng.randint(1, len(children))):
            os.kill(child, number)
        code = _wait(children)
        said.seek(0)
        return code, said.read().decode(errors="replace")


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _without_space(job: Job, how: str, out: Path, quiet: Quiet, rng: random.Random, *, on_disk: bool) -> tuple[int, str]:
    if how == "read-only disk":
        _mount(out, "remount,ro")
        try:
            return _run(job, out)
        finally:
            _mount(out, "remount,rw")
    room = rng.randrange(4096, max(8192, quiet.num_bytes))
    if not on_disk:
        return _run(job, out, lambda: _limit_files(room))
    filler = out / "filler"
    free = shutil.disk_usage(out).free
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - room))
    try:
        return _run(job, out)
    finally:
        filler.unlink()


def _limit_files(num_bytes: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


# -- disks -----------------------------------------------------------------------------------------------------------------


def _mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def _disk(folder: Path) -> Iterator[bool]:
    """A small disk at a folder; False where none can be mounted."""
    folder.mkdir()
    mounted = _mount(folder, f"size={_DISK_MIB}m")
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@click.command(help=__doc__)
@click.option("--runs", type=click.IntRange(1), default=100, show_default=True, help="Disturbances in all.")
@click.option("--job", "only", multiple=True, metavar="NAME", help="Jobs whose name starts so; repeatable.  [default: all]")
@click.option("--how", multiple=True, type=click.Choice(DISTURBANCES), help="Disturbance; repeatable.  [default: all]")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the random moments.")
@click.option("-v", "--verbose", is_flag=True, help="Say each disturbance.")
def main(runs: int, only: tuple[str, ...], how: tuple[str, ...], seed: int, verbose: bool) -> None:
    """Disturb, compare, report."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    rng = random.Random(seed)
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="vidgen-kill-") as scratch:
        home = Path(scratch)
        (home / "temporary").mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(home / "temporary")  # what killed children leave goes with the rest
        known = {name: job for name, job in jobs(home).items() if not only or name.startswith(only)}
        quiet = {}
        for name, job in known.items():
            place = home / f"quiet {name}"
            place.mkdir()
            quiet[name] = quiet_run(job, place)
        with _disk(home / "probe") as can_mount:
            disturbances = [item for item in how or DISTURBANCES if can_mount or item != "read-only disk"]
        for number in range(runs):
            name = list(known)[number % len(known)]
            chosen = disturbances[number // len(known) % len(disturbances)]
            began = time.monotonic()
            with _disk(home / "disk") as on_disk:
                faults = disturbed_run(known[name], chosen, home / "disk", quiet[name], rng, on_disk=on_disk)
            counts[name, chosen] += 1
            failures += [(name, chosen, fault) for fault in faults]
            if verbose:
                click.echo(f"{number}: {name}, {chosen}: {time.monotonic() - began:.1f} s", err=True)
            for fault in faults:
                click.echo(f"{number}: {name}, {chosen}: {fault}", err=True)
    click.echo(f"{'':24}" + "".join(f"{item:>16}" for item in disturbances))
    for name in known:
        bad = Counter(chosen for job, chosen, _ in failures if job == name)
        click.echo(
            f"{name:24}" + "".join(f"{f'{counts[name, item] - bad[item]} of {counts[name, item]}':>16}" for item in disturbances)
        )
    click.echo(json.dumps({"runs": runs, "failures": len(failures), "seed": seed, "disks": can_mount}))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in good order removes the temporary folders
    main()
