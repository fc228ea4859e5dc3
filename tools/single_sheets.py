"""What single pictures are enough for, as contact sheets, and the methods compared in one table.

    python tools/single_sheets.py data/single -o sheets              # everything by patches
    python tools/single_sheets.py data/single -o sheets --table      # the table

The pictures go by their usual names: balloons, birds, 33039_LR, lightning1, edit/tree, harmonize/oil_tree.
Models are stored in OUT/models.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch

from vidgen import durable
from vidgen.commands import pictures
from vidgen.errors import VidgenError
from vidgen.media import images
from vidgen.media.conditions import resize_picture
from vidgen.media.frames import open_source
from vidgen.single_image.pictures import contact_sheet

ASPECTS = {"as it is": None, "wide": "2:1", "tall": "2:3"}
TABLE_PICTURES = ("balloons", "birds")


def sheets(data: Path, out: Path, seed: int) -> dict[str, Any]:
    """Make every sheet by patches; gives the seconds each took."""
    options: dict[str, Any] = {"seed": seed, "overwrite": True}
    seconds = {}
    for name in ("balloons", "birds"):
        rows = []
        for label, aspect in ASPECTS.items():
            folder = out / f"{name}_{label.replace(' ', '_')}"
            result = pictures.sample(data / f"{name}.png", folder, num_samples=6, aspect=aspect, **options)
            seconds[f"{name}, 6 samples, {label}"] = result["seconds"]
            rows += [images.read_picture(folder / f"{index:03d}.png") for index in range(6)]
        images.write_png(out / f"{name}.png", contact_sheet(rows, num_columns=6))
    result = pictures.super_resolve(data / "33039_LR.png", out / "33039_x4.png", factor=4, **options)
    seconds["33039_LR x4"] = result["seconds"]
    enlarged = images.read_picture(out / "33039_x4.png")
    plain = resize_picture(images.read_picture(data / "33039_LR.png"), enlarged.shape[:2])
    images.write_png(out / "33039_bicubic_and_enlarged.png", contact_sheet([plain, enlarged], num_columns=2))
    tree, edited = data / "edit" / "tree.png", data / "edit" / "tree_edit_1.png"
    result = pictures.edit(tree, edited, out / "tree_edited.png", mask=data / "edit" / "tree_edit_1_mask.png", **options)
    seconds["edit tree"] = result["seconds"]
    images.write_png(
        out / "tree.png",
        contact_sheet([images.read_picture(p) for p in (tree, edited, out / "tree_edited.png")], num_columns=3),
    )
    folder = data / "harmonize"
    naive = folder / "oil_tree_naive.jpg"
    result = pictures.harmonize(
        naive, folder / "oil_tree.jpg", out / "oil_tree_edited.png", mask=folder / "oil_tree_naive_mask.jpg", **options
    )
    seconds["harmonize oil_tree"] = result["seconds"]
    pair = [images.read_picture(path) for path in (naive, out / "oil_tree_edited.png")]
    images.write_png(out / "oil_tree.png", contact_sheet(pair, num_columns=2))
    result = pictures.animate(str(data / "lightning1.png"), str(out / "lightning1.mp4"), loop=True, **options)
    seconds["animate lightning1"] = result["seconds"]
    seconds["loop gap of lightning1"] = result["loop_gap"]
    frames = [frame.pixels for frame in open_source(out / "lightning1.mp4")]
    images.write_png(out / "lightning1.png", contact_sheet(frames[::4], num_columns=4))
    return seconds


def table(data: Path, out: Path, seed: int, side: int, budget_seconds: float, methods: list[str]) -> list[dict[str, Any]]:
    """Six samples by each method: seconds in all, and the three numbers; their sheets lie beside."""
    rows = []
    for name in TABLE_PICTURES:
        for method in methods:
            started = time.monotonic()
            try:
                result = pictures.sample(
                    data / f"{name}.png",
                    out / f"{name}_{method}.png",
                    method=method,  # type: ignore[arg-type]
                    budget_seconds=None if method == "patch" else budget_seconds,
                    max_size=str(side),
                    model=None if method == "patch" else out / "models" / f"{name}_{method}_{side}",
                    score=True,
                    seed=seed,
                    overwrite=True,
                )
            except VidgenError as error:
                rows.append({"picture": name, "method": method, "error": str(error)})
                continue
            rows.append({"picture": name, "method": method, "seconds": round(time.monotonic() - started, 1), **result["scores"]})
    return rows


def show(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    return "\n".join([*lines, *(" | ".join(str(row.get(name, "")) for name in names) for row in rows)])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="compare the methods, and make no other sheet")
    parser.add_argument("--side", type=int, default=64, help="longer side of the pictures of the table")
    parser.add_argument("--budget", type=float, default=300, help="seconds to train for, each")
    parser.add_argument("--methods", default="patch,fast,consingan,singan")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.table:
        rows = table(arguments.data, arguments.out, arguments.seed, arguments.side, arguments.budget, arguments.methods.split(","))
        print(show(rows))
        durable.write_json(arguments.out / "table.json", {"rows": rows})
        return
    seconds = sheets(arguments.data, arguments.out, arguments.seed)
    print(json.dumps(seconds, indent=2))
    durable.write_json(arguments.out / "seconds.json", seconds)


if __name__ == "__main__":
    main()
