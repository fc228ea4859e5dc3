"""Speed and memory of `vidgen evaluate` against a plain script, as ratios within one run.

    python tools/bench_evaluate.py                            # 384x288
    python tools/bench_evaluate.py --size 1280x720 --frames 24
    python tools/bench_evaluate.py --memory                   # peak memory for 60 and for 480 frames

The plain script does what published scripts do: for each of the two metrics it goes through the clip, reads the frames of every
pair from their files, estimates flow with the same engine at full size, and measures. Both must give the same scores
(to 1e-4: flow is kept in the cache's half precision).
"cold" knows nothing of the clip; "warm" has measured another output of the same source before.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import torch
from corrupt import noise
from rich.console import Console
from rich.table import Table

from flow.engines import create_engine
from vidgen.data.street import Street
from vidgen.evaluation.measure import evaluate
from vidgen.media.frames import open_sink
from vidgen.media.images import read_picture
from vidgen.metrics import temporal

KEYS = ("warp_error@1", "tof")
MEMORY_FRAMES = (60, 480)


@click.command(help=__doc__)
@click.option("--size", default="384x288", show_default=True)
@click.option("--frames", default=48, show_default=True)
@click.option("--memory", is_flag=True, help="Measure memory instead of speed.")
@click.option("--peak-of", type=click.Path(path_type=Path), hidden=True)
def main(size: str, frames: int, memory: bool, peak_of: Path | None) -> None:
    """Measure."""
    width, height = (int(side) for side in size.split("x"))
    if peak_of is not None:
        evaluate(peak_of / "output", source=peak_of / "source", metrics=",".join(KEYS), eval_height=None, strides=(1,), cache=None)
        click.echo(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    with tempfile.TemporaryDirectory() as folder:
        if memory:
            _show_memory(Path(folder), width, height)
        else:
            _show_speed(Path(folder), width, height, frames)


def _show_speed(folder: Path, width: int, height: int, num_frames: int) -> None:
    write_clip(folder, width, height, num_frames)
    ours = _ours(folder)
    seconds, scores = {}, {}
    for name, work in {"plain script": lambda: plain(folder), "vidgen, cold": ours, "vidgen, warm": ours}.items():
        seconds[name], scores[name] = _timed(work)
    if not all(np.allclose(scores["plain script"], other, rtol=1e-4) for other in scores.values()):
        raise click.ClickException(f"the scores differ: {json.dumps(scores)}")
    table = Table("", "s a frame", "times as fast", *KEYS, title=f"{width}x{height}, {num_frames} frames")
    for name, taken in seconds.items():
        ratio = seconds["plain script"] / taken
        table.add_row(name, f"{taken / num_frames:.3f}", f"{ratio:.2f}", *(f"{value:.6g}" for value in scores[name]))
    Console().print(table)


def _ours(folder: Path) -> Callable[[], list[float]]:
    def measure() -> list[float]:
        report = evaluate(
            folder / "output",
            source=folder / "source",
            metrics=",".join(KEYS),
            eval_height=None,
            strides=(1,),
            cache=folder / "cache",
        )
        return [report[key] or 0.0 for key in KEYS]

    return measure


def _show_memory(folder: Path, width: int, height: int) -> None:
    table = Table("frames", "peak memory, MB", title=f"{width}x{height}")
    for num_frames in MEMORY_FRAMES:
        write_clip(folder / str(num_frames), width, height, num_frames)
        command = [sys.executable, __file__, "--peak-of", str(folder / str(num_frames))]
        table.add_row(str(num_frames), f"{float(subprocess.check_output(command)):.0f}")
    Console().print(table)


def write_clip(folder: Path, width: int, height: int, num_frames: int) -> None:
    """A street as `source`, and the same with noise as `output`, both as PNG files."""
    frames = np.stack([frame.image for frame in Street(0, height, width).frames(num_frames)])
    for name, clip in {"source": frames, "output": noise(frames)}.items():
        with open_sink(folder / name, time_base=Fraction(1, 25), frame_rate=Fraction(25)) as sink:
            for index, frame in enumerate(clip):
                sink.write(frame, index)


def plain(folder: Path) -> list[float]:
    """Warping error and tOF, one after the other, every pair from its files."""
    engine = create_engine("dis")
    pairs = list(pairwise(sorted(path.name for path in (folder / "source").iterdir())))

    def load(kind: str, name: str) -> torch.Tensor:
        return torch.from_numpy(read_picture(folder / kind / name)).permute(2, 0, 1)[None].float() / 255

    def read(kind: str, names: tuple[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
        return load(kind, names[0]), load(kind, names[1])

    def flow(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return engine(first * 2 - 1, second * 2 - 1)

    errors, differences, num_textured = [], 0.0, 0
    for names in pairs:
        motion = temporal.reference_motion(*read("source", names), engine)
        errors.append(float(temporal.warping_error(*read("output", names), motion)))
    for names in pairs:
        source, output = read("source", names), read("output", names)
        motion = temporal.reference_motion(*source, engine)
        mask = temporal.textured(source[0]) & motion.mask
        difference = (flow(*output) - motion.flow).norm(dim=1, keepdim=True).clamp(max=temporal.TOF_CAP_PIXELS)
        differences += float(difference[mask].sum())
        num_textured += int(mask.sum())
    return [float(np.mean(errors)), differences / num_textured]


def _timed(work: Callable[[], list[float]]) -> tuple[float, list[float]]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in good order removes the temporary folders
    main()
