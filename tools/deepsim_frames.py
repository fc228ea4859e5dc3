"""How well a model of one frame generates the other frames of its clip: DeepSIM's quantitative protocol.

    python tools/deepsim_frames.py data/face/images/clip data/face/labels/clip -o out/deepsim_face
    python tools/deepsim_frames.py data/camvid/images/0016E5 data/camvid/labels/0016E5 -o out/deepsim_camvid --table camvid

Trains on one frame from its labels, from its edges, and from both (the super-primitive), each with and without thin-plate splines;
generates the other frames from their own primitives, and measures them against the real ones. Feature distance and SSIM need
nothing; LPIPS and SIFID, which the paper reports, need their networks' files. The training frame itself, held still, is measured
too: a clip in which little moves is an easy one. Writes scores.json and sheet.png; a second call goes on where the first ended.

Source: Vinker et al., "Image Shape Manipulation from a Single Augmented Training Sample" (DeepSIM), ICCV 2021, section 4.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from vidgen import durable
from vidgen.commands.train import train
from vidgen.evaluation.measure import evaluate
from vidgen.evaluation.networks import WeightsFile, load_networks
from vidgen.inference.model import Model
from vidgen.media import conditions, labels
from vidgen.media.frames import open_source
from vidgen.media.images import read_picture, write_png
from vidgen.media.labels import LabelTable
from vidgen.metrics.learned import single_image_distance

PRIMITIVES = ("labels", "edges", "both")
EDGES = "low: 100, high: 200, blur: 0.5"
CONDITIONS = {
    "labels": ("data.condition.labels=null", "data.condition.pictures=[primitive.png]"),
    "edges": ("data.condition.labels=null", f"data.condition.edges={{{EDGES}}}"),
    "both": (
        "data.condition.labels=null",
        "data.condition.pictures=[primitive.png]",
        f"data.condition.edges={{{EDGES}, drawn: over}}",
    ),
}
"""What a model reads, as changes to a configuration whose condition is labels. Primitives are pictures, as in the paper."""
SPLINES = {"with": 0.99, "without": 0.0}
STILL = "the training frame, held still"


def prepare(
    images: Path, primitives: Path, out: Path, *, table: LabelTable | None, frame: int, side: int, every: int
) -> tuple[int, int]:
    """Write the pair to train on, and the test frames with their primitives, all at one small size.

    Args:
        table: what the values of label maps mean, which are then written in its colors.
        frame: number of the training frame.
        side: longer side in pixels; both sides become multiples of 16.
        every: of the other frames, each one in so many is tested.

    Returns:
        (height, width).
    """
    pictures = open_source(str(images))
    painted = open_source(str(primitives), kind="labels" if table is not None else "pictures")
    num_frames = pictures.count()
    if not 0 <= frame < num_frames:
        raise click.BadParameter(f"--frame {frame}: the clip has frames 0 to {num_frames - 1}")
    scale = side / max(pictures.size)
    size = (max(16, round(pictures.size[0] * scale / 16) * 16), max(16, round(pictures.size[1] * scale / 16) * 16))
    others = [number for number in range(num_frames) if number != frame]
    tested = set(others[every // 2 :: every])
    for number, (real, primitive) in enumerate(zip(pictures, painted, strict=True)):
        if number != frame and number not in tested:
            continue
        pixels = primitive.pixels if table is None else table.colorize(table.decode(primitive.pixels, primitive.name))
        small = np.stack([conditions.resize_labels(np.ascontiguousarray(plane), size) for plane in pixels.transpose(2, 0, 1)], -1)
        where = (out / "pair" / "image.png", out / "pair" / "primitive.png")
        if number != frame:
            where = (out / "real" / f"{number:05d}.png", out / "primitives" / f"{number:05d}.png")
        write_png(where[0], conditions.resize_picture(real.pixels, size))
        write_png(where[1], small.astype(np.uint8))
    return size


def generate(model: Model, primitive: str, data: Path, folder: Path) -> None:
    """Write what the model makes of every test frame's primitive."""
    main = data / ("real" if primitive == "edges" else "primitives")
    further = {"edges": data / "real"} if primitive == "both" else {}
    names = sorted(path.name for path in main.glob("*.png"))
    for name, pixels in zip(names, model.translate(main, further=further), strict=True):
        write_png(folder / name, pixels)


def measure(generated: Path, real: Path, weights: dict[str, WeightsFile]) -> dict[str, float]:
    """Scores of a folder of frames against the real ones."""
    metrics = ["ssim", "feature_distance", *(["lpips"] if "lpips" in weights else [])]
    report = evaluate(generated, target=real, metrics=metrics, eval_height=None, weights=weights, cache=None)
    scores = {name: float(report[name]) for name in metrics}
    if "sifid" in weights:
        network = load_networks(["sifid"], weights)[0].sifid
        assert network is not None
        pairs = ((read_picture(generated / path.name), read_picture(path)) for path in sorted(real.glob("*.png")))
        scores["sifid"] = float(np.mean([single_image_distance(network, *pair) for pair in pairs]))
    return scores


def sheet(out: Path, cells: Sequence[str], num_rows: int = 4) -> np.ndarray:
    """Rows of one test frame each: its primitive, the real frame, and what every model generates."""
    names = sorted(path.name for path in (out / "real").glob("*.png"))
    chosen = [names[round(index)] for index in np.linspace(0, len(names) - 1, min(num_rows, len(names)))]
    folders = [out / "primitives", out / "real", *(out / "generated" / cell for cell in cells)]
    return np.concatenate([np.concatenate([read_picture(folder / name) for folder in folders], axis=1) for name in chosen])


@click.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.argument("primitives", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("out/deepsim_frames"), show_default=True)
@click.option("--table", help="Label table of PRIMITIVES; without one they are pictures, in the colors that they have.")
@click.option("--frame", default=0, show_default=True, help="Number of the frame to train on.")
@click.option("--every", default=1, show_default=True, help="Test one in so many of the other frames.")
@click.option("--side", default=256, show_default=True, help="Longer side in pixels.")
@click.option("--primitive", "chosen", multiple=True, type=click.Choice(PRIMITIVES), default=PRIMITIVES, show_default=True)
@click.option(
    "--config", type=click.Path(exists=True, path_type=Path), default=Path("configs/deepsim/car_small.yaml"), show_default=True
)
@click.option("--set", "sets", multiple=True, help="key=value change to the configuration.")
@click.option("--pretrained", "files", multiple=True, help="lpips=FILE and sifid=FILE, for these scores.")
def main(
    images: Path,
    primitives: Path,
    out: Path,
    table: str | None,
    frame: int,
    every: int,
    side: int,
    chosen: Sequence[str],
    config: Path,
    sets: Sequence[str],
    files: Sequence[str],
) -> None:
    """Train on one frame of IMAGES and PRIMITIVES, and test on the others."""
    weights = WeightsFile.parse_all(files)
    size = prepare(images, primitives, out, table=labels.find(table) if table else None, frame=frame, side=side, every=every)
    still = read_picture(out / "pair" / "image.png")
    for path in (out / "real").glob("*.png"):
        write_png(out / "generated" / "still" / path.name, still)
    rows: dict[str, dict[str, float]] = {STILL: measure(out / "generated" / "still", out / "real", weights)}
    cells = []
    for primitive, (splines, share) in itertools.product(chosen, SPLINES.items()):
        cells.append(f"{primitive}_{splines}")
        run = out / "runs" / cells[-1]
        sizes = (f"data.width={size[1]}", f"data.height={size[0]}", f"data.augment.thin_plate={share}")
        train(config, run, sets=[f"data.root={out / 'pair'}", *CONDITIONS[primitive], *sizes, *sets])
        generate(Model.load(run), primitive, out, out / "generated" / cells[-1])
        rows[f"{primitive}, {splines} splines"] = measure(out / "generated" / cells[-1], out / "real", weights)
        durable.write_json(out / "scores.json", rows)
    write_png(out / "sheet.png", sheet(out, cells))
    table_of = Table("trained on", *rows[STILL])
    for name, scores in rows.items():
        table_of.add_row(name, *(f"{scores[key]:.3f}" for key in rows[STILL]))
    Console().print(table_of)


if __name__ == "__main__":
    main()
