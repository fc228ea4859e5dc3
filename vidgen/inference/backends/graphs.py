"""OpenVINO and ONNX Runtime: exported graphs, without torch."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from vidgen.errors import CheckpointError, ConfigError, InputError, MissingExtraError, install_hint
from vidgen.inference.graph import STATE_PREFIX, GraphCard, draw_noise, read_card

EngineName = Literal["openvino", "onnxruntime"]
ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime")
TITLES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "torch": "torch"}
_EXTRAS = {"openvino": "openvino", "onnxruntime": "export"}


def engine_version(name: str) -> str | None:
    """Of an installed engine; None where it is not installed."""
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def require_engine(name: str) -> None:
    """
    Raises:
        MissingExtraError: it is not installed.
    """
    if engine_version(name) is None:
        raise MissingExtraError(f"{TITLES[name]} is not installed", hint=install_hint(_EXTRAS[name]))


def default_threads() -> int:
    """As many as torch would take."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdecimal() and int(stated):
        return int(stated)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Engine(Protocol):
    """A graph that is ready to run.

    Attributes:
        inputs: all names of each, and its shape; free sides are 0. Engines that merge tensors give the result several names.
    """

    precision: Literal["fp32", "bf16"]
    inputs: list[tuple[frozenset[str], tuple[int, ...]]]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name; they stay as they are when it runs again."""
        ...


class OpenVino:
    """A graph in OpenVINO on the processor.

    Args:
        precision: auto takes bf16 where the processor multiplies it in hardware. It is set explicitly either way.
        cache: folder in which compiled graphs are kept; loading one takes a fraction of compiling it.
    """

    def __init__(self, path: Path, precision: Literal["auto", "fp32", "bf16"], threads: int, cache: Path | None) -> None:
        import openvino

        core = openvino.Core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision: Literal["fp32", "bf16"] = "bf16" if precision == "bf16" or (precision == "auto" and has_bf16) else "fp32"
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # A thread that is tied to one core waits for whatever else runs there: 20 times slower on a busy machine.
            "ENABLE_CPU_PINNING": False,
        }
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        try:
            compiled = core.compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: OpenVINO cannot load it ({_first_line(error)})") from error
        self.inputs = [
            (frozenset(port.names), tuple(0 if side.is_dynamic else side.get_length() for side in port.partial_shape))
            for port in compiled.inputs
        ]
        self._names = [sorted(port.names) for port in compiled.outputs]
        self._request = compiled.create_infer_request()

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = self._request.infer(dict(feeds), share_inputs=True, share_outputs=False)
        return {name: results[index] for index, names in enumerate(self._names) for name in names}


class OnnxRuntime:
    """A graph in ONNX Runtime on the processor, in float32."""

    def __init__(self, path: Path, precision: Literal["auto", "fp32", "bf16"], threads: int, cache: Path | None) -> None:
        import onnxruntime

        if precision == "bf16":
            raise ConfigError(
                "`precision` bf16: ONNX Runtime computes these graphs in fp32 on a processor", hint="take OpenVINO for bf16"
            )
        self.precision: Literal["fp32", "bf16"] = "fp32"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Waiting threads that spin would take the cores from decoding, encoding and torch.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's own classes share no base
            raise CheckpointError(f"{path}: ONNX Runtime cannot load it ({_first_line(error)})") from error
        self.inputs = [
            (frozenset({port.name}), tuple(side if isinstance(side, int) else 0 for side in port.shape))
            for port in self._session.get_inputs()
        ]
        self._names = [port.name for port in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))


MAKERS: Mapping[EngineName, Callable[[Path, Literal["auto", "fp32", "bf16"], int, Path | None], Engine]] = {
    "openvino": OpenVino,
    "onnxruntime": OnnxRuntime,
}


@dataclass(frozen=True)
class GraphState:
    """Of a video: the graph's own states, and the number of frames so far."""

    tensors: Mapping[str, np.ndarray]
    num_frames: int


class GraphBackend:
    """Computes the steps of an exported graph; see `vidgen.inference.session.Backend`.

    Args:
        path: of the ONNX file.
        name: the engine.
        threads: of the processor; as many as torch would take by default.
        cache: folder for compiled graphs.

    Raises:
        MissingExtraError: the engine is not installed.
        CheckpointError: the file has no card, does not fit it, or cannot be loaded.
    """

    def __init__(
        self,
        path: Path,
        name: EngineName,
        *,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        require_engine(name)
        self.name = name
        self.card: GraphCard = read_card(path)
        self.threads = threads or default_threads()
        self._engine = MAKERS[name](path, precision, self.threads, cache)
        stated = {port.name for port in (*self.card.inputs, *self.card.noise, *self.card.states)}
        found = {min(names & stated or names): shape for names, shape in self._engine.inputs}
        self.card.require_ports(found, str(path))

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """What it computes in."""
        return self._engine.precision

    def step(self, arrays: Mapping[str, np.ndarray], state: Any, seed: int) -> tuple[np.ndarray, Any]:
        size = self._size(arrays)
        state = state or GraphState({port.name: port.zeros(size) for port in self.card.states}, 0)
        feeds = {
            port.name: (arrays[port.name][:, 0] if port.per_frame else arrays[port.name])
            if port.name in arrays
            else port.zeros(size)  # styles that nobody chose are neutral
            for port in self.card.inputs
        }
        noise = draw_noise(self.card.noise, size, seed, state.num_frames)
        results = self._engine.run({**feeds, **noise, **state.tensors})
        after = {port.name: results[f"{STATE_PREFIX}{port.name}"] for port in self.card.states}
        return results[self.card.output.name][0], GraphState(after, state.num_frames + 1)

    def prime(self, arrays: Mapping[str, np.ndarray], frames: np.ndarray) -> Any:
        """By the names that `Translator.first_state` gives states: inputs of the past, frames of every scale, their count."""
        size = self._size(arrays)
        scales = sorted(port.name for port in self.card.states if port.name.startswith("generated_"))
        levels = [frames]
        while len(levels) < len(scales):
            levels.insert(0, _halved(levels[0]))
        known = dict(zip(scales, levels, strict=False))
        tensors = {}
        for port in self.card.states:
            shape = port.at(size)
            if port.name in known:
                last = known[port.name][-shape[1] :]
                tensors[port.name] = np.concatenate([last[:1]] * (shape[1] - len(last)) + [last])[None].astype(port.dtype)
            elif port.name.startswith("past_"):
                tensors[port.name] = np.ascontiguousarray(np.broadcast_to(arrays[port.name.removeprefix("past_")], shape))
            elif port.name == "num_frames":
                tensors[port.name] = np.full(shape, len(frames), port.dtype)
            else:  # what a translator carries besides, it has not begun to
                tensors[port.name] = port.zeros(size)
        return GraphState(tensors, len(frames)) if self.card.states else None

    def describe(self) -> str:
        return f"{TITLES[self.name]} {engine_version(self.name)}, {self.precision}, {self.threads} threads"

    def _size(self, arrays: Mapping[str, np.ndarray]) -> tuple[int, int]:
        height, width = next(iter(arrays.values())).shape[-2:]
        facts = self.card.facts
        if facts.fixed_size and (height, width) != facts.size:
            stated = f"{facts.size[1]}x{facts.size[0]}"
            raise InputError(f"the input is {width}x{height}, but this exported model takes {stated} alone")
        return height, width


def _halved(frames: np.ndarray) -> np.ndarray:
    """[K,C,H,W] at half the size, as `vidgen.networks.layers.halve` does."""
    padded = np.pad(frames, ((0, 0), (0, 0), (1, 1), (1, 1)))
    counts = np.pad(np.ones(frames.shape[-2:], frames.dtype), 1)
    height, width = frames.shape[-2:]
    windows = [(slice(row, row + height, 2), slice(column, column + width, 2)) for row in range(3) for column in range(3)]
    summed = np.sum([padded[..., rows, columns] for rows, columns in windows], axis=0)
    halved: np.ndarray = summed / np.sum([counts[window] for window in windows], axis=0)
    return halved


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
