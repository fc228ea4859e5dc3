"""Evaluate a video that is in memory: two arrays in, scores out.

python examples/evaluate_arrays.py
"""

from __future__ import annotations

import numpy as np

import vidgen


def main() -> None:
    """Compare a panning texture with a copy that flickers."""
    texture = np.random.default_rng(0).integers(0, 255, (12, 24, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    real = np.stack([np.roll(texture, 2 * frame, axis=1) for frame in range(8)])  # uint8 [T,H,W,3]
    brightness = np.array([0, 12] * 4).reshape(-1, 1, 1, 1)
    flickering = np.clip(real.astype(int) + brightness, 0, 255).astype(np.uint8)
    for name, video in (("real", real), ("flickering", flickering)):
        report = vidgen.evaluate(video, target=real, strides=(1,))
        print(f"{name}: warp_error@1 {report['warp_error@1']:.5f}, flicker_global {report['flicker_global']:.2f}")


if __name__ == "__main__":
    main()
