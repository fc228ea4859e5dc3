"""Exported graphs give torch's frames, say all there is to know of themselves, and run without torch."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.exporting import CASES, NUM_LABELS, write_model
from vidgen.commands.export import export
from vidgen.errors import CheckpointError, ConfigError, MissingExtraError, OutputExistsError
from vidgen.inference.backends import choice
from vidgen.inference.backends.graphs import GraphBackend, engine_version
from vidgen.inference.backends.pytorch import TorchBackend
from vidgen.inference.graph import FORMAT, METADATA_KEY, draw_noise, probe_inputs, read_card
from vidgen.inference.model import Model
from vidgen.inference.session import Session
from vidgen.media.frames import open_source
from vidgen.media.images import write_png

REPOSITORY = Path(__file__).resolve().parents[1]
ENGINES = [name for name in ("onnxruntime", "openvino") if engine_version(name)]
needs_export = pytest.mark.skipif(
    not ENGINES or any(engine_version(name) is None for name in ("onnx", "onnxscript")), reason="the extra export is not installed"
)
QUICK = ("pix2pix, ResNet", "singan")  # drawing a graph takes up to a minute


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def inputs_of(model: Model, size: tuple[int, int], moment: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What a session of the model reads of one frame: things that move."""
    rng = np.random.RandomState(5)
    height, width = size
    rows, columns = np.arange(height) // 8, (np.arange(width) + 2 * moment) // 8
    maps = rng.randint(0, NUM_LABELS, (height, width)).astype(np.uint8)[rows[:, None], columns]
    picture = rng.randint(0, 255, (height, width, 3)).astype(np.uint8)[rows[:, None], columns]
    reads = model.condition
    further = {} if reads.instances is None else {"instances": maps}
    if reads.style is not None:
        further["style"] = picture
    if reads.sketch is not None or reads.lines is not None:
        picture = np.full((height, width, 3), 255, np.uint8)
        picture[height // 4 : -height // 4, 4 + moment] = picture[height // 4, 4 + moment : -4] = 0
    return (maps if reads.labels is not None else picture), further


@needs_export
@pytest.mark.parametrize("case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES])
def test_every_translator_runs_in_every_engine_as_in_torch_at_any_size(case: str, tmp_path: Path) -> None:
    model, condition, size = CASES[case]
    weights = write_model(tmp_path / "model.safetensors", model, condition, size)
    written = export(weights, tmp_path / "model.onnx")
    assert written["difference_to_torch"] < 1e-2  # the largest: what rounding fetches from the pixel beside counts too
    for engine in ENGINES:
        there = Model.load(tmp_path / "model.onnx", backend=engine, precision="fp32")  # type: ignore[arg-type]
        here = Model.load(weights, precision="fp32", device="cpu")
        assert there.choice.backend == engine
        assert there.facts == here.facts
        larger = size if there.facts.fixed_size else (size[0] + 5, 2 * size[1])
        for video in {size, larger}:
            named = here.condition.classes.names[1] if here.condition.classes is not None else None
            sessions = [loaded.session(video, seed=3, work_size="input", class_name=named) for loaded in (here, there)]
            for moment in range(3):
                main, further = inputs_of(here, video, moment)
                pictures = [session.step(main, **further).astype(int) for session in sessions]
                assert pictures[0].std() > 1
                limit = (0.1, 0.5, 2)[moment]  # what rounding leaves grows from frame to frame while weights are random
                assert np.abs(pictures[0] - pictures[1]).mean() < limit, (engine, video, moment)


@needs_export
@pytest.mark.parametrize("case", ["vid2vid of poses, two scales", "vid2vid, compact", "vid2vid, compact, with an anchor"])
@pytest.mark.parametrize("num_known", [1, 3])
def test_a_video_that_begins_with_known_frames_goes_on_as_in_torch(case: str, num_known: int, tmp_path: Path) -> None:
    weights = write_model(tmp_path / "model.safetensors", *CASES[case])
    export(weights, tmp_path / "model.onnx")
    here = Model.load(weights, precision="fp32", device="cpu")
    there = Model.load(tmp_path / "model.onnx", backend=ENGINES[0], precision="fp32")  # type: ignore[arg-type]
    known = list(np.random.RandomState(0).randint(0, 255, (num_known, 32, 48, 3)).astype(np.uint8))
    pictures = []
    for model in (here, there):
        session = model.session((32, 48))
        main, further = inputs_of(here, (32, 48), 0)
        session.prime(main, known, **further)
        main, further = inputs_of(here, (32, 48), 1)
        pictures.append(session.step(main, **further).astype(int))
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.05


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights and graph of a small video model."""
    if not ENGINES or engine_version("onnxscript") is None:
        pytest.skip("the extra export is not installed")
    folder = tmp_path_factory.mktemp("compact")
    weights = write_model(folder / "model.safetensors", *CASES["vid2vid, compact"])
    export(weights, folder / "model.onnx")
    return weights, folder / "model.onnx"


def test_the_card_is_enough_to_know_what_goes_in(compact: tuple[Path, Path]) -> None:
    card = read_card(compact[1])
    assert {port.name: port.shape for port in card.inputs} == {
        "labels": (1, "height", "width"),
        "instances": (1, "height", "width"),
    }
    assert {port.name: (port.dtype, port.shape) for port in card.states} == {
        "past_labels": ("int64", (1, 2, "height", "width")),
        "past_instances": ("int64", (1, 2, "height", "width")),
        "generated_0": ("float32", (1, 2, 3, "height", "width")),
        "num_frames": ("int64", (1,)),
    }
    assert card.inputs[0].about["range"] == [-1, NUM_LABELS - 1]
    assert card.facts.table is not None
    assert card.facts.table.num_classes == NUM_LABELS
    assert card.facts.size_multiple == 8
    assert len(card.hashes["weights"]) == 64


def _changed(graph: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a graph with another card."""
    import onnx

    model = onnx.load(str(graph))
    entry = next(item for item in model.metadata_props if item.key == METADATA_KEY)
    card = json.loads(entry.value)
    change(card)
    entry.value = json.dumps(card)
    target.write_bytes(model.SerializeToString())
    return target


def _rename(card: dict[str, Any]) -> None:
    card["inputs"][0]["name"] = "classes"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda card: card.update(format=FORMAT + 1),
            f"is of format {FORMAT + 1}; this version of vidgen reads formats up to {FORMAT}",
        ),
        (lambda card: card.pop("states"), "its card is damaged"),
        (lambda card: card["check"].update(frames="eJw="), "its card is damaged"),
        (_rename, "they disagree about the input classes"),
        (
            lambda card: card["states"][2].update(shape=[1, 2, 4, "height", "width"]),
            "its card gives the input generated_0 the shape",
        ),
    ],
)
def test_a_graph_whose_card_does_not_fit_is_one_clear_line(
    compact: tuple[Path, Path], tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        Model.load(_changed(compact[1], tmp_path / "other.onnx", change))


def test_files_that_are_no_graphs_of_vidgen_are_one_clear_line(compact: tuple[Path, Path], tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "other.onnx"
    model = onnx.load(str(compact[1]))
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="carries no card of vidgen"):
        Model.load(path)
    whole = compact[1].read_bytes()
    for content in (b"", b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n", whole[:1000], whole[:-50]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="is not a complete ONNX file"):
            Model.load(path)
    with pytest.raises(CheckpointError, match="no such file"):
        Model.load(tmp_path / "missing.onnx")


def test_the_file_is_compared_on_real_input_too(compact: tuple[Path, Path], tmp_path: Path) -> None:
    for frame in range(4):
        maps = inputs_of(Model.load(compact[0]), (32, 48), frame)[0]
        write_png(tmp_path / "clip" / f"{frame}.png", maps)
    clip = str(tmp_path / "clip")
    written = export(compact[0], tmp_path / "real.onnx", real=clip, instances=clip)
    assert 0 < written["difference_on_real_input"] < 1e-3
    assert read_card(tmp_path / "real.onnx").check.real_difference == written["difference_on_real_input"]


def test_a_graph_that_gives_other_frames_is_not_kept(
    compact: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidgen.networks import layers

    def wrong(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        normalized = torch.nn.functional.instance_norm(x)
        return normalized * 1.1 if torch.compiler.is_exporting() else normalized

    monkeypatch.setattr(layers.InstanceNorm, "forward", wrong)
    with pytest.raises(ConfigError, match=r"does not give torch's frames: .*% of the values differ"):
        export(compact[0], tmp_path / "wrong.onnx")
    assert list(tmp_path.glob("wrong*")) == []


def test_a_part_that_cannot_be_exported_is_said_by_name(
    compact: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidgen.networks import layers

    def forward(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)

    monkeypatch.setattr(layers.InstanceNorm, "forward", forward)
    with pytest.raises(ConfigError, match=r"vid2vid: cannot be exported to ONNX: .*bessel_j0"):
        export(compact[0], tmp_path / "odd.onnx")


def test_outputs_are_checked_before_any_work(compact: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "there.onnx").write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        export(compact[0], tmp_path / "there.onnx")
    with pytest.raises(ConfigError, match="does not say the format"):
        export(compact[0], tmp_path / "model.tflite")
    with pytest.raises(ConfigError, match="does not say the format"):
        export(compact[0], tmp_path / "model.onnx", form="pt2")
    with pytest.raises(ConfigError, match="is an exported model already"):
        export(compact[1], tmp_path / "again.onnx")


def test_a_library_that_is_missing_comes_with_its_install_line(
    compact: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(MissingExtraError, match="exporting needs onnxscript") as raised:
        export(compact[0], tmp_path / "model.onnx")
    assert raised.value.hint == "pip install 'vidgen-toolkit[export]'"


def test_a_program_of_torch_gives_the_same_frame(compact: tuple[Path, Path], tmp_path: Path) -> None:
    written = export(compact[0], tmp_path / "model.pt2")
    assert written["difference_to_torch"] < 1e-3
    assert (tmp_path / "model.pt2").stat().st_size > 10_000


@pytest.mark.skipif("openvino" not in ENGINES, reason="OpenVINO is not installed")
def test_the_files_of_openvino_run_in_openvino(compact: tuple[Path, Path], tmp_path: Path) -> None:
    import openvino

    export(compact[0], tmp_path / "model.xml")
    model = openvino.Core().read_model(str(tmp_path / "model.xml"))
    card = json.loads(model.get_rt_info([METADATA_KEY]).astype(str))
    assert [port["name"] for port in card["inputs"]] == ["labels", "instances"]
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ours = read_card(compact[1])
    size = ours.check.size
    feeds = {**probe_inputs(ours.inputs, size, 0), **{port.name: port.zeros(size) for port in ours.states}}
    moment = {name: value[:, None] for name, value in probe_inputs(ours.inputs, size, 0).items()}
    expected, _ = GraphBackend(compact[1], ENGINES[0], precision="fp32").step(moment, None, 0)  # type: ignore[arg-type]
    np.testing.assert_allclose(compiled(feeds)["frame"][0], expected, atol=1e-3)


def test_noise_is_that_of_torch_from_the_same_seeds() -> None:
    from vidgen.inference.graph import Port

    uniform = Port("noise_0", "float32", (3, "height/2", "width"), {"distribution": "uniform", "seed": "video", "offset": 2})
    drawn = draw_noise((uniform,), (8, 5), 2**40 + 7, 9)["noise_0"]
    expected = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(2**40 + 9))
    np.testing.assert_array_equal(drawn, expected.numpy())
    ports = tuple(
        Port(name, "float32", shape, {"distribution": "normal", "seed": "frame", "offset": 0})
        for name, shape in (("noise_0", (1, 3, 9, 7)), ("noise_1", (1, 1, 8, 8)), ("noise_2", (1, 7)))
    )
    drawn = draw_noise(ports, (1, 1), 0, 6)
    generator = torch.Generator().manual_seed(6)
    for port in ports:
        expected = torch.randn(*port.at((1, 1)), generator=generator)
        np.testing.assert_allclose(drawn[port.name], expected.numpy(), atol=1e-5)


_NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "vidgen", "flow"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif("onnxruntime" not in ENGINES, reason="ONNX Runtime is not installed")
def test_the_example_runs_the_file_where_neither_torch_nor_vidgen_can_be_imported(
    compact: tuple[Path, Path], tmp_path: Path
) -> None:
    maps = np.stack([inputs_of(Model.load(compact[0]), (32, 48), frame)[0] for frame in range(3)])
    np.save(tmp_path / "labels.npy", maps)
    script = REPOSITORY / "examples" / "run_exported.py"
    command = [
        sys.executable,
        "-c",
        _NO_TORCH,
        str(script),
        str(compact[1]),
        str(tmp_path / "labels.npy"),
        str(tmp_path / "out.npy"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    session = Model.load(compact[0], precision="fp32", device="cpu").session((32, 48))
    frames = np.load(tmp_path / "out.npy")
    assert frames.shape == (3, 32, 48, 3)
    for frame, labels_of_frame in zip(frames, maps, strict=True):
        ours = session.step(labels_of_frame, instances=np.zeros_like(labels_of_frame))
        assert np.abs(ours.astype(int) - frame).mean() < 0.1


def test_the_example_is_twenty_lines_of_code() -> None:
    lines = (REPOSITORY / "examples" / "run_exported.py").read_text().splitlines()
    assert sum(bool(line.strip()) and not line.startswith(("import", '"""')) for line in lines) <= 22


def test_prepared_graphs_lie_in_the_cache(tmp_path: Path) -> None:
    assert choice.graph_place("ab" * 32).is_relative_to(tmp_path / "cache")


# --- which backend runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def prepared(compact: tuple[Path, Path], tmp_path: Path) -> Path:
    """Weights whose graph lies in the cache."""
    place = choice.graph_place(Model.load(compact[0]).sha256)
    place.parent.mkdir(parents=True)
    place.write_bytes(compact[1].read_bytes())
    return compact[0]


def _label_clip(folder: Path, num_frames: int = 4) -> str:
    for frame in range(num_frames):
        rng = np.random.RandomState(5)
        rows, columns = np.arange(32) // 8, (np.arange(48) + 2 * frame) // 8
        write_png(folder / f"{frame}.png", rng.randint(0, NUM_LABELS, (32, 48)).astype(np.uint8)[rows[:, None], columns])
    return str(folder)


def test_auto_takes_torch_where_openvino_is_not_installed_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgen.inference.model.engine_version", lambda name: None)
    monkeypatch.setattr(choice, "has_accelerator", lambda: False)
    weights = write_model(tmp_path / "model.safetensors", *CASES["pix2pix, ResNet"])
    model = Model.load(weights, backend="auto")
    assert model.choice.to_dict() == {
        "backend": "torch",
        "precision": model.choice.precision,
        "why": "OpenVINO is not installed",
    }


@pytest.mark.parametrize(("engine", "extra"), [("openvino", "openvino"), ("onnxruntime", "export")])
def test_a_backend_that_is_missing_comes_with_its_install_line(
    engine: Any, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidgen.inference.backends.graphs.engine_version", lambda name: None)
    weights = write_model(tmp_path / "model.safetensors", *CASES["pix2pix, ResNet"])
    with pytest.raises(MissingExtraError, match="is not installed") as raised:
        Model.load(weights, backend=engine)
    assert raised.value.hint == f"pip install 'vidgen-toolkit[{extra}]'"


def test_graphs_run_on_the_processor_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runs on the processor, not on cuda"):
        Model.load(tmp_path / "any.safetensors", backend="openvino", device="cuda")


def test_auto_prepares_no_graph_for_a_short_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgen.inference.model.engine_version", lambda name: "2026.1")
    monkeypatch.setattr(choice, "has_accelerator", lambda: False)
    weights = write_model(tmp_path / "model.safetensors", *CASES["pix2pix, ResNet"])
    model = Model.load(weights, backend="auto", num_frames=20)
    assert model.choice.backend == "torch"
    assert "the clip is short" in model.choice.why


def test_a_backend_that_gives_other_frames_is_not_taken_and_that_is_said(
    prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = choice.graph_place(Model.load(prepared).sha256)

    def other_frames(card: dict[str, Any]) -> None:
        frames = np.full((2, 3, *card["check"]["size"]), 65000, "<u2")
        card["check"]["frames"] = base64.b64encode(zlib.compress(frames.tobytes())).decode()

    _changed(place, place, other_frames)
    model = Model.load(prepared, backend=ENGINES[-1])  # type: ignore[arg-type]
    assert model.choice.backend == "torch"
    assert "its frames are not those of torch (mean difference to torch" in model.choice.why
    assert "is not used: its frames are not those of torch" in caplog.text
    assert "torch takes its place" in caplog.text
    with pytest.raises(ConfigError, match="no installed backend gives the frames of torch here"):
        Model.load(place)


@pytest.mark.skipif("openvino" not in ENGINES, reason="OpenVINO is not installed")
def test_where_bf16_gives_other_frames_fp32_is_taken_and_that_is_said(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choice.LIMITS, "bf16", 0.0)
    fast = GraphBackend(choice.graph_place(Model.load(prepared).sha256), "openvino")
    model = Model.load(prepared, backend="openvino")
    assert (model.choice.backend, model.choice.precision) == ("openvino", "fp32")
    assert ("since of bf16 it is" in model.choice.why) == (fast.precision == "bf16")
    asked = Model.load(prepared, backend="openvino", precision="bf16")
    assert asked.choice.backend == "torch"
    assert "its frames are not those of torch" in asked.choice.why


def test_a_graph_that_cannot_be_loaded_leaves_torch_in_its_place(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = choice.graph_place(Model.load(prepared).sha256)
    place.write_bytes(place.read_bytes()[:5000])
    model = Model.load(prepared, backend=ENGINES[0])  # type: ignore[arg-type]
    assert model.choice.backend == "torch"
    assert "is not a complete ONNX file" in caplog.text


def test_a_comparison_is_made_once_and_remembered_for_this_processor(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ENGINES[0]
    first = Model.load(prepared, backend=engine)  # type: ignore[arg-type]
    assert first.choice.why.startswith("mean difference to torch 0.00")
    entries = json.loads(choice.memory_place().read_text())
    assert len(entries) == 1
    (key,) = entries
    assert choice.processor() in key
    assert f"{engine} {engine_version(engine)}" in key

    def again(backend: Any) -> None:
        raise AssertionError("it was to be remembered")

    monkeypatch.setattr(choice, "compare", again)
    assert Model.load(prepared, backend=engine).choice.why.endswith("remembered")  # type: ignore[arg-type]
    monkeypatch.setattr(choice, "processor", lambda: "another machine")
    with pytest.raises(AssertionError):
        Model.load(prepared, backend=engine)  # type: ignore[arg-type]
    choice.memory_place().write_text("[1, 2")
    assert choice.remembered() == {}


_WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch was asked for")
sys.meta_path.insert(0, Refuse())
from vidgen.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_translation_on_a_prepared_graph_loads_no_torch_and_gives_its_frames(engine: str, prepared: Path, tmp_path: Path) -> None:
    clip = _label_clip(tmp_path / "clip")
    here = list(Model.load(prepared, device="cpu", precision="fp32").translate(clip, instances=clip))
    command = ["translate", str(prepared), clip, "--instances", clip, "--backend", engine, "--precision", "fp32"]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, *command, "-o", f"{tmp_path / 'out'}/", "--json"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert written["backend"]["backend"] == engine
    assert written["backend"]["precision"] == "fp32"
    assert written["backend"]["why"].startswith("mean difference to torch")
    assert written["frames_per_second"] > 0
    assert written["real_time_factor"] == pytest.approx(written["frames_per_second"] / 25, abs=0.01)
    there = [frame.pixels for frame in open_source(tmp_path / "out")]
    assert len(there) == len(here) == 4
    for ours, theirs, limit in zip(here, there, (0.1, 0.5, 2, 3), strict=True):
        assert np.abs(ours.astype(int) - theirs).mean() < limit


def test_doctor_names_the_backends_and_what_they_were_found_to_give(prepared: Path) -> None:
    from vidgen.commands.doctor import doctor

    Model.load(prepared, backend=ENGINES[0])  # type: ignore[arg-type]
    said = doctor()["backends"]
    assert said["torch"].startswith(torch.__version__)
    assert "compared with torch here: vid2vid" in said[ENGINES[0]]
    assert "the same frames" in said[ENGINES[0]]


def test_an_exported_model_says_what_it_cannot_do(compact: tuple[Path, Path]) -> None:
    model = Model.load(compact[1])
    with pytest.raises(ConfigError, match=r"runs on .*, and this needs torch"):
        model.translator  # noqa: B018


def test_bench_measures_every_installed_backend(prepared: Path) -> None:
    from vidgen.commands.bench import as_text, bench

    result = bench(prepared, sizes=("48x32",), num_frames=2)
    assert {row["backend"] for row in result["rows"]} == {"torch", *ENGINES}
    for row in result["rows"]:
        assert row["ms_per_frame"] > 0
        assert row["difference"] < (1 if row["precision"] == "fp32" else 60)  # random weights make much of rounding
    assert "CPU ms" in as_text(result)
    with pytest.raises(ConfigError, match="expected WxH"):
        bench(prepared, sizes=("large",))


@pytest.mark.parametrize("case", ["pix2pixhd with styles", pytest.param("vid2vid, compact", marks=pytest.mark.slow)])
def test_compiled_steps_give_the_frames_of_plain_ones(case: str, tmp_path: Path) -> None:
    plain = Model.load(write_model(tmp_path / "model.safetensors", *CASES[case]), device="cpu", precision="fp32")
    graphs: list[Any] = []

    def keep(module: Any, examples: Any) -> Any:
        graphs.append(module)
        return module.forward

    compiled = TorchBackend(plain.translator, plain.runtime, compiler=keep)
    sessions = [Session(plain, backend, (32, 48)) for backend in (plain.backend, compiled)]
    counts = []
    for moment in range(6):
        main, further = inputs_of(plain, (32, 48), moment)
        pictures = [session.step(main, **further) for session in sessions]
        assert (pictures[0] == pictures[1]).all()
        counts.append(len(graphs))
    assert 0 < counts[3] == counts[5]  # frames after the first few compile nothing more
    assert compiled.describe().endswith("compiled")


def test_a_network_that_cannot_be_compiled_runs_as_it_is_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = Model.load(write_model(tmp_path / "model.safetensors", *CASES["pix2pix, ResNet"]), device="cpu", precision="fp32")

    def broken(module: Any, examples: Any) -> Any:
        raise RuntimeError("no compiler found")

    session = Session(plain, TorchBackend(plain.translator, plain.runtime, compiler=broken), (32, 48))
    main, _ = inputs_of(plain, (32, 48), 0)
    assert (session.step(main) == plain.session((32, 48)).step(main)).all()
    assert "the network cannot be compiled here" in caplog.text
    with pytest.raises(ConfigError, match="`compiled`: compiles networks in torch"):
        Model.load(tmp_path / "model.safetensors", backend="openvino", compiled=True)
