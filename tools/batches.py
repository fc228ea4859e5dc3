"""Batches of many clips: a trial under faults, their costs as measured here, and a simulation from these.

    python tools/batches.py trial --clips 2000   # spoiled clips, killed workers and drivers
    python tools/batches.py measure                       # overhead for each clip, start-up, efficiency of 1, 2 and 4 workers
    python tools/batches.py simulate --clips 10000 --workers 256 --deaths-per-hour 0.1

The trial draws the edges of clips of 16x16 pixels and two frames. One clip in a hundred is spoiled in one of eight ways. Afterwards
every clip is done, with the bytes of a run that nothing disturbed, or listed with its reason, and no clip is listed as done twice.
As the clips are copies of 32, the undisturbed run does one of each beside all that are spoiled. Where a disk can be mounted, it is
full for a while; what fails for that is done by one more start.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidgen.commands.batches import Changes, find_sources, lay_out
from vidgen.jobs import batch, ledger
from vidgen.jobs.clips import Clip
from vidgen.jobs.engines import Engine, Work, in_processes, in_this_process
from vidgen.media.frames import open_sink

ROOT = Path(__file__).resolve().parents[1]
NUM_DESIGNS = 32
SPOILED_SHARE = 0.01
_SECONDS_FULL = 2.0
_KIBIBYTES_PER_CLIP = 16


def _empty(file: Path, data: bytes) -> None:
    file.write_bytes(b"")


def _cut(file: Path, data: bytes) -> None:
    file.write_bytes(data[: len(data) // 3])


def _header_only(file: Path, data: bytes) -> None:
    file.write_bytes(data[:64])


def _zeros(file: Path, data: bytes) -> None:
    file.write_bytes(bytes(len(data)))


def _noise(file: Path, data: bytes) -> None:
    file.write_bytes(random.Random(len(data)).randbytes(len(data)))


def _text(file: Path, data: bytes) -> None:
    file.write_text("this was to be a video\n" * 20)


def _lost_link(file: Path, data: bytes) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to("nowhere.mkv")


def _folder(file: Path, data: bytes) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


SPOILERS: tuple[Callable[[Path, bytes], None], ...] = (_empty, _cut, _header_only, _zeros, _noise, _text, _lost_link, _folder)


def write_clips(root: Path, count: int, seed: int = 0) -> Path:
    """Tiny label videos in a tree, many of them called the same, some spoiled; the list of them.

    Beside it, `quiet.jsonl` lists the spoiled ones and the first whole one of each design.
    """
    rng = np.random.default_rng(seed)
    designs = []
    for number in range(NUM_DESIGNS):
        path = root / "designs" / f"{number}.mkv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_sink(path, time_base=Fraction(1, 25), frame_rate=Fraction(25), kind="labels") as sink:
            for pts in range(2):
                sink.write(rng.integers(0, 4, (4, 4), dtype=np.uint8).repeat(4, 0).repeat(4, 1), pts)
        designs.append(path.read_bytes())
    spoiled = random.Random(seed).sample(range(count), max(len(SPOILERS), round(SPOILED_SHARE * count)) if count >= 100 else 0)
    turns = {index: SPOILERS[turn % len(SPOILERS)] for turn, index in enumerate(spoiled)}
    lines, quiet, seen = [], [], set()
    for index in range(count):
        file = root / "in" / f"{index // 1000:03d}" / f"{index % 1000:03d}" / "labels.mkv"
        file.parent.mkdir(parents=True, exist_ok=True)
        data = designs[index % NUM_DESIGNS]
        file.write_bytes(data)
        if index in turns:
            turns[index](file, data)
        lines.append(json.dumps({"input": str(file.relative_to(root))}))
        if index in turns or index % NUM_DESIGNS not in seen:
            quiet.append(lines[-1])
            seen |= set() if index in turns else {index % NUM_DESIGNS}
    (root / "quiet.jsonl").write_text("\n".join(quiet) + "\n")
    (root / "list.jsonl").write_text("\n".join(lines) + "\n")
    return root / "list.jsonl"


def _command(listed: Path, out: Path, workers: int | None, engine: str = "local") -> list[str]:
    fixed = [sys.executable, "-m", "vidgen", "-q", "condition", "--inputs", str(listed), "--to", "edges", "-o", str(out)]
    return [*fixed, *([] if workers is None else ["--workers", str(workers), "--engine", engine])]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _workers_of(driver: int) -> list[int]:
    """Processes that work on clips: children of the driver, or Ray's actors among all that descend from it."""
    children: list[int] = []
    try:
        for task in Path(f"/proc/{driver}/task").iterdir():
            children += [int(word) for word in (task / "children").read_text().split()]
    except OSError:
        return []
    return children


def _actors_of(driver: int) -> list[int]:
    found: list[int] = []
    for child in _workers_of(driver):
        try:
            found += [child] if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ray::Worker") else []
        except OSError:
            continue
        found += _actors_of(child)
    return found


def _results(out: Path) -> dict[int, dict[str, Any]]:
    """The ledger's last entry of each clip, by the clip's number."""
    return {int("".join(entry["clip"].split("/")[:-1])): entry for entry in ledger.read(out).entries.values()}


@contextmanager
def _disk(folder: Path, mebibytes: int) -> Iterator[bool]:
    """A disk of its own at a folder; False where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def _fill(disk: Path) -> Path:
    """Leave no room on a disk; the file that takes it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            chunk = bytes(size)
            try:
                while file.write(chunk) == size:
                    pass
            except OSError:
                continue
    return filler


class _Disturbed:
    """A batch that is watched by its ledger, and disturbed when that has so many lines."""

    def __init__(self, command: list[str], out: Path, draw: random.Random, *, engine: str) -> None:
        self.counts: Counter[str] = Counter()
        self.restart_seconds: list[float] = []
        self._command, self._out, self._draw = command, out, draw
        self._find_workers = _actors_of if engine == "ray" else _workers_of
        self._driver = _start(command)
        self._num_lines = self._position = 0

    def run(self, moments: list[tuple[int, str]]) -> None:
        """To the end of the batch; moments are numbers of lines and what happens then, in order."""
        moments = sorted(moments)
        while self._driver.poll() is None:
            time.sleep(0.01)
            self._count_lines()
            while moments and self._num_lines >= moments[0][0]:
                what = moments.pop(0)[1]
                done = {"worker": self._kill_worker, "driver": self._kill_driver, "disk": self._fill_disk}[what]()
                self.counts[what] += done

    def _count_lines(self) -> None:
        path = self._out / ledger.NAME
        if path.exists():
            with open(path, "rb") as file:
                file.seek(self._position)
                self._num_lines += file.read().count(b"\n")
                self._position = file.tell()

    def _kill_worker(self) -> bool:
        victims = self._find_workers(self._driver.pid)
        if victims:
            os.kill(self._draw.choice(victims), signal.SIGKILL)
        return bool(victims)

    def _kill_driver(self) -> bool:
        self._driver.kill()
        self._driver.wait()
        path = self._out / ledger.NAME
        before, again = path.stat().st_size, time.monotonic()
        self._driver = _start(self._command)
        while self._driver.poll() is None and path.stat().st_size == before:
            time.sleep(0.005)
        self.restart_seconds.append(round(time.monotonic() - again, 2))
        return True

    def _fill_disk(self) -> bool:
        filler = _fill(self._out)
        time.sleep(_SECONDS_FULL)
        filler.unlink()
        return True


def trial(
    root: Path,
    count: int,
    *,
    workers: int = 2,
    worker_kills: int = 20,
    driver_kills: int = 1,
    seed: int = 0,
    engine: str = "local",
) -> dict[str, Any]:
    """Run a batch under faults and one without, and compare.

    Returns:
        counts and seconds; `faults` lists what went against the promises.
    """
    draw = random.Random(seed)
    listed = write_clips(root, count, seed)
    began = time.monotonic()
    quiet = _start(_command(root / "quiet.jsonl", root / "quiet", None))
    quiet.wait()
    quiet_seconds = time.monotonic() - began

    out = root / "out"
    moments = draw.sample(range(1, count), min(count - 1, worker_kills + driver_kills + 1))
    kinds = ["disk"] + ["driver"] * driver_kills + ["worker"] * worker_kills
    with _disk(out, 64 + count * _KIBIBYTES_PER_CLIP // 1024) as can_fill:
        began = time.monotonic()
        batch_ = _Disturbed(_command(listed, out, workers, engine), out, draw, engine=engine)
        batch_.run([(moment, kind) for moment, kind in zip(moments, kinds, strict=False) if kind != "disk" or can_fill])
        seconds = time.monotonic() - began
        without_room = sum("space" in entry.get("reason", "") for entry in _results(out).values())
        if can_fill:
            _start(_command(listed, out, workers, engine)).wait()
        faults = _faults(root, count, out)
        ends = Counter(entry["status"] for entry in _results(out).values())
    return {
        "clips": count,
        "engine": engine,
        "done": ends["done"],
        "failed": ends["failed"],
        "workers_killed": batch_.counts["worker"],
        "drivers_killed": batch_.counts["driver"],
        "disks_filled": batch_.counts["disk"],
        "failed_for_want_of_room_and_done_later": without_room,
        "seconds_to_continue": batch_.restart_seconds,
        "quiet_seconds": round(quiet_seconds, 1),
        "seconds": round(seconds, 1),
        "faults": faults,
    }


def _faults(root: Path, count: int, out: Path) -> list[str]:
    """What a disturbed batch did against the promises."""
    results, quiet = _results(out), _results(root / "quiet")
    designs = {index % NUM_DESIGNS: entry["sha256"] for index, entry in quiet.items() if entry["status"] == "done"}
    faults = []
    for index in range(count):
        entry, expected = results.get(index), quiet.get(index, {"status": "done"})
        if entry is None:
            faults.append(f"{index}: is neither done nor listed")
        elif (entry["status"], entry.get("reason")) != (expected["status"], expected.get("reason")):
            faults.append(f"{index}: {entry}, without faults {expected}")
        elif entry["status"] == "done":
            content = hashlib.sha256((out / entry["output"]).read_bytes()).hexdigest()
            if not content == entry["sha256"] == designs[index % NUM_DESIGNS]:
                faults.append(f"{index}: has another hash")
    lines = (out / ledger.NAME).read_text().splitlines()  # the full disk may have cut some off
    times = Counter(json.loads(line)["output"] for line in lines if line.startswith('{"clip"') and '"status": "done"' in line)
    faults += [f"{name}: was done {number} times" for name, number in times.items() if number > 1]
    return faults + [f"{part}: is left over" for part in out.rglob(".*.part*")]


# -- measured ----------------------------------------------------------------------------------------------------------------


class Nothing:
    """A task that takes no time but what it is asked to."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._seconds = options["seconds"]

    def __call__(self, clip: Clip) -> dict[str, Any]:
        """Wait."""
        if self._seconds:
            time.sleep(self._seconds)
        return {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


class Touch:
    """A task that leaves an empty file."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Nothing to get ready."""

    def __call__(self, clip: Clip) -> dict[str, Any]:
        """Touch the output."""
        Path(clip.output).parent.mkdir(parents=True, exist_ok=True)
        Path(clip.output).touch()
        return {}


def _batch(folder: Path, count: int, engine: Engine, seconds: float) -> tuple[batch.Report, float]:
    clips = [Clip(f"{index}", str(folder / f"{index}.none"), {}) for index in range(count)]
    job = batch.Job(
        "nothing", Work("tools.batches:Nothing", {"seconds": seconds}), folder, {}, {}, lambda clip: [], lambda clip: []
    )
    began = time.monotonic()
    return batch.run(job, clips, engine=engine), time.monotonic() - began


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _seconds_to_find_the_place(root: Path, count: int) -> float:
    """Processor time until a batch of so many listed clips, all of them done, knows that nothing is left."""
    root.mkdir()
    names = [f"{index // 1000:03d}/{index % 1000:03d}/labels.mkv" for index in range(count)]
    (root / "list.jsonl").write_text("".join(json.dumps({"input": f"in/{name}"}) + "\n" for name in names))
    for name in names:
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "in" / name).touch()
    seconds = []
    for task in ("Touch", "none"):  # the second start opens no task, as nothing is left to do
        before = _cpu_seconds()
        sources = find_sources([], root / "list.jsonl", Changes())
        named = lay_out(sources, str(root / "out"), lambda place: ".mp4")
        clips = [Clip(name, output, {"input": source.where}) for source, (name, output) in zip(sources, named, strict=True)]
        work = Work(f"tools.batches:{task}", {})
        job = batch.Job("nothing", work, root / "out", {}, {}, lambda clip: [], lambda clip: [])
        batch.run(job, clips)
        seconds.append(_cpu_seconds() - before)
    return seconds[-1]


def measure(root: Path, count: int) -> dict[str, Any]:
    """Overhead of a clip in this process and through others, reading a ledger again, and efficiency of several workers."""
    result: dict[str, Any] = {"clips": count}
    for name, engine in (("here", in_this_process), ("one_process", in_processes(1)), ("two_processes", in_processes(2))):
        before = _cpu_seconds()
        report, seconds = _batch(root / name, count, engine, 0.0)
        assert report.num_done == count
        result[f"overhead_ms_{name}"] = round(1000 * seconds / count, 3)
        result[f"overhead_cpu_ms_{name}"] = round(1000 * (_cpu_seconds() - before) / count, 3)
        result[f"worker_memory_mb_{name}"] = round(max(entry["memory_mb"] for entry in report.results))
    before = _cpu_seconds()
    record = ledger.read(root / "here")
    result["ledger_cpu_seconds_per_100000"] = round((_cpu_seconds() - before) / len(record.entries) * 100_000, 2)
    result["place_found_again_cpu_seconds_per_100000"] = round(
        _seconds_to_find_the_place(root / "again", count) / count * 100_000, 2
    )
    base = 0.0
    for workers in (1, 2, 4):
        report, seconds = _batch(root / f"waiting{workers}", 200 * workers, in_processes(workers), 0.02)
        rate = report.num_done / seconds
        base = base or rate
        result[f"efficiency_{workers}"] = round(rate / (workers * base), 3)
    _, seconds = _batch(root / "one", 1, in_processes(1), 0.0)
    result["start_seconds"] = round(seconds, 2)
    return result


# -- simulated -----------------------------------------------------------------------------------------------------------------


def simulate(
    count: int,
    workers: int,
    *,
    clip_seconds: float,
    start_seconds: float,
    overhead_seconds: float,
    deaths_per_hour: float,
    seed: int = 0,
) -> dict[str, Any]:
    """A batch as a queue of events: one driver that serves one clip at a time, workers that load a model, work and die.

    Args:
        clip_seconds: mean of an exponential half and a fixed half, as lengths of clips vary.
        start_seconds: of a worker, until it takes its first clip.
        overhead_seconds: that a clip costs the driver.
        deaths_per_hour: of each worker; what it was at is done again.
    """
    rng = random.Random(seed)
    free_at, driver_free, left, lost, num_deaths = [(start_seconds, number) for number in range(workers)], 0.0, count, 0.0, 0
    work, ended = 0.0, 0.0
    heapq.heapify(free_at)
    while left:
        now, number = heapq.heappop(free_at)
        now = driver_free = max(now, driver_free) + overhead_seconds
        seconds = clip_seconds / 2 + rng.expovariate(2 / clip_seconds)
        death = rng.expovariate(deaths_per_hour / 3600) if deaths_per_hour else float("inf")
        if death < seconds:
            lost += death
            num_deaths += 1
            heapq.heappush(free_at, (now + death + start_seconds, number))
            continue
        left -= 1
        work += seconds
        ended = max(ended, now + seconds)
        heapq.heappush(free_at, (now + seconds, number))
    return {
        "clips": count,
        "workers": workers,
        "hours": round(ended / 3600, 3),
        "efficiency": round(work / (workers * ended), 3),
        "deaths": num_deaths,
        "seconds_done_again": round(lost, 1),
        "driver_busy": round(count * overhead_seconds / ended, 3),
    }


@click.group(help=__doc__)
def main() -> None:
    """Nothing by itself."""


@main.command("trial")
@click.option("--clips", type=int, default=2000, show_default=True)
@click.option("--workers", type=int, default=2, show_default=True)
@click.option("--worker-kills", type=int, default=20, show_default=True)
@click.option("--driver-kills", type=int, default=1, show_default=True)
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Work here, and leave everything there.")
def run_trial(clips: int, folder: Path | None, **options: Any) -> None:
    """Disturb a batch, and compare it with a quiet one."""
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory(prefix="vidgen-trial-") as root:
        result = trial(Path(root).resolve(), clips, **options)
    click.echo(json.dumps(result, indent=2))
    sys.exit(1 if result["faults"] else 0)


@main.command("measure")
@click.option("--clips", type=int, default=5000, show_default=True)
def run_measure(clips: int) -> None:
    """Print what batches cost here."""
    with tempfile.TemporaryDirectory(prefix="vidgen-measure-") as folder:
        click.echo(json.dumps(measure(Path(folder), clips), indent=2))


@main.command("simulate")
@click.option("--clips", type=int, default=10_000, show_default=True)
@click.option("--workers", type=int, default=256, show_default=True)
@click.option("--clip-seconds", type=float, default=30.0, show_default=True)
@click.option("--start-seconds", type=float, default=20.0, show_default=True)
@click.option("--overhead-ms", type=float, default=5.0, show_default=True)
@click.option("--deaths-per-hour", type=float, default=0.1, show_default=True)
def run_simulate(clips: int, workers: int, overhead_ms: float, **options: Any) -> None:
    """Print how long a batch takes elsewhere."""
    click.echo(json.dumps(simulate(clips, workers, overhead_seconds=overhead_ms / 1000, **options), indent=2))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in good order removes the temporary folders
    main()
