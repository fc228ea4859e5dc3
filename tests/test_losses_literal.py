"""Every loss of every translator as a number: once by the papers' formulas, written out here, and once as a literal.

The formulas say why a number is right; the literals also hold what formulas and code could get wrong together.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import tests.literal as lit
from vidgen.networks.single_image import resize_by
from vidgen.translators import consingan, pix2pix, pix2pixhd, singan, vid2vid

CLASSES, HEIGHT, WIDTH = 5, 32, 48
LITERALS: dict[str, dict[str, float]] = json.loads(Path(__file__).with_name("data").joinpath("losses.json").read_text())
Named = dict[tuple[str, int], dict[str, Tensor]]


def _check(case: str, found: Named, formulas: dict[str, Tensor | float]) -> None:
    """Names and numbers of `found`, of all phases, are those of the formulas and of the literals."""
    losses = {_key(phase, name): float(value) for phase, group in found.items() for name, value in group.items()}
    assert losses == pytest.approx({name: torch.as_tensor(value).item() for name, value in formulas.items()}, rel=1e-4, abs=1e-5)
    assert losses == pytest.approx(LITERALS[case], rel=1e-4, abs=1e-5)


def _key(phase: tuple[str, int], name: str) -> str:
    return f"{name}, turn {phase[1]}" if phase[1] else name


# -- formulas --------------------------------------------------------------------------------------------------------------


def _one_hot(labels: Tensor) -> Tensor:
    """[...,H,W] -> [...,CLASSES,H,W]."""
    return F.one_hot(labels, CLASSES).movedim(-1, -3).float()


def _edges(instances: Tensor) -> Tensor:
    """[...,H,W] -> [...,1,H,W]: 1 on both sides of a boundary."""
    padded = F.pad(instances.float(), (1, 1, 1, 1), mode="replicate")
    middle = padded[..., 1:-1, 1:-1]
    sides = (padded[..., 1:-1, :-2], padded[..., 1:-1, 2:], padded[..., :-2, 1:-1], padded[..., 2:, 1:-1])
    return torch.stack([side != middle for side in sides]).any(0).float().unsqueeze(-3)


def _warp(previous: Tensor, flow: Tensor) -> Tensor:
    """What `previous` [N,3,H,W] shows where each pixel was before: at x + dx, y + dy; outside, the border."""
    height, width = previous.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = columns + flow[:, 0], rows + flow[:, 1]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
    return F.grid_sample(previous, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _l1(a: Tensor, b: Tensor, mask: Tensor | float = 1.0) -> Tensor:
    """Masked pixels count in the mean, as 0."""
    return ((a - b) * mask).abs().mean()


def _least_squares(judged: list[list[Tensor]], target: float) -> Tensor:
    """LSGAN, summed over the discriminator's scales (pix2pixHD, equation 3)."""
    return sum((scale[-1] - target).pow(2).mean() for scale in judged)  # type: ignore[return-value]


def _feature_matching(fake: list[list[Tensor]], real: list[list[Tensor]], *, num_layers: int) -> Tensor:
    """pix2pixHD, equation 4: 4 / (num_layers + 1) per inner stage, 1 / scales per scale."""
    total = torch.zeros(())
    for fakes, reals in zip(fake, real, strict=True):
        assert len(fakes) == num_layers + 2
        for a, b in zip(fakes[:-1], reals[:-1], strict=True):
            total = total + (a - b).abs().mean() * 4 / (num_layers + 1) / len(fake)
    return total


def _judge(network: Any, pictures: Tensor, num_scales: int) -> list[list[Tensor]]:
    """The discriminator's stages on a pyramid by 3x3 averages, finest first; its coarsest `num_scales` take part."""
    judged = []
    for scale in range(num_scales):
        judged.append(network.scales[num_scales - 1 - scale](pictures))
        pictures = F.avg_pool2d(pictures, 3, stride=2, padding=1, count_include_pad=False)
    return judged


def _perceptual(fake: Tensor, real: Tensor) -> Tensor:
    """pix2pixHD, section 3.4: deeper layers of VGG-19 weigh more."""
    pretrained = lit.pretrained_networks()
    layers = zip(lit.perceptual_features(pretrained, fake), lit.perceptual_features(pretrained, real), strict=True)
    weights = {0: 1 / 32, 1: 1 / 16, 2: 1 / 8, 3: 1 / 4, 4: 1}
    return sum(weights[depth] * _l1(a, b) for depth, (a, b) in enumerate(layers))  # type: ignore[return-value]


def _sobel(pictures: Tensor) -> Tensor:
    """Both Sobel gradients of [N,C,H,W], of unit slope for a unit ramp."""
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    kernels = torch.stack([across, across.T]).unsqueeze(1)
    flat = F.pad(pictures.flatten(0, 1).unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(flat, kernels)


# -- vid2vid ---------------------------------------------------------------------------------------------------------------

_REGION_WEIGHT = 1.7
_VID2VID_WEIGHTS = {
    "gan_weight": 1.3,
    "temporal_gan_weight": 0.7,
    "feature_matching_weight": 9.0,
    "perceptual_weight": 8.0,
    "l1_weight": 3.0,
    "flow_weight": 11.0,
    "flow_warp_weight": 7.0,
    "warp_weight": 6.0,
    "mask_weight": 2.0,
}


def _vid2vid(**changes: Any) -> Any:
    """Two spatial scales, two discriminators of motion, a foreground branch and a discriminator of a region."""
    growth = {"epochs": 1, "decay_epochs": 1, "clip_frames": 7, "window_frames": 4, "max_window_frames": 4, "grow_every_epochs": 9}
    return vid2vid.Config.model_validate(
        {
            "num_labels": CLASSES,
            "generator": {
                "base_channels": 8,
                "num_downsamplings": 2,
                "num_blocks": 2,
                "num_local_blocks": 1,
                "num_scales": 2,
                "foreground_labels": (2, 3),
            },
            "discriminators": {
                "base_channels": 4,
                "num_layers": 2,
                "num_scales": 2,
                "num_temporal_scales": 2,
                "region": {"labels": (4,), "weight": _REGION_WEIGHT},
            },
            "losses": _VID2VID_WEIGHTS,
            "schedules": [growth, {**growth, "epochs": 2, "finest_only_epochs": 1, "learning_rate": 1e-4}],
            **changes,
        }
    )


def _street(divisor: int, num_primer_frames: int = 2) -> Any:
    """9 frames: ground, a foreground object that moves, and a small region that is absent from the frame before last."""
    labels = torch.zeros(1, 9, HEIGHT, WIDTH, dtype=torch.long)
    labels[..., HEIGHT // 2 :, :] = 1
    for frame in range(9):
        labels[0, frame, 8:20, 4 * frame : 4 * frame + 8] = 2
        if frame != 7:
            labels[0, frame, 20:24, 30 - 3 * frame : 36 - 3 * frame] = 4
    flow = 3 * lit.numbers("flow", (1, 9, 2, HEIGHT // 4, WIDTH // 4)).repeat_interleave(4, 3).repeat_interleave(4, 4)
    confidence = (lit.numbers("confidence", (1, 9, 1, HEIGHT, WIDTH)) > -0.5).float()
    target = lit.pictures("street", 1, 9, 3, HEIGHT, WIDTH)
    tensors = [value[..., ::divisor, ::divisor].contiguous() for value in (target, labels, flow, confidence)]
    return lit.make_batch(tensors[0], tensors[1], None, tensors[2], tensors[3], num_primer_frames)


_WINDOWS = {
    # new frames -> frames that the discriminators of motion see at stride 1 and 3, counted after the primer frames
    (2, 6): {0: [(1, 2, 3)], 1: []},
    (6, 9): {0: [(4, 5, 6)], 1: [(0, 3, 6)]},
}


def _vid2vid_formulas(translator: Any, num_scales: int, batch: Any, rolled: Any, past: list[Tensor]) -> dict[str, Tensor | float]:
    """Every loss of vid2vid by its formula. `past`: the generated frames of earlier windows of the clip."""
    weights, parts = _VID2VID_WEIGHTS, lit.networks(translator)
    start, stop = batch.start, batch.stop
    condition = _one_hot(batch.condition.labels[:, start:stop]).flatten(0, 1)
    real = batch.target[:, start:stop].flatten(0, 1)
    fakes = [rolled.frames.detach().flatten(0, 1), rolled.raw.detach().flatten(0, 1)]
    reference, confidence = batch.flow[:, start:stop].flatten(0, 1), batch.confidence[:, start:stop].flatten(0, 1)
    flow, mask = rolled.flow.detach().flatten(0, 1), rolled.mask.detach().flatten(0, 1)

    def judged(frames: Tensor) -> list[list[Tensor]]:
        return _judge(parts["discriminator"], torch.cat([condition, frames], 1), num_scales)

    of_real, of_fakes = judged(real), [judged(frames) for frames in fakes]
    generated = torch.cat([*past, rolled.frames.detach()], dim=1)[0]
    before = torch.cat([batch.target[0, start - 1 : start] if not past else past[-1][0, -1:], rolled.frames.detach()[0, :-1]])
    losses: dict[str, Tensor | float] = {
        "gan": weights["gan_weight"] * sum(_least_squares(one, 1) for one in of_fakes),
        "feature_matching": weights["feature_matching_weight"]
        * sum(_feature_matching(one, of_real, num_layers=2) for one in of_fakes),
        "perceptual": weights["perceptual_weight"] * sum(_perceptual(frames, real) for frames in fakes),
        "l1": weights["l1_weight"] * sum(_l1(frames, real) for frames in fakes),
        "flow": weights["flow_weight"] / 2 ** (num_scales - 1) * _l1(flow, reference, confidence),
        "flow_warp": weights["flow_warp_weight"] * _l1(_warp(batch.target[0, start - 1 : stop - 1], flow), real, confidence),
        "warp": weights["warp_weight"] * _l1(fakes[0], _warp(before, reference), confidence),
        "mask": weights["mask_weight"] * (mask * confidence).mean(),
        # half of (real + fake) for the blended frame and as much for the raw one, whose real part is the same
        "discriminator_real": 0.5 * 2 * _least_squares(of_real, 1),
        "discriminator_fake": 0.5 * sum(_least_squares(one, 0) for one in of_fakes),
    }
    seen = [_region_crops(batch.condition.labels[0, start:stop], torch.cat([condition, frames], 1)) for frames in (fakes[0], real)]
    of_fake_region, of_real_region = (_judge(parts["region"], crops, 1) for crops in seen)
    matching = _feature_matching(of_fake_region, of_real_region, num_layers=2) / 2  # of the two scales of the discriminator
    losses |= {
        "region_gan": _REGION_WEIGHT * weights["gan_weight"] * _least_squares(of_fake_region, 1),
        "region_feature_matching": _REGION_WEIGHT * weights["feature_matching_weight"] * matching,
        "region_discriminator_real": 0.5 * _least_squares(of_real_region, 1),
        "region_discriminator_fake": 0.5 * _least_squares(of_fake_region, 0),
    }
    target = batch.target[0, batch.primer_frames :]
    for scale, windows in _WINDOWS[start, stop].items():
        if not windows:
            continue
        stacks: dict[str, list[Tensor]] = {"fake": [], "real": []}
        for first, second, third in windows:
            if scale == 0:
                flows = [batch.flow[0, frame + batch.primer_frames] for frame in (second, third)]
            else:
                flows = [6 * (target[later, :2] - target[earlier, :2]) for later, earlier in ((second, first), (third, second))]
            for name, frames in (("fake", generated), ("real", target)):
                moving = [value / 20 for value in flows]
                stacks[name].append(torch.cat([frames[first], frames[second], frames[third], *moving]))
        network = parts[f"temporal_discriminator_{scale}"]
        of_fake, of_true = (_judge(network, torch.stack(stacks[name]), num_scales) for name in ("fake", "real"))
        losses |= {
            f"temporal_gan_{scale}": weights["temporal_gan_weight"] * _least_squares(of_fake, 1),
            f"temporal_feature_matching_{scale}": weights["feature_matching_weight"]
            * _feature_matching(of_fake, of_true, num_layers=2),
            f"temporal_discriminator_{scale}_real": 0.5 * _least_squares(of_true, 1),
            f"temporal_discriminator_{scale}_fake": 0.5 * _least_squares(of_fake, 0),
        }
    return losses


def _region_crops(labels: Tensor, pictures: Tensor) -> Tensor:
    """Squares of 16 pixels around class 4 of each frame [T,H,W], or in the middle, out of pictures [T,C,H,W]."""
    crops = []
    for frame, picture in zip(labels, pictures, strict=True):
        corner = []
        for axis, length in ((1, frame.shape[0]), (0, frame.shape[1])):
            places = (frame == 4).any(axis).nonzero().flatten().tolist()
            center = (places[0] + places[-1]) // 2 if places else length // 2
            corner.append(min(max(center - 8, 0), length - 16))
        crops.append(picture[:, corner[0] : corner[0] + 16, corner[1] : corner[1] + 16])
    return torch.stack(crops)


@pytest.mark.parametrize("kind", ["one scale", "finest alone", "all scales"])
def test_vid2vid(kind: str) -> None:
    config = _vid2vid()
    stage = lit.stages(config)[{"one scale": 0, "finest alone": 2, "all scales": 3}[kind]]
    translator = lit.build(config)
    lit.begin(translator, stage)
    num_scales = {"one scale": 1, "finest alone": 2, "all scales": 2}[kind]
    assert (lit.scale_of(stage), lit.divisor_of(stage)) == (num_scales, 3 - num_scales)
    batch = _street(lit.divisor_of(stage))
    carry, past = lit.prime(translator, batch), []
    for start, stop in _WINDOWS:
        part = lit.window(batch, start, stop)
        rolled = lit.roll_out(translator, part, carry)
        with torch.no_grad():
            formulas = _vid2vid_formulas(translator, num_scales, part, rolled, past)
        _check(f"vid2vid, {kind}, frames {start} to {stop}", lit.losses_of(translator, stage, part, rolled), formulas)
        carry = rolled.carry
        past.append(rolled.frames.detach())


@pytest.mark.parametrize("objective", ["hinge", "vanilla"])
def test_vid2vid_with_other_objectives(objective: str) -> None:
    """Only the adversarial terms differ."""
    config = _vid2vid(discriminators={"base_channels": 4, "num_layers": 2, "num_temporal_scales": 0, "objective": objective})
    translator = lit.build(config)
    stage = lit.stages(config)[-1]
    lit.begin(translator, stage)
    part = lit.window(_street(1), 2, 4)
    rolled = lit.roll_out(translator, part, lit.prime(translator, part))
    found = {name: value for group in lit.losses_of(translator, stage, part, rolled).values() for name, value in group.items()}
    condition = _one_hot(part.condition.labels[0, 2:4])

    def logits(frames: Tensor) -> list[Tensor]:
        judged = _judge(lit.networks(translator)["discriminator"], torch.cat([condition, frames], 1), 2)
        return [scale[-1] for scale in judged]

    with torch.no_grad():
        fakes, real = [logits(frames.detach()[0]) for frames in (rolled.frames, rolled.raw)], logits(part.target[0, 2:4])
    softplus, relu = F.softplus, torch.relu
    terms = {
        "vanilla": (lambda x: softplus(-x), lambda x: softplus(-x), lambda x: softplus(x)),
        "hinge": (lambda x: -x, lambda x: relu(1 - x), lambda x: relu(1 + x)),
    }
    generator, of_real, of_fake = terms[objective]
    assert float(found["gan"]) == pytest.approx(1.3 * sum(float(generator(x).mean()) for one in fakes for x in one), rel=1e-4)
    assert float(found["discriminator_real"]) == pytest.approx(sum(float(of_real(x).mean()) for x in real), rel=1e-4)
    assert float(found["discriminator_fake"]) == pytest.approx(
        0.5 * sum(float(of_fake(x).mean()) for one in fakes for x in one), rel=1e-4
    )


@pytest.mark.parametrize("two_time_scales", [False, True])
def test_vid2vid_learns_at_the_published_rates(two_time_scales: bool) -> None:
    """TTUR (Heusel et al., NeurIPS 2017): generator at half, discriminators at twice the rate; those of motion as without it."""
    seen = lit.learning_of(_vid2vid(two_time_scales=two_time_scales), lambda stage: _street(lit.divisor_of(stage)))
    slow, fast, betas = (0.5, 2.0, (0.0, 0.9)) if two_time_scales else (1.0, 1.0, (0.5, 0.999))
    rates = [2e-4, 2e-4, 1e-4, 1e-4, 1e-4]
    motion = (0.5, 0.999)
    assert len(seen) == len(rates)
    for stage, (phases, rate) in enumerate(zip(seen, rates, strict=True)):
        found = {name: (learning.groups[0][0], learning.betas) for name, learning in phases.items()}
        assert found == {
            "generator": (pytest.approx(slow * rate), betas),
            "discriminator": (pytest.approx(fast * rate), betas),
            "region": (pytest.approx(fast * rate), betas),
            "temporal_discriminator_0": (pytest.approx(rate), motion),
            "temporal_discriminator_1": (pytest.approx(rate), motion),
        }, stage
    sizes = [phases["generator"].groups[0][1] for phases in seen]
    assert sizes[0] == sizes[1]
    assert sizes[3] == sizes[4] == sizes[0] + sizes[2]
    # two windows a step; the discriminator of motion at stride 3 has frames enough in the second one only
    updates = [[phases[name].num_updates for phases in seen] for name in ("generator", "temporal_discriminator_1")]
    assert updates == [[2, 4, 2, 2, 4], [1, 2, 3, 4, 5]]


def test_vid2vid_weights_are_the_published_ones() -> None:
    """Supplement of the paper and the authors' options; what the original lacks is off."""
    assert vid2vid.LossWeights().model_dump() == {
        "gan_weight": 1.0,
        "temporal_gan_weight": 1.0,
        "feature_matching_weight": 10.0,
        "perceptual_weight": 10.0,
        "l1_weight": 0.0,
        "flow_weight": 10.0,
        "flow_warp_weight": 10.0,
        "warp_weight": 10.0,
        "mask_weight": 0.0,
    }


# -- pix2pixHD -------------------------------------------------------------------------------------------------------------

_PIX2PIXHD_WEIGHTS = {
    "gan_weight": 1.3,
    "feature_matching_weight": 9.0,
    "perceptual_weight": 8.0,
    "l1_weight": 3.0,
    "gradient_weight": 2.0,
}


def _pix2pixhd(**changes: Any) -> Any:
    """An enhancer, an encoder and a pool of two pictures."""
    return pix2pixhd.Config.model_validate(
        {
            "num_labels": CLASSES,
            "use_instances": True,
            "generator": {"base_channels": 8, "num_downsamplings": 2, "num_blocks": 1, "num_enhancers": 1, "num_local_blocks": 1},
            "encoder": {"base_channels": 4, "num_downsamplings": 2},
            "discriminators": {"base_channels": 4, "num_layers": 2, "pool_size": 2},
            "losses": _PIX2PIXHD_WEIGHTS,
            "schedules": [
                {"epochs": 1, "decay_epochs": 0},
                {"epochs": 2, "decay_epochs": 1, "finest_only_epochs": 1, "learning_rate": 1e-4},
            ],
            **changes,
        }
    )


def _scene(number: int, divisor: int) -> Any:
    labels = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.long)
    labels[..., HEIGHT // 2 :, :] = 1
    labels[..., 8:24, 4 * number : 4 * number + 12] = 2 + number % 3
    instances = torch.where(labels > 1, 1000 * labels + number, labels)
    target = lit.pictures(f"scene {number}", 1, 1, 3, HEIGHT, WIDTH)
    tensors = [value[..., ::divisor, ::divisor].contiguous() for value in (target, labels, instances)]
    return lit.make_batch(*tensors)


def _pix2pixhd_formulas(translator: Any, num_scales: int, batch: Any, fake: Tensor, pool: list[Tensor]) -> dict[str, Tensor]:
    """`pool`: earlier pictures under their conditions; changed as Shrivastava et al., CVPR 2017, section 2.3 say."""
    weights, network = _PIX2PIXHD_WEIGHTS, lit.networks(translator)["discriminator"]
    condition = torch.cat([_one_hot(batch.condition.labels), _edges(batch.condition.instances)], 2)[0]
    real, fake = batch.target[0], fake.detach()[0]
    of_fake, of_real = (_judge(network, torch.cat([condition, frames], 1), num_scales) for frames in (fake, real))
    shown = torch.cat([condition, fake], 1)
    if len(pool) < 2:
        pool.append(shown)
    elif torch.rand(()) >= 0.5:
        place = int(torch.randint(2, ()))
        shown, pool[place] = pool[place], shown
    return {
        "gan": weights["gan_weight"] * _least_squares(of_fake, 1),
        "feature_matching": weights["feature_matching_weight"] * _feature_matching(of_fake, of_real, num_layers=2),
        "perceptual": weights["perceptual_weight"] * _perceptual(fake, real),
        "l1": weights["l1_weight"] * _l1(fake, real),
        "gradient": weights["gradient_weight"] * _l1(_sobel(fake), _sobel(real)),
        "discriminator_real": 0.5 * _least_squares(of_real, 1),
        "discriminator_fake": 0.5 * _least_squares(_judge(network, shown, num_scales), 0),
    }


@pytest.mark.parametrize("kind", ["coarse level", "finest alone", "all levels"])
def test_pix2pixhd(kind: str) -> None:
    config = _pix2pixhd()
    stage = lit.stages(config)[{"coarse level": 0, "finest alone": 1, "all levels": 2}[kind]]
    translator = lit.build(config)
    lit.begin(translator, stage)
    num_scales = 1 if kind == "coarse level" else 2
    assert (lit.scale_of(stage), lit.divisor_of(stage)) == (num_scales, 3 - num_scales)
    pool: list[Tensor] = []
    for number in range(6):
        batch = _scene(number, lit.divisor_of(stage))
        with torch.no_grad():
            rolled = lit.roll_out(translator, batch)
            torch.manual_seed(number)
            formulas = _pix2pixhd_formulas(translator, num_scales, batch, rolled.frames, pool)
            found = lit.losses_of(translator, stage, batch, rolled, seed=number)
        _check(f"pix2pixhd, {kind}, picture {number}", found, dict(formulas))


@pytest.mark.parametrize("gan_weight", [0.0, 0.1])
def test_a_discriminator_on_features_of_pix2pixhd_learns_in_a_phase_of_its_own(gan_weight: float) -> None:
    config = _pix2pixhd(features={"texture_weight": 1, "gan_weight": gan_weight})
    translator = lit.build(config)
    names = [phase.name for phase in translator.phases(lit.stages(config)[0])]
    assert names == ["generator", *(["feature_discriminator"] if gan_weight else []), "discriminator"]


def test_pix2pixhd_learns_at_the_published_rates() -> None:
    seen = lit.learning_of(_pix2pixhd(), lambda stage: _scene(0, lit.divisor_of(stage)))
    rates = [2e-4, 1e-4, 1e-4, 1e-4]
    found = [{name: (learning.groups[0][0], learning.betas) for name, learning in phases.items()} for phases in seen]
    one = (0.5, 0.999)
    assert found == [{"generator": (pytest.approx(rate), one), "discriminator": (pytest.approx(rate), one)} for rate in rates]
    assert [phases["generator"].num_updates for phases in seen] == [1, 1, 1, 2]
    coarse, finest, both, falling = (phases["generator"].groups[0][1] for phases in seen)
    assert finest < coarse < both == falling


def test_pix2pixhd_weights_are_the_published_ones() -> None:
    assert pix2pixhd.LossWeights().model_dump() == {
        "gan_weight": 1.0,
        "feature_matching_weight": 10.0,
        "perceptual_weight": 10.0,
        "l1_weight": 0.0,
        "gradient_weight": 0.0,
    }


# -- pix2pix ---------------------------------------------------------------------------------------------------------------


def _pix2pix(objective: str, network: str = "patch") -> Any:
    return pix2pix.Config.model_validate(
        {
            "num_labels": CLASSES,
            "use_instances": True,
            "generator": {"base_channels": 4, "num_downsamplings": 4},
            "discriminator": {"network": network, "base_channels": 4, "num_layers": 2, "objective": objective},
            "losses": {"gan_weight": 1.3, "l1_weight": 70.0, "gradient_penalty_weight": 4.0},
            "schedule": {"epochs": 1, "decay_epochs": 1},
        }
    )


_OBJECTIVES: dict[str, Any] = {
    # of the generator, and of the discriminator on real and on generated pictures
    "vanilla": (lambda x: F.softplus(-x), lambda x: F.softplus(-x), lambda x: F.softplus(x)),
    "least_squares": (lambda x: (x - 1) ** 2, lambda x: (x - 1) ** 2, lambda x: x**2),
    "hinge": (lambda x: -x, lambda x: torch.relu(1 - x), lambda x: torch.relu(1 + x)),
    "wasserstein": (lambda x: -x, lambda x: -x, lambda x: x),
}


@pytest.mark.parametrize(
    ("objective", "network"),
    [("vanilla", "patch"), ("least_squares", "patch"), ("hinge", "pixel"), ("wasserstein", "patch"), ("wasserstein", "pixel")],
)
def test_pix2pix(objective: str, network: str) -> None:
    """The discriminator's loss is halved, as published (section 3.3)."""
    config = _pix2pix(objective, network)
    translator = lit.build(config)
    stage = lit.stages(config)[0]
    lit.begin(translator, stage)
    batch = _scene(1, 1)
    torch.manual_seed(3)
    rolled = lit.roll_out(translator, batch)
    condition = torch.cat([_one_hot(batch.condition.labels), _edges(batch.condition.instances)], 2)[0]
    fake, real = rolled.frames.detach()[0], batch.target[0]
    critic = lit.networks(translator)["discriminator"]
    pairs = {name: torch.cat([condition, frames], 1) for name, frames in (("fake", fake), ("real", real))}
    generator, of_real, of_fake = _OBJECTIVES[objective]
    formulas: dict[str, Tensor | float] = {
        "gan": 1.3 * generator(critic(pairs["fake"])[-1]).mean(),
        "l1": 70 * _l1(fake, real),
        "discriminator_real": 0.5 * of_real(critic(pairs["real"])[-1]).mean(),
        "discriminator_fake": 0.5 * of_fake(critic(pairs["fake"])[-1]).mean(),
    }
    if objective == "wasserstein":
        # Gulrajani et al., NeurIPS 2017, equation 3
        torch.manual_seed(5)
        share = torch.rand(1, 1, 1, 1)
        between = (share * pairs["real"] + (1 - share) * pairs["fake"]).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(between)[-1].sum(), between)
        formulas["discriminator_penalty"] = 4 * (gradient.square().sum().sqrt() - 1) ** 2
    _check(f"pix2pix, {objective}, {network}", lit.losses_of(translator, stage, batch, rolled, seed=5), formulas)


def test_pix2pix_learns_at_the_published_rates() -> None:
    seen = lit.learning_of(_pix2pix("vanilla"), lambda stage: _scene(1, 1))
    found = [{name: (learning.groups[0][0], learning.betas) for name, learning in phases.items()} for phases in seen]
    assert found == 2 * [{"discriminator": (2e-4, (0.5, 0.999)), "generator": (2e-4, (0.5, 0.999))}]
    assert [(stage.learning_rate, stage.final_learning_rate) for stage in lit.stages(_pix2pix("vanilla"))] == [
        (2e-4, 2e-4),
        (2e-4, 0.0),
    ]


def test_pix2pix_weights_are_the_published_ones() -> None:
    assert pix2pix.LossWeights().model_dump() == {"gan_weight": 1.0, "l1_weight": 100.0, "gradient_penalty_weight": 10.0}


# -- SinGAN ----------------------------------------------------------------------------------------------------------------


def _singan(**changes: Any) -> Any:
    return singan.Config.model_validate(
        {
            "image_size": (HEIGHT, WIDTH),
            "min_size": 18,
            "base_channels": 4,
            "steps_per_scale": 2,
            "decay_at": 0.5,
            "penalty_weight": 0.3,
            "reconstruction_weight": 7.0,
            "noise_amplitude": 0.4,
            **changes,
        }
    )


def _picture() -> Any:
    return lit.make_batch(lit.pictures("one picture", 1, 1, 3, HEIGHT, WIDTH))


def _penalty(critic: Any, real: Tensor, fake: Tensor) -> Tensor:
    """The authors' form of the gradient penalty: the norm over the channels of each pixel."""
    share = torch.rand(1, 1, 1, 1)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between)
    return (gradient.square().sum(1).sqrt() - 1).square().mean()


def _random_corner() -> None:
    """Windows are whole pictures here; where they begin is drawn all the same."""
    torch.randint(1, ())
    torch.randint(1, ())


def _singan_formulas(translator: Any, level: int, amplitude: float, seed: int) -> dict[str, Tensor | float]:
    """Losses of scale 0 or 1 (section 3 of the paper); `seed` began the step's noise and, anew, each turn."""
    sizes, generators = translator.pyramid.sizes, lit.networks(translator)["generator"]
    critic, generator = lit.networks(translator)["discriminators"][level], generators[level]
    grow = translator.pyramid.scales[1] / translator.pyramid.scales[0]
    picture = _picture().target[0]
    real = picture if level == len(sizes) - 1 else resize_by(picture, translator.pyramid.scales[level], sizes[level])

    def pad(image: Tensor) -> Tensor:
        return F.pad(image, [5] * 4)

    def noise(scale: int) -> Tensor:
        return pad(torch.randn(1, 1 if scale == 0 else 3, *sizes[scale]).expand(-1, 3, -1, -1))

    def grown(coarse: Tensor | None) -> Tensor:
        return pad(torch.zeros(1, 3, *sizes[0]) if coarse is None else resize_by(coarse, grow, sizes[1]))

    def random_before() -> Tensor:
        return grown(generators[0](noise(0), grown(None)) if level else None)

    torch.manual_seed(seed)
    own_noise = amplitude * noise(level)
    before = random_before()
    losses: dict[str, Tensor | float] = {}
    reconstructed, fixed = None, pad(translator.fixed_noise.expand(-1, 3, -1, -1))
    if level:
        reconstructed, fixed = generators[0](fixed, grown(None)), torch.zeros(1, 3, *(length + 10 for length in sizes[1]))
    given_back = generator(fixed, grown(reconstructed))
    for turn in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            fake = generator(own_noise, random_before() if turn else before)
        _random_corner()
        phase = ("", turn)
        losses[_key(phase, "discriminator")] = critic(fake).mean() - critic(real).mean()
        losses[_key(phase, "discriminator_penalty")] = 0.3 * _penalty(critic, real, fake)
        losses[_key(phase, "generator")] = -critic(generator(own_noise, before)).mean()
        losses[_key(phase, "reconstruction")] = 7 * (given_back - real).square().mean()
    return losses


@pytest.mark.parametrize("level", [0, 1])
def test_singan(level: int) -> None:
    config = _singan()
    translator = lit.build(config)
    assert len(translator.pyramid.sizes) > 2
    stages = lit.stages(config)
    for number in range(level + 1):
        stage = stages[2 * number]
        lit.begin(translator, stage)
        fill_again(translator, number)
        torch.manual_seed(11)
        rolled = lit.roll_out(translator, _picture())
        found = lit.losses_of(translator, stage, _picture(), rolled, seed=11)
    _check(f"singan, scale {level}", found, _singan_formulas(translator, level, float(translator.amplitudes[level]), 11))
    assert float(translator.amplitudes[0]) == 1
    if level:
        with torch.no_grad():
            sizes, generators = translator.pyramid.sizes, lit.networks(translator)["generator"]
            start = F.pad(translator.fixed_noise.expand(-1, 3, -1, -1), [5] * 4)
            coarse = generators[0](start, torch.zeros(1, 3, *start.shape[-2:]))
            grown = resize_by(coarse, translator.pyramid.scales[1] / translator.pyramid.scales[0], sizes[1])
            missing = grown - resize_by(_picture().target[0], translator.pyramid.scales[1], sizes[1])
        assert float(translator.amplitudes[1]) == pytest.approx(0.4 * float(missing.square().mean().sqrt()), rel=1e-4)
        assert float(translator.amplitudes[1]) == pytest.approx(LITERALS["singan, amplitude of scale 1"]["amplitude"], rel=1e-4)


def fill_again(translator: Any, level: int) -> None:
    """A scale that begins takes over the weights of the one before; here it gets its own again."""
    for name, networks in lit.networks(translator).items():
        lit.fill(networks[level], f"{name} {level}")


def test_singan_learns_at_the_published_rates() -> None:
    """5e-4, a tenth of it after most of a scale's steps; three updates each of discriminator and generator a step."""
    seen = lit.learning_of(_singan(), lambda stage: _picture())
    found = [
        {name: (learning.groups[0][0], learning.betas, learning.num_updates) for name, learning in phases.items()}
        for phases in seen
    ]
    expected = []
    for _ in range(len(seen) // 2):
        for rate, updates in ((5e-4, 3), (5e-5, 6)):
            one = (pytest.approx(rate), (0.5, 0.999), updates)
            expected.append({"discriminator": one, "generator": one})
    assert found == expected


def test_single_image_weights_are_the_published_ones() -> None:
    for config in (singan.Config(), consingan.Config()):
        assert (config.penalty_weight, config.reconstruction_weight, config.noise_amplitude) == (0.1, 10.0, 0.1)
        assert (config.learning_rate, config.decay_at, config.steps_per_scale) == (5e-4, 0.8, 2000)
    assert consingan.Config().stage_learning_rate_scale == 0.1


# -- ConSinGAN -------------------------------------------------------------------------------------------------------------


def _consingan(**changes: Any) -> Any:
    return consingan.Config.model_validate(
        {
            "image_size": (HEIGHT, WIDTH),
            "min_size": 18,
            "base_channels": 4,
            "num_stages": 3,
            "num_concurrent_stages": 2,
            "steps_per_scale": 2,
            "decay_at": 0.5,
            "penalty_weight": 0.3,
            "reconstruction_weight": 7.0,
            "noise_amplitude": 0.4,
            "stage_learning_rate_scale": 0.2,
            **changes,
        }
    )


def _consingan_picture(translator: Any, noises: list[Tensor]) -> Tensor:
    """The generator run by hand: head, a body for each stage as a residual on enlarged features, tail."""
    network, sizes = lit.networks(translator)["generator"], translator.pyramid.sizes
    features = network.head(F.pad(noises[0], [1] * 4))
    features = network.body[0](F.pad(features, [3] * 4)) + features
    for stage, noise in enumerate(noises[1:], 1):
        grown = F.interpolate(features, size=sizes[stage], mode="bicubic", align_corners=True)
        features = network.body[stage](F.pad(grown + noise, [3] * 4)) + grown
    return torch.tanh(network.tail(features))


def _consingan_formulas(translator: Any, level: int, amplitudes: list[float], seed: int) -> dict[str, Tensor | float]:
    critic, sizes = lit.networks(translator)["discriminator"], translator.pyramid.sizes
    picture = _picture().target[0]

    def reduced(stage: int) -> Tensor:
        return picture if stage == len(sizes) - 1 else resize_by(picture, translator.pyramid.scales[stage], sizes[stage])

    def sample() -> Tensor:
        shapes = [(1, 3 if stage == 0 else 4, *sizes[stage]) for stage in range(level + 1)]
        with torch.no_grad():
            return _consingan_picture(translator, [a * torch.randn(shape) for a, shape in zip(amplitudes, shapes, strict=True)])

    real = reduced(level)
    fixed = [amplitudes[stage] * translator.get_buffer(f"fixed_noise_{stage}") for stage in range(1, level + 1)]
    with torch.no_grad():
        given_back = _consingan_picture(translator, [reduced(0), *fixed])
    torch.manual_seed(seed)
    first = sample()
    losses: dict[str, Tensor | float] = {
        "generator": -critic(first).mean(),
        "reconstruction": 7 * (given_back - real).square().mean(),
    }
    for turn in range(3):
        torch.manual_seed(seed + 1)
        fake = sample() if turn else first
        _random_corner()
        losses[_key(("", turn), "discriminator")] = critic(fake).mean() - critic(real).mean()
        losses[_key(("", turn), "discriminator_penalty")] = 0.3 * _penalty(critic, real, fake)
    return losses


@pytest.mark.parametrize("level", [0, 1, 2])
def test_consingan(level: int) -> None:
    config = _consingan()
    translator = lit.build(config)
    stages = lit.stages(config)
    for number in range(level + 1):
        stage = stages[2 * number]
        lit.begin(translator, stage)
        lit.fill(lit.networks(translator)["generator"], f"generator {number}")
        torch.manual_seed(13)
        rolled = lit.roll_out(translator, _picture())
        found = lit.losses_of(translator, stage, _picture(), rolled, seed=14)
    amplitudes = [float(value) for value in translator.amplitudes[: level + 1]]
    assert amplitudes == pytest.approx(list(LITERALS["consingan, amplitudes"].values())[: level + 1], rel=1e-4)
    _check(f"consingan, stage {level}", found, _consingan_formulas(translator, level, amplitudes, 13))


def test_consingan_amplitudes_follow_what_the_reconstruction_lacks() -> None:
    config = _consingan()
    translator = lit.build(config)
    stages = lit.stages(config)
    lit.begin(translator, stages[0])
    lit.losses_of(translator, stages[0], _picture(), lit.roll_out(translator, _picture()))
    lit.begin(translator, stages[2])
    picture, sizes = _picture().target[0], translator.pyramid.sizes
    coarse, real = (resize_by(picture, translator.pyramid.scales[stage], sizes[stage]) for stage in (0, 1))
    with torch.no_grad():
        silent = _consingan_picture(translator, [coarse, torch.zeros(1, 4, *sizes[1])])
    assert float(translator.amplitudes[1]) == pytest.approx(0.4 * math.sqrt((silent - real).square().mean()), rel=1e-4)


def test_consingan_learns_at_the_published_rates() -> None:
    """Earlier stages learn at a power of the scale; the head with the first of them; three updates with one gradient."""
    seen = lit.learning_of(_consingan(), lambda stage: _picture())
    found = [
        {name: ([rate for rate, _ in learning.groups], learning.betas, learning.num_updates) for name, learning in phases.items()}
        for phases in seen
    ]
    factors = [[1, 1, 1], [0.2, 0.2, 1, 1], [0.2, 1, 1]]  # [head,] the two newest stages, tail
    expected = []
    for stage, scales in enumerate(factors):
        for turn, rate in enumerate((5e-4, 5e-5)):
            generator = ([pytest.approx(rate * scale) for scale in scales], (0.5, 0.999), 3 * (turn + 1))
            critic = ([pytest.approx(rate)], (0.5, 0.999), 3 * (2 * stage + turn + 1))
            expected.append({"discriminator": critic, "generator": generator})
    assert found == expected
