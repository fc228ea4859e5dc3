"""What a run will need, found without running it: parameters, shapes, memory."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from vidgen.data.clips import Clips
from vidgen.runtime import Runtime
from vidgen.training.settings import RunSettings
from vidgen.translators.base import Translator
from vidgen.types import Batch, Stage, Step

_BYTES_PER_TRAINED_PARAMETER = 16
"""Weight, gradient and Adam's two moments in float32."""


def estimate(
    settings: RunSettings, translator: Translator[Any], stages: tuple[Stage, ...], clips: Clips, runtime: Runtime
) -> dict[str, Any]:
    """Parameters per part, shapes of the first batch and peak memory of the largest stage.

    Args:
        translator: on the meta device.
    """
    parts = {name: sum(p.numel() for p in child.parameters()) for name, child in translator.named_children()}
    count = settings.train.micro_batch_size
    rows = []
    peak = 0
    for stage in stages:
        batch = clips.batch(
            stage, 0, range(count), primer_frames=translator.num_primer_frames, batch_size=settings.train.batch_size
        )
        activations = _activation_bytes(translator, stage, batch, runtime)
        peak = max(peak, activations)
        rows.append(
            {
                "stage": stage.name,
                "steps": stage.num_steps,
                "clip": f"{batch.target.shape[1]} frames of {batch.target.shape[4]}x{batch.target.shape[3]}",
                "frames_per_update": stage.window_frames,
                "activations_mb": round(activations / 2**20),
            }
        )
    total = sum(parts.values())
    ema = parts.get("generator", 0) * 4 if settings.train.ema_decay else 0
    return {
        "runtime": runtime.describe(),
        "sequences": len(clips.sequences),
        "frames": sum(sequence.num_frames for sequence in clips.sequences),
        "parameters": parts,
        "stages": rows,
        "memory_mb": round((total * _BYTES_PER_TRAINED_PARAMETER + ema + peak) / 2**20),
    }


def _activation_bytes(translator: Translator[Any], stage: Stage, batch: Batch, runtime: Runtime) -> int:
    """Bytes that the rollout of one window keeps for its backward pass, counted on the meta device."""
    shadow = copy.deepcopy(translator).to("meta")  # buffers of constants have numbers even there
    shadow.begin(stage)
    shadow.train()
    shadow.requires_grad_(True)
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        seen[id(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        kept.append(tensor)
        return tensor

    kept: list[Tensor] = []
    window = batch.windows(stage.window_frames)[0].map(lambda tensor: tensor.to("meta"))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        shadow.rollout(window, Step(stage))
    saved = sum(seen.values())
    return saved // 2 if runtime.use_bf16 else saved
