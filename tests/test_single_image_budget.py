"""Plans that fit a time, and training on one picture to such a plan."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from vidgen.errors import ConfigError
from vidgen.inference.model import Model
from vidgen.runtime import Runtime
from vidgen.single_image import budget, training
from vidgen.single_image.budget import ScalePlan, TrainingPlan, divide, replan
from vidgen.single_image.options import SingleImageOptions
from vidgen.single_image.pictures import Picture, read_picture
from vidgen.single_image.training import model_config, plan_training
from vidgen.training.recorder import Recorder
from vidgen.translators import consingan, singan
from vidgen.weights.checkpoints import find_weights


def test_steps_fill_the_time_and_cheap_scales_get_more() -> None:
    costs = [0.02, 0.05, 0.3, 0.3]
    steps = divide(200, costs)
    spent = sum(count * cost for count, cost in zip(steps, costs, strict=True))
    assert 190 < spent <= 200
    assert steps[0] > steps[1] > steps[2] == steps[3]
    favored = divide(20, costs, 4.0)
    assert favored[0] == pytest.approx(4 * favored[1] * (0.05 / 0.02) ** 0.5, rel=0.05)
    assert divide(0.0, costs) == [1, 1, 1, 1]
    assert divide(1e9, costs) == [budget.MOST_STEPS] * 4


def test_a_slower_machine_than_measured_gets_fewer_steps_for_what_is_left() -> None:
    config = singan.Config(image_size=(48, 64), min_size=25, max_size=64)
    assert config.pyramid.num_levels == 5
    scales = tuple(ScalePlan(level, (20, 30), 8, 100, 10.0) for level in range(5))
    changed = replan(TrainingPlan(config, scales), 2, seconds_taken=60.0, seconds_left=20.0)
    assert changed.steps[:2] == (100, 100)
    assert all(count < 50 for count in changed.steps[2:])
    assert 15 < sum(scale.seconds for scale in changed.scales[2:]) <= 20
    assert changed.config.steps_per_scale == changed.steps


def _config(kind: str) -> Any:
    return {"singan": singan, "consingan": consingan}[kind].Config(image_size=(75, 100), max_size=100, base_channels=16)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["singan", "consingan"])
def test_a_small_budget_makes_a_smaller_model_not_a_longer_training(kind: str) -> None:
    torch.manual_seed(0)
    plan = budget.plan(_config(kind), 1.0, Runtime.choose("cpu", "fp32"))
    assert plan.scales[0].channels < 16
    assert max(plan.scales[-1].size) < 100
    assert plan.seconds <= max(1.0, 1.01 * len(plan.scales) * plan.scales[-1].seconds)


class Ticking:
    """A clock on which each look takes as long as a step of a slow machine."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now


@pytest.mark.parametrize("kind", ["singan", "consingan"])
def test_planning_leaves_most_of_a_small_budget_to_the_training(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Ticking(0.5)
    monkeypatch.setattr(budget, "time", clock)
    plan = budget.plan(_config(kind), 60.0, Runtime.choose("cpu", "fp32"))
    assert clock.now < 15
    assert clock.now + plan.seconds < 60
    assert min(plan.steps) > 1
    assert plan.seconds > 20


def _options(**changes: Any) -> SingleImageOptions:
    return SingleImageOptions(**{"method": "fast", "device": "cpu", **changes})


@pytest.fixture(scope="module")
def balloons(data_root: Path) -> Picture:
    return read_picture(data_root / "single" / "balloons.png").downscaled(48)


def test_training_on_one_picture_follows_its_plan_and_is_not_done_twice(balloons: Picture, tmp_path: Path) -> None:
    options = _options(budget_seconds=5)
    folder = tmp_path / "run"
    training.train(balloons, folder, "sample", options)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == len(lines)
    assert training.is_complete(folder)
    model = Model.load(folder, device="cpu")
    with torch.inference_mode(), model.runtime.autocast():
        assert model.translator.generate().shape[-1] == model.translator.pyramid.finest[1]
    assert len(lines) <= sum(model.card.model.steps_per_scale)
    weights = sorted((folder / "checkpoints").rglob("model.safetensors"))[-1].read_bytes()
    training.train(balloons, folder, "sample", options)
    assert sorted((folder / "checkpoints").rglob("model.safetensors"))[-1].read_bytes() == weights


class Sleepy:
    """A model of the picture that a trainer is stopped in the middle of, as by a signal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        recorded = Recorder.step_done

        def step_done(recorder: Recorder, record: Any, trainer: Any) -> bool:
            if record.step == after:
                os.kill(os.getpid(), signal.SIGINT)
            return recorded(recorder, record, trainer)

        monkeypatch.setattr(Recorder, "step_done", step_done)


def test_an_interrupted_training_goes_on_to_the_same_bits_and_keeps_its_plan(
    balloons: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "MOST_STEPS", 3)
    monkeypatch.setattr(budget, "FEWEST_STEPS", 1)
    options = _options(budget_seconds=500)
    training.train(balloons, tmp_path / "whole", "sample", options)
    with monkeypatch.context() as patch:
        Sleepy(patch, 5)
        with pytest.raises(KeyboardInterrupt, match="saved after step 5"):
            training.train(balloons, tmp_path / "parts", "sample", options)
    assert not training.is_complete(tmp_path / "parts")
    training.train(balloons, tmp_path / "parts", "sample", options)
    whole, parts = (find_weights(tmp_path / name)[0] for name in ("whole", "parts"))
    assert whole.metadata == parts.metadata
    assert [name for name, value in whole.tensors.items() if not torch.equal(value, parts.tensors[name])] == []


def test_a_plan_is_changed_while_the_training_runs(balloons: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MOST_STEPS", 6)
    monkeypatch.setattr(budget, "FEWEST_STEPS", 1)
    planned = budget.replan

    def slower(plan: TrainingPlan, num_done: int, seconds_taken: float, seconds_left: float) -> TrainingPlan:
        return planned(plan, num_done, 1e9 * seconds_taken, seconds_left)

    monkeypatch.setattr(budget, "replan", slower)
    training.train(balloons, tmp_path / "run", "sample", _options(budget_seconds=500))
    steps = Model.load(tmp_path / "run", device="cpu").card.model.steps_per_scale
    assert steps[0] == 6
    assert steps[-1] == 1
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == sum(steps)


def test_another_picture_is_not_trained_into_the_same_folder(
    balloons: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "MOST_STEPS", 2)
    monkeypatch.setattr(budget, "FEWEST_STEPS", 1)
    with monkeypatch.context() as patch:
        Sleepy(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            training.train(balloons, tmp_path / "run", "sample", _options(budget_seconds=500))
    other = Picture(255 - balloons.pixels)
    with pytest.raises(ConfigError, match="has learned another picture"):
        training.train(other, tmp_path / "run", "sample", _options(budget_seconds=500))


def test_the_plan_without_a_budget_is_the_whole_schedule(data_root: Path) -> None:
    picture = read_picture(data_root / "single" / "33039_LR.png").downscaled(40)
    plan = plan_training(picture, "sample", _options())
    assert set(plan.steps) == {2000}
    assert [row["scale"] for row in plan.rows()] == list(range(len(plan.scales)))
    assert plan.seconds > 0


def test_a_kind_that_does_not_serve_a_purpose_is_refused() -> None:
    with pytest.raises(ConfigError, match="consingan is not made for super-resolution; it is for sample, animation"):
        model_config("consingan", "fast", "super_resolution")
