from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_jaccard_index

from vidgen.errors import CheckpointError, ConfigError, InputError, MissingExtraError
from vidgen.metrics import programs
from vidgen.metrics.segmentation import NO_LABELS, Agreement, Segmenter, accuracy


class Brightness(nn.Module):
    """Scores of three classes: dark, middle, bright."""

    def forward(self, frames: Tensor) -> Tensor:
        gray = frames.mean(dim=1, keepdim=True)
        return torch.cat([0.33 - gray, -(gray - 0.5).abs() + 0.1, gray - 0.67], dim=1)


def frame_of(values: list[list[int]]) -> np.ndarray:
    return np.repeat(np.array(values, dtype=np.uint8)[:, :, None], 3, axis=2)


def segmenter(program, **options) -> Segmenter:
    return Segmenter("net", program, **{"num_classes": 3, **options})


def test_the_class_of_a_pixel_is_that_of_the_largest_score():
    found = segmenter(Brightness()).predict(frame_of([[0, 128], [255, 10]]), (2, 2))
    assert found.tolist() == [[0, 1], [2, 0]]


def test_a_network_of_two_classes_gives_two_scores():
    found = segmenter(lambda frames: Brightness()(frames)[:, ::2]).predict(frame_of([[0, 130], [255, 10]]), (2, 2))
    assert found.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    "answer",
    [
        torch.tensor([[[0, 1], [2, 2]]]),
        torch.tensor([[0, 1], [2, 2]], dtype=torch.uint8),
        np.array([[[0, 1], [2, 2]]], dtype=np.int32),
        {"out": torch.eye(3)[torch.tensor([[[0, 1], [2, 2]]])].permute(0, 3, 1, 2), "aux": None},
        (torch.tensor([[[0, 1], [2, 2]]]), None),
    ],
)
def test_answers_may_be_scores_or_classes_of_any_wrapping(answer):
    found = segmenter(lambda frames: answer).predict(frame_of([[0, 0], [0, 0]]), (2, 2))
    assert found.tolist() == [[0, 1], [2, 2]]
    assert segmenter(lambda frames: answer).predict(frame_of([[0, 0], [0, 0]]), (4, 4))[3].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(("input_range", "expected"), [("unit", 1.0), ("signed", 1.0), ("imagenet", (1 - 0.485) / 0.229)])
def test_the_input_is_scaled_as_asked(input_range, expected):
    seen = []

    def program(frames: Tensor) -> Tensor:
        seen.append(frames)
        return torch.zeros(1, 2, 2, dtype=torch.long)

    segmenter(program, input_range=input_range).predict(frame_of([[255, 0], [0, 0]]), (2, 2))
    assert seen[0].shape == (1, 3, 2, 2)
    assert seen[0][0, 0, 0, 0].item() == pytest.approx(expected)
    assert seen[0][0, 0, 1, 1].item() == pytest.approx({"unit": 0, "signed": -1, "imagenet": -0.485 / 0.229}[input_range])


def test_classes_of_the_network_stand_for_classes_of_the_labels():
    found = segmenter(Brightness(), num_classes=35, classes=[7, 11, 23]).predict(frame_of([[0, 128], [255, 10]]), (2, 2))
    assert found.tolist() == [[7, 11], [23, 7]]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda frames: torch.full((1, 2, 2), 5), "gives class 5, but the label table knows 0..2"),
        (lambda frames: torch.full((1, 2, 2), -1), "gives class -1"),
        (lambda frames: torch.zeros(1, 7), r"gives torch.float32 \[1, 7\]; expected scores"),
        (lambda frames: torch.zeros(1, 1, 2, 2), r"gives torch.float32 \[1, 1, 2, 2\]; expected scores"),
        (lambda frames: torch.full((1, 3, 2, 2), torch.nan), "gives scores that are not finite"),
        (lambda frames: 1 / 0, r"failed on a frame of 2x2 \(ZeroDivisionError"),
        (lambda frames: {}, "failed on a frame"),
    ],
)
def test_an_answer_that_cannot_be_used_is_one_clear_error(program, message):
    with pytest.raises(InputError, match=f"`segmenter` net: {message}"):
        segmenter(program).predict(frame_of([[0, 0], [0, 0]]), (2, 2))


def test_agreement_equals_torchmetrics_and_loops():
    generator = np.random.default_rng(0)
    labels, found = generator.integers(-1, 4, (3, 20, 30)), generator.integers(0, 4, (3, 20, 30))
    agreement = Agreement(6)
    frames = [agreement.add(*pair) for pair in zip(labels, found, strict=True)]
    known = labels >= 0
    ious = []
    for index in range(4):
        both = (labels[known] == index) & (found[known] == index)
        either = (labels[known] == index) | (found[known] == index)
        ious.append(both.sum() / either.sum())
    assert agreement.mean_iou().value == pytest.approx(np.mean(ious))
    theirs = multiclass_jaccard_index(torch.from_numpy(found), torch.from_numpy(labels), 4, ignore_index=-1)
    assert agreement.mean_iou().value == pytest.approx(theirs.item(), rel=1e-6)
    columns = {"pixel_acc": np.array([share for share, _ in frames]), "label_pixels": np.array([float(n) for _, n in frames])}
    assert accuracy(columns, "pixel_acc").value == pytest.approx((labels[known] == found[known]).mean())


def test_label_classes_that_the_network_does_not_know_are_not_counted():
    agreement = Agreement(4, counted=[1, 2])
    share, count = agreement.add(np.array([[0, 1], [2, 3]]), np.array([[1, 1], [1, 2]]))
    assert (share, count) == (0.5, 2)
    assert agreement.mean_iou().value == pytest.approx((0.5 + 0) / 2)


def test_label_maps_without_any_class_have_no_score():
    agreement = Agreement(3)
    share, count = agreement.add(np.full((2, 2), -1), np.zeros((2, 2), dtype=int))
    assert count == 0
    assert agreement.mean_iou().reason == NO_LABELS
    columns = {"pixel_acc": np.array([share]), "label_pixels": np.array([0.0])}
    assert accuracy(columns, "pixel_acc").reason == NO_LABELS


def scripted(path: Path, module: nn.Module) -> Path:
    with pytest.warns(FutureWarning):
        torch.jit.script(module).save(str(path))
    return path


def test_a_torchscript_file_is_run_without_a_warning(tmp_path: Path, recwarn):
    path = scripted(tmp_path / "net.pt", Brightness())
    recwarn.clear()
    program = programs.load_program(str(path), "`segmenter`")
    assert segmenter(program).predict(frame_of([[0, 255]]), (1, 2)).tolist() == [[0, 2]]
    assert not [warning for warning in recwarn if issubclass(warning.category, FutureWarning)]
    assert programs.is_torchscript(path)


def test_a_python_function_of_the_current_folder_is_found(tmp_path: Path, monkeypatch):
    (tmp_path / "my_net.py").write_text("class Nets:\n    def dark(frames):\n        return (frames.mean(dim=1) < 0.5).long()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    program = programs.load_program("my_net:Nets.dark", "`segmenter`")
    assert segmenter(program).predict(frame_of([[0, 255]]), (1, 2)).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("nowhere.pt", ConfigError, "`segmenter` nowhere.pt: no such file"),
        ("no_module_here:net", ConfigError, r"cannot be imported \(ModuleNotFoundError"),
        ("math:sine", ConfigError, r"cannot be imported \(AttributeError"),
        ("math:pi", ConfigError, "is float, not a function"),
        ("a b:c", ConfigError, "no such file"),
    ],
)
def test_a_program_that_is_not_there_is_named(text, error, message):
    with pytest.raises(error, match=message):
        programs.load_program(text, "`segmenter`")


def test_a_file_that_is_no_program_is_refused(tmp_path: Path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "tensors.pt")
    (tmp_path / "text.pt").write_text("hello")
    assert not programs.is_torchscript(tmp_path / "tensors.pt")
    for name in ("tensors.pt", "text.pt"):
        with pytest.raises(CheckpointError, match="not a TorchScript file"):
            programs.load_program(str(tmp_path / name), "`segmenter`")


def test_a_program_cut_short_is_refused(tmp_path: Path):
    path = scripted(tmp_path / "net.pt", Brightness())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="not a TorchScript file"):
        programs.load_program(str(path), "`segmenter`")


def test_onnx_without_its_runtime_says_what_to_install_and_with_it_is_run(tmp_path: Path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not a network")
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="onnxruntime is needed") as caught:
            programs.load_program(str(path), "`segmenter`")
        assert "[onnx]" in (caught.value.hint or "")
    else:
        with pytest.raises(CheckpointError, match="not an ONNX network"):
            programs.load_program(str(path), "`segmenter`")
