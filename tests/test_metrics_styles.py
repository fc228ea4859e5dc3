"""Style retrieval: whether what was painted in a style has its colors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vidgen.errors import InputError
from vidgen.evaluation.measure import evaluate
from vidgen.media.images import write_png
from vidgen.metrics.styles import style_retrieval, style_vectors

COLORS = {"red": (200, 40, 40), "green": (40, 180, 60), "night": (20, 20, 60), "sand": (220, 200, 140)}


def _picture(color: tuple[int, int, int], seed: int, *, pale: float = 0.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, (24, 32, 3))
    return np.clip((1 - pale) * np.array(color) + pale * 128 + noise, 0, 255).astype(np.uint8)


def _vectors(pictures: list[np.ndarray]) -> torch.Tensor:
    return style_vectors([torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 for picture in pictures])


def test_results_in_their_own_colors_are_retrieved_and_those_of_others_are_not() -> None:
    styles = _vectors([_picture(color, 0) for color in COLORS.values()])
    own = torch.arange(4).repeat(3)
    right = _vectors([_picture(list(COLORS.values())[number], 5 + index) for index, number in enumerate(own.tolist())])
    assert style_retrieval(right, styles, own).value == 1.0
    wrong = style_retrieval(right, styles, (own + 1) % 4)
    assert wrong.value == 0.0
    assert wrong.note == "chance is 0.25, of 4 styles"
    assert wrong.count == 12


def test_what_all_results_have_in_common_does_not_count() -> None:
    styles = _vectors([_picture(color, 0) for color in COLORS.values()])
    pale = _vectors([_picture(color, 9, pale=0.8) for color in COLORS.values()])
    assert style_retrieval(pale, styles, torch.arange(4)).value == 1.0
    alone = style_retrieval(pale[2:3], styles, torch.tensor([2]))
    assert alone.count == 1
    assert style_retrieval(pale, styles[:1], torch.zeros(4, dtype=torch.long)).value is None


def test_results_that_do_not_follow_their_style_are_at_chance() -> None:
    styles = _vectors([_picture(color, 0) for color in COLORS.values()])
    same = _vectors([_picture((128, 128, 128), seed) for seed in range(80)])
    value = style_retrieval(same, styles, torch.arange(4).repeat(20)).value
    assert value is not None
    assert value < 0.55


def test_a_folder_of_results_is_measured_by_names_or_by_what_is_beside_them(tmp_path: Path) -> None:
    for number, (name, color) in enumerate(COLORS.items()):
        write_png(tmp_path / "styles" / f"{name}.png", _picture(color, 0))
        write_png(tmp_path / "results" / f"lines-{name}.png", _picture(color, 1))
        write_png(tmp_path / "results" / f"{number}.png", _picture(color, 2))
        (tmp_path / "results" / f"{number}.png.json").write_text(json.dumps({"style": f"somewhere/{name}.png"}))
    report = evaluate(tmp_path / "results", styles=tmp_path / "styles")
    assert list(report.metrics) == ["style_retrieval"]
    assert report["style_retrieval"] == 1.0
    assert report.metrics["style_retrieval"].n == 8
    write_png(tmp_path / "results" / "unknown.png", _picture((0, 0, 0), 3))
    with pytest.raises(InputError, match=r"unknown\.png: nothing says which style it has; known are green"):
        evaluate(tmp_path / "results", styles=tmp_path / "styles")
