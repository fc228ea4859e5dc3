"""Spoil a video in one known way, to see what a measurement says of it.

    python tools/corrupt.py VIDEO --kind blur -o blurred.mp4        # a video, or a folder of frames
    python tools/corrupt.py VIDEO --kind all -o corrupted           # every kind, each in a folder of its own

The whole video is held in memory. The same input gives the same output.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np
import torch

from flow.engines import Dis
from flow.warp import warp
from vidgen.errors import VidgenError
from vidgen.media.frames import FrameSource, open_sink, open_source

Frames = np.ndarray
"""uint8 [T,H,W,3], RGB."""


def gray(frames: Frames) -> Frames:
    """One flat gray: perfectly steady, and worthless."""
    return np.full_like(frames, 128)


def frozen(frames: Frames) -> Frames:
    """The first frame for ever."""
    return np.repeat(frames[:1], len(frames), axis=0)


def blur(frames: Frames) -> Frames:
    """Every frame out of focus (Gaussian, sigma 1 % of the height)."""
    sigma = 0.01 * frames.shape[1]
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def noise(frames: Frames) -> Frames:
    """New noise in every frame (standard deviation 8 gray levels)."""
    return _rounded(frames + 8 * _random(0).standard_normal(frames.shape, np.float32))


def flicker(frames: Frames) -> Frames:
    """Exposure up and down by 4 gray levels, frame by frame."""
    signs = np.where(np.arange(len(frames)) % 2 == 0, 4, -4)
    return _rounded(frames.astype(np.float32) + signs[:, None, None, None])


def blotches(frames: Frames) -> Frames:
    """Every block of 32x32 pixels brighter or darker by chance in every frame (standard deviation 4 gray levels)."""
    num_frames, height, width, _ = frames.shape
    blocks = 4 * _random(1).standard_normal((num_frames, -(-height // 32), -(-width // 32), 1), np.float32)
    spread = blocks.repeat(32, axis=1).repeat(32, axis=2)[:, :height, :width]
    return _rounded(frames + spread)


def shuffled(frames: Frames) -> Frames:
    """The frames in another order."""
    return frames[_random(2).permutation(len(frames))]


def doubled(frames: Frames) -> Frames:
    """Every second frame replaced by the one before it, as where the frame rate was doubled by repetition."""
    return frames[np.arange(len(frames)) // 2 * 2]


def smoothed(frames: Frames) -> Frames:
    """Each frame mixed with all before it (exponential, 0.7 of the past): trails behind everything that moves."""
    made = [frames[0].astype(np.float32)]
    for frame in frames[1:]:
        made.append(0.7 * made[-1] + 0.3 * frame)
    return _rounded(np.stack(made))


def jpeg(frames: Frames) -> Frames:
    """Every frame through JPEG at quality 20."""
    return np.stack([_through_jpeg(frame) for frame in frames])


def gamma(frames: Frames) -> Frames:
    """Brightened by a gamma of 0.6: another look, as steady as before."""
    return _rounded(255 * (frames / np.float32(255)) ** np.float32(0.6))


def stuck(frames: Frames) -> Frames:
    """A texture that stays on the screen while the scene moves under it: the shower door."""
    pattern = cv2.GaussianBlur(_random(3).standard_normal(frames.shape[1:], np.float32), (0, 0), 1.5)
    return _rounded(frames + 24 * pattern / pattern.std())


def jitter(frames: Frames) -> Frames:
    """Every frame shifted by up to one pixel each way."""
    shifts = _random(4).uniform(-1, 1, (len(frames), 2))
    height, width = frames.shape[1:3]
    return np.stack(
        [
            cv2.warpAffine(frame, np.array([[1, 0, x], [0, 1, y]]), (width, height), borderMode=cv2.BORDER_REPLICATE)
            for frame, (x, y) in zip(frames, shifts, strict=True)
        ]
    )


def dragged(frames: Frames) -> Frames:
    """The first frame pulled along by the motion for ever: streaks where something appears, smears from resampling."""
    return _pulled(frames, len(frames))


def keyed(frames: Frames) -> Frames:
    """Pulled along by the motion from a fresh frame every 6 frames: steady in between, a jump at every fresh frame."""
    return _pulled(frames, 6)


def checkered(frames: Frames) -> Frames:
    """Out of focus (Gaussian, sigma 1 % of the height) under a checkerboard of 2 pixels where there was detail."""
    soft = blur(frames).astype(np.float32)
    detail = np.stack([cv2.GaussianBlur(np.abs(frame), (0, 0), 3) for frame in frames - soft])
    rows, columns = np.indices(frames.shape[1:3])
    board = np.where((rows + columns) % 2 == 0, 1, -1)[None, :, :, None]
    return _rounded(soft + 1.5 * detail * board)


CORRUPTIONS: dict[str, Callable[[Frames], Frames]] = {
    corruption.__name__: corruption
    for corruption in (
        gray, frozen, blur, noise, flicker, blotches, shuffled, doubled, smoothed, jpeg, gamma, stuck, jitter,
        dragged, keyed, checkered,
    )
}  # fmt: skip


def _through_jpeg(frame: np.ndarray) -> np.ndarray:
    data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def _pulled(frames: Frames, period: int) -> Frames:
    """Every frame fetched from the one before it along the motion, anew from the clip after each `period` frames."""
    engine = Dis()
    clip = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float() / 127.5 - 1
    result = [clip[:1]]
    for index in range(1, len(clip)):
        flow = engine(clip[index : index + 1], clip[index - 1 : index])
        result.append(clip[index : index + 1] if index % period == 0 else warp(result[-1], flow))
    return _rounded((torch.cat(result).permute(0, 2, 3, 1).numpy() + 1) * 127.5)


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _rounded(frames: np.ndarray) -> Frames:
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def read(source: FrameSource) -> Frames:
    """All frames of a source."""
    return np.stack([frame.pixels for frame in source])


@click.command(help=__doc__)
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["all", *CORRUPTIONS]), required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--overwrite", is_flag=True)
def main(video: Path, kind: str, output: Path, overwrite: bool) -> None:
    """Read, spoil, write."""
    try:
        source = open_source(video)
        frames = read(source)
        for name in CORRUPTIONS if kind == "all" else [kind]:
            path = output / name if kind == "all" else output
            with open_sink(path, time_base=source.time_base, frame_rate=source.frame_rate, overwrite=overwrite) as sink:
                for index, frame in enumerate(CORRUPTIONS[name](frames)):
                    sink.write(frame, round(index / (source.frame_rate * source.time_base)))
            click.echo(path)
    except VidgenError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
