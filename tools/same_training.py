"""Whether two versions of the source train alike: the same short run of every translator in both, compared to the last digit.

    python tools/same_training.py --before HEAD~5
    python tools/same_training.py --before ../older --translators vid2vid,singan

What a refactor must leave alone is a number: every loss of every step. Both versions learn from the same small procedural street,
in processes of their own, with one thread and fp32; a commit is checked out into a temporary worktree. Prints a table and exits
with 1 where anything differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]

RENAMED_KEYS: dict[str, str] = {}
"""Keys of the configurations below that a version may call otherwise: `model.old.name` -> `model.new.name`."""

RENAMED_LOSSES: dict[str, str] = {}
"""Losses that a version may call otherwise: old name -> new name."""

IGNORED = ("seconds", "time", "stage", "clips_per_second", "frames_per_second")
"""Keys of a line of metrics that are no result: times, and the names of stages, which are words for people."""

TRAIN: dict[str, Any] = {
    "seed": 3,
    "steps_per_epoch": 2,
    "clips_per_step": 2,
    "average_decay": 0.9,
    "gradient_clip": 50.0,
    "checkpoint_every_steps": 6,
    "sample_every_steps": 0,
    "precision": "fp32",
}
CONDITION = {"labels": {"table": "street"}, "instances": "instances"}
SEVERAL = {"width": 64, "height": 32, "condition": CONDITION, "max_frame_step": 2}
ONE = {"target": "images/one/00000.png", "flip": False, "condition": {}}
ONE_UPDATE = {"num_discriminator_steps": 1}
"""0.1 threw a step's first fake away where a phase had several updates in it; with one, it trained as later versions do."""

CONFIGS: dict[str, dict[str, Any]] = {
    # without the past, with it, the finer scale alone, both; discriminators of motion, of the road, a foreground of their own
    "vid2vid": {
        "model": {
            "kind": "vid2vid",
            "generator": {
                "base_channels": 8,
                "num_downsamplings": 2,
                "num_blocks": 2,
                "num_local_blocks": 1,
                "num_scales": 2,
                "foreground_labels": [3],
            },
            "discriminators": {
                "base_channels": 8,
                "num_layers": 2,
                "num_temporal_scales": 2,
                "num_temporal_frames": 2,
                "region": {"labels": [0]},
            },
            "losses": {"l1_weight": 2.0, "mask_weight": 1.0},
            "past": {"noise": 0.1, "dropout": 0.3},
            "two_time_scales": True,
            "growth": [
                {
                    "epochs": 2,
                    "decay_epochs": 1,
                    "clip_frames": 4,
                    "window_frames": 2,
                    "max_window_frames": 2,
                    "grow_every_epochs": 2,
                    "max_clip_frames": 6,
                    "max_backpropagate_frames": 2,
                    "frame_only_epochs": 1,
                },
                {"epochs": 2, "decay_epochs": 1, "clip_frames": 4, "window_frames": 2, "finest_only_epochs": 1},
            ],
        },
        "data": SEVERAL,
        "train": {**TRAIN, "perceptual_weights": "VGG19"},
    },
    "pix2pixhd": {
        "model": {
            "kind": "pix2pixhd",
            "generator": {"base_channels": 8, "num_downsamplings": 2, "num_blocks": 1, "num_enhancers": 1, "num_local_blocks": 1},
            "encoder": {"base_channels": 4, "num_downsamplings": 2},
            "discriminators": {"base_channels": 8, "num_layers": 2, "pool_size": 3},
            "losses": {"l1_weight": 2.0, "gradient_weight": 1.0},
            "growth": [
                {"epochs": 2, "decay_epochs": 0},
                {"epochs": 2, "decay_epochs": 2, "finest_only_epochs": 1},
            ],
        },
        "data": SEVERAL,
        "train": {**TRAIN, "perceptual_weights": "VGG19"},
    },
    "pix2pix": {
        "model": {
            "kind": "pix2pix",
            "generator": {"base_channels": 8, "num_downsamplings": 5},
            "discriminator": {"base_channels": 8, "num_layers": 2},
            "schedule": {"epochs": 3, "decay_epochs": 3},
        },
        "data": SEVERAL,
        "train": TRAIN,
    },
    "pix2pix wasserstein": {
        "model": {
            "kind": "pix2pix",
            "generator": {"network": "resnet", "base_channels": 8, "num_blocks": 2},
            "discriminator": {"network": "pixel", "base_channels": 8, "objective": "wasserstein"},
            "schedule": {"epochs": 3, "decay_epochs": 3},
        },
        "data": SEVERAL,
        "train": TRAIN,
    },
    "singan": {
        "model": {
            "kind": "singan",
            "max_size": 48,
            "min_size": 18,
            "base_channels": 8,
            "steps_per_scale": 4,
            "decay_at": 0.5,
            "border": "noise",
            "num_kept_cascades": 2,
            **ONE_UPDATE,
            "num_generator_steps": 1,
        },
        "data": ONE,
        "train": {**TRAIN, "clips_per_step": 1},
    },
    "consingan": {
        "model": {
            "kind": "consingan",
            "max_size": 48,
            "min_size": 18,
            "base_channels": 8,
            "num_stages": 3,
            "num_concurrent_stages": 2,
            "steps_per_scale": 4,
            "decay_at": 0.5,
            **ONE_UPDATE,
        },
        "data": ONE,
        "train": {**TRAIN, "clips_per_step": 1},
    },
}

_MAKE_DATA = """
import sys
from pathlib import Path
import torch
from torchvision.models import vgg19
from vidgen.data.street import Street, write_clip
folder = Path(sys.argv[1])
for seed in range(2):
    write_clip(folder, Street(seed, 48, 96, 12), 12)
write_clip(folder / "single", Street(7, 64, 96, 12), 1, sequence="one")
torch.manual_seed(0)
network = vgg19(weights=None).features
torch.save({f"features.{name}": value for name, value in network.state_dict().items()}, folder / "vgg19.pth")
"""


@dataclass(frozen=True)
class Run:
    """What a run left: its lines of metrics, and how often each tensor is in its last checkpoint, by hash."""

    lines: list[dict[str, Any]]
    tensors: Counter[str]


@contextmanager
def checkout(before: str) -> Iterator[Path]:
    """A folder with the source of a commit, or the folder itself.

    Raises:
        click.ClickException: there is neither such a folder nor such a commit.
    """
    if Path(before).is_dir():
        yield Path(before).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="before-") as parent:
        folder = Path(parent) / "tree"
        made = subprocess.run(
            ["git", "worktree", "add", "--detach", "--quiet", str(folder), before], cwd=REPOSITORY, capture_output=True, text=True
        )
        if made.returncode:
            raise click.ClickException(f"--before {before}: neither a folder nor a commit ({made.stderr.strip()})")
        try:
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=REPOSITORY, check=True)


def _python(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """This interpreter on `tree`'s source, with one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **one, "PYTHONPATH": str(tree), "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True)


def _renamed(config: Any, names: dict[str, str], prefix: str = "") -> Any:
    """`config` with every key that `names` renames, by full name, under its new name (its last part)."""
    if isinstance(config, list):
        return [_renamed(item, names, prefix) for item in config]
    if not isinstance(config, dict):
        return config
    result = {}
    for key, value in config.items():
        full = f"{prefix}.{key}" if prefix else key
        result[names.get(full, full).rsplit(".", 1)[-1]] = _renamed(value, names, full)
    return result


def train(tree: Path, name: str, data: Path, folder: Path, num_steps: int) -> Run:
    """Train `name` for some steps with the source in `tree`; keys are tried as they are and then renamed.

    Raises:
        click.ClickException: neither was accepted, or training failed.
    """
    config = json.loads(json.dumps(CONFIGS[name]).replace('"VGG19"', json.dumps(str(data / "vgg19.pth"))))
    config["data"]["root"] = str(data / "single" if config["data"]["condition"] == {} else data)
    said = ""
    for names in ({}, RENAMED_KEYS) if RENAMED_KEYS else ({},):
        path = folder / "run.yaml"
        path.write_text(yaml.safe_dump(_renamed(config, names)))
        command = ["-m", "vidgen", "train", str(path), "-o", str(folder / "run"), "--device", "cpu", "--threads", "1"]
        ended = _python(tree, *command, "--steps", str(num_steps))
        if ended.returncode == 0:
            return read(folder / "run")
        said = said or ended.stderr.strip()
    raise click.ClickException(f"{name} does not train in {tree}:\n{said}")


def read(folder: Path) -> Run:
    """What a run left in its folder."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    newest = max(path for path in (folder / "checkpoints").iterdir() if path.is_dir())
    tensors: Counter[str] = Counter()
    for path in sorted(newest.glob("*.safetensors")):
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        for key, entry in json.loads(content[8:start]).items():
            if key != "__metadata__":
                first, stop = entry["data_offsets"]
                tensors[hashlib.sha256(content[start + first : start + stop]).hexdigest()] += 1
    return Run(lines, tensors)


def values(line: dict[str, Any]) -> dict[str, Any]:
    """All that counts of a line of metrics, flat; losses by their new names."""
    flat = {key: value for key, value in line.items() if key not in (*IGNORED, "losses")}
    return flat | {RENAMED_LOSSES.get(name, name): value for name, value in line["losses"].items()}


def first_difference(before: Run, after: Run) -> str | None:
    """Where two runs part, in words; None where they never do."""
    if len(before.lines) != len(after.lines):
        return f"{len(before.lines)} steps, then {len(after.lines)}"
    for one, other in zip(before.lines, after.lines, strict=True):
        old, new = values(one), values(other)
        for key in sorted({*old, *new}, key=lambda key: (key not in ("step", "learning_rate"), key)):
            if repr(old.get(key)) != repr(new.get(key)):  # also where both are not a number
                return f"step {one['step']}, {key}: {old.get(key)!r}, then {new.get(key)!r}"
    return None


@click.command(help=__doc__)
@click.option("--before", required=True, metavar="COMMIT|FOLDER", help="The version to compare this one with.")
@click.option("--steps", "num_steps", default=12, show_default=True, type=click.IntRange(min=1), help="Steps of each run.")
@click.option("--translators", default=",".join(CONFIGS), show_default=True, help="Which runs, by commas.")
def main(before: str, num_steps: int, translators: str) -> None:
    """Run, compare, print."""
    names = [name.strip() for name in translators.split(",") if name.strip()]
    unknown = [name for name in names if name not in CONFIGS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]}: is none of {', '.join(CONFIGS)}", param_hint="--translators")
    table = Table("translator", "steps", "losses", "compared", "identical", "tensors alike", "first difference")
    different, started = False, time.monotonic()
    console = Console(stderr=True)
    with checkout(before) as old_tree, tempfile.TemporaryDirectory(prefix="same-training-") as work:
        data = Path(work) / "data"
        made = _python(REPOSITORY, "-c", _MAKE_DATA, str(data))
        if made.returncode:
            raise click.ClickException(f"no data could be made:\n{made.stderr}")
        for name in names:
            runs = []
            for which, tree in (("before", old_tree), ("after", REPOSITORY)):
                console.print(f"{name}, {which}: {time.monotonic() - started:.0f} s", style="dim")
                folder = Path(work) / which / name.replace(" ", "_")
                folder.mkdir(parents=True)
                runs.append(train(tree, name, data, folder, num_steps))
            difference = first_difference(*runs)
            different = different or difference is not None
            losses = {key for line in runs[0].lines for key in line["losses"]}
            compared = sum(len(values(line)) for line in runs[0].lines)
            shared, total = (runs[0].tensors & runs[1].tensors).total(), runs[0].tensors.total()
            table.add_row(
                name,
                str(len(runs[0].lines)),
                str(len(losses)),
                str(compared),
                "no" if difference else "yes",
                f"{shared} of {total}",
                difference or "",
            )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in good order removes the temporary folders
    main()
