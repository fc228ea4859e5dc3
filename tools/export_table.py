"""Every translator as a file that runs elsewhere: how far each form, in each engine, is from PyTorch in float32.

    python tools/export_table.py                       # all of them, some minutes
    python tools/export_table.py "vid2vid" singan      # these
    python tools/export_table.py --markdown            # as docs/recipes/real-time.md holds it

Small untrained models of every translator and kind of generator, the included trained model, and the network of optical flow.
Differences are in units of the -1..1 range (flow: pixels): "step" is the largest of single steps from the same state, the others
are means of two frames, which is what decides whether a backend is used. What cannot be exported is named with its reason.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flow.engines import SHIPPED_WEIGHTS, load_network
from flow.network import MIN_SIDE
from tests.exporting import CASES, write_model
from vidgen.commands.export import export
from vidgen.errors import VidgenError
from vidgen.inference.backends import choice
from vidgen.inference.backends.graphs import ENGINES, GraphBackend, engine_version
from vidgen.inference.flow import GraphFlow, export_flow, flow_difference

COLUMNS = ("model", "megabytes", "step", "onnxruntime fp32", "openvino fp32", "openvino bf16", "OpenVINO file", "pt2")
FLOWS = {"optical flow, up to 319 pixels": 0, "optical flow, up to 639 pixels": 1}
INCLUDED = "street-world (included, trained)"


def row_of(name: str, weights: Path, folder: Path) -> dict[str, Any]:
    """One model in all forms and engines."""
    graph = folder / "model.onnx"
    row: dict[str, Any] = {"model": name}
    written = _tried(lambda: export(weights, graph))
    if isinstance(written, str):
        return {**row, "step": written}
    row |= {"megabytes": written["megabytes"], "step": _shown(written["difference_to_torch"])}
    for engine, precision in (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")):
        row[f"{engine} {precision}"] = _compared(graph, engine, precision)
    row["OpenVINO file"] = _tried(lambda: _openvino_file(weights, folder / "model.xml"))
    row["pt2"] = _tried(lambda: _shown(export(weights, folder / "model.pt2")["difference_to_torch"]))
    return row


def _compared(graph: Path, engine: Any, precision: Any) -> str:
    if engine_version(engine) is None:
        return "not installed"
    return _tried(lambda: _shown(choice.compare(GraphBackend(graph, engine, precision=precision, threads=1)).difference))


def _openvino_file(weights: Path, path: Path) -> str:
    """Whether OpenVINO loads the pair of files, and finds the card in them."""
    export(weights, path)
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    core.compile_model(model, "CPU")
    card = json.loads(str(model.get_rt_info(["vidgen"]).astype(str)))
    return f"loaded, {len(card['inputs'])} inputs, {len(card['states'])} states"


def _tried(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # a table says what failed, and goes on
        return f"no: {type(error).__name__ if not isinstance(error, VidgenError) else ''} {error}".replace("no:  ", "no: ")


def _shown(difference: float) -> str:
    return f"{difference:.1e}"


def flow_row(name: str, num_halvings: int, folder: Path) -> dict[str, Any]:
    """The network of optical flow, for images that are halved so often first."""
    path = folder / "flow.onnx"
    row: dict[str, Any] = {"model": name}
    written = _tried(lambda: export_flow(path, num_halvings=num_halvings))
    if isinstance(written, str):
        return {**row, "step": written}
    network = load_network(SHIPPED_WEIGHTS)
    multiple = written.size_multiple
    size = max(MIN_SIDE, multiple), max(2 * MIN_SIDE, 2 * multiple)
    row |= {"megabytes": round(path.stat().st_size / 1e6, 1), "step": _shown(written.difference)}
    for engine in ENGINES:
        if engine_version(engine) is not None:
            row[f"{engine} fp32"] = _tried(
                lambda engine=engine: _shown(flow_difference(GraphFlow(path, engine, num_halvings), network, size, num_halvings))
            )
    return row


def _models(folder: Path) -> Mapping[str, Callable[[], Path]]:
    made = {
        name: (lambda case=case, index=index: write_model(folder / f"{index}.safetensors", *case))
        for index, (name, case) in enumerate(CASES.items())
    }
    return {**made, INCLUDED: lambda: Path("street-world")}


@click.command()
@click.argument("names", nargs=-1)
@click.option("--markdown", is_flag=True, help="A table for the documentation; otherwise a line of JSON for each model.")
def main(names: tuple[str, ...], markdown: bool) -> None:
    """Export, load, compare and print."""
    with tempfile.TemporaryDirectory(prefix="vidgen-table-") as scratch:
        folder = Path(scratch)
        models = _models(folder)
        known = (*models, *FLOWS)
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            raise click.UsageError(f"{unknown}: no such model; there are {'; '.join(known)}")
        if markdown:
            print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for index, name in enumerate(names or known):
            place = folder / f"files-{index}"
            place.mkdir()
            row = row_of(name, models[name](), place) if name in models else flow_row(name, FLOWS[name], place)
            line = f"| {' | '.join(str(row.get(column, '')) for column in COLUMNS)} |" if markdown else json.dumps(row)
            print(line, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in good order removes the temporary folders
    main()
