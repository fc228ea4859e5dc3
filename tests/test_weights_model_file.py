"""Model files: what they say of themselves is read, checked, and goes on being read in later versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vidgen
from tests import tiny
from vidgen import durable
from vidgen.commands.models import info, slim
from vidgen.commands.train import train
from vidgen.errors import CheckpointError, ConfigError
from vidgen.inference.model import Model
from vidgen.media.labels import LabelTable
from vidgen.translators import pix2pixhd, vid2vid
from vidgen.weights.checkpoints import find_weights
from vidgen.weights.files import Weights, pack
from vidgen.weights.model_file import FORMAT, ModelCard, read_card, start_from

OLD_CLASSES = ("road", "boat", "Vegetation")
NEW_CLASSES = ("tree", "road", "spoon")
OLD = Path(__file__).parent / "data" / "model_of_0.1.safetensors"


def _card() -> ModelCard:
    shape = vid2vid.Generator(base_channels=4, num_downsamplings=1, num_blocks=2)
    discriminators = vid2vid.Discriminators(base_channels=4, num_temporal_scales=0)
    config = vid2vid.Config(num_labels=3, generator=shape, discriminators=discriminators)
    return ModelCard(config, {"labels": {"num_classes": 3}}, None, (16, 16))


def _changed(**texts: str) -> dict[str, str]:
    return {**_card().metadata(), **texts}


def test_a_card_is_read_as_it_was_written() -> None:
    assert ModelCard.read(_card().metadata(), "m") == _card()


def test_a_model_file_of_the_first_release_translates(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data", num_sequences=1, num_frames=3)
    with pytest.warns(DeprecationWarning, match="growth"):
        model = vidgen.load(str(OLD))
    frames = list(model.translate(str(data / "labels" / "clip0")))
    assert [frame.shape for frame in frames] == [(tiny.HEIGHT, tiny.WIDTH, 3)] * 3
    assert model.trained_size == (tiny.HEIGHT, tiny.WIDTH)


def test_a_card_of_a_network_that_the_file_does_not_hold_takes_no_memory(tmp_path: Path) -> None:
    shape = vid2vid.Generator(base_channels=2048, num_downsamplings=3, num_blocks=9)  # hundreds of gigabytes
    card = replace(_card(), model=vid2vid.Config(num_labels=3, generator=shape))
    path = tmp_path / "small.safetensors"
    path.write_bytes(pack({"generator.weight": torch.zeros(8)}, card.metadata()))
    assert path.stat().st_size < 10_000
    for use in (lambda: Model.load(path), lambda: info(path), lambda: slim(path, tmp_path / "out.safetensors")):
        with pytest.raises(CheckpointError, match="describes a larger network than the file holds"):
            use()


@pytest.mark.parametrize("size", ["[0, 16]", "[16]", "[1e400, 2]", '["16", 16]', "[16, 1048576]", "[-1, 16]", "null"])
def test_a_card_without_a_sensible_size_is_damaged(size: str) -> None:
    with pytest.raises(CheckpointError, match="its model card is damaged"):
        ModelCard.read(_changed(size=size), "m")


def test_a_later_format_is_one_clear_line() -> None:
    with pytest.raises(CheckpointError, match=f"m: is of model format 9; this version of vidgen reads formats up to {FORMAT}"):
        ModelCard.read(_changed(format="9"), "m")


def test_an_input_that_the_translator_does_not_declare_is_named() -> None:
    inputs = [{"name": "sound", "kind": "noise", "channels": 1}]
    with pytest.raises(CheckpointError, match=r"m: reads the input 'sound', which vid2vid does not declare here \(labels\)"):
        ModelCard.read(_changed(inputs=json.dumps(inputs)), "m")


def test_a_translator_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"m: 'sketchy' is no translator; there are .*vid2vid"):
        ModelCard.read(_changed(model='{"kind": "sketchy"}'), "m")


def test_weights_of_others_say_that_they_carry_no_card() -> None:
    with pytest.raises(CheckpointError, match="m: these weights carry no vidgen model card"):
        ModelCard.read({"format": "pt"}, "m")


@pytest.mark.parametrize("key", ["model", "condition", "labels", "size", "pretrained", "inputs"])
@pytest.mark.parametrize("text", ["", "{", "[1]", '"a"', "[" * 100000, "7", "null"])
def test_a_damaged_card_is_an_error_of_ours(key: str, text: str) -> None:
    if (key, text) == ("labels", "null"):
        pytest.skip("means that there are none")
    with pytest.raises((CheckpointError, ConfigError), match=r"^m: "):
        ModelCard.read(_changed(**{key: text}), "m")


def test_unknown_training_options_do_not_matter_to_a_model(tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path, tiny.write_data(tmp_path / "data"))
    train(config, tmp_path / "run", steps=1)
    weights, _ = find_weights(tmp_path / "run")
    old: dict[str, Any] = {"model": json.loads(weights.metadata["model"]), "train": {"an option of long ago": 1}}
    old["data"] = {"root": ".", "condition": json.loads(weights.metadata["condition"])}
    metadata = {"config": json.dumps(old), "labels": weights.metadata["labels"], "size": weights.metadata["size"]}
    durable.write_bytes(tmp_path / "old.safetensors", pack(weights.tensors, metadata))
    card, _, _ = read_card(tmp_path / "old.safetensors")
    assert torch.is_tensor(card.build().active_scales)


def test_a_run_is_not_resumed_with_another_pretrained_network(tmp_path: Path) -> None:
    from vidgen.commands.train import check_same_networks

    before = ModelCard(_card().model, {}, None, (16, 16), {"vgg19": "a" * 64})
    now = ModelCard(_card().model, {}, None, (16, 16), {"vgg19": "b" * 64})
    with pytest.raises(CheckpointError, match="was trained with another vgg19"):
        check_same_networks(before.metadata(), now, Path("run"))


def test_a_slim_file_translates_as_the_run_does_and_starts_a_new_training(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data", num_frames=4)
    config = tiny.write_config(tmp_path, data)
    train(config, tmp_path / "run", steps=2)
    slim(tmp_path / "run", tmp_path / "slim.safetensors")
    whole = max(path.stat().st_size for path in (tmp_path / "run").rglob("model.safetensors"))
    assert (tmp_path / "slim.safetensors").stat().st_size < whole
    labels = str(data / "labels" / "clip0")
    frames = [
        np.stack(list(vidgen.load(path, precision="fp32").translate(labels)))
        for path in (tmp_path / "run", tmp_path / "slim.safetensors")
    ]
    assert np.abs(frames[0].astype(int) - frames[1]).mean() < 1, "half precision changes no more than a gray level"
    train(config, tmp_path / "next", steps=1, init=tmp_path / "slim.safetensors")
    other = tiny.write_config(tmp_path, data, "pix2pixhd")
    with pytest.raises(CheckpointError, match="its generator does not fit this model"):
        train(other, tmp_path / "other", steps=1, init=tmp_path / "slim.safetensors")


@pytest.mark.parametrize("module", [vid2vid, pix2pixhd])
def test_a_model_of_other_classes_starts_each_class_from_the_most_alike(module: Any) -> None:
    tables = [LabelTable(names, tuple((index, 0, 0) for index in range(len(names))), None) for names in (OLD_CLASSES, NEW_CLASSES)]
    translators, cards = [], []
    for seed, table in enumerate(tables):
        torch.manual_seed(seed)
        settings = module.Config.model_validate(
            {"num_labels": table.num_classes, "generator": {"kind": "compact", "width": 0.25}, "losses": {"perceptual_weight": 0}}
        )
        translators.append(module.build(settings))
        cards.append(ModelCard(settings, {}, table, (32, 32)))
    old, new = translators
    (name,) = new.per_class_parameters
    before = new.state_dict()[name].clone()
    halves = {key: value.half() if value.is_floating_point() else value for key, value in old.state_dict().items()}
    old.load_state_dict(halves)
    start_from(new, cards[1], Weights(halves, cards[0].metadata()), Path("old.safetensors"))
    source, filled = old.state_dict()[name], new.state_dict()[name]
    for index, place in enumerate((2, 0, None)):
        assert torch.equal(filled[:, index], before[:, index] if place is None else source[:, place])
    rest = [key for key in new.state_dict() if key.startswith("generator.") and key != name]
    assert all(torch.equal(new.state_dict()[key], old.state_dict()[key]) for key in rest)


def test_an_unknown_name_is_no_shipped_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such weights file or run folder"):
        find_weights(tmp_path / "street-world-that-is-not")
