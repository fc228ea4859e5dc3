"""Rules of the training loop on a translator of two numbers, and of which checkpoints stay."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vidgen.errors import ConfigError, TrainingError
from vidgen.runtime import Runtime
from vidgen.training.loop import LoopSettings, StepRecord, Trainer
from vidgen.training.muon import Muon
from vidgen.translators.base import Networks, Translator
from vidgen.types import Batch, Condition, Losses, OptimizerSettings, Output, Phase, Stage, Step
from vidgen.weights import checkpoints
from vidgen.weights.checkpoints import Progress
from vidgen.weights.files import pack


class Number(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.ones(()))


class Numbers(Translator[Any]):
    """Pulls its numbers to the frames' brightness, and remembers which random numbers it was given."""

    size_multiple = 1

    def __init__(self, sits_out: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.generator, self.discriminator = Number(), Number()
        self.sits_out = sits_out
        self.drawn: list[float] = []

    def translate(self, condition: Condition, carry: Any = None) -> tuple[Output, None]:
        assert condition.frames is not None
        self.drawn.append(float(torch.rand(())))
        return Output(condition.frames * self.generator.value), None

    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        return Phase("generator", (self.generator,)), Phase("discriminator", (self.discriminator,))

    def applies(self, phase: Phase, batch: Batch) -> bool:
        """The generator has nothing to learn from windows that begin at the frames in `sits_out`."""
        return phase.name != "generator" or batch.start not in self.sits_out

    def losses(self, phase: Phase, step: Step, batch: Batch, output: Output, networks: Networks) -> Losses:
        number = self.generator.value if phase.name == "generator" else self.discriminator.value
        return {phase.name: (number - batch.window_target.mean()).square()}


class Records:
    def __init__(self) -> None:
        self.all: list[StepRecord] = []

    def step_done(self, record: StepRecord, trainer: Trainer) -> bool:
        self.all.append(record)
        return False


def _trainer(translator: Translator, *, num_steps: int = 3, window_frames: int = 2, **settings: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "seed": 0,
        "ema_decay": None,
        "max_grad_norm": None,
        "max_nonfinite_steps": 0,
        "max_steps": None,
    }
    stage = Stage("numbers", num_steps, 0.1, 0.1, clip_frames=4, window_frames=window_frames)
    return Trainer(translator, (stage,), LoopSettings(**{**defaults, **settings}), {}, Runtime.choose("cpu", "fp32"))


def _frames(brightness: float = 0.5) -> Batch:
    frames = torch.full((1, 4, 3, 2, 2), brightness)
    return Batch(Condition(frames=frames), frames)


def _group(index: int = 0, brightness: float = 0.5) -> tuple[range, Batch]:
    return range(index, index + 1), _frames(brightness)


def test_every_window_of_every_clip_has_random_numbers_of_its_own_that_the_seed_repeats() -> None:
    def drawn(seed: int) -> list[float]:
        translator = Numbers()
        trainer = _trainer(translator, seed=seed)
        trainer.run(lambda step: [_group(0), _group(1)], Records())
        return translator.drawn

    first = drawn(5)
    assert len(first) == 3 * 2 * 2
    assert len(set(first)) == len(first)
    assert drawn(5) == first
    assert not set(drawn(6)) & set(first)


def test_the_average_is_there_where_one_is_asked_for_and_comes_back_as_it_was() -> None:
    assert _trainer(Numbers()).ema_tensors() is None
    trainer = _trainer(Numbers(), ema_decay=0.5)
    trainer.run(lambda step: [_group()], Records())
    kept = {name: tensor.clone() for name, tensor in (trainer.ema_tensors() or {}).items()}
    assert kept.keys() == {"value", checkpoints.NUM_AVERAGED}
    other = _trainer(Numbers(), ema_decay=0.5)
    other.fill_ema(kept)
    assert {name: float(tensor) for name, tensor in (other.ema_tensors() or {}).items()} == {
        name: float(tensor) for name, tensor in kept.items()
    }


def test_the_average_follows_only_what_the_generator_learned() -> None:
    """Two windows a step; from the second, which begins at frame 2, only the discriminator learns."""
    translator = Numbers(sits_out=(2,))
    trainer = _trainer(translator, ema_decay=0.5)
    values = []

    def batches(step: int) -> list[tuple[range, Batch]]:
        values.append(translator.generator.value.item())
        return [_group()]

    trainer.run(batches, Records())
    assert trainer.ema is not None
    values.append(translator.generator.value.item())
    expected = values[1]  # the first update takes the weights as they are
    for number, value in enumerate(values[2:], start=1):
        decay = min(0.5, (1 + number) / (10 + number))  # it warms up, so that a short run is not mostly its first weights
        expected = decay * expected + (1 - decay) * value
    assert trainer.ema.module.value.item() == pytest.approx(expected, rel=1e-6)
    assert expected != pytest.approx(values[-1], rel=1e-3)


def test_only_bad_steps_in_a_row_end_a_run() -> None:
    def run(brightness: dict[int, float], **settings: Any) -> Records:
        records = Records()
        trainer = _trainer(Numbers(), num_steps=8, window_frames=4, **settings)
        trainer.run(lambda step: [_group(brightness=brightness.get(step, 0.5))], records)
        return records

    every_other = dict.fromkeys(range(0, 8, 2), math.nan)
    records = run(every_other, max_nonfinite_steps=1)
    assert [record.skipped_updates > 0 for record in records.all] == [True, False] * 4
    with pytest.raises(TrainingError, match=r"step 5: losses discriminator, generator not finite for 2 steps in a row"):
        run({3: math.nan, 4: math.nan}, max_nonfinite_steps=1)


def test_a_bad_step_changes_no_weight() -> None:
    translator = Numbers()
    trainer = _trainer(translator, num_steps=1, max_nonfinite_steps=1)
    trainer.run(lambda step: [_group(brightness=math.nan)], Records())
    assert translator.generator.value.item() == 1


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_a_checkpoint_brings_back_weights_optimizers_and_average(tmp_path: Path, ema_decay: float | None) -> None:
    def state_of(trainer: Trainer) -> dict[str, Any]:
        parts = (trainer.translator.state_dict(), checkpoints.optimizer_tensors(trainer.optimizers), trainer.ema_tensors() or {})
        return {f"{part} {name}": value.tolist() for part, values in enumerate(parts) for name, value in values.items()}

    trainer = _trainer(Numbers(), ema_decay=ema_decay)
    trainer.run(lambda step: [_group()], Records())
    files = {checkpoints.MODEL: pack(trainer.translator.state_dict(), {})}
    files[checkpoints.OPTIMIZERS] = pack(checkpoints.optimizer_tensors(trainer.optimizers), {})
    if (average := trainer.ema_tensors()) is not None:
        files[checkpoints.EMA] = pack(average, {})
    checkpoints.write_checkpoint(tmp_path, trainer.progress, files, keep=1)
    other = _trainer(Numbers(), ema_decay=ema_decay)
    saved = checkpoints.newest(tmp_path)
    assert saved is not None
    other.restore(saved)
    assert state_of(other) == state_of(trainer)


@pytest.mark.parametrize("keep", [1, 2])
def test_as_many_checkpoints_stay_as_asked_for_the_newest_by_their_step(tmp_path: Path, keep: int) -> None:
    steps = (8, 9, 10, 11)
    for step in steps:
        weights: dict[str, Tensor] = {"value": torch.tensor(float(step))}
        checkpoints.write_checkpoint(tmp_path, Progress(step=step), {checkpoints.MODEL: pack(weights, {})}, keep)
        there = sorted(int(path.name.rpartition("-")[2]) for path in tmp_path.iterdir())
        assert there == [number for number in steps if number <= step][-keep:]
    newest = checkpoints.newest(tmp_path)
    assert newest is not None
    assert newest.progress.step == 11


class Decaying(Numbers):
    def phases(self, stage: Stage) -> tuple[Phase, ...]:
        return (Phase("generator", (self.generator,), OptimizerSettings(weight_decay=0.01)),)


def test_muon_is_the_generator_s_and_discriminators_stay_adam_s() -> None:
    trainer = _trainer(Numbers(), optimizer="muon")
    trainer.run(lambda step: [_group()], Records())
    assert {name: type(optimizer) for name, optimizer in trainer.optimizers.items()} == {
        "generator": Muon,
        "discriminator": torch.optim.Adam,
    }
    with pytest.raises(ConfigError, match=r"train\.optimizer: muon has no weight decay"):
        _trainer(Decaying(), optimizer="muon").begin_stage(0)
