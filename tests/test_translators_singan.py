"""SinGAN: what its scales learn, what its weights file is enough for, and that a run can stop anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidgen.commands.train import train
from vidgen.errors import ConfigError, InputError
from vidgen.inference.model import Model
from vidgen.media import images
from vidgen.runtime import Runtime
from vidgen.training.loop import LoopSettings, StepRecord, Trainer
from vidgen.translators import singan
from vidgen.types import Batch, Condition, Step
from vidgen.weights.checkpoints import find_weights
from vidgen.weights.files import load_into

CONFIG = """
model:
  kind: singan
  max_size: {side}
  min_size: 20
  base_channels: 8
  num_discriminator_steps: {repeats}
  num_generator_steps: {repeats}
  steps_per_scale: {steps}
data:
  root: {root}
  target: balloons.png
  flip: false
  condition: {{}}
train: {{sample_every_steps: 0, checkpoint_every_steps: 1000, precision: fp32}}
"""


@pytest.fixture(scope="module")
def picture(data_root: Path) -> torch.Tensor:
    """A real picture [1,1,3,48,64] in -1..1."""
    pixels = images.read_picture(data_root / "single" / "balloons.png")
    whole = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
    return torch.nn.functional.interpolate(whole, size=(48, 64), mode="area")[:, None]


class _Listener:
    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def step_done(self, record: StepRecord, trainer: Trainer) -> bool:
        self.records.append(record)
        return False


def _learn(config: singan.Config, picture: torch.Tensor) -> tuple[singan.SinGAN, list[StepRecord]]:
    torch.manual_seed(0)
    model = singan.build(config)
    settings = LoopSettings(seed=0, ema_decay=None, max_grad_norm=None, max_nonfinite_steps=0, max_steps=None)
    trainer = Trainer(model, singan.stages(config, 1), settings, {}, Runtime.choose("cpu", "fp32"))
    batch = Batch(Condition(frames=picture[:, :, :0]), picture)
    listener = _Listener()
    trainer.run(lambda step: [(range(1), batch)], listener)
    return model.eval(), listener.records


FAST: dict[str, Any] = {"num_discriminator_steps": 1, "num_generator_steps": 1, "num_kept_cascades": 4}


@pytest.fixture(scope="module")
def learned(picture: torch.Tensor) -> singan.SinGAN:
    config = singan.Config(image_size=(48, 64), min_size=20, base_channels=8, steps_per_scale=40, **FAST)
    return _learn(config, picture)[0]


@torch.inference_mode()
def test_each_scale_brings_the_reconstruction_closer_to_the_picture(learned: singan.SinGAN) -> None:
    errors = []
    for level in range(learned.pyramid.num_levels):
        reconstructed = singan.resize_to(learned.reconstruct(stop_scale=level), learned.pyramid.finest)
        errors.append(float((reconstructed - learned.image).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.03


@torch.inference_mode()
def test_samples_have_any_size_and_differ_and_a_later_start_stays_closer(learned: singan.SinGAN) -> None:
    generator = torch.Generator().manual_seed(0)
    assert learned.generate((30, 130), num_samples=2, generator=generator).shape == (2, 3, 30, 130)
    original = learned.reconstruct()
    spread = [float((learned.generate(start_scale=k, num_samples=4, generator=generator) - original).std()) for k in range(3)]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 0.02
    assert learned.generate((60, 60), start_scale=1, generator=generator).shape == (1, 3, 60, 60)
    assert learned.generate(stop_scale=1, generator=generator).shape[-2:] == learned.pyramid.sizes[1]


@torch.inference_mode()
def test_a_mirrored_border_has_no_rim() -> None:
    config = singan.Config(image_size=(40, 48), max_size=48, border="mirror", generator_norm="none", base_channels=4)
    model = singan.build(config)
    flat = torch.full((1, 3, 30, 36), 0.5)
    made = model.advance(1, model.fixed(1, (30, 36)), flat, (30, 36))
    torch.testing.assert_close(made, made[..., 15:16, 18:19].expand_as(made))


@torch.inference_mode()
def test_an_animation_begins_with_the_picture_and_closes(learned: singan.SinGAN) -> None:
    frames = torch.cat(list(learned.animate(24, generator=torch.Generator().manual_seed(0))))
    torch.testing.assert_close(frames[:1], learned.reconstruct(), atol=1e-4, rtol=0)
    steps = (frames.roll(-1, 0) - frames).abs().mean(dim=(1, 2, 3))
    assert float(steps[-1]) < 2 * float(steps.median())
    wide = list(learned.animate(3, size=(40, 100), start_scale=1, loop=False, generator=torch.Generator()))
    assert wide[2].shape == (1, 3, 40, 100)


@torch.inference_mode()
def test_an_injected_picture_is_followed_more_closely_from_finer_scales_on(learned: singan.SinGAN) -> None:
    drawn = torch.zeros(1, 3, 48, 64)
    drawn[..., 10:30, 10:40] = 0.8
    away = [
        float((learned.inject(drawn, level, generator=torch.Generator().manual_seed(0)) - drawn).square().mean())
        for level in range(1, learned.pyramid.num_levels)
    ]
    assert away[-1] < away[0]
    assert learned.inject(drawn[..., :20, :20], 1).shape == (1, 3, 48, 64)


@torch.inference_mode()
@pytest.mark.parametrize("factor", [2.0, 3.3, 4.0])
def test_super_resolution_gives_any_factor_and_agrees_with_the_picture(learned: singan.SinGAN, factor: float) -> None:
    large = learned.super_resolve(factor, generator=torch.Generator().manual_seed(0))
    assert large.shape == (1, 3, int(48 * factor), int(64 * factor))
    free = learned.super_resolve(factor, consistent=False, generator=torch.Generator().manual_seed(0))
    errors = [float((singan.resize_to(image, (48, 64)) - learned.image).square().mean()) for image in (large, free)]
    assert errors[0] < 0.3 * errors[1]


def test_the_published_schedule_repeats_three_updates_of_each_network(picture: torch.Tensor) -> None:
    config = singan.Config(image_size=(48, 64), base_channels=4, steps_per_scale=5)
    model, records = _learn(config, picture)
    schedule = singan.stages(config, 1)
    assert [stage.num_steps for stage in schedule[:2]] == [4, 1]
    assert schedule[1].learning_rate == pytest.approx(5e-5)
    assert [(phase.name, phase.repeats) for phase in model.phases(schedule[0])] == [("discriminator", 3), ("generator", 3)]
    assert set(records[-1].losses) == {"discriminator", "discriminator_penalty", "generator", "reconstruction"}
    assert float(model.amplitudes[0]) == 1.0
    assert 0 < float(model.amplitudes[1:].max()) < 0.1


def test_widths_double_every_four_scales_up_to_the_cap_and_equal_widths_start_from_the_scale_below() -> None:
    config = singan.Config(image_size=(250, 250))
    assert [config.width(level) for level in range(11)] == [32] * 4 + [64] * 4 + [128] * 3
    model = singan.build(singan.Config(image_size=(48, 64), min_size=12, base_channels=2))
    schedule = singan.stages(model.config, 1)
    assert model.pyramid.num_levels > 5
    for stage in schedule[: 2 * 4 : 2]:
        model.begin(stage)
    weights = [list(generator.state_dict().values()) for generator in model.generator]
    assert all(torch.equal(a, b) for a, b in zip(weights[2], weights[3], strict=True))
    model.begin(schedule[2 * 4])
    assert weights[4][0].shape != weights[3][0].shape


def test_beginning_a_scale_again_changes_nothing(learned: singan.SinGAN) -> None:
    before = {name: value.clone() for name, value in learned.state_dict().items()}
    learned.begin(singan.stages(learned.config, 1)[-1])
    assert all(torch.equal(value, learned.state_dict()[name]) for name, value in before.items())


def test_another_picture_is_refused(learned: singan.SinGAN) -> None:
    other = torch.zeros(1, 1, 3, 48, 64)
    with pytest.raises(ConfigError, match="another picture"):
        learned.memory(singan.stages(learned.config, 1)[-1], Batch(Condition(frames=other), other))


def test_repeats_of_a_step_share_its_noise_and_the_generator_sees_its_own_fake_again(
    learned: singan.SinGAN, picture: torch.Tensor
) -> None:
    model = singan.build(learned.config.model_copy(update={"num_kept_cascades": 0, "crop_size": 32}))
    load_into(model, learned.state_dict(), "here")
    stage = singan.stages(model.config, 1)[-1]
    batch, step = Batch(Condition(frames=picture[:, :, :0]), picture), Step(stage)
    discriminator, generator = model.phases(stage)
    output, memory = model.rollout(batch, step, model.memory(stage, batch))
    assert output.frames.shape == (1, 1, 3, 32, 32)
    resampled = model.again(discriminator, step, batch, output)
    assert not resampled.frames.requires_grad
    assert not torch.equal(resampled.frames, output.frames)
    draws = [seen.extras["draw"] for seen in (output, resampled)]
    assert draws[0].window == draws[1].window
    assert draws[0].noise is draws[1].noise
    repeated = model.again(generator, step, batch, output)
    assert repeated.frames.requires_grad
    assert torch.equal(repeated.frames, output.frames)
    with torch.no_grad():
        model.generator[memory.level].tail.bias.add_(0.1)
    assert not torch.equal(model.again(generator, step, batch, output).frames, output.frames)


def test_stored_cascades_depend_on_their_number_alone(learned: singan.SinGAN, picture: torch.Tensor) -> None:
    stage = singan.stages(learned.config, 1)[-1]
    batch = Batch(Condition(frames=picture[:, :, :0]), picture)
    stores = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        memory = learned.memory(stage, batch)
        for _ in range(30):
            learned.rollout(batch, Step(stage), memory)
        stores.append(memory.cascades)
    assert stores[0].keys() == stores[1].keys() == set(range(4))
    assert all(torch.equal(stores[0][number], stores[1][number]) for number in range(4))
    learned.eval()


def test_what_a_scale_learns_with_is_no_state_of_the_module(learned: singan.SinGAN, picture: torch.Tensor) -> None:
    before = set(vars(learned))
    stage = singan.stages(learned.config, 1)[-1]
    batch = Batch(Condition(frames=picture[:, :, :0]), picture)
    output, _ = learned.rollout(batch, Step(stage), learned.memory(stage, batch))
    for phase in learned.phases(stage):
        learned.losses(phase, Step(stage), batch, learned.again(phase, Step(stage), batch, output), {})
    assert set(vars(learned)) == before
    assert not any(isinstance(value, dict | torch.Tensor) for name, value in vars(learned).items() if not name.startswith("_"))
    learned.eval()


def test_painting_retrains_one_scale_on_few_colors(learned: singan.SinGAN, picture: torch.Tensor) -> None:
    config = learned.config.model_copy(update={"paint_scale": 1, "steps_per_scale": 4})
    model = singan.build(config)
    load_into(model, learned.state_dict(), "here")
    schedule = singan.stages(config, 1)
    assert {stage.learning for stage in schedule} == {"paint"}
    model.begin(schedule[0])
    assert model.has_palette
    quantized = model.quantize(picture[:, 0])
    assert len(torch.unique(quantized.flatten(2)[0], dim=1).T) <= 5
    assert {id(module) for phase in model.phases(schedule[0]) for module in phase.modules} == {
        id(model.generator[1]),
        id(model.discriminators[1]),
    }
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.begin(schedule[1])
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_run_stopped_inside_any_scale_goes_on_to_the_same_bits(data_root: Path, tmp_path: Path, repeats: int) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG.format(side=40, repeats=repeats, steps=4, root=data_root / "single"))
    train(config, tmp_path / "whole", device="cpu")
    for steps in (2, 5, 7, None):
        train(config, tmp_path / "parts", steps=steps, device="cpu")
    results = [find_weights(tmp_path / name)[0].tensors for name in ("whole", "parts")]
    assert results[0].keys() == results[1].keys()
    assert [name for name in results[0] if not torch.equal(results[0][name], results[1][name])] == []
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))


def test_a_weights_file_alone_is_enough(data_root: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG.format(side=40, repeats=1, steps=2, root=data_root / "single"))
    train(config, tmp_path / "run", device="cpu", precision="fp32")
    weights, path = find_weights(tmp_path / "run")
    assert weights.metadata["model"]
    model = Model.load(path, device="cpu", precision="fp32")
    with torch.inference_mode():
        assert model.translator.reconstruct().shape == (1, 3, 30, 40)
        output, carry = model.translator.translate(Condition(frames=torch.zeros(1, 2, 0, 186, 248)))
    assert output.frames.shape == (1, 2, 3, 186, 248)
    assert carry.count == 2
    assert float((output.frames[:, 0] - output.frames[:, 1]).abs().max()) > 0


def test_a_picture_that_is_too_small_is_refused_by_its_size() -> None:
    with pytest.raises(InputError, match="2000x3"):
        singan.build(singan.Config(image_size=(3, 2000)))
