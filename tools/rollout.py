"""How a sequential model holds up on its own frames: colour and sharpness over a long roll-out.

    python tools/rollout.py out/run LABELS --frames 500 -o rollout.png

The label clip is played back and forth until there are enough frames. Prints a table and draws the curves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vidgen.inference.model import Inputs, Model
from vidgen.media.frames import Frame, FrameSource, open_source
from vidgen.media.images import write_png


class BackAndForth(FrameSource):
    """The frames of a clip, forwards, backwards, forwards ..., `num_frames` in all."""

    def __init__(self, source: FrameSource, num_frames: int) -> None:
        self._frames = list(source)
        self.name, self.size, self.time_base, self.frame_rate = source.name, source.size, source.time_base, source.frame_rate
        self.num_frames = num_frames

    def __iter__(self) -> Iterator[Frame]:
        inner = self._frames[1:-1]
        order = itertools.cycle([*self._frames, *reversed(inner)])
        for index, frame in enumerate(itertools.islice(order, self.count())):
            yield Frame(frame.pixels, index, frame.name)

    def count(self) -> int:
        assert self.num_frames is not None
        return self.num_frames

    def read(self, start: int, stop: int) -> list[Frame]:
        return list(itertools.islice(iter(self), start, stop))


def sharpness(pixels: np.ndarray) -> float:
    """Mean absolute Laplacian of the luma, in grey levels."""
    return float(np.abs(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_32F)).mean())


def draw(values: np.ndarray, names: list[str], path: Path) -> None:
    """Curves of the columns of `values` over frame number, each scaled by its first tenth, as a PNG."""
    height, width, margin = 360, 900, 40
    canvas = np.full((height, width, 3), 255, np.uint8)
    colors = [(200, 40, 40), (40, 150, 40), (40, 40, 200), (20, 20, 20)]
    start = values[: max(1, len(values) // 10)].mean(0)
    relative = values / start
    low, high = min(0.5, float(relative.min())), max(1.5, float(relative.max()))
    x = margin + (width - 2 * margin) * np.arange(len(values)) / max(1, len(values) - 1)
    for level in (0.5, 1.0, 1.5):
        y = round(height - margin - (height - 2 * margin) * (level - low) / (high - low))
        cv2.line(canvas, (margin, y), (width - margin, y), (210, 210, 210), 1)
        cv2.putText(canvas, f"{level:g}", (6, y + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (90, 90, 90), 1, cv2.LINE_AA)
    for column, (name, color) in enumerate(zip(names, colors, strict=True)):
        y = height - margin - (height - 2 * margin) * (relative[:, column] - low) / (high - low)
        cv2.polylines(canvas, [np.stack([x, y], axis=1).round().astype(np.int32)], False, color, 1, cv2.LINE_AA)
        cv2.putText(canvas, name, (margin + 150 * column, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1, cv2.LINE_AA)
    caption = f"frames 0 to {len(values) - 1}, relative to the first tenth"
    cv2.putText(canvas, caption, (margin, height - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (90, 90, 90), 1, cv2.LINE_AA)
    write_png(path, canvas)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("labels")
@click.option("--frames", "num_frames", type=click.IntRange(min=20), default=500, show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="PNG of the curves.")
@click.option("--stills", type=click.Path(path_type=Path), help="PNG of frames along the way.")
def main(model: Path, labels: str, num_frames: int, out: Path, stills: Path | None) -> None:
    """Roll MODEL out over the label clip LABELS."""
    loaded = Model.load(model)
    reading = "labels" if loaded.condition.labels is not None else "pictures"
    source = BackAndForth(open_source(labels, kind=reading), num_frames)
    rows, kept = [], []
    wanted = set(np.linspace(0, num_frames - 1, 5).round().astype(int).tolist())
    for index, frame in enumerate(track(loaded.stream(Inputs(source)), total=num_frames, console=Console(stderr=True))):
        rows.append([*frame.pixels.reshape(-1, 3).mean(0), sharpness(frame.pixels)])
        if index in wanted:
            kept.append(frame.pixels)
    values = np.array(rows)
    names = ["red", "green", "blue", "sharpness"]
    table = Table("frames", *names)
    for start in range(0, num_frames, max(1, num_frames // 10)):
        part = values[start : start + max(1, num_frames // 10)]
        table.add_row(f"{start}-{start + len(part) - 1}", *(f"{value:.2f}" for value in part.mean(0)))
    Console().print(table)
    draw(values, names, out)
    if stills is not None:
        write_png(stills, np.concatenate(kept, axis=1))


if __name__ == "__main__":
    main()
