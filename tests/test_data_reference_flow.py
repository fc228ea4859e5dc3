"""Reference flow of training clips: cached by content, read from files, or from a teacher whose weights must be there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flow.engines import SHIPPED_WEIGHTS, describe, estimate
from flow.files import write_flow
from tests import tiny
from vidgen import durable
from vidgen.commands import flow as flow_command
from vidgen.commands.train import train
from vidgen.data.clips import Clips
from vidgen.data.reference_flow import CachedFlow, FlowFiles
from vidgen.data.sequences import find_sequences, find_table
from vidgen.data.settings import ConditionSettings, DataSettings, LabelSettings
from vidgen.errors import ConfigError, InputError, OutputError
from vidgen.metrics import motion
from vidgen.training.settings import TrainSettings
from vidgen.types import Batch, FlowEstimator, Stage

STAGE = Stage("test", 10, 1e-3, 0.0, clip_frames=4, window_frames=2)


class Counting:
    """DIS, counting the pairs it was asked for."""

    def __init__(self) -> None:
        self.num_pairs = 0

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        self.num_pairs += len(first)
        return estimate(first, second)


def images(seed: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def clips(root: Path, flow: FlowEstimator | FlowFiles, **settings: object) -> Clips:
    condition = ConditionSettings(labels=LabelSettings(num_classes=tiny.NUM_CLASSES))
    data = DataSettings.model_validate({"root": root, "condition": condition, **settings})
    sequences = find_sequences(data)
    return Clips(data, sequences, find_table(data, sequences), seed=0, size_multiple=4, flow=flow)


def batch(source: Clips, step: int = 0) -> Batch:
    return source.batch(STAGE, step, range(1), primer_frames=2, batch_size=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


@pytest.fixture
def files(root: Path, tmp_path: Path) -> Path:
    for sequence in sorted((root / "images").iterdir()):
        flow_command.estimate(sequence, output=tmp_path / "flow" / sequence.name)
    return tmp_path / "flow"


# -- the cache -------------------------------------------------------------------------------------------------------------


def test_a_pair_seen_before_is_not_estimated_again_even_by_another_process(tmp_path: Path) -> None:
    first, second, engine = images(0), images(1), Counting()
    fresh = CachedFlow(engine, "dis", tmp_path)(first, second)
    assert engine.num_pairs == 2
    assert torch.equal(CachedFlow(engine, "dis", tmp_path)(first.flip(0), second.flip(0)).flip(0), fresh)
    assert engine.num_pairs == 2
    assert torch.equal(fresh, estimate(first, second).half().float())


@pytest.mark.parametrize("changed", ["first", "second", "engine", "size"])
def test_anything_else_is_estimated_anew(tmp_path: Path, changed: str) -> None:
    first, second, engine = images(0, 1), images(1, 1), Counting()
    CachedFlow(engine, "dis", tmp_path)(first, second)
    if changed in ("first", "second"):
        {"first": first, "second": second}[changed][0, 0, 0, 0] += 1 / 255
    if changed == "size":
        first, second = first.reshape(1, 3, 32, 24), second.reshape(1, 3, 32, 24)
    CachedFlow(engine, "learned" if changed == "engine" else "dis", tmp_path)(first, second)
    assert engine.num_pairs == 2


@pytest.mark.parametrize("damage", [b"", b"noise", "cut", "nan"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: bytes | str) -> None:
    first, second, engine = images(0, 1), images(1, 1), Counting()
    right = CachedFlow(engine, "dis", tmp_path)(first, second)
    (entry,) = tmp_path.iterdir()
    if damage == "nan":
        np.save(entry, np.full((2, 24, 32), np.nan, np.float16))
    else:
        entry.write_bytes(entry.read_bytes()[:200] if damage == "cut" else damage)
    assert torch.equal(CachedFlow(engine, "dis", tmp_path)(first, second), right)
    assert engine.num_pairs == 2
    CachedFlow(engine, "dis", tmp_path)(first, second)
    assert engine.num_pairs == 2


def test_a_cache_that_cannot_be_written_warns_and_trains_on(tmp_path: Path, monkeypatch, caplog) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OutputError(f"{path}: the disk is full")

    monkeypatch.setattr(durable, "write_bytes", full)
    cached = CachedFlow(Counting(), "dis", tmp_path)
    for seed in (0, 1):
        cached(images(seed), images(seed + 1))
    assert caplog.text.count("the disk is full") == 1


def test_crops_and_mirrored_clips_share_the_cached_flow_of_the_whole_frame(root: Path, tmp_path: Path) -> None:
    engine = Counting()
    source = clips(root, CachedFlow(engine, "dis", tmp_path / "cache"), crop_width=24, crop_height=16)
    seen = [batch(source, step) for step in range(12)]
    assert engine.num_pairs == len(list((tmp_path / "cache").iterdir())) <= 18
    assert all(one.flow is not None and one.flow.shape[-2:] == (16, 24) for one in seen)


# -- files -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [None, "3:9"])
def test_flow_from_files_is_what_the_engine_that_wrote_them_gives(root: Path, files: Path, frames: str | None) -> None:
    """Also where only a part of each sequence is used: the files still belong to the whole."""
    read = clips(root, FlowFiles(files, {path.name: 10 for path in files.iterdir()}), flip=False, frames=frames)
    made = clips(root, estimate, flip=False, frames=frames)
    for step in range(4):
        one, other = batch(read, step), batch(made, step)
        assert one.flow is not None
        assert other.flow is not None
        assert torch.equal(one.flow, other.flow)


def test_flow_from_files_follows_mirroring_cropping_and_resizing(root: Path, tmp_path: Path) -> None:
    for sequence in (root / "images").iterdir():
        (tmp_path / "flow" / sequence.name).mkdir(parents=True)
        for number in range(9):
            right = torch.arange(tiny.WIDTH).expand(tiny.HEIGHT, -1) * 0.1
            write_flow(tmp_path / "flow" / sequence.name / f"{number}.flo", torch.stack([right, torch.full_like(right, 2.0)]))
    source = FlowFiles(tmp_path / "flow", {path.name: 10 for path in (tmp_path / "flow").iterdir()})
    plain, mirrored = set(), set()
    for step in range(16):
        flow = batch(clips(root, source, width=24, height=16, crop_width=16, crop_height=12), step).flow
        assert flow is not None
        flow = flow[0, 1]
        assert torch.allclose(flow[1], torch.ones(()))
        (plain if flow[0].mean() > 0 else mirrored).add(step)
        assert torch.allclose(flow[0].diff(dim=1), torch.full((12, 15), 0.1), atol=0.02)
    assert plain
    assert mirrored


def test_frames_further_apart_are_reached_over_those_between(tmp_path: Path) -> None:
    for number, shift in enumerate((1.0, 2.0, 4.0)):
        write_flow(tmp_path / f"{number}.flo", torch.full((2, 8, 8), shift))
    files = FlowFiles(tmp_path, {"": 4})
    assert files.between("", 3, 0, (8, 8)).unique().tolist() == [7]
    assert files.between("", 2, 1, (4, 8))[0, :, 0, 0].tolist() == [2, 1]


def test_files_that_do_not_fit_the_sequences_are_refused(files: Path, root: Path) -> None:
    names = {path.name: 10 for path in files.iterdir()}
    with pytest.raises(ConfigError, match="9 flow files, 11 frames need 10"):
        FlowFiles(files, dict.fromkeys(names, 11))
    with pytest.raises(ConfigError, match="nothing_here is not a folder"):
        FlowFiles(files, {"nothing_here": 10})
    unknown = torch.zeros(2, 8, 8)
    first = files / next(iter(names)) / "00000.flo"
    write_flow(first, unknown, torch.zeros(1, 8, 8, dtype=torch.bool))
    with pytest.raises(InputError, match="leaves 64 pixels unknown"):
        FlowFiles(files, names).between(next(iter(names)), 1, 0, (8, 8))


def test_files_cannot_follow_deformed_frames(root: Path, files: Path) -> None:
    source = FlowFiles(files, {path.name: 10 for path in files.iterdir()})
    with pytest.raises(ConfigError, match=r"data\.augment deforms"):
        batch(clips(root, source, augment={"thin_plate": 1.0}))


# -- the setting -----------------------------------------------------------------------------------------------------------


def test_the_name_of_an_engine_is_a_whole_setting() -> None:
    assert (
        TrainSettings.model_validate({"flow": "learned"}).flow == TrainSettings.model_validate({"flow": {"engine": "learned"}}).flow
    )


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["train.flow=raft-large"], "train.flow: .*raft_large_.*pth"),
        (["train.flow={engine: raft-small, weights: nothing.pth}"], "train.flow: nothing.pth: the weights could not be read"),
        (["train.flow=folder"], "needs train.flow.weights"),
        (["train.flow={engine: folder, weights: nothing}"], "train.flow.weights: nothing.* is not a folder"),
        (["train.flow={engine: dis, weights: x.pth}"], "train.flow: .*reads no file"),
        (["train.flow=flownet"], "train.flow: Input should be .*folder"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_said_before_training(root: Path, tmp_path: Path, sets: list[str], words: str) -> None:
    config = tiny.write_config(tmp_path, root)
    with pytest.raises(ConfigError, match=words):
        train(config, tmp_path / "run", sets=sets)
    assert not (tmp_path / "run").exists()


def test_a_run_learns_from_files_and_from_a_cache(root: Path, files: Path, tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path, root)
    train(config, tmp_path / "files", sets=[f"train.flow={{engine: folder, weights: {files}}}"], steps=1)
    train(config, tmp_path / "cached", sets=[f"train.flow.cache={tmp_path / 'cache'}"], steps=1)
    assert len(list((tmp_path / "cache").iterdir())) > 0


def test_an_engine_is_described_by_all_that_its_results_depend_on(tmp_path: Path) -> None:
    described = {name: describe(name) for name in ("dis", "dis-fast", "farneback")}
    assert len(set(described.values())) == 3
    assert all("cv2" in text for text in described.values())
    (tmp_path / "a.safetensors").write_bytes(b"a")
    assert "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" in describe("learned", tmp_path / "a.safetensors")


def test_an_evaluation_names_the_checksum_of_the_shipped_weights() -> None:
    digest = hashlib.sha256(SHIPPED_WEIGHTS.read_bytes()).hexdigest()
    assert digest in motion.Engine.create("learned", None, fast=False).name
