"""Export a model as a file that runs without vidgen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from vidgen import durable
from vidgen.commands.inputs import further_inputs
from vidgen.errors import ConfigError
from vidgen.inference.model import GRAPH_SUFFIX, Model, Prefer, export_model, moments

Form = Literal["onnx", "openvino", "pt2"]
SUFFIXES: dict[Form, str] = {"onnx": GRAPH_SUFFIX, "openvino": ".xml", "pt2": ".pt2"}
NUM_REAL_FRAMES = 3


def export(
    model: Path,
    out: Path,
    *,
    form: Form | None = None,
    real: str | None = None,
    further: Sequence[str] = (),
    instances: str | None = None,
    weights: Prefer = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write one step of a model to a file and compare it with torch; see `vidgen.inference.export`.

    Args:
        out: the file; OpenVINO puts its weights beside it, under the suffix .bin.
        form: by the suffix of `out` by default.
        real: an input as for `translate`, on whose first frames the file is compared too.
        further, instances: the model's other inputs for that; see `further_inputs`.

    Raises:
        ConfigError: the form and the suffix do not fit, or the model cannot be exported.
    """
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items()}
    form = form or by_suffix.get(out.suffix.lower())
    if form is None or SUFFIXES[form] != out.suffix.lower():
        needed = ", ".join(f"{suffix} for {name}" for suffix, name in by_suffix.items())
        raise ConfigError(f"{out}: the suffix {out.suffix or '(none)'} does not say the format; expected {needed}")
    if model.suffix.lower() == GRAPH_SUFFIX:
        raise ConfigError(f"{model}: is an exported model already", hint="export the run or weights file that it was made from")
    places = [out, *([out.with_suffix(".bin")] if form == "openvino" else [])]
    durable.check_places([durable.Output(place) for place in places], inputs=[model], overwrite=overwrite)
    loaded = Model.load(model, device="cpu", precision="fp32", weights=weights)
    arrays = []
    if real is not None:
        opened = loaded.open(real, further=further_inputs(loaded, further, instances=instances))
        session = loaded.session(opened.main.size)
        arrays = [moment for _, moment in itertools.islice(moments(session, opened), NUM_REAL_FRAMES)]
    with durable.claim(places, inputs=[model], overwrite=overwrite):
        result = export_model(loaded, out, form=form, real=arrays)
    return {**result, "megabytes": round(sum(Path(file).stat().st_size for file in result["files"]) / 1e6, 1)}
