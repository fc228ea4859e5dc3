"""SketchyGAN from folders to pictures: three shapes, each with a color of its own, and sketches that miss their outlines."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vidgen.commands import evaluate
from vidgen.commands.train import train
from vidgen.commands.translate import translate
from vidgen.media.images import read_picture, write_png

SIDE, NUM_TRAINED, NUM_HELD_OUT = 32, 24, 8
SHAPES = {"disc": (205, 60, 50), "square": (60, 90, 200), "triangle": (70, 170, 80)}


def outline(shape: str, generator: np.random.Generator) -> np.ndarray:
    """int32 [N,2], x and y."""
    center, size = generator.uniform(13, 19, 2), generator.uniform(7, 10)
    angles = {"disc": np.arange(24) / 24, "square": np.arange(4) / 4 + 1 / 8, "triangle": np.arange(3) / 3 - 1 / 12}[shape]
    points = np.stack([np.cos(2 * np.pi * angles), np.sin(2 * np.pi * angles)], 1) * size + center
    return points.round().astype(np.int32)


def photo(points: np.ndarray, color: tuple[int, int, int], generator: np.random.Generator) -> np.ndarray:
    ground = generator.normal(200, 12, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    shade = np.array(color) + generator.integers(-20, 20)
    return cv2.fillPoly(ground, [points], shade.tolist())


def sketch(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A shaky outline beside the true one."""
    shaky = points + generator.integers(-1, 2, points.shape) + generator.integers(-1, 2, 2)
    paper = np.full((SIDE, SIDE, 3), 255, np.uint8)
    return cv2.polylines(paper, [shaky.astype(np.int32)], True, (0, 0, 0), 1)


def write(root: Path, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for shape, color in SHAPES.items():
        for number in range(count):
            points = outline(shape, generator)
            write_png(root / "photos" / shape / f"{number:02d}.png", photo(points, color, generator))
            write_png(root / "sketches" / shape / f"{number:02d}-1.png", sketch(points, generator))


@pytest.mark.slow
def test_shapes_take_the_color_of_their_class_within_their_sketch(tmp_path: Path) -> None:
    write(tmp_path / "data", NUM_TRAINED, 0)
    write(tmp_path / "held_out", NUM_HELD_OUT, 1)
    sets = [
        f"data.root={tmp_path / 'data'}",
        *("data.width=32", "data.height=32", "model.generator.base_channels=8", "model.generator.noise_channels=8"),
        *("model.discriminator.base_channels=4", "model.losses.perceptual_weight=0", "model.losses.texture_weight=0"),
        *("model.losses.feature_gan_weight=0", "model.losses.l1_weight=20", "model.losses.diversity_weight=0"),
        *("model.schedule.epochs=45", "model.schedule.learning_rate=0.002"),
    ]
    train(Path("sketchygan/things_small"), tmp_path / "run", sets=sets)
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert all(np.isfinite(value) for value in last["losses"].values())
    held_out = tmp_path / "held_out"
    for shape in SHAPES:
        translate(tmp_path / "run", [str(held_out / "sketches" / shape)], str(tmp_path / "generated" / shape), class_name=shape)
    pictures, real, drawn = (
        np.stack([read_picture(path).astype(float) for shape in SHAPES for path in sorted((folder / shape).glob("*.png"))])
        for folder in (tmp_path / "generated", held_out / "photos", held_out / "sketches")
    )
    mean = np.mean([read_picture(path) for path in sorted((tmp_path / "data/photos").rglob("*.png"))], axis=0)
    difference = np.abs(pictures - real).mean()
    assert difference < 0.8 * np.abs(mean - real).mean()
    assert difference < 0.8 * np.abs(drawn - real).mean()
    assert pictures.std() / 255 > 0.05
    scores = evaluate.classes(tmp_path / "generated", real=held_out / "photos")
    assert scores["accuracy"] > 0.6  # a third by chance
