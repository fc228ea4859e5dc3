"""What every metric of `vidgen evaluate` says of thirteen known faults, on real clips: the proof that a report means something.

    python tools/sensitivity.py CLIP... -o docs/sensitivity.md

CLIP is a video or a folder of frames. Every clip is spoilt in every way of tools/corrupt.py and measured against
itself. Writes a table and, beside it, a
picture of it.
"""

from __future__ import annotations

import html
import math
import tempfile
from fractions import Fraction
from pathlib import Path

import click
import cv2
import numpy as np
from corrupt import CORRUPTIONS, read
from rich.console import Console
from rich.progress import track

from vidgen import durable
from vidgen.errors import InputError, VidgenError
from vidgen.evaluation.compare import is_contest
from vidgen.evaluation.measure import evaluate
from vidgen.media.frames import open_sink, open_source
from vidgen.metrics.score import metric_of

COPY = "copy"
Values = dict[str, dict[str, list[float | None]]]
"""metric key -> corruption -> value in every clip, None where it refuses to answer."""

CELL_WIDTH, CELL_HEIGHT, LABEL_WIDTH, HEAD_HEIGHT = 62, 20, 190, 76


@click.command(help=__doc__)
@click.argument("clips", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Markdown file; a .svg is written beside it.")
@click.option("--frames", default=20, show_default=True, help="Frames of every clip.")
@click.option("--height", default=192, show_default=True, help="Clips are reduced to this height first.")
def main(clips: tuple[Path, ...], output: Path, frames: int, height: int) -> None:
    """Spoil, measure, write."""
    try:
        values, verdicts = measure(clips, frames, height)
        shown = " ".join(_short(clip) for clip in clips)
        command = f"python tools/sensitivity.py {shown} -o {output} --frames {frames} --height {height}"
        durable.write_text(output, as_markdown(values, verdicts, command, len(clips), output.with_suffix(".svg").name))
        durable.write_text(output.with_suffix(".svg"), as_picture(values))
    except VidgenError as error:
        raise click.ClickException(str(error)) from error


def measure(clips: tuple[Path, ...], num_frames: int, height: int) -> tuple[Values, dict[str, list[str]]]:
    """All values, and per corruption the verdict's reasons against it in every clip ("" where it is ranked)."""
    values: Values = {}
    verdicts: dict[str, list[str]] = {}
    kinds = {COPY: lambda frames: frames, **CORRUPTIONS}
    with tempfile.TemporaryDirectory() as temporary:
        originals = [_beginning(clip, num_frames, height, Path(temporary) / str(index)) for index, clip in enumerate(clips)]
        work = [(original, kind) for original in originals for kind in kinds]
        for (frames, folder), kind in track(work, "measuring", console=Console(stderr=True)):
            original = list(frames)
            report = evaluate(
                list(kinds[kind](frames)), source=original, target=original, reference_set=folder, metrics="all", strides=(1, 3)
            )
            for key, entry in report.metrics.items():
                if is_contest(key, entry.better) and "/" not in key:
                    values.setdefault(key, {}).setdefault(kind, []).append(entry.value)
            verdicts.setdefault(kind, []).append("; ".join(report.reasons))
    return values, verdicts


def worse(key: str, value: float | None, copy: float | None) -> float | None:
    """By how much a value is worse than that of the perfect copy, 0..1 on a scale of its own; None where there is no value."""
    if value is None or copy is None:
        return None
    better = metric_of(key).better
    if better == "one":
        return min(1.0, abs(math.log(max(value, 1e-3))) / math.log(4))
    if metric_of(key).unit == "dB":
        return min(1.0, max(0.0, copy - value) / 60)
    if better == "high":
        return min(1.0, max(0.0, copy - value))
    return min(1.0, max(0.0, value - copy) / _full_scale(key, copy))


def _full_scale(key: str, copy: float) -> float:
    """The increase of a low-is-better metric that counts as complete failure."""
    unit = metric_of(key).unit
    if unit.startswith("squared"):
        return 3 * max(copy, 5e-4)
    return {"pixels": 2.0, "gray levels 0..255": 4.0, "x 1000": 100.0, "distance": 10.0, "fraction": 0.5}.get(unit, 1.0)


def as_markdown(values: Values, verdicts: dict[str, list[str]], command: str, num_clips: int, picture: str) -> str:
    """The page."""
    kinds = [COPY, *CORRUPTIONS]
    lines = [
        "# What the metrics see",
        "",
        f"Thirteen known faults, {num_clips} real clips, every metric that needs no download. Made by",
        "",
        f"    {command}",
        "",
        "Each clip is measured against itself, so that every fault is known. Values are medians over the clips; bold ones are",
        "worse than the perfect copy's in every clip, by more than a tenth of the metric's scale (see `worse` in the script). A",
        "dash means that the metric refused to answer in most clips, as it should where there is nothing to measure.",
        "",
        f"![The table as a picture: the darker, the worse the metric calls the fault]({picture})",
        "",
        "| metric | " + " | ".join(kinds) + " |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for key, row in values.items():
        cells = [_cell(key, row.get(kind, []), row[COPY]) for kind in kinds]
        lines.append(f"| `{key}` | " + " | ".join(cells) + " |")
    lines += ["", "## What the verdict says", "", "| fault | how it is made | not ranked because |", "|---|---|---|"]
    for kind in kinds:
        about = "the clip itself" if kind == COPY else (CORRUPTIONS[kind].__doc__ or "").split("\n")[0]
        reasons = sorted({reason for reason in verdicts[kind] if reason}, key=len)
        refused = sum(bool(reason) for reason in verdicts[kind])
        lines.append(f"| {kind} | {about} | {f'{reasons[0]} ({refused} of {num_clips} clips)' if reasons else ''} |")
    blind = {kind: _seeing(values, kind) for kind in CORRUPTIONS}
    lines += ["", "## Which metrics see which fault", ""]
    lines += [f"- **{kind}**: {', '.join(f'`{key}`' for key in seeing) or 'none'}" for kind, seeing in blind.items()]
    return "\n".join(lines) + "\n"


def _seeing(values: Values, kind: str) -> list[str]:
    return [key for key, row in values.items() if _is_seen(key, row.get(kind, []), row[COPY])]


def _is_seen(key: str, found: list[float | None], copies: list[float | None]) -> bool:
    faults = [worse(key, value, copy) for value, copy in zip(found, copies, strict=False)]
    return bool(faults) and all(fault is not None and fault > 0.1 for fault in faults)


def _cell(key: str, found: list[float | None], copies: list[float | None]) -> str:
    known = [value for value in found if value is not None]
    if 2 * len(known) <= len(found):
        return "–"
    text = f"{np.median(known):.3g}"
    return f"**{text}**" if _is_seen(key, found, copies) else text


def as_picture(values: Values) -> str:
    """SVG: a row per metric, a column per fault, darker where the metric calls it worse, hatched where it refuses to answer."""
    kinds = list(CORRUPTIONS)
    width, height = LABEL_WIDTH + CELL_WIDTH * len(kinds) + 10, HEAD_HEIGHT + CELL_HEIGHT * len(values) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        '<defs><pattern id="none" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="6" height="6" fill="#fff"/><rect width="1.5" height="6" fill="#bbb"/></pattern></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for column, kind in enumerate(kinds):
        x = LABEL_WIDTH + CELL_WIDTH * (column + 0.5)
        parts.append(f'<text transform="translate({x:.0f} {HEAD_HEIGHT - 8}) rotate(-40)">{html.escape(kind)}</text>')
    for row, (key, found) in enumerate(values.items()):
        y = HEAD_HEIGHT + CELL_HEIGHT * row
        parts.append(f'<text x="{LABEL_WIDTH - 8}" y="{y + 14}" text-anchor="end">{html.escape(key)}</text>')
        for column, kind in enumerate(kinds):
            faults = [worse(key, value, copy) for value, copy in zip(found.get(kind, []), found[COPY], strict=False)]
            known = [fault for fault in faults if fault is not None]
            fill = "url(#none)" if 2 * len(known) <= len(faults) else _shade(float(np.median(known)))
            x = LABEL_WIDTH + CELL_WIDTH * column
            parts.append(f'<rect x="{x}" y="{y}" width="{CELL_WIDTH - 2}" height="{CELL_HEIGHT - 2}" fill="{fill}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _shade(fault: float) -> str:
    """White to dark red."""
    light, dark = np.array([246, 246, 246]), np.array([150, 20, 30])
    red, green, blue = (int(value) for value in light + (dark - light) * math.sqrt(fault))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _beginning(clip: Path, num_frames: int, height: int, folder: Path) -> tuple[np.ndarray, Path]:
    """The first frames of a clip, and the folder they were written to, as the set of real clips."""
    source = open_source(clip)
    if source.count() < num_frames:
        raise InputError(f"{clip}: has {source.count()} frames, {num_frames} are needed")
    frames = read(source)[:num_frames]
    width = round(frames.shape[2] * height / frames.shape[1] / 2) * 2
    frames = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])
    with open_sink(folder / clip.stem, time_base=Fraction(1, 25), frame_rate=Fraction(25)) as sink:
        for index, frame in enumerate(frames):
            sink.write(frame, index)
    return frames, folder


def _short(clip: Path) -> str:
    """The end of a path, as it stands in the page."""
    return "/".join(clip.parts[-3:])


if __name__ == "__main__":
    main()
