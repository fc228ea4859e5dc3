"""Two pictures of a scene, neither of which has all of it: pairs made from real frames, for models that fuse two sources.

    python tools/fusion_pairs.py make focus FRAMES LABELS -o data/focus
    vidgen train pix2pixhd/fusion_small --set data.root=data/focus/train -o runs/focus
    python tools/fusion_pairs.py score runs/focus data/focus/test -o results/focus

`focus`: source/ has the foreground sharp and the background out of focus, source2/ the reverse. `light`: source/ is by night, dark
and blue, noise in its shadows; source2/ is by day with too long an exposure, warm, with its bright parts white. target/ is the
frame. The last frames are held out, behind a gap. `score` fuses them, measures the result beside copies of either source, their
average, and the locally sharper of the two, and writes sheet.png (source, source2, fused, ground truth) and scores.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from vidgen import durable
from vidgen.commands.translate import translate
from vidgen.evaluation.measure import evaluate
from vidgen.media.frames import open_source
from vidgen.media.images import read_picture, write_png
from vidgen.media.labels import find
from vidgen.pages.players import fit

FOREGROUND = "pole,road,pavement,sign,car,pedestrian,cyclist"
GAP = 4
METRICS = ("psnr", "ssim", "feature_distance")
ROLES = ("source", "source2", "target")
_SHEET_ROWS = 4


# --- light and lenses ------------------------------------------------------------------------------------------------------


def to_linear(pixels: np.ndarray) -> np.ndarray:
    """Intensity of light, 0..1, of sRGB uint8 [H,W,3]; lenses and sensors add up this, not the pixel values."""
    values = pixels.astype(np.float32) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_pixels(light: np.ndarray) -> np.ndarray:
    """sRGB uint8 of intensity, what is above 1 being white."""
    light = light.clip(0, 1)
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * values).astype(np.uint8)


def through_aperture(light: np.ndarray, radius: float) -> np.ndarray:
    """What a lens out of focus makes of it: every point becomes a disk of `radius` pixels."""
    reach = int(np.ceil(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (radius + 0.5 - np.hypot(rows, columns)).clip(0, 1).astype(np.float32)
    return cv2.filter2D(light, -1, disk / disk.sum(), borderType=cv2.BORDER_REFLECT_101)


def spread(light: np.ndarray, known: np.ndarray, radius: float) -> np.ndarray:
    """The light of `known` pixels [H,W], out of focus, at all others too: a mean over known ones alone, however far they are."""
    result, weight = np.zeros_like(light), np.zeros_like(known)
    while True:
        share = through_aperture(known, radius)
        mean = through_aperture(light * known[..., None], radius) / np.maximum(share, 1e-6)[..., None]
        take = (1 - weight) * (share > 0.02)
        result, weight = result + take[..., None] * mean, weight + take
        if weight.all() or radius > max(known.shape):
            return result
        radius *= 2


def defocused(pixels: np.ndarray, is_foreground: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The foreground in focus, and the background in focus.

    A sharp edge hides what is behind it, so behind a sharp foreground the blurred background takes no color of it; a blurred
    foreground is half transparent at its edges, so what it hid must be filled in there, from the background around.
    """
    light, near = to_linear(pixels), is_foreground.astype(np.float32)
    soft_edge = cv2.GaussianBlur(near, (0, 0), 0.6)[..., None]
    far_blurred = spread(light, 1 - near, radius)
    near_in_focus = soft_edge * light + (1 - soft_edge) * far_blurred
    hidden = np.where(is_foreground[..., None], spread(light, 1 - near, 2), light)
    opacity = through_aperture(near, radius)[..., None]
    far_in_focus = through_aperture(light * near[..., None], radius) + (1 - opacity) * hidden
    return to_pixels(near_in_focus), to_pixels(far_in_focus)


def by_night_and_day(pixels: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The frame with little light, blue, and a sensor's noise; and with too much, warm."""
    light = to_linear(pixels)
    night = 0.12 * light * np.array([0.7, 0.9, 1.3], np.float32)
    night = night + generator.normal(0, 1, light.shape).astype(np.float32) * np.sqrt(2e-4 * night + 1.5e-6)
    day = 2.6 * light * np.array([1.15, 1.0, 0.8], np.float32)
    return to_pixels(night), to_pixels(day)


# --- commands --------------------------------------------------------------------------------------------------------------


@click.group()
def main() -> None:
    """Make pairs to fuse, and score models on them."""


@main.command()
@click.argument("kind", type=click.Choice(["focus", "light"]))
@click.argument("frames", type=click.Path(exists=True))
@click.argument("labels", type=click.Path(exists=True), required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--table", default="camvid_11", show_default=True, help="What the ids of LABELS mean.")
@click.option("--foreground", default=FOREGROUND, show_default=True, help="Classes that are near.")
@click.option(
    "--radius", default=4.0, show_default=True, help="Of the disk that a point out of focus becomes, at the written size."
)
@click.option("--height", default=192, show_default=True)
@click.option("--held-out", default=16, show_default=True, help="How many of the last frames are for the test.")
def make(
    kind: str, frames: str, labels: str | None, out: Path, table: str, foreground: str, radius: float, height: int, held_out: int
) -> None:
    """Write source/, source2/ and target/, for training and for the test."""
    pictures = open_source(frames)
    maps = None if labels is None else open_source(labels, kind="labels")
    if kind == "focus" and maps is None:
        raise click.UsageError("focus needs LABELS, which say what is near")
    classes = find(table)
    near = [value for name, value in zip(classes.names, classes.values or (), strict=True) if name in foreground.split(",")]
    size = (height, round(pictures.size[1] * height / pictures.size[0] / 8) * 8)
    total = pictures.count()
    for index in range(total):
        part = "test" if index >= total - held_out else "train" if index < total - held_out - GAP else None
        if part is None:
            continue
        pixels = fit(pictures.read(index, index + 1)[0].pixels, size)
        if maps is not None and kind == "focus":
            ids = cv2.resize(maps.read(index, index + 1)[0].pixels, size[::-1], interpolation=cv2.INTER_NEAREST)
            pair = defocused(pixels, np.isin(ids, near), radius)
        else:
            pair = by_night_and_day(pixels, np.random.default_rng(index))
        for role, picture in zip(ROLES, (*pair, pixels), strict=True):
            write_png(out / part / role / f"{index:05d}.png", picture)


def sharper(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of two pictures, at each place the one with more detail around: what fusion was before networks."""
    energies = [
        cv2.GaussianBlur(np.abs(cv2.Laplacian(cv2.cvtColor(item, cv2.COLOR_RGB2GRAY).astype(np.float32), -1)), (0, 0), 3)
        for item in (first, second)
    ]
    return np.where((energies[0] > energies[1])[..., None], first, second)


def pairs(data: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Names and both sources."""
    for path in sorted((data / "source").glob("*.png")):
        yield path.name, read_picture(path), read_picture(data / "source2" / path.name)


@main.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
def score(model: Path, data: Path, out: Path) -> None:
    """Fuse the pairs in DATA, measure the results, and lay them side by side."""
    translate(model, [str(data / "source")], f"{out / 'fused'}/", further=[f"source2={data / 'source2'}"], overwrite=True)
    for name, first, second in pairs(data):
        write_png(out / "average" / name, ((first.astype(np.uint16) + second + 1) // 2).astype(np.uint8))
        write_png(out / "sharper" / name, sharper(first, second))
    places = {
        "source, copied": data / "source",
        "source2, copied": data / "source2",
        "average": out / "average",
        "locally sharper": out / "sharper",
        "fused": out / "fused",
    }
    scores = {}
    for name, place in places.items():
        report = evaluate(str(place), target=str(data / "target"), metrics=METRICS, strides=(1,), cache=None)
        scores[name] = {key: report[key] for key in METRICS}
    durable.write_json(out / "scores.json", scores)
    _write_sheet(data, out)
    table = Table("", *METRICS)
    for name, values in scores.items():
        table.add_row(name, *(f"{values[key]:.4g}" for key in METRICS))
    Console().print(table)


def _write_sheet(data: Path, out: Path) -> None:
    names = [path.name for path in sorted((data / "target").glob("*.png"))]
    chosen = names[:: max(1, -(-len(names) // _SHEET_ROWS))]
    rows = [
        np.concatenate(
            [read_picture(place / name) for place in (data / "source", data / "source2", out / "fused", data / "target")], 1
        )
        for name in chosen
    ]
    write_png(out / "sheet.png", np.concatenate(rows))


if __name__ == "__main__":
    main()
