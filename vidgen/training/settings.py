"""What the configuration of a run says. Needs no torch."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, create_model

from vidgen import config, translators
from vidgen.config import Settings
from vidgen.data.settings import DataSettings
from vidgen.types import OptimizerName


class FlowSettings(Settings):
    """Where the reference flow of real frames comes from."""

    engine: Literal["dis", "dis-fast", "farneback", "learned", "raft-small", "raft-large", "folder"] = "dis"
    """folder reads flow files that were made before, for instance by `vidgen flow`."""
    weights: Path | None = None
    """Weights file (raft-small and raft-large need one), or the folder that holds a folder of flow files for each sequence."""
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{8,64}$")] | None = None
    """Expected checksum of the weights file, or its first digits."""
    cache: Path | None = None
    """Keep the flow of whole frames in this folder, by content, for later epochs and runs."""


def _old_convention(value: Any) -> Any:
    return "none" if value == "raw" else value


def _named_engine(value: Any) -> Any:
    return {"engine": value} if isinstance(value, str) else value


class TrainSettings(Settings):
    """How a run trains, whatever the model."""

    renamed: ClassVar[Mapping[str, tuple[str, str]]] = {
        "clips_per_step": ("batch_size", "0.3.0"),
        "clips_at_once": ("micro_batch_size", "0.3.0"),
        "average_decay": ("ema_decay", "0.3.0"),
        "gradient_clip": ("max_grad_norm", "0.3.0"),
        "max_bad_steps": ("max_nonfinite_steps", "0.3.0"),
        "perceptual_weights": ("pretrained.vgg19", "0.3.0"),
        "perceptual_convention": ("perceptual_input_normalization", "0.3.0"),
    }

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Clips per training step over all processes."""
    micro_batch_size: Annotated[int, Field(ge=1)] = 1
    """Clips that go through the network together; more need more memory."""
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """Length of the unit that schedules count in; by default one pass over the sequences."""
    init: str | None = None
    """Start from the weights of this model: a run folder, a weights file, or a model that comes with vidgen, such as street-world.
    Classes start from those of the same name, or from similar ones."""
    stretch: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the length of every stage of the schedule; a time limit sets it to what fits."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Train this many steps: stop in the middle of the schedule, or make its last stage longer."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto takes bf16 where the processor computes it fast."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep an exponential moving average of the generator with this decay; translation then uses it."""
    optimizer: OptimizerName = "adam"
    """Of the generator. muon: kernels of convolutions learn by orthogonalized momentum, everything else by Adam; painting by style
    gains by it, label maps and edges are drawn as well by either. Discriminators always learn by Adam."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm per phase."""
    max_nonfinite_steps: Annotated[int, Field(ge=0)] = 5
    """Steps in a row that may be skipped because a loss or gradient is not finite."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 200
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    sample_every_steps: Annotated[int, Field(ge=0)] = 200
    """Write a picture strip and a short clip to samples/ so often; 0 never."""
    sample_frames: Annotated[int, Field(ge=1)] = 8
    pretrained: Mapping[str, Path] = Field(default_factory=dict)
    """Weights files of pretrained networks by name, such as `vgg19: vgg19-dcbb9e9d.pth` (torchvision's state dict) for
    model.losses.perceptual_weight; those that an installed package carries need none."""
    perceptual_input_normalization: Annotated[Literal["none", "imagenet"], BeforeValidator(_old_convention)] = "none"
    """none feeds images in -1..1 to VGG-19 as they are, as pix2pixHD and vid2vid do."""
    flow: Annotated[FlowSettings, BeforeValidator(_named_engine)] = FlowSettings()
    """Reference flow of real frames; `flow: learned` is short for `flow: {engine: learned}`."""
    process_timeout_minutes: Annotated[float, Field(gt=0)] = 5.0
    """With several processes: end where another one is silent for so long. A checkpoint or sample may not take longer."""
    tensorboard: bool = False
    """Also log to TensorBoard (needs the extra `track`)."""


class RunSettings(Settings):
    """A complete run. `model` is one of the translators' configurations, told apart by its `kind`."""

    model: Any
    data: DataSettings
    train: TrainSettings = TrainSettings()


@functools.cache
def run_schema() -> type[RunSettings]:
    """`RunSettings` with `model` typed as the union of all translators' configurations."""
    configs = [module.Config for module in translators.declarations().values()]
    union = functools.reduce(operator.or_, configs)
    annotation = Annotated[union, Field(discriminator="kind")] if len(configs) > 1 else union
    return create_model("Run", __base__=RunSettings, model=(annotation, ...))  # type: ignore[arg-type]


def load_run_config(path: Path, sets: list[str]) -> RunSettings:
    """Read a run's configuration file.

    Raises:
        ConfigError: any fault in it, each with its place.
    """
    settings: RunSettings = config.load(path, run_schema(), sets)
    return settings
