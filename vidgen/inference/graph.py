"""Exported graphs: ONNX files that hold one step of a model, and in their metadata a card that says all there is to know of it.

The card is JSON under the key `vidgen`:

- `format`, `vidgen`: of the card, and the version that wrote it;
- `inputs`, `noise`, `states`, `outputs`: tensors by name, each with its type, its shape (numbers, or "height", "width",
  "height/2", ...), and what it is; a state goes in under its name and comes out as `next_NAME`; a video begins with zeros;
- `model`: the facts of `vidgen.inference.facts`: condition, label table, size, multiple;
- `hashes`: SHA-256 of the weights it was made from, and of pretrained networks;
- `check`: how far the graph was from torch when it was exported, and two frames of torch to compare with anywhere.

Nothing here needs torch, nor a library for ONNX: the metadata of a file are found by its framing alone.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidgen.errors import CheckpointError, ConfigError
from vidgen.inference.facts import Facts

FORMAT = 1
"""Of the card."""
METADATA_KEY = "vidgen"
STATE_PREFIX = "next_"
"""What the name of a state that comes out begins with."""

Size = tuple[int, int]
_METADATA_FIELD = 14  # ModelProto.metadata_props, of the ONNX standard
_GRAPH_FIELD = 7
_LARGEST_CARD = 64 * 2**20
_HALF_RANGE = 32767


@dataclass(frozen=True)
class Port:
    """A tensor that goes into a graph or comes out of it.

    Attributes:
        name: its name in the graph.
        dtype: of numpy.
        shape: numbers, or multiples of the frame's sides, such as "height", "width/2".
        about: what else the card says of it: kind and range of an input, distribution and seed of noise.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def per_frame(self) -> bool:
        """Whether every frame has its own, rather than the whole video."""
        return bool(self.about.get("per_frame", True))

    def at(self, size: Size) -> tuple[int, ...]:
        """The shape for frames of `size` (height, width)."""
        sides = {"height": size[0], "width": size[1]}
        return tuple(_length(item, sides) for item in self.shape)

    def zeros(self, size: Size) -> np.ndarray:
        """Zeros of its type and shape."""
        return np.zeros(self.at(size), self.dtype)

    def to_dict(self) -> dict[str, Any]:
        """As the card holds it."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), **self.about}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Port:
        """The reverse of `to_dict`."""
        others = {name: value for name, value in values.items() if name not in ("name", "dtype", "shape")}
        return Port(values["name"], np.dtype(values["dtype"]).name, tuple(values["shape"]), others)


def _length(item: int | str, sides: Mapping[str, int]) -> int:
    if isinstance(item, int):
        return item
    name, _, divisor = item.partition("/")
    return sides[name] // int(divisor or 1)


@dataclass(frozen=True)
class Check:
    """Two frames of torch in float32, for comparison wherever the graph runs.

    Attributes:
        size: (height, width) of the frames.
        frames: [2,3,H,W] in -1..1, stored in 16 bits.
        difference: largest difference of the graph to torch when it was exported, on random and on blocky input.
        tolerance: how large that may have been.
        real_difference: the same on real input, where some was given.
    """

    size: Size
    frames: np.ndarray
    difference: float
    tolerance: float
    real_difference: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As the card holds it."""
        packed = np.rint((self.frames + 1) * _HALF_RANGE).clip(0, 2 * _HALF_RANGE).astype("<u2")
        return {
            "size": list(self.size),
            "frames": base64.b64encode(zlib.compress(packed.tobytes(), 9)).decode(),
            "difference": self.difference,
            "tolerance": self.tolerance,
            "real_difference": self.real_difference,
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Check:
        """The reverse of `to_dict`."""
        height, width = values["size"]
        packed = np.frombuffer(zlib.decompress(base64.b64decode(values["frames"])), "<u2").reshape(2, 3, height, width)
        real = values.get("real_difference")
        return Check((height, width), packed / np.float32(_HALF_RANGE) - 1, values["difference"], values["tolerance"], real)


@dataclass(frozen=True)
class GraphCard:
    """What an exported graph says of itself; see the head of this file."""

    facts: Facts
    inputs: tuple[Port, ...]
    noise: tuple[Port, ...]
    states: tuple[Port, ...]
    check: Check
    hashes: Mapping[str, str]
    version: str

    @property
    def output(self) -> Port:
        """The frame."""
        return Port("frame", "float32", (1, 3, "height", "width"), {"range": [-1, 1]})

    def to_json(self) -> str:
        """The metadata's text."""
        return json.dumps(
            {
                "format": FORMAT,
                "vidgen": self.version,
                "inputs": [port.to_dict() for port in self.inputs],
                "noise": [port.to_dict() for port in self.noise],
                "states": [port.to_dict() for port in self.states],
                "outputs": [self.output.to_dict(), *({"name": f"{STATE_PREFIX}{port.name}"} for port in self.states)],
                "model": self.facts.to_dict(),
                "hashes": dict(self.hashes),
                "check": self.check.to_dict(),
            }
        )

    @staticmethod
    def from_json(text: str, where: str) -> GraphCard:
        """The card of a file's metadata.

        Raises:
            CheckpointError: a later version of vidgen wrote it, or it is damaged.
        """
        try:
            values = json.loads(text)
            version = values["format"]
            if not isinstance(version, int) or version > FORMAT:
                raise CheckpointError(
                    f"{where}: its card is of format {version}; this version of vidgen reads formats up to {FORMAT}"
                )
            if "model" not in values and "kind" in values:
                raise CheckpointError(f"{where}: is a graph of {values['kind']}, which translates nothing")
            ports = {name: tuple(map(Port.from_dict, values[name])) for name in ("inputs", "noise", "states")}
            facts = Facts.from_dict(values["model"], where)
            return GraphCard(
                facts,
                ports["inputs"],
                ports["noise"],
                ports["states"],
                Check.from_dict(values["check"]),
                dict(values["hashes"]),
                values["vidgen"],
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, zlib.error, ConfigError) as error:
            raise CheckpointError(f"{where}: its card is damaged ({error})") from error

    def require_ports(self, inputs: Mapping[str, tuple[int, ...]], where: str) -> None:
        """Compare with what the file really has: name -> shape, free sides as 0.

        Raises:
            CheckpointError: the graph has other inputs than its card says.
        """
        stated = {port.name: port for port in (*self.inputs, *self.noise, *self.states)}
        wrong = sorted(stated.keys() ^ inputs.keys())
        if wrong:
            has = ", ".join(sorted(inputs)) or "none"
            raise CheckpointError(
                f"{where}: its card does not fit its graph; they disagree about the input {wrong[0]} (the graph has {has})"
            )
        for name, port in stated.items():
            free = [0 if isinstance(item, str) else item for item in port.shape]
            if len(free) != len(inputs[name]) or any(a and b and a != b for a, b in zip(free, inputs[name], strict=True)):
                raise CheckpointError(
                    f"{where}: its card gives the input {name} the shape {list(port.shape)}, its graph {list(inputs[name])}"
                )


def read_card(path: Path) -> GraphCard:
    """The card of an exported graph.

    Raises:
        CheckpointError: there is no such file, it is no ONNX file, or it has no card that this version reads.
    """
    try:
        with path.open("rb") as file:
            metadata = dict(_metadata(file))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: is not a complete ONNX file ({error})") from error
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path}: this ONNX file carries no card of vidgen, so its inputs are not known; export the model again"
        )
    return GraphCard.from_json(metadata[METADATA_KEY], str(path))


def _metadata(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Key and value of every metadata property; large fields are skipped by their length."""
    has_graph = False
    for number, length in _fields(file, None):
        if number == _METADATA_FIELD:
            if length > _LARGEST_CARD:
                raise ValueError("its metadata are too large")
            end = file.tell() + length
            pair = {inner: file.read(size).decode() for inner, size in _fields(file, end)}
            yield pair.get(1, ""), pair.get(2, "")
        else:
            has_graph |= number == _GRAPH_FIELD
            file.seek(length, 1)
    if not has_graph:
        raise ValueError("it holds no graph")


def _fields(file: BinaryIO, end: int | None) -> Iterator[tuple[int, int]]:
    """Number and length of each field that has a length; whoever asks for the next has read or skipped the last one."""
    if end is None:
        here = file.tell()
        end = file.seek(0, 2)
        file.seek(here)
    while (here := file.tell()) < end:
        key = _varint(file)
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in (0, 1, 2, 5):
            raise ValueError("it is something else under that name")
        if kind == 2:
            length = _varint(file)
            if file.tell() + length > end:
                raise ValueError("it is cut off")
            yield number, length
        elif kind == 0:
            _varint(file)
        else:
            file.seek(8 if kind == 1 else 4, 1)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError("it is cut off")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("it is something else under that name")


def probe_inputs(inputs: tuple[Port, ...], size: Size, moment: int, *, blocky: bool = True) -> dict[str, np.ndarray]:
    """Inputs that are the same everywhere: random things of an eighth of the frame that move, or noise in every pixel."""
    draw = np.random.RandomState(7)  # its stream is frozen by numpy for good
    height, width = size
    rows, columns = np.arange(height), np.arange(width) + 3 * moment
    tiles = (-(-height // 8), -(-(width + 16) // 8)) if blocky else (height, width + 16)
    step = 8 if blocky else 1
    result = {}
    for port in inputs:
        shape = port.at(size)
        channels = shape[1] if len(shape) == 4 else 1
        low, high = port.about["range"]
        values: np.ndarray
        if not port.per_frame:
            whole = np.random.RandomState(7)
            values = whole.randint(low, high + 1, shape) if port.dtype == "int64" else whole.uniform(low, high, shape)
            result[port.name] = values.astype(port.dtype)
            continue
        if port.dtype == "int64":
            values = draw.randint(low, min(high, low + 1000) + 1, (channels, *tiles))
        else:
            values = draw.uniform(low, high, (channels, *tiles))
        result[port.name] = values[:, (rows // step)[:, None], columns // step].reshape(shape).astype(port.dtype)
    return result


def with_time(inputs: tuple[Port, ...], arrays: Mapping[str, np.ndarray], size: Size) -> dict[str, np.ndarray]:
    """What a graph takes as a session gives it to backends: with an axis of time, but for what a whole video has once."""
    if not inputs:  # a model of noise alone
        return {"frames": np.zeros((1, 1, 0, *size), np.float32)}
    return {port.name: arrays[port.name][:, None] if port.per_frame else arrays[port.name] for port in inputs}


def probe_frames(size: Size) -> np.ndarray:
    """Two frames that are the same everywhere, float32 [2,3,H,W] in -1..1: the known past of `Check`."""
    port = Port("frames", "float32", (1, 3, "height", "width"), {"range": [-1, 1]})
    return np.concatenate([probe_inputs((port,), size, moment)["frames"] for moment in (0, 1)])


def draw_noise(ports: tuple[Port, ...], size: Size, seed: int, frame: int) -> dict[str, np.ndarray]:
    """The noise of a frame: the numbers that torch draws from the same seeds."""
    streams: dict[int, np.random.RandomState] = {}
    result = {}
    for port in ports:
        shape = port.at(size)
        start = frame if port.about["seed"] == "frame" else seed + port.about["offset"]
        # torch and numpy both begin this generator, the Mersenne twister of 1998, from the lower 32 bits of the seed
        stream = streams.setdefault(start, np.random.RandomState(start & 0xFFFFFFFF))
        count = int(np.prod(shape))
        result[port.name] = (
            _uniform(stream, count) if port.about["distribution"] == "uniform" else _normal(stream, count)
        ).reshape(shape)
    return result


def _uniform(stream: np.random.RandomState, count: int) -> np.ndarray:
    return (stream.randint(0, 2**32, count, dtype=np.uint32) & 0xFFFFFF).astype(np.float32) / np.float32(2**24)


def _normal(stream: np.random.RandomState, count: int) -> np.ndarray:
    """Box and Muller as torch does it: fewer than 16 numbers in pairs and in float64, more in blocks of 16, of which the last one
    overlaps the one before."""
    if count < 16:
        words = stream.randint(0, 2**32, (-(-count // 2), 2, 2), dtype=np.uint32).astype(np.uint64)
        uniform = ((words[..., 0] << np.uint64(32) | words[..., 1]) & np.uint64(2**53 - 1)) / 2.0**53
        radius, angle = np.sqrt(-2 * np.log1p(-uniform[:, 1])), 2 * np.pi * uniform[:, 0]
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return pairs.ravel()[:count].astype(np.float32)
    values = _uniform(stream, count)
    whole = values[: len(values) // 16 * 16]
    whole[:] = _box_muller(whole.reshape(-1, 2, 8)).ravel()
    if len(values) % 16:
        values[-16:] = _box_muller(_uniform(stream, 16).reshape(1, 2, 8)).ravel()
    return values[:count]


def _box_muller(pairs: np.ndarray) -> np.ndarray:
    radius = np.sqrt(-2 * np.log(1 - pairs[:, 0]))
    angle = np.float32(2 * np.pi) * pairs[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
