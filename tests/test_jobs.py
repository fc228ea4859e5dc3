"""Batches of many clips: each exactly once done or listed with its reason, whatever dies in between."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.jobs_task import CONTENTS, clips_of, job_of
from vidgen import durable
from vidgen.errors import BusyError, ConfigError, InputError, OutputError, OutputExistsError, VidgenError
from vidgen.jobs import batch, ledger
from vidgen.jobs.clips import (
    Clip,
    check_distinct,
    common_folder,
    in_shard,
    parse_shard,
    place_of,
    read_list,
    relative_name,
    stem_of,
)
from vidgen.jobs.engines import Engine, Work, in_processes, in_this_process


def _outputs(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder / "out").with_suffix("").as_posix(): file.read_bytes() for file in (folder / "out").rglob("*.out")
    }


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    return ledger.read(folder / "out").entries


@pytest.mark.parametrize("engine", [in_this_process, in_processes(2)], ids=["here", "processes"])
def test_every_clip_is_done_or_listed_with_its_reason(tmp_path: Path, engine: Engine) -> None:
    contents = {**CONTENTS, "once": b"once", "die": b"die"} if engine is not in_this_process else CONTENTS
    report = batch.run(job_of(tmp_path), clips_of(tmp_path, contents), engine=engine)
    done = {name: data[::-1] for name, data in contents.items() if data not in (b"wrong", b"bug", b"die")}
    assert _outputs(tmp_path) == done
    entries = _entries(tmp_path)
    assert {name.removesuffix(".out") for name, entry in entries.items() if entry["status"] == "done"} == set(done)
    reasons = {name: entry["reason"] for name, entry in entries.items() if entry["status"] == "failed"}
    assert reasons.pop("a/y.out") == "a/y.bin: is wrong"
    assert reasons.pop("b/y.out").startswith("ZeroDivisionError: in a library (jobs_task.py:")
    if engine is not in_this_process:
        assert reasons.pop("die.out") == "the worker died of it (killed by signal 9), 3 times"
    assert reasons == {}
    assert entries["c.out"]["sha256"] == durable.fingerprint(tmp_path / "out/c.out").sha256
    assert (report.num_done, report.num_failed) == (len(done), len(contents) - len(done))
    assert not [file for file in (tmp_path / "out").rglob(".*") if file.suffix != ".lock"]


def test_starting_again_continues_and_tries_again_what_failed(tmp_path: Path) -> None:
    clips = clips_of(tmp_path)
    batch.run(job_of(tmp_path), clips)
    (tmp_path / "in/a/y.bin").write_bytes(b"right")
    (tmp_path / "out/c.out").unlink()
    times = {name: (tmp_path / "out" / f"{name}.out").stat().st_mtime_ns for name in ("a/x", "b/x")}
    report = batch.run(job_of(tmp_path), clips)
    assert (report.num_before, report.num_done, report.num_failed) == (2, 2, 1)
    assert _outputs(tmp_path) == {
        name: (b"right" if name == "a/y" else CONTENTS[name])[::-1] for name in ("a/x", "a/y", "b/x", "c")
    }
    assert {name: (tmp_path / "out" / f"{name}.out").stat().st_mtime_ns for name in times} == times


def test_results_of_another_job_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    clips = clips_of(tmp_path, {"x": b"1"})
    batch.run(job_of(tmp_path), clips)
    with pytest.raises(OutputExistsError, match=r"x\.out: exists already"):
        batch.run(job_of(tmp_path, seconds=0.001), clips)
    report = batch.run(job_of(tmp_path, seconds=0.001), clips, skip_existing=True)
    assert report.skipped == [clips[0].output]
    changed = [Clip(clip.identity, clip.output, {**clip.values, "options": {"seed": 1}}) for clip in clips]
    with pytest.raises(OutputExistsError):
        batch.run(job_of(tmp_path), changed)
    assert batch.run(job_of(tmp_path, seconds=0.001), clips, overwrite=True).num_done == 1


def test_a_foreign_file_that_comes_in_between_is_never_replaced(tmp_path: Path) -> None:
    clips = clips_of(tmp_path, {"x": b"1", "y": b"2"})

    def engine(work: Work, queue: Any, begin: Callable[[Clip], None]) -> Any:
        Path(clips[1].output).parent.mkdir(parents=True, exist_ok=True)
        Path(clips[1].output).write_bytes(b"precious")
        yield from in_this_process(work, queue, begin)

    assert batch.run(job_of(tmp_path), clips, engine=engine).num_failed == 1
    with pytest.raises(OutputExistsError):
        batch.run(job_of(tmp_path), clips)
    assert _outputs(tmp_path) == {"x": b"1", "y": b"precious"}


_DRIVER = """
import sys
from pathlib import Path
from tests.jobs_task import clips_of, job_of
from vidgen.jobs.engines import in_processes, in_this_process
from vidgen.jobs import batch
folder = Path(sys.argv[1])
contents = {f"{index}": b"%d" % index for index in range(40)}
engine = in_processes(2) if sys.argv[2] == "processes" else in_this_process
batch.run(job_of(folder, seconds=0.05), clips_of(folder, contents), engine=engine)
"""


@pytest.mark.parametrize("engine", [pytest.param("here", marks=pytest.mark.slow), "processes"])
def test_a_driver_that_was_killed_continues_where_it_was(tmp_path: Path, engine: str) -> None:
    command = [sys.executable, "-c", _DRIVER, str(tmp_path), engine]
    driver = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(_entries(tmp_path)) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before = len(_entries(tmp_path))
    assert 5 <= before < 40
    with open(tmp_path / "out" / ledger.NAME, "ab") as file:
        file.write(b'{"clip": "7.bin", "output": "7.o')  # as a crash cuts a line off
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert _outputs(tmp_path) == {f"{index}": (b"%d" % index)[::-1] for index in range(40)}
    lines = [line for line in (tmp_path / "out" / ledger.NAME).read_text().splitlines() if '"status": "done"' in line]
    assert len(lines) == len({json.loads(line)["output"] for line in lines}) == 40
    assert ledger.read(tmp_path / "out").num_torn == 1


def test_a_clip_at_which_the_driver_died_again_and_again_is_listed(tmp_path: Path) -> None:
    clips = clips_of(tmp_path, {"x": b"1", "y": b"2"})
    job = job_of(tmp_path)
    with ledger.opened(job.folder, job.digest) as (lines, _):
        for _ in range(batch.MAX_TRIES):
            lines.begin("x.out")
        journal = (job.folder / ".jobs.jsonl.begun").read_bytes()
    (job.folder / ".jobs.jsonl.begun").write_bytes(journal)  # an end in good order removes it
    assert batch.run(job, clips).num_failed == 1
    assert _entries(tmp_path)["x.out"]["reason"] == "the process died 3 times while it worked on this clip"
    assert batch.run(job, clips).num_done == 1  # another try was asked for


def test_a_batch_stopped_in_good_order_suspects_no_clip(tmp_path: Path) -> None:
    clips = clips_of(tmp_path, {"x": b"1"})

    def interrupted(work: Work, queue: Any, begin: Callable[[Clip], None]) -> Any:
        begin(queue.popleft())
        yield from ()
        raise KeyboardInterrupt

    for _ in range(batch.MAX_TRIES + 1):
        with pytest.raises(KeyboardInterrupt):
            batch.run(job_of(tmp_path), clips, engine=interrupted)
    assert batch.run(job_of(tmp_path), clips).num_done == 1


def test_work_that_cannot_begin_is_one_error_and_no_failure_of_a_clip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^model\.safetensors: damaged$") as raised:
        batch.run(job_of(tmp_path, refuse=True), clips_of(tmp_path), engine=in_processes(1))
    assert raised.value.hint == "copy it again"
    assert _entries(tmp_path) == {}


def test_workers_that_cannot_live_end_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(VidgenError, match=r"workers died 6 times in a row without finishing a clip; the last one: exit code 1"):
        batch.run(job_of(tmp_path), clips_of(tmp_path), engine=in_processes(1))


def test_a_full_disk_is_waited_for_and_spoils_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, num_full = os.write, 0

    def write(descriptor: int, data: Any) -> int:
        nonlocal num_full
        if bytes(data).startswith(b'{"clip"') and num_full < 2:
            num_full += 1
            if num_full == 1:
                return real(descriptor, data[:10])
        elif num_full == 1:
            num_full += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(ledger, "_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(os, "write", write)
    batch.run(job_of(tmp_path), clips_of(tmp_path, {"x": b"1", "y": b"2"}))
    record = ledger.read(tmp_path / "out")
    assert num_full == 2
    assert (len(record.entries), record.num_torn) == (2, 1)


def test_a_vanished_output_folder_ends_the_batch_with_one_line(tmp_path: Path) -> None:
    clips = clips_of(tmp_path, {"x": b"1", "y": b"2"})

    def engine(work: Work, queue: Any, begin: Callable[[Clip], None]) -> Any:
        for outcome in in_this_process(work, queue, begin):
            (tmp_path / "out").rename(tmp_path / "elsewhere")
            yield outcome

    with pytest.raises(OutputError, match=r"jobs\.jsonl: vanished while the batch ran"):
        batch.run(job_of(tmp_path), clips, engine=engine)


def test_two_batches_do_not_write_into_one_ledger(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    with ledger.opened(job.folder, job.digest), pytest.raises(BusyError, match=r"out: another batch is writing here \(process"):
        batch.run(job, clips_of(tmp_path))


def test_a_ledger_of_many_clips_is_read_fast(tmp_path: Path) -> None:
    line = {"clip": "drive/0000000.mkv", "job": "0123456789ab-01234567", "status": "done", "seconds": 0.0321, "sha256": "0" * 64}
    text = "".join(json.dumps({**line, "output": f"drive/{index}.mp4"}) + "\n" for index in range(20_000))
    (tmp_path / ledger.NAME).write_text(text)
    started = time.process_time()
    assert len(ledger.read(tmp_path).entries) == 20_000
    assert time.process_time() - started < 2.0  # of 100,000 on a machine five times as fast


# -- names -----------------------------------------------------------------------------------------------------------------


def test_shards_deal_clips_by_their_whole_path(tmp_path: Path) -> None:
    identities = [f"drive{index}/labels.mkv" for index in range(200)]
    parts = [[name for name in identities if in_shard(name, (part, 4))] for part in range(1, 5)]
    assert sorted(name for part in parts for name in part) == sorted(identities)
    assert all(30 < len(part) < 70 for part in parts)
    assert parse_shard(None) == (1, 1)
    for wrong in ("0/2", "3/2", "x", "1/2/3"):
        with pytest.raises(ConfigError, match="`shard`"):
            parse_shard(wrong)


def test_shards_share_a_folder_with_a_ledger_each(tmp_path: Path) -> None:
    clips = clips_of(tmp_path, {f"{index}/labels": b"%d" % index for index in range(12)})
    reports = [batch.run(job_of(tmp_path), clips, shard=(part, 3)) for part in (1, 2, 3)]
    assert sum(report.num_done for report in reports) == 12
    assert all(report.num_done for report in reports)
    assert sorted(file.name for file in (tmp_path / "out").glob("jobs*")) == [f"jobs.{part}-3.jsonl" for part in (1, 2, 3)]
    assert batch.run(job_of(tmp_path), clips).num_before == 12


def test_names_follow_the_tree_of_the_inputs(tmp_path: Path) -> None:
    for name in ("in/a/labels.mkv", "in/b/labels.mkv", "in/v1.5/0.png", "in/c/frames/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sources = ["in/a/labels.mkv[0:2]", "in/b/../b/labels.mkv", "in/v1.5", "in/c/frames/*.png", "in/c/frames/%d.png"]
    places = [place_of(str(tmp_path / source)) for source in sources]
    root = common_folder(places)
    names = [relative_name(place, root) for place in places]
    assert names == ["a/labels.mkv", "b/labels.mkv", "v1.5", "c/frames", "c/frames"]
    assert [stem_of(place, name) for place, name in zip(places, names, strict=True)][:3] == ["a/labels", "b/labels", "v1.5"]


def test_two_clips_of_one_output_are_refused_also_where_names_differ_by_case_alone() -> None:
    with pytest.raises(OutputError, match=r"out/X\.mp4: is to hold two results, of x\.mkv and of X\.mkv"):
        check_distinct([Clip("x.mkv", "out/x.mp4"), Clip("X.mkv", "out/X.mp4")])
    with pytest.raises(OutputError, match=r"x\.mkv is given twice"):
        check_distinct([Clip("x.mkv", "out/x.mp4"), Clip("x.mkv", "out/./x.mp4")])


def _listed(tmp_path: Path, text: str) -> list[Any]:
    (tmp_path / "list.jsonl").write_text(text)
    return list(read_list(tmp_path / "list.jsonl", inputs=("instances",), options=("seed",)))


def test_a_list_says_what_is_special_to_a_clip(tmp_path: Path) -> None:
    first, second = _listed(
        tmp_path, '{"input": "a.mkv", "instances": "/o.mkv", "output": "x/a.mp4", "options": {"seed": 3}}\n\n{"input": "b.mkv"}'
    )
    assert (first.input, first.values, first.output, first.options) == (
        str(tmp_path / "a.mkv"),
        {"instances": "/o.mkv"},
        "x/a.mp4",
        {"seed": 3},
    )
    assert (second.where.rpartition("/")[2], second.output) == ("list.jsonl:3", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"input": "a"}\n{"inptu": "b"}', r"list\.jsonl:2: there is no key 'inptu'; known are input, instances, output, options"),
        ('{"input": "a", "options": {"sede": 1}}', r"list\.jsonl:1: options: there is no key 'sede'"),
        ('{"input": "a"', r"list\.jsonl:1: is no JSON"),
        ('["a"]', r"list\.jsonl:1: is no object"),
        ('{"input": 3}', r"list\.jsonl:1: input is no path"),
        ('{"output": "a"}', r"list\.jsonl:1: input is no path"),
        ('{"input": "a", "options": 1}', r"options is no object"),
        ("\n", r"list\.jsonl: the list names no clip"),
        ("", r"list\.jsonl: the file is empty"),
    ],
)
def test_a_wrong_list_names_the_line_and_what_would_be_right(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises((InputError, ConfigError), match=words):
        _listed(tmp_path, text)


def test_a_list_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgen.jobs.clips.MAX_CLIPS", 3)
    with pytest.raises(InputError, match=r"list\.jsonl:4: a list holds at most 3 clips"):
        _listed(tmp_path, '{"input": "a"}\n' * 5)
