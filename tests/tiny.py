"""A tiny data set and a tiny run that trains in milliseconds a step, for tests of everything around the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidgen.media.images import write_png

NUM_CLASSES, HEIGHT, WIDTH = 4, 32, 48

CONFIG = """
model:
  kind: vid2vid
  generator: {base_channels: 4, num_downsamplings: 2, num_blocks: 2}
  discriminators: {base_channels: 4, num_layers: 2, num_scales: 1, num_temporal_scales: 1}
  losses: {perceptual_weight: 0, l1_weight: 1}
  past: {noise: 0.1, dropout: 0.3}
  schedules:
    - {epochs: 3, decay_epochs: 2, clip_frames: 4, window_frames: 2, max_window_frames: 2, grow_every_epochs: 2}
data:
  condition:
    labels: {num_classes: 4}
train:
  steps_per_epoch: 4
  ema_decay: 0.9
  checkpoint_every_steps: 3
  sample_every_steps: 0
  precision: fp32
"""

_MODELS = {
    "pix2pix": """
  kind: pix2pix
  generator: {base_channels: 4, network: resnet, num_blocks: 2}
  discriminator: {base_channels: 4, num_layers: 2, objective: wasserstein}
  schedule: {epochs: 2, decay_epochs: 3}
""",
    "pix2pixhd": """
  kind: pix2pixhd
  generator: {base_channels: 8, num_downsamplings: 2, num_blocks: 1, num_enhancers: 1, num_local_blocks: 1}
  encoder: {base_channels: 4, num_downsamplings: 2}
  discriminators: {base_channels: 4, num_layers: 2, pool_size: 3}
  losses: {perceptual_weight: 0, l1_weight: 1}
  schedules:
    - {epochs: 1, decay_epochs: 0}
    - {epochs: 2, decay_epochs: 2, finest_only_epochs: 1}
""",
}


def write_data(root: Path, num_sequences: int = 2, num_frames: int = 10) -> Path:
    """`root` with images and labels of moving squares."""
    rng = np.random.default_rng(0)
    for sequence in range(num_sequences):
        texture = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for frame in range(num_frames):
            labels = np.zeros((HEIGHT, WIDTH), np.uint8)
            labels[HEIGHT // 2 :] = 1
            left = (4 * frame + 7 * sequence) % (WIDTH - 12)
            labels[8:20, left : left + 10] = 2 + sequence % 2
            picture = (texture // 3 + (labels * 50)[..., None]).astype(np.uint8)
            write_png(root / "labels" / f"clip{sequence}" / f"{frame:03d}.png", labels)
            write_png(root / "images" / f"clip{sequence}" / f"{frame:03d}.png", picture)
    return root


def write_config(folder: Path, data: Path, kind: str = "vid2vid") -> Path:
    """A configuration file for that data, of 20 steps; its label maps serve as instance maps too."""
    path = folder / "tiny.yaml"
    text = CONFIG.replace("data:\n", f"data:\n  root: {data}\n")
    if kind in _MODELS:
        start, stop = text.index("\n  kind:"), text.index("data:")
        text = text[:start] + _MODELS[kind] + text[stop:].replace("labels: {num", "instances: labels\n    labels: {num")
    path.write_text(text)
    return path
