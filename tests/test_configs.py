"""Every shipped configuration is valid, says how it is run, and has the published size where it is a published recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY
from vidgen.media import labels
from vidgen.runtime import Runtime
from vidgen.training import run
from vidgen.training import settings as run_settings
from vidgen.training.loop import LoopSettings, Trainer
from vidgen.translators import available, vid2vid
from vidgen.types import Batch, Condition
from vidgen.weights import pretrained

CONFIGS = sorted((REPOSITORY / "configs").glob("*/*.yaml"))
CONFIGS_OF_ANOTHER_KIND = {"deepsim": "pix2pixhd"}
"""Papers whose contribution is data or schedule: folder -> the translator they configure."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_configuration_is_valid_and_begins_with_its_command(path: Path) -> None:
    settings = run_settings.load_run_config(path, [])
    assert settings.model.kind == CONFIGS_OF_ANOTHER_KIND.get(path.parent.name, path.parent.name)
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# vidgen train configs/{path.parent.name}/{path.name} --set data.root=")
    stages = available()[settings.model.kind].stages(settings.model, 10)
    assert sum(stage.num_steps for stage in stages) > 0


@pytest.mark.parametrize(("name", "table", "parameters"), [("street", "cityscapes", 411_335_241), ("pose", None, 364_826_886)])
def test_the_published_recipes_build_the_published_generators(name: str, table: str | None, parameters: int) -> None:
    settings = run_settings.load_run_config(REPOSITORY / "configs" / "vid2vid" / f"{name}.yaml", [])
    settings = run.follow_data(settings, labels.named(table) if table else None, (64, 128))
    with torch.device("meta"):
        generator = run.build(settings).generator
    assert sum(parameter.numel() for parameter in generator.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "parameters"), [("street", 182_546_755 + 3 * 64 * 49), ("street_2048", 182_857_059 + 64 * 49 * 3 + 3)]
)
def test_the_published_recipes_of_pix2pixhd_build_the_published_generators(name: str, parameters: int) -> None:
    """Three channels of looks are read besides; two levels that are trained in turn have a head each."""
    settings = run_settings.load_run_config(REPOSITORY / "configs" / "pix2pixhd" / f"{name}.yaml", [])
    settings = run.follow_data(settings, labels.named("cityscapes"), (64, 128))
    with torch.device("meta"):
        generator = run.build(settings).generator.image
    assert sum(parameter.numel() for parameter in generator.parameters()) == parameters


def test_the_2k_recipe_grows_from_512_to_2048_wide() -> None:
    settings = run_settings.load_run_config(REPOSITORY / "configs" / "vid2vid" / "street_2k.yaml", [])
    stages = available()["vid2vid"].stages(settings.model, 1)
    assert [stage.num_active_scales for stage in stages] == sorted(stage.num_active_scales for stage in stages)
    assert {settings.data.width // stage.size_divisor for stage in stages if settings.data.width} == {512, 1024, 2048}
    assert [stage.learning for stage in stages if stage.num_active_scales == 3] == ["finest"] * 5 + ["all"] * 5


@pytest.mark.parametrize("name", ["camvid_small", "face_small"])
def test_the_small_video_recipes_learn_in_each_of_their_stages(name: str) -> None:
    """From known frames and with as many classes as their data have: what a run of minutes reaches only at its end."""
    settings = run_settings.load_run_config(REPOSITORY / "configs" / "vid2vid" / f"{name}.yaml", [])
    model = run.build(run.follow_data(settings, labels.named("camvid"), (64, 64)))
    networks = pretrained.load(vid2vid.pretrained(model.config), {}).networks
    limits = LoopSettings(seed=0, ema_decay=None, max_grad_norm=None, max_nonfinite_steps=0, max_steps=None)
    for stage in vid2vid.stages(model.config, 1):
        count = 2 + stage.clip_frames
        ids = torch.randint(0, model.config.num_labels, (2, count, 8, 8)).repeat_interleave(8, 2).repeat_interleave(8, 3)
        flow, confidence = torch.zeros(2, count, 2, 64, 64), torch.ones(2, count, 1, 64, 64)
        batch = Batch(Condition(labels=ids), torch.rand(2, count, 3, 64, 64) * 2 - 1, flow, confidence, primer_frames=2)
        before = [value.clone() for value in model.generator.parameters()]
        trainer = Trainer(model, (stage,), limits, networks, Runtime.choose("cpu"))
        trainer.run(lambda step, batch=batch: [(range(2), batch)], _StopAtOnce())  # type: ignore[misc]
        assert trainer.progress.step == 1
        assert any((now != then).any() for now, then in zip(model.generator.parameters(), before, strict=True))


class _StopAtOnce:
    def step_done(self, record: object, trainer: Trainer) -> bool:
        return True
