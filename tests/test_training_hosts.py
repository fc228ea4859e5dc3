"""Training in several processes on one or more machines: all end when one does, and any number of them goes on with the run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.conftest import REPOSITORY
from vidgen.commands.train import train
from vidgen.errors import ConfigError, Unfinished

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path, tiny.write_data(tmp_path / "data", num_sequences=4))


def _losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line)["losses"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _command(config: Path, out: Path, *options: str) -> list[str]:
    fixed = ("--set", "train.batch_size=4", "--set", "train.checkpoint_every_steps=1")
    return [sys.executable, "-m", "vidgen", "train", str(config), "-o", str(out), *fixed, *options]


def _wait_for_steps(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        checkpoints = [path for path in (out / "checkpoints").glob("step-*") if not path.name.startswith(".")]
        if len(checkpoints) >= min(count, 2) and len(_losses(out)) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"only {len(_losses(out)) if out.exists() else 0} steps; {process.poll()}")


def _children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.mark.slow
def test_a_run_that_stops_in_time_says_so_to_a_scheduler(config: Path, tmp_path: Path) -> None:
    with pytest.raises(Unfinished, match=r"saved after step 1 of 2; the same command goes on") as raised:
        train(config, tmp_path / "run", steps=2, stop_after_seconds=1e-6, requeue=True)
    assert raised.value.exit_code == 75
    assert train(config, tmp_path / "run", steps=2, requeue=True)["ended"] == "complete"


def test_machines_need_a_place_to_meet(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="`rendezvous` nowhere: cannot be reached"):
        train(config, tmp_path / "run", hosts=2, rendezvous="nowhere")
    with pytest.raises(ConfigError, match="`hosts` 2: they need a place to meet"):
        train(config, tmp_path / "run", hosts=2)


def _run(config: Path, out: Path, *options: str) -> None:
    done = subprocess.run(
        _command(config, out, *options), env=ENVIRONMENT, cwd=REPOSITORY, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _moments(out: Path) -> dict[str, torch.Tensor]:
    """What the optimizers know of the gradients."""
    newest = max((out / "checkpoints").iterdir(), key=lambda path: path.name)
    tensors = load_file(newest / "optimizers.safetensors")
    return {name: tensor for name, tensor in tensors.items() if tensor.numel() > 1}


def _largest_of_kind(moments: dict[str, torch.Tensor], name: str) -> float:
    """Of first or second moments of one network."""
    network, kind = name.split("/")[0], name.split("/")[-1]
    ours = [tensor for other, tensor in moments.items() if other.split("/")[0] == network and other.endswith(f"/{kind}")]
    return max(float(tensor.abs().max()) for tensor in ours)


@pytest.mark.slow
def test_any_number_of_processes_goes_on_with_the_losses_and_gradients_of_one(config: Path, tmp_path: Path) -> None:
    _run(config, tmp_path / "begun", "--devices", "2", "--steps", "2")
    for devices in ("1", "2", "4"):
        shutil.copytree(tmp_path / "begun", tmp_path / devices)
        _run(config, tmp_path / devices, "--devices", devices, "--steps", "3")
    expected = _moments(tmp_path / "1")
    for devices in ("2", "4"):
        # One step alone: then Adam, which divides by the size of a gradient, makes much of a rounding.
        assert _losses(tmp_path / devices)[-1] == pytest.approx(_losses(tmp_path / "1")[-1], rel=1e-5)
        found = _moments(tmp_path / devices)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            largest, own = _largest_of_kind(expected, name), float(tensor.abs().max())
            # Some gradients are zero but for rounding, such as those of biases before a normalization.
            rtol, atol = (1e-3, 1e-4 * own) if own > 0.01 * largest else (0, 0.01 * largest)
            assert torch.allclose(found[name], tensor, rtol=rtol, atol=atol + 1e-9), name


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_every_process_ends_when_one_does_and_is_started_again(config: Path, tmp_path: Path, devices: int) -> None:
    command = _command(config, tmp_path / "run", "--devices", str(devices), "--steps", "8")
    process = subprocess.Popen(command, env=ENVIRONMENT, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    _wait_for_steps(tmp_path / "run", 2, process)
    (agent,) = _children(process.pid)
    workers = _children(agent)
    assert len(workers) == devices
    os.kill(workers[-1], signal.SIGKILL)
    began = time.monotonic()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "one of the processes failed" in errors
    assert time.monotonic() - began < 60
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)

    again = subprocess.Popen([*command, "--restarts", "1"], env=ENVIRONMENT, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    _wait_for_steps(tmp_path / "run", 4, again)
    (agent,) = _children(again.pid)
    os.kill(_children(agent)[0], signal.SIGKILL)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors[-2000:]
    _run(config, tmp_path / "quiet", "--devices", str(devices), "--steps", "8")
    assert _losses(tmp_path / "quiet") == _losses(tmp_path / "run")


# -- two machines, as two network namespaces --------------------------------------------------------------------------------


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def _two_hosts() -> Iterator[tuple[str, str]]:
    """Names of two namespaces that see each other as 10.77.0.1 and 10.77.0.2."""
    names = f"vg{os.getpid()}a", f"vg{os.getpid()}b"
    with ExitStack() as stack:
        try:
            for name in names:
                _ip("netns", "add", name)
                stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False, capture_output=True)
            _ip("-n", names[0], "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", names[1])
            for number, name in enumerate(names, 1):
                _ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "veth0")
                _ip("-n", name, "link", "set", "veth0", "up")
                _ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', error)}")
        yield names


def _on_both(names: tuple[str, str], command: list[str]) -> list[subprocess.Popen[str]]:
    options = ("--hosts", "2", "--rendezvous", "10.77.0.1:29511")
    environment = {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "veth0"}
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *command, *options], env=environment, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
        )
        for name in names
    ]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "partitioned", "slow"])
def test_two_machines_of_which_one_fails_resume_to_the_same_losses(config: Path, tmp_path: Path, fault: str) -> None:
    _run(config, tmp_path / "quiet", "--devices", "2", "--steps", "8")
    command = _command(config, tmp_path / "run", "--steps", "8", "--set", "train.process_timeout_minutes=0.3")
    with _two_hosts() as names:
        first, second = _on_both(names, command)
        _wait_for_steps(tmp_path / "run", 2, first)
        if fault == "killed":
            for process in (*_children(second.pid), second.pid):
                for child in _children(process):
                    os.kill(child, signal.SIGKILL)
                os.kill(process, signal.SIGKILL)
        elif fault == "partitioned":
            _ip("-n", names[1], "link", "set", "veth0", "down")
        else:
            slow = ["tc", "qdisc", "add", "dev", "veth0", "root", "netem", "delay", "20ms"]
            shaped = subprocess.run(["ip", "netns", "exec", names[1], *slow], check=False, capture_output=True, text=True)
            if shaped.returncode:
                pytest.skip(f"no slow network here: {shaped.stderr}")
        began = time.monotonic()
        ends = [process.communicate(timeout=240)[1] for process in (first, second)]
        if fault == "slow":
            assert (first.returncode, second.returncode) == (0, 0), ends
        else:
            assert first.returncode != 0
            assert second.returncode != 0
            assert time.monotonic() - began < 200
            assert "another process of this training is gone" in "".join(ends), ends[0][-1500:]
            _ip("-n", names[1], "link", "set", "veth0", "up")
            again = _on_both(names, command)
            ends = [process.communicate(timeout=240)[1] for process in again]
            assert [process.returncode for process in again] == [0, 0], ends[0][-1500:]
    assert _losses(tmp_path / "quiet") == _losses(tmp_path / "run")
