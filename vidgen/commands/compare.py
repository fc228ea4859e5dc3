"""Videos next to each other, moment by moment: a page with a synchronized player, or one video of labeled panels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

import vidgen
from vidgen import durable, progress
from vidgen.commands.inputs import named_input
from vidgen.errors import ConfigError, InputError
from vidgen.media import paths
from vidgen.media.frames import (
    FOLDER_FRAME_RATE,
    Frame,
    FrameSource,
    PictureSource,
    files_read,
    open_sink,
    open_source,
    output_place,
)
from vidgen.media.video import Quality
from vidgen.pages import players, templates

View = Literal["side", "wipe", "difference"]

SAME_RATE = 0.01
WIPE_SECONDS = 4.0
DIFFERENCE_GAIN = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def compare(
    inputs: Sequence[str],
    out: str | Path,
    *,
    view: View = "side",
    height: int | None = None,
    fps: float | None = None,
    allow_trim: bool = False,
    max_megabytes: float = 30.0,
    quality: Quality = "good",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Show several videos of the same thing together.

    All are brought to the shape of the first. Videos of as many frames are shown frame by frame, at the times of the first,
    whatever their rates; others are brought to the frame rate of the fastest, and frames of slower ones are shown longer.

    Args:
        inputs: videos or folders of pictures, also as NAME=PATH.
        out: a page (.html), or a video.
        view: what a video shows, and what a page shows first: panels side by side, a wipe between two, or their difference.
        height: of a panel; that of the lowest input by default, in a page at most 480.
        fps: frames per second of folders of pictures; those of the videos by default.
        allow_trim: end with the shortest instead of refusing inputs of different lengths.
        max_megabytes: about how large a page may become; videos are made smaller for it.

    Returns:
        where it is, and what it shows.

    Raises:
        InputError: an input cannot be read, or they differ in length.
        ConfigError: there are too few or too many of them for `view`.
        OutputError: `out` exists, or cannot be written.
    """
    if len(inputs) < 2:
        raise ConfigError(f"compare: needs at least two videos, got {len(inputs)}")
    is_page = Path(out).suffix.lower() in (".html", ".htm")
    if view != "side" and len(inputs) != 2 and not is_page:
        raise ConfigError(
            f"`view` {view}: shows two videos, got {len(inputs)}", hint="a page (-o compare.html) lets you choose two"
        )
    read = [file for text in inputs for file in files_read(named_input(text)[1])]
    with durable.claim([Path(out) if is_page else output_place(out)], inputs=read, overwrite=overwrite) as claim:
        sources = _aligned(_opened(inputs, fps), allow_trim=allow_trim)
        lowest = min(source.size[0] for source in sources.values())
        notes = _rate_notes(sources)
        if is_page:
            notes = _write_page(sources, Path(out), view, min(height or 480, lowest), max_megabytes, notes)
        else:
            _write_video(sources, out, view, height or lowest, quality, claim)
    return {
        "output": str(out),
        "shows": list(sources),
        "frames": min(source.num_frames for source in sources.values()),
        "notes": notes,
    }


# --- the same moments -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Aligned:
    """A source at a common frame rate, `num_frames` long.

    Attributes:
        resampled: whether frames are repeated or left out; otherwise they keep their own times.
    """

    source: FrameSource
    frame_rate: Fraction
    num_frames: int
    resampled: bool

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    @property
    def time_base(self) -> Fraction:
        return 1 / self.frame_rate if self.resampled else self.source.time_base

    def __iter__(self) -> Iterator[Frame]:
        frames = iter(self.source)
        if not self.resampled:
            for _, frame in zip(range(self.num_frames), frames, strict=False):
                yield frame
            return
        current = next(frames)
        following, origin = next(frames, None), current.pts
        for tick in range(self.num_frames):
            until = (tick + Fraction(1, 2)) / self.frame_rate
            while following is not None and (following.pts - origin) * self.source.time_base <= until:
                current, following = following, next(frames, None)
            yield Frame(current.pixels, tick, current.name)


def _opened(inputs: Sequence[str], fps: float | None) -> dict[str, FrameSource]:
    """The inputs by name; folders have `fps`, or the highest rate of the videos."""
    named = [named_input(text) for text in inputs]
    rate = None if fps is None else Fraction(fps).limit_denominator(100_000)
    opened = [open_source(path) for _, path in named]
    stated = [source.frame_rate for source in opened if not isinstance(source, PictureSource)]
    rate = rate or max(stated, default=FOLDER_FRAME_RATE)
    sources: dict[str, FrameSource] = {}
    for (name, path), source in zip(named, opened, strict=True):
        label = base = name or _default_name(path, [other for _, other in named])
        while label in sources:
            label = f"{base} ({len(sources) + 1})"
        sources[label] = open_source(path, frame_rate=rate) if isinstance(source, PictureSource) else source
    return sources


def _default_name(path: Path, all_paths: Sequence[Path]) -> str:
    """The file's name, with its folder where others are called the same."""
    alike = sum(other.stem == path.stem for other in all_paths) > 1
    return paths.display(Path(path.parent.name) / path.stem if alike and path.parent.name else path.stem or str(path))


def _aligned(sources: Mapping[str, FrameSource], *, allow_trim: bool) -> dict[str, _Aligned]:
    rate = max(source.frame_rate for source in sources.values())
    counts = {name: source.count() for name, source in sources.items()}
    same_count = len(set(counts.values())) == 1
    resampled = not same_count and any(abs(source.frame_rate / rate - 1) > SAME_RATE for source in sources.values())
    ticks = {name: max(1, round(count * rate / sources[name].frame_rate)) if resampled else count for name, count in counts.items()}
    shortest = min(ticks.values())
    if max(ticks.values()) - shortest > resampled and not allow_trim:
        listed = ", ".join(
            f"{name} has {counts[name]} frames ({counts[name] / float(source.frame_rate):.2f} s)"
            for name, source in sources.items()
        )
        raise InputError(f"the videos differ in length: {listed}", hint="`allow_trim` shows the common part")
    return {
        name: _Aligned(source, rate if resampled else source.frame_rate, shortest, resampled) for name, source in sources.items()
    }


# --- a page ---------------------------------------------------------------------------------------------------------------


def _rate_notes(sources: Mapping[str, _Aligned]) -> list[str]:
    rates = {name: float(item.source.frame_rate) for name, item in sources.items()}
    if max(rates.values()) / min(rates.values()) - 1 <= SAME_RATE:
        return []
    listed = ", ".join(f"{name} has {rate:.5g}" for name, rate in rates.items())
    if any(item.resampled for item in sources.values()):
        return [f"frame rates differ ({listed} per second): frames of the slower videos are repeated"]
    return [f"frame rates differ ({listed} per second): shown frame by frame, at the times of {next(iter(rates))}"]


def _write_page(
    sources: Mapping[str, _Aligned], out: Path, view: View, height: int, max_megabytes: float, rate_notes: list[str]
) -> list[str]:
    budget = max_megabytes * 1e6 * 3 / 4
    clips = players.embed(sources, lead=next(iter(sources)), max_bytes=budget, max_height=height)
    notes = [*clips.reductions, *rate_notes]
    page = templates.render(
        "compare.html.j2",
        title=", ".join(sources),
        version=vidgen.__version__,
        videos=[{"name": name, "color": None, "uri": clips.uri(name)} for name in clips.videos],
        view=view,
        notes=notes,
        payload={"players": {"main": {"times": clips.times, "cuts": []}}},
    )
    durable.write_text(out, page)
    return notes


# --- a video --------------------------------------------------------------------------------------------------------------


def _write_video(
    sources: Mapping[str, _Aligned], out: str | Path, view: View, height: int, quality: Quality, claim: durable.Claim
) -> None:
    lead = next(iter(sources.values()))
    size = (height, max(2, round(lead.size[1] * height / lead.size[0])))
    with open_sink(out, time_base=lead.time_base, frame_rate=lead.frame_rate, quality=quality, claim=claim) as sink:
        moments = zip(*sources.values(), strict=False)
        total = min((source.num_frames for source in sources.values() if source.num_frames), default=None)
        for moment in progress.follow(moments, f"writing {Path(out).name}", total):
            panels = dict(zip(sources, (players.fit(frame.pixels, size) for frame in moment), strict=True))
            seconds = float(moment[0].pts * lead.time_base)
            sink.write(_picture(panels, view, seconds), moment[0].pts, moment[0].duration)


def _picture(panels: Mapping[str, np.ndarray], view: View, seconds: float) -> np.ndarray:
    """All panels in one picture, uint8 [H,W,3]."""
    if view == "side":
        return _grid([_labeled(pixels, name) for name, pixels in panels.items()])
    (first_name, first), (second_name, second) = panels.items()
    if view == "difference":
        difference = cv2.absdiff(first, second)
        return _labeled(
            cv2.convertScaleAbs(difference, alpha=DIFFERENCE_GAIN), f"|{first_name} - {second_name}| x {DIFFERENCE_GAIN}"
        )
    edge = round(first.shape[1] * (0.5 - 0.45 * math.cos(2 * math.pi * seconds / WIPE_SECONDS)))
    both = np.concatenate([first[:, :edge], second[:, edge:]], axis=1)
    both[:, max(0, edge - 1) : edge + 1] = 255
    return _labeled(both, first_name, second_name)


def _grid(panels: Sequence[np.ndarray]) -> np.ndarray:
    num_columns = len(panels) if len(panels) <= 3 else math.ceil(math.sqrt(len(panels)))
    blank = np.zeros_like(panels[0])
    filled = [*panels, *[blank] * (-len(panels) % num_columns)]
    rows = [np.concatenate(filled[start : start + num_columns], axis=1) for start in range(0, len(filled), num_columns)]
    return np.concatenate(rows, axis=0)


def _labeled(pixels: np.ndarray, left: str, right: str = "") -> np.ndarray:
    """The picture under a dark strip with a name at its left, and one at its right."""
    height = max(18, pixels.shape[0] // 14 // 2 * 2)
    strip = np.full((height, pixels.shape[1], 3), 24, np.uint8)
    room = pixels.shape[1] // (2 if right else 1) - 8
    for text, at_right in ((left, False), (right, True)):
        scale = height / 36
        width = cv2.getTextSize(text, _FONT, scale, 1)[0][0]
        scale *= min(1.0, room / max(width, 1))
        width = cv2.getTextSize(text, _FONT, scale, 1)[0][0]
        x = pixels.shape[1] - width - 4 if at_right else 4
        cv2.putText(strip, text, (x, round(height * 0.7)), _FONT, scale, (240, 240, 240), 1, cv2.LINE_AA)
    return np.concatenate([strip, pixels])
