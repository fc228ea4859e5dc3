"""The learned network of optical flow as an exported graph, for backends other than torch; always in float32."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import vidgen
from flow.engines import SHIPPED_WEIGHTS, Engine, load_network
from flow.network import MIN_SIDE, FlowNetwork
from flow.warp import pad_images
from vidgen import durable
from vidgen.errors import ConfigError, InputError, VidgenError
from vidgen.inference.backends import choice
from vidgen.inference.backends.choice import BackendName
from vidgen.inference.backends.graphs import MAKERS, TITLES, EngineName, default_threads, engine_version, require_engine
from vidgen.inference.export import OPSET, describe_failure, require_libraries
from vidgen.inference.graph import FORMAT, METADATA_KEY

log = logging.getLogger(__name__)

KIND = "optical flow"
TOLERANCE = 0.01
"""Largest mean difference to torch, in pixels, that counts as the same flow."""


@dataclass(frozen=True)
class ExportedFlow:
    """A graph of the network for images that are halved so often.

    Attributes:
        path: of the ONNX file. It takes `first` and `second`, float32 [1,3,H,W] in -1..1, both sides multiples of
            `size_multiple`, and gives `flow`, float32 [1,2,H,W] in pixels.
        difference: mean difference to torch, in pixels.
    """

    path: Path
    num_halvings: int
    size_multiple: int
    difference: float


class _Step(nn.Module):
    def __init__(self, network: FlowNetwork, num_halvings: int) -> None:
        super().__init__()
        self.network, self.num_halvings = network, num_halvings

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.network.at_multiples(first, second, self.num_halvings)


def export_flow(path: Path, *, weights: Path | None = None, num_halvings: int = 0) -> ExportedFlow:
    """Write the network as ONNX, compared with torch before it is kept.

    Args:
        weights: those that are shipped by default.
        num_halvings: how often images are halved first, by their size: `FlowNetwork.halvings`.

    Raises:
        MissingExtraError: a library for exporting is not installed.
        ConfigError: it cannot be exported, or the graph does not give torch's flow; nothing is kept then.
        flow.errors.FlowError: the weights cannot be used.
    """
    require_libraries("onnx")
    place = weights or SHIPPED_WEIGHTS
    network = load_network(place)
    multiple = network.multiple(num_halvings)
    least = -(-MIN_SIDE // multiple)
    size = (least + 1) * multiple, (least + 2) * multiple
    sides = [torch.export.Dim(name[0], min=least, max=65536 // multiple) for name in ("height", "width")]
    free = {2: multiple * sides[0], 3: multiple * sides[1]}
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                _Step(network, num_halvings).eval(),
                (torch.zeros(1, 3, *size), torch.zeros(1, 3, *size)),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                dynamic_shapes={"first": free, "second": free},
                input_names=["first", "second"],
                output_names=["flow"],
                verbose=False,
            )
        except Exception as error:  # whatever the exporter wraps
            raise ConfigError(f"{KIND}: cannot be exported to ONNX: {describe_failure(error)}") from error
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="vidgen-export-") as scratch:
        draft = Path(scratch) / "draft.onnx"
        program.save(str(draft))
        name = next(engine for engine in MAKERS if engine_version(engine))
        difference = flow_difference(GraphFlow(draft, name, num_halvings), network, size, num_halvings)
        if not difference <= TOLERANCE:
            raise ConfigError(f"{KIND}: the exported graph does not give torch's flow; they differ by {difference:.3g} pixels")
        card = {
            "format": FORMAT,
            "vidgen": vidgen.__version__,
            "kind": KIND,
            "inputs": [
                {"name": side, "dtype": "float32", "shape": [1, 3, "height", "width"], "range": [-1, 1]}
                for side in ("first", "second")
            ],
            "outputs": [{"name": "flow", "dtype": "float32", "shape": [1, 2, "height", "width"], "unit": "pixels (dx, dy)"}],
            "size_multiple": multiple,
            "num_halvings": num_halvings,
            "hashes": {"weights": hashlib.sha256(place.read_bytes()).hexdigest()},
            "check": {"difference": difference, "tolerance": TOLERANCE},
        }
        program.model.metadata_props[METADATA_KEY] = json.dumps(card)
        program.save(str(draft))
        durable.write_bytes(path, draft.read_bytes())
    return ExportedFlow(path, num_halvings, multiple, difference)


class GraphFlow:
    """The network as a graph: an engine of flow for images of one number of halvings.

    Raises:
        CheckpointError: the graph cannot be loaded.
    """

    def __init__(
        self, path: Path, name: EngineName, num_halvings: int, *, threads: int | None = None, cache: Path | None = None
    ) -> None:
        self._multiple = FlowNetwork.multiple(num_halvings)
        self._graph = MAKERS[name](path, "fp32", threads or default_threads(), cache)

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See `flow.engines.Engine`."""
        height, width = first.shape[-2:]
        pairs = zip(
            *(pad_images(images.float(), self._multiple, MIN_SIDE).cpu().split(1) for images in (first, second)), strict=True
        )
        flows = [self._graph.run({"first": one.numpy(), "second": other.numpy()})["flow"] for one, other in pairs]
        return torch.from_numpy(np.concatenate(flows)[..., :height, :width].copy()).to(first.device)


class BackendFlow:
    """The learned network on a backend: graphs are exported when images of their size come, kept, and compared with torch here.

    Args:
        backend: openvino or onnxruntime.
        weights: those that are shipped by default.

    Raises:
        MissingExtraError: the backend is not installed.
        flow.errors.FlowError: the weights cannot be used.
    """

    def __init__(self, backend: EngineName, weights: Path | None = None, *, threads: int | None = None) -> None:
        require_engine(backend)
        self._backend, self._weights, self._threads = backend, weights, threads
        self._network = load_network(weights or SHIPPED_WEIGHTS)
        self._sha256 = hashlib.sha256((weights or SHIPPED_WEIGHTS).read_bytes()).hexdigest()
        self._engines: dict[int, Engine] = {}
        self._taken, self._why = "torch", "no images came"

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See `flow.engines.Engine`."""
        num_halvings = FlowNetwork.halvings(first.shape[-2], first.shape[-1])
        if num_halvings not in self._engines:
            self._engines[num_halvings] = self._prepared(num_halvings)
        return self._engines[num_halvings](first, second)

    def describe(self) -> dict[str, str]:
        """What computed the last images, and why."""
        return {"backend": self._taken, "why": self._why}

    def _prepared(self, num_halvings: int) -> Engine:
        place = choice.graph_place(f"{self._sha256[:24]}-flow-{num_halvings}")
        try:
            if not place.is_file():
                log.info("exporting the network of flow for %s; this is done once and takes about a minute", TITLES[self._backend])
                place.parent.mkdir(parents=True, exist_ok=True)
                export_flow(place, weights=self._weights, num_halvings=num_halvings)
            engine = GraphFlow(place, self._backend, num_halvings, threads=self._threads, cache=choice.cache_folder() / "compiled")
            multiple = FlowNetwork.multiple(num_halvings)
            size = max(MIN_SIDE, multiple), max(2 * MIN_SIDE, 2 * multiple)
            key = choice.key_of(f"{self._sha256[:24]} flow {num_halvings}", self._backend, "fp32")
            known = choice.remembered().get(key)
            difference = float(known["difference"]) if isinstance(known, dict) else flow_difference(engine, self._network, size)
            choice.remember(key, {"difference": difference, "kind": KIND})
        except (VidgenError, OSError, RuntimeError) as error:
            self._why = str(error)
        else:
            self._why = f"mean difference to torch {difference:.4f} pixels, limit {TOLERANCE}"
            if difference <= TOLERANCE:
                self._taken = self._backend
                return engine
        self._taken = "torch"
        log.warning("%s is not used for flow: %s; torch takes its place", TITLES[self._backend], self._why)
        return self._network


def learned_network(backend: BackendName, weights: Path | None = None, *, threads: int | None = None) -> BackendFlow | None:
    """The learned network on `backend`; None where torch computes it.

    Raises:
        MissingExtraError: the backend is not installed.
    """
    if backend == "torch" or (backend == "auto" and engine_version("openvino") is None):
        return None
    return BackendFlow("openvino" if backend == "auto" else backend, weights, threads=threads)


def flow_difference(engine: Engine, network: FlowNetwork, size: tuple[int, int], num_halvings: int | None = None) -> float:
    """Mean difference of the flow of a smooth picture that moves by a few pixels, in pixels.

    Args:
        num_halvings: those of the engine, for a size of its multiples; by default what the network takes for the size.
    """
    if min(size) < MIN_SIDE:
        raise InputError(f"images of {size} are too small for the network of flow")
    draw = torch.Generator().manual_seed(7)
    texture = nn.functional.interpolate(
        torch.rand(1, 3, size[0] // 8 + 2, size[1] // 8 + 2, generator=draw), scale_factor=8.0, mode="bilinear"
    )
    first, second = (texture[..., at : at + size[0], at : at + size[1]] * 2 - 1 for at in (0, 3))
    expected = network(first, second) if num_halvings is None else network.at_multiples(first, second, num_halvings)
    return float((engine(first, second) - expected).abs().mean())
