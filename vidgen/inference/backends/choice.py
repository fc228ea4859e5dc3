"""Which backend a model runs on here: what was asked for, if it is installed and gives the frames that torch gives.

The comparison takes two frames and is remembered by graph, processor and versions. Whatever is not taken is said, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

import vidgen
from vidgen import durable
from vidgen.errors import OutputError
from vidgen.inference.backends.graphs import TITLES, EngineName, GraphBackend, engine_version
from vidgen.inference.graph import probe_frames, probe_inputs, with_time

log = logging.getLogger(__name__)

BackendName = Literal["auto", "torch", "openvino", "onnxruntime"]
LIMITS = {"fp32": 0.002, "bf16": 0.03}
"""Largest mean difference to torch in float32, in units of the -1..1 range, that counts as the same frames."""


@dataclass(frozen=True)
class Choice:
    """What a model runs on, for reports.

    Attributes:
        backend: torch, openvino or onnxruntime.
        precision: fp32 or bf16.
        why: the reason, in words.
    """

    backend: str
    precision: str
    why: str

    def to_dict(self) -> dict[str, str]:
        """As JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """Of a comparison with torch.

    Attributes:
        difference: mean difference of two frames.
        limit: how large it may be.
        milliseconds: of the second frame.
        remembered: whether it is of an earlier time.
        instead_of: that of bf16, where it did not pass.
    """

    difference: float
    limit: float
    milliseconds: float
    remembered: bool = False
    instead_of: Verdict | None = None

    @property
    def passed(self) -> bool:
        """Whether the frames are those of torch."""
        return self.difference <= self.limit

    def describe(self) -> str:
        """In words."""
        text = f"mean difference to torch {self.difference:.4f}, limit {self.limit}{', remembered' if self.remembered else ''}"
        return text if self.instead_of is None else f"{text}; fp32, since of bf16 it is {self.instead_of.difference:.4f}"


def cache_folder() -> Path:
    """Where prepared graphs and remembered comparisons are kept: vidgen's folder under XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return Path(home) / "vidgen" if os.path.isabs(home) else Path.home() / ".cache" / "vidgen"


def graph_place(weights_sha256: str) -> Path:
    """Where the graph of these weights is kept once it is prepared."""
    return cache_folder() / "graphs" / f"{weights_sha256[:32]}-{vidgen.__version__}.onnx"


def memory_place() -> Path:
    """The file of remembered comparisons."""
    return cache_folder() / "backends.json"


def has_accelerator() -> bool:
    """Whether torch may find a GPU here, told without loading it."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists() or sys.platform == "darwin"


def processor() -> str:
    """Name and instruction sets of the processor, as one line that is another one on another machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    flags = hashlib.sha256(found.get("flags", found.get("Features", "")).encode()).hexdigest()[:12]
    name = found.get("model name", platform.machine())
    return f"{name}, family {found.get('cpu family')}, model {found.get('model')}, flags {flags}"


def compare(backend: GraphBackend) -> Verdict:
    """Two frames of the graph's card, computed here.

    Raises:
        Exception: whatever the engine raises.
    """
    check, card = backend.card.check, backend.card
    state, differences, milliseconds = None, [], 0.0
    for moment in range(2):
        arrays = with_time(card.inputs, probe_inputs(card.inputs, check.size, moment), check.size)
        if card.states and moment == 0:
            state = backend.prime(arrays, probe_frames(check.size))
        started = time.perf_counter()
        frame, state = backend.step(arrays, state, 0)
        milliseconds = 1000 * (time.perf_counter() - started)
        differences.append(np.abs(frame - check.frames[moment]).mean())
    difference = float(np.mean(differences))
    return Verdict(difference if np.isfinite(difference) else float("inf"), LIMITS[backend.precision], round(milliseconds, 2))


def verdict_of(backend: GraphBackend) -> Verdict:
    """`compare`, or what it said before on this processor with these versions."""
    key = key_of(backend.card.hashes.get("weights", "")[:32], backend.name, backend.precision)
    known = remembered().get(key)
    if isinstance(known, dict) and {"difference", "milliseconds"} <= known.keys():
        return Verdict(float(known["difference"]), LIMITS[backend.precision], float(known["milliseconds"]), remembered=True)
    verdict = compare(backend)
    remember(key, {"difference": verdict.difference, "milliseconds": verdict.milliseconds, "kind": backend.card.facts.kind})
    return verdict


def same_frames(
    path: Path, name: EngineName, precision: Literal["auto", "fp32", "bf16"], *, threads: int | None, cache: Path | None = None
) -> tuple[GraphBackend, Verdict]:
    """A graph on an engine in the fastest precision that gives torch's frames here; where none does, the last that was tried.

    Args:
        precision: auto tries bf16 where the processor has it, and float32 where that is not torch's.

    Raises:
        CheckpointError: the graph cannot be loaded.
        ConfigError: the engine does not compute in that precision.
    """
    graph = GraphBackend(path, name, precision=precision, threads=threads, cache=cache)
    verdict = verdict_of(graph)
    if precision == "auto" and graph.precision == "bf16" and not verdict.passed:
        log.info("%s in bf16 is not used: %s; fp32 is tried", TITLES[name], verdict.describe())
        graph = GraphBackend(path, name, precision="fp32", threads=threads, cache=cache)
        exact = verdict_of(graph)
        return graph, replace(exact, instead_of=verdict)
    return graph, verdict


def remembered() -> dict[str, Any]:
    """All comparisons so far; a file that cannot be read is none."""
    try:
        values = json.loads(memory_place().read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def describe_difference(entry: Mapping[str, Any], key: str) -> str:
    """A remembered comparison in words."""
    limit = LIMITS["bf16" if key.endswith("bf16") else "fp32"]
    difference = float(entry.get("difference", "inf"))
    return f"{'the same' if difference <= limit else 'other'} frames (mean difference {difference:.4f})"


def remember(key: str, entry: dict[str, Any]) -> None:
    """Keep a comparison for later."""
    try:
        memory_place().parent.mkdir(parents=True, exist_ok=True)
        durable.write_json(memory_place(), {**remembered(), key: entry})
    except (OSError, OutputError) as error:
        log.debug("the comparison cannot be remembered: %s", error)


def key_of(weights: str, name: str, precision: str) -> str:
    """What a comparison is remembered by: another processor or version is another one."""
    return f"{weights} | {processor()} | {name} {engine_version(name)} | vidgen {vidgen.__version__} | {precision}"
