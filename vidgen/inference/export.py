"""One step of a translator as a file of its own: ONNX, OpenVINO or PyTorch's program format, compared with torch before it is kept.

What goes in is what the model reads of one frame (labels as ids, not one-hot), its noise and its state; what comes out is the frame
and the next state. Heights and widths are free multiples of the model's; models of a single image have one size.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import vidgen
from vidgen import durable
from vidgen.errors import ConfigError, MissingExtraError, install_hint
from vidgen.inference.backends.graphs import ENGINES, EngineName, GraphBackend, GraphState, engine_version
from vidgen.inference.facts import Facts
from vidgen.inference.graph import (
    METADATA_KEY,
    STATE_PREFIX,
    Check,
    GraphCard,
    Port,
    draw_noise,
    probe_frames,
    probe_inputs,
    with_time,
)
from vidgen.networks import noise
from vidgen.translators.base import Translator
from vidgen.types import Condition, Input

Form = Literal["onnx", "openvino", "pt2"]
OPSET = 20
TOLERANCE = 1e-3
"""Largest difference to torch in float32, in units of the -1..1 range, that counts as equal."""
FIRST_TOLERANCE = 0.03
"""Largest mean difference of the first frame of a video that begins with nothing."""
OUTLIERS = 1e-3
"""Share of values that may differ by more: rounding may move a label that is fetched along the flow to the pixel beside."""
PROBE_SIDE = 64
"""Frames that are compared are at least this high."""
_LEAST_OF_PROGRAMS = 2
"""Programs of `torch.export` are drawn apart for a coarsest feature of one pixel, so they take sides from twice the multiple on."""
_ROUNDING = 1e-6
"""How far weights and state are moved to see whether a frame hangs on rounding."""
_LARGEST = 2**31 - 2**26
"""Bytes of weights that fit into one ONNX file, which is a protobuf of at most 2 GiB."""

_DTYPES = {"labels": "int64", "instances": "int64", "class_id": "int64"}
_READABLE = ("labels", "instances", "picture", "edges", "sketch", "lines", "styles", "class_id", "style_picture")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        card: of the graph.
        files: path by what it holds.
    """

    card: GraphCard
    files: Mapping[str, Path]


class _Counter(int):
    """A progress buffer of a translator, such as the number of its active scales, as the constant that it is in use."""

    is_meta = False


class _Step(nn.Module):
    """The step as a function of a flat list of tensors: inputs, noise, states."""

    def __init__(self, translator: Translator[Any], plan: _Plan) -> None:
        super().__init__()
        self.translator = translator
        self.plan = plan

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        plan, given = self.plan, iter(tensors)
        moment = {port.name: next(given) for port in plan.inputs}
        drawn = iter([next(given) for _ in plan.noise])
        state = {port.name: next(given) for port in plan.states}
        with noise.given_by(lambda draw: next(drawn)):
            frame, after = self.translator.step(_condition(plan, moment), state)
        return (frame[:, 0].float(), *(after[port.name] for port in plan.states))


@dataclass(frozen=True)
class _Plan:
    facts: Facts
    inputs: tuple[Port, ...]
    noise: tuple[Port, ...]
    states: tuple[Port, ...]

    @property
    def ports(self) -> tuple[Port, ...]:
        return (*self.inputs, *self.noise, *self.states)

    @property
    def output_names(self) -> list[str]:
        return ["frame", *(f"{STATE_PREFIX}{port.name}" for port in self.states)]

    def dynamic_shapes(self, least: int = 1) -> dict[str, Any] | None:
        """For torch.export: sides as multiples of two free numbers, which are at least `least`."""
        if self.facts.fixed_size:
            return None
        multiple = self.facts.size_multiple
        sides = {name: torch.export.Dim(name[0], min=least, max=65536 // multiple) for name in ("height", "width")}
        shapes: list[dict[int, Any]] = []
        for port in self.ports:
            free = {}
            for place, item in enumerate(port.shape):
                if isinstance(item, str):
                    name, _, divisor = item.partition("/")
                    factor = multiple // int(divisor or 1)
                    free[place] = factor * sides[name] if factor > 1 else sides[name]
            shapes.append(free)
        return {"tensors": tuple(shapes)}


def export(
    translator: Translator[Any],
    facts: Facts,
    inputs: Sequence[Input],
    path: Path,
    *,
    form: Form = "onnx",
    hashes: Mapping[str, str] | None = None,
    real: Sequence[Mapping[str, np.ndarray]] = (),
) -> Exported:
    """Write one step of a translator to `path`.

    Args:
        translator: in float32, on the processor.
        inputs: what it declares to read.
        form: onnx; openvino (path.xml with a .bin beside it); pt2, a program of `torch.export`.
        hashes: SHA-256 of its weights ("weights") and pretrained networks.
        real: moments of real input, as `Session.build` gives them, that it is compared on too.

    Raises:
        MissingExtraError: a library for exporting is not installed.
        ConfigError: a part of the translator cannot be exported, or the graph does not give torch's frames; nothing is kept then.
        OutputError: the file cannot be written.
    """
    require_libraries(form)
    size = sum(value.numel() * value.element_size() for value in translator.generator.state_dict().values())
    if size > _LARGEST and form != "pt2":
        raise ConfigError(
            f"{facts.kind}: its {size / 2**30:.1f} GiB of weights do not fit into one ONNX file of at most 2 GiB",
            hint="take the form pt2",
        )
    with torch.inference_mode(False), torch.no_grad(), _counters_fixed(translator), _plain_layout(translator):
        plan = _plan(translator, facts, inputs)
        step = _Step(translator, plan).eval()
        probe = _probe_size(facts, _LEAST_OF_PROGRAMS if form == "pt2" else 1)
        frames = _probe_frames(translator, plan, probe)
        card = GraphCard(
            facts, plan.inputs, plan.noise, plan.states, Check(probe, frames, 0.0, TOLERANCE), hashes or {}, vidgen.__version__
        )
        if form == "pt2":
            return _write_program(step, plan, card, path)
        with tempfile.TemporaryDirectory(prefix="vidgen-export-") as scratch:
            draft = Path(scratch) / "draft.onnx"
            program = _to_onnx(step, plan, facts)
            program.model.metadata_props[METADATA_KEY] = card.to_json()
            program.save(str(draft))
            difference = _differs(draft, step, _moments(plan, probe))
            real_difference = _differs(draft, step, [real]) if real else None
            check = Check(probe, frames, difference, TOLERANCE, real_difference)
            card = GraphCard(facts, plan.inputs, plan.noise, plan.states, check, hashes or {}, vidgen.__version__)
            program.model.metadata_props[METADATA_KEY] = card.to_json()
            program.save(str(draft))
            if form == "openvino":
                return _write_openvino(draft, card, path)
            durable.write_bytes(path, draft.read_bytes())
            return Exported(card, {"graph": path})


def require_libraries(form: Form) -> None:
    """
    Raises:
        MissingExtraError: a library that writes this form is not installed.
    """
    needed = {"onnx": ("onnx", "onnxscript"), "openvino": ("onnx", "onnxscript", "openvino"), "pt2": ()}[form]
    missing = [name for name in needed if engine_version(name) is None]
    if not missing and (form == "pt2" or any(engine_version(name) for name in ENGINES)):
        return
    what = missing[0] if missing else "onnxruntime"
    raise MissingExtraError(
        f"exporting needs {what}, which is not installed", hint=install_hint("openvino" if what == "openvino" else "export")
    )


@contextlib.contextmanager
def _counters_fixed(translator: nn.Module) -> Iterator[None]:
    """Whole numbers among the buffers are plain numbers within, so that what depends on them is settled when a graph is drawn."""
    taken: list[tuple[nn.Module, str, Tensor]] = []
    try:
        for module in translator.modules():
            for name, value in list(module._buffers.items()):
                if value is not None and value.ndim == 0 and not value.is_floating_point():
                    taken.append((module, name, value))
                    del module._buffers[name]
                    module.__dict__[name] = _Counter(value)
        yield
    finally:
        for module, name, value in taken:
            module.__dict__.pop(name, None)
            module._buffers[name] = value


@contextlib.contextmanager
def _plain_layout(translator: nn.Module) -> Iterator[None]:
    """Weights in the standard layout within: with channels last, programs would only take frames whose coarsest features are wider
    than one pixel, since the layout of a single one cannot be told.
    """
    try:
        translator.to(memory_format=torch.contiguous_format)
        yield
    finally:
        translator.to(memory_format=torch.channels_last)


def _plan(translator: Translator[Any], facts: Facts, inputs: Sequence[Input]) -> _Plan:
    ports: list[Port] = []
    for item in inputs:
        if item.when == "training" or item.kind == "noise" or not item.channels:
            continue  # the noise itself goes into a graph, not its seed
        if item.kind not in _READABLE:
            raise ConfigError(f"{facts.kind}: its input {item.name} ({item.kind}) cannot be part of an exported graph")
        known = {port.name: port for port in ports}
        ports = [port for port in ports if port.name != item.name]
        ports.append(_input_port(item, known.get(item.name), facts))
    plan = _Plan(facts, tuple(ports), (), ())
    first, larger = _trace_sizes(facts)
    states = [(translator.first_state(size), size) for size in (first, larger)]
    state_ports = tuple(
        Port(name, _dtype(value), _symbolic(value.shape, states[1][0][name].shape, first, larger), {"kind": "state"})
        for name, value in states[0][0].items()
    )
    plan = _Plan(facts, tuple(ports), (), state_ports)
    draws = [_draws(translator, plan, size) for size in (first, larger)]
    noise_ports = tuple(
        Port(
            f"noise_{index}",
            "float32",
            _symbolic(small.shape, large.shape, first, larger),
            {"kind": "noise", "distribution": small.distribution, "seed": small.seed, "offset": small.offset},
        )
        for index, (small, large) in enumerate(zip(*draws, strict=True))
    )
    return _Plan(facts, tuple(ports), noise_ports, state_ports)


def _input_port(item: Input, other: Port | None, facts: Facts) -> Port:
    dtype = _DTYPES.get(item.kind, "float32")
    last = item.channels - 1
    limits = {"labels": [-1, last], "instances": [0, 2**31 - 1], "class_id": [0, last]}.get(item.kind, [-1, 1])
    if not item.per_frame:
        style = facts.condition.style if item.kind == "style_picture" else None
        shape = (1,) if style is None else (1, item.channels, style.size, style.size)
        return Port(item.name, dtype, shape, {"kind": item.kind, "range": limits, "per_frame": False})
    if dtype == "int64":
        return Port(item.name, dtype, (1, "height", "width"), {"kind": item.kind, "range": limits})
    before = 0 if other is None else int(other.shape[1])  # pictures and edges share the channels of one tensor
    return Port(item.name, dtype, (1, before + item.channels, "height", "width"), {"kind": item.kind, "range": limits})


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _trace_sizes(facts: Facts) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two sizes at which shapes are compared; the first is the one that graphs are drawn at."""
    if facts.fixed_size:
        return facts.size, facts.size
    multiple = facts.size_multiple * max(1, -(-16 // facts.size_multiple))
    return (2 * multiple, 3 * multiple), (4 * multiple, 9 * multiple)


def _symbolic(
    shape: Sequence[int], larger: Sequence[int], size: tuple[int, int], large_size: tuple[int, int]
) -> tuple[int | str, ...]:
    """Shapes at two sizes as one rule; heights grow twofold from one to the other, widths threefold."""
    result: list[int | str] = []
    for small, large in zip(shape, larger, strict=True):
        if small == large:
            result.append(int(small))
            continue
        side, name = (0, "height") if large == 2 * small else (1, "width")
        divisor = size[side] // small
        if large * divisor != large_size[side]:
            raise ConfigError(f"a tensor of side {small} for frames of {size}, {large} for {large_size}, cannot be exported")
        result.append(name if divisor == 1 else f"{name}/{divisor}")
    return tuple(result)


def _draws(translator: Translator[Any], plan: _Plan, size: tuple[int, int]) -> list[noise.Draw]:
    """What noise a step asks for."""
    asked: list[noise.Draw] = []

    def answer(draw: noise.Draw) -> Tensor:
        asked.append(draw)
        return torch.zeros(draw.shape)

    arrays = probe_inputs(plan.inputs, size, 0)
    with noise.given_by(answer):
        translator.step(_condition(plan, arrays), {port.name: _tensor(port.zeros(size)) for port in plan.states})
    return asked


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _condition(plan: _Plan, given: Mapping[str, Any]) -> Condition:
    """Of one moment; `given`, tensors or arrays, are as the graph takes them."""
    tensors = {name: value if isinstance(value, Tensor) else _tensor(value) for name, value in given.items()}
    moment = {port.name: tensors[port.name].unsqueeze(1) if port.per_frame else tensors[port.name] for port in plan.inputs}
    if not plan.inputs:
        moment = {"frames": torch.zeros(1, 1, 0, *plan.facts.size)}
    return Condition(whole_video=("noise",), **moment, noise=torch.zeros(1, dtype=torch.int64))


def _probe_size(facts: Facts, least: int) -> tuple[int, int]:
    """Of the frames that are compared; sides are at least `least` times the model's multiple."""
    if facts.fixed_size:
        return facts.size
    rows = max(least, -(-PROBE_SIDE // facts.size_multiple))
    return rows * facts.size_multiple, (rows + 1) * facts.size_multiple


def _moments(plan: _Plan, probe: tuple[int, int]) -> list[list[Mapping[str, np.ndarray]]]:
    """Two short videos: blocks, and noise at another size."""
    if plan.facts.fixed_size:
        return [[{}, {}, {}]]
    other = probe[0] + plan.facts.size_multiple, probe[1]
    return [
        [probe_inputs(plan.inputs, probe, moment) for moment in range(3)],
        [probe_inputs(plan.inputs, other, moment, blocky=False) for moment in range(3)],
    ]


def _probe_frames(translator: Translator[Any], plan: _Plan, size: tuple[int, int]) -> np.ndarray:
    """The frames of the card's check [2,3,H,W]: after known ones, since the first frame from nothing may hang on rounding."""
    moments = [probe_inputs(plan.inputs, size, moment) for moment in range(2)]
    known = torch.from_numpy(probe_frames(size))
    past = translator.prime(_condition(plan, moments[0]).repeat(len(known)), known[None]) if plan.states else None
    return _reference(translator, plan, moments, past)


def _reference(
    translator: Translator[Any], plan: _Plan, moments: Sequence[Mapping[str, np.ndarray]], carry: Any = None
) -> np.ndarray:
    """Frames of `translate` [N,3,H,W]."""
    frames = []
    for arrays in moments:
        output, carry = translator.translate(_condition(plan, arrays), carry)
        frames.append(output.frames[0, 0].float())
    return torch.stack(frames).numpy()


def _to_onnx(step: _Step, plan: _Plan, facts: Facts) -> Any:
    arguments = _arguments(plan, _trace_sizes(facts)[0])
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return torch.onnx.export(
                step,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                dynamic_shapes=plan.dynamic_shapes(),
                input_names=[port.name for port in plan.ports],
                output_names=plan.output_names,
                verbose=False,
            )
        except Exception as error:  # the exporter wraps whatever the translator's code raises
            raise ConfigError(f"{facts.kind}: cannot be exported to ONNX: {describe_failure(error)}") from error


def _arguments(plan: _Plan, size: tuple[int, int]) -> tuple[Tensor, ...]:
    inputs = probe_inputs(plan.inputs, size, 0)
    return tuple(_tensor(inputs[port.name] if port.name in inputs else port.zeros(size)) for port in plan.ports)


def describe_failure(error: BaseException) -> str:
    """The innermost cause in one line; operators are named in it."""
    cause: BaseException = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{lines[0][:300] if lines else type(cause).__name__}"


def _differs(draft: Path, step: _Step, videos: Sequence[Sequence[Mapping[str, np.ndarray]]]) -> float:
    """The largest difference of one step to torch, each step from torch's own state.

    Of a video that begins with nothing the first frame is judged by its mean: features of an empty past are nothing but rounding,
    and published models normalize them. Steps in which torch's own frame hangs on rounding altogether are left out.

    Raises:
        ConfigError: too many values differ by more than the tolerance, or no step says anything.
    """
    name: EngineName = next(item for item in ("onnxruntime", "openvino") if engine_version(item))
    translator, plan = step.translator, step.plan
    backend, worst, conclusive = GraphBackend(draft, name, precision="fp32"), 0.0, 0
    for video in videos:
        size = next(iter(video[0].values())).shape[-2:] if video[0] else plan.facts.size
        expected = _reference(translator, plan, [_as_graph_takes(moment) for moment in video])
        state = {port.name: _tensor(port.zeros(size)) for port in plan.states}
        for index, moment in enumerate(video):
            arrays = _as_graph_takes(moment)
            before = GraphState({key: value.numpy() for key, value in state.items()}, index)
            frame, _ = backend.step(with_time(plan.inputs, arrays, size), before, 0)
            distance = np.abs(frame - expected[index])
            from_nothing = bool(plan.states) and index == 0
            beyond = float((~(distance <= TOLERANCE)).mean())
            differs = not distance.mean() <= FIRST_TOLERANCE if from_nothing else beyond > OUTLIERS
            after = _stepped(translator, plan, arrays, state)
            if differs and not _hangs_on_rounding(step, arrays, draw_noise(plan.noise, size, 0, index), state):
                raise ConfigError(
                    f"{plan.facts.kind}: the exported graph does not give torch's frames: {beyond:.1%} of the values differ by "
                    f"more than {TOLERANCE}, the largest by {np.nanmax(distance):.3g}"
                )
            if not differs and not from_nothing:
                worst, conclusive = max(worst, float(distance.max())), conclusive + 1
            state = after[1]
    if not conclusive:
        raise ConfigError(f"{plan.facts.kind}: cannot be compared with torch, whose own frames hang on rounding alone")
    return worst


def _stepped(
    translator: Translator[Any], plan: _Plan, arrays: Mapping[str, np.ndarray], state: Mapping[str, Tensor]
) -> tuple[np.ndarray, dict[str, Tensor]]:
    frame, after = translator.step(_condition(plan, arrays), state)
    return frame[0, 0].float().numpy(), after


def _hangs_on_rounding(
    step: _Step, arrays: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray], state: Mapping[str, Tensor]
) -> bool:
    """Whether torch's own frame moves by more than the tolerance when weights and state move by about what rounding moves them."""
    draw = torch.Generator().manual_seed(0)

    def moved(value: Tensor) -> Tensor:
        return value * (1 + _ROUNDING * torch.randn(value.shape, generator=draw)) if value.is_floating_point() else value

    plan = step.plan
    given = {**{name: _tensor(value) for name, value in {**arrays, **drawn}.items()}, **state}
    tensors = tuple(given[port.name] for port in plan.ports)
    others = tuple(given[port.name] + _ROUNDING if port.dtype == "float32" else given[port.name] for port in plan.ports)
    weights = {name: moved(value) for name, value in step.named_parameters()}
    distance = (torch.func.functional_call(step, weights, others)[0] - step(*tensors)[0]).abs()
    return bool((distance > TOLERANCE).float().mean() > OUTLIERS)


def _as_graph_takes(moment: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Without the axis of time, where a session's array has one."""
    ranks = {"labels": 3, "instances": 3, "class_id": 1}
    return {name: value[:, 0] if value.ndim > ranks.get(name, 4) else value for name, value in moment.items()}


def _write_program(step: _Step, plan: _Plan, card: GraphCard, path: Path) -> Exported:
    """A program of `torch.export`: its frames are compared by running it."""
    size = _trace_sizes(plan.facts)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(
                step, _arguments(plan, size), dynamic_shapes=plan.dynamic_shapes(_LEAST_OF_PROGRAMS), strict=False
            )
        except Exception as error:
            raise ConfigError(f"{plan.facts.kind}: cannot be exported: {describe_failure(error)}") from error
        probe = card.check.size
        arrays = probe_inputs(plan.inputs, probe, 0)
        state = {port.name: _tensor(port.zeros(probe)) for port in plan.states}
        _, state = _stepped(step.translator, plan, arrays, state)
        expected, _ = _stepped(step.translator, plan, arrays, state)
        given = {**arrays, **draw_noise(plan.noise, probe, 0, 0), **{name: value.numpy() for name, value in state.items()}}
        try:
            frame = program.module()(*(_tensor(given[port.name]) for port in plan.ports))[0][0].numpy()
        except Exception as error:  # what it takes for granted of its inputs is asserted in many ways
            size_text = f"{probe[1]}x{probe[0]}"
            raise ConfigError(
                f"{plan.facts.kind}: the exported program does not take frames of {size_text}: {describe_failure(error)}"
            ) from error
        difference = float(np.abs(frame - expected).max())
        if not difference <= TOLERANCE:
            raise ConfigError(
                f"{plan.facts.kind}: the exported program does not give torch's frames; they differ by {difference:.3g}"
            )
        card = GraphCard(
            card.facts,
            card.inputs,
            card.noise,
            card.states,
            Check(probe, card.check.frames, difference, TOLERANCE),
            card.hashes,
            card.version,
        )
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={f"{METADATA_KEY}.json": card.to_json()})
    durable.write_bytes(path, buffer.getvalue())
    return Exported(card, {"program": path})


def _write_openvino(draft: Path, card: GraphCard, path: Path) -> Exported:
    """OpenVINO's own pair of files, from the compared ONNX graph; the card lies in their runtime information."""
    import openvino

    try:
        model = openvino.Core().read_model(str(draft))  # its converter in Python would report its use to its makers
    except RuntimeError as error:
        raise ConfigError(f"{card.facts.kind}: OpenVINO cannot convert the graph: {describe_failure(error)}") from error
    model.set_rt_info(card.to_json(), [METADATA_KEY])
    place = draft.with_suffix(".xml")
    openvino.save_model(model, str(place), compress_to_fp16=False)
    weights = path.with_suffix(".bin")
    durable.write_bytes(weights, place.with_suffix(".bin").read_bytes())
    durable.write_bytes(path, place.read_bytes())
    return Exported(card, {"graph": path, "weights": weights})
