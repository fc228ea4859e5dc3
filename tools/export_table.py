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
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.exporting import CASES, write_model
from vidgen.commands.export import export
from vidgen.errors import VidgenError
from vidgen.inference.backends import choice
from vidgen.inference.backends.graphs import GraphBackend, engine_version

COLUMNS = ("model", "megabytes", "step", "onnxruntime fp32", "openvino fp32", "openvino bf16", "OpenVINO file", "pt2")
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
    except VidgenError as error:
        return f"no: {error}"


def _shown(difference: float) -> str:
    return f"{difference:.1e}"


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
        unknown = next((name for name in names if name not in models), None)
        if unknown is not None:
            raise click.UsageError(f"{unknown}: no such model; there are {', '.join(models)}")
        if markdown:
            print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for index, name in enumerate(names or models):
            place = folder / f"files-{index}"
            place.mkdir()
            row = row_of(name, models[name](), place)
            line = f"| {' | '.join(str(row.get(column, '')) for column in COLUMNS)} |" if markdown else json.dumps(row)
            print(line, flush=True)


if __name__ == "__main__":
    main()
