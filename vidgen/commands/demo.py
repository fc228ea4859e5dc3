"""The whole of vidgen in minutes: streets are rendered, the included model learns their looks, translates an unseen one, and is
measured.
"""

from __future__ import annotations

import logging
import os
import time
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import vidgen
from vidgen import durable, progress
from vidgen.commands.train import train
from vidgen.data.street import Street, StreetFrame, write_clip
from vidgen.errors import OutputError, OutputExistsError, printable
from vidgen.evaluation.measure import evaluate
from vidgen.evaluation.report import Report
from vidgen.inference.model import Model
from vidgen.media.frames import open_sink, open_source
from vidgen.media.images import write_png
from vidgen.media.labels import STREET
from vidgen.pages import players, templates
from vidgen.weights import checkpoints

log = logging.getLogger(__name__)

HEIGHT, WIDTH, FPS = 128, 256, 12
TRAINING_SEEDS, TRAINING_FRAMES = range(1, 5), 48
VARIETY = 0.1
"""Colors vary little from street to street: labels do not tell them, and four minutes are short."""
UNSEEN_FRAMES = 48
MAX_VIDEO_BYTES = 12e6
SHIPPED = "street-world"

WRITTEN = {
    *("config.yaml", "data", "index.html", "labels.mp4", "labels.png", "preview.png", "result.mp4", "result.mp4.json", "run"),
    *("scores.json", "shipped.mp4", "shipped.mp4.json", "truth.mp4", "unseen"),
}
"""All that lies in the folder of a demo."""

_MEASURES = (
    ("warp_error@1", "{:.5f}", "difference between a frame and the next one moved back along the true motion; low is steady"),
    ("flicker_global", "{:.2f}", "how much the brightness pumps, in grey levels"),
    ("psnr", "{:.1f} dB", "closeness to the true frames"),
    ("ssim", "{:.3f}", "likeness of structure to the true frames; 1 is equal"),
)


def demo(out: Path = Path("demo"), *, minutes: float = 4.0, seed: int = 0, overwrite: bool = False) -> dict[str, Any]:
    """Make everything in the folder `out`; its `index.html` shows it.

    Args:
        minutes: training time; the schedule is made to fit.
        seed: of the unseen street and of training.

    Returns:
        the page, scores, and seconds taken.

    Raises:
        OutputError: `out` holds something already.
    """
    _check_place(out, overwrite)
    started = time.monotonic()
    data, unseen = out / "data", out / "unseen"
    for number in progress.follow(TRAINING_SEEDS, "rendering streets to train on", len(TRAINING_SEEDS)):
        write_clip(data, Street(number, HEIGHT, WIDTH, FPS, VARIETY), TRAINING_FRAMES)
    frames = list(Street(1000 + seed, HEIGHT, WIDTH, FPS, VARIETY).frames(UNSEEN_FRAMES))
    _write_unseen(unseen, frames)
    has_shipped = SHIPPED in checkpoints.shipped()
    shown = [_show_shipped(out, unseen)] if has_shipped else []
    config = out / "config.yaml"
    durable.write_text(config, files("vidgen.commands").joinpath("demo.yaml").read_text("utf-8"))
    log.info("training for %g minutes", minutes)
    sets = [f"data.root={data}", f"train.seed={seed}", *([] if has_shipped else ["train.init=null"])]
    trained = train(config, out / "run", sets=sets, overwrite=overwrite, time_limit_seconds=60 * minutes)
    log.info("translating a street it has not seen")
    model = Model.load(out / "run")
    inputs = model.open(unseen / "labels", instances=unseen / "instances", frame_rate=Fraction(FPS))
    with progress.task("translating", inputs.main.num_frames) as report:
        model.translate(inputs).save(out / "result.mp4", overwrite=True, report=report)
    result = [frame.pixels for frame in open_source(out / "result.mp4")]
    _write_pictures(out, frames, result)
    log.info("measuring")
    scores = evaluate(str(out / "result.mp4"), source=str(unseen / "images"), target=str(unseen / "images"), strides=(1,))
    truth = evaluate(str(unseen / "images"), source=str(unseen / "images"), strides=(1,))
    both = {"result": scores, "truth": truth}
    durable.write_json(out / "scores.json", {name: item.relative_to(out).to_dict() for name, item in both.items()})
    seconds = time.monotonic() - started
    _write_page(out, model, scores, truth, trained, shown)
    return {
        "page": str(out / "index.html"),
        "training_minutes": trained["minutes"],
        "seconds": round(seconds, 1),
        "scores": {name: scores.get(name) for name, _, _ in _MEASURES},
        "truth": {name: truth.get(name) for name, _, _ in _MEASURES[:2]},
    }


def _check_place(out: Path, overwrite: bool) -> None:
    """
    Raises:
        OutputError: `out` is a file, holds something that no demo wrote, or an earlier demo and `overwrite` is off.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out}: is a file, not a folder", hint="choose another folder with -o")
    entries = sorted(entry for entry in os.listdir(out) if not entry.startswith("."))
    foreign = [entry for entry in entries if entry not in WRITTEN]
    if foreign:
        raise OutputError(
            f"{out}: the folder holds other things, such as {printable(foreign[0])}; it is left alone",
            hint="choose another folder with -o",
        )
    if entries and not overwrite:
        raise OutputExistsError(f"{out}: holds an earlier demo")


def _show_shipped(out: Path, unseen: Path) -> tuple[str, str]:
    """Translate with the model that comes with vidgen; a caption and the video, to see before the training begins."""
    log.info("translating with %s, the model that comes with vidgen", SHIPPED)
    model = Model.load(Path(SHIPPED))
    inputs = model.open(unseen / "labels", instances=unseen / "instances", frame_rate=Fraction(FPS))
    with progress.task("translating", inputs.main.num_frames) as report:
        model.translate(inputs).save(out / "shipped.mp4", overwrite=True, report=report)
    log.info("see %s", out / "shipped.mp4")
    return f"{SHIPPED}: comes with vidgen, before this training", "shipped.mp4"


def _write_unseen(folder: Path, frames: list[StreetFrame]) -> None:
    for index, frame in enumerate(frames):
        for role in ("images", "labels", "instances"):
            pixels = {"images": frame.image, "labels": frame.labels, "instances": frame.instances}[role]
            write_png(folder / role / f"{index:05d}.png", pixels)


def _write_pictures(out: Path, frames: list[StreetFrame], result: list[np.ndarray]) -> None:
    """The label video, the truth and a picture of both with the result."""
    shown = {"labels.mp4": [STREET.colorize(frame.labels) for frame in frames], "truth.mp4": [frame.image for frame in frames]}
    for name, pictures in shown.items():
        with open_sink(out / name, time_base=Fraction(1, FPS), frame_rate=Fraction(FPS), overwrite=True) as sink:
            for index, pixels in enumerate(pictures):
                sink.write(pixels, index)
    write_png(out / "labels.png", STREET.colorize(frames[0].labels))
    columns = []
    for index in (len(frames) // 4, len(frames) // 2, len(frames) - 1):
        columns.append(np.concatenate([STREET.colorize(frames[index].labels), result[index], frames[index].image]))
    write_png(out / "preview.png", np.concatenate(columns, axis=1))


def _write_page(
    out: Path, model: Model, scores: Report, truth: Report, trained: dict[str, Any], shown: list[tuple[str, str]]
) -> None:
    def text(values: Report, name: str, form: str) -> str:
        value = values.get(name)
        return "" if value is None else form.format(value)

    videos = {
        "label map: what the model reads": "labels.mp4",
        "generated, after training here": "result.mp4",
        **dict(shown),
        "ground truth": "truth.mp4",
    }
    sources = {caption: open_source(out / file) for caption, file in videos.items()}
    clips = players.embed(sources, lead="ground truth", max_bytes=MAX_VIDEO_BYTES, max_height=2 * HEIGHT)
    page = templates.render(
        "demo.html.j2",
        version=vidgen.__version__,
        training_frames=len(TRAINING_SEEDS) * TRAINING_FRAMES,
        training_clips=len(TRAINING_SEEDS),
        minutes=f"{trained['minutes']:.1f}",
        start=SHIPPED if shown else None,
        runtime=model.runtime.describe(),
        videos=[{"name": caption, "color": None, "uri": clips.uri(caption)} for caption in clips.videos],
        payload={"players": {"main": {"times": clips.times, "cuts": []}}},
        scores=[
            {"name": name, "result": text(scores, name, form), "truth": text(truth, name, form), "meaning": meaning}
            for name, form, meaning in _MEASURES
        ],
        commands=(
            f"vidgen translate {out / 'run'} {out / 'unseen' / 'labels'} --instances {out / 'unseen' / 'instances'} -o again.mp4\n"
            f"vidgen train -o {out / 'run'} --resume --set train.max_steps=1000"
        ),
    )
    durable.write_text(out / "index.html", page)
