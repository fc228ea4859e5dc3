"""Training of the flow network: supervised on synthetic pairs, then without truth on the frames of a user's own video.

A step is a pure function of (seed, step) and the weights before it, so a resumed run is the same run, bit for bit on one machine.
A run lives in a folder: `last.safetensors` (everything needed to go on), `weights.safetensors` (the network alone), `log.jsonl`.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors
from torch import Tensor, nn

from flow.engines import load_network
from flow.errors import FlowError
from flow.files import write_atomically
from flow.losses import endpoint_error, multilevel_loss, unsupervised_loss
from flow.network import FlowNetwork
from flow.pixels import normalize
from flow.synthetic import KnownPair, Scenes, Texture

messages = logging.getLogger(__name__)

CHECKPOINT = "last.safetensors"
WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"
LOCK = "run.lock"
"""Callers may hold a lock file of this name in the folder of a run."""
_SIZE_MULTIPLE = 16
_FINAL_LEARNING_RATE_SHARE = 0.01
_MAX_GRADIENT_NORM = 1.0
_NUM_HELD_OUT = 16
_HALVING_FROM = 128

StepLosses = Callable[[FlowNetwork, int], dict[str, Tensor]]
"""(network, step) -> name -> scalar, already weighted; the sum is minimized."""

Evaluation = Callable[[FlowNetwork], dict[str, float]]
"""network -> name -> number for the log."""


Follow = Callable[[range], Iterable[int]]
"""The steps to do -> the same, one by one."""


@dataclass(frozen=True)
class TrainConfig:
    """How long and on what to train.

    Attributes:
        num_steps: steps of the whole run; the learning rate falls to 1 % over them, along a cosine.
        batch_size: pairs per step.
        height, width: of the training images or crops, multiples of 16.
        learning_rate: the highest, reached after `warmup_steps`.
        weight_decay: AdamW's.
        motion_scale, known_share: see `Scenes`; synthetic training only.
        smoothness_weight: see `unsupervised_loss`; fine-tuning only.
        precision: "bfloat16" runs the convolutions in it where that is fast; costs and losses stay float32.
        seed: another seed, another run.
        checkpoint_every_steps: how often the run is saved and evaluated.
    """

    num_steps: int = 20_000
    batch_size: int = 4
    height: int = 160
    width: int = 192
    learning_rate: float = 8e-4
    warmup_steps: int = 300
    weight_decay: float = 1e-4
    motion_scale: float = 3.0
    known_share: float = 0.3
    smoothness_weight: float = 0.2
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    checkpoint_every_steps: int = 500

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "height", "width", "learning_rate", "checkpoint_every_steps"):
            if not getattr(self, name) > 0:
                raise FlowError(f"{name}: must be above 0, got {getattr(self, name)}")
        if self.height % _SIZE_MULTIPLE or self.width % _SIZE_MULTIPLE:
            raise FlowError(f"height and width: must be multiples of {_SIZE_MULTIPLE}, got {self.height}x{self.width}")
        if self.precision not in ("float32", "bfloat16"):
            raise FlowError(f"precision: must be float32 or bfloat16, got {self.precision!r}")


def train_supervised(
    folder: Path | str,
    config: TrainConfig,
    *,
    textures: Sequence[Texture] = (),
    known_pairs: Sequence[KnownPair] = (),
    initial: Path | str | None = None,
    evaluate: Evaluation | None = None,
    device: str = "cpu",
    follow: Follow = iter,
) -> Path:
    """Train on synthetic pairs, or go on with the run that `folder` holds.

    Args:
        folder: of the run.
        config: must be the one the run began with, if it is resumed.
        textures: pictures for the layers, besides procedural ones; `flow.synthetic.read_textures` reads a folder.
        known_pairs: pairs with known flow to mix in, `config.known_share` of all; at least as large as the training images.
        initial: weights to begin with; not used on resume.
        evaluate: called at every checkpoint; its numbers go to the log next to the error on held-out synthetic pairs.
        device: of torch.
        follow: takes the steps that are to be done and gives them one by one, so that it can show how far the run is.

    Returns:
        The weights file.

    Raises:
        FlowError: the folder holds another run, the loss is not finite, or a file cannot be read or written.
    """
    scenes = Scenes(
        config.height,
        config.width,
        textures,
        config.seed,
        motion_scale=config.motion_scale,
        known_pairs=known_pairs,
        known_share=config.known_share,
    )
    held_out = Scenes(config.height, config.width, (), config.seed + 1).batch(0, _NUM_HELD_OUT)

    def losses(network: FlowNetwork, step: int) -> dict[str, Tensor]:
        pairs = scenes.batch(step, config.batch_size)
        first, second, truth, visible = (value.to(device) for value in (pairs.first, pairs.second, pairs.flow, pairs.visible))
        with _precision(config, device):
            flows = network.pyramid(first, second, num_halvings=_draw_num_halvings(config, step))
        return {"endpoint": multilevel_loss(flows, truth, visible)}

    def evaluate_all(network: FlowNetwork) -> dict[str, float]:
        flow = network(held_out.first.to(device), held_out.second.to(device)).cpu()
        error = float(endpoint_error(flow, held_out.flow, held_out.visible))
        return {"held_out_endpoint_error": error, **(evaluate(network) if evaluate else {})}

    return _run(Path(folder), config, losses, evaluate_all, initial, device, follow)


def fine_tune(
    folder: Path | str,
    config: TrainConfig,
    clip: Tensor,
    *,
    initial: Path | str | None = None,
    evaluate: Evaluation | None = None,
    device: str = "cpu",
    follow: Follow = iter,
) -> Path:
    """Adapt the network to a video without truth (census, smoothness, occlusion), or go on with the run in `folder`.

    Args:
        clip: uint8 [T,3,H,W] RGB, T at least 2, at least `config.height` x `config.width`; consecutive frames are pairs.

    The other arguments, the result and the errors are those of `train_supervised`.
    """
    if clip.ndim != 4 or clip.shape[1] != 3 or clip.dtype != torch.uint8 or len(clip) < 2:
        raise FlowError(f"clip: must be uint8 [T,3,H,W] with 2 frames or more, got {clip.dtype} {tuple(clip.shape)}")
    if clip.shape[2] < config.height or clip.shape[3] < config.width:
        raise FlowError(f"clip: {clip.shape[3]}x{clip.shape[2]} is smaller than the crops of {config.width}x{config.height}")

    def losses(network: FlowNetwork, step: int) -> dict[str, Tensor]:
        first, second = (images.to(device) for images in _draw_crops(clip, config, step))
        with _precision(config, device):
            forward, backward = network(torch.cat([first, second]), torch.cat([second, first])).chunk(2)
        return unsupervised_loss(first, second, forward, backward, smoothness_weight=config.smoothness_weight)

    return _run(Path(folder), config, losses, evaluate or (lambda network: {}), initial, device, follow)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step: a linear warm-up, then a cosine down to 1 %."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.num_steps - config.warmup_steps)
    share = _FINAL_LEARNING_RATE_SHARE + (1 - _FINAL_LEARNING_RATE_SHARE) * (1 + math.cos(math.pi * progress)) / 2
    return config.learning_rate * share


def _run(
    folder: Path,
    config: TrainConfig,
    losses: StepLosses,
    evaluate: Evaluation,
    initial: Path | str | None,
    device: str,
    follow: Follow,
) -> Path:
    check_folder(folder)
    network = _new_network(config, initial).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    start = _resume(folder, config, network, optimizer)
    log = _read_log(folder, start)
    if start == config.num_steps:  # it may have been stopped between the last two files
        _save(folder, config, network, optimizer, start, log)
    began = time.monotonic()
    for step in follow(range(start, config.num_steps)):
        values = _step(network, optimizer, losses, learning_rate(config, step), step)
        done = step + 1
        if done % config.checkpoint_every_steps == 0 or done == config.num_steps:
            values |= _evaluated(network, evaluate)
            log.append(json.dumps({"step": done, "seconds": round(time.monotonic() - began, 1), **values}))
            _save(folder, config, network, optimizer, done, log)
            messages.info(
                "step %d of %d: %s", done, config.num_steps, ", ".join(f"{name} {value:.3f}" for name, value in values.items())
            )
    return folder / WEIGHTS


def _step(network: FlowNetwork, optimizer: torch.optim.Optimizer, losses: StepLosses, rate: float, step: int) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    terms = losses(network, step)
    torch.stack(list(terms.values())).sum().backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), _MAX_GRADIENT_NORM)
    if not norm.isfinite():
        raise FlowError(
            f"step {step}: the gradient is not finite", hint="go on from the last checkpoint with a lower learning_rate"
        )
    optimizer.step()
    return {name: float(term.detach()) for name, term in terms.items()}


@torch.no_grad()
def _evaluated(network: FlowNetwork, evaluate: Evaluation) -> dict[str, float]:
    network.eval()
    values = evaluate(network)
    network.train()
    return values


def _new_network(config: TrainConfig, initial: Path | str | None) -> FlowNetwork:
    if initial is not None:
        return load_network(initial).requires_grad_(True).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return FlowNetwork()


def _draw_num_halvings(config: TrainConfig, step: int) -> int:
    """Every other step starts from images of half the size, as large images do in use."""
    enough = min(config.height, config.width) >= _HALVING_FROM
    return int(enough and np.random.default_rng([config.seed, step]).random() < 0.5)


def _draw_crops(clip: Tensor, config: TrainConfig, step: int) -> tuple[Tensor, Tensor]:
    """Consecutive frames of a clip, cropped alike, the pair in either order: two float [N,3,H,W] in -1..1."""
    random = np.random.default_rng([config.seed, step])
    firsts, seconds = [], []
    for _ in range(config.batch_size):
        time_index = int(random.integers(len(clip) - 1))
        top = int(random.integers(clip.shape[2] - config.height + 1))
        left = int(random.integers(clip.shape[3] - config.width + 1))
        pair = clip[time_index : time_index + 2, :, top : top + config.height, left : left + config.width]
        first, second = pair.flip(0) if random.random() < 0.5 else pair
        firsts.append(first)
        seconds.append(second)
    first, second = (normalize(torch.stack(images)) for images in (firsts, seconds))
    return first, second


def _save(
    folder: Path, config: TrainConfig, network: FlowNetwork, optimizer: torch.optim.Optimizer, step: int, log: list[str]
) -> None:
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    tensors = {f"network.{name}": value for name, value in weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{name}": value.cpu().contiguous() for name, value in state.items()})
    # One entry, since safetensors writes several in random order: equal weights, equal bytes.
    metadata = {"training": json.dumps({"step": step, "config": asdict(config)})}
    write_atomically(folder / LOG, "".join(line + "\n" for line in log).encode())
    write_atomically(folder / CHECKPOINT, format_safetensors(tensors, metadata))
    write_atomically(folder / WEIGHTS, format_safetensors(weights, metadata))


def _resume(folder: Path, config: TrainConfig, network: FlowNetwork, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint of `folder`, if there is one; the number of steps done."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        tensors = parse_safetensors(path.read_bytes())
        if "training" in metadata:
            training = json.loads(metadata["training"])
            step, before = int(training["step"]), training["config"]
        else:  # of 0.1
            step, before = int(metadata["step"]), json.loads(metadata["config"])
    except Exception as error:
        raise FlowError(f"{path}: is no checkpoint of a flow training ({type(error).__name__})") from error
    changed = [f"{name} was {before.get(name)}, is {value}" for name, value in asdict(config).items() if before.get(name) != value]
    if changed:
        raise FlowError(f"{path}: began with another configuration ({'; '.join(changed)})", hint="choose another folder")
    network.load_state_dict(
        {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    )
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds other things and no run.

    Raises:
        FlowError: it does, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FlowError(f"{folder}: is a file, not a folder", hint="choose another folder for the run")
    if not folder.is_dir() or (folder / CHECKPOINT).is_file():
        return
    entries = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != LOCK)
    if entries == [LOG] and _read_log(folder, 1 << 62):  # stopped within its first save
        return
    if entries:
        raise FlowError(
            f"{folder}: holds no run, but other things, such as {entries[0]!r}; it is left alone", hint="choose another folder"
        )


def _read_log(folder: Path, step: int) -> list[str]:
    """The lines of the log up to `step`; those that cannot be read are left out."""
    path = folder / LOG
    if not step or not path.is_file():
        return []
    lines = []
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                lines.append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return lines


def _precision(config: TrainConfig, device: str) -> torch.autocast:
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16")
