"""The environment: versions, processor, devices, file formats by trial, extras, memory and disk."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidgen.errors import DISTRIBUTION, VidgenError, install_hint
from vidgen.inference.backends import choice
from vidgen.inference.backends.graphs import ENGINES, engine_version
from vidgen.media.frames import open_sink, open_source
from vidgen.runtime import bf16_is_fast

PACKAGES = (
    *(DISTRIBUTION, "torch", "torchvision", "kornia", "av", "opencv-python-headless", "numpy", "pillow", "safetensors"),
    *("pydantic", "pyyaml", "click", "rich", "jinja2", "einops"),
)
FORMATS = (".mp4", ".mov", ".mkv", ".webm", ".gif", ".png")
_CPU_FEATURES = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "sve", "neon")


def doctor(folder: Path = Path()) -> dict[str, Any]:
    """What a bug report needs; `folder` is where writing is tested."""
    return {
        "system": {"platform": platform.platform(), "python": sys.version.split()[0], "executable": sys.executable},
        "packages": {name: _version(name) or "missing" for name in PACKAGES},
        "processor": _processor(),
        "devices": _devices(),
        "backends": _backends(),
        "formats": _formats(folder),
        "extras": _extras(),
        "memory_and_disk": {"memory_free_gib": _free_memory_gib(), "disk_free_gib": _free_disk_gib(folder)},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> dict[str, Any]:
    known = torch.cpu.get_capabilities()
    return {
        "name": known.get("cpu_name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads_of_torch": torch.get_num_threads(),
        "features": [name for name in _CPU_FEATURES if known.get(name)],
        "fast_bf16": bf16_is_fast(torch.device("cpu")),
    }


def _devices() -> dict[str, str]:
    devices = {"cpu": "yes"}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        devices["mps"] = "yes"
    return devices


def _backends() -> dict[str, str]:
    """Inference engines, and which of their comparisons with torch are remembered for this processor."""
    results = {"torch": f"{torch.__version__}, always there"}
    here = choice.processor()
    for name in ENGINES:
        version = engine_version(name)
        if version is None:
            results[name] = f"missing: {install_hint('openvino' if name == 'openvino' else 'export')}"
            continue
        compared = [
            f"{entry.get('kind')} {key.rpartition(' | ')[2]} {choice.describe_difference(entry, key)}"
            for key, entry in choice.remembered().items()
            if here in key and f"| {name} {version} |" in key and isinstance(entry, dict)
        ]
        results[name] = f"{version}; compared with torch here: {'; '.join(compared) or 'not yet'}"
    return results


def _formats(folder: Path) -> dict[str, str]:
    """For each suffix, whether a small clip written into `folder` reads back; the reason where it does not."""
    results = {}
    for suffix in FORMATS:
        try:
            with tempfile.TemporaryDirectory(prefix=".vidgen-doctor-", dir=folder) as scratch:
                results[suffix] = _round_trip(Path(scratch) / f"clip{suffix}")
        except VidgenError as error:
            results[suffix] = f"no: {error}"
        except OSError as error:
            results[suffix] = f"no: {folder}: {error.strerror}"
    return results


def _round_trip(path: Path) -> str:
    num_frames = 1 if path.suffix == ".png" else 3
    with open_sink(path, time_base=Fraction(1, 25), frame_rate=Fraction(25)) as sink:
        for index in range(num_frames):
            sink.write(np.full((64, 96, 3), 80 * index, np.uint8), index)
    num_read = sum(1 for _ in open_source(path))
    return "yes" if num_read == num_frames else f"no: read {num_read} of {num_frames} frames back"


def _extras() -> dict[str, str]:
    """For each extra, whether it is installed; else the line that installs it."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return {}
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        match = re.match(r"([\w.-]+).*extra == ['\"]([\w-]+)['\"]", requirement)
        if match and match[1] != DISTRIBUTION:
            missing.setdefault(match[2], []).extend([match[1]] if _version(match[1]) is None else [])
    return {
        extra: f"missing {', '.join(packages)}: {install_hint(extra)}" if packages else "yes" for extra, packages in missing.items()
    }


def _free_memory_gib() -> float | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return round(int(match[1]) / 2**20, 1) if match else None


def _free_disk_gib(folder: Path) -> float | None:
    try:
        return round(shutil.disk_usage(folder).free / 2**30, 1)
    except OSError:
        return None
