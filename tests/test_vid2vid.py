"""vid2vid: windows of the temporal discriminators, schedules, losses and blending on constructed inputs."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import tests.literal as lit
from flow.warp import warp
from vidgen.errors import ConfigError
from vidgen.networks.composite import CompositeGenerator
from vidgen.networks.encoding import instance_edges, one_hot
from vidgen.networks.losses import feature_matching, masked_l1, multiscale_adversarial
from vidgen.training.loop import learning_rate, stage_of
from vidgen.translators import vid2vid
from vidgen.translators.vid2vid import temporal_windows
from vidgen.types import Batch, Condition, Stage, Step


@pytest.mark.parametrize(
    ("chunk", "num_frames", "num_scales", "load_at", "scale", "expected"),
    [
        (1, 3, 2, 0, 0, []),
        (1, 3, 2, 1, 0, []),
        (1, 3, 2, 2, 0, [(0, 1, 2)]),
        (1, 3, 2, 2, 1, []),
        (1, 3, 2, 6, 0, [(4, 5, 6)]),
        (1, 3, 2, 6, 1, [(0, 3, 6)]),
        (1, 3, 2, 9, 0, [(7, 8, 9)]),
        (1, 3, 2, 9, 1, [(3, 6, 9)]),
        (4, 3, 2, 0, 0, [(1, 2, 3)]),
        (4, 3, 2, 0, 1, []),
        (4, 3, 2, 4, 0, [(5, 6, 7), (2, 3, 4)]),
        (4, 3, 2, 4, 1, [(1, 4, 7)]),
        (4, 3, 2, 8, 0, [(9, 10, 11), (6, 7, 8)]),
        (4, 3, 2, 8, 1, [(5, 8, 11), (2, 5, 8)]),
        (6, 3, 3, 6, 0, [(9, 10, 11), (6, 7, 8)]),
        (6, 3, 3, 6, 1, [(5, 8, 11), (2, 5, 8)]),
        (6, 3, 3, 6, 2, []),
        (2, 2, 2, 2, 0, [(2, 3)]),
        (2, 2, 2, 2, 1, [(1, 3)]),
    ],
)
def test_dense_temporal_windows_are_the_published_ones(chunk, num_frames, num_scales, load_at, scale, expected) -> None:  # type: ignore[no-untyped-def]
    assert temporal_windows(load_at, chunk, num_frames=num_frames, scale=scale, num_scales=num_scales) == expected


@pytest.mark.parametrize(("load_at", "expected"), [(4, [(0, 3, 6)]), (8, [(3, 6, 9)]), (12, [(9, 12, 15)]), (16, [(12, 15, 18)])])
def test_sparse_temporal_windows_are_the_published_ones(load_at: int, expected: list[tuple[int, ...]]) -> None:
    assert temporal_windows(load_at, 4, num_frames=3, scale=1, num_scales=2, mode="sparse") == expected


def _clip_plan(growth: vid2vid.Schedule, epoch: int, sequence_frames: int = 30, num_past: int = 2) -> tuple[int, int, int]:
    """(clip target, frames read, windows) in `epoch`, counted from 1, for sequences of equal length."""
    config = vid2vid.Config(num_labels=2, schedules=(growth,))
    stages = vid2vid.stages(config, 1)
    stage = stages[stage_of(stages, epoch - 1)[0]]
    generated = min(stage.clip_frames, sequence_frames - num_past)
    generated -= generated % stage.window_frames
    return min(stage.clip_frames, sequence_frames - num_past), generated + num_past, generated // stage.window_frames


def test_clip_schedule_of_the_street_recipe_is_the_published_one() -> None:
    growth = vid2vid.Schedule(epochs=10, decay_epochs=10, clip_frames=6, window_frames=6, max_window_frames=12)
    plans = [_clip_plan(growth, epoch) for epoch in (1, 5, 6, 10, 11, 15, 16, 20)]
    assert plans == [(6, 8, 1), (6, 8, 1), (12, 14, 1), (12, 14, 1), (24, 26, 2), (24, 26, 2), (28, 26, 2), (28, 26, 2)]


def test_clip_schedule_of_the_1024_recipe_is_the_published_one() -> None:
    growth = vid2vid.Schedule(
        epochs=10, decay_epochs=10, clip_frames=4, window_frames=4, max_window_frames=4, grow_every_epochs=2, learning_rate=1e-4
    )
    assert [_clip_plan(growth, epoch)[::2] for epoch in (1, 3, 5, 7)] == [(4, 1), (8, 2), (16, 4), (28, 7)]


def test_clip_schedule_of_the_single_gpu_recipe_is_the_published_one() -> None:
    growth = vid2vid.Schedule(epochs=10, decay_epochs=5, clip_frames=4, window_frames=2, max_window_frames=2, grow_every_epochs=2)
    assert [_clip_plan(growth, epoch)[2] for epoch in (1, 3, 5, 7)] == [2, 4, 8, 14]


def test_learning_rate_is_constant_then_falls_linearly_to_zero_across_stages() -> None:
    growth = vid2vid.Schedule(epochs=10, decay_epochs=10, learning_rate=2e-4, grow_every_epochs=3)
    stages = vid2vid.stages(vid2vid.Config(num_labels=2, schedules=(growth,)), steps_per_epoch=7)
    assert sum(stage.num_steps for stage in stages) == 140
    for step in range(140):
        index, inside = stage_of(stages, step)
        expected = 2e-4 * min(1.0, 2 - step / 70)
        assert math.isclose(learning_rate(stages[index], inside), expected, rel_tol=1e-9)


def test_gradients_reach_as_far_back_as_the_schedule_says() -> None:
    growth = vid2vid.Schedule(
        epochs=15, decay_epochs=0, clip_frames=4, window_frames=4, max_window_frames=8, max_backpropagate_frames=4
    )
    stages = vid2vid.stages(vid2vid.Config(num_labels=2, schedules=(growth,)), 1)
    assert [stage.backpropagate_frames for stage in stages] == [1, 2, 4]


def _two_scales() -> vid2vid.Config:
    coarse = vid2vid.Schedule(epochs=2, decay_epochs=2, clip_frames=6)
    fine = vid2vid.Schedule(epochs=4, decay_epochs=2, clip_frames=4, finest_only_epochs=3, learning_rate=1e-4)
    return vid2vid.Config(num_labels=2, generator=vid2vid.Generator(base_channels=4, num_scales=2), schedules=(coarse, fine))


def test_scales_grow_from_coarse_to_fine_and_the_finest_learns_alone_first() -> None:
    stages = vid2vid.stages(_two_scales(), 1)
    assert [(stage.num_active_scales, stage.size_divisor, stage.learning, stage.num_steps) for stage in stages] == [
        (1, 2, "all", 2),
        (1, 2, "all", 2),
        (2, 1, "finest", 3),
        (2, 1, "all", 1),
        (2, 1, "all", 1),
        (2, 1, "all", 1),
    ]


def test_the_coarse_scale_does_not_move_while_the_finest_learns_alone() -> None:
    translator = vid2vid.build(_two_scales())
    stage = vid2vid.stages(_two_scales(), 1)[2]
    learning = set(translator.phases(stage)[0].parameters())
    assert learning == set(translator.generator[1].parameters())


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_least_squares_losses_sum_over_scales(num_scales: int) -> None:
    discriminated = [[torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 5, 5)] for _ in range(num_scales)]
    gan = multiscale_adversarial(discriminated, real=True, learner="generator", objective="least_squares")
    fake = multiscale_adversarial(discriminated, real=False, learner="discriminator", objective="least_squares")
    assert (gan.item(), fake.item()) == (num_scales, 0)


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_feature_matching_is_forty_for_features_one_apart_whatever_the_scales(num_scales: int) -> None:
    real = [[torch.zeros(1, 4, 8, 8) for _ in range(5)] for _ in range(num_scales)]
    fake = [[stage + 1 for stage in scale] for scale in real]
    assert math.isclose(10 * feature_matching(fake, real).item(), 40, rel_tol=1e-6)
    assert feature_matching(real, real).item() == 0


def test_hinge_loss_pushes_a_generator_by_the_mean_and_a_judge_to_the_margin() -> None:
    discriminated = [[torch.full((1, 1, 2, 2), 0.5)]]
    assert multiscale_adversarial(discriminated, real=True, learner="generator", objective="hinge").item() == -0.5
    assert multiscale_adversarial(discriminated, real=True, learner="discriminator", objective="hinge").item() == 0.5
    assert multiscale_adversarial(discriminated, real=False, learner="discriminator", objective="hinge").item() == 1.5


def test_masked_l1_averages_over_masked_pixels_too() -> None:
    mask = torch.tensor([[[[1.0, 0.0]]]])
    assert masked_l1(torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), mask).item() == 0.5


def test_instance_edges_mark_both_sides_of_a_boundary_and_nothing_else() -> None:
    instances = torch.zeros(1, 4, 8, dtype=torch.long)
    instances[..., 5:] = 26001
    edges = instance_edges(instances)
    assert edges.sum(dim=(0, 1, 2)).nonzero().flatten().tolist() == [4, 5]


def test_ignored_labels_become_all_zero() -> None:
    encoded = one_hot(torch.tensor([[[0, -1, 2]]]), 3)
    assert encoded[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_a_mask_of_one_gives_the_raw_frame_and_of_zero_the_warped_past() -> None:
    torch.manual_seed(0)
    network = CompositeGenerator(4, 6, 4, 1, 2).eval()
    condition, past = torch.randn(1, 4, 16, 16), torch.rand(1, 6, 16, 16) * 2 - 1
    for bias, pick in ((60.0, "raw"), (-60.0, "warped")):
        torch.nn.init.zeros_(network.mask_head.weight)
        torch.nn.init.constant_(network.mask_head.bias, bias)
        made = network(condition, past)
        expected = made.raw if pick == "raw" else warp(past[:, 3:], made.flow)
        torch.testing.assert_close(made.frame, expected, atol=1e-6, rtol=0)


def test_the_first_frame_of_a_video_ignores_the_missing_past() -> None:
    config = vid2vid.Config(num_labels=3, generator=vid2vid.Generator(base_channels=4, num_downsamplings=1, num_blocks=2))
    translator = vid2vid.build(config).eval()
    with torch.no_grad():
        output, _ = translator.translate(Condition(labels=torch.zeros(1, 2, 16, 16, dtype=torch.long)))
    assert output.raw is not None
    assert output.mask is not None
    assert torch.equal(output.frames[:, 0], output.raw[:, 0])
    assert output.mask[:, 0].min() == 1
    assert output.mask[:, 1].max() < 1


def test_dropout_of_the_past_happens_in_training_only() -> None:
    config = vid2vid.Config(
        num_labels=3,
        generator=vid2vid.Generator(base_channels=4, num_downsamplings=1, num_blocks=2),
        past=vid2vid.PastCorruption(dropout=1.0),
    )
    translator = vid2vid.build(config)
    batch = Batch(Condition(labels=torch.zeros(1, 3, 16, 16, dtype=torch.long)), torch.zeros(1, 3, 3, 16, 16))
    with torch.no_grad():
        trained, _ = translator.rollout(batch, Step(vid2vid.stages(config, 1)[0]))
        used, _ = translator.translate(batch.condition)
    assert trained.mask is not None
    assert used.mask is not None
    assert trained.mask.min() == 1
    assert used.mask[:, 1:].max() < 1


def test_frames_are_made_without_their_past_for_the_epochs_asked_for() -> None:
    growth = vid2vid.Schedule(epochs=4, decay_epochs=2, frame_only_epochs=3, clip_frames=4, window_frames=2, max_window_frames=2)
    config = vid2vid.Config(
        num_labels=3, generator=vid2vid.Generator(base_channels=4, num_downsamplings=1, num_blocks=2), schedules=(growth,)
    )
    stages = vid2vid.stages(config, 2)
    assert [(stage.uses_past, stage.num_steps) for stage in stages] == [(False, 6), (True, 2), (True, 2), (True, 2)]
    translator = vid2vid.build(config).train()
    batch = Batch(Condition(labels=torch.zeros(1, 3, 16, 16, dtype=torch.long)), torch.zeros(1, 3, 3, 16, 16))
    least = []
    for stage in stages[:2]:
        translator.begin(stage)
        with torch.no_grad():
            output, _ = translator.rollout(batch, Step(stage))
        assert output.mask is not None
        least.append(output.mask[:, 1:].min().item())
    assert least[0] == 1
    assert least[1] < 1


def test_the_discriminator_of_a_region_sees_the_square_around_it() -> None:
    discriminators = vid2vid.Discriminators(
        base_channels=4, num_scales=1, num_temporal_scales=0, region=vid2vid.Region(labels=(2,))
    )
    config = vid2vid.Config(
        num_labels=3,
        num_input_frames=1,
        generator=vid2vid.Generator(base_channels=4, num_downsamplings=1, num_blocks=2, flow="none"),
        discriminators=discriminators,
        losses=vid2vid.LossWeights(perceptual_weight=0),
    )
    translator = lit.build(config)
    labels = torch.zeros(1, 2, 64, 128, dtype=torch.long)
    labels[:, 0, 40:44, 100:110] = 2  # the second frame has no region: its middle is discriminated
    target = torch.rand(1, 2, 3, 64, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = lit.make_batch(target, labels)
    lit.begin(translator, lit.stages(config)[0])
    losses = lit.losses_of(translator, lit.stages(config)[0], batch, lit.roll_out(translator, batch))["region", 0]
    pictures = torch.cat([one_hot(labels[0], 3), target[0]], dim=1)
    squares = torch.stack([pictures[0, :, 25:57, 88:120], pictures[1, :, 16:48, 48:80]])
    discriminated = lit.networks(translator)["region"](squares)
    assert losses["region_discriminator_real"].item() == pytest.approx(
        0.5 * (discriminated[0][-1] - 1).square().mean().item(), rel=1e-5
    )


@pytest.mark.parametrize("num_known", [2, 5])
def test_a_video_goes_on_from_the_last_of_its_known_frames(num_known: int) -> None:
    config = vid2vid.Config(num_labels=3, generator=vid2vid.Generator(base_channels=4, num_downsamplings=1, num_blocks=2))
    translator = lit.build(config).eval()
    labels = torch.randint(0, 3, (1, 7, 16, 16), generator=torch.Generator().manual_seed(0))
    known = lit.pictures("known", 1, 5, 3, 16, 16)
    condition = Condition(labels=labels)
    with torch.no_grad():
        carry = translator.prime(condition.slice_time(5 - num_known, 5), known[:, 5 - num_known :])
        frames = translator.translate(condition.slice_time(5, 7), carry)[0].frames
        last = translator.prime(condition.slice_time(3, 5), known[:, 3:])
        expected = translator.translate(condition.slice_time(5, 7), last)[0].frames
        first = translator.prime(condition.slice_time(0, 2), known[:, :2])
        other = translator.translate(condition.slice_time(5, 7), first)[0].frames
    torch.testing.assert_close(frames, expected)
    assert (frames - other).abs().max() > 0.01


def test_discriminators_of_motion_remember_the_newest_frames_as_far_as_they_reach() -> None:
    discriminators = vid2vid.Discriminators(base_channels=4, num_temporal_scales=2, num_temporal_frames=3)
    shape = vid2vid.Generator(base_channels=4, num_downsamplings=1, num_blocks=2)
    growth = vid2vid.Schedule(window_frames=4, max_window_frames=4)
    config = vid2vid.Config(num_labels=3, generator=shape, discriminators=discriminators, schedules=(growth,))
    translator = lit.build(config)
    lit.begin(translator, lit.stages(config)[0])
    batch = lit.make_batch(lit.pictures("clip", 1, 12, 3, 16, 16), torch.zeros(1, 12, 16, 16, dtype=torch.long))
    carry, frames = None, []
    for start in (0, 4, 8):
        rolled = lit.roll_out(translator, lit.window(batch, start, start + 4), carry)
        carry = rolled.carry
        frames.append(rolled.frames)
    assert torch.equal(carry.history, torch.cat(frames, dim=1)[:, -6:])

    flow = torch.zeros(1, 12, 2, 16, 16)
    newest = dataclasses.replace(lit.window(batch, 8, 12), flow=flow)
    generated, real = translator._temporal_inputs(0, newest, rolled.whole, {})
    windows = [(9, 10, 11), (6, 7, 8)]
    assert len(generated) == len(real) == len(windows)
    for index, window in enumerate(windows):
        assert torch.equal(generated[index, :9], torch.cat(frames, dim=1)[0, list(window)].flatten(0, 1))
        assert torch.equal(real[index, :9], batch.target[0, list(window)].flatten(0, 1))


def test_a_foreground_class_that_does_not_exist_is_refused_by_name() -> None:
    config = vid2vid.Config(num_labels=3, generator=vid2vid.Generator(foreground_labels=(26,)))
    with pytest.raises(ConfigError, match=r"foreground_labels: 26 is not a class.*0\.\.2"):
        vid2vid.build(config)


def test_a_model_without_past_cannot_have_learned_flow() -> None:
    with pytest.raises(ValueError, match=r"generator\.flow: none"):
        vid2vid.Config(num_labels=3, num_input_frames=1)


def test_every_frame_is_generated_from_its_own_condition_and_from_none_that_follows() -> None:
    shape = vid2vid.Generator(base_channels=4, num_downsamplings=1, num_blocks=1)
    config = vid2vid.Config(
        num_labels=3, num_input_frames=3, generator=shape, discriminators=vid2vid.Discriminators(num_temporal_scales=0)
    )
    torch.manual_seed(0)
    translator = vid2vid.build(config).eval()
    labels = torch.randint(3, (1, 6, 16, 16))
    with torch.no_grad():
        frames = translator.translate(Condition(labels=labels), None)[0].frames
        for changed in range(6):
            other = labels.clone()
            other[:, changed] = (other[:, changed] + 1) % 3
            again = translator.translate(Condition(labels=other), None)[0].frames
            differs = (again - frames).abs().amax(dim=(0, 2, 3, 4)) > 1e-4
            assert not differs[:changed].any()
            assert differs[changed]


@pytest.mark.parametrize("instances", [True, False])
def test_classes_that_are_looked_up_give_the_frames_of_one_hot_channels(instances: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"kind": "compact", "num_levels": 3, "width": 0.25, "foreground_labels": (1, 2)}
    model = vid2vid.build(vid2vid.Config(num_labels=30, use_instances=instances, generator=vid2vid.Generator(**shape))).eval()
    labels = torch.randint(-1, 30, (1, 3, 4, 6)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    condition = Condition(labels=labels, instances=labels.clamp(min=0) if instances else None)
    assert model._looks_up
    with torch.no_grad():
        ids = model.translate(condition)[0].frames
        monkeypatch.setattr(vid2vid.Vid2Vid, "_looks_up", False)
        one_hot = model.translate(condition)[0].frames
    assert torch.allclose(ids, one_hot, atol=1e-4)


@pytest.mark.parametrize("instances", [True, False])
def test_training_goes_on_from_known_frames_however_classes_are_encoded_in_use(
    instances: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"kind": "compact", "num_levels": 3, "width": 0.25, "anchor_frames": 4, "past_tolerance": 0.2, "past_enlargement": 1.1}
    model = vid2vid.build(vid2vid.Config(num_labels=30, use_instances=instances, generator=vid2vid.Generator(**shape)))
    labels = torch.randint(-1, 30, (1, 4, 4, 6)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    condition = Condition(labels=labels, instances=labels.clamp(min=0) if instances else None)
    batch = Batch(condition, lit.pictures("clip", 1, 4, 3, 32, 48), primer_frames=2)
    step, frames = Step(Stage("clips", 1, 1e-3, 1e-3, clip_frames=2, window_frames=2)), []
    for looks_up in (True, False):
        monkeypatch.setattr(vid2vid.Vid2Vid, "_looks_up", looks_up)
        torch.manual_seed(0)
        carry = model.prime(condition.slice_time(0, 2), batch.target[:, :2])
        frames.append(model.rollout(batch, step, carry)[0].frames)
    torch.testing.assert_close(*frames)
