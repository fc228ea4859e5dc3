"""Generated pictures of classes are recognized, or not, by what real ones look like."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidgen.commands import evaluate
from vidgen.errors import ConfigError, InputError
from vidgen.media.images import write_png
from vidgen.metrics.classes import Classifier, cross_validated_accuracy, inception_score, mean_difference


def _picture(name: str, place: int) -> np.ndarray:
    """Stripes or discs of any color."""
    rng = np.random.default_rng([len(name), place])
    picture = np.full((48, 48, 3), rng.integers(0, 255, 3), np.uint8)
    color = [int(value) for value in rng.integers(0, 255, 3)]
    if name == "stripes":
        for left in range(int(rng.integers(0, 8)), 48, 8):
            cv2.rectangle(picture, (left, 0), (left + 3, 47), color, -1)
    else:
        for _ in range(6):
            cv2.circle(picture, tuple(int(value) for value in rng.integers(4, 44, 2)), 7, color, -1)
    return picture


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    for name in ("stripes", "discs"):
        for place in range(12):
            write_png(root / "real" / name / f"{place}.png", _picture(name, place))
        for place in range(2):
            for sample in (1, 2):
                write_png(root / "right" / name / f"{place}-{sample}.png", _picture(name, 20 + 2 * place + sample))
                wrong = "discs" if name == "stripes" else "stripes"
                write_png(root / "wrong" / name / f"{place}-{sample}.png", _picture(wrong, 20 + place))
    return root


def test_pictures_are_recognized_by_a_classifier_of_real_ones(folders: Path) -> None:
    right = evaluate.classes(folders / "right", real=folders / "real")
    wrong = evaluate.classes(folders / "wrong", real=folders / "real")
    assert right["accuracy_of_real"] > 0.9
    assert right["accuracy"] > 0.8
    assert wrong["accuracy"] < 0.2
    assert right["accuracy_by_class"].keys() == {"stripes", "discs"}
    assert 1.5 < right["class_score"] <= 2
    assert right["diversity"]["features"] > 0.1
    assert wrong["diversity"] == {"pixels": 0.0, "features": 0.0}, "equal samples"
    assert right["pictures"] == 8


def test_classes_without_real_pictures_are_named(folders: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "dots" / "1.png", _picture("discs", 1))
    with pytest.raises(InputError, match="no real pictures of 'dots'; there are discs, stripes"):
        evaluate.classes(tmp_path, real=folders / "real")
    write_png(tmp_path / "loose" / "1.png", _picture("discs", 1))
    with pytest.raises(InputError, match="lies in no folder of a class"):
        evaluate.classes(tmp_path / "loose", real=folders / "real")
    with pytest.raises(ConfigError, match="takes no part here"):
        evaluate.classes(folders / "right", real=folders / "real", weights=["lpips=nothing.pth"])


def test_the_inception_score_is_between_one_and_the_number_of_classes() -> None:
    assert inception_score(torch.eye(4).repeat(3, 1), 1)[0] == pytest.approx(4, rel=1e-6)
    assert inception_score(torch.full((8, 4), 0.25), 2) == pytest.approx((1, 0), abs=1e-6)
    rows = [[0.7, 0.3], [0.2, 0.8]]
    mean = [0.45, 0.55]
    divergences = [sum(p * math.log(p / q) for p, q in zip(row, mean, strict=True)) for row in rows]
    assert inception_score(torch.tensor(rows), 1)[0] == pytest.approx(math.exp(sum(divergences) / 2), rel=1e-6)


def test_a_classifier_separates_what_can_be_separated_and_chance_stays_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(60) % 3
    noise = torch.randn(60, 5, generator=generator)
    apart = noise + 4 * torch.nn.functional.one_hot(classes, 5)
    assert cross_validated_accuracy(apart, classes, 3) > 0.95
    assert cross_validated_accuracy(noise, classes, 3) < 0.6
    probabilities = Classifier.fit(apart, classes, 3).probabilities(apart)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(60, dtype=torch.float64))


def test_the_difference_of_samples_is_the_mean_of_their_pairs() -> None:
    pictures = torch.tensor([0.0, 1.0, 4.0])[:, None, None, None].expand(3, 3, 2, 2)
    assert mean_difference(pictures) == pytest.approx((1 + 4 + 3) / 3)
    assert mean_difference(pictures[:1]) == 0
