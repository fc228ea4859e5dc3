"""style2paints: its losses as numbers, what each of them teaches, and that the style goes in and comes out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tests.literal as lit
from tests.tiny_networks import filled
from vidgen.networks.features import Vgg19FirstDense
from vidgen.networks.style_adversary import StyleAdversary, StyleDiscriminator, soft_targets
from vidgen.networks.style_hints import HintNorm, color_statistics, random_features
from vidgen.networks.style_unet import GuideDecoder, StyleUNet
from vidgen.translators import style2paints
from vidgen.translators.style2paints import Style2Paints
from vidgen.types import Batch, Condition, Stage, Step
from vidgen.weights import pretrained
from vidgen.weights.pretrained import load_vgg19_fc1

SIDE = 32


def _config(**changes: Any) -> style2paints.Config:
    return style2paints.Config.model_validate(
        {
            "condition_channels": 1,
            "generator": {"base_channels": 4, "mid_channels": 24, "num_levels": 3},
            "hint": {"encoder": "random_features"},
            "discriminator": {"base_channels": 4, "num_layers": 3, **changes.pop("discriminator", {})},
            "schedule": {"epochs": 2, "decay_epochs": 2},
            **changes,
        }
    )


def _batch(number: int = 1, side: int = SIDE) -> Batch:
    pictures = lit.pictures("painting", number, 1, 3, side, side)
    drawing = lit.pictures("drawing", number, 1, 1, side, side)
    return Batch(Condition(frames=drawing, style=pictures[:, 0]), pictures)


# -- losses ----------------------------------------------------------------------------------------------------------------


_LITERAL_LIKENESS = {"l1": 32.105537, "gray_guide": 7.188479, "color_guide": 28.789949}


@pytest.mark.parametrize(
    ("discriminator", "literal"),
    [
        ({"objective": "bce"}, {"gan": 1.050916, "discriminator_real": 0.700521, "discriminator_fake": 0.721613}),
        ({"objective": "mse"}, {"gan": 0.459006, "discriminator_real": 0.308011, "discriminator_fake": 0.073281}),
        (
            {"objective": "literal", "generator": "raise"},
            {"gan": 1.024195, "discriminator_real": 0.003494, "discriminator_fake": 0.721613},
        ),
        ({"objective": "dcgan"}, {"gan": 1.189057, "discriminator_real": 0.784938, "discriminator_fake": 0.60261}),
    ],
)
def test_every_loss_is_that_of_its_formula(discriminator: dict[str, str], literal: dict[str, float]) -> None:
    config = _config(discriminator=discriminator, losses={"gan_weight": 1.5, "l1_weight": 70.0})
    translator = lit.build(config)
    assert isinstance(translator, Style2Paints)
    stage, batch = lit.stages(config)[0], _batch(2)
    lit.begin(translator, stage)
    rolled = lit.roll_out(translator, batch)
    found = {
        name: value.item() for group in lit.losses_of(translator, stage, batch, rolled).values() for name, value in group.items()
    }
    with torch.no_grad():
        real, fake = batch.target[:, 0], rolled.frames[:, 0]
        raw = random_features(real)
        normalized = (raw - raw.mean(1, keepdim=True)) / (raw.std(1, keepdim=True, correction=0) + 1e-5)
        target = 0.1 + 0.8 * torch.sigmoid(normalized)
        extras = rolled.whole.extras
        mean_gray = (0.299 * real[:, :1] + 0.587 * real[:, 1:2] + 0.114 * real[:, 2:]).expand(-1, 1, -1, -1)
        critic = translator.discriminator
        assert critic is not None
        realness = discriminator["objective"] == "dcgan"
        of_real, of_fake = critic(real, realness=realness), critic(fake, realness=realness)
        chance_real, chance_fake = torch.sigmoid(of_real), torch.sigmoid(of_fake)

        def cross_entropy(chance: Tensor, wanted: Tensor | float) -> Tensor:
            return -(wanted * chance.log() + (1 - wanted) * (1 - chance).log()).mean()

        wanted = target if not realness else torch.zeros(())
        adversarial = {
            "bce": (cross_entropy(chance_fake, target), cross_entropy(chance_real, target), cross_entropy(chance_fake, 0.0)),
            "mse": ((of_fake - wanted).square().mean(), (of_real - wanted).square().mean(), of_fake.square().mean()),
            "literal": (
                -chance_fake.log().mean(),
                -(chance_real + 1 - target).log().mean(),
                -(1 - chance_fake).log().mean(),
            ),
            "dcgan": (-chance_fake.log().mean(), -chance_real.log().mean(), -(1 - chance_fake).log().mean()),
        }[discriminator["objective"]]
        formulas = {
            "l1": 70 * (fake - real).abs().mean(),
            "gray_guide": 70 * 0.3 * (extras["gray"] - mean_gray).abs().mean(),
            "color_guide": 70 * 0.9 * (extras["color"] - real).abs().mean(),
            "gan": 1.5 * adversarial[0],
            "discriminator_real": adversarial[1],
            "discriminator_fake": adversarial[2],
        }
    assert found == pytest.approx({name: float(value) for name, value in formulas.items()}, rel=1e-4, abs=1e-5)
    assert found == pytest.approx({**literal, **_LITERAL_LIKENESS}, rel=1e-4, abs=1e-5)


def test_weights_of_the_guides_are_the_published_ones() -> None:
    weights = style2paints.LossWeights()
    assert (weights.gray_guide_weight, weights.color_guide_weight, weights.gray_guide_target) == (0.3, 0.9, "gray")


def test_the_figure_s_widths_are_the_defaults() -> None:
    shape = style2paints.Generator()
    sizes = {"base_channels": shape.base_channels, "num_levels": shape.num_levels, "skips": shape.skips}
    unet = StyleUNet(1, 0, mid_channels=8, **sizes)  # type: ignore[arg-type]
    guide = GuideDecoder(unet.entry_channels, unet.exit_channels, 5, 1, upsampling="transposed")
    with torch.no_grad():
        entry, skips = unet.encode(torch.zeros(1, 1, 64, 64))
        painting = unet.decode(entry, skips, None)
        assert tuple(guide(entry).shape) == (1, 1, 64, 64)
    assert shape.mid_channels == 2048
    assert tuple(entry.shape[1:]) == (256, 4, 4)
    assert tuple(painting.exit.shape[1:]) == (512, 4, 4)
    handed = [None if skip is None else tuple(skip.shape[1:]) for skip in skips]
    assert handed == [None, (16, 32, 32), (32, 16, 16), (64, 8, 8), (256, 4, 4)]
    assert [up.conv.out_channels for up in unet.decoder] == [512, 128, 64, 32, 64]  # type: ignore[union-attr]
    assert [up.conv.out_channels for up in guide.ups] == [256, 128, 64, 32]  # type: ignore[union-attr]


def test_each_loss_term_moves_what_it_is_to_teach_and_nothing_else() -> None:
    translator = lit.build(_config())
    assert isinstance(translator, Style2Paints)
    stage, batch = lit.stages(translator.config)[0], _batch(2)
    unet = translator.generator.unet
    parts: dict[str, nn.Module] = {
        "encoder": unet.encoder,
        "middle": unet.middle,
        "hint": unet.hint or nn.Identity(),
        "decoder": unet.decoder,
        "head": unet.head,
        "gray": translator.gray_guide or nn.Identity(),
        "color": translator.color_guide or nn.Identity(),
        "discriminator": translator.discriminator or nn.Identity(),
    }
    whole = {"encoder", "middle", "hint", "decoder", "head"}
    expected = {
        "l1": whole,
        "gan": whole,
        "gray_guide": {"encoder", "gray"},
        "color_guide": {"encoder", "middle", "hint", "decoder", "color"},
        "discriminator_real": {"discriminator"},
        "discriminator_fake": {"discriminator"},
    }
    seen = {}
    for phase in translator.phases(stage):
        learners = set(phase.parameters())
        for parameter in translator.parameters():
            parameter.requires_grad_(parameter in learners)
        output, _ = translator.rollout(batch, Step(stage))
        for name, loss in translator.losses(phase, Step(stage), batch, output, {}).items():
            translator.zero_grad()
            loss.backward(retain_graph=True)
            seen[name] = {
                part
                for part, module in parts.items()
                if any(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in module.parameters())
            }
    assert seen == expected


def test_the_objective_alternates_with_dcgan() -> None:
    translator = lit.build(_config(discriminator={"switch_every": 2}))
    stage = Stage("painting", 8, 1e-3, 0.0)
    batch = _batch()
    (phase,) = (phase for phase in translator.phases(stage) if phase.name == "discriminator")
    plain = []
    for index in range(8):
        step = Step(stage, index / 8)
        output, _ = translator.rollout(batch, step)
        translator.zero_grad()
        sum(translator.losses(phase, step, batch, output, {}).values()).backward()  # type: ignore[union-attr]
        critic = translator.discriminator
        plain.append(critic.realness.weight.grad is not None and critic.styles.weight.grad is None)  # type: ignore[union-attr]
    assert plain == [False, False, True, True, False, False, True, True]


def test_the_literal_objective_comes_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vidgen"):
        style2paints.build(_config(discriminator={"objective": "literal"}))
    assert "drives all outputs" in caplog.text


# -- where the style goes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skips", ["paper", "symmetric"])
@torch.no_grad()
def test_the_gray_guide_knows_no_style_and_the_color_guide_no_skip(skips: str) -> None:
    translator = lit.build(_config(generator={"base_channels": 4, "mid_channels": 24, "num_levels": 3, "skips": skips}))
    assert isinstance(translator, Style2Paints)
    unet = translator.generator.unet
    drawing, (hint, other) = _batch().condition.frames[0], torch.randn(2, 1, 128)  # type: ignore[index]
    first, second = unet.paint(drawing, hint), unet.paint(drawing, other)
    gray_guide, color_guide = translator.gray_guide, translator.color_guide
    assert gray_guide is not None
    assert color_guide is not None
    assert torch.equal(gray_guide(first.entry), gray_guide(second.entry))
    assert not torch.equal(color_guide(first.exit), color_guide(second.exit))
    entry, handed = unet.encode(drawing)
    replaced = [None if skip is None else torch.randn_like(skip) for skip in handed]
    changed = unet.decode(entry, replaced, hint)
    assert torch.equal(color_guide(first.exit), color_guide(changed.exit))
    assert not torch.equal(first.frame, changed.frame)


def test_guides_and_discriminator_are_absent_in_use() -> None:
    config = _config()
    translator = lit.build(config).eval()
    assert isinstance(translator, Style2Paints)
    assert translator.gray_guide is not None

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a guide was asked in use")

    translator.gray_guide.register_forward_hook(refuse)
    translator.translate(_batch().condition)
    slim = style2paints.build(config.for_use())
    assert {name.split(".")[0] for name in slim.state_dict()} == {"generator"}


@torch.no_grad()
def test_the_style_of_a_video_is_read_once_and_of_each_sample_its_own() -> None:
    translator = lit.build(_config()).eval()
    condition = _batch(2).condition
    both, carry = translator.translate(condition)
    for index in range(2):
        alone = Condition(frames=condition.frames[index : index + 1], style=condition.tensors["style"][index : index + 1])  # type: ignore[index]
        torch.testing.assert_close(translator.translate(alone)[0].frames[0], both.frames[index], atol=1e-5, rtol=0)
    without = Condition(frames=condition.frames)
    again, _ = translator.translate(without, carry)
    assert torch.equal(again.frames, both.frames)
    with pytest.raises(ValueError, match="reads a style picture"):
        translator.translate(without)


def _compact_config(**changes: Any) -> style2paints.Config:
    return _config(generator={"network": "compact", "width": 0.25, "num_levels": 2}, **changes)


def test_the_compact_generator_has_no_guides_and_is_trained_by_what_it_paints() -> None:
    config = _compact_config(losses={"l1_weight": 70.0})
    translator = lit.build(config)
    assert isinstance(translator, Style2Paints)
    stage, batch = lit.stages(config)[0], _batch(2)
    lit.begin(translator, stage)
    rolled = lit.roll_out(translator, batch)
    found = lit.losses_of(translator, stage, batch, rolled)
    assert {name for losses in found.values() for name in losses} == {"l1", "gan", "discriminator_real", "discriminator_fake"}
    (of_pictures,) = (losses["l1"] for losses in found.values() if "l1" in losses)
    torch.testing.assert_close(of_pictures, 70 * F.l1_loss(rolled.frames, batch.target), atol=1e-4, rtol=1e-5)
    slim = style2paints.build(config.for_use())
    assert {name.split(".")[0] for name in slim.state_dict()} == {"generator"}


@torch.no_grad()
def test_a_style_changes_what_the_compact_generator_paints_everywhere_and_a_stroke_more_than_its_pixels() -> None:
    painter = filled(lit.build(_compact_config()).eval().generator)
    drawing = torch.ones(1, 1, 64, 64)
    hints = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    painted = [painter(drawing, hint[None]) for hint in hints]
    assert bool(((painted[0] - painted[1]).abs().amax(1) > 0).all())
    stroke = drawing.clone()
    stroke[..., 30:34, 10:50] = -1
    change = (painter(stroke, hints[:1]) - painted[0]).abs().amax(1)[0]
    assert float(change[20:24, 20:40].mean()) > 1e-3, "paper near a stroke is painted as what the stroke bounds"


def test_a_hint_is_normalized_by_itself_or_by_the_training_pictures() -> None:
    hints = 3 * torch.randn(6, 70, generator=torch.Generator().manual_seed(0)) + torch.arange(70.0)
    alone = HintNorm(70, "picture")(hints)
    torch.testing.assert_close(alone.mean(1), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(alone.std(1, correction=0), torch.ones(6), atol=1e-4, rtol=0)
    norm = HintNorm(70, "data")
    norm.measure(hints.split(2))
    units = 3 * torch.atanh(norm(hints) / 3)
    torch.testing.assert_close(units.mean(0), torch.zeros(70), atol=1e-3, rtol=0)
    torch.testing.assert_close(units.std(0, correction=0), torch.ones(70), atol=1e-2, rtol=0)
    assert norm(hints + 1000).max() <= 3


def test_color_statistics_are_those_of_colors_alone() -> None:
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mixed = picture.flatten(2)[:, :, torch.randperm(256)].unflatten(2, (16, 16))
    torch.testing.assert_close(color_statistics(picture), color_statistics(mixed), atol=1e-5, rtol=0)
    assert color_statistics(picture).shape[1] == style2paints.HINT_CHANNELS["color_statistics"]
    histogram = color_statistics(picture)[0, 6:].square()
    assert histogram.sum().item() == pytest.approx(1.0, abs=1e-4)


def test_vgg_19_gives_its_first_dense_layer_before_the_relu(tmp_path: Path) -> None:
    from torchvision.models import vgg19

    torch.manual_seed(0)
    narrow = filled(Vgg19FirstDense(width_divisor=64))
    torch.save({**narrow.state_dict(), "classifier.3.weight": torch.zeros(2)}, tmp_path / "vgg19.pth")
    network = load_vgg19_fc1(tmp_path / "vgg19.pth", width_divisor=64)
    pictures = lit.pictures("vgg", 2, 3, 224, 224)
    numbers = network(pictures)
    x = ((pictures + 1) / 2 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.device("meta"):
        published = vgg19()
    plain = [type(layer) for layer in published.features]
    assert plain == [type(layer) for layer in network.features]
    for layer in network.features:
        x = layer(x)
    expected = F.linear(x.flatten(1), network.classifier[0].weight, network.classifier[0].bias)  # type: ignore[arg-type]
    torch.testing.assert_close(numbers, expected)
    assert numbers.shape == (2, style2paints.HINT_CHANNELS["vgg19_fc1"])
    assert numbers.min() < 0
    with torch.device("meta"):
        real = Vgg19FirstDense().state_dict()
    assert {name: value.shape for name, value in published.state_dict().items() if name in real} == {
        name: value.shape for name, value in real.items()
    }


def test_hints_of_efficientnet_are_the_default_and_are_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    networks = pretrained.load(style2paints.pretrained(style2paints.Config()), {}).networks
    with caplog.at_level(logging.INFO, "vidgen"):
        translator = style2paints.build(_config(hint={}), networks)
    assert "style hints: 1088 numbers of efficientnet lite0; the paper's are 4096 of VGG-19" in caplog.text
    hints = translator.hint_of(lit.pictures("style", 2, 3, 64, 64))
    assert hints.shape == (2, 1088)
    assert not any("efficientnet" in name or "_encoder" in name for name in translator.state_dict())


# -- what is learned -------------------------------------------------------------------------------------------------------


def _flat_styles(generator: torch.Generator, count: int, side: int = 16) -> tuple[Tensor, Tensor]:
    """Pictures of one of 8 colors each with some noise, and the number of their style."""
    palette = torch.tensor([[r, g, b] for r in (-0.8, 0.8) for g in (-0.8, 0.8) for b in (-0.8, 0.8)])
    numbers = torch.randint(0, 8, (count,), generator=generator)
    noise = 0.1 * torch.randn(count, 3, side, side, generator=generator)
    return (palette[numbers][:, :, None, None] + noise).clamp(-1, 1), numbers


def _discriminate(objective: Any, num_steps: int = 100) -> tuple[float, float, float, float]:
    """(mean D of generated, mean D of real, mean |D - V|, share of styles that are retrieved) after training."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    norm = HintNorm(64, "data")
    norm.measure(color_statistics(_flat_styles(generator, 16)[0])[:, :64] for _ in range(8))

    def target(pictures: Tensor) -> Tensor:
        return soft_targets(norm(color_statistics(pictures)[:, :64]))

    critic = StyleDiscriminator(64, base_channels=8, num_layers=3)
    adversary = StyleAdversary(critic, objective)
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3, betas=(0.5, 0.999))
    for _ in range(num_steps):
        real, _ = _flat_styles(generator, 16)
        fake = torch.rand(16, 3, 16, 16, generator=generator) * 2 - 1
        losses = adversary.discriminator_losses(fake, real, target(real))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        real, numbers = _flat_styles(generator, 64)
        fake = torch.rand(64, 3, 16, 16, generator=generator) * 2 - 1
        said, wanted = torch.sigmoid(critic(real)), target(real)
        styles = torch.stack([wanted[numbers == number].mean(0) for number in range(8)])
        retrieved = torch.cdist(said, styles).argmin(1) == numbers
        return (
            float(torch.sigmoid(critic(fake)).mean()),
            float(said.mean()),
            float((said - wanted).abs().mean()),
            float(retrieved.float().mean()),
        )


def test_the_discriminator_learns_styles_by_soft_targets_and_loses_them_by_the_printed_equation() -> None:
    of_fake, _, difference, retrieved = _discriminate("bce")
    assert of_fake < 0.05
    assert difference < 0.1
    assert retrieved > 0.6
    _, of_real, _, retrieved = _discriminate("literal")
    assert of_real > 0.95
    assert retrieved < 0.6


@pytest.mark.parametrize("network", ["unet", "compact"])
def test_four_pairs_are_learned_by_heart(network: str) -> None:
    batch = _batch(4, 16)
    config = _overfit_config() if network == "unet" else _compact_config(discriminator={"base_channels": 4, "num_layers": 2})
    translator = _trained(config, lambda step: batch, 120, 3e-3)
    torch.manual_seed(0)
    fresh = style2paints.build(config)
    with torch.no_grad():
        l1 = [F.l1_loss(one.rollout(batch, STEP)[0].frames, batch.target).item() for one in (fresh, translator)]
    assert l1[1] < l1[0] / 5


def _overfit_config() -> style2paints.Config:
    return _config(
        discriminator={"base_channels": 4, "num_layers": 2}, generator={"base_channels": 8, "mid_channels": 32, "num_levels": 2}
    )


STEP = Step(Stage("painting", 1, 1e-3, 0.0))


def _trained(config: style2paints.Config, batches: Any, num_steps: int, rate: float, seed: int = 0) -> Style2Paints:
    torch.manual_seed(seed)
    translator = style2paints.build(config).train()
    phases = translator.phases(STEP.stage)
    optimizers = {phase.name: torch.optim.Adam(phase.parameters(), rate, betas=(0.5, 0.999)) for phase in phases}
    for step in range(num_steps):
        batch = batches(step)
        output, _ = translator.rollout(batch, STEP)
        for phase in phases:
            losses = translator.losses(phase, STEP, batch, output, {})
            translator.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizers[phase.name].step()
    return translator


# -- the lazy U-net ---------------------------------------------------------------------------------------------------------


def _copies(generator: torch.Generator, count: int = 8) -> Tensor:
    """Smooth random pictures [N,3,32,32]."""
    coarse = torch.randn(count, 3, 8, 8, generator=generator)
    return torch.tanh(F.interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=False))


def _lazy(guided: bool, num_steps: int = 400) -> tuple[float, float]:
    """Copying a picture through a 5-level U-net: (relative gradient of the middle over that of the output layer, in the second
    half of training; L1 without the middle over L1 with it)."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    unet = StyleUNet(3, 0, base_channels=8, mid_channels=128, num_levels=4, skips="symmetric")
    guides = [GuideDecoder(unet.entry_channels, 64, 4, 3, upsampling="transposed")] if guided else []
    guides += [GuideDecoder(unet.exit_channels, 64, 4, 3, upsampling="transposed")] if guided else []
    parameters = [value for module in (unet, *guides) for value in module.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3, betas=(0.5, 0.999))
    ratios = []
    for step in range(num_steps):
        picture = _copies(generator)
        painting = unet.paint(picture, None)
        loss = F.l1_loss(painting.frame, picture)
        for guide, weight, seen in zip(guides, (0.3, 0.9), (painting.entry, painting.exit), strict=False):
            loss = loss + weight * F.l1_loss(guide(seen), picture)
        optimizer.zero_grad()
        loss.backward()
        if step >= num_steps // 2:
            middle, head = ((layer.weight.grad.norm() / layer.weight.norm()).item() for layer in (unet.middle, unet.head))  # type: ignore[union-attr]
            ratios.append(middle / head)
        optimizer.step()
    with torch.no_grad():
        picture = _copies(generator, 16)
        entry, skips = unet.encode(picture)
        whole = F.l1_loss(unet.decode(entry, skips, None).frame, picture)
        unet.middle.weight.zero_()
        assert unet.middle.bias is not None
        unet.middle.bias.zero_()
        without = F.l1_loss(unet.decode(entry, skips, None).frame, picture)
    return sum(ratios) / len(ratios), float(without / whole)


@pytest.mark.slow
def test_the_middle_of_a_plain_u_net_is_lazy_and_that_of_a_guided_one_is_not() -> None:
    plain, without = _lazy(guided=False)
    guided, _ = _lazy(guided=True)
    assert guided >= 5 * plain
    assert without < 1.15, "a plain U-net copies through its skips; its middle is of no use"


def _colored(generator: torch.Generator, count: int = 8) -> Batch:
    """Discs and squares in two colors on a ground of a third, as outlines, with the picture itself as style."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    pictures, drawings = [], []
    for _ in range(count):
        colors = torch.rand(3, 3, generator=generator) * 2 - 1
        picture = colors[0][:, None, None].expand(3, 32, 32).clone()
        drawing = torch.ones(1, 32, 32)
        for shape in range(2):
            row, column = (float(value) for value in torch.rand(2, generator=generator) * 16 + 8)
            apart = [(rows - row).abs(), (columns - column).abs()]
            reach = (apart[0].square() + apart[1].square()).sqrt() if shape else torch.maximum(*apart)
            picture[:, reach < 7] = colors[1 + shape][:, None]
            drawing[:, (reach - 7).abs() < 1] = -1
        pictures.append(picture)
        drawings.append(drawing)
    target = torch.stack(pictures).unsqueeze(1)
    return Batch(Condition(frames=torch.stack(drawings).unsqueeze(1), style=target[:, 0]), target)


def _paint(*, hinted: bool = True) -> tuple[float, float]:
    """(L1 of unseen pictures, the same with the hints of others) after 400 steps without a discriminator."""
    config = _config(generator={"base_channels": 8, "mid_channels": 96, "num_levels": 3}, losses={"l1_weight": 1.0})
    config = config.model_copy(update={"discriminator": None})
    generator = torch.Generator().manual_seed(3)

    def batch() -> Batch:
        drawn = _colored(generator)
        return drawn if hinted else Batch(Condition(frames=drawn.condition.frames, style=torch.zeros(8, 3, 32, 32)), drawn.target)

    translator = _trained(config, lambda step: batch(), 400, 2e-3).eval()
    seen = batch()
    with torch.no_grad():
        frames = translator.translate(seen.condition)[0].frames
        others = seen.condition.with_tensors(style=seen.condition.tensors["style"].roll(1, 0))
        swapped = translator.translate(others)[0].frames
    return F.l1_loss(frames, seen.target).item(), F.l1_loss(swapped, seen.target).item()


@pytest.mark.slow
def test_the_hint_is_used() -> None:
    without, _ = _paint(hinted=False)
    guided, swapped = _paint()
    assert guided <= 0.7 * without
    assert swapped >= 1.5 * guided


@pytest.mark.slow
def test_four_drawings_are_learned_by_heart() -> None:
    config = _config(generator={"base_channels": 8, "mid_channels": 96, "num_levels": 3}, losses={"l1_weight": 1.0})
    config = config.model_copy(update={"discriminator": None})
    batch = _colored(torch.Generator().manual_seed(3), 4)
    differences = []
    for num_steps in (1, 300):
        translator = _trained(config, lambda step: batch, num_steps, 2e-3).eval()
        with torch.no_grad():
            differences.append(F.l1_loss(translator.translate(batch.condition)[0].frames, batch.target).item())
    assert differences[1] < differences[0] / 5
