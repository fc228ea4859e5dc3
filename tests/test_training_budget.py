"""Plans that fit a time, and training on one picture to such a plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vidgen.commands.single import plan_single, train_single
from vidgen.errors import InputError
from vidgen.inference.model import Model
from vidgen.media.images import write_png
from vidgen.runtime import Runtime
from vidgen.training import budget
from vidgen.training.budget import LevelPlan, Plan, divide, replan


def test_steps_fill_the_time_and_cheap_scales_get_more() -> None:
    costs = [0.02, 0.05, 0.3, 0.3]
    steps = divide(200, costs)
    spent = sum(count * cost for count, cost in zip(steps, costs, strict=True))
    assert 190 < spent <= 200
    assert steps[0] > steps[1] > steps[2] == steps[3]
    assert divide(0.0, costs) == [1, 1, 1, 1]
    assert divide(1e9, costs) == [budget.MOST_STEPS] * 4


def test_a_slower_machine_than_measured_gets_fewer_steps_for_what_is_left() -> None:
    levels = tuple(LevelPlan(level, (20, 30), 8, 100, 10.0) for level in range(4))
    plan = Plan({"kind": "singan", "steps_per_scale": (100,) * 4}, levels)
    changed = replan(plan, 2, seconds_taken=60.0, seconds_left=20.0)
    assert changed.steps[:2] == (100, 100)
    assert all(count < 50 for count in changed.steps[2:])
    assert sum(level.seconds for level in changed.levels[2:]) <= 20
    assert changed.model["steps_per_scale"] == changed.steps


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["singan", "consingan"])
def test_a_small_budget_makes_a_smaller_model_not_a_longer_training(kind: str) -> None:
    torch.manual_seed(0)
    model = {"kind": kind, "max_size": 100, "base_channels": 16}
    plan = budget.plan((75, 100), model, 1.0, Runtime.choose("cpu", "fp32"))
    assert plan.levels[0].channels < 16
    assert max(plan.levels[-1].size) < 100
    assert sum(level.seconds for level in plan.levels) <= max(1.0, 1.01 * len(plan.levels) * plan.levels[-1].seconds)


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
    model = {"kind": kind, "max_size": 100, "base_channels": 16}
    plan = budget.plan((75, 100), model, 60.0, Runtime.choose("cpu", "fp32"))
    assert clock.now < 15
    assert clock.now + plan.seconds < 60
    assert min(plan.steps) > 1
    assert plan.seconds > 20


def test_training_on_one_picture_follows_its_plan_and_is_not_done_twice(data_root: Path, tmp_path: Path) -> None:
    picture = data_root / "single" / "balloons.png"
    folder = train_single(picture, tmp_path / "run", budget_seconds=8, max_size=48, device="cpu", show_progress=False)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == len(lines)
    model = Model.load(folder, device="cpu")
    with torch.inference_mode(), model.runtime.autocast():
        assert model.translator.generate().shape[-1] == model.translator.pyramid.finest[1]
    weights = sorted((folder / "checkpoints").rglob("model.safetensors"))[-1].read_bytes()
    train_single(picture, tmp_path / "run", budget_seconds=8, max_size=48, device="cpu", show_progress=False)
    if len(lines) == sum(model.card.model.steps_per_scale):
        assert sorted((folder / "checkpoints").rglob("model.safetensors"))[-1].read_bytes() == weights


def test_the_plan_without_a_budget_is_the_whole_schedule(data_root: Path) -> None:
    plan = plan_single(data_root / "single" / "33039_LR.png", max_size=40, profile="fast", device="cpu")
    assert set(plan.steps) == {2000}
    assert [row["scale"] for row in plan.rows()] == list(range(len(plan.levels)))
    assert plan.seconds > 0


def test_a_picture_too_small_to_learn_from_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    write_png(path, torch.zeros(1, 1, 3, dtype=torch.uint8).numpy())
    with pytest.raises(InputError, match="1x1"):
        plan_single(path, budget_seconds=10, device="cpu")
