"""The learned network of flow as an exported graph gives torch's flow at any size, and is left where it does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flow.engines import SHIPPED_WEIGHTS, load_network
from flow.network import FlowNetwork
from vidgen.commands.flow import estimate
from vidgen.errors import CheckpointError, ConfigError
from vidgen.inference.backends import choice
from vidgen.inference.backends.graphs import engine_version
from vidgen.inference.flow import BackendFlow, GraphFlow, export_flow, learned_network
from vidgen.inference.graph import read_card
from vidgen.inference.model import Model
from vidgen.media.images import write_png

ENGINES = [name for name in ("onnxruntime", "openvino") if engine_version(name)]
needs_export = pytest.mark.skipif(
    not ENGINES or any(engine_version(name) is None for name in ("onnx", "onnxscript")), reason="the extra export is not installed"
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _pair(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A soft texture, and the same moved by two pixels."""
    torch.manual_seed(0)
    texture = torch.nn.functional.interpolate(torch.rand(1, 3, height // 6 + 3, width // 6 + 3), scale_factor=6.0, mode="bilinear")
    return texture[..., :height, :width] * 2 - 1, texture[..., :height, 2 : width + 2] * 2 - 1


@needs_export
@pytest.mark.slow
@pytest.mark.parametrize(("num_halvings", "sizes"), [(0, ((64, 96), (75, 130), (40, 50))), (1, ((320, 352), (330, 400)))])
def test_the_graph_gives_torchs_flow_at_any_size(num_halvings: int, sizes: tuple[tuple[int, int], ...], tmp_path: Path) -> None:
    written = export_flow(tmp_path / "flow.onnx", num_halvings=num_halvings)
    assert written.difference < 1e-3
    assert written.size_multiple == FlowNetwork.multiple(num_halvings) == 16 << num_halvings
    network = load_network(SHIPPED_WEIGHTS)
    for name in ENGINES:
        graph = GraphFlow(written.path, name, num_halvings)  # type: ignore[arg-type]
        for size in sizes:
            pair = _pair(*size)
            with torch.no_grad():
                expected = network(*pair)
            assert FlowNetwork.halvings(*size) == num_halvings
            assert expected.abs().mean() > 0.5
            assert (graph(*pair) - expected).abs().mean() < 1e-3, (name, size)
    with pytest.raises(CheckpointError, match="is a graph of optical flow, which translates nothing"):
        read_card(written.path)
    with pytest.raises(CheckpointError, match="translates nothing"):
        Model.load(written.path)


@needs_export
@pytest.mark.slow
def test_a_video_on_a_backend_has_the_flow_of_torch_and_says_what_computed_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, image in enumerate(_pair(64, 96)):
        pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
        write_png(tmp_path / f"{number}.png", np.ascontiguousarray(pixels))
    pair = (tmp_path / "0.png", tmp_path / "1.png")
    ours = estimate(*pair, output=tmp_path / "torch.flo", engine="learned")
    assert ours["backend"] == {"backend": "torch", "why": "asked for"}
    for name in ENGINES:
        there = estimate(*pair, output=tmp_path / f"{name}.flo", engine="learned", backend=name)  # type: ignore[arg-type]
        assert there["backend"]["backend"] == name
        assert there["backend"]["why"].startswith("mean difference to torch 0.00")
        flows = [np.fromfile(tmp_path / f"{way}.flo", np.float32, offset=12) for way in ("torch", name)]
        assert np.abs(flows[0] - flows[1]).mean() < 1e-3
    assert len(json.loads(choice.memory_place().read_text())) == len(ENGINES)
    monkeypatch.setattr("vidgen.inference.flow.TOLERANCE", -1.0)
    engine = BackendFlow(ENGINES[0])  # type: ignore[arg-type]
    engine(*_pair(64, 96))
    assert engine.describe()["backend"] == "torch"
    assert "is not used for flow: mean difference to torch" in caplog.text


def test_engines_without_a_network_have_no_backend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`backend` openvino: computes the engine learned, and dis has no network to export"):
        estimate("a.png", "b.png", output=tmp_path / "out.flo", backend="openvino")
    assert learned_network("torch") is None


def test_the_network_computes_the_same_where_it_is_drawn_as_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(SHIPPED_WEIGHTS)
    pair = _pair(320, 352)
    with torch.no_grad():
        eager = network.at_multiples(*pair, 1)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        drawn = network.at_multiples(*pair, 1)
    assert (eager - drawn).abs().max() < 1e-3
