"""What thin-plate splines give a model of one pair: trained with and without them, compared on edits and on unseen deformations.

    python tools/deepsim.py data/deepsim_car -o out/deepsim

DATA holds image.png, labels.png and edited label maps edited_*.png. Trains the configuration twice (a second call goes on where
the first ended), renders every edit with both models, and measures both on the pair bent by smooth random fields of another kind
than the splines of training. Writes sheet.png and scores.json.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from vidgen import durable
from vidgen.commands.train import train
from vidgen.data.augment import deform
from vidgen.inference.model import Model, Options
from vidgen.media import conditions
from vidgen.media.images import read_labels, read_picture, write_png
from vidgen.metrics.distribution import PatchSample
from vidgen.metrics.quality import ssim

RUNS = {"without": "data.augment.thin_plate=0", "with": "data.augment.thin_plate=0.99"}


def smooth_field(seed: int, size: tuple[int, int], strength: float) -> np.ndarray:
    """Positions [2,H,W] of an elastic deformation whose largest shift is `strength` times the width, along either axis."""
    height, width = size
    noise = np.random.default_rng(seed).normal(size=(2, height, width)).astype(np.float32)
    field = np.stack([cv2.GaussianBlur(part, (0, 0), width / 8, borderType=cv2.BORDER_REFLECT) for part in noise])
    field *= strength * width / np.abs(field).max(axis=(1, 2), keepdims=True)
    positions: np.ndarray = np.mgrid[:height, :width].astype(np.float32) + field
    return positions


def bend(pixels: np.ndarray, positions: np.ndarray, *, exact: bool) -> np.ndarray:
    """[H,W,3] deformed; `exact` takes the nearest pixel, as label maps need."""
    planes = pixels.transpose(2, 0, 1)
    bent = deform(planes.astype(np.int64) if exact else planes, positions)
    return np.ascontiguousarray(bent.transpose(1, 2, 0).astype(np.uint8))


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """SSIM of two pictures uint8 [H,W,3]."""
    one, two = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 for pixels in (first, second))
    return float(ssim(one, two))


def patch_distance(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """Sliced Wasserstein distance x 1000 between the patches of two sets of pictures, mean over the pyramid's levels."""
    samples = PatchSample(), PatchSample()
    for sample, pictures in zip(samples, (first, second), strict=True):
        for pixels in pictures:
            sample.add(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
    return float(np.mean(samples[0].distances(samples[1])))


def render(model: Model, folder: Path, label_maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model makes of each label map."""
    made = {}
    for name, pixels in label_maps.items():
        write_png(folder / f"{name}.png", pixels)
        made[name] = next(iter(model.translate(folder / f"{name}.png", options=Options(work_size="input"))))
    return made


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("out/deepsim"), show_default=True)
@click.option(
    "--config", type=click.Path(exists=True, path_type=Path), default=Path("configs/deepsim/car_small.yaml"), show_default=True
)
@click.option("--set", "sets", multiple=True, help="key=value change to the configuration.")
@click.option("--warps", "num_warps", default=12, show_default=True, help="Unseen deformations to measure on.")
@click.option("--strength", default=0.06, show_default=True, help="Their largest shift as a part of the width.")
def main(data: Path, out: Path, config: Path, sets: tuple[str, ...], num_warps: int, strength: float) -> None:
    """Compare training with and without thin-plate splines on DATA."""
    models = {}
    for name, change in RUNS.items():
        train(config, out / name, sets=[f"data.root={data}", *sets, change])
        models[name] = Model.load(out / name)
    size = models["with"].trained_size
    photo = conditions.resize_picture(read_picture(data / "image.png"), size)
    edits = {path.stem: read_labels(path) for path in (data / "labels.png", *sorted(data.glob("edited_*.png")))}
    edits = {name: conditions.resize_labels(pixels, size) for name, pixels in edits.items()}
    fields = {f"warp_{seed}": smooth_field(seed, size, strength) for seed in range(num_warps)}
    truth = {name: bend(photo, field, exact=False) for name, field in fields.items()}
    bent = {name: bend(edits["labels"], field, exact=True) for name, field in fields.items()}
    made = {name: render(model, out / "inputs", edits | bent) for name, model in models.items()}
    pictures = {**dict.fromkeys(edits, np.full_like(photo, 255)), "labels": photo, **truth}
    scores = {
        name: {
            "ssim_of_warps": float(np.mean([similarity(results[warp], truth[warp]) for warp in truth])),
            "patch_distance_of_warps": patch_distance([results[warp] for warp in truth], list(truth.values())),
            "patch_distance_of_edits": patch_distance([results[edit] for edit in edits if edit != "labels"], [photo]),
            "ssim_of_training_pair": similarity(results["labels"], photo),
        }
        for name, results in made.items()
    }
    shown = [*edits, *list(bent)[:2]]
    columns: list[Callable[[str], np.ndarray]] = [
        (edits | bent).__getitem__,
        made["without"].__getitem__,
        made["with"].__getitem__,
        pictures.__getitem__,
    ]
    write_png(out / "sheet.png", np.concatenate([np.concatenate([column(name) for column in columns], axis=1) for name in shown]))
    durable.write_json(out / "scores.json", scores)
    table = Table("score", *scores)
    for key in scores["with"]:
        table.add_row(key, *(f"{values[key]:.4f}" for values in scores.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
