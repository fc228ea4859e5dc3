"""ConSinGAN: what learns in which stage and how fast, and that its applications work."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vidgen.runtime import Runtime
from vidgen.training.loop import LoopSettings, Trainer
from vidgen.translators import consingan
from vidgen.types import Batch, Condition

TINY: dict[str, Any] = {"image_size": (36, 48), "min_size": 16, "base_channels": 8, "num_stages": 4, "num_discriminator_steps": 1}


def test_the_published_networks_have_the_published_number_of_parameters() -> None:
    model = consingan.build(consingan.Config(image_size=(16, 16)))
    assert sum(parameter.numel() for parameter in model.generator.parameters()) == 668_227
    assert sum(parameter.numel() for parameter in model.discriminator.parameters()) == 113_153


def test_the_newest_three_stages_learn_each_older_one_ten_times_more_slowly() -> None:
    config = consingan.Config(**TINY)
    model = consingan.build(config)
    by_stage = {stage.num_active_scales: model.phases(stage)[-1] for stage in consingan.stages(config, 1)}
    body, head, tail = model.generator.body, model.generator.head, model.generator.tail
    assert by_stage[3].modules == (head, body[0], body[1], body[2], tail)
    assert by_stage[3].optimizer.module_scales == pytest.approx((0.01, 0.01, 0.1, 1.0, 1.0))
    assert by_stage[4].modules == (body[1], body[2], body[3], tail)
    assert by_stage[4].optimizer.num_updates == 3


def _learn(**changes: Any) -> consingan.ConSinGAN:
    torch.manual_seed(0)
    config = consingan.Config(**{**TINY, **changes})
    model = consingan.build(config)
    settings = LoopSettings(seed=0, ema_decay=None, max_grad_norm=None, max_nonfinite_steps=0, max_steps=None)
    trainer = Trainer(model, consingan.stages(config, 1), settings, {}, Runtime.choose("cpu", "fp32"))
    rows = torch.linspace(-1, 1, 36)[None, None, None, :, None].expand(1, 1, 3, 36, 48)
    picture = (rows * torch.tensor([1.0, 0.5, -0.5])[None, None, :, None, None]).contiguous()
    batch = Batch(Condition(frames=picture[:, :, :0]), picture)

    class Silent:
        def step_done(self, record: object, trainer: Trainer) -> bool:
            return False

    trainer.run(lambda step: [(range(1), batch)], Silent())
    return model.eval()


@pytest.mark.parametrize("border", ["zeros", "noise", "mirror"])
@torch.no_grad()
def test_a_short_training_reconstructs_samples_and_animates(border: str) -> None:
    coarsest = "image" if border == "zeros" else "noise"
    with torch.enable_grad():
        model = _learn(border=border, coarsest=coarsest, steps_per_scale=15)
    error = float((model.reconstruct() - model.image).square().mean())
    assert error < 0.7 * float(model.image.square().mean())
    assert model.generate((30, 90), num_samples=2, generator=torch.Generator()).shape == (2, 3, 30, 90)
    frames = list(model.animate(12, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(frames[0], model.reconstruct(), atol=1e-5, rtol=0)
    assert float((frames[6] - frames[0]).abs().max()) > 0
    assert model.inject(torch.zeros(1, 3, 20, 20), 1, generator=torch.Generator()).shape == (1, 3, 36, 48)
