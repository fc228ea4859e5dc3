"""Two thousand clips through the command line, some spoiled, while workers and drivers die: nothing is lost, or done twice."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tools.batches import SPOILERS, simulate, trial, write_clips
from vidgen import cli
from vidgen.commands import batches, jobs
from vidgen.commands.condition import condition_each
from vidgen.errors import ConfigError, InputError, OutputError, PartialFailure
from vidgen.jobs import ledger


@pytest.mark.slow
def test_two_thousand_clips_are_done_once_or_listed_whatever_dies(tmp_path: Path) -> None:
    result = trial(tmp_path, 2000, worker_kills=20, driver_kills=2)
    assert result["faults"] == []
    assert (result["done"] + result["failed"], result["drivers_killed"]) == (2000, 2)
    assert result["workers_killed"] >= 10
    assert result["failed"] >= len(SPOILERS)


def test_clips_spoiled_in_eight_ways_are_listed_and_stop_no_other(tmp_path: Path) -> None:
    listed = write_clips(tmp_path, 24)
    files = sorted((tmp_path / "in").rglob("labels.mkv"))
    for spoil, file in zip(SPOILERS, files, strict=False):
        spoil(file, file.read_bytes())
    with pytest.raises(PartialFailure, match=r"8 of 24 inputs failed; the first: "):
        condition_each([], str(tmp_path / "out"), inputs_list=listed, kind="edges")
    status = jobs.status(tmp_path / "out")
    assert (status["clips"], status["done"], status["failed"], status["left"]) == (24, 16, 8, 0)
    assert all("\n" not in reason and len(reason) < 400 for reason in status["failures"].values())
    outputs = sorted((tmp_path / "out").rglob("*.mp4"))
    assert [file.relative_to(tmp_path / "out").with_name("labels.mkv") for file in outputs] == [
        file.relative_to(tmp_path / "in/000") for file in files[8:]
    ]
    with pytest.raises(PartialFailure, match="8 of 24 clips failed, 0 are left"):
        jobs.enforce(status)

    data = files[-1].read_bytes()
    for file in files[:7]:
        file.unlink()
        file.write_bytes(data)
    with pytest.raises(PartialFailure, match=r"1 of 24 inputs failed; the first: .*: the folder holds no pictures"):
        jobs.retry(tmp_path / "out")
    status = jobs.status(tmp_path / "out")
    assert (status["done"], status["failed"]) == (23, 1)
    assert cli.main(["-q", "jobs", "status", str(tmp_path / "out")]) == 3


def test_a_list_changes_options_of_single_clips(tmp_path: Path) -> None:
    listed = write_clips(tmp_path, 3)
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    lines[0] |= {"output": "named/first.mkv"}
    lines[1] |= {"options": {"end": "1f"}}
    listed.write_text("\n".join(map(json.dumps, lines)))
    result = condition_each([], str(tmp_path / "out"), inputs_list=listed, kind="edges")
    assert [entry["frames"] for entry in result["results"]] == [2, 1, 2]
    assert (tmp_path / "out/named/first.mkv").is_file()
    # The clip whose options change is another piece of work; what is there is not replaced by itself.
    lines[1] |= {"options": {"start": "1f"}}
    listed.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(OutputError, match=r"001/labels\.mp4: exists already"):
        condition_each([], str(tmp_path / "out"), inputs_list=listed, kind="edges")
    for change, error, words in (
        ({"options": {"end": 3}}, ConfigError, r"list\.jsonl:2: options: end: 3 is no value of it"),
        ({"options": {"ned": "3f"}}, ConfigError, r"there is no key 'ned'; known are start, end, seed, line_width"),
        ({"output": "../elsewhere.mp4"}, InputError, r"\.\./elsewhere\.mp4: is to lie in the output folder"),
        ({"output": "named/first.mkv"}, OutputError, r"named/first\.mkv: is to hold two results"),
    ):
        wrong = [lines[0], {"input": lines[1]["input"], **change}]
        listed.write_text("\n".join(map(json.dumps, wrong)))
        with pytest.raises(error, match=words):
            condition_each([], str(tmp_path / "other"), inputs_list=listed, kind="edges")
    assert not (tmp_path / "other").exists()


def test_all_commands_take_batches_and_a_retry_repeats_them(tmp_path: Path) -> None:
    assert set(jobs.COMMANDS) == {"translate", "evaluate", "label", "condition", "animate"}
    for module, function in jobs.COMMANDS.values():
        found = batches._function(f"{module}.{function}")
        named = {field.name for field in dataclasses.fields(batches.Scale)}
        assert named <= set(found.__code__.co_varnames)


def test_each_of_several_videos_gets_scores_of_its_own(tmp_path: Path) -> None:
    listed = write_clips(tmp_path, 2)
    condition_each([], str(tmp_path / "edges"), inputs_list=listed, kind="edges")
    condition_each([], str(tmp_path / "lines"), inputs_list=listed, kind="lines")
    line = f"-q --json evaluate {tmp_path}/edges/**/*.mp4 -o {tmp_path}/scores --target {tmp_path}/lines --metrics psnr".split()
    assert cli.main(line) == 0
    files = sorted((tmp_path / "scores").rglob("labels.json"))
    assert [str(file.relative_to(tmp_path / "scores")) for file in files] == ["000/labels.json", "001/labels.json"]
    assert all(json.loads(file.read_text())["metrics"]["psnr"]["value"] > 0 for file in files)
    assert cli.main(["-q", "evaluate", "a.mp4", "b.mp4"]) == 2
    assert cli.main(["-q", "evaluate", "a.mp4", "--workers", "2"]) == 2


def test_one_video_with_a_folder_for_its_scores_may_be_measured_against_any_other(tmp_path: Path) -> None:
    listed = write_clips(tmp_path, 1)
    for kind in ("edges", "lines"):
        condition_each([], str(tmp_path / kind), inputs_list=listed, kind=kind)
    (video,), (target,) = (list((tmp_path / kind).rglob("*.mp4")) for kind in ("edges", "lines"))
    target.rename(tmp_path / "other.mp4")
    assert cli.main(f"-q evaluate {video} -o {tmp_path}/scores --target {tmp_path}/other.mp4[0:2] --metrics psnr".split()) == 0
    assert json.loads((tmp_path / "scores/labels.json").read_text())["metrics"]["psnr"]["value"] > 0


def test_folders_without_a_batch_and_options_of_another_engine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{tmp_path.name}: holds no batch; jobs\.jsonl is missing or empty"):
        jobs.status(tmp_path)
    (tmp_path / ledger.NAME).write_text('{"job": "x", "command": "fly", "clips": 1, "arguments": {}, "shard": null}\n')
    with pytest.raises(InputError, match="was written by 'fly', which this version does not know"):
        jobs.retry(tmp_path)
    listed = write_clips(tmp_path, 2)
    for options, words in (({"address": "auto"}, "`address` auto: is for clusters"), ({"gpus": 0.5}, "`gpus` 0.5")):
        with pytest.raises(ConfigError, match=words):
            condition_each([], str(tmp_path / "out"), inputs_list=listed, kind="edges", **options)


def test_a_simulated_batch_is_no_faster_than_its_parts() -> None:
    times = {"clip_seconds": 30.0, "start_seconds": 20.0, "overhead_seconds": 0.005}
    one = simulate(100, 1, **times, deaths_per_hour=0)
    many = simulate(10_000, 100, **times, deaths_per_hour=0)
    spoiled = simulate(10_000, 100, **times, deaths_per_hour=10)
    assert one["efficiency"] > 0.99
    assert one["hours"] * 0.9 < many["hours"] < one["hours"] * 1.5
    assert spoiled["deaths"] > 100
    assert spoiled["hours"] > many["hours"]


def test_the_trial_is_a_tool_of_its_own() -> None:
    command = [sys.executable, "tools/batches.py", "simulate", "--clips", "100", "--workers", "4"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["clips"] == 100
