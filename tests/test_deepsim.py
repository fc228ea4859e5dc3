"""Models of one pair, and of two sources: the shipped configurations, made tiny, from training to the edited picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from vidgen.commands.train import train
from vidgen.commands.translate import translate
from vidgen.errors import InputError
from vidgen.media.images import read_picture, write_png

TINY = (
    "model.generator={base_channels: 4, num_downsamplings: 2, num_blocks: 1}",
    "model.discriminators={base_channels: 4, num_layers: 2, num_scales: 1}",
    "model.losses.perceptual_weight=0",
    "model.losses.l1_weight=10",
    "train.sample_every_steps=1",
    "train.precision=fp32",
)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A photo of a square and its painted labels, and three edits that move the square."""
    root = tmp_path / "pair"
    for index, left in enumerate((20, 24, 30)):
        labels = np.full((48, 64, 3), (250, 250, 250), np.uint8)
        labels[12:36, left : left + 20] = (250, 10, 10)
        write_png(root / "edits" / f"{index}.png", labels)
    texture = np.random.default_rng(0).integers(0, 60, (48, 64, 3))
    labels = read_picture(root / "edits" / "0.png")
    write_png(root / "labels.png", labels)
    write_png(root / "image.png", (texture + labels // 2).astype(np.uint8))
    return root


def _trained(config: str, root: Path, out: Path, *sets: str) -> Path:
    train(REPOSITORY / "configs" / config, out, sets=[f"data.root={root}", *TINY, *sets], steps=2)
    return out


@pytest.mark.parametrize("config", ["labels", "car_small"])
def test_painted_labels_make_a_model_whose_edits_are_pictures_and_whose_videos_are_animations(pair, tmp_path, config):
    run = _trained(f"deepsim/{config}.yaml", pair, tmp_path / "run", "data.width=64", "data.height=48")
    assert translate(run, [str(pair / "edits" / "1.png")], str(tmp_path / "one.png"))["frames"] == 1
    assert read_picture(tmp_path / "one.png").shape == (48, 64, 3)
    assert translate(run, [str(pair / "edits")], str(tmp_path / "animation.mp4"))["frames"] == 3


def test_edges_make_a_model_whose_input_is_a_photo(pair, tmp_path):
    run = _trained("deepsim/edges.yaml", pair, tmp_path / "run")
    assert translate(run, [str(pair / "image.png")], str(tmp_path / "one.png"))["frames"] == 1


def test_edges_over_labels_make_a_model_that_reads_both(pair, tmp_path):
    run = _trained("deepsim/labels_and_edges.yaml", pair, tmp_path / "run")
    edit, out = str(pair / "edits" / "1.png"), str(tmp_path / "one.png")
    with pytest.raises(InputError, match="pictures to detect edges in"):
        translate(run, [edit], out)
    assert translate(run, [edit], out, further=[f"edges={pair / 'image.png'}"])["frames"] == 1


def test_two_sources_are_fused(tmp_path):
    for index in range(2):
        picture = np.random.default_rng(index).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        for role, part in (("target", picture), ("source", picture // 2), ("source2", picture // 3)):
            write_png(tmp_path / "data" / role / f"{index}.png", part)
    sizes = ("data.width=64", "data.height=64", "data.crop_width=48", "data.crop_height=48")
    run = _trained("pix2pixhd/fusion.yaml", tmp_path / "data", tmp_path / "run", *sizes)
    metrics = (run / "metrics.jsonl").read_text()
    assert '"gradient"' in metrics
    assert '"l1"' in metrics
    sources = [str(tmp_path / "data" / role / "0.png") for role in ("source", "source2")]
    assert translate(run, sources[:1], str(tmp_path / "fused.png"), further=[f"source2={sources[1]}"])["frames"] == 1
