"""Pictures of five classes cut from the procedural street, with hand-like sketches: a small data set for SketchyGAN.

python tools/street_classes.py data/things               # photos/CLASS/*.png and sketches/CLASS/*-1.png, 128x128; some minutes
python tools/street_classes.py data/things --num-streets 40 --size 32
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np

from vidgen.data.street import CLASSES, Street, StreetFrame
from vidgen.media.edge_maps import WHITE_FROM, EdgeMapOptions, drawn, edge_map
from vidgen.media.images import write_png

LABELS = {"car": "car", "house": "building", "person": "pedestrian", "sign": "pole", "tree": "tree"}
HEIGHT, WIDTH = 512, 1024
MARGIN = 0.15


def things(frame: StreetFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Class and mask, bool [H,W], of everything that is seen whole and large enough."""
    names = [name for name, _ in CLASSES]
    for kind, label in LABELS.items():
        own = frame.labels == names.index(label)
        if kind in ("car", "person"):
            masks = [frame.instances == value for value in np.unique(frame.instances[own]) if value]
        else:
            _, parts = cv2.connectedComponents(own.astype(np.uint8), connectivity=8)
            masks = [parts == value for value in range(1, parts.max() + 1)]
        for mask in masks:
            if mask.sum() > 300 and (kind != "sign" or _is_sign(mask)):
                yield from [(kind, mask)] * (4 if kind == "house" else 1)


def _is_sign(mask: np.ndarray) -> bool:
    """Whether a pole carries a plate: its upper part is wide and full, unlike that of a lamp."""
    rows, columns = np.nonzero(mask)
    width = columns.max() - columns.min() + 1
    upper = mask[rows.min() : rows.min() + width, columns.min() : columns.max() + 1]
    return bool(width >= 16 and upper.mean() > 0.5)


def cut(kind: str, mask: np.ndarray, size: int, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """The square around a thing; of houses, which stand wall to wall, a square of their front."""
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    if kind == "sign":
        bottom = min(bottom, top + 2 * (right - left))
    side = round(max(bottom - top, right - left) * (1 + MARGIN))
    if kind in ("house", "tree"):
        side = min(side, 256 if kind == "tree" else int(rng.integers(160, 260)))
        place = rng.integers(len(rows))
        y, x = (
            (int(rows[place]), int(columns[place]))
            if kind == "house" or side == 256
            else ((top + bottom) // 2, (left + right) // 2)
        )
    else:
        if top == 0 or left == 0 or bottom == mask.shape[0] or right == mask.shape[1]:
            return None
        y, x = (top + bottom) // 2, (left + right) // 2
    if side < 32 or side > HEIGHT * 0.8:
        return None
    top, left = (int(np.clip(middle - side // 2, 0, whole - side)) for middle, whole in ((y, HEIGHT), (x, WIDTH)))
    window = slice(top, top + side), slice(left, left + side)
    share = mask[window].mean()
    least = {"person": 0.1, "sign": 0.15, "car": 0.3, "tree": 0.35, "house": 0.55}[kind]
    return window if share >= least else None


def sketch(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a hand would draw of a thing: its outline and some lines within, in few straight strokes that miss their places."""
    size = picture.shape[0]
    inner = edge_map(picture, EdgeMapOptions(min_pixels=40)) == 0
    inner &= cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0
    canvas = np.full((size, size), 255, np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    lines, _ = cv2.findContours(inner.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    shift = rng.normal(0, size / 64, 2)
    zoom = rng.normal(1, 0.03)
    for number, (line, closed) in enumerate([*((line, True) for line in outlines), *((line, False) for line in lines)]):
        if len(line) < size / 16 or (not closed and rng.random() < 0.3):
            continue
        corners = cv2.approxPolyDP(line, size / 50, closed)[:, 0].astype(np.float64)
        corners = (corners - size / 2) * zoom + size / 2 + shift + rng.normal(0, size / 150, corners.shape)
        pieces = np.stack([corners, np.roll(corners, -1, 0)], 1) if closed else np.stack([corners[:-1], corners[1:]], 1)
        for one, other in pieces:
            if number and rng.random() < 0.05:
                continue
            cv2.line(canvas, tuple(np.rint(one).astype(int).tolist()), tuple(np.rint(other).astype(int).tolist()), 0, 1, cv2.LINE_8)
    return canvas


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--num-streets", default=160)
@click.option("--size", default=128)
@click.option("--most", default=260, help="Pictures of a class.")
@click.option("--first-seed", default=5000)
def main(out: Path, num_streets: int, size: int, most: int, first_seed: int) -> None:
    """Write the pictures and the sketches."""
    counts: Counter[str] = Counter()
    drawing = 256  # sketches are drawn large, as people do
    for seed in range(first_seed, first_seed + num_streets):
        rng = np.random.default_rng([seed, 7])
        frame = next(iter(Street(seed, HEIGHT, WIDTH, variety=float(rng.uniform(0.3, 0.9))).frames(1, int(rng.integers(0, 200)))))
        own: Counter[str] = Counter()
        for kind, mask in things(frame):
            window = cut(kind, mask, size, rng)
            if window is None or counts[kind] >= most or own[kind] >= 3:
                continue
            picture, part = frame.image[window], mask[window]
            large = cv2.resize(picture, (drawing, drawing), interpolation=cv2.INTER_LINEAR)
            silhouette = cv2.resize(part.astype(np.uint8), (drawing, drawing), interpolation=cv2.INTER_LINEAR) > 0
            lines = sketch(large, silhouette, rng)
            if (lines == 0).sum() < drawing:
                continue
            small = drawn(cv2.resize(lines, (size, size), interpolation=cv2.INTER_AREA) < WHITE_FROM)
            name = f"{counts[kind]:04d}"
            write_png(out / "photos" / kind / f"{name}.png", cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA))
            write_png(out / "sketches" / kind / f"{name}-1.png", small)
            counts[kind] += 1
            own[kind] += 1
    click.echo(dict(counts))


if __name__ == "__main__":
    main()
