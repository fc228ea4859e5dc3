"""SketchyGAN's units, networks and losses behave as the paper says, at tiny width."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgen.networks.losses import adversarial, diversity, dragan_penalty, focal_cross_entropy
from vidgen.networks.masked_residual import (
    ClassNorm,
    Form,
    MaskedResidualUnit,
    SketchDiscriminator,
    SketchGenerator,
    stretch,
)
from vidgen.translators import sketchygan
from vidgen.types import Batch, Condition, Losses, Pretrained, Step
from vidgen.weights import pretrained

FORMS: tuple[Form, ...] = ("paper", "gru", "stretched", "image", "residual")
NONE = torch.zeros(1, dtype=torch.long)
CLASSES = 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _set(gate: nn.Module, bias: float) -> None:
    assert isinstance(gate, nn.Conv2d)
    assert gate.bias is not None
    nn.init.constant_(gate.bias, bias)


# -- unit ------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_gates_of_the_paper_choose_between_features_and_candidate() -> None:
    unit = MaskedResidualUnit(6, 2, 6)
    x, image = torch.randn(2, 6, 8, 8), torch.randn(2, 2, 8, 8)
    _set(unit.output_gate, 50)
    torch.testing.assert_close(unit(x, image, NONE), x, atol=1e-6, rtol=0)
    _set(unit.output_gate, -50)
    masked = unit.input_gate(torch.cat([x, image], 1)).sigmoid() * x
    candidate = unit.layers[0](torch.cat([masked, image], 1), NONE)
    torch.testing.assert_close(unit(x, image, NONE), candidate, atol=1e-6, rtol=0)
    _set(unit.input_gate, -50)
    torch.testing.assert_close(unit(x, image, NONE), unit(torch.randn_like(x), image, NONE), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_gate_of_the_recurrent_form_means_the_opposite() -> None:
    unit = MaskedResidualUnit(6, 2, 6, form="gru")
    x, image = torch.randn(2, 6, 8, 8), torch.randn(2, 2, 8, 8)
    _set(unit.output_gate, -50)
    torch.testing.assert_close(unit(x, image, NONE), x, atol=1e-6, rtol=0)


def test_a_unit_learns_where_to_keep_and_where_to_replace() -> None:
    unit = MaskedResidualUnit(4, 2, 4)
    optimizer = torch.optim.Adam(unit.parameters(), 2e-2)
    for _ in range(250):
        x, where = torch.randn(4, 4, 8, 8), (torch.rand(4, 1, 8, 8) > 0.5).float()
        value = torch.rand(4, 1, 8, 8)
        wanted = where * value + (1 - where) * x
        loss = (unit(x, torch.cat([where, value], 1), NONE) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gate = unit.output_gate(torch.cat([x, where, value], 1)).sigmoid()
    keep, replace = ((gate * part).sum() / (part.sum() * 4) for part in (1 - where, where))
    assert keep - replace > 0.4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("resize", [None, "up", "down"])
def test_every_form_resizes_and_learns_in_all_its_parts(form: Form, resize: Any) -> None:
    unit = MaskedResidualUnit(4, 3, 5, form=form, resize=resize, norm=lambda channels: ClassNorm("batch", channels, CLASSES))
    side = {"up": 4, "down": 16, None: 8}[resize]
    result = unit(
        torch.randn(2, 4, side, side), torch.randn(2, 3, 16 if resize == "down" else 8, 16 if resize == "down" else 8), NONE
    )
    assert result.shape == (2, 5, 8, 8)
    result.square().sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in unit.parameters())


def test_stretched_gates_bear_maps_of_one_value_and_of_one_pixel() -> None:
    assert torch.equal(stretch(torch.ones(1, 2, 4, 4)), torch.zeros(1, 2, 4, 4))
    for form in ("stretched", "image"):
        unit = MaskedResidualUnit(4, 3, 4, form=form)
        for side in (1, 8):
            result = unit(torch.ones(1, 4, side, side), torch.ones(1, 3, side, side), NONE)
            result.sum().backward()
            assert result.isfinite().all()
    assert all(value.grad is None or value.grad.isfinite().all() for value in unit.parameters())


# -- generator -------------------------------------------------------------------------------------------------------------


def _generator(size: int = 32, **changes: Any) -> SketchGenerator:
    return SketchGenerator(1, CLASSES, size=size, base_channels=4, noise_channels=8, **changes)


def _inputs(count: int, size: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(count, 1, size, size) * 2 - 1, torch.randn(count, 8), torch.arange(count) % CLASSES


@pytest.mark.parametrize("size", [16, 32, 64])
@torch.no_grad()
def test_pictures_have_the_size_of_the_sketch_and_do_not_depend_on_their_batch(size: int) -> None:
    generator = _generator(size)
    for _ in range(3):
        batch = generator(*_inputs(4, size))  # training: averages are taken
    assert batch.shape == (4, 3, size, size)
    assert batch.abs().max() <= 1
    generator.eval()
    sketch, noise, classes = _inputs(4, size)
    alone = generator(sketch[:1], noise[:1], classes[:1])
    torch.testing.assert_close(generator(sketch, noise, classes)[:1], alone, atol=1e-5, rtol=0)
    assert generator(torch.zeros(1, 1, size, 2 * size), noise[:1], classes[:1]).shape == (1, 3, size, 2 * size)


def test_the_published_widths_have_the_published_numbers_of_weights() -> None:
    with torch.device("meta"):
        generator = SketchGenerator(3, 50, encoder_form="image", decoder_form="stretched", num_convs=2)
        discriminator = SketchDiscriminator(50, form="image", is_spectral=True)
    counts = [sum(value.numel() for value in network.parameters()) / 1e6 for network in (generator, discriminator)]
    assert counts == pytest.approx([22.2, 17.2], abs=0.1)


def test_the_sketch_reaches_the_picture_at_every_scale() -> None:
    generator = _generator()
    sketch, noise, classes = _inputs(2)
    levels = [level.requires_grad_() for level in generator.sketch_pyramid(sketch)]
    picture = generator.decode(levels, noise, classes)
    gradients = torch.autograd.grad(picture.square().sum(), levels)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    for place in range(len(levels)):
        moved = [level + (index == place) * torch.randn_like(level) for index, level in enumerate(levels)]
        assert (generator.decode(moved, noise, classes) - picture).abs().mean() > 1e-6


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("is_training", [True, False])
@torch.no_grad()
def test_noise_matters_at_batch_size_one(norm: Any, is_training: bool) -> None:
    generator = _generator(norm=norm).train(is_training)
    sketch, _, classes = _inputs(1)
    one, other = (generator(sketch, torch.randn(1, 8), classes) for _ in range(2))
    assert (one - other).abs().mean() > 1e-6


def test_classes_differ_and_only_their_own_rows_learn() -> None:
    generator = _generator()
    sketch, noise, _ = _inputs(2)
    classes = torch.tensor([0, 2])
    optimizer = torch.optim.SGD(generator.parameters(), 0.1)
    generator(sketch, noise, classes).square().mean().backward()
    tables = [value for name, value in generator.named_parameters() if name.endswith(("scales", "offsets"))]
    assert len(tables) > 10
    for table in tables:
        assert table.grad is not None
        assert table.grad[1].abs().sum() == 0
        assert table.grad[[0, 2]].abs().sum() > 0
    optimizer.step()
    with torch.no_grad():
        same = sketch[:1].repeat(2, 1, 1, 1), noise[:1].repeat(2, 1)
        first, second = generator.eval()(*same, classes)
    assert (first - second).abs().mean() > 1e-6


# -- discriminator and losses ----------------------------------------------------------------------------------------------


def test_spectral_normalization_bounds_every_convolution() -> None:
    network = SketchDiscriminator(CLASSES, size=32, base_channels=4, is_spectral=True, is_class_head_spectral=True).train()
    with torch.no_grad():
        for _ in range(50):
            network(torch.rand(2, 3, 32, 32) * 2 - 1, NONE.repeat(2))
        weights = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        assert len(weights) > 10
        assert max(torch.linalg.matrix_norm(weight.flatten(1), 2).item() for weight in weights) <= 1.05


def _shapes(count: int) -> tuple[Tensor, Tensor]:
    """Discs, lying and standing bars [N,3,16,16] in random colors and places."""
    classes = torch.randint(0, 3, (count,))
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    y, x = (torch.rand(count, 1, 1) * 6 + 5 for _ in range(2))
    dy, dx = (rows - y).abs(), (columns - x).abs()
    masks = torch.stack([dy.square() + dx.square() < 16, (dy < 2) & (dx < 5), (dy < 5) & (dx < 2)], 1)
    mask = masks[torch.arange(count), classes].float()[:, None]
    return mask * (torch.rand(count, 3, 1, 1) * 0.6 + 0.4) + 0.1 * torch.randn(count, 3, 16, 16), classes


@pytest.mark.slow
@pytest.mark.parametrize(("is_spectral", "least"), [(False, 0.8), (True, 0.6)])
def test_the_head_of_classes_learns_shapes(is_spectral: bool, least: float) -> None:
    network = SketchDiscriminator(3, size=16, base_channels=8, is_spectral=True, is_class_head_spectral=is_spectral)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3, betas=(0.0, 0.9))
    for _ in range(400):
        pictures, classes = _shapes(16)
        loss = focal_cross_entropy(network(pictures, classes)[1], classes, 2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pictures, classes = _shapes(150)
    assert (network.eval()(pictures, classes)[1].argmax(1) == classes).float().mean() > least  # 0.33 by chance


def test_focal_loss_is_cross_entropy_at_gamma_zero_and_weighs_doubt_more() -> None:
    logits, classes = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.3, -0.2]]), torch.tensor([0, 2])
    torch.testing.assert_close(focal_cross_entropy(logits, classes, 0.0), F.cross_entropy(logits, classes))
    found = []
    for row, wanted in zip(logits.tolist(), classes.tolist(), strict=True):
        chance = math.exp(row[wanted]) / sum(math.exp(value) for value in row)
        found.append((1 - chance) ** 2 * -math.log(chance))
    assert focal_cross_entropy(logits, classes, 2.0).item() == pytest.approx(sum(found) / 2, rel=1e-5)


@pytest.mark.parametrize("slope", [0.05, 0.5])
def test_the_penalty_of_a_linear_critic_is_known(slope: float) -> None:
    real = torch.randn(3, 1, 4, 4)

    def critic(pictures: Tensor) -> Tensor:
        return slope * pictures.flatten(1).sum(1)

    excess = slope * 4 - 1  # the gradient's norm over 16 pixels is 4 slopes
    assert dragan_penalty(critic, real).item() == pytest.approx(excess**2, rel=1e-4)
    assert dragan_penalty(critic, real, is_one_sided=True).item() == pytest.approx(max(0, excess) ** 2, rel=1e-4, abs=1e-6)


def test_logistic_losses_are_softplus() -> None:
    logits = torch.tensor([[-1.5, 0.3], [2.0, -0.1]])
    for learner, real, wanted in (
        ("discriminator", True, F.softplus(-logits)),
        ("discriminator", False, F.softplus(logits)),
        ("generator", True, F.softplus(-logits)),
    ):
        torch.testing.assert_close(adversarial(logits, real=real, learner=learner, objective="vanilla"), wanted.mean())  # type: ignore[arg-type]


def test_a_step_on_diversity_pushes_results_apart_until_its_cap() -> None:
    generator = _generator()
    sketch, one, classes = _inputs(2)
    other = torch.randn_like(one)
    distance = (one - other).norm(dim=1)

    def pair() -> tuple[Tensor, Tensor]:
        return generator(sketch, one, classes), generator(sketch, other, classes)

    before = diversity(*pair(), distance)
    assert before < 0
    optimizer = torch.optim.SGD(generator.parameters(), 20.0)
    before.backward()
    optimizer.step()
    assert diversity(*pair(), distance) < before
    capped = diversity(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2), torch.tensor([2.0]), cap=0.25)
    assert capped.item() == pytest.approx(-0.125, rel=1e-5)
    assert diversity(one[:, :3, None, None], one[:, :3, None, None], torch.zeros(2)).isfinite(), "equal noises divide by nothing"


# -- what moves what -------------------------------------------------------------------------------------------------------

NETWORKS = pretrained.load([Pretrained("efficientnet_lite0", "the test")], {}).networks
_OFF = {
    f"{name}_weight": 0.0
    for name in ("gan", "gradient_penalty", "class", "generated_class", "l1", "perceptual", "diversity", "texture", "feature_gan")
}
TERMS = {
    "gan": ("gan_weight", {"discriminator", "generator"}),
    "penalty": ("gradient_penalty_weight", {"discriminator"}),
    "class of real pictures": ("class_weight", {"discriminator"}),
    "class of generated pictures": ("generated_class_weight", {"generator"}),
    "l1": ("l1_weight", {"generator"}),
    "perceptual": ("perceptual_weight", {"generator"}),
    "diversity": ("diversity_weight", {"generator"}),
    "decay": ("decay_weight", {"discriminator", "generator"}),
}


def _batch(count: int = 2) -> Batch:
    condition = Condition(frames=torch.rand(count, 1, 1, 32, 32) * 2 - 1, class_id=torch.arange(count) % CLASSES)
    return Batch(condition, torch.rand(count, 1, 3, 32, 32) * 2 - 1)


def _translator(losses: dict[str, float], **judge: Any) -> sketchygan.SketchyGAN:
    return sketchygan.build(
        sketchygan.Config(
            condition_channels=1,
            num_classes=CLASSES,
            image_size=32,
            generator=sketchygan.Generator(base_channels=4, noise_channels=8),
            discriminator=sketchygan.Discriminator(base_channels=4, **judge),
            losses=sketchygan.LossWeights(**losses),
        )
    )


def _phase_losses(translator: sketchygan.SketchyGAN, batch: Batch) -> dict[str, Losses]:
    (stage, *_) = sketchygan.stages(translator.config, 10)
    step, result = Step(stage), {}
    for phase in translator.phases(stage):
        others = set(translator.parameters()) - set(phase.parameters())
        torch.manual_seed(1)
        output, _ = translator.rollout(batch, step)
        for parameter in others:
            parameter.requires_grad_(False)
        result[phase.name] = translator.losses(phase, step, batch, output, NETWORKS)
        for parameter in others:
            parameter.requires_grad_(True)
    return result


@pytest.mark.parametrize("term", TERMS)
def test_every_term_moves_the_networks_that_it_should(term: str) -> None:
    weight, learners = TERMS[term]
    translator = _translator(_OFF | {weight: 1.0})
    batch = _batch()
    translator.calibrate([batch], NETWORKS)
    found = _phase_losses(translator, batch)
    moved = set()
    for name, losses in found.items():
        network = getattr(translator, name)
        network.zero_grad()
        total = torch.stack([loss for loss in losses.values() if loss.requires_grad] or [torch.zeros((), requires_grad=True)]).sum()
        total.backward()
        if sum(value.grad.abs().sum() for value in network.parameters() if value.grad is not None) > 0:
            moved.add(name)
    assert moved == learners


@pytest.mark.parametrize("objective", ["dragan", "logistic", "wasserstein"])
@pytest.mark.parametrize("seen", [{}, {"sees_sketch": True}, {"projection": True}])
def test_every_objective_gives_finite_losses(objective: str, seen: dict[str, bool]) -> None:
    translator = _translator({"perceptual_weight": 0}, objective=objective, **seen)
    losses = _phase_losses(translator, _batch())
    assert ("class" in losses["discriminator"]) == ("projection" not in seen)
    assert ("discriminator_penalty" in losses["discriminator"]) == (objective != "logistic")
    assert all(value.isfinite() for group in losses.values() for value in group.values())


def test_the_nearer_of_two_pictures_has_to_be_like_the_real_one() -> None:
    translator = _translator(
        {"perceptual_weight": 0, "diversity_weight": 1, "diversity_cap": 1, "l1_weight": 1, "likeness_of": "nearest"}
    )
    batch = _batch()
    (stage, *_) = sketchygan.stages(translator.config, 10)
    output, _ = translator.rollout(batch, Step(stage))
    first, second, real = output.frames[:, 0], output.extras["second"], batch.target[:, 0]
    coarse = [torch.nn.functional.adaptive_avg_pool2d(side - real, 8).abs().mean((1, 2, 3)) for side in (first, second)]
    assert (coarse[0] <= coarse[1]).all()
    generator, discriminator = (translator.phases(stage)[index] for index in (1, 0))
    losses = translator.losses(generator, Step(stage), batch, output, NETWORKS)
    torch.testing.assert_close(losses["l1"], (first - real).abs().mean())
    translator.eval()  # batch statistics aside, the discriminator's loss is that of both pictures
    judged = translator.losses(discriminator, Step(stage), batch, output, NETWORKS)["discriminator_fake"]
    classes = batch.condition.tensors["class_id"]
    each = [torch.nn.functional.softplus(translator.discriminator(side, classes)[0]).mean() for side in (first, second)]
    torch.testing.assert_close(judged, torch.stack(each).mean())


@pytest.mark.slow
def test_diversity_makes_results_of_different_noise_differ_more() -> None:
    differences = {}
    for weight in (0.0, 30.0):
        torch.manual_seed(0)
        translator = _translator(_OFF | {"l1_weight": 1.0, "diversity_weight": weight})
        optimizer = torch.optim.Adam(translator.generator.parameters(), 2e-3)
        batch = _batch(4)
        (stage, *_) = sketchygan.stages(translator.config, 10)
        phase = translator.phases(stage)[1]
        for _ in range(40):
            output, _ = translator.rollout(batch, Step(stage))
            optimizer.zero_grad()
            torch.stack(list(translator.losses(phase, Step(stage), batch, output, {}).values())).sum().backward()
            optimizer.step()
        translator.eval()
        with torch.no_grad():
            one, other = (
                translator.translate(batch.condition.with_tensors(noise=torch.full((4,), seed)))[0].frames for seed in (1, 2)
            )
        differences[weight] = (one - other).abs().mean().item()
    assert differences[30.0] > 2 * differences[0.0] > 0


@pytest.mark.slow
def test_four_pairs_are_learned_by_heart() -> None:
    torch.manual_seed(0)
    translator = sketchygan.build(
        sketchygan.Config(
            condition_channels=1,
            num_classes=CLASSES,
            image_size=32,
            generator=sketchygan.Generator(base_channels=8, noise_channels=8),
            losses=sketchygan.LossWeights(**(_OFF | {"l1_weight": 10.0})),
        )
    )
    frames = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4) * 2 - 1, (32, 32), mode="bilinear")[:, None]
    batch = Batch(Condition(frames=torch.rand(4, 1, 1, 32, 32) * 2 - 1, class_id=torch.arange(4) % CLASSES), frames)
    (stage, *_) = sketchygan.stages(translator.config, 300)
    phase, found = translator.phases(stage)[1], []
    optimizer = torch.optim.Adam(translator.generator.parameters(), 2e-3)
    for _ in range(300):
        output, _ = translator.rollout(batch, Step(stage))
        loss = translator.losses(phase, Step(stage), batch, output, {})["l1"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < found[0] / 5


# -- schedule --------------------------------------------------------------------------------------------------------------


def _share(config: sketchygan.Config, part: float, total: int = 1000) -> float:
    step = round(part * total)
    for stage in sketchygan.stages(config, total):
        if step < stage.num_steps:
            break
        step -= stage.num_steps
    return Step(stage, min(1.0, step / stage.num_steps)).between(stage.mixture["sketches"])


@pytest.mark.parametrize(
    ("curriculum", "shares"),
    [
        ({}, (0.10, 0.35, 0.60, 0.90, 0.90)),
        ({"exponent": 2}, (0.10, 0.1625, 0.35, 0.74, 0.90)),
        ({"first": 0.2, "last": 0.8, "span": 0.6}, (0.20, 0.35, 0.50, 0.68, 0.74)),
    ],
)
def test_the_share_of_sketches_grows_as_published(curriculum: dict[str, float], shares: tuple[float, ...]) -> None:
    schedule = sketchygan.Schedule(epochs=1, curriculum=sketchygan.Curriculum(**curriculum))
    config = sketchygan.Config(schedule=schedule)
    assert [_share(config, part) for part in (0, 0.25, 0.5, 0.8, 0.9)] == pytest.approx(shares, abs=2e-3)


def test_the_learning_rate_falls_as_released() -> None:
    stages = sketchygan.stages(sketchygan.Config(schedule=sketchygan.Schedule(epochs=1, learning_rate=2e-4)), 900)
    assert [stage.num_steps for stage in stages] == [800, 100]
    assert (stages[0].learning_rate, stages[0].final_learning_rate) == pytest.approx((2e-4, 4e-5))
    assert (stages[1].learning_rate, stages[1].final_learning_rate) == pytest.approx((4e-5, 4e-5))
