"""What every translator must do, run over all of them at tiny width."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vidgen.runtime import Runtime
from vidgen.training.loop import LoopSettings, Trainer
from vidgen.translators import available, consingan, pix2pix, pix2pixhd, singan, sketchygan, style2paints, vid2vid
from vidgen.translators.base import Translator
from vidgen.translators.settings import FeatureSettings, ScaleSchedule
from vidgen.types import Batch, Condition, Pretrained, Stage, Step
from vidgen.weights import pretrained

HEIGHT, WIDTH, CLASSES = 32, 48, 5

_TINY_DISCRIMINATORS = vid2vid.Discriminators(base_channels=4, num_layers=2, num_scales=2, num_temporal_scales=2)
_NO_WEIGHTS_FILE = vid2vid.LossWeights(perceptual_weight=0, l1_weight=1)


def _vid2vid(**changes: Any) -> vid2vid.Config:
    shape = changes.pop("generator", {})
    discriminators = _TINY_DISCRIMINATORS.model_copy(update=changes.pop("discriminators", {}))
    schedules = changes.pop(
        "schedules", (vid2vid.Schedule(epochs=1, decay_epochs=1, clip_frames=4, window_frames=2, max_window_frames=2),)
    )
    return vid2vid.Config(
        num_labels=CLASSES,
        generator=vid2vid.Generator(base_channels=8, num_downsamplings=2, num_blocks=2, num_local_blocks=1, **shape),
        discriminators=discriminators,
        losses=_NO_WEIGHTS_FILE,
        schedules=schedules,
        **changes,
    )


_COARSE_TO_FINE = (
    vid2vid.Schedule(epochs=1, decay_epochs=0, clip_frames=2, window_frames=2, max_window_frames=2),
    vid2vid.Schedule(
        epochs=2, decay_epochs=1, clip_frames=2, window_frames=1, max_window_frames=2, grow_every_epochs=1, finest_only_epochs=1
    ),
)
_TINY_SINGAN: dict[str, Any] = {
    "image_size": (HEIGHT, WIDTH),
    "min_size": 20,
    "base_channels": 4,
    "steps_per_scale": 2,
}


def _pix2pix(**changes: Any) -> pix2pix.Config:
    shape = {"base_channels": 4, "num_downsamplings": 4, "num_blocks": 2} | changes.pop("generator", {})
    discriminator = {"base_channels": 4, "num_layers": 2} | changes.pop("discriminator", {})
    return pix2pix.Config(
        num_labels=CLASSES,
        generator=pix2pix.Generator(**shape),
        discriminator=pix2pix.Discriminator(**discriminator),
        schedule=ScaleSchedule(epochs=1, decay_epochs=1),
        **changes,
    )


def _pix2pixhd(**changes: Any) -> pix2pixhd.Config:
    shape = {"base_channels": 8, "num_downsamplings": 2, "num_blocks": 2, "num_local_blocks": 1} | changes.pop("generator", {})
    discriminators = {"base_channels": 4, "num_layers": 2} | changes.pop("discriminators", {})
    return pix2pixhd.Config(
        num_labels=CLASSES,
        generator=pix2pixhd.Generator(**shape),
        discriminators=pix2pixhd.Discriminators(**discriminators),
        losses=pix2pixhd.LossWeights(perceptual_weight=0, l1_weight=1, gradient_weight=1),
        schedules=changes.pop("schedules", (ScaleSchedule(epochs=1, decay_epochs=1),)),
        **changes,
    )


def _style2paints(**changes: Any) -> style2paints.Config:
    shape = {"base_channels": 4, "mid_channels": 16, "num_levels": 3} | changes.pop("generator", {})
    return style2paints.Config(
        num_labels=CLASSES,
        generator=style2paints.Generator(**shape),
        hint=changes.pop("hint", style2paints.Hint(encoder="random_features")),
        discriminator=style2paints.Discriminator(base_channels=4, num_layers=5, **changes.pop("discriminator", {})),
        schedule=ScaleSchedule(epochs=3, decay_epochs=2),
        **changes,
    )


def _sketchygan(**changes: Any) -> sketchygan.Config:
    return sketchygan.Config(
        num_labels=CLASSES,
        num_classes=3,
        image_size=32,
        generator=sketchygan.Generator(base_channels=4, noise_channels=8, **changes.pop("generator", {})),
        discriminator=sketchygan.Discriminator(base_channels=4, **changes.pop("discriminator", {})),
        losses=sketchygan.LossWeights(**changes.pop("losses", {})),
        schedule=sketchygan.Schedule(epochs=9),
        **changes,
    )


CONFIGS: dict[str, Any] = {
    "pix2pix": _pix2pix(),
    "pix2pix critic of pixels": _pix2pix(discriminator={"network": "pixel", "objective": "wasserstein"}),
    "pix2pix resnet": _pix2pix(
        generator={"network": "resnet", "num_downsamplings": 2},
        discriminator={"objective": "least_squares"},
        batch_norm_at_test="running",
    ),
    "pix2pixhd": _pix2pixhd(),
    "pix2pixhd coarse to fine": _pix2pixhd(
        use_instances=True,
        generator={"num_enhancers": 2},
        encoder=pix2pixhd.Encoder(base_channels=4, num_downsamplings=2),
        discriminators={"pool_size": 2, "num_scales": 3},
        schedules=(
            ScaleSchedule(epochs=1, decay_epochs=0),
            ScaleSchedule(epochs=1, decay_epochs=1, finest_only_epochs=1),
            ScaleSchedule(epochs=2, decay_epochs=1, finest_only_epochs=1),
        ),
    ),
    "pix2pixhd two levels at once": _pix2pixhd(generator={"num_enhancers": 1}, discriminators={"objective": "hinge"}),
    "pix2pixhd compact": _pix2pixhd(
        use_instances=True,
        generator={"kind": "compact"},
        encoder=pix2pixhd.Encoder(base_channels=4, num_downsamplings=2),
        discriminators={"patch": False},
        features=FeatureSettings(texture_weight=1, detail_weight=1, gan_weight=0.1),
    ),
    "consingan": consingan.Config(**_TINY_SINGAN, num_stages=4, num_concurrent_stages=2, border="noise", coarsest="noise"),
    "consingan with zeros": consingan.Config(**_TINY_SINGAN, num_stages=3, penalty_crop_size=24),
    "singan": singan.Config(**_TINY_SINGAN),
    "singan fast": singan.Config(
        **_TINY_SINGAN,
        border="noise",
        num_discriminator_steps=1,
        num_generator_steps=1,
        discriminator_norm="none",
        crop_size=32,
        penalty_crop_size=24,
        num_kept_cascades=2,
    ),
    "style2paints": _style2paints(),
    "style2paints symmetric": _style2paints(
        hint=style2paints.Hint(encoder="color_statistics", normalization="data"),
        generator={"skips": "symmetric", "norm": "instance", "upsampling": "resize"},
        discriminator={"objective": "mse"},
        features=FeatureSettings(texture_weight=1, gan_weight=0.1),
    ),
    "style2paints, compact": _style2paints(
        hint=style2paints.Hint(encoder="color_statistics"), generator={"network": "compact", "width": 0.25}
    ),
    "sketchygan": _sketchygan(),
    "sketchygan as released": _sketchygan(
        generator={"encoder_form": "image", "decoder_form": "stretched", "num_convs": 2},
        discriminator={"form": "image", "objective": "logistic", "class_head_spectral_norm": True},
        losses={"decay_weight": 1e-5, "feature_gan_weight": 0.1, "perceptual_size": 64, "diversity_cap": 0.2},
    ),
    "vid2vid": _vid2vid(),
    "vid2vid from zeros": _vid2vid(first_frame="zeros"),
    "vid2vid foreground": _vid2vid(generator={"foreground_labels": (2, 3)}, use_instances=True),
    "vid2vid two scales": _vid2vid(generator={"num_scales": 2}, schedules=_COARSE_TO_FINE),
    "vid2vid per frame": _vid2vid(num_input_frames=1, generator={"flow": "none"}),
    "vid2vid face discriminator": _vid2vid(discriminators={"region": vid2vid.Region(labels=(1, 4))}),
    "vid2vid no flow": _vid2vid(generator={"flow": "none"}),
    "vid2vid compact": _vid2vid(
        generator={"kind": "compact", "foreground_labels": (2,)},
        discriminators={"patch": False, "num_temporal_scales": 0},
        features=FeatureSettings(texture_weight=1, gan_weight=0.1, pair_gan_weight=0.1),
        past=vid2vid.PastCorruption(noise=0.1, dropout=0.3, from_nothing=0.5),
        schedules=(
            vid2vid.Schedule(
                epochs=3,
                decay_epochs=1,
                clip_frames=4,
                frame_only_epochs=1,
                warmup_epochs=1,
                adversarial_from_epoch=2,
                adversarial_ramp_epochs=1,
                final_rate_share=0.1,
            ),
        ),
    ),
    "vid2vid modern": _vid2vid(
        generator={"upsampling": "resize", "norm": "instance"},
        past=vid2vid.PastCorruption(noise=0.1, dropout=0.3),
        two_time_scales=True,
    ),
}


def test_every_translator_is_covered_here() -> None:
    assert set(available()) == {config.kind for config in CONFIGS.values()}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> Any:
    return CONFIGS[request.param]


def _build(config: Any) -> Translator:
    torch.manual_seed(0)
    return available()[config.kind].build(config)


def _stages(config: Any) -> tuple[Stage, ...]:
    return available()[config.kind].stages(config, 1)


def _condition(num_frames: int, config: Any, seed: int = 0) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    shape = (1, num_frames, HEIGHT, WIDTH)
    if not hasattr(config, "num_labels"):
        return Condition(frames=torch.zeros(1, num_frames, 0, HEIGHT, WIDTH))
    instances = torch.randint(0, 3, shape, generator=generator) if config.use_instances else None
    style = torch.rand(1, 3, 24, 24, generator=generator) * 2 - 1 if config.reads_style else None
    class_id = torch.tensor([1]) if getattr(config, "num_classes", 0) else None
    labels = torch.randint(0, CLASSES, shape, generator=generator)
    return Condition(labels=labels, instances=instances, style=style, class_id=class_id)


def _batch(num_frames: int, translator: Translator, config: Any) -> Batch:
    generator = torch.Generator().manual_seed(7)
    total = num_frames + translator.num_primer_frames
    target = torch.rand(1, total, 3, HEIGHT, WIDTH, generator=generator) * 2 - 1
    flow = torch.randn(1, total, 2, HEIGHT, WIDTH, generator=generator)
    confidence = (torch.rand(1, total, 1, HEIGHT, WIDTH, generator=generator) > 0.3).float()
    return Batch(_condition(total, config), target, flow, confidence, translator.num_primer_frames)


def _no_flow(current: Tensor, previous: Tensor) -> Tensor:
    return torch.zeros(len(current), 2, *current.shape[-2:])


NETWORKS = {"flow": _no_flow, **pretrained.load([Pretrained("efficientnet_lite0", "the test")], {}).networks}


@torch.no_grad()
def test_windows_with_a_carry_give_the_same_video_as_one_piece(config: Any) -> None:
    translator = _build(config).eval()
    condition = _condition(5, config)
    whole, _ = translator.translate(condition)
    first, carry = translator.translate(condition.slice_time(0, 2))
    second, carry = translator.translate(condition.slice_time(2, 3), carry)
    third, _ = translator.translate(condition.slice_time(3, 5), carry)
    pieces = torch.cat([first.frames, second.frames, third.frames], dim=1)
    torch.testing.assert_close(pieces, whole.frames, atol=1e-5, rtol=0)


@torch.no_grad()
def test_frames_are_finite_pictures_of_the_condition_size(config: Any) -> None:
    output, _ = _build(config).eval().translate(_condition(3, config))
    assert output.frames.shape == (1, 3, 3, HEIGHT, WIDTH)
    assert output.frames.abs().max() <= 1
    if output.mask is not None:
        assert output.flow is not None
        assert 0 <= output.mask.min() <= output.mask.max() <= 1


@torch.no_grad()
def test_known_first_frames_change_what_follows_only_where_there_is_a_past(config: Any) -> None:
    translator = _build(config).eval()
    condition = _condition(3, config)
    known = [torch.full((1, 1, 3, HEIGHT, WIDTH), value) for value in (-0.5, 0.5)]
    results = []
    for frames in known:
        carry = translator.prime(condition.slice_time(0, 1), frames)
        results.append(translator.translate(condition.slice_time(1, 3), carry)[0].frames)
    differs = not torch.equal(results[0], results[1])
    assert differs == (translator.num_past_frames > 0)


def test_each_phase_gives_gradients_to_its_modules_and_to_nothing_else(config: Any) -> None:
    translator = _build(config)
    batch = _batch(4, translator, config)
    stage = _stages(config)[-1]
    translator.begin(stage)
    step = Step(stage)
    carry = translator.memory(stage, batch)
    if batch.primer_frames:
        carry = translator.prime(batch.condition.slice_time(0, 2), batch.target[:, :2])
    for phase in translator.phases(stage):
        output, _ = translator.rollout(batch, step, carry)
        learners = set(phase.parameters())
        for parameter in translator.parameters():
            parameter.grad = None
        others = [parameter for parameter in translator.parameters() if parameter not in learners]
        for parameter in others:
            parameter.requires_grad_(False)
        if translator.applies(phase, batch):
            losses = translator.losses(phase, step, batch, output, NETWORKS)
            assert losses
            assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values())
            torch.stack(list(losses.values())).sum().backward()
            reached = [parameter for parameter in learners if parameter.grad is not None]
            assert len(reached) > 0.9 * len(learners)
        for parameter in others:
            parameter.requires_grad_(True)


def test_every_parameter_learns_in_some_stage(config: Any) -> None:
    translator = _build(config)
    learning = {parameter for stage in _stages(config) for phase in translator.phases(stage) for parameter in phase.parameters()}
    assert learning == {parameter for parameter in translator.parameters() if parameter.requires_grad}


class _StopAfter:
    def __init__(self, steps: int) -> None:
        self.records: list[Any] = []
        self._steps = steps

    def step_done(self, record: Any, trainer: Trainer) -> bool:
        self.records.append(record)
        return len(self.records) >= self._steps


def test_training_runs_through_all_stages_and_changes_weights(config: Any) -> None:
    translator = _build(config)
    before = {name: value.clone() for name, value in translator.state_dict().items()}
    settings = LoopSettings(seed=0, ema_decay=0.9, max_grad_norm=None, max_nonfinite_steps=0, max_steps=None)
    stages = _stages(config)
    trainer = Trainer(translator, stages, settings, NETWORKS, Runtime.choose("cpu", "fp32"))
    watcher = _StopAfter(100)

    def batches(step: int) -> list[tuple[range, Batch]]:
        return [(range(1), _resized(_batch(4, translator, config), stages[min(step, len(stages) - 1)].size_divisor))]

    trainer.run(batches, watcher)
    assert len(watcher.records) == sum(stage.num_steps for stage in stages)
    after = translator.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name]) and value.is_floating_point()]
    assert any(name.startswith("generator") for name in changed)
    assert any("discriminator" in name for name in changed)


def _resized(batch: Batch, divisor: int) -> Batch:
    return batch if divisor == 1 else batch.map(lambda tensor: tensor[..., ::divisor, ::divisor].contiguous())
