"""Kills trainings at random moments and compares what the resumed ones leave with an undisturbed run.

A program of its own: it imports torch once and forks a child per training, so that a kill costs a second instead of ten.
Usage: killing.py FOLDER NUM_KILLS STEPS_PER_EPOCH KIND...: the kinds of translators. Prints one JSON object. Kills are spread over
the whole run, so over all its stages.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # optimizers import it at their first use: pay for it once, before forking

from tests import tiny
from vidgen.commands.train import train

NUM_EPOCHS = 5


def fork(config: Path, run: Path, steps_per_epoch: int) -> int:
    """Train in a child process; its process id."""
    sets = [f"train.steps_per_epoch={steps_per_epoch}", f"train.checkpoint_every_steps={steps_per_epoch - steps_per_epoch // 4}"]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            train(config, run, sets=sets)
            code = 0
        finally:
            os._exit(code)
    return child


def fingerprint(run: Path) -> dict[str, str]:
    """Hashes of the log and of every weight file of the newest checkpoint: generator, judges, average, optimizers."""
    newest = max((run / "checkpoints").iterdir(), key=lambda path: path.name)
    files = [run / "metrics.jsonl", *sorted(newest.glob("*.safetensors"))]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill(folder: Path, num_kills: int, steps_per_epoch: int, kind: str) -> dict[str, object]:
    """Run the comparison for one kind of translator."""
    config = tiny.write_config(folder, tiny.write_data(folder / "data"), kind)
    undisturbed = folder / "undisturbed"
    os.waitpid(fork(config, undisturbed, steps_per_epoch), 0)
    expected = fingerprint(undisturbed)
    total_steps = NUM_EPOCHS * steps_per_epoch
    assert lines_in(undisturbed / "metrics.jsonl") == total_steps
    rng = random.Random(int(os.environ.get("VIDGEN_KILL_SEED", "1")))
    differing, resumed_from_checkpoint = [], 0
    for number in range(num_kills):
        run = folder / f"killed-{number}"
        victim = fork(config, run, steps_per_epoch)
        first, stop = (1 + part * (total_steps - 2) // num_kills for part in (number, number + 1))
        until = rng.randrange(first, max(first + 1, stop))
        while lines_in(run / "metrics.jsonl") < until:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.04)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        resumed_from_checkpoint += bool(list(run.glob("checkpoints/step-*")))
        _, status = os.waitpid(fork(config, run, steps_per_epoch), 0)
        if status or fingerprint(run) != expected:
            differing.append(until)
        shutil.rmtree(run)
    return {"kills": num_kills, "differing": differing, "resumed_from_checkpoint": resumed_from_checkpoint}


def main(folder: Path, num_kills: int, steps_per_epoch: int, *kinds: str) -> None:
    """Run the comparison for each kind."""
    torch.set_num_threads(1)
    results = {}
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        results[kind] = kill(folder / kind, num_kills, steps_per_epoch, kind)
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
