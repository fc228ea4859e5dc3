"""What the tests of literal losses need: the one place that knows how translators are built, rolled out and asked for losses.

Weights and pictures come from formulas of their names, so the numbers do not depend on the order in which modules are built.
"""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidgen.networks.features import Vgg19Features
from vidgen.runtime import Runtime
from vidgen.training.loop import LoopSettings, Trainer
from vidgen.translators import available
from vidgen.translators.base import Translator
from vidgen.types import Batch, Condition, Stage, Step

# -- numbers from names ----------------------------------------------------------------------------------------------------


def numbers(name: str, shape: Any) -> Tensor:
    """Standard normal float32 numbers that depend on `name` alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(tuple(shape)).astype(np.float32))


def fill(module: nn.Module, role: str) -> None:
    """Give every parameter and every fixed noise of `module` its numbers; outputs stay of the size of inputs."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            unit = numbers(f"{role}.{name}", value.shape)
            if value.ndim > 1:
                value.copy_(unit / value[0].numel() ** 0.5)
            else:
                value.copy_(0.2 * unit + float(name.endswith("weight")))
        for name, buffer in module.named_buffers():
            if name.startswith("fixed_noise"):
                buffer.copy_(numbers(f"{role}.{name}", buffer.shape))


def pictures(name: str, *shape: int) -> Tensor:
    """Smooth pictures in -1..1 [..., height, width]."""
    *leading, height, width = shape
    coarse = numbers(name, (*leading, -(-height // 4), -(-width // 4))).flatten(0, -3).unsqueeze(1)
    fine = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)
    return torch.tanh(fine).view(*shape)


# -- the translators -------------------------------------------------------------------------------------------------------


class MotionByColor(nn.Module):
    """A flow estimator whose answer is known: six pixels per unit of difference in red and green."""

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        return 6 * (current[:, :2] - previous[:, :2])


def pretrained_networks() -> Any:
    """The pretrained networks that losses use: a narrow VGG-19 and a flow estimator."""
    perceptual = Vgg19Features(width_divisor=16)
    fill(perceptual, "vgg19")
    return {"flow": MotionByColor(), "vgg19": perceptual}


def perceptual_features(networks: Any, images: Tensor) -> list[Tensor]:
    features: list[Tensor] = networks["vgg19"](images)
    return features


def build(config: Any) -> Translator:
    """A translator with known weights, in training mode."""
    translator: Translator = available()[config.kind].build(config)
    fill(translator, config.kind)
    return translator.train()


def networks(translator: Translator) -> dict[str, Any]:
    """The discriminators by the phase that teaches them, and the `generator`."""
    parts: dict[str, Any] = {"generator": translator.generator}
    if hasattr(translator, "discriminators"):
        parts["discriminators"] = translator.discriminators  # one for each scale of a single image
    else:
        parts["discriminator"] = translator.discriminator
    if getattr(translator, "region_discriminator", None) is not None:
        parts["region"] = translator.region_discriminator
    for scale, network in enumerate(getattr(translator, "temporal_discriminators", ())):
        parts[f"temporal_discriminator_{scale}"] = network
    return parts


def stages(config: Any, steps_per_epoch: int = 1) -> tuple[Stage, ...]:
    result: tuple[Stage, ...] = available()[config.kind].stages(config, steps_per_epoch)
    return result


def scale_of(stage: Stage) -> int:
    """How many scales, levels or stages a stage trains."""
    return stage.num_active_scales


def divisor_of(stage: Stage) -> int:
    """What the data's size is divided by."""
    return stage.size_divisor


def make_batch(
    target: Tensor,
    labels: Tensor | None = None,
    instances: Tensor | None = None,
    flow: Tensor | None = None,
    confidence: Tensor | None = None,
    num_primer_frames: int = 0,
) -> Batch:
    batch, num_frames, _, height, width = target.shape
    nothing = None if labels is not None else torch.zeros(batch, num_frames, 0, height, width)
    return Batch(Condition(labels=labels, frames=nothing, instances=instances), target, flow, confidence, num_primer_frames)


def window(batch: Batch, start: int, stop: int) -> Batch:
    """The batch with frames start..stop-1 under work."""
    return replace(batch, start=start, stop=stop)


@dataclass(frozen=True)
class Rollout:
    """What the generator gave in training, and the carry for the next window.

    frames, raw: [B,T,3,H,W]; flow: [B,T,2,H,W]; mask: [B,T,1,H,W]; whole: as the losses want it.
    """

    frames: Tensor
    raw: Tensor | None
    flow: Tensor | None
    mask: Tensor | None
    carry: Any
    whole: Any


def prime(translator: Translator, batch: Batch) -> Any:
    """The carry that the batch's first frames give, or what the stage remembers."""
    count = batch.primer_frames
    if not count:
        with torch.no_grad():
            return translator.memory(_STAGES[translator], batch)
    with torch.no_grad():
        return translator.prime(batch.condition.slice_time(0, count), batch.target[:, :count])


_STAGES: weakref.WeakKeyDictionary[Translator, Stage] = weakref.WeakKeyDictionary()
"""The stage that each translator is in."""


def begin(translator: Translator, stage: Stage) -> None:
    translator.begin(stage)
    _STAGES[translator] = stage


def roll_out(translator: Translator, batch: Batch, carry: Any = None) -> Rollout:
    translator.train()
    carry = prime(translator, batch) if carry is None else carry
    output, carry = translator.rollout(batch, Step(_STAGES[translator]), carry)
    carry = carry if carry is None else carry.detach()
    return Rollout(output.frames, output.raw, output.flow, output.mask, carry, output)


def losses_of(
    translator: Translator, stage: Stage, batch: Batch, rollout: Rollout, *, seed: int = 0
) -> dict[tuple[str, int], dict[str, Tensor]]:
    """Every loss by its name, of every phase by (name, repetition); random numbers begin at `seed` in each."""
    networks = pretrained_networks()
    result = {}
    step = Step(stage)
    for phase in translator.phases(stage):
        if not translator.applies(phase, batch):
            continue
        output = rollout.whole
        for repeat in range(phase.repeats):
            torch.manual_seed(seed)
            if repeat:
                output = translator.again(phase, step, batch, output)
            losses = translator.losses(phase, step, batch, output, networks)
            result[phase.name, repeat] = {name: value.detach() for name, value in losses.items()}
    return result


@dataclass(frozen=True)
class Learning:
    """How a phase's parameters are stepped: (learning rate, number of parameters) per group, Adam's betas, and how often so far."""

    groups: tuple[tuple[float, int], ...]
    betas: tuple[float, float]
    num_updates: int


def learning_of(config: Any, make: Any) -> list[dict[str, Learning]]:
    """Per stage: what the training loop's optimizers use at its first step. `make(stage)` gives the step's batch."""
    schedule = tuple(replace(stage, num_steps=1) for stage in stages(config))
    translator = build(config)
    settings = LoopSettings(seed=0, ema_decay=None, max_grad_norm=None, max_nonfinite_steps=0, max_steps=None)
    trainer = Trainer(translator, schedule, settings, pretrained_networks(), Runtime.choose("cpu", "fp32"))
    watcher = _Watcher()
    trainer.run(lambda step: [(range(1), make(schedule[step]))], watcher)
    return watcher.seen


class _Watcher:
    def __init__(self) -> None:
        self.seen: list[dict[str, Learning]] = []

    def step_done(self, record: Any, trainer: Trainer) -> bool:
        self.seen.append(
            {
                name: Learning(
                    tuple((group["lr"], sum(value.numel() for value in group["params"])) for group in optimizer.param_groups),
                    optimizer.param_groups[0]["betas"],
                    max((int(state["step"]) for state in optimizer.state.values()), default=0),
                )
                for name, optimizer in trainer.optimizers.items()
            }
        )
        return False
