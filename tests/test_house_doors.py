"""A new translator and a new backend need no change of any existing file; a new discriminator fits into the shared adversary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vidgen
from tests import tiny
from vidgen import translators
from vidgen.commands.train import train
from vidgen.errors import ConfigError
from vidgen.networks.adversary import Adversary
from vidgen.training import settings as run_settings

TOY = '''
"""toy: the mean color of every class.

Source: none; it shows what a translator has to offer.
"""
from typing import Literal

import torch
from torch import nn

from vidgen.networks.encoding import encode
from vidgen.translators.base import Translator
from vidgen.translators.settings import ConditionalConfig
from vidgen.types import Output, Phase, Stage

RENAMES = {}


class Config(ConditionalConfig):
    """A toy."""

    kind: Literal["toy"] = "toy"


def inputs(config):
    return config.frame_inputs()


def pretrained(config):
    return ()


class Toy(Translator):
    size_multiple = 1

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.generator = nn.Conv2d(config.channels_per_frame, 3, 1)

    def translate(self, condition, carry=None):
        encoded = encode(condition, num_labels=self.config.num_labels, use_instances=self.config.use_instances)
        return Output(torch.tanh(self.generator(encoded.flatten(0, 1)).float()).unflatten(0, encoded.shape[:2])), None

    def phases(self, stage):
        return (Phase("generator", (self.generator,)),)

    def losses(self, phase, step, batch, output, networks):
        return {"l1": (output.frames - batch.window_target).abs().mean()}


def build(config, networks=None):
    return Toy(config)


def stages(config, steps_per_epoch):
    return (Stage("all", 30 * steps_per_epoch, 0.05, 0.0),)
'''


@pytest.fixture
def newcomers(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files are translators too."""
    folder = tmp_path / "newcomers"
    folder.mkdir()
    translators.__path__.append(str(folder))
    _forget()
    yield folder
    translators.__path__.remove(str(folder))
    _forget()


def _forget() -> None:
    translators._imported.cache_clear()
    run_settings.run_schema.cache_clear()


def _toy_run(folder: Path) -> tuple[Path, Path]:
    data = tiny.write_data(folder / "data", num_sequences=1, num_frames=4)
    config = folder / "toy.yaml"
    config.write_text(
        f"model: {{kind: toy}}\ndata:\n  root: {data}\n  condition: {{labels: {{num_classes: 4}}}}\ntrain: {{precision: fp32}}\n"
    )
    train(config, folder / "run")
    return folder / "run", data


def test_a_translator_is_one_new_file(newcomers: Path, tmp_path: Path) -> None:
    (newcomers / "toy.py").write_text(TOY)
    model, data = _toy_run(tmp_path)
    frames = list(vidgen.load(model).translate(str(data / "labels" / "clip0")))
    assert [frame.shape for frame in frames] == [(tiny.HEIGHT, tiny.WIDTH, 3)] * 4
    assert len(np.unique(frames[0].reshape(-1, 3), axis=0)) <= 4, "one color for each class"


def test_a_translator_that_cannot_be_imported_leaves_the_others_usable(newcomers: Path) -> None:
    (newcomers / "broken.py").write_text("import a_package_that_does_not_exist\n")
    assert {"vid2vid", "singan"} <= set(translators.available())
    with pytest.raises(ConfigError, match=r"broken cannot be imported here .*a_package_that_does_not_exist"):
        translators.find("broken")


class Negative:
    """A backend of another kind: it shows the labels, brighter from frame to frame."""

    def step(self, arrays: Mapping[str, np.ndarray], state: Any, seed: int) -> tuple[np.ndarray, Any]:
        count = 0 if state is None else state
        return (np.repeat(arrays["labels"][0].astype(np.float32), 3, axis=0) + count) / 10, count + 1

    def prime(self, arrays: Mapping[str, np.ndarray], frames: np.ndarray) -> Any:
        return 5

    def describe(self) -> str:
        return "negative"


def test_a_backend_is_one_new_class(newcomers: Path, tmp_path: Path) -> None:
    (newcomers / "toy.py").write_text(TOY)
    run_folder, data = _toy_run(tmp_path)
    model = vidgen.load(run_folder)
    model.backend = Negative()
    session = model.session((tiny.HEIGHT, tiny.WIDTH))
    labels = np.zeros((tiny.HEIGHT, tiny.WIDTH), np.uint8)
    values = [int(session.step(labels)[0, 0, 0]) for _ in range(3)]
    assert values[0] < values[1] < values[2]
    session.reset()
    assert int(session.step(labels)[0, 0, 0]) == values[0]
    saved = model.translate(str(data / "labels" / "clip0")).save(tmp_path / "out.mp4")
    assert saved["runtime"] == "negative"


class Brightness(nn.Module):
    """A discriminator of its own kind: the logit is the mean brightness times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.weight * images[:, -3:].mean((1, 2, 3), keepdim=True)]


def test_a_discriminator_of_another_kind_plays_in_the_shared_adversary() -> None:
    discriminator = Brightness()
    adversary = Adversary(discriminator, "hinge", gan_weight=2.0, prefix="brightness_")
    fake, real = torch.full((1, 3, 4, 4), 0.25, requires_grad=True), torch.full((1, 3, 4, 4), 0.5)
    losses = adversary.generator_losses([fake], real)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx({"brightness_gan": -0.5})
    learned = adversary.discriminator_losses([fake], real)
    assert learned["brightness_discriminator_real"].item() == pytest.approx(0.5 * (1 - 0.5))
    assert learned["brightness_discriminator_fake"].item() == pytest.approx(0.5 * (1 + 0.25))
    sum(learned.values()).backward()
    assert fake.grad is None
    assert discriminator.weight.grad is not None
