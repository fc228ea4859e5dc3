"""mIoU of label maps from painted frames of a clip that is labeled throughout, for several choices of painted frames.

    python tools/label_table.py IMAGES LABELS
    python tools/label_table.py IMAGES LABELS --paint 0 --paint 0,26,53,79 --overlays out

Frames are counted from 0. Only frames that were not painted are scored; classes that occur in them or in the answers count. What
the painted frames do not show has an IoU of 0, which bounds the mIoU: the column "at most".
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

import vidgen
from vidgen.labeling.clips import overlay
from vidgen.labeling.painted import find_table
from vidgen.media import images, labels
from vidgen.media.frames import open_source


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", help="video or folder of pictures")
    parser.add_argument("labels", help="folder of label maps of all frames")
    parser.add_argument("--paint", action="append", metavar="N,N,...", help="frames to take as painted; repeatable")
    parser.add_argument("--table", help="label table: a name or a file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overlays", type=Path, help="folder for pictures of a few frames: picture, answer, ground truth")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    truth = open_source(options.labels, kind="labels")
    count = truth.count()
    choices = [tuple(map(int, text.split(","))) for text in options.paint or ()] or [
        (0,),
        (count // 2,),
        (count - 1,),
        tuple(round(number * (count - 1) / 3) for number in range(4)),
    ]
    table = None
    if options.table:
        table = labels.named(options.table) if options.table in labels.NAMES else labels.LabelTable.from_file(Path(options.table))
    names = (table or find_table(truth.read(0, count))).names
    print("painted | pixel accuracy | mIoU | at most | head s | s a frame | " + " ".join(name[:6] for name in names))
    for painted in choices:
        score(options, painted, table)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB", file=sys.stderr)


def score(options: argparse.Namespace, painted: tuple[int, ...], table: labels.LabelTable | None) -> None:
    """Label the clip from some painted frames, and print one line of the table."""
    source = open_source(options.labels, kind="labels")
    files = [source.paths[index] for index in painted]
    known = table or find_table(source.read(0, source.count()))
    began = time.process_time()
    labeling = vidgen.label(options.clip, files, table=known, seed=options.seed)
    learned = time.process_time()
    counts = np.zeros((known.num_classes, known.num_classes), np.int64)
    num_frames = 0
    shown = {int(value) for index in painted for value in np.unique(known.decode(source.read(index, index + 1)[0].pixels, ""))}
    for frame, actual in zip(labeling, source, strict=True):
        num_frames += 1
        right = known.decode(actual.pixels, actual.name)
        if frame.index not in painted:
            counted = right >= 0
            pairs = right[counted] * known.num_classes + frame.classes[counted]
            counts += np.bincount(pairs, minlength=known.num_classes**2).reshape(counts.shape)
        if options.overlays is not None and frame.index % 10 == 5:
            answer = overlay(frame.pixels, frame.classes, known)
            sheet = np.hstack([frame.pixels, answer, known.colorize(frame.classes), known.colorize(right)])
            images.write_png(options.overlays / f"{'-'.join(map(str, painted))}_{frame.index:05d}.png", sheet)
    ended = time.process_time()
    hits = np.diagonal(counts)
    union = counts.sum(0) + counts.sum(1) - hits
    occurs = union > 0
    each = hits / np.maximum(union, 1)
    in_truth = np.flatnonzero(counts.sum(1))
    bound = sum(int(value) in shown for value in in_truth) / len(in_truth)
    print(
        f"{','.join(map(str, painted))} | {hits.sum() / counts.sum():.3f} | {each[occurs].mean():.3f} | {bound:.3f} | "
        f"{learned - began:.1f} | {(ended - learned) / num_frames:.3f} | " + " ".join(f"{value:6.2f}" for value in each),
        flush=True,
    )


if __name__ == "__main__":
    main()
