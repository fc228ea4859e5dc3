"""Held-out frames: they are measured where checkpoints are, training never sees them, and the best weights are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vidgen
from tests import tiny
from vidgen.commands.train import train
from vidgen.errors import CheckpointError, ConfigError
from vidgen.evaluation import evaluate
from vidgen.training.history import History, Line
from vidgen.weights.files import read_weights

SETS = ("data.frames=0:7", "data.held_out=7:10", "train.checkpoint_every_steps=3", "train.sample_every_steps=0")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path, tiny.write_data(tmp_path / "data", 1, 10))


def distances(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["held_out"] for line in lines if "held_out" in line}


def test_the_distance_is_that_of_evaluate_and_the_best_weights_are_those_of_its_step(config: Path, tmp_path: Path) -> None:
    train(config, tmp_path / "run", sets=[*SETS, "train.ema_decay=0.5"], steps=8)
    found = distances(tmp_path / "run")
    assert list(found) == [3, 6, 8]
    best = min(found, key=lambda step: found[step])
    assert read_weights(tmp_path / "run" / "best.safetensors").metadata["best_of_step"] == str(best)
    model = vidgen.load(tmp_path / "run", weights="best", precision="fp32")
    held_out = {role: str(tmp_path / "data" / role / "clip0") + "[7:10]" for role in ("images", "labels")}
    model.translate(held_out["labels"]).save(tmp_path / "best.mkv", quality="lossless")
    report = evaluate(str(tmp_path / "best.mkv"), target=held_out["images"], strides=(1,))
    measured = report.get("feature_distance")
    assert measured == pytest.approx(found[best], rel=0.05), "to the rounding of a video's pixels"


def test_a_stopped_run_goes_on_to_the_same_log_and_the_same_best_weights(config: Path, tmp_path: Path) -> None:
    train(config, tmp_path / "whole", sets=SETS, steps=8)
    train(config, tmp_path / "parts", sets=[*SETS, "train.max_steps=8"], stop_after_seconds=0)
    while len((tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()) < 8:
        train(config, tmp_path / "parts", sets=[*SETS, "train.max_steps=8"], stop_after_seconds=0.01)
    assert (tmp_path / "parts" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()
    assert (tmp_path / "parts" / "best.safetensors").read_bytes() == (tmp_path / "whole" / "best.safetensors").read_bytes()


def test_measuring_does_not_change_the_training(config: Path, tmp_path: Path) -> None:
    train(config, tmp_path / "with", sets=[*SETS, "train.ema_decay=0.9"], steps=5)
    train(config, tmp_path / "without", sets=[SETS[0], *SETS[2:], "train.ema_decay=0.9"], steps=5)
    losses = [
        [json.loads(line)["losses"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("with", "without")
    ]
    assert losses[0] == losses[1]


def test_the_least_distance_of_a_log_is_found() -> None:
    lines = [Line(step=step, losses={}, held_out=value) for step, value in enumerate((None, 0.4, 0.2, None, 0.3))]
    assert History(tuple(lines)).best == 0.2
    assert History().best is None


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["data.held_out=7:10"], "held_out: 7:10 needs frames too"),
        (["data.frames=0:8", "data.held_out=7:10"], "held_out: 7:10 overlaps with frames 0:8"),
        (["data.frames=0:8", "data.held_out=ten"], "expected first:stop in frames"),
    ],
)
def test_frames_that_training_would_see_are_not_held_out(config: Path, tmp_path: Path, sets: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run", sets=sets)


def test_a_run_without_held_out_frames_has_no_best_weights(config: Path, tmp_path: Path) -> None:
    train(config, tmp_path / "run", steps=1)
    with pytest.raises(CheckpointError, match=r"has no best weights; a run keeps them where data\.held_out is set"):
        vidgen.load(tmp_path / "run", weights="best")
    assert not list((tmp_path / "run").glob("*.safetensors"))
