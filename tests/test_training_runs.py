"""Runs as a user meets them: killed, resumed, interrupted, doubled, damaged, moved; one process or two."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.conftest import REPOSITORY
from vidgen import cli, durable
from vidgen.commands.train import train
from vidgen.errors import BusyError, CheckpointError, ConfigError, InputError, OutputError, TrainingError
from vidgen.training import run
from vidgen.training import settings as run_settings
from vidgen.translators import available
from vidgen.weights import checkpoints, files


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path, tiny.write_data(tmp_path / "data"))


@pytest.fixture
def quick_config(tmp_path: Path) -> Path:
    """Of a translator without past and growth, whose steps take a sixth of the time, for what is the same for all."""
    return tiny.write_config(tmp_path, tiny.write_data(tmp_path / "data"), "pix2pix")


def _log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _weights(folder: Path) -> dict[str, str]:
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: path.name)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(newest.glob("*.safetensors"))}


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def _killing(tmp_path: Path, num_kills: int, *kinds: str, steps_per_epoch: int = 4) -> dict[str, dict]:
    command = [sys.executable, "-m", "tests.killing", str(tmp_path), str(num_kills), str(steps_per_epoch), *kinds]
    done = subprocess.run(command, cwd=REPOSITORY, env=_environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Kills are spread over the run, one for each of its stages."""
    for kind, num_stages in (("vid2vid", 4), ("pix2pixhd", 4)):
        settings = run_settings.load_run_config(tiny.write_config(tmp_path, tmp_path, kind), [])
        stages = available()[kind].stages(settings.model, 2)
        assert (len(stages), sum(stage.num_steps for stage in stages)) == (num_stages, 10)
    for result in _killing(tmp_path, 4, "vid2vid", "pix2pixhd", steps_per_epoch=2).values():
        assert result["differing"] == []
        assert result["resumed_from_checkpoint"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "num_kills"), [("vid2vid", 40), ("pix2pix", 10), ("pix2pixhd", 10)])
def test_many_killed_runs_go_on_to_the_same_bits(tmp_path: Path, kind: str, num_kills: int) -> None:
    result = _killing(tmp_path, num_kills, kind)[kind]
    assert result["differing"] == []
    assert result["resumed_from_checkpoint"] >= 0.75 * num_kills


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(config: Path, tmp_path: Path) -> None:
    for name, sets in (("a", []), ("b", ["data.workers=0"]), ("c", ["data.workers=3"]), ("d", ["train.seed=1"])):
        train(config, tmp_path / name, sets=sets, steps=4)
    first = _weights(tmp_path / "a")["optimizers.safetensors"]
    assert _log(tmp_path / "a") == _log(tmp_path / "b") == _log(tmp_path / "c") != _log(tmp_path / "d")
    assert first == _weights(tmp_path / "b")["optimizers.safetensors"] != _weights(tmp_path / "d")["optimizers.safetensors"]


def test_a_run_may_be_made_longer_and_moved_but_not_changed(quick_config: Path, tmp_path: Path) -> None:
    train(quick_config, tmp_path / "whole", steps=8)
    train(quick_config, tmp_path / "parts", steps=5)
    (tmp_path / "parts").rename(tmp_path / "moved")
    result = train(quick_config, tmp_path / "moved", steps=8, sets=["data.workers=0"])
    assert result["steps"] == 8
    assert _log(tmp_path / "moved") == _log(tmp_path / "whole")
    with pytest.raises(CheckpointError, match=r"other settings \(train.seed was 0, is 3\)"):
        train(quick_config, tmp_path / "moved", sets=["train.seed=3"])


def test_a_finished_run_is_trained_longer_by_more_steps(quick_config: Path, tmp_path: Path) -> None:
    assert train(quick_config, tmp_path / "run")["steps"] == 20
    assert train(None, tmp_path / "run", resume=True, steps=24)["steps"] == 24
    log = _log(tmp_path / "run")
    assert [entry["step"] for entry in log] == list(range(1, 25))
    assert 0 < log[-1]["learning_rate"] < log[20]["learning_rate"] < log[0]["learning_rate"]


def test_a_run_is_trained_longer_by_more_epochs_and_keeps_what_it_learned(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(config, tmp_path / "run")
    before = _weights(tmp_path / "run")["model.safetensors"]
    caplog.set_level("INFO", "vidgen")
    more = ["model.schedules.0.decay_epochs=3"]
    assert train(None, tmp_path / "run", sets=more, resume=True)["steps"] == 24
    assert "the schedule has 24 steps; it had 20 (model.schedules.0.decay_epochs was 2, is 3)" in caplog.text
    assert _weights(tmp_path / "run")["model.safetensors"] != before
    with pytest.raises(CheckpointError, match=r"24 steps are done, more than the schedule now has \(16"):
        train(None, tmp_path / "run", sets=["model.schedules.0.decay_epochs=1"], resume=True)
    with pytest.raises(CheckpointError, match=r"is in the stage .* but with this schedule it would be in .*trains differently"):
        train(None, tmp_path / "run", sets=["model.schedules.0.grow_every_epochs=20"], resume=True)


def test_a_changed_setting_is_named_alone_and_not_with_the_list_it_is_in(quick_config: Path, tmp_path: Path) -> None:
    train(quick_config, tmp_path / "run", steps=3)
    with pytest.raises(CheckpointError) as caught:
        train(quick_config, tmp_path / "run", sets=["model.generator.num_blocks=1"])
    assert "(model.generator.num_blocks was 2, is 1)" in str(caught.value)


def test_more_steps_than_the_schedule_has_make_its_last_stage_longer(quick_config: Path, tmp_path: Path) -> None:
    assert train(quick_config, tmp_path / "run", steps=22)["steps"] == 22


def test_two_processes_give_the_losses_of_one(config: Path, tmp_path: Path) -> None:
    sets = ["train.batch_size=2"]
    train(config, tmp_path / "one", sets=sets, steps=4)
    command = [sys.executable, "-m", "vidgen", "train", str(config), "-o", str(tmp_path / "two"), "--set", sets[0]]
    done = subprocess.run(
        [*command, "--steps", "4", "--devices", "2"],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = _log(tmp_path / "one"), _log(tmp_path / "two")
    assert [line["step"] for line in two] == [1, 2, 3, 4]
    for a, b in zip(one, two, strict=True):
        assert a["losses"] == pytest.approx(b["losses"], rel=2e-4)


def _workers(launcher: int) -> list[int]:
    """The training processes among the descendants of a launcher."""
    found, waiting = [], [launcher]
    while waiting:
        parent = waiting.pop()
        for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
            waiting += [int(child) for child in tasks.read_text().split()]
        if parent != launcher and b"RANK=" in Path(f"/proc/{parent}/environ").read_bytes():
            found.append(parent)
    return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_of_which_one_is_killed_go_on_to_the_same_bits(quick_config: Path, tmp_path: Path, rank: int) -> None:
    def start(folder: Path) -> subprocess.Popen[str]:
        sets = ["--set", "train.batch_size=2", "--set", "train.steps_per_epoch=40", "--set", "train.checkpoint_every_steps=20"]
        command = [sys.executable, "-m", "vidgen", "train", str(quick_config), "-o", str(folder), *sets, "--devices", "2"]
        return subprocess.Popen(command, env=_environment(), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)

    undisturbed = start(tmp_path / "whole")
    _, said = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, said
    folder = tmp_path / "killed"
    disturbed = start(folder)
    while _log_lines(folder) < 50:
        time.sleep(0.01)
        assert disturbed.poll() is None
    os.kill(_workers(disturbed.pid)[rank], signal.SIGKILL)
    disturbed.communicate(timeout=120)
    assert disturbed.returncode != 0
    assert _log_lines(folder) < 200
    resumed = start(folder)
    _, said = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, said
    assert (_log(folder), _weights(folder)) == (_log(tmp_path / "whole"), _weights(tmp_path / "whole"))


def test_clips_that_cannot_be_dealt_out_are_refused(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size: 3 clips cannot be dealt out to 1 processes in groups of 2"):
        train(config, tmp_path / "run", sets=["train.batch_size=3", "train.micro_batch_size=2"], steps=1)


def test_two_clips_at_once_train_like_one_after_the_other_where_statistics_are_per_sample(config: Path, tmp_path: Path) -> None:
    common = [
        "train.batch_size=2", "model.generator.norm=instance", "model.discriminators.norm=instance",
        "model.past.noise=0", "model.past.dropout=0",
    ]  # fmt: skip
    train(config, tmp_path / "single", sets=common, steps=1)
    train(config, tmp_path / "pair", sets=[*common, "train.micro_batch_size=2"], steps=1)
    # not closer: Adam makes noise of the zero gradient that a bias before a normalisation has
    assert _log(tmp_path / "single")[0]["losses"] == pytest.approx(_log(tmp_path / "pair")[0]["losses"], rel=0.01)


@contextmanager
def _signaled(folder: Path, number: signal.Signals) -> Iterator[None]:
    """Send a signal to this process once the log of the run has a line. One that nobody handles is an error of the test alone."""
    stopped = threading.Event()

    def send() -> None:
        while not stopped.wait(0.01):
            if _log_lines(folder):
                os.kill(os.getpid(), number)
                return

    def unhandled(*_: object) -> None:
        raise AssertionError("nobody handles the signal")

    previous = signal.signal(signal.SIGTERM, unhandled)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stopped.set()
        sender.join()
        signal.signal(signal.SIGTERM, previous)


def _log_lines(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    quick_config: Path, tmp_path: Path, number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    sets = ["data.workers=2", "train.steps_per_epoch=4000", "train.checkpoint_every_steps=100000"]
    with _signaled(folder, number):
        assert (
            cli.main(["train", str(quick_config), "-o", str(folder), *(word for text in sets for word in ("--set", text))]) == code
        )
    text = capsys.readouterr().err
    done = _log_lines(folder)
    assert 0 < done < 20_000
    assert (folder / "checkpoints" / f"step-{done:07d}").is_dir()
    assert f"saved after step {done}" in text
    assert "--resume" in text


def test_a_second_run_in_one_folder_is_refused(quick_config: Path, tmp_path: Path) -> None:
    with run.Folder(tmp_path / "run").locked(), pytest.raises(BusyError, match=r"another training is running here \(process \d+\)"):
        train(quick_config, tmp_path / "run", steps=1)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "samples/photo.png", "checkpoints/step-0000007/model.safetensors"]
)
def test_a_folder_that_is_no_run_is_left_alone(quick_config: Path, tmp_path: Path, name: str, overwrite: bool) -> None:
    precious = tmp_path / "mine" / name
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"years of work")
    with pytest.raises(OutputError, match="holds no run, but other things"):
        train(quick_config, tmp_path / "mine", steps=1, overwrite=overwrite)
    assert _contents(tmp_path / "mine") == {name: b"years of work"}


def test_a_run_that_is_discarded_leaves_what_others_put_there(quick_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(quick_config, folder, steps=6, sets=["train.sample_every_steps=3"])
    others = {"notes.txt", "samples/best.png", "checkpoints/notes.txt", "checkpoints/step-0000006/notes.txt"}
    for name in others:
        (folder / name).write_text("mine")
    train(quick_config, folder, steps=3, overwrite=True)
    assert others < _contents(folder).keys()
    assert os.listdir(folder / "checkpoints" / "step-0000006") == ["notes.txt"]
    assert not (folder / "samples" / "step-0000006.png").exists()
    assert _log(folder)[-1]["step"] == 3


def test_a_run_stopped_before_its_first_checkpoint_starts_again_the_same_and_no_other(quick_config: Path, tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    for place in (whole, folder):
        train(quick_config, place, steps=3)
    shutil.rmtree(folder / "checkpoints")
    before = _contents(folder)
    with pytest.raises(CheckpointError, match=r"other settings \(train.seed was 0, is 3\)"):
        train(quick_config, folder, steps=3, sets=["train.seed=3"])
    assert _contents(folder) == before
    train(quick_config, folder, steps=3)
    assert (_log(folder), _weights(folder)) == (_log(whole), _weights(whole))


def test_the_folder_of_a_run_stands_for_its_configuration(quick_config: Path, tmp_path: Path) -> None:
    train(quick_config, tmp_path / "whole", steps=6)
    train(quick_config, tmp_path / "run", steps=3)
    result = train(tmp_path / "run", resume=True, steps=6)
    assert (result["run"], result["steps"]) == (str(tmp_path / "run"), 6)
    assert _weights(tmp_path / "run") == _weights(tmp_path / "whole")
    with pytest.raises(ConfigError, match=r"data: is a folder without config\.yaml"):
        train(tmp_path / "data", resume=True)


def test_the_log_and_the_lock_of_a_run_are_never_opened_through_links(quick_config: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    for name in ("run.lock", "metrics.jsonl"):
        folder = tmp_path / name
        train(quick_config, folder, steps=1)
        (folder / name).unlink()
        (folder / name).symlink_to(precious)
        if name == "run.lock":
            with pytest.raises(OutputError, match=r"run\.lock: is a symbolic link"):
                train(quick_config, folder, steps=2)
        else:
            train(quick_config, folder, steps=2)
            assert not (folder / name).is_symlink()
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe garbage\n", b'{"step": 2\n', b'["step", 3]\n', b"[" * 100_000 + b"\n", b"\0" * 50 + b"\n"]
)
def test_a_damaged_line_of_the_log_stops_no_resume_and_costs_no_other_line(
    quick_config: Path, tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    train(quick_config, folder, steps=3)
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(lines[0] + damage + b"".join(lines[1:]) + b'{"step": 4, "loss')
    train(quick_config, folder, steps=4)
    assert [line["step"] for line in _log(folder)] == [1, 2, 3, 4]
    said = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert said == [f"{folder}: 1 line of metrics.jsonl cannot be read and is left out; the others are kept"]


@contextmanager
def _small_disk(num_bytes: int) -> Iterator[None]:
    """No file of this process can become larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_under_the_log_is_told_in_one_line(
    quick_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set", "train.checkpoint_every_steps=1000", "--set", "train.steps_per_epoch=40"]
    with _small_disk(4400):
        assert cli.main(["train", str(quick_config), "-o", str(tmp_path / "run"), *sets]) == 1
    assert re.search(r"^error: .*metrics\.jsonl: no space left to write", capsys.readouterr().err, re.MULTILINE)


def test_the_newest_step_wins_whatever_the_clock_says(quick_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(quick_config, folder, steps=6)
    older, newer = sorted((folder / "checkpoints").iterdir())
    os.utime(older, (2e9, 2e9))
    os.utime(newer, (1e9, 1e9))
    found = checkpoints.newest(folder / "checkpoints")
    assert found is not None
    assert found.progress.step == 6


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(quick_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(quick_config, folder, steps=6)
    weights = folder / "checkpoints" / "step-0000006" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    warnings: list[str] = []
    found = checkpoints.newest(folder / "checkpoints", warnings.append)
    assert found is not None
    assert found.progress.step == 3
    assert "damaged" in warnings[0]
    train(quick_config, folder, steps=6)
    whole = tmp_path / "whole"
    train(quick_config, whole, steps=6)
    assert _log(folder) == _log(whole)


@pytest.mark.parametrize("name", ["state.json", "manifest.json"])
def test_no_flipped_bit_of_the_small_files_of_a_checkpoint_passes(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "step-0000003"
    progress = checkpoints.Progress(step=3, stage=1, seconds=12.5)
    checkpoints.write_checkpoint(tmp_path, progress, {"model.safetensors": b"x" * 100, "ema.safetensors": b"y" * 50}, keep=2)
    whole = checkpoints.verified(folder)
    assert whole.progress == progress
    content = (folder / name).read_bytes()
    passed = []
    for place in range(8 * len(content)):
        data = bytearray(content)
        data[place // 8] ^= 1 << place % 8
        (folder / name).write_bytes(data)
        try:
            found = checkpoints.verified(folder)
        except CheckpointError:
            continue
        passed.append((place, found == whole))
    assert all(same for _, same in passed)
    assert name == "manifest.json" or not passed
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"(state|manifest)\.json"):
        checkpoints.verified(folder)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_as_many_checkpoints_are_kept_as_are_asked_for_and_the_newest(tmp_path: Path, keep: int) -> None:
    for step in range(1, 6):
        checkpoints.write_checkpoint(tmp_path, checkpoints.Progress(step=step), {"model.safetensors": b"x"}, keep=keep)
        kept = [path.name for path in checkpoints.by_step(tmp_path)]
        assert kept == [f"step-{number:07d}" for number in range(step, max(0, step - keep), -1)]


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, 3)
    (tmp_path / "step-0000003").rename(tmp_path / "step-0000007")
    with pytest.raises(CheckpointError, match="its name and files speak of the steps 3, 7"):
        checkpoints.verified(tmp_path / "step-0000007")
    (tmp_path / "step-0000007").rename(tmp_path / "best")
    assert checkpoints.verified(tmp_path / "best").progress.step == 3


def _as_written_before(folder: Path) -> None:
    """A checkpoint of today in the layout of format 1."""
    manifest = json.loads((folder / "manifest.json").read_text())
    state = json.loads((folder / "state.json").read_text())
    hashes = {name: digest for name, (_, digest) in manifest["files"].items() if name != "state.json"}
    state["progress"]["bad_steps"] = state["progress"].pop("nonfinite_steps")
    (folder / "state.json").write_text(json.dumps({**state, "format_version": 1, "sha256": hashes}))
    (folder / "manifest.json").unlink()


def test_a_checkpoint_without_a_manifest_still_resumes_with_a_note(
    quick_config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("whole", "old"):
        train(quick_config, tmp_path / name, steps=3)
    _as_written_before(tmp_path / "old" / "checkpoints" / "step-0000003")
    for name in ("whole", "old"):
        train(quick_config, tmp_path / name, steps=6)
    assert _weights(tmp_path / "old") == _weights(tmp_path / "whole")
    assert "written by an earlier version; its weights are whole, its state.json cannot be checked" in caplog.text


def _doctor(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict, str]:
    code = cli.main(["--json", "doctor", str(folder)])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_the_doctor_says_what_of_a_run_is_whole_damaged_and_resumable(
    quick_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    train(quick_config, folder, steps=6)
    before = _contents(folder)
    code, report, said = _doctor(folder, capsys)
    assert (code, said) == (0, "")
    assert report["checkpoints"] == {"step-0000006": "whole", "step-0000003": "whole"}
    assert (report["configuration"], report["log"], report["training"]) == ("whole", "whole, 6 steps", "not running")
    assert (report["resumable"], report["damaged"]) == ("yes, from step 6", 0)
    assert _contents(folder) == before

    state = folder / "checkpoints" / "step-0000006" / "state.json"
    state.write_bytes(state.read_bytes().replace(b'"step": 6', b'"step": 7'))
    with open(folder / "metrics.jsonl", "ab") as log:
        log.write(b"\xff\n")
    with run.Folder(folder).locked():
        code, report, said = _doctor(folder, capsys)
    assert code == 3
    assert report["checkpoints"]["step-0000006"] == "damaged: state.json: damaged (its SHA-256 is not the recorded one)"
    assert report["log"] == "damaged: 1 line of metrics.jsonl cannot be read and is left out"
    assert report["training"] == f"running now (process {os.getpid()})"
    assert report["resumable"] == "yes, from step 3"
    assert said == f"error: {folder}: 2 parts are damaged; training can go on without\n"

    _as_written_before(folder / "checkpoints" / "step-0000003")
    assert _doctor(folder, capsys)[1]["checkpoints"]["step-0000003"].startswith("whole (written by an earlier version")
    (folder / "checkpoints" / "step-0000003" / "ema.safetensors").unlink()
    code, report, said = _doctor(folder, capsys)
    assert (code, report["resumable"]) == (1, "no: none of its checkpoints is whole")
    assert report["checkpoints"]["step-0000003"] == "damaged: ema.safetensors: missing"

    (folder / "config.yaml").write_bytes(b"\0\xff")
    assert _doctor(folder, capsys)[1]["configuration"].startswith("damaged: ")
    assert cli.main(["doctor", str(tmp_path / "data")]) == 2


def test_no_usable_checkpoint_is_an_error_not_a_fresh_start(quick_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(quick_config, folder, steps=1)
    for path in folder.glob("checkpoints/*/state.json"):
        path.write_text("{")
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        train(quick_config, folder, steps=2)


def test_resume_without_a_run_is_refused(quick_config: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        train(quick_config, tmp_path / "run", resume=True)


def test_weights_of_another_shape_are_refused_by_name(config: Path, tmp_path: Path) -> None:
    train(config, tmp_path / "run", steps=1)
    with pytest.raises(
        CheckpointError, match=r"its generator does not fit this model; \d+ of \d+ weights differ, such as generator\."
    ):
        train(config, tmp_path / "wide", sets=["model.generator.base_channels=8"], init=tmp_path / "run", steps=1)


def test_init_takes_what_fits_where_the_data_have_other_classes(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(config, tmp_path / "run", steps=1)
    caplog.set_level("INFO", "vidgen")
    more = ["data.condition.labels.num_classes=6"]
    train(config, tmp_path / "more", sets=more, init=tmp_path / "run", steps=1)
    assert "starting from" in caplog.text
    assert "start anew: discriminator, generator.0.condition_down.0.conv" in caplog.text


def test_init_starts_from_the_weights_of_another_run(config: Path, tmp_path: Path) -> None:
    train(config, tmp_path / "run", steps=3)
    train(config, tmp_path / "tuned", init=tmp_path / "run", steps=1, sets=["train.seed=5"])
    train(config, tmp_path / "fresh", steps=1, sets=["train.seed=5"])
    assert _log(tmp_path / "tuned")[0]["losses"]["l1"] != _log(tmp_path / "fresh")[0]["losses"]["l1"]


def test_losses_that_stay_non_finite_stop_the_run_and_spare_the_checkpoint(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    train(config, folder, steps=3)
    from vidgen.translators.vid2vid import Vid2Vid

    original = Vid2Vid.losses
    monkeypatch.setattr(
        Vid2Vid,
        "losses",
        lambda *arguments: {name: value * float("nan") for name, value in original(*arguments).items()},
    )
    with pytest.raises(TrainingError, match=r"losses .*l1.* not finite for 3 steps in a row"):
        train(config, folder, sets=["train.max_nonfinite_steps=2"], overwrite=False, steps=20)
    found = checkpoints.newest(folder / "checkpoints")
    assert found is not None
    weights = found.read(checkpoints.MODEL)
    assert weights is not None
    assert found.progress.step == 3
    assert all(torch.isfinite(tensor).all() for tensor in weights.tensors.values())


class _Failing(durable.Operations):
    """Fails at the n-th operation, as a full disk or a crash would."""

    def __init__(self, fail_at: int, error: BaseException) -> None:
        self.count = 0
        self.names: list[str] = []
        self._fail_at = fail_at
        self._error = error

    def _step(self, name: str) -> None:
        self.count += 1
        self.names.append(name)
        if self.count == self._fail_at:
            raise self._error

    def write(self, path: Path, data: bytes | memoryview) -> None:
        if self.count + 1 == self._fail_at:
            super().write(path, bytes(data)[: len(data) // 2])
        self._step("write")
        super().write(path, data)

    def make_folder(self, path: Path) -> None:
        self._step("make_folder")
        super().make_folder(path)

    def sync(self, path: Path) -> None:
        self._step("sync")
        super().sync(path)

    def replace(self, source: Path, target: Path) -> None:
        self._step("replace")
        super().replace(source, target)


class _Crash(BaseException):
    """Stands for the end of the process."""


def _write(folder: Path, step: int) -> None:
    checkpoints.write_checkpoint(folder, checkpoints.Progress(step=step), {"model.safetensors": b"x" * step * 100}, keep=2)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(5, "Input/output error"), _Crash()])
def test_a_fault_at_any_operation_of_a_checkpoint_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    for fail_at in range(1, 50):
        folder = tmp_path / str(fail_at)
        _write(folder, 1)
        operations = _Failing(fail_at, error)
        monkeypatch.setattr(durable, "operations", operations)
        failed = False
        try:
            _write(folder, 2)
        except (OutputError, _Crash):
            failed = True
        monkeypatch.setattr(durable, "operations", durable.Operations())
        found = checkpoints.newest(folder)
        assert found is not None
        assert found.progress.step in ((1, 2) if failed else (2,))
        if isinstance(error, OSError):
            assert not list(folder.rglob(f"*{durable.PART}*"))
        if not failed:
            assert fail_at > 5
            return
    raise AssertionError("the writer never succeeded")


def test_a_fault_while_a_folder_is_replaced_brings_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "frames"
    for fail_at in range(1, 50):
        durable.write_folder(target, {"old.png": b"old"})
        monkeypatch.setattr(durable, "operations", _Failing(fail_at, OSError(5, "Input/output error")))
        failed = False
        try:
            durable.write_folder(target, {"new.png": b"new"})
        except OutputError:
            failed = True
        monkeypatch.setattr(durable, "operations", durable.Operations())
        names = [path.name for path in target.iterdir()]
        assert names in ([["new.png"], ["old.png"]] if failed else [["new.png"]])
        durable.operations.remove(target)
        if not failed:
            assert fail_at > 6
            return
    raise AssertionError("the writer never succeeded")


def test_a_checkpoint_is_synced_before_and_its_folder_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operations = _Failing(-1, _Crash())
    monkeypatch.setattr(durable, "operations", operations)
    _write(tmp_path, 1)
    names = operations.names
    assert names[-2:] == ["replace", "sync"]
    assert names[names.index("replace") - 1] == "sync"
    assert names.count("write") == 3
    assert names.count("sync") == 5


def test_a_full_disk_stops_training_with_one_line_and_keeps_the_old_checkpoint(
    quick_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    train(quick_config, folder, steps=3)
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    with _small_disk(size // 4):
        assert cli.main(["train", str(quick_config), "-o", str(folder), "--steps", "9"]) == 1
    said = capsys.readouterr().err
    assert "no space left" in said
    assert "Traceback" not in said
    found = checkpoints.newest(folder / "checkpoints")
    assert found is not None
    assert found.progress.step == 3


def test_stale_parts_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    stale = durable.part_path(tmp_path / "step-0000002")
    stale.mkdir(parents=True)
    (stale / "model.safetensors").write_bytes(b"half")
    _write(tmp_path, 2)
    assert not stale.exists()
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.progress.step == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04....", "PyTorch pickle"),
        (b"\x80\x02}q\x00.", "PyTorch pickle"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "truncated"),
    ],
)
def test_a_file_that_is_no_weights_says_what_it_is(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=expected):
        files.read_weights(path)


def test_a_dry_run_reports_sizes_and_writes_nothing(config: Path, tmp_path: Path) -> None:
    report = train(config, tmp_path / "run", dry_run=True)
    assert report["parameters"]["generator"] > 1000
    assert report["memory_mb"] > 0
    assert [row["steps"] for row in report["stages"]] == [8, 4, 4, 4]
    assert "config" not in report
    assert not (tmp_path / "run").exists()


def test_a_dry_run_is_short_and_allocates_no_network(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A generator of more than 40 GB of weights is described in the memory that there is."""
    sets = ["--set", "model.generator.base_channels=8192", "--set", "model.generator.num_blocks=1"]
    assert cli.main(["train", str(config), "-o", str(tmp_path / "run"), "--dry-run", *sets]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) < 20
    (size,) = (int(line.split()[1]) for line in shown if line.split()[0] == "generator")
    assert size > 10**10
    assert any("8 steps of 6 frames of 48x32" in line for line in shown)


def test_a_label_outside_the_table_names_the_file_the_value_and_the_range(quick_config: Path, tmp_path: Path) -> None:
    import numpy as np

    from vidgen.media.images import write_png

    write_png(tmp_path / "data" / "labels" / "clip0" / "004.png", np.full((tiny.HEIGHT, tiny.WIDTH), 9, np.uint8))
    with pytest.raises(InputError, match=r"004\.png.*9.*0"):
        train(quick_config, tmp_path / "run", steps=8)


def test_samples_and_tensorboard_are_written_and_change_nothing(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(config, tmp_path / "plain", steps=4)
    train(config, tmp_path / "watched", steps=4, sets=["train.sample_every_steps=2", "train.tensorboard=true"])
    assert _log(tmp_path / "plain") == _log(tmp_path / "watched")
    names = {path.name for path in (tmp_path / "watched" / "samples").iterdir()}
    assert names == {f"step-000000{step}.{suffix}" for step in (2, 4) for suffix in ("png", "mp4")}
    assert list((tmp_path / "watched" / "tensorboard").iterdir())


def test_a_run_that_is_to_stop_early_is_gone_on_with_by_the_same_call(quick_config: Path, tmp_path: Path) -> None:
    first = train(quick_config, tmp_path / "run", stop_after_seconds=0.0)
    assert first["steps"] == 1
    assert "before its end" in first["ended"]
    second = train(quick_config, tmp_path / "run", steps=3)
    assert (second["steps"], second["ended"]) == (3, "complete")


def test_a_time_limit_shortens_every_stage_so_that_the_schedule_is_complete(quick_config: Path, tmp_path: Path) -> None:
    long = ["model.schedule={epochs: 3000, decay_epochs: 2000}"]
    result = train(quick_config, tmp_path / "run", sets=long, time_limit_seconds=2.0)
    assert result["ended"] == "complete"
    assert 2 <= result["steps"] == result["of_steps"] < 20_000
    stretch = run_settings.load_run_config(tmp_path / "run" / "config.yaml", []).train.stretch
    assert stretch < 1
    rates = [line["learning_rate"] for line in _log(tmp_path / "run")]
    assert rates[0] == 2e-4
    assert rates[-1] < 2e-4, "the decay is part of the shortened schedule"


def test_a_resumed_run_keeps_the_plan_of_its_time_limit(quick_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(quick_config, folder, time_limit_seconds=1.5, stop_after_seconds=0.0)
    before = run_settings.load_run_config(folder / "config.yaml", []).train.stretch
    result = train(quick_config, folder, time_limit_seconds=1.5)
    assert run_settings.load_run_config(folder / "config.yaml", []).train.stretch == before
    assert result["ended"] == "complete"
