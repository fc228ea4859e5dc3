"""What each ingredient of a recipe is worth: the recipe trained without one of them in turn, on the same frames for the same time.

    python tools/ablation.py configs/vid2vid/camvid_small.yaml ROOT CLIP --held-out 70:80 --time-limit 12m -o out/ablation

ROOT is the data's root and CLIP one of its sequences; the recipe trains on the frames that it names, and the held-out ones are
translated and measured, with --lead 60 as they come when translation has been running for 60 frames. Runs that are there already
are measured again, not trained. Prints a table of Markdown, and writes a sheet: a row for each variant, first, middle and last
frame, the ground truth below.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

import vidgen
from vidgen.commands.train import train
from vidgen.evaluation import evaluate
from vidgen.media.frames import open_source
from vidgen.media.images import write_png

VARIANTS: dict[str, tuple[str, ...]] = {
    "the recipe": (),
    "without feature loss": ("model.features.likeness_weight=0",),
    "without texture loss": ("model.features.texture_weight=0",),
    "without detail loss": ("model.features.detail_weight=0",),
    "without discriminator": ("model.features.gan_weight=0",),
    "discriminator of pixels": ("model.features.discriminator=pixels",),
    "discriminator that names classes": ("model.features.discriminator=segmentation",),
    "with a discriminator of pairs": ("model.features.pair_gan_weight=0.3",),
    "published generator": (
        "model.generator={kind: published, base_channels: 32, num_downsamplings: 3, num_blocks: 4}",
        "train.init=null",
    ),
    "past left out less often": ("model.past.dropout=0.2",),
    "without random shift": ("model.features.max_shift=0",),
    "past trusted whatever its colors": ("model.generator.past_tolerance=null",),
    "past enlarged without end": ("model.generator.past_enlargement=null",),
    "without bound on what is generated": ("model.generator.max_generated=1",),
    "without enlarged crops": ("data.enlarge=1",),
    "with mirrored clips": ("data.flip=true",),
    "from random weights": ("train.init=null",),
}
MEASURES = (
    ("SSIM", "ssim", ".3f"),
    ("PSNR", "psnr", ".2f"),
    ("sharpness", "sharpness_ratio", ".2f"),
    ("feature distance", "feature_distance", ".3f"),
    ("kernel distance", "kernel_distance/8", ".3f"),
    ("motion", "motion_ratio", ".2f"),
    ("warping error", "warp_error@1", ".4f"),
)


def seconds(text: str) -> float:
    """90s, 12m or 2h as seconds."""
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


@click.command(help=__doc__)
@click.argument("config", type=click.Path(path_type=Path, exists=True))
@click.argument("root", type=click.Path(path_type=Path, exists=True))
@click.argument("clip")
@click.option("--held-out", required=True, metavar="FIRST:STOP", help="Frames of the clip to translate and measure.")
@click.option("--lead", default=0, show_default=True, metavar="FRAMES", help="Start to translate so many frames before.")
@click.option("--time-limit", default="12m", show_default=True, help="Training time of each variant.")
@click.option("--eval-height", type=int, help="Height at which to measure; by default as `vidgen evaluate` does.")
@click.option("--labels", default="labels", show_default=True, help="Folder of the label maps under the root.")
@click.option("--target", default="images", show_default=True, help="Folder of the real frames under the root.")
@click.option("--only", multiple=True, type=click.Choice(list(VARIANTS)), help="Only these variants; repeatable.")
@click.option("--seed", "seeds", multiple=True, type=int, default=(0,), show_default=True, help="Seed; repeatable.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder for runs, videos and the sheet.")
def main(
    config: Path,
    root: Path,
    clip: str,
    held_out: str,
    lead: int,
    time_limit: str,
    eval_height: int | None,
    labels: str,
    target: str,
    only: tuple[str, ...],
    seeds: tuple[int, ...],
    out: Path,
) -> None:
    """Train, translate and measure each variant."""
    first = int(held_out.partition(":")[0] or 0)
    if not 0 <= lead <= first:
        raise click.BadParameter(f"{lead}: only {first} frames come before {held_out}", param_hint="--lead")
    height = {} if eval_height is None else {"eval_height": eval_height}
    real = f"{root / target / clip}[{held_out}]"
    truth = [frame.pixels for frame in open_source(real)]
    moments = (0, len(truth) // 2, len(truth) - 1)
    rows = []
    print("| | " + " | ".join(name for name, _, _ in MEASURES) + " | may be ranked |")
    print("|---" * (len(MEASURES) + 2) + "|")
    for variant in only or VARIANTS:
        for seed in seeds:
            run = out / f"{variant.replace(' ', '-')}-{seed}"
            sets = [f"data.root={root}", f"train.seed={seed}", *VARIANTS[variant]]
            train(config, run, sets=sets, **({} if run.exists() else {"time_limit_seconds": seconds(time_limit)}))
            video = run.with_suffix(".mkv")
            seen = f"{root / labels / clip}[{first - lead}:{first + len(truth)}]"
            vidgen.load(run).translate(seen).save(video, quality="lossless", overwrite=True)
            report = evaluate(f"{video}[{lead}:{lead + len(truth)}]", source=real, target=real, strides=(1,), **height)
            values = [format(report.get(key) or float("nan"), style) for _, key, style in MEASURES]
            ranked = "yes" if report.verdict.rankable else "no"
            print(f"| {variant}, seed {seed} | {' | '.join(values)} | {ranked} |", flush=True)
            frames = [frame.pixels for frame in open_source(video)][lead:]
            rows.append(np.concatenate([frames[index] for index in moments], axis=1))
    rows.append(np.concatenate([truth[index] for index in moments], axis=1))
    write_png(out / "sheet.png", np.concatenate(rows))


if __name__ == "__main__":
    main()
