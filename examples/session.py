"""Translate frame by frame: one label map in, one image out, as for a camera, a game or a server.

python examples/session.py runs/street labels.mkv
"""

from __future__ import annotations

import sys
import time

import vidgen
from vidgen.media.frames import open_source


def main(model_path: str, labels: str) -> None:
    """Print the time that every frame takes."""
    model = vidgen.load(model_path)
    source = open_source(labels, kind="labels")
    session = model.session(source.size, seed=1)
    for index, frame in enumerate(source):
        started = time.perf_counter()
        pixels = session.step(frame.pixels)  # uint8 [H,W,3]
        milliseconds = 1000 * (time.perf_counter() - started)
        print(f"frame {index}: {pixels.shape[1]}x{pixels.shape[0]}, mean {pixels.mean():.1f}, {milliseconds:.0f} ms")
    session.reset()  # the next step begins another video


if __name__ == "__main__":
    main(*sys.argv[1:])
